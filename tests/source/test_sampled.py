"""Answers of which a few are measured in float64: their floors stand for the others."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from anyport.cases import Case, Normal
from anyport.recipe import Part
from anyport.source import TorchReference, TorchSession
from anyport.source.sampled import SampledReference
from anyport.tensors import Signature, tensor

SIGNATURE = Signature((tensor("x", "float32[3, 8]"),), (tensor("y", "float32[3, 4]"),), {})


def made() -> Part:
    torch.manual_seed(0)
    return Part("net", nn.Sequential(nn.Linear(8, 64), nn.GELU(), nn.Linear(64, 4)).eval(), SIGNATURE)


def case(seed: int, kind: str = "random", scale: float = 1.0) -> Case:
    return Case(f"{kind} {seed}", kind, {}, {"x": Normal(seed, scale=scale)}, {})  # type: ignore[arg-type]  # of a table


def test_the_first_cases_are_measured_and_others_take_their_widest_share() -> None:
    part = made()
    reference, full = SampledReference(part, TorchSession(part), 2), TorchReference(part)
    measured = [reference.answer(case(seed)).floors["y"] for seed in (1, 2)]
    exact = [full.answer(case(seed)) for seed in (1, 2)]
    assert [one.max_abs for one in measured] == [one.floors["y"].max_abs for one in exact]
    shares = [one.floors["y"].max_abs / np.abs(one.outputs["y"]).max() for one in exact]
    sampled = reference.answer(case(3))
    single = TorchSession(part).run(case(3).arrays(SIGNATURE.inputs))["y"]
    np.testing.assert_array_equal(sampled.outputs["y"], single)
    assert sampled.floors["y"].max_abs == pytest.approx(max(shares) * np.abs(single).max())
    assert (
        sampled.floors["y"].how
        == "the widest of PyTorch's floors in float64 on 2 other cases, relative to the output"
    )


def test_what_is_beyond_the_ordinary_is_always_measured_and_stands_for_nothing_else() -> None:
    part = made()
    reference, full = SampledReference(part, TorchSession(part), 1), TorchReference(part)
    for one in (case(7, "boundary", 30.0), case(1), case(8, "boundary", 30.0)):
        assert reference.answer(one).floors["y"].max_abs == full.answer(one).floors["y"].max_abs
    assert "on 1 other cases" in reference.answer(case(2)).floors["y"].how


def test_an_answer_that_is_known_is_not_computed_again() -> None:
    part = made()
    reference = SampledReference(part, TorchSession(part), 1)
    reference.answer(case(1))
    known = np.full((3, 4), 2.0, np.float32)
    reference.keep(case(2), {"y": known})
    assert reference.answer(case(2)).outputs["y"] is known
