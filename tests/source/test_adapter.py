"""A module behind its signature: how inputs are given, how answers get their names, what is refused."""

from __future__ import annotations

import dataclasses
import re
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from anyport.errors import AnyportError, RefusedModelError, SourceError
from anyport.source.adapter import Adapter, check_eval_mode, flatten_output, select_outputs, tensors_from
from tests.source.parts import X, Y, part_of

A, B, C = (torch.full((2, 8), float(n)) for n in (1, 10, 100))
THREE = dict.fromkeys(("x", "mask", "scale"), "float32[batch, 8]")


class Named(nn.Module):
    def forward(self, x: Tensor, mask: Tensor | None = None, *, scale: Tensor | None = None) -> Tensor:
        x = x if mask is None else x - mask
        return x if scale is None else x * scale


class ByPosition(nn.Module):
    def forward(self, *tensors: Tensor) -> Tensor:
        return tensors[0] - tensors[-1]


class Forwarding(nn.Module):
    """As wrappers do: whatever it is given goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Named()

    def forward(self, **inputs: Tensor) -> Tensor:
        answer: Tensor = self.inner(**inputs)
        return answer


class Options(nn.Module):
    def forward(self, x: Tensor, mode: str = "fast", causal: bool = False, depth: int = 2) -> Tensor:
        return x * (2 if mode == "fast" else 3) * (1 if causal else -1) * depth


def test_inputs_go_by_name_whatever_their_order() -> None:
    inputs = {"scale": "float32[batch, 8]", "mask": "float32[batch, 8]", "x": "float32[batch, 8]"}
    (answer,) = Adapter(part_of(Named(), inputs))(C, B, A)
    assert torch.equal(answer, (A - B) * C)


def test_inputs_go_by_position_when_no_name_is_a_parameter() -> None:
    inputs = {"left": "float32[batch, 8]", "right": "float32[batch, 8]"}
    assert torch.equal(Adapter(part_of(Named(), inputs))(A, B)[0], A - B)
    assert torch.equal(Adapter(part_of(ByPosition(), inputs))(A, B)[0], A - B)


def test_optional_inputs_may_be_left_out() -> None:
    assert torch.equal(Adapter(part_of(Named()))(A)[0], A)
    some = {"x": "float32[batch, 8]", "scale": "float32[batch, 8]"}
    assert torch.equal(Adapter(part_of(Named(), some))(A, C)[0], A * C)


def test_a_forward_with_any_keywords_takes_any_names() -> None:
    two = {name: THREE[name] for name in ("x", "mask")}
    part = part_of(Forwarding(), two, arguments={"scale": C})
    # nothing in its signature is called x, so the inputs would be positions: a fixed argument changes nothing
    with pytest.raises(TypeError):
        Adapter(part)(A, B)


@pytest.mark.parametrize(
    ("mode", "causal", "factor"),
    [("fast", False, -4), ("fast", True, 4), ("slow", False, -6), ("slow", True, 6)],
)
def test_options_are_fixed_as_arguments(mode: str, causal: bool, factor: int) -> None:
    part = part_of(Options(), arguments={"mode": mode, "causal": causal})
    assert torch.equal(Adapter(part)(A)[0], A * factor)


REFUSED: list[tuple[str, nn.Module, dict[str, str], dict[str, Any], type[AnyportError], str]] = [
    (
        "some names are parameters",
        Named(),
        {"x": "float32[batch, 8]", "maks": "float32[batch, 8]"},
        {},
        SourceError,
        "forward() has no parameter 'maks' (did you mean 'mask'?)\n  where: Named, test_adapter.py:",
    ),
    (
        "an unknown argument",
        Named(),
        X,
        {"sclae": 2.0},
        SourceError,
        "forward() has no parameter 'sclae' (did you mean 'scale'?)\n  where: Named, ",
    ),
    (
        "a required input left out",
        Named(),
        {"mask": "float32[batch, 8]"},
        {},
        SourceError,
        ("forward() needs 'x', which is neither an input nor an argument\n  where: Named, test_adapter.py:"),
    ),
    (
        "how to cure it",
        Named(),
        {"mask": "float32[batch, 8]"},
        {},
        SourceError,
        "  do:    declare it under [inputs], or fix it under [arguments]: x = …",
    ),
    (
        "a string option",
        Options(),
        X,
        {"causal": True},
        RefusedModelError,
        (
            "forward() has the option mode='fast', and the graph would hold that one branch only\n"
            "  where: Options, test_adapter.py:"
        ),
    ),
    (
        "how to say a string",
        Options(),
        X,
        {"causal": True},
        RefusedModelError,
        'under [arguments] (--argument on the command line): mode = "fast"',
    ),
    (
        "a flag",
        Options(),
        X,
        {"mode": "fast"},
        RefusedModelError,
        "forward() has the option causal=False, and the graph would hold that one branch only",
    ),
    (
        "how to say a flag",
        Options(),
        X,
        {"mode": "fast"},
        RefusedModelError,
        "under [arguments] (--argument on the command line): causal = false",
    ),
]


@pytest.mark.parametrize(
    ("module", "inputs", "arguments", "kind", "text"),
    [row[1:] for row in REFUSED],
    ids=[r[0] for r in REFUSED],
)
def test_what_does_not_fit_forward(
    module: nn.Module, inputs: dict[str, str], arguments: dict[str, Any], kind: type[AnyportError], text: str
) -> None:
    with pytest.raises(kind, match=re.escape(text)):
        Adapter(part_of(module, inputs, arguments=arguments))


# ── answers ─────────────────────────────────────────────────────────────────────────────────────────────
class Pair(NamedTuple):
    left: Tensor
    right: Tensor


@dataclasses.dataclass
class Record:
    first: Tensor
    second: Tensor | None
    third: tuple[Tensor, ...]


FLAT: list[tuple[str, Any, list[str]]] = [
    ("a tensor", A, ["0"]),
    ("a tuple", (A, B), ["0", "1"]),
    ("a list", [A, B, C], ["0", "1", "2"]),
    ("a tuple with None", (A, None, B), ["0", "1"]),
    ("a tuple in a tuple", (A, (B, C)), ["0", "1.0", "1.1"]),
    ("a dict", {"b": B, "a": A}, ["b", "a"]),
    ("a dict with None", {"b": B, "no": None, "a": A}, ["b", "a"]),
    ("a dict of tuples", {"a": A, "deep": (B, None, C)}, ["a", "deep.0", "deep.1"]),
    ("a dict of dicts", {"a": {"inner": A}}, ["a.inner"]),
    ("a named tuple", Pair(A, B), ["left", "right"]),
    ("a dataclass", Record(A, None, (B, C)), ["first", "third.0", "third.1"]),
    (
        "a ModelOutput",
        BaseModelOutputWithPooling(last_hidden_state=A, pooler_output=B, hidden_states=(A, C)),
        ["last_hidden_state", "pooler_output", "hidden_states.0", "hidden_states.1"],
    ),
]


@pytest.mark.parametrize(("answer", "names"), [row[1:] for row in FLAT], ids=[row[0] for row in FLAT])
def test_every_tensor_of_an_answer_has_a_name(answer: Any, names: list[str]) -> None:
    assert list(flatten_output(answer)) == names


@pytest.mark.parametrize("answer", [row[1] for row in FLAT], ids=[row[0] for row in FLAT])
def test_names_choose_and_order_the_outputs(answer: Any) -> None:
    flat = flatten_output(answer)
    if all(name.isdigit() for name in flat):
        chosen = select_outputs(answer, [f"any_{name}" for name in flat])
        assert all(got is wanted for got, wanted in zip(chosen, flat.values(), strict=True))
    else:
        names = list(reversed(flat))
        chosen = select_outputs(answer, names)
        assert all(got is flat[name] for got, name in zip(chosen, names, strict=True))
        assert select_outputs(answer, names[:1])[0] is flat[names[0]]


@pytest.mark.parametrize(
    ("answer", "names", "text"),
    [
        ((A, B), ["y"], "the model returns 2 tensors, 1 outputs are declared: y"),
        (A, ["y", "z"], "the model returns 1 tensors, 2 outputs are declared: y, z"),
        ({"logits": A}, ["logit"], "the model returns no output 'logit' (did you mean 'logits'?)"),
        ({"deep": (A, B)}, ["deep"], "the model returns no output 'deep'"),
        ({"a": A, "n": 3}, ["a"], "the model returns a int at 'n', not a tensor"),
        ("words", ["a"], "the model returns a str at 'output', not a tensor"),
    ],
)
def test_answers_that_are_not_what_was_declared(answer: Any, names: list[str], text: str) -> None:
    with pytest.raises(SourceError, match=re.escape(text)):
        select_outputs(answer, names)


# ── modes and copies ────────────────────────────────────────────────────────────────────────────────────
def test_training_mode_is_refused_by_the_module_that_changes() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.BatchNorm1d(8)).train()
    with pytest.raises(RefusedModelError) as caught:
        check_eval_mode(model)
    assert str(caught.value).splitlines()[0] == (
        "the model is in training mode: 4 of its modules, such as '1' (Dropout)"
    )
    assert caught.value.do == "call model.eval() before you return it"
    check_eval_mode(model.eval())


def test_one_module_in_training_mode_is_enough() -> None:
    inner = nn.Sequential(nn.Linear(8, 8))
    model = nn.Sequential(inner).eval()
    inner.training = True
    with pytest.raises(RefusedModelError, match=re.escape("1 of its modules, such as '0' (Sequential)")):
        check_eval_mode(model)
    with pytest.raises(RefusedModelError, match=re.escape("such as 'the model itself' (Named)")):
        check_eval_mode(Named().train())


def test_tensors_are_copies() -> None:
    array = np.zeros((2, 3), np.float32)
    (copy,) = tensors_from([array])
    copy += 1
    assert not array.any()
    assert tensors_from([np.zeros(0, np.float32)])[0].shape == (0,)


def test_the_adapter_keeps_the_names_of_the_weights() -> None:
    model = nn.Sequential(nn.Linear(8, 8))
    names = set(Adapter(part_of(model, {"input": X["x"]}, Y)).state_dict())
    assert names == {f"module.{name}" for name in model.state_dict()}
