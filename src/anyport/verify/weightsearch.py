"""Look for one tensor among the initializers of a graph: by name, by content, by what it was folded to."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from anyport.verify.finding import index_text
from anyport.verify.fingerprints import Fingerprint, LazyArray, fingerprint, layouts, same_layout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

FOLDED_RTOL: Final = 1.0e-5  # of the largest element; float32 folds differ from float64 ones by a few 1e-7
_MAX_COUNTERPARTS: Final = 8


@dataclass(frozen=True, slots=True)
class Sought:
    """A tensor of the module, and its fingerprint.

    Attributes:
        name: Its name.
        load: Reads it.
        print: Its fingerprint.
        is_folded: Whether it is computed from others.
        of: From which.
        rtol: How far off it may be, if it is computed.
    """

    name: str
    load: Callable[[], np.ndarray]
    print: Fingerprint
    is_folded: bool
    of: tuple[str, ...]
    rtol: float


@dataclass(frozen=True, slots=True)
class Difference:
    """How far an initializer is from what it should hold."""

    n_different: int
    n_elements: int
    text: str


class Catalogue:
    """The initializers of a graph by content, and which of them are explained.

    Args:
        found: Initializer name -> tensor; each is read once here.
        sought: The module's own tensors, for finding them under each other's names.
    """

    def __init__(self, found: Mapping[str, LazyArray], sought: Sequence[Sought]) -> None:
        self._found = dict(found)
        self._sought = list(sought)
        self._prints = {name: fingerprint(array.load()) for name, array in self._found.items()}
        self._by_elements: dict[tuple[str, int, int], list[str]] = defaultdict(list)
        for name, seen in self._prints.items():
            self._by_elements[_elements_key(seen)].append(name)
        self._explained: set[str] = set()
        self._folds: dict[str, set[str]] = defaultdict(set)  # initializer -> what it was folded from
        self._fine: dict[str, set[str]] = defaultdict(set)  # sought name -> initializers that hold it

    def find(self, one: Sought) -> tuple[str, str] | None:
        """Return how and where a tensor is held, its own name first; all that hold it are marked."""
        holders = self._by_elements.get(_elements_key(one.print), [])
        ordered = sorted(holders, key=lambda name: name != one.name)
        hits = [(how, name) for name in ordered if (how := self._layout(one, name))]
        if not hits:
            hits = list(self._casts(one))
        for _, name in hits:
            self._explained.add(name)
            self._fine[one.name].add(name)
        rank = ("bit-equal", "reshaped", "transposed", "cast")
        return min(hits, key=lambda hit: (hit[1] != one.name, rank.index(hit[0])), default=None)

    def _layout(self, one: Sought, name: str) -> str | None:
        seen = self._prints[name]
        if one.print.same_bits(seen):
            return "bit-equal" if one.print.shape == seen.shape else "reshaped"
        return same_layout(one.load(), self._found[name].load())

    def _casts(self, one: Sought) -> Iterator[tuple[str, str]]:
        names = self._same_size(one.print, lambda seen: seen.dtype != one.print.dtype)
        for dtype in sorted({self._prints[name].dtype for name in names}):
            cast = _cast(one.load(), dtype)
            if cast is None:
                continue
            key = _elements_key(fingerprint(cast))
            for name in self._by_elements.get(key, []):
                if same_layout(cast, self._found[name].load()):
                    yield "cast", name

    def _same_size(self, like: Fingerprint, wanted: Callable[[Fingerprint], bool]) -> list[str]:
        return [
            name for name, seen in self._prints.items() if seen.n_elements == like.n_elements and wanted(seen)
        ]

    def find_folded(self, one: Sought) -> str:
        """Return the initializer that holds a folded tensor within its tolerance, or nothing."""
        direct = self.find(one)
        if direct is not None:
            self._folds[direct[1]].update(one.of)
            return direct[1]
        names = self._same_size(one.print, lambda seen: seen.dtype.startswith("float"))
        names.sort(key=lambda name: (name not in (one.name, *one.of), name in self._explained))
        for name in names:
            if name in self._explained or not self._is_near(one, name):
                continue
            self._explained.add(name)
            self._folds[name].update(one.of)
            return name
        return ""

    def _is_near(self, one: Sought, name: str) -> bool:
        seen = self._prints[name]
        if seen.squeezed != one.print.squeezed and len(one.print.squeezed) == len(seen.squeezed):
            return False
        allowed = max(one.rtol, float(np.finfo(seen.dtype).eps)) * one.print.largest
        if not abs(seen.largest - one.print.largest) <= allowed:
            return False
        mine = self._found[name].load().reshape(-1).astype(np.float64)
        return any(
            bool(np.max(np.abs(np.ascontiguousarray(layout).reshape(-1) - mine), initial=0.0) <= allowed)
            for _, layout in layouts(one.load().astype(np.float64))
        )

    def conflict(self, one: Sought, recipes: Sequence[Sought]) -> tuple[str, str, str] | None:
        """Return what is wrong with the initializer of the tensor's own name; ``None`` if nothing is.

        Args:
            one: A parameter or buffer.
            recipes: The folded tensors that are computed from it.
        """
        own = self._prints.get(one.name)
        if own is None or one.name in self._fine[one.name]:
            return None
        if own.same_elements(one.print):
            return "reordered", one.name, _reordered_text(one, one.name)
        other = self._other_holder(one, own)
        if other is not None:
            return "swapped", one.name, _swapped_text(one.name, other)
        if one.name in self._folds[one.name]:
            return None
        return self._changed(one, [one.name], recipes)

    def _other_holder(self, one: Sought, own: Fingerprint) -> str | None:
        """Return the tensor whose values the initializer holds; a constant's values are nobody's."""
        if own.is_constant:
            return None
        holders = [other.name for other in self._sought if one.name in self._fine[other.name]]
        same = [
            other.name for other in self._sought if other.name != one.name and other.print.same_elements(own)
        ]
        return next(iter([*same, *holders]), None)

    def damage(self, one: Sought, recipes: Sequence[Sought]) -> tuple[str, str, str] | None:
        """Return what became of a tensor that is found nowhere; ``None`` if the graph has no trace of it."""
        for name in self._by_elements.get(_elements_key(one.print), []):
            if name not in self._explained and not one.print.is_constant:
                self._explained.add(name)
                return "reordered", name, _reordered_text(one, name)
        names = [name for target in (one, *recipes) for name in self._unexplained_like(target)]
        return self._changed(one, names[:_MAX_COUNTERPARTS], recipes) if names else None

    def _unexplained_like(self, target: Sought) -> list[str]:
        """Return the float initializers of a tensor's shape that nothing explains."""
        if target.print.n_elements <= 1 or not target.print.dtype.startswith("float"):
            return []
        like = self._same_size(target.print, lambda seen: seen.dtype.startswith("float"))
        return [
            name
            for name in like
            if name not in self._explained and self._prints[name].squeezed == target.print.squeezed
        ]

    def _changed(self, one: Sought, names: Sequence[str], recipes: Sequence[Sought]) -> tuple[str, str, str]:
        """Compare with what comes nearest: the tensor itself, or what it is folded to."""
        tried = [
            (_difference(target, self._found[name].load()), name)
            for name in names
            for target in (one, *recipes)
        ]
        nearest, name = min(tried, key=lambda found: found[0].n_different)
        self._explained.add(name)
        as_name = "" if name == one.name else f" (initializer '{name}')"
        return "changed", name, f"weight '{one.name}'{as_name} is changed: {nearest.text}"

    def surplus(self) -> tuple[str, ...]:
        """Return the float initializers of more than one element that nothing explains."""
        return tuple(
            name
            for name, seen in self._prints.items()
            if name not in self._explained and seen.dtype.startswith("float") and seen.n_elements > 1
        )


def _elements_key(seen: Fingerprint) -> tuple[str, int, int]:
    return seen.dtype, seen.n_elements, seen.multiset


def _cast(array: np.ndarray, dtype: str) -> np.ndarray | None:
    """Return the array in another type of the same family; ``None`` for float to whole numbers and back."""
    same_family = np.issubdtype(array.dtype, np.floating) == np.issubdtype(np.dtype(dtype), np.floating)
    if not same_family:
        return None
    with np.errstate(over="ignore", under="ignore"):
        return array.astype(dtype)


def _swapped_text(one: str, other: str) -> str:
    first, second = sorted((one, other))
    return f"weights '{first}' and '{second}' are swapped: '{one}' in the graph holds the values of '{other}'"


def _reordered_text(one: Sought, name: str) -> str:
    as_name = "" if name == one.name else f" (initializer '{name}')"
    return f"weight '{one.name}'{as_name} holds the same values in another order, which is no transpose"


def _difference(target: Sought, found: np.ndarray) -> Difference:
    """Count the elements of an initializer that are not the target's, in the layout with the fewest."""
    expected = target.load()
    if expected.size != found.size:
        text = f"its shape is {found.shape}, the model's {expected.shape}"
        return Difference(max(expected.size, found.size), found.size, text)
    mine = found.reshape(-1)
    allowed = target.rtol * target.print.largest if target.is_folded else 0.0
    best: tuple[int, int, float] | None = None
    for _, layout in layouts(expected):
        flat = np.ascontiguousarray(layout).reshape(-1)
        wrong = _differs(flat, mine, allowed)
        n_wrong = int(np.count_nonzero(wrong))
        if best is None or n_wrong < best[0]:
            first = int(np.argmax(wrong))
            best = n_wrong, first, float(flat[first])
    n_wrong, first, value = best if best is not None else (0, 0, 0.0)
    index = index_text(tuple(int(i) for i in np.unravel_index(first, found.shape)))
    text = (
        f"{n_wrong} of {found.size} elements differ, the first at index {index}: "
        f"{float(mine[first]):.9g} where the model has {value:.9g}"
    )
    return Difference(n_wrong, found.size, text)


def _differs(expected: np.ndarray, mine: np.ndarray, allowed: float) -> np.ndarray:
    if allowed == 0.0 and expected.dtype == mine.dtype:
        bits = np.dtype(f"u{expected.dtype.itemsize}")
        return np.asarray(expected.view(bits) != np.ascontiguousarray(mine).view(bits))
    with np.errstate(invalid="ignore", over="ignore"):
        if allowed == 0.0:  # another type: compare what the cast would give
            return np.asarray(expected.astype(mine.dtype) != mine)
        return np.asarray(~(np.abs(expected.astype(np.float64) - mine.astype(np.float64)) <= allowed))
