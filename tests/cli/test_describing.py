from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest

from anyport.build.description import BuildTable, CalibrateTable, EvaluateTable
from anyport.cli.describing import (
    checking_options,
    describing_options,
    plan_from,
    read_fixes,
    settings_from,
    step_printer,
    variant_options,
)
from anyport.errors import UsageError

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits"


def chosen(*words: str) -> dict[str, Any]:
    """Parse words as the verbs that describe a model do."""
    found: dict[str, Any] = {}

    @click.command()
    @variant_options
    @describing_options
    def command(**options: Any) -> None:
        found.update(options)

    command.main([*words, "-o", "m.port"], standalone_mode=False)
    return found


def test_the_proof_of_the_whole_task_is_left_out_by_name() -> None:
    settings = settings_from(chosen("--allow", "unproven-task", "--allow", "failed"))
    assert settings.allow == {"unproven-task", "failed"}


def test_a_proof_that_is_replayed_is_not_left_out() -> None:
    """What `verify` takes is the verdicts alone."""

    @click.command()
    @checking_options
    def command(**_: Any) -> None: ...

    with pytest.raises(click.BadParameter, match="'unproven-task' is not one of 'failed', 'inconclusive'"):
        command.main(["--allow", "unproven-task"], standalone_mode=False)


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
    made = plan_from("m.py:load", chosen(*words)).description.build
    assert made == BuildTable(13, {"batch": 1, "height": 224, "width": 8}, "t.py:OPS")
    assert plan_from("m.py:load", chosen()).description.build == BuildTable()


def test_how_weights_are_stored_comes_from_options_or_the_file(tmp_path: Path) -> None:
    assert plan_from("m.py:load", chosen("--storage", "float32")).description.build.storage == "float32"
    (tmp_path / "anyport.toml").write_text('[model]\nsource = "m.py:load"\n[build]\nstorage = "float32"\n')
    assert plan_from(str(tmp_path), chosen()).description.build.storage == "float32"
    assert plan_from(str(tmp_path), chosen("--storage", "as-is")).description.build.storage == "as-is"


def test_loras_come_from_options_or_the_file(tmp_path: Path) -> None:
    words = ("--lora", "a.safetensors", "--lora", "b.safetensors:0.5")
    assert plan_from("Tiny-Edit", chosen(*words)).request.adapters == ("a.safetensors", "b.safetensors:0.5")
    (tmp_path / "anyport.toml").write_text('[model]\nsource = "Tiny-Edit"\nlora = "c.safetensors"\n')
    assert plan_from(str(tmp_path), chosen()).request.adapters == ("c.safetensors",)
    assert plan_from(str(tmp_path), chosen(*words)).request.adapters == words[1::2]


def test_variants_are_asked_for_in_the_file_or_by_options(tmp_path: Path) -> None:
    (tmp_path / "anyport.toml").write_text(
        '[model]\nsource = "m.py:load"\n[build]\nopset = 17\nfix = { n = 2, m = 3 }\nsimplify = "auto"\n'
        'compress = ["int8"]\n[calibrate]\nsamples = "c.py:samples"\n[evaluate]\nfunction = "e.py:accuracy"\n'
    )
    plain = plan_from(str(tmp_path), chosen()).description
    assert plain.build == BuildTable(17, {"n": 2, "m": 3}, None, "auto", ["int8"])
    assert plain.calibrate == CalibrateTable("c.py:samples")
    assert plain.evaluate == EvaluateTable("e.py:accuracy", 0.005)
    words = ("--fix", "n=4", "--simplify", "none", "--compress", "fp16", "--prefer", "size")
    words += ("--calibrate", "pictures", "--max-drop", "0.01")
    laid_over = plan_from(str(tmp_path), chosen(*words)).description
    assert laid_over.build == BuildTable(17, {"n": 4, "m": 3}, None, "none", ["fp16"], "size")
    assert laid_over.calibrate == CalibrateTable("pictures")
    assert laid_over.evaluate == EvaluateTable("e.py:accuracy", 0.01)


def test_a_drop_without_a_metric_is_refused() -> None:
    with pytest.raises(UsageError, match="--max-drop is of your own metric"):
        plan_from("m.py:load", chosen("--max-drop", "0.1"))


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


def test_texts_go_with_the_pictures_that_they_are_cycled_over(tmp_path: Path) -> None:
    words = ("--calibrate", "photos", "--calibrate-texts", "texts.txt")
    assert plan_from("m.py:load", chosen(*words)).description.calibrate == CalibrateTable(
        "photos", "texts.txt"
    )
    (tmp_path / "anyport.toml").write_text('[model]\nsource = "m.py:load"\n[calibrate]\nsamples = "photos"\n')
    laid_over = plan_from(str(tmp_path), chosen("--calibrate-texts", "t.txt")).description
    assert laid_over.calibrate == CalibrateTable("photos", "t.txt")
    with pytest.raises(UsageError, match="--calibrate-texts go with pictures"):
        plan_from("m.py:load", chosen("--calibrate-texts", "t.txt"))
