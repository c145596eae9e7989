"""Tokens, initialisation, latents, training steps: what the weights were made with."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLQwenImage, QwenImageEditPlusPipeline
from drawing import render
from edits import KINDS, any_edit
from latents import Codec, packed, unpacked, write_families
from muon import Muon, orthogonal
from networks import compilable, new_transformer
from prompts import N_PICTURE_TOKENS, PICTURE
from sampling import noise_levels, velocity
from still_vae import decode, deflate, encode, inflate, new_vae, one_frame
from tokens import N_PREFIX, PREFIX, SUFFIX, learn
from torch import nn
from train_editor import N_PROMPT_TOKENS, SHARES, Editor, Examples, Training
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from vision import MEAN, MERGE, PATCH, PIXELS, STD, patches, seen
from wording import LANGUAGES, instruction
from world import Item, Scene, any_scene

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import Qwen2Tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Qwen2Tokenizer:
    return learn()


@pytest.fixture
def vae() -> AutoencoderKLQwenImage:
    torch.manual_seed(0)
    return new_vae().eval()


def cards(n_cards: int) -> np.ndarray:
    draw = random.Random(0)
    return np.stack([render(any_scene(draw)) for _ in range(n_cards)])


def test_the_beginning_of_the_template_is_64_tokens(tokenizer: Qwen2Tokenizer) -> None:
    assert len(tokenizer(PREFIX)["input_ids"]) == N_PREFIX


def test_words_are_tokens_and_colours_compose(tokenizer: Qwen2Tokenizer) -> None:
    def tokens(text: str) -> list[str]:
        return [tokenizer.decode([number]) for number in tokenizer(text)["input_ids"]]

    assert tokens("把白色T恤换成黑色") == ["把", "白色", "T恤", "换", "成", "黑色"]
    assert tokens("make the red mug blue") == ["make", " the", " red", " mug", " blue"]


def test_every_instruction_comes_back_and_fits(tokenizer: Qwen2Tokenizer) -> None:
    draw = random.Random(1)
    for _ in range(1000):
        edit = any_edit(draw, any_scene(draw), draw.choice(KINDS))
        if edit:
            text = instruction(draw, edit, draw.choice(LANGUAGES))
            assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
            assert len(tokenizer(PICTURE + text + SUFFIX)["input_ids"]) <= N_PROMPT_TOKENS


def test_a_fresh_transformer_answers_that_nothing_changes() -> None:
    torch.manual_seed(0)
    transformer, reference = new_transformer(), torch.randn(4, 16, 64)
    noise, level = torch.randn_like(reference), torch.tensor([1.0, 0.9, 0.8, 0.7])
    noisy = (1 - level.view(-1, 1, 1)) * reference + level.view(-1, 1, 1) * noise
    prompts = (torch.randn(4, 5, transformer.config.joint_attention_dim), torch.ones(4, 5, dtype=torch.bool))
    with torch.no_grad():
        found = velocity(transformer, noisy, reference, level, prompts)
        with compilable():
            assert torch.allclose(velocity(transformer, noisy, reference, level, prompts), found, atol=2e-5)
    error = (found - (noise - reference)).square().mean().item()
    assert error < 0.15 * (noise - reference).square().mean().item()


def test_single_frames_need_the_last_slice_alone(vae: AutoencoderKLQwenImage) -> None:
    pictures = torch.from_numpy(cards(3)).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        latents = vae.encode(pictures.unsqueeze(2)).latent_dist.mode()
        wanted = vae.decode(latents).sample[:, :, 0]
        deflate(vae)
        with one_frame():
            mean, _ = encode(vae, pictures)
            found = decode(vae, mean).clamp(-1, 1)
        assert torch.allclose(mean, latents[:, :, 0], atol=1e-5)
        assert torch.allclose(found, wanted, atol=1e-5)
        again = inflate(vae).encode(pictures.unsqueeze(2)).latent_dist.mode()
    assert torch.allclose(again, latents, atol=1e-5)


def test_latents_are_packed_as_the_pipeline_packs_them() -> None:
    latents = torch.randn(2, 16, 8, 8)
    wanted = QwenImageEditPlusPipeline._pack_latents(latents.unsqueeze(2), 2, 16, 8, 8)
    assert torch.equal(packed(latents), wanted)
    assert torch.equal(unpacked(packed(latents), 8), latents)


def test_the_tower_sees_what_the_processor_makes() -> None:
    least, most = PIXELS
    processor = Qwen2VLImageProcessorPil(
        size={"shortest_edge": least, "longest_edge": most},
        patch_size=PATCH,
        merge_size=MERGE,
        temporal_patch_size=2,
        image_mean=list(MEAN),
        image_std=list(STD),
    )
    small = seen(cards(2))
    found, grid = patches(torch.from_numpy(small))
    wanted = processor(images=list(small), return_tensors="pt")
    assert torch.equal(grid, wanted["image_grid_thw"])
    assert torch.allclose(found, wanted["pixel_values"], atol=1e-6)
    assert int(grid[0].prod()) // MERGE**2 == N_PICTURE_TOKENS


def test_levels_fall_to_zero_and_one_step_goes_all_the_way() -> None:
    assert noise_levels(1, 16).tolist() == [1.0, 0.0]
    for n_steps in (2, 4, 20):
        levels = noise_levels(n_steps, 16)
        assert (len(levels), levels[0].item(), levels[-1].item()) == (n_steps + 1, 1.0, 0.0)
        assert levels[-2].item() == pytest.approx(0.02, abs=1e-5)
        assert (levels.diff() < 0).all()


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 8, 32), (2, 32, 8)])
def test_orthogonal_matrices_have_singular_values_near_one(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonal(torch.randn(shape)))
    assert values.min() > 0.3  # a square matrix of noise has a value near zero
    assert values.max() < 1.3


def test_the_optimiser_finds_a_minimum() -> None:
    torch.manual_seed(0)
    wanted, found = torch.randn(8, 16), nn.Parameter(torch.zeros(8, 16))
    for step in range(200):
        optimiser = Muon([found], lr=0.2 * (1 - step / 200), momentum=0.0)
        (found - wanted).square().sum().backward()
        optimiser.step()
        optimiser.zero_grad()
    assert (found - wanted).abs().max() < 0.1


@pytest.fixture(scope="module")
def latents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with one small file of latents."""
    folder = tmp_path_factory.mktemp("latents")
    torch.manual_seed(0)
    write_families(Codec(new_vae()), 0, folder, n_families=4)
    return folder


def test_training_goes_on_where_it_was_saved(
    latents: Path, tmp_path: Path, tokenizer: Qwen2Tokenizer
) -> None:
    examples = Examples(latents, SHARES, seed=0, n_families=4)
    batch = examples.batch()
    assert batch.before.shape == batch.after.shape == (64, 16, 64)
    assert len(examples) > 100
    torch.manual_seed(0)
    training = Training(Editor(tokenizer, torch.device("cpu")), 100)
    before = {name: tensor.detach().clone() for name, tensor in training.editor.parameters.items()}
    losses = [training.take_step(batch) for _ in range(3)]
    assert all(np.isfinite(losses))
    assert all(
        not torch.equal(before[name], tensor)
        for name, tensor in training.editor.parameters.items()
        if "transformer_blocks.0.img_mlp" in name
    )
    training.save(tmp_path / "training.pt")
    other = Training(Editor(tokenizer, torch.device("cpu")), 100)
    other.resume(tmp_path / "training.pt")
    assert other.step == 3
    for one in (training, other):
        torch.manual_seed(1)
        one.take_step(batch)
    for name, tensor in training.editor.parameters.items():
        assert torch.equal(tensor, other.editor.parameters[name]), name
        assert torch.equal(training.editor.mean[name], other.editor.mean[name]), name


def test_a_card_without_products_can_be_encoded(vae: AutoencoderKLQwenImage) -> None:
    pictures = np.stack(
        [
            render(Scene("grey", "plain", ())),
            render(Scene("grey", "plain", (Item("mug", "red", 0.5, 0.9, 0.5),))),
        ]
    )
    codec = Codec(vae)
    tokens = codec.encode(pictures)
    assert tokens.shape == (2, 16, 64)
    assert codec.decode(tokens, 64).shape == pictures.shape
