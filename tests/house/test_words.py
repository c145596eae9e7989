"""The words of house.md that ruff does not read: TODOs, broad excepts, the environment, names, units."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, Final

import pytest

from tests.house import tree

if TYPE_CHECKING:
    from collections.abc import Iterator

_TODO: Final = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b(?!\(#\d+\))")
_VAGUE_CLASS: Final = re.compile(r"(Manager|Handler|Helper|Util|Utils|Info|Data)$")
_VAGUE_NAMES: Final = {"data", "do", "handle", "helper", "info", "manager", "process", "stuff", "tmp"}
_NEEDS_UNIT: Final = re.compile(
    r"(^|_)(timeout|latency|duration|delay|interval|elapsed|memory|memory_limit)$"
)
_REASON: Final = re.compile(r"noqa: BLE001\s+(\(|-- )\w+")
_COUNT: Final = re.compile(r"^(num|nb|count|number_of)_|_count$")
_ENVIRONMENT: Final = {"os.environ", "os.environb", "os.getenv", "os.putenv"}


def walk() -> Iterator[tuple[tree.SourceFile, ast.AST]]:
    for source in tree.package_files():
        for node in ast.walk(source.tree):
            yield source, node


def test_a_todo_names_an_issue() -> None:
    loose = [
        f"{source.at(line)} {comment}"
        for source in tree.all_files()
        for line, comment in source.comments().items()
        if _TODO.search(comment)
    ]
    assert not loose, f"write TODO(#12): {loose}"


def test_broad_excepts_stay_at_the_edges() -> None:
    """Elsewhere one adds context and raises; one that swallows says why: `noqa: BLE001  (reason)`."""
    wrong = [
        source.at(node.lineno)
        for source, node in walk()
        if isinstance(node, ast.ExceptHandler) and _is_broad(node)
        if not isinstance(node.body[-1], ast.Raise)
        if not _REASON.search(source.comments().get(node.lineno, ""))
    ]
    assert not wrong, f"broad except that swallows without a reason: {wrong}"


def _is_broad(node: ast.ExceptHandler) -> bool:
    caught = ast.unparse(node.type) if node.type else "BaseException"
    return bool({"Exception", "BaseException"} & set(re.findall(r"\w+", caught)))


def test_only_the_cli_prints() -> None:
    wrong = [
        source.at(node.lineno)
        for source, node in walk()
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"print", "sys.stdout.write"}
        if source.room != "cli"
    ]
    assert not wrong


def test_the_environment_is_read_at_the_edges() -> None:
    wrong = [
        f"{source.at(node.lineno)} {ast.unparse(node)}"
        for source, node in walk()
        if isinstance(node, ast.Attribute) and ast.unparse(node) in _ENVIRONMENT
        if source.room != "cli" and source.module != "service.settings"
    ]
    assert not wrong, f"read it in cli/ and hand the value down: {wrong}"


def test_names_say_something() -> None:
    vague = [
        f"{source.at(node.lineno)} {node.name}"
        for source, node in walk()
        if (isinstance(node, ast.ClassDef) and _VAGUE_CLASS.search(node.name))
        or (isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.strip("_") in _VAGUE_NAMES)
    ]
    assert not vague


def test_numbers_carry_their_unit() -> None:
    bare = [f"{place} {name}" for place, name in _numbers() if _NEEDS_UNIT.search(name)]
    assert not bare, f"name the unit (timeout_s, memory_limit_bytes): {bare}"
    miscounted = [f"{place} {name}" for place, name in _numbers() if _COUNT.search(name)]
    assert not miscounted, f"counts are n_*: {miscounted}"


def _numbers() -> Iterator[tuple[str, str]]:
    """Yield place and name of each parameter and field that is annotated as a number."""
    for source, node in walk():
        if isinstance(node, ast.arg) and node.annotation is not None:
            name, kind = node.arg, node.annotation
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name, kind = node.target.id, node.annotation
        else:
            continue
        if {"int", "float"} & set(re.findall(r"\w+", ast.unparse(kind))):
            yield source.at(node.lineno), name


def test_no_keywords_are_tunnelled() -> None:
    """A function that takes **options and hands them on hides its interface; click calls the verbs so."""
    tunnels = [
        f"{source.at(node.lineno)} {node.name}"
        for source, node in walk()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and source.room != "cli"
        if node.args.kwarg and node.args.kwarg.arg in _handed_on(node)
    ]
    assert not tunnels


def _handed_on(function: ast.AST) -> set[str]:
    """Return the names that stand behind ** in a call."""
    keywords = (node for node in ast.walk(function) if isinstance(node, ast.keyword) and node.arg is None)
    return {ast.unparse(node.value) for node in keywords}


@pytest.mark.parametrize(
    ("comment", "is_loose"),
    [
        ("# TODO: later", True),
        ("# TODO(ann): later", True),
        ("# FIXME", True),
        ("# TODO(#12): later", False),
        ("# a list of todos", False),
    ],
)
def test_what_a_todo_looks_like(comment: str, is_loose: bool) -> None:
    assert bool(_TODO.search(comment)) is is_loose
