"""Pictures are written to files: PNG, JPEG or WebP."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from anyport.bundle import write_file_atomically
from anyport.bundle.writing import check_output
from anyport.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from PIL import Image

_JPEG: Final = {"quality": 95, "subsampling": 0}
_FORMATS: Final[Mapping[str, tuple[str, Mapping[str, Any]]]] = {
    ".jpeg": ("JPEG", _JPEG),
    ".jpg": ("JPEG", _JPEG),
    ".png": ("PNG", {}),
    ".webp": ("WEBP", {"quality": 95, "method": 4}),
}
_MAX_SIDE: Final = {"JPEG": 65_535, "WEBP": 16_383}  # what the formats can say
_EXACT: Final = {"WEBP": {"lossless": True}}


def picture_target(output: str, *, exact: bool, force: bool) -> Path:
    """Return the file that a picture is to be written to, before anything is computed.

    Args:
        output: Its name decides the format.
        exact: Every pixel is to be kept.
        force: An existing file may be replaced.

    Raises:
        UsageError: There is no such format, or it cannot be exact, or the file exists.
    """
    path = Path(output)
    if path.suffix.lower() not in _FORMATS:
        raise UsageError(
            f"the output file '{path}' must end in .png, .jpg or .webp", do="give such a name: -o out.png"
        )
    if exact and _FORMATS[path.suffix.lower()][0] == "JPEG":
        raise UsageError(
            f"the output file '{path}' would change every pixel, also outside the region",
            do="give -o a name that ends in .png or .webp",
        )
    check_output(path, force=force, is_folder=False)
    return path


def check_fits(path: Path, size: tuple[int, int]) -> None:
    """Refuse a picture that is larger than its format can say.

    Args:
        path: As `picture_target` gives it.
        size: Width and height.

    Raises:
        UsageError: Naming the limit.
    """
    kind, _ = _FORMATS[path.suffix.lower()]
    limit = _MAX_SIDE.get(kind)
    if limit is not None and max(size) > limit:
        raise UsageError(
            f"a {kind} has at most {limit} pixels in a row, this is {size[0]} x {size[1]}",
            do="give -o a name that ends in .png",
        )


def write_picture(
    path: Path, picture: Image.Image, profile: bytes | None, *, exact: bool, force: bool
) -> None:
    """Write a picture, whole or not at all.

    Args:
        path: As `picture_target` gives it.
        picture: Of mode ``RGB``.
        profile: The ICC profile that its numbers have.
        exact: Keep every pixel.
        force: Replace an existing file.

    Raises:
        BundleError: The file cannot be written.
        UsageError: The format cannot hold a picture of this size, or the file exists.
    """
    kind, words = _FORMATS[path.suffix.lower()]
    check_fits(path, picture.size)
    content = io.BytesIO()
    more = _EXACT.get(kind, {}) if exact else {}
    profiles = {} if profile is None else {"icc_profile": profile}
    picture.save(content, kind, **{**words, **more, **profiles})
    write_file_atomically(path, content.getvalue(), force=force)
