"""The error tree: its texts, its exit codes, and the drawing in its docstring."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING

import pytest

from anyport import errors
from anyport.errors import AnyportError, MismatchError, MissingExtraError, did_you_mean, require

if TYPE_CHECKING:
    from pathlib import Path


def test_an_error_says_what_where_and_what_to_do() -> None:
    error = MismatchError("output 'y' is off by 3.1e-2", where="case 3 of 8", do="anyport verify m.port")
    assert str(error) == ("output 'y' is off by 3.1e-2\n  where: case 3 of 8\n  do:    anyport verify m.port")
    assert str(AnyportError("alone")) == "alone"


def test_a_missing_extra_names_the_command() -> None:
    error = MissingExtraError("torch", extra="build", step="build")
    assert str(error) == (
        "build needs the package 'torch', which is not installed\n  do:    pip install 'anyport[build]'"
    )


def test_the_drawing_is_the_tree() -> None:
    drawn: dict[str, int] = {}
    exit_code = AnyportError.exit_code
    drawing = inspect.getdoc(errors) or ""
    for name, code in re.findall(r"[├└]── (\w+).*\(exit code (\d)\)", drawing):
        drawn[name] = int(code)
    for name in re.findall(r"[├└]── (\w+)", drawing):
        kind = getattr(errors, name)
        assert issubclass(kind, AnyportError)
        assert kind.exit_code == drawn.get(name, kind.__mro__[1].exit_code)
    assert exit_code == 2
    classes = {
        name
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, AnyportError) and kind is not AnyportError
    }
    assert classes == set(re.findall(r"[├└]── (\w+)", drawing))


@pytest.mark.parametrize(
    ("word", "known", "expected"),
    [
        ("batsh", ["batch", "width"], " (did you mean 'batch'?)"),
        ("q", ["width", "batch"], " (known: 'batch', 'width')"),
        ("q", [], " (none is known here)"),
    ],
)
def test_did_you_mean(word: str, known: list[str], expected: str) -> None:
    assert did_you_mean(word, known) == expected


def test_require_imports_what_is_there() -> None:
    assert require("json", extra="view", step="a test").__name__ == "json"


@pytest.mark.parametrize("package", ["no_such_package", "no_such_package.inside"])
def test_require_names_the_extra(package: str) -> None:
    with pytest.raises(MissingExtraError) as caught:
        require(package, extra="view", step="a test")
    assert str(caught.value) == (
        f"a test needs the package '{package}', which is not installed\n  do:    pip install 'anyport[view]'"
    )


def test_require_lets_a_broken_package_speak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_package.py").write_text("import no_such_package", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="No module named 'no_such_package'"):
        require("broken_package", extra="view", step="a test")
