"""Reading settings strictly."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import pytest

from anyport.errors import UsageError
from anyport.runtime import SessionOptions
from anyport.task import TaskOptions, settings_from


class Inner(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    value: int


class Small(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    top: Annotated[int, msgspec.Meta(ge=1)] = 1
    inner: Inner | None = None


def test_settings_are_read() -> None:
    assert settings_from({"inner": {"value": 3}}, Small, "settings") == Small(inner=Inner(3))


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"tpo": 1}, "settings: unknown key 'tpo' (did you mean 'top'?)"),
        ({"inner": {"vale": 1}}, "settings: unknown key 'vale' in 'inner' (did you mean 'value'?)"),
        ({"top": "1"}, "settings: 'top': expected 'int', got 'str'"),
        ({"top": 0}, "settings: 'top': expected 'int' >= 1"),
        ({"inner": {}}, "settings: 'inner': missing required field 'value'"),
    ],
)
def test_wrong_settings_are_named(tree: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        settings_from(tree, Small, "settings")
    assert caught.value.what == message


def test_memory_limits_that_mean_nothing_are_refused() -> None:
    for limit_bytes in (0, -5):
        with pytest.raises(UsageError) as caught:
            TaskOptions(max_memory_bytes=limit_bytes)
        assert caught.value.what == f"the memory limit is {limit_bytes} bytes, it must be 1 or more"
    with pytest.raises(UsageError, match=r"^there are two memory limits: one for the whole task, one for a"):
        TaskOptions(session=SessionOptions(memory_limit_bytes=10**9), max_memory_bytes=10**9)
    assert TaskOptions(session=SessionOptions(memory_limit_bytes=10**9)).max_memory_bytes is None
