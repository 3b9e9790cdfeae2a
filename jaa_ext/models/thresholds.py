"""Thresholds of probabilities, beyond which AUs are present."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

THRESHOLD = 0.5
"""An AU is present where its probability exceeds this, unless the model has thresholds of its own."""


def is_present(probabilities: NDArray[np.float32], thresholds: Sequence[float]) -> NDArray[np.bool_]:
    """Whether each AU is present: whether its probability exceeds its threshold.

    Args:
        probabilities: (..., A); NaN counts as absent.
        thresholds: one for each of the A AUs.

    Returns:
        (..., A).
    """
    return np.asarray(probabilities > np.asarray(thresholds, np.float32))


def agrees(
    probabilities: NDArray[np.float64], present: NDArray[Any], thresholds: NDArray[np.float64] | float
) -> NDArray[np.bool_]:
    """Whether the presence in a table is that of its probabilities, as far as their six digits tell.

    Args:
        probabilities: (..., A); NaN agrees with all.
        present: (..., A) of 1 and 0.
        thresholds: (A,), or one for all.

    Returns:
        (..., A).
    """
    near = np.abs(probabilities - thresholds) < 2e-6
    same = (probabilities > thresholds) == (present == 1)
    return np.asarray(near | np.isnan(probabilities) | same)


def check_thresholds(values: Sequence[Any], count: int) -> tuple[float, ...]:
    """Return the thresholds of `count` AUs as plain numbers.

    Raises:
        ValueError: another number of them, or one that is not between 0 and 1.
    """
    thresholds = tuple(values)
    if len(thresholds) != count:
        raise ValueError(f"thresholds must be one for each of the {count} AUs, got {len(thresholds)}")
    for place, value in enumerate(thresholds):
        # To Python a bool is an int.
        if isinstance(value, bool) or not isinstance(value, int | float | np.number):
            raise ValueError(f"thresholds must be numbers, got {str(value)[:60]!r} in place {place}")
        if not (math.isfinite(value) and 0 < value < 1):
            raise ValueError(f"thresholds must lie between 0 and 1, got {value:g} in place {place}")
    return tuple(float(value) for value in thresholds)
