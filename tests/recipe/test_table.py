"""The table of recipes: sorted, and every row leads to a module that can load."""

from __future__ import annotations

from anyport.recipe import RECIPES, recipe_for


def test_every_recipe_is_found_by_its_architectures() -> None:
    assert list(RECIPES) == sorted(RECIPES)
    for entry in RECIPES.values():
        assert entry.about
        for architecture in entry.architectures:
            found = recipe_for(architecture)
            assert found is not None
            assert found.__name__ == entry.module  # type: ignore[attr-defined]
            assert callable(found.load)
    assert recipe_for("WhisperModel") is None
