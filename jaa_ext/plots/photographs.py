"""Predictions drawn over a photograph."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from jaa_ext import facs
from jaa_ext.data.images import as_rgb
from jaa_ext.models.thresholds import THRESHOLD, check_thresholds
from jaa_ext.plots.style import BLUE, GREY, INK, ORANGE, PALE, SIDES, VERMILION, au_label

if TYPE_CHECKING:
    from jaa_ext.predict.prediction import FacePrediction


DRAWN_SIDES = (900, 2400)
"""Range in pixels of the longer side, to which photographs are enlarged or reduced."""
BLOCK_WIDTH, CLOSE_UP = 21.5, 10.0
"""Width of the block of one face and side of its close-up, in line heights."""


def draw_faces(
    image: NDArray[Any],
    predictions: Sequence[FacePrediction],
    aus: Sequence[facs.AU | facs.AURule],
    note: str = "",
    *,
    thresholds: Sequence[float] | None = None,
) -> NDArray[np.uint8]:
    """Draw boxes and landmarks over a photograph and, beside it, each face's AU probabilities and a close-up.

    Args:
        image: the photograph, as `jaa_ext.predict.Predictor` takes it: (H, W), (H, W, 3) or (H, W, 4).
        predictions: its faces.
        aus: the AUs of the probabilities, ``model.config.aus``.
        note: printed at the bottom, ``model.note``.
        thresholds: of the AUs, ``model.thresholds``, marked on their bars; None for 0.5 of each.

    Returns:
        (H', W', 3) uint8 RGB, the photograph at the top left with its longer side within `DRAWN_SIDES`.

    Raises:
        ValueError: another number of thresholds than of AUs; or see `as_rgb`.
    """
    canvas = FigureCanvasAgg(faces_figure(as_rgb(image), predictions, aus, note, thresholds=thresholds))
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]


def faces_figure(
    image: NDArray[np.uint8],
    predictions: Sequence[FacePrediction],
    aus: Sequence[facs.AU | facs.AURule],
    note: str = "",
    *,
    thresholds: Sequence[float] | None = None,
) -> Figure:
    """Lay out what `draw_faces` draws, in data coordinates that are pixels of the picture."""
    thresholds = check_thresholds((THRESHOLD,) * len(aus) if thresholds is None else thresholds, len(aus))
    longer = max(image.shape[:2])
    scale = np.clip(longer, *DRAWN_SIDES) / longer
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    photo = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA)
    line = max(height, width) / 32
    block_width, block_height = BLOCK_WIDTH * line, (len(aus) + 3.0 + CLOSE_UP) * line

    # The number of columns of faces that gives the picture the shortest outline.
    count = max(1, len(predictions))
    columns = min(
        range(1, count + 1), key=lambda c: c * block_width + max(height, -(-count // c) * block_height)
    )
    rows = -(-count // columns) if predictions else 0
    canvas_width = round(width + columns * block_width)
    note_lines = textwrap.wrap(note, int(canvas_width / (0.36 * line)))
    body_height = round(max(height, rows * block_height))
    canvas_height = body_height + round(1.1 * line * len(note_lines) + 0.6 * line * bool(note_lines))

    figure = Figure(figsize=(canvas_width / 72, canvas_height / 72), dpi=72)  # so that a point is a pixel
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(photo, extent=(0, width, height, 0), interpolation="none")

    for face in predictions:
        _draw_box(axes, face, scale, line, (width, height))
    for i, face in enumerate(predictions):
        left, top = width + (i // rows) * block_width, (i % rows) * block_height
        _draw_bars(axes, face, aus, thresholds, left, top, line)
        _draw_close_up(axes, image, face, left + 4.1 * line, top + (len(aus) + 2.2) * line, CLOSE_UP * line)
    if not predictions:
        axes.text(width + line, 1.5 * line, "no face found", size=0.75 * line, color=INK, va="center")
    for i, text in enumerate(note_lines):
        y = body_height + (0.85 + 1.1 * i) * line
        axes.text(0.5 * line, y, text, size=0.62 * line, color=VERMILION, weight="bold", va="center")
    axes.set(xlim=(0, canvas_width), ylim=(canvas_height, 0), aspect="auto")  # imshow moves the limits
    axes.axis("off")
    return figure


def _draw_box(
    axes: Axes, face: FacePrediction, scale: float, line: float, photo_size: tuple[int, int]
) -> None:
    left, top, right, bottom = (edge * scale for edge in face.box)
    stroke = 0.09 * line
    photo = Rectangle((0, 0), *photo_size, transform=axes.transData)
    for colour, width in (("white", 2 * stroke), (BLUE, stroke)):
        box = Rectangle((left, top), right - left, bottom - top, fill=False, ec=colour, lw=width)
        axes.add_patch(box).set_clip_path(photo)
    name = f"face {face.face_id}{'' if face.settled else ', not aligned'}"
    around = {"facecolor": BLUE, "edgecolor": "white", "pad": 0.12 * line, "linewidth": stroke / 2}
    x, y = max(left, 0.2 * line), max(top - 0.25 * line, line)
    axes.text(x, y, name, size=0.62 * line, color="white", va="bottom", bbox=around)
    _draw_landmarks(axes, (face.landmarks + 0.5) * scale, right - left, photo)


def _draw_close_up(
    axes: Axes, image: NDArray[np.uint8], face: FacePrediction, left: float, top: float, side: float
) -> None:
    """Draw the photograph around a face's box into a square of the canvas."""
    x, y = (face.box[0] + face.box[2] + 1) / 2, (face.box[1] + face.box[3] + 1) / 2
    half = 0.7 * max(face.box[2] - face.box[0], face.box[3] - face.box[1])
    scale = side / (2 * half)
    shift = np.array((left, top)) - scale * np.array((x - half, y - half))
    x0, y0 = max(0, round(x - half)), max(0, round(y - half))
    part = image[y0 : max(0, round(y + half)), x0 : max(0, round(x + half))]
    if part.size:
        corners = np.array(((x0, y0), (x0 + part.shape[1], y0 + part.shape[0])))
        (part_left, part_top), (part_right, part_bottom) = scale * corners + shift
        extent = (part_left, part_right, part_bottom, part_top)
        axes.imshow(part, extent=extent, aspect="auto", interpolation="bilinear")
    square = Rectangle((left, top), side, side, transform=axes.transData)
    _draw_landmarks(axes, (face.landmarks + 0.5) * scale + shift, side / 1.4, square)


def _draw_landmarks(axes: Axes, points: NDArray[Any], face_width: float, inside: Rectangle) -> None:
    dot = max(1.0, face_width / 40)  # the dots of a face should not touch
    x, y = points.T
    dots = axes.scatter(x, y, s=dot**2, color=ORANGE, edgecolors="black", linewidths=dot / 8, zorder=3)
    dots.set_clip_path(inside)


def _draw_bars(
    axes: Axes,
    face: FacePrediction,
    aus: Sequence[facs.AU | facs.AURule],
    thresholds: Sequence[float],
    left: float,
    top: float,
    line: float,
) -> None:
    """Draw the block of one face: a line for each AU with mark, number, name, bar and probability."""
    mark, number, name, bar, value = (left + x * line for x in (0.6, 1.5, 4.1, 12.0, 19.4))
    sides = any(isinstance(facs.au_number(au), str) for au in aus)
    if sides:
        name += 0.4 * line  # "AU 12L" is wider than "AU 12"
    bar_width = 7 * line
    size = 0.62 * line
    write = partial(axes.text, color=INK, va="center")
    if sides:
        below = top + (len(aus) + 2.7 + CLOSE_UP) * line  # the close-up
        write(left + 4.1 * line, below, SIDES, size=0.8 * size).set_color(GREY)
    y = top + line
    write(mark, y, f"Face {face.face_id}", size=0.75 * line, weight="bold")
    write(number + 3 * line, y, "\N{CHECK MARK} present", size=size, weight="bold")
    for tick in (0, 0.5, 1):
        write(bar + tick * bar_width, y + 0.3 * line, f"{tick:g}", size=0.8 * size, ha="center")
    for i, (au, probability, present) in enumerate(zip(aus, face.probabilities, face.present, strict=True)):
        y = top + (2.1 + i) * line
        row = partial(write, y=y, size=size, weight="bold" if present else "normal")
        if present:
            row(mark, s="\N{CHECK MARK}")
        row(number, s=au_label(au, i))
        row(name, s=facs.au_name(au))
        row(value, s=f"{probability:.2f}")
        for width, colour in ((1, PALE), (probability, ORANGE if present else BLUE)):
            corner = (bar, y - 0.33 * line)
            axes.add_patch(Rectangle(corner, width * bar_width, 0.66 * line, color=colour, lw=0))
    # One line from top to bottom if all thresholds are equal.
    steps = np.repeat(bar + bar_width * np.array(thresholds), 2)
    ends = top + (1.6 + np.repeat(np.arange(len(aus) + 1), 2)[1:-1]) * line
    axes.plot(steps, ends, color=INK, lw=0.05 * line)
    write(steps[0], top + 0.6 * line, "threshold", size=0.8 * size, ha="center")
