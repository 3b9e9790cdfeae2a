"""Recipes: all that a training run depends on, and the built-in ones, one for each published experiment."""

from jaa_ext.recipes.schema import Recipe, RecipeError, builtin_recipes, load_recipe

__all__ = ["Recipe", "RecipeError", "builtin_recipes", "load_recipe"]
