from __future__ import annotations

import numpy as np
import pytest
import torch

from anyport.graph.tensorbits import array_of


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.int64, torch.bool])
def test_the_array_has_the_values_of_the_tensor(dtype: torch.dtype) -> None:
    tensor = torch.arange(6).reshape(2, 3).to(dtype).T
    assert np.array_equal(array_of(tensor), tensor.numpy())


def test_bfloat16_keeps_its_bits() -> None:
    tensor = torch.tensor([1.0, -2.5, float("inf")], dtype=torch.bfloat16)
    assert array_of(tensor).tolist() == [0x3F80, 0xC020, 0x7F80]
