"""Each network answers what transformers' whole model answers, padded or not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from anyport.recipe.blip_networks import (
    CrossKeys,
    ImageProjection,
    ItmHead,
    MultimodalEncoder,
    TextDecoder,
    TextEncoder,
    TextProjection,
    VisionEncoder,
    honour_cross_mask,
)
from tests.recipe.blip_folders import BOS, tiny_model

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(scope="module", name="captioner")
def _captioner() -> Any:
    return tiny_model("BlipForConditionalGeneration")


@pytest.fixture(scope="module", name="matcher")
def _matcher() -> Any:
    return tiny_model("BlipForImageTextRetrieval")


def pictures(n: int) -> Tensor:
    return torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(n))


def tokens(n: int, length: int) -> Tensor:
    return torch.randint(5, 80, (n, length), generator=torch.Generator().manual_seed(length))


def ones(*shape: int) -> Tensor:
    return torch.ones(shape, dtype=torch.int64)


class Decoding:
    """The decoder of a model with what it attends to; calls are steps of one cache."""

    def __init__(self, model: Any, states: Tensor, cross_mask: Tensor | None = None) -> None:
        decoder = model.text_decoder
        self.network = TextDecoder(decoder)
        self.cross = CrossKeys(decoder.bert.encoder.layer)(states)
        self.cross_mask = ones(*states.shape[:2]) if cross_mask is None else cross_mask
        n, heads, _, size = self.cross[0].shape
        self.past: tuple[Tensor, ...] = tuple(torch.zeros(n, heads, 0, size) for _ in self.cross)
        self.mask = ones(n, 0)

    @torch.no_grad()
    def __call__(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the logits after these tokens."""
        self.mask = torch.cat([self.mask, ones(*ids.shape) if mask is None else mask], 1)
        positions = (self.mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        logits, *self.past = self.network(ids, self.mask, positions, self.cross_mask, *self.past, *self.cross)
        return logits


@torch.no_grad()
def test_the_decoder_is_that_of_the_model(captioner: Any) -> None:
    states = VisionEncoder(captioner.vision_model)(pictures(2))
    assert torch.equal(states, captioner.vision_model(pictures(2)).last_hidden_state)
    ids = tokens(2, 6)
    expected = captioner.text_decoder(input_ids=ids, encoder_hidden_states=states, is_decoder=True).logits
    whole, steps = Decoding(captioner, states), Decoding(captioner, states)
    torch.testing.assert_close(whole(ids), expected[:, -1], **CLOSE)
    torch.testing.assert_close(steps(ids[:, :4]), expected[:, 3], **CLOSE)
    torch.testing.assert_close(steps(ids[:, 4:5]), expected[:, 4], **CLOSE)
    torch.testing.assert_close(steps(ids[:, 5:]), expected[:, 5], **CLOSE)


@torch.no_grad()
def test_greedy_tokens_are_those_of_generate(captioner: Any) -> None:
    picture = pictures(1)
    expected = captioner.generate(pixel_values=picture, do_sample=False, num_beams=1, max_new_tokens=8)
    decoding = Decoding(captioner, VisionEncoder(captioner.vision_model)(picture))
    found = [torch.tensor([[BOS]])]
    for _ in range(expected.shape[1] - 1):
        found.append(decoding(found[-1]).argmax(-1, keepdim=True))
    assert torch.cat(found, 1).tolist() == expected.tolist()


def test_a_prompt_padded_at_the_left_is_read_as_alone(captioner: Any) -> None:
    states = torch.randn(2, 17, 48, generator=torch.Generator().manual_seed(1))
    ids, mask = tokens(2, 5), ones(2, 5)
    mask[0, :3] = 0
    both = Decoding(captioner, states)(ids, mask)
    alone = Decoding(captioner, states[:1])(ids[:1, 3:])
    torch.testing.assert_close(both[:1], alone, **CLOSE)


def test_padded_states_are_not_attended_to(captioner: Any) -> None:
    """The cure: without it the mask is lost, which the last line holds on to."""
    states = torch.randn(1, 9, 48, generator=torch.Generator().manual_seed(2))
    mask = ones(1, 9)
    mask[:, 6:] = 0
    masked = Decoding(captioner, states, mask)(tokens(1, 3))
    torch.testing.assert_close(masked, Decoding(captioner, states[:, :6])(tokens(1, 3)), **CLOSE)
    assert (masked - Decoding(captioner, states)(tokens(1, 3))).abs().max() > 1e-2
    given = {"input_ids": tokens(1, 3), "encoder_hidden_states": states, "is_decoder": True}
    plain = captioner.text_decoder(**given, encoder_attention_mask=mask).logits
    assert torch.equal(plain, captioner.text_decoder(**given).logits), "transformers reads the mask now"


def test_the_cure_leaves_nothing_behind(captioner: Any) -> None:
    decoder = captioner.text_decoder
    hooks = decoder.bert.encoder.layer[0].crossattention.self._forward_pre_hooks
    with honour_cross_mask(decoder):
        assert len(hooks) == 1
    assert not hooks
    with pytest.raises(KeyError), honour_cross_mask(decoder):
        raise KeyError
    assert not hooks


@torch.no_grad()
def test_matching_is_that_of_the_model(matcher: Any) -> None:
    ids, mask = tokens(3, 7), ones(3, 7)
    mask[1, 4:] = 0
    embeds = VisionEncoder(matcher.vision_model)(pictures(3))
    both = MultimodalEncoder(matcher.text_encoder)(ids, mask, embeds)
    text = TextEncoder(matcher.text_encoder)(ids, mask)
    given = {"input_ids": ids, "attention_mask": mask, "pixel_values": pictures(3)}
    expected = matcher(**given, use_itm_head=True).itm_score
    torch.testing.assert_close(ItmHead(matcher.itm_head)(both[:, 0]), expected, **CLOSE)
    images = ImageProjection(matcher.vision_proj)(embeds[:, 0])
    texts = TextProjection(matcher.text_proj)(text[:, 0])
    torch.testing.assert_close(images @ texts.T, matcher(**given, use_itm_head=False).itm_score, **CLOSE)
    torch.testing.assert_close(texts.norm(dim=-1), torch.ones(3))
