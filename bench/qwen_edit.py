"""One block of Qwen-Image's denoiser in its real width, ONNX Runtime against PyTorch eager.

``python bench/qwen_edit.py [--tokens 180+23] [--rounds 5]``: 3072 wide, 24 heads, seeded weights, one thread.
PyTorch runs diffusers' own block, complex rotations included. The candidates:

* ``plain``: what a build exports; attention in ONNX's operators, padded texts as a bias.
* ``fused, padding``: ``com.microsoft.MultiHeadAttention`` with a padding mask.
* ``fused``: the same without a mask, which lets ONNX Runtime's flash attention in; right where no text is
  padded, as in the task ``edit``, which runs guided and unguided texts one after the other.

Each is compared with PyTorch first, and then raced against it, opened before and after it. The exit code is 1
if ``plain`` is wrong or slower than eager beyond the noise of such ratios.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import torch
from diffusers.models.transformers.transformer_qwenimage import QwenImageTransformerBlock
from torch import Tensor, nn

from anyport.bench.lineups import line_ups, mean_ratio
from anyport.bench.pairing import PairSettings, paired_ratios
from anyport.graph.capture import capture, quiet
from anyport.graph.convert import DEFAULT_OPSET, convert
from anyport.graph.fastest import TIE
from anyport.graph.storing import StoreOptions, store
from anyport.recipe import Part
from anyport.recipe.qwen_edit_transformer import Places, joint_attention, padding_bias, rotate
from anyport.runtime import SessionOptions, open_session
from anyport.task.edit_rope import rope_tables
from anyport.task.edit_settings import RopeSettings
from anyport.tensors import Signature, dim, tensor
from machine import this_machine

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from anyport.bench.pairing import PairedRatio

WIDTH: Final = 3072
HEADS: Final = 24
LARGEST: Final = 1e-4  # relative to the largest value; the floor of one block is some 1e-6
Feeds = dict[str, np.ndarray]


class Size(NamedTuple):
    """Tokens of pictures, and of the text."""

    image: int
    text: int


class Form(NamedTuple):
    """How a candidate attends, and what it makes of the mask and the pictures' states, if it takes a mask."""

    attend: Callable[..., tuple[Tensor, Tensor]]
    padding: Callable[[Tensor, Tensor], Tensor] | None


class Block(nn.Module):
    """A block as the recipe exports it: real rotations, both streams out."""

    def __init__(self, block: nn.Module, form: Form) -> None:
        super().__init__()
        self.block: Any = block
        self.form = form

    def forward(self, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        """Return the text's and the pictures' states."""
        hidden, text, temb, img_cos, img_sin, txt_cos, txt_sin, *mask = tensors
        padding: Any = self.form.padding(mask[0], hidden) if self.form.padding else None
        places = Places((img_cos, img_sin), (txt_cos, txt_sin), padding)
        attention = self.block.attn
        try:
            attention.forward = partial(self.form.attend, attention)
            found: tuple[Tensor, Tensor] = self.block(hidden, text, None, temb, places)
        finally:
            vars(attention).pop("forward")
        return found


def fused_attention(
    attention: nn.Module,
    hidden_states: Tensor,
    encoder_hidden_states: Tensor,
    encoder_hidden_states_mask: None,  # noqa: ARG001  (diffusers hands it over)
    image_rotary_emb: Places,
) -> tuple[Tensor, Tensor]:
    """Do what `joint_attention` does with one operator of ONNX Runtime; for an export, not to be run."""
    text, image, places = encoder_hidden_states, hidden_states, image_rotary_emb
    own: Any = attention
    padding: Tensor | None = places.bias
    heads = (own.heads, -1)
    text_query = own.norm_added_q(own.add_q_proj(text).unflatten(-1, heads))
    text_key = own.norm_added_k(own.add_k_proj(text).unflatten(-1, heads))
    image_query = own.norm_q(own.to_q(image).unflatten(-1, heads))
    image_key = own.norm_k(own.to_k(image).unflatten(-1, heads))
    query = torch.cat([rotate(text_query, places.text), rotate(image_query, places.image)], dim=1).flatten(2)
    key = torch.cat([rotate(text_key, places.text), rotate(image_key, places.image)], dim=1).flatten(2)
    value = torch.cat([own.add_v_proj(text), own.to_v(image)], dim=1)
    inputs: list[Tensor | None] = [query, key, value]
    inputs += [] if padding is None else [None, padding]
    mixed = torch.onnx.ops.symbolic(
        "com.microsoft::MultiHeadAttention",
        inputs,
        attrs={"num_heads": own.heads},
        dtype=query.dtype,
        shape=query.shape,
        version=1,
    )
    n_text = text.shape[1]
    return own.to_out[0](mixed[:, n_text:]), own.to_add_out(mixed[:, :n_text])


def valid_tokens(mask: Tensor, hidden: Tensor) -> Tensor:
    """Return int32[batch, text_tokens + latent_tokens]: 0 at padding, as the operator takes it."""
    return torch.cat([mask.to(torch.int32), torch.ones_like(hidden[..., 0], dtype=torch.int32)], dim=1)


CANDIDATES: Final[Mapping[str, Form]] = {
    "plain": Form(joint_attention, padding_bias),
    "fused, padding": Form(fused_attention, valid_tokens),
    "fused": Form(fused_attention, None),
}


def signature(*, has_mask: bool) -> Signature:
    """Return the inputs and outputs of `Block`."""
    half = sum(RopeSettings().axes) // 2
    tables = [
        tensor(f"{name}_{function}", f"float32[{axis}, {half}] -1..1")
        for name, axis in (("img", "latent_tokens"), ("txt", "text_tokens"))
        for function in ("cos", "sin")
    ]
    inputs = (
        tensor("hidden_states", f"float32[batch, latent_tokens, {WIDTH}]"),
        tensor("encoder_hidden_states", f"float32[batch, text_tokens, {WIDTH}]"),
        tensor("temb", f"float32[batch, {WIDTH}]"),
        *tables,
        *[tensor("mask", "bool[batch, text_tokens]")] * has_mask,
    )
    outputs = (
        tensor("text", f"float32[batch, text_tokens, {WIDTH}]"),
        tensor("image", f"float32[batch, latent_tokens, {WIDTH}]"),
    )
    dims = {"batch": "1..2", "latent_tokens": "1..65536", "text_tokens": "1..2048"}
    return Signature(inputs, outputs, {name: dim(name, text) for name, text in dims.items()})


def feeds(size: Size) -> Feeds:
    """Return seeded inputs without padding."""
    generator = torch.Generator().manual_seed(1)
    drawn = [torch.randn(1, n, WIDTH, generator=generator).numpy() for n in (*size, 1)]
    return {
        "hidden_states": drawn[0],
        "encoder_hidden_states": drawn[1],
        "temb": drawn[2][0],
        **rope_tables([(1, size.image)], size.text, RopeSettings()),
        "mask": np.ones((1, size.text), np.bool_),
    }


def eager(block: nn.Module, given: Feeds) -> Callable[[], tuple[np.ndarray, np.ndarray]]:
    """Return what runs diffusers' block as it is."""
    tensors = {name: torch.from_numpy(array) for name, array in given.items()}
    rotations = (
        torch.complex(tensors["img_cos"], tensors["img_sin"]),
        torch.complex(tensors["txt_cos"], tensors["txt_sin"]),
    )

    @torch.no_grad()
    def run() -> tuple[np.ndarray, np.ndarray]:
        text, image = block(
            tensors["hidden_states"], tensors["encoder_hidden_states"], None, tensors["temb"], rotations
        )
        return text.numpy(), image.numpy()

    return run


def candidate(name: str, block: nn.Module, folder: Path) -> tuple[Path, int]:
    """Export one form and return its file and its number of nodes."""
    form = CANDIDATES[name]
    part = Part("block", Block(block, form).eval(), signature(has_mask=form.padding is not None))
    captured, path = capture(part), folder / "model.onnx"
    if name == "plain":
        return path, store(convert(captured, part), path, StoreOptions()).n_nodes
    # a build refuses operators of one runtime: the fused forms are translated as it does, and stay here
    with quiet():
        program = torch.onnx.export(
            captured.program,
            (),
            opset_version=DEFAULT_OPSET,
            verbose=False,
            input_names=[spec.name for spec in part.signature.inputs],
            output_names=[spec.name for spec in part.signature.outputs],
        )
    if program is None:
        raise SystemExit(f"{name} was not exported")
    program.save(path, external_data=True)
    return path, len(program.model.graph)


def difference(found: Mapping[str, np.ndarray], wanted: tuple[np.ndarray, np.ndarray]) -> float:
    """Return the largest difference, relative to the largest value of its output."""
    pairs = zip((found["text"], found["image"]), wanted, strict=True)
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs)


def raced(path: Path, block: nn.Module, given: Feeds, n_rounds: int) -> tuple[float, PairedRatio]:
    """Return how far a graph is from PyTorch, and how many times faster."""
    ratios, error = [], 0.0
    for order in line_ups(("eager", "graph")):
        runs: dict[str, Callable[[], object]] = {}
        for name in order:
            if name == "eager":
                runs[name] = eager(block, given)
            else:
                session = open_session(path, SessionOptions(n_threads=1))
                taken = {spec.name: given[spec.name] for spec in session.inputs}
                runs[name] = partial(session.run, taken)
        error = max(error, difference(session.run(taken), eager(block, given)()))
        settings = PairSettings(n_rounds=n_rounds, n_repeats=1, warmup=1)
        ratios.append(paired_ratios(runs, "eager", settings)["graph"])
        session.close()
    return error, mean_ratio(ratios)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", default="180+23", help="of pictures + of text")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=list(CANDIDATES))
    words = parser.parse_args()
    size = Size(*map(int, words.tokens.split("+")))
    torch.set_num_threads(1)
    torch.manual_seed(0)
    block = QwenImageTransformerBlock(WIDTH, HEADS, WIDTH // HEADS).eval()
    given = feeds(size)
    print(this_machine())
    print(f"one block, {WIDTH} wide, {HEADS} heads, {size.image} + {size.text} tokens, one thread")
    is_bad = False
    for name in [words.only] if words.only else CANDIDATES:
        with tempfile.TemporaryDirectory() as folder:
            path, n_nodes = candidate(name, block, Path(folder))
            error, ratio = raced(path, block, given, words.rounds)
        print(
            f"  {name:<16} {n_nodes:>4} nodes   {error:.1e} relative   "
            f"eager / this {ratio.median:.2f} [{ratio.low:.2f}-{ratio.high:.2f}]   {ratio.cpu_s:.2f} s",
            flush=True,
        )
        is_bad |= error > LARGEST or (name == "plain" and ratio.median < 1 - TIE)
    return int(is_bad)


if __name__ == "__main__":
    sys.exit(main())
