"""Small bundles for the release list: one that is right, and whatever a test changes in it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper

from anyport.bundle import Bundle, PartEntry, ProofCase, RecordedFloor, Step, open_bundle
from anyport.bundle.proof import sample_of
from anyport.cases import Normal, make_array
from anyport.report import Checklist, CheckSettings, Line, release_checklist
from anyport.report.factlines import operators_of, parameters_of
from anyport.runtime import open_session
from anyport.runtime.graphfile import read_graph
from tests.runtime.networks import Form, Tensors, Words, bundle, save

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from anyport.bundle import GraphFile
    from anyport.runtime import Session, SessionOptions

IMAGE: Form = (TensorProto.FLOAT, ["batch", 1, 2, 2])
SCORES: Form = (TensorProto.FLOAT, ["batch", 4])
EXPORT = Step("export", {"part": "network", "opset": 20, "exporter": "dynamo"}, "PASS")
SIMPLIFY = Step(
    "simplify", {"tool": "onnxslim", "version": "1", "optimization": "all"}, "3 -> 2 nodes, proven equal"
)
QUICK = CheckSettings(n_runs=60)


def good_nodes() -> list[onnx.NodeProto]:
    """Scores are ten times the four pixels."""
    return [
        helper.make_node("Flatten", ["pixel_values"], ["flat"], name="flatten"),
        helper.make_node("Mul", ["flat", "ten"], ["logits"], name="scale"),
    ]


def tensors(**weights: np.ndarray) -> Tensors:
    """Return the ends of the graph, and its weights: ``ten``, and more."""
    return Tensors(
        {"pixel_values": IMAGE}, {"logits": SCORES}, {"ten": np.array([10], np.float32), **weights}
    )


def up_to(most: int) -> Words:
    """Return the words of a classifier of batches of so many pictures."""
    part = Words().part
    return replace(Words(), part=PartEntry(part.inputs, part.outputs, {"batch": f"1..{most}"}))


@dataclass(frozen=True)
class Subject:
    """A bundle, as a test wants it; the default passes every line that it can."""

    nodes: Sequence[onnx.NodeProto] = field(default_factory=good_nodes)
    tensors: Tensors = field(default_factory=tensors)
    steps: Sequence[Step] = (EXPORT, SIMPLIFY)
    sizes: Sequence[int] = (1, 3, 1, 3, 2)
    words: Words = field(default_factory=lambda: up_to(3))
    answer_off: float = 0.0
    n_sampled: int | None = None
    optimization: str = "all"
    change: Callable[[onnx.ModelProto], None] | None = None

    def open(self, folder: Path) -> Bundle:
        """Write it, and open it with the steps that it should have."""
        path = save(folder / "graph.onnx", list(self.nodes), self.tensors)
        if self.change is not None:
            model = onnx.load(str(path))
            self.change(model)
            onnx.save(model, str(path))
        cases, answers = proof(self.sizes, self.answer_off, self.n_sampled)
        words = replace(self.words, cases=cases, answers=answers)
        opened = open_bundle(bundle(folder / "small.port", path, words))
        entry = opened.manifest.variants["fp32"]
        model = read_graph(path)
        operators = operators_of(model)
        graph = msgspec.structs.replace(
            entry.graphs["network"],
            optimization=self.optimization,
            n_nodes=operators.total(),
            operators=dict(operators),
            n_parameters=parameters_of(model),
        )
        variant = msgspec.structs.replace(entry, steps=list(self.steps), graphs={"network": graph})
        opened.manifest = msgspec.structs.replace(opened.manifest, variants={"fp32": variant})
        return opened


def proof(
    sizes: Sequence[int], answer_off: float, n_sampled: int | None = None
) -> tuple[list[ProofCase], dict[str, np.ndarray]]:
    """Record the right answers; of each so many elements, if that is said."""
    cases, answers = [], {}
    for seed, n in enumerate(sizes):
        x = make_array(Normal(seed), (n, 1, 2, 2), "float32")
        answers[f"{seed}/logits"] = 10 * x.reshape(n, 4) + np.float32(answer_off)
        kind: Any = "boundary" if seed == 0 else "random"
        floor = {"logits": RecordedFloor(1e-5, 1e-6, "by hand")}
        fills: Any = {"pixel_values": Normal(seed)}
        name = f"batch={n}, seed {seed}"
        shapes = {}
        if n_sampled is not None:
            shapes = {"logits": [n, 4]}
            answers[f"{seed}/logits"] = sample_of(answers[f"{seed}/logits"], n_sampled)
        keys = {"logits": f"{seed}/logits"}
        cases.append(ProofCase(name, kind, {"batch": n}, fills, keys, floor, shapes))
    return cases, answers


def listed(
    folder: Path,
    subject: Subject,
    settings: CheckSettings = QUICK,
    open_graph: Callable[[GraphFile, SessionOptions], Session] = open_session,
) -> Checklist:
    with subject.open(folder) as opened:
        return release_checklist(opened, settings, open_graph)


def line(name: str, folder: Path, subject: Subject, **how: Any) -> Line:
    """Return one line of the list of a subject."""
    return next(one for one in listed(folder, subject, **how).lines if one.name == name)


class Wrapped:
    """A real session, and what a test does to its answers."""

    def __init__(
        self, inner: Session, change: Callable[[Mapping[str, np.ndarray], dict[str, np.ndarray]], Any]
    ) -> None:
        self.inner = inner
        self.inputs, self.outputs, self.close = inner.inputs, inner.outputs, inner.close
        self.change = change

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        outputs = self.inner.run(feeds)
        return self.change(feeds, outputs) or outputs
