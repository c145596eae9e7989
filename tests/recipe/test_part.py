"""The nouns of a recipe: fixed once made."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import pytest
from torch import nn

from anyport.recipe import Model, Part
from tests.source.parts import signature


def test_parts_and_models_are_replaced_not_changed() -> None:
    part = Part("network", nn.ReLU(), signature())
    model = Model("net", "model.py:load", (part,))
    with pytest.raises(FrozenInstanceError):
        part.name = "other"  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        model.task = "classify"  # type: ignore[misc]
    changed = replace(model, parts=(replace(part, name="other"),), task="classify")
    assert (changed.parts[0].name, changed.task, model.task) == ("other", "classify", None)


def test_what_may_be_left_out() -> None:
    part = Part("network", nn.ReLU(), signature())
    assert (dict(part.arguments), part.given) == ({}, None)
    assert dict(Model("net", "model.py:load", (part,)).settings) == {}
