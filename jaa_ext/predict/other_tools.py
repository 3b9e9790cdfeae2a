"""Faces of one video, read from a table of jaa_ext, OpenFace 2 or py-feat."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from jaa_ext import facs
from jaa_ext.models.thresholds import THRESHOLD
from jaa_ext.predict.tables import is_parquet, read_table, reading_table

if TYPE_CHECKING:
    import pandas

Numbers = NDArray[np.float64]

PHOTOGRAPH = {"frame": 1, "timestamp": 0.0, "success": 1}
"""Columns that OpenFace leaves out for photographs."""
NOT_A_NUMBER = ["-nan(ind)", "nan(ind)"]
"""What C++ on Windows writes for a value that is none."""


@dataclass(frozen=True, eq=False)
class FaceTable:
    """The N faces that a tool found in one video; NaN where it says nothing."""

    name: str
    """The file."""
    tool: str
    """"jaa_ext", "OpenFace" or "py-feat"."""
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
    """Read a table of one video by `jaa predict`, OpenFace 2 or py-feat, recognised by its columns.

    - jaa_ext: has ``source`` and ``success``.
    - OpenFace: has ``frame``, ``timestamp``, ``confidence`` and ``success`` (of a video), or ``face`` and
      ``confidence`` (of a photograph).
    - py-feat: has ``frame`` and ``FaceScore``. Its frames count from 0 and get 1 more. An AU is present where
      its value exceeds 0.5, since py-feat gives probabilities alone.

    Rows with ``success`` 0, or in py-feat without a face, hold no face.

    Args:
        path: CSV or Parquet.

    Raises:
        FileNotFoundError, ValueError: no such file, or no such table; one of several videos.
        MissingDependency: pandas, or pyarrow for Parquet, is not installed.

    Example:
        >>> read_face_table("openface.csv").presence["AU12"].mean()  # doctest: +SKIP
    """
    path = os.fspath(path)
    names = _column_names(path)
    if {"source", "success"} <= names:
        return _of_ours(path, read_table(path))
    table = _read(path)
    if {"frame", "timestamp", "confidence", "success"} <= names or {"face", "confidence"} <= names:
        return _of_openface(path, table)
    if {"frame", "FaceScore"} <= names:
        return _of_pyfeat(path, table)
    some = ", ".join(str(name) for name in table.columns[:5])
    raise ValueError(f"{path}: is no table of jaa_ext, OpenFace 2 or py-feat; its columns begin with {some}")


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
            table = pandas.read_parquet(path)
        else:
            options = {"skipinitialspace": True, "na_values": NOT_A_NUMBER, "low_memory": False}
            table = pandas.read_csv(path, **options)
    table.columns = [str(name).strip() for name in table.columns]
    return table


def _of_ours(path: str, table: pandas.DataFrame) -> FaceTable:
    _require_one_video(path, table, "source")
    success = table["success"].to_numpy() == 1
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
    table = table.assign(frame=_numbers(path, table, "frame", low=0, whole=True) + 1)
    found = _numbers(path, table, "FaceScore", missing=True) > 0
    # With 478 points, x_17 is another than in dlib's scheme of 68.
    points = [] if "x_68" in table else _landmark_names(facs.DLIB68_TO_49)
    x, y, width, height = _columns(
        path, table[found], ["FaceRectX", "FaceRectY", "FaceRectWidth", "FaceRectHeight"]
    ).T
    box = np.stack((x, y, x + width, y + height), 1)
    return _face_table(path, "py-feat", table, found, _columns(path, table[found], points), box)


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
        landmarks: (N, 98) x, then y; (N, 0) for none.
        box: (N, 4); None for none.
    """
    frames = _numbers(path, table, "frame", low=1, whole=True).astype(np.int64)
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
    presence, probabilities, intensities = (
        {
            match[1]: _numbers(path, table, name, low=low, high=high, whole=whole, missing=True)[found]
            for name in table.columns
            if (match := re.fullmatch(pattern, name))
        }
        for pattern, low, high, whole in (
            (r"(AU\w+)_c", 0, 1, True),
            # Those of py-feat's MPDetector come from a regression, and leave 0..1.
            (r"(AU\d\d)", -math.inf, math.inf, False) if tool == "py-feat" else (r"(AU\w+)_p", 0, 1, False),
            (r"(AU\w+)_r", 0, 5, False),
        )
    )
    if tool == "py-feat":
        presence = {au: np.where(np.isnan(p), p, p > THRESHOLD) for au, p in probabilities.items()}
    return FaceTable(
        name=path,
        tool=tool,
        all_frames=all_frames,
        frame_times=times,
        frames=frames[found],
        boxes=boxes,
        presence=presence,
        probabilities=probabilities,
        intensities=intensities,
    )


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
        row = int(fits.argmin())
        raise ValueError(
            f"{path}: is damaged: row {table.index[row] + 1} of column {column} cannot hold "
            f"{str(table[column].iloc[row])[:60]!r}"
        )
    return np.asarray(numbers)


def _require_one_video(path: str, table: pandas.DataFrame, column: str) -> None:
    names = [str(name) for name in table[column].unique()] if column in table else []
    if len(names) > 1:
        some = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
        raise ValueError(f"{path}: wanted the table of one video, got {len(names)}: {some}")
