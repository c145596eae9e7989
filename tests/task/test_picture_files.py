"""Writing pictures: formats, profiles, exactness, and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from anyport.errors import UsageError
from anyport.task.picture_files import picture_target, write_picture
from tests.task.test_colour_profile import PROFILE

if TYPE_CHECKING:
    from pathlib import Path

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8))


@pytest.mark.parametrize("suffix", [".png", ".webp", ".jpg", ".JPEG"])
@pytest.mark.parametrize("exact", [True, False])
def test_pictures_are_written_with_their_profile(tmp_path: Path, suffix: str, *, exact: bool) -> None:
    if exact and suffix.lower() in {".jpg", ".jpeg"}:
        with pytest.raises(UsageError, match="would change every pixel, also outside the region"):
            picture_target(f"out{suffix}", exact=True, force=False)
        return
    path = picture_target(str(tmp_path / f"out{suffix}"), exact=exact, force=False)
    write_picture(path, PICTURE, PROFILE, exact=exact, force=False)
    with Image.open(path) as image:
        assert image.info["icc_profile"] == PROFILE
        difference = np.abs(np.asarray(image).astype(int) - np.asarray(PICTURE))
    assert difference.max() == 0 if exact or suffix == ".png" else 0 < difference.mean() < 60  # it is noise
    write_picture(path, PICTURE, None, exact=exact, force=True)
    with Image.open(path) as image:
        assert "icc_profile" not in image.info
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    for name in ("out.gif", "out", "out.png.txt"):
        with pytest.raises(UsageError, match="must end in .png, .jpg or .webp"):
            picture_target(name, exact=False, force=False)
    (path := tmp_path / "out.png").write_bytes(b"mine")
    with pytest.raises(UsageError, match="'out.png' exists already"):
        picture_target(str(path), exact=False, force=False)
    assert picture_target(str(path), exact=False, force=True) == path
    wide = Image.new("RGB", (16_384, 1))
    with pytest.raises(UsageError) as caught:
        write_picture(tmp_path / "wide.webp", wide, None, exact=False, force=False)
    assert caught.value.what == "a WEBP has at most 16383 pixels in a row, this is 16384 x 1"
    assert not (tmp_path / "wide.webp").exists()
