from __future__ import annotations

import pytest

from anyport.compress.methods import (
    Entropy,
    Fp16Storage,
    Int8Dynamic,
    Int8Static,
    Percentile,
    candidates,
)
from anyport.errors import UsageError

CNN = {"Add": 16, "Conv": 53, "Gemm": 1}
ENCODER = {"Conv": 1, "MatMul": 96, "Gemm": 1}
BOTH = {"Conv": 18, "MatMul": 36}


def texts(text: str, operators: dict[str, int]) -> list[str]:
    return [method.text for method in candidates(text, operators)]


@pytest.mark.parametrize(
    ("text", "method"),
    [
        ("int8-static:u8s8", Int8Static()),
        ("int8-static:u8s8:reduced", Int8Static(reduce_range=True)),
        ("int8-static:s8s8:per-tensor", Int8Static("s8", per_channel=False)),
        ("int8-static:u8u8:entropy", Int8Static("u8", "u8", ranges=Entropy())),
        ("int8-static:u8s8:reduced:percentile=99.9", Int8Static(reduce_range=True, ranges=Percentile(99.9))),
        ("int8-dynamic:u8s8", Int8Dynamic()),
        ("int8-dynamic:u8u8:per-tensor:reduced", Int8Dynamic("u8", per_channel=False, reduce_range=True)),
        ("int8-dynamic:u8s8:float-embeddings", Int8Dynamic(embeddings=False)),
        ("fp16", Fp16Storage()),
    ],
)
def test_the_notation_is_read_and_written_alike(text: str, method: object) -> None:
    assert candidates(text, {}) == (method,)
    assert texts(text, {}) == [text]


def test_what_is_not_named_is_left_to_a_measurement() -> None:
    static = ["int8-static:u8s8", "int8-static:u8s8:reduced", "int8-static:s8s8", "int8-static:u8u8"]
    dynamic = ["int8-dynamic:u8s8", "int8-dynamic:u8s8:reduced", "int8-dynamic:u8u8"]
    assert texts("int8-static", ENCODER) == static
    assert texts("int8-dynamic", CNN) == dynamic
    assert texts("int8", CNN) == static
    assert texts("int8", ENCODER) == dynamic
    assert texts("int8", BOTH) == static + dynamic
    assert texts("int8", {"Gather": 1}) == dynamic
    assert texts("int8-static:entropy", {}) == [f"{text}:entropy" for text in static]
    assert texts("int8-static:reduced", {}) == [f"{t}:reduced" for t in (static[0], *static[2:])]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("int9", "there is no method 'int9' (did you mean 'int8'?)"),
        ("int8-static:s8u8", "'s8u8' says nothing about int8-static (did you mean 'u8u8'?)"),
        ("int8-dynamic:s8s8", "'s8s8' says nothing about int8-dynamic (did you mean 'u8s8'?)"),
        ("fp16:u8s8", "'u8s8' says nothing about fp16 (none is known here)"),
        ("int8-static:u8s8:s8s8", "'u8s8' and 's8s8' are two flavours"),
        ("int8-static:reduced:minmax:entropy", "'minmax' and 'entropy' are two rules for a range"),
        (
            "int8-static:percentile=99:percentile=98",
            "'percentile=99' and 'percentile=98' are two rules for a range",
        ),
        ("int8-static:percentile=40", "percentile=40 must be from 50 to 100"),
    ],
)
def test_what_is_not_understood_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        candidates(text, {})
    assert caught.value.what == message


def test_a_pair_that_runs_nowhere_is_refused() -> None:
    with pytest.raises(UsageError, match="s8u8"):
        Int8Static("s8", "u8")
