"""Original checkpoints: every key finds its place, and what is wrong with one is said by its keys."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import torch

from anyport.errors import SourceError
from anyport.recipe.blip_original import load_original, renamed
from tests.recipe.blip_folders import CLASSES
from tests.recipe.blip_pth import original_config, original_model, original_weights, save, with_training

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

CAPTION = "BlipForConditionalGeneration"


@pytest.fixture(scope="module", name="weights")
def _weights() -> dict[str, Tensor]:
    return original_weights(original_model(CAPTION))


@torch.no_grad()
def states(module: Any, pictures: Tensor) -> Tensor:
    """Return what the text network makes of a picture and five tokens."""
    embeds, ids = module.vision_model(pictures).last_hidden_state, torch.arange(5)[None]
    if hasattr(module, "text_encoder"):
        answer: Tensor = module.text_encoder(input_ids=ids, encoder_hidden_states=embeds).last_hidden_state
        return answer
    logits: Tensor = module.text_decoder(input_ids=ids, encoder_hidden_states=embeds).logits
    return logits


def failure(path: Path) -> str:
    with pytest.raises(SourceError) as caught:
        load_original(path)
    return caught.value.what


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("visual_encoder.cls_token", "vision_model.embeddings.class_embedding"),
        ("visual_encoder.blocks.11.attn.qkv.weight", "vision_model.encoder.layers.11.self_attn.qkv.weight"),
        ("visual_encoder.blocks.0.norm2.bias", "vision_model.encoder.layers.0.layer_norm2.bias"),
        ("visual_encoder.norm.weight", "vision_model.post_layernorm.weight"),
        (
            "text_encoder.encoder.layer.0.crossattention.self.key.weight",
            "text_encoder.encoder.layer.0.crossattention.self.key.weight",
        ),
        ("text_decoder.cls.predictions.bias", "text_decoder.cls.predictions.bias"),
    ],
)
def test_keys_of_the_repository(key: str, name: str) -> None:
    assert renamed(key) == name


@pytest.mark.parametrize("architecture", CLASSES)
def test_a_checkpoint_gives_the_model_it_was_made_of(architecture: str, tmp_path: Path) -> None:
    module = original_model(architecture)
    weights = original_weights(module)
    assert not any(key.startswith("vision_model") for key in weights)
    found = load_original(save(tmp_path / "model.pth", {"model": with_training(weights)}))
    assert type(found.module) is type(module)
    assert not found.module.training
    loaded, expected = found.module.state_dict(), module.state_dict()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[key], expected[key]) for key in expected)
    pictures = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    assert torch.equal(*(states(m, pictures) for m in (found.module, module))), "norms and heads are the same"
    rules = (found.rules.multimodal_start, found.rules.prompt)
    assert (
        rules
        == {
            CAPTION: (None, "a picture of"),
            "BlipForImageTextRetrieval": (None, ""),
            "BlipForQuestionAnswering": (30523, ""),
        }[architecture]
    )


@pytest.mark.parametrize(("width", "picture"), [(128, 224), (192, 384)])
def test_sizes_are_read_off_the_weights(width: int, picture: int, tmp_path: Path) -> None:
    config = original_config(width, picture)
    weights = original_weights(original_model(CAPTION, config))
    found = load_original(save(tmp_path / "large.pth", {"model": weights})).module.config
    assert found.vision_config.to_dict() | {"initializer_range": 0} == (
        config.vision_config.to_dict() | {"initializer_range": 0}
    )
    for name in ("hidden_size", "encoder_hidden_size", "num_attention_heads", "num_hidden_layers"):
        assert getattr(found.text_config, name) == getattr(config.text_config, name)


def test_a_pretrained_checkpoint_is_for_features_and_matching(tmp_path: Path) -> None:
    """``model_base.pth`` has everything; the original's feature extractor puts [ENC] first."""
    both = original_weights(original_model(CAPTION)) | original_weights(
        original_model("BlipForImageTextRetrieval")
    )
    found = load_original(save(tmp_path / "model_base.pth", {"model": with_training(both)}))
    assert type(found.module).__name__ == "BlipForImageTextRetrieval"
    assert found.rules.multimodal_start == 30523


def test_tied_weights_may_be_left_out(weights: dict[str, Tensor], tmp_path: Path) -> None:
    fewer = {k: v for k, v in weights.items() if not k.startswith("text_decoder.cls.predictions.decoder.")}
    module = load_original(save(tmp_path / "m.pth", {"model": fewer})).module
    head, words = module.text_decoder.cls.predictions, module.text_decoder.bert.embeddings.word_embeddings
    assert head.decoder.weight is words.weight
    assert head.decoder.bias is head.bias


def test_a_state_dict_by_itself_and_half_precision_are_taken(
    weights: dict[str, Tensor], tmp_path: Path
) -> None:
    halves = {k: v.half() if v.is_floating_point() else v for k, v in weights.items()}
    save(tmp_path / "m.pth", halves)
    module = load_original(tmp_path / "m.pth").module
    assert {p.dtype for p in module.parameters()} == {torch.float32}


BLOCK, WORDS = "visual_encoder.blocks.1.mlp.fc1.bias", "text_decoder.bert.embeddings.word_embeddings.weight"


@pytest.mark.parametrize(
    ("gone", "text"),
    [
        (BLOCK, f"'m.pth' as {CAPTION} lacks 1 weights: 'vision_model.encoder.layers.1.mlp.fc1.bias'"),
        ("visual_encoder.pos_embed", "'m.pth' lacks 'visual_encoder.pos_embed'"),
        (WORDS, "'m.pth' lacks 'text_encoder.embeddings.word_embeddings.weight'"),
    ],
)
def test_a_partial_checkpoint_is_refused_by_its_keys(
    gone: str, text: str, weights: dict[str, Tensor], tmp_path: Path
) -> None:
    fewer = {key: value for key, value in weights.items() if key != gone}
    assert failure(save(tmp_path / "m.pth", {"model": fewer})) == text


def test_many_missing_keys_are_counted(weights: dict[str, Tensor], tmp_path: Path) -> None:
    fewer = {key: value for key, value in weights.items() if ".crossattention." not in key}
    text = failure(save(tmp_path / "m.pth", {"model": fewer}))
    assert text.startswith(f"'m.pth' as {CAPTION} lacks 20 weights: 'text_decoder.bert.encoder.layer.0.cross")
    assert text.endswith("' and 15 more")


def test_unknown_keys_and_shapes_are_refused(weights: dict[str, Tensor], tmp_path: Path) -> None:
    more = weights | {"cls_head.0.weight": torch.zeros(2)}
    assert failure(save(tmp_path / "m.pth", {"model": more})) == (
        f"'m.pth' as {CAPTION} has unknown 1 weights: 'cls_head.0.weight'"
    )
    other = weights | {BLOCK: torch.zeros(7)}
    assert failure(save(tmp_path / "m.pth", {"model": other})) == (
        f"'m.pth' as {CAPTION}: 'vision_model.encoder.layers.1.mlp.fc1.bias' is [7], not [256]"
    )


def test_what_is_no_checkpoint_of_blip(weights: dict[str, Tensor], tmp_path: Path) -> None:
    assert "has no 'visual_encoder.*': it is no checkpoint of salesforce/BLIP; it has 'conv1.weight'" in (
        failure(save(tmp_path / "m.pth", {"model": {"conv1.weight": torch.zeros(1)}}))
    )
    vision = {key: value for key, value in weights.items() if key.startswith("visual_encoder.")}
    assert "has no 'text_decoder.*' and no 'itm_head.*'" in failure(
        save(tmp_path / "m.pth", {"model": vision})
    )
    assert failure(tmp_path / "absent.pth") == "there is no file 'absent.pth'"
    save(tmp_path / "m.pth", [1, 2])
    assert failure(tmp_path / "m.pth") == "'m.pth' holds no state_dict, neither by itself nor under 'model'"
    (tmp_path / "m.pth").write_bytes(b"no zip")
    assert failure(tmp_path / "m.pth").startswith("'m.pth' is no checkpoint that holds weights alone: ")


class Evil:
    """Runs when it is unpickled."""

    def __reduce__(self) -> Any:
        return (print, ("code of the checkpoint has run",))


def test_nothing_in_a_checkpoint_is_run(
    weights: dict[str, Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "m.pth", {"model": weights, "config": Evil()})
    assert re.match(r"'m\.pth' is no checkpoint that holds weights alone: ", failure(tmp_path / "m.pth"))
    assert "has run" not in capsys.readouterr().out
