from __future__ import annotations

from pathlib import Path

import pytest

from anyport.cli.reweighting import ReweightWords, settings_of
from anyport.errors import MissingExtraError

WORDS = ReweightWords(
    bundle=Path("a.port"),
    checkpoint=Path("w.safetensors"),
    out=Path("b.port"),
    against=None,
    version="1.2.3",
    max_cases=None,
    seed=5,
    libraries=(),
    force=True,
    as_json=False,
)


def test_what_is_absent_keeps_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    found = settings_of(WORDS)
    assert (found.version, found.seed, found.max_cases, found.force) == ("1.2.3", 5, 40, True)
    assert (found.against, found.source_date_epoch) == (None, 1_700_000_000)


def test_without_the_packages_for_onnx_files_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr("anyport.errors.import_module", missing)
    with pytest.raises(MissingExtraError) as caught:
        settings_of(WORDS)
    assert caught.value.what == "swapping weights needs the package 'onnx', which is not installed"
