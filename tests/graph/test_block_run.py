"""One case of a proof by blocks: which floors are measured, and what is said of places."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from anyport.errors import UsageError
from anyport.graph import block_run
from anyport.graph.block_run import AFTER, BEFORE, before, place_of, sampled_blocks
from anyport.source.float64 import NoTwinError
from anyport.source.streaming import run_streamed
from anyport.verify import Floor, measure_floor
from tests.build.stacks import N_BLOCKS, Stack, part_of, proof_in, write_stack

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor


@pytest.fixture(name="written", scope="module")
def _written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stack")
    write_stack(folder)
    return folder


@pytest.mark.parametrize(
    ("n_blocks", "n_float64", "expected"),
    [(60, 3, {0, 30, 59}), (60, 2, {0, 59}), (60, 1, {0}), (60, 0, {0}), (3, 9, {0, 1, 2}), (1, 3, {0})],
)
def test_the_sample_is_spread_evenly(n_blocks: int, n_float64: int, expected: set[int]) -> None:
    assert sampled_blocks(n_blocks, n_float64) == expected


def test_places_have_names_that_labels_begin_with() -> None:
    for place in (BEFORE, AFTER, "layers.0", before("layers.1")):
        assert place_of(f"{place}: add_3") == place


def test_a_block_that_would_fail_gets_a_floor_of_its_own(
    written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first block's floor is made far too small, and with it what others are held against."""
    measured: list[Floor] = []

    def small_at_first(single: np.ndarray, double: np.ndarray, how: str) -> Floor:
        floor = measure_floor(single, double, how)
        measured.append(floor)
        is_first_block = "float64" in how and len(measured) <= 8
        return replace(floor, max_abs=1e-30, rms=1e-30) if is_first_block else floor

    monkeypatch.setattr(block_run, "measure_floor", small_at_first)
    verdict = proof_in(written, 1).verdict(n_float64=1)
    text = verdict.leg("values").details[-1]
    # block 1 would fail and is measured, and the others are held against the wider of the two
    assert text.startswith(f"float64 floor: 2 of {N_BLOCKS} blocks (0, 1)")
    passed = {place_of(found.output): found.passed for found in verdict.findings}
    assert [passed[f"layers.{number}"] for number in range(N_BLOCKS)] == [False, True, True, True, True]


def test_a_module_that_cannot_be_run_in_float64_is_held_against_spacings(
    written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def single_only(module: Any, weights: Any, run: Any, *, double: bool = False) -> Any:
        if double:
            raise NoTwinError("it writes float32")
        return run_streamed(module, weights, run)

    monkeypatch.setattr(block_run, "run_streamed", single_only)
    verdict = proof_in(written, 1).verdict()
    assert verdict.leg("values").details[-1] == (
        "float64 floor: 0 of 5 blocks (none); other blocks are held against the widest of these floors"
    )
    hows = {found.floor.how for found in verdict.findings if found.floor is not None}
    assert hows == {"8 spacings of float32 (it cannot be run in float64)"}
    assert all(found.passed for found in verdict.findings)


def test_the_module_is_the_same_afterwards(written: Path) -> None:
    proof = proof_in(written, 1)
    module = proof.subject.part.module
    proof.verdict()
    assert all(one.is_meta for one in module.parameters())
    for one in module.modules():
        assert "forward" not in vars(one)
        assert not one._forward_hooks
        assert not one._forward_pre_hooks


class _Bypassing(Stack):
    """Its forward() reads the parts of a block, and does not call it."""

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        state = self.stem(x) + self.condition(c)[:, None]
        for layer in self.layers:
            state = state + layer.down(layer.up(state))  # type: ignore[operator, union-attr]
        answer: Tensor = self.head(state)
        return answer


class _Backwards(Stack):
    """Its forward() calls the blocks from last to first."""

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        state, condition = self.stem(x), self.condition(c)
        for layer in reversed(list(self.layers)):
            state = layer(state, condition=condition)["state"]
        answer: Tensor = self.head(state)
        return answer


@pytest.mark.parametrize("kind", [_Bypassing, _Backwards])
def test_blocks_that_do_not_run_in_turn_are_refused(kind: type[Stack], written: Path) -> None:
    proof = proof_in(written, 1)
    with torch.device("meta"):
        module = kind().eval()
    module.places = torch.ones(8)
    # the same weights under the same names, of another module
    part = replace(part_of(module), signature=proof.subject.part.signature)
    with pytest.raises(UsageError) as caught:
        replace(proof, subject=replace(proof.subject, part=part)).verdict()
    assert str(caught.value) == (
        "block 'layers.0' does not run once and in its turn\n"
        "  where: part stack\n"
        "  do:    a list of blocks can be proven block by block if forward() calls each of them, in order"
    )


def test_a_mask_of_the_least_number_is_the_least_float32() -> None:
    single = np.array([0.0, np.finfo(np.float32).min], np.float32)
    double = np.array([0.0, np.finfo(np.float64).min])
    rounded = block_run._rounded(double, single)
    np.testing.assert_array_equal(rounded, single)
    assert rounded.dtype == np.float32
