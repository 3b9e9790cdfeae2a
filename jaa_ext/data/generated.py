"""What the data sets of drawn and of rendered faces share: people, numbers of samples and AUs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from jaa_ext.data.faces import FaceSample
from jaa_ext.facs import AU

MIN_SIZE = 48
"""The least side of an image in pixels."""


class GeneratedFaces(ABC):
    """A data set whose faces are made when they are read, by (seed, subject, number of the face) alone.

    Args:
        subjects: ids, each at least 0; disjoint ids are different people.
        samples_per_subject: how many faces of each; sample i is face ``i % samples_per_subject`` of subject
            number ``i // samples_per_subject``.
        seed: at least 0.
        size: side of the images in pixels, at least `MIN_SIZE`.
        aus: AU numbers of the labels, some of `KNOWN_AUS`.

    Raises:
        ValueError: arguments out of range, repeated subjects, unknown AUs.
        IndexError: when a sample is read that is not there.
    """

    KNOWN_AUS: ClassVar[tuple[AU, ...]]
    SUBJECT_NAME: ClassVar[str]
    """A format string that makes a name of an id."""

    def __init__(
        self,
        *,
        subjects: range | Sequence[int],
        samples_per_subject: int,
        seed: int,
        size: int,
        aus: Sequence[AU],
    ) -> None:
        if not subjects or len(set(subjects)) != len(subjects) or min(subjects) < 0:
            raise ValueError(f"subjects must be distinct ids of at least 0, got {list(subjects)[:50]}")
        if samples_per_subject < 1 or seed < 0 or size < MIN_SIZE:
            raise ValueError(
                f"samples_per_subject must be at least 1, seed at least 0 and size at least {MIN_SIZE}, "
                f"got samples_per_subject={samples_per_subject}, seed={seed}, size={size}"
            )
        if not aus or not set(aus) <= set(self.KNOWN_AUS):
            raise ValueError(f"aus must be some of {list(self.KNOWN_AUS)}, got {list(aus)}")
        self.aus: tuple[AU, ...] = tuple(aus)
        self.subjects: tuple[str, ...] = tuple(self.SUBJECT_NAME.format(subject) for subject in subjects)
        self.samples_per_subject, self.seed, self.size = samples_per_subject, seed, size
        self._ids = tuple(int(subject) for subject in subjects)
        self._columns = [self.KNOWN_AUS.index(au) for au in aus]

    def __len__(self) -> int:
        return len(self._ids) * self.samples_per_subject

    def __getitem__(self, index: int) -> FaceSample:
        if not -len(self) <= index < len(self):
            kind = type(self).__name__
            raise IndexError(f"{kind}: index {index} is out of range for {len(self)} samples")
        number, face = divmod(index % len(self), self.samples_per_subject)
        return self._make(self._ids[number], face)

    @abstractmethod
    def _make(self, subject: int, face: int) -> FaceSample:
        """Make a face, counted from 0, of the subject with this id."""
