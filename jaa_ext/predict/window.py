"""A window that shows predictions as they come: landmarks, AUs, and a running time line."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import suppress

import cv2
import numpy as np
from numpy.typing import NDArray

from jaa_ext.data.video import VideoError, check_times
from jaa_ext.plots.frames import FrameDrawer
from jaa_ext.plots.running import RunningTimeline
from jaa_ext.predict.detector import MissingDependency
from jaa_ext.predict.job import Return, Summary, returns, told
from jaa_ext.predict.prediction import FramePrediction
from jaa_ext.predict.predictor import Predictor, in_words
from jaa_ext.predict.sources import Source

TITLE = "jaa predict: q or Escape ends"
MOST_A_SECOND = 60
"""Pictures that are drawn in a second at most, whatever the speed of the prediction."""
LARGEST = 1600, 900
"""Width and height of the window at its beginning, unless the picture is smaller; it can be dragged."""
KEYS = {ord("q"), ord("Q"), 27}
"""q and Escape."""

_PROBE = """
import sys
sys.path[:] = {path!r}
import cv2
cv2.namedWindow({title!r})
cv2.waitKey(1)
cv2.destroyAllWindows()
"""


def require_display() -> None:
    """Raise if no window can be opened.

    Raises:
        MissingDependency: OpenCV was built without windows, as opencv-python-headless is.
        OSError: there is no display.

    Example:
        >>> require_display()  # doctest: +SKIP
    """
    if not cv2.currentUIFramework():
        raise MissingDependency(
            "--show needs an OpenCV with windows, and the one installed has none (opencv-python-headless): "
            "pip install --force-reinstall --no-deps opencv-python"
        )
    if sys.platform == "linux":
        # Without a display Qt ends the whole process, so another one tries.
        probe = _PROBE.format(path=sys.path, title=TITLE)
        try:
            failed = subprocess.run([sys.executable, "-c", probe], capture_output=True, timeout=60).returncode
        except subprocess.TimeoutExpired:  # such as a display far away that does not answer
            failed = 1
        if failed:
            raise OSError(
                "--show wants a display, and there is none on which a window opens; leave it out, or sit "
                "before the machine"
            )


def only_video(sources: list[Source]) -> Source:
    """Give the one video or camera that is to be shown.

    Raises:
        ValueError: several sources, or a photograph.

    Example:
        >>> only_video([Source("0", "camera", True)]).stem
        'camera_0'
    """
    if len(sources) != 1 or sources[0].kind == "photograph":
        got = "a photograph" if len(sources) == 1 else f"{len(sources)} sources"
        raise ValueError(f"--show wants one video or one camera, got {got}; `jaa draw` makes pictures")
    return sources[0]


class Window:
    """A window with the frames of one video; opens with the first, and closes when one ends it.

    Args:
        predictor: the predictor of the frames, for its AUs, thresholds, note and stages.

    Example:
        >>> window = Window(predictor)  # doctest: +SKIP
        >>> for frame in predictor.frames(0):  # doctest: +SKIP
        ...     if not window.show(frame):
        ...         break
    """

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self._draw = FrameDrawer(predictor.aus, note=predictor.note, thresholds=predictor.thresholds)
        self._line: RunningTimeline | None = None
        self._shown = -np.inf

    def show(self, frame: FramePrediction) -> bool:
        """Show a frame; of more than `MOST_A_SECOND` some are left out.

        Returns:
            Whether to go on: False after q, Escape, or when the window was closed.

        Raises:
            ValueError: a frame of another size than the first.
            OSError: the window cannot be drawn, such as when the display has gone.
        """
        now = time.monotonic()
        if self._line is not None and now - self._shown < 1 / MOST_A_SECOND:
            self._line.add(frame)
            return True
        self._shown = now
        try:
            with self._predictor.stages.busy("drawing"):
                return self._show(self._draw(frame), frame)
        except cv2.error as error:
            raise OSError(f"the window cannot be drawn ({in_words(error)})") from error

    def _show(self, picture: NDArray[np.uint8], frame: FramePrediction) -> bool:
        if self._line is None:
            self._line = RunningTimeline(self._predictor.aus, picture.shape[1])
            height, width = picture.shape[0] + len(self._line.picture()), picture.shape[1]
            scale = min(1.0, LARGEST[0] / width, LARGEST[1] / height)
            cv2.namedWindow(TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
            cv2.resizeWindow(TITLE, round(scale * width), round(scale * height))
        self._line.add(frame)
        whole = np.concatenate((picture, self._line.picture()))
        cv2.imshow(TITLE, cv2.cvtColor(whole, cv2.COLOR_RGB2BGR))
        key = cv2.waitKey(1)  # -1 if none was pressed
        closed = cv2.getWindowProperty(TITLE, cv2.WND_PROP_VISIBLE) < 1
        if not closed and not (key >= 0 and key & 0xFF in KEYS):
            return True
        self.close()
        return False

    def close(self) -> None:
        """Close the window, if it is open."""
        if self._line is not None:
            self._line = None
            with suppress(cv2.error):
                cv2.destroyAllWindows()


def watch(
    predictor: Predictor,
    source: Source,
    window: Window,
    *,
    every: int = 1,
    start: float = 0.0,
    end: float | None = None,
) -> Summary:
    """Show a video or a camera and write nothing; Ctrl-C ends it as q does.

    Args:
        predictor, window: the predictor, and a window of it.
        source: a video or a camera.
        every, start, end: see `Video.frames`.

    Raises:
        VideoError, ValueError: the video cannot be read, or see `Video.frames` and `Window.show`.

    Example:
        >>> watch(predictor, Source("0", "camera", True), Window(predictor)).frames  # doctest: +SKIP
        250
    """
    check_times(every, start, end)
    summary, began, before = Summary(), time.perf_counter(), dict(predictor.stages.seconds)
    came_back: list[Return] = []
    video = source.open()
    frames = predictor.video(video, every=every, start=start, end=end)
    try:
        for frame in frames:
            summary.frames += 1
            summary.faces += len(frame.faces)
            summary.unsettled += sum(not face.settled for face in frame.faces)
            summary.without_face += not frame.faces
            came_back += returns(frame)
            if not window.show(frame):
                break
    except KeyboardInterrupt:
        pass
    except cv2.error as error:
        raise VideoError(f"{video.name}: cannot be searched for faces ({in_words(error)})") from error
    finally:
        frames.close()
        window.close()
    if not summary.frames:
        raise VideoError(f"{video.name}: has no frame between --start and --end")
    summary.remarks = told(video.name, came_back) + video.damage(video.missing)
    summary.done_now, summary.seconds = summary.frames, time.perf_counter() - began
    summary.busy = {stage: s - before[stage] for stage, s in predictor.stages.seconds.items()}
    return summary
