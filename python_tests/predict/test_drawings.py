"""Whole videos drawn: what they show at which time, and what is printed meanwhile."""

import struct

import cv2
import numpy as np
import pytest

from jaa_ext.data.video import Video
from jaa_ext.plots import frames as overlay
from jaa_ext.predict.drawings import draw_sources
from jaa_ext.predict.prediction import FramePrediction
from jaa_ext.predict.sources import find_sources

SIDE = 48


class Predictor:
    """Finds no face in any frame."""

    aus, note, thresholds = (1, 2), "", (0.5, 0.5)

    def video(self, video, **times):
        for frame in video.frames(**times):
            yield FramePrediction(video.name, frame.number, frame.timestamp, frame.image, [])


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Frames are not enlarged."""
    monkeypatch.setattr(overlay, "SHORTER_SIDE", SIDE)


def draw(source, out, **options):
    draw_sources(Predictor(), find_sources([source]), out, **options)


def level(number):
    """Of grey, in frame `number`; those of frames that follow each other differ by 60 or more."""
    return (20, 80, 140, 200, 50, 110, 170, 230)[number % 8]


def write_film(path, count, codec, fps):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, (64, SIDE))
    assert writer.isOpened()
    for number in range(1, count + 1):
        writer.write(np.full((SIDE, 64, 3), level(number), np.uint8))
    writer.release()
    return path


def retime(path, periods):
    """Give the frames of an mp4 file other lengths: how many frames, and units of the present length."""
    content = bytearray(path.read_bytes())
    at = content.index(b"stts") - 4
    (unit,) = struct.unpack(">I", content[at + 20 : at + 24])
    table = struct.pack(">4sII", b"stts", 0, len(periods))
    table += b"".join(struct.pack(">II", many, unit * length) for many, length in periods)
    grown = 4 + len(table) - 24
    content[at : at + 24] = struct.pack(">I", 4 + len(table)) + table
    for kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):
        place = content.index(kind) - 4
        content[place : place + 4] = struct.pack(
            ">I", struct.unpack(">I", content[place : place + 4])[0] + grown
        )
    place = content.index(b"mdhd") + 4 + 16
    total = sum(many * length for many, length in periods)
    content[place : place + 4] = struct.pack(">I", unit * total)
    content[content.index(b"edts") : content.index(b"edts") + 4] = b"free"
    path.write_bytes(content)
    return path


def seen(path):
    """Time and grey level of each frame of a drawn video."""
    return [(frame.timestamp, frame.image[: SIDE - 8, :56].mean()) for frame in Video(path).frames()]


@pytest.mark.parametrize("ending", [".mp4", ".avi", ".webm"])
def test_each_frame_is_shown_at_its_time(tmp_path, ending):
    """30, 5 and 30 frames a second: 4 s."""
    source = write_film(tmp_path / "film.mp4", 68, "mp4v", 30)
    retime(source, [(30, 1), (10, 6), (28, 1)])
    frames = [(frame.timestamp, level(frame.number)) for frame in Video(source).frames()]
    times = np.array([time for time, _ in frames])
    assert times[40] == pytest.approx(3.0) and len(frames) == 68
    draw(source, tmp_path / f"drawn{ending}")
    copy = seen(tmp_path / f"drawn{ending}")
    assert copy[-1][0] + 1 / Video(tmp_path / f"drawn{ending}").fps == pytest.approx(118 / 30, abs=0.02)
    for now, grey in copy:
        # Matroska rounds its times to milliseconds.
        assert abs(grey - frames[np.searchsorted(times, now + 0.0015, side="right") - 1][1]) < 12, now


def test_every_start_and_end(tmp_path, heard):
    source = write_film(tmp_path / "film.avi", 40, "MJPG", 20)
    for times, numbers, rate in (
        ({}, range(1, 41), 20),
        ({"every": 3}, range(1, 41, 3), 20 / 3),
        ({"start": 0.5, "end": 1.5}, range(11, 31), 20),
        ({"start": 0.5, "end": 1.5, "every": 4}, range(11, 31, 4), 5),
    ):
        draw(source, tmp_path / "drawn.avi", listener=heard, **times)
        copy = seen(tmp_path / "drawn.avi")
        np.testing.assert_allclose([time for time, _ in copy], np.arange(len(numbers)) / rate, atol=1e-3)
        np.testing.assert_allclose([grey for _, grey in copy], [level(n) for n in numbers], atol=4)
        assert heard.tasks[-1] == (str(source), len(numbers), 0)
        assert heard.steps[-1] == list(range(1, len(numbers) + 1))
    assert heard.messages == [] and heard.ended == 4


def test_frames_that_are_missing_leave_the_one_before_and_are_told(tmp_path, heard):
    source = write_film(tmp_path / "film.avi", 60, "MJPG", 20)
    content = bytearray(source.read_bytes())
    at, number = content.index(b"movi") + 4, 1
    while content[at : at + 4] == b"00dc":
        (size,) = struct.unpack("<I", content[at + 4 : at + 8])
        if 31 <= number <= 40:
            content[at + 8 : at + 8 + size] = bytes(size)
        at, number = at + 8 + size + size % 2, number + 1
    source.write_bytes(content)
    draw(source, tmp_path / "drawn.avi", listener=heard)
    assert f"note: {source}: 10 frames are missing after frame 30" in heard.messages[0]
    expected = [level(30 if 31 <= number <= 40 else number) for number in range(1, 61)]
    np.testing.assert_allclose([grey for _, grey in seen(tmp_path / "drawn.avi")], expected, atol=4)


def test_a_clock_beyond_measure_gives_a_short_file_and_is_told(tmp_path, monkeypatch, heard):
    monkeypatch.setattr(overlay, "REPEATS", 50)
    source = write_film(tmp_path / "film.mp4", 20, "mp4v", 30)
    retime(source, [(9, 1), (1, 10**5), (10, 1)])
    draw(source, tmp_path / "drawn.avi", listener=heard)
    assert f"note: {tmp_path / 'drawn.avi'}: its pauses are shortened by 33" in heard.messages[0]
    assert 20 <= len(seen(tmp_path / "drawn.avi")) < 20 + 50 + 20 * overlay.REPEATS_A_PICTURE
