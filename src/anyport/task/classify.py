"""The task ``classify``: pictures in, labels and probabilities out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self

import msgspec
import numpy as np

from anyport.errors import SessionError, UsageError, did_you_mean
from anyport.task.batches import plan_batches
from anyport.task.part_forms import OpenParts
from anyport.task.picture_settings import (
    PictureSettings,
    check_pictures_fit,
    fitted_pictures,
    pixel_values,
)
from anyport.task.task import Printout, TaskOptions, settings_from

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from anyport.runtime import Session
    from anyport.task.graphs import Graphs
    from anyport.task.pictures import Picture
    from anyport.tensors import Signature, TensorSpec

Activation = Literal["none", "sigmoid", "softmax"]

_WHAT: Final = "settings of the task 'classify'"
_N_PICTURE_AXES: Final = 4  # batch, channels, height, width
_N_SCORE_AXES: Final = 2  # batch, labels


class ClassifySettings(PictureSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The settings of the task ``classify``: those of `PictureSettings`, and two more.

    Attributes:
        labels: One for each score of the model, in its order.
        activation: What turns the model's scores into probabilities; ``none`` shows them as they are.
    """

    labels: list[str]
    activation: Activation = "softmax"


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The options of ``anyport run`` for this task."""

    top: Annotated[int, msgspec.Meta(ge=1, description="How many labels to show for each picture.")] = 1


@dataclass(frozen=True, slots=True)
class Label:
    """One label and its probability (its score, where the activation is ``none``)."""

    label: str
    probability: float


@dataclass(frozen=True, slots=True, eq=False)
class Classification:
    """What the model sees in one picture.

    Attributes:
        top: The most probable labels, the best first; of equal ones the first in the model's order.
        scores: float64[labels], the probability of each label in the model's order.
    """

    top: tuple[Label, ...]
    scores: np.ndarray

    @property
    def label(self) -> str:
        """The most probable label."""
        return self.top[0].label

    @property
    def probability(self) -> float:
        """The probability of the most probable label."""
        return self.top[0].probability


class Classifier:
    """A bundle that classifies pictures; a context manager.

    Attributes:
        session: The graph itself, for arrays that were prepared elsewhere.
        settings: How pictures are prepared, and the labels.
    """

    def __init__(self, graphs: Graphs, settings: ClassifySettings, options: TaskOptions) -> None:
        part, signature = next(iter(_known(graphs.parts).items()))
        self._parts = OpenParts(graphs, [part], options)
        self.session: Session = self._parts.session(part)
        self.settings = settings
        self._progress = options.progress
        self._input = picture_input(signature.inputs)
        self._output = score_output(signature.outputs)
        self._batch_sizes = signature.dims.get(self._input.axes[0].text)
        self._activate = _ACTIVATIONS[settings.activation]

    def __enter__(self) -> Self:
        """Return the task itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Give back the session and the bundle; a second call does nothing."""
        self._parts.close()

    def classify(self, pictures: Sequence[Picture], top: int = 5) -> list[Classification]:
        """Classify pictures.

        Every picture is read and checked before anything is computed; 224 x 224 pixels take 150 kB each
        until then.

        Args:
            pictures: Paths, bytes, Pillow images or numpy arrays, any number of them.
            top: How many labels to return for each.

        Returns:
            One for each picture, in their order.

        Raises:
            InputError: Naming the picture that cannot be read.
            SessionError: The runtime failed, or the model's scores are not finite.
        """
        if top < 1:
            raise UsageError(f"top is {top}, it must be 1 or more")
        fitted = fitted_pictures(pictures, self.settings, "classify", self._progress)
        rows = [row for batch in self._batches([one.pixels for one in fitted]) for row in batch]
        return [self._classification(row, one.name, top) for row, one in zip(rows, fitted, strict=True)]

    def logits(self, pixel_values: np.ndarray) -> np.ndarray:
        """Run the network alone.

        Args:
            pixel_values: float32[batch, channels, height, width], prepared as the settings say.

        Returns:
            float32[batch, labels], before the activation.

        Raises:
            InputError: The type or the shape does not fit.
        """
        return self.session.run({self._input.name: pixel_values})[self._output.name]

    def answer(self, words: Sequence[str], options: Mapping[str, Any]) -> Printout:
        """Classify the files that a command line names; see `anyport.task.task.Task`."""
        chosen = settings_from(options, Options, "options of the task 'classify'")
        if not words:
            raise UsageError("no picture is given", do="anyport run BUNDLE PICTURE…")
        return _printout(words, self.classify(list(words), chosen.top), self.settings.activation)

    def _batches(self, pixels: Sequence[np.ndarray]) -> Iterable[np.ndarray]:
        for batch in plan_batches(len(pixels), self._input.axes[0], self._batch_sizes):
            chosen = pixels[batch.start : batch.stop]
            filled = [*chosen, *[chosen[-1]] * batch.n_filling]
            yield self.logits(pixel_values(filled, self.settings, self._input.dtype))[: len(chosen)]
            self._progress("pictures classified", batch.stop, len(pixels))

    def _classification(self, logits: np.ndarray, name: str, top: int) -> Classification:
        if not np.isfinite(logits).all():
            raise SessionError(f"the model's scores for {name} are not finite")
        scores = self._activate(logits.astype(np.float64))
        best = np.argsort(-scores, kind="stable")[:top]
        labels = self.settings.labels
        return Classification(tuple(Label(labels[i], float(scores[i])) for i in best), scores)


def open_task(graphs: Graphs, settings: Mapping[str, Any], options: TaskOptions) -> Classifier:
    """Open the one part of a classifier."""
    return Classifier(graphs, _checked(settings, _known(graphs.parts)), options)


def check_settings(settings: Mapping[str, Any], parts: Mapping[str, Signature]) -> None:
    """Check at build time what `open_task` will need.

    Raises:
        UsageError: A setting is wrong, or does not fit the part.
    """
    _checked(settings, parts)


def _known(parts: Mapping[str, Signature | None]) -> dict[str, Signature]:
    return {name: part for name, part in parts.items() if part is not None}


def _checked(tree: Mapping[str, Any], parts: Mapping[str, Signature]) -> ClassifySettings:
    settings = settings_from(tree, ClassifySettings, _WHAT)
    settings.check()
    if len(parts) != 1:
        raise UsageError(f"the task 'classify' has one part, the model has {len(parts)}: {', '.join(parts)}")
    signature = next(iter(parts.values()))
    sizes = {name: spread.low for name, spread in signature.dims.items()}
    n_scores = score_output(signature.outputs).shape(sizes)[1]
    if n_scores != len(settings.labels):
        n_labels = len(settings.labels)
        raise UsageError(f"{_WHAT}: there are {n_labels} labels, the model gives {n_scores} scores")
    check_pictures_fit(settings, picture_input(signature.inputs), signature, _WHAT)
    return settings


def picture_input(inputs: Sequence[TensorSpec]) -> TensorSpec:
    """Return the input that takes the pictures: float[batch, channels, height, width].

    Raises:
        UsageError: There is another number of inputs, or it has another form.
    """
    if len(inputs) != 1 or len(inputs[0].axes) != _N_PICTURE_AXES or not inputs[0].is_float:
        listed = ", ".join(f"'{spec.name}' {spec}" for spec in inputs)
        raise UsageError(
            "the task 'classify' needs one input float32[batch, channels, height, width], "
            f"the model has {listed}"
        )
    return inputs[0]


def score_output(outputs: Sequence[TensorSpec]) -> TensorSpec:
    """Return the output with the scores: the only one, or ``logits``.

    Raises:
        UsageError: It is missing, or not float[batch, labels].
    """
    by_name = {spec.name: spec for spec in outputs}
    name = outputs[0].name if len(outputs) == 1 else "logits"
    if name not in by_name:
        raise UsageError(f"the task 'classify' needs an output 'logits'{did_you_mean(name, by_name)}")
    if len(by_name[name].axes) != _N_SCORE_AXES or not by_name[name].is_float:
        raise UsageError(
            f"the task 'classify' needs an output float32[batch, labels], '{name}' is {by_name[name]}"
        )
    return by_name[name]


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max())
    result: np.ndarray = powers / powers.sum()
    return result


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    # exp of a negative number only, so that nothing overflows
    small = np.exp(-np.abs(logits))
    result: np.ndarray = np.where(logits >= 0, 1.0, small) / (1.0 + small)
    return result


_ACTIVATIONS: Final[dict[str, Callable[[np.ndarray], np.ndarray]]] = {
    "none": lambda logits: logits,
    "sigmoid": _sigmoid,
    "softmax": _softmax,
}


def _printout(names: Sequence[str], found: Sequence[Classification], activation: Activation) -> Printout:
    name_width = max(map(len, names)) if len(names) > 1 else 0
    label_width = max(len(label.label) for one in found for label in one.top)
    lines = []
    for name, one in zip(names, found, strict=True):
        for i, label in enumerate(one.top):
            shown = f"{name if i == 0 else '':<{name_width}}   " if name_width else ""
            lines.append(f"  {shown}{label.label:<{label_width}}   {_number(label.probability, activation)}")
    answers = [
        {"input": name, "top": [msgspec.to_builtins(label) for label in one.top]}
        for name, one in zip(names, found, strict=True)
    ]
    return Printout(tuple(lines), {"task": "classify", "activation": activation, "answers": answers})


def _number(value: float, activation: Activation) -> str:
    return f"{value:.4g}" if activation == "none" else f"{100 * value:.1f} %"
