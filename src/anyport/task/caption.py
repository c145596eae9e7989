"""The task ``caption``: pictures in, sentences about them out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, Self

import msgspec
import numpy as np

from anyport.errors import UsageError
from anyport.task.part_forms import OpenParts, known_parts
from anyport.task.picture_settings import fitted_pictures
from anyport.task.task import Printout, TaskOptions, settings_from
from anyport.task.text_writer import Sight, TextWriter, WritingOptions, writer_settings
from anyport.task.texts import TextReader, words_for_each
from anyport.task.vision import VisionEncoder
from anyport.task.written_texts import WrittenText, shown_texts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from anyport.task.generation import Generation
    from anyport.task.graphs import Graphs
    from anyport.task.picture_settings import FittedPicture
    from anyport.task.pictures import Picture
    from anyport.task.text_writer import WriterSettings
    from anyport.tensors import Signature

_PARTS: Final = ("vision_encoder", "cross_keys", "text_decoder")


class Options(WritingOptions, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The options of ``anyport run`` for this task."""

    prompt: (
        Annotated[str, msgspec.Meta(description="Words that every caption begins with; '' for none.")] | None
    ) = None


@dataclass(frozen=True, slots=True)
class CaptionSoFar:
    """A caption while it is written: the token that came last, and the text up to it."""

    token_id: int
    text: str


class Captioner:
    """A bundle that describes pictures; a context manager.

    Attributes:
        settings: How pictures and words are prepared, and how text is written where the user does not say.
    """

    def __init__(self, graphs: Graphs, settings: WriterSettings, options: TaskOptions) -> None:
        self.settings = settings
        self._reader = TextReader(graphs, settings.text, "the task 'caption'")
        self._parts = OpenParts(graphs, _PARTS, options)
        self._vision = VisionEncoder(self._parts, settings.picture)
        self._writer = TextWriter(self._parts, settings, self._reader)

    def __enter__(self) -> Self:
        """Return the task itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Give back the sessions and the bundle; a second call does nothing."""
        self._parts.close()

    def caption(
        self,
        pictures: Sequence[Picture],
        prompt: str | Sequence[str] | None = None,
        how: Generation | None = None,
        *,
        truncate: bool = False,
    ) -> list[WrittenText]:
        """Describe pictures.

        Every picture and prompt is read and checked before anything is computed.

        Args:
            pictures: Paths, bytes, Pillow images or numpy arrays, any number of them.
            prompt: The words that a caption begins with: one text for all, or one for each; no words leave
                the beginning to the model. The bundle's own if absent.
            how: How text is written; as the bundle says if absent.
            truncate: Keep the beginning of a prompt that is too long instead of refusing it.

        Returns:
            One for each picture, in their order. ``token_ids`` are those of transformers' ``generate()`` for
            that picture and prompt alone.

        Raises:
            InputError: Naming the picture or prompt that cannot be read.
            SessionError: The runtime failed, or its numbers are not finite.
        """
        chosen = how or self.settings.generation.how
        fitted = fitted_pictures(pictures, self.settings.picture, "caption")
        prompts = self._prompts(prompt, [one.name for one in fitted], chosen, truncate=truncate)
        n_at_a_time = self._writer.n_at_a_time(chosen)
        found: list[WrittenText] = []
        for start in range(0, len(fitted), n_at_a_time):
            some, begun = fitted[start : start + n_at_a_time], prompts[start : start + n_at_a_time]
            written = self._writer.write(self._sight(some), begun, chosen)
            found += [
                WrittenText.of(one.name, (*prompt_tokens, *text.tokens), text, self._reader)
                for one, prompt_tokens, text in zip(some, begun, written, strict=True)
            ]
        return found

    def stream(
        self, picture: Picture, prompt: str | None = None, how: Generation | None = None
    ) -> Iterator[CaptionSoFar]:
        """Describe one picture, token by token.

        Raises:
            InputError: The picture or prompt cannot be read.
            SessionError: The runtime failed, or its numbers are not finite.
            UsageError: With beams there is nothing to show before the end.
        """
        chosen = how or self.settings.generation.how
        fitted = fitted_pictures([picture], self.settings.picture, "stream")
        [begun] = self._prompts(prompt, [fitted[0].name], chosen, truncate=False)
        tokens = list(begun)
        for one in self._writer.stream(self._sight(fitted), [begun], chosen):
            tokens.append(one.token)
            yield CaptionSoFar(one.token, self._reader.words(tokens))

    def answer(self, words: Sequence[str], options: Mapping[str, Any]) -> Printout:
        """Describe the files that a command line names; see `anyport.task.task.Task`."""
        chosen = settings_from(options, Options, "options of the task 'caption'")
        if not words:
            raise UsageError("no picture is given", do="anyport run BUNDLE PICTURE…")
        how = chosen.how(self.settings.generation.how)
        return shown_texts("caption", self.caption(list(words), chosen.prompt, how, truncate=chosen.truncate))

    def _prompts(
        self, prompt: str | Sequence[str] | None, names: Sequence[str], how: Generation, *, truncate: bool
    ) -> list[list[int]]:
        wanted = self.settings.generation.prompt if prompt is None else prompt
        each = words_for_each(wanted, len(names), "prompt")
        return [
            self._writer.begin(text, f"the prompt for {name}", how, truncate=truncate)
            for text, name in zip(each, names, strict=True)
        ]

    def _sight(self, pictures: Sequence[FittedPicture]) -> Sight:
        states = self._vision.encode(pictures)
        return Sight(states, np.ones(states.shape[:2], np.int64))


def open_task(graphs: Graphs, settings: Mapping[str, Any], options: TaskOptions) -> Captioner:
    """Open the parts of a captioner."""
    return Captioner(graphs, writer_settings(settings, known_parts(graphs.parts), "caption", _PARTS), options)


def check_settings(settings: Mapping[str, Any], parts: Mapping[str, Signature]) -> None:
    """Check at build time what `open_task` will need.

    Raises:
        UsageError: A setting is wrong, or does not fit the parts.
    """
    writer_settings(settings, parts, "caption", _PARTS)
