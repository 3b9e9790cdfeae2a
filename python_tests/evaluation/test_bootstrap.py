"""Intervals against data sets that are really resampled and scored by torchmetrics."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from jaa_ext.evaluation.bootstrap import _SubjectSums, bootstrap_intervals, draw_subjects
from jaa_ext.evaluation.metrics import score
from jaa_ext.evaluation.predictions import Predictions
from jaa_ext.evaluation.scores import (
    AU_SCORES,
    INTENSITY_SCORES,
    LANDMARK_SCORES,
    OVERALL_SCORES,
    Scores,
)

PER_SUBJECT = (7, 12, 4, 9, 1)
OF_EACH = (*AU_SCORES, *INTENSITY_SCORES)
NAMES = (*OF_EACH, *(f"{name}_mean" for name in OF_EACH), *OVERALL_SCORES, *LANDMARK_SCORES)


def make(per_subject: Sequence[int] = PER_SUBJECT, seed: int = 0) -> Predictions:
    """Faces of three AUs, with missing labels and tied probabilities; AU 4 is present in one subject only.

    AU 1 has no intensity in subject 0, AU 2 the same in all faces but subject 1's, and AU 4 has
    some in subject 1 alone.
    """
    random = np.random.default_rng(seed)
    subject = np.repeat(np.arange(len(per_subject)), per_subject)
    n = len(subject)
    labels = random.choice([-1, 0, 1], (n, 3), p=[0.2, 0.5, 0.3])
    labels[subject != 1, 2] = np.minimum(labels[subject != 1, 2], 0)
    labels[subject == 0, 1] = -1
    probabilities = np.round(np.clip(random.random((n, 3)) + 0.3 * (labels == 1), 0, 1), 1)
    labels[subject == 4], probabilities[subject == 4] = (1, 0, 0), 0.1  # present, but never predicted
    true_intensities = random.uniform(0, 5, (n, 3)).astype(np.float32)
    true_intensities[subject == 0, 0], true_intensities[subject != 1, 2] = np.nan, np.nan
    true_intensities[subject != 1, 1] = 3.3
    intensities = np.clip(true_intensities + random.normal(0, 1, (n, 3)), 0, 5).astype(np.float32)
    intensities[subject == 2, 1] = 1.1
    order = random.permutation(n)  # the frames of a subject need not lie together
    return Predictions(
        aus=(1, 2, 4),
        labels=labels[order],
        probabilities=probabilities[order].astype(np.float32),
        landmarks=None,
        errors=random.uniform(2, 14, n)[order],
        ids=tuple(f"P{subject[i]:02}/{i}" for i in order),
        intensities=intensities[order],
        true_intensities=true_intensities[order],
    )


def resampled(predictions: Predictions, times: Sequence[int]) -> Predictions:
    """Every face of subject s as often as it was drawn."""
    assert predictions.ids is not None
    repeat = [times[int(name[1:3])] for name in predictions.ids]
    probabilities, errors = predictions.probabilities, predictions.errors
    intensities, true_intensities = predictions.intensities, predictions.true_intensities
    return replace(
        predictions,
        labels=predictions.labels.repeat(repeat, 0),
        probabilities=None if probabilities is None else probabilities.repeat(repeat, 0),
        errors=None if errors is None else errors.repeat(repeat),
        ids=None,
        intensities=None if intensities is None else intensities.repeat(repeat, 0),
        true_intensities=None if true_intensities is None else true_intensities.repeat(repeat, 0),
    )


def values(scores: Scores, name: str) -> np.ndarray:
    value = scores.abaw_score if name == "abaw_score" else getattr(scores, name)
    return np.array(value, dtype=float)  # None becomes NaN


@pytest.mark.parametrize("thresholds", [None, (0.3, 0.6, 0.05)])
@pytest.mark.parametrize("resamples", [1, 1000], ids=["by resample", "by subject"])
def test_a_resample_is_scored_like_a_test_set(resamples: int, thresholds: tuple[float, ...] | None) -> None:
    predictions = replace(make(), thresholds=thresholds)
    subject = np.array([int(name[1:3]) for name in predictions.ids or ()])
    sums = _SubjectSums(predictions, subject, 5, resamples)
    draws = np.random.default_rng(1).multinomial(5, [0.2] * 5, 40)
    draws[0] = 1
    draws[1] = 5, 0, 0, 0, 0  # AU 2 without a valid label, AU 4 without a positive
    draws[2] = 0, 0, 0, 0, 5  # nothing predicted; one face, so no correlation of intensities
    draws[3] = 0, 0, 5, 0, 0  # of AU 2 true and predicted intensities all alike
    draws[4] = 0, 0, 1, 4, 0  # the true ones alone
    got = sums.scores(draws.astype(float))
    assert set(got) == set(NAMES)
    for i, times in enumerate(draws):
        wanted = score(resampled(predictions, times))
        for name in NAMES:
            np.testing.assert_allclose(got[name][i], values(wanted, name), rtol=1e-5, err_msg=name)
    assert np.isnan(got["f1"][1, 1]) and np.isnan(got["auc"][1, 2]) and got["f1"][1, 2] == 0
    if thresholds is None:
        assert (got["precision"][2] == 0).all()
    assert np.isnan(got["icc"][2]).all() and np.isnan(got["icc"][3, 1]) and got["icc"][4, 1] == 0
    assert np.isnan(got["pearson"][4, 1]) and np.isnan(got["mae"][1, 2]) and got["mae"][3, 1] > 2


def test_intervals_are_percentiles_of_resamples_with_undefined_ones_left_out() -> None:
    predictions = make()
    times = np.concatenate(list(draw_subjects(5, 300, 7, len(predictions.labels)))).astype(int)
    assert (times.sum(1) == 5).all() and len(np.unique(times, axis=0)) > 50
    scored = [score(resampled(predictions, t)) for t in times]
    got = bootstrap_intervals(predictions, 300, seed=7)
    assert got is not None
    for name in NAMES:
        all_ = np.stack([values(s, name) for s in scored])
        wanted = np.nanpercentile(all_, [2.5, 97.5], axis=0).T
        np.testing.assert_allclose(np.array(getattr(got, name)), wanted, rtol=1e-5, err_msg=name)
    assert any(s.auc is not None and s.auc[2] is None for s in scored)  # so that some were left out


def test_two_subjects_have_three_resamples() -> None:
    predictions = make((6, 12))
    scored = [score(resampled(predictions, times)) for times in ((2, 0), (1, 1), (0, 2))]
    got = bootstrap_intervals(predictions, 1000)
    assert got is not None
    for name in ("accuracy_total", "mean_error", "failure_rate", "f1_mean"):
        ends = [float(values(s, name)) for s in scored]
        assert getattr(got, name) == pytest.approx((min(ends), max(ends)), rel=1e-5), name
    # AU 4 has positives of the second subject alone, so the first one twice has no AUC.
    assert got.auc is not None and scored[0].auc is not None and scored[0].auc[2] is None
    ends = [float(values(s, "auc")[2]) for s in scored[1:]]
    assert got.auc[2] == pytest.approx((min(ends), max(ends)), rel=1e-5)


def test_more_frames_of_the_same_subjects_do_not_narrow_the_intervals() -> None:
    predictions = make()
    more = resampled(predictions, [20] * 5)
    more = replace(more, ids=tuple(name for name in predictions.ids or () for _ in range(20)))
    few, many = bootstrap_intervals(predictions, 200), bootstrap_intervals(more, 200)
    assert few is not None and many is not None
    assert many.accuracy_total == pytest.approx(few.accuracy_total)
    assert many.auc_mean == pytest.approx(few.auc_mean)


def test_the_interval_of_a_mean_has_its_known_width() -> None:
    errors = np.random.default_rng(5).normal(8, 2, 400)
    labels = np.zeros((400, 1), dtype=np.int64)
    ids = tuple(f"P{i:03}/0" for i in range(400))
    got = bootstrap_intervals(Predictions((1,), labels, None, None, errors, ids), 2000)
    assert got is not None and got.mean_error is not None
    half = 1.96 * errors.std() / np.sqrt(400)
    wanted = (errors.mean() - half, errors.mean() + half)
    # The ends of 2000 resamples scatter by about 0.06 of the standard error of 0.1.
    assert got.mean_error == pytest.approx(wanted, abs=0.03)
    assert (got.f1, got.f1_mean, got.accuracy_total, got.abaw_score) == (None,) * 4


def test_the_seed_decides() -> None:
    predictions = make()
    assert bootstrap_intervals(predictions, 50, seed=1) == bootstrap_intervals(predictions, 50, seed=1)
    assert bootstrap_intervals(predictions, 50, seed=1) != bootstrap_intervals(predictions, 50, seed=2)


def test_what_does_not_exist_has_no_interval() -> None:
    predictions = make()
    assert predictions.errors is not None and predictions.probabilities is not None
    labels, errors = predictions.labels.copy(), predictions.errors.copy()
    labels[:, 0], errors[3] = -1, np.nan
    got = bootstrap_intervals(replace(predictions, labels=labels, errors=errors), 100)
    assert got is not None and got.f1 is not None and got.auc is not None
    assert (got.f1[0], got.auc[0], got.mean_error) == (None, None, None)
    assert got.f1[1] is not None and got.f1_mean is not None and got.failure_rate is not None


def test_one_subject_has_no_intervals() -> None:
    assert bootstrap_intervals(make((9,)), 100) is None


def test_refusals() -> None:
    with pytest.raises(ValueError, match="the predictions have no ids"):
        bootstrap_intervals(replace(make(), ids=None))
    with pytest.raises(ValueError, match="resamples must be at least 1, got 0"):
        bootstrap_intervals(make(), 0)


@pytest.mark.parametrize("subjects", [41, 3000])
def test_speed(subjects: int) -> None:
    random = np.random.default_rng(0)
    ids = tuple(f"{i % subjects}/{i}" for i in range(50_000))
    labels = random.integers(-1, 2, (50_000, 2))
    made = Predictions((1, 2), labels, random.random((50_000, 2), np.float32), None, None, ids)
    start = time.process_time()
    bootstrap_intervals(made, 1000)
    assert time.process_time() - start < 10 * 2 / 12
