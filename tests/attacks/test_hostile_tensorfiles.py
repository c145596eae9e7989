"""What must not be read: safetensors files with hostile headers."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from anyport.bundle import read_header
from anyport.bundle.tensorfile import MAX_HEADER_BYTES
from anyport.errors import BundleError

if TYPE_CHECKING:
    from pathlib import Path


def put(path: Path, header: object, n_data: int, length: int | None = None) -> Path:
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(
        (len(content) if length is None else length).to_bytes(8, "little") + content + bytes(n_data)
    )
    return path


def entry(dtype: object = "F32", shape: object = (2,), offsets: object = (0, 8)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def test_the_example_is_sound(tmp_path: Path) -> None:
    assert list(read_header(put(tmp_path / "x", {"w": entry()}, 8))) == ["w"]
    assert list(read_header(put(tmp_path / "x", b"{}", 0))) == []
    assert (
        read_header(put(tmp_path / "x", {"w": entry(shape=[0, 9], offsets=[0, 0])}, 0))["w"].size_bytes == 0
    )


W = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
V = {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}
HOSTILE: list[tuple[str, object, int, str]] = [
    (
        "overlap",
        {"w": W, "v": {**V, "data_offsets": [4, 12]}},
        12,
        "tensor 'v' overlaps the tensor before it",
    ),
    ("same place", {"w": W, "v": W}, 8, "tensor 'v' overlaps the tensor before it"),
    ("hole", {"w": W, "v": {**V, "data_offsets": [12, 20]}}, 20, "tensor 'v' leaves a hole before it"),
    ("hole first", {"v": V}, 16, "tensor 'v' leaves a hole before it"),
    ("past the end", {"w": W}, 7, "its tensors end at byte "),
    ("bytes left over", {"w": W}, 9, "its tensors end at byte "),
    ("unlisted data", {}, 4, "its tensors end at byte "),
    ("negative offset", {"w": entry(offsets=[-8, 0])}, 8, "the offsets of tensor 'w' are '[-8, 0]'"),
    ("backwards", {"w": entry(offsets=[8, 0])}, 8, "the offsets of tensor 'w' are '[8, 0]'"),
    ("three offsets", {"w": entry(offsets=[0, 8, 8])}, 8, "the offsets of tensor 'w' are '[0, 8, 8]'"),
    ("real offset", {"w": entry(offsets=[0, 8.0])}, 8, "the offsets of tensor 'w' are '[0, 8.0]'"),
    ("offset true", {"w": entry(offsets=[False, 8])}, 8, "the offsets of tensor 'w' are '[False, 8]'"),
    ("negative shape", {"w": entry(shape=[-2])}, 8, "the shape of tensor 'w' is '[-2]'"),
    ("two negatives", {"w": entry(shape=[-1, -2])}, 8, "the shape of tensor 'w' is '[-1, -2]'"),
    ("shape true", {"w": entry(shape=[True, 2])}, 8, "the shape of tensor 'w' is '[True, 2]'"),
    ("shape of words", {"w": entry(shape="2")}, 8, "the shape of tensor 'w' is '2'"),
    ("many axes", {"w": entry(shape=[1] * 32 + [2])}, 8, "the shape of tensor 'w' is '[1, 1,"),
    (
        "product wraps to 2",
        {"w": entry(shape=[2**63, 2])},
        8,
        "the shape of tensor 'w' is '[9223372036854775808, 2]'",
    ),
    ("huge and empty", {"w": entry(shape=[0, 2**62], offsets=[0, 0])}, 0, "the shape of tensor 'w' is "),
    ("wrong product", {"w": entry(shape=[3])}, 8, "tensor 'w' is F32[3], 12 bytes, and has 8"),
    ("unknown type", {"w": entry(dtype="F31")}, 8, "tensor 'w' has the type 'F31' (did you mean 'F"),
    ("type is a list", {"w": entry(dtype=[])}, 8, "tensor 'w' has the type '[]'"),
    (
        "extra key",
        {"w": {**W, "x": 1}},
        8,
        "tensor 'w' must have dtype, shape and data_offsets, and nothing else",
    ),
    ("missing key", {"w": {"dtype": "F32", "shape": [2]}}, 8, "tensor 'w' must have dtype, shape"),
    ("no table", {"w": 3}, 8, "tensor 'w' must have dtype, shape"),
    ("long name", {"w" * 1001: W}, 8, "tensor 'wwww"),
    ("metadata numbers", {"__metadata__": {"a": 1}}, 0, "its __metadata__ is not a table of words"),
    ("metadata list", {"__metadata__": []}, 0, "its __metadata__ is not a table of words"),
    ("a list", b"[]", 0, "its header does not start with '{'"),
    ("space first", b" {}", 0, "its header does not start with '{'"),
    ("nothing", b"", 0, "its header does not start with '{'"),
]


@pytest.mark.parametrize(("header", "n_data", "text"), [h[1:] for h in HOSTILE], ids=[h[0] for h in HOSTILE])
def test_a_hostile_header_is_refused(tmp_path: Path, header: object, n_data: int, text: str) -> None:
    with pytest.raises(BundleError) as caught:
        read_header(put(tmp_path / "x", header, n_data))
    assert caught.value.what.startswith(f"'x' is no safetensors file: {text}")
    assert caught.value.where == str(tmp_path / "x")


@pytest.mark.parametrize(
    ("header", "text"),
    [
        (b'{"w":{},"w":{}}', "has the key 'w' twice"),
        (b'{"w":{"dtype":"F32","dtype":"F16"}}', "has the key 'dtype' twice"),
        (b'{"\xff":{}}', "is not the JSON text that it must be: 'utf-8' codec can't decode"),
        (b'{"w":', "is not the JSON text that it must be: "),
        (b'{"w":{"shape":[1e999]}}', "holds the number '1e999', which is too large"),
        (b'{"w":' + b"[" * 5000 + b"]" * 5000 + b"}", "is "),
    ],
)
def test_a_header_is_strict_json(tmp_path: Path, header: bytes, text: str) -> None:
    with pytest.raises(BundleError) as caught:
        read_header(put(tmp_path / "x", header, 0))
    assert caught.value.what.startswith(f"the header of 'x' {text}")


@pytest.mark.parametrize("length", [3, 2**31, 2**63, 2**64 - 1])
def test_a_length_beyond_the_file_is_refused(tmp_path: Path, length: int) -> None:
    with pytest.raises(
        BundleError, match=f"^'x' is no safetensors file: its header must have {length} bytes"
    ):
        read_header(put(tmp_path / "x", b"{}", 0, length))


@pytest.mark.parametrize("content", [b"", b"\0" * 7])
def test_a_file_without_a_length_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(BundleError, match="^'x' is no safetensors file: its header must have"):
        read_header(tmp_path / "x")


def test_a_large_header_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with path.open("wb") as opened:
        opened.write((1 << 36).to_bytes(8, "little"))
        opened.truncate(1 << 37)  # a hole of 128 GB
    words = (
        "import sys; from pathlib import Path\n"
        "from anyport.bundle import read_header; from anyport.errors import BundleError\n"
        "try: read_header(Path(sys.argv[1]))\nexcept BundleError as err: print(err.what)"
    )
    done = subprocess.run(
        [sys.executable, "-c", words, str(path)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30)),
    )
    assert done.stdout.strip() == (
        f"'x' is no safetensors file: its header has {1 << 36} bytes, at most {MAX_HEADER_BYTES} are read"
    )


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    content = put(tmp_path / "x", {"w": W, "v": V}, 16).read_bytes()
    for length in range(len(content)):
        (tmp_path / "x").write_bytes(content[:length])
        with pytest.raises(BundleError):
            read_header(tmp_path / "x")
