"""Text about what was seen: the cross keys, the text decoder and a search, put together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from anyport.errors import InputError, UsageError
from anyport.task.beam_search import write_beams
from anyport.task.decoding import DecoderState, Seen
from anyport.task.generation import (
    LENGTH_PENALTIES,
    REPETITION_PENALTIES,
    TEMPERATURES,
    Beams,
    Generation,
    Greedy,
    Sample,
    fill_left,
)
from anyport.task.part_forms import check_parts
from anyport.task.picture_settings import PictureSettings, check_pictures_fit
from anyport.task.stepwise import gather, write_stepwise
from anyport.task.task import settings_from
from anyport.task.texts import TextSettings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np

    from anyport.task.generation import Written
    from anyport.task.part_forms import OpenParts
    from anyport.task.stepwise import WrittenToken
    from anyport.task.texts import TextReader
    from anyport.tensors import Signature

PREFERRED_ROWS: Final = 8  # of the decoder: in a base BLIP the cross keys of 8 pictures take 340 MB

_AtLeastOne = Annotated[int, msgspec.Meta(ge=1)]
_Count = Annotated[int, msgspec.Meta(ge=0)]


class GenerationSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a bundle does where the user does not say.

    Attributes:
        prompt: The words that a caption begins with.
        max_new_tokens: Writing ends after so many tokens.
        min_new_tokens: And not before so many.
        beams: 1 takes the best token each time, more is beam search.
    """

    prompt: str = ""
    max_new_tokens: _AtLeastOne = 20
    min_new_tokens: _Count = 0
    beams: _AtLeastOne = 1

    @property
    def how(self) -> Generation:
        """Return them as `Generation`."""
        return Generation(
            Greedy() if self.beams == 1 else Beams(self.beams),
            max_new_tokens=self.max_new_tokens,
            min_new_tokens=self.min_new_tokens,
        )


class WriterSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The settings of a task that looks at pictures and writes."""

    picture: PictureSettings
    text: TextSettings
    generation: GenerationSettings = GenerationSettings()

    def check(self, decoder: Signature) -> None:
        """Refuse settings that contradict each other or the decoder.

        Raises:
            UsageError: Naming the setting.
        """
        self.picture.check()
        [logits] = [spec for spec in decoder.outputs if spec.name == "logits"]
        self.text.check(logits.axes[1].size({}) if logits.axes[1].is_fixed else None)
        if self.text.bos is None:
            raise UsageError("settings: text.bos is missing, the first token of a text that is written")
        if self.generation.how.max_new_tokens >= self.text.max_length:
            raise UsageError(
                f"settings: generation.max_new_tokens = {self.generation.max_new_tokens} and one "
                f"before them do not fit into text.max_length = {self.text.max_length}"
            )


def writer_settings(
    tree: Mapping[str, Any], parts: Mapping[str, Signature], task: str, wanted: Sequence[str]
) -> WriterSettings:
    """Read the settings of a task that writes, and check that they fit its parts.

    Raises:
        UsageError: A setting is wrong, or does not fit; a part is missing or of another form.
    """
    what = f"settings of the task '{task}'"
    settings = settings_from(tree, WriterSettings, what)
    check_parts(task, wanted, parts)
    settings.check(parts["text_decoder"])
    vision = parts["vision_encoder"]
    check_pictures_fit(settings.picture, vision.inputs[0], vision, what)
    return settings


def check_streamed(how: Generation) -> None:
    """Refuse beams where a text is shown while it is written.

    Raises:
        UsageError: With beams there is nothing to show before the end.
    """
    if isinstance(how.search, Beams):
        raise UsageError(
            f"beam search cannot be streamed: its text may change until the end, and {how.n_rows} beams are "
            "asked for",
            do="ask for one beam (--beams 1), or for the whole text",
        )


def _about(text: str, least: float | None = None, most: float | None = None) -> msgspec.Meta:
    return msgspec.Meta(ge=least, le=most, description=text)


class WritingOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The options of ``anyport run`` for every task that writes; those left out are the bundle's."""

    max_new_tokens: (
        Annotated[int, _about("End after so many tokens; as the bundle says by default.", 1)] | None
    ) = None
    min_new_tokens: Annotated[int, _about("Do not end before so many.", 0)] | None = None
    repetition_penalty: Annotated[
        float, _about("Above 1: do not repeat words, nor the prompt's.", *REPETITION_PENALTIES)
    ] = 1.0
    beams: (
        Annotated[int, _about("Follow so many texts at a time (beam search); 1 follows one.", 1)] | None
    ) = None
    length_penalty: (
        Annotated[float, _about("With --beams: above 0 favours long texts.", *LENGTH_PENALTIES)] | None
    ) = None
    sample: Annotated[bool, _about("Draw each token instead of taking the best.")] = False
    seed: Annotated[int, _about("With --sample: where the random numbers begin.", 0)] | None = None
    temperature: (
        Annotated[float, _about("With --sample: below 1 the probable becomes more so.", *TEMPERATURES)] | None
    ) = None
    top_k: (
        Annotated[int, _about("With --sample: draw from so many of the best tokens; 0: all.", 0)] | None
    ) = None
    top_p: (
        Annotated[
            float,
            msgspec.Meta(gt=0, le=1, description="With --sample: draw from the fewest that sum to this."),
        ]
        | None
    ) = None
    truncate: Annotated[bool, _about("Cut text that is too long for the model instead of refusing it.")] = (
        False
    )
    stream: Annotated[bool, _about("Show the text while it is written; one picture, not with --json.")] = (
        False
    )

    def how(self, bundle: Generation) -> Generation:
        """Return how to write, with the bundle's own choice where nothing is said.

        Raises:
            UsageError: An option has an impossible value, or no effect beside the others.
        """
        limits = {
            name: value
            for name in ("max_new_tokens", "min_new_tokens")
            if (value := getattr(self, name)) is not None
        }
        return replace(
            bundle, search=self._search(bundle), repetition_penalty=self.repetition_penalty, **limits
        )

    def _search(self, bundle: Generation) -> Greedy | Beams | Sample:
        drawing = self._said("seed", "temperature", "top_k", "top_p")
        if self.sample:
            if self.beams is not None and self.beams > 1:
                raise UsageError("--sample and --beams cannot go together", do="leave one of the two out")
            self._refuse(self._said("length_penalty"), "--beams")
            return replace(Sample(), **drawing)
        self._refuse(drawing, "--sample")
        n = bundle.n_rows if self.beams is None else self.beams
        if n == 1:
            self._refuse(self._said("length_penalty"), "--beams")
            return Greedy()
        return replace(Beams(n), **self._said("length_penalty"))

    def _said(self, *names: str) -> dict[str, Any]:
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def _refuse(self, said: dict[str, Any], wanted: str) -> None:
        for name in said:
            raise UsageError(f"--{name.replace('_', '-')} has no effect without {wanted}")


@dataclass(frozen=True, slots=True, eq=False)
class Sight:
    """What a text is written about: float32[rows, positions, width], and which positions count."""

    states: np.ndarray
    mask: np.ndarray


class TextWriter:
    """The parts ``cross_keys`` and ``text_decoder``."""

    def __init__(self, parts: OpenParts, settings: WriterSettings, reader: TextReader) -> None:
        self._cross_keys = parts.session("cross_keys")
        self._decoder = parts.session("text_decoder")
        self._signature = parts.signature("text_decoder")
        self._text, self._reader = settings.text, reader
        self._bos = settings.text.bos or 0
        self._max_rows = parts.max_rows("text_decoder", 1 << 30)

    def n_at_a_time(self, how: Generation) -> int:
        """Return how many texts go through the decoder at a time.

        Raises:
            UsageError: The decoder does not take as many rows as there are beams.
        """
        if how.n_rows > self._max_rows:
            raise UsageError(f"{how.n_rows} beams are asked for, the decoder takes {self._max_rows} rows")
        return max(1, min(PREFERRED_ROWS, self._max_rows) // how.n_rows)

    def begin(self, prompt: str, name: str, how: Generation, *, truncate: bool) -> list[int]:
        """Return the tokens that a text begins with.

        Raises:
            InputError: They and the new ones do not fit into the model.
        """
        room = self._text.max_length - 1 - how.max_new_tokens
        if room < 0:
            raise InputError(
                f"max_new_tokens is {how.max_new_tokens}, the model places {self._text.max_length} tokens, "
                "the first of them a mark",
                do=f"ask for {self._text.max_length - 1} or fewer",
            )
        found = self._reader.tokens(prompt, name, room, truncate=truncate, n_kept=how.max_new_tokens)
        return [self._bos, *found]

    def write(self, sight: Sight, prompts: Sequence[Sequence[int]], how: Generation) -> list[Written]:
        """Write one text for each row of what is seen.

        Raises:
            SessionError: The runtime failed, or the scores are not finite.
        """
        if isinstance(how.search, Beams):
            beginnings = fill_left(prompts, self._text.pad)
            return write_beams(self._state(sight), beginnings, how, self._text.sep)
        return gather(self.stream(sight, prompts, how), len(prompts))

    def stream(
        self, sight: Sight, prompts: Sequence[Sequence[int]], how: Generation
    ) -> Iterator[WrittenToken]:
        """Yield the tokens of every row as they are chosen.

        Raises:
            UsageError: With beams there is nothing to show before the end.
        """
        check_streamed(how)
        beginnings = fill_left(prompts, self._text.pad)
        return write_stepwise(self._state(sight), beginnings, how, self._text.sep)

    def _state(self, sight: Sight) -> DecoderState:
        keys = self._cross_keys.run({"encoder_hidden_states": sight.states})
        return DecoderState(self._decoder, self._signature, Seen(keys, sight.mask))
