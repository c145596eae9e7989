"""The digits example, fine-tuned for a moment: other weights, and an accuracy of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import nn

from anyport.source import load_value
from tests.house import tree

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np

DIGITS = tree.ROOT / "examples" / "digits"


def finetune(path: Path, n_steps: int = 25) -> nn.Module:
    """Train the example's network on, at a rate that costs accuracy, and save its weights."""
    torch.manual_seed(0)
    model: nn.Module = load_value("model.py:load", DIGITS)()
    pictures: Any = load_value("pictures.py:split", DIGITS)()[0]
    optimizer = torch.optim.SGD(model.train().parameters(), lr=0.5)
    for step in range(n_steps):
        rows = slice(step * 32, step * 32 + 32)
        scores = model(torch.from_numpy(pictures.pixel_values[rows]))
        loss = nn.functional.cross_entropy(scores, torch.from_numpy(pictures.labels[rows]))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    save_file(model.eval().state_dict(), path)
    return model


def accuracy(run: Callable[[np.ndarray], np.ndarray]) -> float:
    """Return the top-1 accuracy on the held-out pictures."""
    held_out: Any = load_value("pictures.py:split", DIGITS)()[1]
    starts = range(0, len(held_out.labels), 64)
    found = [run(held_out.pixel_values[start : start + 64]).argmax(1) for start in starts]
    right = sum(
        int((labels == held_out.labels[start : start + 64]).sum())
        for labels, start in zip(found, starts, strict=True)
    )
    return right / len(held_out.labels)
