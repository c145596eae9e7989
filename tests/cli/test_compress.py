from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import pytest

from tests.compress.smallnets import textnet

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.shell import Shell

QUICK = (
    "--calibrate",
    "random",
    "--max-cases",
    2,
    "--dim",
    "batch=1..4",
    "--input",
    "ids=int64[batch,6] 0..99",
)


def test_a_file_is_compressed_and_every_flavour_is_shown(shell: Shell, tmp_path: Path) -> None:
    path, output = textnet(tmp_path / "in.onnx"), tmp_path / "small.onnx"
    found = shell("compress", path, "-o", output, "--prefer", "size", *QUICK)
    assert (found.code, found.err) == (0, "")
    lines = [line.split() for line in found.out.splitlines()]
    shown = [line[0] for line in lines]
    assert shown.index("method") > 0
    assert {"int8-dynamic:u8s8", "int8-dynamic:u8s8:reduced", "int8-dynamic:u8u8"} <= set(shown)
    assert lines[-1][0] == "compress"
    assert lines[-1][2].endswith("x")
    assert any(node.op_type == "MatMulInteger" for node in onnx.load(output).graph.node)


def test_json_is_one_document(shell: Shell, tmp_path: Path) -> None:
    path, output = textnet(tmp_path / "in.onnx"), tmp_path / "small.onnx"
    words = ("--method", "int8-dynamic:u8s8", "--prefer", "size", "--json")
    record = shell("compress", path, "-o", output, *words, *QUICK).record
    assert (record["kept"], record["file"]) == ("int8-dynamic:u8s8", str(output))
    assert record["evaluation"]["status"] == "PASS"
    assert record["size_bytes"] == output.stat().st_size


def test_what_is_not_faster_ends_with_1_and_writes_nothing(shell: Shell, tmp_path: Path) -> None:
    path, output = textnet(tmp_path / "in.onnx"), tmp_path / "small.onnx"
    found = shell("compress", path, "-o", output, "--method", "fp16", *QUICK)
    assert found.code == 1
    assert found.err.startswith("CompressError: fp16 is not faster: ")
    assert not output.exists()


def test_wrong_words_are_told_before_anything_is_done(shell: Shell, tmp_path: Path) -> None:
    path, output = textnet(tmp_path / "in.onnx"), tmp_path / "small.onnx"
    for words, text in (
        ((path, "-o", path), f"UsageError: '{path}' is the model itself\n"),
        ((path, "-o", tmp_path / "p.txt"), f"UsageError: '{tmp_path / 'p.txt'}' must end in .onnx\n"),
        ((path, "-o", output, "--calibrate", tmp_path, "--set", "maen=[0]"), "UsageError: --set maen says"),
        ((tmp_path / "no.onnx", "-o", output), f"InputError: there is no file {tmp_path / 'no.onnx'}\n"),
        ((path, "-o", output, "--method", "int9"), "UsageError: there is no method 'int9'"),
        ((path, "-o", output), "UsageError: there are no samples to calibrate with and to judge by\n"),
        ((path, "-o", output, "--max-drop", "0.1"), "UsageError: --max-drop is of your own metric\n"),
    ):
        found = shell("compress", *words)
        assert (found.code, found.err.startswith(text)) == (2, True), found.err
    assert not output.exists()


@pytest.mark.parametrize(("limit", "code"), [("1", 0), ("0.1", 1)])
def test_the_user_s_own_metric_decides(shell: Shell, tmp_path: Path, limit: str, code: int) -> None:
    path, output = textnet(tmp_path / "in.onnx"), tmp_path / "small.onnx"
    (tmp_path / "evaluate.py").write_text(
        "figures = [0.9]\n"  # of the original; everything after it is worse
        "import numpy as np\n"
        "def accuracy(run):\n"
        "    run({'ids': np.zeros((1, 6), np.int64)})\n"
        "    return figures.pop() if figures else 0.5\n",
        encoding="utf-8",
    )
    words = (
        "--method",
        "int8-dynamic:u8s8",
        "--evaluate",
        f"{tmp_path / 'evaluate.py'}:accuracy",
        "--max-drop",
        limit,
    )
    found = shell("compress", path, "-o", output, "--prefer", "size", *words, *QUICK)
    assert found.code == code, found.err
    assert "accuracy 90 % -> 50 %" in found.out
    assert ("does not hold the metric: accuracy 90 % -> 50 %" in found.err) is bool(code)
    assert output.exists() is not bool(code)
