"""Words become tokens, and tokens words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import numpy as np

from anyport.errors import BundleError, InputError, UsageError, require

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anyport.task.graphs import Graphs

N_AROUND: Final = 2  # the first token of a text and the last
_Id = Annotated[int, msgspec.Meta(ge=0)]


class TextSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How words become tokens.

    Attributes:
        tokenizer: Path in the bundle of a ``tokenizer.json`` (Hugging Face tokenizers). Its own truncation,
            filling and first and last tokens are not used.
        start: First token of a text that is read alone (``[CLS]``).
        multimodal_start: First token of a text that is read together with a picture.
        sep: Last token of a text that is read, and the end of one that is written.
        pad: What fills shorter texts of a batch.
        bos: First token of a text that is written; needed where one is.
        max_length: How many tokens the model can place, first and last ones counted.
    """

    tokenizer: str
    start: _Id
    multimodal_start: _Id
    sep: _Id
    pad: _Id
    bos: _Id | None = None
    max_length: Annotated[int, msgspec.Meta(ge=N_AROUND + 1)]

    def check(self, n_vocabulary: int | None = None) -> None:
        """Refuse tokens that the model does not have.

        Raises:
            UsageError: Naming the setting.
        """
        for name in ("start", "multimodal_start", "sep", "pad", "bos"):
            token = getattr(self, name)
            if token is not None and n_vocabulary is not None and token >= n_vocabulary:
                raise UsageError(f"settings: text.{name} = {token}, the model has {n_vocabulary} tokens")


class TextReader:
    """The tokenizer of a bundle."""

    def __init__(self, graphs: Graphs, settings: TextSettings, step: str) -> None:
        tokenizers = require("tokenizers", extra="text", step=step)
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
        self._silent = {settings.start, settings.multimodal_start, settings.sep, settings.pad, settings.bos}

    def tokens(
        self, text: str, name: str, room: int, *, truncate: bool = False, n_kept: int = 0
    ) -> list[int]:
        """Return the tokens of a text, without a first or last one.

        Args:
            text: Any words; none gives no tokens.
            name: What messages call it.
            room: How many tokens fit.
            truncate: Keep the first ``room`` tokens of a longer text instead of refusing it.
            n_kept: How many positions of the model are kept for what is written after the text.

        Raises:
            InputError: It is no text, or too long.
        """
        if not isinstance(text, str):
            raise InputError(f"{name} is a {type(text).__name__}, not text")
        try:
            found: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        except (TypeError, UnicodeEncodeError) as err:  # as tokenizers says it
            raise InputError(f"{name} holds half a character (a lone surrogate)") from err
        if len(found) > room and not truncate:
            kept = f": {n_kept} positions are kept for new tokens" if n_kept else ""
            fewer = ", ask for fewer new tokens (--max-new-tokens)" if n_kept else ""
            raise InputError(
                f"{name} has {len(found)} tokens, {max(room, 0)} fit{kept}",
                do=f"shorten it{fewer}, or ask for a cut: truncate=True (--truncate) keeps the first ones",
            )
        return found[: max(room, 0)]

    def enclosed(self, text: str, name: str, *, multimodal: bool, truncate: bool = False) -> list[int]:
        """Return the tokens of a text that is read: the first one, those of the words, the last one.

        Raises:
            InputError: It is no text, or too long.
        """
        first = self._settings.multimodal_start if multimodal else self._settings.start
        inside = self.tokens(text, name, self._settings.max_length - N_AROUND, truncate=truncate)
        return [first, *inside, self._settings.sep]

    def n_tokens(self, text: str) -> int:
        """Return how many tokens a text has, however many fit."""
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def words(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens, without those that only begin, end or fill."""
        text: str = self._tokenizer.decode(
            [token for token in tokens if token not in self._silent], skip_special_tokens=True
        )
        return text


def fill_right(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[np.ndarray, np.ndarray]:
    """Return int64[rows, n] and its mask; shorter texts are filled on the right.

    >>> fill_right([[7], [8, 9]], 0)[0].tolist()
    [[7, 0], [8, 9]]
    """
    n = max(map(len, rows))
    tokens = np.array([list(row) + [pad_id] * (n - len(row)) for row in rows], np.int64)
    mask = np.array([[1] * len(row) + [0] * (n - len(row)) for row in rows], np.int64)
    return tokens, mask


def words_for_each(words: str | Sequence[str], n: int, what: str) -> list[str]:
    """Return one text for each of ``n`` pictures; one text alone is for all of them.

    Raises:
        InputError: There is another number of texts.
    """
    if isinstance(words, str):
        return [words] * n
    if not hasattr(words, "__len__"):
        raise InputError(f"{what}s are a {type(words).__name__}, not a text or a list of texts")
    if len(words) != n:
        raise InputError(f"there are {n} pictures and {len(words)} {what}s", do=f"give one {what} for each")
    return list(words)


def read_lines(file: str) -> list[str]:
    """Return the texts of a file, one on each line; empty lines are left out.

    Raises:
        InputError: It is missing, no UTF-8 text, or holds no text at all.
    """
    try:
        content = Path(file).read_text(encoding="utf-8-sig")
    except OSError as err:
        raise InputError(f"{file} cannot be read: {err.strerror}") from err
    except UnicodeDecodeError as err:
        raise InputError(f"{file} is no UTF-8 text: {err.reason} at byte {err.start}") from err
    # read_text made \r\n and \r to \n; splitlines would cut at U+2028, U+0085 and form feeds, too
    found = [line.strip() for line in content.split("\n") if line.strip()]
    if not found:
        raise InputError(f"{file} holds no text", do="write one text on each line")
    return found
