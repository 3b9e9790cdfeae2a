"""Thresholds chosen on predictions: right where the right ones are known."""

import numpy as np
import pytest

from jaa_ext.evaluation import calibrate_thresholds
from jaa_ext.evaluation.calibrate import MIN_FACES


def column(present, absent):
    """Probabilities (N, 1) and their labels."""
    labels = np.repeat([1, 0], [len(present), len(absent)])[:, None]
    return np.concatenate([present, absent])[:, None], labels


def drawn(seed, positives=300, negatives=300):
    """Probabilities whose densities are known: 12 x^2 (1 - x) with the AU, 12 x (1 - x)^2 without, of which
    the second is the mirror image of the first."""
    random = np.random.default_rng(seed)
    return column(random.beta(3, 2, positives), random.beta(2, 3, negatives))


def test_where_present_and_absent_lie_apart_the_middle_of_the_gap():
    assert calibrate_thresholds(*column([0.395] * 40, [0.205] * 30)).thresholds == (0.3,)
    assert calibrate_thresholds(*column([0.395] * 40, [0.205] * 30), aim="f1").thresholds == (0.3,)


@pytest.mark.parametrize("seed", range(5))
def test_balanced_accuracy_is_highest_where_the_densities_cross(seed):
    """By symmetry at 0.5, however rare the AU is; squared, the probabilities' order is the same, and it is
    0.25."""
    for positives, negatives in ((1000, 1000), (200, 2000)):
        probabilities, labels = drawn(seed, positives, negatives)
        (threshold,) = calibrate_thresholds(probabilities, labels).thresholds
        assert abs(threshold - 0.5) < 0.1
        (threshold,) = calibrate_thresholds(probabilities**2, labels).thresholds
        assert abs(threshold - 0.25) < 0.1


def test_f1_is_highest_where_it_is_half_of_itself():
    """The best threshold for F1 lies at half of the best F1 where probabilities are calibrated (Lipton
    2014)."""
    random = np.random.default_rng(0)
    probabilities = random.beta(1, 3, 20000)[:, None]
    labels = (random.random((20000, 1)) < probabilities).astype(int)
    (threshold,) = calibrate_thresholds(probabilities, labels, aim="f1").thresholds
    predicted = probabilities > threshold
    f1 = 2 * (predicted & (labels == 1)).sum() / (predicted.sum() + labels.sum())
    assert abs(threshold - f1 / 2) < 0.02
    assert calibrate_thresholds(probabilities, labels).thresholds != (threshold,)


def test_it_is_nearer_than_the_best_of_one_sample():
    """Over 40 small samples, whose best threshold by itself is a matter of a few faces."""
    grid = np.arange(1, 100) / 100
    ours, naive = [], []
    for seed in range(40):
        probabilities, labels = drawn(seed, 30, 60)
        (threshold,) = calibrate_thresholds(probabilities, labels).thresholds
        above = [[(probabilities[labels == y] > at).mean() for at in grid] for y in (1, 0)]
        naive.append(grid[np.argmax(np.subtract(*above))] - 0.5)
        ours.append(threshold - 0.5)
    assert np.square(ours).mean() < 0.8 * np.square(naive).mean()


def test_too_few_faces_keep_the_usual_threshold():
    for present, absent in ((MIN_FACES - 1, 50), (50, MIN_FACES - 1), (0, 50)):
        assert calibrate_thresholds(*column([0.4] * present, [0.2] * absent)).thresholds == (0.5,)
    assert calibrate_thresholds(*column([0.4] * MIN_FACES, [0.2] * MIN_FACES)).thresholds != (0.5,)


def test_too_few_faces_keep_the_former_threshold():
    many, few = column([0.395] * 40, [0.205] * 30), column([0.9] * 40, [0.1] * 30)
    few[1][5:] = -1
    probabilities, labels = (np.concatenate(pair, 1) for pair in zip(many, few, strict=True))
    assert calibrate_thresholds(probabilities, labels, former=(0.7, 0.2)).thresholds == (0.3, 0.2)
    assert calibrate_thresholds(probabilities, labels).thresholds == (0.3, 0.5)
    with pytest.raises(ValueError, match="one for each of the 2 AUs, got 1"):
        calibrate_thresholds(probabilities, labels, former=(0.7,))


def test_faces_of_one_subject_are_no_sample():
    probabilities, labels = column([0.4] * 40, [0.2] * 40)
    subjects = ["only"] * 40 + ["a", "b"] * 20
    assert calibrate_thresholds(probabilities, labels, subjects).thresholds == (0.5,)
    subjects[0] = "another"
    assert calibrate_thresholds(probabilities, labels, subjects).thresholds != (0.5,)


def test_it_is_told_which_aus_keep_their_thresholds():
    """The second has too few faces, the third those of one subject; the first one's best is its former."""
    labels = np.zeros((80, 3), int)
    labels[::2, 0] = labels[:5, 1] = labels[:40, 2] = 1
    subjects = ["only"] * 40 + ["a", "b"] * 20
    got = calibrate_thresholds(np.where(labels, 0.395, 0.205), labels, subjects, former=(0.3, 0.2, 0.4))
    assert got == ((0.3, 0.2, 0.4), (1, 2))


def test_whole_subjects_are_resampled():
    """Five copies of each face tell no more than one, if they are of the same subject."""
    probabilities, labels = drawn(0, 40, 60)
    subjects = [f"{i}" for i in range(100)]
    fivefold = (np.repeat(probabilities, 5, axis=0), np.repeat(labels, 5, axis=0), np.repeat(subjects, 5))
    assert calibrate_thresholds(*fivefold) == calibrate_thresholds(probabilities, labels, subjects)


def test_missing_labels_and_probabilities():
    probabilities, labels = column([0.395] * 40, [0.205] * 30)
    with_missing = np.concatenate([probabilities, np.full((50, 1), 0.3)])
    missing = np.concatenate([labels, np.full((50, 1), -1)])
    assert calibrate_thresholds(with_missing, missing).thresholds == (0.3,)
    probabilities[labels == 0] = np.nan  # counts as 0
    assert calibrate_thresholds(probabilities, labels).thresholds == (0.2,)  # of 0.01 to 0.39


def test_each_au_by_itself():
    one, other = column([0.395] * 40, [0.205] * 40), column([0.795] * 40, [0.605] * 40)
    both = np.hstack([one[0], other[0]]), np.hstack([one[1], other[1]])
    assert calibrate_thresholds(*both).thresholds == (0.3, 0.7)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"labels": np.zeros((5, 2))},
            r"probabilities and labels must both be \(N, A\), got \(5, 1\) and \(5, 2\)",
        ),
        (
            {"probabilities": np.zeros(5), "labels": np.zeros(5)},
            r"probabilities and labels must both be \(N, A\), got \(5,\) and \(5,\)",
        ),
        ({"labels": np.full((5, 1), 2)}, "labels must be 1, 0 or -1"),
        ({"subjects": ["a"]}, "subjects must be one for each of 5 faces, got 1"),
        ({"aim": "accuracy"}, 'aim must be balanced-accuracy or f1, got "accuracy"'),
        ({"seed": -1}, "seed must be at least 0, got -1"),
    ],
)
def test_what_does_not_fit(changes, sentence):
    arguments = {"probabilities": np.zeros((5, 1)), "labels": np.zeros((5, 1), int)} | changes
    with pytest.raises(ValueError, match=f"calibrate_thresholds: {sentence}"):
        calibrate_thresholds(arguments.pop("probabilities"), arguments.pop("labels"), **arguments)
