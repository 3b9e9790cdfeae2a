"""The pictures of a video file, one after the other."""

from __future__ import annotations

import os
from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray


class VideoError(ValueError):
    """A file that cannot be read as a video."""


def read_frames(path: str | os.PathLike[str]) -> Iterator[NDArray[np.uint8]]:
    """Decode a video from its first frame on, (H, W, 3) uint8 RGB, in order and without seeking.

    A video that breaks off ends where its last whole frame ends.

    Raises:
        VideoError: on the first frame, if the file is missing or no frame of it can be decoded.
    """
    if not os.path.isfile(path):
        raise VideoError(f"{os.fspath(path)}: there is no such file")
    capture = cv2.VideoCapture(os.fspath(path))
    try:
        decoded, picture = capture.read()
        if not decoded:
            raise VideoError(f"{os.fspath(path)}: is damaged, or not a video that OpenCV can decode")
        while decoded:
            yield cv2.cvtColor(picture, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
            decoded, picture = capture.read()
    finally:
        capture.release()
