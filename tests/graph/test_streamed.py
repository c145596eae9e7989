"""Exports that hold no weights: what they compute, what they write, what they refuse."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from anyport.bundle import read_header
from anyport.errors import ExportError, SourceError, UsageError
from anyport.graph.storing import weights_name
from anyport.graph.streamed import StreamOptions, StreamSource, store_streamed, stream_export, translate_part
from anyport.recipe import Part
from anyport.recipe.qwen_edit_parts import transformer
from anyport.runtime import SessionOptions, open_session
from anyport.source import open_checkpoint
from anyport.source.merging import LazyWeight
from anyport.tensors import Signature, tensor
from tests.graph.streamedmodels import (
    DTYPES,
    denoiser_feeds,
    empty_denoiser,
    empty_speller,
    load_denoiser,
    part_of,
    stream_speller,
    write_denoiser,
    write_speller,
)

if TYPE_CHECKING:
    from pathlib import Path

FORMS = {
    "copy": StreamOptions(weights="copy"),
    "float32": StreamOptions(weights="copy", storage="float32"),
    "reference": StreamOptions(weights="reference"),
}
CLOSE = 2e-6  # relative to the largest value; PyTorch itself is some 5e-7 from float64


def answers(module: nn.Module, ids: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        found: np.ndarray = module(torch.from_numpy(ids)).numpy()
    return found


def ids_of(batch: int, length: int) -> np.ndarray:
    return np.random.default_rng(batch * length).integers(0, 300, (batch, length))


@pytest.mark.parametrize("dtype", sorted(DTYPES))
@pytest.mark.parametrize("form", sorted(FORMS))
def test_the_graph_computes_what_the_module_does(tmp_path: Path, form: str, dtype: str) -> None:
    module = write_speller(tmp_path / "checkpoint", dtype)
    graph = stream_speller(tmp_path / "checkpoint", tmp_path / "out", FORMS[form])
    session = open_session(graph.path, SessionOptions(weights_folder=tmp_path / "checkpoint"))
    for batch, length in ((1, 1), (2, 9), (3, 40)):
        ids = ids_of(batch, length)
        expected = answers(module, ids)
        found = session.run({"ids": ids})["logits"]
        assert np.abs(found - expected).max() <= CLOSE * np.abs(expected).max()
    session.close()


def test_by_reference_nothing_but_the_graph_is_written(tmp_path: Path) -> None:
    write_speller(tmp_path / "checkpoint", "BF16")
    graph = stream_speller(tmp_path / "checkpoint", tmp_path / "out", FORMS["reference"])
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["model.onnx"]
    headers = {file.name: read_header(file) for file in (tmp_path / "checkpoint").glob("*.safetensors")}
    proto = onnx.load(str(graph.path), load_external_data=False)
    outside = {t.name: {e.key: e.value for e in t.external_data} for t in proto.graph.initializer}
    outside = {name: words for name, words in outside.items() if words}
    for name, words in outside.items():
        entry = headers[words["location"]][name]
        assert (int(words["offset"]), int(words["length"])) == (entry.offset, entry.size_bytes)
    # the graph needs neither the layer that nobody reads nor a second name of a weight
    stored = {name for header in headers.values() for name in header}
    assert stored - outside.keys() == {"unused.weight", "unused.bias"}
    assert graph.stored["bfloat16"] == sum(
        entry.size_bytes for header in headers.values() for n, entry in header.items() if n in outside
    )


def test_products_read_weights_as_the_checkpoint_has_them(tmp_path: Path) -> None:
    write_speller(tmp_path / "checkpoint")
    graph = stream_speller(tmp_path / "checkpoint", tmp_path / "out", FORMS["reference"])
    assert graph.operators["com.microsoft::FusedMatMul"] == 5
    assert graph.operators["com.microsoft::MultiHeadAttention"] == 1
    proto = onnx.load(str(graph.path), load_external_data=False)
    weights = {tensor.name for tensor in proto.graph.initializer}
    assert not [n for n in proto.graph.node if n.op_type == "Transpose" and n.input[0] in weights]


def test_casts_of_a_reference_stand_at_the_start(tmp_path: Path) -> None:
    write_speller(tmp_path / "checkpoint", "BF16")
    graph = stream_speller(tmp_path / "checkpoint", tmp_path / "out", FORMS["reference"])
    proto = onnx.load(str(graph.path), load_external_data=False)
    weights = {tensor.name for tensor in proto.graph.initializer}
    places = [i for i, n in enumerate(proto.graph.node) if n.op_type == "Cast" and n.input[0] in weights]
    assert places == list(range(len(places)))
    assert len(places) > 10


def test_a_copy_has_weights_of_its_own_transposed_and_in_the_module_s_names(tmp_path: Path) -> None:
    module = write_speller(tmp_path / "checkpoint", "BF16")
    graph = stream_speller(tmp_path / "checkpoint", tmp_path / "out", FORMS["copy"])
    weights = tmp_path / "out" / weights_name(graph.path)
    assert graph.weights == weights
    shutil.rmtree(tmp_path / "checkpoint")
    stored = load_file(weights)
    turned = stored["widen.weight"]
    assert turned.dtype == torch.bfloat16
    assert torch.equal(turned.float(), module.widen.weight.T)
    assert "unused.weight" not in stored
    # one weight in two roles is stored once, under the name that the exporter chose, and not transposed
    [tied] = stored.keys() & {"embed.weight", "head.weight"}
    assert torch.equal(stored[tied].float(), module.embed.weight)
    assert not any(name.startswith("com.microsoft") for name in graph.operators)
    onnx.checker.check_model(str(graph.path))


def test_what_a_module_computes_is_kept_with_the_graph(tmp_path: Path) -> None:
    write_speller(tmp_path / "checkpoint")
    for form in ("copy", "reference"):
        graph = stream_speller(tmp_path / "checkpoint", tmp_path / form, FORMS[form])
        proto = onnx.load(str(graph.path), load_external_data=form == "copy")
        [table] = [t for t in proto.graph.initializer if t.name == "table"]
        found = onnx.numpy_helper.to_array(table)
        assert np.array_equal(found, torch.linspace(0, 9, 16 * 32).sin().view(16, 32).numpy())


@pytest.mark.parametrize("form", sorted(FORMS))
def test_the_same_checkpoint_gives_the_same_bytes(tmp_path: Path, form: str) -> None:
    write_speller(tmp_path / "checkpoint", "F16")
    for name in ("one", "two"):
        stream_speller(tmp_path / "checkpoint", tmp_path / name, FORMS[form])
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()


def test_a_checkpoint_of_another_model_is_refused_before_the_export(tmp_path: Path) -> None:
    write_speller(tmp_path / "checkpoint")
    [shard, _] = sorted((tmp_path / "checkpoint").glob("*.safetensors"))
    weights = load_file(shard)
    weights["embed.weight"] = weights["embed.weight"][:, :-1].contiguous()
    save_file(weights, shard)
    with pytest.raises(SourceError) as raised:
        stream_speller(tmp_path / "checkpoint", tmp_path / "out", FORMS["copy"])
    assert "'embed.weight' is [300, 31]" in raised.value.what
    assert not list((tmp_path / "out").iterdir())


def test_a_type_that_a_reference_cannot_read_is_refused_and_a_copy_converts_it(tmp_path: Path) -> None:
    module = write_speller(tmp_path / "checkpoint")
    [shard, _] = sorted((tmp_path / "checkpoint").glob("*.safetensors"))
    save_file({name: weight.double() for name, weight in load_file(shard).items()}, shard)
    with pytest.raises(ExportError) as raised:
        stream_speller(tmp_path / "checkpoint", tmp_path / "out", FORMS["reference"])
    assert "is stored in F64, and the graph computes with it as FLOAT" in raised.value.what
    assert raised.value.do == "--weights copy, or StreamOptions('copy'), converts it"
    graph = stream_speller(tmp_path / "checkpoint", tmp_path / "copy", FORMS["copy"])
    ids = ids_of(2, 5)
    found = open_session(graph.path).run({"ids": ids})["logits"]
    assert np.allclose(found, answers(module, ids), rtol=0, atol=1e-5)


def test_a_weight_with_a_lora_in_it_is_copied_and_cannot_be_referred_to(tmp_path: Path) -> None:
    write_speller(tmp_path / "checkpoint", "BF16")
    changed = np.random.default_rng(1).standard_normal((96, 32), dtype=np.float32)
    merged = {"widen.weight": LazyWeight("F32", changed.shape, lambda: changed)}
    for form in ("copy", "reference"):
        module = empty_speller()
        source = StreamSource(module, open_checkpoint(tmp_path / "checkpoint"), merged)
        translated = translate_part(part_of(module), source)
        if form == "reference":
            with pytest.raises(UsageError) as raised:
                store_streamed(translated, tmp_path / "r.onnx", FORMS[form])
            assert raised.value.what == "1 weights are changed by a LoRA, and a reference changes nothing"
            continue
        store_streamed(translated, tmp_path / "model.onnx", FORMS[form])
        stored = load_file(tmp_path / "weights.safetensors")
        assert stored["widen.weight"].dtype == torch.float32  # its numbers are not of 16 bits any more
        assert np.array_equal(stored["widen.weight"].numpy(), changed.T)
        assert stored["narrow.weight"].dtype == torch.bfloat16


def test_shards_in_the_hub_s_cache_are_read_through_their_links(tmp_path: Path) -> None:
    module = write_speller(tmp_path / "plain", "BF16")
    blobs, snapshot = tmp_path / "hub" / "blobs", tmp_path / "hub" / "snapshots" / "abc"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, file in enumerate(sorted((tmp_path / "plain").iterdir())):
        file.rename(blobs / f"{number:064d}")
        (snapshot / file.name).symlink_to(f"../../blobs/{number:064d}")
    graph = stream_speller(snapshot, tmp_path / "out", FORMS["reference"])
    ids = ids_of(2, 5)
    for folder in (snapshot, blobs):
        found = open_session(graph.path, SessionOptions(weights_folder=folder)).run({"ids": ids})["logits"]
        assert np.allclose(found, answers(module, ids), rtol=0, atol=1e-5)


def test_unneeded_weights_are_not_recorded_as_stored(tmp_path: Path) -> None:
    write_speller(tmp_path / "checkpoint")
    module = empty_speller()
    found = translate_part(part_of(module), StreamSource(module, open_checkpoint(tmp_path / "checkpoint")))
    assert "unused.weight" not in found.stored
    [tied] = found.stored.keys() & {"embed.weight", "head.weight"}
    assert found.stored[tied].name == "embed.weight"
    assert json.dumps(sorted(found.converted.weight_names))  # names, no tensors
    graph = store_streamed(found, tmp_path / "model.onnx", FORMS["copy"])
    assert graph.n_nodes < 80


class Table(nn.Module):
    """Has a constant of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(4, 4)
        self.register_buffer("own", torch.ones(4), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return it shifted."""
        shifted: Tensor = self.line(x) + self.own
        return shifted


def test_constants_without_numbers_are_refused(tmp_path: Path) -> None:
    save_file(Table().state_dict(), tmp_path / "model.safetensors")
    with torch.device("meta"):
        module = Table().eval()
    signature = Signature((tensor("x", "float32[3, 4]"),), (tensor("y", "float32[3, 4]"),), {})
    source = StreamSource(module, open_checkpoint(tmp_path))
    with pytest.raises(SourceError) as raised:
        stream_export(Part("table", module, signature), source, tmp_path / "m.onnx", FORMS["copy"])
    assert raised.value.what == "'own' of part 'table' is neither in the checkpoint nor made by the module"


def test_the_denoiser_of_qwen_image_is_exported_both_ways(tmp_path: Path) -> None:
    checkpoint = write_denoiser(tmp_path / "checkpoint")
    reference = transformer(load_denoiser(checkpoint))
    feeds = denoiser_feeds(reference.signature, {"batch": 2, "latent_tokens": 11, "text_tokens": 4})
    with torch.no_grad():
        expected = reference.module(*[torch.from_numpy(array) for array in feeds.values()]).numpy()
    for form in ("copy", "reference"):
        module = empty_denoiser()
        (tmp_path / form).mkdir()
        source = StreamSource(module, open_checkpoint(checkpoint))
        graph = stream_export(transformer(module), source, tmp_path / form / "model.onnx", FORMS[form])
        session = open_session(graph.path, SessionOptions(weights="mapped", weights_folder=checkpoint))
        found = session.run(feeds)["velocity"]
        assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
