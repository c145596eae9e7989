"""Advice for servers and computers: server-cpu, windows-pc, nvidia, jetson."""

from __future__ import annotations

from typing import Final

from anyport.report.rules import (
    BUNDLE,
    RUNTIMES,
    TRAINED_ENCODER,
    VNNI_CNN,
    VNNI_ENCODER,
    Basis,
    Rule,
    above,
    has_cache,
    having,
    is_cnn,
    is_free,
    is_transformer,
)

_ORT: Final = "https://github.com/microsoft/onnxruntime/issues"
_PROVIDERS: Final = "https://onnxruntime.ai/docs/execution-providers"
_INC: Final = "https://github.com/intel/neural-compressor/blob/v2.6.1/docs/source/validated_model_list.md"
_CPU: Final = ("server-cpu", "windows-pc")
_CUDA: Final = ("jetson", "nvidia")
_EVERY: Final = ("android", "browser", "iphone", "jetson", "nvidia", "server-cpu", "windows-pc")
_BIG: Final = 2 * 10**9

MACHINE_RULES: Final[tuple[Rule, ...]] = (
    Rule(
        ("server-cpu",),
        "runtime",
        "ONNX Runtime on the CPU: the only runtime that this version of anyport opens, so all proofs "
        "hold there",
        Basis.MEASURED,
        f"against PyTorch eager it takes 0.57 to 1.2 of the CPU time; {RUNTIMES}",
    ),
    Rule(
        ("windows-pc",),
        "runtime",
        "ONNX Runtime on the CPU first, which every PC has; for its GPU or NPU Windows ML, which picks a "
        "provider",
        Basis.ELSEWHERE,
        f"{_PROVIDERS}/DirectML-ExecutionProvider (DirectML itself gets no new features)",
    ),
    Rule(
        ("nvidia",),
        "runtime",
        "onnxruntime-gpu with the CUDA provider; TensorRT where start-up time does not matter",
        Basis.ELSEWHERE,
        f"{_PROVIDERS}/CUDA-ExecutionProvider.html",
    ),
    Rule(
        ("jetson",),
        "runtime",
        "TensorRT, by way of ONNX Runtime's TensorRT provider; engines are built on the device that runs "
        "them",
        Basis.ELSEWHERE,
        f"{_PROVIDERS}/TensorRT-ExecutionProvider.html",
    ),
    Rule(
        (*_CPU, *_CUDA),
        "format",
        "the bundle as it is: .onnx with its weights beside it ({size})",
        Basis.BUNDLE,
        BUNDLE,
    ),
    Rule(
        _CPU,
        "precision",
        "INT8, static, per-channel weights: 3.9x smaller, up to 3.0x faster with VNNI; keep float32 "
        "where the "
        "build's gates refuse it",
        Basis.MEASURED,
        VNNI_CNN,
        is_cnn,
    ),
    Rule(
        _CPU,
        "precision",
        "INT8, dynamic, per-channel weights: 4.0x smaller, 3.5x faster for one token at a time (2.4x for "
        "197)",
        Basis.MEASURED,
        VNNI_ENCODER,
        has_cache,
    ),
    Rule(
        _CPU,
        "precision",
        "INT8, dynamic, per-channel weights: 4.0x smaller, 2.4x faster with VNNI",
        Basis.MEASURED,
        VNNI_ENCODER,
        is_transformer,
    ),
    Rule(
        _CPU,
        "precision",
        "INT8, dynamic, where the build's gates find it faster; float32 else",
        Basis.UNTRIED,
        "no table has {kind}: the build and `anyport bench` measure yours",
    ),
    Rule(
        _CUDA,
        "precision",
        "16 bits; anyport stores weights so and computes in 32 bits: half the download, no faster",
        Basis.UNTRIED,
        "no GPU was at hand for the tables: bench it on yours",
    ),
    Rule(
        _CPU,
        "trap",
        "dynamic INT8 makes convolutions 6.6x slower: static it is",
        Basis.MEASURED,
        f"{VNNI_CNN}; the same at {_ORT}/12854",
        is_cnn,
    ),
    Rule(
        _CPU,
        "cost",
        "without VNNI the gain is less and u8s8 saturates: ResNet-50 lost 5.8 points of top-1 on an AMD "
        "machine; "
        "build on the kind of CPU that will serve, or add :reduced",
        Basis.ELSEWHERE,
        _INC,
        is_cnn,
    ),
    Rule(
        _CPU,
        "cost",
        "mean cosine to float32 0.992 with per-channel weights, 0.960 with the library's default of one "
        "scale "
        "for each tensor",
        Basis.MEASURED,
        TRAINED_ENCODER,
        is_transformer,
    ),
    Rule(
        _CPU,
        "trap",
        "fp16 is a download format here: 0.92 to 0.97x the speed of float32, and more memory while it loads",
        Basis.MEASURED,
        f"{VNNI_CNN}; {VNNI_ENCODER}",
    ),
    Rule(
        ("server-cpu",),
        "cost",
        "OpenVINO took 0.55 to 0.91 of ONNX Runtime's CPU time in float32; anyport does not open it yet, "
        "and its "
        "INT8 gave infinities for batches of two and more of a BERT",
        Basis.MEASURED,
        f"OpenVINO 2026.4.1; {RUNTIMES}",
    ),
    Rule(
        _CPU,
        "cost",
        "4-bit weights would be 4.75x faster for one token at a time; this version of anyport does not "
        "write them",
        Basis.MEASURED,
        VNNI_ENCODER.replace("197 tokens", "1 token"),
        has_cache,
    ),
    Rule(
        _CUDA,
        "trap",
        "ONNX Runtime falls back to the CPU without an error: `verify --checklist --provider` fails "
        "then, by name",
        Basis.MEASURED,
        "ONNX Runtime 1.31.1, asked for a provider that its package lacks",
    ),
    Rule(
        _CUDA,
        "trap",
        "INT8 of the library's default is refused (its biases are INT32): TensorRT wants symmetric "
        "activations",
        Basis.MEASURED,
        "TensorRT-RTX 1.7.1 engine builder without a GPU: built or refused, never run",
        is_cnn,
    ),
    Rule(
        _CUDA,
        "cost",
        "each range of the dynamic axes {axes} needs a profile when an engine is built; fixed ones need none",
        Basis.ELSEWHERE,
        f"{_PROVIDERS}/TensorRT-ExecutionProvider.html",
        is_free,
    ),
    Rule(
        ("windows-pc",),
        "limit",
        "an NPU wants fixed axes, yours are {axes}: add --fix {fix} for a variant of its own",
        Basis.ELSEWHERE,
        f"{_PROVIDERS}/QNN-ExecutionProvider.html",
        is_free,
    ),
    Rule(
        ("windows-pc",),
        "limit",
        "DirectML knows operator sets up to 20, yours is {opset}: add --opset 20",
        Basis.ELSEWHERE,
        f"{_PROVIDERS}/DirectML-ExecutionProvider",
        lambda traits: traits.opset > 20,  # noqa: PLR2004  (as the text says)
    ),
    Rule(
        ("jetson", "nvidia", "server-cpu", "windows-pc"),
        "limit",
        "the weights take {size}; an .onnx file cannot exceed 2 GB, which is why they lie beside it: "
        "move both",
        Basis.ELSEWHERE,
        "https://onnx.ai/onnx/repo-docs/ExternalData.html",
        above(_BIG),
    ),
    Rule(
        _EVERY,
        "limit",
        "it has operators of the domain {domains}: every runtime needs the library that computes them",
        Basis.BUNDLE,
        BUNDLE,
        lambda traits: bool(traits.domains),
    ),
    Rule(
        _EVERY,
        "cost",
        "it has If, Loop or Scan: few compilers and no NPU take them, a runtime computes them step by step",
        Basis.UNTRIED,
        "no table has it: check on the device",
        having("If", "Loop", "Scan"),
    ),
)
