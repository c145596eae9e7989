"""A graph whose weights lie in a checkpoint, and a bundle of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np
from onnx import TensorProto as T
from onnx import helper as h

from anyport.bundle import PartEntry, TensorFileWriter, read_header, seal_bundle
from anyport.bundle.shards import record_shards, shards_text
from anyport.runtime.shards import SHARDS, shards_of
from tests.bundle.examples import make_manifest

if TYPE_CHECKING:
    from pathlib import Path

    from anyport.bundle import GraphEntry, Manifest

X: Final = np.eye(3, 8, dtype=np.float32)


def write_graph(folder: Path, **wrong: str | list[int] | int) -> Path:
    """Write a checkpoint with two weights, and a graph that reads one; some of what it says may be wrong."""
    checkpoint = folder / "checkpoint"
    checkpoint.mkdir(parents=True, exist_ok=True)
    shard = checkpoint / "model.safetensors"
    if not shard.exists():
        rng = np.random.default_rng(0)
        with TensorFileWriter(shard, [("w", "F32", (8, 4)), ("other", "F32", (8, 4))]) as writer:
            writer.write("w", rng.standard_normal((8, 4), dtype=np.float32))
            writer.write("other", rng.standard_normal((8, 4), dtype=np.float32))
    entry = read_header(shard)["w"]
    weight = T(
        name=str(wrong.get("name", "w")), data_type=int(wrong.get("dtype", T.FLOAT)), data_location=T.EXTERNAL
    )
    weight.dims.extend(wrong.get("dims", [8, 4]))
    words = {"location": "model.safetensors", "offset": str(entry.offset), "length": str(entry.size_bytes)}
    for key, value in (words | {k: v for k, v in wrong.items() if k in words}).items():
        weight.external_data.add(key=key, value=value)
    node = h.make_node("MatMul", ["x", weight.name], ["y"])
    ends = (
        [h.make_tensor_value_info("x", T.FLOAT, ["n", 8])],
        [h.make_tensor_value_info("y", T.FLOAT, ["n", 4])],
    )
    model = h.make_model(
        h.make_graph([node], "g", *ends, [weight]), opset_imports=[h.make_opsetid("", 18)], ir_version=10
    )
    h.set_model_props(model, {SHARDS: shards_text(record_shards(checkpoint, [shard]))})
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def external_manifest(path: Path) -> Manifest:
    """Return the manifest of a bundle of such a graph."""
    manifest = make_manifest()
    variant = manifest.variants["fp32"]
    entry: GraphEntry = msgspec.structs.replace(
        variant.graphs["network"], weights=None, modules=None, external=True, shards=list(shards_of(path))
    )
    part = PartEntry({"x": "float32[n, 8]"}, {"y": "float32[n, 4]"}, {"n": "1..64"})
    graphs = {"network": entry}
    return msgspec.structs.replace(
        manifest,
        task=None,
        settings={},
        parts={"network": part},
        variants={"fp32": msgspec.structs.replace(variant, graphs=graphs)},
    )


def external_bundle(folder: Path) -> Path:
    """Make a bundle that refers to ``folder/checkpoint``."""
    path = write_graph(folder)
    manifest = external_manifest(path)
    bundle = folder / "external.port"
    place = bundle / "parts" / "network" / "fp32"
    place.mkdir(parents=True)
    path.replace(place / "model.onnx")
    seal_bundle(bundle, manifest)
    return bundle
