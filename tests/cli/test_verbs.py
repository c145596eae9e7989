"""The table of verbs."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

import click
import pytest

from anyport.cli.verbs import VERBS

if TYPE_CHECKING:
    from tests.cli.shell import Shell


def test_the_table_is_sorted() -> None:
    assert list(VERBS) == sorted(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_a_command_with_help_and_json(verb: str, shell: Shell) -> None:
    assert isinstance(import_module(VERBS[verb].module).command, click.Command)
    for option in ("-h", "--help"):
        found = shell(verb, option)
        assert found.code == 0
        assert f"Usage: anyport {verb}" in found.out
        assert "--json" in found.out
