"""The encoders of a model that compares pictures with texts, and what they remember."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from anyport.errors import SessionError, UsageError
from anyport.task.part_forms import check_parts
from anyport.task.picture_settings import PictureSettings, check_pictures_fit
from anyport.task.remembered import Remembered
from anyport.task.task import settings_from, silent
from anyport.task.texts import N_AROUND, TextSettings, fill_right
from anyport.task.vision import VisionEncoder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from anyport.task.part_forms import OpenParts
    from anyport.task.picture_settings import FittedPicture
    from anyport.task.task import Progress
    from anyport.task.texts import TextReader
    from anyport.tensors import Signature

MAX_ROWS: Final = 16


class EncoderSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The settings of a task that compares or embeds pictures and texts."""

    picture: PictureSettings
    text: TextSettings


def encoder_settings(
    tree: Mapping[str, Any], parts: Mapping[str, Signature], task: str, wanted: Sequence[str]
) -> EncoderSettings:
    """Read the settings of a task with encoders, and check that they fit its parts.

    Raises:
        UsageError: A setting is wrong, or does not fit; a part is missing or of another form.
    """
    what = f"settings of the task '{task}'"
    settings = settings_from(tree, EncoderSettings, what)
    check_parts(task, wanted, parts)
    settings.picture.check()
    settings.text.check()
    vision = parts["vision_encoder"]
    check_pictures_fit(settings.picture, vision.inputs[0], vision, what)
    return settings


@dataclass(frozen=True, slots=True)
class TokenizedText:
    """A text, alone and as it is read together with a picture.

    Attributes:
        text: As the user gave it.
        alone: Its tokens for the text encoder.
        multimodal: Its tokens for the multimodal encoder.
        n_truncated: How many tokens were left out, since they did not fit.
    """

    text: str
    alone: tuple[int, ...]
    multimodal: tuple[int, ...]
    n_truncated: int = 0


class Encoders:
    """Pictures and texts become states and features; what is slow to compute is remembered.

    Attributes:
        remembered: What is kept between calls, by the pixels of a picture and the tokens of a text.
        progress: Called while many are computed.
    """

    def __init__(
        self, parts: OpenParts, settings: EncoderSettings, reader: TextReader, progress: Progress = silent
    ) -> None:
        self.settings = settings
        self.progress = progress
        self.remembered = Remembered()
        self._reader = reader
        self._parts = parts
        self._vision = VisionEncoder(parts, settings.picture)

    def read(self, texts: Sequence[str], *, truncate: bool) -> list[TokenizedText]:
        """Tokenize texts; one without words is its first and last token.

        Raises:
            InputError: One is no text, or too long.
        """
        found = []
        for i, text in enumerate(texts, 1):
            alone, both = (
                tuple(self._reader.enclosed(text, f"text {i}", multimodal=multimodal, truncate=truncate))
                for multimodal in (False, True)
            )
            n_left_out = self._reader.n_tokens(text) + N_AROUND - len(alone)
            found.append(TokenizedText(text, alone, both, n_left_out))
        return found

    def image_states(self, pictures: Sequence[FittedPicture]) -> list[np.ndarray]:
        """Return float32[positions, width] for each picture."""
        keys = [("image_states", _digest(one)) for one in pictures]
        return self.remembered.find(
            keys,
            lambda places: list(self._vision.encode([pictures[place] for place in places], self.progress)),
        )

    def image_features(self, pictures: Sequence[FittedPicture]) -> np.ndarray:
        """Return float32[pictures, features], each of length 1.

        Raises:
            UsageError: The model has no part ``image_projection``.
        """
        self._require("image_projection")
        keys = [("image_features", _digest(one)) for one in pictures]
        found = self.remembered.find(
            keys,
            lambda places: self._by_batch(
                "pictures encoded",
                places,
                lambda some: self._project("image", self.image_states([pictures[place] for place in some])),
            ),
        )
        return np.stack(found)

    def text_states(self, texts: Sequence[TokenizedText]) -> list[np.ndarray]:
        """Return float32[tokens, width] for each text."""
        rows = [text.alone for text in texts]
        return self._read_rows("text_encoder", "text_embeds", rows, None)

    def text_features(self, texts: Sequence[TokenizedText]) -> np.ndarray:
        """Return float32[texts, features], each of length 1.

        Raises:
            UsageError: The model has no part ``text_projection``.
        """
        self._require("text_projection")
        keys = [("text_features", text.alone) for text in texts]
        found = self.remembered.find(
            keys,
            lambda places: self._by_batch(
                "texts read",
                places,
                lambda some: self._project("text", self.text_states([texts[place] for place in some])),
            ),
        )
        return np.stack(found)

    def multimodal_states(
        self, texts: Sequence[TokenizedText], image_states: Sequence[np.ndarray]
    ) -> list[np.ndarray]:
        """Return float32[tokens, width] for each text, read together with its picture."""
        rows = [text.multimodal for text in texts]
        return self._read_rows("multimodal_encoder", "multimodal_embeds", rows, image_states)

    def match_logits(self, texts: Sequence[TokenizedText], image_states: Sequence[np.ndarray]) -> np.ndarray:
        """Return float32[texts, 2]: that a text does not fit its picture, and that it does."""
        states = self.multimodal_states(texts, image_states)
        first = np.stack([one[0] for one in states])
        return _finite(
            self._parts.session("itm_head").run({"multimodal_state": first})["itm_logits"], "itm_head"
        )

    def _read_rows(
        self,
        part: str,
        output: str,
        rows: Sequence[Sequence[int]],
        image_states: Sequence[np.ndarray] | None,
    ) -> list[np.ndarray]:
        """Run an encoder of texts, those of like length together; each gets back its own tokens' states."""
        found: dict[int, np.ndarray] = {}
        order = sorted(range(len(rows)), key=lambda place: len(rows[place]))
        n_rows = self._parts.max_rows(part, MAX_ROWS)
        for start in range(0, len(order), n_rows):
            some = order[start : start + n_rows]
            tokens, mask = fill_right([rows[place] for place in some], self.settings.text.pad)
            feeds = {"input_ids": tokens, "attention_mask": mask}
            if image_states is not None:
                feeds["image_embeds"] = np.stack([image_states[place] for place in some])
            states = _finite(self._parts.session(part).run(feeds)[output], part)
            found |= {place: states[i, : len(rows[place])] for i, place in enumerate(some)}
            self._report("texts read", len(found), len(rows))
        return [found[place] for place in range(len(rows))]

    def _project(self, kind: str, states: Sequence[np.ndarray]) -> list[np.ndarray]:
        first = np.stack([one[0] for one in states])
        part = f"{kind}_projection"
        return list(
            _finite(self._parts.session(part).run({f"{kind}_state": first})[f"{kind}_features"], part)
        )

    def _by_batch(
        self, what: str, places: list[int], run: Callable[[list[int]], list[np.ndarray]]
    ) -> list[np.ndarray]:
        found: list[np.ndarray] = []
        for start in range(0, len(places), MAX_ROWS):
            found += run(places[start : start + MAX_ROWS])
            self._report(what, len(found), len(places))
        return found

    def _report(self, what: str, n_done: int, n_all: int) -> None:
        """Report a step of several; what takes one step may be part of a larger one, which reports itself."""
        if n_all > MAX_ROWS:
            self.progress(what, n_done, n_all)

    def _require(self, part: str) -> None:
        if part not in self._parts:
            raise UsageError(f"the model has no part '{part}': it gives states, no features")


def _digest(picture: FittedPicture) -> bytes:
    """Return what stands for a picture: all of one model have one size, so the pixels alone."""
    return hashlib.sha256(picture.pixels.tobytes()).digest()


def _finite(found: np.ndarray, part: str) -> np.ndarray:
    if not np.isfinite(found).all():
        raise SessionError(f"the part '{part}' gives numbers that are not finite")
    return found
