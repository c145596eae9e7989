"""Bundles of every kind, as advice sees them."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from anyport.report import Traits

CNN: Final = Traits(
    name="resnet.port",
    variant="fp32",
    kind="cnn",
    operators={"Conv": 53, "Gemm": 1, "Relu": 49},
    size_bytes=102_000_000,
    largest_bytes=9_000_000,
    n_parameters=25_500_000,
    fix={"batch": 1, "height": 224},
    opset=20,
    has_cache=False,
    domains=(),
    calibrated=False,
    command="anyport build model.py:load --input 'x=float32[batch, 3, height, 224]' -o resnet.port --force",
)
STATIC: Final = replace(
    CNN, name="static.port", fix={}, command="anyport build . --fix=batch=1 -o static.port"
)
TEXT: Final = replace(
    CNN,
    name="bert.port",
    kind="transformer",
    operators={"MatMul": 72, "Softmax": 12, "Gather": 1, "ReduceL2": 1, "IsNaN": 12},
    size_bytes=438_000_000,
    largest_bytes=93_000_000,
    fix={"batch": 1, "sequence": 64},
)
DECODER: Final = replace(TEXT, name="decoder.port", has_cache=True)
LARGE: Final = replace(TEXT, name="large.port", size_bytes=2_600_000_000, largest_bytes=600_000_000)
HUGE: Final = replace(LARGE, name="huge.port", size_bytes=5_000_000_000)
RECURRENT: Final = replace(CNN, name="gru.port", kind="recurrent", operators={"GRU": 2}, fix={"batch": 1})
DENSE: Final = replace(CNN, name="mlp.port", kind="dense", operators={"Gemm": 3}, size_bytes=400_000)
STRANGE: Final = replace(
    CNN, name="strange.port", operators={"Conv": 5, "If": 1, "Twice": 1}, domains=("own",), opset=22
)

EVERY: Final = (CNN, STATIC, TEXT, DECODER, LARGE, HUGE, RECURRENT, DENSE, STRANGE)
