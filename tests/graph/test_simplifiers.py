from __future__ import annotations

import pytest

from anyport.errors import UsageError
from anyport.graph.simplifiers import ORIGINAL, SIMPLIFIERS, Simplifier, simplifiers_named


def test_the_table_is_sorted_and_names_itself() -> None:
    assert list(SIMPLIFIERS) == sorted(SIMPLIFIERS)
    assert all(tool.name == name and tool.program.is_file() for name, tool in SIMPLIFIERS.items())


def test_names_become_tools_once_and_in_order() -> None:
    assert [tool.name for tool in simplifiers_named(["onnxsim", ORIGINAL, "onnxsim"])] == ["onnxsim"]
    assert simplifiers_named([ORIGINAL]) == ()
    with pytest.raises(UsageError, match=r"^there is no simplifier 'onnxsin' \(did you mean 'onnxsim'\?\)$"):
        simplifiers_named(["onnxsin"])


def test_what_is_not_installed_has_no_version() -> None:
    assert Simplifier("none such", "anyport-none-such").version is None
    assert Simplifier("plain", None).version == ""
    assert (Simplifier("onnx", "onnx").version or "")[0].isdigit()
