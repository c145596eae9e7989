"""The examples in docstrings run, and say what they show."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
from typing import Final

import pytest

from tests.house import pages, tree

MODULES: Final = [f"anyport.{f.module}".strip(".") for f in tree.package_files() if ">>>" in f.text]


@pytest.mark.parametrize("module", MODULES)
def test_examples_in_docstrings(module: str) -> None:
    result = doctest.testmod(importlib.import_module(module), optionflags=doctest.ELLIPSIS)
    assert result.attempted
    assert not result.failed


def test_examples_of_the_house_tests() -> None:
    assert doctest.testmod(pages) == doctest.TestResults(failed=0, attempted=2)
