"""Operators of the user's own: one table for both exporters, and nothing of it is left behind."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from onnxscript import FLOAT, script
from onnxscript import opset13 as op13
from onnxscript import opset18 as op
from onnxscript import opset20 as op20

from anyport.errors import ExportError, UsageError
from anyport.graph.capture import capture
from anyport.graph.convert import convert
from anyport.graph.customops import CustomOp, read_custom_ops, registered, written_at
from tests.build.ownops import OPS, Clipped, soft_clip_in_onnx
from tests.source.parts import part_of

if TYPE_CHECKING:
    from anyport.recipe import Part

IN, OUT = {"x": "float32[batch, 4]"}, {"y": "float32[batch, 4]", "span": "float32[batch]"}


def part() -> Part:
    return part_of(Clipped(), IN, OUT)


@pytest.mark.parametrize("opset", [13, 14, 17, 18, 20, 23])
def test_the_file_holds_nothing_but_onnx_s_own_operators(opset: int) -> None:
    given = convert(capture(part()), part(), opset, read_custom_ops(OPS, "table.py:OPS"))
    assert {node.domain for node in given.model.graph.all_nodes()} == {""}
    assert dict(given.model.opset_imports) == {"": opset}
    assert not given.model.functions
    assert {"Tanh", "Max", "Min"} <= {node.op_type for node in given.model.graph}
    assert given.custom_ops == ("anyport_tests::parts", "anyport_tests::soft_clip")


@pytest.mark.parametrize(
    ("opset", "text", "do"),
    [
        (
            17,
            "part 'network' has no translation to ONNX opset 17: it uses anyport_tests::",
            "translate your own operator with --custom-op table.py:OPS",
        ),
        (
            20,
            "part 'network' has no translation to ONNX: No ONNX function found for <OpOverload",
            "--custom-op",
        ),
    ],
)
def test_without_a_table_the_option_is_named(opset: int, text: str, do: str) -> None:
    with pytest.raises(ExportError, match=re.escape(text)) as caught:
        convert(capture(part()), part(), opset)
    assert do in (caught.value.do or "")
    assert (caught.value.where or "").startswith("ownops.py:")


def test_nothing_stays_registered() -> None:
    ops = read_custom_ops(OPS, "table.py:OPS")
    before = [dict(custom.function.function_ir.opset_imports) for custom in ops]
    for _ in range(2):
        convert(capture(part()), part(), 17, ops)
        with pytest.raises(ExportError, match="it uses anyport_tests::"):
            convert(capture(part()), part(), 17)
    assert [dict(custom.function.function_ir.opset_imports) for custom in ops] == before


def test_they_are_forgotten_after_an_error_too() -> None:
    ops = read_custom_ops(OPS, "table.py:OPS")
    before = dict(ops[0].function.function_ir.opset_imports)

    def fail() -> None:
        with registered(ops, 17), written_at(ops, 17):
            raise KeyError

    for _ in range(2):
        with pytest.raises(KeyError):
            fail()
    assert dict(ops[0].function.function_ir.opset_imports) == before


@script(default_opset=op)
def _unsaid(x: FLOAT, limit: float):  # noqa: ANN202
    return op.Mul(x, op.Constant(value_float=limit))


@script(default_opset=op)
def _worded(x: FLOAT, mode: str) -> FLOAT:
    return op.Mul(x, op.Cast(op.Constant(value_string=mode), to=1))


@script(default_opset=op)
def _calling(x: FLOAT, limit: float) -> FLOAT:
    return soft_clip_in_onnx(x, limit)


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ([], "'t.py:OPS' is a list of no translations"),
        ({}, "'t.py:OPS' is a dict of no translations"),
        ({"soft_clip": soft_clip_in_onnx}, "'soft_clip' in 't.py:OPS' names no operator"),
        ({3: soft_clip_in_onnx}, "'3' in 't.py:OPS' names no operator"),
        (
            {"anyport_tests::soft_clip": test_nothing_stays_registered},
            "the translation of 'anyport_tests::soft_clip' is a function, not an onnxscript function",
        ),
        (
            {"anyport_tests::soft_clip": _unsaid},
            "the translation of 'anyport_tests::soft_clip' does not say what it returns",
        ),
        (
            {"anyport_tests::soft_clip": _worded},
            "the translation of 'anyport_tests::soft_clip' takes 'mode' as STRING",
        ),
        (
            {"anyport_tests::soft_clip": _calling},
            "the translation of 'anyport_tests::soft_clip' calls this::soft_clip_in_onnx",
        ),
        (
            {"anyport_tests::soft_klip": soft_clip_in_onnx},
            "PyTorch knows no operator 'anyport_tests::soft_klip'",
        ),
        ({"nobody::soft_clip": soft_clip_in_onnx}, "PyTorch knows no operator 'nobody::soft_clip'"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(table: Any, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_custom_ops(table, "t.py:OPS")
    assert caught.value.what == text


def test_an_overload_may_be_named() -> None:
    [custom] = read_custom_ops({"anyport_tests::soft_clip.default": soft_clip_in_onnx}, "t.py:OPS")
    assert str(custom.overload) == "anyport_tests.soft_clip.default"
    given = convert(capture(part()), part(), 17, [custom, *read_custom_ops(OPS, "t.py:OPS")[:1]])
    assert {node.domain for node in given.model.graph} == {""}


@script(default_opset=op)
def _reduced(x: FLOAT, limit: float) -> FLOAT:
    return op.Mul(op.ReduceMean(x, op.Constant(value_ints=[1])), op.Constant(value_float=limit))


@script(default_opset=op)
def _bits(x: FLOAT, limit: float) -> FLOAT:
    return op.CastLike(op.Constant(value_float=limit), x)


@script(default_opset=op20)
def _grid(x: FLOAT, limit: float) -> FLOAT:
    return op20.Mul(op20.GridSample(x, x), op20.Constant(value_float=limit))


@script(default_opset=op13)
def _old(x: FLOAT, limit: float) -> FLOAT:
    return op13.Mul(op13.ReduceMean(x, axes=[1], keepdims=1), op13.Constant(value_float=limit))


@pytest.mark.parametrize(
    ("function", "opset", "what", "do"),
    [
        (_grid, 17, "uses GridSample of opset 20, which at opset 17 is another operator", 17),
        (_reduced, 17, "uses ReduceMean of opset 18, which at opset 17 is another operator", 17),
        (_bits, 13, "uses CastLike of opset 18, which at opset 13 does not exist", 13),
        (_old, 20, "uses ReduceMean of opset 13, which at opset 18 is another operator", 18),
    ],
)
def test_a_function_of_another_opset_is_refused_where_its_operators_changed(
    function: Any, opset: int, what: str, do: int
) -> None:
    ops = read_custom_ops(OPS | {"anyport_tests::soft_clip": function}, "t.py:OPS")
    with pytest.raises(ExportError) as caught:
        convert(capture(part()), part(), opset, ops)
    assert caught.value.what == f"the translation of 'anyport_tests::soft_clip' {what}"
    assert caught.value.do == f"write it with onnxscript.opset{do}"


def test_an_operator_is_its_name_its_overload_and_its_function() -> None:
    found = read_custom_ops(OPS, "table.py:OPS")
    assert [(custom.name, custom.function.name) for custom in found] == [
        ("anyport_tests::parts", "parts_in_onnx"),
        ("anyport_tests::soft_clip", "soft_clip_in_onnx"),
    ]
    assert all(isinstance(custom, CustomOp) for custom in found)
