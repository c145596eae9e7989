"""The largest numbers inside a network are found, whatever its modules answer."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from anyport.errors import SourceError
from anyport.source import find_ranges
from tests.source.parts import part_of


class Scale(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class Several(nn.Module):
    """Answers a dict with a tuple, an int and no tensor at all."""

    def forward(self, x: Tensor) -> dict[str, Any]:
        return {"pair": (x, [x * -7]), "count": torch.tensor(9**9), "none": None, "empty": x[:0]}


class Network(nn.Module):
    def __init__(self, *factors: float) -> None:
        super().__init__()
        self.scales = nn.ModuleList(Scale(factor) for factor in factors)
        self.several = Several()

    def forward(self, x: Tensor) -> Tensor:
        found = self.several(x)["pair"][0]
        for scale in self.scales:
            found = found + 0 * scale(x)
        return found


def part(*factors: float, values: tuple[float, ...] = (1.0, -2.0)) -> Any:
    cases = [{"x": np.full((1, 8), value, np.float32)} for value in values]
    return replace(part_of(Network(*factors)), given=lambda: cases)


def test_the_largest_of_every_module_over_all_cases() -> None:
    found = find_ranges(part(3.0, 100.0))
    assert found is not None
    assert {one.module: one.largest for one in found.modules} == {
        "scales.1": 200.0,
        "several": 14.0,
        "scales.0": 6.0,
        "the whole": 2.0,
    }
    assert found.modules[0].module == "scales.1"
    assert (found.n_cases, found.large, found.warning()) == (2, (), None)
    assert found.to_json() == {
        "n_cases": 2,
        "largest": [{"module": "scales.1", "largest": 200.0}],
        "above_a_tenth_of_float16": [],
    }


@pytest.mark.parametrize(
    ("factors", "text"),
    [
        (
            (32000.0, 3276.0),
            "comes within a tenth of its limit (its limit is 65504): scales.0 6.4e+04, scales.1",
        ),
        ((32753.0,), "would overflow (its limit is 65504): scales.0 6.55e+04"),
        ((1e5, 2e5, 3e5, 4e5), "scales.3 8e+05, scales.2 6e+05, scales.1 4e+05 and 1 more"),
    ],
)
def test_what_float16_would_not_hold_is_said(factors: tuple[float, ...], text: str) -> None:
    found = find_ranges(part(*factors))
    assert found is not None
    warning = found.warning()
    assert warning is not None
    assert warning.startswith("network in float16 ")
    assert text in warning


def test_the_limit_itself_fits() -> None:
    found = find_ranges(part(32752.0, 3275.0))
    assert found is not None
    assert [one.module for one in found.large] == ["scales.0"], "6550 is not above a tenth of 65504"
    assert "comes within a tenth" in str(found.warning())


def test_what_is_no_number_is_infinite() -> None:
    found = find_ranges(part(math.nan, values=(1.0, 0.5)))
    assert found is not None
    assert found.modules[0].largest == math.inf
    assert '"infinite"' in json.dumps(found.to_json(), allow_nan=False)


class Mask(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.full_like(x, torch.finfo(x.dtype).min).masked_fill(x > 0, 5.0)


def test_a_mask_is_no_large_number() -> None:
    given = part(1.0)
    given.module.several.add_module("mask", Mask())
    forward = given.module.several.forward
    given.module.several.forward = lambda x: {"mask": given.module.several.mask(x), **forward(x)}
    found = find_ranges(given)
    assert found is not None
    assert {one.module: one.largest for one in found.modules}["several.mask"] == 5.0
    assert found.warning() is None


def test_without_cases_nothing_is_known() -> None:
    assert find_ranges(part_of(Network(1.0))) is None


def test_no_hook_is_left() -> None:
    given = part(1.0)
    find_ranges(given)
    broken = replace(given, given=lambda: [{"x": np.ones((1, 8), np.float32)}] * 2)
    broken.module.scales[0].factor = None
    with pytest.raises(SourceError):
        find_ranges(broken)
    assert not any(module._forward_hooks for module in given.module.modules())
