"""Rows about runtimes: what runs somewhere else than asked, or computes something else than the file says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import zipfile
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
import onnxruntime as ort
import torch

import silent_models
from anyport.build import BuildSettings
from anyport.build.proving import sweep_settings
from anyport.errors import MismatchError
from anyport.runtime import open_session
from anyport.verify import PartSpec, SessionReference, compare, plan_cases
from silent_case import (
    Answer,
    Case,
    Finding,
    Said,
    anyport_says,
    difference,
    run_file,
    run_torch,
    tool_says,
)
from silent_int8 import reader_of
from silent_nets import EMBEDDER, exported, feeds_of
from silent_rewrites import export
from subjects import BATCH, Subject

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from anyport.tensors import TensorSpec

_DEMO: Final = Path("src/anyport/demo/digits.port")
_SEVEN: Final = Path("src/anyport/demo/seven.png")
_OFF: Final = 1e-2
_NORMED: Final = Subject(
    "normed", silent_models.normed_embedding, {"x": "float32[batch, 16]"}, {"y": "float32[batch, 8]"}, BATCH
)


# ── ONNX Runtime ────────────────────────────────────────────────────────────────────────────────────────
def _provider(folder: Path) -> Finding:
    """Ask for a provider that this onnxruntime does not have."""
    missing = [name for name in ort.get_all_providers() if name not in ort.get_available_providers()]
    name = "CUDAExecutionProvider" if "CUDAExecutionProvider" in missing else missing[0]
    path = folder / "net.onnx"
    export(silent_models.two_clips(), (torch.zeros(4, 16),), path)
    sessions: list[Any] = []
    said = tool_says(lambda: sessions.append(ort.InferenceSession(path, providers=[name])), "opened")
    got = sessions[0].get_providers()
    short = name.removesuffix("ExecutionProvider").lower()
    expected = f"SessionError: the provider '{short}' is not in this onnxruntime"
    answer = anyport_says("run", _DEMO, _SEVEN, "--provider", short, expected=expected)
    return Finding(said, f"asked for {name}, runs on {', '.join(got)}", name not in got, answer)


def _damage(folder: Path) -> Finding:
    """Flip one bit of the weights of a bundle, as a bad cable would."""
    with zipfile.ZipFile(_DEMO) as archive:
        archive.extractall(folder / "digits.port")
    place = folder / "digits.port/parts/network/fp32"
    weights = place / "weights.safetensors"
    feeds = {"pixel_values": np.random.default_rng(0).random((2, 1, 8, 8), np.float32)}
    [want] = run_file(place / "model.onnx", feeds).values()
    content = bytearray(weights.read_bytes())
    content[-2] ^= 0x40  # an exponent bit of the last float
    weights.write_bytes(content)
    answers: list[dict[str, np.ndarray]] = []

    def load() -> None:
        onnx.checker.check_model(place / "model.onnx", full_check=True)
        answers.append(run_file(place / "model.onnx", feeds))

    said = tool_says(load, "onnx.checker passes, onnxruntime opens and runs it")
    [got] = answers[0].values()
    worst, text = difference(want, got)
    expected = "BundleError: 'parts/network/fp32/weights.safetensors' is not the file that was sealed"
    answer = anyport_says("verify", folder / "digits.port", expected=expected)
    return Finding(said, text, worst > _OFF, answer)


# ── other runtimes ──────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class Foreign:
    """Another runtime, as `anyport.verify.compare` takes it: a `Session`."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    compute: Callable[[dict[str, np.ndarray]], np.ndarray]

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute the only output."""
        return {self.outputs[0].name: self.compute(dict(feeds))}

    def close(self) -> None:
        """Nothing is held."""


def held_against(
    path: Path, subject: Subject, compute: Callable[[dict[str, np.ndarray]], np.ndarray]
) -> Answer:
    """Let anyport compare another runtime with onnxruntime on the same file, over the cases that it plans."""
    signature = subject.signature
    part = PartSpec(
        subject.name, "onnx", signature.inputs, signature.outputs, signature.dims, reference=path.name
    )
    plan = plan_cases(signature.inputs, signature.dims, sweep_settings(BuildSettings(max_cases=12)))
    candidate = Foreign(signature.inputs, signature.outputs, compute)
    session = open_session(path)
    started_s = time.monotonic()
    try:
        compare(SessionReference(session), candidate, plan, part).raise_if_bad()
        text = "PASS"
    except MismatchError as err:
        text = f"MismatchError: {err.what}"
    finally:
        session.close()
    is_right = text.startswith(f"MismatchError: output '{signature.outputs[0].name}' is ")
    call = "anyport.verify.compare(SessionReference(onnxruntime), runtime, plan, part)"
    return Answer(call, text, is_right, time.monotonic() - started_s)


def _mnn(folder: Path) -> Finding:
    """Convert rows of unit length to MNN: its ReduceL2 of opset 18 reduces over everything."""
    path = folder / "normed.onnx"
    inputs = (torch.randn(3, 16, generator=torch.Generator().manual_seed(0)),)
    axes = {"x": {0: torch.export.Dim("batch")}}
    export(silent_models.normed_embedding(), inputs, path, axes=axes)
    feeds = {"one": inputs[0][:1].numpy(), "three": inputs[0].numpy()}
    started_s = time.monotonic()
    got = _run_mnn(path, feeds)
    said = Said("converted; at batch 1 it is exact", time.monotonic() - started_s)
    want = run_torch(silent_models.normed_embedding(), inputs)
    at_one, _ = difference(want[:1], got["one"])
    worst, text = difference(want, got["three"])
    if at_one > _OFF:
        said = Said("converted", said.seconds)
    answer = held_against(path, _NORMED, lambda feeds: _run_mnn(path, feeds)["x"])
    return Finding(said, f"at batch 3 {text}", worst > _OFF, answer)


def _run_mnn(path: Path, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    given, answers = path.with_name("in.json"), path.with_name("out.json")
    given.write_text(json.dumps({name: array.tolist() for name, array in feeds.items()}))
    program = Path("bench/silent_mnn.py").resolve()
    environment = {name: value for name, value in os.environ.items() if name != "PATH"}
    words = [sys.executable, *(str(word) for word in (program, path, given, answers))]
    subprocess.run(words, check=True, capture_output=True, env=environment, cwd=path.parent)
    return {name: np.array(numbers, np.float32) for name, numbers in json.loads(answers.read_text()).items()}


def _openvino(folder: Path) -> Finding:
    """Run an INT8 sentence encoder at batch 2 on OpenVINO."""
    openvino: Any = import_module("openvino")
    from onnxruntime.quantization import QuantType, quantize_static

    path, small = exported(EMBEDDER, folder), folder / "int8.onnx"
    quantize_static(path, small, reader_of(EMBEDDER), activation_type=QuantType.QUInt8)
    compiled: list[Any] = []
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}

    def load() -> None:
        compiled.append(openvino.Core().compile_model(str(small), "CPU", settings))

    said = tool_says(load, "compiled")

    def compute(feeds: dict[str, np.ndarray]) -> np.ndarray:
        return np.array(compiled[0](feeds)[compiled[0].output(0)])

    feeds = [feeds_of(EMBEDDER, 5, batch=n) for n in (1, 2)]
    pairs = [(run_file(small, one)["sentence"], compute(one)) for one in feeds]
    at_one, worst = (difference(*pair) for pair in pairs)
    said = Said(f"{said.text}; at batch 1 {at_one[1]}", said.seconds)
    text = f"at batch 2 {worst[1]}".replace("PyTorch", "onnxruntime")
    return Finding(said, text, worst[0] > _OFF, held_against(small, EMBEDDER, compute))


CASES: Final = (
    Case("provider", "CUDA where there is none; onnxruntime", _provider),
    Case("damaged-weights", "a bundle, one bit of its weights flipped; onnx.checker, onnxruntime", _damage),
    Case("mnn-norm", "rows of unit length; MNN's converter and runtime", _mnn, ("MNN",)),
    Case("openvino-int8", "sentence encoder in INT8 u8s8, batch 2; OpenVINO", _openvino, ("openvino",)),
)
