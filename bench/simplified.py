"""What `anyport build --simplify auto` keeps, against every single tool: `python bench/simplified.py`.

Ten seeded architectures are exported at opset 17, where the exporter leaves the graphs as they are, and
simplified as a build does it: the tools never see the weights, which so keep their names. The rivals are
what a user gets without anyport: each tool by itself on the whole file, its weights inside, and its own
output as it wrote it, opened at the runtime's default level. The kept graph may not be slower than any of
them (within 3 %, the noise of such ratios), and must be proven. A rival that is wrong races as well; that it
is faster is no problem of the kept one. Sizes are of all files of a graph.
The exit code is 1 as soon as one row is not as it must be.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import onnx_ir as ir

from anyport.bench.inputs import bench_case, choose_sizes
from anyport.build.proving import sweep_settings
from anyport.build.simplifying import simplify_settings
from anyport.bundle.disk import size_text
from anyport.errors import SessionError
from anyport.graph.equality import Equality, Judge
from anyport.graph.fastest import TIE, Contestant, RaceSettings, race
from anyport.graph.isolation import Limits, run_limited
from anyport.graph.rewriting import load_graph
from anyport.graph.simplifiers import ORIGINAL, SIMPLIFIERS
from anyport.graph.simplify import SimplifySettings, simplify_graph
from anyport.graph.storing import write_model
from anyport.verify import PartSpec, plan_cases
from machine import this_machine
from subjects import CLEAN
from trials import SETTINGS, export

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anyport.bench.pairing import PairedRatio
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
_LIMITS: Final = Limits(memory_bytes=8 << 30, timeout_s=600.0)


@dataclass(frozen=True, slots=True)
class Rival:
    """What one tool made of the whole file, by itself.

    Attributes:
        tool: Its name; ``none`` is the file as it was exported.
        path: What it wrote.
        failure: Why there is nothing to race with; empty if there is.
        is_equal: Whether it is proven at the runtime's default level.
        ratio: How many times faster than it the kept graph is.
    """

    tool: str
    path: Path
    failure: str = ""
    is_equal: bool = False
    ratio: float | None = None

    @property
    def is_ahead(self) -> bool:
        """Whether it is right, and faster than what was kept."""
        return self.is_equal and self.ratio is not None and self.ratio < 1 / (1 + TIE)


@dataclass(frozen=True, slots=True)
class Row:
    """One architecture.

    Attributes:
        name: Of the subject.
        found: What was kept of what was tried.
        size: Of the kept graph, in words.
        rivals: Tool -> its ratio and size, in words.
        ahead: The tools whose own output is faster.
        took_s: Wall time of simplifying.
    """

    name: str
    found: Simplification
    size: str
    rivals: dict[str, str]
    ahead: tuple[str, ...]
    took_s: float

    @property
    def problem(self) -> str:
        """What is not as it must be; empty if all is."""
        if not self.found.proven:
            return "nothing proven"
        return f"slower than {', '.join(self.ahead)}" if self.ahead else ""

    def __str__(self) -> str:
        """Return one line."""
        cells = [f"{tool} {words}" for tool, words in self.rivals.items()]
        kept = f"{self.name:<11} {self.found.summary()}   {self.size}   against {', '.join(cells)}"
        return f"{kept}   {self.took_s:.0f} s   {self.problem or 'ok'}"


def simplified(subject: Subject, folder: Path) -> Row:
    """Export, simplify as a build does, and race what was kept against each tool's own output."""
    exported = export(subject, folder / "exported", OPSET)
    equality = _equality(subject, exported)
    rivals = _alone(exported.graph.path, equality, folder / "tools")
    kept = shutil.copytree(exported.graph.path.parent, folder / "kept") / exported.graph.path.name
    settings = simplify_settings("auto") or SimplifySettings()
    started_s = time.monotonic()
    found = simplify_graph(kept, equality, settings)
    took_s = time.monotonic() - started_s
    rivals = _raced(Contestant("kept", kept, 0, found.optimization), rivals, subject)
    ahead = tuple(rival.tool for rival in rivals if rival.is_ahead)
    return Row(subject.name, found, _size(kept.parent), {r.tool: _words(r) for r in rivals}, ahead, took_s)


def _alone(path: Path, equality: Equality, folder: Path) -> list[Rival]:
    """Run every tool by itself on the whole file, as a user does who has only that tool."""
    rivals = [Rival(ORIGINAL, folder / ORIGINAL / path.name)]
    rivals[0].path.parent.mkdir(parents=True)
    _write_whole(path, rivals[0].path)
    for tool in SIMPLIFIERS.values():
        own = folder / tool.name / path.name
        own.parent.mkdir()
        words = (tool.name, str(rivals[0].path), str(own))
        ending = run_limited(tool.program, words, _LIMITS, own.parent)
        (own.parent / "messages.txt").unlink()
        rivals.append(Rival(tool.name, own, ending.problem))
    judge = Judge(path, equality)
    return [r if r.failure else replace(r, is_equal=_is_equal(r.path, judge)) for r in rivals]


def _write_whole(path: Path, output: Path) -> None:
    """Write a graph with its weights inside."""
    model = load_graph(path)
    for value in model.graph.initializers.values():
        if isinstance(value.const_value, ir.ExternalTensor):
            value.const_value = ir.Tensor(value.const_value.numpy(), name=value.name)
    write_model(model, output)


def _is_equal(path: Path, judge: Judge) -> bool:
    return judge.judge(path, "all").status == "equal"


def _raced(kept: Contestant, rivals: Sequence[Rival], subject: Subject) -> list[Rival]:
    """Measure how many times faster than each rival the kept graph is."""
    signature = subject.signature
    case = bench_case(signature, choose_sizes(signature, {}))
    contestants = [kept, *(Contestant(r.tool, r.path, 0, "all") for r in rivals if not r.failure)]
    found = {c.tool: ratio for c, ratio in race(contestants, case, signature.inputs, _RACE).items()}
    return [_with_ratio(rival, found.get(rival.tool)) for rival in rivals]


def _with_ratio(rival: Rival, ratio: PairedRatio | SessionError | None) -> Rival:
    if isinstance(ratio, SessionError):
        return replace(rival, failure="does not open")
    return rival if ratio is None else replace(rival, ratio=1 / ratio.median)


def _words(rival: Rival) -> str:
    if rival.ratio is None:
        return rival.failure
    return f"{rival.ratio:.2f}x {_size(rival.path.parent)}{'' if rival.is_equal else ' NOT EQUAL'}"


def _size(folder: Path) -> str:
    """Return the size of a graph and its weights, which have a folder of their own."""
    return size_text(sum(p.stat().st_size for p in folder.iterdir() if p.suffix in {".onnx", ".safetensors"}))


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
    if unknown := [name for name in wanted if name not in NAMES]:
        parser.error(f"no architecture is called {' or '.join(unknown)}; there are {', '.join(NAMES)}")
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
