"""The trials of the tasks that write, ``caption`` and ``answer``: the choice at each step of the exact text.

The exact tokens are forced: a candidate is asked, at each step, what it would write after the exact words so
far. Written freely, one early different word would make all later ones different, and count for all of them.
Where every choice is the exact one, the text that is written freely is the same.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from anyport.task.decoding import DecoderState, Seen
from anyport.task.generation import Greedy, check_logits, fill_left, next_scores
from anyport.task.part_forms import OpenParts, known_parts
from anyport.task.picture_settings import FittedPicture
from anyport.task.task import TaskOptions
from anyport.task.text_writer import Sight, TextWriter, writer_settings
from anyport.task.texts import TextReader, fill_right
from anyport.task.trials import (
    PICTURE,
    TEXTS,
    TOKENS,
    WRITTEN,
    check_tokens,
    least_margin,
    picture_spec,
    text_spec,
    tokens_of,
    unfilled,
    vocabulary_of,
    words_dim,
)
from anyport.task.vision import VisionEncoder
from anyport.tensors import Signature, dim, tensor

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from anyport.task.graphs import Graphs
    from anyport.task.picture_settings import PictureSettings
    from anyport.task.text_writer import WriterSettings
    from anyport.tensors import TensorSpec

_PARTS: Final[Mapping[str, tuple[str, ...]]] = {
    "answer": ("vision_encoder", "question_encoder", "cross_keys", "text_decoder"),
    "caption": ("vision_encoder", "cross_keys", "text_decoder"),
}
_QUESTIONS: Final = "question_encoder"


class WritingTrial:
    """See `anyport.task.trials.Trial`.

    Attributes:
        signature: ``picture``, for ``answer`` ``texts``, and ``written``: int64[1, steps], the exact tokens;
            out come ``tokens``: int64[1, steps], those that would be chosen.
        settings: How pictures are fitted.
        parts: The parts that the task runs.
    """

    def __init__(self, graphs: Graphs, task: str) -> None:
        settings = writer_settings(graphs.settings, known_parts(graphs.parts), task, _PARTS[task])
        self.settings: PictureSettings = settings.picture
        self._reader = TextReader(graphs, settings.text, f"the task '{task}'")
        self.parts = _PARTS[task]
        self._parts = OpenParts(graphs, self.parts, TaskOptions())
        self._vision = VisionEncoder(self._parts, settings.picture)
        self._writer = TextWriter(self._parts, settings, self._reader)
        self._text = settings.text
        self._how = replace(settings.generation.how, search=Greedy())
        prompt = settings.generation.prompt if task == "caption" else ""
        self._begun = self._writer.begin(prompt, "the prompt", self._how, truncate=False)
        self.signature = _signature(self._parts, settings, len(self._begun))

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The tensors that `run` takes."""
        return self.signature.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The tensors that `run` gives."""
        return self.signature.outputs

    def prepare(self, pixels: np.ndarray, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Make a sample: the text is written here, token by token."""
        feeds = {PICTURE: pixels[None]}
        if _QUESTIONS in self._parts:
            feeds[TEXTS] = tokens_of(texts, self._reader, self._text)
        [written] = self._writer.write(self._sight(feeds), [self._begun], self._how)
        return feeds | {WRITTEN: np.array([written.tokens], np.int64)}

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the token that is chosen after each beginning of the exact text."""
        chosen = [scores.argmax(axis=1) for _, scores in self._steps(feeds)]
        return {TOKENS: np.stack(chosen, axis=1).astype(np.int64, copy=False)}

    def margin(self, feeds: Mapping[str, np.ndarray]) -> float:
        """Return the closest that the two best tokens come, as a share of the largest score."""
        return min(least_margin(scores, float(np.abs(logits).max())) for logits, scores in self._steps(feeds))

    def close(self) -> None:
        """Do nothing: the sessions belong to who gave them."""

    def _steps(self, feeds: Mapping[str, np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the decoder's logits after each beginning of the exact text, and the scores they become."""
        check_tokens(feeds, self.inputs)
        sight, written = self._sight(feeds), feeds[WRITTEN]
        keys = self._parts.session("cross_keys").run({"encoder_hidden_states": sight.states})
        signature = self._parts.signature("text_decoder")
        state = DecoderState(self._parts.session("text_decoder"), signature, Seen(keys, sight.mask))
        beginning = fill_left([self._begun], self._text.pad)
        history, new = beginning.history, beginning.tokens
        for n_new in range(written.shape[1]):
            logits = check_logits(state.read(new))
            yield logits, next_scores(logits, history, self._how, self._text.sep, n_new)
            new = written[:, n_new : n_new + 1]
            history = np.concatenate([history, new], axis=1)

    def _sight(self, feeds: Mapping[str, np.ndarray]) -> Sight:
        states = self._vision.encode([FittedPicture("the picture", feeds[PICTURE][0])])
        if _QUESTIONS not in self._parts:
            return Sight(states, np.ones(states.shape[:2], np.int64))
        inside = unfilled(feeds[TEXTS][0, 0], self._text.pad)
        tokens, mask = fill_right([[self._text.multimodal_start, *inside, self._text.sep]], self._text.pad)
        asked = {"input_ids": tokens, "attention_mask": mask, "image_embeds": states}
        return Sight(self._parts.session(_QUESTIONS).run(asked)["question_embeds"], mask)


def _signature(parts: OpenParts, settings: WriterSettings, n_begun: int) -> Signature:
    n = vocabulary_of(parts.signature("text_decoder"), "text_decoder")
    most = settings.text.max_length - n_begun + 1  # the last token is chosen, and not read
    dims = {"steps": dim("steps", f"1..{most}")}
    inputs = [picture_spec(settings.picture)]
    if _QUESTIONS in parts:
        spec, more = text_spec(vocabulary_of(parts.signature(_QUESTIONS), _QUESTIONS))
        inputs.append(spec)
        dims |= more | {"words": words_dim(settings.text)}
    inputs.append(tensor(WRITTEN, f"int64[1, steps] 0..{n - 1}"))
    return Signature(tuple(inputs), (tensor(TOKENS, "int64[1, steps]"),), dims)


def open_trial(graphs: Graphs) -> WritingTrial:
    """Open the trial of graphs that write."""
    return WritingTrial(graphs, graphs.task or "")
