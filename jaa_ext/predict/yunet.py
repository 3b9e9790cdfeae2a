"""Face detection by YuNet, as OpenCV runs it (`cv2.FaceDetectorYN`), from the user's own model file."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from jaa_ext.predict.batch_detector import face_by_points
from jaa_ext.predict.detector import DetectedFace, MissingDependency
from jaa_ext.predict.predictor import in_words

SIDES = (640, 320)
"""Longest sides to which larger pictures are reduced: the first, and, where nothing is found, the second.
OpenCV says that YuNet finds faces of 10 to 300 pixels."""
LEAST = 0.2
"""Least probability of a face that is given: less than is needed to confirm one."""
OVERLAP = 0.3
"""Largest overlap of two faces, OpenCV's default."""
WANTED = "wanted YuNet's of OpenCV's model zoo, such as face_detection_yunet_2023mar.onnx"


class YuNet:
    """OpenCV's YuNet, a `BatchDetector`: a small network that finds faces turned to the side, too.

    Its boxes are taller than wide and end at the chin; so the faces' boxes are made of its five points, see
    `face_by_points`. Its score counts as the probability of a face.

    Args:
        model: the ONNX file; jaa_ext brings none and downloads none.

    Raises:
        ValueError: a file that cannot be read, or is no model of YuNet.
        MissingDependency: OpenCV before 4.10.

    Example:
        >>> predictor = Predictor(detector=YuNet("face_detection_yunet_2026may.onnx"))  # doctest: +SKIP
    """

    def __init__(self, model: str | os.PathLike[str]) -> None:
        self._lock = threading.Lock()
        if not hasattr(cv2, "FaceDetectorYN") or tuple(map(int, cv2.__version__.split(".")[:2])) < (4, 10):
            raise MissingDependency(f"YuNet needs OpenCV 4.10 or later, got {cv2.__version__}")
        name = os.fspath(model)
        try:
            content = Path(model).read_bytes()
        except OSError as error:
            raise ValueError(f"{name}: cannot be read ({error.strerror}); {WANTED}") from None
        self.identity = f"opencv-yunet {hashlib.sha256(content).hexdigest()[:16]}"
        """What an unfinished table is told apart by: another file is another detector."""
        logging = cv2.utils.logging
        level = logging.setLogLevel(logging.LOG_LEVEL_SILENT)  # OpenCV 5 warns of what concerns nobody
        try:
            buffer = np.frombuffer(content, np.uint8)
            self._network = cv2.FaceDetectorYN.create(
                "onnx", buffer, np.zeros(0, np.uint8), (96, 64), LEAST, OVERLAP
            )
            # Only a search tells whether it has YuNet's outputs, and takes pictures of every size.
            self._detect(np.zeros((64, 96, 3), np.uint8))
        except cv2.error as error:
            why = " ".join(in_words(error).split())
            raise ValueError(f"{name}: is no face detector that OpenCV runs ({why}); {WANTED}") from None
        finally:
            logging.setLogLevel(level)

    def find_faces(self, images: Sequence[NDArray[np.uint8]], /) -> list[list[DetectedFace]]:
        """Find the faces of RGB images, one after the other: OpenCV's interface takes no batches."""
        return [self._find(image) for image in images]

    def _find(self, image: NDArray[np.uint8]) -> list[DetectedFace]:
        height, width = image.shape[:2]
        longest = max(height, width)
        faces: list[DetectedFace] = []
        for side in dict.fromkeys(min(side, longest) for side in SIDES):
            size = tuple(max(1, round(length * side / longest)) for length in (width, height))
            searched: NDArray[Any] = image
            if side < longest:
                searched = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            stretch = np.array([width, height]) / size
            for found in self._detect(searched):
                points = (found[4:14].reshape(5, 2) + 0.5) * stretch - 0.5
                faces.append(face_by_points(points, found[14]))
            if faces:
                break
        return faces

    def _detect(self, image: NDArray[Any]) -> NDArray[Any]:
        """Give (N, 15): box, five points and score of each face, in pixels of the image."""
        with self._lock:  # size and search belong together, also where predictors share this object
            self._network.setInputSize((image.shape[1], image.shape[0]))
            _, faces = self._network.detect(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        return np.zeros((0, 15), np.float32) if faces is None else faces
