"""The table of recipes: which module knows which architectures."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from anyport.recipe.part import Recipe


@dataclass(frozen=True, slots=True)
class RecipeEntry:
    """Where a recipe lives, which architectures it knows, and which files of single weights (suffixes)."""

    module: str
    architectures: frozenset[str]
    about: str
    suffixes: frozenset[str] = frozenset()


RECIPES: Final[Mapping[str, RecipeEntry]] = {  # sorted; nothing is imported before it is asked for
    "blip": RecipeEntry(
        "anyport.recipe.blip",
        frozenset({"BlipForConditionalGeneration", "BlipForImageTextRetrieval", "BlipForQuestionAnswering"}),
        "captions, questions and matching with BLIP, of transformers or salesforce/BLIP",
        frozenset({".pth"}),
    ),
    "qwen_edit": RecipeEntry(
        "anyport.recipe.qwen_edit",
        frozenset({"QwenImageEditPipeline", "QwenImageEditPlusPipeline"}),
        "pictures and an instruction in, a picture out: diffusers' Qwen-Image-Edit",
    ),
    "resnet": RecipeEntry(
        "anyport.recipe.resnet",
        frozenset({"ResNetForImageClassification"}),
        "image classification with transformers' ResNet",
    ),
}


def recipe_for(architecture: str) -> Recipe | None:
    """Return the recipe that knows this architecture, or ``None`` if there is none."""
    return _first(lambda entry: architecture in entry.architectures)


def recipe_for_file(suffix: str) -> Recipe | None:
    """Return the recipe that knows files with this suffix, or ``None`` if there is none."""
    return _first(lambda entry: suffix in entry.suffixes)


def _first(knows: Callable[[RecipeEntry], bool]) -> Recipe | None:
    found = next((entry for entry in RECIPES.values() if knows(entry)), None)
    return None if found is None else cast("Recipe", import_module(found.module))
