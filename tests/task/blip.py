"""A tiny seeded BLIP whose parts are run by PyTorch: the tasks are tested against its own ``generate()``.

The graphs that an export makes of these parts are tested where they are made; here only what happens around
them is. The weights are drawn wide enough that different pictures give different words.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from transformers import (
    BlipConfig,
    BlipForConditionalGeneration,
    BlipForImageTextRetrieval,
    BlipForQuestionAnswering,
)
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

from anyport.bundle import PartEntry
from anyport.errors import UsageError
from anyport.runtime.signature import signature_of_part
from anyport.tensors import Signature, check_feeds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from anyport.task import TaskOptions
    from anyport.tensors import TensorSpec

torch.set_num_threads(1)  # networks this small only wait for each other's threads

SIZE, WIDTH, LAYERS, HEADS, FEATURES = 32, 32, 2, 4, 8
PAD, UNKNOWN, START, SEP, BOS = 0, 1, 2, 3, 4
WORDS = (  # noqa: SIM905 -- forty lines shorter
    "a an the cat dog bird car red green blue small large on in with and of is it what colour how many "
    "photo picture two three sofa street sky sea tree house man woman ##s ##ing run sit stand ? ."
).split()
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[DEC]", *WORDS]
POSITIONS = 40


def config() -> BlipConfig:
    text = {
        "hidden_size": WIDTH,
        "encoder_hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "vocab_size": len(VOCABULARY),
        "max_position_embeddings": POSITIONS,
        "bos_token_id": BOS,
        "sep_token_id": SEP,
        "pad_token_id": PAD,
        "eos_token_id": SEP,
    }
    vision = {
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "image_size": SIZE,
        "patch_size": 8,
    }
    return BlipConfig(text_config=text, vision_config=vision, image_text_hidden_size=FEATURES)


def _drawn(model: torch.nn.Module, seed: int) -> Any:
    """Draw weights wide enough for different pictures to give different words, and an end now and then.

    Over 50 pictures the captioner writes 48 different captions, with ends from the 5th to the 18th token.
    """
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim >= 2:
                weight.copy_(torch.randn(weight.shape, generator=random) * _spread(name, weight))
            elif "bias" in name:
                weight.copy_(torch.randn(weight.shape, generator=random) * 0.05)
        if hasattr(model, "text_decoder"):
            model.text_decoder.cls.predictions.bias[SEP] += 2
    return model.eval()


def _spread(name: str, weight: torch.Tensor) -> float:
    if "embedding" in name and "patch" not in name:
        return 0.6
    stronger = 2 if "crossattention" in name or "patch" in name else 1
    return float(stronger * (1.5 / weight[0].numel()) ** 0.5)


@cache
def captioner() -> Any:
    return _drawn(BlipForConditionalGeneration(config()), 0)


@cache
def answerer() -> Any:
    return _drawn(BlipForQuestionAnswering(config()), 2)


@cache
def matcher() -> Any:
    return _drawn(BlipForImageTextRetrieval(config()), 1)


def _honouring_the_mask(decoder: Any) -> Any:
    """Let the cross mask count: transformers 5.23 hands it over under a name that is not read."""
    for layer in decoder.bert.encoder.layer:
        own = layer.crossattention.self
        own.forward = _with_mask(own.forward)
    return decoder


def _with_mask(forward: Callable[..., Any]) -> Callable[..., Any]:
    def called(
        hidden: Any,
        attention_mask: Any = None,
        encoder_hidden_states: Any = None,
        past_key_values: Any = None,
    ) -> Any:
        return forward(
            hidden,
            encoder_attention_mask=attention_mask,
            encoder_hidden_states=encoder_hidden_states,
            past_key_values=past_key_values,
        )

    return called


@cache
def _captioner_with_mask() -> Any:
    model = _drawn(BlipForConditionalGeneration(config()), 0)
    _honouring_the_mask(model.text_decoder)
    return model


@cache
def _answerer_with_mask() -> Any:
    model = _drawn(BlipForQuestionAnswering(config()), 2)
    _honouring_the_mask(model.text_decoder)
    return model


# ── parts ──────────────────────────────────────────────────────────────────────────────────────────────

Tensors = dict[str, torch.Tensor]


def _vision(model: Any, feeds: Tensors) -> Tensors:
    return {"image_embeds": model.vision_model(pixel_values=feeds["pixel_values"]).last_hidden_state}


def _cross_keys(model: Any, feeds: Tensors) -> Tensors:
    states, found = feeds["encoder_hidden_states"], {}
    for i, layer in enumerate(model.text_decoder.bert.encoder.layer):
        own = layer.crossattention.self
        for kind, linear in (("k", own.key), ("v", own.value)):
            found[f"cross_{i}_{kind}"] = linear(states).unflatten(-1, (HEADS, -1)).transpose(1, 2)
    return found


def _decoder(model: Any, feeds: Tensors) -> Tensors:
    own, cross = DynamicCache(), DynamicCache()
    for i in range(LAYERS):
        own.update(feeds[f"past_{i}_k"], feeds[f"past_{i}_v"], i)
        cross.update(feeds[f"cross_{i}_k"], feeds[f"cross_{i}_v"], i)
    past = EncoderDecoderCache(own, cross)
    past.is_updated = dict.fromkeys(range(LAYERS), True)
    found = model.text_decoder(
        input_ids=feeds["input_ids"],
        attention_mask=feeds["attention_mask"],
        position_ids=feeds["position_ids"],
        encoder_hidden_states=feeds["cross_0_k"].transpose(1, 2).flatten(2),
        encoder_attention_mask=feeds["cross_mask"],
        past_key_values=past,
        use_cache=True,
        is_decoder=True,
        logits_to_keep=1,
    )
    outputs = {"logits": found.logits[:, -1]}
    for i, layer in enumerate(own.layers):
        outputs |= {f"present_{i}_k": layer.keys, f"present_{i}_v": layer.values}
    return outputs


def _question(model: Any, feeds: Tensors) -> Tensors:
    return {"question_embeds": _encoded(model, feeds)}


def _text(model: Any, feeds: Tensors) -> Tensors:
    return {"text_embeds": _encoded(model, feeds)}


def _multimodal(model: Any, feeds: Tensors) -> Tensors:
    return {"multimodal_embeds": _encoded(model, feeds)}


def _encoded(model: Any, feeds: Tensors) -> torch.Tensor:
    seen = feeds.get("image_embeds")
    states: torch.Tensor = model.text_encoder(
        input_ids=feeds["input_ids"],
        attention_mask=feeds["attention_mask"],
        **({} if seen is None else {"encoder_hidden_states": seen}),
    ).last_hidden_state
    return states


def _itm(model: Any, feeds: Tensors) -> Tensors:
    return {"itm_logits": model.itm_head(feeds["multimodal_state"])}


def _project_image(model: Any, feeds: Tensors) -> Tensors:
    return {"image_features": torch.nn.functional.normalize(model.vision_proj(feeds["image_state"]), dim=-1)}


def _project_text(model: Any, feeds: Tensors) -> Tensors:
    return {"text_features": torch.nn.functional.normalize(model.text_proj(feeds["text_state"]), dim=-1)}


N_PATCHES = (SIZE // 8) ** 2 + 1
_IDS = f"int64[batch, sequence] 0..{len(VOCABULARY) - 1}"
_MASK = "int64[batch, sequence] 0..1"
_SEEN = f"float32[batch, {N_PATCHES}, {WIDTH}]"
_STATES = f"float32[batch, sequence, {WIDTH}]"
_HEAD = f"float32[batch, {HEADS}, %s, {WIDTH // HEADS}]"


def _each_layer(prefix: str, axis: str) -> dict[str, str]:
    return {f"{prefix}_{i}_{kind}": _HEAD % axis for i in range(LAYERS) for kind in "kv"}


FORMS: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "vision_encoder": ({"pixel_values": f"float32[batch, 3, {SIZE}, {SIZE}]"}, {"image_embeds": _SEEN}),
    "question_encoder": (
        {"input_ids": _IDS, "attention_mask": _MASK, "image_embeds": _SEEN},
        {"question_embeds": _STATES},
    ),
    "cross_keys": (
        {"encoder_hidden_states": f"float32[batch, positions, {WIDTH}]"},
        _each_layer("cross", "positions"),
    ),
    "text_decoder": (
        {
            "input_ids": _IDS,
            "attention_mask": "int64[batch, past+sequence] 0..1",
            "position_ids": f"int64[batch, sequence] 0..{POSITIONS - 1}",
            "cross_mask": "int64[batch, positions] 0..1",
            **_each_layer("past", "past"),
            **_each_layer("cross", "positions"),
        },
        {"logits": f"float32[batch, {len(VOCABULARY)}]", **_each_layer("present", "past+sequence")},
    ),
    "text_encoder": ({"input_ids": _IDS, "attention_mask": _MASK}, {"text_embeds": _STATES}),
    "multimodal_encoder": (
        {"input_ids": _IDS, "attention_mask": _MASK, "image_embeds": _SEEN},
        {"multimodal_embeds": _STATES},
    ),
    "itm_head": ({"multimodal_state": f"float32[batch, {WIDTH}]"}, {"itm_logits": "float32[batch, 2]"}),
    "image_projection": (
        {"image_state": f"float32[batch, {WIDTH}]"},
        {"image_features": f"float32[batch, {FEATURES}]"},
    ),
    "text_projection": (
        {"text_state": f"float32[batch, {WIDTH}]"},
        {"text_features": f"float32[batch, {FEATURES}]"},
    ),
}
RUNS: dict[str, Callable[[Any, Tensors], Tensors]] = {
    "vision_encoder": _vision,
    "question_encoder": _question,
    "cross_keys": _cross_keys,
    "text_decoder": _decoder,
    "text_encoder": _text,
    "multimodal_encoder": _multimodal,
    "itm_head": _itm,
    "image_projection": _project_image,
    "text_projection": _project_text,
}
DIMS = {"batch": "1..64", "sequence": f"1..{POSITIONS}", "past": f"0..{POSITIONS}", "positions": "1..64"}


def signature(part: str) -> Signature:
    inputs, outputs = FORMS[part]
    named = " ".join((*inputs.values(), *outputs.values()))
    dims = {name: sizes for name, sizes in DIMS.items() if name in named}
    return signature_of_part(PartEntry(inputs, outputs, dims))


class TorchPart:
    """A part that PyTorch runs, as a Session: it takes numpy arrays and checks them as a real one does."""

    def __init__(self, part: str, model: Any) -> None:
        self._part, self._model, self._signature = part, model, signature(part)
        self.n_runs = 0
        self.is_open = True
        self.spoil: Callable[[Tensors], None] = lambda _: None  # what a test does to the feeds

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return self._signature.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return self._signature.outputs

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        check_feeds(feeds, self.inputs, self._signature.dims)
        self.n_runs += 1
        tensors = {name: torch.tensor(array) for name, array in feeds.items()}
        self.spoil(tensors)
        with torch.no_grad():
            found = RUNS[self._part](self._model, tensors)
        return {name: tensor.numpy() for name, tensor in found.items()}

    def close(self) -> None:
        self.is_open = False


# ── graphs ─────────────────────────────────────────────────────────────────────────────────────────────

PICTURE = {
    "mode": "RGB",
    "size": [SIZE, SIZE],
    "resample": "bicubic",
    "scale": 1 / 255,
    "mean": [0.48145466, 0.4578275, 0.40821073],
    "std": [0.26862954, 0.26130258, 0.27577711],
}
TEXT = {
    "tokenizer": "assets/tokenizer.json",
    "start": START,
    "multimodal_start": START,
    "bos": BOS,
    "sep": SEP,
    "pad": PAD,
    "max_length": POSITIONS,
}
MODELS: dict[str, tuple[Callable[[], Any], tuple[str, ...]]] = {
    "caption": (_captioner_with_mask, ("vision_encoder", "cross_keys", "text_decoder")),
    "answer": (_answerer_with_mask, ("vision_encoder", "question_encoder", "cross_keys", "text_decoder")),
    "match": (
        matcher,
        (
            "vision_encoder",
            "text_encoder",
            "multimodal_encoder",
            "itm_head",
            "image_projection",
            "text_projection",
        ),
    ),
    "embed": (matcher, ("vision_encoder", "text_encoder", "multimodal_encoder")),
}


@cache
def tokenizer_json() -> bytes:
    """A word-piece tokenizer of the few words, with BERT's rules around it."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    vocabulary = {word: i for i, word in enumerate(VOCABULARY)}
    made = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))  # noqa: S106 -- no password
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", START), ("[SEP]", SEP)]
    )
    made.decoder = decoders.WordPiece(prefix="##")
    made.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    made.enable_truncation(4)  # the task must not let it
    return bytes(made.to_str(), "utf-8")


@dataclass
class TorchGraphs:
    """The parts of a task, in the place of a bundle."""

    task: str
    settings: Mapping[str, Any]
    path: Path = Path("blip.port")
    is_open: bool = True

    def __post_init__(self) -> None:
        self.parts: dict[str, Signature | None] = {part: signature(part) for part in MODELS[self.task][1]}
        self.files = {"assets/tokenizer.json": tokenizer_json()}
        self.sessions: dict[str, TorchPart] = {}

    def open(self, part: str, options: TaskOptions) -> TorchPart:
        if options.variant is not None:
            raise UsageError(f"there is no variant {options.variant}")
        self.sessions[part] = TorchPart(part, MODELS[self.task][0]())
        return self.sessions[part]

    def read_bytes(self, relative: str) -> bytes:
        return self.files[relative]

    def close(self) -> None:
        self.is_open = False


def settings(**more: Any) -> dict[str, Any]:
    """Return the settings of every task; further ones are those of ``generation``."""
    found: dict[str, Any] = {"picture": PICTURE, "text": TEXT}
    return json.loads(json.dumps(found | ({"generation": more} if more else {})))  # type: ignore[no-any-return]


def graphs(task: str, **generation: Any) -> TorchGraphs:
    return TorchGraphs(task, settings(**generation))


# ── pictures ───────────────────────────────────────────────────────────────────────────────────────────


@cache
def pictures(n: int = 12) -> tuple[np.ndarray, ...]:
    """Cut ``n`` different pieces out of two photographs."""
    from sklearn.datasets import load_sample_images

    random, photos = np.random.default_rng(0), load_sample_images().images
    found = []
    for i in range(n):
        photo = photos[i % len(photos)]
        height, width = (int(size) for size in random.integers(40, 300, 2))
        top = int(random.integers(0, photo.shape[0] - height))
        left = int(random.integers(0, photo.shape[1] - width))
        found.append(np.ascontiguousarray(photo[top : top + height, left : left + width]))
    return tuple(found)


def drawn(folder: Path, name: str, colour: str) -> Path:
    """Draw a coloured circle into a file."""
    image = Image.new("RGB", (60, 40), "white")
    ImageDraw.Draw(image).ellipse((10, 5, 50, 35), fill=colour)
    path = folder / name
    image.save(path)
    return path


def pixel_values(sources: Sequence[np.ndarray]) -> torch.Tensor:
    """Prepare pictures as transformers does."""
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    processor = BlipImageProcessorPil(size={"height": SIZE, "width": SIZE})
    images = [Image.fromarray(source) for source in sources]
    values: torch.Tensor = processor(images=images, return_tensors="pt")["pixel_values"]
    return values


def word_ids(text: str) -> list[int]:
    """Return the tokens of known words."""
    return [VOCABULARY.index(word) for word in text.split()]
