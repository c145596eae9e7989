"""Both kinds of error of anyport's verdict: `python bench/verdicts.py`.

A check that never says no is worth nothing, and neither is one that cries wolf. So clean exports must pass
(false alarms are counted), every fault planted in the files must be caught (misses are counted), and a
network that answers the same to every input must be called inconclusive. The exit code is 1 as soon as one
row is not as it must be.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch

import trials
from anyport.verify import MAX_ABS_MULTIPLE, RMS_MULTIPLE
from machine import this_machine
from subjects import hf

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from trials import Row

_WIDEST: Final = 88  # of a cell


@dataclass(frozen=True, slots=True)
class Group:
    """Rows that make one table.

    Attributes:
        name: As ``--only`` says it.
        title: What is expected of every row.
        rows: Makes them: a folder to work in, and which names are wanted.
    """

    name: str
    title: str
    rows: Callable[[Path, Callable[[str], bool]], Iterator[Row]]


GROUPS: Final = (
    Group("clean", "clean exports: each must PASS", trials.clean),
    Group("faults", "planted faults: each must FAIL, by the legs that can see it", trials.faults),
    Group("zeroed", "the largest element of a weight zeroed: each must FAIL", trials.zeroed),
    Group("limits", "a known limit: a fault whose effect stays within the tolerance PASSES", trials.limits),
    Group("silent", "the same answer to every input: each must be INCONCLUSIVE", trials.silent),
    Group("padded", "a fully padded row: torch's opset 20 export must FAIL, anyport's PASS", trials.padded),
    Group("bundles", "faults in a bundle, digests sealed anew: only a verdict sees them", trials.bundles),
)


def table(rows: list[Row]) -> str:
    """Return rows as text in columns; a row that is not as it must be is marked."""
    columns = list(dict.fromkeys(column for row in rows for column in row.cells))
    lines = [columns, *([_cut(row.cells.get(column, "")) for column in columns] for row in rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(columns))]
    marks = ["  ", *("!!" if row.problem else "  " for row in rows)]
    texts = [
        f"{mark} " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        for mark, line in zip(marks, lines, strict=True)
    ]
    return "\n".join(text.rstrip() for text in texts)


def _cut(text: str) -> str:
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 1]}…"


def run(only: frozenset[str], show: Callable[[str], None]) -> dict[str, list[Row]]:
    """Run the groups and rows whose names are asked for; an empty set is all of them.

    Args:
        only: Names of groups or rows; ``zero-largest`` and ``bundle-…`` are rows.
        show: Called with each table as soon as it is known.
    """
    found: dict[str, list[Row]] = {}
    with tempfile.TemporaryDirectory(prefix="anyport-verdicts-") as folder:
        for group in GROUPS:

            def is_wanted(name: str, group: Group = group) -> bool:
                return not only or group.name in only or name in only

            rows = list(group.rows(Path(folder) / group.name, is_wanted))
            if rows:
                found[group.name] = rows
                show(f"\n{group.title}\n{table(rows)}")
    return found


def summary(found: dict[str, list[Row]]) -> str:
    """Return how many rows are as they must be, and what is wrong with the others."""
    lines = []
    if "zeroed" in found:
        planted = [row for row in found["zeroed"] if row.name.startswith("zero-largest")]
        seen = {leg: sum("FAIL" in row.cells[leg] for row in planted) for leg in ("values", "weights")}
        text = f"the values saw {seen['values']}, the weights {seen['weights']}"
        lines.append(f"of {len(planted)} zeroed elements {text}")
    rows = [row for group in found.values() for row in group]
    lines += [f"!! {row.name}: {row.problem}" for row in rows if row.problem]
    n_right = sum(not row.problem for row in rows)
    return "\n".join([*lines, f"{n_right} of {len(rows)} rows are as they must be"])


def _say(text: str) -> None:
    print(text, flush=True)


def _say_nothing(_text: str) -> None:
    """A JSON object stands alone."""


def main() -> None:
    """Run, print, and exit with 1 if a row is not as it must be."""
    parser = argparse.ArgumentParser(description="Both kinds of error of anyport's verdict.")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="a group, or a row")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    hf.logging.set_verbosity_error()
    started_s = time.monotonic()
    show = _say_nothing if chosen.json else _say
    show(str(this_machine()))
    show(f"allowed: {MAX_ABS_MULTIPLE:g} floors in the largest error, {RMS_MULTIPLE:g} in the RMS error")
    found = run(frozenset(chosen.only), show)
    if not found:
        parser.error(f"no group and no row is called {' or '.join(chosen.only)}")
    wall_s = time.monotonic() - started_s
    is_fine = not any(row.problem for rows in found.values() for row in rows)
    if chosen.json:
        tables = {name: [asdict(row) for row in rows] for name, rows in found.items()}
        print(json.dumps({"machine": asdict(this_machine()), "wall_s": round(wall_s, 1), "tables": tables}))
    else:
        print(f"\n{summary(found)}; {wall_s:.0f} s")
    sys.exit(0 if is_fine else 1)


if __name__ == "__main__":
    main()
