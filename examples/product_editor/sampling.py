"""Edits of many cards at once: what the pipeline computes for one, for a batch, without guidance."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import torch
from diffusers import QwenImageTransformer2DModel
from diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_plus import calculate_shift
from drawing import Picture
from latents import Codec
from networks import N_TOKEN_NUMBERS, new_scheduler
from prompts import Prompts
from torch import Tensor
from vision import seen

N_BATCH: Final = 64


@dataclass(frozen=True, slots=True)
class Networks:
    """What an edit needs."""

    transformer: QwenImageTransformer2DModel
    prompts: Prompts
    codec: Codec


def velocity(
    transformer: QwenImageTransformer2DModel,
    noisy: Tensor,
    reference: Tensor,
    level: Tensor,
    prompts: tuple[Tensor, Tensor],
) -> Tensor:
    """Return what the transformer predicts: float32[batch, tokens, 64], noise minus picture.

    Args:
        transformer: Of the editor.
        noisy: float32[batch, tokens, 64].
        reference: float32[batch, tokens, 64], the card before the edit, of the same size.
        level: float32[batch], 0 (picture) .. 1 (noise).
        prompts: Embeddings, and which of them are real.
    """
    n_tokens = noisy.shape[1]
    side = int(n_tokens**0.5)
    found: Tensor = transformer(
        hidden_states=torch.cat((noisy, reference), 1),
        timestep=level,
        encoder_hidden_states=prompts[0],
        encoder_hidden_states_mask=prompts[1],
        img_shapes=[[(1, side, side), (1, side, side)]],
        return_dict=False,
    )[0]
    return found[:, :n_tokens]


def noise_levels(n_steps: int, n_tokens: int) -> Tensor:
    """Return float32[n_steps + 1]: the levels that the pipeline goes through, 0 at the end.

    One step goes from 1 to 0, where the pipeline has NaN: its scheduler divides by the way to the last level.
    """
    if n_steps == 1:
        return torch.tensor([1.0, 0.0])
    scheduler = new_scheduler()
    config = scheduler.config
    shift = calculate_shift(
        n_tokens, config.base_image_seq_len, config.max_image_seq_len, config.base_shift, config.max_shift
    )
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / n_steps, n_steps), mu=shift)
    levels: Tensor = scheduler.sigmas
    return levels


@torch.no_grad()
def edit_pictures(
    networks: Networks,
    pictures: Sequence[Picture],
    instructions: Sequence[str],
    *,
    n_steps: int = 4,
    seed: int = 0,
) -> list[Picture]:
    """Return the edited pictures, uint8[side, side, 3] each.

    Args:
        networks: At rest.
        pictures: Of one size.
        instructions: One per picture.
        n_steps: Of the scheduler.
        seed: Of the noise; a picture's own noise depends on its number alone.
    """
    made: list[Picture] = []
    for start in range(0, len(pictures), N_BATCH):
        part = slice(start, start + N_BATCH)
        reference = networks.codec.encode(np.stack(pictures[part]))
        noises = [start_noise(seed + start + number, reference.shape[1]) for number in range(len(reference))]
        tower = torch.from_numpy(seen(np.stack(pictures[part])))
        prompts = networks.prompts(list(instructions[part]), tower)
        device = prompts[0].device
        noisy, levels = torch.cat(noises).to(device), noise_levels(n_steps, reference.shape[1]).to(device)
        for level, following in pairwise(levels):
            step = velocity(
                networks.transformer, noisy, reference.to(device), level.expand(len(noisy)), prompts
            )
            noisy = noisy + (following - level) * step
        made += list(networks.codec.decode(noisy.cpu(), pictures[0].shape[0]))
    return made


def start_noise(seed: int, n_tokens: int) -> Tensor:
    """Return float32[1, n_tokens, 64], as a pipeline's `latents` take it."""
    return torch.randn(1, n_tokens, N_TOKEN_NUMBERS, generator=torch.Generator().manual_seed(seed))
