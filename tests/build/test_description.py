"""``anyport.toml`` and its words: every key in its place, every mistake with its text."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from anyport.build.description import (
    FILE_NAME,
    Description,
    describe,
    pairs,
    read_description,
    signature_of,
    toml_values,
)
from anyport.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

FULL = """
[model]
name = "digits"
version = "1.0.0-rc.1+cpu"
source = "model.py:load"
task = "classify"
description = "Reads a digit."
author = "A. Author"
license = "Apache-2.0"
trained_at = 2026-11-20
[inputs]
pixel_values = "float32[batch, 1, height, width]"
mask = "int64[batch] 0..1"
[outputs]
logits = "float32[batch, 10]"
small = "float32[batch, height//8, n_boxes]"
[dims]
batch = "1..64"
height = "64..1024:32"
width = "64..1024:32"
[arguments]
mode = "fast"
[cases]
function = "cases.py:samples"
[settings]
labels = ["0", "1"]
"""
LEAST: dict[str, Any] = {"model": {"source": "model.py:load"}}
X: dict[str, Any] = {"x": "float32[batch, 8]"}


def write(folder: Path, content: str | bytes) -> Path:
    path = folder / FILE_NAME
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_everything_that_can_be_said(tmp_path: Path) -> None:
    found = read_description(write(tmp_path, FULL))
    assert (found.model.name, found.model.version) == ("digits", "1.0.0-rc.1+cpu")
    assert found.model.trained_at == "2026-11-20"
    assert (found.model.author, found.model.license) == ("A. Author", "Apache-2.0")
    assert found.arguments == {"mode": "fast"}
    assert found.cases is not None
    assert found.cases.function == "cases.py:samples"
    assert found.settings == {"labels": ["0", "1"]}
    signature = signature_of(found)
    assert signature is not None
    assert [spec.name for spec in signature.inputs] == ["pixel_values", "mask"]
    assert [str(spec) for spec in signature.outputs] == [
        "float32[batch, 10]",
        "float32[batch, height//8, n_boxes]",
    ]
    assert {name: str(dim) for name, dim in signature.dims.items()} == {
        "batch": "1..64",
        "height": "64..1024:32",
        "width": "64..1024:32",
    }


def test_little_need_be_said() -> None:
    found = describe(LEAST, FILE_NAME)
    assert (found.model.version, found.model.name, found.model.task) == ("0.1.0", None, None)
    assert signature_of(found) is None


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({}, "model"),
    ({"model": {}}, "source"),
    (LEAST | {"input": X}, "did you mean 'inputs'?"),
    ({"model": {"source": "m.py:f", "licence": "MIT"}}, "did you mean 'license'?"),
    (LEAST | {"cases": {"functions": "c.py:f"}}, "did you mean 'function'?"),
    ({"model": {"source": 3}}, "source"),
    (LEAST | {"inputs": {"x": 3}}, "inputs"),
    ({"model": {"source": "m.py:f", "name": "a/b"}}, "name 'a/b' is not 1 to 64 letters, digits"),
    ({"model": {"source": "m.py:f", "name": ".hidden"}}, "name '.hidden' is not 1 to 64 letters"),
    ({"model": {"source": "m.py:f", "name": "x" * 65}}, "is not 1 to 64 letters"),
    (
        {"model": {"source": "m.py:f", "version": "1.0"}},
        "version '1.0' is no semantic version\n  do:    write it as 1.0.0",
    ),
    (
        {"model": {"source": "m.py:f", "trained_at": "20.11.2026"}},
        "trained_at '20.11.2026' is no date\n  do:    write it as 2026-11-20",
    ),
    (LEAST | {"inputs": {"x": "float32[batch"}}, "tensor 'x' = 'float32[batch' is not understood"),
    (LEAST | {"inputs": {"x": "float23[8]"}}, "tensor 'x' has the type 'float23' (did you mean 'float32'?)"),
    (
        LEAST | {"inputs": X},
        (
            "axis 'batch' of input 'x' has no dim\n  do:    say which sizes it may have: "
            'batch = "1..64" under [dims], or --dim batch=1..64'
        ),
    ),
    (
        LEAST | {"inputs": X, "dims": {"batch": "1..8", "sequence": "1..9"}},
        "dim 'sequence' is not an axis of any input",
    ),
    (
        LEAST | {"inputs": {"x": "float32[batch*2]"}, "dims": {"batch": "1..8"}},
        "axis 'batch*2' of input 'x' is computed from 'batch', which is no axis of an input by itself",
    ),
    (
        LEAST | {"inputs": X, "outputs": X, "dims": {"batch": "1..8"}},
        "'x' is both an input and an output\n  do:    give the output another name",
    ),
    (LEAST | {"inputs": X, "dims": {"batch": "8"}}, "dim 'batch' = '8' is not understood"),
    (LEAST | {"inputs": X, "dims": {"batch": "8..8"}}, "dim 'batch' = 8..8 is not a range of sizes"),
]


@pytest.mark.parametrize(("content", "text"), MISTAKES, ids=[text[:40] for _, text in MISTAKES])
def test_mistakes_are_named(content: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match=re.escape(text)) as caught:
        describe(content, FILE_NAME)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("[model", "anyport.toml is no TOML: "),
        ("[model]\nsource = 'a'\nsource = 'b'", "anyport.toml is no TOML: Cannot overwrite a value"),
        (b"\xff\xfe", "anyport.toml is no TOML: "),
        ("#" * (1 << 20) + "\n", "anyport.toml is larger than 1048576 bytes"),
    ],
)
def test_files_that_are_no_description(tmp_path: Path, content: str | bytes, text: str) -> None:
    with pytest.raises(UsageError, match=re.escape(text)):
        read_description(write(tmp_path, content))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"anyport\.toml cannot be read: No such file or directory"):
        read_description(tmp_path / FILE_NAME)


def test_a_description_is_fixed() -> None:
    found = describe(LEAST, FILE_NAME)
    assert isinstance(found, Description)
    with pytest.raises(AttributeError):
        found.settings = {}  # type: ignore[misc]


# ── options ─────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("options", "found"),
    [
        ([], {}),
        (["batch=1..64"], {"batch": "1..64"}),
        ([" x = float32[batch, 8] ", "y=a=b"], {"x": "float32[batch, 8]", "y": "a=b"}),
    ],
)
def test_pairs(options: list[str], found: dict[str, str]) -> None:
    assert pairs(options, "--dim") == found


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["batch"], "--dim 'batch' is not understood\n  do:    write --dim NAME=VALUE"),
        (["=3"], "--dim '=3' is not understood"),
        (["batch= "], "--dim 'batch= ' is not understood"),
        (["a=1", "a=2"], "--dim names 'a' twice"),
    ],
)
def test_pairs_that_are_none(options: list[str], text: str) -> None:
    with pytest.raises(UsageError, match=re.escape(text)):
        pairs(options, "--dim")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("0.5", 0.5),
        ("true", True),
        ("fast", "fast"),
        ('"true"', "true"),
        ("[8, 8]", [8, 8]),
        ("a b", "a b"),
        ("1..64", "1..64"),
        ("{a = 1}", {"a": 1}),
    ],
)
def test_values_are_toml_or_text(text: str, value: object) -> None:
    found = toml_values([f"name={text}"], "--set")["name"]
    assert found == value
    assert type(found) is type(value)


def test_a_value_is_one_value() -> None:
    """A line break would begin a second TOML key."""
    assert toml_values(["name=1\nother = 2"], "--set") == {"name": "1\nother = 2"}


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ({"opset": 12}, "opset 12 cannot be written: 13..23 can"),
        ({"opset": 99}, "opset 99 cannot be written: 13..23 can"),
        (
            {"storage": "float16"},
            "test is not understood: Invalid enum value 'float16' - at `$.build.storage`",
        ),
        ({"compres": ["int8"]}, "test has an unknown key 'compres' in 'build' (did you mean 'compress'?)"),
        ({"prefer": "beauty"}, "test is not understood: Invalid enum value 'beauty' - at `$.build.prefer`"),
    ],
)
def test_a_build_table_that_cannot_be_met_is_refused(table: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError) as caught:
        describe({"model": {"source": "m.py:load"}, "build": table}, "test")
    assert caught.value.what == text


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("name", "digits\n", "name 'digits\n' is not 1 to 64 letters"),
        ("trained_at", "2026-11-20\n", "trained_at '2026-11-20\n' is no date"),
        ("trained_at", "\u0662026-11-20", "trained_at '\u0662026-11-20' is no date"),
    ],
)
def test_a_line_end_or_another_script_is_no_part_of_a_word(key: str, value: str, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        describe({"model": {"source": "m.py:load", key: value}}, "test")
    assert caught.value.what.startswith(text)
