"""Train DigitsNet and write its weights beside this file: `python examples/digits/train.py`.

With `--folds 5` nothing is written: the plan is judged by cross-validation inside the training
pictures instead. That is how the plan below was chosen; the held-out pictures had no say in it.
"""

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from model import WEIGHTS, DigitsNet
from pictures import MEAN, STD, Pictures, split
from safetensors.torch import save_file
from sklearn.model_selection import StratifiedKFold
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Plan:
    """What one training does; every default is what `weights.safetensors` was made with.

    Attributes:
        n_epochs: Passes over the training pictures.
        batch_size: Pictures per step.
        learning_rate: Peak of the one-cycle schedule (Smith 2018, arXiv:1803.09820).
        weight_decay: Decoupled decay per step, times the learning rate (AdamW).
        max_shift_px: Furthest random shift of a training picture, along each axis.
        max_turn_deg: Furthest random rotation of a training picture, either way.
        max_zoom: Furthest relative change of size, either way.
        seed: Seeds the first weights, the order of the pictures and the augmentation.
    """

    n_epochs: int = 90
    batch_size: int = 64
    learning_rate: float = 5e-3
    weight_decay: float = 2e-2
    max_shift_px: float = 1.0
    max_turn_deg: float = 10.0
    max_zoom: float = 0.1
    seed: int = 0


def train(pictures: Pictures, plan: Plan) -> DigitsNet:
    """Train a fresh network; the same inputs give the same weights on the same machine.

    Args:
        pictures: What to learn from.
        plan: How.

    Returns:
        The network in eval mode. Takes about a minute for 1437 pictures on one core.
    """
    torch.manual_seed(plan.seed)
    model = DigitsNet().train()
    n_steps = plan.n_epochs * math.ceil(len(pictures.labels) / plan.batch_size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=plan.learning_rate, weight_decay=plan.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, plan.learning_rate, n_steps)
    for epoch in range(plan.n_epochs):
        loss_sum = 0.0
        for pixel_values, labels in _batches(pictures, plan):
            loss = nn.functional.cross_entropy(model(pixel_values), labels)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            loss_sum += loss.item() * len(labels)
        if (epoch + 1) % 10 == 0:
            print(f"epoch {epoch + 1:3d}  training loss {loss_sum / len(pictures.labels):.4f}")
    return model.eval()


def cross_validate(pictures: Pictures, plan: Plan, n_folds: int) -> float:
    """Train once per fold and judge each network on the fold that it never saw.

    Args:
        pictures: The training pictures; the held-out ones stay out.
        plan: The plan to judge.
        n_folds: How many trainings, each on (n_folds - 1) / n_folds of the pictures.

    Returns:
        Top-1 accuracy over all pictures, 0..1.
    """
    n_right = 0
    folds = StratifiedKFold(n_folds, shuffle=True, random_state=0)
    for fold, (seen, unseen) in enumerate(folds.split(pictures.pixel_values, pictures.labels)):
        model = train(Pictures(pictures.pixel_values[seen], pictures.labels[seen]), plan)
        with torch.inference_mode():
            logits = model(torch.from_numpy(pictures.pixel_values[unseen])).numpy()
        n_right_fold = int(np.sum(logits.argmax(axis=1) == pictures.labels[unseen]))
        print(f"fold {fold + 1} of {n_folds}: {n_right_fold} of {len(unseen)} right")
        n_right += n_right_fold
    return n_right / len(pictures.labels)


def _batches(pictures: Pictures, plan: Plan) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield one epoch in random order: float32[batch, 1, 8, 8] augmented, int64[batch]."""
    pixel_values = torch.from_numpy(pictures.pixel_values)
    labels = torch.from_numpy(pictures.labels)
    order = torch.randperm(len(labels))
    for start in range(0, len(labels), plan.batch_size):
        rows = order[start : start + plan.batch_size]
        yield _augment(pixel_values[rows], plan), labels[rows]


def _augment(pixel_values: Tensor, plan: Plan) -> Tensor:
    """Shift, turn and zoom every picture by its own random amount; background fills the rim.

    Args:
        pixel_values: float32[batch, 1, 8, 8], normalised.
        plan: How far.

    Returns:
        float32[batch, 1, 8, 8], normalised.
    """
    draws = torch.rand(4, len(pixel_values)) * 2 - 1
    angle_rad = draws[0] * math.radians(plan.max_turn_deg)
    zoom = 1 + draws[1] * plan.max_zoom
    # affine_grid spans the 8 pixels with -1..1, so one pixel is 2 / 8.
    shift = draws[2:] * plan.max_shift_px * 2 / 8
    cos, sin = zoom * angle_rad.cos(), zoom * angle_rad.sin()
    rows = [torch.stack([cos, -sin, shift[0]], 1), torch.stack([sin, cos, shift[1]], 1)]
    shape = list(pixel_values.shape)
    grid = nn.functional.affine_grid(torch.stack(rows, 1), shape, align_corners=False)
    background = -MEAN / STD  # grid_sample fills the rim with 0, so 0 has to mean background
    moved: Tensor = nn.functional.grid_sample(pixel_values - background, grid, align_corners=False)
    return moved + background


def main() -> None:
    """Train and write `weights.safetensors`, or judge the plan by cross-validation."""
    parser = argparse.ArgumentParser(description="Train DigitsNet on scikit-learn's digits.")
    parser.add_argument("--folds", type=int, help="cross-validate with this many folds, write nothing")
    n_folds: int | None = parser.parse_args().folds
    # One thread: a sum split over threads depends on how many there are, and so would the weights.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True)
    training, _ = split()
    if n_folds is not None:
        print(f"cross-validated accuracy {cross_validate(training, Plan(), n_folds):.2%}")
        return
    model = train(training, Plan())
    save_file(model.state_dict(), WEIGHTS)
    print(f"wrote {WEIGHTS.name}, {WEIGHTS.stat().st_size} bytes")


if __name__ == "__main__":
    main()
