"""The thresholds of a model's AUs, chosen on faces that it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaa_ext.evaluation.bootstrap import draw_subjects
from jaa_ext.models.thresholds import THRESHOLD, check_thresholds

CANDIDATES = np.arange(1, 100, dtype=np.float32) / np.float32(100)
"""Thresholds that are tried; more digits would fit these faces alone."""
MIN_FACES = 20
"""With fewer faces with an AU, or without it, its threshold stays as it is."""
RESAMPLES = 200

Aim = Literal["balanced-accuracy", "f1"]
"""Score that a threshold maximizes: the mean of recall and specificity, which does not depend on how often
an AU occurs, or F1, which does."""


class Calibration(NamedTuple):
    """What `calibrate_thresholds` chose."""

    thresholds: tuple[float, ...]
    """Of each of the A AUs."""
    kept: tuple[int, ...]
    """Places of the AUs that keep their former thresholds, since their faces are too few."""


def calibrate_thresholds(
    probabilities: NDArray[Any],
    labels: NDArray[Any],
    subjects: Sequence[str] | None = None,
    *,
    aim: Aim = "balanced-accuracy",
    seed: int = 0,
    former: Sequence[float] | None = None,
) -> Calibration:
    """Choose the threshold of each AU that separates its faces best, to two digits.

    The best threshold of one small sample hangs on a few faces. So the subjects are resampled, as for the
    intervals of scores (`bootstrap_intervals`), and the median of the resamples' best thresholds is taken;
    where several are equally good in a resample, their median counts. An AU that fewer than `MIN_FACES` faces
    have or lack, or that has these faces from one subject alone, keeps its former threshold. The same
    arguments give the same thresholds.

    Args:
        probabilities: (N, A) of faces that the model was not trained on.
        labels: (N, A) of 1, 0 and -1 for missing.
        subjects: the subject of each face; None if no two faces share one.
        aim: the score to maximize, see `Aim`.
        seed: seed of the resamples, at least 0.
        former: the thresholds of the A AUs so far; None for 0.5 each.

    Raises:
        ValueError: shapes or former thresholds that do not fit, other labels, an unknown aim, or a seed below
            0.

    Example:
        >>> probabilities = np.repeat([[0.2], [0.4]], 50, axis=0)
        >>> calibrate_thresholds(probabilities, np.repeat([[0], [1]], 50, axis=0)).thresholds
        (0.29,)
    """
    probabilities, labels = np.asarray(probabilities, np.float32), np.asarray(labels)
    if probabilities.ndim != 2 or labels.shape != probabilities.shape:
        raise ValueError(
            "calibrate_thresholds: probabilities and labels must both be (N, A), got "
            f"{probabilities.shape} and {labels.shape}"
        )
    if not np.isin(labels, (-1, 0, 1)).all():
        raise ValueError("calibrate_thresholds: labels must be 1, 0 or -1 for missing, got others")
    if aim not in ("balanced-accuracy", "f1"):
        raise ValueError(f'calibrate_thresholds: aim must be balanced-accuracy or f1, got "{aim}"')
    if seed < 0:
        raise ValueError(f"calibrate_thresholds: seed must be at least 0, got {seed}")
    names = np.arange(len(labels)).astype(str) if subjects is None else np.array(subjects, dtype=str)
    if len(names) != len(labels):
        raise ValueError(
            f"calibrate_thresholds: subjects must be one for each of {len(labels)} faces, got {len(names)}"
        )
    count = labels.shape[1]
    before = check_thresholds((THRESHOLD,) * count if former is None else former, count)
    found = [
        _calibrate(probabilities[y >= 0, au], y[y >= 0], names[y >= 0], aim, seed)
        for au, y in enumerate(labels.T)
    ]
    return Calibration(
        tuple(old if new is None else new for old, new in zip(before, found, strict=True)),
        tuple(au for au, new in enumerate(found) if new is None),
    )


def _calibrate(
    probabilities: NDArray[np.float32],
    labels: NDArray[Any],
    subjects: NDArray[np.str_],
    aim: Aim,
    seed: int,
) -> float | None:
    """Choose the threshold of one AU, whose labels are 1 and 0; None if they are too few."""
    present = labels == 1
    names, subject = np.unique(subjects, return_inverse=True)
    few = any(which.sum() < MIN_FACES or len(np.unique(subject[which])) < 2 for which in (present, ~present))
    if few:
        return None
    # (S, T): faces of each subject above each threshold, first those with the AU, then those without.
    above = np.searchsorted(CANDIDATES, np.nan_to_num(probabilities, nan=0.0), side="left")
    predicted = [_above(above[which], subject[which], len(names)) for which in (present, ~present)]
    faces = [np.bincount(subject[which], minlength=len(names)) for which in (present, ~present)]
    best: list[float] = []
    for weights in draw_subjects(len(names), RESAMPLES, seed, len(labels)):
        true, false = (weights @ counts for counts in predicted)
        positives, negatives = ((weights @ counts)[:, None] for counts in faces)
        drawn = ((positives > 0) & (negatives > 0))[:, 0]
        if aim == "f1":
            scores = 2 * true[drawn] / (positives + true + false)[drawn]
        else:
            scores = true[drawn] / positives[drawn] - false[drawn] / negatives[drawn]
        for row in scores:
            best.append(float(np.median(np.flatnonzero(row >= row.max() - 1e-9))))
    return (1 + round(float(np.median(best)))) / 100 if best else None


def _above(above: NDArray[np.int64], subject: NDArray[np.int64], subjects: int) -> NDArray[np.int64]:
    """Count the faces of each subject above each threshold, (S, T).

    Args:
        above: (N,) number of thresholds that each face lies above.
        subject: (N,) index of its subject.
        subjects: S.
    """
    levels = len(CANDIDATES) + 1
    counts = np.bincount(subject * levels + above, minlength=subjects * levels).reshape(subjects, levels)
    return counts[:, ::-1].cumsum(1)[:, ::-1][:, 1:]
