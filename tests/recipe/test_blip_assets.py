"""What surrounds a BLIP checkpoint: tokens and pixels are those of transformers' own processors."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from tokenizers import Tokenizer
from transformers import BertTokenizer
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

from anyport.errors import SourceError
from anyport.recipe.blip_assets import (
    TextRules,
    find_file,
    open_tokenizer,
    picture_settings,
    read_tokenizer,
    text_settings,
)
from anyport.task.picture_settings import PictureSettings, fit_picture, pixel_values
from tests.recipe.blip_folders import BOS, WORDS, tiny_config, write_vocabulary

if TYPE_CHECKING:
    from pathlib import Path

TEXTS = ["a photo of two cats", "What colour is it?", "", "Naïve café, 北京!", "left-standing unknowable æ"]


def failure(call: Any, *arguments: Any) -> str:
    with pytest.raises(SourceError) as caught:
        call(*arguments)
    return caught.value.what


# ── tokenizer ───────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("lower", [None, True, False])
def test_a_vocabulary_becomes_the_tokenizer_of_bert(lower: bool | None, tmp_path: Path) -> None:
    write_vocabulary(tmp_path)
    words: dict[str, bool] = {}
    if lower is not None:
        words = {"do_lower_case": lower}
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(words), encoding="utf-8")
    content = read_tokenizer(tmp_path)
    assert content == read_tokenizer(tmp_path)
    mine, theirs = open_tokenizer(content), BertTokenizer(vocab=str(tmp_path / "vocab.txt"), **words)
    for text in TEXTS:
        expected = theirs(text, add_special_tokens=False)["input_ids"]
        assert mine.encode(text, add_special_tokens=False).ids == expected
        assert mine.decode(expected) == theirs.decode(expected, skip_special_tokens=True)


def test_a_tokenizer_file_is_kept_byte_for_byte(tmp_path: Path) -> None:
    write_vocabulary(tmp_path)
    made = json.dumps(json.loads(read_tokenizer(tmp_path)), indent=3).encode() + b"\n\n"
    (tmp_path / "tokenizer.json").write_bytes(made)
    assert read_tokenizer(tmp_path) == made
    assert find_file(tmp_path, "nope.json", "vocab.txt") == tmp_path / "vocab.txt"


def test_a_tokenizer_that_is_not_there_or_none(tmp_path: Path) -> None:
    assert failure(read_tokenizer, tmp_path) == f"'{tmp_path.name}' has neither tokenizer.json nor vocab.txt"
    (tmp_path / "vocab.txt").write_text("[UNK]\ncat\ncat\n", encoding="utf-8")
    assert failure(read_tokenizer, tmp_path) == (
        "vocab.txt is no vocabulary of BERT: 3 lines, 2 different ones, "
        "'[UNK]' and '[CLS]' must be among them"
    )
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    assert failure(read_tokenizer, tmp_path).startswith("tokenizer.json cannot be read: ")
    words = {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}
    blank = Tokenizer.from_str(json.dumps({"version": "1.0", "model": words}))
    assert failure(open_tokenizer, blank.to_str().encode()) == (
        "the tokenizer has no token [CLS], which every text begins with"
    )


def test_text_settings(tmp_path: Path) -> None:
    write_vocabulary(tmp_path)
    content, config = read_tokenizer(tmp_path), tiny_config().text_config
    expected = {
        "tokenizer": "assets/tokenizer.json",
        "start": 2,
        "multimodal_start": 2,
        "bos": BOS,
        "sep": 3,
        "pad": 0,
        "max_length": 64,
    }
    assert text_settings(content, config, TextRules()) == expected
    assert text_settings(content, config, TextRules(multimodal_start=9)) == expected | {"multimodal_start": 9}
    config.vocab_size = len(WORDS) - 1
    assert failure(text_settings, content, config, TextRules()) == (
        f"the tokenizer has {len(WORDS)} tokens, the network knows {len(WORDS) - 1}"
    )


@pytest.mark.parametrize(("mark", "place"), [("[SEP]", 3), ("[PAD]", 0)])
def test_a_tokenizer_of_another_vocabulary_is_refused(mark: str, place: int, tmp_path: Path) -> None:
    words = [*WORDS]
    words[place], words[60] = words[60], words[place]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    with pytest.raises(SourceError) as caught:
        text_settings(read_tokenizer(tmp_path), tiny_config().text_config, TextRules())
    assert str(caught.value) == (
        f"{mark} is token 60 of the tokenizer, and {place} of the network\n"
        "  do:    give the tokenizer that belongs to this checkpoint"
    )


@pytest.mark.parametrize("name", ["tokenizer_config.json", "preprocessor_config.json"])
@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"{", "is no JSON: Expecting property name"),
        (b"[]", "holds a list, not an object"),
        (b"\xff", "is no JSON: 'utf-8'"),
    ],
)
def test_a_damaged_file_is_named(name: str, content: bytes, why: str, tmp_path: Path) -> None:
    write_vocabulary(tmp_path)
    (tmp_path / name).write_bytes(content)
    read = {
        "tokenizer_config.json": read_tokenizer,
        "preprocessor_config.json": lambda at: picture_settings(at, 32),
    }
    assert failure(read[name], tmp_path).startswith(f"{name} {why}")


def test_a_vocabulary_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_bytes(b"[UNK]\n\xff\xfe")
    assert failure(read_tokenizer, tmp_path) == "vocab.txt is no UTF-8 text: invalid start byte at byte 6"


# ── pictures ────────────────────────────────────────────────────────────────────────────────────────────
PROCESSORS: list[dict[str, Any]] = [
    {},
    {"size": {"height": 48, "width": 48}},
    {"resample": 2, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]},
    {"do_normalize": False, "rescale_factor": 1 / 127.5},
    {"do_rescale": False},
]


@pytest.mark.parametrize("content", PROCESSORS, ids=str)
@pytest.mark.parametrize("name", ["preprocessor_config.json", "processor_config.json"])
def test_numbers_are_those_of_the_image_processor(name: str, content: dict[str, Any], tmp_path: Path) -> None:
    written = content if name == "preprocessor_config.json" else {"image_processor": content}
    (tmp_path / name).write_text(json.dumps(written), encoding="utf-8")
    settings = PictureSettings(**picture_settings(tmp_path, 48))
    settings.check()
    processor = BlipImageProcessorPil(**({"size": {"height": 48, "width": 48}} | content))
    generator = np.random.default_rng(0)
    for height, width in [(75, 100), (48, 48), (1, 1), (300, 41)]:
        pixels = generator.integers(0, 256, (height, width, 3), np.uint8)
        picture = Image.fromarray(pixels)
        expected = np.asarray(processor(picture, return_tensors="np")["pixel_values"])
        found = pixel_values([fit_picture(picture, settings, "picture")], settings, "float32")
        assert np.abs(found - expected).max() <= 4e-6 * max(1.0, np.abs(expected).max())


def test_a_checkpoint_without_a_file_is_as_published(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"size": {"height": 384, "width": 384}}))
    published = picture_settings(tmp_path, 384)
    (tmp_path / "preprocessor_config.json").unlink()
    assert picture_settings(tmp_path, 384) == published
    assert (published["size"], published["resample"], published["mode"]) == ([384, 384], "bicubic", "RGB")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (
            {"size": {"height": 224, "width": 224}},
            "has size = {'height': 224, 'width': 224}, the network takes pictures of 48 x 48",
        ),
        ({"size": {"shortest_edge": 48}}, "has size = {'shortest_edge': 48}, the network takes pictures"),
        ({"do_resize": False}, "has do_resize = false, do_convert_rgb = false or do_center_crop = true"),
        ({"do_center_crop": True}, "has do_resize = false, do_convert_rgb = false or do_center_crop = true"),
        ({"resample": 9}, "has resample = 9, expected 0 to 5"),
    ],
)
def test_steps_that_the_processor_has_not(content: dict[str, Any], text: str, tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(content), encoding="utf-8")
    assert failure(picture_settings, tmp_path, 48).startswith(f"preprocessor_config.json {text}")
