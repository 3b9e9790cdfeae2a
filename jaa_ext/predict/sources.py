"""What a user names, as photographs, videos and cameras."""

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
    """The file as the user named it, or as it was found in the folder named; the number of a camera."""
    kind: Literal["photograph", "video", "camera"]
    named: bool
    """Named by itself, not found in a folder or by a pattern."""

    @property
    def path(self) -> Path:
        return Path(self.name)

    @property
    def stem(self) -> str:
        """How the names of the files that are made of it begin."""
        return f"camera_{self.name}" if self.kind == "camera" else self.path.stem

    def open(self) -> Video:
        """A video or a camera.

        Raises:
            VideoError: see `Video`.
        """
        return Video(int(self.name) if self.kind == "camera" else self.name)


def find_sources(
    names: Iterable[str | os.PathLike[str] | int], tell: Callable[[str], None] | None = None
) -> list[Source]:
    """Expand files, folders, patterns and camera numbers, in the order in which they are given.

    A folder gives the photographs and videos in it and in its folders, by their endings, sorted by name, 2
    before 10, without hidden ones; so does a pattern (``*``, ``?``, ``[..]``, ``**`` for folders in folders)
    that is no file. A number that is no file is a camera. Any other file is a photograph or a video by its
    ending, else a photograph if it begins like one, else a video.

    Args:
        names: what the user named.
        tell: is given a sentence for each folder or pattern about the files in it that are neither by their
            endings; None tells nobody.

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
            sources += _by_ending(
                _files_in(text, tell), text, "the folder holds no photograph and no video", tell
            )
        elif not os.path.exists(text) and glob.has_magic(text):
            fitting = (file for file in glob.iglob(text, recursive=True) if os.path.isfile(file))
            sources += _by_ending(fitting, text, "no photograph and no video fits this pattern", tell)
        elif not os.path.exists(text):
            raise ValueError(f"{text}: there is no such file")
        else:
            sources.append(Source(text, _kind_of_ending(text) or _kind_of_content(text), True))
    return sources


def _files_in(folder: str, tell: Callable[[str], None] | None) -> Iterator[str]:
    def unreadable(error: OSError) -> None:
        if tell is not None:
            tell(f"{error.filename}: the folder cannot be read ({error.strerror})")

    for inner, folders, files in os.walk(folder, onerror=unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in (os.path.join(inner, file) for file in files if not file.startswith(".")):
            if os.path.isfile(path) or not os.path.exists(path):  # no pipe, which may never end
                yield path


def new_name(stem: str, names: set[str]) -> str:
    """The stem, with ``_2``, ``_3`` … if it is among the names already, to which it is added.

    Two videos of one name, in two folders, must not overwrite each other's results, nor "A" those of
    "a" where a disk takes them for the same.
    """
    name = next(name for i in count(1) if (name := f"{stem}_{i}" if i > 1 else stem).casefold() not in names)
    names.add(name.casefold())
    return name


def _by_ending(
    files: Iterable[str], named: str, otherwise: str, tell: Callable[[str], None] | None
) -> list[Source]:
    sources: list[Source] = []
    left_out: Counter[str] = Counter()
    for file in sorted(set(files), key=_natural):
        kind = _kind_of_ending(file)
        if kind is None:
            left_out[os.path.splitext(file)[1].lower() or "no ending"] += 1
        else:
            sources.append(Source(file, kind, False))
    endings = ", ".join(f"{ending} ({number})" for ending, number in left_out.most_common())
    if not sources:
        raise ValueError(f"{named}: {otherwise}" + (f", only {endings}" if endings else ""))
    if endings and tell is not None:
        number = left_out.total()
        files_are = "file is" if number == 1 else "files are"
        tell(f"{named}: {number} {files_are} left out, neither photograph nor video by ending: {endings}")
    return sources


def _natural(name: str) -> tuple[list[str | int], str]:
    """A key by which 2 comes before 10."""
    # Texts and numbers take turns, so that only like is compared with like.
    return [int(part) if i % 2 else part for i, part in enumerate(re.split("([0-9]+)", name))], name


def _kind_of_ending(name: str) -> Literal["photograph", "video"] | None:
    ending = os.path.splitext(name)[1].lower()
    if ending in PHOTOGRAPH_ENDINGS:
        return "photograph"
    return "video" if ending in VIDEO_ENDINGS else None


def _kind_of_content(name: str) -> Literal["photograph", "video"]:
    """By how the file begins: OpenCV takes for videos many a thing, tiles of HEIC photographs among them."""
    if not os.path.isfile(name):  # a pipe can be read once only, and videos want to go back
        return "photograph"
    try:
        with open(name, "rb") as file:
            return "photograph" if image_format(file.read(4096)) else "video"
    except OSError:  # told when it is opened
        return "video"
