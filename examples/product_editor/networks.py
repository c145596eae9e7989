"""The editor's networks in the classes of Qwen-Image-Edit-2509, small, and how the transformer starts out."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, QwenImageTransformer2DModel
from diffusers.models.transformers import transformer_qwenimage as stock
from still_vae import N_CHANNELS
from torch import Tensor, nn
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer
from vision import PATCH

WIDTH: Final = 192
N_HEADS: Final = 3
N_BLOCKS: Final = 6
N_TEXT_LAYERS: Final = 2

N_TOKEN_NUMBERS: Final = 4 * N_CHANNELS  # a token is 2x2 latents
ROPE_AXES: Final = (16, 24, 24)  # of a head's 64 numbers: frame, height, width
SHARPNESS: Final = (
    2.2  # norm weights of the first block's queries and keys: 93-97 % of the attention on one place
)
HEAD: Final = WIDTH // N_HEADS
LANGUAGE: Final = {
    "hidden_size": WIDTH,
    "intermediate_size": 2 * WIDTH,
    "num_hidden_layers": N_TEXT_LAYERS,
    "num_attention_heads": N_HEADS,
    "num_key_value_heads": 1,
    "max_position_embeddings": 4096,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "mrope_section": [HEAD // 8, 3 * HEAD // 16, 3 * HEAD // 16],
    },
    "tie_word_embeddings": True,
    "bos_token_id": None,
    "use_sliding_window": False,
}
VISION: Final = {
    "depth": 2,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_heads": 2,
    "out_hidden_size": WIDTH,
    "patch_size": PATCH,
    "spatial_patch_size": PATCH,
    "window_size": PATCH * 8,
    "fullatt_block_indexes": [1],  # the other block sees windows, as in the large ones
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "in_channels": 3,
}
TOKENS: Final = {
    "image_token_id": "<|image_pad|>",
    "video_token_id": "<|video_pad|>",
    "vision_start_token_id": "<|vision_start|>",
    "vision_end_token_id": "<|vision_end|>",
}


def new_text_encoder(tokenizer: Qwen2Tokenizer) -> Qwen2_5_VLForConditionalGeneration:
    """Return an untrained text encoder whose vision tower says nothing yet: its last layer is zero."""
    numbers = {name: tokenizer.convert_tokens_to_ids(token) for name, token in TOKENS.items()}
    text = LANGUAGE | {
        "vocab_size": len(tokenizer),
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = Qwen2_5_VLConfig(text_config=text, vision_config=VISION, tie_word_embeddings=True, **numbers)
    encoder = Qwen2_5_VLForConditionalGeneration(config)
    _zero(encoder.model.visual.merger.mlp[2])
    return encoder


def new_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """Return the scheduler of Qwen-Image-Edit-2509."""
    return FlowMatchEulerDiscreteScheduler(
        base_image_seq_len=256,
        base_shift=0.5,
        max_image_seq_len=8192,
        max_shift=0.9,
        num_train_timesteps=1000,
        shift=1.0,
        shift_terminal=0.02,
        time_shift_type="exponential",
        use_dynamic_shifting=True,
    )


def new_transformer() -> QwenImageTransformer2DModel:
    """Return a transformer that starts as "the answer is the reference" (`start_as_copy`)."""
    transformer = QwenImageTransformer2DModel(
        in_channels=N_TOKEN_NUMBERS,
        out_channels=N_CHANNELS,
        num_layers=N_BLOCKS,
        attention_head_dim=WIDTH // N_HEADS,
        num_attention_heads=N_HEADS,
        joint_attention_dim=WIDTH,
        axes_dims_rope=ROPE_AXES,
    )
    for block in transformer.transformer_blocks:  # adaLN-zero: each block starts as the identity
        for layer in (block.img_mod[1], block.txt_mod[1]):
            _zero(layer)
    _zero(transformer.norm_out.linear)
    start_as_copy(transformer)
    return transformer


def _zero(layer: nn.Linear) -> None:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)


@torch.no_grad()
def start_as_copy(transformer: QwenImageTransformer2DModel) -> None:
    """Set weights so that block 0 takes the reference away from the noisy picture, and the output says so.

    Each token of the target attends to the same place of picture 1, whatever it shows: queries and keys
    are biases alone, all of their norm on the fastest pairs of the rotary embedding, the key turned back by
    the one frame that lies between. Values are the tokens, and the output takes them away on the subspace
    that latents live in: what is left is x_t - reference, which is t times the velocity wherever nothing
    changes. A bias of N(0, 1) behind the input makes the layer norms nearly linear, so that amplitudes stay
    readable.
    """
    block, width = transformer.transformer_blocks[0], transformer.inner_dim
    weight = nn.init.orthogonal_(transformer.img_in.weight)  # [width, numbers of a token]
    bias = nn.init.normal_(transformer.img_in.bias)
    bias -= bias.mean()
    attention = block.attn
    for layer, vector in zip((attention.to_q, attention.to_k), _place_vectors(), strict=True):
        layer.weight.mul_(0.02)
        layer.bias.copy_((vector * len(vector) ** 0.5).repeat(layer.out_features // len(vector)))
    attention.norm_q.weight.fill_(SHARPNESS)
    attention.norm_k.weight.fill_(SHARPNESS)
    gain = (1 + weight.shape[1] / width) ** 0.5  # a layer norm's divisor for latents of unit variance
    subspace = weight @ weight.T
    attention.to_v.weight.copy_(torch.eye(width))
    attention.to_v.bias.zero_()
    attention.to_out[0].weight.copy_(-gain * subspace)
    attention.to_out[0].bias.copy_(subspace @ bias)
    block.img_mod[1].bias[2 * width : 3 * width] = 1.0  # the gate of the attention
    transformer.proj_out.weight.copy_(1.2 * gain * weight.T)
    transformer.proj_out.bias.copy_(-1.2 * weight.T @ bias)


def _place_vectors() -> tuple[Tensor, Tensor]:
    """Return query and key of one head: float32[64] each, pairs of the rotary embedding side by side."""
    frame, height, _ = (size // 2 for size in ROPE_AXES)
    strength = torch.full((sum(ROPE_AXES) // 2,), 1e-3)
    strength[0] = 0.45
    strength[frame] = strength[frame + height] = 0.22
    strength[frame + 1] = strength[frame + height + 1] = 0.05
    query = torch.zeros(len(strength), 2)
    query[:, 0] = strength.sqrt()
    key = query.clone()
    one_frame_back = torch.tensor(1.0)  # radian: the first pair turns by one per frame
    key[0] = strength[0].sqrt() * torch.stack((one_frame_back.cos(), -one_frame_back.sin()))
    return query.flatten(), key.flatten()


@contextmanager
def compilable() -> Iterator[None]:
    """Let the transformer rotate in real numbers and attend in plain products while the context lasts.

    The same numbers; compilers do not know complex ones, and PyTorch's fused attention goes backward slowly
    where there are only 60 tokens (a quarter of a training step).
    """
    stocked = (stock.apply_rotary_emb_qwen, stock.dispatch_attention_fn, stock.QwenEmbedRope.forward)

    def real_turns(*args: object, **words: object) -> tuple[Tensor, ...]:
        return tuple(torch.view_as_real(turns) for turns in stocked[2](*args, **words))

    stock.apply_rotary_emb_qwen, stock.dispatch_attention_fn = _rotate, _attend
    stock.QwenEmbedRope.forward = real_turns
    try:
        yield
    finally:
        stock.apply_rotary_emb_qwen, stock.dispatch_attention_fn, stock.QwenEmbedRope.forward = stocked


def _rotate(x: Tensor, turns: Tensor, use_real: bool = False) -> Tensor:  # noqa: FBT001, FBT002  # as the class calls it
    """Rotate float32[batch, tokens, heads, 64] by the cosines and sines float32[tokens, 32, 2]."""
    del use_real
    cosine, sine = turns[:, None, :, 0], turns[:, None, :, 1]
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((even * cosine - odd * sine, even * sine + odd * cosine), dim=-1).flatten(-2)


def _attend(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, **_: object
) -> Tensor:
    """Attend over [batch, tokens, heads, 64]; `attn_mask` is bool[batch, 1, 1, tokens], true where real."""
    queries, keys, values = (x.transpose(1, 2) for x in (query, key, value))
    scores = queries @ keys.mT * query.shape[-1] ** -0.5
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, float("-inf"))
    found: Tensor = scores.softmax(-1) @ values
    return found.transpose(1, 2)
