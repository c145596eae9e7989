"""An instruction about pictures becomes the tokens that the text encoder reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from anyport.errors import BundleError, InputError, UsageError, require

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anyport.task.edit_settings import InstructionSettings
    from anyport.task.graphs import Graphs


@dataclass(frozen=True, slots=True)
class Instruction:
    """The tokens of an instruction alone.

    Attributes:
        tokens: Those that are used.
        n_found: How many there were.
        cut: The words that are not used; none if absent.
    """

    tokens: tuple[int, ...]
    n_found: int
    cut: str | None

    def note(self, name: str) -> str | None:
        """Say what was cut, if anything was."""
        if self.cut is None:
            return None
        start = self.cut if len(self.cut) <= 60 else f"{self.cut[:57]}..."  # noqa: PLR2004 -- fits a line
        return f"{name} has {self.n_found} tokens, {len(self.tokens)} are used; cut off: {start!r}"


class InstructionReader:
    """The tokenizer and the template of a bundle.

    Marks of the template stand before and behind an instruction, and no token reaches over a mark: the
    tokens of a whole text are those of its pieces, one after the other.
    """

    def __init__(self, graphs: Graphs, settings: InstructionSettings) -> None:
        tokenizers = require("tokenizers", extra="text", step="the task 'edit'")
        content = graphs.read_bytes(settings.tokenizer)
        try:
            self._tokenizer: Any = tokenizers.Tokenizer.from_buffer(content)
        except Exception as err:  # tokenizers raises nothing narrower
            raise BundleError(
                f"'{settings.tokenizer}' is no tokenizer: {err}", where=str(graphs.path)
            ) from err
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._settings = settings
        self._marks = {
            token: added.content for token, added in self._tokenizer.get_added_tokens_decoder().items()
        }
        self._after = self._ids(settings.after)
        self._check_template()

    def read(self, text: str, name: str, max_length: int) -> Instruction:
        """Return the tokens of an instruction, the first ones if there are more than ``max_length``.

        Half a character is not kept.

        Args:
            text: Any words; none gives no tokens.
            name: What messages call it.
            max_length: 0 for any number.

        Raises:
            InputError: It is no text, or holds a mark of the template.
        """
        if not isinstance(text, str):
            raise InputError(f"{name} is a {type(text).__name__}, not text")
        try:
            found = self._tokenizer.encode(text, add_special_tokens=False)
        except (TypeError, UnicodeEncodeError) as err:  # as tokenizers says it
            raise InputError(f"{name} holds half a character (a lone surrogate)") from err
        mark = next((token for token in found.ids if token in self._marks), None)
        if mark is not None:
            raise InputError(
                f"{name} holds '{self._marks[mark]}', a mark of the model's own", do="leave it out"
            )
        n = len(found.ids)
        if not 0 < max_length < n:
            return Instruction(tuple(found.ids), n, None)
        kept = max_length
        while kept and found.offsets[kept - 1][1] > found.offsets[kept][0]:
            kept -= 1
        cut = text[found.offsets[kept - 1][1] if kept else 0 :]
        return Instruction(tuple(found.ids[:kept]), n, cut)

    def tokens(self, instruction: Instruction, n_merged: Sequence[int]) -> np.ndarray:
        """Return int64[tokens]: the template, a place for each merged patch, the instruction, the end.

        Args:
            instruction: As `read` gives it.
            n_merged: How many merged patches each picture has.
        """
        whole: list[int] = []
        sizes = iter(n_merged)
        for token in self._head(len(n_merged)):
            whole += [token] * (next(sizes) if token == self._settings.image_pad else 1)
        return np.array([*whole, *instruction.tokens, *self._after], np.int64)

    def _head(self, n_pictures: int) -> list[int]:
        """Return the tokens before an instruction, one for each picture."""
        numbers = range(1, n_pictures + 1)
        pictures = [self._settings.picture.replace("{}", str(number)) for number in numbers]
        return self._ids("".join([self._settings.before, *pictures]))

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def _check_template(self) -> None:
        settings, head = self._settings, self._head(1)
        n_before = len(self._ids(settings.before))
        if n_before != settings.n_dropped:
            raise UsageError(
                f"settings: text.before has {n_before} tokens, text.n_dropped is {settings.n_dropped}",
                do="the states of text.before are those to drop: give both as the model was trained",
            )
        if head.count(settings.image_pad) != 1:
            raise UsageError(
                f"settings: text.picture holds the token text.image_pad = {settings.image_pad} "
                f"{head.count(settings.image_pad)} times, it must hold it once"
            )
        if head[-1] not in self._marks or not self._after or self._after[0] not in self._marks:
            raise UsageError(
                "settings: text.picture must end and text.after begin with a mark of the tokenizer, "
                "or a token could reach over it"
            )
