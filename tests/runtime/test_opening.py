"""The table of runtimes."""

from __future__ import annotations

from pathlib import Path

import pytest

from anyport.errors import UsageError
from anyport.runtime import RUNTIMES, open_session


def test_the_table_is_sorted() -> None:
    assert list(RUNTIMES) == sorted(RUNTIMES)


def test_an_unknown_runtime_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        open_session(Path("a.onnx"), runtime="onxruntime")
    assert caught.value.what == "there is no runtime 'onxruntime' (did you mean 'onnxruntime'?)"
