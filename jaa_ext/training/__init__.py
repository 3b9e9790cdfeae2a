"""Training by a recipe."""

from jaa_ext.training.checkpoint import load_checkpoint, save_checkpoint
from jaa_ext.training.criterion import JointLoss
from jaa_ext.training.run_folder import RunError
from jaa_ext.training.trainer import Diverged, NonFiniteLoss, train

__all__ = [
    "Diverged",
    "JointLoss",
    "NonFiniteLoss",
    "RunError",
    "load_checkpoint",
    "save_checkpoint",
    "train",
]
