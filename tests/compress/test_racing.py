from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import pytest

from anyport.compress.racing import Rival, RivalrySettings, race_rivals
from anyport.errors import SessionError
from anyport.graph.fastest import RaceSettings
from tests.compress.smallnets import WORDS, burdened, equality, textnet

if TYPE_CHECKING:
    from pathlib import Path


def test_ratios_are_of_the_fastest_proven_level(tmp_path: Path) -> None:
    graph = textnet(tmp_path / "in.onnx")
    rivals = [
        Rival("same", textnet(tmp_path / "same.onnx"), 9),
        Rival("slow", burdened(textnet(tmp_path / "slow.onnx")), 17),
        Rival("gone", tmp_path / "gone.onnx", 9),
    ]
    model = onnx.load(graph)
    model.graph.node[-1].op_type = "Nothing"
    onnx.save(model, tmp_path / "gone.onnx")
    settings = RivalrySettings(equality(WORDS), ("none", "all"), RaceSettings(budget_s=1.0))
    found = race_rivals(graph, 9, rivals, settings)
    assert found.baseline in {"all", "none"}
    assert found.levels[found.baseline] == 1
    assert found.levels.keys() == {"all", "none"}
    assert isinstance(found.ratios["gone"], SessionError)
    slow, same = found.ratios["slow"], found.ratios["same"]
    assert isinstance(slow, float)
    assert isinstance(same, float)
    assert slow < 0.7 * same


def test_a_level_that_is_not_asked_for_is_no_baseline(tmp_path: Path) -> None:
    graph = textnet(tmp_path / "in.onnx")
    settings = RivalrySettings(equality(WORDS), ("none",), RaceSettings(budget_s=0.5))
    assert race_rivals(graph, 9, [], settings).baseline == "none"


def test_an_original_that_does_not_open_is_told(tmp_path: Path) -> None:
    graph = textnet(tmp_path / "in.onnx")
    model = onnx.load(graph)
    model.graph.node[-1].op_type = "Nothing"
    onnx.save(model, graph)
    with pytest.raises(SessionError):
        race_rivals(graph, 9, [], RivalrySettings(equality(WORDS)))
