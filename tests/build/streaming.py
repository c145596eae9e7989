"""A small model of two streamed parts and a loaded one, and builds of it that a test can stop."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from anyport.build import BuildPlan, BuildSettings, describe
from anyport.recipe import Model, Part, StoredWeights
from anyport.recipe.weightless import weightless
from anyport.tensors import Signature, dim, tensor
from tests.build.building import QUICK
from tests.build.stacks import Stack, part_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

STREAMED = ("first", "second")
HOW = replace(QUICK, max_cases=2, max_case_bytes=64 << 10, allow=frozenset({"inconclusive"}))


def write_checkpoint(folder: Path) -> Path:
    """Write the weights of both streamed parts."""
    for seed, name in enumerate(STREAMED):
        torch.manual_seed(seed)
        state = {key: one.bfloat16() for key, one in Stack().state_dict().items()}
        del state["layers.2.up.weight"]  # tied
        (folder / name).mkdir(parents=True)
        save_file(state, folder / name / "model.safetensors")
        (folder / name / "config.json").write_text(json.dumps({"seed": seed}), encoding="utf-8")
    return folder


def _given(seed: int) -> Iterable[dict[str, np.ndarray]]:
    random = np.random.default_rng(seed)
    shapes = {"x": (1, 5, 4), "c": (1, 3)}
    yield {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def model_in(folder: Path) -> Model:
    """Return the model, made anew: without the weights of the streamed parts."""
    parts = []
    for seed, name in enumerate(STREAMED):
        with weightless():
            module = Stack().eval()
        stored = StoredWeights(module, folder / name)
        blocks = "layers" if name == "first" else None
        given = partial(_given, seed)
        parts.append(replace(part_of(module), name=name, blocks=blocks, given=given, stored=stored))
    torch.manual_seed(9)
    signature = Signature(
        (tensor("x", "float32[batch, 4]"),),
        (tensor("y", "float32[batch, 2]"),),
        {"batch": dim("batch", "1..8")},
    )
    return Model("stacks", "stacks", (*parts, Part("last", nn.Linear(4, 2).eval(), signature)))


def plan_in(folder: Path, how: BuildSettings = HOW, **made: Any) -> BuildPlan:
    """Return the plan of a build into ``m.port`` of a folder; ``made`` is the table ``[build]``."""
    words = {"model": {"source": "stacks.py:make"}, "build": {"weights": "copy", "attention": "plain"} | made}
    return BuildPlan(describe(words, "test"), folder, folder / "m.port", how)


@dataclass(slots=True)
class Told:
    """What a build told.

    Attributes:
        stop_at: How the line begins at which the build is stopped, such as ``export second``.
        error: How it is stopped: as by Ctrl-C.
        lines: Step and text.
    """

    stop_at: str | None = None
    error: BaseException = field(default_factory=KeyboardInterrupt)
    lines: list[tuple[str, str]] = field(default_factory=list)

    def __call__(self, step: str, text: str) -> None:
        self.lines.append((step, text))
        if self.stop_at is not None and f"{step} {text}".startswith(self.stop_at):
            raise self.error

    def parts(self, step: str) -> list[str]:
        """Return the parts that a step named, in order."""
        names = [text.partition(" ")[0] for word, text in self.lines if word == step]
        return [name for name in names if name in {*STREAMED, "last"}]
