"""Photographs, videos and cameras that a user names."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Literal

from jaa_ext.data.images import image_format
from jaa_ext.data.video import Video

PHOTOGRAPH_ENDINGS = {
    *(".apng", ".avif", ".bmp", ".dib", ".gif", ".j2c", ".j2k", ".jfif", ".jp2"),
    *(".jpc", ".jpe", ".jpeg", ".jpf", ".jpg", ".jpx", ".mpo", ".pbm", ".pgm"),
    *(".png", ".pnm", ".ppm", ".ras", ".sr", ".tif", ".tiff", ".webp"),
}
VIDEO_ENDINGS = {
    *(".264", ".265", ".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v"),
    *(".flv", ".h264", ".h265", ".hevc", ".ivf", ".m1v", ".m2t", ".m2ts", ".m2v"),
    *(".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4", ".mpe", ".mpeg", ".mpg"),
    *(".mts", ".mxf", ".nut", ".ogm", ".ogv", ".qt", ".rm", ".rmvb", ".ts"),
    *(".vob", ".webm", ".wmv", ".y4m"),
}


@dataclass(frozen=True)
class Source:
    """A photograph, a video or a camera."""

    name: str
    """Path of the file, as the user named it or as it was found in a folder; the number of a camera."""
    kind: Literal["photograph", "video", "camera"]
    named: bool
    """Whether the user named it by itself; False if it was found in a folder or by a pattern."""

    @property
    def path(self) -> Path:
        return Path(self.name)

    @property
    def stem(self) -> str:
        """Beginning of the names of the files that are made of it."""
        return f"camera_{self.name}" if self.kind == "camera" else self.path.stem

    def open(self) -> Video:
        """Open a video or a camera.

        Raises:
            VideoError: see `Video`.
        """
        return Video(int(self.name) if self.kind == "camera" else self.name)


def find_sources(
    names: Iterable[str | os.PathLike[str] | int], report: Callable[[str], None] | None = None
) -> list[Source]:
    """Expand files, folders, patterns and camera numbers, in the order in which they are given.

    A folder stands for the photographs and videos in it and in its subfolders, known by their endings,
    without hidden ones, and sorted by name, 2 before 10; so does a pattern (``*``, ``?``, ``[..]``, ``**``
    for any subfolders) that is no file. A number that is no file is a camera. Any other file is a photograph
    or a video by its ending, or else a photograph if its content begins like one, or else a video.

    Args:
        names: what the user named.
        report: called with a sentence about the files of a folder or pattern that were left out because of
            their endings; None reports nothing.

    Raises:
        ValueError: a file that does not exist, or a folder or pattern without any photograph or video.

    Example:
        >>> find_sources([0])
        [Source(name='0', kind='camera', named=True)]
    """
    sources: list[Source] = []
    for name in names:
        text = os.fspath(name) if not isinstance(name, int) else str(name)
        if isinstance(name, int) or (text.isdecimal() and not os.path.exists(text)):
            sources.append(Source(text, "camera", True))
        elif os.path.isdir(text):
            sources += _by_ending(
                _files_in(text, report), text, "the folder holds no photograph and no video", report
            )
        elif not os.path.exists(text) and glob.has_magic(text):
            matches = (file for file in glob.iglob(text, recursive=True) if os.path.isfile(file))
            sources += _by_ending(matches, text, "no photograph and no video fits this pattern", report)
        elif not os.path.exists(text):
            raise ValueError(f"{text}: there is no such file")
        else:
            sources.append(Source(text, _kind_of_ending(text) or _kind_of_content(text), True))
    return sources


def _files_in(folder: str, report: Callable[[str], None] | None) -> Iterator[str]:
    def unreadable(error: OSError) -> None:
        if report is not None:
            report(f"{error.filename}: the folder cannot be read ({error.strerror})")

    for inner, folders, files in os.walk(folder, onerror=unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in (os.path.join(inner, file) for file in files if not file.startswith(".")):
            if os.path.isfile(path) or not os.path.exists(path):  # a pipe may never end
                yield path


def new_name(stem: str, names: set[str]) -> str:
    """Give a stem, with ``_2``, ``_3``, ... if it is taken, and add it to the names that are.

    Two videos of one name, in two folders, must not overwrite each other's results; nor must "A" and "a" on a
    disk that takes them for the same.

    Example:
        >>> names = set()
        >>> new_name("talk", names), new_name("Talk", names)
        ('talk', 'Talk_2')
    """
    name = next(name for i in count(1) if (name := f"{stem}_{i}" if i > 1 else stem).casefold() not in names)
    names.add(name.casefold())
    return name


def _by_ending(
    files: Iterable[str], named: str, otherwise: str, report: Callable[[str], None] | None
) -> list[Source]:
    sources: list[Source] = []
    left_out: Counter[str] = Counter()
    for file in sorted(set(files), key=_natural_order):
        kind = _kind_of_ending(file)
        if kind is None:
            left_out[os.path.splitext(file)[1].lower() or "no ending"] += 1
        else:
            sources.append(Source(file, kind, False))
    endings = ", ".join(f"{ending} ({number})" for ending, number in left_out.most_common())
    if not sources:
        raise ValueError(f"{named}: {otherwise}" + (f", only {endings}" if endings else ""))
    if endings and report is not None:
        number = left_out.total()
        files_are = "file is" if number == 1 else "files are"
        report(f"{named}: {number} {files_are} left out, neither photograph nor video by ending: {endings}")
    return sources


def _natural_order(name: str) -> tuple[list[str | int], str]:
    """Give a key that sorts 2 before 10."""
    # Texts and numbers alternate, so that texts are compared with texts and numbers with numbers.
    return [int(part) if i % 2 else part for i, part in enumerate(re.split("([0-9]+)", name))], name


def _kind_of_ending(name: str) -> Literal["photograph", "video"] | None:
    ending = os.path.splitext(name)[1].lower()
    if ending in PHOTOGRAPH_ENDINGS:
        return "photograph"
    return "video" if ending in VIDEO_ENDINGS else None


def _kind_of_content(name: str) -> Literal["photograph", "video"]:
    """Tell by the first bytes; OpenCV would open some photographs as videos, such as the tiles of HEIC."""
    if not os.path.isfile(name):  # a pipe cannot be rewound, as reading a video needs
        return "photograph"
    try:
        with open(name, "rb") as file:
            return "photograph" if image_format(file.read(4096)) else "video"
    except OSError:  # reported when it is opened
        return "video"
