from __future__ import annotations

import pytest

from anyport.bundle.paths import check_names, check_path, check_paths, parents, shown
from anyport.errors import BundleError

GOOD = [
    "a",
    "MODEL_CARD.md",
    "parts/p/fp32/model.onnx",
    "assets/vocab-1.0+x_y.txt",
    "_x",
    "a" * 100,
    "console",
]
BAD = {
    "": "it is empty",
    "/etc/passwd": "it is absolute",
    "../x": "it has '..' as one of its names",
    "a/../../x": "it has '..' as one of its names",
    "./x": "it has '.' as one of its names",
    ".": "it has '.' as one of its names",
    "a//b": "it has '' as one of its names",
    "a/": "it has '' as one of its names",
    "a\\b": "is not made of at most 100 letters",
    "C:/x": "is not made of at most 100 letters",
    "c:x": "is not made of at most 100 letters",
    "a\0b": "is not made of at most 100 letters",
    "a\n": "is not made of at most 100 letters",
    "ä": "is not made of at most 100 letters",
    ".hidden": "is not made of at most 100 letters",
    "-rf": "is not made of at most 100 letters",
    "a b": "is not made of at most 100 letters",
    "~/x": "is not made of at most 100 letters",
    "a" * 101: "is not made of at most 100 letters",
    "x.": "ends with '.', which Windows drops",
    "assets/NUL": "is a device on Windows",
    "com1.txt": "is a device on Windows",
    "/".join(["a"] * 121): "it has 241 characters, at most 240 are allowed",
}


@pytest.mark.parametrize("path", GOOD)
def test_plain_paths_pass(path: str) -> None:
    check_path(path)


@pytest.mark.parametrize("path", BAD)
def test_other_paths_are_refused(path: str) -> None:
    with pytest.raises(BundleError, match=r"^the path .* is refused: ") as caught:
        check_path(path, "here")
    assert BAD[path] in caught.value.what
    assert caught.value.where == "here"


def test_paths_must_differ_on_every_system() -> None:
    check_paths(["a/b", "a/c", "b"])
    with pytest.raises(BundleError, match="(?m)^the path 'a' is listed twice$"):
        check_paths(["a", "a"])
    with pytest.raises(
        BundleError, match="(?m)^the paths 'a/b' and 'a/B' differ in upper and lower case only$"
    ):
        check_paths(["a/b", "a/B"])
    with pytest.raises(BundleError, match="(?m)^the paths 'a' and 'A' differ in upper and lower case only$"):
        check_paths(["a/b", "A/c"])
    with pytest.raises(BundleError, match="(?m)^the path 'a' is a file and a folder$"):
        check_paths(["a/b", "a"])


def test_names_are_names_of_folders() -> None:
    check_names("part", ["vision_encoder", "mixed-250MB", "v1.5"])
    for name in ["", "a/b", "..", "-x", "a" * 65, "x.", "con", "a b"]:
        with pytest.raises(BundleError, match="is no name for a part"):
            check_names("part", [name])
    with pytest.raises(BundleError, match="^the paths 'a' and 'A' differ"):
        check_names("part", ["a", "A"])


def test_parents() -> None:
    assert parents("a") == []
    assert parents("a/b/c") == ["a", "a/b"]


def test_words_of_strangers_are_shown_short_and_tame() -> None:
    assert shown("a\x1b[2J\n") == "'a\\x1b[2J\\n'"
    assert len(shown("x" * 10_000)) == 82
