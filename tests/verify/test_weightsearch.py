"""Weights that an optimizer folded ahead of time."""

from __future__ import annotations

import numpy as np
import pytest

from anyport.verify import Expected, Status, WeightAccount, account_weights
from tests.verify.fakes import Arrays, graph_of, wanted, weight, zero_largest

CONV, GAMMA, BETA = weight(11, 6, 3, 3, 3), weight(12, 6), weight(13, 6)
MEAN, VAR = weight(14, 6), np.abs(weight(15, 6)) + 1
BATCH_NORM: Arrays = {
    "conv.weight": CONV,
    "bn.weight": GAMMA,
    "bn.bias": BETA,
    "bn.mean": MEAN,
    "bn.var": VAR,
}


def folded(dtype: type) -> tuple[np.ndarray, np.ndarray]:
    scale = GAMMA.astype(dtype) / np.sqrt(VAR.astype(dtype) + dtype(1e-5))
    return CONV.astype(dtype) * scale[:, None, None, None], -MEAN.astype(dtype) * scale + BETA.astype(dtype)


def fold_account(found: Arrays) -> WeightAccount:
    exact_weight, exact_bias = (array.astype(np.float32) for array in folded(np.float64))
    recipes = [
        Expected("conv with bn", lambda: exact_weight, "folded", ("conv.weight", "bn.weight", "bn.var")),
        Expected("bias with bn", lambda: exact_bias, "folded", ("bn.weight", "bn.bias", "bn.mean", "bn.var")),
    ]
    return account_weights([*wanted(BATCH_NORM), *recipes], graph_of(found))


FOLDED_WEIGHT, FOLDED_BIAS = folded(np.float32)


@pytest.mark.parametrize("name", ["conv.weight", "val_1"])
def test_folded_weights_count_as_folded_whatever_their_name(name: str) -> None:
    result = fold_account({name: FOLDED_WEIGHT, "conv.weight_bias": FOLDED_BIAS})
    assert str(result) == "5 of 5 weights found: 5 folded"
    assert (result.status, result.surplus) == (Status.PASS, ())


def test_a_fold_that_did_not_happen_is_not_missed() -> None:
    assert str(fold_account(BATCH_NORM)) == "5 of 5 weights found: 5 bit-equal"


def test_folded_and_cast() -> None:
    result = fold_account({"a": FOLDED_WEIGHT.astype(np.float16), "b": FOLDED_BIAS.astype(np.float16)})
    assert str(result) == "5 of 5 weights found: 5 folded"


@pytest.mark.parametrize("name", ["conv.weight", "val_1"])
def test_damage_to_a_folded_weight_is_told_against_the_fold(name: str) -> None:
    result = fold_account({name: zero_largest(FOLDED_WEIGHT.copy()), "conv.weight_bias": FOLDED_BIAS})
    as_name = "" if name == "conv.weight" else " (initializer 'val_1')"
    assert result.failures[0].startswith(
        f"weight 'conv.weight'{as_name} is changed: 1 of 162 elements differ"
    )


def test_a_fold_with_another_epsilon_is_damage() -> None:
    scale = GAMMA / np.sqrt(VAR + np.float32(1e-2))
    found = {"conv.weight": CONV * scale[:, None, None, None], "conv.weight_bias": FOLDED_BIAS}
    assert fold_account(found).status is Status.FAIL


def test_a_folded_tensor_may_bear_a_parameters_name() -> None:
    exact = folded(np.float64)[0].astype(np.float32)
    recipe = Expected("conv.weight", lambda: exact, "folded", ("conv.weight",))
    result = account_weights(
        [*wanted({"conv.weight": CONV}), recipe], graph_of({"conv.weight": FOLDED_WEIGHT})
    )
    assert str(result) == "1 of 1 weights found: 1 folded"


def test_a_fold_does_not_excuse_another_weight_of_that_name() -> None:
    """The fold of one convolution under the name of another is no right place for it."""
    exact = folded(np.float64)[0].astype(np.float32)
    other = weight(21, 6, 3, 3, 3)
    recipe = Expected("fold", lambda: exact, "folded", ("conv.weight",))
    expected = [*wanted({"conv.weight": CONV, "other.weight": other}), recipe]
    result = account_weights(expected, graph_of({"other.weight": FOLDED_WEIGHT}))
    assert result.failures[0].startswith("weight 'other.weight' is changed: 162 of 162 elements differ")
