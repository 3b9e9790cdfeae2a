"""What the readers share: finding a release's files, and reading their lines and numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from jaa_ext.data.errors import quoted
from jaa_ext.data.release import ReleaseError

SEARCH_DEPTH = 2
"""How many levels below the given folder a folder of the release may lie."""

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png")
"""Endings of a release's images, in small or capital letters."""


def find_folders(source: Path, name: str) -> list[Path]:
    """Find the folders `name`, such as "AUCoding/AU_OCC", in `source` or at most `SEARCH_DEPTH` levels below.

    The shallowest come first; those of one level are sorted by name.

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


def numbered_images(folder: Path) -> dict[int, Path]:
    """Find the images of a folder by their numbers: "0017.jpg" and "17.PNG" have the number 17.

    Raises:
        ReleaseError: two images have the same number.
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
    """Read the lines of a text file, without blank ones at its end.

    Raises:
        ReleaseError: the file is missing, unreadable, or not text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ReleaseError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ReleaseError(f"{path}: wanted a text file, got bytes that are no UTF-8") from None
    return text.rstrip().splitlines()


def intensity_lines(path: Path) -> Iterator[tuple[int, int, str]]:
    """Read lines ``frame,intensity``: the number of the line, that of the frame, the text of the intensity.

    Raises:
        ReleaseError: the file cannot be read, or a line has not two values, the first a whole number.
    """
    for line, text in enumerate(read_lines(path), start=1):
        frame, *others = text.split(",")
        if len(others) != 1:
            raise ReleaseError(f"{path}, line {line}: wanted frame,intensity, got {quoted(text)}")
        yield line, whole_number(frame, path, line, "a frame number"), others[0].strip()


def estimate_lines(path: Path) -> int:
    """Estimate how many lines a text file has from its first 64 KB; exact for files that are no longer."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(65536)
    if len(head) == size:
        return len(head.rstrip().splitlines())
    return round(head.count(b"\n") * size / len(head))


def whole_number(text: str, path: Path, line: int, what: str, *, lowest: int = 0) -> int:
    """Parse a whole number of at least `lowest`.

    Raises:
        ReleaseError: `text` is none; `what` names what was wanted, such as "a frame number".
    """
    # int() alone would take "1_0", digits of other alphabets and numbers that no array can hold.
    if re.fullmatch(r"[+-]?[0-9]{1,18}", text.strip()) and int(text) >= lowest:
        return int(text)
    raise ReleaseError(f"{path}, line {line}: wanted {what}, got {quoted(text)}")


def decimal_number(text: str) -> float:
    """Parse a number; "nan" and "inf" are allowed, "1_0" and digits of other alphabets are not.

    Raises:
        ValueError: `text` is none.
    """
    try:
        if text.isascii() and "_" not in text:
            return float(text)
    except ValueError:
        pass
    raise ValueError(f"wanted a number, got {quoted(text)}")


def other_separator(line: str) -> str:
    """Find what separates the values of a line without a comma, in quotes; empty if nothing usual does."""
    return "" if "," in line else next((repr(mark) for mark in (";", "\t", "|") if mark in line), "")


def numbered_folds(*folds: str) -> dict[str, tuple[str, ...]]:
    """Number folds from "1" on; each is given as its subjects with spaces between them."""
    return {str(number): tuple(subjects.split()) for number, subjects in enumerate(folds, start=1)}


def frame_numbers(ranges: str) -> frozenset[int]:
    """Expand ranges, both ends included: "198-200 335" stands for 198, 199, 200 and 335."""
    numbers: set[int] = set()
    for part in ranges.split():
        first, _, last = part.partition("-")
        numbers.update(range(int(first), int(last or first) + 1))
    return frozenset(numbers)
