"""Modules without numbers: what is emptied, and what is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

from anyport.errors import SourceError
from anyport.graph.capture import capture
from anyport.graph.hollow import hollow
from anyport.recipe.weightless import weightless
from anyport.source import check_against, open_checkpoint, wanted_weights
from tests.graph.streamedmodels import Speller, empty_speller, part_of, write_speller

if TYPE_CHECKING:
    from pathlib import Path


def test_a_hollow_part_has_fake_weights_that_stay_tied(tmp_path: Path) -> None:
    write_speller(tmp_path / "checkpoint")
    module = empty_speller()
    found = check_against(open_checkpoint(tmp_path / "checkpoint"), wanted_weights(module))
    emptied = hollow(part_of(module), module, found)
    assert all(isinstance(weight, FakeTensor) for weight in module.parameters())
    assert module.head.weight is module.embed.weight
    assert emptied.stored["head.weight"] is emptied.stored["embed.weight"]
    assert isinstance(module.get_buffer("scale"), FakeTensor)  # the checkpoint has it
    assert not isinstance(module.get_buffer("table"), FakeTensor)
    captured = capture(emptied.part)
    assert captured.is_hollow
    assert not capture(part_of(Speller().eval())).is_hollow


def test_names_are_those_of_the_part_whatever_the_checkpoint_is_of(tmp_path: Path) -> None:
    write_speller(tmp_path / "checkpoint")
    module = empty_speller()
    found = check_against(open_checkpoint(tmp_path / "checkpoint"), wanted_weights(module))
    outer = nn.Sequential(module)
    emptied = hollow(part_of(outer), module, found)
    assert emptied.stored["0.mix.weight"].name == "mix.weight"


def test_a_tensor_that_nobody_has_is_named() -> None:
    with weightless():
        module = nn.Linear(2, 2).eval()
    with pytest.raises(SourceError) as raised:
        hollow(part_of(module), module, {})
    assert raised.value.what.startswith("'weight' of part 'speller' is neither in the checkpoint nor")
    assert "weightless()" in str(raised.value.do)
