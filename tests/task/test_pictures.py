"""Pictures: what each kind becomes, and what is refused."""

from __future__ import annotations

import contextlib
import io
import os
import random
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from anyport.errors import InputError
from anyport.task.pictures import read_picture

if TYPE_CHECKING:
    from anyport.task.pictures import Picture

RED_GREEN = np.array([[[255, 0, 0], [0, 255, 0]]], np.uint8)  # 2 wide, 1 high


def written(image: Image.Image, kind: str = "PNG", **settings: Any) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **settings)
    return content.getvalue()


def pixels(source: Picture) -> list[Any]:
    found: list[Any] = np.asarray(read_picture(source)).tolist()
    return found


def refusal(source: Picture, **settings: int | str) -> InputError:
    with pytest.raises(InputError) as caught:
        read_picture(source, **settings)  # type: ignore[arg-type]
    return caught.value


# ── sources and formats ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_lossless_formats_give_the_same_pixels(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "picture"
    path.write_bytes(
        written(Image.fromarray(RED_GREEN), kind, **({"lossless": True} if kind == "WEBP" else {}))
    )
    with Image.open(path) as image:
        for source in (path, str(path), path.read_bytes(), image, RED_GREEN):
            assert pixels(source) == RED_GREEN.tolist()


def test_jpeg_is_read() -> None:
    image = Image.new("RGB", (16, 16), (200, 100, 50))
    found = np.asarray(read_picture(written(image, "JPEG", quality=95)))
    assert np.abs(found.astype(int) - [200, 100, 50]).max() <= 3


def test_one_pixel_is_a_picture() -> None:
    assert pixels(written(Image.new("RGB", (1, 1), (1, 2, 3)))) == [[[1, 2, 3]]]
    assert pixels(np.array([[7]], np.uint8)) == [[7]]


def test_a_picture_given_is_not_changed() -> None:
    image = Image.new("RGBA", (2, 2), (10, 20, 30, 0))
    read_picture(image)
    assert (image.mode, image.getpixel((0, 0))) == ("RGBA", (10, 20, 30, 0))


# ── meaning ────────────────────────────────────────────────────────────────────────────────────────────

R, G, B, W = 1, 2, 3, 4  # what the corners of an upright 2 x 2 picture hold
STORED = {  # EXIF orientation -> what the file stores for it
    1: [[R, G], [B, W]],
    2: [[G, R], [W, B]],
    3: [[W, B], [G, R]],
    4: [[B, W], [R, G]],
    5: [[R, B], [G, W]],
    6: [[G, W], [R, B]],
    7: [[W, G], [B, R]],
    8: [[B, R], [W, G]],
}


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation_is_applied(kind: str, orientation: int) -> None:
    stored = np.repeat(np.array(STORED[orientation], np.uint8)[..., None] * 50, 3, axis=2)
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = written(
        Image.fromarray(stored), kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {})
    )
    assert np.asarray(read_picture(content))[..., 0].tolist() == [[R * 50, G * 50], [B * 50, W * 50]]


def test_transparency_is_laid_on_white() -> None:
    clear, half = Image.new("RGBA", (1, 1), (9, 9, 9, 0)), Image.new("RGBA", (1, 1), (0, 0, 0, 128))
    assert pixels(written(clear)) == [[[255, 255, 255]]]
    assert pixels(written(half)) == [[[127, 127, 127]]]
    assert pixels(written(Image.new("LA", (1, 1), (0, 0)))) == [[255]]
    assert pixels(Image.new("RGBa", (1, 1), (0, 0, 0, 0))) == [[[255, 255, 255]]]
    assert pixels(Image.new("La", (1, 1), (0, 0))) == [[255]]


def test_a_transparent_colour_is_laid_on_white() -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putdata([0, 1])
    assert pixels(written(palette)) == [[[10, 20, 30], [40, 50, 60]]]
    assert pixels(written(palette, transparency=1)) == [[[10, 20, 30], [255, 255, 255]]]
    colour = written(Image.fromarray(RED_GREEN), transparency=(255, 0, 0))
    assert pixels(colour) == [[[255, 255, 255], [0, 255, 0]]]
    grey = written(Image.fromarray(np.array([[5, 6]], np.uint8)), transparency=5)
    assert pixels(grey) == [[255, 6]]


def test_deep_grey_is_scaled_not_clipped() -> None:
    deep = np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16)
    expected = [[0, 0, 1, 1, 128, 255]]
    for kind in ("PNG", "TIFF"):
        assert pixels(written(Image.fromarray(deep), kind)) == expected


def test_black_and_white_is_0_and_255() -> None:
    assert pixels(written(Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1"))) == [[0, 255]]


def test_cmyk_becomes_rgb() -> None:
    image = Image.new("CMYK", (1, 1), (0, 255, 255, 0))
    assert pixels(written(image, "TIFF")) == [[[255, 0, 0]]]


def test_grey_stays_grey() -> None:
    assert read_picture(np.zeros((3, 2), np.uint8)).mode == "L"
    assert read_picture(np.zeros((3, 2, 3), np.uint8)).mode == "RGB"


# ── refusals ───────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_no_picture_is_named(tmp_path: Path) -> None:
    text = tmp_path / "notes.png"
    text.write_text("not a picture", encoding="utf-8")
    assert refusal(text).what == f"{text} is no picture that anyport reads"
    assert refusal(text).do == "give PNG, JPEG, WebP, BMP, GIF or TIFF"
    assert refusal(b"").what == "the bytes is no picture that anyport reads"
    assert refusal(tmp_path / "nope.png").what == f"there is no file {tmp_path / 'nope.png'}"
    assert refusal(tmp_path).what == f"{tmp_path} is a folder, not a picture"
    assert refusal(text / "below.png").what == f"there is no file {text / 'below.png'}"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a" * 5000, f"'{'a' * 80}… (5000 characters)' names no file: File name too long"),
        ("a\0b.png", r"'a\x00b.png' names no file: embedded null"),
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="the words are those of POSIX")
def test_a_path_that_is_none_is_named_by_its_beginning(name: str, message: str) -> None:
    for source in (name, Path(name)):
        assert refusal(source).what.startswith(message)


def test_other_formats_are_refused() -> None:
    for kind in ("ICO", "PPM", "TGA"):
        assert "is no picture that anyport reads" in refusal(written(Image.new("RGB", (16, 16)), kind)).what


def test_a_cut_off_picture_is_named() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    for kind in ("PNG", "JPEG", "BMP", "GIF", "TIFF"):
        content = written(Image.fromarray(noise), kind)
        found = refusal(content[: len(content) // 2], name="half").what
        assert found.startswith(("half is damaged or cut off: ", "half is no picture"))


def png_header(width: int, height: int) -> bytes:
    """Return a PNG that promises a size and holds nothing."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + chunk + b"\x00\x00\x00\x00IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))


@pytest.mark.parametrize(
    ("width", "height", "millions"),
    [(8001, 8000, "64.0"), (10_000, 10_000, "100.0"), (60_000, 60_000, "3600.0")],
)
def test_too_many_pixels_are_refused_from_the_header(width: int, height: int, millions: str) -> None:
    found = refusal(png_header(width, height))
    assert found.what == f"the bytes has {millions} million pixels, at most 64.0 million are read"


def test_the_limit_can_be_set() -> None:
    assert "has 0.0 million pixels" in refusal(np.zeros((4, 4), np.uint8), max_pixels=15).what
    assert "pixels, at most" in refusal(Image.new("L", (4, 4)), max_pixels=15).what
    assert read_picture(np.zeros((4, 4), np.uint8), max_pixels=16).size == (4, 4)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "TIFF", "WEBP"])
def test_several_frames_are_refused(kind: str) -> None:
    frames = [Image.new("RGB", (4, 4), (shade, 0, 0)) for shade in (0, 200)]
    content = written(frames[0], kind, save_all=True, append_images=frames[1:])
    assert refusal(content, name="it").what == f"it is a {kind} with several frames or pages"


def test_a_multi_picture_jpeg_is_its_first_picture() -> None:
    frames = [Image.new("RGB", (16, 16), (shade, shade, shade)) for shade in (10, 200)]
    content = written(frames[0], "MPO", save_all=True, append_images=frames[1:])
    assert abs(pixels(content)[0][0][0] - 10) <= 2


@pytest.mark.parametrize("mode", ["F", "I", "LAB"])
def test_pixels_without_an_agreed_range_are_refused(mode: str) -> None:
    found = refusal(written(Image.new(mode, (2, 2)), "TIFF"), name="it").what
    assert found == f"it has pixels of the kind {mode}, which have no agreed range"


@pytest.mark.parametrize(
    ("array", "shown"),
    [
        (np.zeros((2, 2, 3)), "float64[2, 2, 3]"),
        (np.zeros((3, 2, 2), np.uint8), "uint8[3, 2, 2]"),
        (np.zeros((2, 2, 4), np.uint8), "uint8[2, 2, 4]"),
        (np.zeros((1, 2, 2, 3), np.uint8), "uint8[1, 2, 2, 3]"),
        (np.zeros((0, 2), np.uint8), "uint8[0, 2]"),
        (np.zeros(4, np.uint8), "uint8[4]"),
    ],
)
def test_other_arrays_are_refused(array: np.ndarray, shown: str) -> None:
    found = refusal(array)
    assert found.what == f"the array is {shown}"
    assert found.do == "give uint8[height, width, 3] (RGB) or uint8[height, width] (grey)"


def test_other_objects_are_refused() -> None:
    assert refusal(3).what == "a picture is a int"  # type: ignore[arg-type]


def test_damage_is_an_input_error_or_a_picture() -> None:
    """Whatever is changed in a file, Pillow's own errors do not come through."""
    noise = np.random.default_rng(0).integers(0, 255, (20, 25, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a picture"
    image = Image.fromarray(noise)
    seeds = [written(image, kind, exif=exif) for kind in ("PNG", "JPEG", "WEBP", "TIFF")]
    seeds += [written(image, kind) for kind in ("BMP", "GIF")]
    seeds += [written(image.convert(mode), "PNG") for mode in ("L", "LA", "RGBA", "P", "1")]
    chance = random.Random(0)
    for _ in range(600):
        damaged = bytearray(chance.choice(seeds))
        for _ in range(chance.choice((1, 2, 5, 20))):
            damaged[chance.randrange(min(len(damaged), chance.choice((30, 200, 10**9))))] = chance.randrange(
                256
            )
        with contextlib.suppress(InputError):
            found = read_picture(bytes(damaged[: chance.choice((None, chance.randrange(len(damaged))))]))
            assert found.mode in {"L", "RGB"}
