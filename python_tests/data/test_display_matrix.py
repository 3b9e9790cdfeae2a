"""On files made by hand; those that OpenCV opens are in test_video.py."""

import struct

import numpy as np
import pytest

from jaa_ext.data.display_matrix import MAX_HEADERS, is_mirrored

PLAIN, TURNED, MIRRORED, FLIPPED, TRANSPOSED = (
    (1, 0, 0, 1),
    (0, 1, -1, 0),
    (-1, 0, 0, 1),
    (1, 0, 0, -1),
    (0, 1, 1, 0),
)


def box(kind, *content, how="short"):
    content = b"".join(content)
    return {
        "short": struct.pack(">I4s", 8 + len(content), kind),
        "long": struct.pack(">I4sQ", 1, kind, 16 + len(content)),
        "to the end": struct.pack(">I4s", 0, kind),
    }[how] + content


def matrix(a, b, c, d):
    return struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)


def track(of, handler=b"vide", version=0):
    header = bytes([version]) + bytes((39, 51)[version]) + matrix(*of) + bytes(8)
    media = box(b"mdia", box(b"mdhd", bytes(24)), box(b"hdlr", bytes(8), handler, bytes(12)))
    return box(b"trak", media, box(b"tkhd", header)) if version else box(b"trak", box(b"tkhd", header), media)


def movie(*tracks, of=PLAIN, version=0, how="short"):
    header = bytes([version]) + bytes((35, 47)[version]) + matrix(*of) + bytes(28)
    return box(b"moov", box(b"mvhd", header), *tracks, how=how)


def element(kind, *content, size=None):
    content = b"".join(content)
    return kind + (struct.pack(">Q", len(content) | 1 << 56) if size is None else size) + content


def matroska(yaw, *projection, kind=b"\1", size=None, number=">f"):
    angle = element(b"\x76\x73", struct.pack(number, yaw))
    video = element(b"\xe0", element(b"\xb0", b"\x80"), element(b"\x76\x70", angle, *projection))
    tracks = element(b"\x16\x54\xae\x6b", element(b"\xae", element(b"\x83", kind), video))
    head = element(b"\x1a\x45\xdf\xa3", bytes(20))
    return head + element(b"\x18\x53\x80\x67", element(b"\xec", bytes(9)), tracks, size=size)


@pytest.fixture
def mirrored(tmp_path):
    def mirrored(content, container="mp4"):
        (tmp_path / "film").write_bytes(content)
        return is_mirrored(tmp_path / "film", container)

    return mirrored


class TestMp4:
    @pytest.mark.parametrize("version", [0, 1])
    @pytest.mark.parametrize(
        "of, is_so", [(PLAIN, False), (TURNED, False), (MIRRORED, True), (FLIPPED, True), (TRANSPOSED, True)]
    )
    def test_the_matrices_of_track_and_movie(self, mirrored, of, is_so, version):
        assert mirrored(movie(track(of, version=version))) == is_so
        assert mirrored(movie(track(PLAIN), of=of, version=version)) == is_so
        assert mirrored(movie(track(of), of=MIRRORED)) != is_so

    def test_the_first_video_track_counts(self, mirrored):
        sound, other = track(PLAIN, b"soun"), track(PLAIN)
        assert mirrored(movie(sound, track(MIRRORED), other))
        assert not mirrored(movie(track(MIRRORED, b"soun"), other, track(MIRRORED)))
        assert not mirrored(movie(track(MIRRORED, b"soun")))

    def test_the_movie_lies_anywhere(self, mirrored):
        film, pictures = movie(track(MIRRORED)), bytes(1000)
        assert mirrored(box(b"ftyp", b"isom") + film + box(b"mdat", pictures))
        assert mirrored(box(b"ftyp", b"isom") + box(b"mdat", pictures, how="long") + film)
        assert mirrored(box(b"mdat", pictures) + movie(track(MIRRORED), how="to the end"))
        assert not mirrored(box(b"mdat", pictures, film, how="to the end"))
        # The content of a box is never taken for boxes.
        assert not mirrored(box(b"mdat", film) + movie(track(PLAIN)))

    def test_a_matrix_of_zeros_means_nothing(self, mirrored):
        assert not mirrored(movie(track((0, 0, 0, 0))))

    def test_many_boxes_are_not_looked_through(self, mirrored):
        film = movie(track(MIRRORED))
        assert mirrored(box(b"free") * (MAX_HEADERS // 2) + film)
        assert not mirrored(box(b"free") * (MAX_HEADERS + 1) + film)

    @pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 2**31, 2**32 - 1])
    @pytest.mark.parametrize("kind", [b"moov", b"trak", b"mdia", b"hdlr", b"tkhd", b"mvhd"])
    def test_sizes_that_lie(self, mirrored, size, kind):
        content = bytearray(movie(track(MIRRORED)))
        struct.pack_into(">I", content, content.index(kind) - 4, size)
        assert mirrored(content) in (True, False)
        content = bytearray(box(b"ftyp", how="long") + movie(track(MIRRORED)))
        struct.pack_into(">Q", content, 8, 2**63 + size)
        assert not mirrored(content)


class TestMkv:
    @pytest.mark.parametrize(
        "yaw, is_so", [(0, False), (180, True), (-180, True), (90, False), (np.nan, False)]
    )
    def test_half_a_turn_about_the_vertical_axis(self, mirrored, yaw, is_so):
        assert mirrored(matroska(yaw), "mkv") == mirrored(matroska(yaw, number=">d"), "mkv") == is_so

    def test_what_is_no_flat_picture_or_no_video(self, mirrored):
        assert not mirrored(matroska(180, element(b"\x76\x71", b"\1")), "mkv")  # all around
        assert not mirrored(matroska(180, element(b"\x76\x74", struct.pack(">f", 90))), "mkv")  # tilted
        assert not mirrored(matroska(180, kind=b"\2"), "mkv")  # sound
        assert mirrored(matroska(180, kind=b"\0\1"), "mkv")

    def test_an_unknown_size(self, mirrored):
        """Of what is written while it goes on."""
        assert mirrored(matroska(180, size=b"\xff"), "mkv")
        assert mirrored(matroska(180, size=b"\1" + b"\xff" * 7), "mkv")


@pytest.mark.parametrize("container, content", [("mp4", movie(track(MIRRORED))), ("mkv", matroska(180))])
def test_damage_does_no_harm(mirrored, container, content):
    assert mirrored(content, container)
    assert not mirrored(b"", container)
    assert not any(mirrored(content[:length], container) for length in range(0, len(content) // 3, 5))
    random = np.random.default_rng(0)
    for _ in range(300):
        damaged = np.frombuffer(content, np.uint8).copy()
        damaged[random.integers(0, len(damaged), 3)] = random.integers(0, 256, 3)
        assert mirrored(damaged.tobytes(), container) in (True, False)
