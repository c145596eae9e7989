"""`Session` is a protocol: what each runtime gives, and what `verify` asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from anyport.runtime import Session, open_session
from tests.runtime import networks

if TYPE_CHECKING:
    from pathlib import Path


def test_onnxruntime_gives_a_session(tmp_path: Path) -> None:
    assert isinstance(open_session(networks.affine(tmp_path / "a.onnx")), Session)


def test_a_session_keeps_no_state(tmp_path: Path) -> None:
    session = open_session(networks.affine(tmp_path / "a.onnx"))
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    first = session.run({"x": x})["y"]
    session.run({"x": x + 5})
    np.testing.assert_array_equal(session.run({"x": x})["y"], first)
    np.testing.assert_array_equal(x, np.arange(6).reshape(2, 3))


def test_what_run_returns_belongs_to_the_caller(tmp_path: Path) -> None:
    session = open_session(networks.affine(tmp_path / "a.onnx"))
    x = np.zeros((1, 3), np.float32)
    first = session.run({"x": x})["y"]
    first[:] = 9
    np.testing.assert_array_equal(session.run({"x": x})["y"], np.ones((1, 3)))
