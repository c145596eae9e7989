"""Recipes: how a model family splits into parts, and what surrounds them. One file per family.

A family is found by the ``architectures`` entry of the checkpoint's ``config.json``.
"""

from anyport.recipe.part import (
    AdaptableRecipe,
    Model,
    OtherTask,
    Part,
    Recipe,
    StoredWeights,
    StreamableRecipe,
)
from anyport.recipe.table import RECIPES, RecipeEntry, recipe_for, recipe_for_file

__all__ = [
    "RECIPES",
    "AdaptableRecipe",
    "Model",
    "OtherTask",
    "Part",
    "Recipe",
    "RecipeEntry",
    "StoredWeights",
    "StreamableRecipe",
    "recipe_for",
    "recipe_for_file",
]
