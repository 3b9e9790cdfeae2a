"""Whether a video is to be shown mirrored. OpenCV does not tell: it makes an angle of the display matrix."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from typing import BinaryIO, Literal

MOST = 10_000
"""Boxes of a file that are looked at; one with more before its tracks is made to take time."""
LONGEST = 96
"""Bytes of a box that are read; none that matters has more before what matters."""
TO_THE_END = 2**63


def is_mirrored(path: str | os.PathLike[str], container: Literal["mp4", "mkv"]) -> bool:
    """Whether the first video track is to be flipped, besides turned; False where the file says nothing."""
    with open(path, "rb") as file:
        return (
            _mp4_mirrors(_Parts(file, _box)) if container == "mp4" else _mkv_mirrors(_Parts(file, _element))
        )


def _mp4_mirrors(parts: _Parts) -> bool:
    """By the matrices of the movie and of the track: ISO/IEC 14496-12, 8.2.2 and 8.3.2."""
    for moov in parts.at(parts.whole, b"moov"):
        for trak in parts.at(moov, b"trak"):
            if parts.start(trak, b"mdia", b"hdlr")[8:12] == b"vide":
                movie, track = parts.start(moov, b"mvhd"), parts.start(trak, b"tkhd")
                return _flips(movie, 48 if movie[:1] == b"\1" else 36) != _flips(
                    track, 52 if track[:1] == b"\1" else 40
                )
    return False


def _flips(header: bytes, at: int) -> bool:
    """Whether the matrix there has a negative determinant."""
    if len(header) < at + 20:
        return False
    a, b, _, c, d = struct.unpack_from(">5i", header, at)
    return bool(a * d < b * c)


def _mkv_mirrors(parts: _Parts) -> bool:
    """By `ProjectionPoseYaw`, RFC 9559: half a turn about the vertical axis shows a picture from behind."""
    for track in parts.at(parts.whole, b"\x18\x53\x80\x67", b"\x16\x54\xae\x6b", b"\xae"):
        if parts.start(track, b"\x83").lstrip(b"\0") == b"\1":  # the type of video
            projection = next(parts.at(track, b"\xe0", b"\x76\x70"), (0, 0))
            flat = not parts.start(projection, b"\x76\x71").strip(b"\0")
            yaw, pitch = (_float(parts.start(projection, kind)) for kind in (b"\x76\x73", b"\x76\x74"))
            return flat and abs(yaw) == 180 and pitch == 0
    return False


def _float(number: bytes) -> float:
    return float(struct.unpack({4: ">f", 8: ">d"}[len(number)], number)[0]) if len(number) in (4, 8) else 0.0


class _Parts:
    """The parts of a file that are made of others: boxes or elements. No size in it is trusted.

    Args:
        header: reads one, and gives kind and bytes of the content that follows; None where there is none.
    """

    def __init__(self, file: BinaryIO, header: Callable[[BinaryIO], tuple[bytes, int] | None]) -> None:
        self.whole = 0, file.seek(0, os.SEEK_END)
        """Where the content begins and ends, as of each part."""
        self._file, self._header, self._looks = file, header, iter(range(MOST))

    def at(self, part: tuple[int, int], kind: bytes, *kinds: bytes) -> Iterator[tuple[int, int]]:
        """The parts of a kind that lie in another one; those in them of further kinds, if given."""
        at, end = part
        for _ in self._looks:
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
        """What the first part of a kind begins with; nothing where there is none."""
        begin, end = next(self.at(part, *kinds), (0, 0))
        self._file.seek(begin)
        return self._file.read(min(end - begin, LONGEST))


def _box(file: BinaryIO) -> tuple[bytes, int] | None:
    """ISO/IEC 14496-12, 4.2."""
    head = file.read(8)
    size, kind = int.from_bytes(head[:4], "big"), head[4:]
    if size == 1:  # a longer one follows
        size = int.from_bytes(file.read(8), "big") - 8
    if size == 0:
        return kind, TO_THE_END
    return (kind, size - 8) if size >= 8 else None


def _element(file: BinaryIO) -> tuple[bytes, int] | None:
    """RFC 8794, 4 to 6."""
    kind, size = _variable_size(file), _variable_size(file)
    number = int.from_bytes(size, "big") & (most := (1 << 7 * len(size)) - 1)
    return (kind, TO_THE_END if number == most else number) if kind and size else None


def _variable_size(file: BinaryIO) -> bytes:
    """The zeros that the first byte begins with tell how many more there are."""
    first = file.read(1)
    return first + file.read(8 - first[0].bit_length()) if first.strip(b"\0") else b""
