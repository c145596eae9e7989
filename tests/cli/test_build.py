from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.build.building import ZOO

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.shell import Shell

MODEL = (
    f"{ZOO}/zoo.py:scores_and_choice",
    "--input", "features=float32[batch, 12]",
    "--output", "scores=float32[batch, 7]",
    "--output", "best=int64[batch]",
    "--dim", "batch=1..32",
)  # fmt: skip


def test_a_model_is_built_from_options_alone(shell: Shell, tmp_path: Path) -> None:
    found = shell("build", *MODEL, "-o", tmp_path / "m.port", "--version", "2.0.0", "--max-cases", 8)
    assert (found.code, found.err) == (0, "")
    assert [line.split()[0] for line in found.out.splitlines()] == ["source", "export", "verify", "bundle"]
    record = shell("inspect", tmp_path / "m.port", "--json").record
    assert record["model"]["version"] == "2.0.0"
    again = shell("build", *MODEL, "-o", tmp_path / "m.port")
    assert again.code == 2
    assert again.err.startswith("UsageError: 'm.port' exists already")


def test_json_is_one_document_and_progress_goes_to_the_other_stream(shell: Shell, tmp_path: Path) -> None:
    found = shell("build", *MODEL, "-o", tmp_path / "m.port", "--json", "--max-cases", 8)
    assert found.record["verdicts"][0]["status"] == "PASS"
    assert "  verify " in found.err


def test_a_static_variant_of_an_older_opset(shell: Shell, tmp_path: Path) -> None:
    options = ("--opset", 13, "--fix", "batch=2", "--max-cases", 8)
    found = shell("build", *MODEL, "-o", tmp_path / "m.port", *options)
    assert (found.code, found.err) == (0, "")
    assert "opset 13   dynamic axes: none" in found.out
    record = shell("inspect", tmp_path / "m.port", "--json").record
    assert record["parts"]["network"]["inputs"] == {"features": "float32[2, 12]"}
    assert record["variants"]["fp32"]["steps"][0]["settings"]["fix"] == {"batch": 2}


def test_a_dry_run_writes_nothing(shell: Shell, tmp_path: Path) -> None:
    found = shell("build", *MODEL, "-o", tmp_path / "m.port", "--dry-run")
    assert (found.code, found.err) == (0, "")
    assert found.out.startswith("source    ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--input", "x"), "UsageError: --input 'x' is not understood"),
        (("--dim", "batch=1..2"), "UsageError: --dim names 'batch' twice"),
        (("--opset", "7"), "UsageError: opset 7 cannot be written: 13..23 can"),
        (("--fix", "batch"), "UsageError: --fix 'batch' is not understood"),
        (("--fix", "batch=one"), "UsageError: --fix batch=one is no size"),
        (("--fix", "batch=1,batch=2"), "UsageError: --fix names 'batch' twice"),
        (("--fix", "bath=1"), "UsageError: --fix bath=1: there is no axis 'bath' (did you mean 'batch'?)"),
        (("--fix", "batch=33"), "UsageError: --fix batch=33: the axis takes 1..32 (did you mean 32?)"),
        (("--weights", "copy"), "UsageError: the weights of 'zoo.py:"),
        (("--custom-op", "table.py:OPS"), "SourceError: there is no file 'table.py'"),
        (("--task", "clasify"), "UsageError: there is no task 'clasify' (did you mean 'classify'?)"),
        (("--version", "one"), "UsageError: version 'one' is no semantic version"),
        (("--argument", "colour=red"), "SourceError: forward() has no parameter 'colour'"),
        (("--allow", "everything"), "UsageError: Invalid value for '--allow'"),
    ],
)
def test_wrong_words_are_refused(shell: Shell, tmp_path: Path, words: tuple[str, ...], text: str) -> None:
    found = shell("build", *MODEL, "-o", tmp_path / "m.port", *words)
    assert (found.code, found.out) == (2, "") or found.out.startswith("  source")
    assert found.err.startswith(text)
    assert list(tmp_path.iterdir()) == []


def test_an_undeclared_model_says_what_to_declare(shell: Shell, tmp_path: Path) -> None:
    found = shell("build", MODEL[0], "-o", tmp_path / "m.port")
    assert found.code == 2
    assert "are not declared" in found.err
    assert "--input 'x=float32[batch, 3, 224, 224]'" in found.err


def test_a_model_that_is_refused_ends_with_1(shell: Shell, tmp_path: Path) -> None:
    small = ("--input", "x=float32[n, 4]", "--output", "y=float32[n, 4]", "--dim", "n=1..4")
    found = shell("build", f"{ZOO}/zoo.py:noise", *small, "-o", tmp_path / "m.port")
    assert found.code == 1
    assert found.err.startswith("RefusedModelError: part 'network' draws random numbers (randn)")
    assert "zoo.py:" in found.err


def test_a_variant_that_does_not_pass_its_gates_is_no_success(shell: Shell, tmp_path: Path) -> None:
    words = (
        f"{ZOO}/zoo.py:image_and_text",
        "--input", "pixel_values=float32[batch, 3, 32, 32]",
        "--input", "input_ids=int64[batch, sequence] 0..49",
        "--output", "embedding=float32[batch, 16]",
        "--dim", "batch=1..16", "--dim", "sequence=1..24",
        "--compress", "int8-dynamic", "--max-cases", 8,
    )  # fmt: skip
    without = shell("build", *words, "-o", tmp_path / "a.port")
    assert without.code == 2
    assert without.err.startswith("UsageError: --compress int8-dynamic has no samples to be judged by")
    samples = ("--calibrate", f"{ZOO}/judging.py:few")
    few = shell("build", *words, "-o", tmp_path / "b.port", *samples)
    assert few.code == 2
    assert "judging.py:few are too few" in few.err
    samples = ("--calibrate", f"{ZOO}/judging.py:pairs", "--evaluate", f"{ZOO}/judging.py:worse_each_time")
    worse = shell("build", *words, "-o", tmp_path / "m.port", *samples, "--prefer", "size", "--json")
    assert worse.code == 1
    assert list(worse.record["refused"]) == ["int8-dynamic"]
    assert list(shell("inspect", tmp_path / "m.port", "--json").record["variants"]) == ["fp32"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--simplify", "atuo"), "UsageError: there is no simplifier 'atuo'"),
        (("--compress", "int9"), "UsageError: there is no method 'int9'"),
        (("--weights", "stream"), "UsageError: Invalid value for '--weights'"),
        (
            ("--weights", "copy", "--simplify", "auto"),
            "UsageError: --simplify does not go with --weights copy",
        ),
        (
            ("--compress", "int8", "--calibrate", "random", "--metric", "scors=psnr"),
            "UsageError: [metrics] names 'scors'",
        ),
    ],
)
def test_a_dry_run_knows_wrong_words(words: tuple[str, ...], text: str, shell: Shell, tmp_path: Path) -> None:
    found = shell("build", *MODEL, "-o", tmp_path / "m.port", "--dry-run", *words)
    assert found.code == 2
    assert found.err.startswith(text)
