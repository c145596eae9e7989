"""The module map: every value has a module and a line; the graph itself says nothing of the machine."""

from __future__ import annotations

import getpass
import re
import socket
import sysconfig
from pathlib import Path

import msgspec
import onnx
import pytest

import anyport
from anyport.graph.modulemap import ModuleMap, Origin, map_modules
from tests.graph.exports import PARTS, is_line, shared

ROOT = Path(anyport.__file__).resolve().parents[2]


@pytest.mark.parametrize("name", PARTS)
def test_every_value_has_a_module_and_a_line(name: str) -> None:
    given = shared(name)
    known = dict(given.part.module.named_modules())
    values = {v.name for node in given.converted.model.graph.all_nodes() for v in node.outputs}
    origins = given.converted.modules.values
    assert set(origins) <= values
    assert len(origins) >= 0.9 * len(values), sorted(values - set(origins), key=str)
    for value, origin in origins.items():
        assert origin.module in known, (value, origin)
        assert not origin.line or is_line(origin.line), origin


def test_a_transformer_block_is_mapped_wholly() -> None:
    given = shared("encoder")
    nodes = [node for node in given.converted.model.graph if node.op_type not in {"Constant", "Shape"}]
    origins = given.converted.modules.values
    lines = Path(__file__).with_name("exports.py").read_text(encoding="utf-8").splitlines()
    for node in nodes:
        origin = origins[str(node.outputs[0].name)]
        if node.op_type == "Split":  # made by the optimizer, which keeps no notes: placed by its neighbours
            assert re.fullmatch(r"blocks\.[01]", origin.module)
            continue
        place, _, code = origin.line.partition(": ")
        name, number = place.split(":")
        assert name == "exports.py", origin
        assert lines[int(number) - 1].strip() == code
    modules = {origins[str(node.outputs[0].name)].module for node in nodes}
    assert {"embedding", "blocks.0.norm", "blocks.1.mlp.0", "blocks.1.mlp.1", "blocks.0.out"} <= modules


def test_lines_of_a_package_begin_with_its_name() -> None:
    lines = {origin.line for origin in shared("bert").converted.modules.values.values() if origin.line}
    assert lines
    assert all(line.startswith("transformers/") for line in lines), lines


@pytest.mark.parametrize("name", PARTS)
def test_the_graph_keeps_no_notes(name: str) -> None:
    model = shared(name).converted.model
    assert not model.metadata_props
    assert not model.doc_string
    assert not model.graph.doc_string
    for node in model.graph.all_nodes():
        assert not node.metadata_props
        assert not node.doc_string
        assert not any(value.metadata_props or value.doc_string for value in node.outputs)


@pytest.mark.parametrize("name", ["bert", "encoder"])
def test_no_byte_of_the_file_speaks_of_this_machine(name: str, tmp_path: Path) -> None:
    given = shared(name)
    graph = given.store(tmp_path)
    content = graph.path.read_bytes() + given.converted.modules.encode()
    places = [ROOT, Path.home(), Path.cwd(), tmp_path, Path(sysconfig.get_paths()["purelib"])]
    words = [str(place) for place in places if place != Path(place.anchor)]
    words += ["site-packages", "/usr/", "/tmp/", "stack_trace", "pkg.torch", "Traceback"]  # noqa: S108 -- sought
    words += [word for word in (socket.gethostname(), getpass.getuser()) if len(word) > 4]
    assert [word for word in words if word.encode() in content] == []
    assert not re.search(rb'(^|[\s"\'(])/\w+/\w+', content)
    assert not onnx.load(str(graph.path)).metadata_props


def test_the_map_has_one_form() -> None:
    values = {"b": Origin("blocks.0", "net.py:3: x + 1"), "a": Origin("", "net.py:1"), "c": Origin("head")}
    content = ModuleMap(values).encode()
    assert content == ModuleMap(dict(sorted(values.items()))).encode()
    assert ModuleMap.decode(content) == ModuleMap(values)
    assert content.endswith(b"}\n")
    assert b'"a": {\n   "line": "net.py:1"\n  }' in content
    with pytest.raises(msgspec.ValidationError):
        ModuleMap.decode(b'{"values": {"a": {"module": 3}}}')


def test_a_map_of_a_cleaned_graph_is_empty(tmp_path: Path) -> None:
    import onnx_ir as ir

    graph = shared("encoder").store(tmp_path)
    assert map_modules(ir.load(str(graph.path))) == ModuleMap({})
