"""Coarse look of a face, by which to tell whether the face of the next frame can be the same one.

This is no face recognition: two people may look alike to it, and one person looks different on another day.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

SAME_LOOK = 0.68
"""Least likeness of the same face at the same place.

Measured on drawn people. One person whose AUs all change from a frame to the next: 0.94 in the median, at
least 0.76 (40 people, 160 pairs). Two people at one place in one light: 0.35 in the median, and 14 % of 1,560
pairs reach 0.68.
"""
ALIKE = 0.85
"""Least likeness of the same face at another place; 2 % of those pairs of two people reach it."""

_SIDE, _SLACK = 16, 3
"""Side in pixels of a picture of colours, and the largest shift between two of them, 0.6 eye distances, since
faces are not aligned alike in every frame."""
_CHEEKS = slice(6, 12), slice(4, 12)
_CERTAIN = 0.95
"""Correlation above which no shifts are tried."""
_COLOURS, _MOST_OF_COLOURS = 2.0, 0.4
_OUTLINES = 0.975
"""Least correlation of the outlines if only the light has changed: 0.98 and more under lamps of another
colour, from the side or an eighth as bright. Two people reach it in 1 % of the pictures."""
_WASHED_OUT = 0.04
"""Share of overexposed pixels beyond which a picture tells nothing; in even light there are next to none."""
_LOGARITHM = np.log(np.arange(256) + 8.0).astype(np.float32)


def look(aligned: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Reduce the aligned picture of a face, (S, S, 3) uint8 RGB, to (32, 32, 3) uint8."""
    side = 2 * _SIDE
    return cv2.resize(aligned, (side, side), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def likeness(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> tuple[float, float]:
    """Give the likeness of two looks, at most 1, and the shift between them as a share of their side.

    The likeness is the correlation of the middles of their logarithms, which brightness does not influence,
    at the best of some shifts, less a share of the difference of the cheeks' colours. It is at least
    `SAME_LOOK` if only the light has changed, or if one of the looks is washed out.
    """
    first, second = _colours(a), _colours(b)
    alike, shift = float(_correlations(_middle(first, _SLACK), _middle(second, _SLACK))[0, 0]), 0.0
    if alike < _CERTAIN:
        alike, shift = _shifted(first, second, _SLACK)
    cheeks = first[_CHEEKS].mean((0, 1)) - second[_CHEEKS].mean((0, 1))
    alike -= min(_MOST_OF_COLOURS, _COLOURS * float(np.abs(cheeks - cheeks[1]).sum()))
    if alike < SAME_LOOK:
        outlines, outlines_shift = _shifted(_outlines(a), _outlines(b), 2 * _SLACK - 1)
        if outlines >= _OUTLINES:
            return SAME_LOOK, outlines_shift
        if max(_washed_out(a), _washed_out(b)) > _WASHED_OUT:
            return SAME_LOOK, 0.0
    return alike, shift


def _colours(look: NDArray[np.uint8]) -> NDArray[Any]:
    small = cv2.resize(look, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    return cv2.LUT(cv2.GaussianBlur(small, (5, 5), 1.5), _LOGARITHM)


def _outlines(look: NDArray[np.uint8]) -> NDArray[Any]:
    """Give the logarithm of the grey picture without its slow changes, which come from the light."""
    grey = cv2.LUT(cv2.cvtColor(look, cv2.COLOR_RGB2GRAY), _LOGARITHM)
    return cv2.GaussianBlur(grey, (0, 0), 1.0) - cv2.GaussianBlur(grey, (0, 0), 4.0)


def _shifted(a: NDArray[Any], b: NDArray[Any], slack: int) -> tuple[float, float]:
    """Give the best correlation of the middle of one picture in the other, and the shift where it is."""
    best, off = -1.0, 0.0
    for whole, part in ((b, _middle(a, slack)), (a, _middle(b, slack))):
        _, value, _, (x, y) = cv2.minMaxLoc(_correlations(whole, part))
        if value > best:
            best, off = value, float(np.hypot(x - slack, y - slack)) / len(a)
    return best, off


def _correlations(whole: NDArray[Any], part: NDArray[Any]) -> NDArray[Any]:
    return cv2.matchTemplate(whole, part, cv2.TM_CCOEFF_NORMED)


def _middle(picture: NDArray[Any], slack: int) -> NDArray[Any]:
    return picture[slack:-slack, slack:-slack]


def _washed_out(look: NDArray[np.uint8]) -> float:
    return float((_middle(look, 2 * _SLACK)[..., 1] >= 250).mean())
