"""The task ``answer``: pictures and questions in, answers out."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from anyport.errors import InputError, UsageError
from anyport.task.part_forms import known_parts
from anyport.task.task import Printout, TaskOptions, settings_from
from anyport.task.text_writer import Sight, WritingOptions, check_streamed, writer_settings
from anyport.task.texts import N_AROUND, fill_right, words_for_each
from anyport.task.writing import Row, WritingTask, only_picture, refuse_stream
from anyport.task.written_texts import TextSoFar, WrittenText, new_words, shown_texts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from anyport.task.generation import Generation
    from anyport.task.graphs import Graphs
    from anyport.task.picture_settings import FittedPicture
    from anyport.task.pictures import Picture
    from anyport.tensors import Signature

_PARTS: Final = ("vision_encoder", "question_encoder", "cross_keys", "text_decoder")


class Options(WritingOptions, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The options of ``anyport run`` for this task."""

    question: (
        Annotated[str, msgspec.Meta(description="What is asked about every picture; required.")] | None
    ) = None


class Answerer(WritingTask):
    """A bundle that answers questions about pictures; a context manager.

    Attributes:
        settings: How pictures and words are prepared, and how text is written where the user does not say.
    """

    def ask(
        self,
        pictures: Sequence[Picture],
        question: str | Sequence[str],
        how: Generation | None = None,
        *,
        truncate: bool = False,
    ) -> list[WrittenText]:
        """Answer a question about each picture.

        Every picture and question is read and checked before anything is computed.

        Args:
            pictures: Paths, bytes, Pillow images or numpy arrays, any number of them.
            question: One for all pictures, or one for each; of any lengths.
            how: How text is written; as the bundle says if absent.
            truncate: Keep the beginning of a question that is too long instead of refusing it.

        Returns:
            One for each picture, in their order. ``token_ids`` are those of transformers' ``generate()`` for
            that picture and question alone.

        Raises:
            InputError: Naming the picture or question that cannot be read; a question has no words.
            SessionError: The runtime failed, or its numbers are not finite.
        """
        chosen = how or self.settings.generation.how
        rows = self._rows(self._fitted(pictures, "ask"), question, chosen, truncate=truncate)
        return self._write(rows, chosen, self._sight)

    def stream(self, picture: Picture, question: str, how: Generation | None = None) -> Iterator[TextSoFar]:
        """Answer a question about one picture, token by token.

        Everything is read and checked by this call; what it returns computes as it is asked.

        Raises:
            InputError: The picture or question cannot be read.
            SessionError: The runtime failed, or its numbers are not finite.
            UsageError: With beams there is nothing to show before the end.
        """
        chosen = how or self.settings.generation.how
        check_streamed(chosen)
        [row] = self._rows(self._fitted([picture], "stream"), question, chosen, truncate=False)
        return self._watch(row, chosen, self._sight)

    def answer(self, words: Sequence[str], options: Mapping[str, Any]) -> Printout:
        """Answer about the files that a command line names; see `anyport.task.task.Task`."""
        chosen, question = self._asked_for(words, options)
        refuse_stream(chosen)
        how = chosen.how(self.settings.generation.how)
        found = shown_texts(
            "answer", self.ask(list(words), question, how, truncate=chosen.truncate), "question"
        )
        return replace(found, record={**found.record, "question": question})

    def pieces(self, words: Sequence[str], options: Mapping[str, Any]) -> Iterator[str]:
        """Answer about the one file that a command line names, piece by piece."""
        chosen, question = self._asked_for(words, options)
        how = chosen.how(self.settings.generation.how)
        return new_words(one.text for one in self.stream(only_picture(words, chosen), question, how))

    def _asked_for(self, words: Sequence[str], options: Mapping[str, Any]) -> tuple[Options, str]:
        chosen = settings_from(options, Options, "options of the task 'answer'")
        do = 'anyport run BUNDLE PICTURE… --question "what colour is it?"'
        if not words:
            raise UsageError("no picture is given", do=do)
        if chosen.question is None:
            raise UsageError("no question is given", do=do)
        return chosen, chosen.question

    def _rows(
        self,
        pictures: Sequence[FittedPicture],
        question: str | Sequence[str],
        how: Generation,
        *,
        truncate: bool,
    ) -> list[Row]:
        rows = []
        begun = self._writer.begin("", "the answer", how, truncate=False)
        for one, text in zip(pictures, words_for_each(question, len(pictures), "question"), strict=True):
            what = f"the question for {one.name}"
            tokens = self._reader.enclosed(text, what, multimodal=True, truncate=truncate)
            if len(tokens) == N_AROUND:  # control characters and the like are no tokens
                why = "has no words that the model reads" if text.strip() else "is empty"
                raise InputError(f"{what} {why}", do="ask something")
            rows.append(Row(one, begun, tokens, self._n_left_out(text, tokens, n_around=N_AROUND)))
        return rows

    def _sight(self, rows: Sequence[Row]) -> Sight:
        tokens, mask = fill_right([row.question for row in rows], self.settings.text.pad)
        feeds = {
            "input_ids": tokens,
            "attention_mask": mask,
            "image_embeds": self._vision.encode([row.picture for row in rows]),
        }
        return Sight(self._parts.session("question_encoder").run(feeds)["question_embeds"], mask)


def open_task(graphs: Graphs, settings: Mapping[str, Any], options: TaskOptions) -> Answerer:
    """Open the parts of an answerer."""
    checked = writer_settings(settings, known_parts(graphs.parts), "answer", _PARTS)
    return Answerer(graphs, checked, options, "answer", _PARTS)


def check_settings(settings: Mapping[str, Any], parts: Mapping[str, Signature]) -> None:
    """Check at build time what `open_task` will need.

    Raises:
        UsageError: A setting is wrong, or does not fit the parts.
    """
    writer_settings(settings, parts, "answer", _PARTS)
