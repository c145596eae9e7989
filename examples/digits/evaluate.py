"""Print the accuracy on the held-out pictures: `python examples/digits/evaluate.py [BUNDLE]`.

Without BUNDLE the PyTorch model is judged; with it the bundle (`--variant int8`: that variant of it), on
ONNX Runtime and without PyTorch.
"""

import argparse
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pictures import split

Run = Callable[[dict[str, NDArray[np.float32]]], Mapping[str, NDArray[np.float32]]]
BATCH_SIZE = 64  # the largest batch that anyport.toml promises


def accuracy(run: Run) -> float:
    """Return the top-1 accuracy on the held-out pictures: `[evaluate]` in anyport.toml names this function.

    Args:
        run: Takes `{"pixel_values": float32[batch, 1, 8, 8]}`, normalised, with batch 1..64, and gives
            `{"logits": float32[batch, 10]}`.

    Returns:
        The share of the 360 held-out pictures whose highest logit is their digit, 0..1.

    Example:
        >>> always_seven = np.eye(10, dtype=np.float32)[7]
        >>> accuracy(lambda feeds: {"logits": np.tile(always_seven, (len(feeds["pixel_values"]), 1))})
        0.1
    """
    _, held_out = split()
    starts = range(0, len(held_out.labels), BATCH_SIZE)
    batches = [{"pixel_values": held_out.pixel_values[start : start + BATCH_SIZE]} for start in starts]
    logits = [run(batch)["logits"] for batch in batches]
    return float(np.mean(np.concatenate(logits).argmax(axis=1) == held_out.labels))


def model_accuracy() -> float:
    """Return the accuracy of the trained PyTorch model."""
    import torch
    from model import load

    model = load()

    def run(feeds: dict[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        with torch.inference_mode():
            return {"logits": model(torch.from_numpy(feeds["pixel_values"])).numpy()}

    return accuracy(run)


def bundle_accuracy(path: Path, variant: str | None = None) -> float:
    """Return the accuracy of a bundle that was built from `anyport.toml`."""
    from anyport.bundle import open_bundle
    from anyport.runtime import open_session

    with open_bundle(path) as bundle, closing(open_session(bundle.graph_file("network", variant))) as session:
        return accuracy(session.run)


def main() -> None:
    """Judge the PyTorch model, or the bundle that the command line names."""
    parser = argparse.ArgumentParser(description="Print the accuracy on the held-out digits.")
    parser.add_argument("bundle", nargs="?", type=Path, help="a bundle; without it, the PyTorch model")
    parser.add_argument("--variant", help="of the bundle, such as int8; its own choice by default")
    words = parser.parse_args()
    share = model_accuracy() if words.bundle is None else bundle_accuracy(words.bundle, words.variant)
    _, held_out = split()
    n_pictures = len(held_out.labels)
    print(f"{round(share * n_pictures)} of {n_pictures} held-out pictures right: accuracy {share:.2%}")


if __name__ == "__main__":
    main()
