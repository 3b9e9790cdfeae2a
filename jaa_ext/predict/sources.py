"""What a user names, as photographs, videos and cameras."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Literal

from jaa_ext.data.video import Video

PHOTOGRAPH_ENDINGS = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
VIDEO_ENDINGS = {
    ".3gp",
    ".avi",
    ".flv",
    ".m2ts",
    ".m4v",
    ".mkv",
    ".mov",
    ".mp4",
    ".mpeg",
    ".mpg",
    ".mts",
    ".ogv",
    ".webm",
    ".wmv",
}


@dataclass(frozen=True)
class Source:
    """A photograph, a video or a camera."""

    name: str
    """The file as the user named it, or as it was found in the folder named; the number of a camera."""
    kind: Literal["photograph", "video", "camera"]
    named: bool
    """Named by itself, not found in a folder or by a pattern."""

    @property
    def path(self) -> Path:
        return Path(self.name)

    @property
    def stem(self) -> str:
        """Of the files that are made of it."""
        return f"camera_{self.name}" if self.kind == "camera" else self.path.stem

    def open(self) -> Video:
        """A video or a camera.

        Raises:
            VideoError: see `Video`.
        """
        return Video(int(self.name) if self.kind == "camera" else self.name)


def find_sources(names: Iterable[str | os.PathLike[str] | int]) -> list[Source]:
    """Expand files, folders, patterns and camera numbers, in the order in which they are given.

    A folder gives the photographs and videos in it and in its folders, by their endings, sorted by name,
    without hidden ones; so does a pattern (``*``, ``?``, ``[..]``, ``**`` for folders in folders) that is no
    file. A number that is no file is a camera. Any other file is a video by its ending, else a photograph.

    Raises:
        ValueError: a file that is not there, a folder without any photograph or video, or a pattern that fits
            none.
    """
    sources: list[Source] = []
    for name in names:
        text = os.fspath(name) if not isinstance(name, int) else str(name)
        if isinstance(name, int) or (text.isdecimal() and not os.path.exists(text)):
            sources.append(Source(text, "camera", True))
        elif os.path.isdir(text):
            sources += _by_ending(_files_in(text), f"{text}: the folder holds no photograph and no video")
        elif not os.path.exists(text) and glob.has_magic(text):
            fitting = (file for file in glob.iglob(text, recursive=True) if os.path.isfile(file))
            sources += _by_ending(fitting, f"{text}: no photograph and no video fits this pattern")
        elif not os.path.exists(text):
            raise ValueError(f"{text}: there is no such file")
        else:
            sources.append(Source(text, _kind(text) or "photograph", True))
    return sources


def _files_in(folder: str) -> Iterator[str]:
    for inner, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (os.path.join(inner, file) for file in files if not file.startswith("."))


def new_name(stem: str, names: set[str]) -> str:
    """The stem, with ``_2``, ``_3`` … if it is among the names already, to which it is added.

    Two videos of one name, in two folders, must not overwrite each other's results, nor "A" those of
    "a" where a disk takes them for the same.
    """
    name = next(name for i in count(1) if (name := f"{stem}_{i}" if i > 1 else stem).casefold() not in names)
    names.add(name.casefold())
    return name


def _by_ending(files: Iterable[str], otherwise: str) -> list[Source]:
    sources = [Source(file, kind, False) for file in sorted(set(files)) if (kind := _kind(file)) is not None]
    if not sources:
        raise ValueError(otherwise)
    return sources


def _kind(name: str) -> Literal["photograph", "video"] | None:
    ending = os.path.splitext(name)[1].lower()
    if ending in PHOTOGRAPH_ENDINGS:
        return "photograph"
    return "video" if ending in VIDEO_ENDINGS else None
