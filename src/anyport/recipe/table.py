"""The table of recipes: which module knows which architectures."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anyport.recipe.part import Recipe


@dataclass(frozen=True, slots=True)
class RecipeEntry:
    """Where a recipe lives, and which architectures it knows."""

    module: str
    architectures: frozenset[str]
    about: str


RECIPES: Final[Mapping[str, RecipeEntry]] = {  # sorted; nothing is imported before it is asked for
    "resnet": RecipeEntry(
        "anyport.recipe.resnet",
        frozenset({"ResNetForImageClassification"}),
        "image classification with transformers' ResNet",
    ),
}


def recipe_for(architecture: str) -> Recipe | None:
    """Return the recipe that knows this architecture, or ``None`` if there is none."""
    for entry in RECIPES.values():
        if architecture in entry.architectures:
            return cast("Recipe", import_module(entry.module))
    return None
