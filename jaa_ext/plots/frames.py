"""Predictions drawn over the frames of a video, and the file to which these are written."""

from __future__ import annotations

import math
import os
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from jaa_ext import facs
from jaa_ext.atomic import replacing
from jaa_ext.data.faces import aligned_size, alignment_matrix, transform
from jaa_ext.data.video import stderr_to
from jaa_ext.models.thresholds import THRESHOLD, check_thresholds
from jaa_ext.plots.style import BLUE, GREY, INK, ORANGE, PALE, SIDES, VERMILION, au_label, rgb

if TYPE_CHECKING:
    from jaa_ext.predict.prediction import FacePrediction, FramePrediction


MAX_FACES = 3
"""Most faces whose AUs are shown; the others are counted."""
SHORTER_SIDE, LONGER_SIDE = 480, 1920
"""Pixels to which the shorter side of a frame is enlarged, unless the longer side then has too many."""
LABELS, CELLS = 10.2, 16.0
"""Widths of the names of the AUs and of the bars of all faces, in line heights."""
OTHER_LINES = 7.3
"""Height of the panel without the rows of AUs, in line heights."""
CODECS = {".mp4": "mp4v", ".avi": "MJPG", ".webm": "VP80"}
"""Encoder for each ending; OpenCV from the package registry has them."""
REPEATS, REPEATS_A_PICTURE = 3000, 10
"""Most repetitions of pictures in a video, and more of them for each picture: a damaged clock would ask for
hours."""
FINE_BITS = 4
FINE = 1 << FINE_BITS
"""Steps to a pixel in which dots are placed."""
CIRCLE = np.stack([(np.cos(angle), np.sin(angle)) for angle in np.linspace(0, 2 * np.pi, 16, endpoint=False)])


class Fill(NamedTuple):
    """Rectangle of one colour, its edges in pixels of the picture."""

    left: float
    top: float
    right: float
    bottom: float
    colour: str


class AttentionScale(NamedTuple):
    """Rectangle with the colours of attention maps, from weight 0 at its left to 1 at its right."""

    left: float
    top: float
    right: float
    bottom: float


class Label(NamedTuple):
    """Text whose middle is at height `y`; `x` is its left edge (align 0), middle (0.5) or right edge (1)."""

    text: str
    x: float
    y: float
    ink: str = INK
    paper: str = "#FFFFFF"
    bold: bool = False
    align: float = 0
    small: bool = False


Shape = Fill | AttentionScale | Label


class FrameDrawer:
    """Draws the frames of one video: boxes and landmarks over the frame, the AUs of its faces beside it.

    The first frame fixes the size of all pictures. A face keeps its column of bars as long as it is there.
    Drawing takes about 1 ms for a frame of 1280x720 and 9 ms for one of 3840x2160, on one core.

    Args:
        aus: the AUs of the probabilities, ``model.config.aus``.
        note: printed in every picture, ``model.note``.
        attention: an AU; its attention map, refined if there is one, is painted over the faces.
        thresholds: one for each AU, ``model.thresholds``, marked on the bars; None for 0.5.

    Returns (from ``drawer(frame)``):
        (H', W', 3) uint8 RGB with even sides, the frame at the top left; a small frame is enlarged.

    Raises:
        ValueError: an AU that is not among `aus`, or another number of thresholds; when drawing, a frame of
            another size than the first, a face with another number of AUs, or one without the attention maps
            that are to be painted.
    """

    def __init__(
        self,
        aus: Sequence[facs.AU | facs.AURule],
        *,
        note: str = "",
        attention: facs.AU | None = None,
        thresholds: Sequence[float] | None = None,
    ) -> None:
        self.aus, self.note, self.attention = tuple(aus), note, attention
        thresholds = (THRESHOLD,) * len(self.aus) if thresholds is None else thresholds
        self.thresholds = check_thresholds(thresholds, len(self.aus))
        numbers = [facs.au_number(au) for au in aus]
        if attention is not None and attention not in numbers:
            known = ", ".join(str(number) for number in numbers if number is not None)
            raise ValueError(f"attention must be an AU of the model, one of {known}, got {attention}")
        self._map = None if attention is None else numbers.index(attention)
        self._layout: _Layout | None = None
        self._columns: list[int | None] = []

    def __call__(self, frame: FramePrediction) -> NDArray[np.uint8]:
        layout = self._layout_of(frame)
        canvas = self._background.copy()
        height, width = layout.drawn_size
        photo = canvas[:height, :width]
        if layout.scale == 1:
            photo[:] = frame.image
        else:
            photo[:] = cv2.resize(frame.image, (width, height), interpolation=cv2.INTER_CUBIC)
        if self._map is not None:
            for face in frame.faces:
                _paint_attention(photo, face, self._map, layout.scale)
        for face in frame.faces:
            _draw_face(photo, face, layout)
        _draw(canvas, self._values(frame, layout), layout)
        self._draw_close_ups(canvas, frame, layout)
        return canvas

    def panel(self, frame: FramePrediction) -> list[Shape]:
        """List what is drawn beside and below a frame but for pictures, in the order of drawing.

        The names of the AUs, the legend and the note come first, then the frame's time and number, then what
        its faces show: for each AU the track of its bar, the bar, its number, and the mark of its threshold.
        """
        layout = self._layout_of(frame)
        return [*self._lettering(layout), *self._values(frame, layout)]

    def _layout_of(self, frame: FramePrediction) -> _Layout:
        """Give the layout, which the first frame fixes; raises if this one does not fit."""
        if self._layout is None:
            self._layout = _Layout(
                frame.image.shape[:2], len(self.aus), self.note, self.attention is not None
            )
            self._background = np.full((*self._layout.size, 3), 255, np.uint8)
            _draw(self._background, self._lettering(self._layout), self._layout)
        layout = self._layout
        if frame.image.shape != (*layout.frame_size, 3):
            height, width = layout.frame_size
            raise ValueError(
                f"frame {frame.frame} of {frame.source} has shape {frame.image.shape}, wanted "
                f"({height}, {width}, 3) as the first frame"
            )
        for face in frame.faces:
            if len(face.probabilities) != len(self.aus):
                raise ValueError(
                    f"frame {frame.frame} of {frame.source} has a face with "
                    f"{len(face.probabilities)} probabilities, wanted {len(self.aus)}"
                )
        return layout

    def _lettering(self, layout: _Layout) -> Iterator[Shape]:
        """Give the names of the AUs, the legend and the note."""
        line, left = layout.line, layout.left
        # "AU 12L" is wider than "AU 12".
        sides = any(isinstance(facs.au_number(au), str) for au in self.aus)
        indent = 3.1 if sides else 2.7
        if sides:
            yield Label(SIDES, left, layout.ticks, ink=GREY, small=True)
        for i, au in enumerate(self.aus):
            y = layout.row(i)
            yield Label(au_label(au, i), left, y)
            yield Label(facs.au_name(au), left + indent * line, y, ink=GREY)
        y = layout.foot
        x = left
        above = f"{THRESHOLD:g}" if set(self.thresholds) <= {THRESHOLD} else "the mark"
        for colour, text in ((ORANGE, f"\N{CHECK MARK} present, above {above}"), (BLUE, "absent")):
            yield Fill(x, y - 0.25 * line, x + 0.5 * line, y + 0.25 * line, colour)
            label = Label(text, x + 0.8 * line, y)
            yield label
            x = layout.letters.right(label) + 1.2 * line
        if self.attention is not None:
            y += 1.3 * line
            label = Label(f"attention of AU {self.attention}:  0", left, y)
            yield label
            x = layout.letters.right(label) + 0.3 * line
            yield AttentionScale(x, y - 0.25 * line, x + 4 * line, y + 0.25 * line)
            yield Label("1", x + 4.3 * line, y)
        if layout.close_up:
            for i, text in enumerate(("aligned face, as the", "network sees it")):
                yield Label(text, left, layout.close_up_top + (0.4 + i) * line, ink=GREY)
        for i, text in enumerate(layout.note):
            y = layout.body_height + (0.8 + 1.1 * i) * line
            yield Label(text, 0.5 * line, y, ink=VERMILION, bold=True)

    def _values(self, frame: FramePrediction, layout: _Layout) -> Iterator[Shape]:
        """Give what differs from frame to frame."""
        line, left = layout.line, layout.left
        yield Label(_clock(frame.timestamp), left, 1.0 * line, bold=True)
        right = left + (LABELS + CELLS) * line
        yield Label(f"frame {frame.frame}", right, 1.0 * line, ink=GREY, align=1)
        if not frame.faces:
            yield Label("no face", left, layout.head, bold=True)
        elif len(frame.faces) > MAX_FACES:
            yield Label(f"+{len(frame.faces) - MAX_FACES} more", left, layout.head, bold=True)
        for column, (face, x, width) in enumerate(self._cells(frame, layout)):
            if column:
                yield Fill(x, layout.head - 0.4 * line, x + 1, layout.foot - 0.7 * line, GREY)
            yield from self._bars(face, x, width, layout)

    def _bars(
        self, face: FacePrediction | None, left: float, width: float, layout: _Layout
    ) -> Iterator[Shape]:
        """Give the column of bars of one face; empty bars if it is not there."""
        line = layout.line
        bar, end = left + 1.2 * line, left + width - 2.4 * line
        middle = round((bar + end) / 2)
        for value, x in (("0", bar), ("0.5", middle), ("1", end)):
            if end - bar > 4 * line or x != middle:
                yield Label(value, x, layout.ticks, ink=GREY, align=0.5, small=True)
        for i in range(len(self.aus)):
            y = layout.row(i)
            top, bottom = y - 0.32 * line, y + 0.32 * line
            yield Fill(bar, top, end, bottom, PALE)
            if face is not None:
                present, probability = bool(face.present[i]), float(face.probabilities[i])
                if math.isfinite(probability):
                    colour = ORANGE if present else BLUE
                    yield Fill(bar, top, bar + probability * (end - bar), bottom, colour)
                yield Label(f"{probability:.2f}", end + 0.3 * line, y, bold=present)
                if present:
                    yield Label("\N{CHECK MARK}", left + 0.5 * line, y, bold=True)
            mark = round(bar + self.thresholds[i] * (end - bar))
            yield Fill(mark, top - 0.08 * line, mark + layout.stroke, bottom + 0.08 * line, INK)
        if face is not None:
            yield Label(f" face {face.face_id} ", bar, layout.head, ink="#FFFFFF", paper=BLUE)

    def _draw_close_ups(self, canvas: NDArray[np.uint8], frame: FramePrediction, layout: _Layout) -> None:
        for face, left, width in self._cells(frame, layout):
            side = min(layout.close_up, round(width - 1.6 * layout.line))
            if side and face is not None:
                x, y = round(left + 1.2 * layout.line), round(layout.close_up_top)
                close_up = canvas[y : y + side, x : x + side]
                close_up[:] = cv2.resize(face.crop, (side, side), interpolation=cv2.INTER_CUBIC)
                if self._map is not None:
                    _paint(close_up, cv2.resize(_levels(face, self._map), (side, side)))

    def _cells(
        self, frame: FramePrediction, layout: _Layout
    ) -> list[tuple[FacePrediction | None, float, float]]:
        """List the columns of faces: the face, or None while it is away, left edge, and width."""
        self._assign_columns([face.face_id for face in frame.faces])
        faces = {face.face_id: face for face in frame.faces}
        columns = self._columns or [None]
        width = CELLS * layout.line / len(columns)
        left = layout.left + LABELS * layout.line
        return [
            (None if face_id is None else faces[face_id], left + i * width, width)
            for i, face_id in enumerate(columns)
        ]

    def _assign_columns(self, ids: Sequence[int]) -> None:
        """Free the columns of faces that are gone; a column once opened stays, so that nothing jumps."""
        self._columns = [face_id if face_id in ids else None for face_id in self._columns]
        for face_id in ids:
            if face_id not in self._columns:
                if None in self._columns:
                    self._columns[self._columns.index(None)] = face_id
                elif len(self._columns) < MAX_FACES:
                    self._columns.append(face_id)


class VideoWriter:
    """Writes the pictures of a video file; made by `write_video`."""

    def __init__(self, name: str, file: Path, codec: str, fps: float) -> None:
        self._name, self._file, self._codec, self._fps = name, file, codec, fps
        self._writer: cv2.VideoWriter | None = None
        self._shape: tuple[int, ...] = ()
        self._last: NDArray[np.uint8] | None = None  # not yet written, since it may be repeated
        self._index = 0  # of the frame that the last picture begins
        self._began: float | None = None
        self._repeats_left = REPEATS
        self.shortened = 0.0
        """Seconds by which the file is shorter than its timestamps, see `write_video`."""

    def write(self, picture: NDArray[np.uint8], timestamp: float | None = None) -> None:
        """Append a picture, (H, W, 3) uint8 RGB.

        Args:
            picture: a picture of the size of the first one.
            timestamp: seconds at which it appears, relative to the first picture's and rounded to a frame of
                the file; None for the next frame. Of several pictures for one frame the last one is shown.

        Raises:
            ValueError: odd sides, another size than the first picture's, or an OpenCV without this encoder.
        """
        if self._writer is None:
            if picture.ndim != 3 or picture.shape[2] != 3 or picture.shape[0] % 2 or picture.shape[1] % 2:
                raise ValueError(
                    f"{self._name}: got a picture of shape {picture.shape}, wanted (H, W, 3), H and W even"
                )
            self._shape = picture.shape
            self._file.touch()  # raises an OSError if the folder cannot be written
            fourcc = cv2.VideoWriter.fourcc(*self._codec)
            # FFmpeg writes remarks on codecs straight to the terminal.
            with open(os.devnull, "wb") as nowhere, stderr_to(nowhere.fileno()):
                self._writer = cv2.VideoWriter(
                    os.fspath(self._file), fourcc, self._fps, (picture.shape[1], picture.shape[0])
                )
            if not self._writer.isOpened():
                raise ValueError(
                    f"{self._name}: OpenCV cannot write {picture.shape[1]}x{picture.shape[0]} pixels as "
                    f"{self._codec}, which {self._file.suffix} wants; the endings are {', '.join(CODECS)}"
                )
        if picture.shape != self._shape:
            raise ValueError(
                f"{self._name}: got a picture of shape {picture.shape}, wanted {self._shape} as the first one"
            )
        self._repeats_left += REPEATS_A_PICTURE
        if self._last is not None:
            self._show_until(self._index + 1 if timestamp is None else self._index_of(timestamp))
        if self._began is None:
            self._began = timestamp
        self._last = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR).astype(np.uint8, copy=False)

    def hold(self, timestamp: float) -> None:
        """Show the last picture until this time, in seconds, and at least for one frame."""
        self._show_until(max(self._index + 1, self._index_of(timestamp)))
        self._last = None

    def release(self) -> None:
        if self._writer is not None:
            self._show_until(self._index + 1)
            self._last = None
            self._writer.release()

    def _index_of(self, timestamp: float) -> int:
        began = timestamp if self._began is None else self._began
        return round((timestamp - began - self.shortened) * self._fps)

    def _show_until(self, index: int) -> None:
        """Write the last picture into all frames from its own up to this one."""
        if self._last is None or self._writer is None:
            return
        times = index - self._index
        if times - 1 > self._repeats_left:
            self.shortened += (times - 1 - self._repeats_left) / self._fps
            times = 1 + self._repeats_left
        for _ in range(times):
            self._writer.write(self._last)
        self._index += max(0, times)
        self._repeats_left -= max(0, times - 1)


@contextmanager
def write_video(path: str | os.PathLike[str], fps: float) -> Iterator[VideoWriter]:
    """Write a video: ``with write_video(path, fps) as video: video.write(picture, timestamp)``.

    The rate is constant, since OpenCV writes no other. A picture that is shown for longer is repeated, which
    meets its timestamp to half of ``1 / fps``. Pauses are shortened beyond `REPEATS` repetitions in all and
    `REPEATS_A_PICTURE` more for each picture, see `VideoWriter.shortened`.

    The file appears whole when the block ends, or not at all, and replaces an older one. It has no sound.
    Browsers play .webm (VP8); .mp4 (MPEG-4 part 2) and .avi (Motion JPEG) need a player such as VLC.

    Args:
        path: the file; its ending chooses the encoder of `CODECS`.
        fps: pictures a second.

    Raises:
        ValueError: another ending, a rate that is not above 0, or no picture at all; see `VideoWriter.write`.
        OSError: a file that cannot be written.
    """
    path = Path(path)
    codec = CODECS.get(path.suffix.lower())
    if codec is None:
        raise ValueError(f"{path}: a video's name must end with one of {', '.join(CODECS)}")
    if not 0 < fps < float("inf"):
        raise ValueError(f"{path}: the pictures a second of a video must be above 0, got {fps:g}")
    if codec == "mp4v" and fps > 65:
        fps = round(fps)  # MPEG-4 part 2 counts time in at most 65535 parts, OpenCV in thousandths
    with replacing(path) as temporary:
        # OpenCV chooses the container by the ending.
        file = temporary.with_name(temporary.name + path.suffix.lower())
        writer = VideoWriter(str(path), file, codec, fps)
        try:
            yield writer
            writer.release()
            if not file.exists():
                raise ValueError(f"{path}: got no picture, wanted at least one for a video")
            if file.stat().st_size == 0:
                raise OSError(f"{path}: could not be written; is the disk full?")
            os.replace(file, temporary)
        finally:
            writer.release()
            file.unlink(missing_ok=True)


class _Layout:
    """Positions and sizes in the pictures of a video, in pixels."""

    def __init__(self, frame_size: tuple[int, ...], rows: int, note: str, attention: bool) -> None:
        self.frame_size = frame_size
        self.scale = max(1.0, min(SHORTER_SIDE / min(frame_size), LONGER_SIDE / max(frame_size)))
        height, width = self.drawn_size = tuple(max(1, round(side * self.scale)) for side in frame_size)
        self.line = line = max(18.0, min(min(height, width) / 30, height / (rows + OTHER_LINES)))
        self.row_height = min(1.25 * line, max(line, (height - OTHER_LINES * line) / rows))
        self.body_height = round(max(height, OTHER_LINES * line + rows * self.row_height))
        self.stroke = max(1, round(0.09 * line))
        self.letters, self.small = _Letters(0.66 * line), _Letters(0.5 * line)
        canvas_width = _even(width + (LABELS + CELLS + 1.6) * line)
        letters_a_line = max(20, int((canvas_width - line) / self.letters.width("n", bold=True)))
        self.note = textwrap.wrap(note, letters_a_line)
        canvas_height = _even(self.body_height + (1.1 * len(self.note) + 0.5 * bool(self.note)) * line)
        self.size = canvas_height, canvas_width

        self.left = width + 0.8 * line
        """Left edge of the panel's text."""
        self.head = 2.6 * line
        """Middle of the line of the faces' names."""
        self.ticks = self.head + 1.1 * line
        """Middle of the line of the bars' scales."""
        self.foot = self.row(0) + self.row_height * (rows - 0.5) + 0.9 * line
        """Middle of the legend's first line."""
        self.close_up_top = self.foot + (2.2 if attention else 0.9) * line
        room = min(self.body_height - 0.5 * line - self.close_up_top, CELLS * line)
        self.close_up = round(room) if room > 3 * line else 0
        """Side of the pictures of aligned faces below the bars; 0 if there is no room."""

    def row(self, i: int) -> float:
        """Middle of AU i's row."""
        return 4.2 * self.line + (i + 0.5) * self.row_height


class _Letters:
    """Text of one size, drawn once and then pasted."""

    def __init__(self, size: float) -> None:
        folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
        self._fonts = {
            bold: ImageFont.truetype(folder / name, round(size))
            for bold, name in ((False, "DejaVuSans.ttf"), (True, "DejaVuSans-Bold.ttf"))
        }
        self._draw = lru_cache(maxsize=2000)(self._draw_text)

    def width(self, text: str, bold: bool = False) -> float:
        return float(self._fonts[bold].getlength(text))

    def right(self, label: Label) -> int:
        """Give the right edge of a text."""
        width: int = self._picture(label).shape[1]
        return round(label.x - label.align * width) + width

    def put(self, canvas: NDArray[np.uint8], label: Label) -> None:
        """Paste a text, as far as it lies in the canvas."""
        picture = self._picture(label)
        right, top = self.right(label), round(label.y - picture.shape[0] / 2)
        left, bottom = right - picture.shape[1], top + picture.shape[0]
        part = picture[max(0, -top) :, max(0, -left) :]
        place = canvas[max(0, top) : max(0, bottom), max(0, left) : max(0, right)]
        place[:] = part[: place.shape[0], : place.shape[1]]

    def _picture(self, label: Label) -> NDArray[np.uint8]:
        picture: NDArray[np.uint8] = self._draw(label.text, label.ink, label.paper, label.bold)
        return picture

    def _draw_text(self, text: str, ink: str, paper: str, bold: bool) -> NDArray[np.uint8]:
        font = self._fonts[bold]
        ascent, descent = font.getmetrics()
        picture = Image.new("RGB", (max(1, round(font.getlength(text))), ascent + descent), paper)
        ImageDraw.Draw(picture).text((0, ascent), text, ink, font, anchor="ls")
        return np.asarray(picture)


def _draw_face(photo: NDArray[np.uint8], face: FacePrediction, layout: _Layout) -> None:
    size, stroke = np.array(photo.shape[1::-1]), layout.stroke
    # Coordinates far outside, or not a number, do not fit into OpenCV's integers.
    box = np.clip(_drawn(np.reshape(face.box, (2, 2)), layout.scale), -9 * stroke, size + 9 * stroke)
    (left, top), (right, bottom) = box.round().astype(int).tolist()
    for colour, width in (("#FFFFFF", 2 * stroke + 1), (BLUE, stroke)):
        cv2.rectangle(photo, (left, top), (right, bottom), rgb(colour), width)
    radius = max(0.75, (right - left) / 75)  # the dots of a face should not touch
    points = _drawn(face.landmarks, layout.scale)
    points = points[((points > -radius) & (points < size + radius)).all(1)]
    for colour, reach in (("#000000", 1.3 * radius), (ORANGE, radius)):
        # OpenCV draws small circles as diamonds, and a polygon half a pixel beyond its edges.
        dots = ((points[:, None] + (reach - 0.5) * CIRCLE) * FINE).round().astype(np.int32)
        for dot in dots:
            cv2.fillConvexPoly(photo, dot, rgb(colour), cv2.LINE_AA, FINE_BITS)
    y = top - 0.6 * layout.line
    label = max(left - stroke, 0), y if y > 0.5 * layout.line else max(top, 0) + 0.6 * layout.line
    name = f" face {face.face_id}{'' if face.settled else ', not aligned'} "
    layout.letters.put(photo, Label(name, *label, ink="#FFFFFF", paper=BLUE))


def _paint_attention(photo: NDArray[np.uint8], face: FacePrediction, place: int, scale: float) -> None:
    """Paint an attention map over its face."""
    levels, side = _levels(face, place), face.crop.shape[0]
    aligned = aligned_size(side)
    margin = (aligned - side) // 2
    ratio = levels.shape[0] / side
    # From pixels of the photo to the frame's, the aligned picture's, the crop's, and the map's.
    matrix = (
        _affine(ratio, ratio * (0.5 - margin) - 0.5)
        @ np.vstack((alignment_matrix(face.detected_landmarks, size=aligned), (0, 0, 1)))
        @ _affine(1 / scale, 0.5 / scale - 0.5)
    )
    edge = levels.shape[0] - 0.5
    corners = np.array([(-0.5, -0.5), (edge, -0.5), (edge, edge), (-0.5, edge)])
    corners = transform(corners, np.linalg.inv(matrix)[:2])
    low = np.clip(np.floor(corners.min(0)), 0, photo.shape[1::-1]).astype(int)
    high = np.clip(np.ceil(corners.max(0)) + 1, 0, photo.shape[1::-1]).astype(int)
    if (low >= high).any():
        return
    warp = matrix[:2].copy()
    warp[:, 2] += warp[:, :2] @ low
    warped = cv2.warpAffine(
        levels, warp, tuple((high - low).tolist()), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    )
    _paint(photo[low[1] : high[1], low[0] : high[0]], warped)


def _levels(face: FacePrediction, place: int) -> NDArray[np.uint8]:
    """Give an attention map as (m, m) of 0..255."""
    maps = face.initial_maps if face.refined_maps is None else face.refined_maps
    if maps is None:
        raise ValueError("attention wants maps to paint, got a face without attention maps")
    levels: NDArray[np.uint8] = np.rint(255 * np.clip(maps[place], 0, 1)).astype(np.uint8)
    return levels


def _paint(photo: NDArray[np.uint8], levels: NDArray[Any]) -> None:
    """Paint weights of 0..255 into a picture; higher ones are more opaque."""
    colours, transparency = _attention_colours()
    pixels = cv2.merge((levels, levels, levels))
    dimmed = cv2.multiply(photo, cv2.LUT(pixels, transparency), scale=1 / 255)
    photo[:] = cv2.add(dimmed, cv2.LUT(pixels, colours))


@lru_cache(maxsize=1)
def _attention_colours() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Give colour times opacity, and transparency, for each weight: (1, 256, 3) of 0..255 each."""
    weights = np.linspace(0, 1, 256)
    opacity = 0.8 * weights[:, None]
    colours = np.asarray(matplotlib.colormaps["inferno"](weights))[:, :3]
    painted, transparency = (
        (255 * np.broadcast_to(values, (256, 3))).round().astype(np.uint8)[None]
        for values in (colours * opacity, 1 - opacity)
    )
    return painted, transparency


def _affine(scale: float, shift: float) -> NDArray[np.float64]:
    """Give the (3, 3) matrix of ``scale * x + shift`` in x and y."""
    return np.array([(scale, 0, shift), (0, scale, shift), (0, 0, 1)])


def _drawn(places: NDArray[Any], scale: float) -> NDArray[Any]:
    """Map points of a frame to the enlarged frame; pixel centres are whole numbers in both."""
    return (places + 0.5) * scale - 0.5


def _draw(canvas: NDArray[np.uint8], shapes: Iterable[Shape], layout: _Layout) -> None:
    for shape in shapes:
        if isinstance(shape, Label):
            (layout.small if shape.small else layout.letters).put(canvas, shape)
            continue
        left, top, right, bottom = map(round, shape[:4])
        part = canvas[top:bottom, left:right]
        if isinstance(shape, Fill):
            part[:] = rgb(shape.colour)
        else:
            _paint(part, np.tile(np.linspace(0, 255, part.shape[1]).astype(np.uint8), (part.shape[0], 1)))


def _clock(seconds: float) -> str:
    """Write a time as 1:02:03.456, without the hours if there are none."""
    minutes, milliseconds = divmod(round(1000 * seconds), 60000)
    hours, minutes = divmod(minutes, 60)
    rest = f"{milliseconds / 1000:06.3f}"
    return f"{hours}:{minutes:02d}:{rest}" if hours else f"{minutes}:{rest}"


def _even(size: float) -> int:
    return 2 * -(-round(size) // 2)
