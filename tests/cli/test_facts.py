"""What `inspect` shows of a bundle and of a file, laid out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyport.cli.facts import facts_of, lines_of
from tests.cli.lossy_corners import lossy_corners
from tests.runtime import networks

if TYPE_CHECKING:
    from pathlib import Path


def test_a_bundle_in_lines(tmp_path: Path) -> None:
    lines = lines_of(facts_of(networks.corners_bundle(tmp_path)))
    words = [" ".join(line.split()) for line in lines]
    assert words[:8] == [
        "model small 1.0.0",
        "task classify",
        "description A small one.",
        "part network",
        "input pixel_values float32[batch, 1, 2, 2]",
        "output logits float32[batch, 4]",
        "dim batch 1..64",
        "proof 4 cases: batch=1, seed 0, batch=3, seed 1, batch=1, seed 2, batch=3, seed 3",
    ]
    assert "variant fp32, proven, default" in words
    assert "nodes 2: Flatten 1, Mul 1" in words
    assert "package torch 2.13.0" in words


def test_a_file_in_lines(tmp_path: Path) -> None:
    words = [" ".join(line.split()) for line in lines_of(facts_of(networks.affine(tmp_path / "a.onnx")))]
    assert words[:5] == [
        "input x float32[batch, 3]",
        "output y float32[batch, 3]",
        "opset ai.onnx 20",
        "nodes 2: Add 1, Mul 1",
        "weights 6 parameters",
    ]
    assert words[5] == "stored float32 24 bytes"
    assert words[-2:] == ["producer a test", "metadata licence = MIT"]


def test_a_narrow_bundle_in_lines(tmp_path: Path) -> None:
    record = facts_of(networks.corners_bundle(tmp_path))
    assert not [line for line in lines_of(record) if line.startswith("stored")]  # a bundle of old
    record["variants"]["fp32"]["graphs"]["network"]["stored"] = {"bfloat16": 4_000_000, "float32": 800}
    words = [" ".join(line.split()) for line in lines_of(record)]
    assert words[words.index("nodes 2: Flatten 1, Mul 1") + 1] == "stored bfloat16 4.0 MB, float32 800 bytes"


def test_a_lossy_variant_in_lines(tmp_path: Path) -> None:
    words = [" ".join(line.split()) for line in lines_of(facts_of(lossy_corners(tmp_path)))]
    place = words.index("variant int8, proven")
    assert words[place + 1] == (
        "metric 'logits' top-1 agreement 100 %, 95 % needed; 128 samples, measured on avx2"
    )
