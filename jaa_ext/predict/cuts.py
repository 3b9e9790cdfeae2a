"""Hard cuts of a film, told by small pictures of the frames before and after."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

CHANGED = 0.5
"""Share of the picture that has to change; a person who comes close to the camera covers a third."""
LIGHT = 0.7
"""Correlation from which on what has changed is the same in another light.

`scripts/identity_table.py` measures what counts as a cut.
"""
_SIZE, _SLACK = (32, 24), 3
"""Width and height of a small picture, and the largest shift of the camera that is tried."""
_DIFFERENT = 0.2
"""Least difference of logarithms where the picture changed: a fifth brighter or darker, in any colour."""
_BLANK = 0.05
"""Standard deviation of the logarithms below which a picture shows nothing."""
_LOGARITHM = np.log(np.arange(256) + 8.0).astype(np.float32)


def thumbnail(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Reduce a frame, (H, W, 3) uint8 RGB, to (24, 32, 3) uint8."""
    width, height = _SIZE
    # Not of all pixels, which would take seven times as long.
    some = cv2.resize(image, (8 * width, 8 * height), interpolation=cv2.INTER_NEAREST)
    return cv2.resize(some, _SIZE, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def is_blank(small: NDArray[np.uint8]) -> bool:
    """Tell whether a thumbnail is of one colour, so that nothing can be said of its scene."""
    return float(_logarithms(small).std((0, 1)).max()) < _BLANK


def is_cut(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> bool:
    """Tell whether another scene begins between two thumbnails, neither of them blank.

    More than half of the picture has changed, wherever the camera may have turned by a little, and what has
    changed is not what was there in another light.

    Example:
        >>> noise = np.random.default_rng(0)
        >>> one, other = (noise.integers(0, 200, (24, 32, 3), dtype=np.uint8) for _ in range(2))
        >>> is_cut(one, other), is_cut(one, one + np.uint8(55)), is_cut(one, np.roll(one, 2, 1))
        (True, False, False)
    """
    first, second = _logarithms(before), _logarithms(after)
    if _changed(first, second).mean() <= CHANGED:
        return False
    width, height = _SIZE
    middle = first[_SLACK : height - _SLACK, _SLACK : width - _SLACK]
    _, _, _, (x, y) = cv2.minMaxLoc(cv2.matchTemplate(second, middle, cv2.TM_CCOEFF_NORMED))
    shifted = second[y : y + len(middle), x : x + middle.shape[1]]
    changed = _changed(middle, shifted)
    if changed.mean() <= CHANGED:
        return False
    # Without its edges, which mix what has changed with what has not.
    inside = cv2.erode(changed.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    changed = inside if inside.mean() > 0.2 else changed
    one, other = (part[changed] - part[changed].mean(0) for part in (middle, shifted))
    if max(one.std(), other.std()) < _BLANK:
        return True  # a plain wall behind a face that stays as it was: another light would change both
    return float((one * other).sum()) < LIGHT * float(np.sqrt((one**2).sum() * (other**2).sum()))


def _logarithms(small: NDArray[np.uint8]) -> NDArray[Any]:
    return cv2.GaussianBlur(cv2.LUT(small, _LOGARITHM), (3, 3), 0.8)


def _changed(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.bool_]:
    changed: NDArray[np.bool_] = np.abs(a - b).max(2) > _DIFFERENT
    return changed
