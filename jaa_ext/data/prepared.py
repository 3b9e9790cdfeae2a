"""Prepared data sets: the folders that `prepare` writes, read back for training."""

from __future__ import annotations

import os
import posixpath
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaa_ext import facs
from jaa_ext.data.errors import quoted, wrap_errors
from jaa_ext.data.faces import FaceSample
from jaa_ext.data.images import read_image
from jaa_ext.data.preparation.folder import (
    IMAGES,
    LANDMARK_COLUMNS,
    SETTINGS,
    FolderError,
    Preparation,
    alignment_warning,
    au_columns,
    index_file,
    intensity_columns,
    read_settings,
    require_exclusive_folds,
    require_table,
    sort_folds,
)
from jaa_ext.data.release import MISSING


class PreparedFaces:
    """A prepared data set (`FaceDataset`).

    The id of a sample is "<clip>/<frame number>", such as "F001/T1/2440", and begins with the subject.

    Args:
        folder: what `prepare` wrote.
        aus: AU numbers of the labels, with sides or not, in this order; None for all AUs of the folder.
        folds: keep only the frames of these folds; None for all.
        subjects: keep only the frames of these subjects; None for all.

    Raises:
        FolderError: the folder has no finished preparation; it lacks the AUs, folds or subjects asked for; or
            a subject is in two of its folds, asked for or not.
        ImageError: when a sample is read, its image is missing or damaged.
        ImportError: pandas, or pyarrow for a Parquet index, is not installed.

    Example:
        >>> from jaa_ext.data import prepare
        >>> from jaa_ext.data.rendered.release import rendered_release
        >>> release = rendered_release(subjects=11, samples_per_subject=1, size=73)
        >>> report = prepare(release, "eleven", align=False, table="csv", workers=0)
        >>> test = PreparedFaces("eleven", aus=(1, 12), folds=["test"])
        >>> [sample.id for sample in test], test.label_matrix().shape
        (['R0009/0', 'R0010/0'], (2, 2))
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        aus: Sequence[facs.AU] | None = None,
        folds: Collection[str] | None = None,
        subjects: Collection[str] | None = None,
    ) -> None:
        self._folder = Path(folder)
        known = read_settings(self._folder)
        available = tuple(known.settings.aus)
        self._aus = available if aus is None else tuple(aus)
        unknown = [au for au in self._aus if au not in available]
        if unknown:
            raise FolderError(f"{folder}: has no labels of AU {unknown[0]}, only of {list(available)}")
        if not self._aus or len(set(self._aus)) < len(self._aus):
            raise FolderError(f"{folder}: wanted distinct AUs of {list(available)}, got {list(self._aus)}")
        assert known.image_size is not None
        self._name, self._image_size, self._opencv = known.settings.name, known.image_size, known.opencv

        index = _read_index(self._folder, known, self._aus)
        subject, fold = index.subject, index.fold
        require_exclusive_folds(zip(subject, fold, strict=True), str(folder))
        keep = np.ones(len(subject), bool)
        for what, wanted, column in (("fold", folds, fold), ("subject", subjects, subject)):
            if wanted is not None:
                keep &= np.isin(column, require_known(wanted, set(column), what, str(folder)))
        rows = np.flatnonzero(keep)

        self._subjects: tuple[str, ...] = tuple(dict.fromkeys(subject[rows]))
        codes = {name: code for code, name in enumerate(self._subjects)}
        self._subject = np.array([codes[name] for name in subject[rows]], np.int64)
        self._folds = sort_folds(fold[rows])
        # Bytes, since an array of them is pickled, and shared with forked workers, as one block.
        self._paths = np.array([path.encode() for path in index.path[rows]], np.bytes_)
        self._landmarks, self._labels = index.landmarks[rows], index.labels[rows]
        self._intensities = None if index.intensities is None else index.intensities[rows]
        if warning := alignment_warning(folder, known.opencv):
            warnings.warn(warning, stacklevel=2)

    @property
    def name(self) -> str:
        """The data set's name, such as "BP4D"."""
        return self._name

    @property
    def aus(self) -> tuple[facs.AU, ...]:
        """AU numbers, with sides or not, in the order of the labels."""
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
        """The distinct folds in order, numbers by their size; empty where the frames have none."""
        return self._folds

    @property
    def image_size(self) -> int:
        """Side of the images in pixels."""
        return self._image_size

    @property
    def opencv(self) -> tuple[str, ...]:
        """The versions of OpenCV that aligned the faces; empty if none did, or none is recorded."""
        return tuple(self._opencv)

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
            None if self._intensities is None else self._intensities[index].copy(),
        )

    def label_matrix(self) -> NDArray[np.int64]:
        """(len, A) of 1, 0 and -1."""
        return self._labels.astype(np.int64)

    def intensity_matrix(self) -> NDArray[np.float32]:
        """(len, A) of 0..5, NaN where an AU has no intensity."""
        if self._intensities is None:
            return np.full(self._labels.shape, np.nan, np.float32)
        return self._intensities.copy()


def read_folds(folder: str | os.PathLike[str]) -> tuple[str, ...]:
    """Read the folds of a prepared data set in order, numbers by their size; empty where it has none.

    Raises:
        FolderError, ImportError: as `PreparedFaces`.
    """
    folder = Path(folder)
    path, index = _read_columns(folder, read_settings(folder), ["fold"])
    return sort_folds(_texts(path, index, "fold"))


def subject_folds(subjects: Iterable[str], k: int) -> dict[str, str]:
    """Deal subjects into k folds, "1" to "k", with about as many frames in each.

    The subjects are taken from most to fewest frames, equals by name; each goes into the fold that has the
    fewest frames so far.

    Args:
        subjects: the subject of each frame, see `PreparedFaces.frame_subjects`.
        k: at least 2.

    Returns:
        The fold of each subject, sorted by the subjects' names.

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
        # min takes the first of equal folds.
        dealt[subject] = min(sizes, key=sizes.__getitem__)
        sizes[dealt[subject]] += frames[subject]
    return dict(sorted(dealt.items()))


def require_known(wanted: Collection[str], known: Collection[str], what: str, where: str) -> tuple[str, ...]:
    """Check that folds or subjects are among those that there are, and give them as a tuple.

    Raises:
        FolderError: one is not; the message says `where` which `what` is missing.
    """
    for name in wanted:
        if name not in known:
            there = ", ".join(sort_folds(known)) or "none"
            raise FolderError(f'{where}: has no {what} "{name}", wanted one of {there}')
    return tuple(wanted)


class _Index(NamedTuple):
    """The n rows of an index."""

    subject: NDArray[Any]
    """(n,) of str, as fold and path."""
    fold: NDArray[Any]
    path: NDArray[Any]
    landmarks: NDArray[np.float32]
    """(n, 49, 2)"""
    labels: NDArray[np.int8]
    """(n, A)"""
    intensities: NDArray[np.float32] | None
    """(n, A), NaN where missing; None if no AU has any."""


def _read_index(folder: Path, known: Preparation, aus: Sequence[facs.AU]) -> _Index:
    columns = au_columns(aus)
    assert known.report is not None
    with_intensities = [au for au in aus if au in known.report.aus_with_intensities]
    wanted = ["subject", "fold", "path", *LANDMARK_COLUMNS, *columns, *intensity_columns(with_intensities)]
    path, index = _read_columns(folder, known, wanted)
    with wrap_errors(f"{path}: is damaged, wanted other values", FolderError):
        landmarks = np.empty((len(index), facs.NUM_LANDMARKS, 2), np.float32)
        for place, name in enumerate(LANDMARK_COLUMNS):
            axis, point = divmod(place, facs.NUM_LANDMARKS)
            landmarks[:, point, axis] = index[name].to_numpy(np.float32)
        labels = np.empty((len(index), len(columns)), np.int8)
        for place, name in enumerate(columns):
            values = index[name].to_numpy(np.float64, na_value=np.nan)
            valid = np.isnan(values) | np.isin(values, (0, 1))
            if not valid.all():
                raise FolderError(
                    f"{path}: wanted 0, 1 or nothing in column {name}, got {values[~valid][0]:g}"
                )
            labels[:, place] = np.where(np.isnan(values), MISSING, values)
        intensities = np.full(labels.shape, np.nan, np.float32) if with_intensities else None
        for au, name in zip(with_intensities, intensity_columns(with_intensities), strict=True):
            assert intensities is not None
            values = index[name].to_numpy(np.float32, na_value=np.nan)
            valid = np.isnan(values) | ((values >= 0) & (values <= 5))
            if not valid.all():
                raise FolderError(
                    f"{path}: wanted 0..5 or nothing in column {name}, got {values[~valid][0]:g}"
                )
            intensities[:, aus.index(au)] = values
    if not np.isfinite(landmarks).all():
        raise FolderError(f"{path}: wanted landmarks that are finite, got NaN or infinity")
    subjects, folds, paths = (_texts(path, index, name) for name in ("subject", "fold", "path"))
    rows = _Index(subjects, folds, paths, landmarks, labels, intensities)
    for subject, image in zip(rows.subject, rows.path, strict=True):
        if not image.startswith(f"{IMAGES}/{subject}/") or ".." in image.split("/") or "\0" in image:
            raise FolderError(
                f"{path}: wanted images in {quoted(f'{IMAGES}/{subject}/')}, got {quoted(image)}"
            )
    ((image, times),) = Counter(rows.path).most_common(1) or [("", 1)]
    if times > 1:
        raise FolderError(f"{path}: wanted each image once, got {quoted(image)} {times} times")
    return rows


def _texts(path: Path, index: Any, name: str) -> NDArray[Any]:
    # The text of a Parquet file is decoded here, not when the file is read.
    with wrap_errors(f"{path}: is damaged, wanted text in column {name}", FolderError):
        texts: NDArray[Any] = index[name].to_numpy(object)
    for text in texts:
        if not isinstance(text, str):
            raise FolderError(f"{path}: wanted text in column {name}, got {quoted(text)}")
    return texts


def _read_columns(folder: Path, known: Preparation, columns: list[str]) -> tuple[Path, Any]:
    """Read some columns of the index; return its path and a pandas.DataFrame."""
    table = known.settings.table
    require_table(table)
    import pandas as pd

    path = index_file(folder, table)
    if not path.exists():
        raise FolderError(f"{path}: wanted the index of the prepared data set, got no such file")
    max_rows = known.report.kept if known.report is not None else 0
    intensities = [name for name in columns if name.endswith("_intensity")]
    labels = [name for name in columns if name.startswith("AU") and name not in intensities]
    sentence = f"{path}: is damaged, wanted the columns that {SETTINGS} tells of"
    # Numbers beyond float32 become infinite, and are refused as that.
    with wrap_errors(sentence, FolderError), np.errstate(over="ignore"):
        if table == "parquet":
            from pyarrow.parquet import read_metadata

            # Asked first, since a few bytes of a damaged file can stand for any number of rows.
            rows = read_metadata(path).num_rows
            index = pd.read_parquet(path, columns=columns, engine="pyarrow") if rows <= max_rows else None
        else:
            types: dict[str, Any] = dict.fromkeys(("subject", "fold", "path"), str)
            types |= dict.fromkeys(LANDMARK_COLUMNS, np.float32) | dict.fromkeys(labels, "Int8")
            types |= dict.fromkeys(intensities, np.float32)
            # A subject may be called "NA" or 007, so only empty labels and intensities are missing values.
            index = pd.read_csv(
                path,
                usecols=columns,
                dtype={name: types[name] for name in columns},
                keep_default_na=False,
                na_values={name: [""] for name in (*labels, *intensities)},
            )
            rows = len(index)
    if rows > max_rows:
        raise FolderError(f"{path}: wanted the {max_rows:,} rows that {SETTINGS} tells of, got {rows:,}")
    return path, index
