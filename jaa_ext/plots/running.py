"""A running time line: the last seconds of one face's AUs, below the frames of a window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import matplotlib
import numpy as np
from numpy.typing import NDArray

from jaa_ext import facs
from jaa_ext.plots.frames import Label, _Letters
from jaa_ext.plots.style import GREY, INK, ORANGE, PALE, au_label, rgb
from jaa_ext.plots.timeline import COLOURS

if TYPE_CHECKING:
    from jaa_ext.predict.prediction import FacePrediction, FramePrediction

SECONDS = 10.0
"""Time that is shown."""
AWAY = 1.0
"""Seconds after which another face takes the place of one that is gone."""
LONGEST_FRAME = 0.5
"""Seconds for which a frame is drawn at most; the rest of a longer pause is a gap."""
ROW, STRIP, MARK = 16, 10, 3
"""Pixels of an AU's row, of its colours, and of the mark of its presence below them."""
HEAD, NAMES = 24, 190
"""Pixels of the heading, and of the names of the AUs."""


class RunningTimeline:
    """Draws the AUs of one face over the last ten seconds, a row an AU, its probability as colour.

    Below its colours a row is marked where the AU is present; where the face was not found it is grey. The
    face is the one of the lowest id, and stays so until it has been away for a second.

    Args:
        aus: the AUs of the probabilities, ``model.config.aus``.
        width: pixels of the picture, at least 300.

    Raises:
        ValueError: a picture too narrow.

    Example:
        >>> RunningTimeline((1, 12), 640).picture().shape
        (56, 640, 3)
    """

    def __init__(self, aus: Sequence[facs.AU | facs.AURule], width: int) -> None:
        if width < 300:
            raise ValueError(f"RunningTimeline: wanted a width of at least 300 pixels, got {width}")
        self.face_id: int | None = None
        """The face that is shown."""
        self._rows, self._columns = len(aus), width - NAMES - 8
        self._step = SECONDS / self._columns
        self._clear()
        self._last: tuple[int, float] | None = None  # the column of the last frame, and its time
        self._seen = -np.inf  # when the face was last there
        colours = matplotlib.colormaps[COLOURS](np.linspace(0, 1, 101), bytes=True)[:, :3]
        self._colours = np.concatenate((colours, [rgb(PALE)])).astype(np.uint8)
        self._letters = _Letters(12)
        self._background = np.full((HEAD + ROW * self._rows, width, 3), 255, np.uint8)
        for i, au in enumerate(aus):
            y = HEAD + ROW * i + STRIP / 2 + 1
            edge = NAMES - 8.0 - self._letters.width(label := au_label(au, i))
            self._letters.put(self._background, Label(label, edge, y))
            name = facs.au_name(au)
            self._letters.put(self._background, Label(name, edge - 6, y, ink=GREY, align=1))

    def add(self, frame: FramePrediction) -> None:
        """Take a frame; frames come in the order of their times."""
        now = frame.timestamp
        faces = {face.face_id: face for face in frame.faces if face.settled}
        if self.face_id not in faces and faces and now - self._seen >= AWAY:
            self.face_id = min(faces)
            self._clear()
        face = None if self.face_id is None else faces.get(self.face_id)
        if face is not None:
            self._seen = now
        column = int(now / self._step)
        before, time = self._last or (column - 1, now)
        moved = max(0, column - before)
        kept = self._columns - min(moved, self._columns)
        for values in (self._levels, self._present):
            values[:, :kept] = values[:, self._columns - kept :]
        self._levels[:, kept:], self._present[:, kept:] = len(self._colours) - 1, False
        long = int(LONGEST_FRAME / self._step)
        self._fill(face, max(kept, self._columns - long) if moved else self._columns - 1, again=not moved)
        self._last = max(column, before), max(now, time)

    def picture(self) -> NDArray[np.uint8]:
        """Draw it: (H, width, 3) uint8 RGB."""
        canvas = self._background.copy()
        who = "no face yet" if self.face_id is None else f"face {self.face_id}"
        self._letters.put(canvas, Label(who, NAMES, HEAD / 2, bold=True))
        right = canvas.shape[1] - 8
        span = f"the last {SECONDS:g} seconds"
        self._letters.put(canvas, Label(span, right, HEAD / 2, ink=GREY, align=1))
        rows = self._colours[self._levels]
        marks = np.where(self._present[..., None], rgb(ORANGE), np.uint8(255))
        for i in range(self._rows):
            top = HEAD + ROW * i + 1
            canvas[top : top + STRIP, NAMES:right] = rows[i]
            canvas[top + STRIP : top + STRIP + MARK, NAMES:right] = marks[i]
        cv2.line(canvas, (right, HEAD), (right, len(canvas) - 1), rgb(INK), 1)
        return canvas

    def _clear(self) -> None:
        # The last colour is that of no face.
        self._levels = np.full((self._rows, self._columns), 101, np.uint8)
        self._present = np.zeros((self._rows, self._columns), np.bool_)

    def _fill(self, face: FacePrediction | None, first: int, *, again: bool) -> None:
        """Draw a face into the columns from `first` on; where `again`, the higher values stay."""
        if face is None:
            return
        probabilities = np.nan_to_num(face.probabilities.astype(np.float64), nan=0.0)
        levels = np.rint(100 * np.clip(probabilities, 0, 1)).astype(np.uint8)[:, None]
        place = self._levels[:, first:]
        empty = place == len(self._colours) - 1
        place[:] = np.where(empty, levels, np.maximum(place, levels)) if again else levels
        self._present[:, first:] |= np.asarray(face.present, np.bool_)[:, None]
