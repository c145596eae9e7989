"""Draws samples.png: input, instruction, answer and target for every kind of edit, in both languages."""

import argparse
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from typing import Final

from edits import KINDS
from judge import bundle_editor, pipeline_editor, rounded, start_noise
from judging import JudgedCase, cases, judge
from PIL import Image, ImageDraw, ImageFont

SCALE: Final = 2
SIDE: Final = 64 * SCALE
WIDTH: Final = 3 * SIDE + 40
HEIGHT: Final = SIDE + 34


def chosen(seed: int) -> list[JudgedCase]:
    """Return four cases per kind: each language with one product and with two."""
    drawn = cases(32, seed=seed)
    wanted = product(KINDS, ("zh", "en"), (1, 2))
    return [next(case for case in drawn if _traits(case) == traits) for traits in wanted]


def _traits(case: JudgedCase) -> tuple[str, str, int]:
    return case.edit.kind, case.language, len(case.edit.before.items)


def main() -> None:
    """Write the sheet."""
    parser = argparse.ArgumentParser(description="Draw a sheet of edits.")
    parser.add_argument("output", type=Path)
    parser.add_argument("--bundle", type=Path, help="without one, the PyTorch pipeline")
    parser.add_argument("--model", type=Path, default=Path(__file__).with_name("model"))
    parser.add_argument(
        "--font", type=Path, required=True, help="with Chinese characters, for the instructions"
    )
    parser.add_argument("--seed", type=int, default=77)
    words = parser.parse_args()
    font = ImageFont.truetype(words.font, 15)
    shown = chosen(words.seed)
    sheet = Image.new("RGB", (WIDTH * 4, HEIGHT * len(KINDS)), "white")
    draw = ImageDraw.Draw(sheet)
    with ExitStack() as stack:
        edit = bundle_editor(words.bundle, None, stack) if words.bundle else pipeline_editor(words.model)
        for number, case in enumerate(shown):
            answer = rounded(edit(case, start_noise(number), 4))
            left, top = number % 4 * WIDTH, number // 4 * HEIGHT
            mark = "" if judge(case, answer).right else "   ✗"
            draw.text((left + 4, top + 2), case.instruction + mark, font=font, fill="black")
            for place, picture in enumerate((case.source, answer, case.target)):
                large = Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.NEAREST)
                sheet.paste(large, (left + 4 + place * (SIDE + 6), top + 24))
    sheet.save(words.output, optimize=True)


if __name__ == "__main__":
    main()
