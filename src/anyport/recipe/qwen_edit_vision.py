"""The vision encoder of Qwen2.5-VL, with everything that Python decides about windows made an input."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor, nn

WINDOWS_GIVEN: Final = (
    "which patches share a window or a picture is an input, and the windows are a batch: transformers cuts "
    "patches up in a Python loop over lengths that it reads from a tensor"
)
PATCHES_ARE_ROWS: Final = (
    "the 3-D convolution over patches is a matrix product: a patch is as large as its kernel"
)


class VisionEncoder(nn.Module):
    """The states of the merged patches of all pictures of a request.

    In order: ``pixel_values`` float32[patches, C], packed as the processor packs them; ``patch_positions``
    int64[patches, 2], row and column of each patch in its picture; ``picture_ids`` int64[patches], equal
    where patches are of one picture; ``window_patches`` int64[windows, W], the patches of each window,
    anything where ``window_mask`` bool[windows, W] is not true; ``patch_slots`` int64[patches], where in the
    flat list of all slots each patch is.

    Out: float32[patches//4, D].

    Patches stay in their packed order: attention does not ask for one, so nothing is sorted and put back.
    Patches and slots are counted modulo their number, so that there is an answer for any number.
    """

    def __init__(self, visual: Any) -> None:
        super().__init__()
        self.visual = visual
        self.whole = frozenset(visual.fullatt_block_indexes)

    def forward(self, *tensors: Tensor) -> Tensor:
        """Return the states of every four patches, merged."""
        pixel_values, patch_positions, picture_ids, window_patches, window_mask, patch_slots = tensors
        visual = self.visual
        kernel = visual.patch_embed.proj.weight
        states = nn.functional.linear(pixel_values, kernel.flatten(1))
        cos, sin = (table[:, None] for table in visual.rotary_pos_emb(states, patch_positions))
        in_pictures = _whole_pictures(picture_ids, states.dtype)
        in_windows = _windows(window_patches, window_mask, patch_slots, states.dtype)
        for number, block in enumerate(visual.blocks):
            attend = in_pictures if number in self.whole else in_windows
            states = states + _attention(block.attn, block.norm1(states), (cos, sin), attend)
            states = states + block.mlp(block.norm2(states))
        merged: Tensor = visual.merger(states)
        return merged


def _attention(attention: Any, states: Tensor, tables: tuple[Tensor, Tensor], attend: Any) -> Tensor:
    """Attend with queries, keys and values float32[patches, heads, d]."""
    heads = (3, attention.num_heads, -1)
    query, key, value = attention.qkv(states).unflatten(-1, heads).unbind(1)
    query, key = _rotated(query, *tables), _rotated(key, *tables)
    projected: Tensor = attention.proj(attend(query, key, value, attention.scaling).flatten(1))
    return projected


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


def _whole_pictures(picture_ids: Tensor, dtype: torch.dtype) -> Any:
    """Return an attention of every patch to all patches of its picture."""
    is_other = picture_ids[:, None] != picture_ids[None]
    bias = torch.zeros_like(is_other, dtype=dtype).masked_fill(is_other, torch.finfo(dtype).min)

    def attend(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        q, k, v = (x.transpose(0, 1)[None] for x in (query, key, value))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias[None, None], scale=scale)
        return mixed[0].transpose(0, 1)

    return attend


def _windows(patches: Tensor, mask: Tensor, slots: Tensor, dtype: torch.dtype) -> Any:
    """Return an attention of every patch to all patches of its window."""
    n_windows, size = patches.shape
    bias = torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)[:, None, None]
    places = _modulo(slots, n_windows * size)

    def attend(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        which = _modulo(patches, query.shape[0])
        q, k, v = (x[which].transpose(1, 2) for x in (query, key, value))  # float32[windows, heads, W, d]
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)
        return mixed.transpose(1, 2).flatten(0, 1)[places]

    return attend


def _modulo(numbers: Tensor, n: int) -> Tensor:
    # torch.onnx (2.13) has no translation for a remainder of a dynamic size that is no tensor
    return numbers % torch.full((), n, dtype=numbers.dtype)
