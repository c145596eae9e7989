"""Find out how the initializers of a stored graph follow from the module's weights.

Whatever is said here was computed once by the very code that will compute it for new weights, and compared
with what the graph holds. What fits no rule, or fits several, is pinned: it may not change.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
import torch
from torch import Tensor

from anyport.graph.derivations import Copied, Derivations, Pin, derive, digest_of, notation, sources_of
from anyport.graph.expectations import expected_weights, live_nodes, weights_by_node
from anyport.graph.foldsites import fold_sites
from anyport.graph.initializers import read_initializers
from anyport.graph.modulemap import ModuleMap
from anyport.graph.rewriting import load_graph
from anyport.graph.tensorbits import array_of
from anyport.source.adapter import PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from torch.export import ExportedProgram
    from torch.fx import Node

    from anyport.graph.derivations import Folded, Rule
    from anyport.graph.foldsites import FoldSite
    from anyport.verify import Expected, LazyArray

# PyTorch's older exporter folds with a library whose square root is off in the last place now and then; a
# layer that was not folded differs by 40 such units at least (epsilon 1e-5 beside a variance of 1)
_FOLD_ULPS: Final = 4
_MATRIX: Final = 2
_MIN_DISTINCT: Final = 3  # zeros and ones are found everywhere
_LAYERS: Final = frozenset({"Conv", "ConvTranspose", "Gemm"})
# whoever computes one of these beforehand leaves a tensor of floats, which is found or unexplained
_LEAVES_FLOATS: Final = frozenset(
    {
        "_to_copy",
        "add",
        "alias",
        "cat",
        "clone",
        "contiguous",
        "detach",
        "exp",
        "expand",
        "flatten",
        "index",
        "index_select",
        "lift_fresh_copy",
        "movedim",
        "mul",
        "narrow",
        "neg",
        "numpy_T",
        "permute",
        "repeat",
        "reshape",
        "select",
        "slice",
        "split",
        "split_with_sizes",
        "squeeze",
        "stack",
        "sub",
        "t",
        "to",
        "transpose",
        "unbind",
        "unflatten",
        "unsqueeze",
        "view",
        "view_as",
    }
)
_EQUAL: Final = "the graph holds it and another tensor as one, because they were equal when it was made"
_NOT_HELD: Final = "the graph does not hold it as it is: it was folded, merged or left out when it was made"


def note_derivations(modules: Path, program: ExportedProgram, graph: Path) -> None:
    """Write into a ``modules.json`` how the graph beside it follows from the weights."""
    known = ModuleMap.decode(modules.read_bytes())
    derivations = find_derivations(program, graph)
    modules.write_bytes(msgspec.structs.replace(known, weights=derivations).encode())


def find_derivations(program: ExportedProgram, graph: Path) -> Derivations:
    """Find a rule for every initializer that depends on weights.

    Cost: every weight is read a few times, one or two at a time.

    Args:
        program: Of the module behind its `Adapter`.
        graph: The .onnx file that was made of it, whoever rewrote it since.
    """
    weights = Weights.of(program)
    biases, settings = _read_nodes(graph)
    search = _Search(weights, {n: a for n, a in read_initializers(graph).items() if n not in settings})
    for site in fold_sites(program, weights.nodes):
        search.claim_fold(site, biases.get(site.weight, ""))
    for name in search.found:
        if name not in search.rules:
            search.claim_copy(name)
    search.explain(expected for expected in expected_weights(program) if expected.kind == "folded")
    search.pin_the_rest()
    search.pin_decided(program)
    return search.result()


def _read_nodes(graph: Path) -> tuple[dict[str, str], set[str]]:
    """Return weight -> bias of the layers in a graph, and the initializers that set how much to resize."""
    nodes = [
        (node.op_type, [value.name or "" if value is not None else "" for value in node.inputs])
        for node in load_graph(graph).graph
    ]
    layers = [names for kind, names in nodes if kind in _LAYERS and len(names) > _MATRIX]
    settings = {name for kind, names in nodes if kind == "Resize" for name in names[1:]}
    used = {name for kind, names in nodes for name in names[: 1 if kind == "Resize" else None]}
    return {names[1]: names[2] for names in layers}, settings - used


@dataclass(frozen=True, slots=True)
class Weights:
    """The tensors of a program.

    Attributes:
        state: Name in the ``state_dict`` -> tensor.
        tied: Name -> the first name of the same memory.
        nodes: Placeholder -> the first name.
        unread: Names that no output depends on.
        others: The module's tensors that are not in its ``state_dict``.
    """

    state: Mapping[str, Tensor]
    tied: Mapping[str, str]
    nodes: Mapping[str, str]
    unread: frozenset[str]
    others: tuple[Tensor, ...]

    @classmethod
    def of(cls, program: ExportedProgram) -> Weights:
        """Read them off a program of a module behind its `Adapter`."""
        state = {n.removeprefix(PREFIX): v for n, v in program.state_dict.items() if isinstance(v, Tensor)}
        first: dict[Any, str] = {}
        for name, value in state.items():
            first.setdefault(_place(name, value), name)
        own = {name: first[_place(name, value)] for name, value in state.items()}
        live, by_node = live_nodes(program), weights_by_node(program)
        nodes = {node: own.get(name, name) for node, (name, _, _) in by_node.items()}
        read = {name for node, name in nodes.items() if node in live}
        return cls(
            state=state,
            tied={name: other for name, other in own.items() if other != name},
            nodes=nodes,
            unread=frozenset(name for name in state if own[name] not in read),
            others=tuple(value for name, value, _ in by_node.values() if name not in state),
        )

    def read(self, name: str) -> np.ndarray:
        """Return a tensor of the state."""
        return array_of(self.state[name])

    def searched(self, n_elements: int) -> list[str]:
        """Return the tensors of a size that an initializer may be."""
        known = {*self.tied, *self.unread}
        return [n for n, v in self.state.items() if v.numel() == n_elements and n not in known]


def _place(name: str, value: Tensor) -> Any:
    return (value.data_ptr(), value.dtype, value.shape, value.stride()) if value.numel() else name


@dataclass(slots=True)
class _Search:
    """Initializers, and what is known of them so far."""

    weights: Weights
    found: Mapping[str, LazyArray]
    rules: dict[str, Rule] = field(default_factory=dict)
    pinned: dict[str, str] = field(default_factory=dict)
    explained: set[str] = field(default_factory=set)
    unexplained: list[str] = field(default_factory=list)

    def claim_fold(self, site: FoldSite, bias: str) -> None:
        """Take a layer as folded where its weight says so, and its bias agrees."""
        if (
            site.weight not in self.found
            or bias not in self.found
            or self._is_copy(Copied(site.weight), site.weight)
        ):
            return
        rule = next((way for way in site.weight_rules() if self._is_fold(way, site.weight)), None)
        if rule is not None and self._is_fold(site.bias_rule(), bias):
            self._claim(site.weight, rule)
            self._claim(bias, site.bias_rule())

    def _claim(self, name: str, rule: Rule) -> None:
        """Give an initializer its rule; one that two layers claim serves both, so that neither may change."""
        other = self.rules.setdefault(name, rule)
        if other != rule:
            self._pin([*sources_of(other), *sources_of(rule)], name, _EQUAL)

    def claim_copy(self, name: str) -> None:
        """Take an initializer as the weight that it is called after, or as the only one that it equals."""
        own = self.weights.tied.get(name, name)
        if own in self.weights.state and (rules := self._copies(name, [own])):
            self.rules[name] = rules[0]
            return
        held = self.found[name].load()
        rules = (
            self._copies(name, self.weights.searched(held.size)) if _is_float(held) or held.size > 1 else []
        )
        if len(rules) == 1 and len(np.unique(held)) >= _MIN_DISTINCT:
            self.rules[name] = rules[0]
        elif rules:
            self._pin([rule.of for rule in rules], name, f"the graph's '{name}' may be it, or may not")

    def _copies(self, name: str, weights: Sequence[str]) -> list[Copied]:
        ways = [[Copied(of), Copied(of, transposed=True)] for of in weights]
        fitting = [next((rule for rule in both if self._is_copy(rule, name)), None) for both in ways]
        return [rule for rule in fitting if rule is not None]

    def _is_copy(self, rule: Copied, name: str) -> bool:
        found, of = self.found[name], self.weights.state[rule.of]
        if rule.transposed and (of.ndim != _MATRIX or tuple(of.shape[::-1]) != tuple(found.shape)):
            return False
        if of.numel() != int(np.prod(found.shape, dtype=np.int64)):
            return False
        return same_bits(derive(rule, self.weights.read), found.load())

    def _is_fold(self, rule: Folded, name: str) -> bool:
        """Compare a fold with the graph, to the last places of the numbers that it is summed up from."""

        def magnitude(of: str) -> np.ndarray:
            size: np.ndarray = np.abs(self.weights.read(of))
            return -size if of == rule.norm.mean else size

        held = self.found[name].load()
        made = derive(rule, self.weights.read)
        if made.shape != held.shape or made.dtype != held.dtype:
            return False
        allowed = _FOLD_ULPS * np.finfo(made.dtype).eps * derive(rule, magnitude)
        return bool(np.all(np.abs(made - held) <= allowed))

    def explain(self, folds: Iterable[Expected]) -> None:
        """Tell constants from what was computed of weights in ways that no rule knows."""
        self.explained |= {name for name in self._left() if self._is_no_weight(self.found[name].load())}
        left = self._left()
        for expected in folds if left else ():
            made = expected.load()
            for name in [name for name in left if _is_like(made, expected.rtol, self.found[name].load())]:
                of = [source for source in expected.of if source in self.weights.state]
                self._pin(of, name, f"the graph's '{name}' was computed from it")
        self.unexplained += [n for n in self._left() if _is_tensor_of_floats(self.found[n].load())]

    def _left(self) -> list[str]:
        return [name for name in self.found if name not in self.rules and name not in self.explained]

    def _is_no_weight(self, held: np.ndarray) -> bool:
        """Say whether a constant is a tensor that no checkpoint has, or whole numbers where no weight is."""
        read = [v for n, v in self.weights.state.items() if n not in self.weights.unread]
        if not _is_float(held) and all(value.is_floating_point() for value in read):
            return True
        return not self._may_be_weight(held)

    def pin_the_rest(self) -> None:
        """Pin the weights that no rule reads, and those that an exporter may have merged them with."""
        weights = self.weights
        read = {of for rule in self.rules.values() for of in sources_of(rule)}
        free = {*read, *weights.tied, *weights.unread}
        for name in [name for name in weights.state if name not in free]:
            merged = [held for held in self.rules if self._copies(held, [name])]
            for held in merged:
                self._pin([name, *sources_of(self.rules[held])], held, _EQUAL)
            self.pinned.setdefault(name, _NOT_HELD)

    def pin_decided(self, program: ExportedProgram) -> None:
        """Pin the weights that masks, places and scalars in the graph may have been computed from."""
        weights = self.weights
        for name, value in weights.state.items():
            if name not in weights.unread and not value.is_floating_point():
                self._pin([name], "", "it holds no floats, and the graph may depend on what it held")
        for node, of in _decided_by_weights(program):
            names = [name for name in of if name in weights.state]
            self._pin(names, "", f"the model computes '{node}' from it, which the graph may hold as it was")
        for name in self.found:
            held = self.found[name]
            if (
                name not in self.rules
                and np.dtype(held.dtype).kind == "b"
                and self._may_be_weight(held.load())
            ):
                size = int(np.prod(held.shape, dtype=np.int64))
                why = f"the graph's '{name}' may have been computed from it"
                self._pin([n for n, v in weights.state.items() if v.numel() == size], name, why)

    def _may_be_weight(self, held: np.ndarray) -> bool:
        return not any(same_bits(array_of(value), held) for value in self.weights.others)

    def _pin(self, weights: Iterable[str], initializer: str, why: str) -> None:
        if initializer:
            self.explained.add(initializer)
        for name in weights:
            self.pinned.setdefault(self.weights.tied.get(name, name), why)

    def result(self) -> Derivations:
        """Return what was found; weights that no rule reads are pinned."""
        weights = self.weights
        state = {
            name: notation(str(value.dtype).removeprefix("torch."), tuple(value.shape))
            for name, value in weights.state.items()
        }
        return Derivations(
            state=state,
            rules=dict(sorted(self.rules.items())),
            tied=dict(weights.tied),
            unread=sorted(weights.unread),
            pinned={
                name: Pin(digest_of(weights.read(name)), why) for name, why in sorted(self.pinned.items())
            },
            unexplained=self.unexplained,
            infinite=[name for name, value in weights.state.items() if bool(value.isinf().any())],
        )


def _decided_by_weights(program: ExportedProgram) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield what weights alone decide and what need not be found in a graph, with the weights.

    A layer that is computed as it is, or moved, leaves its floats; a comparison leaves but its outcome.
    """
    tensors, live = weights_by_node(program), live_nodes(program)
    of: dict[Node, tuple[str, ...]] = {}  # lacks what depends on the user's tensors
    for node in program.graph.nodes:
        own = (tensors[node.name][0],) if node.name in tensors else ()
        read = [of.get(parent, ()) for parent in node.all_input_nodes]
        names = tuple(dict.fromkeys([*own, *(name for names in read for name in names)]))
        if isinstance(node.target, torch._ops.HigherOrderOperator):  # noqa: SLF001 -- it has no public name
            yield node.name, names  # nobody looks into its branches
        elif node.op == "placeholder" and own:
            of[node] = own
        elif node.op in {"call_function", "get_attr"} and all(n in of for n in node.all_input_nodes):
            of[node] = names
            if node.name in live and names and not _leaves_floats(node):
                yield node.name, names


def _leaves_floats(node: Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    name = "" if schema is None else schema.name.removeprefix("aten::")
    value = node.meta.get("val")
    values = value if isinstance(value, (list, tuple)) else [value]
    return (name in _LEAVES_FLOATS or node.target is operator.getitem) and all(
        isinstance(v, Tensor) and v.is_floating_point() and isinstance(v.numel(), int) and v.numel() > 1
        for v in values
    )


def same_bits(made: np.ndarray, held: np.ndarray) -> bool:
    """Say whether two arrays hold the same bits, in whatever shape."""
    if made.dtype != held.dtype or made.size != held.size:
        return False
    bits = np.dtype(f"u{made.dtype.itemsize}")
    return np.array_equal(np.ascontiguousarray(made).reshape(-1).view(bits), held.reshape(-1).view(bits))


def _is_float(array: np.ndarray) -> bool:
    return array.dtype.kind == "f" or array.dtype == np.uint16  # the bits of bfloat16


def _is_tensor_of_floats(array: np.ndarray) -> bool:
    return _is_float(array) and array.size > 1


def _is_like(made: np.ndarray, rtol: float, held: np.ndarray) -> bool:
    """Say whether an initializer is what PyTorch computes of weights alone, transposed or not."""
    if made.size != held.size or made.dtype != held.dtype or not made.size:
        return False
    allowed = rtol * float(np.abs(made.astype(np.float64)).max())
    ways = [made] + [made.T] * (made.ndim == _MATRIX)
    wanted = held.reshape(-1).astype(np.float64)
    return any(bool(np.all(np.abs(way.reshape(-1) - wanted) <= allowed)) for way in ways)
