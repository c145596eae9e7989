"""`anyport demo`: which of its two bundles is shown."""

from __future__ import annotations

from importlib import resources, util
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from anyport import errors
from tests.cli import demos

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.shell import Shell


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder that stands in for the installed package."""
    (tmp_path / "demo").mkdir()
    monkeypatch.setattr(resources, "files", lambda _: tmp_path)
    return tmp_path


def without_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the extra 'text' be absent."""
    find = util.find_spec
    monkeypatch.setattr(
        "anyport.cli.demo.find_spec", lambda name: None if name == "tokenizers" else find(name)
    )

    def load(name: str) -> object:
        raise ModuleNotFoundError(f"No module named '{name}'", name=name)

    monkeypatch.setattr(errors, "import_module", load)


def test_without_the_extra_the_digit_is_read(
    shell: Shell, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demos.ship_digits(package / "demo")
    without_text(monkeypatch)
    found = shell("demo")
    assert (found.code, found.err) == (0, "")
    assert found.out.endswith(
        "  pip install 'anyport[text]' adds a demo that edits a picture as it is told\n"
    )


def test_without_the_extra_an_instruction_says_what_to_install(
    shell: Shell, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demos.ship_digits(package / "demo")
    without_text(monkeypatch)
    found = shell("demo", "--instruction", "make it blue")
    assert found.code == 2
    assert found.err.splitlines() == [
        "MissingExtraError: an instruction in words needs the package 'tokenizers', which is not installed",
        "  do:    pip install 'anyport[text]'",
    ]


def test_with_the_extra_the_picture_is_edited(shell: Shell, package: Path, tmp_path: Path) -> None:
    demos.ship_editor(package / "demo")
    found = shell("demo", "-o", tmp_path / "both.png")
    assert (found.code, found.err) == (0, "")
    with Image.open(tmp_path / "both.png") as sheet:
        assert sheet.width > 2 * 64


def test_a_copy_without_its_demo_says_so(shell: Shell, package: Path) -> None:
    assert package.is_dir()
    found = shell("demo")
    assert (found.code, found.err.splitlines()[0]) == (
        1,
        "BundleError: this copy of anyport ships without its demo",
    )
