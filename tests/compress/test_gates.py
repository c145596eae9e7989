from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from anyport.compress.gates import (
    check_did_something,
    check_faster,
    check_metric,
    is_faster,
    read_facts,
)
from anyport.compress.methods import Fp16Storage, Int8Dynamic
from anyport.compress.quantizing import quantize
from anyport.errors import CompressError
from anyport.verify import Evaluation, TopOneAgreement, UserMetric
from anyport.verify.agreement import Losses, judge
from tests.compress.smallnets import hoarding, idle, sentences, textnet
from tests.graph.narrowgraphs import HALVES, pair

if TYPE_CHECKING:
    from pathlib import Path


def test_a_real_quantizer_passes_the_first_gate(tmp_path: Path) -> None:
    graph = textnet(tmp_path / "in.onnx")
    found = quantize(graph, Int8Dynamic(), None, tmp_path / "out.onnx")
    original, facts = read_facts(graph), read_facts(found.path)
    check_did_something(original, facts, found)
    assert facts.narrow_bytes[8] == 100 * 64 + 64 * 64 + 64 * 32 + 64 + 32  # and the zero points
    assert original.narrow_bytes == {}
    assert (facts.n_nodes, facts.size_bytes) == (found.n_nodes, found.size_bytes)


@pytest.mark.parametrize("half", HALVES)
def test_of_weights_in_16_bits_8_are_fewer_and_16_are_not(half: str, tmp_path: Path) -> None:
    graph = pair(textnet(tmp_path / "net.onnx"), half).narrow
    original = read_facts(graph)
    small = quantize(graph, Int8Dynamic(), None, tmp_path / "small.onnx")
    facts = read_facts(small.path)
    check_did_something(original, facts, small)
    assert (original.narrow_bytes, facts.narrow_bytes.keys()) == ({16: 2 * (100 * 64 + 96 * 64)}, {8})
    again = quantize(graph, Fp16Storage(), None, tmp_path / "half.onnx")
    with pytest.raises(CompressError, match=r"^fp16 did nothing: the nodes are the same, "):
        check_did_something(original, read_facts(again.path), again)


def test_a_quantizer_that_does_nothing_is_seen_whatever_it_says(tmp_path: Path) -> None:
    graph = textnet(tmp_path / "in.onnx")
    found = idle(graph, Int8Dynamic(), sentences(), tmp_path / "out.onnx")
    assert found.n_changed == 3  # it says
    with pytest.raises(CompressError) as caught:
        check_did_something(read_facts(graph), read_facts(found.path), found)
    assert str(caught.value) == (
        "int8-dynamic:u8s8 did nothing: the nodes are the same, 51.1 kB -> 51.1 kB\n"
        "  where: stayed float: nothing is known to hold weights\n"
        "  do:    take another method, or leave the model as it is"
    )


def test_float_weights_left_in_the_file_are_seen(tmp_path: Path) -> None:
    graph = textnet(tmp_path / "in.onnx")
    found = hoarding(graph, Int8Dynamic(), None, tmp_path / "out.onnx")
    said = r"made the file no smaller: 12.6 kB of weights are in fewer bits, 51.1 kB -> 66"
    with pytest.raises(CompressError, match=said):
        check_did_something(read_facts(graph), read_facts(found.path), found)


def test_faster_means_by_more_than_the_noise() -> None:
    check_faster("int8", 1.04, "all")
    assert (is_faster(1.04), is_faster(1.03)) == (True, False)
    with pytest.raises(CompressError) as caught:
        check_faster("int8-dynamic:u8s8", 0.871, "extended")
    assert str(caught.value) == (
        "int8-dynamic:u8s8 is not faster: 0.87x the speed of fp32 at level extended, "
        "more than 1.03x is needed\n"
        "  do:    leave the model as it is, or say that its size matters: --prefer size"
    )


def test_what_cannot_be_judged_is_not_called_bad() -> None:
    few = Losses(32, 0.0, 0.0, 1, 1.0)
    evaluation = Evaluation((judge("y", TopOneAgreement(), few, 0.8),))
    with pytest.raises(CompressError) as caught:
        check_metric("fp16", evaluation)
    assert caught.value.what.startswith("fp16 cannot be judged: 'y' top-1 agreement 100 % over 32 samples")
    assert caught.value.what.endswith(": 32 samples say too little, 64 are needed")


def test_a_metric_that_does_not_hold_is_named() -> None:
    metric = UserMetric("evaluate.py:accuracy", lambda _run: 0.0, 0.005)
    check_metric("int8", metric.compare(0.99, 0.989))
    with pytest.raises(CompressError) as caught:
        check_metric("int8-static:u8s8", metric.compare(0.99, 0.7))
    assert str(caught.value) == (
        "int8-static:u8s8 does not hold the metric: accuracy 99 % -> 70 %: a drop of 0.29, allowed 0.005\n"
        "  do:    calibrate with more typical samples, try another method, or keep more layers in float"
    )
