"""Pictures from strangers: files, bytes, Pillow images and arrays become upright RGB or grey pictures.

What is not plain RGB or grey has a defined meaning here:

* EXIF orientation is applied;
* transparency is laid on white;
* CMYK, YCbCr and HSV become RGB by Pillow's formulas; colour profiles are ignored;
* 16-bit grey is scaled from 0..65535 to 0..255, and rounded; of 16-bit colour the upper 8 bits count;
* a palette becomes its colours, black-and-white becomes 0 and 255;
* a multi-picture JPEG, as telephones write it, is its first picture.

Refused: moving pictures, several pages, 32-bit grey and floating point (no range is agreed for them),
more than 64 million pixels (read from the header, before anything is decoded), and what is cut off.
"""

from __future__ import annotations

import io
import re
import stat
import struct
import warnings
import zlib
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
from PIL import Image

from anyport.errors import InputError

Picture = str | Path | bytes | Image.Image | np.ndarray

MAX_PIXELS: Final = 64_000_000
FORMATS: Final = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")

_LISTED: Final = "PNG, JPEG, WebP, BMP, GIF or TIFF"
_SHOWN_NAME: Final = 80  # characters of a path that is no path
_ORIENTATION_TAG: Final = 0x0112
_TRANSPOSE: Final = {  # EXIF 2.32, tag 274: what turns the stored picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_DEEP_GREY: Final = {"I;16", "I;16B", "I;16L", "I;16N"}
_DIRECT: Final = {"CMYK": "RGB", "HSV": "RGB", "YCbCr": "RGB", "1": "L", "L": "L", "P": "RGB", "RGB": "RGB"}
_WITH_ALPHA: Final = {"LA": "RGBA", "La": "LA", "PA": "RGBA", "RGBA": "RGBA", "RGBa": "RGBA"}
# what Pillow raises on damaged files, found by damaging files (tests/task/test_pictures.py)
_DAMAGE: Final = (
    AttributeError,
    EOFError,
    IndexError,
    KeyError,
    OSError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)


def read_picture(source: Picture, name: str | None = None, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read one picture.

    >>> read_picture(np.zeros((2, 3), np.uint8)).size
    (3, 2)

    Args:
        source: A path, the bytes of a file, a Pillow image (its current frame), or
            uint8[height, width, 3] (RGB) or uint8[height, width] (grey).
        name: What messages call it; the path by default.
        max_pixels: The largest width x height.

    Returns:
        A new picture, upright, of mode ``RGB`` or ``L``.

    Raises:
        InputError: It is missing, no picture, damaged, too large, or of a kind with no one meaning.
    """
    if isinstance(source, np.ndarray):
        return _picture_from_array(source, name or "the array", max_pixels)
    if isinstance(source, Image.Image):
        with warnings.catch_warnings(action="ignore"):
            return _decoded(source, name or "the picture", max_pixels)
    if isinstance(source, bytes):
        return _picture_from_file(io.BytesIO(source), name or "the bytes", max_pixels)
    if source == "":
        raise InputError("a picture has an empty name", do="give the path of a file")
    if isinstance(source, str | Path):
        return _picture_from_path(Path(source), name or str(source), max_pixels)
    raise InputError(
        f"{name or 'a picture'} is a {type(source).__name__}",
        do="give a path, bytes, a Pillow image or a numpy array",
    )


def has_transparency(source: Picture) -> bool:
    """Say whether a picture that `read_picture` reads has a place that is not opaque."""
    if isinstance(source, np.ndarray):
        return False
    if isinstance(source, Image.Image):
        return _is_transparent(source)
    file = io.BytesIO(source) if isinstance(source, bytes) else Path(source)
    with warnings.catch_warnings(action="ignore"), Image.open(file, formats=FORMATS) as image:
        return _is_transparent(image)


def _is_transparent(image: Image.Image) -> bool:
    if not image.has_transparency_data:
        return False
    return int(np.asarray(image.convert("RGBA"))[..., 3].min()) < 255  # noqa: PLR2004  (opaque)


def _picture_from_path(path: Path, name: str, max_pixels: int) -> Image.Image:
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as err:
        raise _no_file(name, err) from err
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a device or the like"
        raise InputError(f"{name} is {kind}, not a picture")
    if not path.stat().st_size:
        raise InputError(f"{name} is empty: 0 bytes", do=f"give {_LISTED}")
    try:
        with path.open("rb") as file:
            return _picture_from_file(file, name, max_pixels)
    except PermissionError as err:
        raise InputError(f"{name} may not be read by this user") from err


def _no_file(name: str, err: OSError | ValueError) -> InputError:
    if isinstance(err, FileNotFoundError | NotADirectoryError):
        return InputError(f"there is no file {name}")
    why = err.strerror if isinstance(err, OSError) else str(err)  # ValueError: a null byte
    shown = name if len(name) <= _SHOWN_NAME else f"{name[:_SHOWN_NAME]}… ({len(name)} characters)"
    return InputError(f"{shown!r} names no file: {why}", do="give the path of a picture")


def _picture_from_file(file: BinaryIO, name: str, max_pixels: int) -> Image.Image:
    with warnings.catch_warnings(action="ignore"):  # Pillow warns of what is refused below
        try:
            image = Image.open(file, formats=FORMATS)
        except Image.DecompressionBombError as err:
            found = re.search(r"\d+", str(err))
            raise _too_large(name, int(found[0]) if found else None, max_pixels) from err
        except _DAMAGE as err:
            raise InputError(f"{name} is no picture that anyport reads", do=f"give {_LISTED}") from err
        with image:
            if image.format != "MPO" and getattr(image, "is_animated", False):
                raise InputError(
                    f"{name} is a {image.format} with several frames or pages",
                    do="save the one that is meant as a picture of its own",
                )
            return _decoded(image, name, max_pixels)


def _decoded(image: Image.Image, name: str, max_pixels: int) -> Image.Image:
    width, height = image.size
    if width * height > max_pixels:
        raise _too_large(name, width * height, max_pixels)
    if width * height == 0:
        raise InputError(f"{name} has no pixels: {width} x {height}")
    try:
        image.load()
        turn = _TRANSPOSE.get(image.getexif().get(_ORIENTATION_TAG, 1))
        plain = _plain(image, name)
        return plain if turn is None else plain.transpose(turn)
    except MemoryError as err:
        raise InputError(f"{name} ({width} x {height} pixels) needs more memory than there is") from err
    except _DAMAGE as err:
        raise InputError(f"{name} is damaged or cut off: {err}") from err


def _plain(image: Image.Image, name: str) -> Image.Image:
    """Return a new picture of mode ``RGB`` or ``L``."""
    if image.mode in _DEEP_GREY:
        return _from_deep_grey(image)
    if image.mode in _WITH_ALPHA or (image.mode in _DIRECT and "transparency" in image.info):
        return _on_white(image)
    if image.mode not in _DIRECT:
        raise InputError(
            f"{name} has pixels of the kind {image.mode}, which have no agreed range",
            do="convert it to 8-bit RGB or grey, or to 16-bit grey",
        )
    converted = image.convert(_DIRECT[image.mode])
    return Image.frombytes(converted.mode, converted.size, converted.tobytes())  # without the file's remarks


def _on_white(image: Image.Image) -> Image.Image:
    is_grey = image.mode in {"1", "L", "LA", "La"}
    if image.mode == "La":
        image = image.convert("LA")
    layer = image.convert("RGBA")
    white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, layer).convert("L" if is_grey else "RGB")


def _from_deep_grey(image: Image.Image) -> Image.Image:
    deep = np.asarray(image).astype(np.uint32)
    grey = ((deep + 128) // 257).astype(np.uint8)  # 65535 = 255 * 257
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[deep == transparent] = 255
    return Image.fromarray(grey)


def _picture_from_array(array: np.ndarray, name: str, max_pixels: int) -> Image.Image:
    is_picture = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)  # noqa: PLR2004 -- H W, H W RGB
    if array.dtype != np.uint8 or not is_picture or array.size == 0:
        raise InputError(
            f"{name} is {array.dtype}{list(array.shape)}",
            do="give uint8[height, width, 3] (RGB) or uint8[height, width] (grey)",
        )
    if array.shape[0] * array.shape[1] > max_pixels:
        raise _too_large(name, array.shape[0] * array.shape[1], max_pixels)
    return Image.fromarray(np.ascontiguousarray(array))


def _too_large(name: str, n_pixels: int | None, max_pixels: int) -> InputError:
    size = "too many" if n_pixels is None else f"{n_pixels / 1e6:.1f} million"
    return InputError(
        f"{name} has {size} pixels, at most {max_pixels / 1e6:.1f} million are read",
        do="give a smaller picture",
    )
