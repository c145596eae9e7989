"""The size of the weights and the metadata, read from the framing of a file."""

from __future__ import annotations

import contextlib
import random
from typing import TYPE_CHECKING

import pytest

from anyport.runtime.onnxfile import read_metadata, weights_size
from tests.runtime import networks

if TYPE_CHECKING:
    from pathlib import Path


def test_a_file_with_its_weights_inside_counts_as_itself(tmp_path: Path) -> None:
    path = networks.wide(tmp_path / "w.onnx")
    assert weights_size(path) == path.stat().st_size


def test_external_weights_are_added(tmp_path: Path) -> None:
    path = networks.affine(tmp_path / "a.onnx", beside="a.weights")
    assert weights_size(path) == path.stat().st_size + 2 * 3 * 4


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
    chance = random.Random(0)  # noqa: S311 -- the same damage every time
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
