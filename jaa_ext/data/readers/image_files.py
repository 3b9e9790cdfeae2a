"""A clip that is a list of image files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray

from jaa_ext.data.release import Frame, Skipped


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """A `Clip` of n image files whose landmarks and labels have been read already."""

    name: str
    subject: str
    task: str
    fold: str
    numbers: tuple[int, ...]
    images: tuple[Path, ...]
    landmarks: NDArray[np.float64]
    """(n, 49, 2) x, y in pixels of the image, counted from 0; all NaN where a frame has none."""
    labels: NDArray[np.int8]
    """(n, A) 1 present, 0 absent, -1 missing."""
    intensities: NDArray[np.float32] | None = None
    """(n, A) 0..5, NaN where missing; None where there are none."""

    @property
    def length(self) -> int:
        return len(self.images)

    def read(self) -> Iterator[Frame | Skipped]:
        known = self.intensities
        intensities = [None] * self.length if known is None else map(tuple, known.tolist())
        columns = (self.numbers, self.images, self.landmarks, self.labels.tolist(), intensities)
        for number, image, points, labels, of_aus in zip(*columns, strict=True):
            yield Frame(number, image, None if np.isnan(points).all() else points, tuple(labels), of_aus)


def numbers_in_names(images: Iterable[PurePath]) -> tuple[int, ...] | None:
    """Read the frame number of each file from its name: 12 from "SN001_0012.png", the last whole number.

    None if a name has no number, or if two have the same.
    """
    found = [re.findall(r"[0-9]+", image.stem) for image in images]
    numbers = tuple(int(digits[-1]) for digits in found if digits and len(digits[-1]) < 19)
    return numbers if len(set(numbers)) == len(found) else None
