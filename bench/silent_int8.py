"""Rows about quantizing: what onnxruntime's and onnxsim's quantizers write with their defaults."""

from __future__ import annotations

import itertools
from contextlib import chdir
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx

from machine import this_machine
from silent_case import Answer, Case, Finding, Said, run_anyport, run_file, tool_says
from silent_nets import (
    CNN,
    ENCODER,
    FIXED,
    N_SAMPLES,
    OUTLIERS,
    exported,
    faster,
    feeds_of,
    notations,
    pictures,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from anyport.bench.pairing import PairedRatio
    from subjects import Subject

_SLOWER: Final = 0.97  # within 3 % is a tie
_MB: Final = 1e6
_LEAST_COSINE: Final = 0.8  # of the worst word of many


def compressed(
    subject: Subject, path: Path, folder: Path, method: str, holds: Callable[[Path], bool]
) -> Answer:
    """Ask `anyport compress`: right is a file that holds by a measurement made here, not by anyport."""
    out = folder / "compressed.onnx"
    samples = "bench/silent_nets.py:pictures" if subject is CNN else "random"
    words = ["--calibrate", samples, *notations(subject)]
    printed = run_anyport("compress", path, "--method", method, *words, "-o", out)
    text = printed.line.removeprefix("compress ")
    return printed.answer(text, is_right=printed.code == 0 and holds(out))


def _is_third(path: Path) -> Callable[[Path], bool]:
    """Return whether a file is a third of this one, or less."""
    return lambda out: 3 * out.stat().st_size < path.stat().st_size


def _is_faster(subject: Subject, path: Path) -> Callable[[Path], bool]:
    """Return whether a file is faster than this one."""
    return lambda out: faster(subject, path, out).median > 1


def _sizes(before: Path, after: Path) -> str:
    sizes = [path.stat().st_size / _MB for path in (before, after)]
    return f"{sizes[0]:.1f} -> {sizes[1]:.1f} MB"


def _speed(ratio: PairedRatio) -> str:
    text = f"{ratio.median:.2f}x [{ratio.low:.2f}-{ratio.high:.2f}]"
    return (
        f"{text} the speed of float32"
        if ratio.median >= 1
        else f"{text}: {1 / ratio.median:.1f} times slower"
    )


class _Reader:
    """Calibration samples, as onnxruntime wants them: one at a time, then None."""

    def __init__(self, subject: Subject) -> None:
        drawn = (feeds_of(subject, seed) for seed in range(N_SAMPLES))
        self._feeds = itertools.islice(pictures(), N_SAMPLES) if subject is CNN else drawn

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


def reader_of(subject: Subject) -> Any:  # noqa: ANN401 -- a subclass of onnxruntime's, made late
    """Return calibration samples of a network."""
    from onnxruntime.quantization import CalibrationDataReader

    return type("Reader", (_Reader, CalibrationDataReader), {})(subject)


# ── speed ───────────────────────────────────────────────────────────────────────────────────────────────
def _dynamic_cnn(folder: Path) -> Finding:
    """Quantize a convolutional network dynamically, as tutorials for encoders say."""
    from onnxruntime.quantization import quantize_dynamic

    path, small = exported(CNN, folder), folder / "dynamic.onnx"
    said = tool_says(lambda: quantize_dynamic(path, small), "quantized")
    said = Said(f"{said.text}, {_sizes(path, small)}", said.seconds)
    ratio = faster(CNN, path, small)
    return Finding(
        said,
        _speed(ratio),
        ratio.median < _SLOWER,
        compressed(CNN, path, folder, "int8", _is_faster(CNN, path)),
    )


def _static_default(folder: Path) -> Finding:
    """Quantize a convolutional network with the defaults: s8 activations, one scale for a tensor."""
    from onnxruntime.quantization import QuantType, quantize_static

    path, small, better = exported(CNN, folder), folder / "static.onnx", folder / "u8s8.onnx"
    said = tool_says(lambda: quantize_static(path, small, reader_of(CNN)), "quantized")
    said = Said(f"{said.text}, {_sizes(path, small)}", said.seconds)
    quantize_static(path, better, reader_of(CNN), activation_type=QuantType.QUInt8, per_channel=True)
    ratio, best = faster(CNN, path, small), faster(CNN, path, better)
    text = f"{_speed(ratio)}; with u8 activations and scales per channel {best.median:.2f}x"
    is_wrong = ratio.median < _SLOWER * best.median
    answer = compressed(CNN, path, folder, "int8-static", lambda out: _keeps_up(path, out, better))
    return Finding(said, text, is_wrong, answer)


def _keeps_up(path: Path, out: Path, other: Path) -> bool:
    """Say whether a file is as fast as another one, but for the noise of two ratios."""
    return faster(CNN, path, out).median > 0.9 * faster(CNN, path, other).median


def _eight_bits(folder: Path) -> Finding:
    """Quantize an encoder to 8 bits by MatMulNBits, whose accuracy level is unset by default."""
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    path, small = exported(ENCODER, folder), folder / "nbits8.onnx"

    def quantize() -> None:
        quantizer = MatMulNBitsQuantizer(onnx.load(path), bits=8, block_size=32, is_symmetric=True)
        quantizer.process()
        quantizer.model.save_model_to_file(str(small))

    said = tool_says(quantize, "quantized")
    said = Said(f"{said.text}, {_sizes(path, small)}", said.seconds)
    ratio = faster(ENCODER, path, small)
    return Finding(
        said,
        _speed(ratio),
        ratio.median < _SLOWER,
        compressed(ENCODER, path, folder, "int8", _is_faster(ENCODER, path)),
    )


def _half(folder: Path) -> Finding:
    """Convert an encoder to float16 and run it on a CPU."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    path, small = exported(ENCODER, folder), folder / "half.onnx"

    def convert() -> None:
        onnx.save(convert_float_to_float16(onnx.load(path), keep_io_types=True), small)

    said = tool_says(convert, "converted")
    said = Said(f"{said.text}, {_sizes(path, small)}", said.seconds)
    ratio = faster(ENCODER, path, small)
    answer = compressed(ENCODER, path, folder, "fp16", _is_faster(ENCODER, path))
    refused = "CompressError: fp16 is not faster" in answer.text
    answer = replace(answer, is_right=answer.is_right or refused)
    return Finding(said, _speed(ratio), ratio.median < _SLOWER, answer)


# ── size: what was not quantized ────────────────────────────────────────────────────────────────────────
def _embeddings(folder: Path) -> Finding:
    """Quantize an encoder dynamically: its embedding table stays as it is."""
    from onnxruntime.quantization import quantize_dynamic

    path, small = exported(ENCODER, folder), folder / "dynamic.onnx"
    said = tool_says(lambda: quantize_dynamic(path, small, op_types_to_quantize=["MatMul"]), "quantized")
    said = Said(f"{said.text}, {_sizes(path, small)}", said.seconds)
    large = max(onnx.load(small).graph.initializer, key=lambda tensor: len(tensor.raw_data))
    part = len(large.raw_data) / small.stat().st_size
    text = f"{path.stat().st_size / small.stat().st_size:.1f}x smaller, where INT8 makes 4x:"
    text += f" {large.name} stayed float32, {part:.0%} of the file"
    is_wrong = large.data_type == onnx.TensorProto.FLOAT and part > 0.5
    answer = compressed(ENCODER, path, folder, "int8-dynamic", _is_third(path))
    return Finding(said, text, is_wrong, answer)


def _four_bits(folder: Path) -> Finding:
    """Pre-process an encoder as is advised before quantizing, then quantize its products to 4 bits."""
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
    from onnxruntime.quantization.shape_inference import quant_pre_process

    fixed = exported(FIXED, folder)
    prepared, small = folder / "prepared.onnx", folder / "nbits4.onnx"

    def quantize() -> None:
        quant_pre_process(str(fixed), str(prepared))
        quantizer = MatMulNBitsQuantizer(onnx.load(prepared), bits=4)
        quantizer.process()
        quantizer.model.save_model_to_file(str(small))

    with chdir(folder):  # shape inference writes a file of its own wherever it is called
        said = tool_says(quantize, "pre-processed, quantized to 4 bits")
    kinds = [node.op_type for node in onnx.load(small).graph.node]
    text = (
        f"{kinds.count('Gemm')} of {kinds.count('Gemm') + kinds.count('MatMulNBits')} layers had become Gemm"
    )
    text += f" and stayed float32, two thirds of the encoder's weights; {_sizes(fixed, small)}"
    return Finding(
        said, text, "Gemm" in kinds, compressed(FIXED, prepared, folder, "int8-dynamic", _is_third(fixed))
    )


def _onnxsim(folder: Path) -> Finding:
    """Let onnxsim quantize the weights of an encoder to 4 bits."""
    onnxsim: Any = import_module("onnxsim")

    path, small = exported(ENCODER, folder), folder / "sim4.onnx"

    def quantize() -> None:
        onnx.save(onnxsim.quantize_weight_only_int4(onnx.load(path)), small)

    said = tool_says(quantize, "quantized to 4 bits")
    shrunk = path.stat().st_size / small.stat().st_size
    text = f"{_sizes(path, small)}"
    return Finding(
        said, text, shrunk < 1.5, compressed(ENCODER, path, folder, "int8", _is_faster(ENCODER, path))
    )


# ── values ──────────────────────────────────────────────────────────────────────────────────────────────
def _static_encoder(folder: Path) -> Finding:
    """Quantize an encoder statically, with everything that can be quantized."""
    from onnxruntime.quantization import quantize_static

    path, small = exported(OUTLIERS, folder), folder / "static.onnx"
    said = tool_says(lambda: quantize_static(path, small, reader_of(OUTLIERS)), "quantized")
    said = Said(f"{said.text}, {_sizes(path, small)}", said.seconds)
    worst = _worst_cosine(path, small)
    text = f"the worst of 512 word vectors has a cosine of {worst:.2f} to float32's"
    answer = compressed(OUTLIERS, path, folder, "int8", lambda out: _worst_cosine(path, out) > _LEAST_COSINE)
    if (kept := folder / "compressed.onnx").exists():
        answer = replace(answer, text=f"{answer.text}; its worst word {_worst_cosine(path, kept):.2f}")
    return Finding(said, text, worst < _LEAST_COSINE, answer)


def _worst_cosine(path: Path, small: Path) -> float:
    """Return the worst cosine of a word's vector, over 8 texts of 64 words that calibrated nothing."""
    worst = 1.0
    for seed in range(100, 108):
        feeds = feeds_of(OUTLIERS, seed)
        want, got = (run_file(file, feeds)["last_hidden_state"] for file in (path, small))
        worst = min(worst, float(_cosines(want, got).min()))
    return worst


def _cosines(want: np.ndarray, got: np.ndarray) -> np.ndarray:
    """Return the cosine of each row of the last axis."""
    norms = np.linalg.norm(want, axis=-1) * np.linalg.norm(got, axis=-1)
    cosines: np.ndarray = (want * got).sum(-1) / norms
    return cosines


def _saturation(folder: Path) -> Finding:
    """Quantize a product whose pairs of u8 times s8 pass 16 bits, which AVX2 adds up in 16 bits."""
    from onnx import helper, numpy_helper
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    path, small = folder / "product.onnx", folder / "product8.onnx"
    x, y = (
        helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["batch", w])
        for n, w in (("x", 256), ("y", 8))
    )
    weight = numpy_helper.from_array(
        np.array([[1.0] * 4 + [(-1.0) ** row] * 4 for row in range(256)], np.float32), "weight"
    )
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "weight"], ["y"])], "g", [x], [y], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    feeds = [{"x": np.full((1, 256), value, np.float32)} for value in (0.0, 1.0)]
    kinds = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    reader = type("Reader", (_Listed, CalibrationDataReader), {})(feeds)
    said = tool_says(lambda: quantize_static(path, small, reader, **kinds), "quantized, u8s8")
    want, got = (run_file(file, feeds[1])["y"] for file in (path, small))
    worst, limit = float(np.abs(want - got).max()), 0.05 * float(want.max())
    text = f"off by {worst:.3g} where answers reach {want.max():.3g}"
    words = ("--calibrate", "random", "--prefer", "size", "--input", "x=float32[batch, 256] 0..1")
    printed = run_anyport("compress", path, "--method", "int8-static", *words, "-o", folder / "own.onnx")
    own = folder / "own.onnx"
    is_right = own.exists() and float(np.abs(want - run_file(own, feeds[1])["y"]).max()) <= limit
    is_right = is_right or "does not hold the metric" in printed.line
    answer = printed.answer(printed.line.removeprefix("compress "), is_right=is_right)
    return Finding(said, text, worst > limit, answer)


class _Listed:
    """Given calibration samples."""

    def __init__(self, feeds: list[dict[str, np.ndarray]]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


def _has_vnni() -> str:
    """Say why u8s8 does not saturate here; empty if it may."""
    found = [name for name in this_machine().isa if "vnni" in name or name in {"asimd", "neon"}]
    return f"this CPU has {found[0]}, which adds up in 32 bits" if found else ""


_ROWS: Final[tuple[tuple[str, str, Callable[[Path], Finding]], ...]] = (
    ("dynamic-cnn", "ResNet-18; onnxruntime quantize_dynamic", _dynamic_cnn),
    ("static-default", "ResNet-18; onnxruntime quantize_static", _static_default),
    (
        "static-encoder",
        "BERT of 4 layers, a channel 10 times larger, as trained ones have; quantize_static",
        _static_encoder,
    ),
    ("embeddings", "BERT of 4 layers; onnxruntime quantize_dynamic of its products", _embeddings),
    ("four-bits", "BERT of 4 layers; quant_pre_process, then MatMulNBitsQuantizer", _four_bits),
    ("eight-bits", "BERT of 4 layers; MatMulNBitsQuantizer(bits=8)", _eight_bits),
    ("half-on-cpu", "BERT of 4 layers; onnxruntime's float16 converter, run on a CPU", _half),
)
CASES: Final = (
    *(Case(name, title, find) for name, title, find in _ROWS),
    Case("onnxsim-int4", "BERT of 4 layers; onnxsim quantize_weight_only_int4", _onnxsim, ("onnxsim",)),
    Case("saturation", "a product, INT8 u8s8; onnxruntime quantize_static", _saturation, unless=_has_vnni),
)
