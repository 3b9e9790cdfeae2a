"""Agreement of two tables of one video, face by face."""

from __future__ import annotations

import csv
import math
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from jaa_ext.atomic import replacing
from jaa_ext.json_files import write_json
from jaa_ext.models.thresholds import THRESHOLD
from jaa_ext.predict.other_tools import NO_PRESENCE, OPENFACE3_AUS, FaceTable, read_face_table
from jaa_ext.score_text import score_text

if TYPE_CHECKING:
    from jaa_ext.evaluation.agreement import Agreement

By = Literal["frame", "time"]

LEAST_OVERLAP = 0.3
"""Least overlap of two boxes of one face: the area that both cover, of what either covers."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two tables of one video, and how far they agree on the AUs that both have."""

    names: tuple[str, str]
    """The files."""
    tools: tuple[str, str]
    """Who wrote them, see `FaceTable.tool`."""
    frames: int
    """Frames that both tables have, with a face or without."""
    faces: tuple[int, int]
    """Faces that each table has in them, with AUs."""
    pairs: int
    """Faces that were found in both and are compared."""
    without_aus: int
    """Faces that were found in both, but left out since their AUs are empty in one of them."""
    aus: tuple[Agreement, ...]
    """The AUs that both tables have, in the order of the first."""
    only: tuple[tuple[str, ...], tuple[str, ...]]
    """AUs that one table has alone."""
    remarks: tuple[str, ...]
    """Sentences on what a reader should know of the comparison."""
    values: dict[str, NDArray[np.float64]]
    """(pairs, 2) intensities or probabilities of each AU, a and b."""

    def rows(self) -> list[list[str]]:
        """Give the agreement as text: a header and a row for each AU; "-" for what cannot be said."""
        rows = [["AU", "frames", "a %", "b %", "kappa", "F1 %", "ICC", "r", "b - a"]]
        for one in self.aus:
            plain = (one.kappa, one.icc, one.pearson, one.mean_difference)
            kappa, icc, pearson, difference = (score_text(value, factor=1, digits=2) for value in plain)
            shares = [score_text(value) for value in (one.present_a, one.present_b, one.f1)]
            rows.append(
                [one.au, f"{one.frames:,}", shares[0], shares[1], kappa, shares[2], icc, pearson, difference]
            )
        return rows

    def notes(self) -> list[str]:
        """Say what was compared."""
        lines = [
            f"{letter}: {name} ({tool}), {faces:,} faces with AUs in {self.frames:,} common frames"
            for letter, name, tool, faces in zip("ab", self.names, self.tools, self.faces, strict=True)
        ]
        lines.append(f"{self.pairs:,} faces are in both and are compared.")
        if self.without_aus:
            lines.append(
                f"Also in both, but left out since their AUs are empty in a or b: {self.without_aus:,}."
            )
        for letter, aus in zip("ab", self.only, strict=True):
            if aus:
                lines.append(f"Only in {letter}: {', '.join(aus)}.")
        for quantity in ("intensity", "probability"):
            of = [one.au for one in self.aus if one.quantity == quantity]
            if of:
                what = "all AUs" if len(of) == len(self.aus) else ", ".join(of)
                lines.append(f"ICC, r and b - a are of the {quantity} of {what}.")
        return [*lines, *self.remarks]

    def to_dict(self) -> dict[str, Any]:
        """Give plain numbers, texts and lists, without `values`."""
        plain = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "values"}
        return {**plain, "aus": [asdict(one) for one in self.aus]}

    def write(self, folder: str | os.PathLike[str]) -> dict[Path, str]:
        """Write compare.csv, a row for each AU, compare.json and compare.png.

        Returns:
            Each file, and a description of it.
        """
        from jaa_ext.evaluation.agreement import Agreement
        from jaa_ext.plots.agreement import agreement_figure

        folder = Path(folder)
        written = {
            folder / "compare.csv": "a row for each AU",
            folder / "compare.json": "the same, and what was compared",
            folder / "compare.png": "agreement on each AU, and the differences of values",
        }
        with replacing(folder / "compare.csv") as temporary, temporary.open("w", newline="") as file:
            table = csv.DictWriter(file, [field.name for field in fields(Agreement)])
            table.writeheader()
            table.writerows(asdict(one) for one in self.aus)
        write_json(folder / "compare.json", self.to_dict())
        a, b = (f"{name} ({tool})" for name, tool in zip(self.names, self.tools, strict=True))
        agreement_figure(self.aus, self.values, folder / "compare.png", names=(a, b))
        return written


def compare_tables(a: str | os.PathLike[str], b: str | os.PathLike[str], *, by: By = "frame") -> Comparison:
    """Compare two tables of one video, each by `jaa predict` or another tool, see `read_face_table`.

    Frames are matched by their number in the video, or by time: each frame with the nearest of the other
    table within half a frame. In a frame, faces are paired from the greatest overlap of what their landmarks
    span (or of their boxes) downwards, if it is 0.3 or more. Where a face has neither, it is paired by its
    frame alone, if neither table has two faces in a common frame.

    Where not both give intensities of an AU, its probabilities are compared if both give these.

    Args:
        a: a table, CSV or Parquet.
        b: another.
        by: "frame" or "time".

    Raises:
        FileNotFoundError, ValueError: see `read_face_table`; tables without a frame, face or AU in common, or
            in which each face has AUs in one of them alone; or another `by`.
        MissingDependency: see `read_face_table`.

    Example:
        >>> comparison = compare_tables("talk.csv", "openface.csv")  # doctest: +SKIP
        >>> {one.au: one.kappa for one in comparison.aus}  # doctest: +SKIP
        {'AU01': 0.41, 'AU12': 0.73}
    """
    from jaa_ext.evaluation.agreement import agreements

    if by not in get_args(By):
        raise ValueError(f'by must be "frame" or "time", got "{by}"')
    first, second = read_face_table(a), read_face_table(b)
    both = f"{first.name} and {second.name}"
    frames = _frames_by_time(first, second) if by == "time" else _frames_by_number(first, second)
    if not len(frames):
        raise ValueError(f"{both}: have no frame in common; are they of one video?")
    i, j = _pairs(first, second, frames)
    if not len(i):
        raise ValueError(f"{both}: have no face in common; are they of one video, in the same size?")
    has, has_too = _aus(first), _aus(second)
    aus = [au for au in has if au in has_too]
    if not aus:
        raise ValueError(f"{both}: have no AU in common, got {', '.join(has)} and {', '.join(has_too)}")

    unknown = np.full(len(i), np.nan)
    present_a, present_b = (
        np.stack([table.presence[au][rows] if au in table.presence else unknown for au in aus], 1)
        for table, rows in ((first, i), (second, j))
    )
    values = {}
    quantities: list[str | None] = []
    for au in aus:
        quantity, of_a, of_b = _values(first, second, au)
        quantities.append(quantity)
        if of_a is not None and of_b is not None:
            values[au] = np.stack((of_a[i], of_b[j]), 1)
    pairs = np.stack([values.get(au, np.stack((unknown, unknown), 1)) for au in aus], 1)
    compared = (np.isfinite(present_a + present_b) | np.isfinite(pairs).all(2)).any(1)
    if not compared.any():
        raise ValueError(
            f"{both}: have no face in common of which both give presence, intensity or probability of one AU"
        )
    return Comparison(
        names=(first.name, second.name),
        tools=(first.tool, second.tool),
        frames=len(frames),
        faces=(
            int((np.isin(first.frames, frames[:, 0]) & _have_aus(first)).sum()),
            int((np.isin(second.frames, frames[:, 1]) & _have_aus(second)).sum()),
        ),
        pairs=int(compared.sum()),
        without_aus=int((~compared).sum()),
        aus=agreements(aus, (present_a, present_b), (pairs[..., 0], pairs[..., 1]), quantities),
        only=(tuple(au for au in has if au not in has_too), tuple(au for au in has_too if au not in has)),
        remarks=_remarks(first, second, frames, by),
        values={au: pair[compared] for au, pair in values.items()},
    )


def _aus(table: FaceTable) -> list[str]:
    """List the AUs of which a table says anything, by their numbers."""
    kinds = (table.presence, table.probabilities, table.intensities)
    names = {au for kind in kinds for au, values in kind.items() if np.isfinite(values).any()}
    return sorted(names, key=lambda au: (int("".join(filter(str.isdigit, au)) or 0), au))


def _have_aus(table: FaceTable) -> NDArray[np.bool_]:
    """Tell of which faces a table says any AU: (N,)."""
    kinds = (table.presence, table.probabilities, table.intensities)
    known: NDArray[np.bool_] = np.any([np.isfinite(one) for kind in kinds for one in kind.values()], axis=0)
    return known


def _values(
    a: FaceTable, b: FaceTable, au: str
) -> tuple[str | None, NDArray[np.float64] | None, NDArray[np.float64] | None]:
    """Give the quantity that both tables have of an AU, intensity before probability, and its values."""
    for quantity, of_a, of_b in (
        ("intensity", a.intensities, b.intensities),
        ("probability", a.probabilities, b.probabilities),
    ):
        if au in of_a and au in of_b and np.isfinite(of_a[au]).any() and np.isfinite(of_b[au]).any():
            return quantity, of_a[au], of_b[au]
    return None, None, None


def _frames_by_number(a: FaceTable, b: FaceTable) -> NDArray[np.int64]:
    """Give the frames that are in both, (F, 2): the number in a and in b, rising."""
    return np.stack([np.intersect1d(a.all_frames, b.all_frames)] * 2, 1)


def _frames_by_time(a: FaceTable, b: FaceTable) -> NDArray[np.int64]:
    """Give the frames of a and b that lie within half a frame of each other, (F, 2), rising."""
    x, y = (_rising_times(table) for table in (a, b))
    if not (len(x) and len(y)):
        return np.empty((0, 2), np.int64)
    # Of single frames nothing tells how long they last; tables have milliseconds.
    half = 0.5 * min([float(np.median(np.diff(times))) for times in (x, y) if len(times) > 1] or [0.002])
    after = np.clip(np.searchsorted(y, x), 1, max(1, len(y) - 1))
    nearest = np.where(abs(y[after - 1] - x) <= abs(y[np.minimum(after, len(y) - 1)] - x), after - 1, after)
    nearest = np.minimum(nearest, len(y) - 1)
    distance = abs(y[nearest] - x)
    chosen: dict[int, int] = {}
    for k in np.argsort(-distance, kind="stable").tolist():  # the nearest come last, and stay
        if distance[k] <= half:
            chosen[int(nearest[k])] = k
    pairs = [(a.all_frames[k], b.all_frames[n]) for n, k in sorted(chosen.items())]
    return np.array(pairs, np.int64).reshape(-1, 2)


def _rising_times(table: FaceTable) -> NDArray[np.float64]:
    times = table.frame_times
    if times is None:
        raise ValueError(f"{table.name}: has no times finer than seconds; compare by frame")
    if not (np.diff(times) > 0).all():
        raise ValueError(f"{table.name}: its times do not rise with its frames; compare by frame")
    return times


def _pairs(
    a: FaceTable, b: FaceTable, frames: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pair the faces of common frames; returns their rows in a and in b.

    Args:
        frames: (F, 2), see `_frames_by_number`.
    """
    rows_of_b: dict[int, list[int]] = {}
    for row, frame in enumerate(b.frames.tolist()):
        rows_of_b.setdefault(frame, []).append(row)
    partner = dict(frames.tolist())
    candidates = np.array(
        [
            (row, other)
            for row, frame in enumerate(a.frames.tolist())
            if frame in partner
            for other in rows_of_b.get(partner[frame], ())
        ],
        np.int64,
    ).reshape(-1, 2)
    i, j = candidates.T
    overlap = _overlap(a.boxes[i], b.boxes[j])
    # The only faces of one frame are the same, where nothing tells them by their places.
    alone = (np.bincount(i)[i] == 1) & (np.bincount(j)[j] == 1)
    overlap = np.where(np.isnan(overlap) & alone, 1.0, overlap)
    for table in (a, b):
        if len(i) and np.isnan(overlap).all() and np.isnan(table.boxes).any(1).all():
            raise ValueError(
                f"{table.name}: has neither landmarks nor boxes in pixels, to find its faces in the other "
                "table by"
            )
    paired: list[int] = []
    taken: set[tuple[str, int]] = set()
    for k in np.argsort(-overlap, kind="stable").tolist():
        faces = {("a", int(i[k])), ("b", int(j[k]))}
        if overlap[k] >= LEAST_OVERLAP and not faces & taken:
            taken |= faces
            paired.append(k)
    paired.sort()
    return i[paired], j[paired]


def _overlap(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give the overlap of boxes (N, 4), intersection over union: (N,), NaN for a box that is unknown."""
    low, high = np.maximum(a[:, :2], b[:, :2]), np.minimum(a[:, 2:], b[:, 2:])
    shared = np.where((high > low).all(1), (high - low).prod(1), 0.0)
    areas = [(box[:, 2:] - box[:, :2]).prod(1) for box in (a, b)]
    return np.where(np.isnan(areas[0] + areas[1]), np.nan, shared / np.maximum(sum(areas) - shared, 1e-9))


def _remarks(a: FaceTable, b: FaceTable, frames: NDArray[np.int64], by: By) -> tuple[str, ...]:
    remarks = []
    names = [os.path.basename(table.source) for table in (a, b)]
    if all(names) and names[0] != names[1]:
        remarks.append(f"a is of {names[0]}, and b of {names[1]}: are they one video?")
    for letter, table in (("a", a), ("b", b)):
        if table.corrected:
            remarks.append(
                f"The AUs of {letter} are corrected: {table.corrected}; its columns *_raw are not compared."
            )
    for tool in dict.fromkeys((a.tool, b.tool)):
        if tool in NO_PRESENCE:
            remarks.append(f"{tool} says no presence: present is a probability over {THRESHOLD}.")
        if tool == "OpenFace 3.0":
            aus = ", ".join(map(str, OPENFACE3_AUS))
            remarks.append(f"{tool} names no AUs: its eight are taken for {aus}.")
    if by == "frame" and a.frame_times is not None and b.frame_times is not None:
        x, y = (
            times[np.searchsorted(table.all_frames, numbers)]
            for table, times, numbers in ((a, a.frame_times, frames[:, 0]), (b, b.frame_times, frames[:, 1]))
        )
        apart, frame = float(np.median(abs(x - y))), float(np.median(np.diff(x))) if len(x) > 1 else math.inf
        if apart > frame / 2:
            remarks.append(
                f"The same frame numbers have other times in a and b, {apart:.3g} s apart; --by time matches "
                "them by these."
            )
    several = any(len(np.unique(table.frames)) < len(table.frames) for table in (a, b))
    for name, table in (("a", a), ("b", b)):
        if several and np.isnan(table.boxes).any(1).all():
            remarks.append(
                f"{name} has neither landmarks nor boxes in pixels: where a frame has several faces they are "
                "left out."
            )
    return tuple(remarks)
