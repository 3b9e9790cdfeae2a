"""Scores of the field: F1 and accuracy of each AU, mean error and failure rate of the landmarks."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torchmetrics.classification import MultilabelAccuracy, MultilabelF1Score

from jaa_ext.atomic import replacing
from jaa_ext.data import eye_distance

FAILURE = 10.0
"""A face fails when its landmarks' mean error exceeds this percentage of the inter-ocular distance."""

PerAU = tuple[float | None, ...]


@dataclass(frozen=True)
class Scores:
    """Scores over the frames of a test set, pooled (ECCV 2018, section 4.1).

    None stands for what a model does not predict, and for an AU that has no valid label in the test set.
    An AU without any positive label has F1 0, and it counts in the mean.
    """

    aus: tuple[int, ...]
    f1: PerAU | None
    """Of each AU, 0..1, at threshold 0.5, missing labels left out."""
    accuracy: PerAU | None
    """Of each AU, 0..1, likewise."""
    f1_mean: float | None
    """Over the AUs."""
    accuracy_mean: float | None
    mean_error: float | None
    """Distance of the landmarks in percent of the inter-ocular distance, mean over landmarks and faces."""
    failure_rate: float | None
    """Percentage of faces whose mean error exceeds 10 %."""
    note: str = ""
    """The model's, on what its scores are worth."""

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists; `from_dict` reads them back."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Scores:
        fields: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        return cls(**fields)

    def summary(self) -> dict[str, float]:
        """The four means in percent, without those that the model lacks."""
        f1, accuracy = (None if v is None else 100 * v for v in (self.f1_mean, self.accuracy_mean))
        values = {
            "F1": f1,
            "accuracy": accuracy,
            "mean error": self.mean_error,
            "failures": self.failure_rate,
        }
        return {name: value for name, value in values.items() if value is not None}

    def to_json(self, path: Path) -> None:
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(self.to_dict(), indent=2) + "\n")

    def to_csv(self, path: Path) -> None:
        """One row an AU, then the row "mean", which has the landmarks' scores too."""
        with replacing(path) as temporary, temporary.open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["au", "f1", "accuracy", "mean_error", "failure_rate", "note"])
            for au, f1, accuracy in self._per_au():
                rows.writerow([au, f1, accuracy, None, None, self.note])
            rows.writerow(
                ["mean", self.f1_mean, self.accuracy_mean, self.mean_error, self.failure_rate, self.note]
            )

    def show(self, console: Console) -> None:
        """Print the table and the note."""
        console.print(self.table())
        if self.note:
            console.print(self.note, style="bold", soft_wrap=True)

    def table(self) -> Table:
        """For the terminal, in percent."""
        table = Table()
        for name in ("AU", "F1 %", "accuracy %", "mean error %", "failures %"):
            table.add_column(name, justify="right")
        for au, f1, accuracy in self._per_au():
            table.add_row(str(au), _percent(f1), _percent(accuracy), "", "")
        table.add_section()
        error, failures = (_percent(v, 1) for v in (self.mean_error, self.failure_rate))
        table.add_row("mean", _percent(self.f1_mean), _percent(self.accuracy_mean), error, failures)
        return table

    def _per_au(self) -> list[tuple[int, float | None, float | None]]:
        if self.f1 is None or self.accuracy is None:
            return []
        return list(zip(self.aus, self.f1, self.accuracy, strict=True))


class Metrics:
    """Pools the predictions of batches and scores them together.

    Args:
        aus: AU numbers, in the order of the labels.
        note: the model's, repeated in the scores.
    """

    def __init__(self, aus: Sequence[int], *, note: str = "") -> None:
        self.aus, self.note = tuple(aus), note
        labels = len(self.aus)
        # Its validation refuses a single label.
        options: dict[str, Any] = {"average": "none", "ignore_index": -1, "validate_args": labels > 1}
        self._f1 = MultilabelF1Score(labels, **options)
        self._accuracy = MultilabelAccuracy(labels, **options)
        self._valid = torch.zeros(labels, dtype=torch.int64)
        self._predicts_aus = False
        self._errors: list[Tensor] = []

    def update(
        self, probabilities: Tensor | None, labels: Tensor, landmarks: Tensor | None, target: Tensor
    ) -> None:
        """Add a batch of N faces; None for what the model does not predict.

        Args:
            probabilities: (N, A), 0..1.
            labels: (N, A) of 1, 0 and -1 for missing.
            landmarks: (N, 49, 2) predicted, in pixels.
            target: (N, 49, 2) true ones.
        """
        if probabilities is not None:
            p, labels = probabilities.float().cpu(), labels.cpu()
            self._f1.update(p, labels)
            self._accuracy.update(p, labels)
            self._valid += (labels >= 0).sum(0)
            self._predicts_aus = True
        if landmarks is not None:
            self._errors.append(normalized_error(landmarks.float(), target).double().cpu())

    def result(self) -> Scores:
        """The scores of everything added so far."""
        f1 = self._of_each_au(self._f1.compute()) if self._predicts_aus else None
        accuracy = self._of_each_au(self._accuracy.compute()) if self._predicts_aus else None
        error = torch.cat(self._errors) if self._errors else None
        return Scores(
            aus=self.aus,
            f1=f1,
            accuracy=accuracy,
            f1_mean=_mean(f1),
            accuracy_mean=_mean(accuracy),
            mean_error=None if error is None else error.mean().item(),
            # Not "error > FAILURE": landmarks that are not a number have failed too.
            failure_rate=None if error is None else 100 * (~(error <= FAILURE)).double().mean().item(),
            note=self.note,
        )

    def _of_each_au(self, values: Tensor) -> PerAU:
        valid = (self._valid > 0).tolist()
        return tuple(
            value if any_ else None for value, any_ in zip(values.view(-1).tolist(), valid, strict=True)
        )


def normalized_error(landmarks: Tensor, target: Tensor) -> Tensor:
    """Mean distance of landmarks (N, 49, 2) in percent of the target's inter-ocular distance: (N,)."""
    error: Tensor = (landmarks - target).norm(dim=-1).mean(-1)
    return 100 * error / eye_distance(target)


def _mean(values: PerAU | None) -> float | None:
    known = [value for value in values or () if value is not None]
    return sum(known) / len(known) if known else None


def _percent(value: float | None, factor: float = 100) -> str:
    return "-" if value is None else f"{factor * value:.1f}"
