"""Figures of scores: an overview of all AUs, and for each AU its curves and its probabilities."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter
from numpy.typing import NDArray
from torchmetrics.functional.classification import binary_precision_recall_curve, binary_roc

from jaa_ext.facs import AU, au_in_words
from jaa_ext.plots.style import BLUE, GREEN, GREY, INK, ORANGE, PALE, VERMILION, note_height, save_figure
from jaa_ext.score_text import score_text

if TYPE_CHECKING:
    from jaa_ext.evaluation.predictions import Predictions
    from jaa_ext.evaluation.scores import Scores


OVERVIEW = (("f1", "F1", BLUE, "o"), ("accuracy", "accuracy", ORANGE, "s"), ("auc", "AUC", GREEN, "^"))
BINS = 20
"""Number of bars in the histogram of probabilities."""
UNBALANCED = 10
"""Ratio of the numbers of both labels beyond which the histogram has a log scale."""


def write_figures(
    folder: str | os.PathLike[str], predictions: Predictions, scores: Scores
) -> tuple[Path, ...]:
    """Write scores.png and, for each AU with a valid label, its figure, such as AU12.png.

    Args:
        folder: made if need be.
        predictions: the predictions of a model.
        scores: their scores, with intervals or without.

    Returns:
        The files; none for a model that detects no AUs.
    """
    if predictions.probabilities is None:
        return ()
    folder = Path(folder)
    written = [folder / "scores.png"]
    scores_figure(scores, written[0])
    for au, labels in zip(predictions.aus, predictions.labels.T, strict=True):
        if (labels >= 0).any():
            written.append(folder / f"AU{au}.png")
            au_figure(predictions, au, scores, written[-1])
    return tuple(written)


def scores_figure(scores: Scores, path: str | os.PathLike[str]) -> None:
    """Save F1, accuracy and AUC of each AU and their means, with intervals, and how often the AUs occur.

    Args:
        scores: of a model that detects AUs.
        path: the PNG file.

    Raises:
        ValueError: scores without AUs.
    """
    if scores.f1 is None:
        raise ValueError("scores_figure: the scores are of a model that detects no AUs")
    places = np.arange(len(scores.aus) + 1, dtype=float)
    places[-1] += 0.3  # sets the means apart
    figure = Figure(figsize=(max(6.0, 2.0 + 0.75 * len(places)), 6.2), dpi=120)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    for i, (name, label, colour, marker) in enumerate(OVERVIEW):
        pairs = [scores.of(name, au) for au in range(len(scores.aus))] + [scores.of(f"{name}_mean")]
        values = np.array([np.nan if value is None else 100 * value for value, _ in pairs])
        x = places + 0.22 * (i - 1)
        upper.plot(x, values, marker, color=colour, markersize=6, label=label, zorder=3, clip_on=False)
        for at, (_, interval) in zip(x, pairs, strict=True):
            if interval is not None:
                low, high = 100 * interval[0], 100 * interval[1]
                upper.plot([at] * 2, [low, high], color=colour, linewidth=1.6, zorder=2)
                for end in (low, high):
                    upper.plot([at - 0.06, at + 0.06], [end] * 2, color=colour, linewidth=1.6, zorder=2)
    upper.set(ylabel="score (%)", ylim=(0, 102))
    upper.set_title(_overview_title(scores), loc="left", fontsize=10, color=INK, pad=28)
    upper.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, fontsize=10, borderaxespad=0.2
    )

    shares = [
        100 * positives / valid if valid else np.nan
        for positives, valid in zip(scores.positives or (), scores.valid or (), strict=True)
    ]
    bars = lower.bar(places[: len(shares)], shares, width=0.62, color=GREY)
    lower.bar_label(bars, ["" if np.isnan(s) else f"{s:.1f}" for s in shares], fontsize=9, padding=1)
    for place in places[: len(shares)][np.isnan(shares)]:
        lower.text(place, 0, "no label", fontsize=9, ha="center", va="bottom", color=INK)
    lower.set(ylabel="occurrence\n(% of labels)", ylim=(0, 1.25 * np.nanmax([*shares, 1e-3])))
    lower.set_xticks(places, [*(f"AU {au}" for au in scores.aus), "mean"], fontsize=10)
    for axes in (upper, lower):
        axes.grid(axis="y", color=PALE)
        axes.axvline(places[-1] - 0.65, color=GREY, linewidth=0.8, linestyle=":")
        for edge in places[:-2] + 0.5:
            axes.axvline(edge, color=PALE, linewidth=0.8)
        _plain(axes)
    lower.set_xlim(-0.6, places[-1] + 0.6)
    upper.tick_params(bottom=False)
    lower.tick_params(bottom=False)
    figure.tight_layout(rect=(0, note_height(figure, scores.note), 1, 1))
    save_figure(figure, path, scores.note)


def au_figure(predictions: Predictions, au: AU, scores: Scores, path: str | os.PathLike[str]) -> None:
    """Save an AU's ROC curve, precision-recall curve and histogram of probabilities.

    Args:
        predictions: of a model that detects AUs.
        au: number of the AU.
        scores: the scores of the predictions.
        path: the PNG file.

    Raises:
        ValueError: predictions without AUs, without this AU or without a valid label of it.
    """
    known, is_present = predictions.known_probabilities, predictions.predicted_present
    if known is None or is_present is None or au not in predictions.aus:
        raise ValueError(
            f"au_figure: AU {au} must be one of those predicted, got {list(predictions.aus)} "
            f"{'without' if predictions.probabilities is None else 'with'} probabilities"
        )
    place = predictions.aus.index(au)
    labels = predictions.labels[:, place]
    if not (labels >= 0).any():
        raise ValueError(f"au_figure: AU {au} has no valid label")
    valid = labels >= 0
    present, threshold = labels[valid] == 1, predictions.threshold(place)
    faces = _Faces(known[valid, place], present, is_present[valid, place], threshold)

    figure = Figure(figsize=(13, 5.0), dpi=110)
    roc, pr, histogram = figure.subplots(1, 3)
    if present.any() and not present.all():
        _draw_roc(roc, faces, *scores.of("auc", place))
    else:
        _say(roc, f"every label is {'present' if present.any() else 'absent'}:\nthere is no ROC curve")
    if present.any():
        _draw_precision_recall(pr, faces)
    else:
        _say(pr, "no label is present:\nthere is no recall")
    _draw_histogram(histogram, faces)
    roc.set(title="ROC curve", xlabel="false positives (% of absent)", ylabel="true positives (% of present)")
    pr.set(title="precision and recall", xlabel="recall (%)", ylabel="precision (%)")
    for axes in (roc, pr):
        axes.set(xlim=(-2, 102), ylim=(-2, 102))
        axes.grid(color=PALE)
    for axes in (roc, pr, histogram):
        axes.set_box_aspect(1)
        axes.title.set_fontsize(11)
        _plain(axes)
    figure.suptitle(_au_title(au, place, scores, present), fontsize=12, color=INK, x=0.01, ha="left")
    figure.tight_layout(rect=(0, note_height(figure, predictions.note), 1, 1))
    save_figure(figure, path, predictions.note)


class _Faces(NamedTuple):
    """The N faces in which an AU is labelled."""

    probabilities: NDArray[np.float32]
    present: NDArray[np.bool_]
    """By the labels."""
    predicted: NDArray[np.bool_]
    """By the probabilities, above the threshold."""
    threshold: float


def _draw_roc(axes: Axes, faces: _Faces, area: float | None, interval: tuple[float, float] | None) -> None:
    probabilities, present, predicted, threshold = faces
    false, true, _ = binary_roc(torch.from_numpy(probabilities), torch.from_numpy(present).long())
    label = "model" if area is None else f"model: AUC {score_text(area, interval, unit=' %')}"
    axes.plot(100 * false.numpy(), 100 * true.numpy(), color=BLUE, linewidth=2, label=label)
    axes.plot([0, 100], [0, 100], "--", color=GREY, linewidth=1.2, label="chance: AUC 50.0 %")
    _mark_threshold(axes, predicted[~present].mean(), predicted[present].mean(), threshold)
    axes.legend(loc="lower right", fontsize=9, framealpha=0.9)


def _draw_precision_recall(axes: Axes, faces: _Faces) -> None:
    probabilities, present, predicted, threshold = faces
    precision, recall, _ = binary_precision_recall_curve(
        torch.from_numpy(probabilities), torch.from_numpy(present).long()
    )
    # The last point, precision 1 at recall 0, belongs to no threshold.
    axes.plot(100 * recall[:-1].numpy(), 100 * precision[:-1].numpy(), color=BLUE, linewidth=2, label="model")
    chance = 100 * present.mean()
    axes.axhline(chance, color=GREY, linewidth=1.2, linestyle="--", label=f"chance: {chance:.1f} %")
    if predicted.any():
        _mark_threshold(axes, predicted[present].mean(), present[predicted].mean(), threshold)
    # The legend lies on the line of chance, or below a high one: good models' curves run along the top.
    bottom = chance / 100 + 0.04 if chance < 50 else 0.02
    axes.legend(loc="lower left", bbox_to_anchor=(0.01, bottom), fontsize=9, framealpha=0.9)


def _draw_histogram(axes: Axes, faces: _Faces) -> None:
    probabilities, present, _, threshold = faces
    edges = np.linspace(0, 1, BINS + 1)
    for which, name, colour, hatch, line in (
        (~present, "absent", BLUE, "", "-"),
        (present, "present", ORANGE, "///", "--"),
    ):
        counts, _ = np.histogram(probabilities[which], edges)
        label = f"labelled {name}: {which.sum():,}"
        axes.stairs(counts, edges, fill=True, color=colour, alpha=0.25)
        axes.stairs(counts, edges, color=colour, linewidth=1.8, linestyle=line, label=label, hatch=hatch)
    axes.axvline(threshold, color=INK, linewidth=1, linestyle=":")
    positives, negatives = int(present.sum()), int((~present).sum())
    unbalanced = max(positives, negatives) > UNBALANCED * min(positives, negatives) > 0
    counted = "faces (log scale)" if unbalanced else "faces"
    axes.set(title="probabilities", xlabel="predicted probability", ylabel=counted, xlim=(-0.02, 1.02))
    if unbalanced:
        axes.set_yscale("log")
        axes.set_ylim(0.7, 6 * axes.dataLim.ymax)
    else:
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylim(0, 1.25 * axes.dataLim.ymax)
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.legend(loc="upper center", fontsize=9, framealpha=0.9)


def _overview_title(scores: Scores) -> str:
    parts = [
        f"{label} {100 * value:.1f} %"
        for label, value in (("mean F1", scores.f1_mean), ("accuracy over all labels", scores.accuracy_total))
        if value is not None
    ]
    if scores.abaw_score is not None:
        parts.append(f"ABAW score {scores.abaw_score:.3f}")
    if scores.mean_error is not None:
        parts.append(f"landmark error {scores.mean_error:.1f} %, failures {scores.failure_rate:.1f} %")
    about = scores.about_intervals()
    return "; ".join(parts) + (f"\n{about}" if about else "")


def _au_title(au: AU, place: int, scores: Scores, present: NDArray[np.bool_]) -> str:
    named = au_in_words(au)
    others = [
        f"{name} {score_text(*scores.of(name, place), unit=' %')}"
        for name in ("accuracy", "precision", "recall")
    ]
    faces = f"present in {100 * present.mean():.1f} % of {len(present):,} faces"
    return f"{named}: F1 {score_text(*scores.of('f1', place), unit=' %')}\n{', '.join(others)}; {faces}"


def _say(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", fontsize=10, color=INK)


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)


def _mark_threshold(axes: Axes, x: float, y: float, threshold: float) -> None:
    label = f"threshold {threshold:g}"
    axes.plot(
        100 * x, 100 * y, "o", color=VERMILION, markeredgecolor="white", markersize=10, zorder=4, label=label
    )
