"""Whether a video is to be shown mirrored, which OpenCV does not tell: it keeps only the angle."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from typing import BinaryIO, Literal

MAX_HEADERS = 10_000
"""Headers of boxes or elements that are read; a file with more before its tracks is made to waste time."""
MAX_BYTES = 96
"""Bytes that are read of a box or element; all that matters lies in them."""
TO_THE_END = 2**63
"""The size of a box or element that reaches to the end of the file."""


def is_mirrored(path: str | os.PathLike[str], container: Literal["mp4", "mkv"]) -> bool:
    """Tell whether the first video track is to be flipped; False if the file does not say so."""
    with open(path, "rb") as file:
        return (
            _mp4_mirrors(_Parts(file, _box)) if container == "mp4" else _mkv_mirrors(_Parts(file, _element))
        )


def _mp4_mirrors(parts: _Parts) -> bool:
    """Tell by the matrices of the movie and of the track: ISO/IEC 14496-12, 8.2.2 and 8.3.2."""
    for moov in parts.at(parts.whole, b"moov"):
        for trak in parts.at(moov, b"trak"):
            if parts.start(trak, b"mdia", b"hdlr")[8:12] == b"vide":
                movie, track = parts.start(moov, b"mvhd"), parts.start(trak, b"tkhd")
                return _flips(movie, 48 if movie[:1] == b"\1" else 36) != _flips(
                    track, 52 if track[:1] == b"\1" else 40
                )
    return False


def _flips(header: bytes, at: int) -> bool:
    """Tell whether the matrix at this offset has a negative determinant."""
    if len(header) < at + 20:
        return False
    a, b, _, c, d = struct.unpack_from(">5i", header, at)
    return bool(a * d < b * c)


def _mkv_mirrors(parts: _Parts) -> bool:
    """Tell by `ProjectionPoseYaw`, RFC 9559: half a turn about the vertical axis mirrors the picture."""
    for track in parts.at(parts.whole, b"\x18\x53\x80\x67", b"\x16\x54\xae\x6b", b"\xae"):
        if parts.start(track, b"\x83").lstrip(b"\0") == b"\1":  # a video track
            projection = next(parts.at(track, b"\xe0", b"\x76\x70"), (0, 0))
            flat = not parts.start(projection, b"\x76\x71").strip(b"\0")
            yaw, pitch = (_float(parts.start(projection, kind)) for kind in (b"\x76\x73", b"\x76\x74"))
            return flat and abs(yaw) == 180 and pitch == 0
    return False


def _float(number: bytes) -> float:
    return float(struct.unpack({4: ">f", 8: ">d"}[len(number)], number)[0]) if len(number) in (4, 8) else 0.0


class _Parts:
    """The boxes or elements of a file, which lie in each other. No size in the file is trusted.

    Args:
        header: reads the header of a part, and returns its kind and the size of the content that follows;
            None if there is none.
    """

    def __init__(self, file: BinaryIO, header: Callable[[BinaryIO], tuple[bytes, int] | None]) -> None:
        self.whole = 0, file.seek(0, os.SEEK_END)
        """Where the content of the file begins and ends; other parts are such pairs, too."""
        self._file, self._header, self._headers = file, header, iter(range(MAX_HEADERS))

    def at(self, part: tuple[int, int], kind: bytes, *kinds: bytes) -> Iterator[tuple[int, int]]:
        """Find the parts of a kind that lie in another part; if more kinds are given, go down into them."""
        at, end = part
        for _ in self._headers:
            if at >= end:
                return
            self._file.seek(at)
            if (found := self._header(self._file)) is None:
                return
            at = self._file.tell()
            inside = at, min(at + found[1], end)
            at += found[1]
            if found[0] == kind:
                yield from self.at(inside, *kinds) if kinds else (inside,)

    def start(self, part: tuple[int, int], *kinds: bytes) -> bytes:
        """Read the first `MAX_BYTES` of the first part of a kind; empty if there is none."""
        begin, end = next(self.at(part, *kinds), (0, 0))
        self._file.seek(begin)
        return self._file.read(min(end - begin, MAX_BYTES))


def _box(file: BinaryIO) -> tuple[bytes, int] | None:
    """Read the header of a box: ISO/IEC 14496-12, 4.2."""
    head = file.read(8)
    size, kind = int.from_bytes(head[:4], "big"), head[4:]
    if size == 1:  # the size follows in 8 bytes
        size = int.from_bytes(file.read(8), "big") - 8
    if size == 0:
        return kind, TO_THE_END
    return (kind, size - 8) if size >= 8 else None


def _element(file: BinaryIO) -> tuple[bytes, int] | None:
    """Read the header of an element: RFC 8794, 4 to 6."""
    kind, size = _variable_size(file), _variable_size(file)
    number = int.from_bytes(size, "big") & (unknown := (1 << 7 * len(size)) - 1)
    return (kind, TO_THE_END if number == unknown else number) if kind and size else None


def _variable_size(file: BinaryIO) -> bytes:
    """Read a number whose first byte begins with as many zero bits as there are further bytes."""
    first = file.read(1)
    return first + file.read(8 - first[0].bit_length()) if first.strip(b"\0") else b""
