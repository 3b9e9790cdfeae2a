"""Figure of how far two tables agree on each AU."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from jaa_ext.facs import column_in_words
from jaa_ext.plots.style import BLUE, GREEN, GREY, INK, ORANGE, PALE, VERMILION, save_figure

if TYPE_CHECKING:
    from jaa_ext.evaluation.agreement import Agreement

SCORES = (("kappa", "kappa", BLUE, "o"), ("f1", "F1", ORANGE, "s"), ("icc", "ICC(3,1)", GREEN, "^"))
PANELS_A_ROW = 5
MOST_POINTS = 2000
"""Most points in a panel; of more, evenly spaced ones are drawn."""
FEW_POINTS = 200
"""Most points in a panel that are drawn larger."""
PANEL = 2.5
"""Side of a panel in inches."""


def agreement_figure(
    agreements: Sequence[Agreement],
    values: Mapping[str, NDArray[np.float64]],
    path: str | os.PathLike[str],
    *,
    names: tuple[str, str] = ("a", "b"),
) -> None:
    """Save kappa, F1 and ICC of each AU, and below them a Bland-Altman panel for each AU with values.

    A score that is not defined is "-". A panel shows for each face the difference b - a over the mean of
    both, the mean difference and its limits of agreement, 1.96 standard deviations beside it. All panels of a
    quantity have the same axes.

    Args:
        agreements: at least one.
        values: of AUs by their name, (N, 2) of a and b.
        path: the PNG file.
        names: what a and b are.
    """
    drawn = [one for one in agreements if one.quantity is not None and one.au in values]
    columns = max(1, min(PANELS_A_ROW, len(drawn)))
    rows = -(-len(drawn) // columns)
    width = max(8.0, 2.2 + 0.72 * len(agreements), columns * PANEL + 0.6)
    top = 4.4
    figure = Figure(figsize=(width, top + rows * PANEL + (0.2 if rows else 0)), dpi=110)
    height = figure.get_figheight()
    upper = figure.add_axes((0.75 / width, 1 - (top - 0.75) / height, 1 - 1.0 / width, (top - 1.75) / height))
    _draw_scores(upper, agreements)
    both = f"a: {names[0]}\nb: {names[1]}"
    figure.text(0.2 / width, 1 - 0.15 / height, both, va="top", size=10, color=INK, parse_math=False)
    if drawn:
        says = "each face: line at the mean of b - a, dashed lines 1.96 standard deviations beside it"
        figure.text(0.75 / width, 1 - (top - 0.08) / height, says, va="top", size=9, color=INK)
    limits = {
        quantity: _limits([values[one.au] for one in drawn if one.quantity == quantity])
        for quantity in {one.quantity for one in drawn}
    }
    for i, one in enumerate(drawn):
        row, column = divmod(i, columns)
        left = 0.75 + column * (width - 0.85) / columns
        bottom = height - top - (row + 1) * PANEL + 0.35
        side = (width - 0.85) / columns
        axes = figure.add_axes((left / width, bottom / height, (side - 0.5) / width, (PANEL - 0.75) / height))
        _draw_differences(axes, one, values[one.au], limits[one.quantity])
        if column == 0:
            axes.set_ylabel("b - a", fontsize=9)
        if i + columns >= len(drawn):
            axes.set_xlabel(f"{one.quantity}, mean of a and b", fontsize=9)
    save_figure(figure, path, "")


def _draw_scores(axes: Axes, agreements: Sequence[Agreement]) -> None:
    places = np.arange(len(agreements), dtype=float)
    lowest = 0.0
    for i, (name, label, colour, marker) in enumerate(SCORES):
        found = [getattr(one, name) for one in agreements]
        shown = np.array([np.nan if value is None else value for value in found])
        x = places + 0.24 * (i - 1)
        axes.bar(x, shown, width=0.2, color=colour, alpha=0.35, zorder=2)
        axes.plot(x, shown, marker, color=colour, markersize=6, label=label, zorder=3, clip_on=False)
        for at in x[np.isnan(shown)]:
            axes.text(at, 0.01, "-", ha="center", va="bottom", size=13, color=INK)
        lowest = min([lowest, *shown[np.isfinite(shown)].tolist()])
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.set(ylabel="agreement", ylim=(lowest - (0.05 if lowest < 0 else 0), 1.02))
    axes.set_xlim(-0.6, len(agreements) - 0.4)
    axes.set_xticks(
        places, [f"{column_in_words(one.au)[0]}\n{one.frames:,}" for one in agreements], fontsize=9
    )
    axes.set_xlabel("below each AU: faces compared", fontsize=9)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, fontsize=10)
    axes.grid(axis="y", color=PALE)
    axes.tick_params(bottom=False)
    for edge in places[:-1] + 0.5:
        axes.axvline(edge, color=PALE, linewidth=0.8)
    _plain(axes)


def _draw_differences(
    axes: Axes, one: Agreement, pairs: NDArray[np.float64], limits: tuple[float, float, float]
) -> None:
    known = pairs[np.isfinite(pairs).all(1)]
    shown = known[np.unique(np.linspace(0, len(known) - 1, MOST_POINTS).astype(int))]
    size, alpha = (3, 0.35) if len(shown) > FEW_POINTS else (6, 0.6)
    differences = shown[:, 1] - shown[:, 0]
    axes.plot(shown.mean(1), differences, ".", color=BLUE, markersize=size, alpha=alpha, zorder=2)
    mean, spread = one.mean_difference or 0.0, 1.96 * (one.sd_difference or 0.0)
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.axhline(mean, color=VERMILION, linewidth=1.6, zorder=3)
    for limit in (mean - spread, mean + spread):
        axes.axhline(limit, color=VERMILION, linewidth=1.2, linestyle="--", zorder=3)
    low, high, difference = limits
    axes.set(xlim=(low, high), ylim=(-difference, difference))
    axes.set_title(f"{column_in_words(one.au)[0]}: {mean:+.2f} ± {spread:.2f}", fontsize=9, color=INK)
    axes.tick_params(labelsize=8)
    axes.grid(color=PALE)
    _plain(axes)


def _limits(values: Sequence[NDArray[np.float64]]) -> tuple[float, float, float]:
    """Give both ends of the axis of means, and the end of that of differences, which is symmetric."""
    pairs = np.concatenate(values)
    pairs = pairs[np.isfinite(pairs).all(1)]
    low, high = float(pairs.mean(1).min()), float(pairs.mean(1).max())
    margin = 0.05 * (high - low) or 0.5
    difference = 1.1 * float(abs(pairs[:, 1] - pairs[:, 0]).max())
    return low - margin, high + margin, difference if math.isfinite(difference) and difference else 1.0


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
