"""Every frame shows its own number in black and white bars, so that a wrong one is seen."""

import os
import struct
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
    monkeypatch.setattr(video, "WORTH_A_SEEK", 4 * video.STEADY)


@pytest.fixture
def captures(monkeypatch):
    """All captures that were opened to decode; each counts the frames that it grabs, and its seeks go `astray`
    by so many frames."""
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


def write_numbered(path, count, codec="MJPG", fps=20.0):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, (BAR * BITS, HEIGHT))
    assert writer.isOpened()
    for number in range(1, count + 1):
        bars = [230 if number >> bit & 1 else 20 for bit in range(BITS)]
        row = np.repeat(np.array(bars, np.uint8), BAR)
        writer.write(np.ascontiguousarray(np.broadcast_to(row[None, :, None], (HEIGHT, BAR * BITS, 3))))
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


def retime(path, periods):
    """Give each frame of an mp4 file of ours another length, in units of the present one."""

    def time_to_sample(body):
        (unit,) = struct.unpack(">I", body[12:16])
        entries = b"".join(struct.pack(">II", 1, unit * period) for period in periods)
        return bytes(4) + struct.pack(">I", len(periods)) + entries

    def media_header(body):
        (duration,) = struct.unpack(">I", body[16:20])
        return body[:16] + struct.pack(">I", duration // len(periods) * sum(periods)) + body[20:]

    def changed(boxes):
        done, at = b"", 0
        while at < len(boxes):
            size, kind = struct.unpack(">I4s", boxes[at : at + 8])
            body = boxes[at + 8 : at + size]
            if kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):
                body = changed(body)
            elif kind == b"stts":
                body = time_to_sample(body)
            elif kind == b"mdhd":
                body = media_header(body)
            elif kind == b"edts":
                kind = b"free"
            done += struct.pack(">I4s", 8 + len(body), kind) + body
            at += size
        return done

    path.write_bytes(changed(path.read_bytes()))


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
    with pytest.raises(VideoError, match=r"text.avi: is damaged, or not a video that OpenCV can decode"):
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
        pictures = [
            at for at in range(content.index(b"movi"), len(content)) if content.startswith(b"00dc", at)
        ]
        path.write_bytes(content[: pictures[whole] + 30])
        assert numbers(Video(path).frames()) == list(range(1, whole + 1))


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
                    assert capture.grabs <= 4 * video.STEADY + video.BEFORE + 2 + 151 - number

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
        with pytest.raises(VideoError, match=r"^camera 93: is not there, or another program uses it$"):
            Video(93)
        assert capfd.readouterr() == ("", "")
