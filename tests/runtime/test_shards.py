"""Graphs whose weights lie in a checkpoint: opened after every weight was checked, or refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto as T

from anyport.bundle import open_bundle, read_header, seal_bundle
from anyport.errors import SessionError
from anyport.runtime import SessionOptions, open_session
from anyport.runtime.onnxfile import outside_tensors
from anyport.runtime.shards import shards_of
from tests.runtime.externalgraphs import X, external_bundle, external_manifest, write_graph

if TYPE_CHECKING:
    from pathlib import Path


def options_for(path: Path) -> SessionOptions:
    """Return options that name the checkpoint."""
    return SessionOptions(weights_folder=path.parent / "checkpoint")


def test_a_graph_reads_the_checkpoint_where_it_is(tmp_path: Path) -> None:
    path = write_graph(tmp_path)
    [shard] = shards_of(path)
    assert shard.file == "model.safetensors"
    [tensor] = outside_tensors(path)
    assert (tensor.name, tensor.shape, tensor.file) == ("w", (8, 4), "model.safetensors")
    found = open_session(path, options_for(path)).run({"x": X})["y"]
    weights = read_header(tmp_path / "checkpoint" / "model.safetensors")["w"]
    raw = (tmp_path / "checkpoint" / "model.safetensors").read_bytes()[weights.offset :][:128]
    assert np.array_equal(found, np.frombuffer(raw, np.float32).reshape(8, 4)[:3])


def test_the_documented_line_of_plain_onnxruntime_opens_it(tmp_path: Path) -> None:
    path = write_graph(tmp_path)
    options = onnxruntime.SessionOptions()
    key = "session.model_external_initializers_file_folder_path"
    options.add_session_config_entry(key, str(tmp_path / "checkpoint"))
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    assert session.run(None, {"x": X})[0].shape == (3, 4)


def test_without_a_folder_the_message_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(SessionError) as raised:
        open_session(write_graph(tmp_path))
    what = "the weights are not in the bundle: it refers to 1 files of 0.0 GB, such as 'model.safetensors'"
    assert raised.value.what == what
    assert raised.value.do == "name their folder: --weights DIR, or SessionOptions(weights_folder=Path(DIR))"


WRONG = {
    "another name": ({"name": "v"}, "the weight 'v' is not in 'model.safetensors'"),
    "another file": ({"location": "x.safetensors"}, "the weight 'w' is not in 'x.safetensors'"),
    "another place": (
        {"offset": "193"},
        "'w' is F32[8, 4] at byte 192, 128 bytes in 'model.safetensors', the graph",
    ),
    "another length": ({"length": "64"}, "the graph reads F32[8, 4] at byte 192, 64 bytes"),
    "another shape": ({"dims": [4, 8]}, "the graph reads F32[4, 8] at byte 192, 128 bytes"),
    "another type": ({"dtype": T.INT32}, "the graph reads I32[8, 4] at byte 192, 128 bytes"),
}


@pytest.mark.parametrize("kind", sorted(WRONG))
def test_a_weight_that_is_not_what_the_header_says_is_refused(tmp_path: Path, kind: str) -> None:
    wrong, what = WRONG[kind]
    path = write_graph(tmp_path, **wrong)  # type: ignore[arg-type]
    with pytest.raises(SessionError) as raised:
        open_session(path, options_for(path))
    assert what in raised.value.what


def test_a_changed_checkpoint_is_refused_by_name(tmp_path: Path) -> None:
    path = write_graph(tmp_path)
    shard = tmp_path / "checkpoint" / "model.safetensors"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    with pytest.raises(SessionError) as raised:
        open_session(path, options_for(path))
    assert raised.value.what.startswith("'model.safetensors' was changed since the graph was made")
    shard.unlink()
    with pytest.raises(SessionError, match="the weights lack the file 'model.safetensors'"):
        open_session(path, options_for(path))


def test_the_digest_of_all_is_computed_on_request(tmp_path: Path) -> None:
    path = write_graph(tmp_path)
    options = SessionOptions(weights_folder=tmp_path / "checkpoint", whole_digest=True)
    assert open_session(path, options).run({"x": X})["y"].shape == (3, 4)


def test_a_graph_with_weights_of_its_own_needs_no_folder(tmp_path: Path) -> None:
    model = onnx.load(str(write_graph(tmp_path)), load_external_data=False)
    onnx.external_data_helper.load_external_data_for_model(model, str(tmp_path / "checkpoint"))
    del model.metadata_props[:]
    model.graph.initializer[0].data_location = T.DEFAULT
    del model.graph.initializer[0].external_data[:]
    onnx.save(model, tmp_path / "own.onnx")
    assert shards_of(tmp_path / "own.onnx") == ()
    assert open_session(tmp_path / "own.onnx").run({"x": X})["y"].shape == (3, 4)


def test_a_graph_of_a_bundle_is_opened_with_its_weights(tmp_path: Path) -> None:
    options = SessionOptions(weights_folder=tmp_path / "checkpoint")
    with open_bundle(external_bundle(tmp_path)) as bundle:
        bundle.check()
        graph = bundle.graph_file("network")
        assert graph.entry.external
        assert open_session(graph, options).run({"x": X})["y"].shape == (3, 4)
        with pytest.raises(SessionError, match="the weights are not in the bundle"):
            open_session(graph)


def test_a_manifest_that_names_other_weights_is_refused(tmp_path: Path) -> None:
    bundle = external_bundle(tmp_path)
    place = bundle / "parts" / "network" / "fp32" / "model.onnx"
    manifest = external_manifest(place)
    [shard] = manifest.variants["fp32"].graphs["network"].shards
    other = msgspec.structs.replace(shard, sha256="0" * 64)
    manifest.variants["fp32"].graphs["network"].shards[:] = [other]
    seal_bundle(bundle, manifest)
    options = SessionOptions(weights_folder=tmp_path / "checkpoint")
    with open_bundle(bundle) as opened, pytest.raises(SessionError) as raised:
        open_session(opened.graph_file("network"), options)
    assert raised.value.what == "the graph refers to other files of weights than the manifest says"
