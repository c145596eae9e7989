"""Markdown pages as the documentation test reads them: fenced blocks, and the commands in console blocks.

The rules, short enough to keep in mind while writing a page (CONTRIBUTING.md repeats them):

- every fence names its language;
- ``console``: lines that start with ``$ anyport`` or ``$ python`` are run, other ``$`` lines are not; what is
  shown below a command is compared with what it prints: ``…`` stands for anything, alone on a line for any
  lines, and the number of spaces does not matter; a command with no output below it is only run;
  ``# exit code 1`` after a command says how it ends;
- ``python``: run as a script; ``toml`` and ``json``: parsed;
- ``<!-- not run: REASON -->`` above a fence leaves it out.

A page is one sitting: its blocks run in order, in one folder that holds a copy of examples/.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

_FENCE: Final = re.compile(r"^ *```+ *(?P<language>\S*) *$")
_SKIP: Final = re.compile(r"^<!-- not run: (?P<reason>\S.*) -->$")
_EXIT: Final = re.compile(r"#.*\bexit code (\d)")


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block.

    Attributes:
        line: Where its first line stands in the page.
        language: The word after the fence.
        text: What it holds.
        skipped: Why it is not run; empty if it is.
    """

    line: int
    language: str
    text: str
    skipped: str


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a console block.

    Attributes:
        words: The command and its arguments.
        shown: The lines that the page shows below it.
        exit_code: How it ends.
    """

    words: tuple[str, ...]
    shown: tuple[str, ...]
    exit_code: int


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page."""
    lines = page.read_text(encoding="utf-8").splitlines()
    found: list[Block] = []
    start, reason = 0, ""
    for number, line in enumerate(lines, 1):
        fence = _FENCE.match(line)
        if fence and start:
            language = lines[start - 1].strip(" `")
            found.append(Block(start + 1, language, "\n".join(lines[start : number - 1]), reason))
            start, reason = 0, ""
        elif fence:
            start = number
        elif not start and line.strip():
            skip = _SKIP.match(line.strip())
            reason = skip["reason"] if skip else ""
    return found


def commands(text: str) -> list[Command]:
    """Return the commands of a console block."""
    found: list[Command] = []
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, shown = part.replace("\\\n", " ").partition("\n")
        end = _EXIT.search(command)
        words = tuple(shlex.split(command, comments=True))
        found.append(Command(words, tuple(shown.splitlines()), int(end[1]) if end else 0))
    return found


def fits(shown: tuple[str, ...], printed: str) -> bool:
    r"""Say whether a command printed what the page shows.

    >>> fits(("worst …x   PASS",), "worst 1.3x PASS")
    True
    >>> fits(("first", "…", "last"), "first\nlast")
    True
    """
    pattern = ""
    for line in "\n".join(shown).strip("\n").splitlines():
        words = " ".join(line.split())
        anything = r"(?:[^\n]*\n)*?"
        pattern += anything if words == "…" else ".*?".join(map(re.escape, words.split("…"))) + r"\n"
    lines = [" ".join(line.split()) for line in printed.strip("\n").splitlines()]
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in lines)) is not None
