"""Write `samples.safetensors` and `seven.png`: `python examples/digits/make_samples.py`.

Both come from the held-out pictures. Run it after `train.py`: the trained model has to read the 7.
"""

from pathlib import Path

import numpy as np
import torch
from cases import BATCH_SIZES, SAMPLES
from model import load
from numpy.typing import NDArray
from pictures import MEAN, STD, pixel_values_of, split
from PIL import Image
from safetensors.numpy import save_file

SEVEN = Path(__file__).with_name("seven.png")
SEVEN_ROW = 66  # of the held-out pictures: a 7 that is clear to the human eye even at 8x8
ENLARGEMENT = 8  # each pixel becomes an 8x8 square, so that a box filter gives it back exactly
LEAST_PROBABILITY = 0.99


def grey_picture(pixel_values: NDArray[np.float32]) -> Image.Image:
    """Turn one picture back into 8-bit grey, enlarged.

    Args:
        pixel_values: float32[8, 8], normalised.

    Returns:
        A picture of 64x64 pixels, mode "L"; full ink is 255.
    """
    grey = np.rint((pixel_values * STD + MEAN) * 255.0).clip(0, 255).astype(np.uint8)
    return Image.fromarray(grey.repeat(ENLARGEMENT, axis=0).repeat(ENLARGEMENT, axis=1))


def probability_of_seven(path: Path) -> float:
    """Read a picture file as a bundle would, and ask the trained model.

    Returns:
        The probability that it shows a 7, 0..1.
    """
    with Image.open(path) as picture:
        pixel_values = torch.from_numpy(pixel_values_of(picture))
    with torch.inference_mode():
        return float(load()(pixel_values).softmax(dim=1)[0, 7])


def main() -> None:
    """Write both files; fail when the model does not read the 7."""
    _, held_out = split()
    by_digit = held_out.labels.argsort(kind="stable")
    spread = by_digit[:: len(by_digit) // sum(BATCH_SIZES)]  # 12 pictures, at least one of every digit
    save_file({"pixel_values": held_out.pixel_values[spread]}, SAMPLES)
    grey_picture(held_out.pixel_values[SEVEN_ROW, 0]).save(SEVEN)
    probability = probability_of_seven(SEVEN)
    print(f"wrote {SAMPLES.name}, and {SEVEN.name}: a 7 with probability {probability:.2%}")
    if probability < LEAST_PROBABILITY:
        raise SystemExit(f"the probability must be at least {LEAST_PROBABILITY:.0%}: train again")


if __name__ == "__main__":
    main()
