"""Whether landmarks can be those of a face in a picture.

Landmarks of another resolution, order or unit are numbers like any others; faces would be aligned by them to
grey border, to a piece of wall, or upside down.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from jaa_ext import facs

OUTSIDE = "most landmarks lie outside the picture"
TINY = "the eyes are less than 4 pixels apart"
UPSIDE_DOWN = "with the eyes level and in their order the mouth lies above them"
SHAPELESS = "the landmarks do not have the shape of a face"

QUESTIONS = {
    OUTSIDE: "are they of another resolution, or of a crop of the pictures?",
    TINY: "are they in pixels?",
    UPSIDE_DOWN: "are left and right, x and y, or the directions of y exchanged?",
    SHAPELESS: "are they the 49 points in their order?",
}
"""What may have happened where many landmarks have a fault."""

LEAST_EYE_DISTANCE = 4.0
"""Pixels; a face so small fills 15, and tells nothing."""
FARTHEST = 6.0
"""Of a landmark from their median, in units of the median distance from it; 2 to 3 in faces of any pose."""
LEAST_DROP = 0.2
"""Of the mouth below the eyes in units of the eye distance; about 1.1 in a frontal face."""


def fault(landmarks: NDArray[np.float64], width: int, height: int) -> str | None:
    """Why finite landmarks (49, 2) cannot be those of a face in a picture; None where they can.

    A face at the edge of the picture may lie outside it by half.
    """
    inside = ((landmarks >= -0.5) & (landmarks <= (width - 0.5, height - 0.5))).all(1)
    if 2 * inside.sum() < facs.NUM_LANDMARKS:
        return OUTSIDE
    left, right = (landmarks[list(eye)].mean(0) for eye in (facs.LEFT_EYE, facs.RIGHT_EYE))
    across = right - left
    distance = float(np.hypot(*across))
    if distance < LEAST_EYE_DISTANCE:
        return TINY
    far = np.hypot(*(landmarks - np.median(landmarks, 0)).T)
    if far.max() > FARTHEST * np.median(far):
        return SHAPELESS
    # Alignment turns the face until the right eye is to the right of the left one.
    x, y = landmarks[_MOUTH].mean(0) - (left + right) / 2
    drop = (across[0] * y - across[1] * x) / distance
    if drop < 0:
        return UPSIDE_DOWN
    return SHAPELESS if drop < LEAST_DROP * distance else None


_MOUTH = slice(31, 49)
