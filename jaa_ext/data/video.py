"""The frames of a video file or a camera, one after the other."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

BEFORE = 3
"""Frames before the wanted one to which a seek goes: `start` falls between frames."""
WORTH_A_SEEK = 250
"""Frames, at least 4 * `STEADY`; fewer are decoded from the first on: a seek decodes about as many, from the
key frame before."""
STEADY = 8
"""Frames one after the other that must come at their times for a seek to be right."""
SAME_TIME = 0.001
"""Seconds; Matroska rounds its clock to them."""

NO_VIDEO = "is damaged, or not a video that OpenCV can decode"


class VideoError(ValueError):
    """A file that cannot be read as a video, or a camera that gives no picture."""


@dataclass(frozen=True, eq=False)
class VideoFrame:
    """A decoded frame."""

    number: int
    """From 1, whatever `start` and `every`."""
    timestamp: float
    """Seconds from the first frame, by the file's clock; of a camera as they passed here."""
    image: NDArray[np.uint8]
    """(H, W, 3) RGB."""


class Video:
    """A video file, or a camera by its number; upright where the file tells its orientation.

    Args:
        source: a file, or the number of a camera, from 0.

    Raises:
        VideoError: the file is missing or no video; a camera that is not there.
    """

    def __init__(self, source: str | os.PathLike[str] | int) -> None:
        self.source = source
        self.name = f"camera {source}" if isinstance(source, int) else os.fspath(source)
        capture = self._open()
        self.fps: float = capture.get(cv2.CAP_PROP_FPS)
        """Frames a second as the file says; 25 where it says nothing."""
        if not 0 < self.fps < 1000:
            self.fps = 25.0
        self.count: int | None = max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT))) or None
        """Frames as the file says; None for a camera, or where it says nothing."""
        if isinstance(source, int):
            self.count = None
        capture.release()

    def frames(
        self, *, every: int = 1, start: float = 0.0, end: float | None = None, after: int = 0
    ) -> Generator[VideoFrame, None, None]:
        """Decode in order. A video that breaks off ends where its last whole frame ends.

        Args:
            every: 2 for every second frame and so on, counted from the first one shown.
            start, end: seconds; the frames shown have timestamps from `start` on, before `end`.
            after: the number of a frame already seen; what follows it is shown, `every` counted as before.

        Raises:
            VideoError: no frame can be decoded, or the camera gives none.
            ValueError: numbers that make no sense.
        """
        check_times(every, start, end)
        capture = self._open()
        try:
            number = max(after, round(start * self.fps)) - BEFORE
            if number < WORTH_A_SEEK or isinstance(self.source, int):
                number = 0
            elif not self._seek(capture, number):
                capture.release()
                capture, number = self._open(), 0
            first = after or None  # from which `every` counts: `after` was shown
            began = 0.0
            while capture.grab():
                number += 1
                if isinstance(self.source, int):
                    # A driver's clock may count from when the machine was started, or not at all.
                    now = time.monotonic()
                    began = now if number == 1 else began
                    timestamp = now - began
                else:
                    timestamp = self._timestamp(capture, number)
                if number <= after or timestamp < start:
                    continue
                if end is not None and timestamp >= end:
                    return
                first = number if first is None else first
                if (number - first) % every:
                    continue
                decoded, picture = capture.retrieve()
                if not decoded:
                    number -= 1
                    break
                image = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
                yield VideoFrame(number, timestamp, image)
            if number == 0:
                what = "gives no picture" if isinstance(self.source, int) else NO_VIDEO
                raise VideoError(f"{self.name}: {what}")
        finally:
            capture.release()

    def expected(self, every: int = 1, start: float = 0.0, end: float | None = None) -> int | None:
        """About how many frames `frames` will show; None where nothing tells."""
        last = math.inf if self.count is None else self.count
        shown = min(last, math.inf if end is None else end * self.fps) - start * self.fps
        return None if math.isinf(shown) else max(0, math.ceil(shown / every))

    def _open(self) -> cv2.VideoCapture:
        if isinstance(self.source, int):
            logging = getattr(cv2.utils, "logging", cv2)  # OpenCV 5 and 4
            level = logging.setLogLevel(0)
            try:
                capture = cv2.VideoCapture(self.source)
            finally:
                logging.setLogLevel(level)
            if not capture.isOpened():
                raise VideoError(f"camera {self.source}: is not there, or another program uses it")
            return capture
        if not os.path.isfile(self.source):
            raise VideoError(f"{self.name}: there is no such file")
        capture = cv2.VideoCapture(self.name)
        if not capture.isOpened():
            raise VideoError(f"{self.name}: {NO_VIDEO}")
        return capture

    def _timestamp(self, capture: cv2.VideoCapture, number: int) -> float:
        """Of the frame just grabbed, by the file's clock; by the frame rate where there is none."""
        milliseconds: float = capture.get(cv2.CAP_PROP_POS_MSEC)
        return milliseconds / 1000 if milliseconds > 0 else (number - 1) / self.fps

    def _seek(self, capture: cv2.VideoCapture, number: int) -> bool:
        """Go behind the frame of a number without decoding all before it; whether it is surely there.

        A seek counts by the average frame rate, which is wrong where frames do not come evenly. There the
        clock agrees with the number at some frames by chance: it must agree at several places before, too.
        """
        if self.count is None or number > self.count:
            return False
        return all(self._agrees(capture, number * part // 4) for part in (1, 2, 3, 4))

    def _agrees(self, capture: cv2.VideoCapture, number: int) -> bool:
        """Go behind the frame of a number; whether the last `STEADY` ones had the times of their numbers."""
        if not capture.set(cv2.CAP_PROP_POS_FRAMES, number - STEADY):
            return False
        for i in range(number - STEADY, number):
            if not capture.grab():
                return False
            if abs(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000 - i / self.fps) > SAME_TIME:
                return False
        return True


def check_times(every: int, start: float, end: float | None) -> None:
    """Raise a ValueError for times with which `Video.frames` would show nothing."""
    if every < 1 or not start >= 0 or (end is not None and not end > start):
        raise ValueError(
            "wanted every of at least 1, start of at least 0 s and end after it, "
            f"got every={every}, start={start:g}, end={'none' if end is None else f'{end:g}'}"
        )


def read_frames(path: str | os.PathLike[str]) -> Iterator[NDArray[np.uint8]]:
    """Decode a video from its first frame on, (H, W, 3) uint8 RGB, in order and without seeking.

    Raises:
        VideoError: on the first frame, if the file is missing or no frame of it can be decoded.
    """
    for frame in Video(path).frames():
        yield frame.image
