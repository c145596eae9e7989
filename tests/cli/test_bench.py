from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.runtime import networks

if TYPE_CHECKING:
    from tests.cli.shell import Shell

PROJECT = Path(__file__).resolve().parents[2] / "examples" / "digits"
DIGITS = Path(__file__).resolve().parents[2] / "src" / "anyport" / "demo" / "digits.port"
QUICK = ("--seconds", "0.2", "--batches", "1,2")


def test_a_bundle_is_measured_and_the_machine_is_named(shell: Shell, tmp_path: Path) -> None:
    found = shell("bench", networks.corners_bundle(tmp_path), *QUICK)
    assert (found.code, found.err) == (0, "")
    assert "network   batch=1, 1 thread; times faster than fp32" in found.out
    assert "  items per second at batch" in found.out
    assert "onnxruntime 1." in found.out


def test_json_is_one_document_and_is_written_as_well(shell: Shell, tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    first, second = networks.affine(tmp_path / "a.onnx"), networks.affine(tmp_path / "b.onnx")
    found = shell(
        "bench", first, second, *QUICK, "--threads", "1,2", "--size", "batch=4", "-o", out, "--json"
    )
    assert found.code == 0
    [contest] = found.record["contests"]
    assert contest["sizes"] == {"batch": 4}
    assert [(row["name"], row["n_threads"]) for row in contest["rows"]] == [
        ("a.onnx", 1), ("b.onnx", 1), ("a.onnx", 2), ("b.onnx", 2),
    ]  # fmt: skip
    assert all(row["load_s"] > 0 and row["latency"]["median_s"] > 0 for row in contest["rows"])
    assert out.read_text("utf-8") == found.out
    assert "  bench " in found.err


def test_pytorch_takes_part(shell: Shell, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra plot is not installed")
    out = tmp_path / "bench.svg"
    found = shell("bench", DIGITS, "--against", PROJECT, *QUICK, "-o", out, "--json")
    assert found.code == 0
    [contest] = found.record["contests"]
    assert contest["base"] == "pytorch"
    pytorch, fp32 = contest["rows"]
    assert (pytorch["name"], pytorch["speedup_cpu"]["median"]) == ("pytorch", 1.0)
    assert fp32["speedup_cpu"]["median"] > 0
    assert "torch" in found.record["machine"]["packages"]
    assert out.read_text("utf-8").startswith("<?xml")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--threads", "one"), "UsageError: Invalid value for '--threads': 'one' is no list of numbers"),
        (("--threads", "0"), "UsageError: threads [0]: write different numbers from 1 on, such as 1,2"),
        (("--seconds", "0"), "UsageError: 0 seconds are no time to measure in"),
        (("--size", "batch"), "UsageError: Invalid value for '--size': 'batch' is no size"),
        (("--size", "batch=1", "--size", "batch=2"), "UsageError: --size names 'batch' twice"),
        (("--size", "height=1"), "UsageError: --size 'height' is no dynamic axis of any input"),
        (("--variant", "int8"), "UsageError: the bundle has no variant 'int8'"),
        (("-o", "bench.pdf"), "UsageError: 'bench.pdf' is no name for a report"),
    ],
)
def test_wrong_use_is_refused(shell: Shell, tmp_path: Path, words: tuple[str, ...], text: str) -> None:
    found = shell("bench", networks.corners_bundle(tmp_path), *words)
    assert found.code == 2
    assert found.err.startswith(text)
    assert found.out == ""


def test_an_existing_report_is_kept(shell: Shell, tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    out.write_text("mine", "utf-8")
    found = shell("bench", networks.corners_bundle(tmp_path), *QUICK, "-o", out)
    assert found.code == 2
    assert found.err == ("UsageError: 'bench.json' exists already\n  do:    give another name, or --force\n")
    assert shell("bench", tmp_path / "corners.port", *QUICK, "-o", out, "--force").code == 0
    assert out.read_text("utf-8").startswith("{")
