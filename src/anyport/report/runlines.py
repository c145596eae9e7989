"""The lines of the release list that are judged from runs on this machine."""

from __future__ import annotations

import os
from typing import Final

from anyport.bench.blank import Blank
from anyport.bench.inputs import batch_axis
from anyport.bundle.disk import size_text
from anyport.cases import Padding
from anyport.report.line import (
    Checked,
    Judge,
    Line,
    failed,
    listed,
    not_applicable,
    passed,
    unproven,
    untested,
)
from anyport.verify import Status

MAX_MSE: Final = 1e-5  # of the release list; the proof's own rule, docs/verify.md, is the stricter one
_LEAK_BYTES: Final = 1 << 20  # in each half of the runs: what allocators keep for themselves comes once
_MIN_SOAK_RUNS: Final = 50


def values(checked: Checked) -> Line:
    """Every answer is PyTorch's: mean squared error, largest error, and the verdict of the proof."""
    verdict = checked.verdict
    leg = verdict.leg("values")
    if verdict.status is Status.FAIL:
        bad = next(one for one in verdict.legs if one.status is Status.FAIL)
        return failed(bad.line, f"{verdict.part.command} --json")
    if checked.is_lossy:
        return not_applicable(f"a lossy variant is judged by its metric: {leg.line}")
    numbers = [one.numbers for one in verdict.findings if one.numbers is not None]
    if not numbers or verdict.status is not Status.PASS:
        words = next((one.line for one in verdict.legs if one.status is Status.INCONCLUSIVE), leg.line)
        do = nothing.do if (nothing := unproven(checked)) else "anyport build, which records a proof"
        return untested(words, do)
    mse, max_abs = max(one.mse for one in numbers), max(one.max_abs for one in numbers)
    words = f"mse {mse:.2g}, max abs {max_abs:.2g} over {len(verdict.findings)} comparisons"
    if mse >= MAX_MSE:
        return failed(f"{words}: mse must be below {MAX_MSE:g}, though the proof passes ({leg.line})")
    return passed(f"{words}; {leg.line}")


def batches(checked: Checked) -> Line:
    """More than one batch size ran."""
    axis = batch_axis(checked.graph.part.input_specs())
    if axis is None:
        return not_applicable("no dynamic axis is the first of every input")
    if (nothing := unproven(checked)) is not None:
        return nothing
    bad = [run for run in checked.runs.cases if run.problem]
    wrong = {one.case for one in checked.verdict.findings if not one.passed}
    broken = {run.case.sizes[axis]: run.problem for run in bad}
    broken |= {r.case.sizes[axis]: "differs from PyTorch" for r in checked.runs.cases if r.case.name in wrong}
    if broken:
        size, problem = next(iter(broken.items()))
        return failed(f"{axis}={size}: {problem} ({len(broken)} sizes fail)")
    sizes = sorted({run.case.sizes[axis] for run in checked.runs.cases})
    if len(sizes) < 2 or sizes[0] == sizes[-1]:  # noqa: PLR2004  (one size shows nothing)
        return untested(f"the proof holds {axis} {listed([str(s) for s in sizes])} only")
    return passed(f"{axis} {', '.join(str(size) for size in sizes)}: every answer has its form and is finite")


def boundaries(checked: Checked) -> Line:
    """The smallest inputs, fully padded text, odd and smallest pictures."""
    wrong = {one.case: one.reason for one in checked.verdict.findings if not one.passed}
    wrong |= {run.case.name: run.problem for run in checked.runs.cases if run.problem}
    edge_cases = [run.case for run in checked.runs.cases if run.case.kind == "boundary"]
    problems = [f"{case.name}: {wrong[case.name]}" for case in edge_cases if case.name in wrong]
    problems += [f"{edge.name}: {edge.problem}" for edge in checked.runs.edges if edge.problem]
    if problems:
        return failed(listed(problems, 2))
    dims = checked.graph.part.dim_ranges()
    specs = checked.graph.part.input_specs()
    axes = {name for spec in specs for name in spec.dynamic_axes().values()}
    masks = [spec.name for spec in specs if spec.is_mask]
    missing = [
        f"{name}={dims[name].low}"
        for name in sorted(axes)
        if not any(case.sizes.get(name) == dims[name].low for case in edge_cases)
    ]
    missing += [
        f"a row of '{name}' that is all padding" for name in masks if not _fully_padded(checked, name)
    ]
    if missing:
        return unproven(checked) or untested(
            f"the proof lacks {listed(missing)}", "anyport build, with more --max-cases"
        )
    ran = [case.name for case in edge_cases] + [edge.name for edge in checked.runs.edges]
    if not axes and not masks and not checked.runs.edges:
        return not_applicable("every size is fixed, there is no mask, and the task takes no pictures")
    return passed(listed(ran, 8))


def _fully_padded(checked: Checked, name: str) -> bool:
    fills = [run.case.fills[name] for run in checked.runs.cases]
    return any(isinstance(fill, Padding) and fill.empty_row for fill in fills)


def leaks(checked: Checked) -> Line:
    """Many runs hold no more memory than a few."""
    soak = checked.runs.soak
    if isinstance(soak, Blank):
        return unproven(checked) or untested(soak.why)
    first, second = soak.middle_bytes - soak.before_bytes, soak.after_bytes - soak.middle_bytes
    words = f"{soak.n_runs} runs: {_signed(first)} in the first half, {_signed(second)} in the second"
    if first > _LEAK_BYTES and second > max(_LEAK_BYTES, first // 2):
        per_run = second / (soak.n_runs // 2)
        return failed(
            f"{words}, about {size_text(int(per_run))} a run that no file backs and nobody gives back"
        )
    if soak.n_runs < _MIN_SOAK_RUNS:
        return untested(f"{words}: {_MIN_SOAK_RUNS} are needed", "give it more time: --soak-seconds 120")
    seen = size_text(2 * _LEAK_BYTES // soak.n_runs)
    return passed(f"{words} (anonymous memory; {seen} a run would show)")


def _signed(n_bytes: int) -> str:
    return f"{'-' if n_bytes < 0 else '+'}{size_text(abs(n_bytes))}"


def provider(checked: Checked) -> Line:
    """The execution provider that was asked for computes the graph."""
    if "provider" in checked.runs.problems:
        return failed(checked.runs.problems["provider"], "install a runtime that has it")
    asked = checked.runs.options.provider
    placement = checked.runs.placement
    n_nodes = sum(placement.values())
    if not n_nodes:
        return untested("this runtime does not tell who computes which node")
    name = next(
        (full for full in placement if full.removesuffix("ExecutionProvider").lower() == asked.lower()), asked
    )
    words = ", ".join(f"{n} on {full}" for full, n in placement.items() if n)
    n_own = placement.get(name, 0)
    if not n_own:
        return failed(
            f"'{asked}' was asked for and computes nothing: {words}", "install a runtime that has it"
        )
    if 2 * n_own < n_nodes:
        return failed(f"'{asked}' computes {n_own} of {n_nodes} nodes: {words}")
    return passed(f"'{asked}' computes {n_own} of {n_nodes} nodes as the runtime rewrote them: {words}")


def limits(checked: Checked) -> Line:
    """It runs with the threads and the memory that the service will have."""
    options = checked.runs.options
    if "limit" in checked.runs.problems:
        return failed(checked.runs.problems["limit"], "raise --max-memory, or take a smaller variant")
    full = [run for run in checked.runs.cases if "memory limit" in run.problem]
    if full:
        return failed(f"{full[0].case.name}: {full[0].problem}", "raise --max-memory")
    n_cores = os.cpu_count() or 1
    if options.n_threads is not None and options.n_threads > n_cores:
        return failed(f"{options.n_threads} threads are asked for, this machine has {n_cores} cores")
    missing = [
        word
        for word, value in (
            ("--threads 2", options.n_threads),
            ("--max-memory 512MB", options.memory_limit_bytes),
        )
        if value is None
    ]
    if missing:
        return untested("nothing says what the service will have", f"add {' '.join(missing)}, say")
    if (nothing := unproven(checked)) is not None:
        return nothing
    limit = size_text(options.memory_limit_bytes or 0)
    n_threads = f"{options.n_threads} of {n_cores} threads"
    return passed(f"{len(checked.runs.cases)} cases, and all other runs here, with {n_threads} and {limit}")


RUN_LINES: Final[tuple[tuple[str, Judge], ...]] = (
    ("mse < 1e-5, max abs", values),
    ("batch sizes", batches),
    ("boundary inputs", boundaries),
    ("no leak", leaks),
    ("provider really used", provider),
    ("threads and memory limited", limits),
)
