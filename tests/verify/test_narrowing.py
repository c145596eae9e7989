"""Arrays are stored as narrow as they can be without harm."""

from __future__ import annotations

import numpy as np
import pytest

from anyport.tensors import tensor
from anyport.verify.narrowing import Widened, narrow
from tests.verify.fakes import f32

PIXELS = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)


@pytest.mark.parametrize(
    ("array", "dtype"),
    [
        (PIXELS, "float16"),
        (PIXELS * 1e-3, "float16"),
        (PIXELS * 1e-7, "float32"),  # below float16's least normal number
        (PIXELS * 1e6, "float32"),  # beyond its largest
        (PIXELS + 1000, "float32"),  # rounding would drown the variation
        (f32([999.0, 999.0]), "float32"),  # a time step, say
        (f32([]), "float32"),
        (f32([[0.5, -np.inf, 2.0]]), "float16"),
        (PIXELS.astype(np.float64), "float64"),
        (np.int64([0, 255]), "uint8"),
        (np.int64([-1, 100]), "int8"),
        (np.int64([0, 30521]), "int16"),
        (np.int64([0, 2**31 - 1]), "int32"),
        (np.int64([0, 2**31]), "int64"),
        (np.int8([1]), "int8"),
        (np.uint8([1]), "uint8"),
        (np.array([True]), "bool"),
    ],
)
def test_the_type_that_is_kept(array: np.ndarray, dtype: str) -> None:
    kept = narrow(array)
    assert kept.dtype == dtype
    back = kept.astype(array.dtype)
    if array.dtype.kind == "f":
        np.testing.assert_allclose(back, array, rtol=1e-3, atol=1e-6)
    else:
        np.testing.assert_array_equal(back, array)


def test_arrays_come_back_in_the_type_of_the_tensor() -> None:
    stored = {"a/ids": np.uint8([1, 2]), "a/x": np.float16([0.5])}
    specs = [tensor("ids", "int64[n]"), tensor("x", "float32[m]")]
    found = Widened(stored, {"ids": "a/ids", "x": "a/x"}, specs)
    assert {name: str(array.dtype) for name, array in found.items()} == {"ids": "int64", "x": "float32"}
    assert len(found) == 2
    assert found.stored("ids") is stored["a/ids"]
