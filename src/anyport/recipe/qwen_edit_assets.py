"""What surrounds the networks of a Qwen-Image-Edit pipeline: tokenizer, template, sizes, schedule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from anyport.errors import SourceError
from anyport.recipe.qwen_edit_folder import read_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from anyport.recipe.qwen_edit_parts import Networks

TOKENIZER: Final = "assets/tokenizer.json"  # where it lies in a bundle
IMAGE_PAD: Final = "<|image_pad|>"
# from diffusers (0.42): QwenImageEditPlusPipeline and QwenImageEditPipeline have the same words around a text
BEFORE: Final = (
    "<|im_start|>system\nDescribe the key features of the input image (color, shape, size, texture, "
    "objects, background), then explain how the user's text instruction should alter or modify the image. "
    "Generate a new image that meets the user's requirements while maintaining consistency with the original "
    "input where appropriate.<|im_end|>\n<|im_start|>user\n"
)
AFTER: Final = "<|im_end|>\n<|im_start|>assistant\n"
N_DROPPED: Final = 64  # diffusers drops so many states by position, whatever the tokenizer makes of the words


@dataclass(frozen=True, slots=True)
class Form:
    """What differs between the pipelines.

    Attributes:
        picture: What stands for a picture in a text.
        n_max: How many pictures there may be.
        condition_area: What the vision encoder sees, in pixels.
    """

    picture: str
    n_max: int
    condition_area: int


FORMS: Final[Mapping[str, Form]] = {
    "QwenImageEditPipeline": Form("<|vision_start|><|image_pad|><|vision_end|>", 1, 1024 * 1024),
    "QwenImageEditPlusPipeline": Form(
        "Picture {}: <|vision_start|><|image_pad|><|vision_end|>", 3, 384 * 384
    ),
}
# what the processor does where its file is silent (transformers 5.23, image_processing_pil_qwen2_vl.py)
_PROCESSOR: Final[Mapping[str, Any]] = {
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": (0.48145466, 0.4578275, 0.40821073),
    "image_std": (0.26862954, 0.26130258, 0.27577711),
    "merge_size": 2,
    "patch_size": 14,
    "resample": 3,
    "rescale_factor": 1 / 255,
    "size": {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 1280},
    "temporal_patch_size": 2,
}
# what the scheduler does where its file is silent (diffusers 0.42)
_SCHEDULER: Final[Mapping[str, Any]] = {
    "base_image_seq_len": 256,
    "base_shift": 0.5,
    "invert_sigmas": False,
    "max_image_seq_len": 4096,
    "max_shift": 1.15,
    "num_train_timesteps": 1000,
    "shift": 1.0,
    "shift_terminal": None,
    "stochastic_sampling": False,
    "time_shift_type": "exponential",
    "use_beta_sigmas": False,
    "use_dynamic_shifting": False,
    "use_exponential_sigmas": False,
    "use_karras_sigmas": False,
}
_TRANSFORMER_REFUSED: Final = ("guidance_embeds", "use_additional_t_cond", "use_layer3d_rope")
_SCHEDULER_REFUSED: Final = (
    "invert_sigmas",
    "stochastic_sampling",
    "use_beta_sigmas",
    "use_exponential_sigmas",
    "use_karras_sigmas",
)
_TOKENIZER_FILES: Final = ("tokenizer.json", "vocab.json")


def check_configs(folder: Path) -> None:
    """Refuse a pipeline whose configuration asks for what the parts do not do.

    Raises:
        SourceError: It names the file and the setting.
    """
    transformer, vae = (read_json(folder / name / "config.json") for name in ("transformer", "vae"))
    _refuse(transformer, "transformer/config.json", _TRANSFORMER_REFUSED)
    _refuse(vae, "vae/config.json", ("attn_scales", "is_residual"))
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
    _refuse(scheduler, "scheduler/scheduler_config.json", _SCHEDULER_REFUSED)
    name = scheduler.get("_class_name")
    if name != "FlowMatchEulerDiscreteScheduler":
        raise SourceError(
            f"scheduler/scheduler_config.json names the scheduler '{name}', "
            "the task has FlowMatchEulerDiscreteScheduler"
        )


def _refuse(config: Mapping[str, Any], file: str, names: tuple[str, ...]) -> None:
    for name in names:
        if config.get(name):
            raise SourceError(
                f"{file} has {name} = {config[name]}, which this recipe does not do",
                do="give a pipeline as Qwen/Qwen-Image-Edit-2509 or 2511 is",
            )


def read_tokenizer(folder: Path) -> bytes:
    """Return the content of a ``tokenizer.json`` as transformers reads the files of a pipeline.

    The pipeline's texts go through its processor, so the tokenizer in ``processor`` comes first.

    Raises:
        SourceError: There is none.
    """
    from transformers import Qwen2Tokenizer

    places = [folder / "processor", folder / "tokenizer"]
    place = next((p for p in places if any((p / name).is_file() for name in _TOKENIZER_FILES)), None)
    if place is None:
        raise SourceError(
            f"'{folder.name}' has no tokenizer: neither tokenizer.json nor vocab.json in tokenizer/",
            do="download the whole pipeline again",
        )
    tokenizer = Qwen2Tokenizer.from_pretrained(place).backend_tokenizer
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return str(tokenizer.to_str()).encode()


def edit_settings(folder: Path, networks: Networks, pipeline: str, tokenizer: bytes) -> dict[str, Any]:
    """Return the settings of the task.

    Args:
        folder: Of the pipeline.
        networks: Loaded from it.
        pipeline: Its class.
        tokenizer: As `read_tokenizer` gives it.

    Raises:
        SourceError: Tokenizer, processor and networks do not fit each other.
    """
    form, config = FORMS[pipeline], networks.transformer.config
    return {
        "text": _text_settings(tokenizer, networks.text_encoder.config, form),
        "picture": _picture_settings(folder, networks.text_encoder.config.vision_config, form),
        "latents": {
            "channels": networks.vae.config.z_dim,
            "patch": config.patch_size,
            "vae_scale": 2 ** len(networks.vae.config.temperal_downsample),
        },
        "rope": {"axes": list(config.axes_dims_rope), "theta": 10000.0},
        "schedule": _schedule_settings(folder),
        "sampling": {"steps": 40, "guidance": 4.0, "negative": " "},  # as the model card of 2509 says
    }


def _text_settings(tokenizer: bytes, config: Any, form: Form) -> dict[str, Any]:
    from tokenizers import Tokenizer

    words = Tokenizer.from_str(tokenizer.decode())
    n_words = words.get_vocab_size()
    if n_words > config.text_config.vocab_size:
        raise SourceError(
            f"the tokenizer has {n_words} tokens, the text encoder knows {config.text_config.vocab_size}",
            do="give the tokenizer that belongs to this pipeline",
        )
    if words.token_to_id(IMAGE_PAD) != config.image_token_id:
        raise SourceError(
            f"the tokenizer calls {IMAGE_PAD} {words.token_to_id(IMAGE_PAD)}, "
            f"text_encoder/config.json {config.image_token_id}"
        )
    if set(config.text_config.layer_types) != {"full_attention"}:
        raise SourceError(
            "text_encoder/config.json has use_sliding_window = True, which this recipe does not do"
        )
    n_before = len(words.encode(BEFORE, add_special_tokens=False).ids)
    if n_before != N_DROPPED:
        raise SourceError(
            f"the template begins with {n_before} tokens of this tokenizer, and diffusers drops {N_DROPPED}",
            do="give the tokenizer that belongs to this pipeline",
        )
    return {
        "tokenizer": TOKENIZER,
        "before": BEFORE,
        "after": AFTER,
        "picture": form.picture,
        "image_pad": config.image_token_id,
        "n_dropped": N_DROPPED,
        "positions": "plain",  # diffusers 0.42 gives the language model no others; see docs/recipe.md
    }


def _picture_settings(folder: Path, vision: Any, form: Form) -> dict[str, Any]:
    names = ("preprocessor_config.json", "processor_config.json")
    path = next((p for name in names if (p := folder / "processor" / name).is_file()), None)
    written: Mapping[str, Any] = {} if path is None else read_json(path)
    said = {name: v for name, v in written.get("image_processor", written).items() if v is not None}
    known = {**_PROCESSOR, **said}
    file = f"processor/{path.name}" if path else "the processor of transformers"
    _check_processor(known, file, vision)
    return {
        "n_max": form.n_max,
        "condition_area": form.condition_area,
        "vae_area": 1024 * 1024,
        "output_area": 1024 * 1024,
        "side_multiple": 32,
        "patch": vision.patch_size,
        "temporal_patch": vision.temporal_patch_size,
        "merge": vision.spatial_merge_size,
        "window": vision.window_size,
        "min_pixels": known.get("min_pixels") or known["size"]["shortest_edge"],
        "max_pixels": known.get("max_pixels") or known["size"]["longest_edge"],
        "mean": [float(value) for value in known["image_mean"]],
        "std": [float(value) for value in known["image_std"]],
    }


def _check_processor(known: Mapping[str, Any], file: str, vision: Any) -> None:
    wanted = {
        "merge_size": vision.spatial_merge_size,
        "patch_size": vision.patch_size,
        "temporal_patch_size": vision.temporal_patch_size,
    }
    fixed = ("do_convert_rgb", "do_normalize", "do_rescale", "do_resize", "resample", "rescale_factor")
    wanted |= {name: _PROCESSOR[name] for name in fixed}
    for name, value in wanted.items():
        if abs(known[name] - value) > 1e-9:  # noqa: PLR2004  (1/255 is written with nine digits or more)
            raise SourceError(f"{file} has {name} = {known[name]}, expected {value}")


def _schedule_settings(folder: Path) -> dict[str, Any]:
    known = {**_SCHEDULER, **read_json(folder / "scheduler" / "scheduler_config.json")}
    return {
        "n_train_timesteps": known["num_train_timesteps"],
        "dynamic": known["use_dynamic_shifting"],
        "shift": known["shift"],
        "base_shift": known["base_shift"],
        "max_shift": known["max_shift"],
        "base_tokens": known["base_image_seq_len"],
        "max_tokens": known["max_image_seq_len"],
        "terminal": known["shift_terminal"] or None,
        "time_shift": known["time_shift_type"],
    }
