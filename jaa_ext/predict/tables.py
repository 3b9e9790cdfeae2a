"""Tables of predictions: a row for each face, and one for each frame without a face."""

from __future__ import annotations

import csv
import importlib.util
import io
import math
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeGuard

import numpy as np

from jaa_ext import facs
from jaa_ext.atomic import replacing
from jaa_ext.predict.asymmetry import DIGITS, asymmetry, asymmetry_columns
from jaa_ext.predict.correction import CORRECTED, RAW, Correction, correct_csv
from jaa_ext.predict.detector import MissingDependency
from jaa_ext.predict.pose import HeadPose
from jaa_ext.predict.prediction import FramePrediction

if TYPE_CHECKING:
    import pandas

NO_FACE = -1
"""Face id in the row of a frame without a face."""

POSE_COLUMNS = ("pose_Tx", "pose_Ty", "pose_Tz", "pose_Rx", "pose_Ry", "pose_Rz")

TABLE_ENDINGS = (".csv", ".parquet")

AU_COLUMN = re.compile(r"AU\w+_[cpr](_raw)?")
ASYMMETRY_COLUMN = re.compile(r"AU\w+_asymmetry(_intensity)?(_raw)?")
TEXT_COLUMNS = ("source", "weights", CORRECTED)
OTHER_NUMBERS = re.compile(r"confidence|merged|[xy]_\d+|left|top|right|bottom|pose_[TR][xyz]")
"""Columns of numbers besides the AUs and the first five columns."""


def columns(aus: Sequence[facs.AU | facs.AURule], intensity: bool = False) -> list[str]:
    """List the columns of a table of predictions.

    First come columns of OpenFace 2 under its names: ``frame`` (number in the video, from 1; 1 for a
    photograph), ``face_id`` (from 0; -1 in a frame without a face), ``timestamp`` (seconds), ``confidence``
    (0..1), ``success`` (1 or 0), the landmarks ``x_0`` to ``x_48`` and ``y_0`` to ``y_48`` (pixels of the
    frame) and the presence ``AU01_c`` of each AU (1 or 0). Then come our own: the probability ``AU01_p`` of
    each AU, the face's box ``left``, ``top``, ``right``, ``bottom`` (pixels), ``source`` (the file) and
    ``weights`` (the note of the model's weights). There follow, again as in OpenFace 2, the head's place
    ``pose_Tx``, ``pose_Ty``, ``pose_Tz`` (millimetres) and turn ``pose_Rx``, ``pose_Ry``, ``pose_Rz``
    (radians), see `jaa_ext.predict.pose`; our own ``merged``, the likeness by which a face that came back got
    its id again, in its first row after that, and else 0, see `jaa_ext.predict.identity`; and with
    `intensity` the intensity ``AU01_r`` of each AU (0..5; at least 1 exactly where ``AU01_c`` is 1; empty for
    an AU whose intensity the model did not learn).

    AUs of one side are ``AU12L`` and ``AU12R``, of the person's own left and right. Where both are predicted,
    ``AU12_asymmetry`` comes last, left minus right of the probabilities (-1..1), and with `intensity`
    ``AU12_asymmetry_intensity``, that of the intensities (-5..5), see `jaa_ext.predict.asymmetry`.

    In a frame without a face, confidence and success are 0 and the columns of the face are empty. Success is
    also 0 for a face that is not `FacePrediction.settled`, and for one with a value that is not finite, whose
    cell is empty.

    Example:
        >>> [name for name in columns((1, 12)) if name.startswith("AU")]
        ['AU01_c', 'AU12_c', 'AU01_p', 'AU12_p']
    """
    names = au_columns(aus)
    return [
        *("frame", "face_id", "timestamp", "confidence", "success"),
        *(f"{axis}_{i}" for axis in "xy" for i in range(facs.NUM_LANDMARKS)),
        *(f"{name}_c" for name in names),
        *(f"{name}_p" for name in names),
        *("left", "top", "right", "bottom"),
        *("source", "weights"),
        *POSE_COLUMNS,
        "merged",
        *(f"{name}_r" for name in names if intensity),
        *asymmetry_columns(names, "pr" if intensity else "p"),
    ]


def au_columns(aus: Sequence[facs.AU | facs.AURule]) -> list[str]:
    """Name each AU: ``AU01`` for AU 1, ``AU01L`` for its left side, ``AUrule3`` for a rule at index 3."""
    numbers = map(facs.au_number, aus)
    return [f"AUrule{i}" if number is None else facs.au_column(number) for i, number in enumerate(numbers)]


def csv_rows(
    frame: FramePrediction,
    aus: Sequence[facs.AU | facs.AURule],
    weights: str = "",
    *,
    intensity: bool = False,
) -> str:
    """Write the rows of a frame under `columns`, as CSV without a header.

    Raises:
        ValueError: a face with another number of probabilities, or of intensities, than there are AUs.
    """
    text = io.StringIO(newline="")
    csv.writer(text).writerows(_rows(frame, aus, weights, intensity))
    return text.getvalue()


def write_table(
    path: str | os.PathLike[str],
    frames: Iterable[FramePrediction],
    aus: Sequence[facs.AU | facs.AURule],
    *,
    weights: str = "",
    intensity: bool = False,
) -> None:
    """Write predictions under `columns`: CSV, or Parquet if the name ends in ``.parquet``.

    The file appears whole or not at all, and replaces an older one; memory stays bounded.

    Args:
        path: the file.
        frames: predictions of photographs and frames; those of a generator are written one by one.
        aus: the AUs of the probabilities, ``model.config.aus``.
        weights: the note of the weights, ``model.note``, repeated in every row.
        intensity: whether to write the faces' intensities, ``model.config.intensity``.

    Raises:
        ValueError: another ending, or see `csv_rows`.
        MissingDependency: Parquet without pyarrow.

    Example:
        >>> write_table("talk.csv", predictor.frames("talk.mp4"), predictor.aus)  # doctest: +SKIP
    """
    require_table(path)
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        file.write(_header(aus, intensity))
        file.writelines(csv_rows(frame, aus, weights, intensity=intensity) for frame in frames)
        file.flush()
        _convert(temporary, columns(aus, intensity))


def join_tables(
    path: str | os.PathLike[str],
    parts: Iterable[Path],
    aus: Sequence[facs.AU | facs.AURule],
    *,
    intensity: bool = False,
    correction: Correction | None = None,
    thresholds: Sequence[float] = (),
) -> list[str]:
    """Join files that hold `csv_rows` to one table, as `write_table` would write it.

    With a correction, for which the AUs' thresholds are needed, see `jaa_ext.predict.correction`; returns a
    sentence for each source of which it leaves something out.
    """
    require_table(path)
    names = columns(aus, intensity)
    remarks: list[str] = []
    with replacing(path) as temporary:
        with temporary.open("wb") as table:
            table.write(_header(aus, intensity).encode())
            for part in parts:
                with part.open("rb") as file:
                    shutil.copyfileobj(file, table)
        if correction is not None:
            corrected = temporary.with_name("corrected")
            names, remarks = correct_csv(temporary, corrected, correction, thresholds)
            os.replace(corrected, temporary)
        _convert(temporary, names)
    return remarks


def require_table(path: str | os.PathLike[str]) -> None:
    """Check that a table can be written under this name.

    Raises:
        ValueError: it ends neither in .csv nor in .parquet.
        MissingDependency: Parquet without pyarrow.
    """
    ending = Path(path).suffix.lower()
    if ending not in TABLE_ENDINGS:
        raise ValueError(f"{os.fspath(path)}: a table must end in .csv or .parquet")
    if ending == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise MissingDependency("Parquet needs pyarrow, which is not installed: pip install 'jaa_ext[data]'")


def printable(name: str) -> str:
    """Replace what is no text in a file's name: in Linux it may hold bytes that are no UTF-8.

    Example:
        >>> printable("talk.mp4")
        'talk.mp4'
    """
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def data_frame(
    frames: Iterable[FramePrediction],
    aus: Sequence[facs.AU | facs.AURule],
    weights: str = "",
    *,
    intensity: bool = False,
) -> pandas.DataFrame:
    """Give the table of `write_table` as pandas reads it from the CSV, value for value.

    Raises:
        MissingDependency: pandas is not installed.
        ValueError: see `csv_rows`.
    """
    text = io.StringIO(newline="")
    text.write(_header(aus, intensity))
    text.writelines(csv_rows(frame, aus, weights, intensity=intensity) for frame in frames)
    text.seek(0)
    return read_table(text)


def read_table(path: str | os.PathLike[str] | IO[str]) -> pandas.DataFrame:
    """Read a table that `write_table` or `jaa predict` wrote, CSV or Parquet.

    Raises:
        FileNotFoundError, ValueError: no such file, or no such table.
        MissingDependency: pandas, or pyarrow for Parquet, is not installed.

    Example:
        >>> read_table("talk.csv").groupby("face_id")["AU12_p"].max()  # doctest: +SKIP
    """
    with reading_table(path):
        import pandas

        if is_parquet(path):
            table = read_parquet(path)
        else:
            texts = dict.fromkeys(TEXT_COLUMNS, str)
            table = pandas.read_csv(path, dtype=texts, keep_default_na=False, na_values=[""])
            table = table.fillna(dict.fromkeys(texts, ""))
            if table.empty:  # in a table without rows pandas sees no types
                numbers = [name for name in table.columns if name not in texts]
                table = table.astype({name: "int64" if _is_whole(name) else "float64" for name in numbers})
    missing = {"frame", "face_id", "timestamp", "success", "source"}.difference(table.columns)
    if missing:
        raise ValueError(f"{path}: no table of `jaa predict`, it lacks the column {min(missing)}")
    for name in table.columns:
        _check_column(path, name, table[name])
    return table


@contextmanager
def reading_table(path: str | os.PathLike[str] | IO[str]) -> Iterator[None]:
    """Say in one sentence why a file cannot be read as a table, before or while it is read.

    Raises:
        FileNotFoundError, ValueError, MissingDependency: see `read_table`.
    """
    if importlib.util.find_spec("pandas") is None:
        raise MissingDependency(
            "a table in memory needs pandas, which is not installed: pip install 'jaa_ext[faces]'"
        )
    if isinstance(path, str | os.PathLike):
        require_table(path)
        if not os.path.isfile(path):
            raise FileNotFoundError(f"{os.fspath(path)}: there is no such file")
    try:
        yield
    except (ValueError, OSError) as error:  # the errors of pandas and pyarrow derive from these
        why = " ".join(str(error).split())[:200]
        raise ValueError(f"{path}: is damaged, or no table ({why})") from None


def read_parquet(path: str | os.PathLike[str]) -> pandas.DataFrame:
    """Read a Parquet file without pandas' notes in it, which may be damaged, and without its index."""
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path)
    names = [name for name in table.column_names if not re.fullmatch(r"__index_level_\d+__", name)]
    rows: pandas.DataFrame = table.select(names).to_pandas(ignore_metadata=True)
    return rows


def is_parquet(path: str | os.PathLike[str] | IO[str]) -> TypeGuard[str | os.PathLike[str]]:
    """Tell by its name whether a table is Parquet."""
    return isinstance(path, str | os.PathLike) and Path(path).suffix.lower() == ".parquet"


def _header(aus: Sequence[facs.AU | facs.AURule], intensity: bool) -> str:
    return ",".join(columns(aus, intensity)) + "\r\n"


def _rows(
    frame: FramePrediction, aus: Sequence[facs.AU | facs.AURule], weights: str, intensity: bool
) -> Iterator[list[str]]:
    timestamp = f"{frame.timestamp:.3f}"
    source = printable(frame.source)
    names = au_columns(aus)
    for face in frame.faces:
        if len(face.probabilities) != len(aus):
            raise ValueError(
                f"{frame.source}: got a face with {len(face.probabilities)} probabilities, wanted {len(aus)}"
            )
        cells = [
            *(_number(x, 3) for x in face.landmarks[:, 0].tolist()),
            *(_number(y, 3) for y in face.landmarks[:, 1].tolist()),
            *(
                str(int(present)) if math.isfinite(p) else ""
                for present, p in zip(face.present, face.probabilities, strict=True)
            ),
            *(_number(p, 6) for p in face.probabilities.tolist()),
            *(_number(edge, 2) for edge in face.box),
        ]
        success = "1" if all(cells) and face.settled else "0"
        intensities: list[str] = []
        values = {"p": face.probabilities}
        if intensity:
            got = 0 if face.intensities is None else len(face.intensities)
            if face.intensities is None or got != len(aus):
                raise ValueError(f"{frame.source}: got a face with {got} intensities, wanted {len(aus)}")
            values["r"] = np.where(np.isfinite(face.probabilities), face.intensities, np.nan)
            intensities = [_number(value, 2) for value in values["r"].tolist()]
        differences = [
            _number(float(value), DIGITS[kind]) for (kind, _), value in asymmetry(values, names).items()
        ]
        yield [
            *(str(frame.frame), str(face.face_id), timestamp, _number(face.confidence, 3), success),
            *(*cells, source, weights, *_pose_cells(face.pose), _number(face.merged, 3)),
            *(*intensities, *differences),
        ]
    if not frame.faces:
        empty = [""] * (2 * facs.NUM_LANDMARKS + 2 * len(aus) + 4)
        differences = asymmetry_columns(names, "pr" if intensity else "p")
        none = [""] * (len(POSE_COLUMNS) + 1 + (len(aus) if intensity else 0) + len(differences))
        yield [str(frame.frame), str(NO_FACE), timestamp, "0.000", "0", *empty, source, weights, *none]


def _pose_cells(pose: HeadPose | None) -> list[str]:
    if pose is None:
        return [""] * len(POSE_COLUMNS)
    return [
        *(_number(millimetres, 1) for millimetres in pose.translation.tolist()),
        *(_number(radians, 4) for radians in pose.rotation.tolist()),
    ]


def _number(value: float, digits: int) -> str:
    """Write a number; empty if it is not finite."""
    return f"{value:.{digits}f}" if math.isfinite(value) else ""


def _check_column(path: str | os.PathLike[str] | IO[str], name: str, column: pandas.Series) -> None:
    """Raise a ValueError that names the first row in which one of our columns has an impossible value."""
    import pandas

    low, high = -math.inf, math.inf
    if name == "success" or AU_COLUMN.fullmatch(name):
        low, high = 0, 5 if name.removesuffix(RAW).endswith("_r") else 1
    elif match := ASYMMETRY_COLUMN.fullmatch(name):
        low, high = (-5, 5) if match[1] else (-1, 1)
    elif name in ("frame", "face_id", "timestamp"):
        low = {"frame": 1, "face_id": -1}.get(name, -math.inf)
    elif not OTHER_NUMBERS.fullmatch(name):
        return
    try:
        numbers = pandas.to_numeric(column, errors="coerce").to_numpy("float64", na_value=math.nan)
    except TypeError:  # a column of lists
        raise ValueError(f"{path}: is damaged: column {name} holds no numbers") from None
    fits = (numbers >= low) & (numbers <= high) & (abs(numbers) < math.inf)
    if _is_whole(name):
        fits &= numbers % 1 == 0
    if name not in ("frame", "face_id", "timestamp", "success"):
        fits |= column.isna().to_numpy()
    if not fits.all():
        row = int(fits.argmin())
        raise ValueError(
            f"{path}: is damaged: row {row + 1} of column {name} cannot hold {str(column.iloc[row])[:60]!r}"
        )


def _is_whole(column: str) -> bool:
    """Tell whether a column holds whole numbers."""
    return column in ("frame", "face_id", "success") or column.removesuffix(RAW).endswith("_c")


def _convert(table: Path, names: Sequence[str]) -> None:
    """Convert a CSV table of these columns in place to Parquet, part by part, if its name says so."""
    if not is_parquet(table):
        return
    import pyarrow
    import pyarrow.csv
    import pyarrow.parquet

    types = {
        name: pyarrow.string()
        if name in TEXT_COLUMNS
        else pyarrow.int64()
        if _is_whole(name)
        else pyarrow.float64()
        for name in names
    }
    converted = table.with_name("converted")
    options = pyarrow.csv.ConvertOptions(column_types=types)
    parsing = pyarrow.csv.ParseOptions(newlines_in_values=True)
    with (
        pyarrow.csv.open_csv(table, parse_options=parsing, convert_options=options) as batches,
        pyarrow.parquet.ParquetWriter(converted, batches.schema) as writer,
    ):
        for batch in batches:
            writer.write_batch(batch)
    os.replace(converted, table)
