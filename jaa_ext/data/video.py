"""The frames of a video file or a camera, one after the other."""

from __future__ import annotations

import math
import os
import statistics
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from jaa_ext.data.display_matrix import is_mirrored
from jaa_ext.data.images import as_rgb

BEFORE = 3
"""Frames before the wanted one to which a seek goes: `start` falls between frames."""
WORTH_A_SEEK = 250
"""Frames, at least 4 * `STEADY`; fewer are decoded from the first on: a seek decodes about as many, from the
key frame before."""
STEADY = 8
"""Frames one after the other that must come at their times for a seek to be right."""
SAME_TIME = 0.001
"""Seconds; Matroska rounds its clock to them."""
TRIES = 1000
"""Failed decodings in a row after which a file is taken to be at its end: OpenCV tells no end from damage."""
FEW_GAPS = 0.01
"""Share of the intervals; with more gaps a clock that may have any is taken to be uneven, not damaged."""
REORDERED = 16
"""Frames by which a decoder may mistake the order behind a damaged place: H.264 holds as many back."""
COARSE = 6.5
"""Frames by which the clock of an MPEG program stream may err: OpenCV knows it in few frames only."""
TRIED_FOR = 4.0
"""Seconds after which no more is tried: in some damaged files each try reads all that is left again."""
MAX_ASPECT = 4.0
"""Of a pixel; what is longer or higher is damage. Known are 1:2 to 3:1."""
STILL = 8
"""Frames from which on it is told that all are the same, where FFmpeg may have been silenced."""
SAMPLED = 16
"""Pixels, across and down, of which one tells whether a picture may be the same as the one before."""
MAX_FPS = 1000.0
BROKEN_OFF = 0.95
"""Videos with less than this share of what their header promises, often roughly, break off."""
AVI_INDEX = 2**24
"""Bytes at the end of an AVI file in which its index begins: 16 for each frame and part of the sound."""
LAST_FRAME = 1.0
"""Seconds that the last frame may be shown longer than others, by a duration that may be the sound's."""
LATEST_START = 60.0
"""Seconds; a clock that begins later counts from elsewhere, and not from the file's first frame."""
WRITTEN_RATES = (0.1, MAX_FPS)
"""Frames a second that the formats of `write_video` have."""
UNEVEN_RATES = (60.0, 120.0)
"""Frames a second of a copy of a video whose frames come unevenly."""

NO_VIDEO = "is damaged, or not a video that OpenCV can decode"

MIRRORED: dict[float, Callable[[NDArray[np.uint8]], cv2.typing.MatLike]] = {
    0: lambda picture: cv2.flip(picture, 0),
    90: lambda picture: cv2.transpose(picture),
    180: lambda picture: cv2.flip(picture, 1),
    270: lambda picture: cv2.flip(cv2.transpose(picture), -1),
}
"""What mirrors and turns a picture, by the degrees by which its upper edge is turned: those OpenCV tells."""
LOG_SWITCHES = ("OPENCV_FFMPEG_LOGLEVEL", "OPENCV_FFMPEG_DEBUG")
"""Variables that silence FFmpeg, or have it write elsewhere, from the first video that a process opens."""
_listening = threading.Lock()
"""Held while what FFmpeg writes to standard error is read."""


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

    Frames come in the proportions in which a player shows them: where pixels are not square, frames are
    enlarged along the longer side of a pixel, and all places are in pixels of frames so enlarged.

    Args:
        source: a file, or the number of a camera, from 0.

    Raises:
        VideoError: the file is missing or no video; a camera that is not there.
    """

    def __init__(self, source: str | os.PathLike[str] | int) -> None:
        self.source = source
        self.name = f"camera {source}" if isinstance(source, int) else os.fspath(source)
        self.missing: list[tuple[int, int]] = []
        """Frames that are not there in what `frames` showed last: each time the first one, and how many."""
        self.numbers_are_low = False
        """Whether `frames` came to the end of a file that lacks frames, anywhere, and does not tell which."""
        self._broke_off_after: int | None = None
        self._untimed = False
        self._still: int | None = 0
        """How many frames were shown, all the same; None once one differs."""
        self.ends_at: float | None = None
        """Seconds; where the last frame ends that `frames` showed, once that is known."""
        self._aspect = 1.0
        self._mirror: Callable[[NDArray[np.uint8]], cv2.typing.MatLike] | None = None
        capture = self._open()
        try:
            fps: float = capture.get(cv2.CAP_PROP_FPS)
            count: float = capture.get(cv2.CAP_PROP_FRAME_COUNT)
            self.count: int | None = None
            """Frames as the file says; None for a camera, or where it says nothing."""
            if not isinstance(source, int):
                self.count = int(count) if 0 < count < 2**53 else None
                self._aspect = _aspect(capture)
                if self._is_mirrored:
                    self._mirror = MIRRORED.get(capture.get(cv2.CAP_PROP_ORIENTATION_META))
        finally:
            capture.release()
        self.fps: float = fps
        """Frames a second as the file says; as most of its frames come, or 25, where it says nothing."""
        if not 0 < fps < MAX_FPS:
            self.count = None  # counted by this rate
            steps = np.diff(self._times)
            self.fps = float(np.clip(1 / np.median(steps), 0.1, MAX_FPS)) if steps.any() else 25.0

    def frames(
        self, *, every: int = 1, start: float = 0.0, end: float | None = None, after: int = 0
    ) -> Generator[VideoFrame, None, None]:
        """Decode in order; what is damaged is passed over, and stands in `missing`.

        A frame keeps the number that it had when all were there, by the clock of the file. A video that
        breaks off ends where its last whole frame ends.

        Args:
            every: 2 for every second frame and so on, counted from the first one shown.
            start, end: seconds; the frames shown have timestamps from `start` on, before `end`.
            after: the number of a frame already seen; what follows it is shown, `every` counted as before.

        Raises:
            VideoError: no frame can be decoded, or the camera gives none.
            ValueError: numbers that make no sense.
        """
        check_times(every, start, end)
        self.missing, self.numbers_are_low, self._broke_off_after = [], False, None
        self._untimed, self._still, self.ends_at = False, 0, None
        capture = self._open()
        try:
            number = max(after, round(start * self.fps)) - BEFORE
            if number < WORTH_A_SEEK or isinstance(self.source, int):
                number = 0
            elif not self._seek(capture, number):
                capture.release()
                capture, number = self._open(), 0
            first = after or None  # from which `every` counts: `after` was shown
            clock = _RealTime() if isinstance(self.source, int) else _FileClock(self, number)
            whole = number > 0  # whether there is anything in the file
            sample: NDArray[np.uint8] | None = None  # of the picture before
            repeats = 0  # pictures in a row that are as the one before
            while (failed := self._grab(capture)) is not None:
                before = clock.number
                if not clock.tick(capture, failed) or clock.number <= after or clock.timestamp < start:
                    whole = True
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
                whole = True
                previous, sample = sample, picture[::SAMPLED, ::SAMPLED].copy()
                repeats = repeats + 1 if previous is not None and np.array_equal(previous, sample) else 0
                changed = previous is not None and repeats == 0
                self._still = None if changed or self._still is None else self._still + 1
                if repeats and repeats & (repeats - 1) == 0:  # not each: a still scene may be long
                    self._check_conversion(capture, clock.number)
                yield VideoFrame(clock.number, clock.timestamp, self._as_shown(picture))
            if not whole:
                what = "gives no picture" if isinstance(self.source, int) else NO_VIDEO
                raise VideoError(f"{self.name}: {what}")
            if isinstance(clock, _FileClock):
                self._end(clock)
        finally:
            capture.release()

    def damage(self, missing: list[tuple[int, int]]) -> list[str]:
        """Sentences on what `frames` did not show, or not surely right, for the user.

        Args:
            missing: the attribute, with that of an earlier part before it if there was one.
        """
        remarks = []
        if missing:
            number, place = sum(many for _, many in missing), missing[0][0] - 1
            where = f"after frame {place}" if place else "at its beginning"
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
        if (self._still or 0) >= STILL and not os.environ.keys().isdisjoint(LOG_SWITCHES):
            remarks.append(
                f"{self.name}: all {self._still} frames are the same; if it is interlaced, they are wrong, "
                f"and FFmpeg may not tell: unset {' and '.join(LOG_SWITCHES)}"
            )
        if self._untimed:
            remarks.append(f"{self.name}: tells no times; they are those of {self.fps:g} frames a second")
        return remarks

    def copy_rate(self, every: int = 1) -> float:
        """Frames a second of a copy that shows each frame at its time, to half a frame, though they come
        unevenly; the number of frames shown divided by the seconds where they come evenly."""
        steps = np.diff(self._times)
        steps = steps[steps > 0]
        if self._times_are_rough or len(steps) == 0:
            return max(WRITTEN_RATES[0], self.fps / every)
        usual = float(np.median(steps))
        if abs(usual - 1 / self.fps) < max(1.5 * SAME_TIME, 0.03 / self.fps):
            usual = 1 / self.fps
        frames = np.maximum(1, np.rint(steps / usual))
        if (np.abs(steps - frames * usual) > 1.5 * SAME_TIME).any():
            return float(np.clip(1 / steps.min(), *UNEVEN_RATES))
        return float(np.clip(1 / usual / (every if (frames == 1).all() else 1), *WRITTEN_RATES))

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
        switches = {name: os.environ.pop(name) for name in LOG_SWITCHES if name in os.environ}
        try:
            capture = cv2.VideoCapture(self.name)
        finally:
            os.environ.update(switches)
        if not capture.isOpened():
            raise VideoError(f"{self.name}: {NO_VIDEO}")
        if self._is_mirrored:  # OpenCV only turns
            capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
        return capture

    def _grab(self, capture: cv2.VideoCapture) -> int | None:
        """Go on to the next frame that can be decoded; how many could not, None at the end."""
        if isinstance(self.source, int):
            return 0 if capture.grab() else None
        began = time.monotonic()
        for failed in range(TRIES):
            try:
                if capture.grab():
                    return failed
            except cv2.error:  # such as one too large for the memory
                pass
            if time.monotonic() - began > TRIED_FOR:
                break
        return None

    def _check_conversion(self, capture: cv2.VideoCapture, number: int) -> None:
        """Raise a VideoError if FFmpeg does not convert the frame just grabbed: it is interlaced, say.

        OpenCV from 4.13 on passes that over, and gives what its memory holds: anything at first, then the
        picture before. So a first picture is to be checked, and of those that are as the one before the
        1st, 2nd, 4th, 8th and so on.
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
        """How the file stores its frames, and their times."""
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
        """What is to be said where no further frame can be decoded."""
        self._untimed = clock.number > 1 and not clock.known
        self.ends_at = clock.timestamp + clock.usual_step()
        if self.count is None:
            return
        duration = self.count / self.fps
        # Others than AVI count roughly, or frames that are not to be shown, or the sound's duration.
        wanted = duration - 0.5 / self.fps if self._container == "avi" else BROKEN_OFF * duration
        if max(clock.number / self.fps, self.ends_at) < wanted:
            self._broke_off_after = clock.number
            self.numbers_are_low = self._container == "avi" and self._lacks_frames_inside()
        if clock.number == self.count or abs(duration - self.ends_at) < LAST_FRAME:
            self.ends_at = max(self.ends_at, duration)

    def _lacks_frames_inside(self) -> bool:
        """Whether an AVI file with fewer frames than it counts has its end, where the index is."""
        with open(self.name, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(-min(size, AVI_INDEX), os.SEEK_END)
            return len(self._times) < (self.count or 0) and b"idx1" in file.read()

    @property
    def _times_are_rough(self) -> bool:
        return isinstance(self.source, int) or self._container == "ps"

    def _means_damage(self, gap: float, step: float, mean: float) -> bool:
        """Whether a gap between two frames, in seconds, is none of the recording's own.

        Args:
            step: seconds from frame to frame before it; `mean` of all frames before, exactly.
        """
        if self._container in ("avi", "ts", "ps"):
            return True  # recorders write them for constant rates
        if self._container == "mp4":  # whose rate is the average with this gap, if it is recorded
            return self.count is not None and self.count * (1 / self.fps - mean) < (gap - step) / 2
        steps = np.diff(self._times)
        return len(steps) > 0 and float(np.mean(steps > 1.5 * step)) <= FEW_GAPS

    @cached_property
    def _numbers_tell_times(self) -> bool:
        """Whether frames that come by the frame rate at some places do so everywhere."""
        if self._container in ("mp4", "ts"):
            return True
        if self._container == "avi":  # a seek goes by the index, which has frames that are gone
            return len(self._times) >= (self.count or 0)
        # The rate is that of most frames, not the average.
        return self._container != "ps" and bool(
            (np.abs(np.diff(self._times) - 1 / self.fps) < 1.5 * SAME_TIME).all()
        )

    @cached_property
    def _times(self) -> NDArray[np.float64]:
        return self._read_times()

    def _read_times(self, most: float = math.inf) -> NDArray[np.float64]:
        """(N,) seconds, rising: the times of the first frames in the file, read without decoding any."""
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
        """A decoded frame mirrored and in proportion; the same one where nothing is to be done."""
        if self._mirror is not None:
            picture = self._mirror(picture).astype(np.uint8, copy=False)
        if self._aspect == 1:
            return picture
        height, width = picture.shape[:2]
        size = round(width * max(1.0, self._aspect)), round(height / min(1.0, self._aspect))
        return cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)

    def _seek(self, capture: cv2.VideoCapture, number: int) -> bool:
        """Go behind the frame of a number without decoding all before it; whether it is surely there.

        A seek counts by the average frame rate, which is wrong where frames do not come evenly. There the
        clock agrees with the number at some frames by chance: it must agree at several places before, too.
        """
        if self.count is None or number > self.count:
            return False
        if not self._numbers_tell_times:
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


class _RealTime:
    """Numbers and times of a camera's frames. A driver's clock may count from anywhere, or not at all."""

    number, timestamp, _began = 0, 0.0, 0.0

    def tick(self, capture: cv2.VideoCapture, failed: int) -> bool:
        now = time.monotonic()
        self._began = now if self.number == 0 else self._began
        self.number, self.timestamp = self.number + 1, now - self._began
        return True


class _FileClock:
    """Numbers and times of the frames of a file as they come.

    Where the clock goes evenly and then leaps, frames are missing, and the next one's number leaps, too.
    Where it is uneven, numbers count the frames. Where there is none, the frame rate tells the time.

    Args:
        number: of the frame behind which decoding begins; its time is that of the frame rate.
    """

    def __init__(self, video: Video, number: int) -> None:
        self.number, self.timestamp = number, max(0, number - 1) / video.fps
        self._video = video
        self._offset = 0.0  # of the file's clock, where it was set back
        self._told = self.number, self.timestamp  # of the last frame whose time the file told
        self._steps: deque[float] = deque([1 / video.fps] if number else [], maxlen=4 * STEADY)
        self._leap = (0.0, -REORDERED)  # the time before frames were missing, and the number after them
        self._damaged = -REORDERED  # the number behind the last frame that could not be decoded
        self.known = False
        """Whether the file tells any times."""

    def tick(self, capture: cv2.VideoCapture, failed: int) -> bool:
        """Of the frame just grabbed, before which so many could not be; False for one that comes too late."""
        clock: float = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        known = clock != 0 and abs(clock) < 1e9  # OpenCV says 0 where it knows no time
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
        elif self._video._container == "ps" and not failed and abs(step - usual) < COARSE * usual:
            self._go_on(self.timestamp + usual)
        elif step < 0:
            before, number = self._leap
            if before < now and self.number - number < REORDERED:
                return False  # one of those that were missed
            if step < -REORDERED * usual:  # the clock was set back: two recordings in one file
                self._offset += usual - step
                now = self.timestamp + usual
            self._go_on(max(self.timestamp, now))
        elif step > 1.5 * usual:
            before, damaged = self.timestamp, self.number - self._damaged < REORDERED
            if damaged or self._frames_are_missing(step, usual):
                self._go_on(now, max(1, round(step / usual)))
                self._leap = before, self.number
            else:
                self._go_on(now)
        else:
            self._go_on(now)
        return True

    def _begin(self, clock: float, failed: int) -> None:
        """The first frame that can be decoded; its time tells how many there were before."""
        if not 0 <= clock < LATEST_START:
            self._offset = -clock
        elif clock > 0 and not failed and self._video._container not in ("mp4", "ts", "mkv"):
            # Where not each frame has a time, OpenCV gives that of the one that the decoder is fed meanwhile.
            times = self._video._read_times(REORDERED)
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
        """Seconds; the frame rate where the last steps are about that long, as clocks may be rounded."""
        by_rate = 1 / self._video.fps
        if not self._steps:
            return by_rate
        usual = statistics.median(self._steps)
        return by_rate if abs(usual - by_rate) < 0.03 * by_rate or usual <= 0 else usual

    def _frames_are_missing(self, step: float, usual: float) -> bool:
        """Whether the clock went evenly, and now leaps by a whole number of frames without being made so."""
        steady = len(self._steps) >= STEADY or usual == 1 / self._video.fps
        rounding = 1.5 * SAME_TIME + 0.1 * usual
        return (
            steady
            and len(self._steps) > 0
            and max(abs(last - usual) for last in self._steps) < rounding
            and abs(step - usual * round(step / usual)) < rounding
            and self._video._means_damage(step, usual, self.timestamp / max(1, self.number - 1))
        )


def _picture(capture: cv2.VideoCapture) -> NDArray[np.uint8] | None:
    """The frame just grabbed, (H, W, 3) RGB; None where it is damaged."""
    try:
        decoded, picture = capture.retrieve()
        if not decoded or picture is None or picture.size == 0:
            return None
        return cv2.cvtColor(as_rgb(picture), cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
    except (cv2.error, ValueError, TypeError):
        return None


def _refusal(capture: cv2.VideoCapture) -> bytes:
    """What FFmpeg writes to standard error if it does not convert the frame just grabbed.

    Nothing else tells. It is made to convert twice: a refusal written once is of another thread's frame.
    """
    with _listening, tempfile.TemporaryFile() as file:
        try:
            kept = os.dup(2)
        except OSError:  # it is closed
            kept = os.open(os.devnull, os.O_WRONLY)
        os.dup2(file.fileno(), 2)
        try:
            for _ in range(2):
                _picture(capture)
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        file.seek(0)
        told = file.read()
    if told.count(b"[swscaler") >= 2:
        return told
    if told:  # by others
        with suppress(OSError):
            os.write(2, told)
    return b""


def _aspect(capture: cv2.VideoCapture) -> float:
    """Width of a pixel by its height, as frames are turned; 1 where the file says nothing or nonsense."""
    wide, high = (capture.get(p) for p in (cv2.CAP_PROP_SAR_NUM, cv2.CAP_PROP_SAR_DEN))
    if not (wide > 0 and high > 0):
        return 1.0
    turned = capture.get(cv2.CAP_PROP_ORIENTATION_META) % 180
    aspect = high / wide if turned else wide / high
    return float(aspect) if 1 / MAX_ASPECT <= aspect <= MAX_ASPECT else 1.0


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
