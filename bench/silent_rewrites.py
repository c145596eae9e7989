"""Rows about tools that rewrite a graph: simplifiers, the opset converter, float16, the runtime itself."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
import torch
from onnx.reference import ReferenceEvaluator

import silent_models
from silent_case import (
    Answer,
    Case,
    Finding,
    Said,
    difference,
    heard,
    quiet,
    run_anyport,
    run_file,
    run_torch,
    tool_says,
)
from silent_nets import ENCODER, exported, faster, notations

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor, nn

_OFF: Final = 1e-2
_SLOWER: Final = 0.97  # within 3 % is a tie


def export(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    path: Path,
    *,
    opset: int | None = None,
    axes: dict[str, Any] | None = None,
) -> None:
    """Export with torch's default, or with the older exporter where it is an old opset."""
    names: dict[str, Any] = {"input_names": ["x"], "output_names": ["y"]}
    with quiet():
        if opset is None:
            torch.onnx.export(module, inputs, path, external_data=False, dynamic_shapes=axes, **names)
        else:
            torch.onnx.export(module, inputs, path, dynamo=False, opset_version=opset, **names)


def _n_nodes(path: Path) -> int:
    return len(onnx.load(path).graph.node)


# ── simplifiers ─────────────────────────────────────────────────────────────────────────────────────────
def simplified(path: Path, tool: str, expected: str) -> Answer:
    """Ask `anyport simplify` about one tool: right is to keep another graph, and to say what is expected."""
    printed = run_anyport("simplify", path, "--tools", tool, "-o", path.with_name("kept.onnx"), "--json")
    if printed.code:
        return printed.answer(printed.line, is_right=False)
    found = json.loads(printed.out)
    attempt = next(one for one in found["attempts"] if one["tool"] == tool)
    why = f": {attempt['reason']}" if attempt["reason"] else ""
    text = f"{tool} {attempt['status']}{why}; kept {found['kept']}"
    return printed.answer(text, is_right=expected in text and found["kept"] != tool)


def _column_scale(folder: Path) -> Finding:
    """Let onnxslim fold a scale over columns into a convolution, whose channels are as many."""
    onnxslim: Any = import_module("onnxslim")

    path, slim = folder / "scaled.onnx", folder / "slim.onnx"
    inputs = (torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)),)
    export(silent_models.scaled_columns(), inputs, path)
    said = tool_says(lambda: onnxslim.slim(str(path), str(slim)), "slimmed")
    said = Said(f"{said.text}, {_n_nodes(path)} -> {_n_nodes(slim)} nodes", said.seconds)
    want = run_torch(silent_models.scaled_columns(), inputs)
    worst, text = difference(want, run_file(slim, {"x": inputs[0].numpy()})["y"])
    answer = simplified(path, "onnxslim", "onnxslim different: level none: output 'y' is off by ")
    return Finding(said, text, worst > _OFF, answer)


def _one_noise(folder: Path) -> Finding:
    """Let onnxsim merge two nodes that draw two noises."""
    onnxsim: Any = import_module("onnxsim")

    path, small = folder / "noises.onnx", folder / "sim.onnx"
    export(silent_models.two_noises(), (torch.zeros(4, 16),), path)
    answers: list[Any] = []
    said = tool_says(lambda: answers.append(onnxsim.simplify(onnx.load(path))), "simplified")
    simple, is_checked = answers[0]
    onnx.save(simple, small)
    said = Said(f"{said.text}, check passed: {is_checked}", said.seconds)
    feeds = {"x": np.zeros((4, 16), np.float32)}
    before, after = (float(np.abs(run_file(file, feeds)["y"]).max()) for file in (path, small))
    text = (
        f"two independent noises have become one: their largest difference was {before:.2g}, is {after:.2g}"
    )
    answer = simplified(path, "onnxsim", "a wrong graph would pass")
    # noise proves nothing about any rewrite of it: what counts is that the kept file has both
    kept = float(np.abs(run_file(path.with_name("kept.onnx"), feeds)["y"]).max())
    answer = replace(answer, text=f"{answer.text}, whose noises differ by {kept:.2g}")
    answer = replace(answer, is_right=answer.is_right and kept > _OFF)
    return Finding(said, text, before > _OFF > after, answer)


# ── the converter of opsets ─────────────────────────────────────────────────────────────────────────────
def _softmax(folder: Path) -> Finding:
    """Convert a softmax over channels to an opset whose softmax flattens everything behind its axis."""
    path, old = folder / "softmax.onnx", folder / "old.onnx"
    inputs = (torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)),)
    export(silent_models.channel_softmax(), inputs, path, opset=13)

    def convert() -> None:
        onnx.save(onnx.version_converter.convert_version(onnx.load(path), 11), old)
        onnx.checker.check_model(old, full_check=True)

    said = tool_says(convert, "converted 13 -> 11, checker passes")
    want = run_torch(silent_models.channel_softmax(), inputs)
    worst, text = difference(want, run_file(old, {"x": inputs[0].numpy()})["y"])
    printed = run_anyport("verify", old, "--against", path)
    return Finding(said, text, worst > _OFF, heard(printed, "MismatchError: output 'y' is off by "))


# ── float16 ─────────────────────────────────────────────────────────────────────────────────────────────
def _float16(folder: Path) -> Finding:
    """Convert a network whose values pass 65504, and compute as the file says, by onnx's own evaluator.

    onnxruntime on a CPU has no float16 kernels, computes in float32, and so hides what a GPU shows.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    path, half = folder / "large.onnx", folder / "half.onnx"
    inputs = (torch.randn(4, 16, generator=torch.Generator().manual_seed(0)),)
    export(silent_models.large_activations(), inputs, path)

    def convert() -> None:
        onnx.save(convert_float_to_float16(onnx.load(path)), half)
        onnx.checker.check_model(half, full_check=True)

    said = tool_says(convert, "converted, checker passes")
    want = run_torch(silent_models.large_activations(), inputs)
    worst, text = difference(want, _evaluated(half, inputs[0].numpy().astype(np.float16)))
    own = folder / "own.onnx"
    words = ("--method", "fp16", "--prefer", "size", "--calibrate", "random")
    printed = run_anyport("compress", path, *words, "-o", own)
    at_most = _OFF * float(np.abs(want).max())
    is_right = own.exists() and difference(want, _evaluated(own, inputs[0].numpy()))[0] < at_most
    answer = printed.answer(printed.line.removeprefix("compress "), is_right=is_right)
    return Finding(said, f"computed in float16: {text}", worst > _OFF, answer)


def _evaluated(path: Path, x: np.ndarray) -> np.ndarray:
    """Return what onnx's own evaluator makes of a file."""
    with quiet(), np.errstate(over="ignore"):
        [y] = ReferenceEvaluator(onnx.load(path)).run(None, {"x": x})
    return np.asarray(y, np.float64)


# ── the runtime ─────────────────────────────────────────────────────────────────────────────────────────
def _default_level(folder: Path) -> Finding:
    """Race an encoder at the runtime's default level against the same without any optimization."""
    path = exported(ENCODER, folder)
    said = Said("opened at its default, ORT_ENABLE_ALL", 0.0)
    ratio = faster(ENCODER, path, path, levels=("none", "all"))
    text = f"{ratio.median:.2f}x [{ratio.low:.2f}-{ratio.high:.2f}] the speed of ORT_DISABLE_ALL"

    words = notations(ENCODER)
    kept = path.with_name("kept.onnx")
    printed = run_anyport("simplify", path, "--tools", "onnxslim", *words, "-o", kept, "--json")
    if printed.code:
        return Finding(said, text, ratio.median < _SLOWER, printed.answer(printed.line, is_right=False))
    found = json.loads(printed.out)
    winner = next(one for one in found["attempts"] if one["tool"] == found["kept"])
    told = f"kept {found['kept']} at level {winner['optimization']}, {winner['ratio']:.2f}x the default"
    # as fast as the file is without any optimization, but for the noise
    answer = printed.answer(told, is_right=winner["ratio"] >= _SLOWER / ratio.median)
    return Finding(said, text, ratio.median < _SLOWER, answer)


_ROWS: Final[tuple[tuple[str, str, Callable[[Path], Finding], tuple[str, ...]], ...]] = (
    ("column-scale", "convolution, then a scale over columns; onnxslim", _column_scale, ("onnxslim",)),
    ("one-noise", "difference of two noises; onnxsim", _one_noise, ("onnxsim",)),
    ("softmax-opset", "softmax over channels; onnx.version_converter", _softmax, ()),
    ("float16-overflow", "values above 65504; onnxruntime's float16 converter", _float16, ()),
    (
        "default-level",
        "BERT of 4 layers; onnxruntime's default optimization level",
        _default_level,
        ("onnxslim",),
    ),
)
CASES: Final = tuple(Case(name, title, find, needs) for name, title, find, needs in _ROWS)
