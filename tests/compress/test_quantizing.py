from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from anyport.compress.methods import Fp16Storage, Int8Dynamic, Int8Static
from anyport.compress.quantizing import find_ranges, quantize
from anyport.errors import UsageError
from anyport.graph.rewriting import external_names, load_graph
from anyport.runtime import SessionOptions, open_session
from tests.compress.smallnets import Arrays, beside, convnet, pictures, sentences, textnet

if TYPE_CHECKING:
    from pathlib import Path

METHODS = (Int8Static(), Int8Dynamic(), Fp16Storage())


def agreement(graph: Path, other: Path, samples: Arrays, level: str = "all") -> float:
    """Return the least cosine between the answers of two graphs."""
    exact, candidate = open_session(graph), open_session(other, SessionOptions(optimization=level))  # type: ignore[arg-type]
    pairs = [(exact.run(feeds)["y"].ravel(), candidate.run(feeds)["y"].ravel()) for feeds in samples]
    exact.close()
    candidate.close()
    return min(float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) for a, b in pairs)


@pytest.mark.parametrize("method", METHODS, ids=[method.text for method in METHODS])
def test_the_layout_is_the_original_s_and_bytes_are_the_same_again(
    tmp_path: Path, method: Int8Static
) -> None:
    inside = textnet(tmp_path / "in.onnx")
    found = quantize(inside, method, sentences(), tmp_path / "small.onnx")
    assert not external_names(load_graph(found.path))
    assert not (tmp_path / "small.safetensors").exists()
    (tmp_path / "there").mkdir()
    outside = beside(textnet(tmp_path / "there" / "model.onnx"))
    contents = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        one = quantize(outside, method, sentences(), tmp_path / name / "model.onnx")
        weights = tmp_path / name / "weights.safetensors"
        contents.append((one.path.read_bytes(), weights.read_bytes()))
        n_header = 8 + int.from_bytes(contents[-1][1][:8], "little")  # of safetensors
        assert one.size_bytes == sum(len(content) for content in contents[-1]) - n_header
    assert contents[0] == contents[1]
    assert sorted(p.name for p in (tmp_path / "second").iterdir()) == ["model.onnx", "weights.safetensors"]


@pytest.mark.parametrize("method", METHODS, ids=[method.text for method in METHODS])
def test_no_float_weight_is_left_that_nothing_reads(tmp_path: Path, method: Int8Static) -> None:
    found = quantize(textnet(tmp_path / "in.onnx"), method, sentences(), tmp_path / "small.onnx")
    model = onnx.load(found.path)
    read = {name for node in model.graph.node for name in node.input}
    names = {weight.name for weight in model.graph.initializer}
    assert names <= read
    floats = {weight.name for weight in model.graph.initializer if weight.data_type == TensorProto.FLOAT}
    assert not {"inner.weight", "outer.weight", "table", "tiny"} & floats
    assert {entry.key: entry.value for entry in model.metadata_props}["compressed"] == method.text
    assert found.n_nodes == len(model.graph.node)


def test_ranges_need_samples(tmp_path: Path) -> None:
    graph = convnet(tmp_path / "net.onnx")
    with pytest.raises(UsageError) as caught:
        find_ranges(graph, Int8Static(), None, tmp_path)
    assert str(caught.value) == (
        "int8-static:u8s8 needs samples to find its ranges\n"
        "  do:    --calibrate pictures/, --calibrate calibrate.py:samples, or --method int8-dynamic"
    )
    ranges = find_ranges(graph, Int8Static(), pictures(), tmp_path)
    assert sorted(ranges) == ["c2", "pooled", "r1", "r2", "r3", "x"]
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]


def test_an_old_opset_is_refused(tmp_path: Path) -> None:
    graph = convnet(tmp_path / "net.onnx")
    model = onnx.load(graph)
    model.opset_import[0].version = 11
    onnx.save(model, graph)
    with pytest.raises(UsageError, match="net.onnx has opset 11, int8-static:u8s8 needs 13 or newer"):
        quantize(graph, Int8Static(), pictures(), tmp_path / "small.onnx")
