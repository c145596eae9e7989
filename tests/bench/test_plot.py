"""The report as a picture."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from anyport.bench.blank import Blank
from anyport.bench.plot import check_plot, draw
from anyport.errors import MissingExtraError, UsageError
from tests.bench.test_table import example


@pytest.fixture
def matplotlib() -> None:
    pytest.importorskip("matplotlib", reason="the extra plot is not installed")


@pytest.mark.usefixtures("matplotlib")
def test_a_plot_is_drawn_and_the_same_each_time(tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        draw(example(), tmp_path / name, "svg")
    text = (tmp_path / "a.svg").read_text("utf-8")
    assert text == (tmp_path / "b.svg").read_text("utf-8")
    assert text.startswith("<?xml")
    draw(example(), tmp_path / "c", "png")
    assert (tmp_path / "c").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


@pytest.mark.usefixtures("matplotlib")
def test_a_report_of_blanks_is_drawn_too(tmp_path: Path) -> None:
    [contest] = example().contests
    blank = replace(contest.rows[2], throughput=Blank("no batch"))
    report = replace(example(), contests=(replace(contest, rows=(blank,)), contest))
    draw(report, tmp_path / "a.svg", "svg")
    assert (tmp_path / "a.svg").stat().st_size > 1000


def test_another_format_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        check_plot(Path("bench.pdf"))
    assert str(caught.value) == (
        "'bench.pdf' is no name for a report\n"
        "  do:    end it in .svg or .png for a plot, .json for the numbers"
    )


def test_without_the_extra_nothing_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "matplotlib", raising=False)
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    with pytest.raises(MissingExtraError) as caught:
        check_plot(Path("bench.svg"))
    assert str(caught.value) == (
        "drawing the plot needs the package 'matplotlib', which is not installed\n"
        "  do:    pip install 'anyport[plot]'"
    )
