"""Figures: that they show the numbers they should, and say what is missing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure

from jaa_ext.evaluation import Predictions, Scores, score
from jaa_ext.evaluation.bootstrap import bootstrap_intervals
from jaa_ext.plots.scores import au_figure, scores_figure, write_figures

NOTE = "Demonstration weights, trained on drawn faces: not for real use."


def make(note: str = NOTE) -> Predictions:
    """AUs 1, 12 and 99 of four subjects; AU 1 is rare, AU 99 never labelled."""
    random = np.random.default_rng(0)
    labels = (random.random((400, 3)) < (0.05, 0.5, 0.5)).astype(np.int64)
    labels[::9] = -1
    labels[:, 2] = -1
    p = np.clip(random.normal(0.35, 0.2, (400, 3)) + 0.3 * (labels == 1), 0, 1).astype(np.float32)
    return Predictions((1, 12, 99), labels, p, None, None, tuple(f"S{i % 4}/{i}" for i in range(400)), note)


def with_intervals(predictions: Predictions) -> Scores:
    return replace(score(predictions), intervals=bootstrap_intervals(predictions, 100))


def test_a_figure_for_each_labelled_au_and_an_overview(tmp_path: Path) -> None:
    predictions = make()
    written = write_figures(tmp_path / "figures", predictions, with_intervals(predictions))
    assert [path.name for path in written] == ["scores.png", "AU1.png", "AU12.png"]
    assert sorted(written) == sorted((tmp_path / "figures").iterdir())
    for path in written:
        picture = cv2.imread(str(path))
        assert picture is not None and picture.shape[0] > 400 and picture.shape[1] > 500
        assert path.stat().st_size < 300_000


def test_the_note_is_printed_below(figures: list[Figure]) -> None:
    for note in ("", NOTE):
        scores_figure(score(make(note)), "unused")
        (text,) = figures[-1].texts
        assert text.get_text() == note and text.get_position()[1] < 0.05


def test_overview_shows_scores_intervals_and_occurrence(figures: list[Figure], texts) -> None:
    scores = with_intervals(make())
    assert scores.f1 is not None and scores.f1_mean is not None and scores.intervals is not None
    scores_figure(scores, "unused")
    upper, lower = figures[0].axes
    f1 = next(line for line in upper.lines if line.get_label() == "F1")
    wanted = [100 * scores.f1[0], 100 * scores.f1[1], np.nan, 100 * scores.f1_mean]  # type: ignore[operator]
    np.testing.assert_allclose(np.asarray(f1.get_ydata(), float), wanted)
    assert scores.intervals.f1 is not None and scores.intervals.f1[0] is not None
    at = f1.get_xdata()[0]  # type: ignore[index]
    bars = [line.get_ydata() for line in upper.lines if list(line.get_xdata()) == [at, at]]
    assert len(bars) == 1
    np.testing.assert_allclose(np.asarray(bars[0], float), 100 * np.array(scores.intervals.f1[0]))
    heights = [bar.get_height() for bar in lower.patches]
    labels = make().labels
    shares = [100 * (labels[:, i] == 1).sum() / (labels[:, i] >= 0).sum() for i in (0, 1)]
    assert heights[:2] == pytest.approx(shares)
    assert [t.get_text() for t in lower.get_xticklabels()] == ["AU 1", "AU 12", "AU 99", "mean"]
    shown = "\n".join(texts(figures[0]))
    assert "no label" in shown and "100 resamples of 4 subjects" in shown and "score (%)" in shown


@pytest.mark.parametrize("threshold", [0.5, 0.35])
def test_curves_and_operating_point_of_an_au(figures: list[Figure], texts, threshold: float) -> None:
    predictions = make()
    if threshold != 0.5:
        predictions = replace(predictions, thresholds=(0.9, threshold, 0.9))
    scores = with_intervals(predictions)
    au_figure(predictions, 12, scores, "unused")
    roc, pr, histogram = figures[0].axes
    assert predictions.probabilities is not None
    known = predictions.labels[:, 1] >= 0
    p, y = predictions.probabilities[known, 1], predictions.labels[known, 1] == 1

    curve, _, point = roc.lines
    x, height = (np.asarray(v, float) / 100 for v in curve.get_data())
    assert (x[0], height[0], x[-1], height[-1]) == (0, 0, 1, 1)
    area = np.mean([(a > b) + 0.5 * (a == b) for a in p[y] for b in p[~y]])
    assert (np.diff(x) * (height[1:] + height[:-1]) / 2).sum() == pytest.approx(area, abs=1e-5)
    assert f"AUC {100 * area:.1f} %" in "\n".join(texts(figures[0]))
    false, true = (p[~y] > threshold).mean(), (p[y] > threshold).mean()
    assert [float(v[0]) for v in point.get_data()] == pytest.approx([100 * false, 100 * true])

    curve, chance, point = pr.lines
    assert np.asarray(chance.get_ydata(), float) == pytest.approx(100 * y.mean())
    wanted = [100 * true, 100 * y[p > threshold].mean()]
    assert [float(v[0]) for v in point.get_data()] == pytest.approx(wanted)
    on_curve = np.stack([np.asarray(v, float) for v in curve.get_data()], 1)
    assert np.abs(on_curve - wanted).sum(1).min() < 1e-3

    assert histogram.get_yscale() == "linear" and histogram.get_ylabel() == "faces"
    heights = [s.get_data().values.sum() for s in histogram.patches if hasattr(s, "get_data")]
    assert sorted(heights) == sorted([(~y).sum(), (~y).sum(), y.sum(), y.sum()])
    assert scores.f1 is not None and scores.f1[1] is not None
    assert f"AU 12 lip corner puller: F1 {100 * scores.f1[1]:.1f} % (" in "\n".join(texts(figures[0]))


def test_a_rare_au_is_counted_on_a_log_scale(figures: list[Figure], texts) -> None:
    predictions = make()
    au_figure(predictions, 1, score(predictions), "unused")
    histogram = figures[0].axes[2]
    assert histogram.get_yscale() == "log" and histogram.get_ylabel() == "faces (log scale)"


@pytest.mark.parametrize(
    ("label", "sentence"),
    [(0, "every label is absent"), (1, "every label is present")],
    ids=["absent", "present"],
)
@pytest.mark.filterwarnings("error")
def test_an_au_with_labels_of_one_kind_says_so(
    figures: list[Figure], texts, label: int, sentence: str
) -> None:
    predictions = make()
    labels = np.where(predictions.labels < 0, -1, label)
    predictions = replace(predictions, labels=labels)
    au_figure(predictions, 12, score(predictions), "unused")
    assert sentence in "\n".join(texts(figures[0]))
    assert ("there is no recall" in "\n".join(texts(figures[0]))) == (label == 0)


def test_a_model_without_aus_has_no_figures(tmp_path: Path) -> None:
    predictions = replace(make(), probabilities=None, errors=np.ones(400))
    assert write_figures(tmp_path / "figures", predictions, score(predictions)) == ()
    assert not (tmp_path / "figures").exists()
    with pytest.raises(ValueError, match="detects no AUs"):
        scores_figure(score(predictions), tmp_path / "scores.png")


def test_refusals() -> None:
    predictions = make()
    with pytest.raises(ValueError, match=r"AU 5 .*\[1, 12, 99\]"):
        au_figure(predictions, 5, score(predictions), "unused")
    with pytest.raises(ValueError, match="AU 99 has no valid label"):
        au_figure(predictions, 99, score(predictions), "unused")


def test_pyplot_keeps_no_figure(tmp_path: Path) -> None:
    scores_figure(score(make()), tmp_path / "scores.png")
    assert pyplot.get_fignums() == []
