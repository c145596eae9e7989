"""Options of a session, and sizes in words."""

from __future__ import annotations

import pytest

from anyport.errors import UsageError
from anyport.runtime import SessionOptions, size_from_text


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("0", 0),
        ("17", 17),
        ("17B", 17),
        ("512MB", 512_000_000),
        ("512 mb", 512_000_000),
        ("2GB", 2_000_000_000),
        ("1.5GiB", 1_610_612_736),
        ("1KiB", 1024),
    ],
)
def test_a_size_is_read(text: str, size_bytes: int) -> None:
    assert size_from_text(text) == size_bytes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lots", "'lots' is no size"),
        ("-1GB", "'-1GB' is no size"),
        ("", "'' is no size"),
        ("1e3", "'1e3' is no size"),
        ("3XB", "'XB' in '3XB' is no unit (known: 'GB', 'GiB', 'KB', 'KiB', 'MB', 'MiB')"),
        ("3GBB", "'GBB' in '3GBB' is no unit (did you mean 'GB'?)"),
    ],
)
def test_a_size_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        size_from_text(text)
    assert caught.value.what == message


def test_options_that_mean_nothing_are_refused() -> None:
    with pytest.raises(UsageError, match="n_threads is 0, it must be 1 or more"):
        SessionOptions(n_threads=0)
    with pytest.raises(UsageError, match="the memory limit is 0 bytes, it must be 1 or more"):
        SessionOptions(memory_limit_bytes=0)


def test_more_threads_than_a_machine_can_start_are_refused() -> None:
    with pytest.raises(UsageError, match=r"^n_threads is 100000, this machine has \d+ cores"):
        SessionOptions(n_threads=100_000)
