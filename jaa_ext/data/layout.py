"""Finding and reading the files of a released data set: folders, text, lists of frames."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jaa_ext.data.release import ReleaseError

SEARCH_DEPTH = 2
"""How many levels below the given folder a folder of the release may lie."""

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png")
"""Of the images of a release, in small letters; they may be written in capitals."""


def find_folders(source: Path, name: str) -> list[Path]:
    """The folders `name` (such as "AUCoding/AU_OCC") in `source` or up to `SEARCH_DEPTH` levels below it.

    The shallowest come first, then by name.

    Raises:
        ReleaseError: `source` is no folder, or there is none.
    """
    if not source.is_dir():
        raise ReleaseError(f"{source}: wanted the folder of the data set, got no folder of that name")
    patterns = ["*/" * level + name for level in range(SEARCH_DEPTH + 1)]
    found = [folder for pattern in patterns for folder in sorted(source.glob(pattern)) if folder.is_dir()]
    if not found:
        raise ReleaseError(
            f"{source}: wanted the folder {name} in it or up to {SEARCH_DEPTH} levels below, got none"
        )
    return found


@contextmanager
def damage_told(sentence: str, kind: type[Exception] = ReleaseError) -> Iterator[None]:
    """Whatever a library raises over a damaged file becomes `kind`, with `sentence` and its first line.

    Libraries raise many kinds of errors over a few wrong bytes, and others in their next version. Only that
    of `kind`, whose sentence is ours already, passes as it is.
    """
    try:
        yield
    except kind:
        raise
    except Exception as error:
        (reason, *_) = str(error).splitlines() or [type(error).__name__]
        raise kind(f"{sentence} ({reason[:200]})") from None


def numbered_images(folder: Path) -> dict[int, Path]:
    """The image of each number: "0017.jpg" and "17.PNG" are that of 17.

    Raises:
        ReleaseError: two images of one number.
    """
    images: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in IMAGE_ENDINGS and re.fullmatch(r"[0-9]{1,18}", path.stem):
            other = images.setdefault(int(path.stem), path)
            if other is not path:
                raise ReleaseError(
                    f"{folder}: wanted one image of frame {int(path.stem)}, got {other.name} and {path.name}"
                )
    return images


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, without the blank ones at its end.

    Raises:
        ReleaseError: it is missing, unreadable, or not text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ReleaseError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ReleaseError(f"{path}: wanted a text file, got bytes that are no UTF-8") from None
    return text.rstrip().splitlines()


def estimate_lines(path: Path) -> int:
    """About how many lines a text file has: exact up to 64 KB, from the size of the first 64 KB above."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(65536)
    if len(head) == size:
        return len(head.rstrip().splitlines())
    return round(head.count(b"\n") * size / len(head))


def whole_number(text: str, path: Path, line: int, what: str, *, lowest: int = 0) -> int:
    """`text` as a whole number of at least `lowest`.

    Raises:
        ReleaseError: it is none; `what` says what it should have been, such as "a frame number".
    """
    # int() alone would take "1_0", digits of other alphabets and numbers that no array can hold.
    if re.fullmatch(r"[+-]?[0-9]{1,18}", text.strip()) and int(text) >= lowest:
        return int(text)
    raise ReleaseError(f"{path}, line {line}: wanted {what}, got {shown(text)}")


def decimal_number(text: str) -> float:
    """`text` as a number; "nan" and "inf" are some, "1_0" and digits of other alphabets are not.

    Raises:
        ValueError: it is none.
    """
    try:
        if text.isascii() and "_" not in text:
            return float(text)
    except ValueError:
        pass
    raise ValueError(f"wanted a number, got {shown(text)}")


def shown(piece: object) -> str:
    """A piece of a file for a sentence: in quotes, and not longer than a line."""
    text = str(piece).strip()
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


def other_separator(line: str) -> str:
    """What separates the values of a line that has no comma, in quotes; empty where nothing usual does."""
    return "" if "," in line else next((repr(mark) for mark in (";", "\t", "|") if mark in line), "")


def frame_numbers(ranges: str) -> frozenset[int]:
    """The numbers of first-last ranges, both ends counted: those of "198-200 335" are 198, 199, 200, 335."""
    numbers: set[int] = set()
    for part in ranges.split():
        first, _, last = part.partition("-")
        numbers.update(range(int(first), int(last or first) + 1))
    return frozenset(numbers)


def require(package: str, needed_for: str) -> None:
    """See that a package of the extra ``data`` is there, before any work is done.

    Raises:
        ImportError: it is not; the message says how to get it.
    """
    if importlib.util.find_spec(package) is None:
        raise ImportError(
            f"{needed_for} need {package}, which is not installed: run `pip install 'jaa_ext[data]'`"
        )
