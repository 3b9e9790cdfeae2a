"""What a face looks like, coarsely: enough to tell whether the face of the next frame can be the same one.

No recognition: two people may look alike to it, and one person looks different on another day.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

SAME_LOOK = 0.68
"""Likeness from which a face at the same place is the same one.

Of 40 drawn people whose AUs all changed from one frame to the next, each at one place, it was 0.94 in the
median and 0.76 at least (160 pairs); of two people at one place in one light 0.35 in the median, and 14 % of
these 1,560 pairs reach 0.68.
"""
ALIKE = 0.85
"""Likeness from which a face is the same one though it is elsewhere: 2 % of those pairs of two people."""

_SIDE, _SLACK = 16, 3
"""Pixels of a picture of colours, and by how many two of them may be shifted, 0.6 eye distances: faces are
not aligned alike in every frame."""
_CHEEKS = slice(6, 12), slice(4, 12)
_CERTAIN = 0.95
"""A correlation that shifting need not improve."""
_COLOURS, _MOST_OF_COLOURS = 2.0, 0.4
_OUTLINES = 0.975
"""Correlation of the outlines from which only the light has changed: 0.98 and more under lamps of another
colour, from the side or an eighth as bright; two people reach it in 1 % of the pictures."""
_WASHED_OUT = 0.04
"""Share of overexposed pixels from which a picture says nothing; in even light there are next to none."""
_LOGARITHM = np.log(np.arange(256) + 8.0).astype(np.float32)


def look(aligned: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(32, 32, 3) uint8 of a face's aligned picture (S, S, 3) uint8 RGB."""
    side = 2 * _SIDE
    return cv2.resize(aligned, (side, side), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def likeness(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> tuple[float, float]:
    """How alike two looks are, at most 1, and how far one is shifted, as a share of its side.

    The correlation of the middles of their logarithms, on which brightness has no influence, with the best of
    some shifts, less a share of the difference of the cheeks' colours. At least `SAME_LOOK` where only the
    light has changed, or one of them is washed out.
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
    """What is left of the logarithm of a grey picture without its slow changes, which light makes."""
    grey = cv2.LUT(cv2.cvtColor(look, cv2.COLOR_RGB2GRAY), _LOGARITHM)
    return cv2.GaussianBlur(grey, (0, 0), 1.0) - cv2.GaussianBlur(grey, (0, 0), 4.0)


def _shifted(a: NDArray[Any], b: NDArray[Any], slack: int) -> tuple[float, float]:
    """The best correlation of the middle of one picture with a part of the other, and how far off that is."""
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
