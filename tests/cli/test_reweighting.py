from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from anyport.cli.reweighting import ReweightWords, settings_of
from anyport.errors import MissingExtraError, UsageError

WORDS = ReweightWords(
    bundle=Path("a.port"),
    checkpoint=Path("w.safetensors"),
    out=Path("b.port"),
    against=None,
    version="1.2.3",
    max_cases=None,
    seed=None,
    libraries=(),
    force=True,
    as_json=False,
)


def test_what_is_absent_keeps_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    found = settings_of(WORDS)
    assert (found.version, found.seed, found.max_cases, found.force) == ("1.2.3", 0, 40, True)
    assert (found.against, found.source_date_epoch) == (None, 1_700_000_000)


def test_without_the_packages_for_onnx_files_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr("anyport.errors.import_module", missing)
    with pytest.raises(MissingExtraError) as caught:
        settings_of(WORDS)
    assert caught.value.what == "swapping weights needs the package 'onnx', which is not installed"


@pytest.mark.parametrize(
    ("word", "value", "option"),
    [("seed", 5, "--seed"), ("max_cases", 3, "--max-cases"), ("libraries", (Path("a.so"),), "--library")],
)
def test_how_to_prove_needs_something_to_prove_it_with(word: str, value: object, option: str) -> None:
    with pytest.raises(UsageError) as caught:
        settings_of(replace(WORDS, **{word: value}))  # type: ignore[arg-type]
    assert caught.value.what == f"{option} says how to prove the new weights, and nothing proves them"
