"""Proof by blocks: good graphs pass and say what was sampled, faults are found and named by block."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch
from diffusers import QwenImageTransformer2DModel
from safetensors.torch import save_file
from torch import nn

from anyport.build.block_proving import (
    MadeGraph,
    blocks_of,
    planned,
    prove_by_blocks,
    streamed_subject,
)
from anyport.build.plan import BuildSettings
from anyport.bundle import TensorFileWriter
from anyport.errors import ExportError, MismatchError, UsageError
from anyport.graph.block_run import BlockSettings
from anyport.graph.streamed import StreamOptions, StreamSource, store_streamed, translate_part
from anyport.recipe.qwen_edit_parts import transformer
from anyport.source import open_checkpoint
from anyport.task.memory_peak import PeakMemory
from anyport.verify import CasePlan, PartSpec, Status, SweepSettings, plan_cases
from tests.build.stacks import N_BLOCKS, Stack, overwrite, part_of, proof_in, write_stack

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

WEIGHTS = "weights.safetensors"
TINY = {
    "patch_size": 2,
    "in_channels": 16,
    "out_channels": 4,
    "num_layers": 3,
    "attention_head_dim": 32,
    "num_attention_heads": 2,
    "joint_attention_dim": 64,
    "axes_dims_rope": (8, 12, 12),
}


@pytest.fixture(name="written", scope="module")
def _written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stack")
    write_stack(folder)
    return folder


@pytest.fixture(name="folder")
def _folder(written: Path, tmp_path: Path) -> Path:
    """Return a copy of the stack's files, for a test to spoil."""
    return Path(shutil.copytree(written, tmp_path / "stack"))


@pytest.mark.parametrize(
    "types",
    [(torch.bfloat16,), (torch.bfloat16, torch.float32, torch.float16)],
    ids=["bfloat16", "mixed"],
)
def test_a_good_graph_passes_and_says_what_was_sampled(
    types: tuple[torch.dtype, ...], tmp_path: Path
) -> None:
    write_stack(tmp_path, types)
    verdict = proof_in(tmp_path).verdict()
    assert verdict.status is Status.PASS, verdict.table()
    assert verdict.origin == ""
    values = verdict.leg("values")
    assert values.line.endswith(f"x of PyTorch's own rounding, in {N_BLOCKS} blocks")
    assert values.details[-1] == (
        "float64 floor: 3 of 5 blocks (0, 2, 4), and what lies before and after them; other blocks are held "
        "against the widest of these floors"
    )
    assert verdict.leg("weights").line == "34 of 34 weights found"
    compared = {found.output.partition(":")[0] for found in verdict.findings}
    between = {f"before block 'layers.{number}'" for number in range(1, N_BLOCKS)}
    assert compared == {
        "before the blocks", "after the blocks", *between, *(f"layers.{i}" for i in range(N_BLOCKS))
    }  # fmt: skip


def test_every_block_may_have_a_floor_of_its_own(folder: Path) -> None:
    details = proof_in(folder, 1).verdict(n_float64=N_BLOCKS).leg("values").details
    assert details[-1] == (
        "float64 floor: 5 of 5 blocks (0, 1, 2, 3, 4), and what lies before and after them"
    )


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong with a graph.

    Attributes:
        what: In words.
        plant: Changes the files in a folder.
        origin: What the verdict says.
    """

    what: str
    plant: Callable[[Path], object]
    origin: str


def weight(name: str, change: Callable[[Tensor], Tensor]) -> Callable[[Path], object]:
    return lambda folder: overwrite(folder / WEIGHTS, name, change)


def graph(change: Callable[[onnx.GraphProto], object]) -> Callable[[Path], object]:
    def plant(folder: Path) -> None:
        model = onnx.load(str(folder / "model.onnx"), load_external_data=False)
        change(model.graph)
        (folder / "model.onnx").write_bytes(model.SerializeToString())

    return plant


def initializer(found: onnx.GraphProto, name: str) -> onnx.TensorProto:
    wanted: onnx.TensorProto = next(tensor for tensor in found.initializer if tensor.name == name)
    return wanted


def one_number(tensor: Tensor) -> Tensor:
    changed = tensor.clone()
    changed[3, 5] = 0.5
    return changed


def move(found: onnx.GraphProto) -> None:
    """Read a weight from one number further on."""
    place = next(e for e in initializer(found, "layers.3.down.weight").external_data if e.key == "offset")
    place.value = str(int(place.value) + 2)


def swap(found: onnx.GraphProto) -> None:
    """Let two blocks read each other's weight."""
    one, two = (initializer(found, f"layers.{number}.down.weight") for number in (3, 4))
    one.name, two.name = two.name, one.name


FAULTS = (
    Fault("one number", weight("layers.4.up.weight", one_number),
          "differs in block 'layers.4'; 10 other pieces agree"),
    Fault("scaled by 1.02", weight("layers.3.down.weight", lambda w: w * 1.02),
          "differs in block 'layers.3'; 10 other pieces agree"),
    Fault("an offset", graph(move), "differs in block 'layers.3'; 10 other pieces agree"),
    Fault("two blocks swapped", graph(swap), "differs in block 'layers.3' and 1 more; 9 other pieces agree"),
    Fault("before the blocks", weight("condition.bias", lambda w: w * 1.02),
          "differs before the blocks; 10 other pieces agree"),
    Fault("after the blocks", weight("head.weight", lambda w: w * 1.02),
          "differs after the blocks; 10 other pieces agree"),
    Fault("between the blocks", weight("places", lambda w: w * 1.02),
          "differs before block 'layers.1' and 4 more; 6 other pieces agree"),
)  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.what)
def test_a_fault_is_found_and_its_block_is_named(fault: Fault, folder: Path) -> None:
    fault.plant(folder)
    verdict = proof_in(folder, 2).verdict()
    assert verdict.leg("values").status is Status.FAIL
    assert verdict.origin == fault.origin


def test_the_message_of_a_fault_ends_with_its_block(folder: Path) -> None:
    proof = proof_in(folder, 2)
    overwrite(folder / WEIGHTS, "layers.3.down.weight", lambda w: w * 1.02)
    with pytest.raises(MismatchError) as caught:
        proof.verdict().raise_if_bad()
    what, where, do = str(caught.value).splitlines()
    assert what.startswith("output 'layers.3: add_")
    assert where.startswith("  where: part stack, variant fp32, case ")
    assert where.endswith("; differs in block 'layers.3'; 10 other pieces agree")
    assert do == "  do:    anyport verify --json   shows every output and case"


def test_a_weight_that_no_case_reaches_is_found_by_content(folder: Path) -> None:
    proof = proof_in(folder, 2)
    overwrite(folder / WEIGHTS, "layers.3.down.weight", lambda w: w.roll(1, 0))
    assert proof.verdict().leg("weights").status is Status.FAIL


def test_a_part_without_blocks_is_refused() -> None:
    for path in (None, "head", "nothing"):
        with pytest.raises(UsageError) as caught:
            blocks_of(replace(part_of(Stack()), blocks=path))
        assert str(caught.value) == (
            f"part 'stack' does not say where its blocks are: '{path}' is no nn.ModuleList of its module\n"
            "  do:    give the path of the list of its blocks: Part(blocks='layers')"
        )


def test_a_reference_that_answers_nan_is_refused(folder: Path) -> None:
    proof = proof_in(folder, 2)
    overwrite(folder / "checkpoint" / "model.safetensors", "layers.3.down.weight", lambda w: w * torch.nan)
    with pytest.raises(MismatchError, match=r"^PyTorch itself answers NaN or infinity: layers\.3"):
        proof.verdict()


def test_a_graph_that_lost_its_map_cannot_be_cut(folder: Path) -> None:
    proof = proof_in(folder, 2)
    modules = type(proof.subject.modules)({})
    with pytest.raises(
        ExportError, match=r"^the graph has no value of the form that leaves block 'layers\.0'"
    ):
        replace(proof, subject=replace(proof.subject, modules=modules)).verdict()


# ── the real thing, small ───────────────────────────────────────────────────────────────────────────────
def denoiser(folder: Path) -> nn.Module:
    """Write a tiny checkpoint in bfloat16, and return the module without weights."""
    torch.manual_seed(0)
    make: Any = QwenImageTransformer2DModel
    state = make(**TINY).state_dict()
    save_file(
        {name: one.bfloat16() for name, one in state.items()}, folder / "diffusion_pytorch_model.safetensors"
    )
    with torch.device("meta"):
        empty: nn.Module = make(**TINY).eval()
    return empty


@pytest.mark.parametrize("weights", ["copy", "reference"])
def test_the_denoiser_that_was_exported_without_weights_is_proven(weights: str, tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    model = denoiser(tmp_path / "checkpoint")
    part = transformer(model)
    source = StreamSource(model, open_checkpoint(tmp_path / "checkpoint"))
    translated = translate_part(part, source)
    path = tmp_path / "model.onnx"
    store_streamed(translated, path, StreamOptions(weights=weights))  # type: ignore[arg-type]  # of a table
    made = MadeGraph(path, translated.converted.modules)
    settings = BuildSettings(max_cases=10, max_case_bytes=200_000)
    spec, plan = planned(part, settings)
    verdict = prove_by_blocks(streamed_subject(part, source, made), plan, spec, BlockSettings(2))
    assert verdict.status is Status.PASS, verdict.table()
    where = "weights are read where the checkpoint has them" if weights == "reference" else "weights found"
    assert where in verdict.leg("weights").line
    assert not any(found.output.startswith("before block") for found in verdict.findings)
    if weights == "copy":
        unused = [
            text for text in verdict.leg("weights").details if text.startswith("unused by the program: ")
        ]
        assert unused[0].count("transformer_blocks.2.") == 6  # the last block's text goes nowhere
        return
    model_proto = onnx.load(str(path), load_external_data=False)
    name = "transformer_blocks.2.attn.to_q.weight"
    tensor = next(one for one in model_proto.graph.initializer if one.name == name)
    place = next(entry for entry in tensor.external_data if entry.key == "offset")
    place.value = str(int(place.value) + 2)
    path.write_bytes(model_proto.SerializeToString())
    subject = streamed_subject(part, source, made)
    again = prove_by_blocks(subject, verdict.plan, verdict.part, BlockSettings(n_threads=1))
    assert again.origin == "differs in block 'transformer.transformer_blocks.2'; 4 other pieces agree"
    assert again.leg("weights").line.startswith(f"the graph reads '{name}' [64, 64] at byte ")


@pytest.mark.slow
def test_two_blocks_of_the_published_width_are_proven_in_less_memory_than_they_take(tmp_path: Path) -> None:
    make: Any = QwenImageTransformer2DModel
    with torch.device("meta"):
        model = make(num_layers=2).eval()
    shapes = {name: tuple(one.shape) for name, one in model.state_dict().items()}
    forms = [(name, "BF16", shape) for name, shape in shapes.items()]
    rng = np.random.default_rng(0)
    with TensorFileWriter(tmp_path / "diffusion_pytorch_model.safetensors", forms) as writer:
        for name, shape in shapes.items():
            drawn = rng.standard_normal(shape, dtype=np.float32) / np.float32(np.sqrt(shape[-1]))
            writer.write(name, (drawn.view(np.uint32) >> 16).astype(np.uint16))
    part = transformer(model)
    source = StreamSource(model, open_checkpoint(tmp_path))
    translated = translate_part(part, source)
    store_streamed(translated, tmp_path / "model.onnx", StreamOptions(weights="reference"))
    subject = streamed_subject(part, source, MadeGraph(tmp_path / "model.onnx", translated.converted.modules))
    signature = part.signature
    sweep = SweepSettings(max_cases=10, max_case_bytes=part.max_case_bytes or 0)
    plan = plan_cases(signature.inputs, signature.dims, sweep, (), signature.outputs)
    spec = PartSpec(part.name, "fp32", signature.inputs, signature.outputs, signature.dims)
    with PeakMemory() as peak:
        verdict = prove_by_blocks(subject, CasePlan(plan.cases[:1], ()), spec, BlockSettings(n_threads=1))
    assert verdict.leg("values").status is Status.PASS, verdict.table()
    n_block = sum(one.numel() for one in model.transformer_blocks[0].parameters())
    assert peak.above_bytes is not None
    assert peak.above_bytes < 4 * n_block  # of one block as float32
