"""Scores of the field: how well AUs are detected and landmarks found, over a whole test set."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, FiniteFloat, TypeAdapter
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torchmetrics.functional.classification import (
    binary_auroc,
    multilabel_accuracy,
    multilabel_f1_score,
    multilabel_precision,
    multilabel_recall,
)

from jaa_ext.atomic import replacing
from jaa_ext.data import eye_distance
from jaa_ext.facs import NUM_LANDMARKS
from jaa_ext.json_files import write_json
from jaa_ext.models.thresholds import THRESHOLD, is_present
from jaa_ext.progress import say
from jaa_ext.score_text import score_text

FAILURE = 10.0
"""A face fails when its landmarks' mean error exceeds this percentage of the inter-ocular distance."""
NO_VARIANCE = 1e-10
"""Intensities of less variance are all the same, but for rounding."""

Share = Annotated[float, Field(ge=0, le=1 + 1e-6)]
"""The bounds of 0..1, a rounding above 1 included, are those of files that are read."""
Count = Annotated[int, Field(ge=0, le=2**53)]
Percent = Annotated[float, Field(ge=0, allow_inf_nan=False)]
PerAU = tuple[Share | None, ...]
Correlation = Annotated[float, Field(ge=-1 - 1e-6, le=1 + 1e-6)]
Degrees = Annotated[float, Field(ge=0, le=5)]
"""A difference of intensities, which are 0..5."""
Interval = tuple[FiniteFloat, FiniteFloat]
"""Lower and upper end."""

OF_EACH_AU = ("f1", "accuracy", "precision", "recall", "auc")
OF_EACH_INTENSITY = ("icc", "pearson", "mae")
OF_ALL_AUS = ("accuracy_total", "abaw_score")
OF_LANDMARKS = ("mean_error", "failure_rate")


@dataclass(frozen=True)
class Intervals:
    """95 % intervals of scores by resampling the subjects, in the units of `Scores`.

    See `bootstrap_intervals`. None for a score that is None itself, or in every resample.
    """

    resamples: int
    seed: int
    f1: tuple[Interval | None, ...] | None
    accuracy: tuple[Interval | None, ...] | None
    precision: tuple[Interval | None, ...] | None
    recall: tuple[Interval | None, ...] | None
    auc: tuple[Interval | None, ...] | None
    f1_mean: Interval | None
    accuracy_mean: Interval | None
    precision_mean: Interval | None
    recall_mean: Interval | None
    auc_mean: Interval | None
    accuracy_total: Interval | None
    abaw_score: Interval | None
    mean_error: Interval | None
    failure_rate: Interval | None
    icc: tuple[Interval | None, ...] | None = None
    pearson: tuple[Interval | None, ...] | None = None
    mae: tuple[Interval | None, ...] | None = None
    icc_mean: Interval | None = None
    pearson_mean: Interval | None = None
    mae_mean: Interval | None = None


@dataclass(frozen=True)
class Scores:
    """Scores over the frames of a test set, pooled (ECCV 2018, section 4.1).

    A frame whose label of an AU is missing (-1) takes no part in that AU's scores, and does in the others'.
    Of the other frames of the AU, TP are labelled and said to be present, FN only labelled, FP only said, TN
    neither. An AU is said to be present where its probability exceeds its threshold, 0.5 as published unless
    the model has thresholds of its own; a probability that is not a number is 0.

    - F1 = 2 TP / (2 TP + FP + FN), precision = TP / (TP + FP), recall = TP / (TP + FN). Where that is 0 / 0
      it is 0, as in torchmetrics: an AU without any positive label has F1 and recall 0, whatever is said.
    - Accuracy = (TP + TN) / (TP + TN + FP + FN).
    - AUC, the area under the ROC curve, needs no threshold: of all pairs of a positive and a negative frame,
      the share in which the positive has the higher probability, ties counting half. None where an AU lacks
      positives or negatives.

    Intensities are compared over the frames whose intensity of the AU is known; x are the true ones, y those
    said:

    - ICC = 2 cov(x, y) / (var x + var y). This is ICC(3,1) of Shrout and Fleiss (Psychological Bulletin 86,
      1979), (BMS - EMS) / (BMS + (k - 1) EMS), for k = 2, the coder and the model. -1..1; a constant shift
      between x and y does not count, another spread does. 0 where one of them alone is constant.
    - Pearson's r = cov(x, y) / sqrt(var x var y): another spread does not count either. None where one of
      them is constant.
    - MAE, the mean of abs(x - y), in units of intensity.

    ICC and r are None with fewer than two frames, or where x and y both are constant.

    An AU without any valid label has no score: None. Means are over the AUs that have the score, zeros of the
    0 / 0 cases included; None where no AU has it. What a model does not predict is None too, and so are a
    mean error that is not finite, and what an older file does not hold.

    Raises:
        ValueError: another number of values than of AUs.
    """

    aus: tuple[int, ...]
    f1: PerAU | None
    """Of each AU, 0..1."""
    accuracy: PerAU | None
    """Of each AU, 0..1."""
    f1_mean: Share | None
    """Over the AUs."""
    accuracy_mean: Share | None
    """Over the AUs, each counting the same whatever its number of valid labels."""
    mean_error: Percent | None
    """Distance of the landmarks in percent of the inter-ocular distance, mean over landmarks and faces."""
    failure_rate: Percent | None
    """Percentage of faces whose mean error exceeds 10 %."""
    note: str = ""
    """The model's, on what its scores are worth."""
    precision: PerAU | None = None
    """Of each AU, 0..1."""
    recall: PerAU | None = None
    """Of each AU, 0..1."""
    auc: PerAU | None = None
    """Of each AU, 0..1."""
    precision_mean: Share | None = None
    recall_mean: Share | None = None
    auc_mean: Share | None = None
    accuracy_total: Share | None = None
    """Accuracy over all valid labels of all AUs at once, as ABAW counts it."""
    positives: tuple[Count, ...] | None = None
    """Frames of each AU whose label is 1."""
    valid: tuple[Count, ...] | None = None
    """Frames of each AU whose label is not missing."""
    subjects: int | None = None
    """How many the test set has."""
    icc: tuple[Correlation | None, ...] | None = None
    """ICC(3,1) of the intensities of each AU, -1..1."""
    pearson: tuple[Correlation | None, ...] | None = None
    """Pearson's r of the intensities of each AU, -1..1."""
    mae: tuple[Degrees | None, ...] | None = None
    """Mean absolute error of the intensities of each AU, 0..5."""
    icc_mean: Correlation | None = None
    pearson_mean: Correlation | None = None
    mae_mean: Degrees | None = None
    rated: tuple[Count, ...] | None = None
    """Frames of each AU whose true intensity is known, and which the model gives one."""
    intervals: Intervals | None = None
    """Where they were asked for and the test set has at least two subjects."""
    thresholds: tuple[Share, ...] | None = None
    """Of each AU; None for 0.5, as published."""

    def __post_init__(self) -> None:
        for whose in (self, self.intervals):
            for name in (*OF_EACH_AU, *OF_EACH_INTENSITY, "positives", "valid", "rated", "thresholds"):
                of_aus = getattr(whose, name, None)
                if of_aus is not None and len(of_aus) != len(self.aus):
                    raise ValueError(f"{len(of_aus)} values of {name} for {len(self.aus)} AUs")

    @property
    def abaw_score(self) -> float | None:
        """0.5 F1 (mean over AUs) + 0.5 accuracy (over all labels), as ABAW 2021 ranked: 0..1."""
        if self.f1_mean is None or self.accuracy_total is None:
            return None
        return 0.5 * self.f1_mean + 0.5 * self.accuracy_total

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and a dict of the intervals; `from_dict` reads them back."""
        return {**_lists(asdict(self)), "abaw_score": self.abaw_score}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Scores:
        """Scores from what `to_dict` gave, now or in an older version, which lacked some.

        Raises:
            ValueError: values that are no scores.
        """
        return TypeAdapter(cls).validate_json(json.dumps(values), strict=True)

    def summary(self) -> dict[str, float]:
        """The means in percent, without those that the model lacks."""
        f1, accuracy, icc = (
            None if v is None else 100 * v for v in (self.f1_mean, self.accuracy_mean, self.icc_mean)
        )
        values = {
            "F1": f1,
            "accuracy": accuracy,
            "mean error": self.mean_error,
            "failures": self.failure_rate,
            "ICC": icc,
        }
        return {name: value for name, value in values.items() if value is not None}

    def of(self, name: str, au: int | None = None) -> tuple[float | None, Interval | None]:
        """A score and its interval.

        Args:
            name: of the field, or "abaw_score".
            au: place of the AU, for a score of each AU.
        """
        value, interval = getattr(self, name), getattr(self.intervals, name, None)
        if au is not None:
            value, interval = (None if v is None else v[au] for v in (value, interval))
        return value, interval

    def to_json(self, path: Path) -> None:
        """See `to_dict`."""
        write_json(path, self.to_dict())

    def to_csv(self, path: Path) -> None:
        """One row an AU, then the row "mean", which has the scores of all AUs and of the landmarks too.

        The columns of the intervals, such as f1_low and f1_high, are empty where there are none. Those of
        intensities are there if the model predicts any.
        """
        rated = self.icc is not None
        of_each = (*OF_EACH_AU, *(OF_EACH_INTENSITY if rated else ()))
        scores = (*OF_EACH_AU, *OF_ALL_AUS, *OF_LANDMARKS, *of_each[len(OF_EACH_AU) :])
        columns = [column for name in scores for column in (name, f"{name}_low", f"{name}_high")]
        counts = ("positives", "valid", *(["rated"] if rated else []))
        with replacing(path) as temporary, temporary.open("w", newline="") as file:
            rows = csv.DictWriter(file, ["au", *columns, *counts, "note"])
            rows.writeheader()
            row: dict[str, Any]
            for i, au in enumerate(self._scored_aus()):
                row = {"au": au, **{name: self.of(name, i)[0] for name in counts}}
                for name in of_each:
                    row |= _cells(name, *self.of(name, i))
                rows.writerow({**row, "note": self.note})
            row = {"au": "mean"}
            for name in scores:
                row |= _cells(name, *self.of(f"{name}_mean" if name in of_each else name))
            rows.writerow({**row, "note": self.note})

    def show(self, console: Console) -> None:
        """Print the tables and the note."""
        console.print(self.table())
        if self.rated is not None and any(self.rated):
            console.print(self.intensity_table())
        if self.note:
            say(console, self.note, style="bold")

    def table(self) -> Table:
        """For the terminal, in percent, intervals in brackets."""
        # Five scores with their intervals on a second line fit into 80 columns.
        table = Table(box=box.SIMPLE_HEAD, padding=0, caption_style="", caption_justify="left")
        ends = 0 if self.intervals is None else len("(12.3-45.6)")
        for name in ("AU", "present %"):
            table.add_column(name, justify="right")
        for name in ("F1 %", "accuracy %", "precision %", "recall %", "AUC %"):
            table.add_column(name, justify="right", min_width=ends)
        for i, au in enumerate(self._scored_aus()):
            positives, valid = self.of("positives", i)[0], self.of("valid", i)[0]
            present = score_text(positives / valid if positives is not None and valid else None)
            table.add_row(str(au), present, *(score_text(*self.of(name, i)) for name in OF_EACH_AU))
        table.show_header = bool(self._scored_aus())
        if self._scored_aus():
            table.add_section()
            table.add_row("mean", "", *(score_text(*self.of(f"{name}_mean")) for name in OF_EACH_AU))
        table.caption = "\n".join(self._captions())
        return table

    def intensity_table(self) -> Table:
        """Of intensities, for the terminal, intervals in brackets."""
        table = Table(box=box.SIMPLE_HEAD, padding=0, caption_style="", caption_justify="left")
        header, *rows, mean = self.intensity_rows()
        for heading in header:
            table.add_column(heading, justify="right")
        for row in rows:
            table.add_row(*row)
        table.add_section()
        table.add_row(*mean)
        if any("-" in row for row in rows):
            table.caption = "-: fewer than two, or all alike"
        return table

    def intensity_rows(self) -> list[list[str]]:
        """The scores of intensities as text: a header, a row for each AU that has any, and the means."""
        rows = [["AU", "intensities", "ICC(3,1)", "Pearson's r", "MAE"]]
        for i, au in enumerate(self.aus):
            if count := self.of("rated", i)[0]:
                cells = [score_text(*self.of(name, i), factor=1, digits=2) for name in OF_EACH_INTENSITY]
                rows.append([str(au), f"{count:,}", *cells])
        means = [score_text(*self.of(f"{name}_mean"), factor=1, digits=2) for name in OF_EACH_INTENSITY]
        return [*rows, ["mean", "", *means]]

    def _captions(self) -> list[str]:
        lines = [
            f"{name}: {score_text(*self.of(score), factor=factor, digits=digits)}{unit}"
            for name, score, factor, digits, unit in (
                ("accuracy over all labels", "accuracy_total", 100, 1, " %"),
                ("ABAW score", "abaw_score", 1, 3, ""),
                ("mean error", "mean_error", 1, 1, " %"),
                ("failures", "failure_rate", 1, 1, " %"),
            )
            if self.of(score)[0] is not None
        ]
        lines += [line for line in (self.about_thresholds(), self.about_intervals()) if line]
        return lines

    def about_thresholds(self) -> str:
        """Which thresholds decided, where they are the model's own; empty where they are 0.5."""
        if self.thresholds is None:
            return ""
        pairs = zip(self._scored_aus(), self.thresholds, strict=True)
        return "thresholds of the model: " + ", ".join(f"AU {au} {value:g}" for au, value in pairs)

    def about_intervals(self) -> str:
        """What the intervals are, or why there are none; empty where nobody asked."""
        if self.intervals is not None:
            return f"95 % intervals: {self.intervals.resamples} resamples of {self.subjects} subjects"
        if self.subjects == 1:
            return "no intervals: the faces are all of one subject"
        return ""

    def _scored_aus(self) -> tuple[int, ...]:
        return () if self.f1 is None else self.aus


@dataclass(frozen=True)
class Predictions:
    """What a model says of N faces, and the truth. None for what it does not predict."""

    aus: tuple[int, ...]
    labels: NDArray[np.int64]
    """(N, A) of 1, 0 and -1 for missing."""
    probabilities: NDArray[np.float32] | None
    """(N, A)."""
    landmarks: NDArray[np.float32] | None
    """(N, 49, 2) in pixels of the crop."""
    errors: NDArray[np.float64] | None
    """(N,) mean error of the landmarks, see `normalized_error`."""
    ids: tuple[str, ...] | None = None
    """Of the N faces; None where they are not known."""
    note: str = ""
    """The model's."""
    intensities: NDArray[np.float32] | None = None
    """(N, A) of 0..5, NaN for AUs of which the model learnt none."""
    true_intensities: NDArray[np.float32] | None = None
    """(N, A) of 0..5, NaN where missing; None only without `intensities`."""
    thresholds: tuple[float, ...] | None = None
    """The model's; None for 0.5 of each AU."""

    @cached_property
    def subjects(self) -> tuple[str, ...] | None:
        """Of each face: its id up to the first slash."""
        return None if self.ids is None else tuple(name.split("/")[0] for name in self.ids)

    @cached_property
    def known_probabilities(self) -> NDArray[np.float32] | None:
        """(N, A), 0 for a probability that is not a number."""
        return None if self.probabilities is None else np.nan_to_num(self.probabilities, nan=0.0)

    @cached_property
    def said(self) -> NDArray[np.bool_] | None:
        """(N, A): whether an AU is said to be present."""
        if self.known_probabilities is None:
            return None
        return is_present(self.known_probabilities, [self.threshold(i) for i in range(len(self.aus))])

    def threshold(self, place: int) -> float:
        """Of the AU in this place."""
        return THRESHOLD if self.thresholds is None else self.thresholds[place]

    def to_csv(self, path: Path) -> None:
        """One row a face: id, subject, each AU's label and probability, each AU's true intensity and the
        predicted one, the landmarks, and the note.

        A model without AUs, intensities or landmarks has no columns for them; a value that is not finite is
        empty.

        Raises:
            ValueError: ids that are not known.
        """
        if self.ids is None or self.subjects is None:
            raise ValueError(f"predictions without ids cannot be written to {path}")
        header = ["id", "subject"]
        if self.probabilities is not None:
            header += [column for au in self.aus for column in (f"AU{au}", f"AU{au}_probability")]
        if self.intensities is not None:
            header += [
                column for au in self.aus for column in (f"AU{au}_intensity", f"AU{au}_predicted_intensity")
            ]
        if self.landmarks is not None:
            header += [f"{axis}{i}" for i in range(NUM_LANDMARKS) for axis in "xy"]
        with replacing(path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([*header, "note"])
            for i, (name, subject) in enumerate(zip(self.ids, self.subjects, strict=True)):
                row: list[Any] = [name, subject]
                if self.probabilities is not None:
                    pairs = zip(self.labels[i].tolist(), self.probabilities[i].tolist(), strict=True)
                    row += [cell for label, p in pairs for cell in (label, _decimal(p, 6))]
                if self.intensities is not None and self.true_intensities is not None:
                    both = np.stack([self.true_intensities[i], self.intensities[i]], axis=1)
                    row += [_decimal(value, 4) for value in both.ravel().tolist()]
                if self.landmarks is not None:
                    row += [_decimal(value, 3) for value in self.landmarks[i].ravel().tolist()]
                writer.writerow([*row, self.note])


class Metrics:
    """Pools the predictions of batches and scores them together.

    Args:
        aus: AU numbers, in the order of the labels.
        note: the model's, repeated in the scores.
        thresholds: the model's; None for 0.5 of each AU.
    """

    def __init__(
        self, aus: Sequence[int], *, note: str = "", thresholds: Sequence[float] | None = None
    ) -> None:
        self.aus, self.note = tuple(aus), note
        plain = thresholds is None or all(value == THRESHOLD for value in thresholds)
        self.thresholds = None if plain or thresholds is None else tuple(thresholds)
        self._labels: list[Tensor] = []
        self._probabilities: list[Tensor] = []
        self._landmarks: list[Tensor] = []
        self._errors: list[Tensor] = []
        self._intensities: list[Tensor] = []
        self._true_intensities: list[Tensor] = []
        self._ids: list[str] = []

    def update(
        self,
        probabilities: Tensor | None,
        labels: Tensor,
        landmarks: Tensor | None,
        target: Tensor,
        ids: Sequence[str] = (),
        intensities: Tensor | None = None,
        true_intensities: Tensor | None = None,
    ) -> None:
        """Add a batch of N faces; None for what the model does not predict.

        Args:
            probabilities: (N, A), 0..1.
            labels: (N, A) of 1, 0 and -1 for missing.
            landmarks: (N, 49, 2) predicted, in pixels.
            target: (N, 49, 2) true ones.
            ids: of the N faces, such as "S003/00017": up to the first slash, the subject.
            intensities: (N, A) predicted, 0..5, NaN for AUs without.
            true_intensities: (N, A), NaN where missing; None where all are.
        """
        self._labels.append(labels.long().cpu())
        self._ids += ids
        if probabilities is not None:
            self._probabilities.append(probabilities.float().cpu())
        if intensities is not None:
            self._intensities.append(intensities.float().cpu())
            missing = torch.full(intensities.shape, torch.nan)
            self._true_intensities.append(missing if true_intensities is None else true_intensities.cpu())
        if landmarks is not None:
            self._landmarks.append(landmarks.float().cpu())
            self._errors.append(normalized_error(landmarks.float(), target).double().cpu())

    def predictions(self) -> Predictions:
        """Everything added so far."""
        labels = torch.cat(self._labels) if self._labels else torch.empty(0, len(self.aus), dtype=torch.int64)
        probabilities, landmarks, errors, intensities, true_intensities = (
            torch.cat(parts).numpy() if parts else None
            for parts in (
                self._probabilities,
                self._landmarks,
                self._errors,
                self._intensities,
                self._true_intensities,
            )
        )
        return Predictions(
            self.aus,
            labels.numpy(),
            probabilities,
            landmarks,
            errors,
            ids=tuple(self._ids) if len(self._ids) == len(labels) else None,
            note=self.note,
            intensities=intensities,
            true_intensities=true_intensities,
            thresholds=self.thresholds,
        )

    def result(self) -> Scores:
        """The scores of everything added so far, without intervals."""
        return score(self.predictions())


def score(predictions: Predictions) -> Scores:
    """The scores of predictions, without intervals (see `bootstrap_intervals`)."""
    per_au: dict[str, tuple[float | None, ...]] = {}
    total, positives, valid = None, None, None
    if predictions.known_probabilities is not None and predictions.said is not None:
        labels = torch.from_numpy(predictions.labels)
        probabilities = torch.from_numpy(predictions.known_probabilities)
        scores, total = _au_scores(probabilities, torch.from_numpy(predictions.said), labels)
        per_au |= scores
        positives = tuple((labels == 1).sum(0).tolist())
        valid = tuple((labels >= 0).sum(0).tolist())
    rated = None
    if predictions.intensities is not None and predictions.true_intensities is not None:
        known = known_intensities(predictions)
        rated = tuple(known.sum(0).tolist())
        columns = zip(predictions.true_intensities.T, predictions.intensities.T, known.T, strict=True)
        agreements = [
            _agreement(x[both].astype(np.float64), y[both].astype(np.float64)) for x, y, both in columns
        ]
        per_au |= dict(zip(OF_EACH_INTENSITY, zip(*agreements, strict=True), strict=True))
    names = (*OF_EACH_AU, *OF_EACH_INTENSITY)
    of_aus: dict[str, Any] = {name: per_au.get(name) for name in names}
    of_aus |= {f"{name}_mean": mean(per_au.get(name) or ()) for name in names}
    errors, subjects = predictions.errors, predictions.subjects
    return Scores(
        aus=predictions.aus,
        **of_aus,
        accuracy_total=total,
        positives=positives,
        valid=valid,
        rated=rated,
        mean_error=None if errors is None or not math.isfinite(errors.mean()) else float(errors.mean()),
        # Not "errors > FAILURE": landmarks that are not a number have failed too.
        failure_rate=None if errors is None else float(100 * (~(errors <= FAILURE)).mean()),
        subjects=None if subjects is None else len(set(subjects)),
        note=predictions.note,
        thresholds=predictions.thresholds,
    )


def normalized_error(landmarks: Tensor, target: Tensor) -> Tensor:
    """Mean distance of landmarks (N, 49, 2) in percent of the target's inter-ocular distance: (N,)."""
    error: Tensor = (landmarks - target).norm(dim=-1).mean(-1)
    return 100 * error / eye_distance(target)


def known_intensities(predictions: Predictions) -> NDArray[np.bool_]:
    """(N, A): where both the true and the predicted intensity are there."""
    assert predictions.intensities is not None and predictions.true_intensities is not None
    both: NDArray[np.bool_] = np.isfinite(predictions.intensities) & np.isfinite(predictions.true_intensities)
    return both


def _agreement(
    x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[float | None, float | None, float | None]:
    """ICC(3,1), Pearson's r and mean absolute error, see `Scores`."""
    if len(x) == 0:
        return None, None, None
    var_x, var_y = (float(v) if v > NO_VARIANCE else 0.0 for v in (x.var(), y.var()))
    covariance = float(((x - x.mean()) * (y - y.mean())).mean()) if var_x and var_y else 0.0
    icc = 2 * covariance / (var_x + var_y) if var_x or var_y else None
    pearson = covariance / math.sqrt(var_x * var_y) if var_x and var_y else None
    return icc, pearson, float(np.abs(x - y).mean())


def _au_scores(probabilities: Tensor, said: Tensor, labels: Tensor) -> tuple[dict[str, PerAU], float | None]:
    """The scores of each AU by their names, and the accuracy over all labels."""
    known = labels >= 0
    said = said.long()
    # Its validation refuses a single label.
    options: dict[str, Any] = {"average": "none", "ignore_index": -1, "validate_args": labels.shape[1] > 1}
    per_au = {
        name: tuple(
            value if any_ else None
            for value, any_ in zip(
                function(said, labels, labels.shape[1], **options).view(-1).tolist(),
                known.any(0).tolist(),
                strict=True,
            )
        )
        for name, function in (
            ("f1", multilabel_f1_score),
            ("accuracy", multilabel_accuracy),
            ("precision", multilabel_precision),
            ("recall", multilabel_recall),
        )
    }
    per_au["auc"] = tuple(
        _auc(probabilities[known[:, i], i], labels[known[:, i], i]) for i in range(labels.shape[1])
    )
    total = (said == labels)[known].double().mean().item() if known.any() else None
    return per_au, total


def _auc(probabilities: Tensor, labels: Tensor) -> float | None:
    positives = int(labels.sum())
    return float(binary_auroc(probabilities, labels)) if 0 < positives < len(labels) else None


def _decimal(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else ""


def _cells(name: str, value: float | None, interval: Interval | None) -> dict[str, Any]:
    low, high = interval or (None, None)
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lists(v) for key, v in value.items()}
    return [_lists(v) for v in value] if isinstance(value, tuple) else value


def mean(values: Sequence[float | None]) -> float | None:
    """Over those that are known."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
