"""Tables of predictions under the columns of OpenFace 2 or py-feat."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

from jaa_ext import facs
from jaa_ext.atomic import replacing
from jaa_ext.predict.tables import AU_COLUMN, OTHER_NUMBERS, POSE_COLUMNS, read_table, require_table

if TYPE_CHECKING:
    import pandas

Tool = Literal["openface", "pyfeat"]

OPENFACE_INTENSITIES = (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26, 45)
OPENFACE_PRESENCES = (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26, 28, 45)
PYFEAT_AUS = (1, 2, 4, 5, 6, 7, 9, 10, 11, 12, 14, 15, 17, 20, 23, 24, 25, 26, 28, 43)

GROUPS = (
    (r"left|top|right|bottom", "the box"),
    (r"[xy]_(\d|1[0-6]|60|64)", "landmarks 0 to 16, 60 and 64"),
    (r"pose_\w+|Pitch|Roll|Yaw", "head pose"),
    (r"AU\w+_raw", "raw values"),
)
"""Patterns of columns that a sentence names by one word where all of them are meant."""
AU_GROUPS = (
    (r"(AU\w+)_c", "presence"),
    (r"(AU\w+)_r", "intensity"),
    (r"(AU[^_]+)(_p)?", "probability"),
    (r"(AU\w+)_asymmetry", "asymmetry"),
    (r"(AU\w+)_asymmetry_intensity", "asymmetry of intensities"),
)
MOST_NAMED = 10
"""Most columns that a sentence names one by one."""


class Converted(NamedTuple):
    """A table under another tool's columns, and a sentence on what could not be converted."""

    table: pandas.DataFrame
    note: str


def convert_table(table: pandas.DataFrame, to: Tool) -> Converted:
    """Convert a table of predictions to the columns of another tool.

    Every group of columns of which a table can have anything is whole and in the tool's order, whatever the
    model: a cell is empty where there is no value. Groups of which it has nothing are left out, such as gaze.

    - ``openface``: those of ``FeatureExtraction -pose -2Dfp -aus`` of OpenFace 2.2. A frame without a face is
      of face 0, with success 0 and empty cells.
    - ``pyfeat``: those of ``Detectorv1`` of py-feat 2.1. Frames count from 0 (photographs too, in the table's
      order), ``AU01`` is the probability, ``Identity`` is made of the face's id, ``approx_time`` is there for
      videos. Pitch and Roll have the opposite sign of ``pose_Rx`` and ``pose_Rz``.

    Of the 68 landmarks of both tools the 19 that `facs.DLIB68_TO_49` lacks are empty.

    Args:
        table: see `read_table`; head pose (``pose_Tx`` to ``pose_Rz``) and intensities are taken if there.
        to: the tool.

    Raises:
        ValueError: an unknown tool, or for ``openface`` a table of several sources.

    Example:
        >>> import numpy as np
        >>> from jaa_ext.predict import FramePrediction
        >>> from jaa_ext.predict.tables import data_frame
        >>> frame = FramePrediction("talk.mp4", 1, 0.0, np.zeros((9, 9, 3), np.uint8), [])
        >>> converted = convert_table(data_frame([frame], (1, 12)), "openface")
        >>> list(converted.table.columns)[:6]
        ['frame', 'face_id', 'timestamp', 'confidence', 'success', 'pose_Tx']
    """
    if to not in get_args(Tool):
        raise ValueError(f'to must be "openface" or "pyfeat", got "{to}"')
    table = _with_numbers(table)
    made = _openface(table) if to == "openface" else _pyfeat(table)
    return Converted(made.table, made.sentence({"openface": "OpenFace", "pyfeat": "py-feat"}[to]))


def convert_file(path: str | os.PathLike[str], to: Tool, out: str | os.PathLike[str]) -> str:
    """Convert the table in a file, see `convert_table`; returns the sentence on what could not be converted.

    Args:
        path: a table of `jaa predict`, CSV or Parquet.
        to: the tool.
        out: the table to write, CSV or Parquet by its ending, whole or not at all.

    Raises:
        FileNotFoundError, ValueError: no such table, see `read_table`, `convert_table`; or `out` is `path`.
        MissingDependency: pandas, or pyarrow for Parquet, is not installed.

    Example:
        >>> convert_file("talk.csv", "openface", "talk_openface.csv")  # doctest: +SKIP
    """
    require_table(out)
    if os.path.exists(out) and os.path.exists(path) and os.path.samefile(path, out):
        raise ValueError(f"{os.fspath(out)}: is the table itself; name another file")
    table = read_table(path)
    try:
        table, note = convert_table(table, to)
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from None
    with replacing(out) as temporary:
        if Path(out).suffix.lower() == ".parquet":
            table.to_parquet(temporary, index=False)
        else:
            table.to_csv(temporary, index=False)
    return note


class _Made:
    """A table in the making, which remembers what of ours it took and which of its columns stay empty."""

    def __init__(self, ours: pandas.DataFrame) -> None:
        self.ours = ours
        self._columns: dict[str, pandas.Series] = {}
        self._taken: set[str] = set()
        self._empty: list[str] = []

    @property
    def table(self) -> pandas.DataFrame:
        import pandas

        return pandas.DataFrame(self._columns, index=self.ours.index)

    def take(self, theirs: str, name: str, *, whole: bool = False) -> None:
        """Add a column: one of ours, or an empty one if we lack it."""
        import pandas

        if name in self.ours:
            self.add(theirs, self.ours[name], name)
        else:
            self.add(theirs, pandas.Series(float("nan"), self.ours.index, dtype="float64"))
            self._empty.append(theirs)
        if whole:
            self._columns[theirs] = self._columns[theirs].astype("Int64")

    def add(self, theirs: str, column: pandas.Series, *made_of: str) -> None:
        """Add a column that is made of some of ours."""
        self._columns[theirs] = column
        self._taken.update(made_of)

    def take_landmarks(self) -> None:
        """Add the 68 landmarks of dlib's scheme, all x before all y."""
        ours = {theirs: i for i, theirs in enumerate(facs.DLIB68_TO_49)}
        for axis in "xy":
            for i in range(68):
                self.take(f"{axis}_{i}", f"{axis}_{ours[i]}" if i in ours else "")

    def sentence(self, tool: str) -> str:
        """Say which of our columns are left out, and which of the tool's are empty."""
        # Of all columns, so that what one table has of some AUs and the other of others is told of each.
        among = [*self.ours.columns, *self._columns]
        left_out = _named([name for name in self.ours.columns if name not in self._taken], among)
        empty = _named(self._empty, among)
        parts = [f"{tool} has no column for {_listed(left_out)}"] if left_out else []
        parts += [f"empty, since the table lacks it: {_listed(empty)}"] if empty else []
        return "; ".join(parts) + "."


def _with_numbers(table: pandas.DataFrame) -> pandas.DataFrame:
    """Make numbers of our columns of numbers, which in Parquet may be text."""
    import pandas

    ours = [
        name
        for name in map(str, table.columns)
        if name in ("frame", "face_id", "timestamp", "success")
        or AU_COLUMN.fullmatch(name)
        or OTHER_NUMBERS.fullmatch(name)
    ]
    return table.assign(**{name: pandas.to_numeric(table[name]) for name in ours})


def _openface(table: pandas.DataFrame) -> _Made:
    sources = table["source"].unique().tolist()
    if len(sources) > 1:
        raise ValueError(
            f"wanted the table of one video or photograph, since OpenFace names none; got {len(sources)}: "
            f"{_listed([str(source) for source in sources])}"
        )
    made = _Made(table)
    made.take("frame", "frame")
    made.add("face_id", table["face_id"].clip(lower=0), "face_id")
    for name in ("timestamp", "confidence", "success", *POSE_COLUMNS):
        made.take(name, name)
    made.take_landmarks()
    for numbers, ending in ((OPENFACE_INTENSITIES, "_r"), (OPENFACE_PRESENCES, "_c")):
        for name in (f"{facs.au_column(number)}{ending}" for number in numbers):
            made.take(name, name, whole=ending == "_c")
    return made


def _pyfeat(table: pandas.DataFrame) -> _Made:
    made = _Made(table)
    made.take("FaceRectX", "left")
    made.take("FaceRectY", "top")
    for theirs, low, high in (("FaceRectWidth", "left", "right"), ("FaceRectHeight", "top", "bottom")):
        if low in table and high in table:
            made.add(theirs, (table[high] - table[low]).round(2), high)
        else:
            made.take(theirs, "")
    made.take("FaceScore", "confidence")
    made.take_landmarks()
    for theirs, name, sign in (("Pitch", "pose_Rx", -1), ("Roll", "pose_Rz", -1), ("Yaw", "pose_Ry", 1)):
        if name in table:
            made.add(theirs, 0.0 + sign * table[name], name)
        else:
            made.take(theirs, name)
    for theirs in "XYZ":
        made.take(theirs, "")
    for column in map(facs.au_column, PYFEAT_AUS):
        made.take(column, f"{column}_p")
    made.take("input", "source")
    photographs, _ = table["source"].factorize()
    if (table["frame"] > 1).any():  # photographs are all of frame 1
        made.add("frame", table["frame"] - 1, "frame")
        seconds = table["timestamp"].floordiv(1).astype(int)
        made.add("approx_time", seconds.map(lambda s: f"{s // 60:02d}:{s % 60:02d}"), "timestamp")
    else:
        made.add("frame", 0 * table["frame"] + photographs, "frame", "timestamp")
    names = table["face_id"].map(lambda face: f"Person_{face:.0f}" if face >= 0 else None)
    made.add("Identity", names, "face_id")
    return made


def _named(names: Sequence[str], among: Iterable[str]) -> list[str]:
    """Name columns, a whole group by one word, and AUs together."""
    names, among = list(names), list(among)
    for pattern, group in GROUPS:
        members = [name for name in among if re.fullmatch(pattern, name)]
        if members and set(members) <= set(names):
            names[names.index(members[0])] = group
            names = [name for name in names if name not in members]
    for pattern, what in AU_GROUPS:
        matches = [match for name in names if (match := re.fullmatch(pattern, name))]
        if matches:
            some = len(matches) < sum(bool(re.fullmatch(pattern, name)) for name in among)
            names = [name for name in names if not re.fullmatch(pattern, name)]
            names.append(f"{what} of {'/'.join(match[1] for match in matches)}" if some else what)
    return names


def _listed(names: list[str]) -> str:
    """List names with commas; the first of many, and how many more there are."""
    if len(names) > MOST_NAMED:
        return f"{', '.join(names[: MOST_NAMED - 1])} and {len(names) - MOST_NAMED + 1} more"
    return ", ".join(names)
