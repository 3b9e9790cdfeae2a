"""What is predicted: faces, and the photograph or frame of a video that they are in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class FacePrediction:
    """What the network says about one face, in pixels of its photograph or frame unless said otherwise."""

    face_id: int
    """From 0: in a photograph its place from left to right; in a video the same face has the same id."""
    box: tuple[float, float, float, float]
    """left, top, right, bottom: the detector's, or where tracking expects it."""
    landmarks: NDArray[np.float32]
    """(49, 2) float32 x, y as the network predicts them; the detector's if the model has no alignment."""
    detected_landmarks: NDArray[np.float32]
    """(49, 2) float32 x, y by which the face was aligned: the detector's, or those of the frame before."""
    probabilities: NDArray[np.float32]
    """(A,) float32 probability of each AU."""
    present: NDArray[np.bool_]
    """(A,) bool: the probability is above 0.5."""
    crop: NDArray[np.uint8]
    """(l, l, 3) uint8 RGB: the aligned face as the network saw it."""
    initial_maps: NDArray[np.float32] | None
    """(A, l/4 + 8, l/4 + 8) float32 initial attention maps; None if the model has none."""
    refined_maps: NDArray[np.float32] | None
    """(A, l/4, l/4) float32 refined attention maps; None if the model has none."""
    confidence: float = 1.0
    """0..1: how surely this is a face."""


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
