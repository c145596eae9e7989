"""Tests mirror the files, every room has its page, no file names the machine it was written on."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path
from typing import Final

from tests.house import tree

_NO_MIRROR: Final = {"__init__", "__main__"}
_READ: Final = {".json", ".md", ".py", ".toml", ".txt", ".yml"}


def rooms() -> list[Path]:
    return [path for path in sorted(tree.PACKAGE.iterdir()) if any(path.glob("*.py"))]


def test_every_file_has_its_tests() -> None:
    missing = []
    for source in tree.package_files():
        if source.path.stem in _NO_MIRROR:
            continue
        folder = tree.ROOT / "tests" / source.path.parent.relative_to(tree.PACKAGE)
        if not (folder / f"test_{source.path.stem}.py").exists():
            missing.append(f"{(folder / f'test_{source.path.stem}.py').relative_to(tree.ROOT)}")
    assert not missing, "\n".join(["", *missing])


def test_every_room_has_its_page() -> None:
    index = (tree.ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    missing = [
        f"docs/{room.name}.md"
        for room in rooms()
        if not (tree.ROOT / "docs" / f"{room.name}.md").exists() or f"({room.name}.md)" not in index
    ]
    assert not missing, f"write these, and name them in docs/index.md: {missing}"


def test_a_room_opens_with_docstring_imports_and_all() -> None:
    """House rule 2: no work at import time. A literal table and a lazy `__getattr__` are none."""
    allowed = (ast.Import, ast.ImportFrom, ast.If, ast.Assign, ast.AnnAssign, ast.FunctionDef)
    wrong = [
        f"{source.at(node.lineno)} {type(node).__name__}"
        for source in tree.package_files()
        if source.path.stem == "__init__"
        for number, node in enumerate(source.tree.body)
        if not isinstance(node, allowed) and not (number == 0 and ast.get_docstring(source.tree))
    ]
    assert not wrong


def test_no_file_names_the_machine_it_was_written_on() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=tree.ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    places = [str(path) for path in (tree.ROOT, Path.home()) if path != Path(path.anchor)]
    named = re.compile("|".join(rf"(?<![\w.]){re.escape(place)}(?!\w)" for place in places))
    found = []
    for path in (tree.ROOT / line for line in listed.splitlines()):
        if path.suffix in _READ and path.is_file():
            text = path.read_text(encoding="utf-8")
            found += [f"{path.relative_to(tree.ROOT)}: {m.group()}" for m in named.finditer(text)]
    assert not found
