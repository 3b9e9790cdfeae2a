"""Cross validation and ablation, their tables beside the papers' figures."""

from jaa_ext.experiments.ablate import Comparison, ablate
from jaa_ext.experiments.crossval import CrossValidation, cross_validate

__all__ = ["Comparison", "CrossValidation", "ablate", "cross_validate"]
