"""A small stack of blocks: its checkpoint, its graph, and the same module without weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from anyport.build.block_proving import MadeGraph, prove_by_blocks, streamed_subject
from anyport.bundle import read_header
from anyport.graph.block_run import BlockSettings, BlockSubject
from anyport.graph.capture import capture
from anyport.graph.convert import convert
from anyport.graph.modulemap import ModuleMap
from anyport.graph.storing import StoreOptions, store
from anyport.graph.streamed import StreamSource
from anyport.recipe import Part
from anyport.source import open_checkpoint
from anyport.tensors import Signature, dim, tensor
from anyport.verify import CasePlan, PartSpec, SweepSettings, plan_cases

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from anyport.verify import Verdict

N_BLOCKS = 5


class Block(nn.Module):
    """A gated layer with a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8)
        self.up = nn.Linear(8, 16)
        self.down = nn.Linear(16, 8)

    def forward(self, x: Tensor, *, condition: Tensor) -> dict[str, Tensor]:
        """Return the next state."""
        inner = nn.functional.gelu(self.up(self.norm(x) * (1 + condition[:, None])))
        return {"state": x + self.down(inner)}


class Stack(nn.Module):
    """Blocks that share a condition, two of them a weight; something happens between blocks."""

    places: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(4, 8)
        self.condition = nn.Linear(3, 8)
        blocks = [Block() for _ in range(N_BLOCKS)]
        blocks[2].up.weight = blocks[1].up.weight
        self.layers = nn.ModuleList(blocks)
        self.head = nn.Linear(8, 4, bias=False)
        self.register_buffer("places", torch.linspace(0.5, 1.5, 8), persistent=False)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Return float32[batch, tokens, 4]."""
        first = self.stem(x)
        state, condition = first, torch.tanh(self.condition(c))
        for layer in self.layers:
            state = layer(state, condition=condition)["state"] * self.places + 0.1 * first
        answer: Tensor = self.head(state)
        return answer


def part_of(module: nn.Module) -> Part:
    """Return the stack as a part."""
    inputs = (tensor("x", "float32[batch, tokens, 4]"), tensor("c", "float32[batch, 3]"))
    dims = {"batch": dim("batch", "1..4"), "tokens": dim("tokens", "2..16")}
    signature = Signature(inputs, (tensor("y", "float32[batch, tokens, 4]"),), dims)
    return Part("stack", module.eval(), signature, blocks="layers")


@dataclass(frozen=True, slots=True)
class Proof:
    """All that a proof of the stack needs.

    Attributes:
        subject: The module is on the meta device.
        plan: The cases.
        spec: What messages call it.
    """

    subject: BlockSubject
    plan: CasePlan
    spec: PartSpec

    def verdict(self, n_float64: int = 3) -> Verdict:
        """Prove it."""
        settings = BlockSettings(n_float64=n_float64, n_threads=1)
        return prove_by_blocks(self.subject, self.plan, self.spec, settings)


def write_stack(folder: Path, types: tuple[torch.dtype, ...] = (torch.bfloat16,)) -> None:
    """Write a checkpoint of the stack, its graph, and the module map.

    Args:
        folder: Where.
        types: What the weights are stored in, in turn.
    """
    torch.manual_seed(0)
    module = Stack()
    state = {name: one for name, one in module.state_dict().items() if name != "layers.2.up.weight"}
    stored = {name: one.to(types[place % len(types)]) for place, (name, one) in enumerate(state.items())}
    (folder / "checkpoint").mkdir()
    save_file(stored, folder / "checkpoint" / "model.safetensors")
    module.load_state_dict({name: one.float() for name, one in stored.items()}, strict=False)
    part = part_of(module)
    converted = convert(capture(part), part)
    store(converted, folder / "model.onnx", StoreOptions())
    (folder / "modules.json").write_bytes(converted.modules.encode())


def proof_in(folder: Path, n_cases: int = 6) -> Proof:
    """Prepare the proof of what `write_stack` has written."""
    with torch.device("meta"):
        empty = Stack()
    empty.places = torch.linspace(0.5, 1.5, 8)  # what the module computes has numbers
    source = StreamSource(empty, open_checkpoint(folder / "checkpoint"))
    made = MadeGraph(folder / "model.onnx", ModuleMap.decode((folder / "modules.json").read_bytes()))
    part = part_of(empty)
    signature = part.signature
    plan = plan_cases(signature.inputs, signature.dims, SweepSettings(max_cases=6), (), signature.outputs)
    spec = PartSpec("stack", "fp32", signature.inputs, signature.outputs, signature.dims)
    return Proof(streamed_subject(part, source, made), CasePlan(plan.cases[:n_cases], ()), spec)


def overwrite(file: Path, name: str, change: Callable[[Tensor], Tensor]) -> None:
    """Change a tensor of a safetensors file in its place."""
    entry = read_header(file)[name]
    dtype = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}[entry.dtype]
    content = bytearray(file.read_bytes())
    end = entry.offset + entry.size_bytes
    old = torch.frombuffer(content[entry.offset : end], dtype=dtype).reshape(entry.shape)
    new = change(old).to(dtype).contiguous()
    content[entry.offset : end] = new.view(torch.uint8).numpy().tobytes()
    file.write_bytes(content)
