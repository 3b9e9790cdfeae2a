"""Every frame shows its own number in black and white bars, so that a wrong one is seen."""

import itertools
import os
import re
import struct
import subprocess
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from jaa_ext.data import video
from jaa_ext.data.video import Video, VideoError, read_frames

COLORS = [(200, 30, 60), (20, 180, 90), (60, 90, 230), (128, 128, 128)]
BAR, BITS, HEIGHT = 16, 8, 48
EVENLY = pytest.mark.parametrize(
    ("name", "codec", "fps"),
    [("a.avi", "MJPG", 20), ("a.mp4", "mp4v", 25), ("a.mp4", "mp4v", 29.97), ("a.mkv", "mp4v", 30)],
)


@pytest.fixture
def seeking(monkeypatch):
    """Seeks are worth it in the short videos of tests."""
    monkeypatch.setattr(video, "MIN_SEEK", 4 * video.STEADY_FRAMES)


@pytest.fixture
def captures(monkeypatch):
    """All captures that decode; each counts the frames it grabs, and its seeks go `astray` by so many."""
    opened = []

    class Capture:
        astray = 0

        def __init__(self, source):
            self.capture, self.grabs, self.seeks, self.released = real(source), 0, 0, False
            opened.append(self)

        def __getattr__(self, name):
            return getattr(self.capture, name)

        def grab(self):
            grabbed = self.capture.grab()
            self.grabs += grabbed
            return grabbed

        def set(self, what, value):
            if what == cv2.CAP_PROP_FORMAT:  # to read times without decoding
                opened.remove(self)
                return self.capture.set(what, value)
            self.seeks += 1
            return self.capture.set(what, value + self.astray)

        def release(self):
            self.released = True
            self.capture.release()

    real = cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    return SimpleNamespace(opened=opened, Capture=Capture)


def write_numbered(path, count, codec="MJPG", fps=20.0, height=HEIGHT):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, (BAR * BITS, height))
    assert writer.isOpened()
    for number in range(1, count + 1):
        bars = [230 if number >> bit & 1 else 20 for bit in range(BITS)]
        row = np.repeat(np.array(bars, np.uint8), BAR)
        writer.write(np.ascontiguousarray(np.broadcast_to(row[None, :, None], (height, BAR * BITS, 3))))
    writer.release()
    return path


def shown(image):
    """The number that a frame shows."""
    bars = image.mean((0, 2)).reshape(BITS, BAR)[:, 4:-4].mean(1)
    assert (np.abs(bars - 125) > 70).all()
    return int(((bars > 125) << np.arange(BITS)).sum())


def numbers(frames):
    """Of all frames, after seeing that each is the one whose number it has."""
    frames = list(frames)
    assert [frame.number for frame in frames] == [shown(frame.image) for frame in frames]
    return [frame.number for frame in frames]


def rewrite(path, edits):
    """Change the bodies of boxes of an mp4 file of ours by functions; what lies before its pictures stays."""

    def changed(boxes):
        done, at = b"", 0
        while at < len(boxes):
            size, kind = struct.unpack(">I4s", boxes[at : at + 8])
            body = boxes[at + 8 : at + size]
            if kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):
                body = changed(body)
            elif kind in edits:
                body = edits[kind](body)
            done += struct.pack(">I4s", 8 + len(body), kind) + body
            at += size
        return done

    path.write_bytes(changed(path.read_bytes()))


def retime(path, periods):
    """Give each frame of an mp4 file of ours another length, in units of the present one."""

    def time_to_sample(body):
        (unit,) = struct.unpack(">I", body[12:16])
        entries = b"".join(struct.pack(">II", 1, unit * period) for period in periods)
        return bytes(4) + struct.pack(">I", len(periods)) + entries

    def media_header(body):
        (duration,) = struct.unpack(">I", body[16:20])
        return body[:16] + struct.pack(">I", duration // len(periods) * sum(periods)) + body[20:]

    def no_edit(body):
        return body[:4] + bytes(4)

    rewrite(
        path, {b"stts": time_to_sample, b"mdhd": media_header, b"elst": no_edit, b"edts": lambda body: b""}
    )
    return path


def set_aspect(path, wide, high):
    """Of the pixels of an mp4 file of ours."""

    def sample_description(body):
        (size,) = struct.unpack(">I", body[8:12])
        entry = body[12 : 8 + size] + struct.pack(">I4sII", 16, b"pasp", wide, high)
        return body[:8] + struct.pack(">I", 4 + len(entry)) + entry

    rewrite(path, {b"stsd": sample_description})


def set_matrix(path, a, b, c, d, kind=b"tkhd"):
    """Have an mp4 file of ours shown with the pixel at (x, y) at (a x + c y, b x + d y)."""
    at = {b"tkhd": 40, b"mvhd": 36}[kind]
    matrix = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    rewrite(path, {kind: lambda body: body[:at] + matrix + body[at + 36 :]})


def placed(picture, a, b, c, d):
    """A picture shown by that matrix."""
    y, x = np.indices(picture.shape[:2])
    x, y = a * x + c * y, b * x + d * y
    x, y = x - x.min(), y - y.min()
    shown = np.zeros((y.max() + 1, x.max() + 1, 3), np.uint8)
    shown[y, x] = picture
    return shown


def interlace(path, of=lambda number: True):
    """Mark frames of an AVI file of MPEG-2 of ours as interlaced; what is decoded stays the same."""
    content = bytearray(path.read_bytes())
    for number, place in enumerate(pictures_of(content), 1):
        picture = content[place]
        if (at := picture.find(b"\0\0\1\xb5\x14")) >= 0:  # sequence extension
            picture[at + 5] &= ~0b1000  # not all are progressive
        if of(number):
            (at,) = (found.start() for found in re.finditer(rb"\x00\x00\x01\xb5[\x80-\x8f]", picture))
            picture[at + 8] &= ~0b10000000  # in the picture coding extension: it is no progressive frame
        content[place] = picture
    path.write_bytes(content)
    return path


def in_matroska(content, more):
    """A Matroska file of ours with more in the description of its video."""

    def length(at):
        return 9 - content[at].bit_length()

    def size(at):
        return int.from_bytes(content[at : at + length(at)], "big") & (1 << 7 * length(at)) - 1

    at, sizes = 0, []
    for kind in (b"\x18\x53\x80\x67", b"\x16\x54\xae\x6b", b"\xae", b"\xe0"):
        while not content.startswith(kind, at):
            at += length(at)
            at += length(at) + size(at)
        sizes.append(at + len(kind))
        at = sizes[-1] + length(sizes[-1])
    for place in sizes:
        number = int.from_bytes(content[place : place + length(place)], "big") + len(more)
        content = content[:place] + number.to_bytes(length(place), "big") + content[place + length(place) :]
    return content[:at] + more + content[at:]


def pictures_of(content):
    """Places and sizes of the pictures in an AVI file, each with its header of 8 bytes."""
    at, places = content.index(b"movi") + 4, []
    while content[at : at + 4] == b"00dc":
        size = 8 + struct.unpack("<I", content[at + 4 : at + 8])[0]
        places.append(slice(at, at + size + size % 2))
        at = places[-1].stop
    return places


def test_frames_come_in_order_and_in_rgb(releases, tmp_path):
    releases.write_video(tmp_path / "video.avi", [np.full((48, 64, 3), color, np.uint8) for color in COLORS])
    frames = list(read_frames(tmp_path / "video.avi"))
    assert [frame.shape for frame in frames] == [(48, 64, 3)] * 4
    assert all(frame.dtype == np.uint8 and frame.flags.c_contiguous for frame in frames)
    # Flat pictures lose only roundings in JPEG, of the colour conversion there and back.
    for frame, color in zip(frames, COLORS, strict=True):
        np.testing.assert_allclose(frame.reshape(-1, 3).mean(0), color, atol=4)


def test_files_that_are_no_video_are_named(tmp_path):
    with pytest.raises(VideoError, match=r"none.avi: there is no such file"):
        next(read_frames(tmp_path / "none.avi"))
    with pytest.raises(VideoError, match=r"there is no such file"):
        Video(tmp_path)
    (tmp_path / "text.avi").write_text("no video")
    with pytest.raises(VideoError, match=r"text.avi: is damaged, or not a video"):
        next(read_frames(tmp_path / "text.avi"))


def test_a_video_without_a_whole_frame(tmp_path, monkeypatch):
    path = write_numbered(tmp_path / "a.avi", 3)
    for broken in ("grab", "retrieve"):

        class Capture:
            def __init__(self, source, broken=broken, real=cv2.VideoCapture):
                self.capture, self.broken = real(source), broken

            def __getattr__(self, name):
                if name == self.broken:
                    return lambda: False if name == "grab" else (False, None)
                return getattr(self.capture, name)

        with monkeypatch.context() as patch:
            patch.setattr(cv2, "VideoCapture", Capture)
            with pytest.raises(VideoError, match=r"a\.avi: is damaged"):
                next(Video(path).frames())


class TestFrames:
    @EVENLY
    def test_numbers_and_timestamps(self, tmp_path, name, codec, fps):
        film = Video(write_numbered(tmp_path / name, 20, codec, fps))
        assert film.count == 20 and film.fps == pytest.approx(fps) and film.name == str(tmp_path / name)
        frames = list(film.frames())
        assert numbers(frames) == list(range(1, 21))
        # Matroska's clock has milliseconds.
        assert np.abs([frame.timestamp - (frame.number - 1) / fps for frame in frames]).max() < 6e-4

    def test_without_a_clock_the_frame_rate_tells_the_time(self, tmp_path, monkeypatch, captures):
        film = Video(write_numbered(tmp_path / "a.avi", 5))
        of_file = [frame.timestamp for frame in film.frames()]
        get = captures.Capture.__getattr__
        monkeypatch.setattr(
            captures.Capture,
            "__getattr__",
            lambda self, name: (lambda what: 0.0) if name == "get" else get(self, name),
        )
        assert np.allclose([frame.timestamp for frame in film.frames()], of_file)
        film = Video(film.source)
        assert film.fps == 25 and film.count is None
        assert np.allclose([frame.timestamp for frame in film.frames()], np.arange(5) / 25)

    def test_every(self, tmp_path):
        film = Video(write_numbered(tmp_path / "a.avi", 20))
        assert numbers(film.frames(every=3)) == [1, 4, 7, 10, 13, 16, 19]
        assert numbers(film.frames(every=3, start=0.2)) == [5, 8, 11, 14, 17, 20]
        assert numbers(film.frames(every=3, after=7)) == [10, 13, 16, 19]
        assert numbers(film.frames(every=3, start=0.2, after=8)) == [11, 14, 17, 20]
        assert numbers(film.frames(every=50)) == [1]

    def test_start_is_within_and_end_is_not(self, tmp_path):
        film = Video(write_numbered(tmp_path / "a.avi", 20))
        assert numbers(film.frames(start=0.25, end=0.5)) == [6, 7, 8, 9, 10]
        assert numbers(film.frames(start=0.26, end=0.51)) == [7, 8, 9, 10, 11]
        assert numbers(film.frames(end=0.01)) == [1]
        assert numbers(film.frames(start=0.95, end=9)) == [20]
        assert numbers(film.frames(start=1)) == numbers(film.frames(after=20)) == []
        assert numbers(film.frames(end=0.5, after=8)) == [9, 10]

    @pytest.mark.parametrize(
        "wrong", [{"every": 0}, {"start": -1}, {"start": float("nan")}, {"end": 0}, {"start": 2, "end": 2}]
    )
    def test_numbers_that_make_no_sense(self, tmp_path, wrong):
        film = Video(write_numbered(tmp_path / "a.avi", 2))
        with pytest.raises(ValueError, match=r"every of at least 1.*got every=\d, start=.*, end="):
            next(film.frames(**wrong))

    def test_closing_gives_the_file_back(self, tmp_path, captures):
        film = Video(write_numbered(tmp_path / "a.avi", 5))
        frames = film.frames()
        next(frames)
        frames.close()
        list(film.frames())
        assert [capture.released for capture in captures.opened] == [True] * 3

    @pytest.mark.parametrize("whole", [1, 12, 22, 39])
    def test_one_that_breaks_off(self, tmp_path, whole):
        path = write_numbered(tmp_path / "a.avi", 40)
        content = path.read_bytes()
        path.write_bytes(content[: pictures_of(content)[whole].start + 30])
        film = Video(path)
        assert numbers(film.frames()) == list(range(1, whole + 1)) and film.missing == []
        (remark,) = film.damage(film.missing)
        assert remark == f"{path}: breaks off after frame {whole}; it says that it has 40"


class TestSeeking:
    @EVENLY
    def test_a_seek_gives_what_decoding_from_the_first_frame_gives(
        self, tmp_path, seeking, captures, name, codec, fps
    ):
        film = Video(write_numbered(tmp_path / name, 150, codec, fps))
        times = {frame.number: frame.timestamp for frame in film.frames()}
        for number in (2, 34, 40, 75, 149, 150):
            for where in (
                {"after": number - 1},
                {"start": times[number]},
                {"start": times[number] - 0.4 / fps},
            ):
                captures.opened.clear()
                frames = list(film.frames(**where))
                assert numbers(frames) == list(range(number, 151))
                assert [frame.timestamp for frame in frames] == [times[n] for n in range(number, 151)]
                # A seek it was, and no decoding of everything in one way or another.
                (capture,) = captures.opened
                assert (capture.seeks > 0) == (number >= 40)
                if number >= 40:
                    assert capture.grabs <= 4 * video.STEADY_FRAMES + video.SEEK_MARGIN + 2 + 151 - number

    def test_few_frames_are_not_worth_it(self, tmp_path, captures):
        film = Video(write_numbered(tmp_path / "a.avi", 240))
        assert numbers(film.frames(after=235)) == [236, 237, 238, 239, 240]
        assert [capture.seeks for capture in captures.opened] == [0, 0]

    def test_one_that_goes_astray_is_seen(self, tmp_path, seeking, captures):
        film = Video(write_numbered(tmp_path / "a.mp4", 100, "mp4v", 25))
        for astray in (-2, -1, 1, 2):
            captures.Capture.astray = astray
            captures.opened.clear()
            assert numbers(film.frames(after=70)) == list(range(71, 101))
            first, second = captures.opened
            assert first.seeks > 0 and first.released and second.seeks == 0

    def test_behind_the_end(self, tmp_path, seeking):
        film = Video(write_numbered(tmp_path / "a.avi", 60))
        assert numbers(film.frames(start=1000)) == numbers(film.frames(after=1000)) == []
        os.truncate(film.name, os.path.getsize(film.name) // 2)
        assert numbers(film.frames(after=50)) == []  # the header still promises 60

    @pytest.mark.parametrize(
        "periods",
        [
            [1] * 50 + [5] + [1] * 49,
            [1] * 50 + [2] * 50,
            np.random.default_rng(0).integers(1, 4, 100).tolist(),
        ],
        ids=["a gap", "slower", "at random"],
    )
    def test_frames_that_come_unevenly_keep_their_numbers(self, tmp_path, seeking, periods):
        """Where the average rate tells the time of some frames, but of others than those of their numbers."""
        path = write_numbered(tmp_path / "a.mp4", 100, "mp4v", 25)
        retime(path, periods)
        film = Video(path)
        frames = list(film.frames())
        assert numbers(frames) == list(range(1, 101))
        times = np.cumsum([0, *periods[:-1]]) / 25
        assert np.allclose([frame.timestamp for frame in frames], times)
        for number in range(36, 101):
            for where in ({"after": number - 1}, {"start": times[number - 1] - 1e-6}):
                found = film.frames(**where)
                assert (frame := next(found)).number == shown(frame.image) == number
                found.close()


class TestDamage:
    @pytest.fixture
    def film(self, tmp_path):
        return write_numbered(tmp_path / "a.avi", 60)

    @pytest.mark.parametrize(
        "damaged",
        [[5], [1], [1, 2, 3], range(20, 30), [60], range(51, 61), [4, 9, 10, 50]],
        ids=["one", "the first", "the first ones", "ten", "the last", "the last ones", "here and there"],
    )
    @pytest.mark.parametrize("how", ["zeroed", "left out"])
    def test_frames_that_are_damaged_are_told_and_passed_over(self, film, damaged, how):
        content = bytearray(film.read_bytes())
        for number in reversed(damaged):
            picture = pictures_of(content)[number - 1]
            if how == "zeroed":
                content[picture.start + 8 : picture.stop] = bytes(picture.stop - picture.start - 8)
            else:  # as capture programs do when they cannot keep up: a frame of no bytes
                content[picture] = b"00dc" + bytes(4)
        film.write_bytes(content)
        video = Video(film)
        frames = list(video.frames())
        assert numbers(frames) == [n for n in range(1, 61) if n not in damaged]
        assert np.allclose([frame.timestamp for frame in frames], [(n - 1) / 20 for n in numbers(frames)])
        last = frames[-1].number
        gone = [first + i for first, many in video.missing for i in range(many)]
        assert gone == [n for n in damaged if n < last]
        remarks = video.damage(video.missing)
        assert len(remarks) == bool(gone) + (last < 60)
        if gone:
            count = "1 frame is" if len(gone) == 1 else f"{len(gone)} frames are"
            assert remarks[0].startswith(f"{film}: {count} missing ")
        if last < 60:
            sentence = f"breaks off after frame {last}; it says that it has 60"
            if how == "left out":  # of which only later frames tell
                sentence = f"has {last} of 60 frames, and does not tell which are missing; numbers and times "
            assert sentence in remarks[-1]
        assert numbers(video.frames(every=2)) == [
            n for n in numbers(frames) if (n - frames[0].number) % 2 == 0
        ]
        assert numbers(video.frames(after=25)) == [n for n in numbers(frames) if n > 25]
        assert [first for first, _ in video.missing] == [n for n in gone if n > 25][: len(video.missing)]

    def test_frames_that_are_gone_without_a_trace_make_the_numbers_low(self, film):
        content = film.read_bytes()
        pictures = pictures_of(content)
        film.write_bytes(content[: pictures[30].start] + content[pictures[40].start :])
        video = Video(film)
        assert [frame.number for frame in video.frames()] == list(range(1, 51))
        assert video.numbers_are_low
        (remark,) = video.damage(video.missing)
        assert "has 50 of 60 frames, and does not tell which are missing" in remark

    @pytest.mark.parametrize("size, name", [(188, "a.ts"), (192, "a.m2ts")])
    @pytest.mark.parametrize("codec", ["mpg2", "mp4v"])
    def test_lost_packets_of_a_transport_stream(self, tmp_path, size, name, codec):
        path = write_numbered(tmp_path / name, 200, codec, 25)
        content = path.read_bytes()
        video = Video(path)
        assert numbers(video.frames()) == list(range(1, 201)) and video.damage(video.missing) == []
        packets = [content[at : at + size] for at in range(0, len(content), size)]
        for lost in (10, 40):
            middle = len(packets) // 2
            path.write_bytes(b"".join(packets[:middle] + packets[middle + lost :]))
            video = Video(path)
            frames = list(video.frames())
            numbers_shown = [frame.number for frame in frames]
            assert numbers_shown == sorted(set(numbers_shown)) and numbers_shown[-1] == 200
            assert np.allclose([frame.timestamp for frame in frames], [(n - 1) / 25 for n in numbers_shown])
            # What is decoded after the hole, until the next whole picture, may show anything.
            wrong = [frame.number for frame in frames if frame.number != shown_or_none(frame.image)]
            assert len(wrong) <= 12 and (not wrong or wrong[-1] - wrong[0] < 12 + lost)
            missing = sum(many for _, many in video.missing)
            assert missing == 200 - len(frames) and missing > 1
            (remark,) = video.damage(video.missing)
            assert f"{missing} frames are missing " in remark

    def test_two_recordings_in_one_file_follow_each_other(self, tmp_path):
        path = write_numbered(tmp_path / "a.ts", 50, "mpg2", 25)
        path.write_bytes(2 * path.read_bytes())
        video = Video(path)
        frames = list(video.frames())
        assert [frame.number for frame in frames] == list(range(1, 101)) and video.missing == []
        assert [shown(frame.image) for frame in frames] == 2 * list(range(1, 51))
        assert np.allclose([frame.timestamp for frame in frames], np.arange(100) / 25)

    @pytest.mark.parametrize(
        "picture",
        [
            (False, None),
            (True, None),
            (True, np.zeros((0, 0, 3), np.uint8)),
            (True, np.zeros((4, 4, 2), np.uint8)),
            (True, np.zeros((4, 4, 3), np.float32)),
            cv2.error("damaged"),
        ],
    )
    def test_an_empty_frame_is_missing(self, film, captures, monkeypatch, picture):
        def retrieve(self):
            if self.grabs != 7:
                return self.capture.retrieve()
            if isinstance(picture, Exception):
                raise picture
            return picture

        monkeypatch.setattr(captures.Capture, "retrieve", retrieve, raising=False)
        video = Video(film)
        assert numbers(video.frames()) == [n for n in range(1, 61) if n != 7] and video.missing == [(7, 1)]

    @pytest.mark.parametrize("kind", ["grey", "grey with an axis", "alpha", "16 bit", "16 bit grey"])
    def test_frames_of_other_kinds_become_rgb(self, film, captures, monkeypatch, kind):
        def retrieve(self):
            _, bgr = self.capture.retrieve()
            grey = bgr.mean(-1).astype(np.uint8)
            return True, {
                "grey": grey,
                "grey with an axis": grey[..., None],
                "alpha": np.dstack((bgr, np.full_like(grey, 255))),
                "16 bit": bgr.astype(np.uint16) * 257,
                "16 bit grey": grey.astype(np.uint16) * 257,
            }[kind]

        plain = [frame.image for frame in Video(film).frames(end=0.2)]
        monkeypatch.setattr(captures.Capture, "retrieve", retrieve, raising=False)
        frames = [frame.image for frame in Video(film).frames(end=0.2)]
        assert all(frame.dtype == np.uint8 and frame.shape == (HEIGHT, BAR * BITS, 3) for frame in frames)
        np.testing.assert_allclose(frames, plain, atol=3)

    @pytest.mark.parametrize("count", [0, 7, 2**31, 2**32 - 1])
    def test_a_count_that_lies(self, film, count):
        content = bytearray(film.read_bytes())
        struct.pack_into("<I", content, content.index(b"avih") + 24, count)
        struct.pack_into("<I", content, content.index(b"strh") + 40, count)
        film.write_bytes(content)
        video = Video(film)
        assert numbers(video.frames()) == list(range(1, 61)) and video.missing == []
        assert video.count == (count or None)
        assert [
            f"it says that it has {count}" in remark or f"of {count} frames" in remark
            for remark in video.damage([])
        ] == [True] * (count > 60)

    @pytest.mark.parametrize("rate", [(0, 0), (1, 0), (0, 1), (1, 10**9)])
    def test_a_rate_that_lies(self, film, rate):
        content = bytearray(film.read_bytes())
        struct.pack_into("<I", content, content.index(b"avih") + 8, 0)
        struct.pack_into("<II", content, content.index(b"strh") + 28, *rate)
        film.write_bytes(content)
        video = Video(film)
        frames = list(video.frames())
        assert numbers(frames) == list(range(1, 61))
        times = [frame.timestamp for frame in frames]
        assert times[0] == 0 and (np.diff(times) > 0).all() and times[-1] < 60

    @pytest.mark.parametrize("fps", [0.0, -1.0, float("nan"), float("inf"), 1e9])
    @pytest.mark.parametrize("count", [0.0, -9.2e18, float("nan"), float("inf"), 1e300])
    def test_headers_that_make_no_sense(self, film, captures, monkeypatch, fps, count):
        def get(self, what):
            lies = {
                cv2.CAP_PROP_FPS: fps,
                cv2.CAP_PROP_FRAME_COUNT: count,
                cv2.CAP_PROP_SAR_NUM: float("nan"),
            }
            return lies.get(what, self.capture.get(what))

        monkeypatch.setattr(captures.Capture, "get", get, raising=False)
        video = Video(film)
        assert video.fps == pytest.approx(20) and video.count is None and video.expected() is None
        assert numbers(video.frames(start=1)) == list(range(21, 61)) and video.damage(video.missing) == []

    def test_a_file_of_sound_is_no_video(self, tmp_path):
        path = tmp_path / "a.wav"
        sound = bytes(8000)
        header = struct.pack(
            "<4sI4s4sIHHIIHH4sI",
            b"RIFF",
            36 + len(sound),
            b"WAVE",
            b"fmt ",
            16,
            1,
            1,
            8000,
            8000,
            1,
            8,
            b"data",
            len(sound),
        )
        path.write_bytes(header + sound)
        with pytest.raises(VideoError, match=r"a\.wav: is damaged, or not a video"):
            Video(path)

    @pytest.mark.parametrize("after", [20, 33, 40, 47, 120])
    def test_going_on_gives_the_same_frames_and_tells_the_same(self, tmp_path, seeking, after):
        path = write_numbered(tmp_path / "a.avi", 150)
        content = bytearray(path.read_bytes())
        for picture in [*pictures_of(content)[40:50], *pictures_of(content)[90:95]]:
            content[picture.start + 8 : picture.stop] = bytes(picture.stop - picture.start - 8)
        path.write_bytes(content)
        video = Video(path)
        frames = [(frame.number, frame.timestamp) for frame in video.frames(every=3)]
        whole = video.missing
        assert whole == [(41, 10), (91, 5)]
        last = max(number for number, _ in frames if number <= after)
        rest = [(frame.number, frame.timestamp) for frame in video.frames(every=3, after=last)]
        assert rest == [frame for frame in frames if frame[0] > last]
        assert [gap for gap in whole if gap[0] <= last] + video.missing == whole


def shown_or_none(image):
    bars = image.mean((0, 2)).reshape(BITS, BAR)[:, 4:-4].mean(1)
    return shown(image) if (np.abs(bars - 125) > 70).all() else None


HEADS = {
    "avi": b"RIFF",
    "mp4": b"\0\0\0\x08ftyp",
    "mkv": b"\x1aE\xdf\xa3",
    "ts": 5 * (b"G" + bytes(187)),
    "ps": b"\0\0\x01\xba",
    "other": b"any",
}
"""Of the containers that are told apart."""


class TestClock:
    """By scripts of what OpenCV says: milliseconds of each frame, or None where it cannot be decoded."""

    @pytest.fixture
    def play(self, tmp_path, monkeypatch):
        levels = itertools.count()

        def play(container, clock, fps=25.0, count=0.0, packets=None):
            class Capture:
                def __init__(self, source):
                    self.clock, self.now = iter(clock), 0.0

                def isOpened(self):
                    return True

                def get(self, what):
                    return {
                        cv2.CAP_PROP_POS_MSEC: self.now,
                        cv2.CAP_PROP_FPS: fps,
                        cv2.CAP_PROP_FRAME_COUNT: count,
                    }.get(what, 0.0)

                def set(self, what, value):
                    self.clock = iter(packets or clock)
                    return what == cv2.CAP_PROP_FORMAT

                def grab(self):
                    now = next(self.clock, None)
                    self.now = 0.0 if now is None else now
                    return now is not None

                def retrieve(self):
                    return True, np.full((4, 4, 3), next(levels) % 256, np.uint8)

                def release(self):
                    pass

            monkeypatch.setattr(cv2, "VideoCapture", Capture)
            (tmp_path / "film").write_bytes(HEADS[container].ljust(2000, b"\0"))
            film = Video(tmp_path / "film")
            frames = list(film.frames())
            return [frame.number for frame in frames], [1000 * frame.timestamp for frame in frames], film

        return play

    def test_a_late_start_of_the_clock_is_the_decoders_unless_the_container_has_times(self, play):
        clock = [80.0 + 40 * i for i in range(28)] + [0.0, 0.0]  # with frames that wait in the decoder
        for container in ("avi", "other"):
            numbers, times, film = play(container, clock, packets=[40.0 * i for i in range(30)])
            assert numbers == list(range(1, 31)) and np.allclose(times, 40 * np.arange(30))
            assert film.damage(film.missing) == []
        for container in ("mp4", "mkv", "ts"):
            numbers, times, film = play(container, clock)
            assert numbers == list(range(3, 33)) and np.allclose(times, 80 + 40 * np.arange(30))
            assert (
                film.missing == [(1, 2)]
                and "2 frames are missing at its beginning" in film.damage([(1, 2)])[0]
            )

    def test_without_a_clock_the_rate_tells_the_time_and_that_is_told(self, play):
        numbers, times, film = play("other", [0.0] * 10 + [None, None] + [0.0] * 10)
        assert numbers == [*range(1, 11), *range(13, 23)] and film.missing == [(11, 2)]
        assert np.allclose(times, 40 * (np.array(numbers) - 1))
        assert film.damage([]) == [f"{film.name}: tells no times; they are those of 25 frames a second"]

    def test_a_negative_start_is_the_start(self, play):
        numbers, times, film = play("mkv", [-100.0 + 40 * i for i in range(10)])
        assert numbers == list(range(1, 11)) and np.allclose(times, 40 * np.arange(10))
        assert film.damage(film.missing) == []

    def test_a_clock_that_is_set_back_goes_on(self, play):
        once = [3.6e6 + 40 * i for i in range(20)]
        numbers, times, film = play("other", once + [40.0 * i for i in range(20)] + once)
        assert numbers == list(range(1, 61)) and (np.diff(times) > 0).all() and film.missing == []
        assert np.allclose(times[:40], 40 * np.arange(40))

    def test_frames_of_one_time_and_in_disorder_keep_their_numbers(self, play):
        numbers, times, film = play("other", [0.0, 40, 80, 80, 120, 160, 240, 200, 240, 280, 320])
        assert numbers == list(range(1, 12)) and film.missing == []
        assert np.allclose(times, [0, 40, 80, 80, 120, 160, 240, 240, 240, 280, 320])

    def test_what_a_decoder_gives_too_late_after_damage_is_left_out(self, play):
        clock = [40.0 * i for i in range(20)] + [1400.0, 800.0, 1440.0, 1480.0]
        numbers, times, film = play("ts", clock)
        assert numbers == [*range(1, 21), 36, 37, 38] and film.missing == [(21, 15)]
        assert np.allclose(times, 40 * (np.array(numbers) - 1))

    @pytest.mark.parametrize("container, count", [("ts", 0), ("avi", 200), ("mp4", 200), ("mkv", 200)])
    def test_a_gap_in_an_even_clock_means_frames(self, play, container, count):
        clock = [40.0 * i for i in range(200) if not 100 <= i < 110]
        numbers, _, film = play(container, clock, count=count)
        assert numbers == [i + 1 for i in range(200) if not 100 <= i < 110] and film.missing == [(101, 10)]

    @pytest.mark.parametrize(
        "container, count, fps", [("mp4", 190, 190 / 8), ("mkv", 200, 25), ("other", 200, 25)]
    )
    def test_gaps_that_belong_to_the_recording_mean_nothing(self, play, container, count, fps):
        clock = [40.0 * i for i in range(200) if not (100 <= i < 120 and i % 2)]
        numbers, times, film = play(container, clock, count=count, fps=fps)
        assert numbers == list(range(1, 191)) and film.missing == [] and np.allclose(times, clock)
        assert film.damage([]) == []

    def test_a_gap_off_the_grid_means_nothing(self, play):
        numbers, _, film = play("ts", [40.0 * i + 17 * (i >= 50) + 55 * (i >= 70) for i in range(100)])
        assert numbers == list(range(1, 101)) and film.missing == []

    def test_damage_between_uneven_frames_counts_by_those_before(self, play):
        clock = [40.0 * i for i in range(30)] + [1200.0 + 100 * i for i in range(40)]
        numbers, _, film = play("mp4", clock[:50] + [None] * 3 + clock[55:], count=70, fps=70 / 5.2)
        assert numbers == [*range(1, 51), *range(56, 71)] and film.missing == [(51, 5)]

    def test_half_the_rate_of_the_header_is_no_damage(self, play):
        """Where the header counts the fields of interlaced video."""
        numbers, _, film = play("ts", [40.0 * i for i in range(60)], fps=50)
        assert numbers == list(range(1, 61)) and film.missing == []

    def test_the_rough_clock_of_a_program_stream(self, play):
        clock = [40.0 * i + {5: 40, 9: -40, 20: 80}.get(i, 0) for i in range(30)] + [0.0]
        numbers, times, film = play("ps", clock)
        assert numbers == list(range(1, 32)) and np.allclose(times, 40 * np.arange(31)) and film.missing == []
        numbers, times, film = play("ps", [40.0 * i for i in range(100) if not 40 <= i < 60])
        assert film.missing == [(41, 20)] and numbers[-1] == 100 and times[-1] == pytest.approx(99 * 40)


class TestAsShown:
    @pytest.mark.parametrize(
        "aspect, shape",
        [
            ((4, 3), (48, 171)),
            ((12, 11), (48, 140)),
            ((1, 2), (96, 128)),
            ((1, 1), (48, 128)),
            ((9, 1), (48, 128)),
        ],
    )
    def test_pixels_that_are_not_square(self, tmp_path, aspect, shape):
        path = write_numbered(tmp_path / "a.mp4", 5, "mp4v", 25)
        plain = [frame.image for frame in Video(path).frames()]
        set_aspect(path, *aspect)
        for frame, image in zip(Video(path).frames(), plain, strict=True):
            assert frame.image.shape == (*shape, 3)
            expected = cv2.resize(image, shape[::-1], interpolation=cv2.INTER_LINEAR)
            np.testing.assert_array_equal(frame.image, expected)

    def test_turned_pixels(self, tmp_path):
        path = write_numbered(tmp_path / "a.mp4", 3, "mp4v", 25)
        set_matrix(path, 0, 1, -1, 0)
        assert next(Video(path).frames()).image.shape == (128, 48, 3)
        set_aspect(path, 4, 3)  # wide as they are stored, high as they are shown
        assert next(Video(path).frames()).image.shape == (171, 48, 3)

    def test_square_pixels_are_not_resampled(self, tmp_path, monkeypatch):
        monkeypatch.setattr(cv2, "resize", None)
        assert next(Video(write_numbered(tmp_path / "a.avi", 2)).frames()).image.shape == (48, 128, 3)

    def test_all_frames_have_one_size(self, tmp_path, seeking):
        """OpenCV brings later ones to the size that the header has."""
        path, content = tmp_path / "a.ts", b""
        for width, height in ((128, 48), (64, 24), (48, 96), (256, 96)):
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mpg2"), 25, (width, height))
            for _ in range(50):
                writer.write(np.full((height, width, 3), 200, np.uint8))
            writer.release()
            content += path.read_bytes()
        path.write_bytes(content)
        frames = [frame.image for frame in Video(path).frames()]
        assert {frame.shape for frame in frames} == {(48, 128, 3)} and len(frames) > 190
        assert next(Video(path).frames(after=120)).image.shape == (48, 128, 3)


EIGHT = [(1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0)]
EIGHT += [(-1, 0, 0, 1), (1, 0, 0, -1), (0, 1, 1, 0), (0, -1, -1, 0)]


class TestOrientation:
    @pytest.fixture
    def film(self, tmp_path):
        """With no symmetry."""
        path = tmp_path / "a.mp4"
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, (96, 64))
        for level in (120, 200):
            picture = np.full((64, 96, 3), level, np.uint8)
            picture[:32, :32], picture[32:, :48] = (20, 60, 220), (240, 120, 10)
            writer.write(picture)
        writer.release()
        return path

    @pytest.mark.parametrize("matrix", EIGHT)
    def test_as_the_display_matrix_says(self, film, matrix):
        stored = [frame.image for frame in Video(film).frames()]
        set_matrix(film, *matrix)
        shown = [frame.image for frame in Video(film).frames()]
        np.testing.assert_array_equal(shown, [placed(picture, *matrix) for picture in stored])
        content = film.read_bytes()  # and with the movie before its pictures, as it is put for browsers
        assert content.index(b"mdat") < content.index(b"moov")
        at, moov = content.index(b"mdat") - 4, content[content.index(b"moov") - 4 :]
        film.write_bytes(content[:at] + moov + content[at : -len(moov)])

        def moved(body):
            places = np.frombuffer(body[8:], ">u4") + len(moov)
            return body[:8] + places.astype(">u4").tobytes()

        rewrite(film, {b"stco": moved})
        np.testing.assert_array_equal([frame.image for frame in Video(film).frames()], shown)

    @pytest.mark.parametrize("matrix", EIGHT)
    @pytest.mark.parametrize("of_movie", [(-1, 0, 0, 1), (0, 1, -1, 0)])
    def test_the_matrix_of_the_movie_comes_after_that_of_the_track(self, film, matrix, of_movie):
        stored = next(Video(film).frames()).image
        set_matrix(film, *matrix)
        set_matrix(film, *of_movie, kind=b"mvhd")
        expected = placed(placed(stored, *matrix), *of_movie)
        np.testing.assert_array_equal(next(Video(film).frames()).image, expected)

    @pytest.mark.parametrize("matrix", EIGHT)
    def test_with_pixels_that_are_not_square(self, film, matrix):
        stored = next(Video(film).frames()).image
        set_matrix(film, *matrix)
        set_aspect(film, 4, 3)
        expected = placed(cv2.resize(stored, (128, 64)), *matrix)
        image = next(Video(film).frames()).image
        assert image.shape == expected.shape
        np.testing.assert_allclose(image, expected, atol=2)

    def test_after_a_seek(self, tmp_path, seeking):
        path = write_numbered(tmp_path / "a.mp4", 100, "mp4v", 25)
        set_matrix(path, -1, 0, 0, 1)
        film = Video(path)
        for frame in itertools.chain(film.frames(), film.frames(after=70)):
            assert shown(frame.image[:, ::-1]) == frame.number

    @pytest.mark.parametrize(
        "yaw, roll, matrix", [(180, 0, EIGHT[4]), (180, 180, EIGHT[5]), (0, 180, EIGHT[2])]
    )
    def test_of_matroska(self, film, yaw, roll, matrix):
        stored = next(Video(film).frames()).image
        path = film.with_suffix(".mkv")
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, (96, 64))
        writer.write(cv2.cvtColor(stored, cv2.COLOR_RGB2BGR))
        writer.release()
        stored = next(Video(path).frames()).image
        angles = b"".join(
            struct.pack(">HBf", kind, 0x84, angle) for kind, angle in ((0x7673, yaw), (0x7675, roll))
        )
        projection = struct.pack(">HB", 0x7670, 0x80 | len(angles)) + angles
        path.write_bytes(in_matroska(path.read_bytes(), projection))
        np.testing.assert_array_equal(next(Video(path).frames()).image, placed(stored, *matrix))


class TestInterlaced:
    """OpenCV 4.13 to 5.0 gives what its memory holds for such frames, and says that they were decoded."""

    @pytest.fixture
    def film(self, tmp_path):
        return write_numbered(tmp_path / "a.avi", 20, "mpg2", 25, height=64)

    def read(self, film, **which):
        """The numbers of frames surely seen, and what is said of the others."""
        seen = []
        try:
            for frame in Video(film).frames(**which):
                assert shown(frame.image) == frame.number
                seen.append(frame.number)
        except VideoError as error:
            return seen, str(error)
        return seen, None

    def test_it_is_read_right_or_not_at_all(self, film):
        everything = list(range(1, 21))
        assert self.read(film) == (everything, None)
        interlace(film)
        can = self.read(film)[1] is None
        assert can or [int(part) for part in cv2.__version__.split(".")[:2]] >= [4, 13]
        sentence = (
            f"{film}: frame {{}} is interlaced, which OpenCV {cv2.__version__} cannot read; convert the "
        )
        sentence += "video first (ffmpeg -i OLD -vf yadif=deint=interlaced NEW.mp4)"
        assert self.read(film) == ((everything, None) if can else ([], sentence.format(1)))
        rest = list(range(8, 21))
        assert self.read(film, after=7) == ((rest, None) if can else ([], sentence.format(8)))

    @pytest.mark.parametrize("first, every", [(2, 1), (11, 1), (11, 3), (20, 1)])
    def test_from_some_frame_on(self, film, first, every):
        interlace(film, lambda number: number >= first)
        seen, why = self.read(film, every=every)
        wanted = range(1, 21, every)
        assert seen == [number for number in wanted if why is None or number < first]
        assert why is None or f"frame {min(n for n in wanted if n >= first)} is interlaced" in why

    def test_now_and_then(self, film):
        """As films are stored for television, two of five frames."""
        interlace(film, lambda number: number % 5 in (2, 3))
        seen, why = self.read(film)
        assert why is None or (seen == [1] and "frame 2 is interlaced" in why)

    def test_though_ffmpeg_is_to_be_silent(self, film):
        """In a process of its own: OpenCV looks at the variables when it opens the first video."""
        interlace(film)
        program = (
            "import sys; from jaa_ext.data.video import Video; print(len(list(Video(sys.argv[1]).frames())))"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, str(film)],
            env={**os.environ, **dict.fromkeys(video.LOG_SWITCHES, "-8")},
            capture_output=True,
            text=True,
        )
        why = self.read(film)[1]
        assert done.stdout == ("20\n" if why is None else "") and (why is None or why in done.stderr)

    def test_though_it_has_nowhere_to_write(self, film, capfd):
        interlace(film)
        without = self.read(film)
        kept = os.dup(2)
        os.close(2)
        try:
            assert self.read(film) == without
            with pytest.raises(OSError):
                os.fstat(2)
        finally:
            os.dup2(kept, 2)
            os.close(kept)

    @pytest.mark.parametrize("many", [1, 2])
    def test_what_others_write_meanwhile_stays(self, tmp_path, capfd, monkeypatch, captures, many):
        film = write_numbered(tmp_path / "a.avi", 3)
        words = iter([b"[swscaler @ 0x1] Unsupported input (Operation not supported)\n"] * many)

        def retrieve(self):
            os.write(2, next(words, b"other words\n"))
            return self.capture.retrieve()

        monkeypatch.setattr(captures.Capture, "retrieve", retrieve, raising=False)
        if many == 1:  # by another thread, of another video
            assert numbers(Video(film).frames()) == [1, 2, 3]
        else:
            with pytest.raises(VideoError, match=r"frame 1 .*OpenCV"):
                next(Video(film).frames())
        assert capfd.readouterr().err.count("other words\n") == (4 if many == 1 else 0)

    def test_one_picture_all_the_time_is_told_where_ffmpeg_may_be_silent(
        self, releases, tmp_path, monkeypatch
    ):
        moving, still = np.full((48, 64, 3), 90, np.uint8), np.full((48, 64, 3), 30, np.uint8)
        releases.write_video(tmp_path / "still.avi", [still] * 20)
        releases.write_video(tmp_path / "moves.avi", [still] * 19 + [moving])
        for name, told in (("still.avi", True), ("moves.avi", False)):
            film = Video(tmp_path / name)
            assert len(list(film.frames())) == 20 and film.damage(film.missing) == []
            with monkeypatch.context() as patch:
                patch.setenv("OPENCV_FFMPEG_LOGLEVEL", "-8")
                remarks = film.damage(film.missing)
            assert [f"{name}: all 20 frames are the same; if it is" in remark for remark in remarks] == [
                True
            ] * told


class TestCopyRate:
    @EVENLY
    def test_of_even_frames(self, tmp_path, name, codec, fps):
        film = Video(write_numbered(tmp_path / name, 40, codec, fps))
        assert film.copy_rate() == pytest.approx(fps) and film.copy_rate(4) == pytest.approx(fps / 4)

    @pytest.mark.parametrize(
        "periods", [[1] * 30 + [6] * 10 + [1] * 30, [6] * 40 + [1] * 30], ids=["fast", "slow"]
    )
    def test_of_frames_on_a_grid_and_of_others(self, tmp_path, periods):
        """30, 5 and 30 frames a second, say."""
        path = retime(write_numbered(tmp_path / "a.mp4", 70, "mp4v", 30), periods)
        rate = Video(path).copy_rate()
        assert rate == pytest.approx(30) or (60 <= rate <= 120)
        times = np.cumsum([0, *periods[:-1]]) / 30
        assert np.abs(times - np.rint(times * rate) / rate).max() <= 0.5 / rate
        assert len(set(np.rint(times * rate))) == 70

    def test_of_frames_at_any_time(self, tmp_path):
        periods = np.random.default_rng(0).integers(70, 130, 70).tolist()
        path = retime(write_numbered(tmp_path / "a.mp4", 70, "mp4v", 30 * 100), periods)
        film = Video(path)
        times = [frame.timestamp for frame in film.frames()]
        places = np.rint(np.array(times) * film.copy_rate())
        assert 60 <= film.copy_rate() <= 120 and len(set(places)) == 70


class TestCamera:
    @pytest.fixture
    def camera(self, monkeypatch):
        """Counts time as many drivers do, from when the machine was started; gives 30 pictures."""
        clock = SimpleNamespace(now=5000.0)

        class Capture:
            opened = 0
            pictures = 30

            def __init__(self, source):
                assert source == 3
                self.left, self.released = self.pictures, False
                Capture.opened += 1
                Capture.last = self

            def isOpened(self):
                return True

            def get(self, what):
                return {cv2.CAP_PROP_POS_MSEC: 9e7, cv2.CAP_PROP_FRAME_COUNT: -1}.get(what, 0.0)

            def grab(self):
                clock.now += 0.1
                self.left -= 1
                return self.left >= 0

            def retrieve(self):
                return True, np.full((4, 4, 3), self.left, np.uint8)

            def set(self, what, value):
                raise AssertionError("a camera cannot seek")

            def release(self):
                self.released = True

        monkeypatch.setattr(cv2, "VideoCapture", Capture)
        monkeypatch.setattr(video, "time", SimpleNamespace(monotonic=lambda: clock.now))
        return Capture

    def test_timestamps_count_from_the_first_frame(self, camera):
        film = Video(3)
        assert film.name == "camera 3" and film.count is None and film.fps == 25
        frames = list(film.frames())
        assert [frame.number for frame in frames] == list(range(1, 31))
        assert np.allclose([frame.timestamp for frame in frames], np.arange(30) / 10)

    def test_start_and_end(self, camera):
        frames = list(Video(3).frames(start=1.05, end=2.05, every=2))
        assert [frame.number for frame in frames] == [12, 14, 16, 18, 20]
        assert camera.opened == 2 and camera.last.released  # once to look, once to film: many open slowly

    def test_without_a_picture(self, camera):
        camera.pictures = 0
        with pytest.raises(VideoError, match=r"^camera 3: gives no picture$"):
            next(Video(3).frames())

    def test_one_that_is_not_there(self, capfd):
        with pytest.raises(VideoError, match=r"^camera 93: is not there"):
            Video(93)
        assert capfd.readouterr() == ("", "")
