"""What is predicted: faces, and the photograph or frame of a video that they are in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TRACE = 1.0
"""The intensity from which on an AU is there, in FACS: A, a trace."""


@dataclass(frozen=True, eq=False)
class FacePrediction:
    """What the network says about one face, in pixels of its photograph or frame unless said otherwise."""

    face_id: int
    """From 0: in a photograph its place from left to right; in a video the same face has the same id."""
    box: tuple[float, float, float, float]
    """left, top, right, bottom: the detector's, or where tracking expects it."""
    landmarks: NDArray[np.float32]
    """(49, 2) float32 x, y as the network predicts them; dlib's if the model has no alignment."""
    detected_landmarks: NDArray[np.float32]
    """(49, 2) float32 x, y by which the face was aligned: the network's own of the rounds before (see
    `jaa_ext.predict.alignment`) or of the frame before, or dlib's if they are asked for."""
    probabilities: NDArray[np.float32]
    """(A,) float32 probability of each AU."""
    present: NDArray[np.bool_]
    """(A,) bool: the probability is above the AU's threshold (`JAANet.thresholds`; 0.5 unless calibrated)."""
    crop: NDArray[np.uint8]
    """(l, l, 3) uint8 RGB: the aligned face as the network saw it."""
    initial_maps: NDArray[np.float32] | None
    """(A, l/4 + 8, l/4 + 8) float32 initial attention maps; None if the model has none."""
    refined_maps: NDArray[np.float32] | None
    """(A, l/4, l/4) float32 refined attention maps; None if the model has none."""
    confidence: float = 1.0
    """0..1: how surely this is a face."""
    settled: bool = True
    """Whether the landmarks that align came to rest in the face's box. If not, a mean face in the box aligned
    it, and what is said of it is not to be relied upon."""
    intensities: NDArray[np.float32] | None = None
    """(A,) float32 intensity of each AU, 0..5, in accord with `present` (see `accord`); NaN for an AU of
    which the model learnt none. None if the model predicts no intensities."""


def accord(intensities: NDArray[np.float32], present: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Intensities that do not contradict what is said of presence.

    Presence and intensity are two outputs of the network and can disagree, where presence decides: an AU that
    is said to be present has at least the intensity 1 (in FACS a trace, the least that is scored), and one
    that is said to be absent at most 0.99. What agrees already stays as it is, so that a higher intensity of
    the network never becomes a lower one among the faces in which the AU is present, nor among the others.

    Args:
        intensities: (A,) 0..5; NaN stays NaN.
        present: (A,).

    Example:
        >>> accord(np.float32([3.2, 0.4, 0.2, 1.7]), np.array([True, True, False, False]))
        array([3.2 , 1.  , 0.2 , 0.99], dtype=float32)
    """
    below = np.float32(0.99)  # two digits, as tables have them
    return np.where(present, np.maximum(intensities, np.float32(TRACE)), np.minimum(intensities, below))


@dataclass(frozen=True, eq=False)
class FramePrediction:
    """A photograph or a frame of a video, and its faces."""

    source: str
    """The file, or ``camera 0``."""
    frame: int
    """Number of the frame in its video, from 1; 1 for a photograph."""
    timestamp: float
    """Seconds from the start of the video; 0 for a photograph."""
    image: NDArray[np.uint8]
    """(H, W, 3) RGB."""
    faces: list[FacePrediction]
    """By id; empty where no face was found."""
