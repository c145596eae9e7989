"""What a session takes and gives, in the notation of anyport."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from anyport.bundle import PartEntry
from anyport.errors import SessionError
from anyport.runtime.signature import check_declared, signature_of_part, signature_of_values

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anyport.tensors import Signature


@dataclass
class Value:
    name: str
    type: str
    shape: Sequence[int | str | None]


def notation(kind: str, shape: Sequence[int | str | None], name: str = "x") -> str:
    return str(signature_of_values([Value(name, kind, shape)], []).inputs[0])


@pytest.mark.parametrize(
    ("kind", "shape", "expected"),
    [
        ("tensor(float)", ["batch", 3], "float32[batch, 3]"),
        ("tensor(double)", [], "float64[]"),
        ("tensor(int64)", ["batch", "height//8"], "int64[batch, height//8]"),
        ("tensor(bool)", [None, "n"], "bool[x_0, n]"),
        ("tensor(float16)", ["floor(h/8)", 1], "float16[x_0, 1]"),
    ],
)
def test_values_become_specs(kind: str, shape: list[int | str | None], expected: str) -> None:
    assert notation(kind, shape) == expected


def test_an_axis_without_a_name_gets_one_that_is_a_name() -> None:
    assert notation("tensor(float)", [None], "0/conv:1") == "float32[_0_conv_1_0]"


@pytest.mark.parametrize(
    "kind", ["tensor(string)", "tensor(bfloat16)", "seq(tensor(float))", "tensor(uint16)"]
)
def test_other_types_are_refused(kind: str) -> None:
    with pytest.raises(SessionError) as caught:
        notation(kind, [1])
    assert caught.value.what == f"'x' has the type {kind}, which anyport cannot feed"


def test_a_graph_must_be_what_its_bundle_declares() -> None:
    part = PartEntry({"x": "float32[batch, 3]"}, {"y": "float32[batch]"}, {"batch": "1..8"})
    declared = signature_of_part(part)

    def found(x: Value, y: str = "y") -> Signature:
        return signature_of_values([x], [Value(y, "tensor(float)", [None])])

    check_declared(declared, found(Value("x", "tensor(float)", ["n", 3])), "part network")
    wrong = [
        (
            found(Value("x", "tensor(double)", ["n", 3])),
            "the bundle declares the inputs 'x' float32[batch, 3]",
        ),
        (
            found(Value("z", "tensor(float)", ["n", 3])),
            "the bundle declares the inputs 'x' float32[batch, 3]",
        ),
        (
            found(Value("x", "tensor(float)", [1, 3])),
            "the bundle declares input 'x' as float32[batch, 3], the g",
        ),
        (
            found(Value("x", "tensor(float)", ["n"])),
            "the bundle declares input 'x' as float32[batch, 3], the g",
        ),
        (
            found(Value("x", "tensor(float)", ["n", 3]), "w"),
            "the bundle declares the outputs 'y' float32[batch]",
        ),
    ]
    for signature, message in wrong:
        with pytest.raises(SessionError) as caught:
            check_declared(declared, signature, "part network")
        assert caught.value.what.startswith(message)
        assert caught.value.where == "part network"
