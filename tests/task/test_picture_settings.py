"""How a picture becomes pixel values: against numpy by hand, and against transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from anyport.errors import InputError, UsageError
from anyport.task.picture_settings import (
    PictureSettings,
    check_pictures_fit,
    fit_picture,
    fitted_pictures,
    pixel_values,
)
from anyport.task.pictures import read_picture
from anyport.tensors import Signature, dim, tensor

if TYPE_CHECKING:
    from pathlib import Path


def settings(**chosen: Any) -> PictureSettings:
    found = PictureSettings(**({"size": [2, 2]} | chosen))
    found.check()
    return found


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"size": None}, "give one of 'size' = [height, width] and 'shortest_edge'"),
        ({"shortest_edge": 4, "crop": [2, 2]}, "give one of 'size' = [height, width] and 'shortest_edge'"),
        ({"size": [8]}, "size = [8] must be [height, width], both 1 or more"),
        ({"size": [8, 0]}, "size = [8, 0] must be [height, width], both 1 or more"),
        ({"crop": [1, 2, 3]}, "crop = [1, 2, 3] must be [height, width], both 1 or more"),
        ({"size": None, "shortest_edge": 8}, "'shortest_edge' must be 1 or more and needs 'crop'"),
        ({"crop": [3, 2]}, "crop = [3, 2] is larger than the resized picture [2, 2]"),
        (
            {"size": None, "shortest_edge": 4, "crop": [4, 5]},
            "crop = [4, 5] is larger than the resized picture",
        ),
        ({"mean": [0.5]}, "mean has 1 values, mode RGB has 3 channels"),
        ({"mode": "L", "std": [1.0, 1.0]}, "std has 2 values, mode L has 1 channels"),
        ({"std": [1.0, 0.0, 1.0]}, "std = [1.0, 0.0, 1.0] must be above 0 in every channel"),
        ({"scale": 0.0}, "scale, mean and std must be finite, and scale not 0"),
        ({"mean": [float("nan")] * 3}, "scale, mean and std must be finite, and scale not 0"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(chosen: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        settings(**chosen)
    assert caught.value.what.startswith(f"settings: {message}")


def test_the_arithmetic_is_pixel_times_scale_minus_mean_over_std() -> None:
    chosen = settings(size=[3, 5], mean=[0.1, 0.2, 0.3], std=[0.5, 0.6, 0.7], resample="nearest")
    picture = noise(3, 5)
    found = pixel_values([fit_picture(read_picture(picture), chosen, "it")] * 2, chosen, "float32")
    expected = ((picture / 255 - [0.1, 0.2, 0.3]) / [0.5, 0.6, 0.7]).transpose(2, 0, 1)
    assert (str(found.dtype), found.shape) == ("float32", (2, 3, 3, 5))
    np.testing.assert_allclose(found[1], expected, rtol=0, atol=1e-6)


def test_without_mean_and_std_only_the_scale_counts() -> None:
    chosen = settings(size=[1, 1], mode="L", scale=2.0)
    found = pixel_values(
        [fit_picture(read_picture(np.array([[7]], np.uint8)), chosen, "it")], chosen, "float16"
    )
    assert (str(found.dtype), found.tolist()) == ("float16", [[[[14.0]]]])


def test_one_pixel_fills_the_size() -> None:
    chosen = settings(size=[2, 3])
    assert fit_picture(read_picture(np.array([[9]], np.uint8)), chosen, "it").tolist() == [[[9] * 3] * 3] * 2


@pytest.mark.parametrize(("height", "width"), [(40, 60), (60, 40), (50, 50), (41, 97)])
def test_the_middle_is_kept(height: int, width: int) -> None:
    chosen = settings(size=None, shortest_edge=min(height, width), crop=[30, 20], resample="nearest")
    picture = noise(height, width)
    top, left = (height - 30) // 2, (width - 20) // 2
    found = fit_picture(read_picture(picture), chosen, "it")
    np.testing.assert_array_equal(found, picture[top : top + 30, left : left + 20])


def test_a_very_long_picture_is_refused_before_it_is_resized() -> None:
    chosen = settings(size=None, shortest_edge=256, crop=[224, 224])
    with pytest.raises(InputError) as caught:
        fit_picture(Image.new("L", (300_000, 1)), chosen, "long.png")
    assert caught.value.what == "long.png is 300000 x 1 pixels: resized to 76800000 x 256 it is too large"


@pytest.mark.parametrize("shape", [(300, 400), (400, 300), (333, 500), (64, 64), (1, 1), (225, 900)])
@pytest.mark.parametrize(("edge", "resample"), [(224, "bicubic"), (112, "bilinear"), (384, "bicubic")])
def test_it_is_what_transformers_computes(shape: tuple[int, int], edge: int, resample: str) -> None:
    """ConvNextImageProcessor is the one that ResNet and ConvNeXT checkpoints name."""
    from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil

    code = {"bilinear": 2, "bicubic": 3}[resample]
    processor = ConvNextImageProcessorPil(size={"shortest_edge": edge}, resample=code, crop_pct=0.875)
    picture = Image.fromarray(noise(*shape))
    expected = processor(picture, return_tensors="np")["pixel_values"]
    form: dict[str, Any] = {"size": [edge, edge]}
    if edge < 384:
        form = {"size": None, "shortest_edge": int(edge / 0.875), "crop": [edge, edge]}
    chosen = settings(
        **form, resample=resample, mean=list(processor.image_mean), std=list(processor.image_std)
    )
    found = pixel_values([fit_picture(read_picture(picture), chosen, "it")], chosen, "float32")
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_pictures_are_named_by_their_path_or_place(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(noise(4, 4)).save(path)
    found = fitted_pictures([path, noise(4, 4), str(path)], settings(), "caption")
    assert [one.name for one in found] == [str(path), "picture 2", str(path)]
    assert {one.pixels.shape for one in found} == {(2, 2, 3)}
    assert fitted_pictures((), settings(), "caption") == []
    with pytest.raises(InputError, match="picture 2 is no picture that anyport reads"):
        fitted_pictures([path, b"no picture"], settings(), "caption")


def test_one_picture_in_the_place_of_a_list_is_refused() -> None:
    for one in ("a.png", b"bytes", noise(4, 4), Image.new("L", (2, 2))):
        with pytest.raises(InputError, match="caption takes a list of pictures, not one") as caught:
            fitted_pictures(one, settings(), "caption")  # type: ignore[arg-type]
        assert caught.value.do == "write caption([picture])"


def test_pictures_must_have_the_shape_of_the_input() -> None:
    spec = tensor("x", "float32[batch, 3, h, 4]")
    signature = Signature((spec,), (), {"h": dim("h", "2..8:2")})
    check_pictures_fit(settings(size=[6, 4]), spec, signature, "settings")
    for size in ([6, 2], [3, 4], [10, 4]):
        with pytest.raises(
            UsageError, match=f"make pictures of 3 channels, {size[0]} x {size[1]}, the model"
        ):
            check_pictures_fit(settings(size=size), spec, signature, "settings")
    with pytest.raises(UsageError, match="settings make pictures of 1 channels, 6 x 4"):
        check_pictures_fit(settings(size=[6, 4], mode="L"), spec, signature, "settings")
