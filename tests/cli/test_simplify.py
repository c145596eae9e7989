from __future__ import annotations

from typing import TYPE_CHECKING

import onnx

from tests.graph.smallgraphs import perceptron

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.shell import Shell

QUICK = ("--max-cases", 8, "--levels", "all", "--dim", "batch=1..4")


def test_a_file_is_simplified_and_every_attempt_is_shown(shell: Shell, tmp_path: Path) -> None:
    path, output = perceptron(tmp_path / "in.onnx"), tmp_path / "slim.onnx"
    found = shell("simplify", path, "-o", output, "--tools", "onnxslim", *QUICK)
    assert (found.code, found.err) == (0, "")
    lines = [line.split() for line in found.out.splitlines()]
    assert [line[0] for line in lines] == ["onnxslim", "tool", "none", "onnxslim", "simplify"]
    assert lines[-1][1:3] == ["kept", "onnxslim"]
    assert len(onnx.load(output).graph.node) < 5


def test_json_is_one_document(shell: Shell, tmp_path: Path) -> None:
    path, output = perceptron(tmp_path / "in.onnx"), tmp_path / "slim.onnx"
    found = shell("simplify", path, "-o", output, "--tools", "none", "--json", *QUICK)
    record = found.record
    assert (record["kept"], record["proven"], record["file"]) == ("none", True, str(output))
    assert [a["tool"] for a in record["attempts"]] == ["none"]


def test_wrong_words_are_told_before_anything_is_done(shell: Shell, tmp_path: Path) -> None:
    path, output = perceptron(tmp_path / "in.onnx"), tmp_path / "slim.onnx"
    for words, text in (
        ((path, "-o", path), f"UsageError: '{path}' is the model itself\n"),
        ((path, "-o", tmp_path / "p.txt"), f"UsageError: '{tmp_path / 'p.txt'}' must end in .onnx\n"),
        ((tmp_path / "no.onnx", "-o", output), f"InputError: there is no file {tmp_path / 'no.onnx'}\n"),
        ((path, "-o", output, "--tools", "onnxslm"), "UsageError: there is no simplifier 'onnxslm'"),
        ((path, "-o", output, "--levels", "ful"), "UsageError: there is no optimization level 'ful'"),
        ((path, "-o", output, "--dim", "n=1..2"), "UsageError: --dim 'n' is no axis of in.onnx: batch\n"),
    ):
        found = shell("simplify", *words)
        assert (found.code, found.err.startswith(text)) == (2, True), found.err
    assert not output.exists()
