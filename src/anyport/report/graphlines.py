"""The lines of the release list that are read from the graph file and the steps that made it."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Final, get_args

from anyport.bench.blank import Blank
from anyport.report.line import (
    Checked,
    Judge,
    Line,
    failed,
    listed,
    not_applicable,
    passed,
    unproven,
    untested,
)
from anyport.report.runs import MAX_REPEAT_ERROR
from anyport.runtime import Optimization

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from anyport.axes import Axis
    from anyport.report.runs import CaseRun
    from anyport.runtime.graphfile import ModelFacts, NodeFacts, ValueFacts
    from anyport.tensors import TensorSpec

CONTROL_FLOW: Final = frozenset({"If", "Loop", "Scan", "SequenceMap"})
_RANDOM: Final = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)
_EXPORTERS: Final = ("dynamo", "torchscript")  # anyport captures with torch.export before either
_WORD: Final = re.compile(r"[A-Za-z_]\w*")
_GENERATED: Final = re.compile(r"(val|getitem|arg|onnx|tensor)_?\d+|onnx::.*|_?v?_?\d+")
_NARROW: Final = frozenset({"bfloat16", "float16", "int4", "int8", "uint4", "uint8"})
_MIN_NARROW_SHARE: Final = 0.1  # of the elements: zero points and masks are int8 in any graph
_LEVELS: Final = frozenset(get_args(Optimization))


def inference_mode(checked: Checked) -> Line:
    """Nothing in the graph behaves as in training: no dropping, no batch statistics, no drawing."""
    nodes = list(checked.model.all_nodes())
    flags = {one.name: one.value for one in checked.model.weights() if one.name}
    flags |= {n.outputs[0]: n.constant.value for n in nodes if n.constant is not None and n.outputs}
    wrong = [words for node in nodes if (words := _training_words(node, flags))]
    if wrong:
        do = "call .eval() before the export; a random draw becomes an input of the graph"
        return failed(listed(wrong, 3), do)
    repeat = checked.runs.repeat
    if isinstance(repeat, Blank):
        return unproven(checked) or untested(f"nothing ran twice: {repeat.why}")
    if repeat:
        return failed(repeat, "give what is drawn as an input of the graph")
    kinds = Counter(node.operator for node in nodes)
    kept = [f"{kinds[name]} {name}" for name in ("BatchNormalization", "Dropout") if kinds[name]]
    words = f", {' and '.join(kept)} in inference mode" if kept else ""
    return passed(
        f"{len(nodes)} nodes read: no random operator, none of training{words}; the smallest case, run twice,"
        f" gave every output within {MAX_REPEAT_ERROR:g} of its largest value"
    )


def _training_words(node: NodeFacts, flags: dict[str, int | None]) -> str:
    name = f"{node.operator} '{node.name or listed(node.outputs)}'"
    if node.operator in _RANDOM:
        return f"{name} draws random numbers"
    if node.operator == "BatchNormalization":
        n_outputs = sum(bool(output) for output in node.outputs)
        if node.integers.get("training_mode") == 1 or n_outputs > 1:
            return f"{name} takes the statistics of the batch"
    has_mode = node.operator == "Dropout" and len(node.inputs) > 2 and bool(node.inputs[2])  # noqa: PLR2004
    if has_mode and flags.get(node.inputs[2]) != 0:
        return f"{name} drops values: its training_mode is not false"
    return ""


def control_flow(checked: Checked) -> Line:
    """No branch or loop of the model was left out."""
    branches = [node for node in checked.model.all_nodes() if node.operator in CONTROL_FLOW]
    constants = {one.name for one in checked.model.weights() if one.name}
    constants |= {n.outputs[0] for n in checked.model.all_nodes() if n.constant is not None and n.outputs}
    stuck = [node for node in branches if node.operator == "If" and set(node.inputs[:1]) & constants]
    if stuck:
        return failed(f"If '{stuck[0].name}' takes the same branch always: its condition is a constant")
    for variant, other in checked.others.items():
        n_there = sum(node.operator in CONTROL_FLOW for node in other.all_nodes())
        if n_there > len(branches):
            return failed(f"variant {variant} has {n_there} nodes of control flow, this one {len(branches)}")
    bad = [one.case for one in checked.verdict.findings if not one.passed]
    n_cases = len(checked.verdict.plan.cases)
    if bad and len(set(bad)) < n_cases:
        return failed(
            f"{len(set(bad))} of {n_cases} cases differ from PyTorch, which is how a lost branch looks"
        )
    if (nothing := unproven(checked)) is not None:
        return nothing
    if not any(one.settings.get("exporter") in _EXPORTERS for one in checked.own_steps):
        return untested(
            "no step says how the model was captured", "anyport build, which refuses lost branches"
        )
    n_sizes = len({tuple(sorted(case.sizes.items())) for case in checked.verdict.plan.cases})
    kinds = Counter(node.operator for node in branches)
    words = listed([f"{n} {name}" for name, n in sorted(kinds.items())]) or "no If, Loop or Scan"
    return passed(
        f"captured with torch.export, which refuses a branch on values; the graph has {words} and follows"
        f" PyTorch on {n_cases} cases of {n_sizes} sizes"
    )


def names(checked: Checked) -> Line:
    """Inputs and outputs have names that say something, and no name stands for two things."""
    graph = checked.model.graph
    ends = [value.name for value in (*graph.inputs, *graph.outputs)]
    unclear = [name for name in ends if not _WORD.fullmatch(name) or _GENERATED.fullmatch(name)]
    if unclear:
        return failed(
            f"inputs and outputs are called {listed([repr(name) for name in unclear])}",
            "name them: anyport build -i NAME=TENSOR, or [inputs] and [outputs] in anyport.toml",
        )
    twice = sorted(name for name, n in Counter(_produced(checked.model)).items() if n > 1)
    if twice:
        return failed(f"{len(twice)} names stand for two values each: {listed(twice)}")
    nodes = Counter(node.name for node in checked.model.all_nodes() if node.name)
    twice = sorted(name for name, n in nodes.items() if n > 1)
    if twice:
        return failed(f"{len(twice)} names stand for two nodes each: {listed(twice)}")
    return _weight_names(checked, ends, sum(nodes.values()))


def _produced(model: ModelFacts) -> Iterator[str]:
    """Yield the name of every value once for each place that gives it one; a branch's are its own."""
    graph = model.graph
    inputs = {value.name for value in graph.inputs}
    yield from inputs
    yield from (one.name for one in graph.initializers if one.name not in inputs)
    for node in graph.nodes:
        yield from (output for output in node.outputs if output)


def _weight_names(checked: Checked, ends: list[str], n_named: int) -> Line:
    weights = [one for one in checked.model.graph.initializers if one.size_bytes]
    unclear = [one for one in weights if _GENERATED.fullmatch(one.name)]
    n_bytes = sum(one.size_bytes for one in weights)
    if 2 * sum(one.size_bytes for one in unclear) > n_bytes:
        return failed(
            f"more than half of the weights are called like {listed([repr(one.name) for one in unclear], 2)}",
            "weights that keep the names of the model can be found and swapped: anyport build",
        )
    n_nodes = sum(1 for _ in checked.model.all_nodes())
    return passed(
        f"{listed(ends)}; {len(weights) - len(unclear)} of {len(weights)} weights have names of the model, "
        f"{n_named} of {n_nodes} nodes a name; none stands for two things"
    )


def axes(checked: Checked) -> Line:
    """The file has the dynamic axes that the bundle declares, and no other; and each was run at two sizes."""
    part, graph = checked.graph.part, checked.model.graph
    weights = {one.name for one in graph.initializers}
    wrong = _wrong_axes([v for v in graph.inputs if v.name not in weights], part.input_specs(), is_input=True)
    wrong += _wrong_axes(graph.outputs, part.output_specs(), is_input=False)
    if wrong:
        return failed(
            listed(wrong, 3), "anyport build, which exports the axes as declared or says which was lost"
        )
    declared = sorted({name for spec in part.input_specs() for name in spec.dynamic_axes().values()})
    if not declared:
        return not_applicable(
            f"every axis is fixed, in the bundle and in the file: {listed(_shapes(checked))}"
        )
    return unproven(checked) or _sizes_that_ran(checked, declared)


def _sizes_that_ran(checked: Checked, declared: list[str]) -> Line:
    dims = checked.graph.part.dim_ranges()
    wrong = {one.case for one in checked.verdict.findings if not one.passed}
    good = [run.case for run in _good(checked) if run.case.name not in wrong]
    sizes = {name: sorted({case.sizes[name] for case in good if name in case.sizes}) for name in declared}
    words = [f"{name} {dims[name]} ran at {listed([str(s) for s in sizes[name]], 8)}" for name in declared]
    single = [n for n in declared if len(sizes[n]) < 2 and dims[n].low < dims[n].high]  # noqa: PLR2004  (one size shows nothing)
    if single:
        return untested(
            f"the file has them; {listed(single)} ran at fewer than two sizes", "anyport build --dim …"
        )
    missing = [f"{name}={dims[name].high}" for name in declared if dims[name].high not in sizes[name]]
    if missing:
        do = "anyport build --max-case-bytes 1GB, or a --dim that promises less"
        return untested(f"{'; '.join(words)}; never at {listed(missing)}", do)
    return passed("; ".join(words))


def _good(checked: Checked) -> list[CaseRun]:
    return [run for run in checked.runs.cases if not run.problem]


def _shapes(checked: Checked) -> list[str]:
    return [f"{spec.name} {spec}" for spec in checked.graph.part.input_specs()]


def _wrong_axes(found: Iterable[ValueFacts], declared: Iterable[TensorSpec], *, is_input: bool) -> list[str]:
    by_name = {value.name: value for value in found}
    kind = "input" if is_input else "output"
    wrong = []
    for spec in declared:
        value = by_name.pop(spec.name, None)
        if value is None:
            wrong.append(f"the file has no {kind} '{spec.name}'")
        elif len(value.axes) != len(spec.axes) and (is_input or value.axes):
            wrong.append(f"{kind} '{spec.name}' has {len(value.axes)} axes, {spec} is declared")
        else:
            pairs = zip(value.axes, spec.axes, strict=False)
            wrong += [
                f"{kind} '{spec.name}' has {words} at axis {place}, {spec} is declared"
                for place, (axis, ours) in enumerate(pairs)
                if (words := _wrong_axis(axis, ours, is_input=is_input))
            ]
    return [*wrong, *(f"the file has an {kind} '{name}' more" for name in by_name)]


def _wrong_axis(found: int | str | None, declared: Axis, *, is_input: bool) -> str:
    if not declared.is_fixed:
        if isinstance(found, int):
            return f"the fixed size {found}"
        is_other = is_input and declared.name is not None and found != declared.name
        return f"the name {found!r}" if is_other else ""
    if isinstance(found, int):
        return "" if found == declared.size({}) else f"the size {found}"
    return "a dynamic size" if is_input else ""  # what a file leaves open of its outputs, the runs close


def simplified(checked: Checked) -> Line:
    """Simplifiers were tried, and nothing is left that nobody uses."""
    dead = _dead_nodes(checked.model)
    do = "anyport build --simplify auto"
    if dead:
        return failed(
            f"{len(dead)} of {checked.graph.entry.n_nodes} nodes compute what nobody uses: {listed(dead)}", do
        )
    steps = checked.steps_called("simplify")
    if not steps:
        return untested("no node is idle, and no simplifier was tried", do)
    tool = steps[-1].settings.get("tool", "a simplifier")
    kept = "the original kept, none was better" if tool == "none" else f"{tool} kept"
    return passed(f"{kept}: {steps[-1].result}; no node is idle")


def _dead_nodes(model: ModelFacts) -> list[str]:
    used = {name for node in model.all_nodes() for name in node.inputs}
    used |= {value.name for graph in model.graph.walk() for value in graph.outputs}
    return [
        node.name or f"{node.operator} -> {listed(node.outputs)}"
        for graph in model.graph.walk()
        for node in graph.nodes
        if not used.intersection(node.outputs)
    ]


def quantized(checked: Checked) -> Line:
    """A smaller form was tried; and where this variant is one, its weights really are smaller."""
    own = checked.steps_called("compress")
    narrow, whole = _narrow_elements(checked.model)
    if own and narrow < _MIN_NARROW_SHARE * whole:
        return failed(
            f"a step 'compress' is recorded ({own[-1].result}), and of the weights"
            f" {100 * narrow / max(whole, 1):.1f} % are narrower than float32"
        )
    if own:
        return passed(f"{100 * narrow / max(whole, 1):.0f} % of the weights are narrower; {own[-1].result}")
    tried = [f"{v}: {s.result}" for v, steps in checked.steps.items() for s in steps if s.verb == "compress"]
    if tried:
        return passed(f"tried: {listed(tried)}")
    return untested("no variant has a step 'compress'", "anyport build --compress int8")


def _narrow_elements(model: ModelFacts) -> tuple[int, int]:
    """Return how many elements of the weights are narrow, and how many there are."""
    counts: Counter[bool] = Counter()
    for one in model.weights():
        n = 1
        for size in one.shape:
            n *= max(size, 0)
        counts[one.dtype in _NARROW] += n
    return counts[True], counts.total()


def level(checked: Checked) -> Line:
    """The runtime's optimization level was chosen by measurement, and is the one that is recorded."""
    recorded = checked.graph.entry.optimization
    if recorded not in _LEVELS:
        return failed(f"the manifest names the level '{recorded}', there are {listed(sorted(_LEVELS))}")
    chosen = [step for step in checked.own_steps if "optimization" in step.settings]
    if not chosen:
        return untested(
            f"'{recorded}' is the default: nobody measured the others", "anyport build --simplify auto"
        )
    measured = chosen[-1].settings["optimization"]
    if measured != recorded:
        return failed(f"the step '{chosen[-1].verb}' chose '{measured}', the manifest names '{recorded}'")
    return passed(
        f"'{recorded}', chosen by measurement in the step '{chosen[-1].verb}'; all runs here use it"
    )


GRAPH_LINES: Final[tuple[tuple[str, Judge], ...]] = (
    ("inference mode", inference_mode),
    ("control flow kept", control_flow),
    ("names clear and unique", names),
    ("dynamic axes as declared", axes),
    ("simplified", simplified),
    ("quantization tried", quantized),
    ("optimization level chosen", level),
)
