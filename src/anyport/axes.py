"""One axis of a tensor: a fixed size, a name, or an expression over names such as ``height//8``."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from anyport.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MAX_TEXT: Final = 80
_OPERATORS: Final[dict[type[ast.operator], Callable[[int, int], int]]] = {
    ast.Add: lambda a, b: a + b,
    ast.FloorDiv: lambda a, b: a // b,
    ast.Mult: lambda a, b: a * b,
    ast.Sub: lambda a, b: a - b,
}


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis; ``text`` is its notation, ``names`` the dimensions it speaks of."""

    text: str
    names: frozenset[str]

    def __str__(self) -> str:
        """Return the notation."""
        return self.text

    @property
    def name(self) -> str | None:
        """The name of a plain dynamic axis; ``None`` for a fixed or computed one."""
        return self.text if _NAME.fullmatch(self.text) else None

    @property
    def is_fixed(self) -> bool:
        """Whether the size is a number."""
        return not self.names

    def size(self, sizes: Mapping[str, int]) -> int:
        """Return the size of the axis.

        Raises:
            UsageError: A name has no size, or the result is below 0.
        """
        size = _value(_tree(self.text), sizes)
        if size < 0:
            raise UsageError(f"axis '{self.text}' is {size}: a size cannot be below 0")
        return size


def parse_axis(text: str, tensor_name: str) -> Axis:
    """Read one axis of the tensor ``tensor_name``.

    >>> parse_axis("height//8", "y").size({"height": 64})
    8

    Raises:
        UsageError: It is no number, name or expression of ``+ - * //``.
    """
    wrong = UsageError(
        f"axis '{text}' of tensor '{tensor_name}' is not understood",
        do="write a number, a name, or an expression such as height//8 or 2*width",
    )
    if len(text) > _MAX_TEXT or not text.isascii():
        raise wrong
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError) as err:
        raise wrong from err
    if not all(_is_allowed(node) for node in ast.walk(tree)):
        raise wrong
    names = frozenset(node.id for node in ast.walk(tree) if isinstance(node, ast.Name))
    if not names and not text.isdigit():
        raise wrong
    return Axis(text, names)


def _is_allowed(node: ast.AST) -> bool:
    if isinstance(node, ast.Constant):
        return isinstance(node.value, int) and not isinstance(node.value, bool)
    if isinstance(node, ast.BinOp):
        return type(node.op) in _OPERATORS
    return isinstance(node, ast.Expression | ast.Name | ast.Load | ast.operator)


@lru_cache(maxsize=1024)  # a decoder with 12 layers asks for 100 axes at each token: 0.7 ms without
def _tree(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


def _value(node: ast.expr, sizes: Mapping[str, int]) -> int:
    if isinstance(node, ast.Name):
        if node.id not in sizes:
            raise UsageError(f"axis '{node.id}' has no size{did_you_mean(node.id, sizes)}")
        return sizes[node.id]
    if isinstance(node, ast.BinOp):
        left, right = _value(node.left, sizes), _value(node.right, sizes)
        if isinstance(node.op, ast.FloorDiv) and right == 0:
            raise UsageError("an axis is divided by 0")
        return _OPERATORS[type(node.op)](left, right)
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return node.value
    raise UsageError(f"axis '{ast.unparse(node)}' is not understood")
