"""The task ``match``: which texts fit which pictures."""

from __future__ import annotations

import unicodedata
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, Self

import msgspec
import numpy as np

from anyport.errors import UsageError
from anyport.task.embed import Embedder
from anyport.task.encoders import MAX_ROWS, Encoders, encoder_settings
from anyport.task.part_forms import OpenParts, known_parts
from anyport.task.picture_settings import fitted_pictures
from anyport.task.task import Printout, TaskOptions, settings_from
from anyport.task.texts import TextReader, read_lines, words_for_each
from anyport.task.token_scores import log_softmax
from anyport.task.written_texts import truncations

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from anyport.task.encoders import EncoderSettings, TokenizedText
    from anyport.task.graphs import Graphs
    from anyport.task.picture_settings import FittedPicture
    from anyport.task.pictures import Picture
    from anyport.tensors import Signature

_PARTS: Final = (
    "vision_encoder",
    "text_encoder",
    "multimodal_encoder",
    "itm_head",
    "image_projection",
    "text_projection",
)
_SHOWN: Final = 40  # characters of a text that was cut


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The options of ``anyport run`` for this task."""

    texts: Annotated[str, msgspec.Meta(description="File with one text on each line; required.")] | None = (
        None
    )
    top: Annotated[int, msgspec.Meta(ge=1, description="How many of the best to show.")] = 5
    candidates: Annotated[
        int,
        msgspec.Meta(
            ge=1,
            description="How many of the most similar are read together with the picture; as many as --top "
            "at least.",
        ),
    ] = 32
    per_text: Annotated[bool, msgspec.Meta(description="Show the best pictures for each text.")] = False
    truncate: Annotated[bool, msgspec.Meta(description="Cut text that is too long for the model.")] = False


@dataclass(frozen=True, slots=True)
class Ranking:
    """How many texts are looked at, and how closely.

    Attributes:
        top: How many of the best come back.
        candidates: So many of the most similar (and ``top`` at least) are read together with the picture,
            which tells more and costs a run of the multimodal encoder each.
    """

    top: int = 5
    candidates: int = 32

    def __post_init__(self) -> None:
        """Refuse numbers that mean nothing."""
        for name in ("top", "candidates"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}, it must be 1 or more")


@dataclass(frozen=True, slots=True)
class Match:
    """One picture and one text.

    Attributes:
        file: The path of the picture, or ``picture 3``.
        text: The words.
        token_ids: In tokens, as they are read together with the picture.
        score: The probability that they belong together (ITM head).
        similarity: The cosine of their features (ITC), -1 to 1.
        n_truncated: How many tokens of the text were left out, since they did not fit.
    """

    file: str
    text: str
    token_ids: tuple[int, ...]
    score: float
    similarity: float
    n_truncated: int = 0


class Matcher:
    """A bundle that compares pictures with texts; a context manager.

    What it computes of a picture or a text is remembered, up to 512 MiB: the next call with the same ones
    is faster. ``encoders.remembered.forget()`` gives the memory back.

    Attributes:
        encoders: The parts, and what they remember.
        embedder: The same parts as an `anyport.task.embed.Embedder`; it is closed with the matcher.
    """

    def __init__(self, graphs: Graphs, settings: EncoderSettings, options: TaskOptions) -> None:
        reader = TextReader(graphs, settings.text, "the task 'match'")
        self._parts = OpenParts(graphs, _PARTS, options)
        self.encoders = Encoders(self._parts, settings, reader, options.progress)
        self.embedder = Embedder(self._parts, self.encoders)

    def __enter__(self) -> Self:
        """Return the task itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Give back the sessions and the bundle; a second call does nothing."""
        self._parts.close()

    def match(
        self, pictures: Sequence[Picture], texts: str | Sequence[str], *, truncate: bool = False
    ) -> list[Match]:
        """Compare each picture with its text: one text for all of them, or one for each.

        Raises:
            InputError: Naming the picture or text that cannot be read.
            SessionError: The runtime failed, or its numbers are not finite.
        """
        fitted = self._fitted(pictures, "match")
        read = self.encoders.read(words_for_each(texts, len(fitted), "text"), truncate=truncate)
        if not fitted:
            return []
        similar = (self.encoders.image_features(fitted) * self.encoders.text_features(read)).sum(axis=1)
        pairs = [_Pair(i, i, float(cosine)) for i, cosine in enumerate(similar)]
        return self._matches(fitted, read, pairs)

    def similarity(
        self, pictures: Sequence[Picture], texts: Sequence[str], *, truncate: bool = False
    ) -> np.ndarray:
        """Return float32[pictures, texts], the cosine of the features of each picture and each text.

        Raises:
            InputError: Naming the picture or text that cannot be read.
            SessionError: The runtime failed, or its numbers are not finite.
        """
        fitted = self._fitted(pictures, "similarity")
        read = self.encoders.read(words_for_each(texts, len(texts), "text"), truncate=truncate)
        return self._similarity(fitted, read)

    def rank(
        self,
        pictures: Sequence[Picture],
        texts: Sequence[str],
        how: Ranking | None = None,
        *,
        truncate: bool = False,
    ) -> list[list[Match]]:
        """Find the texts that fit each picture best.

        Raises:
            InputError: Naming the picture or text that cannot be read.
            SessionError: The runtime failed, or its numbers are not finite.
        """
        chosen = how or Ranking()
        fitted = self._fitted(pictures, "rank")
        read = self.encoders.read(words_for_each(texts, len(texts), "text"), truncate=truncate)
        found: list[list[Match]] = []
        for start in range(0, len(fitted), MAX_ROWS):  # so that the states of these pictures are remembered
            some = fitted[start : start + MAX_ROWS]
            for i, cosines in enumerate(self._similarity(some, read)):
                pairs = [_Pair(i, j, float(cosines[j])) for j in _best(cosines, chosen)]
                found.append(_sorted(self._matches(some, read, pairs))[: chosen.top])
                self.encoders.progress("pictures ranked", len(found), len(fitted))
        return found

    def rank_pictures(
        self,
        texts: Sequence[str],
        pictures: Sequence[Picture],
        how: Ranking | None = None,
        *,
        truncate: bool = False,
    ) -> list[list[Match]]:
        """Find the pictures that fit each text best.

        Raises:
            InputError: Naming the picture or text that cannot be read.
            SessionError: The runtime failed, or its numbers are not finite.
        """
        chosen = how or Ranking()
        fitted = self._fitted(pictures, "rank_pictures")
        read = self.encoders.read(words_for_each(texts, len(texts), "text"), truncate=truncate)
        if not fitted:
            return [[] for _ in read]
        cosines = self._similarity(fitted, read)
        pairs = [
            _Pair(int(i), j, float(cosines[i, j]))
            for j in range(len(read))
            for i in _best(cosines[:, j], chosen)
        ]
        by_text: list[list[Match]] = [[] for _ in read]
        for pair, match in zip(pairs, self._matches(fitted, read, pairs), strict=True):
            by_text[pair.text].append(match)
        return [_sorted(matches)[: chosen.top] for matches in by_text]

    def answer(self, words: Sequence[str], options: Mapping[str, Any]) -> Printout:
        """Rank the files that a command line names; see `anyport.task.task.Task`."""
        chosen = settings_from(options, Options, "options of the task 'match'")
        do = "anyport run BUNDLE PICTURE… --texts FILE"
        if not words:
            raise UsageError("no picture is given", do=do)
        if chosen.texts is None:
            raise UsageError("no texts are given", do=do)
        texts, how = read_lines(chosen.texts), Ranking(chosen.top, chosen.candidates)
        if chosen.per_text:
            found = self.rank_pictures(texts, list(words), how, truncate=chosen.truncate)
            return _printout(texts, found, is_per_text=True)
        return _printout(
            words, self.rank(list(words), texts, how, truncate=chosen.truncate), is_per_text=False
        )

    def _fitted(self, pictures: Sequence[Picture], verb: str) -> list[FittedPicture]:
        return fitted_pictures(pictures, self.encoders.settings.picture, verb, self.encoders.progress)

    def _similarity(self, pictures: Sequence[FittedPicture], texts: Sequence[TokenizedText]) -> np.ndarray:
        if not pictures or not texts:
            return np.zeros((len(pictures), len(texts)), np.float32)
        cosines: np.ndarray = self.encoders.image_features(pictures) @ self.encoders.text_features(texts).T
        return cosines

    def _matches(
        self, pictures: Sequence[FittedPicture], texts: Sequence[TokenizedText], pairs: Sequence[_Pair]
    ) -> list[Match]:
        """Read each text together with its picture, those of one picture together."""
        found: dict[int, Match] = {}
        order = sorted(range(len(pairs)), key=lambda place: pairs[place].picture)
        for start in range(0, len(order), MAX_ROWS):
            some = order[start : start + MAX_ROWS]
            read = [texts[pairs[place].text] for place in some]
            seen = [pictures[pairs[place].picture] for place in some]
            logits = self.encoders.match_logits(read, self.encoders.image_states(seen))
            probable = np.exp(log_softmax(logits.astype(np.float64)))[:, 1]
            for place, text, one, score in zip(some, read, seen, probable, strict=True):
                similar = pairs[place].similarity
                found[place] = Match(
                    one.name, text.text, text.multimodal, float(score), similar, text.n_truncated
                )
            if len(pairs) > MAX_ROWS:
                self.encoders.progress("pairs compared", len(found), len(pairs))
        return [found[place] for place in range(len(pairs))]


@dataclass(frozen=True, slots=True)
class _Pair:
    """The place of a picture, the place of a text, and the cosine of their features."""

    picture: int
    text: int
    similarity: float


def _best(cosines: np.ndarray, how: Ranking) -> list[int]:
    """Return the places that are looked at closely, the most similar first; of equal ones the first."""
    order: list[int] = np.argsort(-cosines, kind="stable")[: max(how.top, how.candidates)].tolist()
    return order


def _sorted(matches: Iterable[Match]) -> list[Match]:
    return sorted(matches, key=lambda match: (-match.score, -match.similarity))


def _printout(names: Sequence[str], found: Sequence[Sequence[Match]], *, is_per_text: bool) -> Printout:
    width = max(map(_n_columns, names)) if len(names) > 1 else 0
    lines, answers = [], []
    for name, matches in zip(names, found, strict=True):
        for i, match in enumerate(matches):
            first = name if i == 0 else ""
            shown = first + " " * (width - _n_columns(first) + 3) if width else ""
            other = match.file if is_per_text else match.text
            lines.append(f"  {shown}{100 * match.score:5.1f} %   {match.similarity:6.3f}   {other}")
        records = [asdict(match) | {"token_ids": list(match.token_ids)} for match in matches]
        answers.append({"text" if is_per_text else "file": name, "matches": records})
    cut = {match.text: match.n_truncated for matches in found for match in matches}
    notes = truncations((f"the text '{text[:_SHOWN]}…'", n) for text, n in cut.items())
    return Printout(tuple(lines), {"task": "match", "answers": answers}, notes)


def _n_columns(text: str) -> int:
    """Return how wide a terminal shows a text: wide characters take two columns, marks none (UAX #11)."""
    return sum(
        0
        if unicodedata.category(char) in {"Cf", "Me", "Mn"}
        else 2
        if unicodedata.east_asian_width(char) in "FW"
        else 1
        for char in text
    )


def open_task(graphs: Graphs, settings: Mapping[str, Any], options: TaskOptions) -> Matcher:
    """Open the parts of a matcher."""
    checked = encoder_settings(settings, known_parts(graphs.parts), "match", _PARTS)
    return Matcher(graphs, checked, options)


def check_settings(settings: Mapping[str, Any], parts: Mapping[str, Signature]) -> None:
    """Check at build time what `open_task` will need.

    Raises:
        UsageError: A setting is wrong, or does not fit the parts.
    """
    encoder_settings(settings, parts, "match", _PARTS)
