"""What the figure of two tables' agreement shows."""

import numpy as np
import pytest

from jaa_ext.evaluation.agreement import Agreement
from jaa_ext.plots.agreement import MOST_POINTS, agreement_figure


def agreement(au, kappa=0.5, quantity="intensity", **fields):
    rated = {"icc": 0.75, "mean_difference": 0.25, "sd_difference": 0.5} if quantity else {}
    known = {"icc": None, "pearson": None, "mean_difference": None, "sd_difference": None} | rated | fields
    return Agreement(au, 1200, 0.25, 0.5, kappa, 0.625, 3 if quantity else 0, quantity, **known)


PAIRS = np.array([[0.0, 0.5], [2.0, 2.0], [4.0, 3.0], [np.nan, 1.0]])


def draw(figures, path, agreements, **options):
    values = {one.au: PAIRS for one in agreements if one.quantity}
    agreement_figure(agreements, values, path, **options)
    return figures[-1]


def test_scores(figures, texts, tmp_path) -> None:
    aus = [agreement("AU01"), agreement("AU12", -0.25, None), agreement("AUrule2", None)]
    figure = draw(figures, tmp_path / "a.png", aus, names=("talk.csv (jaa_ext)", "of.csv (OpenFace)"))
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == [
        *("AU 1\n1,200", "AU 12\n1,200", "AUrule2\n1,200")
    ]
    kappa, f1, icc = (line.get_ydata() for line in axes.lines[:3])
    assert np.array_equal(kappa, [0.5, -0.25, np.nan], equal_nan=True)
    assert f1.tolist() == [0.625] * 3 and np.array_equal(icc, [0.75, np.nan, 0.75], equal_nan=True)
    assert axes.get_ylim()[0] < -0.25 and len({line.get_marker() for line in axes.lines[:3]}) == 3
    assert "a: talk.csv (jaa_ext)\nb: of.csv (OpenFace)" in texts(figure)


def test_differences(figures, tmp_path) -> None:
    aus = [agreement("AU01"), agreement("AU12", quantity=None), agreement("AU04", quantity="probability")]
    figure = draw(figures, tmp_path / "a.png", aus)
    panels = figure.axes[1:]
    assert [axes.get_title() for axes in panels] == ["AU 1: +0.25 ± 0.98", "AU 4: +0.25 ± 0.98"]
    points = panels[0].lines[0]
    assert points.get_xdata().tolist() == [0.25, 2, 3.5] and points.get_ydata().tolist() == [0.5, 0, -1]
    levels = [line.get_ydata()[0] for line in panels[0].lines[1:]]
    assert levels == pytest.approx([0, 0.25, 0.25 - 0.98, 0.25 + 0.98])
    assert [axes.get_xlabel() for axes in panels] == [
        *("intensity, mean of a and b", "probability, mean of a and b")
    ]
    low, high = panels[0].get_ylim()
    assert low == -high and high >= 1


def test_of_many_points_some_are_drawn(figures, tmp_path) -> None:
    pairs = np.random.default_rng(0).random((5 * MOST_POINTS, 2))
    agreement_figure([agreement("AU01")], {"AU01": pairs}, tmp_path / "a.png")
    assert len(figures[0].axes[1].lines[0].get_xdata()) == MOST_POINTS


def test_values_that_are_alike_everywhere(figures, tmp_path) -> None:
    constant = agreement("AU01", icc=None, mean_difference=0.0, sd_difference=0.0)
    agreement_figure([constant], {"AU01": np.zeros((3, 2))}, tmp_path / "a.png")
    low, high = figures[0].axes[1].get_xlim()
    assert low < 0 < high and figures[0].axes[1].get_ylim()[1] > 0
    draw(figures, tmp_path / "b.png", [agreement("AU01", None, None)])
    assert len(figures[1].axes) == 1
