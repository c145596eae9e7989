"""The task ``caption``: pictures in, sentences about them out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import numpy as np

from anyport.errors import UsageError
from anyport.task.part_forms import known_parts
from anyport.task.task import Printout, TaskOptions, settings_from
from anyport.task.text_writer import Sight, WritingOptions, check_streamed, writer_settings
from anyport.task.texts import words_for_each
from anyport.task.writing import Row, WritingTask, only_picture, refuse_stream
from anyport.task.written_texts import TextSoFar, WrittenText, new_words, shown_texts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from anyport.task.generation import Generation
    from anyport.task.graphs import Graphs
    from anyport.task.picture_settings import FittedPicture
    from anyport.task.pictures import Picture
    from anyport.tensors import Signature

_PARTS: Final = ("vision_encoder", "cross_keys", "text_decoder")


class Options(WritingOptions, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The options of ``anyport run`` for this task."""

    prompt: (
        Annotated[str, msgspec.Meta(description="Words that every caption begins with; '' for none.")] | None
    ) = None


class Captioner(WritingTask):
    """A bundle that describes pictures; a context manager.

    Attributes:
        settings: How pictures and words are prepared, and how text is written where the user does not say.
    """

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
        rows = self._rows(self._fitted(pictures, "caption"), prompt, chosen, truncate=truncate)
        return self._write(rows, chosen, self._sight)

    def stream(
        self, picture: Picture, prompt: str | None = None, how: Generation | None = None
    ) -> Iterator[TextSoFar]:
        """Describe one picture, token by token.

        Everything is read and checked by this call; what it returns computes as it is asked.

        Raises:
            InputError: The picture or prompt cannot be read.
            SessionError: The runtime failed, or its numbers are not finite.
            UsageError: With beams there is nothing to show before the end.
        """
        chosen = how or self.settings.generation.how
        check_streamed(chosen)
        [row] = self._rows(self._fitted([picture], "stream"), prompt, chosen, truncate=False)
        return self._watch(row, chosen, self._sight)

    def answer(self, words: Sequence[str], options: Mapping[str, Any]) -> Printout:
        """Describe the files that a command line names; see `anyport.task.task.Task`."""
        chosen, how = self._asked_for(words, options)
        refuse_stream(chosen)
        found = self.caption(list(words), chosen.prompt, how, truncate=chosen.truncate)
        return shown_texts("caption", found, "prompt")

    def pieces(self, words: Sequence[str], options: Mapping[str, Any]) -> Iterator[str]:
        """Describe the one file that a command line names, piece by piece."""
        chosen, how = self._asked_for(words, options)
        found = self.stream(only_picture(words, chosen), chosen.prompt, how)
        return new_words(one.text for one in found)

    def _asked_for(self, words: Sequence[str], options: Mapping[str, Any]) -> tuple[Options, Generation]:
        chosen = settings_from(options, Options, "options of the task 'caption'")
        if not words:
            raise UsageError("no picture is given", do="anyport run BUNDLE PICTURE…")
        return chosen, chosen.how(self.settings.generation.how)

    def _rows(
        self,
        pictures: Sequence[FittedPicture],
        prompt: str | Sequence[str] | None,
        how: Generation,
        *,
        truncate: bool,
    ) -> list[Row]:
        wanted = self.settings.generation.prompt if prompt is None else prompt
        rows = []
        for one, text in zip(pictures, words_for_each(wanted, len(pictures), "prompt"), strict=True):
            begun = self._writer.begin(text, f"the prompt for {one.name}", how, truncate=truncate)
            rows.append(Row(one, begun, n_truncated=self._n_left_out(text, begun, n_around=1)))
        return rows

    def _sight(self, rows: Sequence[Row]) -> Sight:
        states = self._vision.encode([row.picture for row in rows])
        return Sight(states, np.ones(states.shape[:2], np.int64))


def open_task(graphs: Graphs, settings: Mapping[str, Any], options: TaskOptions) -> Captioner:
    """Open the parts of a captioner."""
    checked = writer_settings(settings, known_parts(graphs.parts), "caption", _PARTS)
    return Captioner(graphs, checked, options, "caption", _PARTS)


def check_settings(settings: Mapping[str, Any], parts: Mapping[str, Signature]) -> None:
    """Check at build time what `open_task` will need.

    Raises:
        UsageError: A setting is wrong, or does not fit the parts.
    """
    writer_settings(settings, parts, "caption", _PARTS)
