"""Training, evaluation and scores."""

from jaa_ext.engine.ablate import Comparison, ablate
from jaa_ext.engine.bootstrap import bootstrap_intervals
from jaa_ext.engine.calibrate import calibrate_thresholds
from jaa_ext.engine.checkpoint import load_checkpoint, save_checkpoint
from jaa_ext.engine.criterion import JointLoss
from jaa_ext.engine.crossval import CrossValidation, cross_validate
from jaa_ext.engine.evaluate import NonFiniteOutput, evaluate
from jaa_ext.engine.metrics import Intervals, Metrics, Predictions, Scores, score
from jaa_ext.engine.recipe import Recipe, RecipeError, builtin_recipes, load_recipe
from jaa_ext.engine.run import RunError
from jaa_ext.engine.trainer import Diverged, NonFiniteLoss, train

__all__ = [
    "Comparison",
    "CrossValidation",
    "Diverged",
    "Intervals",
    "JointLoss",
    "Metrics",
    "NonFiniteLoss",
    "NonFiniteOutput",
    "Predictions",
    "Recipe",
    "RecipeError",
    "RunError",
    "Scores",
    "ablate",
    "bootstrap_intervals",
    "builtin_recipes",
    "calibrate_thresholds",
    "cross_validate",
    "evaluate",
    "load_checkpoint",
    "load_recipe",
    "save_checkpoint",
    "score",
    "train",
]
