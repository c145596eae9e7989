"""What the vision tower sees of a card: enlarged to 384 pixels by the pipeline, then reduced to 56."""

from typing import Final

import numpy as np
import torch
from drawing import Picture
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

CONDITION_SIDE: Final = 384  # pixels; CONDITION_IMAGE_SIZE of the pipeline is its square
TOWER_SIDE: Final = 56
PATCH: Final = 14
MERGE: Final = 2  # patches of a side that become one token
MEAN: Final = (0.48145466, 0.4578275, 0.40821073)  # of CLIP, as Qwen2-VL has them
STD: Final = (0.26862954, 0.26130258, 0.27577711)
PIXELS: Final = (3136, 3336)  # least and most that the processor makes: 56 x 56, four picture tokens


def seen(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return uint8[batch, 56, 56, 3] of uint8[batch, side, side, 3]."""
    return np.stack([_seen(picture) for picture in pictures])


def _seen(picture: Picture) -> Picture:
    condition = Image.fromarray(picture).resize((CONDITION_SIDE,) * 2, Image.Resampling.LANCZOS)
    return np.asarray(condition.resize((TOWER_SIDE,) * 2, Image.Resampling.BICUBIC))


def patches(pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Return what the tower is given: patches, and rows and columns of patches of each picture.

    Args:
        pictures: uint8[batch, 56, 56, 3].

    Returns:
        float32[batch * 16, 1176], four neighbours that are merged side by side, each picture twice in time;
        int64[batch, 3].
    """
    mean, std = (pictures.new_tensor(numbers, dtype=torch.float32) for numbers in (MEAN, STD))
    pixels = (pictures.float() / 255 - mean) / std
    n_merged = TOWER_SIDE // PATCH // MERGE
    squares = pixels.view(-1, n_merged, MERGE, PATCH, n_merged, MERGE, PATCH, 3)
    ordered = squares.permute(0, 1, 4, 2, 5, 7, 3, 6)  # batch, rows, columns, 2, 2, colour, height, width
    twice = ordered.unsqueeze(6).expand(-1, -1, -1, -1, -1, -1, 2, -1, -1)
    n_side = TOWER_SIDE // PATCH
    grid = torch.tensor([[1, n_side, n_side]], device=pictures.device).expand(len(pictures), 3)
    return twice.reshape(len(pictures) * n_side**2, -1), grid
