"""What the tasks that look at pictures and write about them share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from anyport.errors import UsageError
from anyport.task.part_forms import OpenParts
from anyport.task.picture_settings import fitted_pictures
from anyport.task.text_writer import TextWriter
from anyport.task.texts import TextReader
from anyport.task.vision import VisionEncoder
from anyport.task.written_texts import TextSoFar, WrittenText

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from anyport.task.generation import Generation
    from anyport.task.graphs import Graphs
    from anyport.task.picture_settings import FittedPicture
    from anyport.task.pictures import Picture
    from anyport.task.task import TaskOptions
    from anyport.task.text_writer import Sight, WriterSettings, WritingOptions


@dataclass(frozen=True, slots=True)
class Row:
    """One text that is to be written.

    Attributes:
        picture: What it is about.
        begun: The tokens that it begins with.
        question: The tokens of what is asked; none where nothing is.
        n_truncated: How many tokens of the prompt or question were left out.
    """

    picture: FittedPicture
    begun: Sequence[int]
    question: Sequence[int] = ()
    n_truncated: int = 0


class WritingTask:
    """A bundle that looks at pictures and writes about them; a context manager.

    Attributes:
        settings: How pictures and words are prepared, and how text is written where the user does not say.
    """

    def __init__(
        self, graphs: Graphs, settings: WriterSettings, options: TaskOptions, name: str, parts: Sequence[str]
    ) -> None:
        self.settings = settings
        self._progress = options.progress
        self._name = name
        self._reader = TextReader(graphs, settings.text, f"the task '{name}'")
        self._parts = OpenParts(graphs, parts, options)
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

    def _fitted(self, pictures: Sequence[Picture], verb: str) -> list[FittedPicture]:
        return fitted_pictures(pictures, self.settings.picture, verb, self._progress)

    def _n_left_out(self, text: str, kept: Sequence[int], n_around: int) -> int:
        """Return how many tokens of a text are not among those kept, ``n_around`` of which are marks."""
        return self._reader.n_tokens(text) - (len(kept) - n_around)

    def _write(
        self, rows: Sequence[Row], how: Generation, see: Callable[[Sequence[Row]], Sight]
    ) -> list[WrittenText]:
        """Write every text, a few at a time; ``see`` computes what they are about."""
        n_at_a_time = self._writer.n_at_a_time(how)
        found: list[WrittenText] = []
        for start in range(0, len(rows), n_at_a_time):
            some = rows[start : start + n_at_a_time]
            written = self._writer.write(see(some), [row.begun for row in some], how)
            for row, text in zip(some, written, strict=True):
                tokens = (*row.begun, *text.tokens)
                words = self._reader.words(tokens)
                found.append(
                    WrittenText(row.picture.name, words, tokens, text.score, text.margin, row.n_truncated)
                )
            self._progress("texts written", len(found), len(rows))
        return found

    def _watch(self, row: Row, how: Generation, see: Callable[[Sequence[Row]], Sight]) -> Iterator[TextSoFar]:
        """Write one text, token by token."""
        tokens = list(row.begun)
        for one in self._writer.stream(see([row]), [row.begun], how):
            tokens.append(one.token)
            yield TextSoFar(one.token, self._reader.words(tokens))


def only_picture(words: Sequence[str], chosen: WritingOptions) -> str:
    """Return the one picture of a command line that asks for a stream.

    Raises:
        UsageError: There are several, or an option that a stream has not.
    """
    if len(words) != 1:
        raise UsageError(
            f"--stream shows one picture at a time, {len(words)} are given",
            do="leave --stream out, or give one picture",
        )
    if chosen.truncate:
        raise UsageError("--stream and --truncate cannot go together", do="shorten the text")
    return words[0]


def refuse_stream(chosen: WritingOptions) -> None:
    """Refuse a stream where all texts are given back at once.

    Raises:
        UsageError: One is asked for.
    """
    if chosen.stream:
        raise UsageError(
            "--stream shows a text while it is written, --json prints one document at the end",
            do="leave one of the two out",
        )
