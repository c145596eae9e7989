"""JSON from strangers: one meaning only, bounded, and with the words of the house when it is wrong.

Python's ``json`` keeps the last of two equal keys, reads NaN, numbers of any length and half
surrogates; ``msgspec`` keeps the last of two equal keys too. A file that two readers understand
differently cannot be sealed, so all of these are refused.
"""

from __future__ import annotations

import json
import math
from typing import Any, Final, NoReturn, TypeVar

import msgspec
from msgspec import inspect

from anyport.bundle.paths import shown
from anyport.errors import BundleError, did_you_mean

MAX_DEPTH: Final = 32
_INT_DIGITS: Final = 20
_INT_RANGE: Final = range(-(2**63), 2**64)
_T = TypeVar("_T")


def parse_json(data: bytes, what: str, where: str | None = None) -> Any:  # noqa: ANN401 - JSON has any type
    """Read JSON text strictly.

    Args:
        data: UTF-8 text without a byte order mark.
        what: The name of the file, for messages.
        where: The place of the file, for messages.

    Raises:
        BundleError: It is no JSON, names a key twice, nests deeper than `MAX_DEPTH`, or holds NaN,
            an infinite or overlong number, or text that is not Unicode.
    """
    reader = _Reader(what, where)
    try:
        tree = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=reader.object,
            parse_constant=reader.constant,
            parse_float=reader.float,
            parse_int=reader.int,
        )
    except (ValueError, RecursionError) as err:
        reason = "it is nested too deeply" if isinstance(err, RecursionError) else str(err)
        raise BundleError(f"{what} is not the JSON text that it must be: {reason}", where=where) from err
    reader.check_tree(tree)
    return tree


def decode_json(data: bytes, kind: type[_T], what: str, where: str | None = None) -> _T:
    """Read JSON text into a ``msgspec.Struct``; see `parse_json` and `convert_tree`."""
    return convert_tree(parse_json(data, what, where), kind, what, where)


def convert_tree(tree: Any, kind: type[_T], what: str, where: str | None = None) -> _T:  # noqa: ANN401
    """Turn dicts, lists, strings and numbers into a ``msgspec.Struct`` that forbids unknown fields.

    Raises:
        BundleError: A key is unknown (with the nearest known one), is missing, or has another type.
    """
    try:
        return msgspec.convert(tree, kind, strict=True)
    except msgspec.ValidationError as err:
        unknown = find_unknown_key(tree, inspect.type_info(kind), "")
        reason = f"has {unknown}" if unknown else f"is not understood: {err}"
        raise BundleError(f"{what} {reason}", where=where) from err


def find_unknown_key(tree: object, kind: inspect.Type, at: str) -> str | None:
    """Describe the first key that the type does not know; ``None`` when all are known."""
    if isinstance(kind, inspect.StructType) and isinstance(tree, dict):
        return _unknown_field(tree, kind, at)
    if isinstance(kind, inspect.DictType) and isinstance(tree, dict):
        children = [(value, kind.value_type, f"{at}.{name}") for name, value in tree.items()]
    elif isinstance(kind, inspect.ListType) and isinstance(tree, list):
        children = [(value, kind.item_type, f"{at}[{i}]") for i, value in enumerate(tree)]
    elif isinstance(kind, inspect.UnionType):
        children = [(tree, choice, at) for choice in kind.types if _is_chosen(choice, tree)]
    else:
        children = []
    return next((found for child in children if (found := find_unknown_key(*child))), None)


def _unknown_field(tree: dict[str, object], kind: inspect.StructType, at: str) -> str | None:
    fields = {field.encode_name: field.type for field in kind.fields}
    known = [*fields, kind.tag_field] if kind.tag_field else [*fields]
    for name, value in tree.items():
        if name not in known:
            inside = f" in {shown(at[1:])}" if at else ""
            return f"an unknown key {shown(name)}{inside}{did_you_mean(name[:100], known)}"
        found = find_unknown_key(value, fields[name], f"{at}.{name}") if name in fields else None
        if found:
            return found
    return None


def _is_chosen(kind: inspect.Type, tree: object) -> bool:
    """Say whether a union means this type: by its tag, or because it has none."""
    if not isinstance(kind, inspect.StructType) or kind.tag_field is None:
        return True
    return isinstance(tree, dict) and tree.get(kind.tag_field) == kind.tag


class _Reader:
    """The hooks of ``json.loads`` that refuse what has more than one meaning."""

    def __init__(self, what: str, where: str | None) -> None:
        self._what = what
        self._where = where

    def _refuse(self, reason: str) -> NoReturn:
        raise BundleError(f"{self._what} {reason}", where=self._where)

    def object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            seen: set[str] = set()
            twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
            self._refuse(f"has the key {shown(twice)} twice")
        return found

    def constant(self, word: str) -> NoReturn:
        self._refuse(f"holds {word}, which is no JSON number")

    def float(self, digits: str) -> float:
        value = float(digits)
        if not math.isfinite(value):
            self._refuse(f"holds the number {shown(digits)}, which is too large")
        return value

    def int(self, digits: str) -> int:
        if len(digits) > _INT_DIGITS or int(digits) not in _INT_RANGE:
            self._refuse(f"holds the number {shown(digits)}, which is too large")
        return int(digits)

    def check_tree(self, tree: Any) -> None:  # noqa: ANN401 - JSON has any type
        """Refuse deep nesting and text that is not Unicode, without recursion."""
        level = [tree]
        for _ in range(MAX_DEPTH + 1):
            below: list[Any] = []
            for value in level:
                below.extend(self._children(value))
            if not below:
                return
            level = below
        self._refuse(f"is nested deeper than {MAX_DEPTH} levels")

    def _children(self, value: Any) -> list[Any]:  # noqa: ANN401 - JSON has any type
        if isinstance(value, dict):
            return [*value, *value.values()]
        if isinstance(value, list):
            return value
        if isinstance(value, str) and not value.isascii():
            try:
                value.encode("utf-8")
            except UnicodeEncodeError:
                self._refuse(f"holds {shown(value)}, which is not Unicode text")
        return []
