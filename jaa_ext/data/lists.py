"""The list format of the JAA-Net authors' programs: text files with one line an image."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple, TypeVar

import numpy as np

from jaa_ext import facs
from jaa_ext.data.layout import read_lines
from jaa_ext.data.release import MISSING, ImageFiles, Release, ReleaseError, numbers_in_names

T = TypeVar("T")

AUS_BY_COLUMNS = {12: ("BP4D", facs.BP4D_AUS), 8: ("DISFA", facs.DISFA_AUS), 10: ("GFT", facs.GFT_AUS)}
"""Whose list it is by the number of its AU columns, and the AUs."""


def read_lists(
    prefixes: Sequence[str | os.PathLike[str]],
    images: str | os.PathLike[str],
    *,
    landmarks: Literal["raw", "aligned"],
    aus: tuple[int, ...] | None = None,
) -> Release:
    """Read lists of images, landmarks and AUs; each prefix becomes a fold of the name of its last component.

    The files of a prefix, line by line for the same images: ``<prefix>_path.txt``, relative to `images`;
    ``<prefix>_land.txt``, 98 numbers x1 y1 x2 y2 ...; ``<prefix>_AUoccur.txt``, one number an AU: 1, 0, and 9
    or -1 for missing. Numbers are separated by spaces, tabs or commas. Of ``<prefix>_biocular.txt`` only the
    number of lines is looked at, if it is there.

    A path tells subject and task: "F001/T1/2440.jpg" is of subject F001 and task T1, "SN001/0001.png" of
    SN001 and no task; without a folder the subject is the file's name up to the first "_" or "-". The frame's
    number is the last whole number in the file's name; in a sequence where one lacks, or two are the same, it
    is the line's number.

    Args:
        prefixes: such as "data/BP4D_part1"; with suffixes they give the files.
        images: the folder that the paths are relative to.
        landmarks: "raw" as before the authors' alignment: counted from 1, in the original images; "aligned"
            as after it: counted from 0, in aligned images, which `prepare` must keep with ``align=False``.
        aus: AU numbers of the columns; None for BP4D's with 12 columns, DISFA's with 8, GFT's with 10.

    Raises:
        ReleaseError: files that are missing or do not fit together, with the line.
        ValueError: another word for `landmarks`, or no prefix.
    """
    if landmarks not in ("raw", "aligned") or not prefixes:
        raise ValueError(
            "read_lists: wanted at least one prefix and landmarks 'raw' or 'aligned', "
            f"got {len(prefixes)} and {landmarks!r}"
        )
    images, files = Path(images), [Path(prefix) for prefix in prefixes]
    if not images.is_dir():
        raise ReleaseError(f"{images}: wanted the folder of the images, got no folder of that name")
    if len({prefix.name for prefix in files}) < len(files):
        raise ReleaseError(f"wanted prefixes whose last components differ, got {[str(p) for p in files]}")
    name, sequences = "lists", []
    for prefix in files:
        if aus is None:
            name, aus = _guess_aus(prefix)
        sequences += _read_fold(prefix, images, raw=landmarks == "raw", aus=aus)
    source = f"{landmarks} landmarks of {', '.join(str(p.resolve()) for p in files)} on {images.resolve()}"
    return Release(name, aus or (), tuple(sequences), source=source)


class _Lines(NamedTuple):
    """The lines of a fold that are of one sequence, counted from 0."""

    subject: str
    task: str
    lines: list[int]


def _read_fold(prefix: Path, images: Path, *, raw: bool, aus: tuple[int, ...]) -> list[ImageFiles]:
    paths = _read(prefix, "path", _path)
    points = np.array(_read(prefix, "land", _numbers(2 * facs.NUM_LANDMARKS)), np.float64)
    points = points.reshape(-1, facs.NUM_LANDMARKS, 2) - (1 if raw else 0)
    labels = np.array(_read(prefix, "AUoccur", _labels(len(aus))), np.int8).reshape(-1, len(aus))
    counts = {"path": len(paths), "land": len(points), "AUoccur": len(labels)}
    if _file(prefix, "biocular").exists():
        counts["biocular"] = len(read_lines(_file(prefix, "biocular")))
    for what, lines in counts.items():
        if lines != len(paths):
            raise ReleaseError(
                f"{_file(prefix, what)}: wanted {len(paths)} lines, as many as "
                f"{_file(prefix, 'path').name} has, got {lines}"
            )

    sequences: dict[str, _Lines] = {}
    for line, path in enumerate(paths):
        if len(path.parts) == 1:
            sequence = subject = path.stem.replace("-", "_").split("_")[0]
        else:
            sequence, subject = path.parent.as_posix(), path.parts[0]
        if not subject:
            raise ReleaseError(
                f"{_file(prefix, 'path')}, line {line + 1}: wanted a name with a subject in front, got {path}"
            )
        task = "/".join(path.parts[1:-1])
        sequences.setdefault(sequence, _Lines(subject, task, [])).lines.append(line)
    return [
        ImageFiles(
            name=sequence,
            subject=subject,
            task=task,
            fold=prefix.name,
            numbers=numbers_in_names(paths[line] for line in lines) or tuple(line + 1 for line in lines),
            images=tuple(images / paths[line] for line in lines),
            landmarks=points[lines],
            labels=labels[lines],
        )
        for sequence, (subject, task, lines) in sequences.items()
    ]


def _guess_aus(prefix: Path) -> tuple[str, tuple[int, ...]]:
    path = _file(prefix, "AUoccur")
    lines = read_lines(path)
    columns = len(_split(lines[0])) if lines else 0
    if columns not in AUS_BY_COLUMNS:
        known = ", ".join(f"{number} ({name})" for number, (name, _) in AUS_BY_COLUMNS.items())
        raise ReleaseError(
            f"{path}, line 1: wanted one number an AU, {known}, got {columns}: say which AUs they are"
        )
    return AUS_BY_COLUMNS[columns]


def _file(prefix: Path, what: str) -> Path:
    return prefix.with_name(f"{prefix.name}_{what}.txt")


def _read(prefix: Path, what: str, parse: Callable[[str], T]) -> list[T]:
    """The lines of one file; a ValueError of `parse` says what was wanted and got."""
    path, parsed = _file(prefix, what), []
    for number, line in enumerate(read_lines(path), 1):
        try:
            parsed.append(parse(line))
        except ValueError as error:
            raise ReleaseError(f"{path}, line {number}: {error}") from None
    return parsed


def _path(line: str) -> PurePosixPath:
    path = PurePosixPath(line.strip().replace("\\", "/"))
    if not path.name or path.is_absolute() or ".." in path.parts:
        raise ValueError(f"wanted a path relative to the folder of the images, got {line.strip()!r}")
    return path


def _numbers(count: int) -> Callable[[str], list[float]]:
    def parse(line: str) -> list[float]:
        texts = _split(line)
        if len(texts) != count:
            raise ValueError(f"wanted {count} numbers, got {len(texts)}")
        return [_number(text) for text in texts]

    return parse


def _labels(count: int) -> Callable[[str], list[int]]:
    numbers, meaning = _numbers(count), {0: 0, 1: 1, 9: MISSING, -1: MISSING}

    def parse(line: str) -> list[int]:
        values = numbers(line)
        wrong = [value for value in values if value not in meaning]
        if wrong:
            raise ValueError(f"wanted 1, 0, or 9 or -1 for missing, got {wrong[0]:g}")
        return [meaning[int(value)] for value in values]

    return parse


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"wanted a number, got {text!r}") from None


def _split(line: str) -> list[str]:
    return line.replace(",", " ").split()
