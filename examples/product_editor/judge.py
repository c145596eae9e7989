"""Judges an editor on cards that it never saw: `python judge.py [BUNDLE]`, without one the PyTorch pipeline.

python examples/product_editor/judge.py                       the pipeline of diffusers
python examples/product_editor/judge.py editor.port           a bundle, without PyTorch
python examples/product_editor/judge.py --steps 4,1,2,8,20    the share by number of steps
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import numpy as np
from drawing import Picture
from edits import KINDS
from judging import JudgedCase, cases, judge_all, table, table_lines
from numpy.typing import NDArray
from PIL import Image

SIDE: Final = 64
N_TOKENS: Final = (SIDE // 16) ** 2
SAME_DB: Final = 100.0

# case, its noise float32[1, tokens, 64], number of steps -> float32[side, side, 3], 0..1
EditCard = Callable[[JudgedCase, NDArray[np.float32], int], NDArray[np.float32]]


def start_noise(number: int) -> NDArray[np.float32]:
    """Return the noise of a case: float32[1, 16, 64], the same one for every editor."""
    return np.random.default_rng(number).standard_normal((1, N_TOKENS, 64), dtype=np.float32)


def pipeline_editor(folder: Path) -> EditCard:
    """Return the stock pipeline of diffusers as an editor of cards.

    Its scheduler has no single step: it stretches the levels to end at `shift_terminal`, and divides by zero.
    For one step that setting is taken away.
    """
    import torch
    from assemble import open_pipeline

    torch.set_num_threads(1)  # matrices are small: a second thread only waits
    pipeline = open_pipeline(folder)
    several = pipeline.scheduler
    single = several.from_config(several.config, shift_terminal=None)

    def edit(case: JudgedCase, noise: NDArray[np.float32], n_steps: int) -> NDArray[np.float32]:
        pipeline.scheduler = single if n_steps == 1 else several
        answer = pipeline(
            image=Image.fromarray(case.source),
            prompt=case.instruction,
            num_inference_steps=n_steps,
            true_cfg_scale=1.0,
            height=SIDE,
            width=SIDE,
            latents=torch.from_numpy(noise),
            output_type="np",
        )
        return np.asarray(answer.images[0], np.float32)

    return edit


def bundle_editor(path: Path, variant: str | None, stack: ExitStack) -> EditCard:
    """Return a bundle as an editor of cards; PyTorch is not imported."""
    from anyport.task import TaskOptions, open_task
    from anyport.task.edit_plan import Editing

    task: Any = stack.enter_context(open_task(path, TaskOptions(variant=variant)))

    def edit(case: JudgedCase, noise: NDArray[np.float32], n_steps: int) -> NDArray[np.float32]:
        how = Editing(latents=noise, steps=n_steps)
        pixels: NDArray[np.float32] = task.edit([Image.fromarray(case.source)], case.instruction, how).pixels
        return pixels

    return edit


def rounded(answer: NDArray[np.float32]) -> Picture:
    """Return uint8[side, side, 3] of shares 0..1."""
    return (answer * 255).round().astype(np.uint8)


def agreement_db(one: Sequence[NDArray[np.float32]], other: Sequence[NDArray[np.float32]]) -> float:
    """Return the PSNR in dB of the two pictures that differ most; 200 where all are equal."""
    errors = [float(np.mean((a - b) ** 2)) for a, b in zip(one, other, strict=True)]
    return float(-10 * np.log10(np.max([*errors, 1e-20])))  # NaN stays NaN, and agrees with nothing


def judged_lines(judged: Sequence[JudgedCase], edit: EditCard, n_steps: Sequence[int]) -> list[str]:
    """Return the table for the first number of steps; for several, one line of shares each."""
    lines = []
    for number, steps in enumerate(n_steps):
        answers = [rounded(edit(case, start_noise(place), steps)) for place, case in enumerate(judged)]
        rows = table(judged, judge_all(judged, answers))
        shares = {row.name: row.right for row in rows}
        lines += table_lines(rows) if number == 0 else []
        if len(n_steps) > 1:
            lines.append(
                f"{steps} steps: {shares['six kinds']:.1%} of the six kinds, {shares['all']:.1%} of all"
            )
    return lines


def baseline_lines(judged: Sequence[JudgedCase], folder: Path) -> list[str]:
    """Return the shares of what is no editor: the card as it was, the target, the target through the VAE."""
    from diffusers import AutoencoderKLQwenImage
    from latents import Codec

    codec = Codec(AutoencoderKLQwenImage.from_pretrained(folder / "vae"))
    targets = np.stack([case.target for case in judged])
    again = codec.decode(codec.encode(targets), SIDE)
    answers = {
        "as it was": [case.source for case in judged],
        "target": list(targets),
        "target through the VAE": list(again),
    }
    rights = {
        name: [found.right for found in judge_all(judged, pictures)] for name, pictures in answers.items()
    }
    return [f"{name}: {np.mean(right):.1%}" for name, right in rights.items()]


def compared(
    judged: Sequence[JudgedCase], one: EditCard, other: EditCard, n_steps: int
) -> tuple[list[str], bool]:
    """Return in words how far two editors agree, given the same noise, and whether they do on every scene.

    They agree if the judge says the same of both, and no picture is less than 100 dB from the other's.
    """
    noises = [start_noise(place) for place in range(len(judged))]
    pairs = [
        [edit(case, noise, n_steps) for case, noise in zip(judged, noises, strict=True)]
        for edit in (one, other)
    ]
    verdicts = [
        [found.right for found in judge_all(judged, list(map(rounded, answers)))] for answers in pairs
    ]
    n_same = sum(a == b for a, b in zip(*verdicts, strict=True))
    worst_db = agreement_db(*pairs)
    shares = " and ".join(f"{np.mean(rights):.1%}" for rights in verdicts)
    lines = [
        f"agree on {n_same} of {len(judged)} scenes; right: {shares}",
        f"the two pictures that differ most: {worst_db:.1f} dB",
    ]
    return lines, n_same == len(judged) and worst_db >= SAME_DB


def _steps(parser: argparse.ArgumentParser, text: str) -> list[int]:
    if not all(part.isdecimal() and int(part) for part in text.split(",")):
        parser.error(f"--steps {text}: write numbers from 1, such as 4,2,8")
    return [int(part) for part in text.split(",")]


def main() -> None:
    """Print the table; the exit code is 1 where a bundle and the pipeline do not agree."""
    parser = argparse.ArgumentParser(description="Judge an editor on cards that it never saw.")
    parser.add_argument("bundle", nargs="?", type=Path, help="a bundle; without one, the PyTorch pipeline")
    parser.add_argument("--variant", help="of the bundle")
    parser.add_argument("--against-pytorch", action="store_true", help="compare the bundle with the pipeline")
    parser.add_argument("--baselines", action="store_true", help="judge what is no editor, and the ceiling")
    parser.add_argument("--model", type=Path, default=Path(__file__).with_name("model"))
    parser.add_argument("--scenes", type=int, default=200, help="over the seven kinds, at least")
    parser.add_argument(
        "--steps", default="4", help="such as 4, or 4,1,2,8,20: the table for the first, shares for all"
    )
    words = parser.parse_args()
    if words.against_pytorch and words.bundle is None:
        parser.error("--against-pytorch compares a bundle: name it")
    n_steps = _steps(parser, words.steps)
    if words.scenes < 1:
        parser.error(f"--scenes {words.scenes}: there must be one at least")
    if words.bundle is None and words.variant:
        parser.error("--variant is of a bundle: name it")
    if words.bundle and 1 in n_steps:
        parser.error("a bundle has no single step: its schedule stretches the levels, as the pipeline's")
    judged = cases(-(-words.scenes // len(KINDS) // 4) * 4)
    start = time.monotonic()
    with ExitStack() as stack:
        bundle = words.bundle and bundle_editor(words.bundle, words.variant, stack)
        is_fine = True
        if words.baselines:
            lines = baseline_lines(judged, words.model)
        elif words.against_pytorch:
            lines, is_fine = compared(judged, pipeline_editor(words.model), bundle, n_steps[0])
        else:
            lines = judged_lines(judged, bundle or pipeline_editor(words.model), n_steps)
    print(*lines, f"{len(judged)} scenes, {time.monotonic() - start:.0f} s", sep="\n")
    sys.exit(0 if is_fine else 1)


if __name__ == "__main__":
    main()
