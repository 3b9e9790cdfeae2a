"""Several data sets as one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaa_ext.data.faces import FaceDataset, FaceSample, HasIntensities
from jaa_ext.data.release import MISSING
from jaa_ext.facs import AU, split_au

SEPARATOR = ":"
"""Stands between the name of a data set and that of a subject, as in "BP4D:F001"."""


class CombinedFaces:
    """Several data sets, one after another (`FaceDataset`).

    Labels of an AU that a data set does not have are missing, and so are its intensities. Subjects and ids
    begin with the name of their data set, "BP4D:F001/T1/2440": people who have one name in two data sets stay
    two people.

    Args:
        sets: the data sets by their names, which hold neither ":" nor "/". Their images have one size.
        aus: AU numbers of the labels, in this order; None for all that a data set has, in the order of their
            numbers.
        shares: how much of an epoch of training each data set gives, see `Batches`: numbers above 0, of which
            only the ratios count. None for each face once.

    Raises:
        ValueError: no data set, one without faces, names that do not fit, AUs that repeat, another number of
            shares than of data sets or one that is not above 0, or images of several sizes.
        IndexError: when a sample is read that is not there.

    Example:
        >>> from jaa_ext.data import RenderedFaces, SyntheticFaces
        >>> drawn = SyntheticFaces(subjects=[1], samples_per_subject=2, aus=(1, 12))
        >>> others = SyntheticFaces(subjects=[1], samples_per_subject=1, seed=5, aus=(4, 12))
        >>> faces = CombinedFaces({"mine": drawn, "yours": others})
        >>> faces.aus, faces.subjects, len(faces)
        ((1, 4, 12), ('mine:S001', 'yours:S001'), 3)
        >>> faces[2].id, int(faces[2].labels[0])  # nobody looked for AU 1
        ('yours:S001/00000', -1)
    """

    def __init__(
        self,
        sets: Mapping[str, FaceDataset],
        *,
        aus: Sequence[AU] | None = None,
        shares: Sequence[float] | None = None,
    ) -> None:
        if not sets:
            raise ValueError("CombinedFaces: wanted at least one data set, got none")
        self.aus: tuple[AU, ...] = (
            union_of_aus(part.aus for part in sets.values()) if aus is None else tuple(aus)
        )
        if not self.aus or len(set(self.aus)) < len(self.aus):
            raise ValueError(f"CombinedFaces: wanted distinct AUs, got {list(self.aus)}")
        self.sets = dict(sets)
        self.shares = None if shares is None else tuple(shares)
        if self.shares is not None and (
            len(self.shares) != len(sets) or not all(0 < share < math.inf for share in self.shares)
        ):
            raise ValueError(
                f"CombinedFaces: shares must be a number above 0 for each of {len(sets)} data sets, "
                f"got {list(self.shares)}"
            )
        self.sizes = tuple(len(part) for part in sets.values())
        """Number of faces of each data set."""
        for name, size in zip(sets, self.sizes, strict=True):
            if not name or SEPARATOR in name or "/" in name:
                raise ValueError(
                    f'CombinedFaces: names must have neither "{SEPARATOR}" nor "/", got {name!r}'
                )
            if size == 0:
                raise ValueError(f"CombinedFaces: {name} has no faces")
        require_one_size(self.sets)
        self._ends = np.cumsum(self.sizes)
        self._columns = [_columns(self.aus, part.aus) for part in sets.values()]

    @property
    def subjects(self) -> tuple[str, ...]:
        """The distinct subjects."""
        return tuple(_named(name, person) for name, part in self.sets.items() for person in part.subjects)

    def __len__(self) -> int:
        return sum(self.sizes)

    def __getitem__(self, index: int) -> FaceSample:
        if not -len(self) <= index < len(self):
            raise IndexError(f"CombinedFaces: index {index} is out of range for {len(self)} samples")
        index %= len(self)
        place = int(np.searchsorted(self._ends, index, side="right"))
        name = list(self.sets)[place]
        sample = self.sets[name][index - int(self._ends[place]) + self.sizes[place]]
        labels = self._spread(place, sample.labels[None], MISSING)[0]
        intensities = sample.intensities
        if intensities is not None:
            intensities = self._spread(place, intensities[None], np.nan)[0]
        return sample._replace(
            labels=labels,
            intensities=intensities,
            subject=_named(name, sample.subject),
            id=_named(name, sample.id),
        )

    def label_matrix(self) -> NDArray[np.int64]:
        """(len, A) of 1, 0 and -1."""
        parts = enumerate(self.sets.values())
        return np.concatenate([self._spread(i, part.label_matrix(), MISSING) for i, part in parts])

    def intensity_matrix(self) -> NDArray[np.float32]:
        """(len, A) of 0..5, NaN where an AU has no intensity."""
        parts = []
        for place, part in enumerate(self.sets.values()):
            values = np.full((len(part), len(part.aus)), np.nan, np.float32)
            if isinstance(part, HasIntensities):
                values = part.intensity_matrix()
            parts.append(self._spread(place, values, np.nan))
        return np.concatenate(parts)

    def _spread(self, place: int, values: NDArray[Any], missing: float) -> NDArray[Any]:
        """Put the (n, a) values of a data set into the (n, A) columns of its AUs."""
        wide = np.full((len(values), len(self.aus)), missing, values.dtype)
        to, taken = self._columns[place]
        wide[:, to] = values[:, taken]
        return wide


def union_of_aus(of_each: Iterable[Sequence[AU]]) -> tuple[AU, ...]:
    """Give the AUs that at least one data set has, in the order of their numbers."""

    def key(au: AU) -> tuple[int, str]:
        number, side = split_au(au)
        return number, side or ""

    return tuple(sorted({au for aus in of_each for au in aus}, key=key))


def require_one_size(sets: Mapping[str, FaceDataset]) -> None:
    """Check that the images of the data sets have one size, by the first of each.

    Raises:
        ValueError: the message names the data set that differs.
    """
    sides = {name: part[0].image.shape[0] for name, part in sets.items()}
    first, wanted = next(iter(sides.items()))
    for name, side in sides.items():
        if side != wanted:
            raise ValueError(
                f"the images of {name} have {side} pixels and those of {first} {wanted}: prepare both with "
                "one --size"
            )


def _columns(aus: Sequence[AU], of_set: Sequence[AU]) -> tuple[list[int], list[int]]:
    """Give the columns of the AUs that a data set has: in the union, and in the data set."""
    shared = [au for au in of_set if au in aus]
    return [aus.index(au) for au in shared], [list(of_set).index(au) for au in shared]


def _named(name: str, what: str) -> str:
    return f"{name}{SEPARATOR}{what}"
