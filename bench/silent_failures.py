"""What the default tools get wrong silently, and what anyport says: `python bench/silent_failures.py`.

Every row really runs the tool with its defaults, measures what is true (against PyTorch in float64, or as a
paired ratio of CPU time), and really asks anyport. ``--only NAME`` runs one row. A row whose failure does not
occur any more says ``not reproduced``; one that needs a package or a processor that is not here says
``skipped``, and why. The exit code is 1 as soon as anyport misses
one, or a row cannot be run.

Tried with the versions in the README's table, and not kept as rows, because nothing is wrong or nothing is
silent: a cached grid (YOLOv5's) is captured anew by torch 2.13; an LSTM exported by TorchScript at batch 1
is right at batch 3; `onnx.save` into external data that exists raises instead of growing the file;
`quantize_dynamic` of an export as it is fails with a message; `F.interpolate` in every mode, `grid_sample`
on finite grids, `ceil_mode` pools and `F.pad` agree with PyTorch; static INT8 of an encoder without an
outlier channel is fine (cosine 0.998); of 112 small graphs, onnxsim rewrites only random numbers wrongly.
Wrong as well, and too rare for a row: the largest element and the sign of NaN, `atan2(0, -1)`, `expm1` of
small numbers, floor division of floats at a multiple.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
import time
import traceback
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import onnxruntime
import torch

import silent_exports
import silent_int8
import silent_rewrites
import silent_runtimes
from machine import this_machine
from subjects import hf

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from silent_case import Case, Finding, Outcome

ROOT: Final = Path(__file__).resolve().parents[1]
BEGIN: Final = "<!-- begin: python bench/silent_failures.py --write-readme -->"
END: Final = "<!-- end: silent failures -->"
CASES: Final = (
    *silent_exports.CASES,
    *silent_rewrites.CASES,
    *silent_int8.CASES,
    *silent_runtimes.CASES,
)
_LOG_ERROR: Final = 3
_WIDEST: Final = 160  # of a cell
_TOOLS: Final = ("onnxscript", "onnxsim", "onnxslim", "onnxconverter-common", "MNN", "openvino")


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table.

    Attributes:
        case: Which.
        outcome: In one word.
        finding: What came of it; absent if it was skipped.
        reason: Why it was skipped, or what went wrong in it.
        seconds: Of the whole row.
    """

    case: Case
    outcome: Outcome
    finding: Finding | None = None
    reason: str = ""
    seconds: float = 0.0

    def cells(self) -> tuple[str, str, str, str, str]:
        """Return case, what the tool said, what is true, what anyport said, how long it took."""
        if self.finding is None:
            return self.case.title, f"{self.outcome}: {self.reason}", "", "", ""
        found = self.finding
        answer = found.anyport.text if self.outcome != "not reproduced" else self.outcome
        mark = "MISSED: " if self.outcome == "MISSED" else ""
        return self.case.title, found.tool.text, found.truth, mark + answer, f"{found.anyport.seconds:.1f} s"

    def to_json(self) -> dict[str, Any]:
        """Return it as words and numbers."""
        record: dict[str, Any] = {"name": self.case.name, "title": self.case.title, "outcome": self.outcome}
        record |= {"seconds": round(self.seconds, 1), "reason": self.reason}
        return record | (asdict(self.finding) if self.finding else {})


def row_of(case: Case, folder: Path) -> Row:
    """Run one row in a new folder."""
    reason = case.reason_to_skip()
    if reason:
        return Row(case, "skipped", reason=reason)
    place = folder / case.name
    place.mkdir(parents=True)
    started_s = time.monotonic()
    try:
        found = case.find(place)
    except Exception as err:  # noqa: BLE001 -- of many tools, in many versions: the other rows go on
        traceback.print_exc()
        return Row(case, "broken", reason=" ".join(f"{type(err).__name__}: {err}".split())[:200])
    return Row(case, found.outcome, found, seconds=time.monotonic() - started_s)


def run(cases: Iterable[Case], folder: Path, show: Callable[[str], None]) -> list[Row]:
    """Run rows, each shown as soon as it is known."""
    rows = []
    for case in cases:
        row = row_of(case, folder)
        show(as_text(row))
        rows.append(row)
    return rows


def as_text(row: Row) -> str:
    """Write a row in lines, for a terminal."""
    title, tool, truth, anyport, _ = row.cells()
    head = f"\n{row.case.name} [{row.outcome}]  {title}"
    if row.finding is None:
        return f"{head}\n  {row.reason}"
    found = row.finding
    lines = (
        f"  the tool said   {tool}   ({found.tool.seconds:.1f} s)",
        f"  what is true    {truth}",
        f"  anyport said    {anyport}   ({found.anyport.seconds:.1f} s)",
        f"                  {found.anyport.command}",
    )
    return "\n".join((head, *lines))


def summary(rows: list[Row]) -> str:
    """Count the outcomes."""
    outcomes = [row.outcome for row in rows]
    words = [f"{outcomes.count(word)} {word}" for word in dict.fromkeys(outcomes)]
    return f"{len(rows)} rows: {', '.join(words)}"


# ── the README ──────────────────────────────────────────────────────────────────────────────────────────
def as_markdown(rows: list[Row], machine: str, wall_s: float) -> str:
    """Write the table of the README: what is wrong today first, then what was skipped or is right by now.

    Args:
        rows: All.
        machine: Lines about it.
        wall_s: What the whole table took.
    """
    lines = ["| case | the tool said | what is true | anyport said | time |", "|---|---|---|---|---|"]
    wrong = [row for row in rows if row.outcome in {"caught", "MISSED"}]
    lines += [f"| {' | '.join(_cell(cell) for cell in _named(row))} |" for row in wrong]
    others = [row for row in rows if row.outcome not in {"caught", "MISSED"}]
    rest: list[str] = []
    for row in others:
        said = row.reason or (row.finding.truth if row.finding else "")
        rest.append(f"- `{row.case.name}`, {row.case.title}: {row.outcome}: {said}.")
    told = "; ".join(" ".join(line.split()) for line in machine.splitlines())
    lines += ["", f"{summary(rows)}; {wall_s / 60:.0f} minutes. {told[0].upper()}{told[1:]}."]
    return "\n".join([*lines, *(["", *rest] if rest else [])])


def _named(row: Row) -> tuple[str, ...]:
    title, *others = row.cells()
    return f"`{row.case.name}`: {title}", *others


def _cell(text: str) -> str:
    """Keep a table's columns apart."""
    text = re.sub(r"\s+", " ", text)
    return (text if len(text) <= _WIDEST else f"{text[: _WIDEST - 1].rstrip()}…").replace("|", "\\|")


def with_block(text: str, block: str) -> str:
    """Replace what stands between the markers of a README.

    Raises:
        ValueError: A marker is not there exactly once, or they stand the wrong way round.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"the README must have '{BEGIN}' and then '{END}', each once")
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{block}\n{END}{rest.partition(END)[2]}"


def _versions() -> str:
    from importlib.metadata import PackageNotFoundError, version

    found = []
    for name in _TOOLS:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def _say(text: str) -> None:
    print(text, flush=True)


def _say_nothing(_text: str) -> None:
    """A JSON object stands alone."""


def main() -> None:
    """Run, print, and exit with 1 if anyport missed one."""
    parser = argparse.ArgumentParser(description="What the default tools get wrong silently.")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="a row; see --list")
    parser.add_argument("--list", action="store_true", help="the names of all rows")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="leave the files of every row there")
    parser.add_argument("--write-readme", action="store_true", help="put the table into README.md")
    chosen = parser.parse_args()
    known = [case.name for case in CASES]
    if chosen.list:
        print("\n".join(f"{case.name:<20} {case.title}" for case in CASES))
        return
    if unknown := [name for name in chosen.only if name not in known]:
        parser.error(f"no row is called {' or '.join(unknown)}; --list names them")
    if chosen.write_readme and chosen.only:
        parser.error("--write-readme writes the whole table: leave --only out")
    sys.exit(_report(chosen))


def _report(chosen: argparse.Namespace) -> int:
    torch.set_num_threads(1)
    onnxruntime.set_default_logger_severity(_LOG_ERROR)
    hf.logging.set_verbosity_error()
    kept = chosen.keep.resolve() if chosen.keep else None
    os.chdir(ROOT)  # the commands name the models from here
    machine = f"{this_machine()}, {_versions()}"
    show = _say_nothing if chosen.json else _say
    show(machine)
    started_s = time.monotonic()
    cases = [case for case in CASES if not chosen.only or case.name in chosen.only]
    with nullcontext(kept) if kept else tempfile.TemporaryDirectory(prefix="anyport-silent-") as folder:
        rows = run(cases, Path(folder), show)
    wall_s = time.monotonic() - started_s
    show(f"\n{summary(rows)}; {wall_s:.0f} s")
    if chosen.json:
        record = {"machine": asdict(this_machine()), "tools": _versions(), "wall_s": round(wall_s, 1)}
        print(json.dumps(record | {"rows": [row.to_json() for row in rows]}))
    if chosen.write_readme:
        path = ROOT / "README.md"
        path.write_text(with_block(path.read_text("utf-8"), as_markdown(rows, machine, wall_s)), "utf-8")
    return int(any(row.outcome in {"MISSED", "broken"} for row in rows))


if __name__ == "__main__":
    main()
