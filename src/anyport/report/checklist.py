"""The release list of a bundle: fifteen lines, each with what was really found.

A line passes, fails, was not tested, or does not apply; the evidence says what was read or run. Nothing is
taken on trust but what the build alone could see (how the model was captured, what the simplifiers and the
quantizers tried), which the manifest's steps record.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from anyport.errors import BundleError
from anyport.report.factlines import FACT_LINES
from anyport.report.graphlines import GRAPH_LINES
from anyport.report.line import Checked, Line, Mark, merged
from anyport.report.runlines import RUN_LINES
from anyport.report.runs import CheckSettings, run_part
from anyport.report.tasklines import TASK_LINES
from anyport.runtime import open_session
from anyport.runtime.graphfile import read_graph
from anyport.verify import verify_bundle
from anyport.verify.whole_task import WHOLE_TASK

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anyport.bundle import Bundle, GraphFile, Step
    from anyport.report.line import Judge
    from anyport.report.runs import Runs
    from anyport.runtime import Session, SessionOptions
    from anyport.runtime.graphfile import ModelFacts
    from anyport.verify import Verdict

    Opener = Callable[[GraphFile, SessionOptions], Session]

LINES: Final[tuple[tuple[str, Judge], ...]] = (*FACT_LINES, *GRAPH_LINES, *RUN_LINES, *TASK_LINES)


@dataclass(frozen=True, slots=True)
class Checklist:
    """The list of one variant.

    Attributes:
        bundle: The name of the bundle.
        variant: The name of the variant.
        lines: In the order of `LINES`.
    """

    bundle: str
    variant: str
    lines: tuple[Line, ...]

    @property
    def failed(self) -> bool:
        """Whether any line fails."""
        return any(line.mark is Mark.FAIL for line in self.lines)

    def count(self, mark: Mark) -> int:
        """Return how many lines have a mark."""
        return sum(line.mark is mark for line in self.lines)

    def summary(self) -> str:
        """Return one line: ``11 pass, 2 untested``."""
        words = {Mark.PASS: "pass", Mark.FAIL: "fail", Mark.UNTESTED: "untested"}
        words[Mark.NOT_APPLICABLE] = "not applicable"
        return ", ".join(f"{self.count(mark)} {word}" for mark, word in words.items() if self.count(mark))

    def text(self) -> str:
        """Return the list for people."""
        width = max(len(line.name) for line in self.lines)
        rows = [f"{self.bundle}, variant {self.variant}"]
        for line in self.lines:
            rows.append(f"  {line.mark.value:<14}   {line.name:<{width}}   {line.evidence}")
            rows += [f"  {'':<14}   {'':<{width}}   do: {line.do}" for _ in [line.do] if line.do]
        return "\n".join([*rows, f"  {self.summary()}"])

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict."""
        return {
            "bundle": self.bundle,
            "variant": self.variant,
            "failed": self.failed,
            "summary": self.summary(),
            "lines": [line.to_json() for line in self.lines],
        }


def release_checklist(
    bundle: Bundle, settings: CheckSettings | None = None, open_graph: Opener = open_session
) -> Checklist:
    """Go through the release list of one variant.

    Example::

        with open_bundle("digits.port") as bundle:
            print(release_checklist(bundle).text())

    Args:
        bundle: Stays the caller's to close.
        settings: Which variant, how often it runs, under which limits.
        open_graph: Opens one of its graphs.

    Raises:
        BundleError: The bundle is damaged, or a graph is no .onnx file.
        UsageError: There is no such variant.
        SessionError: A graph does not open at all.
    """
    chosen = settings or CheckSettings()
    variant = bundle.manifest.default_variant if chosen.variant is None else chosen.variant
    runs = {}
    for part in bundle.manifest.parts:
        chosen.progress("checklist", f"part {part}, variant {variant}")
        runs[part] = run_part(bundle, bundle.graph_file(part, variant), chosen, open_graph)
    # all parts at once: a variant that is judged by its task has one measurement, however many parts it has
    verdicts = verify_bundle(bundle, lambda one: open_graph(one, runs[one.part_name].options), variant)
    whole = next((verdict for verdict in verdicts if verdict.part.name == WHOLE_TASK), None)
    by_part = {}
    for verdict in verdicts:
        if verdict is whole:
            continue
        checked = replace(_checked(bundle, verdict, runs[verdict.part.name]), whole=whole)
        by_part[verdict.part.name] = [judge(checked).named(name) for name, judge in LINES]
    lines = tuple(merged(list(by_part), column) for column in zip(*by_part.values(), strict=True))
    return Checklist(bundle.path.name, variant, lines)


def _checked(bundle: Bundle, verdict: Verdict, runs: Runs) -> Checked:
    """Gather everything that the lines judge about one part."""
    part, variant = verdict.part.name, verdict.part.variant
    graph, others = bundle.graph_file(part, variant), set(bundle.manifest.variants) - {variant}
    return Checked(
        bundle=bundle,
        graph=graph,
        model=_read(graph),
        others={name: _read(bundle.graph_file(part, name)) for name in sorted(others)},
        steps={
            name: steps_of(part, entry.steps, list(bundle.manifest.parts))
            for name, entry in bundle.manifest.variants.items()
        },
        verdict=verdict,
        runs=runs,
    )


def steps_of(part: str, steps: Sequence[Step], parts: Sequence[str]) -> tuple[Step, ...]:
    """Return the steps that made one part: those that name it, and those that follow one that does.

    Steps before the first that names a part are everybody's.
    """
    found: list[Step] = []
    current: str | None = parts[0] if len(parts) == 1 else None
    for step in steps:
        named = step.settings.get("part")
        current = named if isinstance(named, str) else current
        if current in {None, part}:
            found.append(step)
    return tuple(found)


def _read(graph: GraphFile) -> ModelFacts:
    try:
        return read_graph(graph.path)
    except (OSError, ValueError) as err:
        where = f"part {graph.part_name}, variant {graph.variant_name}"
        raise BundleError(f"{graph.path.name} is no whole .onnx file: {err}", where=where) from err
