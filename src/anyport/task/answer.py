"""The task ``answer``: pictures and questions in, answers out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Self

import msgspec

from anyport.errors import InputError, UsageError
from anyport.task.part_forms import OpenParts, known_parts
from anyport.task.picture_settings import fitted_pictures
from anyport.task.task import Printout, TaskOptions, settings_from
from anyport.task.text_writer import Sight, TextWriter, WritingOptions, writer_settings
from anyport.task.texts import TextReader, fill_right, words_for_each
from anyport.task.vision import VisionEncoder
from anyport.task.written_texts import WrittenText, shown_texts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anyport.task.generation import Generation
    from anyport.task.graphs import Graphs
    from anyport.task.picture_settings import FittedPicture
    from anyport.task.pictures import Picture
    from anyport.task.text_writer import WriterSettings
    from anyport.tensors import Signature

_PARTS: Final = ("vision_encoder", "question_encoder", "cross_keys", "text_decoder")


class Options(WritingOptions, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The options of ``anyport run`` for this task."""

    question: (
        Annotated[str, msgspec.Meta(description="What is asked about every picture; required.")] | None
    ) = None


class Answerer:
    """A bundle that answers questions about pictures; a context manager.

    Attributes:
        settings: How pictures and words are prepared, and how text is written where the user does not say.
    """

    def __init__(self, graphs: Graphs, settings: WriterSettings, options: TaskOptions) -> None:
        self.settings = settings
        self._reader = TextReader(graphs, settings.text, "the task 'answer'")
        self._parts = OpenParts(graphs, _PARTS, options)
        self._questions = self._parts.session("question_encoder")
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
        fitted = fitted_pictures(pictures, self.settings.picture, "ask")
        questions = self._read(question, [one.name for one in fitted], truncate=truncate)
        n_at_a_time = self._writer.n_at_a_time(chosen)
        begun = self._writer.begin("", "the answer", chosen, truncate=False)
        found: list[WrittenText] = []
        for start in range(0, len(fitted), n_at_a_time):
            some = fitted[start : start + n_at_a_time]
            sight = self._sight(some, questions[start : start + n_at_a_time])
            written = self._writer.write(sight, [begun] * len(some), chosen)
            found += [
                WrittenText.of(one.name, (*begun, *text.tokens), text, self._reader)
                for one, text in zip(some, written, strict=True)
            ]
        return found

    def answer(self, words: Sequence[str], options: Mapping[str, Any]) -> Printout:
        """Answer about the files that a command line names; see `anyport.task.task.Task`."""
        chosen = settings_from(options, Options, "options of the task 'answer'")
        do = 'anyport run BUNDLE PICTURE… --question "what colour is it?"'
        if not words:
            raise UsageError("no picture is given", do=do)
        if chosen.question is None:
            raise UsageError("no question is given", do=do)
        how = chosen.how(self.settings.generation.how)
        found = shown_texts("answer", self.ask(list(words), chosen.question, how, truncate=chosen.truncate))
        return Printout(found.lines, {**found.record, "question": chosen.question})

    def _read(
        self, question: str | Sequence[str], names: Sequence[str], *, truncate: bool
    ) -> list[list[int]]:
        found = []
        for text, name in zip(words_for_each(question, len(names), "question"), names, strict=True):
            what = f"the question for {name}"
            found.append(self._reader.enclosed(text, what, multimodal=True, truncate=truncate))
            if not text.strip():
                raise InputError(f"{what} is empty", do="ask something")
        return found

    def _sight(self, pictures: Sequence[FittedPicture], questions: Sequence[Sequence[int]]) -> Sight:
        tokens, mask = fill_right(questions, self.settings.text.pad)
        feeds = {
            "input_ids": tokens,
            "attention_mask": mask,
            "image_embeds": self._vision.encode(pictures),
        }
        return Sight(self._questions.run(feeds)["question_embeds"], mask)


def open_task(graphs: Graphs, settings: Mapping[str, Any], options: TaskOptions) -> Answerer:
    """Open the parts of an answerer."""
    return Answerer(graphs, writer_settings(settings, known_parts(graphs.parts), "answer", _PARTS), options)


def check_settings(settings: Mapping[str, Any], parts: Mapping[str, Signature]) -> None:
    """Check at build time what `open_task` will need.

    Raises:
        UsageError: A setting is wrong, or does not fit the parts.
    """
    writer_settings(settings, parts, "answer", _PARTS)
