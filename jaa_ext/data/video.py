"""The frames of a video file or of a camera, one after the other."""

from __future__ import annotations

import math
import os
import statistics
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from jaa_ext.data.display_matrix import is_mirrored
from jaa_ext.data.images import as_rgb, opencv_silenced

SEEK_MARGIN = 3
"""Frames before the wanted one to which a seek goes, since `start` falls between frames."""
MIN_SEEK = 250
"""Frames to skip from which on a seek is worth while, since it decodes as many from the last key frame; at
least 4 * `STEADY_FRAMES`."""
STEADY_FRAMES = 8
"""Frames in a row that must come at their times for a seek, or a clock, to be trusted."""
TIME_TOLERANCE = 0.001
"""Seconds to which Matroska rounds its times."""
MAX_FAILURES = 1000
"""Failed decodings in a row after which a file counts as ended: OpenCV does not tell its end from damage."""
MAX_FAILING_SECONDS = 4.0
"""The same in seconds: in some damaged files each try reads the whole rest of the file."""
MAX_GAP_SHARE = 0.01
"""Share of intervals that are gaps, above which a clock counts as uneven and not as damaged."""
MAX_REORDERED = 16
"""Frames by which a decoder may err in the order behind a damaged place: H.264 holds as many back."""
MAX_COARSE_FRAMES = 6.5
"""Frames by which the clock of an MPEG program stream may err: OpenCV knows it in few frames."""
MAX_ASPECT = 4.0
"""Aspect ratio of pixels, or its inverse, above which it is damage; 1:2 to 3:1 are known."""
MIN_STILL = 8
"""Equal frames from which on a remark is made, if FFmpeg may have been silenced."""
SAMPLE_STEP = 16
"""Every so many rows and columns, pixels are compared with those of the frame before."""
MAX_FPS = 1000.0
MIN_SHARE = 0.95
"""Share of the duration that a header promises, often roughly, below which a video counts as broken off."""
MAX_AVI_INDEX = 2**24
"""Bytes at the end of an AVI file in which its index begins: 16 for each frame and each part of the sound."""
MAX_LAST_FRAME = 1.0
"""Seconds that the last frame may last longer than others, by a duration that may be the sound's."""
MAX_START = 60.0
"""Seconds; a clock that begins later does not count from the file's first frame."""
WRITTEN_RATES = (0.1, MAX_FPS)
"""The least and the highest rate, in frames per second, of the formats in which videos are written."""
UNEVEN_RATES = (60.0, 120.0)
"""The least and the highest rate, in frames per second, of a copy of a video with uneven frames."""

NO_VIDEO = "is damaged, or not a video that OpenCV can decode"

MIRRORED: dict[float, Callable[[NDArray[np.uint8]], cv2.typing.MatLike]] = {
    0: lambda picture: cv2.flip(picture, 0),
    90: lambda picture: cv2.transpose(picture),
    180: lambda picture: cv2.flip(picture, 1),
    270: lambda picture: cv2.flip(cv2.transpose(picture), -1),
}
"""How to mirror and turn a picture, by the angle in degrees that OpenCV reads from the file."""
LOG_SWITCHES = ("OPENCV_FFMPEG_LOGLEVEL", "OPENCV_FFMPEG_DEBUG")
"""Environment variables that silence FFmpeg, or let it write elsewhere, from a process's first video on."""
_stderr_redirected = threading.Lock()


class VideoError(ValueError):
    """A file that cannot be read as a video, or a camera that gives no picture."""


@dataclass(frozen=True, eq=False)
class VideoFrame:
    """A decoded frame."""

    number: int
    """Counted from the first frame of the video, which is 1."""
    timestamp: float
    """Seconds from the first frame: by the file's clock, or for a camera by this machine's."""
    image: NDArray[np.uint8]
    """(H, W, 3) RGB."""


class Video:
    """A video file, or a camera.

    Frames look as a player shows them: upright, if the file has an orientation, and in proportion. If pixels
    are not square, frames are enlarged along the longer side of a pixel; coordinates are those of the
    enlarged frames.

    Args:
        source: a file, or the number of a camera, from 0.

    Raises:
        VideoError: the file is missing or no video, or the camera is not there.

    Example:
        >>> for frame in Video("talk.mp4").frames(every=2):  # doctest: +SKIP
        ...     print(frame.number, frame.timestamp, frame.image.shape)
    """

    def __init__(self, source: str | os.PathLike[str] | int) -> None:
        self.source = source
        self.name = f"camera {source}" if isinstance(source, int) else os.fspath(source)
        self.missing: list[tuple[int, int]] = []
        """The gaps in what `frames` yielded last: the number of the first missing frame, and how many."""
        self.numbers_are_low = False
        """Whether `frames` has ended at the end of a file that lacks frames, and does not tell which."""
        self._broke_off_after: int | None = None
        self._untimed = False
        self._still: int | None = 0
        """How many frames were yielded, all equal; None once one differs."""
        self.ends_at: float | None = None
        """The end of the last frame that `frames` yielded, in seconds, once it is known."""
        self._aspect = 1.0
        self._mirror: Callable[[NDArray[np.uint8]], cv2.typing.MatLike] | None = None
        capture = self._open()
        try:
            fps: float = capture.get(cv2.CAP_PROP_FPS)
            count: float = capture.get(cv2.CAP_PROP_FRAME_COUNT)
            self.count: int | None = None
            """The number of frames in the file's header; None for a camera, or if the header has none."""
            if not isinstance(source, int):
                self.count = int(count) if 0 < count < 2**53 else None
                self._aspect = _aspect(capture)
                if self._is_mirrored:
                    self._mirror = MIRRORED.get(capture.get(cv2.CAP_PROP_ORIENTATION_META))
        finally:
            capture.release()
        self.fps: float = fps
        """Frames per second by the file's header; else by the times of most of its frames, else 25."""
        if not 0 < fps < MAX_FPS:
            self.count = None  # OpenCV computes it by this rate
            steps = np.diff(self._times)
            self.fps = float(np.clip(1 / np.median(steps), 0.1, MAX_FPS)) if steps.any() else 25.0

    def frames(
        self, *, every: int = 1, start: float = 0.0, end: float | None = None, after: int = 0
    ) -> Generator[VideoFrame, None, None]:
        """Decode frames in order; damaged ones are left out and listed in `missing`.

        The numbers of the others do not change by that, as far as the file's clock shows what is missing. A
        video that breaks off ends with its last whole frame.

        Args:
            every: 2 for every second frame and so on, counted from the first frame yielded.
            start, end: seconds; yields frames with timestamps from `start` on and before `end`.
            after: number of a frame yielded in an earlier call; yields the frames after it, and `every` is
                counted from it.

        Raises:
            VideoError: no frame can be decoded, or the camera gives none.
            ValueError: arguments out of range.
        """
        check_times(every, start, end)
        self.missing, self.numbers_are_low, self._broke_off_after = [], False, None
        self._untimed, self._still, self.ends_at = False, 0, None
        capture = self._open()
        try:
            number = max(after, round(start * self.fps)) - SEEK_MARGIN
            if number < MIN_SEEK or isinstance(self.source, int):
                number = 0
            elif not self._seek(capture, number):
                capture.release()
                capture, number = self._open(), 0
            first = after or None  # `every` counts from here
            clock = _RealTime() if isinstance(self.source, int) else _FileClock(self, number)
            any_frame = number > 0
            sample: NDArray[np.uint8] | None = None  # some pixels of the picture before
            repeats = 0  # pictures in a row that are equal to the one before
            while (failed := self._grab(capture)) is not None:
                before = clock.number
                if not clock.tick(capture, failed) or clock.number <= after or clock.timestamp < start:
                    any_frame = True
                    continue
                if end is not None and clock.timestamp >= end:
                    self.ends_at = end
                    return
                before = max(before, after)
                if clock.number > before + 1:
                    self.missing.append((before + 1, clock.number - before - 1))
                first = clock.number if first is None else first
                if (clock.number - first) % every:
                    continue
                if sample is None:
                    self._check_conversion(capture, clock.number)
                picture = _picture(capture)
                if picture is None:
                    self.missing.append((clock.number, 1))
                    continue
                any_frame = True
                previous, sample = sample, picture[::SAMPLE_STEP, ::SAMPLE_STEP].copy()
                repeats = repeats + 1 if previous is not None and np.array_equal(previous, sample) else 0
                changed = previous is not None and repeats == 0
                self._still = None if changed or self._still is None else self._still + 1
                if repeats and repeats & (repeats - 1) == 0:  # powers of 2, since a still scene may be long
                    self._check_conversion(capture, clock.number)
                yield VideoFrame(clock.number, clock.timestamp, self._as_shown(picture))
            if not any_frame:
                what = "gives no picture" if isinstance(self.source, int) else NO_VIDEO
                raise VideoError(f"{self.name}: {what}")
            if isinstance(clock, _FileClock):
                self._end(clock)
        finally:
            capture.release()

    def damage(self, missing: list[tuple[int, int]]) -> list[str]:
        """Say in sentences what `frames` left out, or may have got wrong.

        Args:
            missing: the attribute `missing`; if there was an earlier call, joined to what it was then.
        """
        remarks = []
        if missing:
            number, last = sum(count for _, count in missing), missing[0][0] - 1
            where = f"after frame {last}" if last else "at its beginning"
            if len(missing) > 1:
                where = f"in {len(missing)} places, the first {where}"
            frames = "1 frame is" if number == 1 else f"{number} frames are"
            remarks.append(f"{self.name}: {frames} missing {where}: damaged, or lost on the way")
        if self.numbers_are_low:
            remarks.append(
                f"{self.name}: has {self._broke_off_after} of {self.count} frames, and does not tell which "
                "are missing; numbers and times behind them may be too low"
            )
        elif self._broke_off_after is not None:
            remarks.append(
                f"{self.name}: breaks off after frame {self._broke_off_after}; "
                f"it says that it has {self.count}"
            )
        if (self._still or 0) >= MIN_STILL and not os.environ.keys().isdisjoint(LOG_SWITCHES):
            remarks.append(
                f"{self.name}: all {self._still} frames are the same; if it is interlaced, they are wrong, "
                f"and FFmpeg may not tell: unset {' and '.join(LOG_SWITCHES)}"
            )
        if self._untimed:
            remarks.append(f"{self.name}: tells no times; they are those of {self.fps:g} frames a second")
        return remarks

    def copy_rate(self, every: int = 1) -> float:
        """Choose the rate, in frames per second, of a copy with every `every`-th frame.

        If frames come evenly, it is their number divided by the seconds. If they do not, each is shown at its
        time in the copy, to half a frame.
        """
        steps = np.diff(self._times)
        steps = steps[steps > 0]
        rough = isinstance(self.source, int) or self._container == "ps"
        if rough or len(steps) == 0:
            return max(WRITTEN_RATES[0], self.fps / every)
        usual = float(np.median(steps))
        if abs(usual - 1 / self.fps) < max(1.5 * TIME_TOLERANCE, 0.03 / self.fps):
            usual = 1 / self.fps
        frames = np.maximum(1, np.rint(steps / usual))
        if (np.abs(steps - frames * usual) > 1.5 * TIME_TOLERANCE).any():
            return float(np.clip(1 / steps.min(), *UNEVEN_RATES))
        return float(np.clip(1 / usual / (every if (frames == 1).all() else 1), *WRITTEN_RATES))

    def expected(self, every: int = 1, start: float = 0.0, end: float | None = None) -> int | None:
        """Estimate how many frames `frames` will yield; None if that cannot be known."""
        last = math.inf if self.count is None else self.count
        frames = min(last, math.inf if end is None else end * self.fps) - start * self.fps
        return None if math.isinf(frames) else max(0, math.ceil(frames / every))

    def _open(self) -> cv2.VideoCapture:
        if isinstance(self.source, int):
            with opencv_silenced():
                capture = cv2.VideoCapture(self.source)
            if not capture.isOpened():
                raise VideoError(f"camera {self.source}: is not there, or another program uses it")
            return capture
        if not os.path.isfile(self.source):
            raise VideoError(f"{self.name}: there is no such file")
        switches = {name: os.environ.pop(name) for name in LOG_SWITCHES if name in os.environ}
        try:
            capture = cv2.VideoCapture(self.name)
        finally:
            os.environ.update(switches)
        if not capture.isOpened():
            raise VideoError(f"{self.name}: {NO_VIDEO}")
        if self._is_mirrored:  # OpenCV would turn, but not mirror it
            capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
        return capture

    def _grab(self, capture: cv2.VideoCapture) -> int | None:
        """Go on to the next frame that can be decoded; return how many could not, None at the end."""
        if isinstance(self.source, int):
            return 0 if capture.grab() else None
        began = time.monotonic()
        for failed in range(MAX_FAILURES):
            try:
                if capture.grab():
                    return failed
            except cv2.error:  # such as for a frame that does not fit into memory
                pass
            if time.monotonic() - began > MAX_FAILING_SECONDS:
                break
        return None

    def _check_conversion(self, capture: cv2.VideoCapture, number: int) -> None:
        """Raise a VideoError if FFmpeg cannot convert the frame just grabbed, such as an interlaced one.

        OpenCV from 4.13 on does not report this, and returns what is in its memory: anything for the first
        frame, then the picture before. So the first picture must be checked, and the 1st, 2nd, 4th, 8th and
        so on of those that are equal to the one before.
        """
        if isinstance(self.source, int) or not (refusal := _refusal(capture)):
            return
        why = "is interlaced, which" if b"interlaced" in refusal else "is stored in a way that"
        raise VideoError(
            f"{self.name}: frame {number} {why} OpenCV {cv2.__version__} cannot read; "
            "convert the video first (ffmpeg -i OLD -vf yadif=deint=interlaced NEW.mp4)"
        )

    @cached_property
    def _container(self) -> Literal["mp4", "mkv", "ts", "ps", "avi", "other"]:
        """The container format: mp4, Matroska, MPEG transport or program stream, AVI, or another."""
        with open(self.name, "rb") as file:
            head = file.read(6 * 204)
        if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide"):
            return "mp4"
        if head.startswith(b"\x1aE\xdf\xa3"):
            return "mkv"
        if head.startswith(b"RIFF"):
            return "avi"
        if head.startswith(b"\x00\x00\x01\xba"):
            return "ps"
        for size in (188, 192, 204):
            if any(head[at::size][:5] == b"\x47" * 5 for at in range(size)):
                return "ts"
        return "other"

    @cached_property
    def _is_mirrored(self) -> bool:
        kind = self._container
        return (kind == "mp4" or kind == "mkv") and is_mirrored(self.name, kind)

    def _end(self, clock: _FileClock) -> None:
        """Note, where no further frame can be decoded, where the video ends and what it lacks."""
        self._untimed = clock.number > 1 and not clock.known
        self.ends_at = clock.timestamp + clock.usual_step()
        if self.count is None:
            return
        duration = self.count / self.fps
        # AVI alone counts exactly: others round, include frames that are not shown, or the sound's duration.
        wanted = duration - 0.5 / self.fps if self._container == "avi" else MIN_SHARE * duration
        if max(clock.number / self.fps, self.ends_at) < wanted:
            self._broke_off_after = clock.number
            self.numbers_are_low = self._container == "avi" and self._lacks_frames_inside()
        if clock.number == self.count or abs(duration - self.ends_at) < MAX_LAST_FRAME:
            self.ends_at = max(self.ends_at, duration)

    def _lacks_frames_inside(self) -> bool:
        """Tell whether an AVI file that has too few frames has its end, where the index is."""
        with open(self.name, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(-min(size, MAX_AVI_INDEX), os.SEEK_END)
            return len(self._times) < (self.count or 0) and b"idx1" in file.read()

    def _means_damage(self, gap: float, step: float, mean: float) -> bool:
        """Tell whether a gap between two frames comes from damage, not from the recording.

        Args:
            gap: in seconds.
            step: usual seconds from frame to frame before it.
            mean: exact mean of all steps before it.
        """
        if self._container in ("avi", "ts", "ps"):
            return True  # recorders write these at constant rates
        if self._container == "mp4":  # its header has the mean rate, which includes gaps of the recording
            return self.count is not None and self.count * (1 / self.fps - mean) < (gap - step) / 2
        steps = np.diff(self._times)
        return len(steps) > 0 and float(np.mean(steps > 1.5 * step)) <= MAX_GAP_SHARE

    @cached_property
    def _numbers_tell_times(self) -> bool:
        """Whether frames that come at the frame rate at some places do so everywhere."""
        if self._container in ("mp4", "ts"):
            return True
        if self._container == "avi":  # a seek goes by the index, which also has frames that are lost
            return len(self._times) >= (self.count or 0)
        # For other containers, the rate is that of most frames, not the mean.
        return self._container != "ps" and bool(
            (np.abs(np.diff(self._times) - 1 / self.fps) < 1.5 * TIME_TOLERANCE).all()
        )

    @cached_property
    def _times(self) -> NDArray[np.float64]:
        return self._read_times()

    def _read_times(self, most: float = math.inf) -> NDArray[np.float64]:
        """Read the times of the first frames, (N,) rising seconds, without decoding them."""
        times: list[float] = []
        if isinstance(self.source, int):
            return np.array(times)
        capture = self._open()
        try:
            if capture.set(cv2.CAP_PROP_FORMAT, -1):
                while len(times) < most and self._grab(capture) is not None:
                    times.append(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
        finally:
            capture.release()
        return np.sort(np.array(times, np.float64))

    def _as_shown(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Mirror a decoded frame and bring it into proportion, if need be."""
        if self._mirror is not None:
            picture = self._mirror(picture).astype(np.uint8, copy=False)
        if self._aspect == 1:
            return picture
        height, width = picture.shape[:2]
        size = round(width * max(1.0, self._aspect)), round(height / min(1.0, self._aspect))
        return cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)

    def _seek(self, capture: cv2.VideoCapture, number: int) -> bool:
        """Go to after the frame with a number without decoding all before it; return whether that worked.

        OpenCV seeks by the mean frame rate, which goes wrong if frames do not come evenly. Then the clock may
        agree with the number by chance, so it must also agree at several places before.
        """
        if self.count is None or number > self.count or not self._numbers_tell_times:
            return False
        return all(self._agrees(capture, number * part // 4) for part in (1, 2, 3, 4))

    def _agrees(self, capture: cv2.VideoCapture, number: int) -> bool:
        """Go to after the frame with a number; return whether the last frames came at their times."""
        if not capture.set(cv2.CAP_PROP_POS_FRAMES, number - STEADY_FRAMES):
            return False
        for i in range(number - STEADY_FRAMES, number):
            if not capture.grab():
                return False
            if abs(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000 - i / self.fps) > TIME_TOLERANCE:
                return False
        return True


class _RealTime:
    """Numbers and times of a camera's frames, by this machine's clock, since drivers' clocks may be wrong."""

    number, timestamp, _began = 0, 0.0, 0.0

    def tick(self, capture: cv2.VideoCapture, failed: int) -> bool:
        now = time.monotonic()
        self._began = now if self.number == 0 else self._began
        self.number, self.timestamp = self.number + 1, now - self._began
        return True


class _FileClock:
    """Numbers and times of the frames of a file, one after the other.

    If the file's clock goes evenly and then leaps, frames are missing, and the next one's number leaps, too.
    If it is uneven, frames are counted. If there is none, times are computed from the frame rate.

    Args:
        number: the number of the frame after which decoding begins; its time is computed from the frame rate.
    """

    def __init__(self, video: Video, number: int) -> None:
        self.number, self.timestamp = number, max(0, number - 1) / video.fps
        self._video = video
        self._offset = 0.0  # added to the file's clock, which may begin elsewhere or be set back
        self._told = self.number, self.timestamp  # of the last frame that has a time in the file
        self._steps: deque[float] = deque([1 / video.fps] if number else [], maxlen=4 * STEADY_FRAMES)
        self._leap = (0.0, -MAX_REORDERED)  # the time before frames were missing, and the number after them
        self._damaged = -MAX_REORDERED  # the number of the frame before the last damaged place
        self.known = False
        """Whether any frame has a time in the file."""

    def tick(self, capture: cv2.VideoCapture, failed: int) -> bool:
        """Count the frame just grabbed, after `failed` damaged ones; return False if it comes too late."""
        clock: float = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        known = clock != 0 and abs(clock) < 1e9  # OpenCV returns 0 if it knows no time
        self.known = self.known or known
        if failed:
            self._damaged = self.number
        if self.number == 0:
            self._begin(clock if known else 0.0, failed)
            return True
        now = clock + self._offset
        step = now - self.timestamp
        last = self._steps[-1] if self._steps else 1 / self._video.fps
        if known and not failed and 0.5 * last < step < 1.5 * last:
            self._go_on(now)
            return True
        usual = self.usual_step()
        if not known:
            self.number += 1 + failed
            number, timestamp = self._told
            self.timestamp = timestamp + (self.number - number) / (1 / usual)
        elif self._video._container == "ps" and not failed and abs(step - usual) < MAX_COARSE_FRAMES * usual:
            self._go_on(self.timestamp + usual)
        elif step < 0:
            before, number = self._leap
            if before < now and self.number - number < MAX_REORDERED:
                return False  # one of those counted as missing
            if step < -MAX_REORDERED * usual:  # the clock was set back: two recordings in one file
                self._offset += usual - step
                now = self.timestamp + usual
            self._go_on(max(self.timestamp, now))
        elif step > 1.5 * usual and (
            self.number - self._damaged < MAX_REORDERED or self._frames_are_missing(step, usual)
        ):
            before = self.timestamp
            self._go_on(now, max(1, round(step / usual)))
            self._leap = before, self.number
        else:
            self._go_on(now)
        return True

    def _begin(self, clock: float, failed: int) -> None:
        """Count the first frame that can be decoded; its time shows how many were before it."""
        if not 0 <= clock < MAX_START:
            self._offset = -clock
        elif clock > 0 and not failed and self._video._container not in ("mp4", "ts", "mkv"):
            # If not each frame has a time, OpenCV returns that of the frame which the decoder is reading.
            times = self._video._read_times(MAX_REORDERED)
            self._offset = (float(times[0]) if len(times) else 0.0) - clock
        self.timestamp = clock + self._offset
        self.number = 1 + round(self.timestamp * self._video.fps)
        self._told = self.number, self.timestamp

    def _go_on(self, now: float, frames: int = 1) -> None:
        if frames == 1:
            self._steps.append(now - self.timestamp)
        self.number, self.timestamp = self.number + frames, now
        self._told = self.number, now

    def usual_step(self) -> float:
        """The median of the last steps in seconds; that of the frame rate if it is about the same."""
        by_rate = 1 / self._video.fps
        if not self._steps:
            return by_rate
        usual = statistics.median(self._steps)
        return by_rate if abs(usual - by_rate) < 0.03 * by_rate or usual <= 0 else usual

    def _frames_are_missing(self, step: float, usual: float) -> bool:
        """Tell whether the clock went evenly and now leaps by whole frames, for no reason but damage."""
        steady = len(self._steps) >= STEADY_FRAMES or usual == 1 / self._video.fps
        rounding = 1.5 * TIME_TOLERANCE + 0.1 * usual
        return (
            steady
            and len(self._steps) > 0
            and max(abs(last - usual) for last in self._steps) < rounding
            and abs(step - usual * round(step / usual)) < rounding
            and self._video._means_damage(step, usual, self.timestamp / max(1, self.number - 1))
        )


def _picture(capture: cv2.VideoCapture) -> NDArray[np.uint8] | None:
    """Decode the frame just grabbed, (H, W, 3) RGB; None if it is damaged."""
    try:
        decoded, picture = capture.retrieve()
        if not decoded or picture is None or picture.size == 0:
            return None
        return cv2.cvtColor(as_rgb(picture), cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
    except (cv2.error, ValueError, TypeError):
        return None


def _refusal(capture: cv2.VideoCapture) -> bytes:
    """Capture what FFmpeg writes to standard error if it cannot convert the frame just grabbed.

    It reports this nowhere else. The frame is converted twice, since what is written only once comes from
    another thread.
    """
    with tempfile.TemporaryFile() as file:
        with stderr_to(file.fileno()):
            for _ in range(2):
                _picture(capture)
        file.seek(0)
        told = file.read()
    if told.count(b"[swscaler") >= 2:
        return told
    if told:  # other threads wrote it
        with suppress(OSError):
            os.write(2, told)
    return b""


@contextmanager
def stderr_to(descriptor: int) -> Iterator[None]:
    """Let what libraries write to standard error go to an open file, in one thread at a time."""
    with _stderr_redirected:
        try:
            kept = os.dup(2)
        except OSError:  # standard error is closed
            kept = os.open(os.devnull, os.O_WRONLY)
        os.dup2(descriptor, 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _aspect(capture: cv2.VideoCapture) -> float:
    """Compute width by height of a pixel of the turned frame; 1 if the file has none, or nonsense."""
    wide, high = (capture.get(p) for p in (cv2.CAP_PROP_SAR_NUM, cv2.CAP_PROP_SAR_DEN))
    if not (wide > 0 and high > 0):
        return 1.0
    turned = capture.get(cv2.CAP_PROP_ORIENTATION_META) % 180
    aspect = high / wide if turned else wide / high
    return float(aspect) if 1 / MAX_ASPECT <= aspect <= MAX_ASPECT else 1.0


def check_times(every: int, start: float, end: float | None) -> None:
    """Raise a ValueError for times with which `Video.frames` would yield nothing."""
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
