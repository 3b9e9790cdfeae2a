"""Tables measured against each person's own neutral face, and smoothed over time.

Both need the whole table of a video, so they are done on finished tables. What the network said stays beside,
in columns whose names end in ``_raw``.
"""

from __future__ import annotations

import csv
import math
import warnings
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaa_ext import facs
from jaa_ext.models.thresholds import THRESHOLD, agrees, check_thresholds, is_present
from jaa_ext.predict.asymmetry import DIGITS, asymmetry
from jaa_ext.predict.prediction import consistent_intensities

if TYPE_CHECKING:
    import pandas

RAW = "_raw"
"""Ending of the columns that hold what was predicted."""
CORRECTED = "corrected"
"""The column that says how a table was corrected, see `Correction.words`."""
AUTO_SHARE = 10
"""One frame in so many is taken for neutral by "auto"."""
AUTO_LEAST = 5
"""Fewest frames that "auto" takes; of a face that is seen in fewer than twice as many it takes none."""
AUTO_WINDOW = 0.5
"""Seconds over which "auto" averages the action, so that no frame's noise passes for a neutral face."""
CUT = 3.0
"""Standard deviations beyond which a frame has no weight in smoothing."""

MOST_NAMED = 8
"""Faces that a remark names."""
MOST_SMOOTHING = 60.0
"""Seconds that are averaged at most: the work grows with their square."""


@dataclass(frozen=True)
class Correction:
    """How tables are corrected.

    Args:
        neutral: the neutral face that is subtracted: of the frames from one time to another, in seconds of
            the video; "auto" for the tenth of a face's frames with the least action; None subtracts nothing.
        smooth: full width at half maximum, in seconds, of the Gaussian that averages a face's frames; 0
            leaves them as they are.

    Raises:
        ValueError: other words, times that do not rise, or seconds that are negative or more than 60.

    Example:
        >>> Correction(neutral=(2, 5), smooth=0.5)
        Correction(neutral=(2, 5), smooth=0.5)
    """

    neutral: tuple[float, float] | Literal["auto"] | None = None
    smooth: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.smooth <= MOST_SMOOTHING:
            raise ValueError(f"smooth must be from 0 to {MOST_SMOOTHING:g} seconds, got {self.smooth}")
        if self.neutral is None or self.neutral == "auto":
            return
        if isinstance(self.neutral, str) or len(self.neutral) != 2:
            raise ValueError(f'neutral must be two times in seconds or "auto", got {self.neutral!r}')
        start, end = self.neutral
        if not 0 <= start < end < math.inf:
            raise ValueError(f"neutral must be two times, the earlier one first, got {start:g} to {end:g} s")

    def words(self) -> str:
        """Say how tables are corrected, for their column ``corrected``.

        Example:
            >>> Correction(neutral=(2, 5), smooth=0.5).words()
            "less each face's neutral face, of 2 to 5 s; smoothed over 0.5 s"
        """
        parts = []
        if self.neutral is not None:
            times = "its frames of least action"
            if self.neutral != "auto":
                times = "{:g} to {:g} s".format(*self.neutral)
            parts.append(f"less each face's neutral face, of {times}")
        if self.smooth:
            parts.append(f"smoothed over {self.smooth:g} s")
        return "; ".join(parts)


def correct_table(
    table: pandas.DataFrame,
    *,
    neutral: tuple[float, float] | Literal["auto"] | None = None,
    smooth: float = 0.0,
    thresholds: Sequence[float] | None = None,
) -> pandas.DataFrame:
    """Subtract each face's neutral face from a table of predictions, and smooth it, as `jaa predict` does.

    Each face of each video is taken by itself. With q the smoothed value and b the median of the neutral
    frames (0 without `neutral`), the probability becomes ``max(0, q - b) / (1 - b)``, which is 0 at the
    neutral face and stays 1 at 1; the AU is present where this exceeds its threshold; and the intensity
    becomes ``q - b``, clipped to 0..5 and then, as in every table, at least 1 exactly where the AU is
    present. The columns AU.._c, AU.._p and AU.._r are replaced, and AU.._c_raw and so on, with what was
    predicted, stand behind the others, and last ``corrected``, which says how. The asymmetry of an AU becomes
    that of the corrected sides: each is measured against its own neutral face, so that a face that is uneven
    at rest is not taken for one that acts unevenly.

    Rows with ``success`` 0 belong to no neutral face and to no average; the neutral face is subtracted from
    theirs too. The AUs of a face that has no neutral frames become empty, with a warning. What has one frame
    alone, as a photograph, keeps its values.

    Args:
        table: see `read_table`; it is not changed.
        neutral, smooth: see `Correction`.
        thresholds: of the AUs, ``predictor.thresholds``, with which the table was made; None for 0.5.

    Raises:
        ValueError: see `Correction`; a table without AUs, one that is corrected already, or other thresholds
            than those of its column AU.._c.

    Example:
        >>> table = correct_table(read_table("talk.csv"), neutral=(2, 5), smooth=0.5)  # doctest: +SKIP
        >>> table["AU12_p"], table["AU12_p_raw"]  # doctest: +SKIP
    """
    correction = Correction(neutral, smooth)
    names = _names([str(name) for name in table.columns], "correct_table")
    chosen = check_thresholds([THRESHOLD] * len(names) if thresholds is None else thresholds, len(names))
    kinds = _kinds([str(name) for name in table.columns], names)
    wanted = ["source", "frame", "face_id", "success", "timestamp", *(f"{name}_c" for name in names)]
    missing = [name for name in wanted if name not in table]
    if missing:
        raise ValueError(f"correct_table: the table lacks the column {missing[0]}")
    old = {kind: table[[f"{name}_{kind}" for name in names]].to_numpy(np.float64) for kind in kinds}
    _check_presence(old["p"], old["c"], chosen, names)
    rows = _Rows(
        table["source"].astype(str).tolist(),
        table["frame"].to_numpy(np.int64),
        table["face_id"].to_numpy(np.int64),
        table["success"].to_numpy(np.int64),
        table["timestamp"].to_numpy(np.float64),
        old["p"],
        old.get("r"),
    )
    new, remarks = _correct(rows, chosen, correction)
    for remark in remarks:
        warnings.warn(remark, stacklevel=2)
    result, replaced = table.copy(), _replaced(new, names, table.columns)
    for (kind, label), column in replaced.items():
        whole = kind == "c" and np.isfinite(column).all()
        result[label] = column.astype(np.int64) if whole else column
    import pandas

    raw = pandas.DataFrame({f"{label}{RAW}": table[label] for _, label in replaced})
    return pandas.concat((result, raw), axis=1).assign(**{CORRECTED: correction.words()})


def correct_csv(
    path: Path, out: Path, correction: Correction, thresholds: Sequence[float]
) -> tuple[list[str], list[str]]:
    """Correct a CSV table as `correct_table` does, in memory for the AUs alone.

    Returns:
        The names of the new table's columns, and a sentence for each source of which something is left out.
    """
    with path.open(encoding="utf-8", newline="") as file:
        lines = csv.reader(file)
        header = next(lines)
        names = _names(header, str(path))
        rows = _read_rows(lines, header, names)
    new, remarks = _correct(rows, thresholds, correction)
    replaced = _replaced(new, names, header)
    columns = [*header, *(label + RAW for _, label in replaced), CORRECTED]
    with path.open(encoding="utf-8", newline="") as file, out.open("w", encoding="utf-8", newline="") as made:
        _write_rows(file, made, columns, replaced, correction.words())
    return columns, remarks


class _Rows(NamedTuple):
    """What a correction needs to know of a table of N rows and A AUs."""

    source: list[str]
    frame: NDArray[np.int64]
    face_id: NDArray[np.int64]
    success: NDArray[np.int64]
    timestamp: NDArray[np.float64]
    probabilities: NDArray[np.float64]
    """(N, A), NaN without a face."""
    intensities: NDArray[np.float64] | None


def _names(columns: Sequence[str], where: str) -> list[str]:
    """List the AUs of a table, as ``AU01``."""
    if any(name.endswith(RAW) for name in columns):
        raise ValueError(f"{where}: the table is corrected already; predict anew, or take its columns *{RAW}")
    names = facs.predicted_aus(columns)
    if not names:
        raise ValueError(f"{where}: the table has no AUs, wanted columns such as AU12_p")
    return names


def _kinds(columns: Sequence[str], names: list[str]) -> str:
    return "cpr" if f"{names[0]}_r" in columns else "cp"


def _check_presence(
    probabilities: NDArray[np.float64],
    present: NDArray[np.float64],
    thresholds: Sequence[float],
    names: list[str],
) -> None:
    limits = np.asarray(thresholds)
    wrong = ~agrees(probabilities, present, limits)
    if wrong.any():
        name = names[int(wrong.any(0).argmax())]
        raise ValueError(
            f"correct_table: {name}_c was made with another threshold than {limits[names.index(name)]:g}; "
            "give thresholds=predictor.thresholds"
        )


def _correct(
    rows: _Rows, thresholds: Sequence[float], correction: Correction
) -> tuple[dict[str, NDArray[np.float64]], list[str]]:
    """Return the new values (N, A) of each kind of column, with the digits that tables have, and remarks."""
    both = [rows.probabilities] + ([] if rows.intensities is None else [rows.intensities])
    values = np.concatenate(both, 1)
    count = rows.probabilities.shape[1]
    baseline = np.zeros_like(values)
    without: dict[str, list[str]] = {}
    few: dict[str, list[str]] = {}
    last: dict[str, float] = {}
    single: list[str] = []
    for source, places in _groups(rows.source).items():
        last[source] = rows.timestamp[places].max()
        if len(np.unique(rows.frame[places])) == 1:
            single.append(source)
            continue
        for face in np.unique(rows.face_id[places]).tolist():
            if face < 0:
                continue
            here = places[rows.face_id[places] == face]
            sure = here[rows.success[here] == 1]
            sure = sure[np.argsort(rows.timestamp[sure], kind="stable")]
            times = rows.timestamp[sure]
            if correction.neutral is not None:
                chosen = _neutral_frames(times, values[sure, :count], correction.neutral)
                if not chosen.any():
                    without.setdefault(source, []).append(str(face))
                elif chosen.sum() < AUTO_LEAST:
                    few.setdefault(source, []).append(f"{face} ({chosen.sum()})")
                baseline[here] = np.median(values[sure[chosen]], axis=0) if chosen.any() else math.nan
            values[sure] = smoothed(values[sure], times, correction.smooth)
    probabilities, neutral = values[:, :count], baseline[:, :count]
    room = np.where(neutral < 1, 1 - neutral, 1.0)
    probabilities = np.round(np.maximum(0.0, probabilities - neutral) / room, 6)
    present = is_present(probabilities.astype(np.float32), thresholds)
    new = {"c": np.where(np.isnan(probabilities), math.nan, present), "p": probabilities}
    if rows.intensities is not None:
        less = np.clip(values[:, count:] - baseline[:, count:], 0, 5).astype(np.float32)
        new["r"] = np.round(consistent_intensities(less, present).astype(np.float64), 2)
    return new, _remarks(without, few, last, single, correction)


def _replaced(
    new: dict[str, NDArray[np.float64]], names: Sequence[str], columns: Iterable[str]
) -> dict[tuple[str, str], NDArray[np.float64]]:
    """Give the new values (N,) of each column that changes, by its kind and name."""
    values = {(kind, f"{name}_{kind}"): new[kind][:, i] for kind in new for i, name in enumerate(names)}
    there = set(columns)
    return values | {key: column for key, column in asymmetry(new, names).items() if key[1] in there}


def _remarks(
    without: dict[str, list[str]],
    few: dict[str, list[str]],
    last: dict[str, float],
    single: list[str],
    correction: Correction,
) -> list[str]:
    remarks = []
    for source, faces in without.items():
        if correction.neutral is None or correction.neutral == "auto":
            why = f"seen in fewer than {2 * AUTO_LEAST} frames"
        else:
            start, end = correction.neutral
            why = f"not seen from {start:g} to {end:g} s"
            if start > last[source]:
                why += f" (the last frame is at {last[source]:.1f} s)"
        remarks.append(
            f"{source}: no neutral face of {_named(faces)}, {why}: the corrected AUs are empty there"
        )
    for source, faces in few.items():
        remarks.append(
            f"{source}: fewer than {AUTO_LEAST} neutral frames of {_named(faces)}: their noise is "
            "subtracted, too"
        )
    if single:
        more = f" and {len(single) - 1} more" if len(single) > 1 else ""
        remarks.append(f"{single[0]}{more}: a single picture keeps its AUs as they are")
    return remarks


def _named(faces: list[str]) -> str:
    more = f" and {len(faces) - MOST_NAMED} more" if len(faces) > MOST_NAMED else ""
    return f"{'face' if len(faces) == 1 else 'faces'} {', '.join(faces[:MOST_NAMED])}{more}"


def _groups(keys: list[str]) -> dict[str, NDArray[np.int64]]:
    places: dict[str, list[int]] = {}
    for place, key in enumerate(keys):
        places.setdefault(key, []).append(place)
    return {key: np.array(some) for key, some in places.items()}


def _neutral_frames(
    times: NDArray[np.float64],
    probabilities: NDArray[np.float64],
    neutral: tuple[float, float] | Literal["auto"],
) -> NDArray[np.bool_]:
    """Choose the neutral frames of a face, (n,), of frames with rising times and probabilities (n, A)."""
    if neutral != "auto":
        start, end = neutral
        return np.asarray((start <= times) & (times <= end))
    chosen = np.zeros(len(times), bool)
    if len(times) >= 2 * AUTO_LEAST:
        action = smoothed(probabilities.mean(1, keepdims=True), times, AUTO_WINDOW)[:, 0]
        least = max(AUTO_LEAST, round(len(times) / AUTO_SHARE))
        chosen[np.argsort(action, kind="stable")[:least]] = True
    return chosen


def smoothed(values: NDArray[np.float64], times: NDArray[np.float64], seconds: float) -> NDArray[np.float64]:
    """Average values over time by a Gaussian centred at each, which moves nothing to earlier or later.

    Weights depend on times, so that frames may come unevenly; nothing is interpolated where frames are
    missing, and at either end, where the frames lie on one side, the average is of these.

    Args:
        values: (n, A).
        times: (n,) seconds that do not fall.
        seconds: full width at half maximum of the Gaussian; 0 returns the values.

    Example:
        >>> smoothed(np.array([[0.0], [1.0], [0.0]]), np.array([0.0, 0.1, 0.2]), 0.2).round(2).tolist()
        [[0.32], [0.5], [0.32]]
    """
    if seconds == 0:
        return values
    deviation = seconds / math.sqrt(8 * math.log(2))
    total, weight = values.copy(), np.ones((len(times), 1))
    for shift in range(1, len(times)):
        apart = times[shift:] - times[:-shift]
        if apart.min() > CUT * deviation:
            break
        share = np.where(apart <= CUT * deviation, np.exp(-0.5 * (apart / deviation) ** 2), 0.0)[:, None]
        total[shift:] += share * values[:-shift]
        total[:-shift] += share * values[shift:]
        weight[shift:] += share
        weight[:-shift] += share
    return total / weight


def _read_rows(lines: Any, header: list[str], names: list[str]) -> _Rows:
    """Read what is needed of the rows of a CSV table."""
    place = {name: i for i, name in enumerate(header)}
    values = [f"{name}_{kind}" for kind in _kinds(header, names)[1:] for name in names]
    wanted = [place[name] for name in ("frame", "face_id", "success", "timestamp", *values)]
    sources: list[str] = []
    numbers = array("d")
    known: dict[str, str] = {}  # one text for the rows of each source
    for line in lines:
        source = line[place["source"]]
        sources.append(known.setdefault(source, source))
        numbers.extend(float(line[i] or "nan") for i in wanted)
    table = (
        np.frombuffer(numbers, np.float64).reshape(-1, len(wanted)) if numbers else np.empty((0, len(wanted)))
    )
    frame, face_id, success = table[:, :3].astype(np.int64).T
    count = len(names)
    intensities = table[:, 4 + count :] if table.shape[1] > 4 + count else None
    return _Rows(sources, frame, face_id, success, table[:, 3], table[:, 4 : 4 + count], intensities)


def _write_rows(
    old: IO[str],
    made: IO[str],
    columns: list[str],
    replaced: dict[tuple[str, str], NDArray[np.float64]],
    words: str,
) -> None:
    """Write a CSV table anew with other values in some columns, behind all the old ones and the words."""
    places = [columns.index(label) for _, label in replaced]
    digits, new = [DIGITS[kind] for kind, _ in replaced], np.stack(list(replaced.values()), 1)
    lines, writer = csv.reader(old), csv.writer(made)
    next(lines)
    writer.writerow(columns)
    for line, values in zip(lines, new, strict=True):
        before = [line[place] for place in places]
        for place, value, some in zip(places, values.tolist(), digits, strict=True):
            line[place] = f"{value:.{some}f}" if math.isfinite(value) else ""
        writer.writerow([*line, *before, words])
