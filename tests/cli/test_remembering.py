"""Where the weights of a bundle are on this machine: kept beside it, and never in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from anyport.cli.remembering import folder_of, remember_weights, weights_for
from anyport.errors import UsageError
from anyport.graph.streamed import StreamOptions
from tests.graph.streamedmodels import stream_speller, write_speller


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "anyport" / "weights.json"


def bundle_of(folder: Path, seal: str) -> Path:
    folder.mkdir()
    (folder / "SEAL").write_text(seal)
    return folder


def test_a_folder_is_remembered_for_the_bundle_wherever_it_lies(tmp_path: Path, state: Path) -> None:
    bundle, other = bundle_of(tmp_path / "a.port", "sha256:1"), bundle_of(tmp_path / "b.port", "sha256:2")
    assert weights_for(bundle, None) is None
    remember_weights(bundle, tmp_path / "checkpoint")
    assert weights_for(bundle, None) == tmp_path / "checkpoint"
    assert weights_for(bundle, Path("elsewhere")) == Path("elsewhere")
    assert weights_for(other, None) is None
    bundle.rename(tmp_path / "moved.port")
    assert weights_for(tmp_path / "moved.port", None) == tmp_path / "checkpoint"
    assert state.is_file()
    assert [file.name for file in (tmp_path / "moved.port").iterdir()] == ["SEAL"]


def test_nothing_is_written_where_nothing_was_given(tmp_path: Path, state: Path) -> None:
    remember_weights(bundle_of(tmp_path / "a.port", "sha256:1"), None)
    assert not state.exists()


def test_a_plain_file_is_known_by_its_content(tmp_path: Path, state: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"one")
    remember_weights(tmp_path / "m.onnx", tmp_path)
    assert weights_for(tmp_path / "m.onnx", None) == tmp_path
    (tmp_path / "m.onnx").write_bytes(b"two")
    assert weights_for(tmp_path / "m.onnx", None) is None
    assert len(json.loads(state.read_text())) == 1


@pytest.mark.parametrize("content", ["[]", "{", '{"a": 1}'])
def test_a_damaged_file_is_named(tmp_path: Path, state: Path, content: str) -> None:
    state.parent.mkdir(parents=True)
    state.write_text(content)
    with pytest.raises(UsageError) as raised:
        weights_for(bundle_of(tmp_path / "a.port", "sha256:1"), None)
    assert raised.value.what.startswith("'weights.json', which keeps where the weights of bundles are,")
    assert raised.value.do == "remove it, and give --weights DIR again"


def test_a_place_that_cannot_be_written_costs_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    remember_weights(bundle_of(tmp_path / "a.port", "sha256:1"), tmp_path)
    assert capsys.readouterr().err.startswith("note: where its weights are is not remembered: ")


def test_what_was_damaged_is_kept_and_told(
    tmp_path: Path, state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state.parent.mkdir(parents=True)
    state.write_text("[")
    remember_weights(bundle_of(tmp_path / "a.port", "sha256:1"), tmp_path)
    assert "cannot be read" in capsys.readouterr().err
    assert state.read_text() == "["


def test_a_folder_is_for_what_refers_to_one(tmp_path: Path, state: Path) -> None:
    write_speller(tmp_path / "checkpoint")
    graph = stream_speller(tmp_path / "checkpoint", tmp_path / "out", StreamOptions("reference")).path
    own = stream_speller(tmp_path / "checkpoint", tmp_path / "own", StreamOptions("copy")).path
    assert folder_of(graph, tmp_path / "checkpoint") == tmp_path / "checkpoint"
    assert folder_of(graph, None) is None
    remember_weights(graph, tmp_path / "checkpoint")
    assert folder_of(graph, None) == tmp_path / "checkpoint"
    assert folder_of(own, None) is None
    with pytest.raises(UsageError) as caught:
        folder_of(own, tmp_path / "checkpoint")
    assert (caught.value.what, caught.value.where) == ("'model.onnx' has its weights", "--weights")
    with pytest.raises(UsageError, match="there is no folder"):
        folder_of(graph, tmp_path / "nowhere")
    assert state.is_file()
