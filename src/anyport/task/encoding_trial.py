"""The trials of the tasks that compare and embed: the features, and which of some texts fits a picture best.

Whether one text fits is no choice to judge by: of the user's texts nearly none belongs to the picture beside
it, and a graph that says no to everything would agree.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from anyport.task.encoders import Encoders, TokenizedText, encoder_settings
from anyport.task.part_forms import OpenParts, known_parts
from anyport.task.picture_settings import FittedPicture
from anyport.task.task import TaskOptions
from anyport.task.texts import TextReader
from anyport.task.trials import (
    PICTURE,
    TEXTS,
    check_tokens,
    least_margin,
    picture_spec,
    text_spec,
    tokens_of,
    unfilled,
    vocabulary_of,
    words_dim,
)
from anyport.tensors import Signature, tensor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anyport.task.encoders import EncoderSettings
    from anyport.task.graphs import Graphs
    from anyport.task.picture_settings import PictureSettings
    from anyport.tensors import TensorSpec

_ENCODERS: Final = ("vision_encoder", "text_encoder", "multimodal_encoder")
_PROJECTIONS: Final = ("image_projection", "text_projection")
_HEAD: Final = "itm_head"


class EncodingTrial:
    """See `anyport.task.trials.Trial`.

    Attributes:
        signature: ``picture`` and ``texts`` go in. Out come ``image`` and ``text``, float32[1, …]: features,
            or the states of the first position where the model has no projections; for ``match``
            ``match_scores``, float32[1, texts]: the log-odds that each text fits; for ``embed`` ``both``, the
            first state of the text read with the picture.
        settings: How pictures are fitted.
        parts: The parts that the task runs.
    """

    def __init__(self, graphs: Graphs, task: str) -> None:
        more = (*([_HEAD] if task == "match" else []), *(n for n in _PROJECTIONS if n in graphs.parts))
        self.parts: tuple[str, ...] = (*_ENCODERS, *more)
        found = encoder_settings(graphs.settings, known_parts(graphs.parts), task, self.parts)
        self.settings: PictureSettings = found.picture
        self._text = found.text
        self._reader = TextReader(graphs, found.text, f"the task '{task}'")
        self._parts = OpenParts(graphs, self.parts, TaskOptions())
        self._encoders = Encoders(self._parts, found, self._reader)
        self.signature = _signature(self._parts, found)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The tensors that `run` takes."""
        return self.signature.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The tensors that `run` gives."""
        return self.signature.outputs

    def prepare(self, pixels: np.ndarray, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Make a sample; nothing is computed yet."""
        return {PICTURE: pixels[None], TEXTS: tokens_of(texts, self._reader, self._text)}

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the features, and how well each text fits."""
        pictures, texts = self._begin(feeds)
        found = {"image": self._image(pictures), "text": self._texts(texts)}
        states = self._encoders.image_states(pictures) * len(texts)
        if _HEAD in self._parts:
            found["match_scores"] = _log_odds(self._encoders.match_logits(texts, states))
        else:
            both = self._encoders.multimodal_states(texts, states)
            found["both"] = np.stack([one[0] for one in both])[None]
        return {name: array.astype(np.float32, copy=False) for name, array in found.items()}

    def margin(self, feeds: Mapping[str, np.ndarray]) -> float:
        """Return how close the two texts that fit best come, as a share of the largest score."""
        if _HEAD not in self._parts:
            return math.inf
        pictures, texts = self._begin(feeds)
        states = self._encoders.image_states(pictures) * len(texts)
        logits = self._encoders.match_logits(texts, states)
        return least_margin(_log_odds(logits), float(np.abs(logits).max()))

    def close(self) -> None:
        """Do nothing: the sessions belong to who gave them."""

    def _begin(self, feeds: Mapping[str, np.ndarray]) -> tuple[list[FittedPicture], list[TokenizedText]]:
        check_tokens(feeds, self.inputs)
        self._encoders.remembered.forget()  # each sample is computed, whatever came before it
        pictures = [FittedPicture("the picture", feeds[PICTURE][0])]
        return pictures, [self._read(row) for row in feeds[TEXTS][0]]

    def _read(self, row: np.ndarray) -> TokenizedText:
        inside = (*unfilled(row, self._text.pad), self._text.sep)
        return TokenizedText("", (self._text.start, *inside), (self._text.multimodal_start, *inside))

    def _image(self, pictures: Sequence[FittedPicture]) -> np.ndarray:
        if "image_projection" in self._parts:
            return self._encoders.image_features(pictures)
        return np.stack([states[0] for states in self._encoders.image_states(pictures)])

    def _texts(self, texts: Sequence[TokenizedText]) -> np.ndarray:
        if "text_projection" in self._parts:
            return self._encoders.text_features(texts)[None]
        return np.stack([states[0] for states in self._encoders.text_states(texts)])[None]


def _log_odds(logits: np.ndarray) -> np.ndarray:
    """Return float32[1, texts] of float32[texts, 2]."""
    odds: np.ndarray = (logits[:, 1] - logits[:, 0])[None]
    return odds


def _signature(parts: OpenParts, settings: EncoderSettings) -> Signature:
    spec, dims = text_spec(vocabulary_of(parts.signature("text_encoder"), "text_encoder"))
    dims |= {"words": words_dim(settings.text)}
    image, text, both = (
        _width(parts, *(part for part in pair if part in parts))
        for pair in (
            ("image_projection", "vision_encoder"),
            ("text_projection", "text_encoder"),
            ("multimodal_encoder",),
        )
    )
    outputs = [tensor("image", f"float32[1, {image}]"), tensor("text", f"float32[1, texts, {text}]")]
    is_match = _HEAD in parts
    outputs.append(
        tensor("match_scores", "float32[1, texts]")
        if is_match
        else tensor("both", f"float32[1, texts, {both}]")
    )
    return Signature((picture_spec(settings.picture), spec), tuple(outputs), dims)


def _width(parts: OpenParts, part: str, *_: str) -> str:
    """Return the last axis of what a part gives."""
    return parts.signature(part).outputs[0].axes[-1].text


def open_trial(graphs: Graphs) -> EncodingTrial:
    """Open the trial of graphs that encode."""
    return EncodingTrial(graphs, graphs.task or "")
