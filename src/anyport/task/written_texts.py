"""What a task that writes gives back, and how it is shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from anyport.task.task import Printout

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


@dataclass(frozen=True, slots=True)
class WrittenText:
    """What was written about one picture.

    Attributes:
        file: The path of the picture, or ``picture 3``.
        text: In words, those of a prompt too.
        token_ids: In tokens: the first one, the prompt, what was written, the end if it was reached.
        score: See `anyport.task.generation.Written`: 0 is certain, less is less sure.
        margin: The least distance between the best and the second best score; see there.
        n_truncated: How many tokens of the prompt or question were left out, since they did not fit.
    """

    file: str
    text: str
    token_ids: tuple[int, ...]
    score: float
    margin: float | None
    n_truncated: int = 0

    @property
    def record(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        return {
            "file": self.file,
            "text": self.text,
            "token_ids": list(self.token_ids),
            "score": self.score,
            "n_truncated": self.n_truncated,
        }


@dataclass(frozen=True, slots=True)
class TextSoFar:
    """A text while it is written: the token that came last, and the words up to it, those of a prompt too."""

    token_id: int
    text: str


def shown_texts(task: str, found: Sequence[WrittenText], what: str) -> Printout:
    """Return one line for each picture: its name, where there are several, and the text.

    Args:
        task: Its name.
        found: What was written.
        what: What a note calls the words that go with all pictures.
    """
    width = max(len(one.file) for one in found) if len(found) > 1 else 0
    lines = [f"  {one.file:<{width}}   {one.text}" if width else f"  {one.text}" for one in found]
    return Printout(
        tuple(lines),
        {"task": task, "answers": [one.record for one in found]},
        truncations([(f"the {what}", max((one.n_truncated for one in found), default=0))]),
    )


def truncations(texts: Iterable[tuple[str, int]]) -> tuple[str, ...]:
    """Return a note for each text that was cut, given their names and how many tokens were left out."""
    return tuple(f"{name} is too long: its last {n} tokens were left out" for name, n in texts if n)


def new_words(texts: Iterable[str]) -> Iterator[str]:
    """Yield what each text adds to the one before it; half a character waits for its other half.

    >>> list(new_words(["a", "a caf\ufffd", "a café"]))
    ['a', ' café']
    """
    shown = text = ""
    for text in texts:
        if text.startswith(shown) and not text.endswith("\ufffd"):
            yield text[len(shown) :]
            shown = text
    if text != shown:  # the model ended within a character
        yield text.removeprefix(shown)
