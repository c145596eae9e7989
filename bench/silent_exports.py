"""Rows about exporting: what `torch.onnx.export` writes without a word, or with a warning that all get."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

import onnx
import onnxruntime
import torch

import silent_models
from silent_case import (
    MODELS,
    Answer,
    Case,
    Finding,
    anyport_says,
    cut,
    difference,
    run_file,
    run_torch,
    tool_says,
)
from trials import stock_export

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from torch import Tensor

Shapes = dict[str, tuple[int, ...]]

TOLERANCE: Final = 1e-3  # of the answers' size: what is here called wrong is wrong by far more
_BATCH: Final = {0: "batch"}


@dataclass(frozen=True, slots=True)
class Export:
    """A network, how it is exported, and inputs that the export never saw.

    Attributes:
        net: A function of `silent_models`.
        expected: What anyport must say, the type of the error first.
        code: The exit code that it must say it with.
        example: Input name -> shape that the exporter is given.
        unseen: Input name -> shape that the file is tried with.
        axes: Input name -> its dynamic axes.
        exporter: ``dynamo`` is torch's default, ``torchscript`` its older one.
        words: What `anyport verify` is told beside the source.
        low: Of the values of integer inputs; floats are normal.
        sign: Floats of the example are above zero, those of the trial below.
        ending: What an ending without a warning says.
    """

    net: str
    expected: str
    example: Shapes
    unseen: Shapes
    axes: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    exporter: Literal["dynamo", "torchscript"] = "dynamo"
    words: tuple[str, ...] = ()
    low: int | None = None
    sign: bool = False
    ending: str = "exported"
    code: int = 1

    def inputs(self, shapes: Shapes, seed: int) -> tuple[Tensor, ...]:
        """Draw inputs of these shapes."""
        draw = torch.Generator().manual_seed(seed)
        if self.low is not None:
            return tuple(torch.randint(self.low, 20, shape, generator=draw) for shape in shapes.values())
        normal = tuple(torch.randn(shape, generator=draw) for shape in shapes.values())
        return tuple(x.abs() * (1 if seed == 0 else -1) for x in normal) if self.sign else normal

    def write(self, path: Path) -> None:
        """Export as the documentation of PyTorch shows it."""
        module, inputs = getattr(silent_models, self.net)(), self.inputs(self.example, 0)
        names: dict[str, Any] = {"input_names": list(self.example), "output_names": ["y"]}
        if self.exporter == "torchscript":
            torch.onnx.export(module, inputs, path, dynamo=False, dynamic_axes=self.axes, **names)
            return
        dims = {
            name: {place: torch.export.Dim(axis) for place, axis in self.axes.get(name, {}).items()}
            for name in self.example
        }
        torch.onnx.export(module, inputs, path, dynamic_shapes=dims if self.axes else None, **names)

    def feeds(self, inputs: tuple[Tensor, ...]) -> dict[str, np.ndarray]:
        """Name inputs."""
        return {name: x.numpy() for name, x in zip(self.example, inputs, strict=True)}


def _find(export: Export, folder: Path) -> Finding:
    """Export, compare with PyTorch in float64 on unseen inputs, and ask anyport."""
    path = folder / f"{export.net}.onnx"
    said = tool_says(partial(export.write, path), export.ending)
    inputs = export.inputs(export.unseen, 1)
    want = run_torch(getattr(silent_models, export.net)().eval(), inputs)
    try:
        worst, text = difference(want, run_file(path, export.feeds(inputs))["y"])
    except Exception as err:  # noqa: BLE001 -- onnxruntime raises what it likes, and that is the finding
        worst, text = float("inf"), _run_error(err)
    is_wrong = worst > TOLERANCE * max(1.0, float(abs(want).max()))
    return Finding(said, text, is_wrong, _verified(path, export))


def _run_error(err: Exception) -> str:
    words = " ".join(str(err).split())
    told = (words.partition(" : ")[2].rpartition(" : ")[2] or words).partition(" Please")[0]
    return f"does not run: {cut(told)}"


def _verified(path: Path, export: Export) -> Answer:
    against = f"{MODELS}:{export.net}"
    words = ("verify", path, "--against", against, *export.words)
    return anyport_says(*words, expected=export.expected, code=export.code)


# ── rows that are more than a wrong number ──────────────────────────────────────────────────────────────
def _padded_row(folder: Path) -> Finding:
    """Run torch's own export of a masked encoder on a batch in which one text is empty."""
    path = folder / "encoder.onnx"
    said = tool_says(partial(stock_export, path), "exported")
    ids = torch.randint(0, 5000, (2, 7), generator=torch.Generator().manual_seed(0))
    mask = torch.ones(2, 7, dtype=torch.int64)
    mask[1] = 0
    module = silent_models.encoder().double()
    with torch.no_grad():
        want = module(input_ids=ids, attention_mask=mask).last_hidden_state[1].numpy()
    got = run_file(path, {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})["last_hidden_state"][1]
    worst, text = difference(want, got)
    words = []
    for name, high in (("input_ids", 4999), ("attention_mask", 1)):
        words += ["--input", f"{name}=int64[batch, sequence] 0..{high}"]
    words += ["--dim", "sequence=1..40"]
    expected = "MismatchError: output 'last_hidden_state' is off by "
    answer = anyport_says("verify", path, "--against", f"{MODELS}:encoder", *words, expected=expected)
    return Finding(said, f"the empty text's row is {text}", worst > TOLERANCE, answer)


def _noise(folder: Path) -> Finding:
    """Run the export of a network with noise twice on one input."""
    export = NETS["random-noise"]
    path = folder / "noisy.onnx"
    said = tool_says(partial(export.write, path), "exported")
    feeds = export.feeds(export.inputs(export.unseen, 1))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    worst, _ = difference(*(session.run(["y"], feeds)[0] for _ in range(2)))
    kinds = {node.op_type for node in onnx.load(path).graph.node}
    random = ", ".join(sorted(kind for kind in kinds if kind.startswith("Random")))
    text = f"two runs of one input differ by {worst:.2g} ({random} in the graph)"
    return Finding(said, text, worst > TOLERANCE, _verified(path, export))


def _lost_assertion(folder: Path) -> Finding:
    """Give an export what the module's own assertion refuses."""
    export = NETS["lost-assertion"]
    path = folder / "guarded.onnx"

    def write() -> None:
        torch.onnx.export(silent_models.guarded(), (torch.ones(4, 16),), path, output_names=["y"])

    said = tool_says(write, "exported")
    inputs = (-torch.ones(4, 16),)
    try:
        run_torch(silent_models.guarded(), inputs)
        refused = False
    except AssertionError:
        refused = True
    answered = float(run_file(path, {"x": inputs[0].numpy()})["y"][0, 0])
    text = f"PyTorch raises AssertionError on negative inputs, the file answers {answered:.3g}"
    return Finding(said, text, refused, _verified(path, export))


def _unread_mask(folder: Path) -> Finding:
    """Change a mask that the exported file takes and does not read."""
    export = NETS["unread-mask"]
    path = folder / "masked.onnx"
    said = tool_says(partial(export.write, path), "exported, with an input 'mask'")
    feeds = export.feeds(export.inputs(export.unseen, 1))
    other = feeds | {"mask": 0 * feeds["mask"]}
    worst, _ = difference(run_file(path, feeds)["y"], run_file(path, other)["y"])
    text = f"a mask of zeros changes the answer by {worst:.2g}: no node reads it"
    return Finding(said, text, worst == 0, _verified(path, export))


def _same_name(folder: Path) -> Finding:
    """Call an output as the exporter calls a value of its own."""
    path = folder / "embedder.onnx"

    def write() -> None:
        ids = torch.zeros(2, 5, dtype=torch.int64)
        torch.onnx.export(silent_models.embedder(), (ids,), path, output_names=["embedding"])

    said = tool_says(write, "exported, with an output 'embedding'")
    try:
        onnx.checker.check_model(path)
        text = ""
    except onnx.checker.ValidationError as err:
        text = " ".join(str(err).split())[:90]
    words = ("--input", "x=int64[2, 5] 0..49", "--output", "embedding=float32[2, 8]")
    own = folder / "own.onnx"
    answer = anyport_says("export", f"{MODELS}:embedder", *words, "-o", own, expected="PASS", code=0)
    onnx.checker.check_model(own)
    return Finding(said, f"no valid ONNX: {text}", bool(text), answer)


def _opset(folder: Path) -> Finding:
    """Ask for an opset that the exporter does not write."""
    path, asked = folder / "opset.onnx", 13

    def write() -> None:
        torch.onnx.export(silent_models.opset_net(), (torch.ones(1, 3, 16, 16),), path, opset_version=asked)

    said = tool_says(write, f"exported, asked for opset {asked}")
    got = onnx.load(path).opset_import[0].version
    words = (
        "--input",
        "x=float32[batch, 3, 16, 16]",
        "--output",
        "y=float32[batch, 4, 8, 8]",
        "--dim",
        "batch=1..8",
    )
    own = folder / "own.onnx"
    written = ("--opset", str(asked), "-o", str(own))
    answer = anyport_says("export", f"{MODELS}:opset_net", *words, *written, expected="PASS", code=0)
    mine = onnx.load(own).opset_import[0].version if own.is_file() else 0
    text = f"wrote opset {mine}: {answer.text}" if mine else answer.text
    answer = Answer(answer.command, text, answer.is_right and mine == asked, answer.seconds)
    return Finding(said, f"the file has opset {got}", got != asked, answer)


_X: Final = {"x": _BATCH}
_OFF_BY: Final = "MismatchError: output 'y' is off by "
NETS: Final = {
    "axis-lost": Export(
        "averaged_by_length",
        "AxisError: axis 'n' of part 'averaged_by_length' was asked for as dynamic",
        {"x": (2, 8, 4)},
        {"x": (2, 5, 4)},
        {"x": {0: "batch", 1: "n"}},
        words=("--input", "x=float32[batch, n, 4]"),
    ),
    "clip-of-clip": Export("two_clips", _OFF_BY, {"x": (4, 16)}, {"x": (3, 16)}, _X),
    "floor-division": Export(
        "relative_buckets",
        "MismatchError: output 'y' differs in ",
        {"x": (2, 8)},
        {"x": (3, 8)},
        _X,
        "torchscript",
        ("--input", "x=int64[batch, 8] -20..20"),
        low=-20,
    ),
    "log-sigmoid": Export(
        "log_gates",
        "MismatchError: output 'y' is -inf where the reference is ",
        {"x": (4, 16)},
        {"x": (3, 16)},
        _X,
    ),
    "lost-assertion": Export(
        "guarded", "SourceError: PyTorch itself fails on its inputs", {"x": (4, 16)}, {"x": (4, 16)}, code=2
    ),
    "pool-divisor": Export("weighted_pool", _OFF_BY, {"x": (2, 3, 16, 16)}, {"x": (3, 3, 16, 16)}, _X),
    "random-noise": Export(
        "noisy_decoder",
        "RefusedModelError: part 'noisy' draws random numbers",
        {"x": (4, 16)},
        {"x": (3, 16)},
        _X,
    ),
    "scatter-mean": Export("mean_messages", _OFF_BY, {"x": (2, 6, 8)}, {"x": (3, 6, 8)}, _X),
    "traced-branch": Export(
        "branching",
        "ExportError: part 'branching' decides something by a value",
        {"x": (4, 16)},
        {"x": (3, 16)},
        _X,
        "torchscript",
        sign=True,
    ),
    "traced-loop": Export(
        "looping",
        "AxisError: axis 'n' of part 'looping' was asked for as dynamic",
        {"x": (2, 5, 8)},
        {"x": (2, 9, 8)},
        {"x": {0: "batch", 1: "n"}},
        "torchscript",
    ),
    "training-mode": Export(
        "left_in_training", "RefusedModelError: the model is in training mode", {"x": (4, 16)}, {"x": (4, 16)}
    ),
    "traced-votes": Export("voting", _OFF_BY, {"x": (2, 6)}, {"x": (3, 6)}, _X, "torchscript"),
    "unread-mask": Export(
        "unread_mask",
        "ExportError: input 'mask' of part 'masked' is declared, and nothing reads its values",
        {"x": (2, 5, 8), "mask": (2, 5)},
        {"x": (3, 5, 8), "mask": (3, 5)},
        {"x": _BATCH, "mask": _BATCH},
    ),
    "zero-padded-pool": Export(
        "padded_pool",
        _OFF_BY,
        {"x": (2, 3, 16, 16)},
        {"x": (3, 3, 16, 16)},
        _X,
        ending="exported; onnxruntime opens and runs it",
    ),
}
_TITLES: Final = {
    "axis-lost": "length through torch.as_tensor; torch.onnx.export with Dim('n')",
    "clip-of-clip": "two clamps; torch.onnx.export (its onnxscript optimizer)",
    "floor-division": "relative positions, x // 4 of negative integers; TorchScript exporter",
    "log-sigmoid": "log-sigmoid gates; torch.onnx.export",
    "pool-divisor": "AvgPool2d(divisor_override=4); torch.onnx.export",
    "scatter-mean": "graph network, scatter_reduce('mean'); torch.onnx.export",
    "traced-branch": "branch on a value; TorchScript exporter",
    "traced-loop": "recurrence as a Python loop, dynamic length; TorchScript exporter",
    "training-mode": "classifier left in training mode; torch.onnx.export",
    "traced-votes": "votes added up by index_put; TorchScript exporter",
    "zero-padded-pool": "ZeroPad2d + MaxPool2d; onnxruntime at its default level",
}
CASES: Final = (
    Case("padded-row", "masked text encoder, an empty text in the batch; torch.onnx.export", _padded_row),
    *(Case(name, title, partial(_find, NETS[name])) for name, title in _TITLES.items()),
    Case("random-noise", "decoder that adds noise; torch.onnx.export", _noise),
    Case("lost-assertion", "assert on the inputs; torch.onnx.export", _lost_assertion),
    Case("unread-mask", "encoder that loses its mask; torch.onnx.export", _unread_mask),
    Case("same-name", "output_names=['embedding']; torch.onnx.export", _same_name),
    Case("opset", "opset_version=13; torch.onnx.export", _opset),
)
