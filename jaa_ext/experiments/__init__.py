"""What papers do with many runs: cross validation and ablation, beside their figures; and the demo."""

from jaa_ext.experiments.ablate import Comparison, ablate
from jaa_ext.experiments.crossval import CrossValidation, cross_validate

__all__ = ["Comparison", "CrossValidation", "ablate", "cross_validate"]
