"""Time line: a figure of the AUs of one video over time, from its table of predictions."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, MultipleLocator
from numpy.typing import NDArray

from jaa_ext import facs
from jaa_ext.models.thresholds import THRESHOLD, agrees
from jaa_ext.plots.style import GREY, INK, ORANGE, PALE, SIDES, note_height, rgb, save_figure

if TYPE_CHECKING:
    import pandas

MAX_FACES = 4
"""Most faces that have a panel; those seen longest."""
COLUMNS = 1200
"""Width of the time axis in pixels."""
STRIP, MARK, SPACE = 16, 5, 5
"""Pixels of an AU's row: its probability, below it whether it is present, and what keeps rows apart."""
ROW = STRIP + MARK + SPACE
"""Pixels of the row of an AU; that of both sides of one is higher by another strip and mark."""
MINUTES_FROM = 120
"""Seconds from which on the axis shows minutes."""
DPI = 120
COLOURS = "GnBu"
"""Colour map of probabilities, which runs from pale to dark in print and for colour-blind readers too."""


def timeline_figure(table: pandas.DataFrame, path: str | os.PathLike[str], *, note: str = "") -> None:
    """Save the AUs of a video over time as a PNG: a panel a face, a row an AU, its probability as colour.

    Below its colours a row is marked where the AU is present. An AU of which both sides are there has one row
    with two strips, the person's left above the right. Where the face was not found it is grey and
    hatched; nothing is interpolated. Where a pixel column stands for several frames it shows their maximum,
    so that a short action is not lost, and is hatched if the face is missing in half of them or more.

    Args:
        table: predictions of one video, see `jaa_ext.predict.tables.columns`; needs frame, face_id,
            timestamp, success, and for each AU its columns such as AU01_c and AU01_p.
        path: the PNG file.
        note: printed at the bottom, ``model.note``; by default what the table's column weights says.

    Raises:
        ValueError: an empty table, one without these columns, or of several sources.
    """
    names = _au_names(table)
    source = _source(table)
    note = note or distinct_text(table, "weights")
    time = _Time.of(table)
    # A face without a neutral face of its own has no AUs in a corrected table.
    seen = table[table["success"] == 1].dropna(subset=[f"{name}_p" for name in names], how="all")
    counts = seen["face_id"].value_counts(sort=False).sort_index().sort_values(ascending=False, kind="stable")
    ids = sorted(counts.index[:MAX_FACES].tolist())

    # Sizes in pixels, so that a column of time and a row of an AU are whole ones.
    empty = sorted(set(table.loc[table["success"] == 1, "face_id"]) - set(counts.index))
    sides = any(name[-1] in "LR" for name in names)
    own_thresholds = not all(
        agrees(table[f"{name}_p"].to_numpy(float), table[f"{name}_c"].to_numpy(float), THRESHOLD).all()
        for name in names
    )
    caption = _caption(
        time,
        counts.iloc[MAX_FACES:].tolist(),
        empty,
        corrected=distinct_text(table, "corrected"),
        sides=sides,
        own_thresholds=own_thresholds,
    )
    left, right, head, gap, foot = 225, 40, 80, 62, 56 + 18 * len(caption)
    rows = _Row.all_of(names)
    depth = rows[-1].top + rows[-1].height + SPACE
    panels = max(1, len(ids))
    width, height = left + COLUMNS + right, head + panels * depth + (panels - 1) * gap + foot
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    room = round(note_height(figure, note) * height)
    height += room
    figure.set_figheight(height / DPI)

    for panel in range(panels):
        bottom = height - head - panel * (depth + gap) - depth
        axes = figure.add_axes((left / width, bottom / height, COLUMNS / width, depth / height))
        if ids:
            _draw_rows(axes, seen[seen["face_id"] == ids[panel]], rows, time)
            title = f"face {ids[panel]:g}: in {counts[ids[panel]]:,} of {len(time.frames):,} frames"
        else:
            _draw_rows(axes, seen, rows, time)
            title = f"no face in {len(time.frames):,} frames"
        axes.set_title(title, loc="left", size=9, weight="bold", color=INK, pad=5)
        _name_rows(axes, rows)
        _set_time_axis(axes, time)
    axes.set_xlabel("time (s)" if time.end < MINUTES_FROM else "time (min:s)", size=9)
    top: dict[str, Any] = {"transform": None, "color": INK, "va": "top"}
    figure.text(left, height - 12, source, size=10, weight="bold", parse_math=False, **top)
    for i, sentence in enumerate(caption):
        figure.text(left, room + 18 * (len(caption) - i), sentence, size=8, **top)
    _draw_legend(figure, width - right, width, height)
    save_figure(figure, path, note)


def distinct_text(table: pandas.DataFrame, column: str) -> str:
    """Give what a column of text says, each text once; "" if the table lacks it."""
    return " ".join(dict.fromkeys(table[column].dropna().astype(str))) if column in table else ""


def frame_times(table: pandas.DataFrame, where: str = "") -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Give the numbers of a table's frames, rising, and their times in seconds.

    Raises:
        ValueError: a time falls; the message begins with `where`.
    """
    frames, places = np.unique(table["frame"].to_numpy(np.int64), return_index=True)
    times = table["timestamp"].to_numpy(np.float64)[places]
    rises = np.diff(times) >= 0
    if not rises.all():
        i = int(np.argmin(rises))
        raise ValueError(
            f"{where}time must rise with the frames, got {times[i]:g} s for frame {frames[i]} and "
            f"{times[i + 1]:g} s for frame {frames[i + 1]}"
        )
    return frames, times


class _Row(NamedTuple):
    """The row of an AU."""

    names: tuple[str, ...]
    """The AU as ``AU12``, or its two sides."""
    top: int
    """Pixels from the top of the panel."""

    @property
    def height(self) -> int:
        """Pixels."""
        return len(self.names) * (STRIP + MARK)

    @property
    def label(self) -> str:
        """Name and number of the AU; the number alone says the side, for which the name has no room."""
        name = self.names[0]
        number, words = facs.column_in_words(name if len(self.names) == 1 else name[:-1])
        return f"{words.partition(',')[0]}  {number}".strip()

    @classmethod
    def all_of(cls, names: list[str]) -> list[_Row]:
        rows: list[_Row] = []
        for group in facs.group_sides(names):
            rows.append(cls(group, rows[-1].top + rows[-1].height + SPACE if rows else 0))
        return rows


class _Time(NamedTuple):
    """Frames of a video, and the pixel columns that show them."""

    frames: NDArray[np.int64]
    """(N,) numbers of the frames in the table, rising."""
    first: NDArray[np.int64]
    """(COLUMNS,) index of the first frame that a column shows."""
    stop: NDArray[np.int64]
    """(COLUMNS,) index after its last frame; equal to `first` in a gap between frames."""
    start: float
    end: float
    """Seconds."""

    @classmethod
    def of(cls, table: pandas.DataFrame) -> _Time:
        frames, starts = frame_times(table)
        steps = np.diff(starts)
        # A frame lasts until the next one, but no longer than usual, since frames may be missing.
        usual = (float(np.median(steps)) if len(steps) else 0.0) or 1.0
        ends = np.append(np.minimum(starts[1:], starts[:-1] + 1.5 * usual), starts[-1] + usual)
        width = (ends[-1] - starts[0]) / COLUMNS
        # A time at the edge of a column, but for rounding, belongs to the column that begins there.
        begins = np.floor((starts - starts[0]) / width + 1e-6).astype(np.int64)
        columns = np.arange(COLUMNS)
        # The frames that begin in a column, or else the frame shown in its middle.
        first = np.searchsorted(begins, columns, side="left")
        stop = np.searchsorted(begins, columns, side="right")
        on = first - 1
        is_on = starts[0] + (columns + 0.5) * width < ends[on]
        first, stop = np.where(first < stop, (first, stop), (on, on + is_on))
        return cls(frames, first, stop, float(starts[0]), float(ends[-1]))

    def total(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        """Sum values of the frames, (N,), over each column."""
        sums = np.concatenate(((0,), np.cumsum(values)))
        return sums[self.stop] - sums[self.first]

    def maximum(self, places: NDArray[np.int64], values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Give the highest value of each column at these indices; 0 if it has none."""
        frames = np.zeros(len(self.frames) + 1)
        frames[places] = values
        slices = np.stack((self.first, self.stop), 1).ravel()
        return np.where(self.first < self.stop, np.maximum.reduceat(frames, slices)[::2], 0)


def _au_names(table: pandas.DataFrame) -> list[str]:
    """List the AUs of the table as ``AU01``, in its order; raises if a column is missing."""
    names = facs.predicted_aus(table.columns)
    wanted = ["frame", "face_id", "timestamp", "success", *(f"{name}_c" for name in names)]
    missing = [column for column in wanted if column not in table] + ([] if names else ["AU.._p"])
    if missing:
        raise ValueError(f"the table lacks the column {missing[0]!r}")
    if table.empty:
        raise ValueError("got an empty table, wanted at least one row")
    return names


def _source(table: pandas.DataFrame) -> str:
    sources = table["source"].astype(str).unique().tolist() if "source" in table else [""]
    if len(sources) > 1:
        more = f" and {len(sources) - 3} more" if len(sources) > 3 else ""
        raise ValueError(
            f"wanted the table of one video, got {len(sources)} sources: {', '.join(sources[:3])}{more}"
        )
    return os.path.basename(sources[0])


def _draw_rows(axes: Axes, face: pandas.DataFrame, rows: list[_Row], time: _Time) -> None:
    """Draw the strips of the AUs of one face."""
    places = np.searchsorted(time.frames, face["frame"].to_numpy(np.int64))
    known = np.zeros(len(time.frames), np.int64)
    known[places] = 1
    counts = time.total(known)
    picture = np.full((rows[-1].top + rows[-1].height, COLUMNS, 3), 255, np.uint8)
    for i, name, top in ((i, name, row.top) for row in rows for i, name in enumerate(row.names)):
        top = top + i * (STRIP + MARK)
        probability, present = (
            time.maximum(places, face[f"{name}_{kind}"].to_numpy(np.float64)) for kind in "pc"
        )
        strip = picture[top : top + STRIP]
        strip[:] = matplotlib.colormaps[COLOURS](probability, bytes=True)[:, :3]
        picture[top + STRIP : top + STRIP + MARK, present > 0.5] = rgb(ORANGE)
    picture[:, counts == 0] = rgb(PALE)
    axes.imshow(picture, extent=(time.start, time.end, len(picture), 0), aspect="auto", interpolation="none")
    gaps = 2 * counts <= time.stop - time.first
    starts, stops = (np.flatnonzero(np.diff(gaps.astype(int), prepend=0, append=0) == d) for d in (1, -1))
    column = (time.end - time.start) / COLUMNS
    bars = [(time.start + a * column, (b - a) * column) for a, b in zip(starts, stops, strict=True)]
    axes.broken_barh(bars, (0, len(picture)), facecolor="none", edgecolor=GREY, hatch="//", linewidth=0.5)
    axes.set(xlim=(time.start, time.end), ylim=(len(picture) + SPACE, 0))


def _name_rows(axes: Axes, rows: list[_Row]) -> None:
    """Write the AUs beside their rows, and the sides beside their strips."""
    ticks = [row.top + (row.height - MARK) / 2 for row in rows]
    axes.set_yticks(ticks, [row.label for row in rows], size=8)
    for label, row in zip(axes.get_yticklabels(), rows, strict=True):
        if len(row.names) == 1:
            continue
        label.set_x(-0.012)  # room for the letters
        for i, side in enumerate("LR"):
            axes.annotate(
                side,
                (0, row.top + i * (STRIP + MARK) + STRIP / 2),
                (-3.5, 0),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                size=8,
                weight="bold",
                ha="right",
                va="center",
            )


def _set_time_axis(axes: Axes, time: _Time) -> None:
    axes.spines[:].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=8)
    if time.end < MINUTES_FROM:
        axes.xaxis.set_major_locator(MaxNLocator(12, steps=(1, 2, 5, 10)))
        return
    span = time.end - time.start
    steps = (10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)
    step = next((step for step in steps if span / step <= 12), 3600 * -(-span // (12 * 3600)))
    axes.xaxis.set_major_locator(MultipleLocator(step))
    axes.xaxis.set_major_formatter(lambda seconds, _: f"{round(seconds) // 60}:{round(seconds) % 60:02d}")


def _draw_legend(figure: Figure, right: float, width: float, height: float) -> None:
    """Draw the legend of colours, mark and hatching above the panels, up to the pixel column `right`."""
    bar = figure.add_axes(((right - 200) / width, (height - 26) / height, 200 / width, 12 / height))
    figure.colorbar(ScalarMappable(Normalize(0, 1), COLOURS), cax=bar, orientation="horizontal")
    bar.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    bar.tick_params(labelsize=8, length=2, pad=2)
    figure.legend(
        handles=[
            Patch(color=ORANGE, label="present"),
            Patch(facecolor=PALE, edgecolor=GREY, hatch="///", linewidth=0, label="face not found"),
            Patch(color="none", label="probability"),
        ],
        ncols=3,
        loc="center right",
        bbox_to_anchor=((right - 205) / width, (height - 20) / height),
        fontsize=8,
        frameon=False,
        borderaxespad=0,
    )


def _caption(
    time: _Time,
    left_out: list[int],
    empty: list[float],
    *,
    corrected: str,
    sides: bool,
    own_thresholds: bool,
) -> list[str]:
    """Say how AUs are corrected, whose sides L and R are, when AUs are present, what columns of several
    frames show, and which faces are left out.

    Args:
        left_out: in how many frames each face is seen that has no panel.
        empty: ids of the faces without AUs.
    """
    sentences = [f"AUs are corrected: {corrected}."] if corrected else []
    if sides:
        sentences.append(f"{SIDES}.")
    if own_thresholds:
        sentences.append(
            f"Some AUs are present above another threshold than {THRESHOLD}: that in the model's file."
        )
    if len(time.frames) > COLUMNS:
        sentences.append(
            f"A column of pixels shows the maximum of about {len(time.frames) / COLUMNS:.0f} frames, and is "
            "hatched where the face is missing in half of them or more."
        )
    if left_out:
        faces = "1 more face is" if len(left_out) == 1 else f"{len(left_out)} more faces are"
        sentences.append(f"{faces} left out, seen in at most {left_out[0]:,} frames.")
    if empty:
        faces = f"face{'s' * (len(empty) > 1)} {', '.join(f'{face:g}' for face in empty)}"
        sentences.append(f"Without AUs, and left out: {faces}, of which no neutral face was seen.")
    return sentences
