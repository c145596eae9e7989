"""Operators of a runtime library: both exporters, one message without it, and nothing loaded unasked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from anyport.build import BuildPlan, build, describe
from anyport.bundle import open_bundle
from anyport.errors import SessionError, UsageError
from anyport.graph.customops import read_custom_ops
from anyport.runtime import SessionOptions, open_session
from anyport.runtime.declared import libraries_of
from anyport.source import TorchSession, find_model
from anyport.verify import Status, verify_bundle
from tests.build import runtimeops
from tests.build.building import QUICK, SMALL, ZOO, silent

if TYPE_CHECKING:
    from collections.abc import Callable

MISSING = (
    "the graph uses the operator ai.onnx.contrib::NegPos, which is not ONNX's own, and no library was given"
)


@pytest.fixture(scope="module", name="library")
def _library() -> Path:
    extensions = pytest.importorskip(
        "onnxruntime_extensions", reason="onnxruntime-extensions has the operators of ai.onnx.contrib"
    )
    return Path(extensions.get_library_path())


def plan(output: Path, opset: int = 20, table: str = "OPS", libraries: tuple[Path, ...] = ()) -> BuildPlan:
    words: dict[str, Any] = {
        "model": {"source": "runtimeops.py:split"},
        "build": {"opset": opset, "custom_ops": f"runtimeops.py:{table}"},
    }
    return BuildPlan(describe(words | SMALL, "test"), ZOO, output, replace(QUICK, libraries=libraries))


@pytest.mark.parametrize("opset", [14, 20])
def test_an_operator_of_a_library_is_proven_with_either_exporter(
    opset: int, library: Path, tmp_path: Path
) -> None:
    made = plan(tmp_path / "m.port", opset, libraries=(library,))
    result = build(made, silent)
    [step] = result.manifest.variants["fp32"].steps
    assert step.settings["libraries"] == {"ai.onnx.contrib": "onnxruntime-extensions"}
    assert "libortextensions" not in str(step.settings)
    options = SessionOptions(libraries=(library,))
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    wanted = TorchSession(find_model(made.request).parts[0]).run({"x": x})
    with open_bundle(result.path) as bundle:
        found = open_session(bundle.graph_file("network"), options).run({"x": x})
        verdicts = verify_bundle(bundle, lambda graph: open_session(graph, options))
        assert [verdict.status for verdict in verdicts] == [Status.PASS]
        with pytest.raises(SessionError) as caught:
            open_session(bundle.graph_file("network"))
    np.testing.assert_allclose(found["y"], wanted["y"], rtol=1e-5, atol=1e-6)
    assert caught.value.what == MISSING
    assert caught.value.do == (
        "name its library, that of 'onnxruntime-extensions': --library FILE, or "
        "SessionOptions(libraries=(Path(FILE),))"
    )
    for path in result.path.rglob("*"):
        assert not path.is_file() or str(library.parent).encode() not in path.read_bytes()


def test_a_build_without_the_library_names_it_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(SessionError, match=MISSING):
        build(plan(tmp_path / "m.port"), silent)
    assert list(tmp_path.iterdir()) == []


def test_a_domain_without_a_library_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        build(plan(tmp_path / "m.port", table="NO_LIBRARY"), silent)
    operator = "anyport_tests::below_above"
    assert caught.value.what == f"the translation of '{operator}' calls ai.onnx.contrib::NegPos"
    assert "'ai.onnx.contrib': 'onnxruntime-extensions'" in (caught.value.do or "")


def test_a_table_of_libraries_alone_translates_nothing() -> None:
    with pytest.raises(UsageError, match="'t:OPS' names libraries, and translates no operator"):
        read_custom_ops({"ai.onnx.contrib": "onnxruntime-extensions"}, "t:OPS")
    [op] = read_custom_ops(runtimeops.OPS, "t:OPS")
    assert op.libraries == {"ai.onnx.contrib": "onnxruntime-extensions"}


def graph_with(path: Path, libraries: str) -> Path:
    """Write a graph with an operator that nobody has, and what it says of libraries."""
    ends = [onnx.helper.make_tensor_value_info(name, 1, [2]) for name in ("x", "y")]
    node = onnx.helper.make_node("Strange", ["x"], ["y"], domain="some.where")
    graph = onnx.helper.make_graph([node], "g", ends[:1], ends[1:])
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("some.where", 1)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9)
    onnx.helper.set_model_props(model, {"anyport.libraries": libraries})
    onnx.save(model, path)
    return path


HOSTILE: dict[str, tuple[Callable[[Path], str], str]] = {
    "a path": (lambda library: f'{{"some.where": "{library}"}}', "name its library, that of '"),
    "no table": (lambda _: "[1]", "name its library, the one that has it: "),
    "no JSON": (lambda _: "{", "name its library, the one that has it: "),
    "numbers": (lambda _: '{"some.where": 5}', "name its library, the one that has it: "),
    "escapes": (lambda _: '{"some.where": "a\\u001b[2Jb"}', "name its library, that of 'a\\x1b[2Jb': "),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_a_file_says_of_libraries_is_never_loaded(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    monkeypatch.setattr(
        "onnxruntime.SessionOptions.register_custom_ops_library", lambda _, path: loaded.append(path)
    )
    (tmp_path / "evil.so").write_bytes(b"\x7fELF")
    words, text = HOSTILE[kind]
    path = graph_with(tmp_path / "m.onnx", words(tmp_path / "evil.so"))
    with pytest.raises(SessionError, match="uses the operator some.where::Strange") as caught:
        open_session(path)
    assert (caught.value.do or "").startswith(text)
    assert loaded == []
    assert libraries_of(path) in ({}, {"some.where": str(tmp_path / "evil.so")}, {"some.where": "a\x1b[2Jb"})


def test_a_library_that_is_not_there_or_none_is_named(tmp_path: Path, library: Path) -> None:
    path = graph_with(tmp_path / "m.onnx", "{}")
    (tmp_path / "text.so").write_text("no library")
    with pytest.raises(UsageError, match="there is no library '.*nothing.so'"):
        open_session(path, SessionOptions(libraries=(tmp_path / "nothing.so",)))
    with pytest.raises(SessionError, match="the library 'text.so' does not load: "):
        open_session(path, SessionOptions(libraries=(tmp_path / "text.so",)))
    with pytest.raises(SessionError, match=f"Strange, which is not in {library.name}"):
        open_session(path, SessionOptions(libraries=(library,)))
