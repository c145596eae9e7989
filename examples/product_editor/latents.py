"""Pictures to what the transformer sees and back, and the training families as files of latents."""

import argparse
import random
from pathlib import Path
from typing import Final

import numpy as np
import torch
from diffusers import AutoencoderKLQwenImage
from drawing import render
from families import Family, family
from numpy.typing import NDArray
from safetensors.torch import save_file
from still_vae import DOWN, decode, encode, one_frame
from torch import Tensor
from vision import seen

SIDE: Final = 64  # pixels of a card
N_FAMILIES: Final = 250  # in a file
N_BATCH: Final = 64  # pictures that the VAE sees at once


class Codec:
    """A VAE and the transformer's tokens: uint8 pictures to normalised, packed latents, and back.

    Args:
        vae: At rest, on any device; what goes in and comes out is on the processor.
    """

    def __init__(self, vae: AutoencoderKLQwenImage) -> None:
        self._vae = vae.eval().requires_grad_(requires_grad=False)
        self._device = vae.device
        self._mean = torch.tensor(vae.config.latents_mean).view(1, -1, 1, 1)
        self._spread = torch.tensor(vae.config.latents_std).view(1, -1, 1, 1)

    @torch.no_grad()
    def encode(self, pictures: NDArray[np.uint8]) -> Tensor:
        """Return float32[batch, tokens, 64] of uint8[batch, side, side, 3]."""
        parts = torch.from_numpy(np.ascontiguousarray(pictures)).split(N_BATCH)
        with one_frame():
            found = [encode(self._vae, self._pixels(part))[0].cpu() for part in parts]
        return packed((torch.cat(found) - self._mean) / self._spread)

    def _pixels(self, pictures: Tensor) -> Tensor:
        return pictures.to(self._device).permute(0, 3, 1, 2).float() / 127.5 - 1

    @torch.no_grad()
    def decode(self, tokens: Tensor, side: int) -> NDArray[np.uint8]:
        """Return uint8[batch, side, side, 3] of float32[batch, tokens, 64], rounded as the pipeline does."""
        latents = unpacked(tokens, side // DOWN) * self._spread + self._mean
        with one_frame():
            made = torch.cat(
                [decode(self._vae, part.to(self._device)).cpu() for part in latents.split(N_BATCH)]
            )
        shares = (made.clamp(-1, 1) / 2 + 0.5).permute(0, 2, 3, 1)
        return (shares * 255).round().byte().numpy()


def packed(latents: Tensor) -> Tensor:
    """Return [batch, tokens, 4 * channels] of [batch, channels, height, width]: a token is 2x2 latents."""
    batch, channels, height, width = latents.shape
    squares = latents.view(batch, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return squares.reshape(batch, height * width // 4, channels * 4)


def unpacked(tokens: Tensor, height: int) -> Tensor:
    """Return [batch, channels, height, height] of [batch, tokens, 4 * channels]."""
    batch, _, numbers = tokens.shape
    squares = tokens.view(batch, height // 2, height // 2, numbers // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return squares.reshape(batch, numbers // 4, height, height)


def families_of(number: int, n_families: int = N_FAMILIES) -> list[Family]:
    """Return the families of one file: drawn anew, the same ones each time."""
    draw = random.Random(f"families {number}")
    return [family(draw) for _ in range(n_families)]


def write_families(codec: Codec, number: int, folder: Path, n_families: int = N_FAMILIES) -> Path:
    """Write what the networks see of one file's cards, families one after another.

    `latents` are float16[cards, tokens, 64], `seen` uint8[cards, 56, 56, 3].
    """
    cards = np.stack(
        [render(scene, SIDE) for drawn in families_of(number, n_families) for scene in drawn.scenes]
    )
    latents = codec.encode(cards)
    path = folder / f"{number:04}.safetensors"
    unfinished = path.with_suffix(".part")
    save_file({"latents": latents.half(), "seen": torch.from_numpy(seen(cards))}, unfinished)
    return unfinished.replace(path)


def main() -> None:
    """Write the files of latents that are not there yet."""
    parser = argparse.ArgumentParser(description="Draw and encode the training families.")
    parser.add_argument("vae", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--files", type=int, default=40, help=f"of {N_FAMILIES} families each")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    words = parser.parse_args()
    torch.set_num_threads(1)
    words.folder.mkdir(parents=True, exist_ok=True)
    codec = Codec(AutoencoderKLQwenImage.from_pretrained(words.vae).to(words.device))
    for number in range(words.files):
        if not (words.folder / f"{number:04}.safetensors").is_file():
            write_families(codec, number, words.folder)


if __name__ == "__main__":
    main()
