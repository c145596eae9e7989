"""What `anyport build --simplify auto` keeps, against every single tool: `python bench/simplified.py`.

Ten seeded architectures are exported at opset 17, where the exporter leaves the graphs as they are, and
simplified. Every tool runs once more by itself, and its file races against the kept one, both opened anew:
the kept one may not be slower than any of them (within 3 %, the noise of such ratios), and must be proven.
The exit code is 1 as soon as one row is not as it must be.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from anyport.bench.inputs import bench_case, choose_sizes
from anyport.build.proving import sweep_settings
from anyport.build.simplifying import simplify_settings
from anyport.errors import SessionError
from anyport.graph.equality import Equality, Judge
from anyport.graph.fastest import TIE, Contestant, RaceSettings, race
from anyport.graph.simplifiers import SIMPLIFIERS
from anyport.graph.simplify import SimplifySettings, simplify_graph
from anyport.graph.tooltrial import Subject as ToolSubject
from anyport.graph.tooltrial import TrialSettings
from anyport.verify import PartSpec, plan_cases
from machine import this_machine
from subjects import CLEAN
from trials import SETTINGS, export

if TYPE_CHECKING:
    from anyport.graph.simplification import Simplification
    from subjects import Subject
    from trials import Exported

OPSET: Final = 17
NAMES: Final = (
    "bert",
    "clip-text",
    "convnext",
    "dpt",
    "regnet",
    "resnet",
    "segformer",
    "swin",
    "t5-encoder",
    "vit",
)
_RACE: Final = RaceSettings(budget_s=20.0)


@dataclass(frozen=True, slots=True)
class Row:
    """One architecture.

    Attributes:
        name: Of the subject.
        found: What was kept of what was tried.
        against: Tool -> how many times faster than its file the kept one is; why there is no such number.
        took_s: Wall time of simplifying.
    """

    name: str
    found: Simplification
    against: dict[str, float | str]
    took_s: float

    @property
    def problem(self) -> str:
        """What is not as it must be; empty if all is."""
        if not self.found.proven:
            return "nothing proven"
        slower = [
            n for n, ratio in self.against.items() if isinstance(ratio, float) and ratio < 1 / (1 + TIE)
        ]
        return f"slower than {', '.join(slower)}" if slower else ""

    def __str__(self) -> str:
        """Return one line."""
        cells = [f"{n} {r:.2f}x" if isinstance(r, float) else f"{n} {r}" for n, r in self.against.items()]
        words = f"{self.name:<11} {self.found.summary()}   against {', '.join(cells)}   {self.took_s:.0f} s"
        return f"{words}   {self.problem or 'ok'}"


def simplified(subject: Subject, folder: Path) -> Row:
    """Export, simplify, and race what was kept against each tool's own output."""
    exported = export(subject, folder / "exported", OPSET)
    equality = _equality(subject, exported)
    against, rivals = _alone(exported.graph.path, equality, folder / "tools")
    kept = shutil.copytree(exported.graph.path.parent, folder / "kept") / exported.graph.path.name
    settings = simplify_settings("auto") or SimplifySettings()
    started_s = time.monotonic()
    found = simplify_graph(kept, equality, settings)
    took_s = time.monotonic() - started_s
    signature = subject.signature
    case = bench_case(signature, choose_sizes(signature, {}))
    contestants = [Contestant("kept", kept, 0, found.optimization), *rivals]
    for rival, ratio in race(contestants, case, signature.inputs, _RACE).items():
        if rival.tool != "kept":
            against[rival.tool] = "does not open" if isinstance(ratio, SessionError) else 1 / ratio.median
    return Row(subject.name, found, against, took_s)


def _alone(path: Path, equality: Equality, folder: Path) -> tuple[dict[str, float | str], list[Contestant]]:
    """Run every tool by itself; return why some have nothing to race with, and those that have."""
    folder.mkdir()
    subject = ToolSubject(path, folder, path.name, TrialSettings(hollow_from_bytes=1))
    judge = Judge(path, equality)
    against: dict[str, float | str] = {}
    rivals = []
    for candidate in [subject.original, *(subject.attempt(tool) for tool in SIMPLIFIERS.values())]:
        tool = candidate.attempt.tool
        if candidate.path is None:
            against[tool] = candidate.attempt.status
        elif judge.judge(candidate.path, "all").status != "equal":
            against[tool] = "not equal"
        else:
            rivals.append(Contestant(tool, candidate.path, 0, "all"))
    return against, rivals


def _equality(subject: Subject, exported: Exported) -> Equality:
    signature = subject.signature
    names = (subject.name, "fp32", signature.inputs, signature.outputs, signature.dims)
    plan = plan_cases(signature.inputs, signature.dims, sweep_settings(SETTINGS, exported.captured.sizes))
    return Equality(PartSpec(*names), plan, reference=exported.reference)


def main() -> None:
    """Print one line per architecture."""
    parser = argparse.ArgumentParser(description="What is kept, against every single simplifier.")
    parser.add_argument("--only", help="architectures, with commas")
    wanted = (parser.parse_args().only or ",".join(NAMES)).split(",")
    print(this_machine())
    problems = 0
    for subject in (subject for subject in CLEAN if subject.name in wanted):
        with tempfile.TemporaryDirectory(prefix="anyport-simplified-") as folder:
            row = simplified(subject, Path(folder))
        print(row, flush=True)
        problems += bool(row.problem)
    print(f"{problems} of {len(wanted)} rows are not as they must be")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
