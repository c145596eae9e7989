"""Load time and memory, asked of real child processes."""

from __future__ import annotations

import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from anyport.bench.blank import Blank
from anyport.bench.child import Answer, Order, graph_subject
from anyport.bench.inputs import bench_case
from anyport.bench.opening import ChildCommand, Opening, ask_child, measure_opening, order_for, summarize
from anyport.tensors import Signature, tensor
from tests.runtime import networks

if TYPE_CHECKING:
    from pathlib import Path

IMAGE = tensor("x", "float32[batch, 1, height, width]")


def order(path: Path, size: int) -> Order:
    signature = Signature((IMAGE,), ())
    case = bench_case(signature, {"batch": 1, "height": size, "width": size})
    return order_for(ChildCommand("anyport.bench.child", graph_subject(path)), case, signature.inputs, 1)


def test_a_child_sees_what_a_run_needs(tmp_path: Path) -> None:
    path = networks.wide(tmp_path / "wide.onnx")
    small, large = (measure_opening("anyport.bench.child", order(path, size), 1) for size in (16, 512))
    assert isinstance(small.load_s, float)
    if sys.platform == "linux":
        assert isinstance(small.peak_bytes, int)
        assert isinstance(large.peak_bytes, int)
        # 64 channels of 512 x 512 float32 between the convolutions: 67 MB
        assert large.peak_bytes > small.peak_bytes + 60e6


def test_medians_leave_out_those_without_a_number() -> None:
    answers = [Answer(1.0, 10), Answer(3.0, None, "why not"), Answer(2.0, 30)]
    assert summarize(answers) == Opening(2.0, 20)
    assert summarize([Answer(None, None, "it fell")]) == Opening(Blank("it fell"), Blank("it fell"))
    assert summarize([Answer(1.0, None, "no peak here")]) == Opening(1.0, Blank("no peak here"))


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("raise ValueError('planted')", "the child process ended with 1: ValueError: planted"),
        ("import os; os._exit(9)", "the child process ended with 9: it said nothing"),
        ("pass", "the child process ended with 0: it said nothing"),
    ],
)
def test_a_child_that_dies_is_no_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, text: str
) -> None:
    (tmp_path / "planted_child.py").write_text(f"def main():\n    {body}\n", "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    assert ask_child("planted_child", order(tmp_path / "a.onnx", 8)) == Answer(None, None, text)


def test_what_a_candidate_prints_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = """
        from anyport.bench.child import open_graph, serve

        def loud(subject, n_threads):
            print("{}")
            return open_graph(subject, n_threads)

        def main():
            serve(loud)
    """
    (tmp_path / "loud_child.py").write_text(textwrap.dedent(code), "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    assert ask_child("loud_child", order(networks.wide(tmp_path / "w.onnx", 2), 8)).load_s


def test_a_child_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hanging_child.py").write_text("import time\ndef main():\n    time.sleep(60)\n", "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("anyport.bench.opening._TIMEOUT_S", 1)
    found = ask_child("hanging_child", order(tmp_path / "a.onnx", 8))
    assert found == Answer(None, None, "the child process did not answer within 1 s")
