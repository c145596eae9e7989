"""BLIP: captions, questions, and the matching of texts and pictures.

transformers' ``BlipForConditionalGeneration``, ``BlipForQuestionAnswering`` and
``BlipForImageTextRetrieval``, and the original checkpoints of salesforce/BLIP (``.pth``).
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from anyport.errors import SourceError
from anyport.recipe.blip_assets import (
    TOKENIZER,
    TextRules,
    assumed_pictures,
    picture_settings,
    read_tokenizer,
    text_settings,
)
from anyport.recipe.blip_cases import with_cases
from anyport.recipe.blip_original import listed, load_original
from anyport.recipe.blip_parts import answer_parts, caption_parts, match_parts, sizes_of
from anyport.recipe.part import Model, OtherTask, check_finite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from anyport.recipe.blip_original import Device
    from anyport.recipe.blip_parts import Sizes
    from anyport.recipe.part import Part

_EMBEDDING: Final = frozenset(
    {"vision_encoder", "text_encoder", "multimodal_encoder", "image_projection", "text_projection"}
)
_MAX_NEW_TOKENS: Final = 20  # transformers' own default for the length of what is generated


@dataclass(frozen=True, slots=True)
class _Kind:
    """What becomes of one of the three models."""

    task: str
    parts: Callable[[Any, Sizes], tuple[Part, ...]]


_KINDS: Final[Mapping[str, _Kind]] = {
    "BlipForConditionalGeneration": _Kind("caption", caption_parts),
    "BlipForImageTextRetrieval": _Kind("match", match_parts),
    "BlipForQuestionAnswering": _Kind("answer", answer_parts),
}


def load(checkpoint: str | Path) -> Model:
    """Load a checkpoint folder, a Hugging Face id, or a ``.pth`` file of salesforce/BLIP.

    Raises:
        SourceError: The checkpoint is not whole, or not of this family; it names the weights.
    """
    return _taken_apart(checkpoint, "cpu")


def outline(checkpoint: str | Path) -> Model:
    """Take a checkpoint apart without its weights: the modules are on torch's meta device.

    Raises:
        SourceError: The checkpoint is not of this family; of a ``.pth`` file also: it is not whole.
    """
    return _taken_apart(checkpoint, "meta")


def _taken_apart(checkpoint: str | Path, device: Device) -> Model:
    path = Path(checkpoint)
    if path.suffix == ".pth":
        original = load_original(path, device)
        _check_numbers(original.module, path.name, device)
        model = model_from_module(original.module, path.parent, str(path), original.rules)
        return replace(model, name=path.stem.lower())
    module = _from_transformers(checkpoint, device)
    _check_numbers(module, path.name, device)
    model = model_from_module(module, checkpoint, str(checkpoint), TextRules())
    return replace(model, warnings=assumed_pictures(checkpoint, model.settings["picture"]))


def _check_numbers(module: Any, name: str, device: Device) -> None:
    if device != "meta":
        check_finite(module, name)


def model_from_module(module: Any, files: str | Path, source: str, rules: TextRules) -> Model:
    """Take a loaded model apart.

    Args:
        module: One of the three models, in eval mode.
        files: The folder or Hugging Face id that has its tokenizer and its processor's settings.
        source: Its name; only the last part of a path is kept.
        rules: How texts become tokens.
    """
    kind, sizes = _KINDS[type(module).__name__], sizes_of(module.config)
    tokenizer = read_tokenizer(files)
    settings: dict[str, Any] = {
        "picture": picture_settings(files, sizes.picture),
        "text": text_settings(tokenizer, module.config.text_config, rules),
    }
    if kind.task != "match":
        settings["generation"] = {"prompt": rules.prompt, "max_new_tokens": _MAX_NEW_TOKENS}
    return Model(
        name=Path(source).name.lower(),
        source=Path(source).name if Path(source).exists() else source,
        parts=with_cases(kind.parts(module, sizes), settings, tokenizer),
        task=kind.task,
        settings=settings,
        assets={TOKENIZER: tokenizer},
        others={"embed": _features(settings, tokenizer, module, rules)} if kind.task == "match" else {},
    )


def _features(settings: Mapping[str, Any], tokenizer: bytes, module: Any, rules: TextRules) -> OtherTask:
    """Return the feature extractor: the parts of matching without the ITM head."""
    start = rules.multimodal_start if rules.feature_start is None else rules.feature_start
    words = text_settings(tokenizer, module.config.text_config, replace(rules, multimodal_start=start))
    return OtherTask(_EMBEDDING, {**settings, "text": words})


def _from_transformers(checkpoint: str | Path, device: Device) -> Any:
    import torch
    import transformers

    config = transformers.BlipConfig.from_pretrained(checkpoint)
    architecture = (config.architectures or [""])[0]
    if architecture not in _KINDS:
        raise SourceError(f"'{architecture}' is no BLIP model (known: {', '.join(_KINDS)})")
    if device == "meta":
        with torch.device("meta"):
            return getattr(transformers, architecture)(config).eval()
    with _quiet():
        module, found = getattr(transformers, architecture).from_pretrained(
            checkpoint, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True
        )
    _check_whole(found, architecture, Path(checkpoint).name)
    return module.eval()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' report to itself: what is wrong with a checkpoint is an error here."""
    from transformers.utils import logging as reports

    level, has_bar = reports.get_verbosity(), reports.is_progress_bar_enabled()
    reports.set_verbosity(logging.ERROR)
    reports.disable_progress_bar()
    try:
        yield
    finally:
        reports.set_verbosity(level)
        if has_bar:
            reports.enable_progress_bar()


def _check_whole(found: Mapping[str, Any], architecture: str, name: str) -> None:
    """Refuse a checkpoint whose weights are not those of the model: transformers fills in random ones."""
    unknown = [key for key in found["unexpected_keys"] if not key.endswith("position_ids")]
    other = [key for key, *_ in found["mismatched_keys"]]
    missing = [key for key in found["missing_keys"] if key not in other]
    for word, keys in (("lacks", missing), ("has unknown", unknown), ("has of another shape", other)):
        if keys:
            raise SourceError(
                f"'{name}' {word} {len(keys)} weights of {architecture}: {listed(keys)}",
                do="give the whole checkpoint, with the config.json that belongs to it",
            )
