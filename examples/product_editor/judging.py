"""When an edit is right: the judge's rule, the cases, the table; numpy and Pillow only."""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from drawing import Picture, render
from edits import KINDS, Edit, alternatives, any_edit
from numpy.typing import NDArray
from wording import LANGUAGES, instruction
from world import any_scene

INSIDE_DB: Final = 18.0
OUTSIDE_DB: Final = 24.0
SAME: Final = 10  # of 255: a pixel whose channels all differ by no more shows the same thing
CORE: Final = ("recolour", "remove", "background", "tag_add", "tag_change", "tag_remove")
SIX: Final = "six kinds"
ALL: Final = "all"
BINDING: Final = "right one of two"  # the instruction had to choose: the point of an instruction editor
ROWS: Final = (
    *KINDS,
    *(SIX, ALL, "Chinese", "English", "unseen pairs", "seen pairs"),
    *("one product", "two products", BINDING),
)
_FLOOR: Final = 1e-10

Mask = NDArray[np.bool_]  # [side, side]


@dataclass(frozen=True, slots=True)
class JudgedCase:
    """An edit that training never saw, with its pictures.

    Args:
        edit: Before and after.
        language: Of the instruction.
        instruction: What the editor is told.
        source: The card before.
        target: The card after.
        wrong: Renderings of every other card that an edit of this kind could have ended at.
        unseen: Whether the card shows, or becomes, a (product, colour) pair that training never shows.
    """

    edit: Edit
    language: str
    instruction: str
    source: Picture
    target: Picture
    wrong: tuple[Picture, ...]
    unseen: bool


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the judge says of one picture: `nearest` alone asks whether the asked edit is the nearest one."""

    nearest: bool
    inside_db: float
    outside_db: float

    @property
    def right(self) -> bool:
        """Whether the asked rendering is the nearest, and inside and outside are close to it."""
        return self.nearest and self.inside_db >= INSIDE_DB and self.outside_db >= OUTSIDE_DB


def psnr_db(one: Picture, other: Picture, where: Mask) -> float:
    """Return the PSNR in dB over some pixels; 100 where there are none or all are equal."""
    if not where.any():
        return 100.0
    off = (one.astype(np.float32) - other.astype(np.float32))[where] / 255
    return float(-10 * np.log10(max(float(np.mean(off * off)), _FLOOR)))


def differs(one: Picture, other: Picture) -> Mask:
    """Tell which pixels show something else."""
    return np.asarray(np.abs(one.astype(np.int16) - other.astype(np.int16)).max(axis=-1) > SAME)


def judge(case: JudgedCase, answer: Picture) -> Judgement:
    """Judge an answer by the known target.

    Inside is where source and target differ; outside is what lies farther than a pixel from that. Each wrong
    card is compared with the target where the two differ: the answer must be nearer to the target there.
    """
    changed = differs(case.source, case.target)
    nearest = True
    for wrong in case.wrong:
        where = differs(wrong, case.target)
        nearest &= psnr_db(answer, case.target, where) > psnr_db(answer, wrong, where)
    outside = ~_grown(changed)
    return Judgement(nearest, psnr_db(answer, case.target, changed), psnr_db(answer, case.target, outside))


def _grown(mask: Mask) -> Mask:
    padded = np.pad(mask, 1)
    height, width = mask.shape
    shifted = [padded[y : y + height, x : x + width] for y in range(3) for x in range(3)]
    return np.asarray(np.logical_or.reduce(shifted))


def cases(
    n_per_kind: int, *, seed: int = 12345, kinds: Sequence[str] = KINDS, side: int = 64
) -> list[JudgedCase]:
    """Return cases, balanced by kind, language, and whether an unseen pair is shown; the same ones each time.

    Args:
        n_per_kind: A multiple of 4, for the balance to be exact.
        seed: Of the draw.
        kinds: Of the edits, in this order.
        side: Of the pictures, in pixels.
    """
    draw = random.Random(seed)
    found = []
    for kind in kinds:
        for number in range(n_per_kind):
            language, unseen = LANGUAGES[number % 2], number % 4 < 2
            found.append(_case(draw, _drawn(draw, kind, unseen=unseen), language, side, unseen=unseen))
    return found


def _drawn(draw: random.Random, kind: str, *, unseen: bool) -> Edit:
    while True:
        edit = any_edit(draw, any_scene(draw, unseen=unseen), kind, unseen=unseen)
        if edit:
            return edit


def _case(draw: random.Random, edit: Edit, language: str, side: int, *, unseen: bool) -> JudgedCase:
    target = render(edit.after, side)
    others = [render(scene, side) for scene in alternatives(edit)]
    return JudgedCase(
        edit=edit,
        language=language,
        instruction=instruction(draw, edit, language),
        source=render(edit.before, side),
        target=target,
        wrong=tuple(other for other in others if differs(other, target).any()),
        unseen=unseen,
    )


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: how many cases, the share that is right and nearest (0..1), median dB."""

    name: str
    n_cases: int
    right: float
    nearest: float
    inside_db: float
    outside_db: float


def rows_of(case: JudgedCase) -> Iterator[str]:
    """Yield the names of the table's rows that a case counts in."""
    edit, n_items = case.edit, len(case.edit.before.items)
    yield edit.kind
    if edit.kind in CORE:
        yield SIX
    yield ALL
    yield {"zh": "Chinese", "en": "English"}[case.language]
    yield "unseen pairs" if case.unseen else "seen pairs"
    yield "one product" if n_items == 1 else "two products"
    if edit.place is not None and n_items > 1:
        yield BINDING


def table(judged: Sequence[JudgedCase], judgements: Sequence[Judgement]) -> list[Row]:
    """Return the shares by kind, language, pairs and number of products, in the order of ROWS."""
    found: dict[str, list[Judgement]] = {name: [] for name in ROWS}
    for case, judgement in zip(judged, judgements, strict=True):
        for name in rows_of(case):
            found[name].append(judgement)
    return [_row(name, several) for name, several in found.items() if several]


def _row(name: str, found: Sequence[Judgement]) -> Row:
    return Row(
        name=name,
        n_cases=len(found),
        right=float(np.mean([one.right for one in found])),
        nearest=float(np.mean([one.nearest for one in found])),
        inside_db=float(np.median([one.inside_db for one in found])),
        outside_db=float(np.median([one.outside_db for one in found])),
    )


def table_lines(rows: Iterable[Row]) -> list[str]:
    """Return the table as Markdown."""
    head = ["| | cases | right | nearest | inside dB | outside dB |", "|---|---|---|---|---|---|"]
    return head + [
        f"| {row.name} | {row.n_cases} | {row.right:.1%} | {row.nearest:.1%} "
        f"| {row.inside_db:.1f} | {row.outside_db:.1f} |"
        for row in rows
    ]


def judge_all(judged: Sequence[JudgedCase], answers: Sequence[Picture]) -> list[Judgement]:
    """Judge one answer per case."""
    return [judge(case, answer) for case, answer in zip(judged, answers, strict=True)]
