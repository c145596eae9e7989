"""A part proven block by block, so that a model is verified on a machine that could not hold it.

PyTorch runs the whole module once for each case, with weights that are read when they are needed. Wherever a
block begins or ends, the graph's own piece up to there is run on PyTorch's values and held against PyTorch's
answer. A graph whose every piece answers rightly when it is asked rightly does so as a whole; and where one
does not, the block is known.

Memory: the largest weight (once more in float64), the activations at the cuts, and what one piece of the
graph needs in ONNX Runtime, whose weights stay in their files.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from torch import nn

from anyport.build.proving import VARIANT, given_cases, sweep_settings
from anyport.errors import UsageError
from anyport.graph.block_run import Bench, BlockSettings, BlockSubject, CaseRun
from anyport.graph.block_weights import weights_leg
from anyport.graph.capture import capture, example_sizes
from anyport.graph.expectations import unused_weights
from anyport.graph.hollow import hollow
from anyport.runtime.shards import shards_of
from anyport.source import check_against, wanted_weights
from anyport.source.merging import lazy_weights
from anyport.source.streaming import weights_inside
from anyport.verify import PartSpec, Verdict, plan_cases
from anyport.verify.compare import judge_all, values_leg
from anyport.verify.judging import Place
from anyport.verify.power import PowerTape, power_leg

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from anyport.build.plan import BuildSettings
    from anyport.graph.modulemap import ModuleMap
    from anyport.graph.streamed import StreamSource
    from anyport.recipe import Part
    from anyport.recipe.adapters import Adapter
    from anyport.source import StoredTensor
    from anyport.verify import CasePlan

_ALL = BlockSettings()


@dataclass(frozen=True, slots=True)
class MadeGraph:
    """A graph that was exported without weights.

    Attributes:
        graph: The .onnx file.
        modules: The module map of its export.
        adapters: What was merged into its weights while they were copied.
    """

    graph: Path
    modules: ModuleMap
    adapters: tuple[Adapter, ...] = ()


def planned(part: Part, settings: BuildSettings) -> tuple[PartSpec, CasePlan]:
    """Return what a part that was exported without its weights is called, and which cases it answers."""
    signature = part.signature
    names = (part.name, VARIANT, signature.inputs, signature.outputs, signature.dims)
    sweep = sweep_settings(settings, example_sizes(tuple(signature.dims.values())), part.max_case_bytes)
    plan = plan_cases(signature.inputs, signature.dims, sweep, given_cases(part), signature.outputs)
    return PartSpec(*names, command=settings.show_command), plan


def streamed_subject(part: Part, source: StreamSource, made: MadeGraph) -> BlockSubject:
    """Return what is held against what, for a part that was exported without its weights.

    Raises:
        SourceError: The checkpoint does not fit the module, or an adapter is none of it.
    """
    found = check_against(source.checkpoint, wanted_weights(source.home))
    lazy = lazy_weights(source.checkpoint, found, source.home, made.adapters)
    weights = weights_inside(part.module, source.home, lazy.weights)
    folder = source.checkpoint.root if shards_of(made.graph) else None
    unused = partial(_unused, part, source.home, found)
    return BlockSubject(part, weights, made.graph, made.modules, folder, unused)


def _unused(part: Part, home: nn.Module, found: Mapping[str, StoredTensor]) -> frozenset[str]:
    """Export the part once more, without its weights, to see what its outputs depend on."""
    return unused_weights(capture(hollow(part, home, found).part).program)


def prove_by_blocks(
    subject: BlockSubject, plan: CasePlan, spec: PartSpec, settings: BlockSettings = _ALL
) -> Verdict:
    """Hold a graph against PyTorch, block by block.

    Args:
        subject: The graph, and what it was exported from.
        plan: The cases; each costs one run of PyTorch and one of the graph, and the sample's float64 runs.
        spec: What messages call it.
        settings: How much is done.

    Returns:
        The legs ``values``, whose details say which blocks had a float64 floor, ``power``, of the whole
        part, and ``weights``. ``origin`` names the first block that differs.

    Raises:
        ExportError: The graph cannot be cut where the module is.
        MismatchError: PyTorch itself answers NaN or infinity.
        UsageError: The part does not say where its blocks are, or they do not run one after the other.
    """
    blocks = blocks_of(subject.part)
    bench = Bench(subject, settings, blocks)
    tape = PowerTape(spec, plan.cases)
    for number, case in enumerate(plan.cases, start=1):
        place = Place(case, number, len(plan.cases))
        tape.keep(case, CaseRun(bench, place).answer())
    findings = judge_all(bench.measured, spec)
    values = values_leg(findings)
    line = f"{values.line}, in {len(bench.blocks)} blocks"
    legs = (
        replace(values, line=line, details=(*values.details, bench.sampled_text())),
        power_leg(tape.outputs(()), tape.inputs(())),
        weights_leg(subject.graph, subject.weights, bench.folder, subject.unused),
    )
    return Verdict(spec, plan, legs, findings, bench.origin(findings))


def blocks_of(part: Part) -> tuple[tuple[str, nn.Module], ...]:
    """Return the blocks of a part with their paths.

    Raises:
        UsageError: It has none.
    """
    path = part.blocks
    listed = None if path is None else dict(part.module.named_modules()).get(path)
    if not isinstance(listed, nn.ModuleList) or not len(listed):
        raise UsageError(
            f"part '{part.name}' does not say where its blocks are: "
            f"'{path}' is no nn.ModuleList of its module",
            do="give the path of the list of its blocks: Part(blocks='layers')",
        )
    return tuple((f"{path}.{number}", block) for number, block in enumerate(listed))
