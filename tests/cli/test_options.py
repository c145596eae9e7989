"""Shared options, and plain tables."""

from __future__ import annotations

from dataclasses import dataclass

import click
import pytest

from anyport.cli.options import SizeType, gathered, table


def test_columns_are_aligned_and_lines_have_no_tail() -> None:
    rows = [("a", "1", ""), ("longer", "22"), ("", "x", "y")]
    assert table(rows, indent="") == "a        1\nlonger   22\n         x    y"
    assert table([]) == ""


def test_a_size_is_an_option() -> None:
    @dataclass
    class Words:
        limit_bytes: int | None

    seen: list[int | None] = []

    @click.command()
    @click.option("--limit", "limit_bytes", type=SizeType())
    @gathered(Words)
    def command(words: Words) -> None:
        seen.append(words.limit_bytes)

    command.main(["--limit", "2MB"], standalone_mode=False)
    command.main([], standalone_mode=False)
    assert seen == [2_000_000, None]
    with pytest.raises(click.BadParameter, match="'much' is no size"):
        command.main(["--limit", "much"], standalone_mode=False)
