"""What the readers of released data sets hand to `prepare`: sequences of frames."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

MISSING = -1
"""The label of an AU that is not coded in a frame."""


class Frame(NamedTuple):
    """A frame as it was released, not aligned yet."""

    number: int
    """In the release's own counting; unique in its sequence."""
    image: Path | NDArray[np.uint8]
    """An image file, or the decoded picture of a video, (H, W, 3) RGB."""
    landmarks: NDArray[Any] | None
    """(49, 2) x, y in pixels of the image, counted from 0; None where none come with the data."""
    labels: tuple[int, ...]
    """1 present, 0 absent, -1 missing, in the order of `Release.aus`."""
    intensities: tuple[float, ...] | None = None
    """0..5, NaN where missing, in the same order; None where the data set has none."""


class Skipped(NamedTuple):
    """A frame that is left out."""

    number: int
    reason: str
    """A few words, the same for every frame left out for this reason: the report counts by it."""


class Sequence(Protocol):
    """Frames that are read together, one after the other: a video or a folder. Can be pickled."""

    @property
    def name(self) -> str:
        """Unique in its release, usable as a relative path: the subject, or more, such as "F001/T1"."""

    @property
    def subject(self) -> str:
        """Who is seen: no subject may be in two folds."""

    @property
    def task(self) -> str:
        """What the subject did, as the release calls it; empty where it says nothing."""

    @property
    def fold(self) -> str:
        """The part of the data set that the sequence is in, such as "1" or "validation"; may be empty."""

    @property
    def length(self) -> int:
        """Frames in it, for the progress bar; an estimate will do."""

    def read(self) -> Iterator[Frame | Skipped]:
        """The frames in order.

        Raises:
            ReleaseError: a file that does not look as released.
        """


@dataclass(frozen=True)
class Release:
    """A data set as its reader found it."""

    name: str
    """Such as "BP4D"."""
    aus: tuple[int, ...]
    """AU numbers, in the order of the labels."""
    sequences: tuple[Sequence, ...]
    expected: int | None = None
    """Frames that the papers keep of the whole data set, where that is known."""
    source: str = ""
    """The files that it was read from; a preparation that was begun goes on with the same source alone."""
    remarks: tuple[str, ...] = ()
    """Sentences for the report, such as on a part of the data set that is not there."""


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """A sequence of n image files whose landmarks and labels are at hand."""

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
        for place, (number, image, points) in enumerate(
            zip(self.numbers, self.images, self.landmarks, strict=True)
        ):
            yield Frame(
                number,
                image,
                None if np.isnan(points).all() else points,
                tuple(self.labels[place].tolist()),
                None if self.intensities is None else tuple(self.intensities[place].tolist()),
            )


def numbers_in_names(images: Iterable[PurePath]) -> tuple[int, ...] | None:
    """The last whole number in each file's name: 12 of "SN001_0012.png".

    None where a name has none, or two have the same.
    """
    found = [re.findall(r"[0-9]+", image.stem) for image in images]
    numbers = tuple(int(digits[-1]) for digits in found if digits and len(digits[-1]) < 19)
    return numbers if len(set(numbers)) == len(found) else None


class ReleaseError(ValueError):
    """Files that do not look as the release has them: the message names file and line, wanted and got."""
