"""What a task that writes gives back, and how it is shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from anyport.task.task import Printout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anyport.task.generation import Written
    from anyport.task.texts import TextReader


@dataclass(frozen=True, slots=True)
class WrittenText:
    """What was written about one picture.

    Attributes:
        file: The path of the picture, or ``picture 3``.
        text: In words, those of a prompt too.
        token_ids: In tokens: the first one, the prompt, what was written, the end if it was reached.
        score: See `anyport.task.generation.Written`: 0 is certain, less is less sure.
        margin: The least distance between the best and the second best score; see there.
    """

    file: str
    text: str
    token_ids: tuple[int, ...]
    score: float
    margin: float | None

    @classmethod
    def of(cls, file: str, tokens: Sequence[int], written: Written, reader: TextReader) -> WrittenText:
        """Put words to tokens."""
        return cls(file, reader.words(tokens), tuple(tokens), written.score, written.margin)

    @property
    def record(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        return {
            "file": self.file,
            "text": self.text,
            "token_ids": list(self.token_ids),
            "score": self.score,
        }


def shown_texts(task: str, found: Sequence[WrittenText]) -> Printout:
    """Return one line for each picture: its name, where there are several, and the text."""
    width = max(len(one.file) for one in found) if len(found) > 1 else 0
    lines = [f"  {one.file:<{width}}   {one.text}" if width else f"  {one.text}" for one in found]
    return Printout(tuple(lines), {"task": task, "answers": [one.record for one in found]})
