"""One's own images and AU labels, listed in a CSV file."""

from __future__ import annotations

import csv
import difflib
import math
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jaa_ext import facs
from jaa_ext.data.errors import quoted
from jaa_ext.data.preparation.folder import LANDMARK_COLUMNS
from jaa_ext.data.readers.files import decimal_number, other_separator
from jaa_ext.data.readers.image_files import ImageFiles, numbers_in_names
from jaa_ext.data.release import MISSING, Release, ReleaseError

LABELS = {"1": 1, "0": 0, "": MISSING, "-1": MISSING, "9": MISSING}
LABELS |= {f"{text}.0": label for text, label in LABELS.items() if text}
"""What a label may be written as; pandas writes 1.0 and 0.0 in a column with missing labels."""


def read_table(csv_file: str | os.PathLike[str], *, images: str | os.PathLike[str] | None = None) -> Release:
    """Read a CSV file that has a header and a line for each image, with commas between the values.

    Columns, in any order:

    - ``image``: its path, relative to `images`.
    - ``subject``: the person seen; no subject may be in two folds.
    - ``AU1`` or ``AU01`` and so on, at least one: 1 present, 0 absent; empty, -1 or 9 missing. ``AU1L`` is
      that of the person's left side, ``AU1R`` that of the right one.
    - ``AU1_intensity`` and so on (optional), beside a column ``AU1``: 0 to 5, empty where missing.
    - ``task`` (optional): what the subject did; the images of a subject's task are a clip.
    - ``frame`` (optional): a whole number, unique in its clip. Without this column it is the last whole
      number in the file's name; in a clip where a name has none, or two have the same, the line's number.
    - ``fold`` (optional): the part of the data set that the image belongs to.
    - ``x_0`` to ``x_48`` and ``y_0`` to ``y_48`` (optional, all or none): landmarks in pixels of the image,
      counted from 0. An image without them needs a detector.

    Args:
        csv_file: in UTF-8.
        images: the folder that the images' paths are relative to; None for the folder of the CSV file.

    Raises:
        ReleaseError: columns are unknown or missing, or a line does not fit them.
    """
    path = Path(csv_file)
    folder = path.parent if images is None else Path(images)
    if not folder.is_dir():
        raise ReleaseError(f"{folder}: wanted the folder of the images, got no folder of that name")
    rows = _rows(path)
    columns = _columns(path, next(rows, (1, []))[1])
    clips: dict[tuple[str, str], _Lines] = {}
    folds: dict[str, tuple[str, int]] = {}
    for line, row in rows:
        where = f"{path}, line {line}"
        if len(row) != len(columns.names):
            raise ReleaseError(
                f"{where}: wanted {len(columns.names)} values, as in the header, got {len(row)}"
            )
        values = dict(zip(columns.names, (value.strip() for value in row), strict=True))
        subject, task, fold = (values.get(name, "") for name in ("subject", "task", "fold"))
        for name in ("image", "subject"):
            if not values[name]:
                raise ReleaseError(f"{where}: wanted a value in column {name!r}, got none")
            if not values[name].isprintable():
                raise ReleaseError(
                    f"{where}: wanted text in column {name!r}, got control codes: {quoted(values[name])}"
                )
        if "/" in subject:
            raise ReleaseError(f"{where}: wanted a subject without a slash, got {quoted(subject)}")
        former, first = folds.setdefault(subject, (fold, line))
        if former != fold:
            raise ReleaseError(
                f"{where}: wanted subject {quoted(subject)} in fold {quoted(former)} as in line {first}, "
                f"got {quoted(fold)}"
            )
        clip = clips.setdefault((subject, task), _Lines())
        image = folder / values["image"].replace("\\", "/")
        labels = [_label(values[name], name, where) for name in columns.aus]
        intensities = [_intensity(values.get(name), name, where) for name in columns.intensities]
        landmarks = _landmarks([values.get(name, "") for name in LANDMARK_COLUMNS], where)
        clip.rows.append((line, image, landmarks, labels, intensities))
        if "frame" in values:
            clip.number(values["frame"], where)
    return Release(
        name=path.stem,
        aus=tuple(columns.aus.values()),
        clips=tuple(clip.files(subject, task, folds[subject][0]) for (subject, task), clip in clips.items()),
        source=f"{path.resolve()} on {folder.resolve()}",
    )


@dataclass
class _Columns:
    names: list[str]
    aus: dict[str, facs.AU]
    """The AU of each column of labels."""
    intensities: list[str]
    """The column of each AU's intensity, "" if there is none; in the order of `aus`."""


@dataclass
class _Lines:
    """The lines of a clip."""

    rows: list[tuple[int, Path, NDArray[np.float64], list[int], list[float]]] = field(default_factory=list)
    """The line's number, its image, landmarks, labels and intensities."""
    numbers: dict[int, str] = field(default_factory=dict)
    """File and line of each frame number; empty without the column ``frame``."""

    def number(self, text: str, where: str) -> None:
        if not re.fullmatch(r"[0-9]{1,18}", text):
            raise ReleaseError(
                f"{where}: wanted a whole number of at least 0 in column 'frame', got {quoted(text)}"
            )
        if int(text) in self.numbers:
            raise ReleaseError(
                f"{where}: wanted a frame number of its own, got {int(text)} as in {self.numbers[int(text)]}"
            )
        self.numbers[int(text)] = where

    def files(self, subject: str, task: str, fold: str) -> ImageFiles:
        lines, images, landmarks, labels, intensities = zip(*self.rows, strict=True)
        return ImageFiles(
            name=f"{subject}/{task}" if task else subject,
            subject=subject,
            task=task,
            fold=fold,
            numbers=tuple(self.numbers) or numbers_in_names(images) or lines,
            images=images,
            landmarks=np.stack(landmarks),
            labels=np.array(labels, np.int8),
            intensities=np.array(intensities, np.float32),
        )


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Read line number and values of each line that is not empty."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, skipinitialspace=True)
            for row in reader:
                # Programs for spreadsheets write empty lines as commas.
                if any(row):
                    yield reader.line_num, row
    except OSError as error:
        raise ReleaseError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ReleaseError(f"{path}: wanted a text file, got bytes that are no UTF-8") from None
    except csv.Error as error:
        raise ReleaseError(
            f"{path}, line {reader.line_num}: wanted comma-separated values ({error})"
        ) from None


def _columns(path: Path, header: list[str]) -> _Columns:
    names = [name.strip() for name in header]
    if len(names) == 1 and (separator := other_separator(names[0])):
        raise ReleaseError(
            f"{path}: wanted values separated by commas, got ones separated by {separator}: save it with "
            "commas, and with points in decimal numbers"
        )
    matches = {name: re.fullmatch(r"AU0*([1-9][0-9]{0,2}[LR]?)(?:_intensity)?", name) for name in names}
    known_aus = {name: facs.parse_au(match[1]) for name, match in matches.items() if match}
    intensity_aus = {name: au for name, au in known_aus.items() if name.endswith("_intensity")}
    aus = {name: au for name, au in known_aus.items() if name not in intensity_aus}
    known = ("image", "subject", "task", "frame", "fold", *LANDMARK_COLUMNS)
    numbers = [*facs.AU_RULES, *(f"{au}{side}" for au in facs.ONE_SIDED_AUS for side in "LR")]
    au_names = [f"AU{au}{ending}" for ending in ("", "_intensity") for au in numbers]
    for name in names:
        if name not in known and name not in aus and name not in intensity_aus:
            candidates = {other.lower(): other for other in (*known, *au_names)}
            # OpenFace's AU12_r is an intensity, and no right side.
            meant = re.sub("^(au[0-9]+)_r$", r"\1_intensity", name.lower()[:60])
            (nearest, *_) = difflib.get_close_matches(meant, candidates, 1, 0) or ["image"]
            raise ReleaseError(
                f"{path}: column {quoted(name)} is unknown; the nearest known one is {candidates[nearest]!r}"
            )
    # AU1 and AU01 are the same column.
    plain = {name: f"AU{au}" for name, au in aus.items()}
    plain |= {name: f"AU{au}_intensity" for name, au in intensity_aus.items()}
    for name, times in Counter(plain.get(name, name) for name in names).most_common(1):
        if times > 1:
            raise ReleaseError(f"{path}: wanted each column once, got {name} {times} times")
    for name in ("image", "subject"):
        if name not in names:
            why = ": folds must not share subjects" if name == "subject" else ""
            raise ReleaseError(
                f"{path}: wanted a column {name!r}{why}, got {', '.join(names) or 'no header'}"
            )
    if not aus:
        raise ReleaseError(f"{path}: wanted at least one column of labels such as 'AU12', got none")
    for name, au in intensity_aus.items():
        if au not in aus.values():
            raise ReleaseError(f"{path}: wanted a column 'AU{au}' beside {name!r}, got none")
    columns_of = {au: name for name, au in intensity_aus.items()}
    lacking = [name for name in LANDMARK_COLUMNS if name not in names]
    if lacking and len(lacking) < len(LANDMARK_COLUMNS):
        raise ReleaseError(
            f"{path}: wanted all columns x_0..x_48 and y_0..y_48 or none, got no {lacking[0]!r}"
        )
    return _Columns(names, aus, [columns_of.get(au, "") for au in aus.values()])


def _label(text: str, column: str, where: str) -> int:
    if text not in LABELS:
        raise ReleaseError(
            f"{where}: wanted 1, 0, or nothing, -1 or 9 for missing in column {column!r}, got {quoted(text)}"
        )
    return LABELS[text]


def _intensity(text: str | None, column: str, where: str) -> float:
    """Parse an intensity, NaN if the text is empty; None stands for an AU without a column."""
    if not text:
        return math.nan
    try:
        intensity = decimal_number(text)
    except ValueError:
        intensity = math.nan
    if not 0 <= intensity <= 5:
        raise ReleaseError(f"{where}: wanted 0 to 5, or nothing, in column {column!r}, got {quoted(text)}")
    return intensity


def _landmarks(texts: list[str], where: str) -> NDArray[np.float64]:
    """Parse (49, 2) landmarks, all NaN if all texts are empty."""
    if not any(texts):
        return np.full((facs.NUM_LANDMARKS, 2), np.nan)
    numbers = []
    for name, text in zip(LANDMARK_COLUMNS, texts, strict=True):
        try:
            numbers.append(decimal_number(text))
        except ValueError:
            raise ReleaseError(f"{where}: wanted a number in column {name!r}, got {quoted(text)}") from None
    return np.array(numbers).reshape(2, facs.NUM_LANDMARKS).T
