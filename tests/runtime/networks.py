"""Small .onnx files and bundles for the tests of runtime, task and cli."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

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
    Staging,
    VariantEntry,
    seal_bundle,
    write_proof,
)
from anyport.cases import Normal, make_array

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


Form = tuple[int, "Sequence[int | str | None]"]  # an ONNX type and a shape


@dataclass(frozen=True, slots=True)
class Tensors:
    """Inputs and outputs of a small graph: name -> (ONNX type, shape)."""

    inputs: Mapping[str, Form]
    outputs: Mapping[str, Form]
    weights: Mapping[str, np.ndarray] = field(default_factory=dict)


def save(path: Path, nodes: Sequence[onnx.NodeProto], tensors: Tensors, *, beside: str | None = None) -> Path:
    """Write a graph; ``beside`` names the file that takes its weights."""
    graph = helper.make_graph(
        list(nodes),
        "small",
        [helper.make_tensor_value_info(name, *kind) for name, kind in tensors.inputs.items()],
        [helper.make_tensor_value_info(name, *kind) for name, kind in tensors.outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in tensors.weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    model.producer_name = "a test"
    helper.set_model_props(model, {"licence": "MIT"})
    outside: dict[str, Any] = {"save_as_external_data": beside is not None, "size_threshold": 0}
    onnx.save(model, str(path), location=beside, **outside)
    return path


def affine(path: Path, *, beside: str | None = None) -> Path:
    """``y = 2 x + 1``: float32[batch, 3] -> float32[batch, 3]."""
    nodes = [
        helper.make_node("Mul", ["x", "two"], ["twice"]),
        helper.make_node("Add", ["twice", "one"], ["y"]),
    ]
    pair: Form = (TensorProto.FLOAT, ["batch", 3])
    weights = {"two": np.full(3, 2, np.float32), "one": np.ones(3, np.float32)}
    return save(path, nodes, Tensors({"x": pair}, {"y": pair}, weights), beside=beside)


def wide(path: Path, n_channels: int = 64) -> Path:
    """Two convolutions with large values between: float32[batch, 1, height, width] -> [batch, n, 1, 1]."""
    random = np.random.default_rng(0)
    weights = {
        "first": random.standard_normal((n_channels, 1, 3, 3)).astype(np.float32),
        "second": random.standard_normal((n_channels, n_channels, 3, 3)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "first"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["a", "second"], ["b"], pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["b"], ["y"]),
    ]
    image: Form = (TensorProto.FLOAT, ["batch", 1, "height", "width"])
    pooled: Form = (TensorProto.FLOAT, ["batch", n_channels, 1, 1])
    return save(path, nodes, Tensors({"x": image}, {"y": pooled}, weights))


def corners(path: Path, batch: int | str = "batch") -> Path:
    """Scores are ten times the four corner pixels of 2 x 2 grey: float32[batch, 1, 2, 2] -> [batch, 4]."""
    nodes = [
        helper.make_node("Flatten", ["pixel_values"], ["flat"]),
        helper.make_node("Mul", ["flat", "ten"], ["logits"]),
    ]
    image, scores = (TensorProto.FLOAT, [batch, 1, 2, 2]), (TensorProto.FLOAT, [batch, 4])
    weights = {"ten": np.array([10], np.float32)}
    return save(path, nodes, Tensors({"pixel_values": image}, {"logits": scores}, weights))


CORNERS = {"labels": ["nw", "ne", "sw", "se"], "mode": "L", "size": [2, 2], "resample": "box"}


@dataclass(frozen=True, slots=True)
class Words:
    """What a small bundle says of itself; by default a classifier of `corners`."""

    task: str | None = "classify"
    settings: Mapping[str, Any] = field(default_factory=lambda: CORNERS)
    part: PartEntry = field(
        default_factory=lambda: PartEntry(
            {"pixel_values": "float32[batch, 1, 2, 2]"}, {"logits": "float32[batch, 4]"}, {"batch": "1..64"}
        )
    )
    cases: list[ProofCase] = field(default_factory=list)
    answers: Mapping[str, np.ndarray] = field(default_factory=dict)


def bundle(folder: Path, graph: Path, words: Words | None = None) -> Path:
    """Seal a bundle of one part around a graph."""
    said = words or Words()
    model = onnx.load(str(graph))
    with Staging.open(folder) as staging:
        place = staging.folder / "parts" / "network" / "fp32"
        place.mkdir(parents=True)
        (place / "model.onnx").write_bytes(graph.read_bytes())
        operators = Counter(node.op_type for node in model.graph.node)
        entry = GraphEntry(
            "parts/network/fp32/model.onnx", None, None, 20, operators.total(), dict(operators), 1
        )
        manifest = Manifest(
            format=FORMAT,
            model=ModelFacts("small", "1.0.0", description="A small one."),
            task=said.task,
            settings=dict(said.settings),
            parts={"network": said.part},
            variants={"fp32": VariantEntry({"network": entry}, [], proven=True)},
            default_variant="fp32",
            provenance=Provenance("model.py:load", "anyport build", {"torch": "2.13.0"}, "x86_64", "3.11"),
            files=[],
        )
        write_proof(
            staging.folder, Proof({"network": said.cases}, ProofTolerance(8, 8), []), dict(said.answers)
        )
        seal_bundle(staging.folder, manifest)
        staging.commit()
    return folder


def corners_bundle(folder: Path, batch: int | str = "batch") -> Path:
    """Return a bundle ``corners.port`` in ``folder``, with a proof."""
    words = Words()
    floor = RecordedFloor(1e-6, 1e-7, "by hand")
    cases, answers = [], {}
    for seed, n in enumerate((1, 3, 1, 3)):
        fill, name = Normal(seed), f"batch={n}, seed {seed}"
        x = make_array(fill, (n, 1, 2, 2), "float32")
        answers[f"{seed}/logits"] = 10 * x.reshape(n, 4)
        cases.append(
            ProofCase(
                name=name,
                kind="random",
                sizes={"batch": n},
                fills={"pixel_values": fill},
                outputs={"logits": f"{seed}/logits"},
                floors={"logits": floor},
            )
        )
    proven = replace(words, cases=cases, answers=answers)
    return bundle(folder / "corners.port", corners(folder / "corners.onnx", batch), proven)
