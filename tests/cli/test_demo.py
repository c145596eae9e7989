"""`anyport demo`, on a bundle of the test's own."""

from __future__ import annotations

from dataclasses import replace
from importlib import resources
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from anyport.bundle import pack
from tests.runtime import networks

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.shell import Shell


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder that stands in for the installed package."""
    (tmp_path / "demo").mkdir()
    monkeypatch.setattr(resources, "files", lambda _: tmp_path)
    return tmp_path


def ship(package: Path) -> None:
    pack(networks.corners_bundle(package), package / "demo" / "digits.port")
    Image.fromarray(np.array([[0, 0], [255, 0]], np.uint8)).save(package / "demo" / "seven.png")


def test_it_verifies_runs_and_draws(shell: Shell, package: Path) -> None:
    ship(package)
    found = shell("demo")
    assert (found.code, found.err) == (0, "")
    lines = found.out.splitlines()
    assert lines[0].startswith("  verify ")
    assert lines[0].endswith("PASS")
    assert "  sw   100.0 %" in lines
    assert any("@@" in line for line in lines)


def test_json(shell: Shell, package: Path) -> None:
    ship(package)
    record = shell("demo", "--json").record
    assert record["verdicts"][0]["status"] == "PASS"
    assert record["run"]["answers"][0]["top"][0]["label"] == "sw"


def test_a_bundle_that_proves_nothing_ends_with_1(shell: Shell, package: Path) -> None:
    words = replace(networks.Words(), cases=[], answers={})
    bundle = networks.bundle(package / "c.port", networks.corners(package / "c.onnx"), words)
    pack(bundle, package / "demo" / "digits.port")
    Image.new("L", (2, 2)).save(package / "demo" / "seven.png")
    assert shell("demo", "--json").code == 1
    found = shell("demo")
    assert found.code == 1
    assert found.err.startswith("MismatchError: the verdict is inconclusive")


def test_a_copy_without_its_demo_says_so(shell: Shell, package: Path) -> None:
    assert package.is_dir()
    found = shell("demo")
    assert (found.code, found.err.splitlines()[0]) == (
        1,
        "BundleError: this copy of anyport ships without its demo",
    )
