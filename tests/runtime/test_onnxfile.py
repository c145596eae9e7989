"""The size of the weights and the metadata, read from the framing of a file."""

from __future__ import annotations

import contextlib
import math
import random
from typing import TYPE_CHECKING

import pytest
from onnx import TensorProto

from anyport.runtime.onnxfile import WeightSizes, read_metadata, weight_sizes, weights_size
from tests.runtime import networks

if TYPE_CHECKING:
    from pathlib import Path


def test_a_file_with_its_weights_inside_counts_as_itself(tmp_path: Path) -> None:
    path = networks.wide(tmp_path / "w.onnx")
    assert weights_size(path) == path.stat().st_size


def test_external_weights_are_added(tmp_path: Path) -> None:
    path = networks.affine(tmp_path / "a.onnx", beside="a.weights")
    assert weights_size(path) == path.stat().st_size + 2 * 3 * 4


KINDS = {
    "products": (TensorProto.FLOAT, (5, 7)),
    "bias": (TensorProto.FLOAT, (6,)),
    "kernels": (TensorProto.FLOAT, (2, 3, 3, 3)),
    "half": (TensorProto.FLOAT16, (4, 4)),
    "brain": (TensorProto.BFLOAT16, (2, 2, 2, 2)),
    "bytes": (TensorProto.INT8, (11, 1)),
}


def framed(number: int, content: bytes) -> bytes:
    """Return a field of a message: its tag, its length in two bytes, and its content."""
    return bytes([number << 3 | 2, 0x80 | len(content) & 0x7F, len(content) >> 7]) + content


@pytest.mark.parametrize("is_packed", [False, True])  # as proto2 and as proto3 write a shape
def test_weights_are_told_apart_by_what_a_runtime_makes_of_them(tmp_path: Path, *, is_packed: bool) -> None:
    size_of = {TensorProto.FLOAT: 4, TensorProto.INT8: 1}
    tensors = []
    for data_type, shape in KINDS.values():
        tensor = TensorProto(data_type=data_type, data_location=TensorProto.EXTERNAL)
        length = math.prod(shape) * size_of.get(data_type, 2)
        for key, value in (("location", "w"), ("length", str(length))):
            tensor.external_data.add(key=key, value=value)
        if not is_packed:
            tensor.dims.extend(shape)
        packed = framed(1, bytes(shape)) if is_packed else b""
        tensors.append(framed(5, packed + tensor.SerializeToString()))
    path = tmp_path / "m.onnx"
    path.write_bytes(framed(7, b"".join(tensors)))
    found, inside = weight_sizes(path), path.stat().st_size
    assert found == WeightSizes(inside, 4 * (35 + 6) + 11, 4 * 54, 2 * 16, 2 * 16)
    assert found.total_bytes == weights_size(path)
    assert found.mapped_bytes == inside + 4 * 54 + 3 * 2 * 16
    assert found.copied_bytes == inside + 4 * (35 + 6) + 11 + 4 * 54 + 3 * (2 * 16 + 2 * 16)


def test_an_empty_file_has_no_weights(tmp_path: Path) -> None:
    (tmp_path / "e.onnx").touch()
    assert weights_size(tmp_path / "e.onnx") == 0


def test_the_metadata_is_read(tmp_path: Path) -> None:
    assert read_metadata(networks.affine(tmp_path / "a.onnx")) == {"licence": "MIT"}
    (tmp_path / "e.onnx").touch()
    assert read_metadata(tmp_path / "e.onnx") == {}


def test_every_cut_and_flip_is_a_number_or_a_value_error(tmp_path: Path) -> None:
    whole = networks.affine(tmp_path / "a.onnx", beside="a.weights").read_bytes()
    path = tmp_path / "damaged.onnx"
    chance = random.Random(0)
    for n in range(len(whole)):
        damaged = bytearray(whole[: n if n % 2 else None])
        if damaged:
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(damaged)
        with contextlib.suppress(ValueError):
            assert weights_size(path) >= 0
        with contextlib.suppress(ValueError):
            assert isinstance(read_metadata(path), dict)


def test_it_says_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(b"junk, of no kind")
    with pytest.raises(ValueError, match="it is no protobuf message|it is cut off"):
        weights_size(path)
