"""One block of Qwen-Image's denoiser in its real width, ONNX Runtime against PyTorch eager.

``python bench/qwen_edit.py [--tokens 180+23] [--rounds 5]``: 3072 wide, 24 heads, seeded weights, one thread.
PyTorch runs diffusers' own block, complex rotations included. The candidates:

* ``plain``: what a build exports; attention in ONNX's own operators.
* ``fused``: the variant that a build adds for ONNX Runtime, attention as one operator.

Each is compared with PyTorch first, and then raced against it, opened before and after it; the memory is that
of one run above what the open graph had. The exit code is 1 if one is wrong, or ``plain`` is slower than
eager beyond the noise of such ratios.
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

from anyport.bench.blank import Blank
from anyport.bench.lineups import line_ups, mean_ratio
from anyport.bench.memory import mark_memory, peak_since
from anyport.bench.pairing import PairSettings, paired_ratios
from anyport.graph.attention import find_attention, fuse_attention
from anyport.graph.capture import capture
from anyport.graph.convert import convert
from anyport.graph.fastest import TIE
from anyport.graph.storing import StoreOptions, store
from anyport.recipe import Part
from anyport.recipe.qwen_edit_transformer import Places, joint_attention
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


class Found(NamedTuple):
    """How far a graph is from PyTorch, what one run needs, and how many times faster it is."""

    error: float
    peak_bytes: int | Blank
    ratio: PairedRatio


class Block(nn.Module):
    """A block as the recipe exports it: real rotations, both streams out."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block: Any = block

    def forward(self, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        """Return the text's and the pictures' states."""
        hidden, text, temb, img_cos, img_sin, txt_cos, txt_sin = tensors
        places = Places((img_cos, img_sin), (txt_cos, txt_sin))
        attention = self.block.attn
        try:
            attention.forward = partial(joint_attention, attention)
            found: tuple[Tensor, Tensor] = self.block(hidden, text, None, temb, places)
        finally:
            vars(attention).pop("forward")
        return found


def signature() -> Signature:
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


def candidates(block: nn.Module, folder: Path) -> dict[str, Path]:
    """Export the block, fuse its attention, and return both files."""
    part = Part("block", Block(block).eval(), signature())
    converted = convert(capture(part), part)
    sites = find_attention(converted.model)
    plain = store(converted, folder / "model.onnx", StoreOptions()).path
    fused = folder / "fused.onnx"
    if fuse_attention(plain, sites, fused) != 1:
        raise SystemExit("the attention of the block was not found")
    return {"plain": plain, "fused": fused}


def difference(found: Mapping[str, np.ndarray], wanted: tuple[np.ndarray, np.ndarray]) -> float:
    """Return the largest difference, relative to the largest value of its output."""
    pairs = zip((found["text"], found["image"]), wanted, strict=True)
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs)


def raced(path: Path, block: nn.Module, given: Feeds, n_rounds: int) -> Found:
    """Compare a graph with PyTorch, and race it."""
    ratios, error = [], 0.0
    peak_bytes: int | Blank = 0
    for order in line_ups(("eager", "graph")):
        runs: dict[str, Callable[[], object]] = {}
        for name in order:
            if name == "eager":
                runs[name] = eager(block, given)
            else:
                session = open_session(path, SessionOptions(n_threads=1))
                runs[name] = partial(session.run, given)
        mark = mark_memory()
        answer = session.run(given)
        peak_bytes = peak_since(mark)
        error = max(error, difference(answer, eager(block, given)()))
        settings = PairSettings(n_rounds=n_rounds, n_repeats=1, warmup=1)
        ratios.append(paired_ratios(runs, "eager", settings)["graph"])
        session.close()
    return Found(error, peak_bytes, mean_ratio(ratios))


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", default="180+23", help="of pictures + of text")
    parser.add_argument("--rounds", type=int, default=5)
    words = parser.parse_args()
    size = Size(*map(int, words.tokens.split("+")))
    torch.set_num_threads(1)
    torch.manual_seed(0)
    block = QwenImageTransformerBlock(WIDTH, HEADS, WIDTH // HEADS).eval()
    given = feeds(size)
    print(this_machine())
    print(f"one block, {WIDTH} wide, {HEADS} heads, {size.image} + {size.text} tokens, one thread")
    is_bad = False
    with tempfile.TemporaryDirectory() as folder:
        for name, path in candidates(block, Path(folder)).items():
            found = raced(path, block, given, words.rounds)
            peak, ratio = found.peak_bytes, found.ratio
            memory = peak.why if isinstance(peak, Blank) else f"{peak / 1e6:.0f} MB"
            print(
                f"  {name:<6} {found.error:.1e} relative   eager / this {ratio.median:.2f} "
                f"[{ratio.low:.2f}-{ratio.high:.2f}]   {ratio.cpu_s:.2f} s   {memory}",
                flush=True,
            )
            is_bad |= found.error > LARGEST or (name == "plain" and ratio.median < 1 - TIE)
    return int(is_bad)


if __name__ == "__main__":
    sys.exit(main())
