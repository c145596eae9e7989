"""The original checkpoints of salesforce/BLIP: their keys, mapped to transformers' modules.

The names and sizes are those of the repository's ``models/vit.py``, ``models/med.py`` and
``configs/med_config.json``: heads are 64 wide, the vision encoder's norms have an epsilon of 1e-6.
"""

from __future__ import annotations

import math
import pickle  # noqa: TID251  (its error alone: what torch raises when a file holds more than weights)
import re
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import torch
import transformers
from torch import Tensor

from anyport.errors import SourceError
from anyport.recipe.blip_assets import TextRules

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

Device = Literal["cpu", "meta"]

_HEAD_SIZE: Final = 64
_BOS: Final = 30522  # [DEC], the first token that the original adds to those of bert-base-uncased
_ENC: Final = 30523  # [ENC], the second one
_SEP: Final = 102
_PROMPT: Final = "a picture of"
_SHOWN_KEYS: Final = 5
_RENAMED: Final = (
    (r"^visual_encoder\.cls_token$", "vision_model.embeddings.class_embedding"),
    (r"^visual_encoder\.pos_embed$", "vision_model.embeddings.position_embedding"),
    (r"^visual_encoder\.patch_embed\.proj\.", "vision_model.embeddings.patch_embedding."),
    (r"^visual_encoder\.norm\.", "vision_model.post_layernorm."),
    (
        r"^visual_encoder\.blocks\.(\d+)\.attn\.proj\.",
        r"vision_model.encoder.layers.\1.self_attn.projection.",
    ),
    (r"^visual_encoder\.blocks\.(\d+)\.attn\.", r"vision_model.encoder.layers.\1.self_attn."),
    (r"^visual_encoder\.blocks\.(\d+)\.norm([12])\.", r"vision_model.encoder.layers.\1.layer_norm\2."),
    (r"^visual_encoder\.blocks\.(\d+)\.mlp\.", r"vision_model.encoder.layers.\1.mlp."),
)
# buffers, and what only training reads: queues, temperature, momentum copies
_LEFT_OUT: Final = re.compile(
    r"(^|\.)position_ids$|^(image_queue|text_queue|idx_queue|ptr_queue|queue_ptr|temp)$"
    r"|^(visual_encoder|text_encoder|text_decoder|vision_proj|text_proj)_m\."
)
_WORDS: Final = "embeddings.word_embeddings.weight"
_POSITIONS: Final = "visual_encoder.pos_embed"
_PATCHES: Final = "visual_encoder.patch_embed.proj.weight"


@dataclass(frozen=True, slots=True)
class Original:
    """A model of transformers with the weights of an original checkpoint.

    Attributes:
        module: In eval mode.
        rules: How the original makes tokens of texts.
    """

    module: Any
    rules: TextRules


def load_original(path: Path, device: Device = "cpu") -> Original:
    """Load a ``.pth`` file of salesforce/BLIP; nothing in it is run.

    Args:
        path: The file.
        device: On ``meta`` only names and shapes are read, and the module has no weights.

    Raises:
        SourceError: It is no such file, or weights are missing or unknown; they are named.
    """
    weights = _read(path, device)
    architecture, is_pretrained = _kind_of(weights, path.name)
    config = _config_of(weights, path.name)
    # a pretrained checkpoint has a decoder as well, whose encoder is what the features come from
    used = {k: v for k, v in weights.items() if not (is_pretrained and k.startswith("text_decoder."))}
    # on the meta device buffers that no checkpoint has, such as positions, stay there: it is for an outline
    with torch.device(device):
        module = getattr(transformers, architecture)(config)
    mapped = {renamed(key): value for key, value in used.items() if not _LEFT_OUT.search(key)}
    _fill(module, mapped, f"'{path.name}' as {architecture}")
    reads_both = architecture == "BlipForQuestionAnswering" or is_pretrained
    rules = TextRules(
        multimodal_start=_ENC if reads_both else None,
        feature_start=_ENC,  # blip_feature_extractor of models/blip.py, whatever the checkpoint
        prompt=_PROMPT if architecture == "BlipForConditionalGeneration" else "",
    )
    return Original(module.eval(), rules)


def renamed(key: str) -> str:
    """Return what transformers calls a weight of the original.

    >>> renamed("visual_encoder.blocks.3.attn.proj.bias")
    'vision_model.encoder.layers.3.self_attn.projection.bias'
    """
    for pattern, name in _RENAMED:
        if re.match(pattern, key):
            return re.sub(pattern, name, key)
    return key


def _read(path: Path, device: Device) -> dict[str, Tensor]:
    is_mapped = device == "meta" and zipfile.is_zipfile(path)  # then no weight is read
    try:
        # weights_only refuses everything but tensors and plain containers
        content = torch.load(path, map_location=device, mmap=is_mapped, weights_only=True)  # noqa: TID251
    except FileNotFoundError as err:
        raise SourceError(f"there is no file '{path.name}'") from err
    except (pickle.UnpicklingError, EOFError, RuntimeError, OSError, ValueError, KeyError) as err:
        raise SourceError(
            f"'{path.name}' is no checkpoint that holds weights alone: {str(err).splitlines()[0]}",
            do="save it again with torch.save({'model': model.state_dict()}, …)",
        ) from err
    weights = content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(weights, dict) or not all(isinstance(v, Tensor) for v in weights.values()):
        raise SourceError(f"'{path.name}' holds no state_dict, neither by itself nor under 'model'")
    return {str(key): value.float() if value.is_floating_point() else value for key, value in weights.items()}


def _kind_of(weights: Mapping[str, Tensor], name: str) -> tuple[str, bool]:
    """Return the model of transformers, and whether it was pretrained only."""
    begins = {key.split(".", 1)[0] for key in weights}
    if "visual_encoder" not in begins:
        raise SourceError(
            f"'{name}' has no 'visual_encoder.*': it is no checkpoint of salesforce/BLIP; "
            f"it has {listed(weights)}"
        )
    if "itm_head" in begins:
        return "BlipForImageTextRetrieval", "text_decoder" in begins
    if {"text_encoder", "text_decoder"} <= begins:
        return "BlipForQuestionAnswering", False
    if "text_decoder" in begins:
        return "BlipForConditionalGeneration", False
    raise SourceError(
        f"'{name}' has no 'text_decoder.*' and no 'itm_head.*': none of captions, questions and matching "
        f"can be made of it; it has {listed(begins)}"
    )


def _config_of(weights: Mapping[str, Tensor], name: str) -> Any:
    """Read the sizes off the weights."""
    text = next((p for p in ("text_decoder.bert", "text_encoder") if f"{p}.{_WORDS}" in weights), None)
    needed = (_POSITIONS, _PATCHES, f"{text or 'text_encoder'}.{_WORDS}")
    if missing := [key for key in needed if key not in weights]:
        raise SourceError(f"'{name}' lacks {listed(missing)}", do="give the whole checkpoint")
    width, patch = weights[_PATCHES].shape[0], weights[_PATCHES].shape[-1]
    side = math.isqrt(weights[_POSITIONS].shape[1] - 1)
    vocabulary, text_width = weights[f"{text}.{_WORDS}"].shape
    vision: dict[str, Any] = {
        "hidden_size": width,
        "image_size": side * patch,
        "intermediate_size": _size(weights, "visual_encoder.blocks.0.mlp.fc1.weight", name),
        "layer_norm_eps": 1e-6,
        "num_attention_heads": width // _HEAD_SIZE,
        "num_hidden_layers": _n_layers(weights, "visual_encoder.blocks"),
        "patch_size": patch,
    }
    words: dict[str, Any] = {
        "bos_token_id": _BOS,
        "encoder_hidden_size": width,
        "hidden_size": text_width,
        "intermediate_size": _size(weights, f"{text}.encoder.layer.0.intermediate.dense.weight", name),
        "max_position_embeddings": _size(weights, f"{text}.embeddings.position_embeddings.weight", name),
        "num_attention_heads": text_width // _HEAD_SIZE,
        "num_hidden_layers": _n_layers(weights, f"{text}.encoder.layer"),
        "pad_token_id": 0,
        "sep_token_id": _SEP,
        "vocab_size": vocabulary,
    }
    shared = weights["vision_proj.weight"].shape[0] if "vision_proj.weight" in weights else 256
    return transformers.BlipConfig(text_config=words, vision_config=vision, image_text_hidden_size=shared)


def _size(weights: Mapping[str, Tensor], key: str, name: str) -> int:
    if key not in weights:
        raise SourceError(f"'{name}' lacks '{key}'", do="give the whole checkpoint")
    return weights[key].shape[0]


def _n_layers(weights: Mapping[str, Tensor], prefix: str) -> int:
    found = (re.match(rf"{re.escape(prefix)}\.(\d+)\.", key) for key in weights)
    return 1 + max((int(match[1]) for match in found if match), default=-1)


def _fill(module: Any, weights: Mapping[str, Tensor], what: str) -> None:
    """Put the weights into a module.

    Raises:
        SourceError: One is missing, unknown, or of another shape.
    """
    wanted = {key: value.shape for key, value in module.state_dict().items()}
    tied = set(module.all_tied_weights_keys)
    missing = sorted(set(wanted) - set(weights) - tied)
    unknown = sorted(set(weights) - set(wanted))
    for word, keys in (("lacks", missing), ("has unknown", unknown)):
        if keys:
            raise SourceError(f"{what} {word} {len(keys)} weights: {listed(keys)}")
    for key, value in weights.items():
        if value.shape != wanted[key]:
            raise SourceError(f"{what}: '{key}' is {list(value.shape)}, not {list(wanted[key])}")
    module.load_state_dict(dict(weights), assign=True, strict=False)
    module.tie_weights()


def listed(keys: Iterable[str]) -> str:
    """Return the first names in quotes, and how many more there are."""
    names = sorted(keys)
    more = f" and {len(names) - _SHOWN_KEYS} more" if len(names) > _SHOWN_KEYS else ""
    return ", ".join(f"'{name}'" for name in names[:_SHOWN_KEYS]) + more
