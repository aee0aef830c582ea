"""Which data set a recipe wants built."""

from __future__ import annotations

from configs.schema import Recipe
from rollout.built_set import BuiltSet
from rollout.emoji import emoji_set
from rollout.words import words_set


def wanted_set(recipe: Recipe) -> BuiltSet | None:
    """The set that the recipe's `data` asks for; None where its files come from elsewhere."""
    if recipe.data.emoji is not None:
        return emoji_set(recipe.data.emoji, recipe.response)
    if recipe.data.words is not None:
        return words_set(recipe.data.words, recipe.response)
    return None
