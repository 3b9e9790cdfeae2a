"""Detectors of one's own: the method they need, and how what they find becomes a `DetectedFace`.

A `DetectedFace` has the box that dlib's detector would give, whatever found it: alignment starts by a mean
face in that box, see `jaa_ext.predict.alignment`. Detectors of other boxes convert them, by five points of
the face or by constants.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from jaa_ext import facs
from jaa_ext.predict.alignment import MEAN_FACE
from jaa_ext.predict.detector import MIN_SCORE, Box, DetectedFace

Image = NDArray[np.uint8]


class DetectorError(RuntimeError):
    """A mistake of a detector of one's own, which no other picture would mend.

    Example:
        >>> raise DetectorError("Faces.find_faces: wanted 2 lists, got 1")
        Traceback (most recent call last):
        jaa_ext.predict.batch_detector.DetectorError: Faces.find_faces: wanted 2 lists, got 1
    """


@runtime_checkable
class BatchDetector(Protocol):
    """A detector of one's own: all it needs is to find the faces of several pictures at once.

    `Predictor` takes one as `detector`, and `jaa predict --detector MODULE:ATTRIBUTE` makes one by calling
    what has that name, such as the class, without arguments. One thread of a predictor calls it at a time. An
    attribute `identity`, a text, tells an unfinished table apart from that of other settings; without it the
    name does.

    Example:
        >>> class Middle:
        ...     def find_faces(self, images):
        ...         return [[face_by_box((9.0, 9.0, 90.0, 110.0), 0.8, size=0.9)] for _ in images]
        >>> detector: BatchDetector = Middle()
        >>> [len(faces) for faces in detector.find_faces([np.zeros((120, 100, 3), np.uint8)])]
        [1]
    """

    def find_faces(self, images: Sequence[Image], /) -> Sequence[Sequence[DetectedFace]]:
        """Find the faces of RGB images, each (H, W, 3) uint8 of a size of its own.

        Returns:
            A list for each image. Of photographs and frames, faces of a probability below 0.73 are left out
            (`detector.MIN_SCORE`). In videos it must find each face again in the 160x160 pixels around it: a
            new one with 0.73, one that is followed with 0.31, so give all from there on.
        """


def face_by_points(points: NDArray[Any], probability: float) -> DetectedFace:
    """Make a face of five points, of which the mean face is aligned as the face itself would be.

    Args:
        points: (5, 2) x, y in pixels: middle of the eye on the left of the picture, of that on the right, tip
            of the nose, corner of the mouth on the left, on the right.
        probability: 0 to 1 that this is a face.

    Raises:
        ValueError: points of another shape, not finite, or all in one place.

    Example:
        >>> points = np.array([(80, 100), (120, 100), (100, 120), (85, 145), (115, 145)])
        >>> face = face_by_points(points, 0.9)
        >>> [round(edge) for edge in face.box], face.roll
        ([51, 71, 149, 170], 0.0)
    """
    points = np.asarray(points, np.float64)
    if points.shape != (5, 2) or not np.isfinite(points).all():
        raise ValueError(f"face_by_points: points must be (5, 2) and finite, got {points.tolist()}")
    roll = math.atan2(*(points[1] - points[0])[::-1])
    turn = np.array([[math.cos(roll), -math.sin(roll)], [math.sin(roll), math.cos(roll)]])
    upright = points @ turn
    # As `align_face` does: the larger side of what surrounds the points is the scale, its middle the middle.
    (low, high), (mean_low, mean_high) = ((p.min(0), p.max(0)) for p in (upright, _MEAN_POINTS))
    side = float((high - low).max() / (mean_high - mean_low).max())
    if side == 0:
        raise ValueError(f"face_by_points: points must lie apart, got {points.tolist()}")
    x, y = (turn @ ((low + high) / 2 - side * (mean_low + mean_high) / 2)).tolist()
    box = (x - side / 2, y - side / 2, x + side / 2, y + side / 2)
    return DetectedFace(box, None, score_of(probability), math.degrees(roll))


def face_by_box(
    box: Box,
    probability: float,
    *,
    size: float = 1.0,
    shift: tuple[float, float] = (0.0, 0.0),
    roll: float = 0.0,
) -> DetectedFace:
    """Make a face of a box alone, converted by constants to the square box that dlib would give.

    Args:
        box: left, top, right, bottom in pixels.
        probability: 0 to 1 that this is a face.
        size: side of dlib's box, in means of the box's width and height.
        shift: from the middle of the box to that of dlib's, in widths to the right and heights down.
        roll: degrees clockwise, if they are known.

    `scripts/detector_table.py` measures size and shift of a detector on rendered faces.

    Example:
        >>> face_by_box((0.0, 0.0, 100.0, 140.0), 0.9, size=0.75, shift=(0.0, 0.1)).box
        (5.0, 39.0, 95.0, 129.0)
    """
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    x, y = (left + right) / 2 + shift[0] * width, (top + bottom) / 2 + shift[1] * height
    half = size * (width + height) / 4
    return DetectedFace((x - half, y - half, x + half, y + half), None, score_of(probability), roll)


def score_of(probability: float) -> float:
    """Map a probability to dlib's scale of scores, of which `tracking.confidence` is the way back.

    Example:
        >>> round(score_of(0.5), 2), round(score_of(0.9), 2)
        (0.0, 0.55)
    """
    probability = min(max(float(probability), 1e-6), 1 - 1e-6)
    return math.log(probability / (1 - probability)) / 4


class BatchSearch:
    """A `BatchDetector` as predictors and trackers call detectors, see `tracking.Detector`."""

    def __init__(self, detector: BatchDetector) -> None:
        self.detector = detector
        self._lock = threading.Lock()

    def batch(self, images: Sequence[Image]) -> list[list[DetectedFace]]:
        """Find the faces of several images, those of each from left to right."""
        return [
            sorted((face for face in faces if face.score >= MIN_SCORE), key=lambda face: face.box)
            for faces in self._find(images)
        ]

    def __call__(self, image: Image) -> list[DetectedFace]:
        return self.batch([image])[0]

    def score(self, aligned: Image) -> float:
        return self.locate(aligned)[0]

    def locate(self, aligned: Image) -> tuple[float, Box | None]:
        """Give score and box of the surest face that covers the middle, as `FaceDetector.locate` does."""
        (faces,) = self._find([aligned])
        x, y = aligned.shape[1] / 2, aligned.shape[0] / 2
        covering = [
            (face.score, face.box)
            for face in faces
            if face.box[0] < x < face.box[2] and face.box[1] < y < face.box[3]
        ]
        return max(covering, default=(-math.inf, None))

    def _find(self, images: Sequence[Image]) -> list[list[DetectedFace]]:
        name = f"{type(self.detector).__qualname__}.find_faces"
        pictures = [np.ascontiguousarray(image) for image in images]
        try:
            with self._lock:
                found = [list(faces) for faces in self.detector.find_faces(pictures)]
        except (ValueError, TypeError, OSError) as error:
            raise DetectorError(f"{name}: {error}") from error
        if len(found) != len(images):
            raise DetectorError(
                f"{name}: wanted a list of faces for each image, {len(images)}, got {len(found)} lists"
            )
        for face in (face for faces in found for face in faces):
            if not isinstance(face, DetectedFace):
                raise DetectorError(
                    f"{name}: wanted lists of DetectedFace, got a {type(face).__name__} in one"
                )
            left, top, right, bottom = face.box
            if not (np.isfinite((*face.box, face.score, face.roll)).all() and left < right and top < bottom):
                raise DetectorError(
                    f"{name}: wanted finite scores and boxes with right > left and bottom > top, got "
                    f"{face.box} with score {face.score:g}"
                )
        return found


_MEAN_POINTS = np.stack(
    [*(MEAN_FACE[list(eye)].mean(0) for eye in (facs.LEFT_EYE, facs.RIGHT_EYE)), *MEAN_FACE[[13, 31, 37]]]
)
"""(5, 2) of the mean face, in widths of dlib's box."""
