"""Scores of the field over a whole test set, and their files."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, FiniteFloat, TypeAdapter

from jaa_ext.atomic import replacing
from jaa_ext.facs import AU, split_au
from jaa_ext.json_files import write_json
from jaa_ext.score_text import score_text

# The bounds are checked where a file is read.
Share = Annotated[float, Field(ge=0, le=1 + 1e-6)]
"""0..1, or a rounding above 1."""
Count = Annotated[int, Field(ge=0, le=2**53)]
Percent = Annotated[float, Field(ge=0, allow_inf_nan=False)]
PerAU = tuple[Share | None, ...]
Correlation = Annotated[float, Field(ge=-1 - 1e-6, le=1 + 1e-6)]
IntensityDifference = Annotated[float, Field(ge=0, le=5)]
"""Distance of two intensities, which are 0..5."""
Interval = tuple[FiniteFloat, FiniteFloat]
"""Lower and upper end."""

AU_SCORES = ("f1", "accuracy", "precision", "recall", "auc")
INTENSITY_SCORES = ("icc", "pearson", "mae")
PER_AU = (*AU_SCORES, *INTENSITY_SCORES, "positives", "valid", "rated", "thresholds")
"""The fields that have a value for each AU."""
OVERALL_SCORES = ("accuracy_total", "abaw_score")
LANDMARK_SCORES = ("mean_error", "failure_rate")


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
    Among its other frames, TP are labelled and predicted present, FN only labelled, FP only predicted, TN
    neither. An AU is predicted present where its probability exceeds its threshold, 0.5 as published unless
    the model has thresholds of its own; a probability that is not a number is 0.

    - F1 = 2 TP / (2 TP + FP + FN), precision = TP / (TP + FP), recall = TP / (TP + FN). 0 / 0 is 0,
      as in torchmetrics: an AU without any positive label has F1 and recall 0, whatever is predicted.
    - Accuracy = (TP + TN) / (TP + TN + FP + FN).
    - AUC, the area under the ROC curve, needs no threshold: of all pairs of a positive and a negative frame,
      the share in which the positive has the higher probability, ties counting half. None where an AU lacks
      positives or negatives.

    Intensities are compared over the frames whose intensity of the AU is known; x are the true ones, y the
    predicted ones:

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
        ValueError: another number of values than of AUs, a text that is no AU of one side, or data sets with
            scores of other AUs.
    """

    aus: tuple[AU, ...]
    f1: PerAU | None
    """F1 of each AU, 0..1."""
    accuracy: PerAU | None
    """Accuracy of each AU, 0..1."""
    f1_mean: Share | None
    """Over the AUs."""
    accuracy_mean: Share | None
    """Over the AUs, each counting the same whatever its number of valid labels."""
    mean_error: Percent | None
    """Distance of the landmarks in percent of the inter-ocular distance, mean over landmarks and faces."""
    failure_rate: Percent | None
    """Percentage of faces whose mean error exceeds 10 %."""
    note: str = ""
    """The model's note, which says what its scores are worth."""
    precision: PerAU | None = None
    """Precision of each AU, 0..1."""
    recall: PerAU | None = None
    """Recall of each AU, 0..1."""
    auc: PerAU | None = None
    """Area under each AU's ROC curve, 0..1."""
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
    """Number of subjects of the test set."""
    icc: tuple[Correlation | None, ...] | None = None
    """ICC(3,1) of the intensities of each AU, -1..1."""
    pearson: tuple[Correlation | None, ...] | None = None
    """Pearson's r of the intensities of each AU, -1..1."""
    mae: tuple[IntensityDifference | None, ...] | None = None
    """Mean absolute error of the intensities of each AU, 0..5."""
    icc_mean: Correlation | None = None
    pearson_mean: Correlation | None = None
    mae_mean: IntensityDifference | None = None
    rated: tuple[Count, ...] | None = None
    """Frames of each AU whose true intensity is known, and which the model gives one."""
    intervals: Intervals | None = None
    """None if they were not asked for, or the test set has one subject only."""
    thresholds: tuple[Share, ...] | None = None
    """Threshold of each AU; None for 0.5, as published."""
    sets: dict[str, Scores] | None = None
    """Scores of each data set by itself, by their names; None where one alone was tested."""

    def __post_init__(self) -> None:
        for au in self.aus:
            split_au(au)
        for whose in (self, self.intervals):
            for name in PER_AU:
                values = getattr(whose, name, None)
                if values is not None and len(values) != len(self.aus):
                    raise ValueError(f"{len(values)} values of {name} for {len(self.aus)} AUs")
        for name, part in (self.sets or {}).items():
            if part.aus != self.aus or part.sets is not None:
                raise ValueError(f"the scores of {name} are of other AUs, or of several data sets themselves")

    @property
    def abaw_score(self) -> float | None:
        """0.5 F1 (mean over AUs) + 0.5 accuracy (over all labels), as ABAW 2021 ranked: 0..1."""
        if self.f1_mean is None or self.accuracy_total is None:
            return None
        return 0.5 * self.f1_mean + 0.5 * self.accuracy_total

    def to_dict(self) -> dict[str, Any]:
        """Give plain numbers, lists and a dict of the intervals; `from_dict` reads them back."""
        values = _tuples_to_lists(asdict(replace(self, sets=None)))
        del values["sets"]
        if self.sets is not None:
            values["sets"] = {name: scores.to_dict() for name, scores in self.sets.items()}
        return {**values, "abaw_score": self.abaw_score}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Scores:
        """Make scores of what `to_dict` gave, in this version or an older one, which had fewer of them.

        Raises:
            ValueError: values that are no scores.
        """
        return TypeAdapter(cls).validate_json(json.dumps(values), strict=True)

    def summary(self) -> dict[str, float]:
        """Give the means in percent, without those that the model lacks."""
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
        """Give a score and its interval.

        Args:
            name: a field, or "abaw_score".
            au: index of the AU in `aus`, for a score of each AU.
        """
        value, interval = getattr(self, name), getattr(self.intervals, name, None)
        if au is not None:
            value, interval = (None if v is None else v[au] for v in (value, interval))
        return value, interval

    def to_json(self, path: Path) -> None:
        """Write what `to_dict` gives."""
        write_json(path, self.to_dict())

    def to_csv(self, path: Path) -> None:
        """Write one row an AU, then the row "mean", which has the scores of all AUs and of the landmarks too.

        The columns of the intervals, such as f1_low and f1_high, are empty where there are none. Those of
        intensities are there if the model predicts any. Where several data sets were tested, the rows of each
        follow, and the first column, "data", has its name.
        """
        intensity_scores = () if self.icc is None else INTENSITY_SCORES
        of_each = (*AU_SCORES, *intensity_scores)
        scores = (*AU_SCORES, *OVERALL_SCORES, *LANDMARK_SCORES, *intensity_scores)
        columns = [column for name in scores for column in (name, f"{name}_low", f"{name}_high")]
        counts = ("positives", "valid", *(["rated"] if intensity_scores else []))
        with replacing(path) as temporary, temporary.open("w", newline="") as file:
            data = [] if self.sets is None else ["data"]
            rows = csv.DictWriter(file, [*data, "au", *columns, *counts, "note"])
            rows.writeheader()
            for data_set, part in {"": self, **(self.sets or {})}.items():
                of_rows = {**({"data": data_set} if data else {}), "note": self.note}
                row: dict[str, Any]
                for i, au in enumerate(part.aus if part.f1 is not None else ()):
                    row = {"au": au, **{name: part.of(name, i)[0] for name in counts}}
                    for name in of_each:
                        row |= _interval_cells(name, *part.of(name, i))
                    rows.writerow({**row, **of_rows})
                row = {"au": "mean"}
                for name in scores:
                    row |= _interval_cells(name, *part.of(f"{name}_mean" if name in of_each else name))
                rows.writerow({**row, **of_rows})

    def intensity_rows(self) -> list[list[str]]:
        """Give the scores of intensities as text: a header, a row for each AU that has any, and the means."""
        rows = [["AU", "intensities", "ICC(3,1)", "Pearson's r", "MAE"]]
        for i, au in enumerate(self.aus):
            if count := self.of("rated", i)[0]:
                cells = [score_text(*self.of(name, i), factor=1, digits=2) for name in INTENSITY_SCORES]
                rows.append([str(au), f"{count:,}", *cells])
        means = [score_text(*self.of(f"{name}_mean"), factor=1, digits=2) for name in INTENSITY_SCORES]
        return [*rows, ["mean", "", *means]]

    def about_thresholds(self) -> str:
        """Say which thresholds decided; empty where they are 0.5."""
        if self.thresholds is None or self.f1 is None:
            return ""
        pairs = zip(self.aus, self.thresholds, strict=True)
        return "thresholds of the model: " + ", ".join(f"AU {au} {value:g}" for au, value in pairs)

    def about_intervals(self) -> str:
        """Say what the intervals are, or why there are none; empty if they were not asked for."""
        if self.intervals is not None:
            return f"95 % intervals: {self.intervals.resamples} resamples of {self.subjects} subjects"
        if self.subjects == 1:
            return "no intervals: the faces are all of one subject"
        return ""


def _interval_cells(name: str, value: float | None, interval: Interval | None) -> dict[str, Any]:
    low, high = interval or (None, None)
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def _tuples_to_lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tuples_to_lists(v) for key, v in value.items()}
    return [_tuples_to_lists(v) for v in value] if isinstance(value, tuple) else value
