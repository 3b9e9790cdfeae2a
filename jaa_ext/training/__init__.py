"""Training by a recipe."""

from jaa_ext.training.checkpoint import load_checkpoint, save_checkpoint
from jaa_ext.training.criterion import JointLoss
from jaa_ext.training.divergence import Diverged, NonFiniteLoss
from jaa_ext.training.listener import Listener
from jaa_ext.training.run import train
from jaa_ext.training.run_folder import RunError
from jaa_ext.training.trainer import Trainer

__all__ = [
    "Diverged",
    "JointLoss",
    "Listener",
    "NonFiniteLoss",
    "RunError",
    "Trainer",
    "load_checkpoint",
    "save_checkpoint",
    "train",
]
