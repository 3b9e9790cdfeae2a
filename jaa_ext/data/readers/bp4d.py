"""BP4D as released: for each task a CSV of AU codes, a file of landmarks and a folder of images."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaa_ext import facs
from jaa_ext.data.errors import quoted, require_package, wrap_errors
from jaa_ext.data.readers import files
from jaa_ext.data.readers.files import frame_numbers, numbered_folds
from jaa_ext.data.release import MISSING, Frame, Release, ReleaseError, Skipped

BP4D_FOLDS = numbered_folds(
    "F001 F002 F008 F009 F010 F016 F018 F023 M001 M004 M007 M008 M012 M014",
    "F003 F005 F011 F013 F020 F022 M002 M005 M010 M011 M013 M016 M017 M018",
    "F004 F006 F007 F012 F014 F015 F017 F019 F021 M003 M006 M009 M015",
)
"""The subjects of each fold in the papers' three-fold protocol."""

BP4D_DROPPED: dict[str, frozenset[int]] = {
    "F017/T3": frame_numbers("198-201 203-206 209-263 265-267 269-332 335"),
    "F021/T3": frame_numbers("223-227"),
    "F023/T6": frame_numbers("1002-1031"),
    "M003/T5": frame_numbers("844-845"),
    "M003/T7": frame_numbers("1386-1461"),
    "M009/T4": frame_numbers("749-753 755-760"),
    "M010/T6": frame_numbers("942-957"),
}
"""The 271 coded frames, by "subject/task", that the papers' lists leave out."""

BP4D_FRAMES = 146_576
"""Number of frames that the papers' lists keep: 50,601, 50,166 and 45,809 in the three folds."""

BP4D_INTENSITY_AUS = (6, 10, 12, 14, 17)
"""AUs whose intensity is coded."""


def read_bp4d(source: str | PathLike[str]) -> Release:
    """Find the tasks of BP4D that have a CSV; the whole data set has 8 of each of 41 subjects.

    Looks in `source` and up to two levels below it for

    - ``AUCoding/AU_OCC/F001_T1.csv``: the frame number, then a column for each AU, 0, 1, or 9 for not coded;
    - ``AUCoding/AU_INT/AU06/F001_T1_AU06.csv``: lines ``frame,intensity`` of 0..5, or 9 for not coded. A
      remark in the report counts the files that are missing;
    - ``2DFeatures/F001_T1.mat``: the landmarks;
    - ``F001/T1/2440.jpg``, with or without leading zeros, in any folder such as ``Sequences(2D+3D)``; of
      several such folders the shallowest is taken.

    The landmarks have no frame numbers, but an entry for each frame of the task's video. We take it that
    where a task has as many images as entries, these belong to the images in the order of their numbers; and
    that otherwise, since only some images were kept, entry k, from 0, belongs to frame k. Coordinates count
    from 1 in the file, from 0 here.

    Raises:
        ReleaseError: folders or files are missing, or a subject is not one of BP4D.
        ImportError: h5py is not installed.
    """
    source = Path(source)
    require_package("h5py", "the landmarks of BP4D need")
    labels, landmarks = (files.find_folders(source, name)[0] for name in ("AUCoding/AU_OCC", "2DFeatures"))
    intensities = labels.parent / "AU_INT"
    folds = {subject: fold for fold, subjects in BP4D_FOLDS.items() for subject in subjects}
    roots = _image_roots(source)
    tasks, lacking = [], []
    for path in sorted(labels.glob("*.csv")):
        match = re.fullmatch(r"([FM]\d+)_(T\d+)", path.stem)
        if match is None:
            continue
        subject, task = match.groups()
        if subject not in folds:
            raise ReleaseError(f"{path}: wanted one of the 41 subjects of BP4D, got {subject}")
        points = landmarks / f"{path.stem}.mat"
        if not points.is_file():
            raise ReleaseError(f"{points}: wanted the landmarks of {path}, got no such file")
        images = next((folder for root in roots if (folder := root / subject / task).is_dir()), None)
        if images is None:
            raise ReleaseError(
                f"{source}: wanted the folder {subject}/{task} with the images of {path} in it or up to "
                f"{files.SEARCH_DEPTH} levels below, got none"
            )
        coded = {au: intensities / f"AU{au:02d}" / f"{path.stem}_AU{au:02d}.csv" for au in BP4D_INTENSITY_AUS}
        found = {au: file for au, file in coded.items() if file.is_file()}
        lacking += [file for au, file in coded.items() if au not in found]
        tasks.append(
            BP4DTask(f"{subject}/{task}", subject, task, folds[subject], path, points, images, found)
        )
    if not tasks:
        raise ReleaseError(f"{labels}: wanted AU codes in files such as F001_T1.csv, got none")
    remarks = []
    if not intensities.is_dir():
        remarks.append(f"no intensities: wanted the folder {intensities}, got none")
    elif lacking:
        remarks.append(
            f"intensities are missing in {len(lacking):,} of {len(tasks) * len(BP4D_INTENSITY_AUS):,} files, "
            f"such as {lacking[0]}"
        )
    return Release(
        "BP4D", facs.BP4D_AUS, tuple(tasks), BP4D_FRAMES, str(source.resolve()), remarks=tuple(remarks)
    )


@dataclass(frozen=True)
class BP4DTask:
    """A task of a subject (`Clip`): the frames whose AUs are coded."""

    name: str
    subject: str
    task: str
    fold: str
    labels: Path
    landmarks: Path
    images: Path
    intensities: dict[int, Path]
    """The file of each AU that has one."""

    @property
    def length(self) -> int:
        return max(files.estimate_lines(self.labels) - 1, 0)

    def read(self) -> Iterator[Frame | Skipped]:
        """Read the coded frames in the order of the CSV; see `Clip.read`."""
        import h5py

        images = files.numbered_images(self.images)
        intensity_of = {au: _intensities(path) for au, path in self.intensities.items()}
        dropped = BP4D_DROPPED.get(self.name, frozenset())
        with wrap_errors(f"{self.landmarks}: wanted a MATLAB 7.3 (HDF5) file, got another or a damaged one"):
            file = h5py.File(self.landmarks, "r")
        with file:
            entries = _entries(file, self.landmarks)
            in_order = len(images) == len(entries)
            numbers = sorted(images) if in_order else range(len(entries))
            entry_of = {number: k for k, number in enumerate(numbers)}
            for number, labels in _codes(self.labels):
                if number in dropped:
                    yield Skipped(number, "left out by the papers' lists")
                elif number not in images:
                    yield Skipped(number, "no image")
                elif number not in entry_of:
                    yield Skipped(number, "no landmarks")
                elif isinstance(points := _points(file, entries, entry_of[number], self.landmarks), str):
                    yield Skipped(number, points)
                else:
                    known = (intensity_of.get(au, {}) for au in facs.BP4D_AUS)
                    intensities = tuple(frames.get(number, math.nan) for frames in known)
                    yield Frame(number, images[number], points, labels, intensities)


def _image_roots(source: Path) -> list[Path]:
    """Find the folders that hold a subject's folder, the shallowest first."""
    subjects = {subject for fold in BP4D_FOLDS.values() for subject in fold}
    roots, level = [], [source]
    for _ in range(files.SEARCH_DEPTH + 1):
        below = []
        for folder in level:
            # glob, unlike iterdir, passes over a folder that may not be read, such as a disk's lost+found.
            children = [child for child in sorted(folder.glob("*")) if child.is_dir()]
            if any(child.name in subjects for child in children):
                roots.append(folder)
            below += [child for child in children if child.name not in subjects]
        level = below
    return roots


def _codes(path: Path) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Read the frame number and the labels of each line of a CSV."""
    header, *lines = files.read_lines(path) or [""]
    names = [name.strip() for name in header.split(",")][1:]
    columns = {name: column for column, name in enumerate(names, start=1)}
    for au in facs.BP4D_AUS:
        if names.count(str(au)) != 1:
            got = f"{names.count(str(au)) or 'none'} for AU {au}"
            if separator := files.other_separator(header):
                got = f"values separated by {separator}, not by commas"
            raise ReleaseError(f"{path}, line 1: wanted a column for each AU, got {got}")
    codes = {"0": 0, "1": 1, "9": MISSING}
    seen: set[int] = set()
    for line, text in enumerate(lines, start=2):
        cells = [cell.strip() for cell in text.split(",")]
        number = files.whole_number(cells[0], path, line, "a frame number")
        if number in seen:
            raise ReleaseError(f"{path}, line {line}: wanted each frame once, got frame {number} again")
        seen.add(number)
        labels = []
        for au in facs.BP4D_AUS:
            code = cells[columns[str(au)]] if columns[str(au)] < len(cells) else ""
            if code not in codes:
                raise ReleaseError(f"{path}, line {line}: wanted 0, 1 or 9 for AU {au}, got {quoted(code)}")
            labels.append(codes[code])
        yield number, tuple(labels)


def _intensities(path: Path) -> dict[int, float]:
    """Read the intensity of an AU in each frame, NaN where it is not coded."""
    intensities: dict[int, float] = {}
    for line, number, code in files.intensity_lines(path):
        if number in intensities:
            raise ReleaseError(f"{path}, line {line}: wanted each frame once, got frame {number} again")
        if code not in ("0", "1", "2", "3", "4", "5", "9"):
            raise ReleaseError(f"{path}, line {line}: wanted 0..5 or 9, got {quoted(code)}")
        intensities[number] = math.nan if code == "9" else float(code)
    return intensities


def _entries(file: Any, path: Path) -> Any:
    """Read the references ``fit/pred``, one for each frame of the video."""
    import h5py

    with wrap_errors(f"{path}, key fit/pred: wanted one reference a frame, got what cannot be read"):
        entries = file.get("fit/pred")
        if not isinstance(entries, h5py.Dataset):
            raise ReleaseError(f"{path}: wanted the key fit/pred with one reference a frame, got none")
        if h5py.check_ref_dtype(entries.dtype) is not h5py.Reference:
            raise ReleaseError(f"{path}, key fit/pred: wanted one reference a frame, got {entries.dtype}")
        # A damaged file may claim any number, and h5py would allocate memory for all of them.
        if entries.size is None or entries.size > _MAX_ENTRIES:
            raise ReleaseError(
                f"{path}, key fit/pred: wanted up to {_MAX_ENTRIES:,} references, got shape {entries.shape}"
            )
        return entries[()].ravel()


def _points(file: Any, entries: Any, index: int, path: Path) -> NDArray[np.float64] | str:
    """Read (49, 2) landmarks, counted from 0; where there are none, say why."""
    import h5py

    try:
        reference = entries[index]
        if not reference:
            return "empty landmarks"
        dataset = file[reference]
        if not isinstance(dataset, h5py.Dataset):
            return "damaged landmarks: a reference to no array"
        # For an empty array MATLAB writes the list of its dimensions, and an attribute that says so.
        if dataset.ndim < 2 or 0 in dataset.shape or dataset.attrs.get("MATLAB_empty", 0):
            return "empty landmarks"
        if dataset.dtype.kind not in "iuf":
            return "damaged landmarks: no numbers"
        if dataset.shape == (2, facs.NUM_LANDMARKS):
            return np.asarray(dataset[()], np.float64).T - 1
    # h5py has different errors for references to nowhere, chunks that cannot be unpacked, and other types.
    except Exception:
        return "damaged landmarks: they cannot be read"
    raise ReleaseError(
        f"{path}, key fit/pred, entry {index}: wanted 2 x {facs.NUM_LANDMARKS} numbers, "
        f"got shape {dataset.shape}"
    )


_MAX_ENTRIES = 1_000_000
"""Frames of eleven hours of video; BP4D's tasks take a minute."""
