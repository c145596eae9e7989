"""Cutting a graph between blocks: what enters and leaves, and pieces that compute what the whole does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from onnx import helper, numpy_helper

from anyport.errors import ExportError
from anyport.graph.cutting import Cutter
from anyport.graph.modulemap import ModuleMap, Origin

if TYPE_CHECKING:
    from pathlib import Path

WIDE = 40  # a weight of 1600 numbers is one


def cutter(*, shared: bool = False) -> Cutter:
    """Return a graph: a gate that two blocks read; ``shared``: block 1 reads a value inside block 0."""
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.normal(size=(WIDE, WIDE)).astype(np.float32), name)
        for name in ("w0", "w1", "head")
    ]
    inner = "up0" if shared else "gate"
    nodes = [
        helper.make_node("Tanh", ["x"], ["gate"]),
        helper.make_node("MatMul", ["x", "w0"], ["up0"]),
        helper.make_node("Mul", ["up0", "gate"], ["out0"]),
        helper.make_node("MatMul", ["out0", "w1"], ["up1"]),
        helper.make_node("Mul", ["up1", inner], ["out1"]),
        helper.make_node("Identity", ["head"], ["head_too"]),
        helper.make_node("MatMul", ["out1", "head_too"], ["y"]),
    ]
    value = helper.make_tensor_value_info
    ends = [value("x", 1, [None, WIDE])], [value("y", 1, [None, WIDE])]
    graph = helper.make_graph(nodes, "stack", *ends, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    homes = {"up0": "layers.0.up", "out0": "layers.0", "up1": "layers.1.up", "out1": "layers.1", "y": "head"}
    return Cutter(model, ModuleMap({n: Origin(m) for n, m in homes.items()}), ["layers.0", "layers.1"])


def test_what_enters_and_leaves_a_block() -> None:
    found = cutter()
    assert (found.inputs, found.outputs) == (("x",), ("y",))
    assert found.exits("layers.0") == ("out0",)
    assert found.exits("layers.1") == ("out1",)
    assert found.between("layers.0") == ("gate",)
    assert found.between("layers.1") == ("gate",)
    assert cutter(shared=True).exits("layers.0") == ("up0", "out0")


def test_a_piece_has_what_it_needs_and_no_more() -> None:
    piece = cutter().piece(["out1"], {"x", "gate", "out0"})
    assert (piece.nodes, sorted(piece.inputs), piece.weights) == ((3, 4), ["gate", "out0"], ("w1",))
    assert cutter().strangers(piece, "layers.1") == ()
    assert cutter().strangers(piece, "") == ("layers.1",)


def test_a_value_that_two_blocks_share_is_computed_anew() -> None:
    found = cutter(shared=True)
    piece = found.piece(["out1"], {"x", "gate", "out0"})
    assert (piece.nodes, piece.weights) == ((1, 3, 4), ("w0", "w1"))
    assert found.strangers(piece, "layers.1") == ("layers.0",)


def test_a_value_that_nothing_computes_is_named() -> None:
    with pytest.raises(ExportError, match="^the graph needs the value 'x', which nothing computes$"):
        cutter().piece(["out0"], {"gate"})


def test_pieces_compute_what_the_whole_does(tmp_path: Path) -> None:
    found = cutter()
    known = {"x": np.random.default_rng(1).normal(size=(3, WIDE)).astype(np.float32)}
    for outputs in (["gate"], ["out0"], ["out1"], ["y"]):
        known |= found.run(found.piece(outputs, known), known, tmp_path, n_threads=1)
    whole = found.run(found.piece(["y"], {"x"}), {"x": known["x"]}, tmp_path)
    np.testing.assert_allclose(known["y"], whole["y"], rtol=1e-5)


def test_inner_graphs_read_what_is_around_them() -> None:
    value = helper.make_tensor_value_info
    branch = helper.make_graph([helper.make_node("Neg", ["a"], ["c"])], "then", [], [value("c", 1, None)])
    other = helper.make_graph([helper.make_node("Abs", ["a"], ["d"])], "else", [], [value("d", 1, None)])
    nodes = [
        helper.make_node("Exp", ["x"], ["a"]),
        helper.make_node("If", ["flag"], ["y"], then_branch=branch, else_branch=other),
    ]
    graph = helper.make_graph(nodes, "if", [value("x", 1, [1]), value("flag", 9, [])], [value("y", 1, None)])
    found = Cutter(helper.make_model(graph), ModuleMap({}), [])
    assert found.piece(["y"], {"x", "flag"}).nodes == (0, 1)
    piece = found.piece(["y"], {"a", "flag"})
    assert sorted(piece.inputs) == ["a", "flag"]
    model = found.model(piece, {"a": np.zeros(1, np.float32), "flag": np.zeros((), np.bool_)})
    assert [node.op_type for node in model.graph.node] == ["If"]
