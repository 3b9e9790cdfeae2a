"""Whether landmarks can be those of a face in an image.

Landmarks of another resolution, order or unit look like any numbers; by them a face would be aligned to grey
border, to a piece of wall, or upside down.
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
"""What to ask the user if many landmarks have a fault."""

MIN_EYE_DISTANCE = 4.0
"""Pixels; the face is then 15 pixels wide, and shows nothing."""
MAX_SPREAD = 6.0
"""Largest distance of a landmark from the median of all, divided by the median of these distances; 2 to 3 in
faces of any pose."""
MIN_MOUTH_DROP = 0.2
"""How far the mouth is below the eyes, in eye distances; about 1.1 in a frontal face."""


def fault(landmarks: NDArray[np.float64], width: int, height: int) -> str | None:
    """Say why landmarks cannot be those of a face in an image; None if they can.

    Args:
        landmarks: (49, 2), finite, in pixels. Up to half of them may lie outside the image.
        width, height: the image's size.
    """
    inside = ((landmarks >= -0.5) & (landmarks <= (width - 0.5, height - 0.5))).all(1)
    if 2 * inside.sum() < facs.NUM_LANDMARKS:
        return OUTSIDE
    left, right = (landmarks[list(eye)].mean(0) for eye in (facs.LEFT_EYE, facs.RIGHT_EYE))
    across = right - left
    distance = float(np.hypot(*across))
    if distance < MIN_EYE_DISTANCE:
        return TINY
    far = np.hypot(*(landmarks - np.median(landmarks, 0)).T)
    if far.max() > MAX_SPREAD * np.median(far):
        return SHAPELESS
    # The mouth's place below the eyes once alignment has turned the eyes level, the right one on the right.
    x, y = landmarks[_MOUTH].mean(0) - (left + right) / 2
    drop = (across[0] * y - across[1] * x) / distance
    if drop < 0:
        return UPSIDE_DOWN
    return SHAPELESS if drop < MIN_MOUTH_DROP * distance else None


_MOUTH = slice(31, 49)
