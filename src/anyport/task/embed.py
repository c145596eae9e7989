"""The task ``embed``: pictures, texts, or both together, become vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self

import msgspec
import numpy as np

from anyport.errors import UsageError
from anyport.task.arrays import npz_target, summary, write_arrays
from anyport.task.encoders import Encoders, encoder_settings
from anyport.task.part_forms import OpenParts, known_parts
from anyport.task.picture_settings import fitted_pictures
from anyport.task.task import Printout, TaskOptions, settings_from
from anyport.task.texts import TextReader, read_lines, words_for_each
from anyport.task.written_texts import truncations

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anyport.task.graphs import Graphs
    from anyport.task.pictures import Picture
    from anyport.tensors import Signature

Mode = Literal["image", "multimodal", "text"]

_PARTS: Final = ("vision_encoder", "text_encoder", "multimodal_encoder")
_PROJECTIONS: Final = ("image_projection", "text_projection")


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The options of ``anyport run`` for this task."""

    mode: Annotated[
        Mode, msgspec.Meta(description="What is embedded: image, text, or multimodal (both).")
    ] = "image"
    texts: Annotated[str, msgspec.Meta(description="File with one text on each line.")] | None = None
    output: Annotated[str, msgspec.Meta(description="Write the arrays to this .npz file.")] | None = None
    force: Annotated[bool, msgspec.Meta(description="Replace an existing output file.")] = False
    truncate: Annotated[bool, msgspec.Meta(description="Cut text that is too long for the model.")] = False


@dataclass(frozen=True, slots=True, eq=False)
class Embedding:
    """What a model makes of a picture, a text, or a text read with a picture.

    Attributes:
        file: The path of the picture, or ``picture 3``; absent for a text alone.
        text: The words; absent for a picture alone.
        token_ids: In tokens, the first and last one too; none for a picture alone.
        states: float32[positions, width]: of the picture's patches, the first one standing for all of it, or
            of the tokens.
        features: float32[features] of length 1, that pictures and texts are compared by; absent for both
            together, and where the model has no projections.
        n_truncated: How many tokens of the text were left out, since they did not fit.
    """

    file: str | None
    text: str | None
    token_ids: tuple[int, ...]
    states: np.ndarray
    features: np.ndarray | None
    n_truncated: int = 0


class Embedder:
    """A bundle that embeds pictures and texts; a context manager.

    Attributes:
        encoders: The parts, and what they remember.
    """

    def __init__(self, parts: OpenParts, encoders: Encoders) -> None:
        self.encoders = encoders
        self._parts = parts

    def __enter__(self) -> Self:
        """Return the task itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Give back the sessions and the bundle; a second call does nothing."""
        self._parts.close()

    def embed_pictures(self, pictures: Sequence[Picture]) -> list[Embedding]:
        """Embed pictures; each is computed once, and remembered.

        Raises:
            InputError: Naming the picture that cannot be read.
            SessionError: The runtime failed, or its numbers are not finite.
        """
        fitted = fitted_pictures(
            pictures, self.encoders.settings.picture, "embed_pictures", self.encoders.progress
        )
        has_features = bool(fitted) and "image_projection" in self._parts
        features = self.encoders.image_features(fitted) if has_features else [None] * len(fitted)
        return [
            Embedding(one.name, None, (), states, found)
            for one, states, found in zip(fitted, self.encoders.image_states(fitted), features, strict=True)
        ]

    def embed_texts(self, texts: Sequence[str], *, truncate: bool = False) -> list[Embedding]:
        """Embed texts; one without words is what the model makes of its first and last token.

        Raises:
            InputError: Naming the text that cannot be read.
            SessionError: The runtime failed, or its numbers are not finite.
        """
        read = self.encoders.read(words_for_each(texts, len(texts), "text"), truncate=truncate)
        has_features = bool(read) and "text_projection" in self._parts
        features = self.encoders.text_features(read) if has_features else [None] * len(read)
        return [
            Embedding(None, one.text, one.alone, states, found, one.n_truncated)
            for one, states, found in zip(read, self.encoders.text_states(read), features, strict=True)
        ]

    def embed_pairs(
        self, pictures: Sequence[Picture], texts: str | Sequence[str], *, truncate: bool = False
    ) -> list[Embedding]:
        """Embed texts read together with pictures: one text for all of them, or one for each.

        Raises:
            InputError: Naming the picture or text that cannot be read.
            SessionError: The runtime failed, or its numbers are not finite.
        """
        fitted = fitted_pictures(
            pictures, self.encoders.settings.picture, "embed_pairs", self.encoders.progress
        )
        read = self.encoders.read(words_for_each(texts, len(fitted), "text"), truncate=truncate)
        states = self.encoders.multimodal_states(read, self.encoders.image_states(fitted))
        return [
            Embedding(one.name, text.text, text.multimodal, found, None, text.n_truncated)
            for one, text, found in zip(fitted, read, states, strict=True)
        ]

    def answer(self, words: Sequence[str], options: Mapping[str, Any]) -> Printout:
        """Embed the files that a command line names; see `anyport.task.task.Task`."""
        chosen = settings_from(options, Options, "options of the task 'embed'")
        target = None if chosen.output is None else npz_target(chosen.output, force=chosen.force)
        found = self._asked_for(words, chosen)
        arrays = _arrays(found)
        record: dict[str, Any] = {name: summary(array) for name, array in arrays.items()}
        width = max(map(len, record))
        lines = [f"  {name:<{width}}   {facts['text']}" for name, facts in record.items()]
        if target is not None:
            write_arrays(target, arrays, force=chosen.force)
            lines.append(f"  written to {target}")
        answers = [
            {
                "file": one.file,
                "text": one.text,
                "token_ids": list(one.token_ids),
                "n_truncated": one.n_truncated,
            }
            for one in found
        ]
        place = None if target is None else str(target)
        return Printout(
            tuple(lines),
            {"task": "embed", "mode": chosen.mode, "answers": answers, "outputs": record, "file": place},
            truncations((f"text {i}", one.n_truncated) for i, one in enumerate(found, 1)),
        )

    def _asked_for(self, words: Sequence[str], chosen: Options) -> list[Embedding]:
        if chosen.mode == "text":
            if words:
                raise UsageError(f"--mode text takes no pictures, '{words[0]}' is given")
            return self.embed_texts(_texts(chosen), truncate=chosen.truncate)
        if not words:
            raise UsageError("no picture is given", do=f"anyport run BUNDLE PICTURE… --mode {chosen.mode}")
        if chosen.mode == "image":
            if chosen.texts is not None:
                raise UsageError("--texts has no effect with --mode image")
            return self.embed_pictures(list(words))
        texts = _texts(chosen)
        return self.embed_pairs(list(words), texts[0] if len(texts) == 1 else texts, truncate=chosen.truncate)


def _texts(chosen: Options) -> list[str]:
    if chosen.texts is None:
        raise UsageError(f"--mode {chosen.mode} needs --texts FILE, one text on each line")
    return read_lines(chosen.texts)


def _arrays(found: Sequence[Embedding]) -> dict[str, np.ndarray]:
    """Return all states in one array, shorter ones followed by zeros, with a mask; and the features."""
    n = max(len(one.states) for one in found)
    states = np.zeros((len(found), n, found[0].states.shape[1]), found[0].states.dtype)
    mask = np.zeros((len(found), n), np.int64)
    for i, one in enumerate(found):
        states[i, : len(one.states)] = one.states
        mask[i, : len(one.states)] = 1
    features = [one.features for one in found if one.features is not None]
    return {"states": states, "mask": mask} | ({"features": np.stack(features)} if features else {})


def open_task(graphs: Graphs, settings: Mapping[str, Any], options: TaskOptions) -> Embedder:
    """Open the parts of an embedder; the projections, where there are any."""
    checked = encoder_settings(settings, known_parts(graphs.parts), "embed", _wanted(graphs.parts))
    reader = TextReader(graphs, checked.text, "the task 'embed'")
    parts = OpenParts(graphs, _wanted(graphs.parts), options)
    return Embedder(parts, Encoders(parts, checked, reader, options.progress))


def check_settings(settings: Mapping[str, Any], parts: Mapping[str, Signature]) -> None:
    """Check at build time what `open_task` will need.

    Raises:
        UsageError: A setting is wrong, or does not fit the parts.
    """
    encoder_settings(settings, parts, "embed", _wanted(parts))


def _wanted(parts: Mapping[str, Signature | None]) -> tuple[str, ...]:
    return (*_PARTS, *(name for name in _PROJECTIONS if name in parts))
