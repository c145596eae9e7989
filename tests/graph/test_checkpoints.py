"""A checkpoint fits in every respect, or every tensor that does not is named."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from anyport.bundle import TensorFileWriter
from anyport.errors import CheckpointError
from anyport.graph.checkpoints import as_numbers, convert, open_checkpoint, read_entries
from anyport.graph.derivations import Copied, Derivations, Pin, digest_of

if TYPE_CHECKING:
    from pathlib import Path

F32 = np.float32
HEAD = np.arange(6, dtype=F32).reshape(2, 3)
FROZEN = np.array([1, 2], F32)
WANTED = Derivations(
    state={
        "head.weight": "float32[2, 3]",
        "head.bias": "float32[2]",
        "tied.bias": "float32[2]",
        "frozen": "float32[2]",
        "mask": "float32[2]",
        "steps": "int64[]",
    },
    rules={"head.weight": Copied("head.weight"), "head.bias": Copied("head.bias"), "mask": Copied("mask")},
    tied={"tied.bias": "head.bias"},
    unread=["steps"],
    pinned={"frozen": Pin(digest_of(FROZEN), "it was folded")},
    infinite=["mask"],
)
GOOD: dict[str, tuple[str, np.ndarray]] = {
    "head.weight": ("F32", HEAD),
    "head.bias": ("F32", np.ones(2, F32)),
    "frozen": ("F32", FROZEN),
    "mask": ("F32", np.array([0, -np.inf], F32)),
}


def write(path: Path, tensors: dict[str, tuple[str, np.ndarray]]) -> Path:
    order = sorted(tensors, key=lambda name: -tensors[name][1].dtype.itemsize)
    with TensorFileWriter(path, [(n, tensors[n][0], tensors[n][1].shape) for n in order]) as writer:
        for name in order:
            writer.write(name, tensors[name][1])
    return path


def without(*names: str) -> dict[str, Any]:
    return {name: tensor for name, tensor in GOOD.items() if name not in names}


def test_a_checkpoint_that_fits_is_read_in_the_graphs_types(tmp_path: Path) -> None:
    found = open_checkpoint(write(tmp_path / "w.safetensors", GOOD), WANTED)
    assert found.converted == ()
    np.testing.assert_array_equal(found.read("head.weight"), HEAD)


def test_a_tied_tensor_may_bear_any_of_its_names(tmp_path: Path) -> None:
    tensors = without("head.bias") | {"tied.bias": GOOD["head.bias"]}
    found = open_checkpoint(write(tmp_path / "w.safetensors", tensors), WANTED)
    np.testing.assert_array_equal(found.read("head.bias"), [1, 1])


@pytest.mark.parametrize("code", ["F16", "BF16", "F64"])
def test_another_type_is_taken_if_no_number_changes(code: str, tmp_path: Path) -> None:
    made = {"F16": HEAD.astype(np.float16), "F64": HEAD.astype(np.float64)}
    made["BF16"] = (HEAD.view(np.uint32) >> 16).astype(np.uint16)
    tensors = GOOD | {"head.weight": (code, made[code])}
    found = open_checkpoint(write(tmp_path / "w.safetensors", tensors), WANTED)
    assert found.converted == ("head.weight",)
    assert found.read("head.weight").dtype == F32
    np.testing.assert_array_equal(found.read("head.weight"), HEAD)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "missing": (without("head.bias"), "'head.bias' (float32[2]) is missing"),
    "surplus": (GOOD | {"extra": ("F32", HEAD)}, "'extra' is no tensor of the model"),
    "misspelt": (
        without("head.bias") | {"head.bais": GOOD["head.bias"]},
        "'head.bias' (float32[2]) is missing (did you mean 'head.bais'?), and 1 more",
    ),
    "wrong shape": (
        GOOD | {"head.weight": ("F32", HEAD.T.copy())},
        "'head.weight' is float32[3, 2], the graph takes float32[2, 3]",
    ),
    "wrong type": (
        GOOD | {"head.bias": ("I64", np.ones(2, np.int64))},
        "'head.bias' is int64[2], which cannot become float32",
    ),
    "8-bit floats": (
        GOOD | {"head.bias": ("F8_E4M3", np.ones(2, np.uint8))},
        "'head.bias' is float8_e4m3fn[2], which cannot become float32",
    ),
    "lost digits": (
        GOOD | {"head.bias": ("F64", np.array([0.1, 0.5]))},
        "'head.bias' is float64, and 1 of its 2 numbers are not float32 numbers: convert it yourself",
    ),
    "NaN": (
        GOOD | {"head.bias": ("F32", np.array([np.nan, 1], F32))},
        "'head.bias' holds NaN: 1 of its 2 numbers",
    ),
    "infinite": (
        GOOD | {"head.bias": ("F32", np.array([np.inf, -np.inf], F32))},
        "'head.bias' holds infinite numbers: 2 of its 2",
    ),
    "pinned": (
        GOOD | {"frozen": ("F32", FROZEN + 1)},
        "'frozen' has other values than when the graph was made, and may not: it was folded",
    ),
    "untied": (
        GOOD | {"tied.bias": ("F32", np.zeros(2, F32))},
        "'head.bias' and 'tied.bias' are one tensor in the model, and differ in the file",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_checkpoint_is_refused_by_the_name_of_its_tensor(kind: str, tmp_path: Path) -> None:
    tensors, text = WRONG[kind]
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(write(tmp_path / "w.safetensors", tensors), WANTED)
    assert caught.value.what == f"'w.safetensors' does not fit: {text}"


def test_every_wrong_tensor_is_listed_up_to_twelve(tmp_path: Path) -> None:
    extra = {f"extra{i}": ("F32", HEAD) for i in range(20)}
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(write(tmp_path / "w.safetensors", GOOD | extra), WANTED)
    lines = str(caught.value).splitlines()
    assert lines[0] == "'w.safetensors' does not fit: 'extra0' is no tensor of the model, and 19 more"
    assert [line.strip() for line in lines[2:4]] == [f"'extra{i}' is no tensor of the model" for i in (1, 2)]
    assert lines[-1].strip() == "…"


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model."])
def test_the_prefix_of_a_wrapper_is_advised(prefix: str, tmp_path: Path) -> None:
    path = write(tmp_path / "w.safetensors", {prefix + name: tensor for name, tensor in GOOD.items()})
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path, WANTED)
    assert f"every name begins with '{prefix}'" in (caught.value.do or "")


def test_what_a_recipe_put_before_all_names_is_put_back(tmp_path: Path) -> None:
    wrapped = Derivations(state={"network.a": "float32[2]"}, rules={"a": Copied("network.a")})
    found = open_checkpoint(write(tmp_path / "w.safetensors", {"a": GOOD["head.bias"]}), wrapped)
    np.testing.assert_array_equal(found.read("network.a"), [1, 1])


def test_pickles_and_garbage_are_refused_unread(tmp_path: Path) -> None:
    pickled, zipped = tmp_path / "old.pt", tmp_path / "new.pt"
    pickled.write_bytes(b"\x80\x02}q\x00.")
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}q\x00.")
    for path in (pickled, zipped):
        with pytest.raises(
            CheckpointError, match=r"is a pickle of PyTorch \(.pt, .pth, .bin\), which can run code"
        ):
            read_entries(path)
    for content, text in (
        (b"", "'w.safetensors' is no safetensors file: its header must have 0 bytes"),
        (b"\xff" * 64, "'w.safetensors' is no safetensors file: its header must have"),
        (write(tmp_path / "g.safetensors", GOOD).read_bytes()[:-1], "'w.safetensors' is no safetensors file"),
    ):
        (tmp_path / "w.safetensors").write_bytes(content)
        with pytest.raises(CheckpointError) as caught:
            read_entries(tmp_path / "w.safetensors")
        assert caught.value.what.startswith(text)
    with pytest.raises(CheckpointError, match="cannot read 'nothing': No such file"):
        read_entries(tmp_path / "nothing")


def test_conversions_count_the_numbers_that_change() -> None:
    numbers = np.array([1.0, 1 + 2.0**-20, 70000.0, np.nan], F32)
    assert convert(numbers, "float32", "float16")[1] == 2
    made, n_changed = convert(numbers, "float32", "bfloat16")
    assert (made.dtype, n_changed) == (np.uint16, 2)
    assert as_numbers(made, "bfloat16")[0] == 1
    assert convert(np.array([1, 300]), "int64", "int8")[1] == 1


def test_a_header_whose_length_begins_like_a_pickle_is_read(tmp_path: Path) -> None:
    header = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'.ljust(0x80)
    path = tmp_path / "w.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    assert list(read_entries(path)) == ["a"]
