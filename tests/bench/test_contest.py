"""Bundles and files sorted into contests."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from anyport.bench.blank import Blank
from anyport.bench.child import open_graph
from anyport.bench.contest import Contest, Selection, find_contests, graph_candidate
from anyport.errors import AnyportError, UsageError
from anyport.graph.streamed import StreamOptions
from tests.bench.fakes import FakeMachine, FakeSession, candidate
from tests.graph.streamedmodels import stream_speller, write_speller
from tests.runtime import networks

if TYPE_CHECKING:
    from pathlib import Path


def contests(*targets: Path, selection: Selection | None = None) -> list[Contest]:
    with ExitStack() as stack:
        return find_contests(targets, selection or Selection(), stack)


def names(contest: Contest) -> list[str]:
    return [one.name for one in contest.candidates]


def test_the_variants_of_a_bundle_are_a_contest(tmp_path: Path) -> None:
    [found] = contests(networks.corners_bundle(tmp_path))
    assert (found.part, names(found), found.base) == ("network", ["fp32"], "fp32")
    assert found.sizes == {"batch": 1}
    assert found.candidates[0].size_bytes == (tmp_path / "corners.onnx").stat().st_size


def test_files_join_the_part_of_a_bundle(tmp_path: Path) -> None:
    bundle = networks.corners_bundle(tmp_path)
    [found] = contests(tmp_path / "corners.onnx", bundle, selection=Selection(sizes={"batch": 4}))
    assert names(found) == ["corners.port:fp32", "corners.onnx"]
    assert found.sizes == {"batch": 4}


def test_files_alone_are_a_contest(tmp_path: Path) -> None:
    first = networks.affine(tmp_path / "a.onnx")
    (tmp_path / "other").mkdir()
    [found] = contests(first, networks.affine(tmp_path / "other" / "a.onnx"))
    assert names(found) == [str(first), str(tmp_path / "other" / "a.onnx")]
    assert found.part == "a.onnx"


def test_a_graph_with_its_weights_beside_is_counted_whole(tmp_path: Path) -> None:
    path = networks.affine(tmp_path / "a.onnx", beside="a.weights")
    assert graph_candidate("a", path).size_bytes == path.stat().st_size + 24
    path.write_bytes(b"junk, of no kind")
    assert isinstance(graph_candidate("a", path).size_bytes, Blank)


def test_an_opponent_comes_first_and_is_the_base(tmp_path: Path) -> None:
    [found] = contests(networks.affine(tmp_path / "a.onnx"))
    with_opponent = found.against(candidate(FakeSession(FakeMachine(), "pytorch", 1.0)))
    assert (names(with_opponent), with_opponent.base) == (["pytorch", "a.onnx"], "pytorch")


def test_a_candidate_opens_with_its_threads(tmp_path: Path) -> None:
    session = graph_candidate("a", networks.affine(tmp_path / "a.onnx")).open(1)
    assert [spec.name for spec in session.inputs] == ["x"]
    session.close()


def test_what_does_not_fit_together_is_refused(tmp_path: Path) -> None:
    affine, wide = networks.affine(tmp_path / "a.onnx"), networks.wide(tmp_path / "w.onnx")
    with pytest.raises(UsageError) as caught:
        contests(affine, wide)
    assert str(caught.value) == (
        "'w.onnx' takes x float32[batch, 1, height, width], 'a.onnx' takes x float32[batch, 3]\n"
        "  do:    bench them one by one"
    )


@pytest.mark.parametrize(
    ("selection", "text"),
    [
        (Selection(variants=("fp23",)), "the bundle has no variant 'fp23' (did you mean 'fp32'?)"),
        (Selection(part="net"), "the bundle has no part 'net' (did you mean 'network'?)"),
        (
            Selection(sizes={"bach": 2}),
            "--size 'bach' is no dynamic axis of any input (did you mean 'batch'?)",
        ),
        (Selection(sizes={"batch": 99}), "--size batch=99: the model takes 1..64"),
    ],
)
def test_words_that_a_bundle_does_not_know_are_refused(
    tmp_path: Path, selection: Selection, text: str
) -> None:
    with pytest.raises(UsageError) as caught:
        contests(networks.corners_bundle(tmp_path), selection=selection)
    assert caught.value.what == text


def test_the_same_twice_is_refused(tmp_path: Path) -> None:
    path = networks.affine(tmp_path / "a.onnx")
    with pytest.raises(UsageError, match=f"'{path}' is given twice"):
        contests(path, path)


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    for name in ("absent.onnx", "absent.port"):
        with pytest.raises(AnyportError, match="absent"):
            contests(tmp_path / name)


def test_a_graph_that_refers_to_a_checkpoint_opens_beside_it(tmp_path: Path) -> None:
    write_speller(tmp_path / "checkpoint")
    graph = stream_speller(tmp_path / "checkpoint", tmp_path / "out", StreamOptions("reference"))
    [found] = contests(graph.path, selection=Selection(sizes={"length": 4}, weights=tmp_path / "checkpoint"))
    found.candidates[0].open(1).close()
    child = open_graph(found.candidates[0].child.subject, 1)
    assert [spec.name for spec in child.inputs] == [spec.name for spec in found.signature.inputs]
    child.close()
    with pytest.raises(AnyportError, match="name their folder: --weights DIR"):
        contests(graph.path)
