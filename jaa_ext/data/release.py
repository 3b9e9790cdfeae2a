"""What the readers of released data sets return and `prepare` takes: clips of frames."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from jaa_ext.facs import AU

MISSING = -1
"""The label of an AU that is not coded in a frame."""


class Frame(NamedTuple):
    """A frame as it was released, not aligned yet."""

    number: int
    """As the release counts; unique in its clip."""
    image: Path | NDArray[np.uint8]
    """An image file, or the decoded frame of a video, (H, W, 3) RGB."""
    landmarks: NDArray[Any] | None
    """(49, 2) x, y in pixels of the image, counted from 0; None where the data has none."""
    labels: tuple[int, ...]
    """1 present, 0 absent, -1 missing, in the order of `Release.aus`."""
    intensities: tuple[float, ...] | None = None
    """0..5, NaN where missing, in the same order; None where the data set has none."""


class Skipped(NamedTuple):
    """A frame that the reader leaves out."""

    number: int
    reason: str
    """A few words, the same for all frames that are left out for this reason: the report counts them."""


class Clip(Protocol):
    """Frames that are read one after the other: a video or a folder of images. Can be pickled."""

    @property
    def name(self) -> str:
        """Unique in its release and usable as a relative path: the subject, or more, such as "F001/T1"."""

    @property
    def subject(self) -> str:
        """The person seen: no subject may be in two folds."""

    @property
    def task(self) -> str:
        """What the subject did, as the release calls it; empty where it does not say."""

    @property
    def fold(self) -> str:
        """The part of the data set that the clip is in, such as "1" or "validation"; may be empty."""

    @property
    def length(self) -> int:
        """The number of its frames, for the progress bar; an estimate will do."""

    def read(self) -> Iterator[Frame | Skipped]:
        """Read the frames in order.

        Raises:
            ReleaseError: a file does not look as released.
        """


@dataclass(frozen=True)
class Release:
    """A data set as its reader found it.

    Example:
        >>> from jaa_ext.data.rendered.release import rendered_release
        >>> release = rendered_release(subjects=2, samples_per_subject=3)
        >>> [(clip.name, clip.fold, clip.length) for clip in release.clips]
        [('R0000', 'train', 3), ('R0001', 'test', 3)]
    """

    name: str
    """Such as "BP4D"."""
    aus: tuple[AU, ...]
    """AU numbers, with sides or not, in the order of the labels."""
    clips: tuple[Clip, ...]
    expected: int | None = None
    """Frames that the papers keep of the whole data set, where that is known."""
    source: str = ""
    """Where it was read from, and how; a preparation goes on only with the same source."""
    remarks: tuple[str, ...] = ()
    """Sentences for the report, such as which part of the data set is missing."""


class ReleaseError(ValueError):
    """Files that do not look as released: the message names file and line, what was wanted and got."""
