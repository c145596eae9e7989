from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import helper

from anyport.compress.borrowing import borrow
from anyport.compress.calibration import Calibration, calibrate, chunks
from anyport.compress.methods import Entropy, MinMax, Percentile
from anyport.compress.samples import Share
from anyport.errors import CompressError
from anyport.runtime import open_session
from tests.compress.smallnets import FLOAT, Arrays, beside, convnet, pictures
from tests.runtime.networks import Tensors, save

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NAMES = ("x", "r1", "c2", "pooled")


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    return beside(convnet(tmp_path / "model.onnx"))


def values(graph: Path, name: str) -> np.ndarray:
    """Return what a value is for all pictures, by asking onnxruntime for it."""
    if name == "x":
        return np.concatenate([feeds["x"] for feeds in pictures()])
    model = onnx.load(graph)
    model.graph.output.append(helper.make_empty_tensor_value_info(name))
    onnx.save(model, graph.with_name("asked.onnx"))
    session = open_session(graph.with_name("asked.onnx"))
    return np.concatenate([session.run(feeds)[name].ravel() for feeds in pictures()])


def test_extremes_are_those_of_all_samples(graph: Path) -> None:
    found = calibrate(Calibration(graph, pictures()), NAMES, MinMax())
    for name in NAMES:
        exact = values(graph, name)
        assert (found[name].low, found[name].high) == pytest.approx((exact.min(), exact.max()), abs=1e-5)


@pytest.mark.parametrize("rule", [Percentile(99), Entropy()])
def test_histograms_in_chunks_are_those_of_one_pass(
    graph: Path, rule: Entropy | Percentile, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    calibration = Calibration(graph, pictures(), lambda _step, line: said.append(line))
    whole = calibrate(calibration, NAMES, rule)
    assert len(said) == 2
    monkeypatch.setattr("anyport.compress.calibration.CHUNK_BYTES", 20_000)
    assert calibrate(calibration, NAMES, rule) == whole
    assert said[-1] == f"{rule.text}: 4 of 4 activations"
    assert len(said) > 4
    exact = values(graph, "c2")
    assert exact.min() <= whole["c2"].low < whole["c2"].high < exact.max()
    assert not list(graph.parent.glob(".probe*"))


def test_groups_stay_within_the_limit() -> None:
    sizes = {"a": 3, "b": 4, "c": 9, "d": 1, "e": 6}
    assert list(chunks("abcde", sizes, 7)) == [("a", "b"), ("c",), ("d", "e")]
    assert list(chunks("", sizes, 7)) == []


def test_no_samples_and_no_numbers_are_refused(graph: Path) -> None:
    with pytest.raises(CompressError) as caught:
        calibrate(Calibration(graph, Arrays("nobody", ())), NAMES, MinMax())
    assert caught.value.what == "'nobody' gives no samples, and ranges come from samples"
    sick = Arrays("sick", ({"x": np.full((1, 3, 16, 16), np.inf, np.float32)},))
    with pytest.raises(
        CompressError, match=r"activation 'x' is not finite in sample 1 of 'sick': from inf to inf"
    ):
        calibrate(Calibration(graph, sick), NAMES, MinMax())
    assert calibrate(Calibration(graph, pictures()), (), MinMax()) == {}


@pytest.mark.parametrize("layout", [convnet, lambda path: beside(convnet(path))], ids=["inside", "beside"])
def test_the_samples_are_gone_over_one_by_one(tmp_path: Path, layout: Callable[[Path], Path]) -> None:
    graph = layout(tmp_path / "model.onnx")
    (tmp_path / "double").mkdir()
    double = borrow(graph, tmp_path / "double")
    alive: list[int] = []

    class Counted(Arrays):
        def __iter__(self):  # type: ignore[no-untyped-def]  # noqa: ANN204
            for feeds in self.feeds:
                alive.append(1)
                assert sum(alive) == 1
                yield feeds
                alive.append(-1)

    assert calibrate(Calibration(double, Counted("noise", pictures().feeds)), NAMES, MinMax())


@pytest.mark.parametrize("place", [0, 1, 7, 8, 100, 767])
def test_nan_is_seen_at_every_place_of_an_input(graph: Path, place: int) -> None:
    feeds = [dict(one) for one in pictures(6).feeds]
    feeds[3]["x"] = feeds[3]["x"].copy()
    feeds[3]["x"].reshape(-1)[place] = np.nan
    some = Share("noise (3 of 6)", Arrays("noise", tuple(feeds)), frozenset({1, 3, 5}))
    with pytest.raises(CompressError) as caught:  # the number is that among all samples
        calibrate(Calibration(graph, some), ("pooled",), MinMax())
    assert caught.value.what == "input 'x' is not finite in sample 4 of 'noise (3 of 6)': it holds NaN"


def test_the_picture_is_named_where_there_is_one(graph: Path) -> None:
    class Photos(Arrays):
        def file(self, number: int) -> str:
            return f"photos/{number}.png"

    feeds = [dict(one) for one in pictures(6).feeds]
    feeds[3]["x"] = np.full_like(feeds[3]["x"], np.nan)
    for samples in (some := Photos("p", tuple(feeds)), Share("s", some, frozenset({0, 3}))):
        with pytest.raises(CompressError) as caught:
            calibrate(Calibration(graph, samples), ("pooled",), MinMax())
        assert caught.value.what == "input 'x' is not finite in 'photos/3.png': it holds NaN"


@pytest.mark.parametrize("place", [0, 1, 7, 8, 63, 99])
@pytest.mark.parametrize(("number", "text"), [(-1.0, "it holds NaN"), (np.inf, "to inf")])
def test_nan_is_seen_at_every_place_of_an_inner_value(
    tmp_path: Path, place: int, number: float, text: str
) -> None:
    nodes = [helper.make_node("Sqrt", ["x"], ["root"]), helper.make_node("Tanh", ["root"], ["y"])]
    form = (FLOAT, ["batch", 100])
    path = save(tmp_path / "model.onnx", nodes, Tensors({"x": form}, {"y": form}))
    good, sick = np.ones((1, 100), np.float32), np.ones((1, 100), np.float32)
    sick[0, place] = number
    samples = Arrays("noise", ({"x": good}, {"x": sick}))
    with pytest.raises(CompressError) as caught:
        calibrate(Calibration(path, samples), ("root",), MinMax())
    assert caught.value.what.startswith("activation 'root' is not finite in sample 2 of 'noise': ")
    assert caught.value.what.endswith((text, "from nan to nan"))


def test_infinity_in_an_input_may_be_a_mask(tmp_path: Path) -> None:
    path = save(
        tmp_path / "model.onnx",
        [helper.make_node("Exp", ["x"], ["shares"]), helper.make_node("Tanh", ["shares"], ["y"])],
        Tensors({"x": (FLOAT, [4])}, {"y": (FLOAT, [4])}),
    )
    samples = Arrays("mask", ({"x": np.float32([0, -np.inf, 0, 1])},))
    found = calibrate(Calibration(path, samples), ("shares",), MinMax())
    assert (found["shares"].low, found["shares"].high) == pytest.approx((0, np.e), rel=1e-6)
