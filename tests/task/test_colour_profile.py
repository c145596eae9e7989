"""Which colour profile an answer has."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from anyport.task.colour_profile import rgb_profile

if TYPE_CHECKING:
    from pathlib import Path

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
OF_CMYK = PROFILE[:16] + b"CMYK" + PROFILE[20:]


def written(profile: bytes | None, kind: str, mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    words: dict[str, Any] = {} if profile is None else {"icc_profile": profile}
    Image.new(mode, (4, 4)).save(file, kind, **words)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_a_profile_of_rgb_numbers_is_found(kind: str, tmp_path: Path) -> None:
    content = written(PROFILE, kind)
    (path := tmp_path / "a").write_bytes(content)
    assert rgb_profile(content) == rgb_profile(path) == rgb_profile(str(path)) == PROFILE
    with Image.open(path) as image:
        assert rgb_profile(image) == PROFILE


@pytest.mark.parametrize(
    "source",
    [
        written(None, "PNG"),
        written(OF_CMYK, "JPEG", "CMYK"),
        written(b"no profile", "PNG"),
        b"no picture",
        "gone.png",
        np.zeros((4, 4), np.uint8),
        Image.new("RGB", (4, 4)),
    ],
    ids=["none", "CMYK", "damaged", "no picture", "no file", "array", "Pillow"],
)
def test_elsewhere_there_is_none(source: Any) -> None:
    assert rgb_profile(source) is None
