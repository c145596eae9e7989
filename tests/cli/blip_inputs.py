"""What users put in front of a bundle by mistake, and what they may: pictures, texts, checkpoints."""

from __future__ import annotations

import json
import shutil
import struct
import zlib
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image

from tests.recipe.blip_folders import WORDS, tiny_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_TURNED: Final = 6  # EXIF 2.32, tag 274: to be turned by 90 degrees
LONG: Final = "photo " * 1667  # 10,002 characters
N_FIT: Final = 62  # of 64 positions


# ── pictures ────────────────────────────────────────────────────────────────────────────────────────────
def photo() -> Image.Image:
    """Return a picture of smooth colours, higher than wide."""
    coarse = np.random.default_rng(3).integers(0, 256, (5, 4, 3), np.uint8)
    return Image.fromarray(coarse).resize((60, 80), Image.Resampling.BICUBIC)


def png(width: int, height: int, depth: int, rows: bytes) -> bytes:
    """Return an RGB PNG, which Pillow does not write with 16 bits."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def _deep(image: Image.Image) -> bytes:
    deep = np.asarray(image).astype(">u2") * 257
    rows = b"".join(b"\0" + row.tobytes() for row in deep.astype(">u2"))
    return png(*image.size, 16, rows)


def write_pictures(folder: Path) -> None:
    """Write every picture that `PICTURES` and `REFUSED` name, and the plain ones that stand for them."""
    image = photo()
    grey, clear = image.convert("L"), image.convert("RGBA")
    clear.putalpha(grey)
    palette = image.quantize(16)
    exif = Image.Exif()
    exif[0x0112] = _TURNED
    image.save(folder / "plain.png")
    image.save(folder / "turned.png", exif=exif)
    image.transpose(Image.Transpose.ROTATE_270).save(folder / "upright.png")
    clear.save(folder / "alpha.png")
    white = Image.new("RGBA", image.size, "white")
    Image.alpha_composite(white, clear).convert("RGB").save(folder / "on_white.png")
    palette.save(folder / "palette.png", transparency=3)
    holes = np.asarray(palette.convert("RGB")).copy()
    holes[np.asarray(palette) == 3] = 255  # the colour that is transparent
    Image.fromarray(holes).save(folder / "holes.png")
    image.convert("CMYK").save(folder / "cmyk.tiff")
    image.convert("CMYK").convert("RGB").save(folder / "from_cmyk.png")
    Image.fromarray(np.asarray(grey).astype(np.uint16) * 257).save(folder / "grey16.png")
    grey.save(folder / "grey.png")
    (folder / "rgb16.png").write_bytes(_deep(image))
    image.resize((1, 1)).save(folder / "one.png")
    image.resize((20_000, 10)).save(folder / "long.png")
    _write_refused(folder, image)


def _write_refused(folder: Path, image: Image.Image) -> None:
    (folder / "bomb.png").write_bytes(png(20_000, 20_000, 8, b"\0" * 100))
    more = [image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    for name in ("moving.gif", "moving.webp", "moving.png", "pages.tiff"):
        image.save(folder / name, save_all=True, append_images=more)
    (folder / "text.jpg").write_text("a text", encoding="utf-8")
    image.save(folder / "cut.jpg")
    whole = (folder / "cut.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.png").write_bytes(b"")
    (folder / "folder.png").mkdir()
    image.convert("F").save(folder / "float.tiff")


PICTURES: Final = {  # what is read -> the plain picture that it means
    "alpha.png": "on_white.png",
    "cmyk.tiff": "from_cmyk.png",
    "grey16.png": "grey.png",
    "long.png": None,
    "one.png": None,
    "palette.png": "holes.png",
    "rgb16.png": "plain.png",
    "turned.png": "upright.png",
}
REFUSED: Final = {
    "bomb.png": "has 400.0 million pixels, at most 64.0 million are read\n  do:    give a smaller picture",
    "cut.jpg": "is damaged or cut off: image file is truncated",
    "empty.png": "is empty: 0 bytes\n  do:    give PNG, JPEG, WebP, BMP, GIF or TIFF",
    "float.tiff": "has pixels of the kind F, which have no agreed range",
    "folder.png": "is a folder, not a picture",
    "moving.gif": "is a GIF with several frames or pages\n  do:    save the one that is meant",
    "moving.png": "is a PNG with several frames or pages",
    "moving.webp": "is a WEBP with several frames or pages",
    "pages.tiff": "is a TIFF with several frames or pages",
    "text.jpg": "is no picture that anyport reads\n  do:    give PNG, JPEG, WebP, BMP, GIF or TIFF",
}


# ── texts ───────────────────────────────────────────────────────────────────────────────────────────────
TEXTS: Final = {  # texts that are read, though the tokenizer knows little of them
    "Chinese": "猫は何色?",
    "control": "what\0 colour\a is it",
    "emoji": "what 🐱 is it",
    "marks": "[CLS] [SEP] [PAD] what",
    "newline": "what\ncolour",
    "accents": "whát cölour",
    "unknown": "zyxwv qqq",
}
TEXT_FILES: Final = {
    "bad.txt": (b"a cat\n\xff\xfe\n", "bad.txt is no UTF-8 text: invalid start byte at byte 6"),
    "blank.txt": (b"\n  \t\n", "blank.txt holds no text\n  do:    write one text on each line"),
    "empty.txt": (b"", "empty.txt holds no text\n  do:    write one text on each line"),
    "long.txt": (f"a cat\n{LONG}\n".encode(), f"text 2 has 1667 tokens, {N_FIT} fit\n  do:    shorten it"),
    "utf16.txt": ("a cat\n".encode("utf-16"), "utf16.txt is no UTF-8 text: invalid start byte at byte 0"),
}


# ── checkpoints ─────────────────────────────────────────────────────────────────────────────────────────
def write_shards(folder: Path) -> None:
    """Replace the weights of a tiny captioner by several files of them."""
    (folder / "model.safetensors").unlink()
    tiny_model("BlipForConditionalGeneration", n_layers=1).save_pretrained(folder, max_shard_size="50KB")


def _second(folder: Path) -> Path:
    return sorted(folder.glob("model-*.safetensors"))[1]


def _cut(folder: Path) -> None:
    shard = _second(folder)
    shard.write_bytes(shard.read_bytes()[:-100])


def _without_architectures(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    del config["architectures"]
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def _swapped_marks(folder: Path) -> None:
    words = [*WORDS]
    words[3], words[60] = words[60], words[3]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")


def _more_words(folder: Path) -> None:
    words = [*WORDS, *(f"word{i}" for i in range(50))]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")


CHECKPOINTS: Final[dict[str, tuple[Callable[[Path], object], str]]] = {  # how it is spoilt, what is said
    "a missing shard": (
        lambda folder: _second(folder).unlink(),
        "'tiny' lacks 1 of its 5 files of weights: 'model-00002-of-00005.safetensors'",
    ),
    "a shard that is cut off": (_cut, "'model-00002-of-00005.safetensors' is no safetensors file: "),
    "an empty shard": (
        lambda folder: _second(folder).write_bytes(b""),
        "'model-00002-of-00005.safetensors' is no safetensors file: ",
    ),
    "no architectures": (_without_architectures, "'tiny' has no config.json that names its architecture"),
    "a config that is no JSON": (
        lambda folder: (folder / "config.json").write_text("{"),
        "'tiny' has no config.json that names its architecture",
    ),
    "no tokenizer": (
        lambda folder: (folder / "vocab.txt").unlink(),
        "'tiny' has neither tokenizer.json nor vocab.txt",
    ),
    "a tokenizer with other marks": (
        _swapped_marks,
        "[SEP] is token 60 of the tokenizer, and 3 of the network\n  do:    give the tokenizer that belongs",
    ),
    "a tokenizer with more words": (
        _more_words,
        f"the tokenizer has {len(WORDS) + 50} tokens, the network knows {len(WORDS) + 2}",
    ),
    "a processor that is no JSON": (
        lambda folder: (folder / "preprocessor_config.json").write_text("{"),
        "preprocessor_config.json is no JSON: ",
    ),
    "no weights": (
        lambda folder: [path.unlink() for path in folder.glob("model*")],
        "'tiny' has no weights",
    ),
}


def spoilt(checkpoint: Path, folder: Path, spoil: Callable[[Path], object]) -> Path:
    """Return a copy of a checkpoint that is not as it should be."""
    copy = shutil.copytree(checkpoint, folder / "tiny")
    spoil(copy)
    return copy
