"""Print the accuracy on the held-out pictures: `python examples/digits/evaluate.py [BUNDLE]`.

Without BUNDLE the PyTorch model is judged; with it the bundle, on ONNX Runtime and without PyTorch.
"""

import argparse
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pictures import split

Predict = Callable[[NDArray[np.float32]], NDArray[np.float32]]
BATCH_SIZE = 64  # the largest batch that anyport.toml promises


def accuracy(predict: Predict) -> float:
    """Return the top-1 accuracy on the held-out pictures.

    Args:
        predict: Maps normalised pixel values, float32[batch, 1, 8, 8] with batch 1..64, to logits,
            float32[batch, 10].

    Returns:
        The share of the 360 held-out pictures whose highest logit is their digit, 0..1.

    Example:
        >>> always_seven = np.eye(10, dtype=np.float32)[7]
        >>> accuracy(lambda pixel_values: np.tile(always_seven, (len(pixel_values), 1)))
        0.1
    """
    _, held_out = split()
    starts = range(0, len(held_out.labels), BATCH_SIZE)
    logits = [predict(held_out.pixel_values[start : start + BATCH_SIZE]) for start in starts]
    return float(np.mean(np.concatenate(logits).argmax(axis=1) == held_out.labels))


def model_accuracy() -> float:
    """Return the accuracy of the trained PyTorch model."""
    import torch
    from model import load

    model = load()

    def predict(pixel_values: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            logits: NDArray[np.float32] = model(torch.from_numpy(pixel_values)).numpy()
        return logits

    return accuracy(predict)


def bundle_accuracy(path: Path) -> float:
    """Return the accuracy of a bundle that was built from `anyport.toml`."""
    from anyport.bundle import open_bundle
    from anyport.runtime import open_session

    with open_bundle(path) as bundle, closing(open_session(bundle.graph_file("network"))) as session:
        return accuracy(lambda pixel_values: session.run({"pixel_values": pixel_values})["logits"])


def main() -> None:
    """Judge the PyTorch model, or the bundle that the command line names."""
    parser = argparse.ArgumentParser(description="Print the accuracy on the held-out digits.")
    parser.add_argument("bundle", nargs="?", type=Path, help="a bundle; without it, the PyTorch model")
    path: Path | None = parser.parse_args().bundle
    share = model_accuracy() if path is None else bundle_accuracy(path)
    _, held_out = split()
    n_pictures = len(held_out.labels)
    print(f"{round(share * n_pictures)} of {n_pictures} held-out pictures right: accuracy {share:.2%}")


if __name__ == "__main__":
    main()
