"""The options of `anyport run BUNDLE` are those of its task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import click
import msgspec
import pytest
from msgspec import structs

from anyport.bundle import reading
from anyport.cli import taskoptions
from anyport.task import embed
from anyport.task.text_writer import WritingOptions
from tests.runtime import networks

if TYPE_CHECKING:
    from pathlib import Path

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


def _types(options: type) -> dict[str, str]:
    """Return what the help says of each option's values."""
    found = [taskoptions._option(field) for field in structs.fields(options)]
    shown = {}
    for option in found:
        context = click.Context(click.Command("run"))
        record = option.get_help_record(context)
        assert record is not None
        shown[str(option.name)] = " ".join(record)
    return shown


def test_ranges_are_shown_where_there_are_some() -> None:
    shown = _types(WritingOptions)
    assert not any("None" in text for text in shown.values())
    for name, words in {
        "max_new_tokens": "[x>=1]",
        "min_new_tokens": "[x>=0]",
        "repetition_penalty": "[default: 1.0]  [0.01<=x<=100.0]",
        "beams": "[x>=1]",
        "length_penalty": "[-10.0<=x<=10.0]",
        "seed": "[x>=0]",
        "temperature": "[1e-06<=x<=1000000.0]",
        "top_k": "[x>=0]",
        "top_p": "[0<x<=1]",
    }.items():
        assert shown[name].endswith(words), shown[name]
    assert "[image|multimodal|text]" in _types(embed.Options)["mode"]


class _Free(msgspec.Struct):
    number: Annotated[float, msgspec.Meta(description="Any.")] = 0.5
    count: Annotated[int, msgspec.Meta(description="Any.")] = 2


def test_a_number_without_a_range_shows_none() -> None:
    assert _types(_Free) == {
        "number": "--number FLOAT Any.  [default: 0.5]",
        "count": "--count INTEGER Any.  [default: 2]",
    }


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("--question", "q"), "the task 'classify' of {} has no option '--question'"),
        (("--topp", "2"), "the task 'classify' of {} has no option '--topp' (did you mean 'top'?)"),
        (("--top", "0"), "Invalid value for '--top': 0 is not in the range x>=1"),
    ],
)
def test_a_wrong_option_points_to_the_help_of_the_bundle(
    shell: Shell, tmp_path: Path, words: tuple[str, ...], what: str
) -> None:
    bundle = networks.corners_bundle(tmp_path)
    found = shell("run", bundle, "a.png", *words)
    assert found.code == 2
    assert found.err == f"UsageError: {what.format(bundle)}\n  do:    anyport run {bundle} --help\n"


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
