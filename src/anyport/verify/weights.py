"""Account for the weights: every parameter of the module is found in the graph, or it is said why not.

No input reaches every weight (rows of an embedding that no case uses, a softmax that is flat at its start),
so numbers alone never prove that the right weights are inside. This leg compares bits, whatever the inputs.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from anyport.verify.fingerprints import LazyArray, fingerprint
from anyport.verify.verdict import Leg, Status
from anyport.verify.weightsearch import FOLDED_RTOL, Catalogue, Sought

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import numpy as np

WeightKind = Literal["buffer", "folded", "parameter", "unused"]

_FOUND: Final = ("bit-equal", "reshaped", "transposed", "cast", "folded")
_FAILED: Final = ("swapped", "changed", "reordered")
_MAX_LISTED: Final = 12


@dataclass(frozen=True, slots=True)
class Expected:
    """One tensor that the module holds, or that follows from its tensors.

    Attributes:
        name: The name of a parameter or buffer as the graph would call its initializer; any name if folded.
        load: Reads it; called a few times, never kept.
        kind: ``unused``: PyTorch's own program does not read it. ``folded``: computed from others beforehand.
        of: The names that a folded tensor is computed from.
        rtol: How far a folded tensor may be off, relative to its largest element: optimizers fold in float32
            and in another order.
    """

    name: str
    load: Callable[[], np.ndarray]
    kind: WeightKind = "parameter"
    of: tuple[str, ...] = ()
    rtol: float = FOLDED_RTOL


@dataclass(frozen=True, slots=True)
class Accounted:
    """What became of one parameter or buffer.

    Attributes:
        name: Its name in the module.
        how: ``bit-equal``, ``reshaped``, ``transposed``, ``cast``, ``folded``; ``unused``; ``values only``
            (found nowhere: only the numeric leg covers it); ``swapped``, ``changed``, ``reordered``
            (these fail).
        initializer: Where in the graph; empty if nowhere.
        text: What is wrong, in words; empty unless it fails.
    """

    name: str
    how: str
    initializer: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class WeightAccount:
    """What became of every weight, and what the graph holds beyond them.

    Attributes:
        entries: One per parameter and buffer.
        surplus: Float initializers of more than one element that nothing explains.
    """

    entries: tuple[Accounted, ...]
    surplus: tuple[str, ...]

    @property
    def counts(self) -> dict[str, int]:
        """How many weights there are of each class; classes without any are left out."""
        found = Counter(entry.how for entry in self.entries)
        return {how: found[how] for how in (*_FOUND, "unused", "values only", *_FAILED) if found[how]}

    @property
    def n_found(self) -> int:
        """How many weights are in the graph as they should be."""
        return sum(self.counts.get(how, 0) for how in _FOUND)

    @property
    def n_wanted(self) -> int:
        """How many weights the module's program reads."""
        return len(self.entries) - self.counts.get("unused", 0)

    @property
    def failures(self) -> tuple[str, ...]:
        """What is wrong, one line each; a swap is one."""
        return tuple(dict.fromkeys(entry.text for entry in self.entries if entry.how in _FAILED))

    @property
    def status(self) -> Status:
        """FAIL, PASS, INCONCLUSIVE (nothing found), or NOT_APPLICABLE (the module has no weights)."""
        if self.failures:
            return Status.FAIL
        if self.n_wanted == 0:
            return Status.NOT_APPLICABLE
        return Status.PASS if self.n_found else Status.INCONCLUSIVE

    def __str__(self) -> str:
        """Return ``22 of 22 weights found: 18 bit-equal, 2 transposed, 2 folded``."""
        parts = ", ".join(f"{n} {how}" for how, n in self.counts.items())
        return f"{self.n_found} of {self.n_wanted} weights found" + (f": {parts}" if parts else "")

    def leg(self) -> Leg:
        """Return the leg ``weights`` of a verdict."""
        details = [*self.failures, str(self)]
        details += _listed("only the values cover", [e.name for e in self.entries if e.how == "values only"])
        details += _listed("unused by the program", [e.name for e in self.entries if e.how == "unused"])
        details += _listed("surplus in the graph", self.surplus)
        lines = {
            Status.FAIL: self.failures[0] if self.failures else "",
            Status.INCONCLUSIVE: f"none of {self.n_wanted} weights was found in the graph",
            Status.NOT_APPLICABLE: "the model has no weights",
            Status.PASS: f"{self.n_found} of {self.n_wanted} weights found",
        }
        is_bad = self.status in (Status.FAIL, Status.INCONCLUSIVE)
        do = "export the model again from these weights" if is_bad else ""
        return Leg("weights", self.status, lines[self.status], tuple(details), do)


def _listed(title: str, names: Sequence[str]) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
    return [f"{title}: {', '.join(names[:_MAX_LISTED])}{more}"]


def account_weights(expected: Iterable[Expected], found: Mapping[str, LazyArray]) -> WeightAccount:
    """Find every parameter and buffer among the initializers of a graph.

    First by name and bits; then by content whatever the name: reshaped, axes permuted, cast, folded. What is
    not found so, while an initializer of its name (or one that nothing explains, of its shape) holds other
    values, fails.

    Cost: each tensor is read once or twice and hashed; never more than two are held at a time.

    >>> import numpy as np
    >>> w = np.arange(6, dtype=np.float32).reshape(2, 3)
    >>> graph = {"val_6": LazyArray((3, 2), "float32", lambda: w.T)}
    >>> str(account_weights([Expected("fc.weight", lambda: w)], graph))
    '1 of 1 weights found: 1 transposed'

    Args:
        expected: What the module holds, and what may be folded from it.
        found: Initializer name -> tensor.
    """
    wanted = list(expected)
    own = [(item, _sought(item)) for item in wanted if item.kind != "folded"]
    recipes = [_sought(item) for item in wanted if item.kind == "folded"]
    catalogue = Catalogue(found, [one for _, one in own])
    direct = [catalogue.find(one) for _, one in own]
    folded: dict[str, str] = {}
    for recipe in recipes:
        where = catalogue.find_folded(recipe)
        folded |= dict.fromkeys(recipe.of, where) if where else {}
    entries = [
        _accounted((item, one), hit or _fold(folded, item), catalogue, recipes)
        for (item, one), hit in zip(own, direct, strict=True)
    ]
    return WeightAccount(tuple(entries), catalogue.surplus())


def _sought(item: Expected) -> Sought:
    return Sought(item.name, item.load, fingerprint(item.load()), item.kind == "folded", item.of, item.rtol)


def _fold(folded: Mapping[str, str], item: Expected) -> tuple[str, str] | None:
    return ("folded", folded[item.name]) if item.name in folded else None


def _accounted(
    own: tuple[Expected, Sought],
    hit: tuple[str, str] | None,
    catalogue: Catalogue,
    recipes: Sequence[Sought],
) -> Accounted:
    item, one = own
    if item.kind == "unused":
        return Accounted(item.name, "unused")
    targets = [recipe for recipe in recipes if item.name in recipe.of]
    conflict = catalogue.conflict(one, targets)
    if conflict is not None:
        return Accounted(item.name, *conflict)
    if hit is not None:
        return Accounted(item.name, *hit)
    damage = catalogue.damage(one, targets)
    return Accounted(item.name, *damage) if damage is not None else Accounted(item.name, "values only")
