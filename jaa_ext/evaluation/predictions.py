"""Predictions of a model for a test set, beside the labels."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaa_ext.atomic import replacing
from jaa_ext.data.combined import SEPARATOR
from jaa_ext.facs import AU, NUM_LANDMARKS, au_column
from jaa_ext.models.thresholds import THRESHOLD, is_present


@dataclass(frozen=True)
class Predictions:
    """Predictions of a model for N faces, and the truth. None for what the model does not predict.

    Example:
        >>> labels, probabilities = np.array([[1, 0]]), np.array([[0.8, 0.3]], np.float32)
        >>> Predictions((1, 12), labels, probabilities, None, None).predicted_present
        array([[ True, False]])
    """

    aus: tuple[AU, ...]
    labels: NDArray[np.int64]
    """(N, A) of 1, 0 and -1 for missing."""
    probabilities: NDArray[np.float32] | None
    """(N, A)."""
    landmarks: NDArray[np.float32] | None
    """(N, 49, 2) in pixels of the crop."""
    errors: NDArray[np.float64] | None
    """(N,) mean error of the landmarks, see `normalized_error`."""
    ids: tuple[str, ...] | None = None
    """Ids of the N faces; None where they are not known."""
    note: str = ""
    """The model's note."""
    intensities: NDArray[np.float32] | None = None
    """(N, A) of 0..5, NaN for AUs whose intensity the model did not learn."""
    true_intensities: NDArray[np.float32] | None = None
    """(N, A) of 0..5, NaN where missing; None if `intensities` are."""
    thresholds: tuple[float, ...] | None = None
    """The model's threshold of each AU; None for 0.5."""

    @cached_property
    def subjects(self) -> tuple[str, ...] | None:
        """Subject of each face: its id up to the first slash."""
        return None if self.ids is None else tuple(name.split("/")[0] for name in self.ids)

    @cached_property
    def known_probabilities(self) -> NDArray[np.float32] | None:
        """(N, A), 0 for a probability that is not a number."""
        return None if self.probabilities is None else np.nan_to_num(self.probabilities, nan=0.0)

    @cached_property
    def predicted_present(self) -> NDArray[np.bool_] | None:
        """(N, A): whether the probability of an AU exceeds its threshold."""
        if self.known_probabilities is None:
            return None
        return is_present(self.known_probabilities, [self.threshold(i) for i in range(len(self.aus))])

    def threshold(self, index: int) -> float:
        """Give the threshold of the AU at an index of `aus`."""
        return THRESHOLD if self.thresholds is None else self.thresholds[index]

    def of_set(self, name: str) -> Predictions:
        """Give the faces of one data set of several, whose ids begin with its name (see `CombinedFaces`).

        Example:
            >>> labels, ids = np.array([[1], [0]]), ("mine:S1/1", "yours:S1/1")
            >>> Predictions((12,), labels, None, None, None, ids).of_set("yours").labels
            array([[0]])
        """
        rows = [i for i, face in enumerate(self.ids or ()) if face.startswith(f"{name}{SEPARATOR}")]
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        parts: dict[str, Any] = {k: v[rows] for k, v in values.items() if isinstance(v, np.ndarray)}
        return replace(self, **parts, ids=tuple((self.ids or ())[i] for i in rows))

    def to_csv(self, path: Path) -> None:
        """Write one row a face.

        The columns: id, subject, the label ``AU01`` and the probability ``AU01_p`` of each AU, the true
        intensity ``AU01_intensity`` and the predicted one ``AU01_r``, the landmarks ``x_0``, ``y_0``, ...,
        and the note. A model without AUs, intensities or landmarks has no columns for them; a value that is
        not finite is empty.

        Raises:
            ValueError: ids that are not known.
        """
        if self.ids is None or self.subjects is None:
            raise ValueError(f"predictions without ids cannot be written to {path}")
        header, names = ["id", "subject"], list(map(au_column, self.aus))
        if self.probabilities is not None:
            header += [column for name in names for column in (name, f"{name}_p")]
        if self.intensities is not None:
            header += [column for name in names for column in (f"{name}_intensity", f"{name}_r")]
        if self.landmarks is not None:
            header += [f"{axis}_{i}" for i in range(NUM_LANDMARKS) for axis in "xy"]
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


def _decimal(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else ""
