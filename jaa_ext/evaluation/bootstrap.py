"""Intervals of scores by resampling the subjects of the test set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaa_ext.evaluation.metrics import FAILURE, NO_VARIANCE, known_intensities
from jaa_ext.evaluation.predictions import Predictions
from jaa_ext.evaluation.scores import AU_SCORES, INTENSITY_SCORES, Interval, Intervals

Array = NDArray[np.float64]

PERCENTILES = (2.5, 97.5)
MAX_ELEMENTS = 2**20
"""Elements of the largest array held at a time, 8 MB."""


def bootstrap_intervals(
    predictions: Predictions, resamples: int = 1000, *, seed: int = 0
) -> Intervals | None:
    """Give 95 % percentile intervals of the scores by resampling the subjects of the test set.

    The frames of a subject resemble each other, so whole subjects are drawn: as many as there are, with
    replacement, each bringing all its frames. A resample is scored as if it were a test set (see `Scores`),
    so a mean is over the AUs that have the score there. Resamples in which a score does not exist, such as
    the AUC of an AU whose positive subjects were not drawn, are left out of that score's percentiles. The
    same predictions, number and seed give the same intervals.

    Args:
        predictions: those of a test set, with ids.
        resamples: number of resamples, at least 1.
        seed: seed of the draws.

    Returns:
        None if there are fewer than two subjects.

    Raises:
        ValueError: no ids, or too few resamples.

    Example:
        >>> labels, probabilities = np.array([[1], [0], [1]]), np.array([[0.8], [0.3], [0.4]], np.float32)
        >>> ids = ("S1/1", "S2/1", "S3/1")
        >>> bootstrap_intervals(Predictions((12,), labels, probabilities, None, None, ids), 100).accuracy
        ((0.0, 1.0),)
    """
    if predictions.subjects is None:
        raise ValueError("bootstrap_intervals: the predictions have no ids, which tell the subjects apart")
    if resamples < 1:
        raise ValueError(f"bootstrap_intervals: resamples must be at least 1, got {resamples}")
    names, subject = np.unique(np.array(predictions.subjects, dtype=str), return_inverse=True)
    if len(names) < 2:
        return None
    sample = _SubjectSums(predictions, subject, len(names), resamples)
    parts = [sample.scores(weights) for weights in draw_subjects(len(names), resamples, seed, len(subject))]
    values = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    intervals: dict[str, Any] = {name: _interval(v) for name, v in values.items() if v.ndim == 1}
    for name in (*AU_SCORES, *INTENSITY_SCORES):
        intervals[name] = tuple(_interval(v) for v in values[name].T) if name in values else None
    absent = {name: None for name in Intervals.__dataclass_fields__ if name not in intervals}
    return Intervals(**{**absent, **intervals, "resamples": resamples, "seed": seed})


class _SubjectSums:
    """Sums over the frames of each of S subjects, so that a resample needs no pass over the frames."""

    def __init__(
        self, predictions: Predictions, subject: NDArray[np.int64], subjects: int, resamples: int
    ) -> None:
        self.counts: Array | None = None
        """(S, A, 4): labels of each AU that are TN, FP, FN, TP."""
        self.errors: Array | None = None
        """(S, 3): faces, sum of their errors, failures."""
        self.ranks: list[_Ranks] = []
        self.moments: Array | None = None
        """(S, A, 7): number of faces, and sums of the true intensities x, the predicted ones y, x^2, y^2, x y
        and abs(x - y)."""
        probabilities, predicted = predictions.known_probabilities, predictions.predicted_present
        if probabilities is not None and predicted is not None:
            self.counts = _outcomes(predicted, predictions.labels, subject, subjects)
            for p, y in zip(probabilities.T, predictions.labels.T, strict=True):
                known = y >= 0
                self.ranks.append(_Ranks(p[known], y[known], subject[known], subjects, resamples))
        if predictions.intensities is not None and predictions.true_intensities is not None:
            both = known_intensities(predictions)
            x, y = (
                np.where(both, values, 0).astype(np.float64)
                for values in (predictions.true_intensities, predictions.intensities)
            )
            rows = np.stack([both, x, y, x * x, y * y, x * y, np.abs(x - y)], axis=2)
            columns = rows.reshape(len(rows), -1).T
            sums = np.stack([np.bincount(subject, column, subjects) for column in columns], axis=1)
            self.moments = sums.reshape(subjects, *rows.shape[1:]).astype(np.float64)
        if (errors := predictions.errors) is not None:
            parts = (np.ones_like(errors), errors, ~(errors <= FAILURE))
            self.errors = np.stack([np.bincount(subject, part, subjects) for part in parts], axis=1)

    def scores(self, weights: Array) -> dict[str, Array]:
        """Score R resamples.

        Args:
            weights: (R, S) times that each subject was drawn.

        Returns:
            (R,) or (R, A) each; NaN for a score that does not exist.
        """
        scores: dict[str, Array] = {}
        if self.counts is not None:
            totals = (weights @ self.counts.reshape(len(self.counts), -1)).reshape(-1, *self.counts.shape[1:])
            tn, fp, fn, tp = np.moveaxis(totals, -1, 0)
            valid, right = tn + fp + fn + tp, tn + tp
            any_ = np.where(valid > 0, 1.0, np.nan)
            won = np.stack([ranks.won(weights) for ranks in self.ranks], axis=1)
            scores = {
                "f1": any_ * _ratio(2 * tp, 2 * tp + fp + fn, 0.0),
                "accuracy": _ratio(right, valid, np.nan),
                "precision": any_ * _ratio(tp, tp + fp, 0.0),
                "recall": any_ * _ratio(tp, tp + fn, 0.0),
                "auc": _ratio(won, (tp + fn) * (tn + fp), np.nan),
            }
            for name in AU_SCORES:
                known = ~np.isnan(scores[name])
                scores[f"{name}_mean"] = _ratio(np.nansum(scores[name], 1), known.sum(1), np.nan)
            scores["accuracy_total"] = _ratio(right.sum(1), valid.sum(1), np.nan)
            scores["abaw_score"] = 0.5 * scores["f1_mean"] + 0.5 * scores["accuracy_total"]
        if self.moments is not None:
            agreement = _agreement(np.tensordot(weights, self.moments, 1))
            for name, values in agreement.items():
                known = ~np.isnan(values)
                scores[name] = values
                scores[f"{name}_mean"] = _ratio(np.nansum(values, 1), known.sum(1), np.nan)
        if self.errors is not None:
            # An error that is not a number makes every resample's mean one: 0 times NaN is NaN.
            faces, errors, failures = (weights @ self.errors).T
            scores["mean_error"], scores["failure_rate"] = errors / faces, 100 * failures / faces
        return scores


class _Ranks:
    """Counts the pairs of a positive and a negative frame of an AU that a resample ranks right."""

    def __init__(
        self,
        probabilities: NDArray[np.float32],
        labels: NDArray[np.int64],
        subject: NDArray[np.int64],
        subjects: int,
        resamples: int,
    ) -> None:
        order = np.argsort(probabilities, kind="stable")
        probabilities, subject, positive = probabilities[order], subject[order], labels[order] == 1
        self.negatives = subject[~positive]
        """Subjects of the negatives, by rising probability."""
        below = probabilities[~positive]
        by_subject = np.argsort(subject[positive], kind="stable")
        risen = probabilities[positive][by_subject]
        self.first, self.last = (np.searchsorted(below, risen, side) for side in ("left", "right"))
        """For each positive, sorted by subject: number of negatives below it, and of those not above it."""
        self.positives, self.starts = np.unique(subject[positive][by_subject], return_index=True)
        """The subjects with positives, and the index of the first positive of each."""
        # (S, S): pairs won, by the subject of the negative and that of the positive. With it a resample is a
        # quadratic form, but to make it costs as much as one resample for each subject.
        self.pairs = self._won_by(np.eye(subjects)) if subjects < resamples else None

    def won(self, weights: Array) -> Array:
        """Count pairs in which the positive has the higher probability, ties half: (R, S) weights to (R,)."""
        won = self._won_by(weights) if self.pairs is None else weights @ self.pairs
        return np.asarray((won * weights).sum(1))

    def _won_by(self, weights: Array) -> Array:
        """Count those won by the positives of each subject over the weighted negatives: (R, S) to (R, S)."""
        won = np.zeros_like(weights)
        if len(self.positives) == 0:
            return won
        rows = max(1, MAX_ELEMENTS // (len(self.negatives) + len(self.first) + 1))
        for start in range(0, len(weights), rows):
            part = weights[start : start + rows]
            below = np.zeros((len(part), len(self.negatives) + 1))
            np.cumsum(np.take(part, self.negatives, axis=1), axis=1, out=below[:, 1:])
            beaten = 0.5 * (np.take(below, self.first, axis=1) + np.take(below, self.last, axis=1))
            won[start : start + rows, self.positives] = np.add.reduceat(beaten, self.starts, axis=1)
        return won


def draw_subjects(subjects: int, resamples: int, seed: int, frames: int) -> Iterator[Array]:
    """Yield how often each subject is drawn, (R, S), some resamples at a time."""
    random = np.random.default_rng(seed)
    rows = max(1, MAX_ELEMENTS // frames)
    for start in range(0, resamples, rows):
        count = min(rows, resamples - start)
        drawn = random.integers(0, subjects, (count, subjects)) + subjects * np.arange(count)[:, None]
        yield np.bincount(drawn.ravel(), minlength=count * subjects).reshape(count, subjects).astype(float)


def _outcomes(
    predicted: NDArray[np.bool_], labels: NDArray[np.int64], subject: NDArray[np.int64], subjects: int
) -> Array:
    """Count the labels of each subject and AU that are TN, FP, FN, TP: (S, A, 4)."""
    aus, missing = labels.shape[1], 4
    outcome = np.where(labels < 0, missing, 2 * labels + predicted)
    cell = (subject[:, None] * aus + np.arange(aus)) * 5 + outcome
    counts = np.bincount(cell.ravel(), minlength=subjects * aus * 5).reshape(subjects, aus, 5)
    return counts[..., :missing].astype(np.float64)


def _agreement(moments: Array) -> dict[str, Array]:
    """Score the intensities, (R, A) each, by `_SubjectSums.moments` of R resamples, (R, A, 7)."""
    faces = moments[..., 0]
    x, y, xx, yy, xy, distance = np.moveaxis(_ratio(moments[..., 1:], faces[..., None], np.nan), -1, 0)
    # Without faces all are NaN, and so are the scores.
    var_x, var_y = (np.where(v > NO_VARIANCE, v, 0) for v in (xx - x * x, yy - y * y))
    covariance = np.where((var_x > 0) & (var_y > 0), xy - x * y, 0)
    return {
        "icc": _ratio(2 * covariance, var_x + var_y, np.nan),
        "pearson": _ratio(covariance, np.sqrt(var_x * var_y), np.nan),
        "mae": distance,
    }


def _ratio(numerator: Array, denominator: Array, otherwise: float) -> Array:
    """Divide; `otherwise` where the denominator is 0."""
    quotient = np.full_like(numerator, otherwise)
    return np.divide(
        numerator, denominator, out=quotient, where=np.broadcast_to(denominator > 0, quotient.shape)
    )


def _interval(values: Array) -> Interval | None:
    known = values[~np.isnan(values)]
    if len(known) == 0:
        return None
    low, high = np.percentile(known, PERCENTILES).tolist()
    return low, high
