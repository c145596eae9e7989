"""One trial each: a network exported, its files perhaps damaged, and what anyport says of it."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from anyport.build import BuildPlan, BuildSettings, VerifyRequest, build, describe, verify_plain
from anyport.build.proving import sweep_settings, verify_part
from anyport.bundle import open_bundle, seal_bundle
from anyport.errors import BundleError, MismatchError
from anyport.graph.capture import Capture, capture, example_sizes, quiet
from anyport.graph.convert import DEFAULT_OPSET, convert
from anyport.graph.storing import Graph, StoreOptions, store
from anyport.runtime import open_session
from anyport.source import TorchReference
from anyport.verify import Status, Verdict, plan_cases, verify_bundle
from faults import GELU_TANH, MODEL, WEIGHTS_ONLY, Fault, planted_faults, weight_names, zero_largest
from subjects import CLEAN, DENSE, ENCODER, FAINT, VISION, Subject, encoder, silent_subjects

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anyport.cases import Case
    from anyport.recipe import Part
    from anyport.verify import Answer, Reference

SETTINGS: Final = BuildSettings()  # the default cases, no gates of a user
HERE: Final = Path(__file__).resolve().parent
_GRAPH_FOLDER: Final = "parts/network/fp32"
_IN_BUNDLES: Final = ("epsilon-encoder", "unused-row")
_WORDS: Final = {
    Status.FAIL: "FAIL",
    Status.INCONCLUSIVE: "inconclusive",
    Status.NOT_APPLICABLE: "-",
    Status.PASS: "pass",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table.

    Attributes:
        name: As ``--only`` says it.
        cells: Column -> text.
        problem: What is not as it must be; empty if all is.
    """

    name: str
    cells: dict[str, str]
    problem: str = ""


@dataclass(slots=True)
class Remembered:
    """A reference that answers each case once: faults do not change what PyTorch says.

    Attributes:
        reference: Who answers.
        known: Case name -> the case and its answer.
    """

    reference: Reference
    known: dict[str, tuple[Case, Answer]] = field(default_factory=dict)

    def answer(self, case: Case) -> Answer:
        """Return the answer, from memory where it can."""
        if case.name not in self.known:
            self.known[case.name] = case, self.reference.answer(case)
        return self.known[case.name][1]


@dataclass(frozen=True, slots=True)
class Exported:
    """A network and the files that anyport made of it."""

    part: Part
    captured: Capture
    graph: Graph
    reference: Remembered

    def verdict(self, folder: Path | None = None) -> Verdict:
        """Verify the files of a folder, by default the exported ones."""
        model = self.graph.path if folder is None else folder / MODEL
        return verify_part(self.part, self.captured, model, self.reference, SETTINGS)


def export(subject: Subject, folder: Path, opset: int = DEFAULT_OPSET) -> Exported:
    """Export a network into a new folder, weights beside the graph as in a bundle."""
    folder.mkdir(parents=True)
    part = subject.part()
    captured = capture(part)
    graph = store(convert(captured, part, opset), folder / MODEL, StoreOptions())
    return Exported(part, captured, graph, Remembered(TorchReference(part)))


def legs_of(verdict: Verdict) -> dict[str, str]:
    """Return leg -> its word; the values with the worst ratio, in floors."""
    words = {leg.name: _WORDS[leg.status] for leg in verdict.legs}
    ratio = max((found.ratio_max for found in verdict.findings), default=0.0)
    words["values"] += f" {ratio:.2g}x" if ratio < 1e4 else f" {ratio:.0e}x".replace("e+0", "e")
    return words


def message_of(verdict: Verdict) -> str:
    """Return the first line of what a user reads; empty for a pass."""
    try:
        verdict.raise_if_bad()
    except MismatchError as err:
        return err.what
    return ""


def power_of(verdict: Verdict) -> str:
    """Return the least reaction of the outputs, and to an input, in floors."""
    words = verdict.leg("power").line.replace("outputs move ", "").replace(" floors or more", "")
    return words.replace(", and react to each input by ", " / ")


# ── the groups ──────────────────────────────────────────────────────────────────────────────────────────
def clean(folder: Path, is_wanted: Callable[[str], bool]) -> Iterator[Row]:
    """Export each network and expect a pass."""
    for subject in CLEAN:
        if is_wanted(subject.name):
            yield _clean_row(subject, folder / subject.name)


def _clean_row(subject: Subject, folder: Path) -> Row:
    started_s = time.monotonic()
    exported = export(subject, folder)
    export_s, started_s = time.monotonic() - started_s, time.monotonic()
    verdict = exported.verdict()
    worst = max(found.ratio_max for found in verdict.findings)
    worst_rms = max(found.ratio_rms for found in verdict.findings)
    cells = {
        "network": subject.name,
        "dynamic axes": ", ".join(f"{name} {sizes}" for name, sizes in subject.dims.items()),
        "nodes": str(exported.graph.n_nodes),
        "cases": str(len(verdict.plan.cases)),
        "worst": f"{worst:.2f}",
        "rms": f"{worst_rms:.2f}",
        "power": power_of(verdict),
        "weights": verdict.leg("weights").line.replace(" weights found", ""),
        "verdict": verdict.status.value,
        "export s": f"{export_s:.1f}",
        "verify s": f"{time.monotonic() - started_s:.1f}",
    }
    return Row(subject.name, cells, _unlike(verdict, Status.PASS))


def _unlike(verdict: Verdict, wanted: Status) -> str:
    if verdict.status is wanted:
        return ""
    return f"{verdict.status.value} where {wanted.value} is right: {message_of(verdict)}"


def faults(folder: Path, is_wanted: Callable[[str], bool]) -> Iterator[Row]:
    """Plant each fault in a copy of a proven export and expect it to be caught by the right legs."""
    sources = {subject.name: subject for subject in (DENSE, ENCODER, VISION)}
    exports: dict[str, Exported] = {}
    for fault in planted_faults(unused_row()):
        if not is_wanted(fault.name):
            continue
        if fault.subject not in exports:
            exports[fault.subject] = export(sources[fault.subject], folder / fault.subject)
            yield _no_fault_row(exports[fault.subject])
        yield _fault_row(fault, exports[fault.subject], folder / fault.name)


def zeroed(folder: Path, is_wanted: Callable[[str], bool]) -> Iterator[Row]:
    """Zero the largest element of twenty weights, one at a time."""
    if not is_wanted("zero-largest"):
        return
    exported = export(ENCODER, folder / ENCODER.name)
    yield _no_fault_row(exported)
    for number, name in enumerate(weight_names(exported.graph.path.parent), start=1):
        fault = Fault(f"zero-largest {number}", ENCODER.name, partial(zero_largest, name=name), WEIGHTS_ONLY)
        yield _fault_row(fault, exported, folder / f"zeroed_{number}")


def unused_row() -> int:
    """Return a row of the vocabulary that no case of the default plan looks up."""
    signature = ENCODER.signature
    sizes = example_sizes(tuple(signature.dims.values()))
    plan = plan_cases(signature.inputs, signature.dims, sweep_settings(SETTINGS, sizes))
    used = {int(i) for case in plan.cases for i in case.arrays(signature.inputs)["input_ids"].flat}
    n_rows = int(signature.inputs[0].high or 0) + 1
    return next(row for row in range(n_rows // 2, n_rows) if row not in used)


def limits(folder: Path, is_wanted: Callable[[str], bool]) -> Iterator[Row]:
    """Plant a fault that changes every answer by less than what passes: no comparison of answers sees it.

    Over 48 000 random tokens the damaged encoder was at most 3.0 floors off, where 8 pass.
    """
    if not is_wanted("gelu-faint"):
        return
    exported = export(FAINT, folder / FAINT.name)
    yield _no_fault_row(exported)
    shutil.copytree(exported.graph.path.parent, folder / "damaged")
    where = GELU_TANH(folder / "damaged")
    verdict = exported.verdict(folder / "damaged")
    cells = {"fault": "gelu-faint", "planted": where, **legs_of(verdict), "message": message_of(verdict)}
    yield Row("gelu-faint", cells, _unlike(verdict, Status.PASS))


def _no_fault_row(exported: Exported) -> Row:
    """Expect a pass before anything is planted: a fault found in a flagged graph would prove nothing."""
    verdict, name = exported.verdict(), exported.part.name
    cells = {"fault": f"(none: {name})", "planted": "-", **legs_of(verdict), "message": ""}
    return Row(name, cells, _unlike(verdict, Status.PASS))


def _fault_row(fault: Fault, exported: Exported, folder: Path) -> Row:
    shutil.copytree(exported.graph.path.parent, folder)
    where = fault.plant(folder)
    verdict = exported.verdict(folder)
    seen = {leg.name for leg in verdict.legs if leg.status is Status.FAIL}
    missing = sorted(fault.legs - seen)
    cells = {"fault": fault.name, "planted": where, **legs_of(verdict), "message": message_of(verdict)}
    return Row(fault.name, cells, f"not seen by {', '.join(missing)}" if missing else "")


def silent(folder: Path, is_wanted: Callable[[str], bool]) -> Iterator[Row]:
    """Export networks that answer the same to every input, and expect the verdict to say so."""
    for subject in silent_subjects():
        if not is_wanted(subject.name):
            continue
        exported = export(subject, folder / subject.name)
        verdict = exported.verdict()
        answers = [a for _, answer in exported.reference.known.values() for a in answer.outputs.values()]
        largest = max(float(np.max(np.abs(array))) for array in answers)
        cells = {"network": subject.name, "largest answer, float32": f"{largest:.3g}", **legs_of(verdict)}
        cells |= {"verdict": verdict.status.value, "message": message_of(verdict)}
        yield Row(subject.name, cells, _unlike(verdict, Status.INCONCLUSIVE))


def padded(folder: Path, is_wanted: Callable[[str], bool]) -> Iterator[Row]:
    """Verify exports of one masked encoder: torch's own, wrong on a fully padded row, and anyport's."""
    if is_wanted("padded-stock"):
        model = folder / "stock" / "encoder.onnx"
        model.parent.mkdir(parents=True)
        stock_export(model)
        yield _padded_row("padded-stock", "torch.onnx.export, opset 20", _against_source(model), Status.FAIL)
    for opset in (20, 23):
        if is_wanted(name := f"padded-{opset}"):
            verdict = export(ENCODER, folder / name, opset).verdict()
            yield _padded_row(name, f"anyport, opset {opset}", verdict, Status.PASS)


def _padded_row(name: str, what: str, verdict: Verdict, wanted: Status) -> Row:
    failed = sorted({found.case for found in verdict.findings if not found.passed})
    cells = {"export": what, **legs_of(verdict), "verdict": verdict.status.value}
    cells |= {"cases that fail": ", ".join(failed) or "-", "message": message_of(verdict)}
    problem = _unlike(verdict, wanted)
    if wanted is Status.FAIL and not any("padded row" in case for case in failed):
        problem = problem or "the fully padded row is not among the cases that fail"
    return Row(name, cells, problem)


def stock_export(path: Path) -> None:
    """Export the encoder as the documentation of PyTorch shows it, with nothing of anyport."""
    ids, mask = torch.randint(0, 5000, (2, 9)), torch.ones(2, 9, dtype=torch.int64)
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence")}
    with quiet():
        torch.onnx.export(
            encoder(),
            kwargs={"input_ids": ids, "attention_mask": mask},
            f=path,
            output_names=list(ENCODER.outputs),
            dynamic_shapes={"input_ids": axes, "attention_mask": axes},
            opset_version=20,
            dynamo=True,
        )


def _against_source(model: Path) -> Verdict:
    """Verify a plain file as ``anyport verify m.onnx --against subjects.py:encoder`` does."""
    request = VerifyRequest(
        path=model,
        against=f"{HERE / 'subjects.py'}:encoder",
        inputs=ENCODER.inputs,
        dims=ENCODER.dims,
        arguments={},
        settings=SETTINGS,
    )
    return verify_plain(request)


# ── bundles ─────────────────────────────────────────────────────────────────────────────────────────────
def bundles(folder: Path, is_wanted: Callable[[str], bool]) -> Iterator[Row]:
    """Plant two faults in a built bundle and seal it anew, so that digests have nothing to say."""
    wanted = [fault for fault in planted_faults(unused_row()) if fault.name in _IN_BUNDLES]
    wanted = [fault for fault in wanted if is_wanted(f"bundle-{fault.name}")]
    if not wanted:
        return
    folder.mkdir(parents=True)
    built = folder / "encoder.port"
    tables = {"inputs": ENCODER.inputs, "outputs": ENCODER.outputs, "dims": ENCODER.dims}
    description = describe({"model": {"name": "encoder", "source": "subjects.py:encoder"}, **tables}, "here")
    build(BuildPlan(description, HERE, built, SETTINGS), lambda _step, _line: None)
    yield _bundle_row("bundle-as-built", built, _Expected("pass", Status.PASS, Status.PASS))
    for fault in wanted:
        name = f"bundle-{fault.name}"
        damaged = folder / f"{fault.name}.port"
        shutil.copytree(built, damaged)
        fault.plant(damaged / _GRAPH_FOLDER)
        replayed = Status.FAIL if "values" in fault.legs else Status.PASS  # a proof has no weights to compare
        yield _bundle_row(f"{name}, sealed before", damaged, _Expected("FAIL", None, None))
        with open_bundle(built) as bundle:
            manifest = bundle.manifest
        seal_bundle(damaged, manifest)
        yield _bundle_row(f"{name}, sealed anew", damaged, _Expected("pass", replayed, Status.FAIL))


@dataclass(frozen=True, slots=True)
class _Expected:
    """What digests, replay and comparison with the source must say of a bundle; ``None``: not run."""

    digests: str
    replay: Status | None
    against: Status | None


def _bundle_row(name: str, path: Path, expected: _Expected) -> Row:
    problems, messages = [], []
    cells = {"bundle": name, "digests": "pass"}
    try:
        with open_bundle(path) as bundle:
            bundle.check()
            replay = verify_bundle(bundle, open_session)[0] if expected.replay else None
    except BundleError as err:
        cells["digests"], replay = "FAIL", None
        messages.append(err.what)
    if cells["digests"] != expected.digests:
        problems.append(f"digests: {cells['digests']}")
    against = _against_source(path / _GRAPH_FOLDER / MODEL) if expected.against else None
    for column, verdict, wanted in (
        ("replay", replay, expected.replay),
        ("--against", against, expected.against),
    ):
        cells[column] = _WORDS[verdict.status] if verdict is not None else "-"
        if verdict is not None:
            messages.append(message_of(verdict))
        if (verdict.status if verdict is not None else None) is not wanted:
            problems.append(f"{column}: {cells[column]}")
    cells["message"] = next((message for message in reversed(messages) if message), "")
    return Row(name, cells, "; ".join(problems))
