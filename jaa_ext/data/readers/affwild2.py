"""Aff-Wild2 as released for ABAW 2021: for each video a text file of AU labels and a folder of face crops."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from jaa_ext import facs
from jaa_ext.data.errors import quoted
from jaa_ext.data.readers.files import estimate_lines, find_folders, numbered_images, read_lines, whole_number
from jaa_ext.data.release import MISSING, Frame, Release, ReleaseError, Skipped

AFFWILD2_FOLDS = {"train": "Train_Set", "validation": "Validation_Set"}
"""The folder of each part, by its fold; the labels of the test set are not released."""


def read_affwild2(source: str | PathLike[str], images: str | PathLike[str] | None = None) -> Release:
    """Find the labelled videos of Aff-Wild2.

    Looks in `source` and up to two levels below it for ``Train_Set`` and ``Validation_Set`` side by side,
    with AU labels in ``<video>.txt`` (as in ``AU_Set``; the labels of other challenges are passed over). The
    first line of such a file names the AUs, each further line is a frame: the k-th of them, from 1, belongs
    to the image ``cropped_aligned/<video>/%05d.jpg`` of number k, which is missing where no face was found.
    The data has no landmarks, and the crops are meant to be used as they are.

    The release does not say who is seen, so each video counts as a subject: ``<video>_left`` and
    ``<video>_right`` are different people of one recording, and the parts of the data set share no video.

    Args:
        source: the folder of the annotations, or one above it.
        images: the folder ``cropped_aligned``; None to look for it like the labels.

    Raises:
        ReleaseError: folders are missing, or a video has two label files.
    """
    source = Path(source)
    labels = _label_folder(source)
    images = find_folders(source, "cropped_aligned")[0] if images is None else Path(images)
    if not images.is_dir():
        raise ReleaseError(f"{images}: wanted the folder cropped_aligned, got no folder of that name")
    videos: dict[str, AffWild2Video] = {}
    for fold, name in AFFWILD2_FOLDS.items():
        for path in sorted((labels / name).glob("[!.]*.txt")):
            video = AffWild2Video(path.stem, fold, path, images / path.stem)
            if not video.images.is_dir():
                raise ReleaseError(f"{video.images}: wanted the images of {path}, got no folder of that name")
            if path.stem in videos:
                raise ReleaseError(f"{path}: wanted each video once, got {videos[path.stem].labels} as well")
            videos[path.stem] = video
    read_from = f"{labels.resolve()}, {images.resolve()}"
    return Release("Aff-Wild2", facs.AFFWILD2_AUS, tuple(videos.values()), source=read_from)


@dataclass(frozen=True)
class AffWild2Video:
    """A video (`Clip`)."""

    name: str
    fold: str
    labels: Path
    images: Path
    task: str = ""
    """Empty, since the videos are from the internet."""

    @property
    def subject(self) -> str:
        """The video's name: see `read_affwild2`."""
        return self.name

    @property
    def length(self) -> int:
        return max(estimate_lines(self.labels) - 1, 0)

    def read(self) -> Iterator[Frame | Skipped]:
        """Read the frames in order, counted from 1; see `Clip.read`."""
        images = numbered_images(self.images)
        header, *lines = read_lines(self.labels) or [""]
        columns = _columns(header, self.labels)
        for number, text in enumerate(lines, start=1):
            labels = _labels(text, columns, self.labels, number + 1)
            if number not in images:
                yield Skipped(number, "no face: no image")
            elif set(labels) == {MISSING}:
                yield Skipped(number, "no valid label")
            else:
                yield Frame(number, images[number], None, labels)


def _label_folder(source: Path) -> Path:
    """Find the first folder that has both parts with AU labels in them."""
    train, validation = AFFWILD2_FOLDS.values()
    for part in find_folders(source, train):
        folder = part.parent
        if all(_has_au_labels(folder / name) for name in (train, validation)):
            return folder
    raise ReleaseError(
        f"{source}: wanted {train} and {validation} side by side, with text files that begin with "
        "AU1,AU2,..., got none such"
    )


def _has_au_labels(folder: Path) -> bool:
    files = sorted(folder.glob("[!.]*.txt"))
    if not files:
        return False
    with files[0].open("rb") as file:
        return file.readline().removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"AU")


def _columns(header: str, path: Path) -> list[int]:
    """Find the column of each AU of `facs.AFFWILD2_AUS`."""
    names = [name.strip() for name in header.split(",")]
    for au in facs.AFFWILD2_AUS:
        if names.count(f"AU{au}") != 1:
            raise ReleaseError(f"{path}, line 1: wanted one column AU{au}, got {quoted(header)}")
    return [names.index(f"AU{au}") for au in facs.AFFWILD2_AUS]


def _labels(text: str, columns: list[int], path: Path, line: int) -> tuple[int, ...]:
    cells = text.split(",")
    if len(cells) <= max(columns):
        raise ReleaseError(f"{path}, line {line}: wanted {max(columns) + 1} labels or more, got {len(cells)}")
    labels = tuple(
        whole_number(cells[column], path, line, "a label of 0, 1 or -1", lowest=MISSING) for column in columns
    )
    for au, label in zip(facs.AFFWILD2_AUS, labels, strict=True):
        if label not in (0, 1, MISSING):
            raise ReleaseError(f"{path}, line {line}: wanted 0, 1 or -1 for AU{au}, got {label}")
    return labels
