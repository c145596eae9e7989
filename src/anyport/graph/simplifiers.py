"""The table of simplifiers, each a program that reads one .onnx file and writes another."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Final

from anyport.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ORIGINAL: Final = "none"  # the graph as it is: always in the race
_PROGRAM: Final = Path(__file__).with_name("simplifier_program.py")


@dataclass(frozen=True, slots=True)
class Simplifier:
    """A tool that rewrites a graph.

    Attributes:
        name: What it is called, on the command line and in the log.
        package: The distribution it comes from; ``None`` needs nothing installed.
        program: Run as ``PROGRAM NAME IN.onnx OUT.onnx`` in a process of its own.
    """

    name: str
    package: str | None
    program: Path = _PROGRAM

    @property
    def version(self) -> str | None:
        """The installed version; ``None`` if it is not installed, empty if it needs no package."""
        if self.package is None:
            return ""
        try:
            return version(self.package)
        except PackageNotFoundError:
            return None


SIMPLIFIERS: Final[Mapping[str, Simplifier]] = {  # sorted; nothing is imported in this process
    "onnxscript": Simplifier("onnxscript", "onnxscript"),
    "onnxsim": Simplifier("onnxsim", "onnxsim"),
    "onnxslim": Simplifier("onnxslim", "onnxslim"),
}


def simplifiers_named(names: Iterable[str]) -> tuple[Simplifier, ...]:
    """Return the simplifiers of these names; ``none``, which is always tried, may be among them.

    >>> [tool.name for tool in simplifiers_named(["none", "onnxslim"])]
    ['onnxslim']

    Raises:
        UsageError: There is no such simplifier.
    """
    wanted = dict.fromkeys(names)
    for name in wanted:
        if name != ORIGINAL and name not in SIMPLIFIERS:
            raise UsageError(f"there is no simplifier '{name}'{did_you_mean(name, [ORIGINAL, *SIMPLIFIERS])}")
    return tuple(SIMPLIFIERS[name] for name in wanted if name != ORIGINAL)
