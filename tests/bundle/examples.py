"""A small bundle with everything that a bundle can have; its graph is no ONNX, since no one runs it here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from anyport.bundle import (
    FORMAT,
    GraphEntry,
    Manifest,
    ModelFacts,
    PartEntry,
    Proof,
    ProofCase,
    ProofTolerance,
    Provenance,
    RecordedFloor,
    Step,
    TensorFileWriter,
    VariantEntry,
    seal_bundle,
    write_proof,
)
from anyport.bundle.manifest import seal_text
from anyport.cases import Normal, Stored

if TYPE_CHECKING:
    from pathlib import Path

PLACE = "parts/network/fp32"
WEIGHTS = np.arange(20, dtype=np.float32).reshape(10, 2)


def make_manifest() -> Manifest:
    graph = GraphEntry(
        file=f"{PLACE}/model.onnx",
        weights=f"{PLACE}/weights.safetensors",
        modules=f"{PLACE}/modules.json",
        opset=20,
        n_nodes=2,
        operators={"Gemm": 1, "Add": 1},
        n_parameters=20,
        stored={"float32": 80},
    )
    return Manifest(
        format=FORMAT,
        model=ModelFacts(name="tiny", version="1.0.0", license="Apache-2.0", created="2026-11-20T10:00:00Z"),
        task="classify",
        settings={"labels": ["zero", "één"], "mean": [0.5], "crop": None},
        parts={
            "network": PartEntry(
                inputs={"x": "float32[batch, 2]"},
                outputs={"y": "float32[batch, 10]"},
                dims={"batch": "1..64"},
            )
        },
        variants={
            "fp32": VariantEntry({"network": graph}, [Step("export", {"opset": 20}, "2 nodes")], proven=True)
        },
        default_variant="fp32",
        provenance=Provenance(
            "model.py:load", "anyport build .", {"torch": "2.13.0", "onnx": "1.20"}, "x86_64", "3.11.7"
        ),
        files=[],
    )


def make_proof() -> tuple[Proof, dict[str, np.ndarray]]:
    floors = {"y": RecordedFloor(1e-6, 2e-7, "float32 against float64")}
    cases = [
        ProofCase("given 1", "typical", {"batch": 1}, {"x": Stored("x1")}, {"y": "y1"}, floors),
        ProofCase("batch=3", "random", {"batch": 3}, {"x": Normal(seed=7)}, {"y": "y3"}, floors),
    ]
    arrays = {
        "x1": np.ones((1, 2), np.float32),
        "y1": np.zeros((1, 10), np.float32),
        "y3": np.arange(30, dtype=np.float32).reshape(3, 10),
    }
    return Proof({"network": cases}, ProofTolerance(8.0, 4.0), ["network: batch=64"]), arrays


def fill_folder(folder: Path) -> None:
    """Write everything but the manifest and the seal into an empty folder."""
    place = folder / PLACE
    place.mkdir(parents=True)
    (place / "model.onnx").write_bytes(bytes(range(200)))
    (place / "modules.json").write_text("{}\n")
    with TensorFileWriter(place / "weights.safetensors", [("w", "F32", WEIGHTS.shape)]) as writer:
        writer.write("w", WEIGHTS)
    (folder / "assets").mkdir()
    (folder / "assets" / "vocab.txt").write_text("a\nb\n")
    (folder / "MODEL_CARD.md").write_text("---\nlicense: Apache-2.0\n---\n")
    write_proof(folder, *make_proof())


def make_bundle(folder: Path) -> Path:
    """Make a sealed bundle at ``folder``, which does not exist yet."""
    folder.mkdir()
    fill_folder(folder)
    seal_bundle(folder, make_manifest())
    return folder


def reseal(folder: Path, content: bytes) -> None:
    """Put another manifest into a bundle, with the seal that belongs to it, as a forger would."""
    (folder / "manifest.json").write_bytes(content)
    (folder / "SEAL").write_bytes(seal_text(content))


def files_of(folder: Path) -> dict[str, Any]:
    """Return relative path -> content of everything below a folder."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
