"""Checkpoints: where each weight lies, and every wrong one refused by the name of what is wrong."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from anyport.errors import SourceError
from anyport.source import Wanted, check_against, open_checkpoint, renamed, wanted_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
INDEX = "model.safetensors.index.json"
AGAIN = "  do:    download the checkpoint again; all files must come from one version of it"
OTHER = "  do:    give the checkpoint that belongs to this configuration, whole and from one version"


class Tied(nn.Module):
    """An embedding that is the head, a weight in two layers, a buffer that is stored and one that is not."""

    scale: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Embedding(6, 4)
        self.a = nn.Linear(4, 4)
        self.b = nn.Linear(4, 4)
        self.b.weight = self.a.weight
        self.head = nn.Linear(4, 6, bias=False)
        self.head.weight = self.emb.weight
        self.register_buffer("scale", torch.full((4,), 1.5))
        self.register_buffer("places", torch.arange(3), persistent=False)


def stored(dtypes: Mapping[str, torch.dtype] | None = None) -> dict[str, torch.Tensor]:
    """Return what a checkpoint of `Tied` holds: tied weights once."""
    torch.manual_seed(0)
    state = {
        name: one for name, one in Tied().state_dict().items() if name not in {"b.weight", "head.weight"}
    }
    return {name: one.to((dtypes or {}).get(name, torch.bfloat16)) for name, one in state.items()}


def write(folder: Path, tensors: Mapping[str, torch.Tensor]) -> Path:
    """Write two shards and their index."""
    folder.mkdir(parents=True, exist_ok=True)
    names = sorted(tensors)
    homes = {name: (ONE if place < len(names) // 2 else TWO) for place, name in enumerate(names)}
    for file in (ONE, TWO):
        save_file({n: tensors[n].clone().contiguous() for n in names if homes[n] == file}, folder / file)
    (folder / INDEX).write_text(json.dumps({"weight_map": homes}), encoding="utf-8")
    return folder


def refused(place: Path, module: nn.Module | None = None) -> str:
    with pytest.raises(SourceError) as caught:
        check_against(open_checkpoint(place), wanted_weights(Tied() if module is None else module))
    return str(caught.value)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_every_weight_is_found_and_read_bit_for_bit(dtype: torch.dtype, tmp_path: Path) -> None:
    tensors = stored(dict.fromkeys(stored(), dtype))
    checkpoint = open_checkpoint(write(tmp_path / "ck", tensors))
    found = check_against(checkpoint, wanted_weights(Tied()))
    assert set(found) == set(Tied().state_dict())
    assert found["head.weight"] is found["emb.weight"]
    assert found["b.weight"] is found["a.weight"]
    for name, tensor in tensors.items():
        bits = tensor.view(torch.uint16) if dtype == torch.bfloat16 else tensor
        read = checkpoint.read(found[name])
        assert read.dtype == bits.numpy().dtype
        np.testing.assert_array_equal(read, bits.numpy())
    assert checkpoint.n_bytes == sum(one.nbytes for one in tensors.values())


def test_the_other_name_of_a_tied_weight_is_as_good(tmp_path: Path) -> None:
    tensors = stored()
    tensors["head.weight"] = tensors.pop("emb.weight")
    found = check_against(open_checkpoint(write(tmp_path, tensors)), wanted_weights(Tied()))
    assert found["emb.weight"].name == "head.weight"


def test_both_names_of_a_tied_weight_may_be_stored_if_they_are_equal(tmp_path: Path) -> None:
    tensors = stored()
    tensors["head.weight"] = tensors["emb.weight"]
    check_against(open_checkpoint(write(tmp_path / "ck", tensors)), wanted_weights(Tied()))
    tensors["head.weight"] = tensors["emb.weight"] * 2
    assert refused(write(tmp_path / "ck", tensors)) == (
        "the checkpoint 'ck' does not fit the model: 1 is tied in the model and different in the files: "
        f"'emb.weight' and 'head.weight'\n{OTHER}"
    )


def test_types_may_be_mixed(tmp_path: Path) -> None:
    mixed = {"a.weight": torch.float32, "a.bias": torch.float16, "scale": torch.float64}
    found = check_against(open_checkpoint(write(tmp_path, stored(mixed))), wanted_weights(Tied()))
    assert {name: found[name].dtype for name in mixed} == {"a.weight": "F32", "a.bias": "F16", "scale": "F64"}


def test_a_buffer_that_the_module_computes_may_be_stored(tmp_path: Path) -> None:
    tensors = stored() | {"places": torch.arange(3)}
    assert "places" in check_against(open_checkpoint(write(tmp_path, tensors)), wanted_weights(Tied()))


def test_a_module_on_the_meta_device_wants_the_same() -> None:
    with torch.device("meta"):
        empty = Tied()
    assert wanted_weights(empty) == wanted_weights(Tied())
    assert Wanted(("emb.weight", "head.weight"), (6, 4)) in wanted_weights(empty)


def test_links_of_a_cache_are_resolved(tmp_path: Path) -> None:
    write(tmp_path / "blobs", stored())
    snapshot = tmp_path / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    for number, name in enumerate((ONE, TWO, INDEX)):
        (tmp_path / "blobs" / name).rename(tmp_path / "blobs" / f"h{number}")
        (snapshot / name).symlink_to(f"../../blobs/h{number}")
    checkpoint = open_checkpoint(snapshot)
    assert [file.name for file in checkpoint.files] == ["h0", "h1"]
    assert checkpoint.root == (tmp_path / "blobs").resolve()
    found = check_against(checkpoint, wanted_weights(Tied()))
    assert checkpoint.read(found["scale"]).shape == (4,)


def test_one_file_and_an_index_are_checkpoints_too(tmp_path: Path) -> None:
    folder = write(tmp_path / "ck", stored())
    assert open_checkpoint(folder / INDEX) == open_checkpoint(folder)
    save_file(stored(), tmp_path / "all.safetensors")
    assert set(open_checkpoint(tmp_path / "all.safetensors").tensors) == set(stored())


def test_names_of_an_older_version_are_renamed(tmp_path: Path) -> None:
    save_file({f"model.{name}": one for name, one in stored().items()}, tmp_path / "all.safetensors")
    old = open_checkpoint(tmp_path / "all.safetensors")
    new = renamed(old, lambda name: name.removeprefix("model."))
    assert new.tensors["scale"].name == "model.scale"
    check_against(new, wanted_weights(Tied()))
    with pytest.raises(
        SourceError, match="the weights 'model.a.bias' and 'model.a.weight' are both called 'x' now"
    ):
        renamed(old, lambda _: "x")


@dataclass(frozen=True, slots=True)
class Wrong:
    """A checkpoint that is wrong in one way, and what is said of it."""

    what: str
    spoil: Callable[[Path], object]
    text: str


def respell(**changes: torch.Tensor | None) -> Callable[[Path], object]:
    """Write a checkpoint with other tensors; ``__`` in a name is a dot."""

    def spoil(folder: Path) -> None:
        new = {name.replace("__", "."): tensor for name, tensor in changes.items()}
        write(folder, {n: t for n, t in (stored() | new).items() if t is not None})

    return spoil


def cut(name: str, n_bytes: int) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-n_bytes])


def reindex(change: Callable[[dict[str, str]], object]) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        change(index["weight_map"])
        (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")

    return spoil


def double(folder: Path) -> None:
    save_file({name: stored()[name] for name in ("a.bias", "emb.weight", "b.bias", "scale")}, folder / TWO)


def begin(folder: Path) -> None:
    (folder / TWO).unlink()
    (folder / ".cache/huggingface/download").mkdir(parents=True)
    (folder / ".cache/huggingface/download/x.incomplete").write_bytes(b"begun")


def misfit(text: str) -> str:
    return f"the checkpoint 'ck' does not fit the model: {text}\n{OTHER}"


WRONG = (
    Wrong("missing", respell(a__bias=None), misfit("1 of its 6 weights is missing: 'a.bias'")),
    Wrong(
        "missing, and nearly there",
        respell(a__bias=None, a__bais=torch.zeros(4)),
        misfit("1 of its 6 weights is missing: 'a.bias' (did you mean 'a.bais'?); "
               "1 in the files of 5 is none of the model's: 'a.bais'"),
    ),
    Wrong(
        "all names of a tied weight missing",
        respell(emb__weight=None, a__bias=None),
        misfit("2 of its 6 weights are missing: 'emb.weight', 'a.bias'"),
    ),
    Wrong(
        "misshapen", respell(a__weight=torch.zeros(3, 4)),
        misfit("1 is of another shape: 'a.weight' is [3, 4], must be [4, 4]"),
    ),
    Wrong(
        "two misshapen", respell(a__weight=torch.zeros(3, 4), a__bias=torch.zeros(3)),
        misfit("2 are of another shape: 'a.weight' is [3, 4], must be [4, 4] and 1 more"),
    ),
    Wrong(
        "numbers of another kind", respell(a__weight=torch.zeros(4, 4, dtype=torch.int8)),
        misfit("1 is of another kind: 'a.weight' is I8, the model's is float32"),
    ),
    Wrong(
        "quantized", respell(a__weight=torch.zeros(4, 4).to(torch.float8_e4m3fn)),
        misfit("1 is of another kind: 'a.weight' is F8_E4M3, the model's is float32"),
    ),
    Wrong(
        "surplus", respell(extra=torch.zeros(2)),
        misfit("1 in the files of 6 is none of the model's: 'extra'"),
    ),
    Wrong(
        "truncated", cut(TWO, 9),
        f"'{TWO}' is no safetensors file: its tensors end at byte 264, the file at byte 255: "
        f"'emb.weight' and 1 more cut off\n  where: {TWO}\n{AGAIN}",
    ),
    Wrong(
        "truncated in the header",
        lambda folder: (folder / ONE).write_bytes((folder / ONE).read_bytes()[:70]),
        f"'{ONE}' is no safetensors file: its header must have 128 bytes, the file has 70\n"
        f"  where: {ONE}\n{AGAIN}",
    ),
    Wrong(
        "empty", lambda folder: (folder / ONE).write_bytes(b""),
        f"'{ONE}' is no safetensors file: its header must have 0 bytes, the file has 0\n"
        f"  where: {ONE}\n{AGAIN}",
    ),
    Wrong(
        "a shard missing", lambda folder: (folder / TWO).unlink(),
        f"'ck' lacks 1 of its 2 files of weights: '{TWO}'\n  where: {INDEX} names it\n{AGAIN}",
    ),
    Wrong(
        "interrupted", begin,
        f"'ck' lacks 1 of its 2 files of weights: '{TWO}'; the download of 1 files was interrupted\n"
        f"  where: {INDEX} names it\n"
        "  do:    give the same command (hf download) once more: it goes on where it was interrupted",
    ),
    Wrong(
        "in two shards", double,
        f"the weight 'a.bias' is in two files of one checkpoint\n  where: {ONE}, {TWO}\n{AGAIN}",
    ),
    Wrong(
        "the index names what is not there", reindex(lambda homes: homes.update(ghost=ONE)),
        f"'{INDEX}' and its shards disagree about 1 weights: 'ghost' is not in {ONE}\n  where: ck\n{AGAIN}",
    ),
    Wrong(
        "the index names the other shard", reindex(lambda homes: homes.update({"a.bias": TWO})),
        f"'{INDEX}' and its shards disagree about 1 weights: 'a.bias' is not in {TWO}\n  where: ck\n{AGAIN}",
    ),
    Wrong(
        "the index leaves out", reindex(lambda homes: homes.pop("a.bias")),
        f"'{INDEX}' and its shards disagree about 1 weights: 'a.bias' is in {ONE} and not in the index\n"
        f"  where: ck\n{AGAIN}",
    ),
    Wrong(
        "an index with a key twice",
        lambda folder: (folder / INDEX).write_text('{"weight_map": {"a": "b", "a": "c"}}', encoding="utf-8"),
        f"'{INDEX}' cannot be read: it has the key 'a' twice\n{AGAIN}",
    ),
    Wrong(
        "a pointer of Git LFS",
        lambda folder: (folder / ONE).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid"),
        f"'{ONE}' is a pointer of Git LFS, the weights themselves were not downloaded\n  where: {ONE}\n"
        "  do:    git lfs pull, or hf download",
    ),
)  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.what)
def test_every_wrong_checkpoint_is_refused_by_name(wrong: Wrong, tmp_path: Path) -> None:
    folder = write(tmp_path / "ck", stored())
    wrong.spoil(folder)
    assert refused(folder) == wrong.text


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pipe" / "transformer").mkdir(parents=True)
    (tmp_path / "pipe" / "model_index.json").write_text("{}", encoding="utf-8")
    assert refused(tmp_path / "pipe") == (
        "'pipe' is a pipeline of several models\n"
        "  do:    give the folder of one of them, such as pipe/transformer"
    )
    (tmp_path / "pipe" / "model.bin").write_bytes(b"\x80")
    assert refused(tmp_path / "pipe" / "model.bin").splitlines() == [
        (
            "'model.bin' is no safetensors file: the weights of a pickle cannot be read one by one, and it "
            "can run code"
        ),
        "  do:    safetensors.torch.save_file(torch.load(FILE, weights_only=True), 'model.safetensors')",
    ]
    assert refused(tmp_path / "pipe" / "none.safetensors") == (
        "there is no checkpoint 'none.safetensors'\n  where: pipe"
    )
    save_file({}, tmp_path / "pipe" / "empty.safetensors")
    assert (
        refused(tmp_path / "pipe" / "empty.safetensors") == f"'empty.safetensors' holds no weights\n{AGAIN}"
    )


def test_a_file_that_changes_after_it_was_opened_is_said(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(write(tmp_path, stored()))
    (tmp_path / TWO).write_bytes((tmp_path / TWO).read_bytes()[:-9])
    with pytest.raises(SourceError) as caught:
        checkpoint.read(checkpoint.tensors["emb.weight"])
    assert str(caught.value) == (
        f"'{TWO}' is no safetensors file: the file ends inside tensor 'emb.weight'\n"
        f"  where: {TWO}\n  do:    the file has changed since it was opened: begin again"
    )
