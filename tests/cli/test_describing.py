from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest

from anyport.cli.describing import describing_options, plan_from, read_fixes, settings_from, step_printer
from anyport.errors import UsageError

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits"


def chosen(*words: str) -> dict[str, Any]:
    """Parse words as the verbs that describe a model do."""
    found: dict[str, Any] = {}

    @click.command()
    @describing_options
    def command(**options: Any) -> None:
        found.update(options)

    command.main([*words, "-o", "m.port"], standalone_mode=False)
    return found


def test_options_go_over_the_file() -> None:
    plan = plan_from(str(EXAMPLE), chosen("--version", "9.0.0", "--set", 'labels=["a"]', "--max-cases", "3"))
    assert plan.description.model.version == "9.0.0"
    assert plan.description.model.name == "digits"
    assert plan.description.settings["labels"] == ["a"]
    assert plan.description.settings["mode"] == "L"
    assert plan.settings.max_cases == 3
    assert plan.folder == EXAMPLE


def test_what_changes_the_graph_is_given_once_for_all_verbs() -> None:
    words = ("--opset", "13", "--fix", "batch=1,height=224", "--fix", "width=8", "--custom-op", "t.py:OPS")
    settings = settings_from(chosen(*words))
    assert settings.opset == 13
    assert settings.fix == {"batch": 1, "height": 224, "width": 8}
    assert settings.custom_ops == "t.py:OPS"
    assert settings_from(chosen()).fix == {}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["batch"], "--fix 'batch' is not understood"),
        (["batch=1", "batch=1"], "--fix names 'batch' twice"),
        (["batch=-1"], "--fix batch=-1 is no size"),
        (["batch=1..4"], "--fix batch=1..4 is no size"),
    ],
)
def test_sizes_to_fix_are_read_strictly(options: list[str], text: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_fixes(options)
    assert caught.value.what == text


def test_the_time_of_creation_may_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "12")
    assert settings_from(chosen()).source_date_epoch == 12
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "noon")
    with pytest.raises(UsageError, match="SOURCE_DATE_EPOCH is 'noon', not a number of seconds"):
        settings_from(chosen())


def test_progress_keeps_standard_output_for_json(capsys: pytest.CaptureFixture[str]) -> None:
    step_printer(as_json=True)("export", "fine")
    step_printer(as_json=False)("verify", "good")
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("  verify    good\n", "  export    fine\n")
