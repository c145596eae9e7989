from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from anyport.compress.methods import Int8Dynamic, Int8Static
from anyport.compress.weights import WeightForm, quantized, weight_form, weight_scales

FORMS = {
    "s8": Int8Static(),
    "u8": Int8Static("u8", "u8"),
    "s8 in 7 bits": Int8Dynamic(reduce_range=True),
    "u8 in 7 bits": Int8Dynamic("u8", reduce_range=True),
    "one scale": Int8Dynamic(per_channel=False),
}


def example() -> np.ndarray:
    array = np.random.default_rng(0).normal(0, 1, (5, 7, 3)).astype(np.float32)
    array[2] *= 100
    array[:, 4] = 0
    return array


@pytest.mark.parametrize("method", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("axis", [0, 1])
def test_no_number_is_off_by_more_than_half_a_step(method: Int8Dynamic | Int8Static, axis: int) -> None:
    array, form = example(), weight_form(method)
    scales = weight_scales(array, axis, form)
    numbers = quantized(array, scales, axis, form)
    assert scales.shape == ((array.shape[axis],) if form.per_channel else ())
    assert numbers.dtype == (np.uint8 if form.dtype == ir.DataType.UINT8 else np.int8)
    centred = numbers.astype(np.int64) - form.offset
    assert np.abs(centred).max() == form.limit
    shape = [1, 1, 1]
    shape[axis] = -1
    steps = scales.reshape(shape) if scales.ndim else scales
    assert (np.abs(centred * steps - array) <= steps * 0.501).all()


def test_a_channel_of_zeros_has_the_scale_one() -> None:
    form = weight_form(Int8Static())
    assert weight_scales(example(), 1, form)[4] == 1.0
    assert (quantized(example(), weight_scales(example(), 1, form), 1, form)[:, 4] == 0).all()


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    array, form = example(), WeightForm(ir.DataType.INT8, 127, 0, per_channel=True)
    whole = [quantized(array, weight_scales(array, axis, form), axis, form) for axis in (0, 1)]
    monkeypatch.setattr("anyport.compress.weights._BLOCK_BYTES", 100)
    parts = [quantized(array, weight_scales(array, axis, form), axis, form) for axis in (0, 1)]
    assert all((a == b).all() for a, b in zip(whole, parts, strict=True))
