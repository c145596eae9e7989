"""The words of ``anyport compress`` as the compress room takes them."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from anyport.cli.simplifying import SimplifyWords, equality_of
from anyport.cli.simplifying import checked as checked_file
from anyport.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anyport.compress.compressing import Check, CompressRequest
    from anyport.compress.samples import Samples
    from anyport.tensors import Signature
    from anyport.verify import UserMetric

_MAX_CASES: Final = 12  # they prove a level of fp32, not the compressed graph
_OPERATORS: Final = {"Conv": 1, "MatMul": 1}  # of no graph: the notation is read before the file is


@dataclass(frozen=True, slots=True)
class CompressWords:
    """What the user typed; ``None`` and empty tuples are absent."""

    model: Path
    out: Path
    method: str
    calibrate: str | None
    settings: tuple[str, ...]
    against: str | None
    evaluate: str | None
    max_drop: float | None
    prefer: Literal["size", "speed"] | None
    inputs: tuple[str, ...]
    dims: tuple[str, ...]
    max_cases: int | None
    seed: int | None
    force: bool
    as_json: bool


@dataclass(frozen=True, slots=True)
class _Given:
    """What a project in ``--against`` says, with the options laid over it.

    Attributes:
        samples: As `anyport.compress.samples.samples_from` reads it.
        samples_folder: What it is relative to.
        evaluate: ``file.py:function``, if there is one.
        evaluate_folder: What it is relative to.
        max_drop: Of that metric.
        settings: How pictures are read.
        task: Says what an output is for.
    """

    samples: str
    samples_folder: Path
    evaluate: str | None
    evaluate_folder: Path
    max_drop: float
    settings: Mapping[str, Any]
    task: str | None


def checked(words: CompressWords) -> CompressWords:
    """Refuse what cannot be done before anything is imported that takes long.

    Raises:
        InputError: There is no such file.
        MissingExtraError: The packages for .onnx files are not installed.
        UsageError: The output is the input, or the method is not understood.
    """
    checked_file(_file_words(words))
    from anyport.compress.methods import candidates

    candidates(words.method, _OPERATORS)
    if words.max_drop is not None and words.evaluate is None and words.against is None:
        raise UsageError("--max-drop is of your own metric", do="name it: --evaluate evaluate.py:accuracy")
    return words


def request_of(words: CompressWords) -> CompressRequest:
    """Plan what is tried and how it is judged; the original answers the samples here.

    Raises:
        UsageError: There is nothing to judge by, or a word is not understood.
    """
    from anyport.compress.compressing import CompressRequest
    from anyport.compress.gates import read_facts
    from anyport.compress.methods import candidates
    from anyport.compress.samples import divide, samples_from
    from anyport.tensors import Signature

    given = _given(words)
    equality = equality_of(_file_words(words))
    part = equality.part
    signature = Signature(part.inputs, part.outputs, part.dims)
    samples = samples_from(given.samples, signature, given.samples_folder, given.settings)
    methods = candidates(words.method, read_facts(words.model).operators)
    calibration, judging = divide(samples, signature, methods)
    check = _check(words, given, signature, judging)
    return CompressRequest(words.method, equality, check, calibration, words.prefer or "speed")


def _file_words(words: CompressWords) -> SimplifyWords:
    """Return the words that say what a file takes and what it is held against."""
    return SimplifyWords(
        words.model,
        words.out,
        tools=None,
        levels=None,
        memory_limit_bytes=None,
        timeout_s=None,
        against=words.against,
        inputs=words.inputs,
        dims=words.dims,
        max_cases=_MAX_CASES if words.max_cases is None else words.max_cases,
        seed=words.seed,
        force=words.force,
        as_json=words.as_json,
    )


def _given(words: CompressWords) -> _Given:
    description, folder = None, Path()
    if words.against is not None:
        from anyport.build import locate

        description, folder = locate(words.against)
    calibrate = description.calibrate if description else None
    evaluate = description.evaluate if description else None
    samples = words.calibrate or (calibrate.samples if calibrate else None)
    if samples is None:
        raise UsageError(
            "there are no samples to calibrate with and to judge by",
            do="--calibrate pictures/, --calibrate calibrate.py:samples, or --calibrate random",
        )
    max_drop = words.max_drop if words.max_drop is not None else (evaluate.max_drop if evaluate else 0.005)
    return _Given(
        samples,
        Path() if words.calibrate else folder,
        words.evaluate or (evaluate.function if evaluate else None),
        Path() if words.evaluate else folder,
        max_drop,
        _settings(words, description.settings if description else {}),
        description.model.task if description else None,
    )


def _settings(words: CompressWords, written: Mapping[str, Any]) -> dict[str, Any]:
    from anyport.compress.samples import check_words
    from anyport.tensors import pairs

    if words.against is None:  # a project's task may have settings that pictures have not
        check_words(pairs(words.settings, "--set"))
    return dict(written) | {name: _value(text) for name, text in pairs(words.settings, "--set").items()}


def _value(text: str) -> Any:  # noqa: ANN401 -- whatever TOML can say
    """Read a setting as anyport.toml has it; what is no TOML is plain text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _check(words: CompressWords, given: _Given, signature: Signature, judging: Samples) -> Check:
    """Let the original answer the samples; return what judges a candidate by that."""
    from anyport.compress.judging import judge_by
    from anyport.verify import choose_metrics

    metrics = choose_metrics(given.task, signature.outputs)
    return judge_by((words.model, "none"), judging, signature, metrics, _user_metric(given))


def _user_metric(given: _Given) -> UserMetric | None:
    if given.evaluate is None:
        return None
    from anyport.source import load_value
    from anyport.verify import UserMetric

    return UserMetric(given.evaluate, load_value(given.evaluate, given.evaluate_folder), given.max_drop)
