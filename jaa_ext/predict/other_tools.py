"""Faces of one video, read from a table of jaa_ext, OpenFace 2 or 3, py-feat or LibreFace."""

from __future__ import annotations

import json
import math
import os
import re
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from jaa_ext import facs
from jaa_ext.models.thresholds import THRESHOLD
from jaa_ext.predict.correction import CORRECTED
from jaa_ext.predict.tables import is_parquet, read_parquet, read_table, reading_table

if TYPE_CHECKING:
    import pandas

Numbers = NDArray[np.float64]

PHOTOGRAPH = {"frame": 1, "timestamp": 0.0, "success": 1}
"""Columns that OpenFace leaves out for photographs."""
NOT_A_NUMBER = ["-nan(ind)", "nan(ind)"]
"""What C++ on Windows writes for a value that is none."""
MOST_FRAMES = 2**31
"""A number of a frame beyond it is none."""

AU_COLUMNS: dict[str, tuple[str | None, str | None, str | None]] = {
    "jaa_ext": (r"(AU\w+)_c", r"(AU\w+)_p", r"(AU\w+)_r"),
    "OpenFace": (r"(AU\w+)_c", r"(AU\w+)_p", r"(AU\w+)_r"),
    "OpenFace 3.0": (None, r"(AU\d\d)", None),
    "py-feat": (None, r"(AU\d\d)", None),
    "LibreFace": (r"au_([0-9]{1,2})", None, r"au_([0-9]{1,2})_intensity"),
}
"""Patterns of each tool's columns of presence, probability and intensity; None where it writes none."""
SOURCE_COLUMNS = {"jaa_ext": "source", "py-feat": "input"}
"""The column that names the video, of tools that write one."""
NO_PRESENCE = tuple(tool for tool, (presence, _, _) in AU_COLUMNS.items() if presence is None)
"""Tools that say how likely an AU is, but not whether it is there."""
OPENFACE3_AUS = (1, 2, 4, 6, 9, 12, 25, 26)
"""The AUs of the eight numbers in ``action_units``, which OpenFace 3.0 does not name in its table."""
CONTOUR = {68: 17, 98: 33}
"""How many landmarks of OpenFace 3.0, the first ones, lie on the contour of the face, where ours are not."""


@dataclass(frozen=True, eq=False)
class FaceTable:
    """The N faces that a tool found in one video; NaN where it says nothing."""

    name: str
    """The file."""
    tool: str
    """One of `AU_COLUMNS`."""
    source: str
    """The video, as the table names it; "" where it names none."""
    corrected: str
    """How its AUs are corrected, see `jaa_ext.predict.correction.Correction.words`; else ""."""
    all_frames: NDArray[np.int64]
    """Numbers of all frames in the table, rising, from 1 for the video's first, with a face or without."""
    frame_times: Numbers | None
    """Seconds of `all_frames`; None where the tool writes none, or whole seconds only."""
    frames: NDArray[np.int64]
    """(N,) number of each face's frame."""
    boxes: Numbers
    """(N, 4) left, top, right, bottom in pixels: what its 49 landmarks span, or else the tool's box."""
    presence: dict[str, Numbers]
    """(N,) of 1 and 0 for each AU, such as ``AU12``."""
    probabilities: dict[str, Numbers]
    """(N,) of 0..1 for each AU."""
    intensities: dict[str, Numbers]
    """(N,) of 0..5 for each AU."""


def read_face_table(path: str | os.PathLike[str]) -> FaceTable:
    """Read a table of one video by `jaa predict` or another tool, recognised by its columns.

    - jaa_ext: has ``source`` and ``success``.
    - OpenFace: has ``frame``, ``timestamp``, ``confidence`` and ``success`` (of a video), or ``face`` and
      ``confidence`` (of a photograph).
    - py-feat: has ``frame`` and ``FaceScore``.
    - OpenFace 3.0: has ``face_id``, ``face_detection`` and ``action_units``, eight AUs of the surest face of
      a frame (``face_id`` 0); its other faces have none.
    - LibreFace: has ``frame_idx`` and ``frame_time_in_ms``, which holds seconds (of a video), or ``pitch``
      and ``facial_expression`` (of a photograph). Its faces have no boxes: its landmarks are shares of a
      picture whose size it does not say.

    Frames of the latter three count from 0 and get 1 more. In py-feat and OpenFace 3.0, which give no
    presence, an AU is present where its value exceeds 0.5. Rows with ``success`` 0, or without a face, hold
    no face.

    Args:
        path: CSV or Parquet.

    Raises:
        FileNotFoundError, ValueError: no such file, or no such table; one of several videos.
        MissingDependency: pandas, or pyarrow for Parquet, is not installed.

    Example:
        >>> read_face_table("openface.csv").presence["AU12"].mean()  # doctest: +SKIP
    """
    path = os.fspath(path)
    if {"source", "success"} <= _column_names(path):
        return _of_ours(path, read_table(path))
    table = _read(path)
    names = set(table.columns)
    if {"frame", "timestamp", "confidence", "success"} <= names or {"face", "confidence"} <= names:
        return _of_openface(path, table)
    if {"frame", "FaceScore"} <= names:
        return _of_pyfeat(path, table)
    if {"face_id", "face_detection", "action_units"} <= names:
        return _of_openface3(path, table)
    if {"frame_idx", "frame_time_in_ms"} <= names or {"pitch", "facial_expression"} <= names:
        return _of_libreface(path, table)
    some = ", ".join(" ".join(name.split())[:40] for name in table.columns[:5])
    raise ValueError(
        f"{path}: is no table of jaa_ext, OpenFace, py-feat or LibreFace; its columns begin with {some}"
    )


def _column_names(path: str) -> set[str]:
    with reading_table(path):
        if is_parquet(path):
            import pyarrow.parquet

            names = pyarrow.parquet.read_schema(path).names
        else:
            import pandas

            names = pandas.read_csv(path, nrows=0).columns
    return {str(name).strip() for name in names}


def _read(path: str) -> pandas.DataFrame:
    """Read a table as it stands."""
    with reading_table(path):
        import pandas

        if is_parquet(path):
            table = read_parquet(path)
        else:
            options = {"skipinitialspace": True, "na_values": NOT_A_NUMBER, "low_memory": False}
            with warnings.catch_warnings():
                warnings.simplefilter("error", pandas.errors.ParserWarning)
                try:
                    table = pandas.read_csv(path, index_col=False, **options)
                except pandas.errors.ParserWarning:
                    raise ValueError("its rows have more cells than its header") from None
    table.columns = [str(name).strip() for name in table.columns]
    return table


def _of_ours(path: str, table: pandas.DataFrame) -> FaceTable:
    _require_one_video(path, table, "source")
    success = _numbers(path, table, "success") == 1
    landmarks = _columns(path, table[success], _landmark_names(range(facs.NUM_LANDMARKS)))
    box = _columns(path, table[success], ["left", "top", "right", "bottom"])
    return _face_table(path, "jaa_ext", table, success, landmarks, box)


def _of_openface(path: str, table: pandas.DataFrame) -> FaceTable:
    import pandas

    if "face" in table:  # of a photograph
        table = pandas.concat((table, pandas.DataFrame(PHOTOGRAPH, table.index)), axis=1)
    success = _numbers(path, table, "success", low=0, high=1, whole=True) == 1
    landmarks = _columns(path, table[success], _landmark_names(facs.DLIB68_TO_49))
    return _face_table(path, "OpenFace", table, success, landmarks, None)


def _of_pyfeat(path: str, table: pandas.DataFrame) -> FaceTable:
    _require_one_video(path, table, "input")
    table = table.assign(frame=_from_0(path, table, "frame"))
    found = _numbers(path, table, "FaceScore", missing=True) > 0
    # With 478 points, x_17 is another than in dlib's scheme of 68.
    points = [] if "x_68" in table else _landmark_names(facs.DLIB68_TO_49)
    x, y, width, height = _columns(
        path, table[found], ["FaceRectX", "FaceRectY", "FaceRectWidth", "FaceRectHeight"]
    ).T
    box = np.stack((x, y, x + width, y + height), 1)
    return _face_table(path, "py-feat", table, found, _columns(path, table[found], points), box)


def _of_openface3(path: str, table: pandas.DataFrame) -> FaceTable:
    for column in ("video_path", "image_path"):
        _require_one_video(path, table, column)
    found = table["face_detection"].notna().to_numpy()
    box = _lists(path, table[found], "face_detection", {15})[:, :4]
    landmarks = np.empty((len(box), 0))
    if "landmarks" in table:
        points = _lists(path, table[found], "landmarks", {2 * count for count in CONTOUR})
        contour = CONTOUR[points.shape[1] // 2]
        landmarks = np.concatenate([points[:, axis::2][:, contour:] for axis in (0, 1)], 1)
    values = _lists(path, table, "action_units", {len(OPENFACE3_AUS)})
    values[_numbers(path, table, "face_id", low=0, whole=True, missing=True) != 0] = math.nan
    frame = _from_0(path, table, "frame_index") if "frame_index" in table else 1
    aus = dict(zip(map(facs.au_column, OPENFACE3_AUS), values.T, strict=True))
    # Its timestamp is the time of the day.
    table = table.drop(columns="timestamp", errors="ignore").assign(frame=frame, **aus)
    return _face_table(path, "OpenFace 3.0", table, found, landmarks, box)


def _of_libreface(path: str, table: pandas.DataFrame) -> FaceTable:
    if "frame_idx" in table:
        table = table.assign(frame=_from_0(path, table, "frame_idx"))
        if "frame_time_in_ms" in table:
            table = table.assign(timestamp=_numbers(path, table, "frame_time_in_ms"))
    else:  # of a photograph
        table = table.assign(**PHOTOGRAPH)
    found = np.ones(len(table), bool)
    return _face_table(path, "LibreFace", table, found, np.empty((len(table), 0)), None)


def _face_table(
    path: str,
    tool: str,
    table: pandas.DataFrame,
    found: NDArray[np.bool_],
    landmarks: Numbers,
    box: Numbers | None,
) -> FaceTable:
    """Make a table of faces.

    Args:
        found: (rows,) whether a row holds a face.
        landmarks: (N, 2K) x, then y; (N, 0) for none.
        box: (N, 4); None for none.
    """
    frames = _numbers(path, table, "frame", low=1, high=MOST_FRAMES, whole=True).astype(np.int64)
    all_frames, first = np.unique(frames, return_index=True)
    times = None
    if "timestamp" in table:
        times = _numbers(path, table, "timestamp")[first]
    faces = int(found.sum())
    boxes = np.full((faces, 4), np.nan) if box is None else box
    if landmarks.size:
        x, y = landmarks.reshape(faces, 2, -1).transpose(1, 0, 2)
        spanned = np.stack((x.min(1), y.min(1), x.max(1), y.max(1)), 1)
        boxes = np.where(np.isnan(spanned).any(1, keepdims=True), boxes, spanned)
    patterns = AU_COLUMNS[tool]
    # Those of py-feat's MPDetector come from a regression, and leave 0..1.
    limits = (0, 1), (-math.inf, math.inf) if tool in NO_PRESENCE else (0, 1), (0, 5)
    presence, probabilities, intensities = (
        {
            _au_name(match[1]): _numbers(
                path, table, name, low=low, high=high, whole=pattern == patterns[0], missing=True
            )[found]
            for name in table.columns
            if pattern is not None and (match := re.fullmatch(pattern, name))
        }
        for pattern, (low, high) in zip(patterns, limits, strict=True)
    )
    if tool in NO_PRESENCE:
        presence = {au: np.where(np.isnan(p), p, p > THRESHOLD) for au, p in probabilities.items()}
    video, corrected = (
        str(table[column].iloc[0]) if column in table and len(table) else ""
        for column in (SOURCE_COLUMNS.get(tool, ""), CORRECTED)
    )
    return FaceTable(
        name=path,
        tool=tool,
        source=video,
        corrected=corrected if tool == "jaa_ext" else "",
        all_frames=all_frames,
        frame_times=times,
        frames=frames[found],
        boxes=boxes,
        presence=presence,
        probabilities=probabilities,
        intensities=intensities,
    )


def _au_name(written: str) -> str:
    """Name an AU as we do: "AU01" for LibreFace's "1"."""
    return facs.au_column(int(written)) if written.isdigit() else written


def _landmark_names(numbers: range | tuple[int, ...]) -> list[str]:
    return [f"{axis}_{i}" for axis in "xy" for i in numbers]


def _columns(path: str, table: pandas.DataFrame, names: list[str]) -> Numbers:
    """Read columns of numbers, (rows, columns); NaN for a column that is not there."""
    absent = np.full(len(table), np.nan)
    columns = [_numbers(path, table, name, missing=True) if name in table else absent for name in names]
    return np.stack(columns, 1) if columns else np.empty((len(table), 0))


def _numbers(
    path: str,
    table: pandas.DataFrame,
    column: str,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    whole: bool = False,
    missing: bool = False,
) -> Numbers:
    """Read a column of numbers; raises a ValueError that names the first row that cannot be one."""
    import pandas

    try:
        numbers = pandas.to_numeric(table[column], errors="coerce").to_numpy("float64", na_value=math.nan)
    except TypeError:  # a column of lists
        raise ValueError(f"{path}: is damaged: column {column} holds no numbers") from None
    fits = (numbers >= low) & (numbers <= high) & (abs(numbers) < math.inf)
    if whole:
        fits &= numbers % 1 == 0
    if missing:
        fits |= table[column].isna().to_numpy()
    if not fits.all():
        raise _cannot_hold(path, table, int(fits.argmin()), column)
    return np.asarray(numbers)


def _from_0(path: str, table: pandas.DataFrame, column: str) -> Numbers:
    """Read numbers of frames that count from 0, and let them count from 1."""
    return _numbers(path, table, column, low=0, high=MOST_FRAMES - 1, whole=True) + 1


def _lists(path: str, table: pandas.DataFrame, column: str, sizes: set[int]) -> Numbers:
    """Read a column of lists of numbers, written as text: (rows, numbers); NaN for an empty cell.

    Args:
        sizes: how many numbers a list may hold, nested or not; all hold the same.
    """
    lists = {}
    for row in np.flatnonzero(table[column].notna()).tolist():
        try:
            numbers = np.array(json.loads(table[column].iloc[row]), np.float64).ravel()
        except (ValueError, TypeError, OverflowError, RecursionError):
            numbers = np.empty(0)
        if numbers.size not in sizes or not np.isfinite(numbers).all():
            raise _cannot_hold(path, table, row, column)
        lists[row], sizes = numbers, {numbers.size}
    read = np.full((len(table), max(sizes)), math.nan)
    for row, numbers in lists.items():
        read[row] = numbers
    return read


def _cannot_hold(path: str, table: pandas.DataFrame, row: int, column: str) -> ValueError:
    return ValueError(
        f"{path}: is damaged: row {table.index[row] + 1} of column {column} cannot hold "
        f"{str(table[column].iloc[row])[:60]!r}"
    )


def _require_one_video(path: str, table: pandas.DataFrame, column: str) -> None:
    names = list(dict.fromkeys(map(str, table[column]))) if column in table else []
    if len(names) > 1:
        some = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
        raise ValueError(f"{path}: wanted the table of one video, got {len(names)}: {some}")
