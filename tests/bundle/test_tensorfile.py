from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from anyport.bundle import TensorEntry, TensorFileWriter, dtype_code, read_header, read_tensor
from anyport.bundle.tensorfile import DTYPES
from anyport.errors import BundleError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

TENSORS: dict[str, np.ndarray] = {
    "f64": np.linspace(-1, 1, 6).reshape(2, 3),
    "i64": np.array(-(2**63)),
    "f32": np.array([np.nan, -0.0, np.inf], np.float32),
    "u32": np.array([2**32 - 1], np.uint32),
    "f16": np.ones((1, 2, 3), np.float16),
    "empty": np.zeros((0, 4), np.int16),
    "bool": np.array([True, False, True]),
    "u8 ä": np.arange(5, dtype=np.uint8),
}

GOLDEN = (
    b'8\x00\x00\x00\x00\x00\x00\x00{"w":{"dtype":"I16","shape":[2],"data_offsets":[0,4]}}  \x01\x00\xfe\xff'
)


def write(path: Path, tensors: dict[str, np.ndarray]) -> Path:
    forms = [(name, dtype_code(array.dtype), array.shape) for name, array in tensors.items()]
    with TensorFileWriter(path, forms) as writer:
        for name, array in tensors.items():
            writer.write(name, array)
    return path


def test_golden_bytes(tmp_path: Path) -> None:
    path = write(tmp_path / "x", {"w": np.array([1, -2], np.int16)})
    assert path.read_bytes() == GOLDEN
    assert read_header(path) == {"w": TensorEntry("w", "I16", (2,), 64, 4)}


def test_writing_then_reading_gives_the_same(tmp_path: Path) -> None:
    path = write(tmp_path / "x", TENSORS)
    entries = read_header(path)
    assert list(entries) == list(TENSORS)
    for name, array in TENSORS.items():
        found = read_tensor(path, entries[name])
        assert found.dtype == array.dtype
        assert found.shape == array.shape
        assert found.tobytes() == array.tobytes()


def test_data_start_at_a_multiple_of_64(tmp_path: Path) -> None:
    for length in range(1, 70):
        path = write(tmp_path / str(length), {"n" * length: np.zeros(1, np.float32)})
        assert next(iter(read_header(path).values())).offset % 64 == 0


def test_the_official_package_reads_the_same(tmp_path: Path) -> None:
    official = pytest.importorskip("safetensors.numpy", reason="the package safetensors is not installed")
    found = official.load_file(write(tmp_path / "x", TENSORS))
    assert {name: array.tobytes() for name, array in found.items()} == {
        name: array.tobytes() for name, array in TENSORS.items()
    }


def test_what_the_official_package_writes_is_read(tmp_path: Path) -> None:
    official = pytest.importorskip("safetensors.numpy", reason="the package safetensors is not installed")
    official.save_file(TENSORS, tmp_path / "x", metadata={"format": "np"})
    entries = read_header(tmp_path / "x")
    assert {name: read_tensor(tmp_path / "x", entry).tobytes() for name, entry in entries.items()} == {
        name: array.tobytes() for name, array in TENSORS.items()
    }


@pytest.mark.parametrize("code", sorted(DTYPES))
def test_every_type(tmp_path: Path, code: str) -> None:
    array = np.array([0, 1, 1], dtype=DTYPES[code])
    with TensorFileWriter(tmp_path / "x", [("w", code, (3,))]) as writer:
        writer.write("w", array)
    entry = read_header(tmp_path / "x")["w"]
    assert entry.dtype == code
    assert np.array_equal(read_tensor(tmp_path / "x", entry), array)


def test_arrays_in_any_layout(tmp_path: Path) -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    for number, view in enumerate((array.T, array[::-2, 1:], np.asfortranarray(array))):
        path = write(tmp_path / str(number), {"w": view})
        assert np.array_equal(read_tensor(path, read_header(path)["w"]), view)


def test_types_that_safetensors_lacks() -> None:
    for dtype in ("complex64", "U4", "O", "datetime64[s]"):
        with pytest.raises(UsageError, match="^safetensors has no type for "):
            dtype_code(np.dtype(dtype))


F32 = ("w", "F32", (2,))
WRONG_FORMS: list[tuple[list[Any], str]] = [
    ([F32, F32], "a tensor cannot be called 'w', or is called so twice"),
    ([("__metadata__", "F32", (2,))], "a tensor cannot be called '__metadata__', or is called so twice"),
    ([("w", "float32", (2,))], "tensor 'w' has the type 'float32'"),
    ([("a", "U8", (3,)), F32], "tensor 'w' would lie at byte 3, which F32 may not"),
]


@pytest.mark.parametrize(("forms", "text"), WRONG_FORMS)
def test_forms_that_make_no_file(tmp_path: Path, forms: list[Any], text: str) -> None:
    with pytest.raises(UsageError) as caught:
        TensorFileWriter(tmp_path / "x", forms)
    assert caught.value.what.startswith(text)
    assert not (tmp_path / "x").exists()


def test_tensors_come_as_announced(tmp_path: Path) -> None:
    one = np.zeros(2, np.float32)
    with TensorFileWriter(tmp_path / "x", [F32]) as writer:
        with pytest.raises(UsageError, match="'x': tensor 'w' comes next, not 'v'"):
            writer.write("v", one)
        with pytest.raises(UsageError, match=r"'x': tensor 'w' is float32\[3\], F32\[2\] was announced"):
            writer.write("w", np.zeros(3, np.float32))
        with pytest.raises(UsageError, match=r"'x': tensor 'w' is int32\[2\], F32\[2\] was announced"):
            writer.write("w", one.astype(np.int32))
        writer.write("w", one)
        with pytest.raises(UsageError, match="'x': tensor 'z' was not announced"):
            writer.write("z", one)
    with (
        pytest.raises(UsageError, match="'y': tensor 'w' was announced and not written"),
        TensorFileWriter(tmp_path / "y", [F32]),
    ):
        pass
    with pytest.raises(BundleError, match="cannot write 'x': File exists"):
        TensorFileWriter(tmp_path / "x", [F32])


def test_a_file_that_shrank_after_its_header_was_read(tmp_path: Path) -> None:
    path = write(tmp_path / "x", {"w": np.zeros(100, np.float32)})
    entry = read_header(path)["w"]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BundleError, match="'x' is no safetensors file: the file ends inside tensor 'w'"):
        read_tensor(path, entry)


def test_a_bool_is_0_or_1(tmp_path: Path) -> None:
    path = write(tmp_path / "x", {"w": np.array([False])})
    path.write_bytes(path.read_bytes()[:-1] + b"\x02")
    with pytest.raises(BundleError, match="tensor 'w' is BOOL and holds the byte 2"):
        read_tensor(path, read_header(path)["w"])
