"""What a row of `bench/silent_failures.py` is made of: the tool's words, the truth, and what anyport says."""

from __future__ import annotations

import contextlib
import io
import logging
import time
import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import onnxruntime as ort

from anyport.cli import main
from anyport.cli.frame import OUR_MISTAKE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import Tensor, nn

Outcome = Literal["caught", "MISSED", "not reproduced", "skipped", "broken"]

MODELS: Final = Path("bench/silent_models.py")  # from the root of the repository, where everything is run
_QUIET: Final = (DeprecationWarning, FutureWarning, PendingDeprecationWarning, ResourceWarning)
_LONGEST: Final = 100  # of what is quoted
_LOG_FATAL: Final = 4


@dataclass(frozen=True, slots=True)
class Said:
    """What someone answered, and how long it took.

    Attributes:
        text: In one line.
        seconds: Wall time.
    """

    text: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What anyport answered.

    Attributes:
        command: As a user types it; or the function that was called.
        text: Its line.
        is_right: Whether the line says what is wrong, or the result is not wrong any more.
        seconds: Wall time, imports of PyTorch aside.
    """

    command: str
    text: str
    is_right: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of a row.

    Attributes:
        tool: What the tool said.
        truth: What is true, measured here.
        is_wrong: Whether the tool's result is in fact wrong today.
        anyport: What anyport said.
    """

    tool: Said
    truth: str
    is_wrong: bool
    anyport: Answer

    @property
    def outcome(self) -> Outcome:
        """In one word."""
        if not self.is_wrong:
            return "not reproduced"
        return "caught" if self.anyport.is_right else "MISSED"


@dataclass(frozen=True, slots=True)
class Case:
    """A row.

    Attributes:
        name: As ``--only`` says it.
        title: The architecture, and the step.
        find: Does everything, in a folder of its own.
        needs: Packages without which the row is skipped.
        unless: Says why the row does not apply to this machine; empty if it does.
    """

    name: str
    title: str
    find: Callable[[Path], Finding]
    needs: tuple[str, ...] = ()
    unless: Callable[[], str] = str

    def reason_to_skip(self) -> str:
        """Say what is missing here; empty if nothing is."""
        missing = [package for package in self.needs if find_spec(package) is None]
        return f"{' and '.join(missing)} not installed" if missing else self.unless()


# ── the tools ───────────────────────────────────────────────────────────────────────────────────────────
def tool_says(call: Callable[[], object], verdict: str) -> Said:
    """Call a tool, and return its first warning, or a verdict if it has none.

    Args:
        call: The tool; what it prints and logs is dropped, as in any script.
        verdict: What an ending without a warning says.
    """
    with quiet() as caught:
        started_s = time.monotonic()
        call()
        seconds = time.monotonic() - started_s
    told = [str(warning.message) for warning in caught if not issubclass(warning.category, _QUIET)]
    told = [text for text in told if "deprecated" not in text and "legacy" not in text]
    if not told:
        return Said(verdict, seconds)
    first = " ".join(told[0].split("\n")[0].split())
    return Said(f"{verdict}; warned: {cut(first.removeprefix('# '))}", seconds)


def cut(text: str) -> str:
    """Shorten what is quoted."""
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1].rstrip()}…"


@contextlib.contextmanager
def quiet() -> Iterator[list[warnings.WarningMessage]]:
    """Collect warnings, and drop what is printed and logged."""
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(record=True) as caught,
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("always")
            yield caught
    finally:
        logging.disable(logging.NOTSET)


# ── the truth ───────────────────────────────────────────────────────────────────────────────────────────
def run_file(path: Path, feeds: Mapping[str, np.ndarray], level: str = "ALL") -> dict[str, np.ndarray]:
    """Run a file on onnxruntime, by default as it opens a file unasked."""
    options = ort.SessionOptions()
    options.log_severity_level = _LOG_FATAL
    options.intra_op_num_threads = 1
    options.graph_optimization_level = getattr(
        ort.GraphOptimizationLevel, "ORT_DISABLE_ALL" if level == "NONE" else f"ORT_ENABLE_{level}"
    )
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


def run_torch(module: nn.Module, inputs: tuple[Tensor, ...]) -> np.ndarray:
    """Return what PyTorch computes in float64; integers stay what they are."""
    import torch

    with torch.no_grad():
        wide = tuple(x.double() if x.is_floating_point() else x for x in inputs)
        answer = module.double()(*wide)
        module.float()
    array: np.ndarray = answer.numpy()
    return array


def difference(want: np.ndarray, got: np.ndarray) -> tuple[float, str]:
    """Return how far an answer is off, and that in words; infinite if it is not finite where it must be.

    >>> difference(np.array([1.0, 2.0]), np.array([1.0, 2.5]))
    (0.5, 'off by 0.5 where answers reach 2')
    >>> difference(np.array([1.0, -2.0]), np.array([1.0, -np.inf]))
    (inf, '-inf where PyTorch has -2')
    """
    if want.shape != got.shape:
        return float("inf"), f"shape {got.shape} where PyTorch has {want.shape}"
    strange = ~np.isfinite(got) & np.isfinite(want)
    if strange.any():
        place = np.argmax(strange)
        return float("inf"), f"{got.flat[place]:.3g} where PyTorch has {want.flat[place]:.3g}"
    worst = float(np.max(np.abs(want - got), initial=0.0))
    return worst, f"off by {worst:.2g} where answers reach {float(np.max(np.abs(want))):.2g}"


# ── anyport ─────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class Printed:
    """How a command of anyport ended.

    Attributes:
        command: As a user types it.
        code: The exit code.
        out: What it printed.
        err: What it printed to standard error.
        seconds: Wall time.
    """

    command: str
    code: int
    out: str
    err: str
    seconds: float

    @property
    def line(self) -> str:
        """The first line of an error; else the line with the verdict, or the last one."""
        return told(self.out, self.err, self.code)

    def answer(self, text: str, *, is_right: bool) -> Answer:
        """Return it as the answer of a row."""
        return Answer(self.command, text, is_right, self.seconds)


def run_anyport(*words: object) -> Printed:
    """Run a command line of anyport in this process.

    Raises:
        RuntimeError: It ended with a mistake of its own.
    """
    out, err = io.StringIO(), io.StringIO()
    with quiet(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        started_s = time.monotonic()
        code = main([str(word) for word in words])
        seconds = time.monotonic() - started_s
    if code == OUR_MISTAKE:
        raise RuntimeError(f"{shown(words)}: {err.getvalue().strip()[-300:]}")
    return Printed(shown(words), code, out.getvalue(), err.getvalue(), seconds)


def anyport_says(*words: object, expected: str, code: int = 1) -> Answer:
    """Run a command line of anyport; right is the line that is expected, and its exit code.

    Args:
        words: The command line.
        expected: What the line must say: of an error its type too, so that no other one counts.
        code: The exit code; 1, a check failed.
    """
    return heard(run_anyport(*words), expected, code)


def heard(printed: Printed, expected: str, code: int = 1) -> Answer:
    """Return what a command said as an answer; see `anyport_says`."""
    return printed.answer(printed.line, is_right=printed.code == code and expected in printed.line)


def told(out: str, err: str, code: int) -> str:
    r"""Return the first line of an error; else the line with the verdict, or the last one.

    >>> told("", "MismatchError: output 'y' is off by 0.5\n  where: part m\n", 1)
    "MismatchError: output 'y' is off by 0.5"
    >>> told("  verify  12 cases   PASS\n  write  m.onnx\n", "", 0)
    'verify 12 cases PASS'
    """
    lines = [" ".join(line.split()) for line in (err if code else out).splitlines() if line.strip()]
    if not lines:
        return f"exit code {code}"
    if code:
        return next((line for line in lines if "Error: " in line), lines[0])
    return next((line for line in lines if line.endswith("PASS")), lines[-1])


def shown(words: tuple[object, ...]) -> str:
    """Write a command as a user types it; of a file in a working folder only the name.

    >>> shown(("verify", Path("/tmp/x/m.onnx"), "--input", "x=float32[batch, 4]"))
    "anyport verify m.onnx --input 'x=float32[batch, 4]'"
    """
    texts = [word.name if isinstance(word, Path) else str(word) for word in words]
    return " ".join(["anyport", *(f"'{text}'" if set(text) & set(" [") else text for text in texts)])
