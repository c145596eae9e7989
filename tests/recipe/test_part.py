"""The nouns of a recipe: fixed once made."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import pytest
import torch
from torch import nn

from anyport.errors import SourceError
from anyport.recipe import Model, Part
from anyport.recipe.part import assumption, check_finite
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


def test_finite_weights_pass() -> None:
    check_finite(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Embedding(4, 2)), "net")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_weight_that_is_not_finite_is_named(value: float) -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    with torch.no_grad():
        module[0].weight[1, 2] = value
    with pytest.raises(SourceError) as caught:
        check_finite(module, "net")
    assert str(caught.value) == (
        "'net' has a weight whose numbers are NaN or infinite: '0.weight' (1 of 6)\n"
        "  do:    take an earlier checkpoint of the training, or download it again"
    )


def test_of_many_such_weights_the_first_are_named() -> None:
    module = nn.Sequential(*(nn.BatchNorm1d(2) for _ in range(4)))
    with torch.no_grad():
        for norm in module:
            norm.weight.fill_(float("nan"))  # type: ignore[operator, union-attr]
            norm.running_var.fill_(float("inf"))  # type: ignore[operator, union-attr]
    with pytest.raises(SourceError) as caught:
        check_finite(module, "net")
    assert caught.value.what == (
        "'net' has 8 weights whose numbers are NaN or infinite: '0.weight' (2 of 2), '1.weight' (2 of 2), "
        "'2.weight' (2 of 2), '3.weight' (2 of 2), '0.running_var' (2 of 2) and 3 more"
    )


def test_an_assumption_says_its_numbers() -> None:
    settings = {"resample": "bicubic", "crop": [224, 224], "mean": [0.485], "std": [0.229]}
    assert assumption(settings, "Some/net-*") == (
        "no preprocessor_config.json: pictures are prepared as Some/net-* do: bicubic to 224 x 224, mean "
        "0.485; std 0.229"
    )
