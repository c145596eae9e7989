from __future__ import annotations

import json

import msgspec
import numpy as np
import pytest

from anyport.errors import BundleError
from anyport.graph.derivations import (
    Copied,
    Derivations,
    Folded,
    Norm,
    Pin,
    derive,
    digest_of,
    names_of,
    notation,
    read_derivations,
    sources_of,
)

NORM = Norm("norm.weight", "norm.bias", "norm.mean", "norm.var", 1e-5)
RANDOM = np.random.default_rng(0)
TENSORS = {
    "conv.weight": RANDOM.normal(size=(3, 2, 5)).astype(np.float32),
    "up.weight": RANDOM.normal(size=(2, 3, 5)).astype(np.float32),
    "conv.bias": RANDOM.normal(size=3).astype(np.float32),
    "norm.weight": RANDOM.normal(size=3).astype(np.float32),
    "norm.bias": RANDOM.normal(size=3).astype(np.float32),
    "norm.mean": RANDOM.normal(size=3).astype(np.float32),
    "norm.var": RANDOM.uniform(0.5, 2, size=3).astype(np.float32),
}


@pytest.mark.parametrize("norm", [NORM, Norm(None, None, "norm.mean", "norm.var", 1e-3)])
@pytest.mark.parametrize(("weight", "axis"), [("conv.weight", 0), ("up.weight", 1)])
@pytest.mark.parametrize("bias", ["conv.bias", None])
def test_a_fold_is_the_layer_and_its_norm(norm: Norm, weight: str, axis: int, bias: str | None) -> None:
    x = RANDOM.normal(size=(2, 5))
    exact = {name: array.astype(np.float64) for name, array in TENSORS.items()}

    def layer(w: np.ndarray, b: np.ndarray | float) -> np.ndarray:
        made: np.ndarray = np.einsum("oik,ik->o", np.moveaxis(w, axis, 0), x) + b
        return made

    before = layer(exact[weight], exact[bias] if bias else 0.0)
    wanted = (before - exact["norm.mean"]) / np.sqrt(exact["norm.var"] + norm.epsilon)
    if norm.scale is not None:
        wanted = wanted * exact["norm.weight"] + exact["norm.bias"]
    made_weight = derive(Folded("weight", weight, norm, axis), TENSORS.__getitem__)
    made_bias = derive(Folded("bias", bias, norm), TENSORS.__getitem__)
    assert (made_weight.dtype, made_bias.dtype) == (np.float32, np.float32)
    np.testing.assert_allclose(layer(made_weight.astype(np.float64), made_bias), wanted, rtol=1e-5, atol=1e-5)


def test_tensors_that_do_not_fit_each_other_are_not_broadcast() -> None:
    tensors = TENSORS | {"norm.weight": np.ones(1000, np.float32), "norm.var": np.ones(1000, np.float32)}
    for rule in (Folded("weight", "conv.weight", NORM), Folded("bias", "conv.bias", NORM)):
        with pytest.raises(ValueError, match=r"\(1000,\) channels are not those of"):
            derive(rule, tensors.__getitem__)


def test_a_rule_says_what_it_reads() -> None:
    assert sources_of(Copied("a")) == ("a",)
    assert sources_of(Folded("weight", "w", NORM)) == ("w", "norm.weight", "norm.var")
    assert sources_of(Folded("bias", None, NORM)) == ("norm.weight", "norm.var", "norm.bias", "norm.mean")


def test_digests_are_of_the_elements_in_order() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert digest_of(array) == digest_of(array.reshape(6)) == digest_of(array.astype(">f4"))
    assert digest_of(array) != digest_of(array.T)


def test_notation() -> None:
    assert (notation("float32", (10, 48)), notation("int64", ())) == ("float32[10, 48]", "int64[]")


KNOWN = Derivations(
    state={"a": "float32[2]", "b": "float32[2]", "c": "float32[2]"},
    rules={"x": Copied("a", transposed=True), "y": Folded("bias", None, Norm(None, None, "a", "c", 1e-5))},
    tied={"b": "a"},
    pinned={"c": Pin("0" * 64, "why")},
)


def test_what_is_written_is_read() -> None:
    content = msgspec.json.encode({"values": {}, "weights": KNOWN})
    assert read_derivations(content) == KNOWN
    assert read_derivations(b'{"values": {}}') is None
    assert names_of(KNOWN) == {"a": ("a", "b"), "c": ("c",)}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"colour": 1}, "modules.json has an unknown key 'colour'"),
        (
            {"rules": {"x": {"type": "guessed", "of": "a"}}},
            "modules.json is not understood: Invalid value 'guessed'",
        ),
        (
            {"rules": {"x": {"type": "copied", "of": "q"}}},
            "modules.json speaks of the weight 'q', which the model lacks",
        ),
        ({"tied": {"b": "q"}}, "modules.json speaks of the weight 'q', which the model lacks"),
        ({"state": None}, "modules.json is not understood: Expected `object`, got `null`"),
    ],
)
def test_a_hostile_map_is_refused(change: dict[str, object], text: str) -> None:
    tree = json.loads(msgspec.json.encode(KNOWN)) | change
    with pytest.raises(BundleError) as caught:
        read_derivations(json.dumps({"weights": tree}).encode())
    assert caught.value.what.startswith(text)
