"""Scores worked out from predictions: how well AUs are detected and landmarks found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.functional.classification import (
    binary_auroc,
    multilabel_accuracy,
    multilabel_f1_score,
    multilabel_precision,
    multilabel_recall,
)

from jaa_ext.data import eye_distance
from jaa_ext.evaluation.predictions import Predictions
from jaa_ext.evaluation.scores import AU_SCORES, INTENSITY_SCORES, PerAU, Scores
from jaa_ext.facs import AU
from jaa_ext.models.thresholds import THRESHOLD

FAILURE = 10.0
"""A face fails when its landmarks' mean error exceeds this percentage of the inter-ocular distance."""
NO_VARIANCE = 1e-10
"""Intensities with less variance are constant but for rounding."""


class Metrics:
    """Collects the predictions of batches and scores them together.

    Args:
        aus: AU numbers, in the order of the labels.
        note: the model's note, repeated in the scores.
        thresholds: the model's threshold of each AU; None for 0.5.

    Example:
        >>> metrics = Metrics((1, 12))
        >>> nowhere = torch.empty(0, 49, 2)
        >>> metrics.update(torch.tensor([[0.9, 0.2]]), torch.tensor([[1, 0]]), None, nowhere)
        >>> metrics.result().accuracy
        (1.0, 1.0)
    """

    def __init__(
        self, aus: Sequence[AU], *, note: str = "", thresholds: Sequence[float] | None = None
    ) -> None:
        self.aus, self.note = tuple(aus), note
        plain = thresholds is None or all(value == THRESHOLD for value in thresholds)
        self.thresholds = None if plain or thresholds is None else tuple(thresholds)
        self._parts: dict[str, list[Tensor]] = {"labels": [torch.empty(0, len(self.aus), dtype=torch.int64)]}
        """Fields of `Predictions`, batch by batch."""
        self._ids: list[str] = []

    def update(
        self,
        probabilities: Tensor | None,
        labels: Tensor,
        landmarks: Tensor | None,
        target: Tensor,
        ids: Sequence[str] = (),
        intensities: Tensor | None = None,
        true_intensities: Tensor | None = None,
    ) -> None:
        """Add a batch of N faces; None for what the model does not predict.

        Args:
            probabilities: (N, A), 0..1.
            labels: (N, A) of 1, 0 and -1 for missing.
            landmarks: (N, 49, 2) predicted, in pixels.
            target: (N, 49, 2) true ones.
            ids: of the N faces, such as "S003/00017": up to the first slash, the subject.
            intensities: (N, A) predicted, 0..5, NaN for AUs without.
            true_intensities: (N, A), NaN where missing; None where all are.
        """
        self._ids += ids
        batch: dict[str, Tensor] = {"labels": labels.long()}
        if probabilities is not None:
            batch["probabilities"] = probabilities.float()
        if intensities is not None:
            missing = torch.full(intensities.shape, torch.nan)
            batch["intensities"] = intensities.float()
            batch["true_intensities"] = missing if true_intensities is None else true_intensities
        if landmarks is not None:
            batch["landmarks"] = landmarks.float()
            batch["errors"] = normalized_error(landmarks.float(), target).double()
        for name, values in batch.items():
            self._parts.setdefault(name, []).append(values.cpu())

    def predictions(self) -> Predictions:
        """Give the predictions added so far."""
        values: dict[str, Any] = dict.fromkeys(("probabilities", "landmarks", "errors"))
        values |= {name: torch.cat(parts).numpy() for name, parts in self._parts.items()}
        ids = tuple(self._ids) if len(self._ids) == len(values["labels"]) else None
        return Predictions(self.aus, **values, ids=ids, note=self.note, thresholds=self.thresholds)

    def result(self) -> Scores:
        """Score the predictions added so far, without intervals."""
        return score(self.predictions())


def score(predictions: Predictions) -> Scores:
    """Score predictions, without intervals (see `bootstrap_intervals`).

    Example:
        >>> labels, probabilities = np.array([[1], [0], [1]]), np.array([[0.8], [0.3], [0.4]], np.float32)
        >>> score(Predictions((12,), labels, probabilities, None, None)).recall
        (0.5,)
    """
    per_au: dict[str, tuple[float | None, ...]] = {}
    total, positives, valid = None, None, None
    if predictions.known_probabilities is not None and predictions.predicted_present is not None:
        labels = torch.from_numpy(predictions.labels)
        probabilities = torch.from_numpy(predictions.known_probabilities)
        scores, total = _au_scores(probabilities, torch.from_numpy(predictions.predicted_present), labels)
        per_au |= scores
        positives = tuple((labels == 1).sum(0).tolist())
        valid = tuple((labels >= 0).sum(0).tolist())
    rated = None
    if predictions.intensities is not None and predictions.true_intensities is not None:
        known = known_intensities(predictions)
        rated = tuple(known.sum(0).tolist())
        columns = zip(predictions.true_intensities.T, predictions.intensities.T, known.T, strict=True)
        agreements = [
            _agreement(x[both].astype(np.float64), y[both].astype(np.float64)) for x, y, both in columns
        ]
        per_au |= dict(zip(INTENSITY_SCORES, zip(*agreements, strict=True), strict=True))
    names = (*AU_SCORES, *INTENSITY_SCORES)
    values: dict[str, Any] = {name: per_au.get(name) for name in names}
    values |= {f"{name}_mean": mean(per_au.get(name) or ()) for name in names}
    errors, subjects = predictions.errors, predictions.subjects
    return Scores(
        aus=predictions.aus,
        **values,
        accuracy_total=total,
        positives=positives,
        valid=valid,
        rated=rated,
        mean_error=None if errors is None or not math.isfinite(errors.mean()) else float(errors.mean()),
        # Not "errors > FAILURE": landmarks that are not a number have failed too.
        failure_rate=None if errors is None else float(100 * (~(errors <= FAILURE)).mean()),
        subjects=None if subjects is None else len(set(subjects)),
        note=predictions.note,
        thresholds=predictions.thresholds,
    )


def normalized_error(landmarks: Tensor, target: Tensor) -> Tensor:
    """Give the mean distance of landmarks (N, 49, 2) in percent of the target's inter-ocular one: (N,)."""
    error: Tensor = (landmarks - target).norm(dim=-1).mean(-1)
    return 100 * error / eye_distance(target)


def known_intensities(predictions: Predictions) -> NDArray[np.bool_]:
    """Tell where both the true and the predicted intensity are known: (N, A)."""
    assert predictions.intensities is not None and predictions.true_intensities is not None
    both: NDArray[np.bool_] = np.isfinite(predictions.intensities) & np.isfinite(predictions.true_intensities)
    return both


def _agreement(
    x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[float | None, float | None, float | None]:
    """Give ICC(3,1), Pearson's r and the mean absolute error of intensities (n,), see `Scores`."""
    if len(x) == 0:
        return None, None, None
    var_x, var_y = (float(v) if v > NO_VARIANCE else 0.0 for v in (x.var(), y.var()))
    covariance = float(((x - x.mean()) * (y - y.mean())).mean()) if var_x and var_y else 0.0
    icc = 2 * covariance / (var_x + var_y) if var_x or var_y else None
    pearson = covariance / math.sqrt(var_x * var_y) if var_x and var_y else None
    return icc, pearson, float(np.abs(x - y).mean())


def _au_scores(
    probabilities: Tensor, predicted: Tensor, labels: Tensor
) -> tuple[dict[str, PerAU], float | None]:
    """Give the scores of each AU by their names, and the accuracy over all labels."""
    known = labels >= 0
    predicted = predicted.long()
    # The validation of torchmetrics refuses a single label.
    options: dict[str, Any] = {"average": "none", "ignore_index": -1, "validate_args": labels.shape[1] > 1}
    per_au: dict[str, PerAU] = {}
    functions = (multilabel_f1_score, multilabel_accuracy, multilabel_precision, multilabel_recall)
    for name, function in zip(("f1", "accuracy", "precision", "recall"), functions, strict=True):
        values = function(predicted, labels, labels.shape[1], **options).view(-1).tolist()
        per_au[name] = tuple(
            value if any_ else None for value, any_ in zip(values, known.any(0).tolist(), strict=True)
        )
    per_au["auc"] = tuple(
        _auc(probabilities[known[:, i], i], labels[known[:, i], i]) for i in range(labels.shape[1])
    )
    total = (predicted == labels)[known].double().mean().item() if known.any() else None
    return per_au, total


def _auc(probabilities: Tensor, labels: Tensor) -> float | None:
    positives = int(labels.sum())
    return float(binary_auroc(probabilities, labels)) if 0 < positives < len(labels) else None


def mean(values: Sequence[float | None]) -> float | None:
    """Give the mean over the values that are known; None if none is."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
