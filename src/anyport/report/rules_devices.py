"""Advice for devices and browsers: android, iphone, browser."""

from __future__ import annotations

from typing import Final

from anyport.report.rules import (
    BUNDLE,
    RUNTIMES,
    WASM,
    Basis,
    Rule,
    above,
    has_cache,
    having,
    is_cnn,
    is_free,
    is_transformer,
    reduces_by_input,
)

_PROVIDERS: Final = "https://onnxruntime.ai/docs/execution-providers"
_WEB: Final = "https://onnxruntime.ai/docs/tutorials/web/large-models.html"
_PHONES: Final = ("android", "iphone")
_WASM_BYTES: Final = 4 * 10**9
_FILE_BYTES: Final = 2 * 10**9
_WEBGPU_BYTES: Final = 256 << 20
_DOWNLOAD_BYTES: Final = 100 * 10**6

DEVICE_RULES: Final[tuple[Rule, ...]] = (
    Rule(
        ("browser",),
        "runtime",
        "none as it is: WebAssembly has 4 GB of memory and the weights alone take {size}; serve it, or "
        "take a "
        "smaller model",
        Basis.ELSEWHERE,
        f"{_WEB}; seen at https://github.com/huggingface/transformers.js/issues/1286",
        above(_WASM_BYTES),
    ),
    Rule(
        ("browser",),
        "runtime",
        "onnxruntime-web, WebAssembly first: the same answers as here, 2 to 10 times slower than native",
        Basis.MEASURED,
        f"onnxruntime-web 1.30.0, Chromium 156, one thread; {RUNTIMES}",
    ),
    Rule(
        ("android",),
        "runtime",
        "onnxruntime-android: it reads the bundle's own .onnx, and its ARM build gave the same answers",
        Basis.MEASURED,
        "ONNX Runtime 1.31.1 for aarch64, emulated: answers, not speed",
    ),
    Rule(
        ("iphone",),
        "runtime",
        "ONNX Runtime with its Core ML provider: nodes that it knows go to Core ML, the rest to the CPU",
        Basis.ELSEWHERE,
        f"{_PROVIDERS}/CoreML-ExecutionProvider.html",
    ),
    Rule(
        ("browser",),
        "format",
        "the .onnx file ({size}) by fetch, in a worker",
        Basis.BUNDLE,
        BUNDLE,
    ),
    Rule(
        _PHONES,
        "format",
        "the .onnx file with fixed axes, yours are {axes}: --fix {fix}, proven like the others",
        Basis.BUNDLE,
        BUNDLE,
        is_free,
    ),
    Rule(_PHONES, "format", "the .onnx file as it is: every axis is fixed", Basis.BUNDLE, BUNDLE),
    Rule(
        ("browser",),
        "precision",
        "INT8, static, u8u8: 1.9x faster than float32 and 3.9x smaller; u8s8, the best on a server, is "
        "1.3x here",
        Basis.MEASURED,
        f"ResNet-50, {WASM}",
        is_cnn,
    ),
    Rule(
        ("browser",),
        "precision",
        "INT8, dynamic: 1.3x faster than float32 for one token at a time, 4.0x smaller",
        Basis.MEASURED,
        f"12-layer encoder, {WASM}",
        has_cache,
    ),
    Rule(
        ("browser",),
        "precision",
        "INT8, dynamic: 2.0x faster than float32, 4.0x smaller",
        Basis.MEASURED,
        f"12-layer encoder, 197 tokens, {WASM}",
        is_transformer,
    ),
    Rule(
        ("browser",),
        "precision",
        "INT8, dynamic, for the download: a quarter of {size}",
        Basis.UNTRIED,
        "no table has the speed of {kind} here",
    ),
    Rule(
        ("android",),
        "precision",
        "INT8, static, s8s8: ONNX Runtime's own first choice, slow on x86 only",
        Basis.ELSEWHERE,
        "https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html",
        is_cnn,
    ),
    Rule(
        ("android",),
        "precision",
        "INT8, dynamic",
        Basis.UNTRIED,
        "no ARM device was at hand for the tables: time it on yours",
    ),
    Rule(
        ("iphone",),
        "precision",
        "float32: the Core ML provider took none of an INT8 encoder, all of it ran on the CPU",
        Basis.ELSEWHERE,
        "https://github.com/ekhodzitsky/gigastt/issues/42",
    ),
    Rule(
        ("browser",),
        "limit",
        "{size} are more than the 2 GB that one ArrayBuffer or .onnx file may have: the weights stay a "
        "file of their own",
        Basis.ELSEWHERE,
        _WEB,
        above(_FILE_BYTES),
    ),
    Rule(
        ("browser",),
        "limit",
        "the largest tensor takes {largest}, WebGPU's buffers 256 MiB by default: WebAssembly, or INT8 "
        "embeddings",
        Basis.ELSEWHERE,
        "https://github.com/onnxruntime/mobius/pull/400",
        lambda traits: traits.largest_bytes > _WEBGPU_BYTES,
    ),
    Rule(
        ("browser",),
        "cost",
        "every visitor downloads {size}: a quarter of it in INT8, half in fp16",
        Basis.BUNDLE,
        BUNDLE,
        above(_DOWNLOAD_BYTES),
    ),
    Rule(
        ("browser",),
        "trap",
        "dynamic INT8 of the library's default (s8) runs convolutions at 0.13x",
        Basis.MEASURED,
        f"ResNet-50, {WASM}",
        is_cnn,
    ),
    Rule(
        ("browser",),
        "trap",
        "4-bit MatMuls run at 0.10 to 0.13x for one token at a time: they are for WebGPU",
        Basis.MEASURED,
        f"12-layer encoder, {WASM}",
        has_cache,
    ),
    Rule(
        ("browser",),
        "trap",
        "on WebGPU take fp16, not INT8, and compare with WebAssembly: quantized graphs were silently "
        "wrong there",
        Basis.ELSEWHERE,
        "https://github.com/huggingface/transformers.js/issues/1728",
    ),
    Rule(
        ("browser",),
        "trap",
        "threads need the headers COOP same-origin and COEP require-corp; without them it is one thread, "
        "silently",
        Basis.MEASURED,
        "onnxruntime-web 1.30.0, Chromium 156",
    ),
    Rule(
        ("android",),
        "cost",
        "LiteRT took 0.33 to 0.44 of ONNX Runtime's CPU time in dynamic INT8 on x86 (2.2 for a warp); "
        "anyport does not convert to it "
        "yet, and it wants fixed axes",
        Basis.MEASURED,
        f"ai-edge-litert 2.3.0; {RUNTIMES}",
    ),
    Rule(
        ("android",),
        "limit",
        "NPUs by way of QNN want fixed axes and static INT8",
        Basis.ELSEWHERE,
        f"{_PROVIDERS}/QNN-ExecutionProvider.html",
        is_free,
    ),
    Rule(
        ("android",),
        "trap",
        "ncnn answers text of another length than the traced one wrongly, without an error (cosine 0.838)",
        Basis.MEASURED,
        "ncnn 1.0.20261020, a BERT traced at 128 tokens and run at 77",
        is_transformer,
    ),
    Rule(
        ("android",),
        "trap",
        "MNN ignores the axes of ReduceL1, ReduceL2 and ReduceSumSquare from opset 18 on, yours is "
        "{opset}: --opset 17",
        Basis.MEASURED,
        "MNN 3.6.1: batch 1 exact, batch 3 scaled by 0.58, cosine 1.000000",
        reduces_by_input,
    ),
    Rule(
        ("android",),
        "trap",
        "it has IsNaN, which MNN and ncnn do not read: export with eager attention",
        Basis.MEASURED,
        f"MNN 3.6.1, ncnn 1.0.20261020; {RUNTIMES}",
        having("IsNaN"),
    ),
    Rule(
        ("android",),
        "cost",
        "fp16 arithmetic of a phone differs more than x86 shows: 1.5e-2 instead of 7e-6 for the same file",
        Basis.MEASURED,
        "MNN 3.6.1, a warping network, Cortex-A76 emulated against x86",
    ),
    Rule(
        ("iphone",),
        "limit",
        "Core ML compiles for fixed sizes best; a dynamic axis may keep nodes on the CPU",
        Basis.ELSEWHERE,
        f"{_PROVIDERS}/CoreML-ExecutionProvider.html",
        is_free,
    ),
    Rule(
        ("iphone",),
        "cost",
        "no number of Core ML was checked for anyport: it runs on macOS and iOS only; run the bundle's "
        "proof there",
        Basis.UNTRIED,
        "coremltools 9.0 on Linux converts and does not predict",
    ),
    Rule(
        _PHONES,
        "limit",
        "{size} are much for an app: phones end apps that take over about 2 GB",
        Basis.UNTRIED,
        "the limit depends on the device",
        above(_FILE_BYTES // 2),
    ),
)
