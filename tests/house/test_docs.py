"""README and docs: their commands run, their outputs are what is printed, their links lead somewhere."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING, Final

import pytest

from tests.house import pages, tree

if TYPE_CHECKING:
    from pathlib import Path

PAGES: Final = (
    tree.ROOT / "README.md",
    *sorted((tree.ROOT / "docs").rglob("*.md")),
    *sorted((tree.ROOT / "examples").glob("*/README.md")),
)
# half a minute to two minutes of one core each; what they show of `anyport` is tested in its rooms, too
LONG: Final = {
    "docs/opsets.md",
    "docs/task.md",
    "examples/blip/README.md",
    "examples/qwen_image_edit/README.md",
}
LANGUAGES: Final = {"console", "json", "python", "text", "toml", "yaml"}
_MAIN: Final = "import sys; sys.argv[0] = 'anyport'; from anyport.cli import main; sys.exit(main())"
PROGRAMS: Final = {"anyport": ("-c", _MAIN), "python": ()}
_LINK: Final = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)")
_TIMEOUT_S: Final = 300


def name(page: Path) -> str:
    return str(page.relative_to(tree.ROOT))


@pytest.mark.parametrize(
    "page", [pytest.param(p, marks=[pytest.mark.slow] * (name(p) in LONG), id=name(p)) for p in PAGES]
)
def test_its_blocks_run(page: Path, tmp_path: Path) -> None:
    shutil.copytree(
        tree.ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__")
    )
    for block in pages.blocks(page):
        place = f"{name(page)}:{block.line}"
        assert block.language in LANGUAGES, f"{place} names no known language: '{block.language}'"
        if block.skipped:
            continue
        if block.language == "console":
            run_console(block.text, tmp_path, place)
        elif block.language == "python":
            run([sys.executable, "-c", block.text], tmp_path, place)
        elif block.language in {"json", "toml"}:
            {"json": json.loads, "toml": tomllib.loads}[block.language](block.text)


def run_console(text: str, folder: Path, place: str) -> None:
    for command in pages.commands(text):
        if command.words[0] not in PROGRAMS:
            continue
        shown_as = f"{place} $ {' '.join(command.words)}"
        program = [sys.executable, *PROGRAMS[command.words[0]], *command.words[1:]]
        printed = run(program, folder, shown_as, exit_code=command.exit_code)
        shown = "\n".join(command.shown)
        assert not shown.strip() or pages.fits(command.shown, printed), (
            f"{shown_as}\n--- the page shows\n{shown}\n--- it prints\n{printed}"
        )


def run(command: list[str], folder: Path, place: str, *, exit_code: int = 0) -> str:
    """Run a command as a reader of the page would; return what it prints to either stream."""
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        cwd=folder,
        env=os.environ
        | {
            "PYTHONPATH": str(tree.PACKAGE.parent),
            "COLUMNS": "200",
            "XDG_STATE_HOME": str(folder / "state"),
        },
        timeout=_TIMEOUT_S,
    )
    assert done.returncode == exit_code, f"{place} ends with {done.returncode}:\n{done.stdout}"
    return done.stdout


@pytest.mark.parametrize("page", [*PAGES, tree.ROOT / "CONTRIBUTING.md"], ids=name)
def test_its_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    dead = [target for target in _LINK.findall(text) if not (page.parent / target).exists()]
    assert not dead


def test_the_readme_begins_with_the_two_commands() -> None:
    first = next(block for block in pages.blocks(PAGES[0]) if block.language == "console")
    words = [command.words for command in pages.commands(first.text)]
    assert words[-2:] == [("make", "demo"), ("make", "test")]


PAGE: Final = """
```console
$ anyport run a.port \\
    seven.png            # exit code 1
  7   99.6 %
$ make demo
```

<!-- not run: needs a network -->
```python
print(1)
```
"""


def test_a_page_is_read(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE, encoding="utf-8")
    console, python = pages.blocks(page)
    assert (console.line, console.language, console.skipped) == (3, "console", "")
    assert (python.text, python.skipped) == ("print(1)", "needs a network")
    run_it, make = pages.commands(console.text)
    assert run_it == pages.Command(("anyport", "run", "a.port", "seven.png"), ("  7   99.6 %",), 1)
    assert (make.words, make.shown) == (("make", "demo"), ())


@pytest.mark.parametrize(
    ("shown", "printed", "expected"),
    [
        (("a b",), "a   b\n", True),
        (("a …x c",), "a 1.3x c\n", True),
        (("a …x c",), "a 1.3 c\n", False),
        (("a", "…", "z"), "a\nb\nc\nz\n", True),
        (("a", "…", "z"), "a\nz\n", True),
        (("a", "…"), "a\n", True),
        (("a",), "a\nb\n", False),
        (("a", "b"), "a\n", False),
        (("a …",), "a\nb\n", False),
        (("a.c",), "abc\n", False),
        (("a", ""), "a\n", True),
    ],
)
def test_what_fits(shown: tuple[str, ...], printed: str, expected: bool) -> None:
    assert pages.fits(shown, printed) is expected
