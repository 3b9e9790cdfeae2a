"""Finding and reading the files of a released data set: folders, text, lists of frames."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from jaa_ext.data.release import ReleaseError

SEARCH_DEPTH = 2
"""How many levels below the given folder a folder of the release may lie."""


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


def whole_number(text: str, path: Path, line: int, what: str) -> int:
    """`text` as a whole number.

    Raises:
        ReleaseError: it is none; `what` says what it should have been, such as "a frame number".
    """
    try:
        return int(text)
    except ValueError:
        raise ReleaseError(f"{path}, line {line}: wanted {what}, got {text.strip()!r}") from None


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
