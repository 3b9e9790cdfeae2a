"""Asymmetry of AUs whose two sides are predicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaa_ext import facs

ENDINGS = {"p": "_asymmetry", "r": "_asymmetry_intensity"}
"""Endings of the columns, by the kind of column that they are differences of."""
DIGITS = {"c": 0, "p": 6, "r": 2}
"""Decimal places of each kind of column in tables."""


def asymmetry(
    values: Mapping[str, NDArray[Any]], names: Sequence[str]
) -> dict[tuple[str, str], NDArray[np.float64]]:
    """Compute the asymmetry of each AU of which both sides are there: left minus right, the person's own.

    It is above 0 where the left side does more; of probabilities in -1..1, of intensities in -5..5.

    Args:
        values: (..., A) of each kind of column, "p" for probabilities and "r" for intensities; others are
            passed over.
        names: the A AUs, as ``AU12L``.

    Returns:
        (...) with the digits of tables, by the kind and the name of the column.

    Example:
        >>> found = asymmetry({"p": np.array([[0.9, 0.2], [0.1, 0.3]])}, ["AU12L", "AU12R"])
        >>> found["p", "AU12_asymmetry"].tolist()
        [0.7, -0.2]
    """
    found: dict[tuple[str, str], NDArray[np.float64]] = {}
    for kind in ENDINGS:
        if kind in values:
            left, right, columns = _pairs(tuple(names), kind)
            written = np.round(np.asarray(values[kind], np.float64), DIGITS[kind])  # as tables hold them
            difference = np.round(written[..., left] - written[..., right], DIGITS[kind])
            difference += 0.0  # which makes a negative zero positive
            found |= {(kind, column): difference[..., i] for i, column in enumerate(columns)}
    return found


def asymmetry_columns(names: Sequence[str], kinds: str) -> list[str]:
    """Name the columns of `asymmetry`, in their order, for these kinds of columns, "p" or "pr"."""
    return [column for kind in ENDINGS if kind in kinds for column in _pairs(tuple(names), kind)[2]]


@lru_cache
def _pairs(names: tuple[str, ...], kind: str) -> tuple[list[int], list[int], list[str]]:
    """Find the places of the left sides and of the right ones, and the columns of their differences."""
    groups = [group for group in facs.group_sides(names) if len(group) == 2]
    left, right = ([names.index(group[side]) for group in groups] for side in (0, 1))
    return left, right, [f"{group[0][:-1]}{ENDINGS[kind]}" for group in groups]
