"""Where a bundle came from, without a word about the machine's own paths."""

from __future__ import annotations

import platform
import re
from importlib.metadata import version

import pytest

from anyport.build.provenance import build_packages, created_at, provenance_of, public_word


@pytest.mark.parametrize(
    ("word", "public"),
    [
        ("build", "build"),
        ("digits.port", "digits.port"),
        ("/home/me/digits.port", "digits.port"),
        ("../work/digits.port", "digits.port"),
        ("/home/me/", "me"),
        ("/", "."),
        ("./", "."),
        ("--out=/home/me/digits.port", "--out=digits.port"),
        ("--cases=/home/me/cases.py:samples", "--cases=cases.py:samples"),
        ("/home/me/model.py:load", "model.py:load"),
        ("nets/model.py:load", "model.py:load"),
        ("package.module:load", "package.module:load"),
        ("x=float32[batch, 3, height//8]", "x=float32[batch, 3, height//8]"),
        ("--output=y=float32[batch, height//8]", "--output=y=float32[batch, height//8]"),
        ("--dim", "--dim"),
        ("height=64..1024:32", "height=64..1024:32"),
        (r"C:\work\digits.port", r"digits.port"),
    ],
)
def test_words_keep_no_folders(word: str, public: str) -> None:
    assert public_word(word) == public


def test_a_provenance() -> None:
    found = provenance_of("model.py:load", ["anyport", "build", "/home/me/digits", "-o", "/srv/digits.port"])
    assert (found.source, found.command) == ("model.py:load", "anyport build digits -o digits.port")
    assert (found.machine, found.python) == (platform.machine(), platform.python_version())
    assert found.packages == build_packages()


def test_packages_have_their_versions() -> None:
    found = build_packages()
    assert list(found) == sorted(found)
    assert found["torch"] == version("torch")
    assert all(re.match(r"^\d", text) for text in found.values())


@pytest.mark.parametrize(
    ("epoch_s", "text"), [(0, "1970-01-01T00:00:00Z"), (1_795_000_000, "2026-11-18T11:06:40Z")]
)
def test_the_time_of_creation_can_be_set(epoch_s: int, text: str) -> None:
    assert created_at(epoch_s) == text


def test_or_is_now() -> None:
    assert re.match(r"^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ$", created_at(None))
