"""Landmarks by which a face is aligned, predicted by the network itself.

The network takes aligned faces, and to align a face takes its landmarks. So the face is first aligned by a
mean face placed in the detector's box. The network predicts landmarks, by which the face is aligned again,
and so on until it no longer moves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from jaa_ext import facs
from jaa_ext.data.faces import alignment_matrix, transform
from jaa_ext.data.plausible import fault
from jaa_ext.predict.detector import Box, DetectedFace

MEAN_FACE = np.array(
    [
        *((-0.358, -0.301), (-0.295, -0.349), (-0.218, -0.362), (-0.141, -0.351), (-0.066, -0.327)),
        *((0.066, -0.327), (0.141, -0.351), (0.218, -0.362), (0.295, -0.349), (0.358, -0.301)),
        *((0.0, -0.213), (0.0, -0.128), (0.0, -0.041), (0.0, 0.048)),
        *((-0.102, 0.085), (-0.050, 0.104), (0.0, 0.119), (0.050, 0.104), (0.102, 0.085)),
        *((-0.286, -0.211), (-0.232, -0.234), (-0.170, -0.234)),
        *((-0.111, -0.195), (-0.170, -0.186), (-0.231, -0.185)),
        *((0.111, -0.195), (0.170, -0.234), (0.232, -0.234)),
        *((0.286, -0.211), (0.231, -0.185), (0.170, -0.186)),
        *((-0.171, 0.248), (-0.107, 0.204), (-0.044, 0.193), (0.0, 0.198), (0.044, 0.193), (0.107, 0.204)),
        *((0.171, 0.248), (0.109, 0.315), (0.050, 0.336), (0.0, 0.341), (-0.050, 0.336), (-0.109, 0.315)),
        *((-0.048, 0.244), (0.0, 0.249), (0.048, 0.244), (0.048, 0.263), (0.0, 0.267), (-0.048, 0.263)),
    ]
)
"""(49, 2) x, y from the middle of dlib's box, in widths of the box.

The mean of 258 rendered faces in the boxes that dlib found, made symmetric. The aligned picture is 1.32 boxes
wide (standard deviation 0.13), and its middle lies 0.02 box widths below the middle of the box (0.05; to the
side 0.03). The roll of these faces differs by 8 degrees from the one that the detector tells.
"""
MOVED = 0.05
"""Displacement in eye distances (see `displacement`) beyond which a face is aligned anew, and the network
predicts it again."""
ROUNDS = 6
"""Most predictions of a face until its landmarks have settled."""
EYE_DISTANCES = (0.2, 0.8)
"""Least and largest eye distance of a face, in widths of the detector's box; 0.40 in the mean face."""

Image = NDArray[np.uint8]
Points = NDArray[np.float32]
"""(49, 2) x, y in pixels of an image."""


def place_mean_face(box: Box, roll: float = 0.0) -> Points:
    """Place the mean face in a box of dlib's detector, turned clockwise by degrees: (49, 2) float32."""
    left, top, right, bottom = box
    angle = math.radians(roll)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    size = (right - left + bottom - top) / 2
    middle = np.array(((left + right) / 2, (top + bottom) / 2))
    points: Points = (size * MEAN_FACE @ turn.T + middle).astype(np.float32)
    return points


def settle(
    faces: Sequence[tuple[Image, DetectedFace]],
    predict: Callable[[list[tuple[Image, Points]]], Sequence[Points]],
) -> list[DetectedFace]:
    """Find the landmarks by which faces are to be aligned, for faces of several pictures at once.

    Args:
        faces: pictures, and a face of each that a detector found.
        predict: takes pictures and the landmarks that align a face of each; returns the landmarks that the
            network predicts for these faces.

    Returns:
        The faces with landmarks. Where the network's landmarks still move by more than `MOVED` in the last of
        `ROUNDS`, or cannot be those of a face in that box, the mean face stands in their place, and the face
        is not `settled`.
    """
    starts = [place_mean_face(face.box, face.roll) for _, face in faces]
    points, settled = list(starts), [False] * len(faces)
    waiting = list(range(len(faces)))
    for _ in range(ROUNDS):
        if not waiting:
            break
        moving = []
        predicted = predict([(faces[i][0], points[i]) for i in waiting])
        for i, now in zip(waiting, predicted, strict=True):
            image, face = faces[i]
            if not _is_face(now, face.box, image):
                continue
            settled[i] = displacement(points[i], now) <= MOVED
            points[i] = now
            if not settled[i]:
                moving.append(i)
        waiting = moving
    return [
        replace(face, landmarks=points[i] if settled[i] else starts[i], settled=settled[i])
        for i, (_, face) in enumerate(faces)
    ]


def displacement(before: Points, after: Points) -> float:
    """Measure how far a face moves in the aligned picture if other landmarks align it, in eye distances.

    Args:
        before: (49, 2) landmarks by which it was aligned.
        after: (49, 2) those that would align it now, finite and with the eyes apart.
    """
    old, new = (alignment_matrix(points, size=200) for points in (before, after))
    distance = np.hypot(*(transform(after, new) - transform(after, old)).T).mean()
    return float(distance / (eye_distance(after) * np.hypot(*new[0, :2])))


def eye_distance(points: Points) -> float:
    """Give the distance of the eyes in pixels; NaN if any landmark is not finite."""
    if not np.isfinite(points).all():
        return math.nan
    left, right = (points[list(eye)].mean(0) for eye in (facs.LEFT_EYE, facs.RIGHT_EYE))
    return float(np.hypot(*(right - left)))


def _is_face(points: Points, box: Box, image: Image) -> bool:
    """Tell whether landmarks can be those of a face in a box."""
    width = box[2] - box[0]
    low, high = EYE_DISTANCES
    if not low * width <= eye_distance(points) <= high * width:
        return False
    x, y = points.mean(0)
    return (
        box[0] < x < box[2]
        and box[1] < y < box[3]
        and fault(points.astype(np.float64), image.shape[1], image.shape[0]) is None
    )
