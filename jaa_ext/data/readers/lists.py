"""The lists of the JAA-Net authors' programs, and of ME-GraphAU's: text files with a line for each image."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from jaa_ext import facs
from jaa_ext.data.errors import quoted
from jaa_ext.data.readers.files import decimal_number, other_separator, read_lines
from jaa_ext.data.readers.image_files import ImageFiles, numbers_in_names
from jaa_ext.data.release import MISSING, Release, ReleaseError

T = TypeVar("T")

AUS_BY_COLUMNS = {12: ("BP4D", facs.BP4D_AUS), 8: ("DISFA", facs.DISFA_AUS), 10: ("GFT", facs.GFT_AUS)}
"""The data set and its AUs, by the number of a list's columns."""


def read_lists(
    prefixes: Sequence[str | os.PathLike[str]],
    images: str | os.PathLike[str],
    *,
    landmarks: Literal["raw", "aligned", "none"],
    aus: tuple[int, ...] | None = None,
) -> Release:
    """Read lists of images, landmarks and AUs.

    The JAA-Net authors have these files for each prefix; a line stands for the same image in all of them:

    - ``<prefix>_path.txt``: the path, relative to `images`;
    - ``<prefix>_land.txt``: 98 numbers x1 y1 x2 y2 ...;
    - ``<prefix>_AUoccur.txt``: a number for each AU, 1, 0, and 9 or -1 for missing;
    - ``<prefix>_biocular.txt``: only the number of its lines is checked, if the file is there.

    Numbers are separated by spaces, tabs or commas. Each prefix becomes a fold, called by its last component.

    ME-GraphAU has ``<prefix>_test_img_path_fold1.txt`` and ``<prefix>_test_label_fold1.txt``, and so on for
    each fold, and no landmarks. Each test list becomes the fold of its number; the training lists beside them
    must agree with that.

    Weights (``_weight.txt``, ``_weight_fold1.txt``) are not read: training computes them.

    A path gives subject and task: "F001/T1/2440.jpg" belongs to subject F001 and task T1, "SN001/0001.png" to
    SN001 and no task; without a folder the subject is the file's name up to the first "_" or "-". This does
    not count folders in front that name a data set ("BP4D/F001/T1/2440.jpg") or that all lines share;
    `images` may be the last of them. The frame's number is the last whole number in the file's name; in a
    clip where a name has none, or two have the same, it is the line's number.

    Args:
        prefixes: what the files' names begin with, such as "data/BP4D_part1", or "list/BP4D" for ME-GraphAU.
        images: the folder that the paths are relative to.
        landmarks: "raw" as before the authors' alignment: counted from 1, in the original images; "aligned"
            as after it: counted from 0, in aligned images, which `prepare` must keep with ``align=False``;
            "none": not read, so `prepare` needs a detector.
        aus: AU numbers of the columns; None for BP4D's with 12 columns, DISFA's with 8, GFT's with 10.

    Raises:
        ReleaseError: files are missing or do not fit together; the message names the line.
        ValueError: another word for `landmarks`, or no prefix.
    """
    if landmarks not in ("raw", "aligned", "none") or not prefixes:
        raise ValueError(
            "read_lists: wanted at least one prefix and landmarks 'raw', 'aligned' or 'none', "
            f"got {len(prefixes)} and {landmarks!r}"
        )
    images, files = Path(images), [Path(prefix) for prefix in prefixes]
    if not images.is_dir():
        raise ReleaseError(f"{images}: wanted the folder of the images, got no folder of that name")
    if len({prefix.name for prefix in files}) < len(files):
        raise ReleaseError(f"wanted prefixes whose last components differ, got {[str(p) for p in files]}")
    name, folds = "lists", []
    for prefix in files:
        tests = _test_lists(prefix)
        if aus is None:
            name, aus = _guess_aus(
                _label_file(next(iter(tests.values()))) if tests else _file(prefix, "AUoccur")
            )
        if not tests:
            folds.append(_read_fold(prefix, landmarks, aus))
        elif landmarks == "none":
            folds += _read_test_lists(tests, aus)
        else:
            raise ReleaseError(
                f"{prefix}: wanted landmarks in {_file(prefix, 'land').name}, got ME-GraphAU's lists, which "
                "have none: let a detector find them (--landmarks none)"
            )
    _require_once((fold.name for fold in folds), "a fold", "wanted prefixes of different folds")
    clips = _clips(folds, images)
    source = f"{landmarks} landmarks of {', '.join(str(p.resolve()) for p in files)} on {images.resolve()}"
    return Release(name, aus or (), tuple(clips), source=source)


class _Fold(NamedTuple):
    """The n lines of a fold."""

    name: str
    file: Path
    """The file of the paths."""
    paths: list[PurePosixPath]
    landmarks: NDArray[np.float64]
    """(n, 49, 2), NaN where there are none."""
    labels: NDArray[np.int8]
    """(n, A)"""


def _read_fold(prefix: Path, landmarks: str, aus: tuple[int, ...]) -> _Fold:
    """Read the JAA-Net authors' files of a prefix."""
    file = _file(prefix, "path")
    paths = _read(file, _path)
    points = _no_landmarks(len(paths))
    if landmarks != "none":
        rows = _read(_file(prefix, "land"), _numbers(2 * facs.NUM_LANDMARKS))
        _require_as_many(file, paths, _file(prefix, "land"), rows)
        points = np.array(rows).reshape(points.shape) - (1 if landmarks == "raw" else 0)
    labels = _read_labels(file, paths, _file(prefix, "AUoccur"), aus)
    biocular = _file(prefix, "biocular")
    if biocular.exists():
        _require_as_many(file, paths, biocular, read_lines(biocular))
    return _Fold(prefix.name, file, paths, points, labels)


def _test_lists(prefix: Path) -> dict[str, Path]:
    """Find ME-GraphAU's test list of each fold; none if the prefix has files of the JAA-Net authors."""
    if _file(prefix, "path").exists():
        return {}
    start = f"{prefix.name}_test_img_path_fold"
    found = sorted(prefix.parent.glob(f"{glob.escape(start)}*.txt"))
    if not found:
        raise ReleaseError(
            f"{prefix}: wanted lists whose names begin so, {_file(prefix, 'path').name} or ME-GraphAU's "
            f"{start}1.txt, got neither"
        )
    return {path.stem.removeprefix(start): path for path in found}


def _read_test_lists(tests: dict[str, Path], aus: tuple[int, ...]) -> list[_Fold]:
    """Read ME-GraphAU's test lists; a training list, if there is one, must agree with the other folds'."""
    folds = []
    for name, file in tests.items():
        paths = _read(file, _path)
        labels = _read_labels(file, paths, _label_file(file), aus)
        folds.append(_Fold(name, file, paths, _no_landmarks(len(paths)), labels))
    _require_images_once(folds)
    tested = {path: (fold, row) for fold in folds for row, path in enumerate(fold.paths)}
    for name, file in tests.items():
        file = file.with_name(file.name.replace("_test_", "_train_"))
        if not file.exists():
            continue
        paths = _read(file, _path)
        labels = _read_labels(file, paths, _label_file(file), aus)
        for line, (path, trained) in enumerate(zip(paths, labels, strict=True), 1):
            if path not in tested:
                raise ReleaseError(
                    f"{file}, line {line}: wanted images of the other folds' test lists, got {quoted(path)}, "
                    "which is in none: are those of all folds there?"
                )
            fold, row = tested[path]
            if fold.name == name:
                raise ReleaseError(
                    f"{file}, line {line}: wanted no image of {fold.file.name}, got {quoted(path)}"
                )
            if not np.array_equal(fold.labels[row], trained):
                raise ReleaseError(
                    f"{_label_file(file)}, line {line}: wanted the labels that {quoted(path)} has in "
                    f"{_label_file(fold.file).name}, got others"
                )
    return folds


def _read_labels(
    file: Path, paths: list[PurePosixPath], label_file: Path, aus: tuple[int, ...]
) -> NDArray[np.int8]:
    rows = _read(label_file, _labels(len(aus)))
    _require_as_many(file, paths, label_file, rows)
    return np.array(rows, np.int8).reshape(-1, len(aus))


def _require_as_many(file: Path, paths: list[PurePosixPath], other: Path, rows: Sequence[object]) -> None:
    if len(rows) != len(paths):
        raise ReleaseError(f"{other}: wanted {len(paths)} lines, as many as {file.name} has, got {len(rows)}")


def _require_once(names: Iterable[object], what: str, wanted: str) -> None:
    for name, times in Counter(names).most_common(1):
        if times > 1:
            raise ReleaseError(f"{wanted}, got {what} {quoted(name)} {times} times")


def _require_images_once(folds: list[_Fold]) -> None:
    files = ", ".join(str(fold.file) for fold in folds)
    _require_once((p for fold in folds for p in fold.paths), "image", f"{files}: wanted each image once")


def _no_landmarks(count: int) -> NDArray[np.float64]:
    return np.full((count, facs.NUM_LANDMARKS, 2), np.nan)


class _Lines(NamedTuple):
    """The lines of a fold, counted from 0, that belong to one clip."""

    subject: str
    task: str
    lines: list[int]


def _clips(folds: list[_Fold], images: Path) -> list[ImageFiles]:
    _require_images_once(folds)
    all_paths = [path for fold in folds for path in fold.paths]
    shared = _shared_folders(all_paths)
    # Paths may begin with the data set's folder though `images` is that folder itself.
    shorten = any(
        os.path.exists(images / _without_data_set(path, shared)) and not os.path.exists(images / path)
        for path in all_paths[:1]
    )
    found: list[ImageFiles] = []
    for fold in folds:
        clips: dict[str, _Lines] = {}
        for line, path in enumerate(fold.paths):
            path = _without_data_set(path, shared)
            if len(path.parts) == 1:
                clip = subject = path.stem.replace("-", "_").split("_")[0]
            else:
                clip, subject = path.parent.as_posix(), path.parts[0]
            if not subject:
                raise ReleaseError(
                    f"{fold.file}, line {line + 1}: wanted a name with a subject in front, got {quoted(path)}"
                )
            task = "/".join(path.parts[1:-1])
            clips.setdefault(clip, _Lines(subject, task, [])).lines.append(line)
        for clip, (subject, task, lines) in clips.items():
            paths = [fold.paths[line] for line in lines]
            files = [_without_data_set(path, shared) for path in paths] if shorten else paths
            found.append(
                ImageFiles(
                    name=clip,
                    subject=subject,
                    task=task,
                    fold=fold.name,
                    numbers=numbers_in_names(paths) or tuple(line + 1 for line in lines),
                    images=tuple(images / file for file in files),
                    landmarks=fold.landmarks[lines],
                    labels=fold.labels[lines],
                )
            )
    return found


def _shared_folders(paths: list[PurePosixPath]) -> int:
    """Count the folders in front that all lines share, above those of the subjects."""
    folders = {path.parent for path in paths}
    shared = PurePosixPath(os.path.commonpath(folders)) if folders else PurePosixPath()
    for depth, name in enumerate(shared.parts):
        if _SUBJECT.fullmatch(name):
            return depth
    # If images lie in the last of them, it may be a subject's.
    return 0 if shared in folders else len(shared.parts)


def _without_data_set(path: PurePosixPath, shared: int) -> PurePosixPath:
    """Shorten a path to what follows the folders of the data set: it begins with the subject's."""
    parts = path.parts[shared:]
    while len(parts) > 1 and _DATA_SET.fullmatch(parts[0]):
        parts = parts[1:]
    return PurePosixPath(*parts)


_SUBJECT = re.compile(r"[FM][0-9]{3}|SN[0-9]{3}")
"""Subjects of BP4D and DISFA."""
_DATA_SET = re.compile(r"(bp4d|disfa|gft|aff-?wild)(plus)?[0-9]?([\W_].*)?", re.IGNORECASE)
"""Folders that name a data set, such as "BP4D" or "DISFA_images"."""


def _guess_aus(path: Path) -> tuple[str, tuple[int, ...]]:
    lines = read_lines(path)
    columns = len(_split(lines[0])) if lines else 0
    if columns not in AUS_BY_COLUMNS:
        known = ", ".join(f"{number} ({name})" for number, (name, _) in AUS_BY_COLUMNS.items())
        raise ReleaseError(
            f"{path}, line 1: wanted one number an AU, {known}, got {columns}: say which AUs they are"
        )
    return AUS_BY_COLUMNS[columns]


def _label_file(paths: Path) -> Path:
    """ME-GraphAU's file of labels that belongs to a list of paths."""
    return paths.with_name(paths.name.replace("_img_path_", "_label_"))


def _file(prefix: Path, what: str) -> Path:
    return prefix.with_name(f"{prefix.name}_{what}.txt")


def _read(path: Path, parse: Callable[[str], T]) -> list[T]:
    """Parse each line of a file; a ValueError of `parse` becomes a ReleaseError that names file and line."""
    parsed = []
    for number, line in enumerate(read_lines(path), 1):
        try:
            parsed.append(parse(line))
        except ValueError as error:
            raise ReleaseError(f"{path}, line {number}: {error}") from None
    return parsed


def _path(line: str) -> PurePosixPath:
    path = PurePosixPath(line.strip().replace("\\", "/"))
    if not path.name or path.is_absolute() or ".." in path.parts or not path.as_posix().isprintable():
        raise ValueError(f"wanted a path relative to the folder of the images, got {quoted(line)}")
    return path


def _numbers(count: int) -> Callable[[str], NDArray[np.float64]]:
    def parse(line: str) -> NDArray[np.float64]:
        texts = _split(line)
        if len(texts) != count:
            separator = other_separator(line)
            how = f", separated by {separator}" if separator else ""
            raise ValueError(f"wanted {count} numbers, got {len(texts)}{how}")
        return np.array([decimal_number(text) for text in texts])

    return parse


def _labels(count: int) -> Callable[[str], list[int]]:
    numbers, meaning = _numbers(count), {0: 0, 1: 1, 9: MISSING, -1: MISSING}

    def parse(line: str) -> list[int]:
        values = numbers(line).tolist()
        wrong = [value for value in values if value not in meaning]
        if wrong:
            raise ValueError(f"wanted 1, 0, or 9 or -1 for missing, got {wrong[0]:g}")
        return [meaning[int(value)] for value in values]

    return parse


def _split(line: str) -> list[str]:
    return line.replace(",", " ").split()
