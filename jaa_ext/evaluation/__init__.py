"""Scores of a model, their intervals, and the thresholds of its AUs."""

from jaa_ext.evaluation.bootstrap import bootstrap_intervals
from jaa_ext.evaluation.calibrate import Calibration, calibrate_thresholds
from jaa_ext.evaluation.evaluate import NonFiniteOutput, evaluate
from jaa_ext.evaluation.metrics import Metrics, score
from jaa_ext.evaluation.predictions import Predictions
from jaa_ext.evaluation.scores import Intervals, Scores

__all__ = [
    "Calibration",
    "Intervals",
    "Metrics",
    "NonFiniteOutput",
    "Predictions",
    "Scores",
    "bootstrap_intervals",
    "calibrate_thresholds",
    "evaluate",
    "score",
]
