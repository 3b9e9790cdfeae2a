"""Predictions of faces, and of the photograph or video frame that holds them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jaa_ext.predict.pose import HeadPose

TRACE = 1.0
"""Least intensity of an AU that is present; A in FACS, a trace."""


@dataclass(frozen=True, eq=False)
class FacePrediction:
    """Prediction of one face; points and boxes in pixels of its photograph or frame."""

    face_id: int
    """From 0: in a photograph from left to right; in a video the same face keeps its id."""
    box: tuple[float, float, float, float]
    """left, top, right, bottom, from the detector or as tracking expects it."""
    landmarks: NDArray[np.float32]
    """(49, 2) float32 x, y that the network predicts; dlib's if the model has no alignment."""
    detected_landmarks: NDArray[np.float32]
    """(49, 2) float32 x, y by which the face was aligned: the network's from the rounds before (see
    `jaa_ext.predict.alignment`) or from the frame before, or dlib's if they were asked for."""
    probabilities: NDArray[np.float32]
    """(A,) float32 probability of each AU."""
    present: NDArray[np.bool_]
    """(A,) bool: the probability is above the AU's threshold (`JAANet.thresholds`; 0.5 unless calibrated)."""
    crop: NDArray[np.uint8]
    """(l, l, 3) uint8 RGB: the aligned face, which is the input of the network."""
    initial_maps: NDArray[np.float32] | None
    """(A, l/4 + 8, l/4 + 8) float32 initial attention maps; None if the model has none."""
    refined_maps: NDArray[np.float32] | None
    """(A, l/4, l/4) float32 refined attention maps; None if the model has none."""
    confidence: float = 1.0
    """0..1, higher for clearer faces, see `jaa_ext.predict.tracking.confidence`."""
    settled: bool = True
    """Whether the landmarks that align came to rest in the face's box. If not, the face was aligned by a mean
    face in the box, and its prediction is unreliable."""
    intensities: NDArray[np.float32] | None = None
    """(A,) float32 intensity of each AU, 0..5, consistent with `present` (see `consistent_intensities`); NaN
    for an AU whose intensity the model did not learn. None if the model predicts no intensities."""
    pose: HeadPose | None = None
    """Where the head is and how it is turned, see `jaa_ext.predict.pose`; None if `landmarks` cannot tell."""
    merged: float = 0.0
    """Likeness by which a face that came back got its id again, see `jaa_ext.predict.identity`, in the first
    frame after its return; else 0."""
    unlike: bool = False
    """Whether an embedding finds, for the first time, that the face is no longer like those of its id."""


def consistent_intensities(
    intensities: NDArray[np.float32], present: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Clamp intensities so that they do not contradict presence.

    Presence and intensity are two outputs of the network and can disagree. Presence decides: an AU predicted
    present has at least the intensity 1 (in FACS a trace, the least that is scored), an absent one at most
    0.99. Clamping keeps the order of intensities among the faces in which the AU is present, and among the
    others.

    Args:
        intensities: (A,) 0..5; NaN stays NaN.
        present: (A,) bool.

    Example:
        >>> consistent_intensities(np.float32([3.2, 0.4, 0.2, 1.7]), np.array([True, True, False, False]))
        array([3.2 , 1.  , 0.2 , 0.99], dtype=float32)
    """
    below = np.float32(0.99)  # tables have two digits
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
    """Sorted by id; empty if no face was found."""
