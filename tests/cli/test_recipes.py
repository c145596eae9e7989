"""`anyport recipes`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyport.recipe import RECIPES

if TYPE_CHECKING:
    from tests.cli.shell import Shell


def test_every_family_is_listed_with_its_architectures(shell: Shell) -> None:
    found = shell("recipes")
    assert (found.code, found.err) == (0, "")
    lines = found.out.splitlines()
    assert [line.split()[0] for line in lines if line[2] != " "] == list(RECIPES)
    for entry in RECIPES.values():
        assert entry.about in found.out
        assert all(f"   {word}\n" in found.out for word in entry.architectures)
    assert "   *.pth\n" in found.out


def test_json_says_the_same(shell: Shell) -> None:
    records = shell("recipes", "--json").record["recipes"]
    assert [record["name"] for record in records] == list(RECIPES)
    blip = records[0]
    assert (blip["files"], blip["about"]) == ([".pth"], RECIPES["blip"].about)
    assert blip["architectures"] == sorted(RECIPES["blip"].architectures)
