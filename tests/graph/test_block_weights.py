"""Accounting for weights that stay where they are, by place, and for others by content."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import helper
from safetensors.numpy import save_file

from anyport.graph.block_weights import weights_leg
from anyport.source import open_checkpoint
from anyport.source.merging import LazyWeight
from anyport.verify import Leg, Status

if TYPE_CHECKING:
    from pathlib import Path

    from anyport.source import StoredTensor

SHAPE = (4, 6)


def checkpoint(folder: Path) -> dict[str, StoredTensor]:
    """Write three weights."""
    rng = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    save_file(
        {n: rng.normal(size=SHAPE).astype(np.float32) for n in ("a", "b", "c")}, folder / "w.safetensors"
    )
    return dict(open_checkpoint(folder / "w.safetensors").tensors)


def write_graph(path: Path, stored: dict[str, StoredTensor], shift: int = 0) -> None:
    """Write a graph that reads these weights from their file."""
    weights = []
    for name, one in stored.items():
        weight = onnx.TensorProto(
            name=name, data_type=1, dims=one.shape, data_location=onnx.TensorProto.EXTERNAL
        )
        words = {"location": one.file.name, "offset": one.offset + shift, "length": one.n_bytes}
        for key, word in words.items():
            weight.external_data.add(key=key, value=str(word))
        weights.append(weight)
    nodes = [helper.make_node("Sum", list(stored), ["y"])]
    end = [helper.make_tensor_value_info("y", 1, SHAPE)]
    graph = helper.make_graph(nodes, "sum", [], end, weights)
    path.write_bytes(helper.make_model(graph).SerializeToString())


def leg(folder: Path, stored: dict[str, StoredTensor], shift: int = 0, *, merged: bool = False) -> Leg:
    """Account for the weights of the module ``net``, which are the checkpoint's."""
    found = checkpoint(folder)
    write_graph(folder / "m.onnx", stored, shift)
    source = open_checkpoint(folder / "w.safetensors")
    weights = {
        f"net.{name}": LazyWeight("F32", SHAPE, partial(source.read, one), None if merged else one)
        for name, one in found.items()
    }
    return weights_leg(folder / "m.onnx", weights, folder)


def test_weights_that_stay_are_found_by_their_place(tmp_path: Path) -> None:
    stored = checkpoint(tmp_path)
    whole = leg(tmp_path, stored)
    assert (whole.status, whole.details) == (Status.PASS, ())
    assert whole.line == "3 of 3 weights are read where the checkpoint has them"
    del stored["b"]
    part = leg(tmp_path, stored)
    assert (part.status, part.details) == (Status.PASS, ("not in the graph: b",))
    assert part.line == "2 of 3 weights are read where the checkpoint has them"


def test_a_weight_that_is_read_elsewhere_fails(tmp_path: Path) -> None:
    stored = checkpoint(tmp_path)
    found = leg(tmp_path, stored, shift=4)
    a = stored["a"]
    assert found.status is Status.FAIL
    assert found.line == (
        f"the graph reads 'a' [4, 6] at byte {a.offset + 4} of w.safetensors, 96 bytes; it is [4, 6] at byte "
        f"{a.offset} of w.safetensors, 96 bytes"
    )
    assert len(found.details) == 2


def test_two_weights_that_are_swapped_fail(tmp_path: Path) -> None:
    stored = checkpoint(tmp_path)
    stored["a"], stored["b"] = stored["b"], stored["a"]
    assert leg(tmp_path, stored).status is Status.FAIL


def test_a_weight_of_a_name_that_the_checkpoint_does_not_have_fails(tmp_path: Path) -> None:
    stored = checkpoint(tmp_path)
    stored["other"] = stored.pop("a")
    assert leg(tmp_path, stored).line.endswith(", and the checkpoint has no weight of this name")


@pytest.mark.parametrize(("shift", "status"), [(0, Status.PASS), (-4, Status.FAIL)])
def test_weights_that_were_written_anew_are_found_by_content(
    shift: int, status: Status, tmp_path: Path
) -> None:
    found = leg(tmp_path, checkpoint(tmp_path), shift, merged=True)
    assert found.status is status
    if status is Status.PASS:
        assert found.details == ("3 of 3 weights found: 3 bit-equal",)
