"""PyTorch beside the graphs of a bench."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from anyport.bench import Contest, Selection, find_contests
from anyport.bench.inputs import bench_case
from anyport.bench.opening import measure_opening, order_for
from anyport.build.opponent import load_part, module_bytes, recorded_source, torch_candidate
from anyport.errors import SourceError, UsageError
from anyport.recipe import Part
from anyport.tensors import Signature, tensor
from tests.build.building import ZOO
from tests.runtime import networks

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "src" / "anyport" / "demo" / "digits.port"
PROJECT = ROOT / "examples" / "digits"


@pytest.fixture(scope="module")
def contest() -> Iterator[Contest]:
    with ExitStack() as stack:
        yield find_contests([DIGITS], Selection(), stack)[0]


def test_pytorch_answers_what_the_bundle_answers(contest: Contest) -> None:
    candidate = torch_candidate(str(PROJECT), DIGITS, contest)
    feeds = bench_case(contest.signature, {"batch": 2}).arrays(contest.signature.inputs)
    graph = contest.candidates[0].open(1)
    session = candidate.open(1)
    try:
        assert (session.inputs, session.outputs) == (graph.inputs, graph.outputs)
        assert np.allclose(session.run(feeds)["logits"], graph.run(feeds)["logits"], atol=1e-4)
    finally:
        session.close()
        graph.close()
    assert candidate.name == "pytorch"
    assert isinstance(candidate.size_bytes, int)
    assert candidate.size_bytes == pytest.approx(contest.candidates[0].size_bytes, rel=0.1)


def test_its_threads_are_its_own_until_it_is_closed(contest: Contest) -> None:
    before = torch.get_num_threads()
    session = torch_candidate(str(PROJECT), DIGITS, contest).open(before + 1)
    assert torch.get_num_threads() == before + 1
    session.close()
    assert torch.get_num_threads() == before


def test_a_child_process_builds_the_same_model(contest: Contest) -> None:
    candidate = torch_candidate(str(PROJECT), DIGITS, contest)
    case = bench_case(contest.signature, contest.sizes)
    order = order_for(candidate.child, case, contest.signature.inputs, 1)
    found = measure_opening(candidate.child.module, order, n_children=1)
    assert isinstance(found.load_s, float), found


def test_a_source_that_is_not_here_is_asked_for(
    contest: Contest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError) as caught:
        torch_candidate("pytorch", DIGITS, contest)
    assert caught.value.what.startswith(
        "digits.port says that it came from 'model.py:load', which does not load here: "
    )
    assert caught.value.do == "say where it is: --against FOLDER, or --against FILE.py:FUNCTION"


def test_the_recorded_source_is_taken_where_it_loads(
    contest: Contest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(PROJECT)
    assert torch_candidate("pytorch", DIGITS, contest).name == "pytorch"


def test_a_file_of_another_maker_names_no_source(tmp_path: Path) -> None:
    path = networks.affine(tmp_path / "a.onnx")
    with pytest.raises(UsageError) as caught:
        recorded_source(path)
    assert str(caught.value) == "a.onnx does not say where it came from\n  do:    --against FILE.py:FUNCTION"


def test_a_plain_file_is_held_against_a_function(tmp_path: Path) -> None:
    x, y = tensor("x", "float32[batch, 4]"), tensor("y", "float32[batch, 4]")
    path = networks.affine(tmp_path / "a.onnx")
    contest = Contest("a.onnx", Signature((x,), (y,)), {"batch": 1}, (), "a.onnx")
    with pytest.raises(SourceError, match="has no function 'nothing'"):
        torch_candidate(f"{ZOO}/zoo.py:nothing", path, contest)


def test_shared_weights_count_once() -> None:
    class Tied(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.Linear(8, 8, bias=False)
            self.second = torch.nn.Linear(8, 8, bias=False)
            self.second.weight = self.first.weight
            self.register_buffer("scale", torch.ones(4))

    assert module_bytes(Part("tied", Tied(), Signature((), ()))) == 8 * 8 * 4 + 4 * 4


def test_a_part_that_the_model_does_not_have_is_refused(
    contest: Contest, monkeypatch: pytest.MonkeyPatch
) -> None:
    from anyport.build import opponent
    from anyport.recipe import Model

    one = Part("encoder", torch.nn.Identity(), contest.signature)
    two = Model("m", "m", (one, replace(one, name="decoder")))
    monkeypatch.setattr(opponent, "find_model", lambda _request: two)
    subject = opponent.TorchSubject("m.py:load", "network", {}, {}, {}, {})
    with pytest.raises(UsageError) as caught:
        load_part(subject)
    assert caught.value.what == "'m.py:load' has the parts encoder, decoder, none is 'network'"
    assert load_part(opponent.TorchSubject("m.py:load", "decoder", {}, {}, {}, {})).name == "decoder"
