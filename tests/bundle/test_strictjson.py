from __future__ import annotations

import msgspec
import pytest

from anyport.bundle.strictjson import MAX_DEPTH, convert_tree, decode_json, parse_json
from anyport.errors import BundleError


class Red(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="red"):
    depth: int


class Blue(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="blue"):
    shade: float


class Box(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    size: int
    colours: dict[str, Red | Blue] = {}
    inner: list[Box] = []
    maybe: Red | None = None


def test_it_reads_json() -> None:
    assert parse_json(b' {"a": [1, -2.5, "\xc3\xa9", null, true]} ', "x") == {"a": [1, -2.5, "é", None, True]}


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


REFUSED = {
    b'{"a": 1, "a": 1}': "x has the key 'a' twice",
    b'{"b": [{"a": {"c": 1, "c": 2}}]}': "x has the key 'c' twice",
    b'{"a": NaN}': "x holds NaN, which is no JSON number",
    b'{"a": -Infinity}': "x holds -Infinity, which is no JSON number",
    b'{"a": 1e999}': "x holds the number '1e999', which is too large",
    b'{"a": 18446744073709551616}': "x holds the number '18446744073709551616', which is too large",
    b"9" * 5000: f"x holds the number '{'9' * 79}…', which is too large",
    b'"\\ud800"': "x holds '\\ud800', which is not Unicode text",
    b'{"\\udfff": 1}': "x holds '\\udfff', which is not Unicode text",
    nested(MAX_DEPTH + 2): "x is nested deeper than 32 levels",
    nested(100_000): "x is not the JSON text that it must be: it is nested too deeply",
    b"\xff": "x is not the JSON text that it must be: 'utf-8' codec can't decode",
    b"\xef\xbb\xbf{}": "x is not the JSON text that it must be: Unexpected UTF-8 BOM",
    "{}".encode("utf-16"): "x is not the JSON text that it must be: 'utf-8' codec can't decode",
    b"": "x is not the JSON text that it must be: Expecting value",
    b"{} {}": "x is not the JSON text that it must be: Extra data",
    b'{"a": 1,}': "x is not the JSON text that it must be: ",
}


@pytest.mark.parametrize("content", REFUSED, ids=lambda content: repr(content[:24]))
def test_it_refuses_what_has_two_meanings_or_no_bounds(content: bytes) -> None:
    with pytest.raises(BundleError) as caught:
        parse_json(content, "x", "there")
    assert caught.value.what.startswith(REFUSED[content])
    assert caught.value.where == "there"


def test_a_struct_is_read() -> None:
    box = decode_json(b'{"size": 1, "colours": {"a": {"type": "red", "depth": 2}}, "maybe": null}', Box, "x")
    assert box == Box(1, {"a": Red(2)})


UNKNOWN = {
    b'{"size": 1, "siez": 2}': "x has an unknown key 'siez' (did you mean 'size'?)",
    b'{"size": 1, "inner": [{"size": 1}, {"size": 1, "inne": []}]}': (
        "x has an unknown key 'inne' in 'inner[1]' (did you mean 'inner'?)"
    ),
    b'{"size": 1, "colours": {"k": {"type": "blue", "shade": 1, "depth": 2}}}': (
        "x has an unknown key 'depth' in 'colours.k' (known: 'shade', 'type')"
    ),
    b'{"size": 1, "maybe": {"type": "red", "dept": 2}}': (
        "x has an unknown key 'dept' in 'maybe' (did you mean 'depth'?)"
    ),
}


@pytest.mark.parametrize("content", UNKNOWN)
def test_unknown_keys_are_named_with_the_nearest_known_one(content: bytes) -> None:
    with pytest.raises(BundleError) as caught:
        decode_json(content, Box, "x")
    assert caught.value.what == UNKNOWN[content]


def test_missing_keys_and_wrong_types_are_refused() -> None:
    with pytest.raises(BundleError, match=r"(?m)^x is not understood: Object missing required field `size`$"):
        decode_json(b"{}", Box, "x")
    with pytest.raises(
        BundleError, match=r"(?m)^x is not understood: Expected `int`, got `str` - at `\$.size`$"
    ):
        convert_tree({"size": "1"}, Box, "x")
    with pytest.raises(BundleError, match="^x is not understood: Expected `int`, got `bool`"):
        convert_tree({"size": True}, Box, "x")
    with pytest.raises(BundleError, match="^x is not understood: Expected `object`, got `array`"):
        decode_json(b"[]", Box, "x")
    with pytest.raises(BundleError, match="^x is not understood: Invalid value 'green'"):
        decode_json(b'{"size": 1, "colours": {"a": {"type": "green", "depth": 2}}}', Box, "x")
