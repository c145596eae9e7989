"""The options of `anyport run BUNDLE` are those of its task."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyport.bundle import reading
from tests.runtime import networks

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from tests.cli.shell import Shell


def test_help_of_a_bundle_lists_its_task_s_options(shell: Shell, tmp_path: Path) -> None:
    bundle = networks.corners_bundle(tmp_path)
    for words in (("run", bundle, "-h"), ("run", "--threads", "1", bundle, "--help"), ("run", "-h", bundle)):
        text = " ".join(shell(*words).out.split())
        assert "--top INTEGER RANGE How many labels to show for each picture. [default: 1] [x>=1]" in text
        assert "--output" not in text
        assert text.endswith("-h, --help Show this message and exit.")


def test_help_of_a_plain_file_lists_those_of_arrays(shell: Shell, tmp_path: Path) -> None:
    text = " ".join(shell("run", networks.affine(tmp_path / "a.onnx"), "-h").out.split())
    assert "-o, --output TEXT Write the outputs to this .npz file." in text
    assert "--force Replace an existing output file." in text
    assert "--top" not in text


def test_help_without_a_bundle_is_help(shell: Shell) -> None:
    found = shell("run", "-h")
    assert found.code == 0
    assert "--top" not in found.out
    assert "lists the options of that bundle's task" in " ".join(found.out.split())


def test_help_of_what_is_no_bundle_says_so(shell: Shell) -> None:
    found = shell("run", "nope.port", "-h")
    assert (found.code, found.err.splitlines()[0]) == (1, "BundleError: there is no bundle 'nope.port'")


def test_options_have_their_ranges(shell: Shell, tmp_path: Path) -> None:
    found = shell("run", networks.corners_bundle(tmp_path), "--top", "0", "a.png")
    assert found.code == 2
    assert found.err.startswith("UsageError: Invalid value for '--top': 0 is not in the range x>=1")


def test_a_bundle_is_opened_once(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = networks.corners_bundle(tmp_path)
    opened: list[object] = []
    first = reading.Bundle.__init__

    def counted(self: reading.Bundle, *words: Path) -> None:
        opened.append(self)
        first(self, *words)

    monkeypatch.setattr(reading.Bundle, "__init__", counted)
    shell("run", bundle, "nope.png")
    assert len(opened) == 1
