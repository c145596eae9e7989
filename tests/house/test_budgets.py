"""The sizes of house.md that ruff does not count; what it counts stands in pyproject.toml."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, Final

import pytest

from tests.house import tree

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_FILE_LINES: Final = 500
MAX_BODY_LINES: Final = 40
MAX_BODY_LINES_P90: Final = 25
MAX_PARAMETERS: Final = 5
MAX_NESTING: Final = 3
_FREE_BASES: Final = {"Exception", "Module", "Protocol", "Struct"}
_BLOCKS: Final = (
    ast.If,
    ast.For,
    ast.AsyncFor,
    ast.While,
    ast.With,
    ast.AsyncWith,
    ast.Try,
    ast.TryStar,
    ast.Match,
)

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(source: tree.SourceFile) -> Iterator[Function]:
    for node in ast.walk(source.tree):
        if isinstance(node, Function):
            yield node


def body_lines(function: Function) -> int:
    """Count the lines from the first statement after the docstring to the last."""
    body = function.body[1:] if ast.get_docstring(function, clean=False) is not None else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def parameters(function: Function) -> list[str]:
    arguments = function.args
    names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return names[1:] if names[:1] in (["self"], ["cls"]) else names


def nesting(node: ast.AST) -> int:
    """Return how deep the blocks of a function lie; an ``elif`` is no deeper than its ``if``."""
    deepest = 0
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function | ast.ClassDef | ast.Lambda):
            continue
        inner = nesting(child)
        is_elif = isinstance(node, ast.If) and isinstance(child, ast.If) and node.orelse == [child]
        deepest = max(deepest, inner + (isinstance(child, _BLOCKS) and not is_elif))
    return deepest


def test_files_are_short() -> None:
    long = {f.at(1): n for f in tree.all_files() if (n := len(f.text.splitlines())) > MAX_FILE_LINES}
    assert not long, f"more than {MAX_FILE_LINES} lines: {long}"


def test_functions_are_short() -> None:
    long = {
        f"{source.at(node.lineno)} {node.name}": n
        for source in tree.all_files()
        for node in functions(source)
        if (n := body_lines(node)) > MAX_BODY_LINES
    }
    assert not long, f"more than {MAX_BODY_LINES} lines in the body: {long}"


@pytest.mark.parametrize("folder", ["src", "tests"])
def test_nine_functions_in_ten_are_shorter(folder: str) -> None:
    files = [f for f in tree.all_files() if f.path.is_relative_to(tree.ROOT / folder)]
    lengths = sorted(body_lines(node) for source in files for node in functions(source))
    p90 = lengths[int(0.9 * len(lengths))]
    assert p90 <= MAX_BODY_LINES_P90, f"the 90th percentile of {len(lengths)} functions is {p90} lines"


def test_functions_take_few_parameters() -> None:
    many = {
        f"{source.at(node.lineno)} {node.name}": names
        for source in tree.all_files()
        for node in functions(source)
        if len(names := parameters(node)) > MAX_PARAMETERS and not _is_forward(node)
    }
    assert not many, f"more than {MAX_PARAMETERS} parameters, make a dataclass: {many}"


def _is_forward(node: Function) -> bool:
    """A module's inputs are its tensors: `forward` of torch.nn.Module takes as many as the model has."""
    return node.name == "forward"


def test_blocks_are_shallow() -> None:
    deep = {
        f"{source.at(node.lineno)} {node.name}": n
        for source in tree.all_files()
        for node in functions(source)
        if (n := nesting(node)) > MAX_NESTING
    }
    assert not deep, f"blocks nested deeper than {MAX_NESTING}: {deep}"


def test_inheritance_inside_the_package_is_one_level_deep() -> None:
    classes = {
        node.name: (source.at(node.lineno), [ast.unparse(base).partition("[")[0] for base in node.bases])
        for source in tree.package_files()
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ClassDef) and source.module != "errors"
    }
    bases = {name: [base.rpartition(".")[2] for base in found] for name, (_, found) in classes.items()}
    deep = [
        f"{classes[name][0]} {name} < {base} < {bases[base]}"
        for name, own in bases.items()
        for base in own
        if any(above in classes for above in bases.get(base, []) if above not in _FREE_BASES)
    ]
    assert not deep, f"more than one level: {deep}"


def test_no_budget_is_silenced() -> None:
    rules = re.compile(r"noqa:.*\b(C901|PLR091\d|PLR1702)\b")
    silenced = [
        f"{source.at(line)} {comment}"
        for source in tree.package_files()
        for line, comment in source.comments().items()
        if rules.search(comment)
    ]
    assert not silenced, f"split the function instead: {silenced}"


def test_ruff_counts_the_rest() -> None:
    lint = tree.project()["tool"]["ruff"]["lint"]
    assert lint["select"] == ["ALL"]
    assert lint["mccabe"]["max-complexity"] <= 10
    assert lint["pylint"]["max-args"] <= MAX_PARAMETERS
    silenced = {"ALL", "C90", "C901", "PL", "PLR", "PLR0911", "PLR0912", "PLR0913", "PLR0915"}
    ignored = {rule for rules in (lint["ignore"], *lint["per-file-ignores"].values()) for rule in rules}
    assert not silenced & ignored


@pytest.mark.parametrize(
    ("text", "depth"),
    [
        ("def f():\n  x = 1", 0),
        ("def f():\n  if a:\n    for b in c:\n      with d:\n        x = 1", 3),
        ("def f():\n  if a:\n    x\n  elif b:\n    x\n  elif c:\n    x\n  else:\n    x", 1),
        ("def f():\n  if a:\n    x\n  else:\n    if b:\n      x\n    y", 2),
        ("def f():\n  try:\n    x\n  except E:\n    if a:\n      x", 2),
        ("def f():\n  for a in b:\n    def g():\n      if c:\n        x", 1),
    ],
)
def test_nesting_is_counted_as_a_reader_would(text: str, depth: int) -> None:
    assert nesting(ast.parse(text).body[0]) == depth


def test_a_body_is_counted_without_its_docstring() -> None:
    function = ast.parse('def f(a):\n  """Say.\n\n  More.\n  """\n  x = 1\n\n  return x').body[0]
    assert isinstance(function, ast.FunctionDef)
    assert body_lines(function) == 3
