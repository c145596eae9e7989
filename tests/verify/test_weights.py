"""Every weight is accounted for, and every damage is named."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from anyport.verify import Expected, LazyArray, Status, WeightAccount, account_weights
from tests.verify.fakes import Arrays, f32, graph_of, wanted, weight, zero_largest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


MODEL: Arrays = {
    "embed.weight": weight(1, 20, 8),
    "a.weight": weight(2, 8, 8),
    "b.weight": weight(3, 8, 8),
    "a.bias": weight(4, 8),
    "b.bias": np.zeros(8, np.float32),
    "c.bias": np.zeros(8, np.float32),
    "norm.weight": np.ones(8, np.float32),
    "conv.weight": weight(5, 4, 3, 3, 2),
    "scale": np.array(0.7, np.float32),
    "positions": np.arange(20),
}


def account(found: Mapping[str, np.ndarray], *more: Expected) -> WeightAccount:
    return account_weights([*wanted(MODEL), *more], graph_of(found))


def with_change(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Arrays:
    return MODEL | {name: change(MODEL[name].copy())}


def test_all_there() -> None:
    found = account(MODEL)
    assert str(found) == "10 of 10 weights found: 10 bit-equal"
    assert found.leg().line == "10 of 10 weights found"
    assert (found.status, found.failures, found.surplus) == (Status.PASS, (), ())


def renamed(name: str, new: str, change: Callable[[np.ndarray], np.ndarray]) -> Arrays:
    found = dict(MODEL)
    found[new] = np.ascontiguousarray(change(found.pop(name)))
    return found


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (renamed("a.weight", "val_6", np.transpose), "9 bit-equal, 1 transposed"),
        (renamed("a.weight", "a.weight", np.transpose), "9 bit-equal, 1 transposed"),
        (renamed("conv.weight", "val_7", lambda a: a.transpose(2, 3, 1, 0)), "9 bit-equal, 1 transposed"),
        (renamed("conv.weight", "val_7", lambda a: a.reshape(4, 18)), "9 bit-equal, 1 reshaped"),
        (renamed("embed.weight", "table", lambda a: a), "10 bit-equal"),
        (renamed("a.weight", "a.weight", lambda a: a.astype(np.float16)), "9 bit-equal, 1 cast"),
        (renamed("a.weight", "val_6", lambda a: a.T.astype(np.float16)), "9 bit-equal, 1 cast"),
        (renamed("positions", "positions", lambda a: a.astype(np.int32)), "9 bit-equal, 1 cast"),
        (
            {n: a.astype(np.float16) if a.dtype == np.float32 else a for n, a in MODEL.items()},
            "1 bit-equal, 9 cast",
        ),
        ({n: a for n, a in MODEL.items() if n != "c.bias"}, "10 bit-equal"),  # tied: stored once
    ],
)
def test_other_layouts_and_types_are_found(found: Arrays, text: str) -> None:
    result = account(found)
    assert str(result) == f"10 of 10 weights found: {text}"
    assert result.status is Status.PASS
    assert result.surplus == ()


@pytest.mark.parametrize(
    "name", [name for name, array in MODEL.items() if array.dtype == np.float32 and array.any()]
)
def test_the_largest_element_zeroed(name: str) -> None:
    result = account(with_change(name, zero_largest))
    assert result.leg().line.startswith(
        f"weight '{name}' is changed: 1 of {MODEL[name].size} elements differ"
    )


# a scalar under another name cannot be told from any other scalar
@pytest.mark.parametrize("name", ["embed.weight", "a.weight", "a.bias", "conv.weight"])
def test_the_largest_element_zeroed_under_another_name_and_transposed(name: str) -> None:
    found = renamed(name, "val_9", lambda a: zero_largest(a.copy()).T)
    expected = f"weight '{name}' (initializer 'val_9') is changed: 1 of {MODEL[name].size} elements differ"
    assert account(found).leg().line.startswith(expected)


def test_a_change_says_where_and_what() -> None:
    def change(array: np.ndarray) -> np.ndarray:
        array[3, 5] = 2.5
        return array

    text = account(with_change("embed.weight", change)).failures
    assert text == (
        (
            "weight 'embed.weight' is changed: 1 of 160 elements differ, the first at index (3, 5): "
            f"2.5 where the model has {float(MODEL['embed.weight'][3, 5]):.9g}"
        ),
    )


def test_scaling_a_weight_changes_all_of_it() -> None:
    assert (
        "64 of 64 elements differ"
        in account(with_change("a.weight", lambda a: a * np.float32(1.02))).failures[0]
    )


def test_one_flipped_bit_and_a_negative_zero_are_seen() -> None:
    def flip(array: np.ndarray) -> np.ndarray:
        array.view(np.uint32)[7, 7] ^= 1
        return array

    assert (
        "1 of 64 elements differ, the first at index (7, 7)"
        in account(with_change("b.weight", flip)).failures[0]
    )
    assert "8 of 8 elements differ" in account(with_change("b.bias", lambda a: -a)).failures[0]


def test_swapped_weights_are_one_failure_that_names_both() -> None:
    result = account(MODEL | {"a.weight": MODEL["b.weight"], "b.weight": MODEL["a.weight"]})
    assert result.failures[0] == (
        "weights 'a.weight' and 'b.weight' are swapped: 'a.weight' in the graph holds the values of "
        "'b.weight'"
    )
    assert result.counts["swapped"] == 2
    assert result.status is Status.FAIL


def test_one_weight_in_the_place_of_another_transposed() -> None:
    result = account(MODEL | {"a.weight": MODEL["b.weight"].T.copy()})
    assert result.failures == (
        (
            "weights 'a.weight' and 'b.weight' are swapped: 'a.weight' in the graph holds the values of "
            "'b.weight'"
        ),
    )


def test_equal_weights_are_no_swap_and_zeros_in_the_place_of_a_weight_are_a_change() -> None:
    assert account(MODEL | {"b.bias": MODEL["c.bias"], "c.bias": MODEL["b.bias"]}).status is Status.PASS
    assert (
        account(with_change("a.bias", np.zeros_like))
        .failures[0]
        .startswith("weight 'a.bias' is changed: 8 of 8")
    )


def test_the_same_values_in_another_order() -> None:
    def shuffle(array: np.ndarray) -> np.ndarray:
        return array[::-1].copy()

    own = account(with_change("a.weight", shuffle))
    assert own.failures == (
        "weight 'a.weight' holds the same values in another order, which is no transpose",
    )
    elsewhere = account(renamed("a.weight", "val_6", shuffle))
    assert elsewhere.failures == (
        (
            "weight 'a.weight' (initializer 'val_6') holds the same values in another order, which is no "
            "transpose"
        ),
    )


def test_another_shape_under_the_own_name() -> None:
    result = account(with_change("embed.weight", lambda a: a[:19]))
    assert result.failures == ("weight 'embed.weight' is changed: its shape is (19, 8), the model's (20, 8)",)


def test_what_is_found_nowhere_is_listed() -> None:
    found = {name: array for name, array in MODEL.items() if name not in ("conv.weight", "a.bias")}
    result = account(found)
    assert str(result) == "8 of 10 weights found: 8 bit-equal, 2 values only"
    assert result.status is Status.PASS
    assert result.leg().details == (str(result), "only the values cover: a.bias, conv.weight")


def test_unused_weights_are_listed_and_not_counted() -> None:
    dead = f32([1, 2, 3])
    for found in (MODEL, MODEL | {"dead": dead}, MODEL | {"dead": dead * 2}):
        result = account(found, Expected("dead", lambda: dead, "unused"))
        assert str(result) == "10 of 10 weights found: 10 bit-equal, 1 unused"
        assert result.status is Status.PASS
        assert "unused by the program: dead" in result.leg().details


def test_surplus_is_listed_and_fails_nothing() -> None:
    more = {"extra": weight(9, 3, 3), "shape": np.array([1, 2, 3]), "one": f32([5])}
    result = account(MODEL | more)
    assert result.surplus == ("extra",)
    assert result.status is Status.PASS
    assert result.leg().details[-1] == "surplus in the graph: extra"


def test_nothing_found_proves_nothing() -> None:
    result = account_weights(wanted({"w": weight(1, 4)}), graph_of({"other": weight(2, 9)}))
    assert result.status is Status.INCONCLUSIVE
    assert result.leg().line == "none of 1 weights was found in the graph"


def test_no_weights_at_all() -> None:
    result = account_weights([], graph_of({}))
    assert result.status is Status.NOT_APPLICABLE
    assert result.leg().line == "the model has no weights"


# ── laws ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("seed", range(4))
def test_the_order_of_tensors_changes_nothing(seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(MODEL))
    names = [list(MODEL)[i] for i in order]
    found = with_change("a.weight", zero_largest) | {"b.weight": MODEL["b.weight"].T.copy()}
    one = account(found)
    other = account_weights(
        wanted({n: MODEL[n] for n in names}), graph_of({n: found[n] for n in reversed(names)})
    )
    assert sorted(one.entries, key=lambda e: e.name) == sorted(other.entries, key=lambda e: e.name)


def test_never_more_than_a_few_tensors_are_held() -> None:
    class Counted:
        held = most = 0

    def counted(seed: int) -> Callable[[], np.ndarray]:
        def load() -> np.ndarray:
            Counted.held += 1
            Counted.most = max(Counted.most, Counted.held)
            return Tracked.of(weight(seed, 16, 16))

        return load

    class Tracked(np.ndarray):
        @classmethod
        def of(cls, array: np.ndarray) -> Tracked:
            found = array.view(cls)
            found.is_root = True
            return found

        is_root = False

        def __del__(self) -> None:
            Counted.held -= self.is_root

    expected = [Expected(f"w{i}", counted(i)) for i in range(30)]
    graph = {f"w{i}": LazyArray((16, 16), "float32", counted(i)) for i in range(30)}
    assert account_weights(expected, graph).n_found == 30
    assert Counted.most <= 2
