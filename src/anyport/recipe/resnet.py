"""ResNet image classification: transformers' ``ResNetForImageClassification``.

Preprocessing follows ``ConvNextImageProcessor``, which ResNet checkpoints name: below 384 pixels the
shorter side is resized to ``shortest_edge / crop_pct`` and the middle is cut out, from 384 pixels on the
picture is resized to a square.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn

from anyport.errors import SourceError
from anyport.recipe.part import Model, Part, assumption, check_finite
from anyport.tensors import Signature, dim, tensor

if TYPE_CHECKING:
    from collections.abc import Mapping

_WHOLE_PICTURE: Final = 384  # from this size on the processor does not crop
# what the processor does where its file is silent (transformers 5.23, image_processing_pil_convnext.py)
_DEFAULTS: Final[dict[str, Any]] = {
    "crop_pct": 224 / 256,
    "image_mean": (0.5, 0.5, 0.5),
    "image_std": (0.5, 0.5, 0.5),
    "resample": 3,
    "rescale_factor": 1 / 255,
    "size": {"shortest_edge": _WHOLE_PICTURE},
}
# what the files of microsoft/resnet-18 to resnet-152 say, for a checkpoint that has no file
_PUBLISHED: Final[Mapping[str, Any]] = {
    "image_mean": (0.485, 0.456, 0.406),
    "image_std": (0.229, 0.224, 0.225),
    "size": 224,
}
_DESCRIBE: Final = "describe the model in an anyport.toml with [settings] of the classify task"
_RESAMPLE: Final = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}


def load(checkpoint: str | Path) -> Model:
    """Load a checkpoint folder or Hugging Face id.

    Raises:
        SourceError: The checkpoint is not whole, or its processor is of an unknown kind.
    """
    from transformers import ResNetForImageClassification

    module: nn.Module = ResNetForImageClassification.from_pretrained(checkpoint)
    check_finite(module, Path(checkpoint).name)
    return model_from_module(module.eval(), _processor_settings(checkpoint), str(checkpoint))


def outline(checkpoint: str | Path) -> Model:
    """Take a checkpoint apart without its weights: the module is on torch's meta device.

    Raises:
        SourceError: Its processor is of an unknown kind.
    """
    from transformers import AutoConfig, ResNetForImageClassification

    with torch.device("meta"):
        module: nn.Module = ResNetForImageClassification(AutoConfig.from_pretrained(checkpoint))
    return model_from_module(module.train(mode=False), _processor_settings(checkpoint), str(checkpoint))


def model_from_module(module: Any, processor: Mapping[str, Any], source: str) -> Model:
    """Take a loaded ``ResNetForImageClassification`` apart.

    Args:
        module: In eval mode.
        processor: The content of its ``preprocessor_config.json``; empty if there is none: then as in the
            published ResNet checkpoints.
        source: Its name; only the last part of a path is kept.
    """
    size = _target_size(processor)
    n_labels, n_channels = module.config.num_labels, module.config.num_channels
    signature = Signature(
        inputs=(tensor("pixel_values", f"float32[batch, {n_channels}, {size}, {size}]"),),
        outputs=(tensor("logits", f"float32[batch, {n_labels}]"),),
        dims={"batch": dim("batch", "1..64")},
    )
    labels = [str(module.config.id2label[i]) for i in range(n_labels)]
    name = Path(source).name.lower()
    pictures = task_settings(processor, size)
    return Model(
        name=name,
        source=Path(source).name if Path(source).exists() else source,
        parts=(Part("network", Logits(module).eval(), signature),),
        task="classify",
        settings={"labels": labels} | pictures,
        warnings=() if processor else (assumption(pictures, "microsoft/resnet-*"),),
    )


def task_settings(processor: Mapping[str, Any], size: int) -> dict[str, Any]:
    """Return the settings of the ``classify`` task for a ``preprocessor_config.json``.

    Args:
        processor: Where it is silent, the processor's own defaults hold; empty is as published.
        size: Height and width of the network's input, in pixels.
    """
    known = _DEFAULTS | dict(processor or _PUBLISHED)
    settings: dict[str, Any] = {"mode": "RGB", "resample": _RESAMPLE[int(known["resample"])]}
    settings["scale"] = float(known["rescale_factor"]) if known.get("do_rescale", True) else 1.0
    if known.get("do_normalize", True):
        settings["mean"] = [float(value) for value in known["image_mean"]]
        settings["std"] = [float(value) for value in known["image_std"]]
    if size >= _WHOLE_PICTURE:
        return settings | {"size": [size, size]}
    edge = int(size / float(known["crop_pct"]))
    return settings | {"shortest_edge": edge, "crop": [size, size]}


class Logits(nn.Module):
    """float32[batch, channels, height, width] -> float32[batch, labels]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Return the logits alone."""
        logits: Tensor = self.network(pixel_values=pixel_values, return_dict=True).logits
        return logits


def _target_size(processor: Mapping[str, Any]) -> int:
    size = (_DEFAULTS | dict(processor or _PUBLISHED))["size"]
    if isinstance(size, int):
        return size
    if "shortest_edge" in size:
        return int(size["shortest_edge"])
    raise SourceError(f"preprocessor_config.json has size = {dict(size)}, expected 'shortest_edge'")


def _processor_settings(checkpoint: str | Path) -> dict[str, Any]:
    folder = Path(checkpoint)
    if folder.is_dir():
        found = folder / "preprocessor_config.json"
    else:
        from huggingface_hub import hf_hub_download

        found = Path(hf_hub_download(str(checkpoint), "preprocessor_config.json"))
    if not found.is_file():
        return {}
    settings: dict[str, Any] = json.loads(found.read_text(encoding="utf-8"))
    kind = settings.get("image_processor_type", settings.get("feature_extractor_type", ""))
    if kind and not kind.startswith("ConvNext"):
        raise SourceError(
            f"the checkpoint's picture processor is '{kind}', this recipe knows ConvNext's",
            do=_DESCRIBE,
        )
    if not settings.get("do_resize", True) or settings.get("do_center_crop", False):
        raise SourceError(
            "preprocessor_config.json has do_resize = false or do_center_crop = true, "
            "which ConvNext's processor has not",
            do=_DESCRIBE,
        )
    return settings
