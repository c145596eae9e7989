"""Modules without weights: shapes, ties, and what they compute themselves."""

from __future__ import annotations

import torch
from torch import nn

from tests.graph.streamedmodels import Speller, empty_speller


def test_weightless_modules_have_shapes_ties_and_what_they_compute() -> None:
    module = empty_speller()
    assert all(weight.is_meta for weight in module.parameters())
    assert module.head.weight is module.embed.weight
    assert module.second.weight is module.first.weight
    assert torch.equal(module.get_buffer("table"), Speller().get_buffer("table"))
    assert not nn.Linear(2, 2).weight.is_meta  # outside all is as ever
