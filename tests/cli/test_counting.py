"""The count of a long run: on a terminal, and nowhere else."""

from __future__ import annotations

import sys

import pytest

from anyport.cli.counting import counting


def counted(capsys: pytest.CaptureFixture[str], *, is_wanted: bool = True) -> tuple[str, str]:
    with counting(is_wanted=is_wanted) as progress:
        progress("texts written", 8, 10)
        progress("pictures read", 1, 1)
    found = capsys.readouterr()
    return found.out, found.err


def test_a_terminal_is_told_and_left_clean(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert counted(capsys) == ("", "\r\x1b[K  texts written: 8 of 10\r\x1b[K")
    with pytest.raises(ValueError, match="bad"), counting(is_wanted=True):
        raise ValueError("bad")
    assert capsys.readouterr().err == "\r\x1b[K"


def test_a_pipe_and_a_program_are_not(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert counted(capsys) == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert counted(capsys, is_wanted=False) == ("", "")
