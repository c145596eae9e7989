from __future__ import annotations

import click
import pytest

from anyport.cli.benching import NumbersType, SizesType, report_writer, settings_from


def test_numbers_are_read() -> None:
    assert NumbersType().convert("1, 2,16", None, None) == (1, 2, 16)
    assert NumbersType().convert((1, 2), None, None) == (1, 2)


@pytest.mark.parametrize("text", ["", "1,", "a", "-1", "1.5", "²"])
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is no list of numbers: write 1,2"):
        NumbersType().convert(text, None, None)


def test_sizes_are_read() -> None:
    assert SizesType().convert("batch=8, sequence = 128", None, None) == {"batch": 8, "sequence": 128}
    assert SizesType().convert({"batch": 1}, None, None) == {"batch": 1}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("batch", "'batch' is no size: write batch=8,sequence=128"),
        ("batch=x", "'batch=x' is no size"),
        ("=3", "'=3' is no size"),
        ("batch=1,batch=2", "'batch' comes twice"),
    ],
)
def test_what_is_no_size_is_refused(text: str, said: str) -> None:
    with pytest.raises(click.BadParameter) as caught:
        SizesType().convert(text, None, None)
    assert said in caught.value.message


def test_absent_words_keep_their_defaults() -> None:
    settings = settings_from({"threads": (2,), "batches": None, "seconds": None, "seed": 5})
    assert (settings.threads, settings.batches, settings.budget_s, settings.seed) == ((2,), None, 10.0, 5)


def test_without_an_output_nothing_is_written() -> None:
    assert report_writer(None, force=False)(None) is None
