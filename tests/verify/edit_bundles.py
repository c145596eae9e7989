"""A bundle of the task ``edit`` with the proof of its whole task; its graphs are no ONNX, PyTorch runs."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from anyport.bundle import (
    FORMAT,
    GraphEntry,
    Manifest,
    ModelFacts,
    PartEntry,
    Proof,
    ProofTolerance,
    Provenance,
    VariantEntry,
    decode_manifest,
    seal_bundle,
    write_proof,
)
from anyport.bundle.task_proof import write_task_proof
from anyport.task.rehearsals import TaskAnswer, TaskRequest
from anyport.verify.whole_task import proof_of_task
from tests.task import qwen_edit
from tests.task.qwen_edit import Case, TorchPart

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from anyport.bundle import GraphFile

_AREA = 96 * 96
CASES = {
    "red": Case("f", "make it red", "blurry", 4.0, (64, 48), 3, _AREA),
    "blue": Case("f", "turn all to blue", "blurry", 4.0, (64, 48), 3, _AREA),
}


@cache
def recorded() -> tuple[tuple[TaskRequest, TaskAnswer], ...]:
    """Return requests and what diffusers' pipeline answers them."""
    return tuple((_request(name, case), TaskAnswer(qwen_edit.expected(case))) for name, case in CASES.items())


def _request(name: str, case: Case) -> TaskRequest:
    words = {
        "instruction": case.prompt,
        "negative": case.negative or "",
        "guidance": case.guidance,
        "steps": case.steps,
        "width": case.size[0],
        "height": case.size[1],
        "vae_area": case.vae_area,
    }
    pictures = [np.asarray(picture) for picture in qwen_edit.pictures_of(case)]
    return TaskRequest(name, words, pictures, {"latents": case.latents})


def _manifest() -> Manifest:
    signatures = {part: qwen_edit.signature(part) for part in qwen_edit.FORMS}
    parts = {
        name: PartEntry(
            {spec.name: str(spec) for spec in one.inputs},
            {spec.name: str(spec) for spec in one.outputs},
            {axis: str(sizes) for axis, sizes in one.dims.items()},
        )
        for name, one in signatures.items()
    }
    graphs = {
        p: GraphEntry(f"parts/{p}/fp32/model.onnx", None, None, 20, 1, {"Add": 1}, 0) for p in signatures
    }
    return Manifest(
        format=FORMAT,
        model=ModelFacts("edit", "1.0.0"),
        task="edit",
        settings=qwen_edit.settings(),
        parts=parts,
        variants={"fp32": VariantEntry(graphs, [], proven=True)},
        default_variant="fp32",
        provenance=Provenance("Tiny-Edit", "anyport build", {}, "x86_64", "3.11"),
        files=[],
    )


def edit_bundle(folder: Path) -> Path:
    """Build ``edit.port`` in a folder."""
    place = folder / "edit.port"
    for part in qwen_edit.FORMS:
        (place / "parts" / part / "fp32").mkdir(parents=True)
        (place / "parts" / part / "fp32" / "model.onnx").write_bytes(b"graph")
    (place / "assets").mkdir()
    (place / "assets" / "tokenizer.json").write_bytes(qwen_edit.tokenizer_json())
    write_proof(place, Proof({}, ProofTolerance(8.0, 4.0), []), {})
    write_task_proof(place, *proof_of_task("edit", recorded()))
    seal_bundle(place, _manifest())
    return place


def open_part(graph: GraphFile) -> Any:
    """Open a graph of it."""
    return TorchPart(graph.part_name, qwen_edit.TINY)


def forge(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change ``proof/task.json``, and seal anew as a forger would."""
    tree = msgspec.json.decode((folder / "proof" / "task.json").read_bytes())
    change(tree)
    (folder / "proof" / "task.json").write_bytes(msgspec.json.encode(tree))
    seal_again(folder)


def seal_again(folder: Path) -> None:
    """Seal a folder whose files were exchanged."""
    said = decode_manifest((folder / "manifest.json").read_bytes())
    seal_bundle(folder, msgspec.structs.replace(said, files=[]))
