"""Reading settings strictly."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import pytest

from anyport.errors import UsageError
from anyport.task import settings_from


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
