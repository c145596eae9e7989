from __future__ import annotations

from typing import TYPE_CHECKING

from tests.house import tree

if TYPE_CHECKING:
    from tests.cli.shell import Shell

DIGITS = tree.PACKAGE / "demo" / "digits.port"


def test_advice_is_printed_with_its_sources(shell: Shell) -> None:
    done = shell("advise", DIGITS, "--for", "browser")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("digits.port for browser: a convolutional network")
    assert "[measured for anyport: " in done.out
    assert "[from elsewhere: https://" in done.out
    assert "    anyport build " in done.out


def test_advice_as_json(shell: Shell) -> None:
    record = shell("advise", DIGITS, "--for", "iphone", "--variant", "fp32", "--json").record
    assert record["target"] == "iphone"
    assert {one["topic"] for one in record["statements"]} >= {"runtime", "format", "precision"}
    assert record["commands"][0].startswith("anyport build ")


def test_wrong_words_are_exit_code_2(shell: Shell) -> None:
    done = shell("advise", DIGITS, "--for", "toaster")
    assert done.code == 2
    assert "there is no target 'toaster'" in done.err
    assert shell("advise", DIGITS).code == 2
    assert shell("advise", DIGITS, "--for", "browser", "--variant", "no").code == 2
