"""The pipeline of diffusers itself: what it answers to a few requests is the proof of the whole task."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
import torch
from PIL import Image

from anyport.cases import Normal, Uniform, make_array
from anyport.task.edit_rehearsal import words_of
from anyport.task.edit_settings import EditorSettings
from anyport.task.rehearsals import TaskAnswer, TaskRequest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from anyport.recipe.qwen_edit_parts import Networks

_MODULE: Final = "diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_plus"
_TOKEN: Final = 16  # pixels
_TOKEN_WIDTH: Final = 64
_GUIDED: Final = {"guidance": 4.0, "negative": "blurry"}
# small, so that a case costs little: the grids of tokens are odd, and the windows ragged
_AREAS: Final = {"condition_area": 160 * 160, "vae_area": 96 * 96}
_SCHEDULE: Final[Mapping[str, str]] = {  # setting of the task -> of diffusers' scheduler
    "base_shift": "base_shift",
    "base_tokens": "base_image_seq_len",
    "dynamic": "use_dynamic_shifting",
    "max_shift": "max_shift",
    "max_tokens": "max_image_seq_len",
    "n_train_timesteps": "num_train_timesteps",
    "shift": "shift",
    "terminal": "shift_terminal",
    "time_shift": "time_shift_type",
}
_CHINESE: Final = "把白色T恤换成黑色,并添加'新品上市'文字"


@dataclass(frozen=True, slots=True)
class _Asked:
    """One request: sizes of pictures (width, height), of the answer, and words."""

    name: str
    pictures: tuple[tuple[int, int], ...]
    instruction: str
    size: tuple[int, int]
    steps: int
    more: Mapping[str, Any]


_ONE: Final = ((130, 97),)
_TWO: Final = ((37, 53), (240, 64))
# pairs that differ in words or pictures alone show that these are seen: see anyport.verify.whole_task
_SMALL: Final = (
    _Asked("one picture", _ONE, "make the sky red, and add a hat", (112, 80), 4, _GUIDED | _AREAS),
    _Asked("other words", _ONE, "make it look like winter", (112, 80), 4, _GUIDED | _AREAS),
    _Asked("two pictures, Chinese", _TWO, _CHINESE, (48, 144), 3, _GUIDED | _AREAS),
    _Asked("two pictures, exchanged", _TWO[::-1], _CHINESE, (48, 144), 3, _GUIDED | _AREAS),
    _Asked(
        "three pictures, no guidance", (*_TWO, *_ONE), "join them", (80, 80), 4, {"guidance": 1.0} | _AREAS
    ),
    _Asked("no words, one token", _ONE, "", (16, 16), 4, {"guidance": 2.5, "negative": ""} | _AREAS),
)
_TRUE_AREAS: Final = _Asked(
    "pictures as large as the model sees them", _ONE, "add a hat", (80, 64), 2, {"guidance": 1.0}
)
_SINGLE: Final = (
    _Asked("one picture", _ONE, "make the sky red, and add a hat", (112, 80), 2, _GUIDED),
    _Asked("other words", _ONE, _CHINESE, (112, 80), 2, _GUIDED),
)


class OriginalPipeline:
    """A pipeline of diffusers around networks that are loaded.

    Args:
        folder: Of the pipeline.
        name: Its class.
        networks: Loaded from the folder.
        settings: What the recipe reads from the folder for the task.
    """

    def __init__(self, folder: Path, name: str, networks: Networks, settings: Mapping[str, Any]) -> None:
        self._folder, self._name, self._networks = folder, name, networks
        self._own = msgspec.convert(settings, EditorSettings)

    def answers(self, settings: Mapping[str, Any]) -> Iterator[tuple[TaskRequest, TaskAnswer]]:
        """Run the pipeline on a few requests; of the first one, what lies between the parts is told too.

        Args:
            settings: Of the task, as the user may have changed them: the pipeline follows where it can
                (schedule, areas, positions).
        """
        chosen = msgspec.convert(settings, EditorSettings)
        pipeline = self._pipeline(chosen)
        for number, asked in enumerate(self.requests()):
            request = _as_used(asked, chosen)
            with ExitStack() as stack:
                stack.enter_context(torch.no_grad())
                stack.enter_context(_areas(request, chosen))
                stack.enter_context(_positions(pipeline.text_encoder, chosen.text.positions))
                between = stack.enter_context(_between(pipeline)) if number == 0 else {}
                picture = pipeline(**_words(request)).images[0]
            yield request, TaskAnswer(picture, between)

    def requests(self) -> Iterator[TaskRequest]:
        """Make what the pipeline is asked; nothing is run."""
        asked = (*_SMALL, _TRUE_AREAS) if self._own.picture.n_max > 1 else _SINGLE
        yield from map(_request, asked)

    def _pipeline(self, chosen: EditorSettings) -> Any:
        import diffusers

        scheduler: Any = diffusers.FlowMatchEulerDiscreteScheduler
        written = scheduler.from_pretrained(self._folder / "scheduler")
        # what the recipe read is left as it is written, or a mistake in reading it would not show
        own, new = self._own.schedule, chosen.schedule
        pairs = {theirs: (getattr(own, ours), getattr(new, ours)) for ours, theirs in _SCHEDULE.items()}
        changed = {theirs: after for theirs, (before, after) in pairs.items() if before != after}
        processor = _processor(self._folder)
        pipeline = getattr(diffusers, self._name)(
            scheduler=scheduler.from_config(written.config, **changed),
            vae=self._networks.vae,
            text_encoder=self._networks.text_encoder,
            tokenizer=processor.tokenizer,
            processor=processor,
            transformer=self._networks.transformer,
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline


def _processor(folder: Path) -> Any:
    """Return the processor, which transformers makes only where torchvision is installed, for videos."""
    from transformers import Qwen2Tokenizer, Qwen2VLProcessor
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    names = ("preprocessor_config.json", "processor_config.json")
    home = folder / "processor"
    is_written = any((home / name).is_file() for name in names)
    pictures = Qwen2VLImageProcessorPil.from_pretrained(home) if is_written else Qwen2VLImageProcessorPil()
    words = ("tokenizer.json", "vocab.json")
    has_words = any((home / name).is_file() for name in words)
    tokenizer = Qwen2Tokenizer.from_pretrained(home if has_words else folder / "tokenizer")
    processor: Any = object.__new__(Qwen2VLProcessor)
    processor.image_processor, processor.tokenizer, processor.chat_template = pictures, tokenizer, None
    processor.image_token, processor.video_token = "<|image_pad|>", "<|video_pad|>"
    processor.image_token_id = tokenizer.convert_tokens_to_ids(processor.image_token)
    processor.video_token_id = tokenizer.convert_tokens_to_ids(processor.video_token)
    return processor


def _as_used(request: TaskRequest, settings: EditorSettings) -> TaskRequest:
    """Ask without guidance where the model is used without: what it was not trained for amplifies rounding.

    Measured with examples/product_editor: 109 dB between two correct programs at a scale of 4, 120 without.
    """
    if settings.sampling.guidance > 1:
        return request
    words = {name: value for name, value in request.words.items() if name != "negative"}
    return replace(request, words=words | {"guidance": 1.0})


def _request(asked: _Asked) -> TaskRequest:
    width, height = asked.size
    words: dict[str, Any] = {"instruction": asked.instruction, "steps": asked.steps}
    n_tokens = width // _TOKEN * (height // _TOKEN)
    return TaskRequest(
        asked.name,
        words | {"width": width, "height": height, **asked.more},
        [_picture(*size) for size in asked.pictures],
        {"latents": make_array(Normal(n_tokens), (1, n_tokens, _TOKEN_WIDTH), "float32")},
    )


def _picture(width: int, height: int) -> np.ndarray:
    """Return a picture of smooth colours with some grain: the same one everywhere."""
    shape, seed = (height // 40 + 2, width // 40 + 2, 3), height * 1000 + width
    coarse = Image.fromarray(make_array(Uniform(seed, 20, 235), shape, "uint8"))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(np.int64)
    grain = make_array(Uniform(seed + 1, -12, 12), (height, width, 3), "int64")
    return np.asarray((smooth + grain).clip(0, 255).astype(np.uint8))


def _words(request: TaskRequest) -> dict[str, Any]:
    """Return what the pipeline is called with."""
    words = words_of(request)
    pictures = [Image.fromarray(one) for one in request.pictures]
    return {
        "image": pictures if len(pictures) > 1 else pictures[0],
        "prompt": words.instruction,
        "negative_prompt": words.negative,
        "true_cfg_scale": words.guidance,
        "width": words.width,
        "height": words.height,
        "num_inference_steps": words.steps,
        "latents": torch.from_numpy(request.arrays["latents"].copy()),
        "output_type": "np",
    }


@contextmanager
def _areas(request: TaskRequest, settings: EditorSettings) -> Iterator[None]:
    """Let the pipeline reduce pictures to the areas of a request: they are constants of its module."""
    module: Any = import_module(_MODULE)
    words = words_of(request)
    before = module.CONDITION_IMAGE_SIZE, module.VAE_IMAGE_SIZE
    module.CONDITION_IMAGE_SIZE = words.condition_area or settings.picture.condition_area
    module.VAE_IMAGE_SIZE = words.vae_area or settings.picture.vae_area
    try:
        yield
    finally:
        module.CONDITION_IMAGE_SIZE, module.VAE_IMAGE_SIZE = before


@contextmanager
def _positions(encoder: Any, positions: str) -> Iterator[None]:
    """Give the text encoder the multimodal positions that it was trained with, where they are asked for."""
    token = encoder.config.image_token_id

    def with_types(_: Any, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
        return given, {**named, "mm_token_type_ids": (named["input_ids"] == token).int()}

    is_told = positions == "multimodal"
    hooks = [encoder.register_forward_pre_hook(with_types, with_kwargs=True)] if is_told else []
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _between(pipeline: Any) -> Iterator[dict[str, np.ndarray]]:
    """Collect what each network answers first; the last one's answer is the picture itself."""
    found: dict[str, np.ndarray] = {}

    def keep(part: str, tensor: torch.Tensor) -> None:
        found.setdefault(part, tensor.detach().float().numpy().copy())

    model, encode = pipeline.text_encoder.model, pipeline._encode_vae_image  # noqa: SLF001 -- it has no other

    def encoded(image: torch.Tensor, generator: Any) -> Any:
        latent = encode(image=image, generator=generator)
        keep("vae_encoder", latent[:, :, 0])
        return latent

    hooks = [
        model.visual.register_forward_hook(lambda _, __, out: keep("vision_encoder", out.pooler_output)),
        model.language_model.register_forward_hook(
            lambda _, __, out: keep("text_encoder", out.last_hidden_state)
        ),
        pipeline.transformer.register_forward_hook(lambda _, __, out: keep("transformer", out[0])),
    ]
    pipeline._encode_vae_image = encoded  # noqa: SLF001
    try:
        yield found
    finally:
        del pipeline._encode_vae_image  # noqa: SLF001
        for hook in hooks:
            hook.remove()
