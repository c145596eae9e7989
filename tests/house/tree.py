"""The source tree as the house tests read it: parsed files, their rooms, their imports."""

from __future__ import annotations

import ast
import io
import os
import re
import subprocess
import sys
import tokenize
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
PACKAGE: Final = ROOT / "src" / "anyport"

# house.md, "The way of the data, and the rooms": a room imports only rooms above it
OPEN_TO_ALL: Final = ("errors", "axes", "tensors", "cases")
ABOVE_THE_BAR: Final = ("bundle", "runtime", "task", "verify", "bench", "service")
BELOW_THE_BAR: Final = ("recipe", "source", "graph", "compress", "convert", "build")
IMPORT_ALL: Final = ("report", "cli")
ROOMS: Final = ABOVE_THE_BAR + BELOW_THE_BAR + IMPORT_ALL


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One parsed file of the package.

    Attributes:
        path: Where it lies.
        module: Its dotted name without ``anyport.``; empty for the package's own ``__init__``.
        tree: Its syntax tree.
        text: Its text.
    """

    path: Path
    module: str
    tree: ast.Module
    text: str

    @property
    def room(self) -> str:
        """The first word of the dotted name: a room, or a file at the top."""
        return self.module.partition(".")[0]

    def at(self, line: int) -> str:
        """Name a line of the file, as editors understand it."""
        return f"{self.path.relative_to(ROOT)}:{line}"

    def comments(self) -> dict[int, str]:
        """Return line number -> comment."""
        tokens = tokenize.generate_tokens(io.StringIO(self.text).readline)
        return {token.start[0]: token.string for token in tokens if token.type == tokenize.COMMENT}


@dataclass(frozen=True, slots=True)
class Import:
    """One imported name, wherever the statement stands: lazy ones and those for type checkers count too."""

    source: SourceFile
    line: int
    target: str

    @property
    def where(self) -> str:
        """The place, as editors understand it."""
        return self.source.at(self.line)


def read(path: Path) -> SourceFile:
    """Parse one file of the package, or of another folder of the repository."""
    inside = path.relative_to(PACKAGE).with_suffix("").parts if path.is_relative_to(PACKAGE) else (path.stem,)
    text = path.read_text(encoding="utf-8")
    module = ".".join(part for part in inside if part != "__init__")
    return SourceFile(path, module, ast.parse(text, str(path)), text)


@cache
def package_files() -> tuple[SourceFile, ...]:
    """Return every file of the package."""
    return tuple(read(path) for path in sorted(PACKAGE.rglob("*.py")))


@cache
def all_files() -> tuple[SourceFile, ...]:
    """Return every Python file of the repository."""
    folders = ("src", "tests", "bench", "scripts", "examples")
    return tuple(read(path) for folder in folders for path in sorted((ROOT / folder).rglob("*.py")))


def imports(source: SourceFile) -> list[Import]:
    """Return what a file imports, with modules named in strings for a lazy import."""
    found: list[Import] = []
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            found += [Import(source, node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [Import(source, node.lineno, name) for name in _from_names(node)]
        elif isinstance(node, ast.Call) and _is_import_call(node):
            found.append(Import(source, node.lineno, str(node.args[0].value)))  # type: ignore[attr-defined]
        elif isinstance(node, ast.Constant) and _is_module_name(node.value):
            found.append(Import(source, node.lineno, str(node.value)))
    return found


def _from_names(node: ast.ImportFrom) -> list[str]:
    module = "." * node.level + (node.module or "")
    return [f"{module}.{alias.name}" for alias in node.names] if module == "anyport" else [module]


def _is_import_call(node: ast.Call) -> bool:
    name = ast.unparse(node.func).rpartition(".")[2]
    first = node.args[0] if node.args else None
    return name in {"import_module", "__import__"} and isinstance(first, ast.Constant)


def _is_module_name(value: object) -> bool:
    """Say whether a string names a module of the package, as the literal tables of house rule 8 do."""
    if not isinstance(value, str) or not re.fullmatch(r"anyport(\.\w+)+", value):
        return False
    place = PACKAGE.joinpath(*value.split(".")[1:])
    return place.with_suffix(".py").exists() or (place / "__init__.py").exists()


def run_python(code: str) -> str:
    """Run code in a fresh interpreter that knows this tree; return what it prints."""
    environment = os.environ | {"PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@cache
def project() -> dict[str, Any]:
    """Return pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
