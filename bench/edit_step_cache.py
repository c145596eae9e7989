"""What the step cache of an editor saves, and what it costs.

``python bench/edit_step_cache.py edit.port PICTURE… --instruction WORDS [--steps 40] [--seeds 3]``: whole
edits for several thresholds. PSNR is against the same edit with every step computed, the least over the
seeds. The exit code is 1 if a larger threshold computes more steps, or if an edit that computes every step is
not the very same picture.
"""

from __future__ import annotations

import argparse
import math
import sys
from typing import TYPE_CHECKING, Any, Final

import numpy as np

import anyport
from anyport.task.edit_plan import Editing
from machine import this_machine

if TYPE_CHECKING:
    from collections.abc import Sequence

THRESHOLDS: Final = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)


def psnr(found: np.ndarray, wanted: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio of pictures from 0 to 1, in dB."""
    error = float(np.square(found.astype(np.float64) - wanted).mean())
    return 10 * math.log10(1 / error) if error else math.inf


def edits(task: Any, words: argparse.Namespace, seed: int) -> list[tuple[int, int, float]]:  # noqa: ANN401  (the task decides)
    """Return the steps computed, of how many, and PSNR, for every threshold."""
    found = []
    first = None
    for threshold in THRESHOLDS:
        how = Editing(steps=words.steps, guidance=words.guidance, seed=seed, step_cache=threshold)
        plan = task.plan(words.pictures, words.instruction, how)
        picture = task.carry_out(plan)
        first = picture.pixels if first is None else first
        found.append((picture.n_computed, plan.n_steps, psnr(picture.pixels, first)))
    return found


def is_right(found: Sequence[tuple[int, int, float]]) -> bool:
    """Say whether no larger threshold computes more, and whether all steps give the same picture."""
    steps = [n_computed for n_computed, _, _ in found]
    same = all(quality == math.inf for n_computed, n_all, quality in found if n_computed == n_all)
    return same and steps == sorted(steps, reverse=True) and steps[0] == found[0][1]


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description="What the step cache of an editor saves, and what it costs.")
    parser.add_argument("bundle")
    parser.add_argument("pictures", nargs="+")
    parser.add_argument("--instruction", required=True)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--seeds", type=int, default=3)
    words = parser.parse_args()
    print(this_machine())
    with anyport.open_task(words.bundle) as task:
        found = [edits(task, words, seed) for seed in range(words.seeds)]
    for place, threshold in enumerate(THRESHOLDS):
        rows = [one[place] for one in found]
        n_computed = sum(row[0] for row in rows) / len(rows)
        share, quality = n_computed / rows[0][1], min(row[2] for row in rows)
        print(
            f"  threshold {threshold:<4}   {n_computed:5.1f} of {rows[0][1]} steps computed   "
            f"transformer runs x {share:.2f}   least PSNR {quality:6.1f} dB"
        )
    return 0 if all(map(is_right, found)) else 1


if __name__ == "__main__":
    sys.exit(main())
