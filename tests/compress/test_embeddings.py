from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from onnx import helper

from anyport.compress.embeddings import quantize_tables
from anyport.compress.methods import Int8Dynamic
from anyport.compress.quantizing import quantize
from anyport.compress.rewrite import Rewrite, kept_line
from anyport.graph.rewriting import load_graph
from anyport.runtime import open_session
from tests.compress.smallnets import FLOAT, INT64, textnet
from tests.runtime.networks import Tensors, save

if TYPE_CHECKING:
    from pathlib import Path


def test_each_row_is_off_by_at_most_half_its_own_step(tmp_path: Path) -> None:
    table = np.random.default_rng(0).normal(0, 1, (50, 16)).astype(np.float32)
    table[7] *= 1000
    nodes = [helper.make_node("Gather", ["table", "ids"], ["y"])]
    ends = {"ids": (INT64, ["batch", 2])}, {"y": (FLOAT, ["batch", 2, 16])}
    graph = save(tmp_path / "net.onnx", nodes, Tensors(*ends, {"table": table}))
    found = quantize(graph, Int8Dynamic(), None, tmp_path / "int8.onnx")
    ids = np.arange(50).reshape(25, 2)
    rows = open_session(found.path).run({"ids": ids})["y"].reshape(50, 16)
    steps = np.abs(table).max(axis=1, keepdims=True) / 127
    assert (np.abs(rows - table) <= steps * 0.501).all()
    assert dict(found.operators) == {"Cast": 1, "Gather": 2, "Mul": 1}


def test_they_stay_where_that_is_asked_for(tmp_path: Path) -> None:
    graph = textnet(tmp_path / "net.onnx")
    found = quantize(graph, Int8Dynamic(embeddings=False), None, tmp_path / "int8.onnx")
    assert found.n_changed == 2
    assert found.size_bytes > 100 * 64 * 4


@pytest.mark.parametrize(
    ("shape", "axis", "reason"),
    [
        ((40, 16), 1, "1 Gather: it reads along axis 1 of 2"),
        ((4, 4), 0, "1 Gather: its table is smaller than 1 KiB"),
    ],
)
def test_what_is_no_table_stays(tmp_path: Path, shape: tuple[int, int], axis: int, reason: str) -> None:
    nodes = [helper.make_node("Gather", ["table", "ids"], ["y"], axis=axis)]
    ends = {"ids": (INT64, [2])}, {"y": (FLOAT, None)}
    path = save(tmp_path / "net.onnx", nodes, Tensors(*ends, {"table": np.ones(shape, np.float32)}))
    rewrite = Rewrite(load_graph(path))
    quantize_tables(rewrite)
    assert (kept_line(rewrite.kept), rewrite.n_changed) == (reason, 0)
