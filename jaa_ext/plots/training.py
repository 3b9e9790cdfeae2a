"""Figure of the course of a training."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from jaa_ext.plots.style import BLUE, GREEN, INK, ORANGE, PALE, PURPLE, SKY, VERMILION, save_figure

COLOURS = (BLUE, ORANGE, GREEN, PURPLE, VERMILION, SKY, INK)
LINES = list(zip(COLOURS, ("-", "--", "-.", ":", "-", "--", "-."), "os^DvPX", strict=True))
"""Colour, style and marker of each line."""


def training_figure(
    history: Sequence[Mapping[str, Any]], path: str | os.PathLike[str], note: str = ""
) -> None:
    """Save the course of a training as a PNG: losses, F1 and accuracy, mean error and failure rate by epoch.

    Args:
        history: one mapping an epoch: "epoch" (int), "stage" (its name, optional), "losses" (name to value),
            "scores" (optional or None where the epoch was not evaluated) with any of "f1_mean" and
            "accuracy_mean" (0..1), "mean_error" and "failure_rate" (%). A value may be missing or None.
        path: the PNG file.
        note: printed at the bottom, ``model.note``.

    Raises:
        ValueError: an empty history.
    """
    if not history:
        raise ValueError("training_figure: got an empty history, wanted at least one epoch")
    epochs = [entry["epoch"] for entry in history]
    if any(later <= earlier for earlier, later in pairwise(epochs)):
        epochs = list(range(1, len(history) + 1))  # a new stage may count from 1 again
    losses = [entry["losses"] for entry in history]
    scores = [entry.get("scores") or {} for entry in history]

    figure = Figure(figsize=(13, 4.8), dpi=120)
    loss_axes, score_axes, error_axes = figure.subplots(1, 3)
    for i, name in enumerate(dict.fromkeys(name for entry in losses for name in entry)):
        values = _column(losses, name)
        _plot(loss_axes, i, epochs, np.where(values > 0, values, np.nan), name.replace("_", " "))
    loss_axes.set(title="losses", ylabel="loss (log scale)", yscale="log")
    _plot(score_axes, 0, epochs, _column(scores, "f1_mean"), "F1, mean over AUs")
    _plot(score_axes, 1, epochs, _column(scores, "accuracy_mean"), "accuracy, mean over AUs")
    score_axes.set(title="AU detection", ylabel="score (0..1)", ylim=(0, 1))
    _plot(error_axes, 0, epochs, _column(scores, "mean_error"), "mean error, % of inter-ocular distance")
    _plot(
        error_axes, 1, epochs, _column(scores, "failure_rate"), "failure rate, % of faces with error > 10 %"
    )
    error_axes.set(title="face alignment", ylabel="error, failures (%)")
    error_axes.set_ylim(bottom=0)

    stages = [entry.get("stage") for entry in history]
    starts = [i for i in range(len(stages)) if i == 0 or stages[i] != stages[i - 1]]
    for axes in (loss_axes, score_axes, error_axes):
        axes.set_title(axes.get_title(), pad=16)
        axes.set_xlabel("epoch")
        axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(color=PALE)
        axes.spines[["top", "right"]].set_visible(False)
        for i in starts if len(starts) > 1 else ():
            edge = epochs[i] - 0.5
            axes.axvline(edge, color=INK, linewidth=0.8, linestyle=":")
            axes.annotate(
                f" {stages[i]}", (edge, 1.01), xycoords=("data", "axes fraction"), fontsize=7, va="bottom"
            )
        if axes.get_legend_handles_labels()[0]:
            columns = 3 if axes is loss_axes else 1
            # The legend lies below the panel, where it hides no curve.
            axes.legend(
                fontsize=8, frameon=False, ncols=columns, loc="upper center", bbox_to_anchor=(0.5, -0.16)
            )
        else:
            axes.text(0.5, 0.5, "not evaluated", transform=axes.transAxes, ha="center", color=INK)
    figure.tight_layout(rect=(0, 0.06 if note else 0, 1, 1))
    save_figure(figure, path, note)


def _column(entries: Sequence[Mapping[str, Any]], name: str) -> NDArray[np.float64]:
    return np.array([np.nan if entry.get(name) is None else entry[name] for entry in entries], dtype=float)


def _plot(axes: Axes, i: int, epochs: Sequence[int], values: NDArray[np.float64], label: str) -> None:
    known = np.isfinite(values)
    if known.any():
        colour, style, marker = LINES[i % len(LINES)]
        x, y = np.array(epochs)[known], values[known]
        axes.plot(x, y, style, color=colour, marker=marker, markersize=4, label=label)
