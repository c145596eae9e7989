"""The options of writing, and the settings of a bundle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from anyport.errors import UsageError
from anyport.task import TaskOptions, settings_from
from anyport.task.generation import Beams, Generation, Greedy, Sample
from anyport.task.part_forms import OpenParts
from anyport.task.text_writer import (
    GenerationSettings,
    Sight,
    TextWriter,
    WriterSettings,
    WritingOptions,
)
from anyport.task.texts import TextReader
from tests.task import blip


def how(bundle: Generation | None = None, **words: Any) -> Generation:
    return settings_from(words, WritingOptions, "options").how(bundle or Generation())


def writer() -> TextWriter:
    graphs = blip.graphs("caption")
    settings = settings_from(graphs.settings, WriterSettings, "settings")
    parts = OpenParts(graphs, blip.MODELS["caption"][1], TaskOptions())
    return TextWriter(parts, settings, TextReader(graphs, settings.text, "the task"))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({}, Generation()),
        ({"beams": 1}, Generation()),
        ({"beams": 4, "length_penalty": 0.5}, Generation(Beams(4, 0.5))),
        ({"sample": True}, Generation(Sample())),
        (
            {"sample": True, "seed": 3, "temperature": 0.5, "top_k": 0, "top_p": 0.9},
            Generation(Sample(3, 0.5, 0, 0.9)),
        ),
        (
            {"max_new_tokens": 9, "min_new_tokens": 2, "repetition_penalty": 1.2},
            Generation(max_new_tokens=9, min_new_tokens=2, repetition_penalty=1.2),
        ),
    ],
)
def test_options_become_settings(words: dict[str, Any], expected: Generation) -> None:
    assert how(**words) == expected


def test_what_is_not_said_is_the_bundle_s() -> None:
    bundle = GenerationSettings(max_new_tokens=9, min_new_tokens=1, beams=3).how
    assert bundle == Generation(Beams(3), max_new_tokens=9, min_new_tokens=1)
    assert how(bundle) == bundle
    assert how(bundle, length_penalty=2.0).search == Beams(3, 2.0)
    assert how(bundle, beams=1).search == Greedy()
    assert how(bundle, sample=True, seed=1).search == Sample(1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"seed": 3}, "--seed has no effect without --sample"),
        ({"top_p": 0.5, "beams": 3}, "--top-p has no effect without --sample"),
        ({"length_penalty": 2.0}, "--length-penalty has no effect without --beams"),
        ({"length_penalty": 2.0, "sample": True}, "--length-penalty has no effect without --beams"),
        ({"sample": True, "beams": 3}, "--sample and --beams cannot go together"),
        ({"beams": 0}, "options: 'beams': expected 'int' >= 1"),
        ({"max_new_tokens": 0}, "options: 'max_new_tokens': expected 'int' >= 1"),
        ({"min_new_tokens": 21}, "min_new_tokens is 21, it must be 0 to max_new_tokens, which is 20"),
        ({"sample": True, "temperature": 1e-300}, "options: 'temperature': expected 'float' >= 1e-06"),
        ({"sample": True, "temperature": 1e39}, "options: 'temperature': expected 'float' <= 1000000.0"),
        ({"beams": 2, "length_penalty": 400.0}, "options: 'length_penalty': expected 'float' <= 10.0"),
        ({"repetition_penalty": 1e-300}, "options: 'repetition_penalty': expected 'float' >= 0.01"),
        ({"sample": True, "top_p": 0.0}, "options: 'top_p': expected 'float' > 0.0"),
    ],
)
def test_options_without_effect_are_refused(words: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        how(**words)
    assert caught.value.what == message


def test_no_more_rows_than_the_decoder_takes() -> None:
    one = writer()
    assert [one.n_at_a_time(Generation(Beams(n))) for n in (2, 3, 8, 64)] == [4, 2, 1, 1]
    assert one.n_at_a_time(Generation()) == 8
    with pytest.raises(UsageError, match="65 beams are asked for, the decoder takes 64 rows"):
        one.n_at_a_time(Generation(Beams(65)))


def test_beams_are_not_streamed() -> None:
    sight = Sight(
        np.zeros((1, blip.N_PATCHES, blip.WIDTH), np.float32), np.ones((1, blip.N_PATCHES), np.int64)
    )
    with pytest.raises(UsageError, match="beam search cannot be streamed"):
        writer().stream(sight, [[blip.BOS]], Generation(Beams(2)))
    [greedy] = writer().write(sight, [[blip.BOS]], Generation())
    assert [one.token for one in writer().stream(sight, [[blip.BOS]], Generation())] == list(greedy.tokens)
