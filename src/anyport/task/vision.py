"""Pictures become the states of a vision encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from anyport.errors import SessionError
from anyport.task.batches import plan_batches
from anyport.task.picture_settings import pixel_values
from anyport.task.task import silent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anyport.task.part_forms import OpenParts
    from anyport.task.picture_settings import FittedPicture, PictureSettings
    from anyport.task.task import Progress

_PART: Final = "vision_encoder"


class VisionEncoder:
    """The part ``vision_encoder``: float32[batch, 3, height, width] -> float32[batch, positions, width]."""

    def __init__(self, parts: OpenParts, settings: PictureSettings) -> None:
        self._session = parts.session(_PART)
        self._settings = settings
        signature = parts.signature(_PART)
        self._input = signature.inputs[0]
        self._batch_sizes = signature.dims.get(self._input.axes[0].text)

    def encode(self, pictures: Sequence[FittedPicture], progress: Progress = silent) -> np.ndarray:
        """Return float32[pictures, positions, width].

        Args:
            pictures: Any number of them.
            progress: Called after each batch where there are several.

        Raises:
            SessionError: The runtime failed, or the states of a picture are not finite.
        """
        found: list[np.ndarray] = []
        for batch in plan_batches(len(pictures), self._input.axes[0], self._batch_sizes):
            chosen = pictures[batch.start : batch.stop]
            pixels = [one.pixels for one in (*chosen, *[chosen[-1]] * batch.n_filling)]
            values = pixel_values(pixels, self._settings, self._input.dtype)
            states = self._session.run({self._input.name: values})["image_embeds"]
            found.extend(states[: len(chosen)])
            if len(chosen) < len(pictures):
                progress("pictures encoded", len(found), len(pictures))
        for one, states in zip(pictures, found, strict=True):
            if not np.isfinite(states).all():
                raise SessionError(f"the vision encoder's states of {one.name} are not finite")
        return np.stack(found)
