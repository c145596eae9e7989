"""A second exact variant, for ONNX Runtime alone: attention as one operator, where that is faster here.

The graphs stand beside the plain ones and share their weights; they are held against the same answers.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir

from anyport.bench.inputs import bench_case
from anyport.bench.pairing import PairedRatio
from anyport.build.proving import recorded_equality
from anyport.bundle import Step, VariantEntry
from anyport.graph.attention import AttentionSite, fuse_attention
from anyport.graph.equality import Judge
from anyport.graph.fastest import TIE, Contestant, RaceSettings, race
from anyport.graph.storing import read_graph, write_model
from anyport.tensors import Signature, tensor
from anyport.verify import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from anyport.build.parts import ProvenPart
    from anyport.build.plan import BuildPlan

    Progress = Callable[[str, str], None]

FUSED_VARIANT: Final = "fp32-fused"
RUNTIME: Final = "onnxruntime"
_N_TOKENS: Final = 1024  # of the race: as many as a picture of 512 x 512 has in an editor
_RACE: Final = RaceSettings(budget_s=10.0)


def fuse_parts(
    proven: Sequence[ProvenPart], plan: BuildPlan, progress: Progress
) -> tuple[ProvenPart, ...] | None:
    """Make the fused form of every part that has attention which is faster so.

    Args:
        proven: All parts; their graphs lie in the folder of the build.
        plan: Has the user's own limits.
        progress: Told what was measured, and what was made.

    Returns:
        All parts, some with a fused graph; ``None``: attention stays as it is everywhere.
    """
    measured: dict[AttentionSite, float] = {}
    fused = [_fused(one, plan, measured, progress) for one in proven]
    return tuple(fused) if any(one.runtime for one in fused) else None


def fused_entry(fused: Sequence[ProvenPart], base: VariantEntry) -> VariantEntry:
    """Describe the variant for the manifest.

    Args:
        fused: From `fuse_parts`.
        base: The plain variant.
    """
    steps = [step for one in fused for step in one.steps]
    return VariantEntry({one.part.name: one.entry for one in fused}, steps, base.proven, base.note)


def _fused(
    proven: ProvenPart, plan: BuildPlan, measured: dict[AttentionSite, float], progress: Progress
) -> ProvenPart:
    """Return a part with its attention fused, or the part itself, and say why."""
    kept = [site for site in proven.attention if _ratio(site, measured) * (1 + TIE) >= 1]
    name, plain = proven.part.name, proven.graph.path
    if not kept:
        if proven.attention:
            progress("attention", f"{name} stays plain: one operator for it is not faster here")
        return proven
    output = plain.with_name(f"{RUNTIME}.onnx")
    n_fused = fuse_attention(plain, kept, output)
    if not n_fused:
        progress("attention", f"{name} stays plain: a simplifier has rewritten its attention")
        return proven
    equality = recorded_equality(proven.recorder, proven.verdict, plan.settings.gates)
    equality = replace(equality, weights=proven.options.weights)
    found = Judge(plain, equality).judge(output, proven.optimization)
    is_as_good = found.status == "equal" or (
        found.status == "unproven" and proven.verdict.status is not Status.PASS
    )
    if not is_as_good:
        output.unlink()
        progress("attention", f"{name} stays plain: {found.reason}")
        return proven
    ratio = min(measured[_shape_of(site)] for site in kept)
    progress(
        "attention",
        f"{name}   {n_fused} of {len(proven.attention)} sites fused, proven equal   "
        f"{ratio:.2f}x at {_N_TOKENS} tokens",
    )
    graph = replace(read_graph(output), weights=proven.graph.weights, warnings=proven.graph.warnings)
    step = Step("attention", {"part": name, "runtime": RUNTIME}, f"{n_fused} sites fused, proven equal")
    return replace(proven, graph=graph, steps=(*proven.steps, step), runtime=RUNTIME)


# ── the race ────────────────────────────────────────────────────────────────────────────────────────────
def _ratio(site: AttentionSite, measured: dict[AttentionSite, float]) -> float:
    """Return how many times faster the operator is than attention in ONNX's own, alone, at `_N_TOKENS`."""
    shape = _shape_of(site)
    if shape not in measured:
        measured[shape] = race_attention(shape)
    return measured[shape]


def _shape_of(site: AttentionSite) -> AttentionSite:
    return replace(site, weights="weights")


def race_attention(site: AttentionSite) -> float:
    """Measure attention of this shape both ways, alone: two networks with their weights may not fit.

    Returns:
        CPU time of the plain form over that of the operator, on one thread.
    """
    widths = {"query": site.n_heads * site.head_size, "keys": site.n_heads * site.head_size}
    widths["values"] = site.n_heads * site.value_size
    specs = tuple(tensor(name, f"float32[1, {_N_TOKENS}, {width}]") for name, width in widths.items())
    case = bench_case(Signature(specs, (), {}), {})
    with tempfile.TemporaryDirectory(prefix="anyport-attention-") as folder:
        plain, fused = Path(folder, "plain.onnx"), Path(folder, "fused.onnx")
        write_model(plain_attention(site, widths), plain)
        fuse_attention(plain, [site], fused)
        runners = [Contestant(path.stem, path, 1, "all") for path in (plain, fused)]
        found = race(runners, case, specs, _RACE)[runners[1]]
    return found.median if isinstance(found, PairedRatio) else 0.0


def plain_attention(site: AttentionSite, widths: Mapping[str, int]) -> ir.Model:
    """Write attention as PyTorch's exporter does, heads split off and put together again.

    Args:
        site: Its shape, and the name of the weights, by which `fuse_attention` finds them.
        widths: Of the inputs ``query``, ``keys`` and ``values``, float32[batch, tokens, width].
    """
    tape = ir.tape.Tape()
    kind = ir.TensorType(ir.DataType.FLOAT)
    inputs = [
        ir.Value(name=name, shape=ir.Shape(["batch", "tokens", width]), type=kind)
        for name, width in widths.items()
    ]
    sizes = (site.head_size, site.head_size, site.value_size)
    perms = ((0, 2, 1, 3), (0, 2, 3, 1), (0, 2, 1, 3))
    split = []
    for value, size, perm in zip(inputs, sizes, perms, strict=True):
        shape = tape.initializer(ir.tensor(np.array([0, 0, site.n_heads, size]), name=f"{value.name}_shape"))
        heads = tape.op("Reshape", [value, shape])
        split.append(tape.op("Transpose", [heads], {"perm": perm}))
    scale = tape.initializer(ir.tensor(np.float32(site.head_size**-0.5), name="scale"))
    scores = tape.op("Mul", [tape.op("MatMul", split[:2]), scale])
    weights = tape.op("Softmax", [scores], {"axis": -1})
    weights.name = site.weights
    mixed = tape.op("Transpose", [tape.op("MatMul", [weights, split[2]])], {"perm": (0, 2, 1, 3)})
    shape = tape.initializer(ir.tensor(np.array([0, 0, widths["values"]]), name="mixed_shape"))
    answer = tape.op("Reshape", [mixed, shape])
    answer.name, answer.type = "mixed", kind
    answer.shape = ir.Shape(["batch", "tokens", widths["values"]])
    graph = ir.Graph(
        inputs, [answer], nodes=tape.nodes, initializers=tape.initializers, opset_imports={"": 20}, name="a"
    )
    return ir.Model(graph, ir_version=10)
