"""Qwen-Image-Edit: pictures and an instruction in, a picture out.

diffusers' ``QwenImageEditPlusPipeline`` (Qwen/Qwen-Image-Edit-2509), and ``QwenImageEditPipeline``, which
takes one picture.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from anyport.errors import SourceError, require
from anyport.recipe.adapters import merge_adapter, read_changes
from anyport.recipe.part import Model, StoredWeights
from anyport.recipe.qwen_edit_assets import TOKENIZER, check_configs, edit_settings, read_tokenizer
from anyport.recipe.qwen_edit_cases import with_cases
from anyport.recipe.qwen_edit_folder import INDEX, open_folder, read_json, stored_halves
from anyport.recipe.qwen_edit_original import OriginalPipeline
from anyport.recipe.qwen_edit_parts import Networks, edit_parts
from anyport.recipe.weightless import weightless

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from anyport.recipe.adapters import Adapter
    from anyport.recipe.part import Part

_COMPONENTS: Final[Mapping[str, str]] = {  # component -> the package and class it is loaded with
    "text_encoder": "transformers.Qwen2_5_VLForConditionalGeneration",
    "transformer": "diffusers.QwenImageTransformer2DModel",
    "vae": "diffusers.AutoencoderKLQwenImage",
}
_HOME: Final[Mapping[str, str]] = {  # part -> the component it is taken from
    "text_encoder": "text_encoder",
    "transformer": "transformer",
    "vae_decoder": "vae",
    "vae_encoder": "vae",
    "vision_encoder": "text_encoder",
}


def load(checkpoint: str | Path) -> Model:
    """Load a folder of diffusers, or a Hugging Face id.

    Raises:
        MissingExtraError: diffusers is not installed.
        SourceError: The pipeline is not whole, or asks for what the parts do not do; it names the file.
    """
    return load_adapted(checkpoint, ())


def load_adapted(checkpoint: str | Path, adapters: Sequence[Adapter]) -> Model:
    """Load a pipeline as `load` does, and merge LoRA adapters into its transformer.

    Raises:
        MissingExtraError: diffusers is not installed.
        SourceError: As for `load`; or an adapter is none, or of another model.
    """
    folder = _checked(checkpoint, with_weights=True)
    return _taken_apart(checkpoint, folder, adapters, _component)


def load_streamed(checkpoint: str | Path, adapters: Sequence[Adapter] = ()) -> Model:
    """Load a pipeline without the weights of its transformer and text encoder, which stay where they are.

    The autoencoder is loaded: its kernels are folded, and are small.

    Raises:
        MissingExtraError: diffusers is not installed.
        SourceError: As for `load`, but for what only weights can tell; or an adapter is none, or of another
            model.
    """
    folder = _checked(checkpoint, with_weights=True)
    found = _taken_apart(checkpoint, folder, (), _hollow_component)
    return replace(found, parts=tuple(_stored(part, found, folder, adapters) for part in found.parts))


def outline(checkpoint: str | Path) -> Model:
    """Return what `load` returns, with the networks on torch's meta device: no weight is read or downloaded.

    Parts that `load_streamed` does not load say where their weights lie, or will.

    Raises:
        MissingExtraError: diffusers is not installed.
        SourceError: As for `load`, but for what only the weights can tell.
    """
    folder = _checked(checkpoint, with_weights=False)
    found = _taken_apart(checkpoint, folder, (), _shape_of)
    for part in found.parts:
        part.module.to("meta")  # what a wrapper has computed from the configuration
    return replace(found, parts=tuple(_stored(part, found, folder, ()) for part in found.parts))


def _checked(checkpoint: str | Path, *, with_weights: bool) -> Path:
    require("diffusers", extra="edit", step="a pipeline of diffusers")
    folder = open_folder(checkpoint, with_weights=with_weights)
    check_configs(folder)
    return folder


def _taken_apart(
    checkpoint: str | Path,
    folder: Path,
    adapters: Sequence[Adapter],
    component: Callable[[Path, str], Any],
) -> Model:
    networks = Networks(**{name: component(folder, name) for name in _COMPONENTS})
    tokenizer = read_tokenizer(folder)
    pipeline = read_json(folder / INDEX)["_class_name"]
    settings = edit_settings(folder, networks, pipeline, tokenizer)
    merged = tuple(merge_adapter(networks.transformer, adapter) for adapter in adapters)
    parts = tuple(_with_widening(part, folder) for part in edit_parts(networks))
    parts = tuple(replace(p, cures=p.cures + merged) if p.name == "transformer" else p for p in parts)
    name = Path(checkpoint).name
    original = OriginalPipeline(folder, pipeline, networks, settings)
    return Model(
        name=name.lower(),
        source=name if Path(checkpoint).exists() else str(checkpoint),
        parts=with_cases(parts, settings, tokenizer),
        task="edit",
        settings=settings,
        assets={TOKENIZER: tokenizer},
        task_cases=original.answers,
        task_requests=original.requests,
        whole=(networks.text_encoder, networks.transformer, networks.vae),
        fuses_attention=True,  # 8192 tokens and 24 heads: 6.4 GB of scores
    )


def _stored(part: Part, model: Model, folder: Path, adapters: Sequence[Adapter]) -> Part:
    """Say where the weights of a part lie, and what is merged into them."""
    component = _HOME[part.name]
    if component == "vae":
        return part
    home = model.whole[list(_COMPONENTS).index(component)]
    if component == "text_encoder":
        return replace(part, stored=StoredWeights(home, folder / component, _name_today))
    words = tuple(read_changes(home, adapter)[1] for adapter in adapters)
    stored = StoredWeights(home, folder / component, adapters=tuple(adapters))
    return replace(part, stored=stored, cures=part.cures + words)


def _name_today(name: str) -> str:
    """Return what transformers calls a weight of Qwen2.5-VL, for names in published files and new ones.

    >>> _name_today("visual.merger.ln_q.weight"), _name_today("model.norm.weight")
    ('model.visual.merger.ln_q.weight', 'model.language_model.norm.weight')
    """
    if name.startswith("visual."):
        return f"model.{name}"
    if name.startswith("model.") and not name.startswith(("model.visual.", "model.language_model.")):
        return f"model.language_model.{name.removeprefix('model.')}"
    return name


def _with_widening(part: Part, folder: Path) -> Part:
    """Say so where weights are stored in two bytes and computed with in four."""
    stored = stored_halves(folder, _HOME[part.name])
    if not stored:
        return part
    return replace(
        part, cures=(*part.cures, f"weights stored in {' and '.join(stored)} are widened to float32")
    )


def _class_of(name: str) -> tuple[str, Any]:
    """Return the package and the class of a component."""
    package, _, cls = _COMPONENTS[name].partition(".")
    return package, getattr(require(package, extra="edit", step="a pipeline of diffusers"), cls)


def _hollow_component(folder: Path, name: str) -> Any:
    """Return a component; a large one without weights, and with what it computes itself."""
    return _component(folder, name) if name == "vae" else _from_config(folder, name, weightless())


def _shape_of(folder: Path, name: str) -> Any:
    """Return a component as its configuration says, all of it on torch's meta device."""
    import torch

    return _from_config(folder, name, torch.device("meta"))


def _from_config(folder: Path, name: str, place: AbstractContextManager[Any]) -> Any:
    package, cls = _class_of(name)
    with place, _quiet():
        if package == "transformers":
            return cls(cls.config_class.from_pretrained(folder / name, local_files_only=True)).eval()
        return cls.from_config(cls.load_config(folder / name, local_files_only=True)).eval()


def _component(folder: Path, name: str) -> Any:
    import torch

    package, loader = _class_of(name)
    word = "dtype" if package == "transformers" else "torch_dtype"
    with _quiet():
        module, found = loader.from_pretrained(
            folder / name,
            **{word: torch.float32},
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            local_files_only=True,
        )
    _check_whole(found, name, folder.name)
    return module.eval()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the reports of both packages to themselves: what is wrong with a checkpoint is an error here."""
    from diffusers.utils import logging as diffusers_reports
    from transformers.utils import logging as transformers_reports

    reports = (diffusers_reports, transformers_reports)
    before = [(report.get_verbosity(), report.is_progress_bar_enabled()) for report in reports]
    for report in reports:
        report.set_verbosity(logging.ERROR)
        report.disable_progress_bar()
    try:
        yield
    finally:
        for report, (level, has_bar) in zip(reports, before, strict=True):
            report.set_verbosity(level)
            if has_bar:
                report.enable_progress_bar()


def _check_whole(found: Mapping[str, Any], component: str, name: str) -> None:
    """Refuse weights that are not those of the configuration: the packages fill in random ones."""
    other = [key if isinstance(key, str) else key[0] for key in found["mismatched_keys"]]
    missing = [key for key in found["missing_keys"] if key not in other]
    unknown = list(found["unexpected_keys"])
    for word, keys in (("lacks", missing), ("has unknown", unknown), ("has of another shape", other)):
        if keys:
            more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            raise SourceError(
                f"{component} of '{name}' {word} {len(keys)} weights: '{min(keys)}'{more}",
                do=f"give the whole pipeline, with the {component}/config.json that belongs to it",
            )
