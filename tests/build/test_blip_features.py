"""BLIP's feature extractor as a bundle of its own: image, text and multimodal, equal to PyTorch.

The modes are those of ``blip_feature_extractor`` in salesforce/BLIP (models/blip.py): the states of the
vision encoder; those of the text encoder alone; those of the text encoder that sees the picture, whose text
begins with [ENC].
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import BertTokenizer
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

import anyport
from anyport.build import BuildPlan, build, describe
from anyport.cli import main
from tests.build.building import QUICK, silent
from tests.recipe.blip_folders import tiny_model, write_bert_vocabulary, write_folder
from tests.recipe.blip_pth import original_model, original_weights, save

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RETRIEVAL: Final = "BlipForImageTextRetrieval"
PARTS: Final = ["vision_encoder", "text_encoder", "multimodal_encoder", "image_projection", "text_projection"]
TEXTS: Final = ["what colour is it?", "two cats standing next to the second dog, or a bird", "photo"]
CLS, ENC = 101, 30523
# rounding of a network of two layers in float32: states are about 3, features have length 1
TOLERANCE: Final = {"states": 2e-5, "features": 5e-6}


@dataclass(frozen=True, slots=True)
class Built:
    """A feature extractor, the model it was made of, and how its own code begins a text with a picture."""

    bundle: Path
    module: Any
    tokenizer: Any
    size: int
    first: int | None


def built(folder: Path, source: str) -> Path:
    description = describe({"model": {"source": source, "task": "embed"}}, "test")
    how = replace(QUICK, max_cases=4, allow=frozenset({"inconclusive"}))
    return build(BuildPlan(description, folder, folder / "features.port", how), silent).path


def of_transformers(folder: Path) -> Built:
    write_folder(RETRIEVAL, folder / "tiny", n_layers=1)
    tokenizer = BertTokenizer(vocab=str(folder / "tiny" / "vocab.txt"))
    return Built(built(folder, "tiny"), tiny_model(RETRIEVAL, n_layers=1), tokenizer, 32, None)


def of_the_original(folder: Path) -> Built:
    module = original_model(RETRIEVAL)
    write_bert_vocabulary(folder)
    save(folder / "model.pth", {"model": original_weights(module)})
    tokenizer = BertTokenizer(vocab=str(folder / "vocab.txt"))
    return Built(built(folder, "model.pth"), module, tokenizer, 224, ENC)


@pytest.fixture(scope="module", params=[of_transformers, of_the_original])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Built:
    write: Callable[[Path], Built] = request.param
    return write(tmp_path_factory.mktemp("features"))


def pictures(folder: Path) -> list[Path]:
    random, found = np.random.default_rng(0), []
    for i in range(len(TEXTS)):
        found.append(folder / f"{i}.png")
        Image.fromarray(random.integers(0, 256, (9 + i, 14, 3), np.uint8)).resize((90, 70)).save(found[-1])
    return found


def features_of(made: Built, picture: Path, text: str, mode: str) -> np.ndarray:
    """Return what PyTorch's modules make of one picture and one text."""
    processor = BlipImageProcessorPil(size={"height": made.size, "width": made.size})
    with torch.no_grad(), Image.open(picture) as image:
        values = processor(image, return_tensors="pt")["pixel_values"]
        seen = made.module.vision_model(pixel_values=values).last_hidden_state
        if mode == "image":
            return np.asarray(seen[0])
        ids = made.tokenizer(text, return_tensors="pt")["input_ids"]
        if mode == "text":
            return np.asarray(made.module.text_encoder(input_ids=ids).last_hidden_state[0])
        if made.first is not None:
            ids[:, 0] = made.first
        states = made.module.text_encoder(input_ids=ids, encoder_hidden_states=seen).last_hidden_state
        return np.asarray(states[0])


def test_it_has_the_parts_that_it_uses(made: Built) -> None:
    with anyport.open_bundle(made.bundle) as bundle:
        assert bundle.manifest.task == "embed"
        assert list(bundle.manifest.parts) == PARTS
        start = bundle.manifest.settings["text"]["multimodal_start"]
    assert start == (made.tokenizer.cls_token_id if made.first is None else made.first)


@pytest.mark.parametrize("mode", ["image", "text", "multimodal"])
def test_states_are_those_of_pytorch(
    made: Built, mode: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files, texts, out = pictures(tmp_path), tmp_path / "t.txt", tmp_path / "out.npz"
    texts.write_text("\n".join(TEXTS), encoding="utf-8")
    words = ["run", str(made.bundle), *map(str, files if mode != "text" else [])]
    words += ["--mode", mode, "-o", str(out), *(["--texts", str(texts)] if mode != "image" else [])]
    assert main(words) == 0, capsys.readouterr().err
    capsys.readouterr()
    with np.load(out, allow_pickle=False) as arrays:  # noqa: TID251 -- our own file
        states, mask = arrays["states"], arrays["mask"]
        assert ("features" in arrays) == (mode != "multimodal")
    expected = [features_of(made, *both, mode) for both in zip(files, TEXTS, strict=True)]
    for i, one in enumerate(expected):
        assert mask[i].sum() == len(one)
        np.testing.assert_allclose(states[i, : len(one)], one, atol=TOLERANCE["states"], rtol=1e-5)
    assert all(np.abs(expected[0][0] - other[0]).max() > 0.01 for other in expected[1:]), "they differ"


def test_features_are_the_projections_of_the_first_states(made: Built, tmp_path: Path) -> None:
    file = pictures(tmp_path)[0]
    with anyport.open_task(made.bundle) as task:
        [image], [text] = task.embed_pictures([file]), task.embed_texts(TEXTS[:1])
    for found, mode, projection in (
        (image, "image", made.module.vision_proj),
        (text, "text", made.module.text_proj),
    ):
        with torch.no_grad():
            first = torch.from_numpy(features_of(made, file, TEXTS[0], mode)[:1])
            expected = torch.nn.functional.normalize(projection(first), dim=-1)[0].numpy()
        np.testing.assert_allclose(found.features, expected, atol=TOLERANCE["features"])


def test_another_first_token_is_another_answer(made: Built, tmp_path: Path) -> None:
    """The comparison can fail: [CLS] in the place of [ENC], or the other way round, is seen."""
    file = pictures(tmp_path)[0]
    wrong = replace(made, first=CLS if made.first == ENC else made.tokenizer.mask_token_id)
    right, other = (features_of(one, file, TEXTS[0], "multimodal") for one in (made, wrong))
    assert np.abs(right - other).max() > 100 * TOLERANCE["states"]


def test_nothing_is_written_of_wrong_input(
    made: Built, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    good, bad, texts = pictures(tmp_path)[0], tmp_path / "bad.png", tmp_path / "t.txt"
    bad.write_bytes(good.read_bytes()[:-100])
    texts.write_text("what\n" * 2, encoding="utf-8")
    for words, message in (
        (["--mode", "image", str(good), str(bad)], "bad.png is damaged or cut off"),
        (["--mode", "multimodal", str(good), "--texts", str(tmp_path / "no.txt")], "no.txt cannot be read"),
        (["--mode", "multimodal", *[str(good)] * 3, "--texts", str(texts)], "3 pictures and 2 texts"),
        (["--mode", "text", "--texts", str(bad)], "bad.png is no UTF-8 text"),
        (["--mode", "vision", str(good)], "Invalid value for '--mode': 'vision'"),
    ):
        assert main(["run", str(made.bundle), *words, "-o", str(tmp_path / "out" / "o.npz")]) == 2
        assert message in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())
