"""Bundles with a lossy variant, whose graphs are no ONNX: a function answers for each variant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

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
    VariantEntry,
    decode_manifest,
    seal_bundle,
    write_proof,
)
from anyport.cases import Normal, make_array
from anyport.verify import Evaluated, evaluate, write_evaluated
from tests.verify.lossy_examples import SIGNATURE, exact, noisy, recording

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np

    from anyport.bundle import GraphFile, MetricEntry
    from tests.verify.fakes import FunctionSession

ISA = ("avx2", "avx512_vnni")
PART = PartEntry(
    {spec.name: str(spec) for spec in SIGNATURE.inputs},
    {spec.name: str(spec) for spec in SIGNATURE.outputs},
    {name: str(one) for name, one in SIGNATURE.dims.items()},
)


def manifest(metric: MetricEntry | None) -> Manifest:
    def graphs(variant: str) -> dict[str, GraphEntry]:
        return {
            "network": GraphEntry(f"parts/network/{variant}/model.onnx", None, None, 20, 1, {"Add": 1}, 0)
        }

    return Manifest(
        format=FORMAT,
        model=ModelFacts("net", "1.0.0"),
        task=None,
        settings={},
        parts={"network": PART},
        variants={
            "fp32": VariantEntry(graphs("fp32"), [], proven=True),
            "int8": VariantEntry(graphs("int8"), [], proven=True, metric=metric),
        },
        default_variant="fp32",
        provenance=Provenance("net.py:load", "anyport build", {}, "x86_64", "3.11"),
        files=[],
    )


def lossy_bundle(folder: Path) -> Path:
    """Build ``net.port`` in a folder, with an fp32 and an int8 variant."""
    folder.mkdir(exist_ok=True)
    place = folder / "net.port"
    for variant in ("fp32", "int8"):
        (place / "parts" / "network" / variant).mkdir(parents=True)
        (place / "parts" / "network" / variant / "model.onnx").write_bytes(b"graph")
    arrays: dict[str, np.ndarray] = {}
    cases = [_case(n, arrays) for n in (1, 3, 8)]
    write_proof(place, Proof({"network": cases}, ProofTolerance(8.0, 4.0), []), arrays)
    held = recording()
    evaluated = Evaluated(held, evaluate(held, noisy(0.02, 0.02)))
    seal_bundle(place, manifest(write_evaluated(place, "int8", {"network": evaluated}, ISA)))
    return place


def _case(n: int, arrays: dict[str, np.ndarray]) -> ProofCase:
    fill = Normal(n)
    answer = exact({"x": make_array(fill, (n, 8), "float32")})
    keys = {name: f"{n}/{name}" for name in answer}
    arrays.update({keys[name]: array for name, array in answer.items()})
    floors = {name: RecordedFloor(1e-6, 1e-7, "by hand") for name in answer}
    return ProofCase(f"batch={n}", "random", {"batch": n}, {"x": fill}, keys, floors)


def forge(
    folder: Path, change: Callable[[dict[str, Any]], object], entry: dict[str, object] | None = None
) -> None:
    """Change ``proof/int8.json`` (and the manifest's entry), and seal anew as a forger would."""
    said = said_of(folder)
    tree = msgspec.json.decode((folder / "proof" / "int8.json").read_bytes())
    change(tree)
    (folder / "proof" / "int8.json").write_bytes(msgspec.json.encode(tree))
    metric = msgspec.structs.replace(said.variants["int8"].metric, **(entry or {}))
    int8 = msgspec.structs.replace(said.variants["int8"], metric=metric)
    seal_bundle(folder, msgspec.structs.replace(said, variants=said.variants | {"int8": int8}, files=[]))


def said_of(folder: Path) -> Manifest:
    """Read the manifest alone: the files may have been exchanged already."""
    return decode_manifest((folder / "manifest.json").read_bytes())


def opener(int8: FunctionSession) -> Callable[[GraphFile], FunctionSession]:
    """Open the fp32 variant as the exact model, and the other as ``int8``."""
    return lambda graph: int8 if graph.variant_name == "int8" else noisy()
