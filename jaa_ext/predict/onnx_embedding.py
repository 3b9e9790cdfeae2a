"""Embeddings of faces by the user's own ONNX file, which OpenCV runs."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from jaa_ext.predict.identity import SIDE
from jaa_ext.predict.predictor import in_words

WANTED = f"wanted a network from (1, 3, {SIDE}, {SIDE}) to one vector, such as SFace or ArcFace"
LONGEST = 8192
"""Most numbers of a vector."""


class OnnxEmbedding:
    """A network in an ONNX file that maps aligned faces to vectors, an `Embedding`.

    It is given one RGB face at a time, (1, 3, 112, 112) float32: values from 0 to 255 if the network
    subtracts something before its first convolution, as SFace does, and else from -1 to 1,
    (x - 127.5) / 127.5, as InsightFace's ArcFace wants them. For a network with BGR input, another size or
    other values, write a function of your own.

    Args:
        model: the ONNX file; jaa_ext brings none and downloads none.

    Raises:
        ValueError: a file that cannot be read, or no such network.

    Example:
        >>> embedding = OnnxEmbedding("face_recognition_sface_2021dec.onnx")  # doctest: +SKIP
        >>> predictor = Predictor(embedding=embedding)  # doctest: +SKIP
    """

    def __init__(self, model: str | os.PathLike[str]) -> None:
        self._lock = threading.Lock()
        self.name = os.fspath(model)
        try:
            content = Path(model).read_bytes()
        except OSError as error:
            raise ValueError(f"{self.name}: cannot be read ({error.strerror}); {WANTED}") from None
        self.identity = f"onnx {hashlib.sha256(content).hexdigest()[:16]}"
        """What an unfinished table is told apart by: another file is another embedding."""
        # In the file a node's type is field 4, the byte 0x22, a length, and the word; nodes come in order,
        # before the weights.
        subtracts = content.find(b"\x22\x03Sub")
        self._raw = 0 <= subtracts < content.find(b"\x22\x04Conv")
        logging = cv2.utils.logging
        level = logging.setLogLevel(logging.LOG_LEVEL_SILENT)
        try:
            self._network = cv2.dnn.readNetFromONNX(np.frombuffer(content, np.uint8))
            vector = self._embed(np.zeros((SIDE, SIDE, 3), np.uint8))
        except cv2.error as error:
            why = " ".join(in_words(error).split())
            raise ValueError(f"{self.name}: is no network that OpenCV runs ({why}); {WANTED}") from None
        finally:
            logging.setLogLevel(level)
        if vector.size != max(vector.shape, default=0) or not 1 < vector.size <= LONGEST:
            raise ValueError(f"{self.name}: gives an output of shape {vector.shape}; {WANTED}")

    def __call__(self, faces: NDArray[np.uint8], /) -> NDArray[np.float32]:
        """Map aligned faces, (N, 112, 112, 3) uint8 RGB, to vectors (N, D)."""
        return np.stack([self._embed(face).ravel() for face in faces])

    def _embed(self, face: NDArray[np.uint8]) -> NDArray[Any]:
        scale, mean = (1.0, 0.0) if self._raw else (1 / 127.5, 127.5)
        with self._lock:  # input and output belong together, also where predictors share this object
            self._network.setInput(cv2.dnn.blobFromImage(face, scale, mean=(mean, mean, mean)))
            return np.array(self._network.forward())
