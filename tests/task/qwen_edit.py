"""A tiny seeded Qwen-Image-Edit pipeline, and its five parts run by PyTorch.

The task is tested against the pipeline itself; the graphs that an export makes of the parts are tested where
they are made. The parts here use what they are fed and nothing else, so that a wrong feed shows.
"""

from __future__ import annotations

import contextlib
import json
import math
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_plus as plus
import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from PIL import Image
from torch.nn import functional
from transformers import Qwen2VLProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from anyport.bundle import PartEntry
from anyport.errors import UsageError
from anyport.runtime.signature import signature_of_part
from anyport.tensors import Signature, check_feeds
from tests.recipe import qwen_folders

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from anyport.task import TaskOptions
    from anyport.tensors import TensorSpec

torch.set_num_threads(1)  # networks this small only wait for each other's threads

TINY = "tiny"
TINY_2511 = "tiny-2511"  # with zero_cond_t
Tensors = dict[str, torch.Tensor]


# ── the pipeline ───────────────────────────────────────────────────────────────────────────────────────


def sizes_of(model: str) -> qwen_folders.Sizes:
    return qwen_folders.SIZES[model.removesuffix("-2511")]


def transformer_of(model: str) -> Any:
    return qwen_folders.make_transformer(sizes_of(model), zero_cond_t=model.endswith("-2511"))


@cache
def pipeline(model: str = TINY) -> Any:
    sizes = sizes_of(model)
    processor = object.__new__(Qwen2VLProcessor)
    tokenizer = qwen_folders.make_tokenizer()
    processor.image_processor = Qwen2VLImageProcessorPil()
    processor.tokenizer, processor.chat_template = tokenizer, None
    processor.image_token, processor.video_token = "<|image_pad|>", "<|video_pad|>"
    processor.image_token_id = tokenizer.convert_tokens_to_ids("<|image_pad|>")
    processor.video_token_id = tokenizer.convert_tokens_to_ids("<|video_pad|>")
    found = plus.QwenImageEditPlusPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(**qwen_folders.SCHEDULE),
        vae=qwen_folders.make_vae(sizes),
        text_encoder=qwen_folders.make_text_encoder(sizes),
        tokenizer=tokenizer,
        processor=processor,
        transformer=transformer_of(model),
    )
    found.set_progress_bar_config(disable=True)
    return found


@dataclass(frozen=True)
class Case:
    """What the pipeline is asked, and in which sizes."""

    pictures: str
    prompt: str
    negative: str | None
    guidance: float
    size: tuple[int, int]  # width, height
    steps: int = 6
    vae_area: int = 256 * 256
    positions: str = "plain"
    model: str = TINY

    @property
    def latents(self) -> np.ndarray:
        n = self.size[0] // 16 * (self.size[1] // 16)
        return torch.randn(1, n, 64, generator=torch.Generator().manual_seed(3)).numpy()


@cache
def photographs() -> dict[str, Image.Image]:
    """Photographs that scikit-learn brings, and strange cuts out of them."""
    from sklearn.datasets import load_sample_images

    temple, flower = (Image.fromarray(photo) for photo in load_sample_images().images)
    return {
        "f": flower,
        "g": temple.crop((100, 0, 500, 400)),
        "t": temple,
        "strip": temple.crop((0, 200, 512, 300)),
        "tall": flower.crop((200, 0, 300, 400)),
        "tiny": temple.resize((37, 53)),
    }


def pictures_of(case: Case) -> list[Image.Image]:
    names = case.pictures.split(",")
    return [photographs()[name] for name in names]


@contextlib.contextmanager
def changed(case: Case) -> Iterator[None]:
    """Let the pipeline reduce pictures to another area, and give the text encoder these positions."""
    area, encoder = plus.VAE_IMAGE_SIZE, pipeline(case.model).text_encoder
    forward, token = encoder.forward, encoder.config.image_token_id

    def told(**words: Any) -> Any:
        return forward(**words, mm_token_type_ids=(words["input_ids"] == token).int())

    plus.VAE_IMAGE_SIZE = case.vae_area
    if case.positions == "multimodal":
        encoder.forward = told
    try:
        yield
    finally:
        plus.VAE_IMAGE_SIZE = area
        encoder.__dict__.pop("forward", None)


def words_of(case: Case) -> dict[str, Any]:
    """Return what the PyTorch pipeline is called with."""
    return {
        "image": pictures_of(case),
        "prompt": case.prompt,
        "negative_prompt": case.negative,
        "true_cfg_scale": case.guidance,
        "width": case.size[0],
        "height": case.size[1],
        "num_inference_steps": case.steps,
        "latents": torch.from_numpy(case.latents),
        "output_type": "np",
    }


@cache
def expected(case: Case) -> np.ndarray:
    """Return float32[height, width, 3]: the picture of the PyTorch pipeline."""
    with changed(case), torch.no_grad():
        found = pipeline(case.model)(**words_of(case))
    picture: np.ndarray = found.images[0]
    return picture


def psnr(found: np.ndarray, wanted: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio of pictures from 0 to 1, in dB."""
    error = float(np.square(found.astype(np.float64) - wanted).mean())
    return 10 * math.log10(1 / error) if error else math.inf


# ── parts ──────────────────────────────────────────────────────────────────────────────────────────────


def _rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


def _vision(model: Any, feeds: Tensors) -> Tensors:
    """Attend as the feeds say: to all patches of a picture, or to those of a window."""
    visual = model.text_encoder.model.visual
    states = visual.patch_embed(feeds["pixel_values"])
    cos, sin = (table[:, None] for table in visual.rotary_pos_emb(states, feeds["patch_positions"]))
    window = torch.full((len(states),), -1)
    for number, (patches, mask) in enumerate(zip(feeds["window_patches"], feeds["window_mask"], strict=True)):
        window[patches[mask]] = number
    assert torch.equal(feeds["patch_slots"] // feeds["window_mask"].shape[1], window)
    groups = {True: feeds["picture_ids"], False: window}
    for number, block in enumerate(visual.blocks):
        own, group = block.attn, groups[number in visual.fullatt_block_indexes]
        query, key, value = own.qkv(block.norm1(states)).unflatten(-1, (3, own.num_heads, -1)).unbind(1)
        rows = (x.transpose(0, 1)[None] for x in (_rotated(query, cos, sin), _rotated(key, cos, sin), value))
        mixed = functional.scaled_dot_product_attention(
            *rows, attn_mask=group[:, None] == group[None], scale=own.scaling
        )
        states = states + own.proj(mixed[0].transpose(0, 1).flatten(1))
        states = states + block.mlp(block.norm2(states))
    return {"image_embeds": visual.merger(states)}


def _text(model: Any, feeds: Tensors) -> Tensors:
    language, ids = model.text_encoder.model.language_model, feeds["input_ids"]
    embeds = language.embed_tokens(ids)
    is_picture = ids == model.text_encoder.config.image_token_id
    assert int(is_picture.sum()) == len(feeds["image_embeds"])
    embeds[is_picture] = feeds["image_embeds"]
    found = language(
        inputs_embeds=embeds, attention_mask=feeds["attention_mask"], position_ids=feeds["position_ids"]
    )
    return {"last_hidden_state": found.last_hidden_state}


class _GivenTables(torch.nn.Module):
    """What diffusers computes from the sizes of pictures, out of the tables that were fed."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: tuple[torch.Tensor, torch.Tensor] | None = None

    def forward(self, *_: Any, **__: Any) -> Any:
        return self.tables


def _denoiser(model: Any, feeds: Tensors) -> Tensors:
    model.transformer.pos_embed.tables = (
        torch.complex(feeds["img_cos"], feeds["img_sin"]),
        torch.complex(feeds["txt_cos"], feeds["txt_sin"]),
    )
    n_all = feeds["hidden_states"].shape[1]
    n = int(feeds["is_output"].sum()) if "is_output" in feeds else n_all
    assert "is_output" not in feeds or feeds["is_output"][:n].all()
    [velocity] = model.transformer(
        hidden_states=feeds["hidden_states"],
        encoder_hidden_states=feeds["encoder_hidden_states"],
        timestep=feeds["timestep"],
        img_shapes=[[(1, 1, n), (1, 1, n_all - n)]],
        return_dict=False,
    )
    return {"velocity": velocity}


def mean_and_std(vae: Any) -> tuple[torch.Tensor, torch.Tensor]:
    mean, std = torch.tensor(vae.config.latents_mean), torch.tensor(vae.config.latents_std)
    return mean.view(1, -1, 1, 1), std.view(1, -1, 1, 1)


def _encoder(model: Any, feeds: Tensors) -> Tensors:
    mean, std = mean_and_std(model.vae)
    latent = model.vae.encode(feeds["image"][:, :, None]).latent_dist.mode()[:, :, 0]
    return {"latent": (latent - mean) / std}


def _decoder(model: Any, feeds: Tensors) -> Tensors:
    mean, std = mean_and_std(model.vae)
    latent = (feeds["latent"] * std + mean)[:, :, None]
    return {"image": model.vae.decoder(model.vae.post_quant_conv(latent))[:, :, 0]}


FORMS: dict[str, tuple[dict[str, str], dict[str, str]]] = {  # W and H are numbers of the model
    "vision_encoder": (
        {
            "pixel_values": "float32[patches, 1176]",
            "patch_positions": "int64[patches, 2]",
            "picture_ids": "int64[patches]",
            "window_patches": "int64[windows, 64]",
            "window_mask": "bool[windows, 64]",
            "patch_slots": "int64[patches]",
        },
        {"image_embeds": "float32[patches//4, W]"},
    ),
    "text_encoder": (
        {
            "input_ids": "int64[batch, sequence]",
            "attention_mask": "int64[batch, sequence] 0..1",
            "position_ids": "int64[3, batch, sequence]",
            "image_embeds": "float32[merged, W]",
        },
        {"last_hidden_state": "float32[batch, sequence, W]"},
    ),
    "transformer": (
        {
            "hidden_states": "float32[batch, latent_tokens, 64]",
            "encoder_hidden_states": "float32[batch, text_tokens, W]",
            "timestep": "float32[batch]",
            "img_cos": "float32[latent_tokens, H]",
            "img_sin": "float32[latent_tokens, H]",
            "txt_cos": "float32[text_tokens, H]",
            "txt_sin": "float32[text_tokens, H]",
        },
        {"velocity": "float32[batch, latent_tokens, 64]"},
    ),
    "vae_encoder": (
        {"image": "float32[batch, 3, height, width]"},
        {"latent": "float32[batch, 16, height//8, width//8]"},
    ),
    "vae_decoder": (
        {"latent": "float32[batch, 16, latent_height, latent_width]"},
        {"image": "float32[batch, 3, 8*latent_height, 8*latent_width]"},
    ),
}
RUNS: dict[str, Callable[[Any, Tensors], Tensors]] = {
    "vision_encoder": _vision,
    "text_encoder": _text,
    "transformer": _denoiser,
    "vae_encoder": _encoder,
    "vae_decoder": _decoder,
}
DIMS = {
    "batch": "1..4",
    "patches": "16..65536:4",
    "windows": "1..8192",
    "sequence": "1..8192",
    "merged": "1..16384",
    "latent_tokens": "1..65536",
    "text_tokens": "1..8192",
    "height": "16..8192:16",
    "width": "16..8192:16",
    "latent_height": "2..1024:2",
    "latent_width": "2..1024:2",
}


def signature(part: str, model: str = TINY) -> Signature:
    sizes = sizes_of(model)
    numbers = {"W]": f"{sizes.text[0]}]", "H]": f"{sum(sizes.rope) // 2}]"}
    inputs, outputs = ({name: _with(form, numbers) for name, form in one.items()} for one in FORMS[part])
    if part == "transformer" and model.endswith("-2511"):
        inputs["is_output"] = "bool[latent_tokens]"
    named = " ".join((*inputs.values(), *outputs.values()))
    dims = {name: sizes for name, sizes in DIMS.items() if name in named}
    return signature_of_part(PartEntry(inputs, outputs, dims))


def _with(form: str, numbers: Mapping[str, str]) -> str:
    for letter, number in numbers.items():
        form = form.replace(letter, number)
    return form


@dataclass
class _Models:
    text_encoder: Any
    transformer: Any
    vae: Any


@cache
def _models(model: str) -> _Models:
    sizes, transformer = sizes_of(model), transformer_of(model)
    transformer.pos_embed = _GivenTables()
    return _Models(qwen_folders.make_text_encoder(sizes), transformer, qwen_folders.make_vae(sizes))


class TorchPart:
    """A part that PyTorch runs, as a Session: it takes numpy arrays and checks them as a real one does."""

    def __init__(self, part: str, model: str) -> None:
        self._part, self._model, self._signature = part, model, signature(part, model)
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
            found = RUNS[self._part](_models(self._model), tensors)
        return {name: tensor.numpy() for name, tensor in found.items()}

    def close(self) -> None:
        self.is_open = False


# ── graphs ─────────────────────────────────────────────────────────────────────────────────────────────


@cache
def _template() -> tuple[str, str]:
    before, after = pipeline().prompt_template_encode.split("{}")
    return before, after


def settings(model: str = TINY, **more: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that a recipe would make; ``more`` goes into the groups of that name."""
    before, after = _template()
    found: dict[str, dict[str, Any]] = {
        "text": {
            "tokenizer": "assets/tokenizer.json",
            "before": before,
            "after": after,
            "picture": "Picture {}: <|vision_start|><|image_pad|><|vision_end|>",
            "image_pad": pipeline().text_encoder.config.image_token_id,
        },
        "picture": {
            "mean": [0.48145466, 0.4578275, 0.40821073],
            "std": [0.26862954, 0.26130258, 0.27577711],
            "vae_area": 256 * 256,
            "output_area": 256 * 256,
        },
        "rope": {"axes": list(sizes_of(model).rope)},
        "sampling": {"steps": 2},
    }
    for name, group in more.items():
        found[name] = found.get(name, {}) | group
    return json.loads(json.dumps(found))  # type: ignore[no-any-return]


@dataclass
class TorchGraphs:
    """The parts, in the place of a bundle."""

    settings: Mapping[str, Any]
    model: str = TINY
    task: str = "edit"
    path: Path = Path("edit.port")
    is_open: bool = True
    sessions: dict[str, TorchPart] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.parts: dict[str, Signature | None] = {part: signature(part, self.model) for part in FORMS}
        self.files = {"assets/tokenizer.json": tokenizer_json()}

    def open(self, part: str, options: TaskOptions) -> TorchPart:
        if options.variant is not None:
            raise UsageError(f"there is no variant {options.variant}")
        self.sessions[part] = TorchPart(part, self.model)
        return self.sessions[part]

    def read_bytes(self, relative: str) -> bytes:
        return self.files[relative]

    def close(self) -> None:
        self.is_open = False


@cache
def tokenizer_json() -> bytes:
    return bytes(qwen_folders.make_tokenizer().backend_tokenizer.to_str(), "utf-8")


def graphs(model: str = TINY, **more: dict[str, Any]) -> TorchGraphs:
    return TorchGraphs(settings(model, **more), model)
