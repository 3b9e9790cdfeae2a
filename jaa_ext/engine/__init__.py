"""Training, evaluation and scores."""

from jaa_ext.engine.checkpoint import load_checkpoint, save_checkpoint
from jaa_ext.engine.criterion import JointLoss
from jaa_ext.engine.evaluate import evaluate
from jaa_ext.engine.metrics import Metrics, Scores
from jaa_ext.engine.recipe import Recipe, RecipeError, builtin_recipes, load_recipe
from jaa_ext.engine.run import RunError
from jaa_ext.engine.trainer import NonFiniteLoss, train

__all__ = [
    "JointLoss",
    "Metrics",
    "NonFiniteLoss",
    "Recipe",
    "RecipeError",
    "RunError",
    "Scores",
    "builtin_recipes",
    "evaluate",
    "load_checkpoint",
    "load_recipe",
    "save_checkpoint",
    "train",
]
