"""`anyport inspect`."""

from __future__ import annotations

import os
import subprocess
import sys
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from tests.house import tree
from tests.runtime import networks

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.shell import Shell


def test_a_bundle_as_json(shell: Shell, tmp_path: Path) -> None:
    found = shell("inspect", networks.corners_bundle(tmp_path), "--json")
    assert (found.code, found.err) == (0, "")
    assert found.record["kind"] == "bundle"
    assert found.record["parts"]["network"]["dims"] == {"batch": "1..64"}
    assert found.record["proof"]["network"][0] == "batch=1, seed 0"
    assert found.record["variants"]["fp32"]["graphs"]["network"]["operators"] == {"Flatten": 1, "Mul": 1}


def test_a_file_as_json(shell: Shell, tmp_path: Path) -> None:
    found = shell("inspect", networks.affine(tmp_path / "a.onnx", beside="a.weights"), "--json")
    assert found.record["kind"] == "onnx"
    assert found.record["weights_files"] == {"a.weights": 24}


@pytest.mark.parametrize("heavy", ["onnx", "onnxruntime", "torch"])
def test_a_bundle_is_read_without(tmp_path: Path, heavy: str) -> None:
    """Its manifest says it all."""
    code = (
        f"import sys; sys.modules[{heavy!r}] = None\n"
        f"from anyport.cli import main; sys.exit(main(['inspect', sys.argv[1]]))"
    )
    bundle = networks.corners_bundle(tmp_path)
    environment = os.environ | {"PYTHONPATH": str(tree.PACKAGE.parent)}
    subprocess.run(
        [sys.executable, "-c", code, str(bundle)], env=environment, check=True, capture_output=True
    )


def test_a_file_needs_onnx(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = networks.affine(tmp_path / "a.onnx")
    monkeypatch.setitem(sys.modules, "onnx", None)
    found = shell("inspect", path)
    assert found.code == 2
    assert found.err == (
        "MissingExtraError: reading an .onnx file needs the package 'onnx', which is not installed\n"
        "  do:    pip install 'anyport[optimize]'\n"
    )


def test_the_viewer_is_an_extra(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "netron", None)
    found = shell("inspect", networks.affine(tmp_path / "a.onnx"), "--netron")
    assert found.err == (
        "MissingExtraError: --netron needs the package 'netron', which is not installed\n"
        "  do:    pip install 'anyport[view]'\n"
    )


def test_the_viewer_gets_the_graph(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    viewer = ModuleType("netron")
    viewer.start = shown.append  # type: ignore[attr-defined]
    viewer.wait = lambda: None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "netron", viewer)
    bundle = networks.corners_bundle(tmp_path)
    assert shell("inspect", bundle, "--netron").code == 0
    assert shell("inspect", tmp_path / "corners.onnx", "--netron").code == 0
    assert shown == [str(bundle / "parts/network/fp32/model.onnx"), str(tmp_path / "corners.onnx")]
    assert shell("inspect", bundle, "--netron", "--part", "vision").code == 2
