"""Prepared data sets: the folders that `jaa_ext.data.prepare` writes, read back for training.

The names of a folder's files and columns stand here, and are explained in `jaa_ext.data.prepare`.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaa_ext import facs
from jaa_ext.data.faces import FaceSample
from jaa_ext.data.images import read_image
from jaa_ext.data.layout import require
from jaa_ext.data.release import MISSING

FORMAT = 1
"""Version of the folder's layout."""
SETTINGS = "prepare.json"
IMAGES = "images"
LANDMARK_COLUMNS = tuple(f"{axis}_{i}" for axis in "xy" for i in range(facs.NUM_LANDMARKS))


class FolderError(ValueError):
    """The folder of a prepared data set cannot be used as asked."""


class PreparedFaces:
    """A prepared data set (`FaceDataset`).

    Ids of samples are "<sequence>/<frame number>", such as "F001/T1/2440"; they begin with the subject.

    Args:
        folder: what `prepare` wrote.
        aus: AU numbers of the labels, in this order; None for all of the folder's.
        folds: only the frames of these folds; None for all frames.
        subjects: only the frames of these subjects; None for all frames.

    Raises:
        FolderError: no finished preparation in the folder, AUs, folds or subjects that it does not have, or a
            subject in two folds; the last is looked for in the whole folder.
        ImageError: when a sample is read whose image is missing or damaged.
        ImportError: pandas, or pyarrow for a Parquet index, is not installed.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        aus: Sequence[int] | None = None,
        folds: Collection[str] | None = None,
        subjects: Collection[str] | None = None,
    ) -> None:
        self._folder = Path(folder)
        known = read_settings(self._folder)
        there = tuple(known["settings"]["aus"])
        self._aus = there if aus is None else tuple(aus)
        unknown = [au for au in self._aus if au not in there]
        if unknown:
            raise FolderError(f"{folder}: has no labels of AU {unknown[0]}, only of {list(there)}")
        if not self._aus or len(set(self._aus)) < len(self._aus):
            raise FolderError(f"{folder}: wanted distinct AUs of {list(there)}, got {list(self._aus)}")
        self._name: str = known["settings"]["name"]
        self._image_size: int = known["image_size"]

        labels = au_columns(self._aus)
        index = _read_index(self._folder, known, ["subject", "fold", "path", *LANDMARK_COLUMNS, *labels])
        subject, fold = index["subject"].to_numpy(object), index["fold"].to_numpy(object)
        require_exclusive_folds(zip(subject, fold, strict=True), str(folder))
        keep = np.ones(len(index), bool)
        for what, wanted, column in (("fold", folds, fold), ("subject", subjects, subject)):
            if wanted is not None:
                keep &= np.isin(column, _known(wanted, set(column), what, self._folder))
        rows = np.flatnonzero(keep)

        self._subjects: tuple[str, ...] = tuple(dict.fromkeys(subject[rows]))
        codes = {name: code for code, name in enumerate(self._subjects)}
        self._subject = np.array([codes[name] for name in subject[rows]], np.int64)
        self._folds = sort_folds(fold[rows])
        # Bytes: an array of them is pickled and shared between processes as one block.
        self._paths = np.array([path.encode() for path in index["path"].to_numpy(object)[rows]], np.bytes_)
        self._landmarks = np.empty((len(rows), facs.NUM_LANDMARKS, 2), np.float32)
        for place, column_name in enumerate(LANDMARK_COLUMNS):
            axis, point = divmod(place, facs.NUM_LANDMARKS)
            self._landmarks[:, point, axis] = index[column_name].to_numpy(np.float32)[rows]
        self._labels = np.column_stack(
            [index[name].to_numpy(np.int8, na_value=MISSING)[rows] for name in labels]
        )

    @property
    def name(self) -> str:
        """Of the data set, such as "BP4D"."""
        return self._name

    @property
    def aus(self) -> tuple[int, ...]:
        """AU numbers, in the order of the labels."""
        return self._aus

    @property
    def subjects(self) -> tuple[str, ...]:
        """The distinct subjects, in the order of the frames."""
        return self._subjects

    @property
    def frame_subjects(self) -> tuple[str, ...]:
        """The subject of each frame."""
        return tuple(self._subjects[code] for code in self._subject)

    @property
    def folds(self) -> tuple[str, ...]:
        """The distinct folds in order; empty where the frames have none."""
        return self._folds

    @property
    def image_size(self) -> int:
        """Side of the images in pixels."""
        return self._image_size

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> FaceSample:
        if not -len(self) <= index < len(self):
            raise IndexError(f"PreparedFaces: index {index} is out of range for {len(self)} samples")
        path = self._paths[index].decode()
        return FaceSample(
            read_image(self._folder / path),
            self._landmarks[index].copy(),
            self._labels[index].astype(np.int64),
            self._subjects[self._subject[index]],
            posixpath.splitext(path)[0].removeprefix(f"{IMAGES}/"),
        )

    def label_matrix(self) -> NDArray[np.int64]:
        """(len, A) of 1, 0 and -1."""
        return self._labels.astype(np.int64)


def read_folds(folder: str | os.PathLike[str]) -> tuple[str, ...]:
    """All folds of a prepared data set in order, numbers by their size; empty where it has none.

    Raises:
        FolderError, ImportError: as `PreparedFaces`.
    """
    folder = Path(folder)
    return sort_folds(_read_index(folder, read_settings(folder), ["fold"])["fold"])


def subject_folds(subjects: Iterable[str], k: int) -> dict[str, str]:
    """Deal subjects into k folds, "1" to "k", of about as many frames each.

    The subject with most frames comes first (by name among equals), each into the fold with fewest so far.

    Args:
        subjects: of each frame, see `PreparedFaces.frame_subjects`.
        k: at least 2.

    Returns:
        the fold of each subject, by name.

    Raises:
        ValueError: k too small, or fewer subjects than folds.
    """
    frames = Counter(subjects)
    if k < 2 or len(frames) < k:
        raise ValueError(
            f"wanted at least 2 folds and a subject for each, got k={k} of {len(frames)} subjects"
        )
    sizes = dict.fromkeys((str(fold) for fold in range(1, k + 1)), 0)
    dealt = {}
    for subject in sorted(frames, key=lambda name: (-frames[name], name)):
        # Of equal folds the first: min keeps the order of the dictionary.
        dealt[subject] = min(sizes, key=sizes.__getitem__)
        sizes[dealt[subject]] += frames[subject]
    return dict(sorted(dealt.items()))


def read_settings(folder: Path) -> dict[str, Any]:
    """prepare.json of a finished preparation.

    Raises:
        FolderError: there is none, it is not finished, or of another version.
    """
    known = read_begun(folder)
    if known is None:
        raise FolderError(f"{folder}: wanted a prepared data set, got no {SETTINGS} in that folder")
    if known["report"] is None:
        raise FolderError(f"{folder}: its preparation is not finished; the command that began it goes on")
    return known


def read_begun(folder: Path) -> dict[str, Any] | None:
    """prepare.json of a preparation that may not be finished; None where there is none.

    Raises:
        FolderError: it is damaged or of another version.
    """
    path = folder / SETTINGS
    try:
        known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = known["format"]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError):
        raise FolderError(f"{path}: is damaged: wanted the JSON that the preparation writes") from None
    if version != FORMAT:
        raise FolderError(f"{path}: wanted format {FORMAT}, got {version}; prepare the data set anew")
    return known


def index_file(folder: Path, table: str) -> Path:
    """Where the index lies: `table` is "parquet" or "csv"."""
    return folder / f"index.{table}"


def au_columns(aus: Iterable[int]) -> list[str]:
    """AU01 for AU 1."""
    return [f"AU{au:02d}" for au in aus]


def require_table(table: str) -> None:
    """See that what reads and writes an index is installed.

    Raises:
        ImportError: it is not.
    """
    for package in ("pandas", "pyarrow") if table == "parquet" else ("pandas",):
        require(package, f"prepared data sets with a {table} index")


def require_exclusive_folds(subjects_and_folds: Iterable[tuple[str, str]], where: str) -> None:
    """See that no subject is in two folds.

    Raises:
        FolderError: one is.
    """
    fold_of: dict[str, str] = {}
    for subject, fold in dict.fromkeys(subjects_and_folds):
        if fold_of.setdefault(subject, fold) != fold:
            raise FolderError(
                f"{where}: subject {subject} is in folds {fold_of[subject]!r} and {fold!r}, wanted in one"
            )


def sort_folds(folds: Iterable[str]) -> tuple[str, ...]:
    """The distinct folds that have a name, "2" before "10"."""

    def key(fold: str) -> list[str | int]:
        # Text and numbers take turns, so that only like is compared with like.
        parts = re.split(r"([0-9]+)", fold)
        return [int(part) if place % 2 else part for place, part in enumerate(parts)]

    return tuple(sorted(set(folds) - {""}, key=key))


def _known(wanted: Collection[str], there: set[str], what: str, folder: Path) -> list[str]:
    unknown = [name for name in wanted if name not in there]
    if unknown:
        raise FolderError(
            f"{folder}: has no {what} {unknown[0]!r}, only {', '.join(sort_folds(there)) or 'none'}"
        )
    return list(wanted)


def _read_index(folder: Path, known: dict[str, Any], columns: list[str]) -> Any:
    """A pandas.DataFrame of some of the index's columns."""
    table = known["settings"]["table"]
    require_table(table)
    import pandas as pd

    path = index_file(folder, table)
    labels = [name for name in columns if name.startswith("AU")]
    try:
        if table == "parquet":
            return pd.read_parquet(path, columns=columns, engine="pyarrow")
        types: dict[str, Any] = dict.fromkeys(("subject", "fold", "path"), str)
        types |= dict.fromkeys(LANDMARK_COLUMNS, np.float32) | dict.fromkeys(labels, "Int8")
        # A subject may be called "NA" or 007: only an empty label is missing.
        return pd.read_csv(
            path,
            usecols=columns,
            dtype={name: types[name] for name in columns},
            keep_default_na=False,
            na_values={name: [""] for name in labels},
        )
    except FileNotFoundError:
        raise FolderError(f"{path}: wanted the index of the prepared data set, got no such file") from None
    except (ValueError, OSError) as error:
        first = str(error).splitlines()[0]
        raise FolderError(
            f"{path}: is damaged, wanted the columns that {SETTINGS} tells of ({first})"
        ) from None
