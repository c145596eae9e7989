from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir
import pytest

from anyport.graph.layout import Layout, layout_of, store_in, write_wide
from anyport.graph.rewriting import load_graph
from anyport.graph.storing import count_stored
from anyport.runtime import open_session
from tests.compress.smallnets import convnet, pictures
from tests.graph.narrowgraphs import HALVES, pair

if TYPE_CHECKING:
    from pathlib import Path

WEIGHTS = frozenset({"first.weight", "second.weight", "third.weight", "head.weight"})


@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize("half", HALVES)
def test_a_graph_that_is_made_of_another_one_lies_as_that_does(
    half: str, beside: bool, tmp_path: Path
) -> None:
    found = pair(convnet(tmp_path / "net.onnx"), half, beside=beside)
    for word, path in (("wide", found.wide), ("narrow", found.narrow)):
        model = load_graph(path)
        layout = layout_of(model)
        assert layout.is_narrow == (word == "narrow")
        assert bool(layout.outside) == beside
        assert not beside or layout.outside > WEIGHTS
        output = tmp_path / f"{word}.onnx"
        store_in(layout, model, output)
        assert count_stored(ir.load(output)) == count_stored(ir.load(path))
        assert (tmp_path / f"{word}.safetensors").is_file() == beside
        feeds = next(iter(pictures()))
        one, other = open_session(path), open_session(output)
        assert one.run(feeds)["y"].tobytes() == other.run(feeds)["y"].tobytes()


def test_a_wide_layout_stays_wide_whatever_would_fit(tmp_path: Path) -> None:
    found = pair(convnet(tmp_path / "net.onnx"), "bfloat16")
    model = load_graph(found.wide)
    store_in(Layout(layout_of(model).outside, is_narrow=False), model, tmp_path / "out.onnx")
    assert "bfloat16" not in count_stored(ir.load(tmp_path / "out.onnx"))


@pytest.mark.parametrize("half", HALVES)
def test_a_wide_double_computes_the_same_in_float32(half: str, tmp_path: Path) -> None:
    found = pair(convnet(tmp_path / "net.onnx"), half)
    write_wide(found.narrow, tmp_path / "double.onnx")
    model = ir.load(tmp_path / "double.onnx")
    assert count_stored(model) == count_stored(ir.load(found.wide))
    assert "Cast" not in [node.op_type for node in model.graph]
    feeds = next(iter(pictures()))
    one, other = open_session(found.wide), open_session(tmp_path / "double.onnx")
    assert one.run(feeds)["y"].tobytes() == other.run(feeds)["y"].tobytes()
