from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from jaa_ext import facs
from jaa_ext.evaluation import Metrics, Scores

PROBABILITIES = torch.tensor(
    [[0.9, 0.1, 0.2], [0.8, 0.6, 0.2], [0.2, 0.7, 0.9], [0.4, 0.3, 0.8], [0.7, 0.5, 0.1]]
)
LABELS = torch.tensor([[1, 0, -1], [0, -1, -1], [1, 1, -1], [0, 0, -1], [1, -1, -1]])
# AU 1: 2 hits, 1 false alarm, 1 miss, 1 rejection. AU 6 (rows 0, 2, 3): 1 hit, 2 rejections. AU 12: nothing.


def face(distance: float) -> torch.Tensor:
    """Landmarks whose eyes' means lie `distance` pixels apart."""
    points = torch.rand(facs.NUM_LANDMARKS, 2, generator=torch.Generator().manual_seed(1)) * 50
    points[list(facs.LEFT_EYE)] = torch.tensor([10.0, 20.0])
    points[list(facs.RIGHT_EYE)] = torch.tensor([10.0 + distance, 20.0])
    return points


def score(probabilities: torch.Tensor, labels: torch.Tensor, aus: tuple[int, ...], batch: int = 2) -> Scores:
    metrics = Metrics(aus)
    nowhere = torch.empty(0, facs.NUM_LANDMARKS, 2)
    for p, y in zip(probabilities.split(batch), labels.split(batch), strict=True):
        metrics.update(p, y, None, nowhere)
    return metrics.result()


def test_f1_and_accuracy_by_hand_with_missing_labels() -> None:
    scores = score(PROBABILITIES, LABELS, (1, 6, 12))
    assert scores.f1 is not None and scores.accuracy is not None
    assert scores.f1[:2] == pytest.approx((2 * 2 / (2 * 2 + 1 + 1), 1.0))
    assert scores.accuracy[:2] == pytest.approx((3 / 5, 1.0))
    assert (scores.f1[2], scores.accuracy[2]) == (None, None)
    assert scores.f1_mean == pytest.approx((2 / 3 + 1) / 2)
    assert scores.accuracy_mean == pytest.approx((3 / 5 + 1) / 2)
    assert (scores.mean_error, scores.failure_rate) == (None, None)


def test_random_predictions_against_plain_counts() -> None:
    generator = torch.Generator().manual_seed(0)
    p = torch.rand(200, 4, generator=generator)
    y = torch.randint(-1, 2, (200, 4), generator=generator)
    scores = score(p, y, (1, 2, 4, 6), batch=33)
    for au in range(4):
        pairs = [(p[i, au].item() > 0.5, y[i, au].item()) for i in range(200) if y[i, au] >= 0]
        hits = sum(predicted and true == 1 for predicted, true in pairs)
        wrong = sum(predicted != (true == 1) for predicted, true in pairs)
        assert scores.f1 is not None and scores.accuracy is not None
        assert scores.f1[au] == pytest.approx(2 * hits / (2 * hits + wrong))
        assert scores.accuracy[au] == pytest.approx(1 - wrong / len(pairs))
        assert scores.precision is not None and scores.recall is not None
        assert scores.precision[au] == pytest.approx(hits / sum(predicted for predicted, _ in pairs))
        assert scores.recall[au] == pytest.approx(hits / sum(true == 1 for _, true in pairs))


def test_thresholds_of_the_model_decide() -> None:
    """AU 1 above 0.75: 1 hit, 1 false alarm, 2 misses, 1 rejection. AU 6 above 0.2: 1 hit, 1 false alarm, 1
    rejection."""
    metrics = Metrics((1, 6, 12), thresholds=(0.75, 0.2, 0.5))
    metrics.update(PROBABILITIES, LABELS, None, torch.empty(0, facs.NUM_LANDMARKS, 2))
    scores = metrics.result()
    assert scores.recall == (pytest.approx(1 / 3), 1, None) and scores.precision == (0.5, 0.5, None)
    assert scores.accuracy == (pytest.approx(2 / 5), pytest.approx(2 / 3), None)
    assert scores.thresholds == (0.75, 0.2, 0.5)
    assert Scores.from_dict(scores.to_dict()) == scores
    assert scores.auc == score(PROBABILITIES, LABELS, (1, 6, 12)).auc
    assert scores.about_thresholds() == "thresholds of the model: AU 1 0.75, AU 6 0.2, AU 12 0.5"
    usual = Metrics((1, 6, 12), thresholds=(0.5, 0.5, 0.5))
    usual.update(PROBABILITIES, LABELS, None, torch.empty(0, facs.NUM_LANDMARKS, 2))
    assert usual.result() == score(PROBABILITIES, LABELS, (1, 6, 12))


def test_precision_recall_and_support_by_hand_with_missing_labels() -> None:
    scores = score(PROBABILITIES, LABELS, (1, 6, 12))
    assert scores.precision == (pytest.approx(2 / 3), 1, None)
    assert scores.recall == (pytest.approx(2 / 3), 1, None)
    assert (scores.positives, scores.valid) == ((3, 1, 0), (5, 3, 0))
    assert (scores.precision_mean, scores.recall_mean) == pytest.approx((5 / 6, 5 / 6))


def test_auc_by_hand() -> None:
    # AU 1: positives 0.9, 0.2, 0.7 against negatives 0.8, 0.4: 3 of 6 pairs. AU 6: 0.7 against 0.1, 0.3.
    scores = score(PROBABILITIES, LABELS, (1, 6, 12))
    assert scores.auc == (pytest.approx(3 / 6), pytest.approx(1), None)
    assert scores.auc_mean == pytest.approx(3 / 4)


def test_auc_is_the_share_of_pairs_with_ties_counting_half() -> None:
    generator = torch.Generator().manual_seed(2)
    y = torch.randint(-1, 2, (150, 3), generator=generator)
    p = (torch.rand(150, 3, generator=generator) * 8 + y.clamp(min=0)).floor() / 9  # many ties
    scores = score(p, y, (1, 2, 4), batch=40)
    for au in range(3):
        positives = [p[i, au].item() for i in range(150) if y[i, au] == 1]
        negatives = [p[i, au].item() for i in range(150) if y[i, au] == 0]
        pairs = [(a > b) + 0.5 * (a == b) for a in positives for b in negatives]
        assert any(pair == 0.5 for pair in pairs)
        assert scores.auc is not None
        assert scores.auc[au] == pytest.approx(sum(pairs) / len(pairs), abs=1e-6)


def test_accuracy_over_all_labels_is_not_the_mean_over_aus() -> None:
    # 3 of 5 labels of AU 1 and 3 of 3 of AU 6 are right.
    scores = score(PROBABILITIES, LABELS, (1, 6, 12))
    assert scores.accuracy_mean == pytest.approx(0.8)
    assert scores.accuracy_total == pytest.approx(6 / 8)
    assert scores.abaw_score == pytest.approx(0.5 * (2 / 3 + 1) / 2 + 0.5 * 6 / 8)


@pytest.mark.filterwarnings("error")
def test_what_is_zero_by_zero_is_zero_and_auc_does_not_exist() -> None:
    # AU 1: no positive, none predicted. AU 2: positives, none predicted. AU 4: no negative. AU 6: all
    # predicted, none true.
    p = torch.tensor([[0.1, 0.2, 0.9, 0.8], [0.3, 0.4, 0.2, 0.9]])
    y = torch.tensor([[0, 1, 1, 0], [0, 0, 1, 0]])
    scores = score(p, y, (1, 2, 4, 6))
    assert scores.f1 == pytest.approx((0, 0, 2 / 3, 0))
    assert scores.precision == (0, 0, 1, 0)
    assert scores.recall == (0, 0, 0.5, 0)
    assert scores.accuracy == (1, 0.5, 0.5, 0)
    assert scores.auc == (None, 0, None, None)
    assert (scores.precision_mean, scores.recall_mean, scores.auc_mean) == (0.25, 0.125, 0)


def test_no_valid_label_at_all() -> None:
    scores = score(torch.tensor([[0.9, 0.1]]), torch.tensor([[-1, -1]]), (1, 2))
    assert scores.f1 == scores.accuracy == scores.precision == scores.recall == scores.auc == (None, None)
    assert (scores.f1_mean, scores.accuracy_total, scores.abaw_score) == (None, None, None)
    assert (scores.positives, scores.valid) == ((0, 0), (0, 0))


def test_a_probability_without_a_number_counts_as_zero_and_hurts_no_other() -> None:
    nan = float("nan")
    p = torch.tensor([[nan, 0.4], [0.2, nan], [0.9, 0.3]])
    y = torch.tensor([[1, 0], [0, 0], [1, 1]])
    assert score(p, y, (1, 2)) == score(p.nan_to_num(0.0), y, (1, 2))
    assert score(p, y, (1, 2)).recall == (0.5, 0)


def test_frames_are_pooled_not_batches() -> None:
    one, many = (
        score(PROBABILITIES, LABELS, (1, 6, 12), batch=5),
        score(PROBABILITIES, LABELS, (1, 6, 12), batch=1),
    )
    assert one == many


@pytest.mark.parametrize("predicted", [0.1, 0.9])
def test_an_au_without_positives_has_f1_zero_and_counts(predicted: float) -> None:
    scores = score(torch.tensor([[predicted, 0.9], [0.1, 0.2]]), torch.tensor([[0, 1], [0, 0]]), (1, 2))
    assert scores.f1 == (0, 1)
    assert scores.f1_mean == 0.5


def test_landmark_error_in_percent_of_the_eye_distance() -> None:
    target = torch.stack([face(40.0), face(20.0), face(50.0)])
    shift = torch.tensor([[3.0, 4.0], [0.0, 1.0], [3.0, 4.0]])  # 5, 1 and 5 pixels
    metrics = Metrics((1,))
    metrics.update(None, torch.zeros(3, 1), target + shift[:, None], target)
    scores = metrics.result()
    assert scores.mean_error == pytest.approx((100 * 5 / 40 + 100 * 1 / 20 + 100 * 5 / 50) / 3, rel=1e-5)
    assert (scores.f1, scores.f1_mean, scores.accuracy) == (None, None, None)


def test_a_face_fails_beyond_ten_percent_or_without_a_number() -> None:
    target = face(40.0).expand(4, -1, -1)
    predicted = target + torch.tensor([3.9, 4.1, 0.0, float("nan")])[:, None, None] * torch.tensor([1.0, 0.0])
    metrics = Metrics((1,))
    metrics.update(None, torch.zeros(4, 1), predicted, target)
    assert metrics.result().failure_rate == 50
    assert metrics.result().mean_error is None


NONE = float("nan")


def of_intensities(
    true: list[list[float]], predicted: list[list[float]], aus: tuple[int, ...] = (12,)
) -> Scores:
    metrics = Metrics(aus)
    n = len(true)
    metrics.update(
        torch.full((n, len(aus)), 0.5), torch.zeros(n, len(aus)), None, torch.empty(n, 49, 2),
        intensities=torch.tensor(predicted), true_intensities=torch.tensor(true),
    )  # fmt: skip
    return metrics.result()


def test_intensities_by_hand() -> None:
    # x = 0 1 2 5 with mean 2, y = 1 1 3 3 with mean 2: deviations -2 -1 0 3 and -1 -1 1 1.
    scores = of_intensities([[0], [1], [2], [5]], [[1], [1], [3], [3]])
    assert scores.icc == pytest.approx((2 * (2 + 1 + 0 + 3) / (14 + 4),))
    assert scores.pearson == pytest.approx((6 / math.sqrt(14 * 4),))
    assert scores.mae == pytest.approx(((1 + 0 + 1 + 2) / 4,))
    assert scores.rated == (4,)
    # The same but for a shift: consistent, and 1 apart.
    shifted = of_intensities([[0], [1], [3]], [[1], [2], [4]])
    assert (shifted.icc, shifted.pearson) == (pytest.approx((1,)), pytest.approx((1,)))
    assert shifted.mae == (1,)


def by_analysis_of_variance(ratings: np.ndarray) -> float:
    """ICC(3,1) of (n, k) ratings by mean squares, Shrout and Fleiss (1979), Table 4."""
    n, k = ratings.shape
    grand, of_face, of_rater = ratings.mean(), ratings.mean(1), ratings.mean(0)
    between = k * ((of_face - grand) ** 2).sum() / (n - 1)
    residual = ratings - of_face[:, None] - of_rater + grand
    error = (residual**2).sum() / ((n - 1) * (k - 1))
    return (between - error) / (between + (k - 1) * error)


def test_the_icc_is_that_of_an_analysis_of_variance() -> None:
    # Their Table 2 has ICC(3,1) = .71 for its four judges.
    table = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]])
    assert by_analysis_of_variance(table) == pytest.approx(0.71, abs=0.005)
    random = np.random.default_rng(0)
    for spread in (0.3, 1.0, 5.0):
        true = random.uniform(0, 5, 40)
        predicted = np.clip(0.5 * true + random.normal(0, spread, 40), 0, 5)
        scores = of_intensities(true[:, None].tolist(), predicted[:, None].tolist())
        wanted = by_analysis_of_variance(np.stack([true, predicted], 1))
        assert scores.icc == pytest.approx((wanted,), rel=1e-5)
        assert scores.pearson == pytest.approx((np.corrcoef(true, predicted)[0, 1],), rel=1e-5)


def test_missing_intensities_take_no_part() -> None:
    true = [[NONE, 3, 0.1], [1, NONE, 0.1], [3, 1, 0.1], [4, 2, 0.1]]
    predicted = [[5, 2, 0.1], [2, 5, 0.2], [2, 1, 0.4], [5, NONE, 0.1]]
    scores = of_intensities(true, predicted, (1, 2, 4))
    first = of_intensities([[1], [3], [4]], [[2], [2], [5]])
    second = of_intensities([[3], [1]], [[2], [1]])
    assert scores.rated == (3, 2, 4)
    for name in ("icc", "pearson", "mae"):
        got = getattr(scores, name)
        assert (got[0], got[1]) == (getattr(first, name)[0], getattr(second, name)[0])
    # The third AU's true intensities are all alike.
    assert scores.icc[2] == 0 and scores.pearson[2] is None and scores.mae[2] == pytest.approx(0.1)
    assert scores.icc_mean == pytest.approx((scores.icc[0] + scores.icc[1]) / 3)
    assert scores.pearson_mean == pytest.approx((scores.pearson[0] + scores.pearson[1]) / 2)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("true", "predicted", "mae"),
    [
        ([[NONE], [NONE]], [[1.0], [2.0]], None),
        ([[3.0], [NONE]], [[1.0], [2.0]], 2.0),
        ([[0.1]] * 7, [[0.3]] * 7, pytest.approx(0.2)),
    ],
    ids=["none", "one", "all alike"],
)
def test_too_few_intensities_have_no_correlation(true, predicted, mae) -> None:  # type: ignore[no-untyped-def]
    scores = of_intensities(true, predicted)
    assert (scores.icc, scores.pearson, scores.mae) == ((None,), (None,), (mae,))
    assert scores.icc_mean is None
