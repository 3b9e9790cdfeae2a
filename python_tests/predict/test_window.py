"""The window: what it shows, what ends it, and that without a display it says so."""

import subprocess
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from jaa_ext import facs
from jaa_ext.models import JAANet, JAANetConfig
from jaa_ext.predict import DetectedFace, MissingDependency, Predictor, window
from jaa_ext.predict.job import predict_tables
from jaa_ext.predict.prediction import FramePrediction
from jaa_ext.predict.sources import Source
from jaa_ext.predict.tables import read_table
from jaa_ext.predict.window import MOST_A_SECOND, Window, only_video, require_display, watch

pytestmark = pytest.mark.usefixtures("one_thread")

FRAMES = 12


class Screen:
    """Stands for OpenCV's windows: keeps the pictures, and presses a key at the picture of a number."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pictures: list[np.ndarray] = []
        self.open, self.size, self.key, self.at, self.closed_at = False, (0, 0), -1, 0, 0
        for name in (
            "namedWindow",
            "resizeWindow",
            "imshow",
            "waitKey",
            "getWindowProperty",
            "destroyAllWindows",
        ):
            monkeypatch.setattr(cv2, name, getattr(self, name))

    def namedWindow(self, name: str, flags: int = 0) -> None:
        self.open = True

    def resizeWindow(self, name: str, width: int, height: int) -> None:
        self.size = width, height

    def imshow(self, name: str, picture: np.ndarray) -> None:
        assert self.open and picture.dtype == np.uint8
        self.pictures.append(picture.copy())

    def waitKey(self, delay: int) -> int:
        assert delay == 1
        return self.key if len(self.pictures) == self.at else -1

    def getWindowProperty(self, name: str, which: int) -> float:
        assert which == cv2.WND_PROP_VISIBLE
        return 0.0 if len(self.pictures) == self.closed_at else 1.0

    def destroyAllWindows(self) -> None:
        self.open = False


@pytest.fixture
def screen(monkeypatch) -> Screen:
    monkeypatch.setattr(window, "MOST_A_SECOND", 1e9)
    return Screen(monkeypatch)


class Still:
    """Finds one face at one place."""

    def __call__(self, image: np.ndarray) -> list[DetectedFace]:
        x, y = np.meshgrid(np.linspace(60, 240, 7), np.linspace(60, 240, 7))
        points = np.stack([x, y], -1).reshape(49, 2).astype(np.float32)
        return [DetectedFace((50.0, 50.0, 250.0, 250.0), points, 1.0)]

    def score(self, aligned: np.ndarray) -> float:
        return 1.0


@pytest.fixture(scope="module")
def predictor(at_rest) -> Predictor:
    torch.manual_seed(0)
    model = at_rest(JAANet(JAANetConfig.released(facs.BP4D_AUS[:3], image_size=64, width=1)))
    return Predictor(model, detector=Still(), device="cpu", precision="float32")


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Source:
    path = tmp_path_factory.mktemp("video") / "talk.avi"
    file = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (300, 280))
    for i in range(FRAMES):
        file.write(np.full((280, 300, 3), 10 * i, np.uint8))
    file.release()
    return Source(str(path), "video", True)


def test_frames_are_shown_with_their_faces_and_a_time_line(screen, predictor, video) -> None:
    summary = watch(predictor, video, Window(predictor))
    assert summary.frames == summary.faces == summary.done_now == FRAMES == len(screen.pictures)
    assert summary.without_face == 0 and summary.seconds > 0 and summary.busy["drawing"] > 0
    assert len({picture.shape for picture in screen.pictures}) == 1
    blue, orange = (0xB2, 0x72, 0x00), (0x00, 0x9F, 0xE6)  # BGR: the box and the landmarks
    for i, picture in enumerate(screen.pictures):
        assert np.abs(picture[30, 30].astype(int) - 10 * i).max() <= 2
        assert (picture == blue).all(-1).sum() > 300 and (picture == orange).all(-1).sum() > 100
    height, width = screen.pictures[0].shape[:2]
    assert screen.size == (width, height) and width < 1600 and height < 900


def test_faces_that_come_back_are_told(screen, predictor, video, monkeypatch) -> None:
    def back(*arguments, **options):
        for frame in frames(*arguments, **options):
            yield replace(
                frame, faces=[replace(face, merged=0.5 * (frame.frame == 3)) for face in frame.faces]
            )

    frames = predictor.video
    monkeypatch.setattr(predictor, "video", back)
    summary = watch(predictor, video, Window(predictor))
    assert summary.remarks == [f"{video.name}: face 0 came back in frame 3, at 0.080 s (likeness 0.500)"]


def test_a_large_frame_opens_a_smaller_window(screen, predictor) -> None:
    frame = FramePrediction("a", 1, 0.0, np.zeros((2000, 3000, 3), np.uint8), [])
    assert Window(predictor).show(frame)
    assert screen.size[0] <= 1600 and screen.size[1] <= 900 and max(screen.size) > 800


def test_pictures_beyond_sixty_a_second_are_left_out(screen, predictor, monkeypatch) -> None:
    monkeypatch.setattr(window, "MOST_A_SECOND", MOST_A_SECOND)
    now = [0.0]
    monkeypatch.setattr(window.time, "monotonic", lambda: now[0])
    opened = Window(predictor)
    for i in range(100):
        now[0] = i / 200
        assert opened.show(FramePrediction("a", i + 1, i / 200, np.zeros((90, 90, 3), np.uint8), []))
    assert len(screen.pictures) == 25


@pytest.mark.parametrize("key", [ord("q"), ord("Q"), 27, 27 | 0x100000])
def test_a_key_ends_the_video_and_its_table_is_complete(screen, predictor, video, tmp_path, key) -> None:
    screen.key, screen.at = key, 5
    summary = predict_tables(predictor, [video], tmp_path / "talk.csv", watch=Window(predictor).show)
    assert not screen.open and len(screen.pictures) == 5
    assert summary.remarks == [f"{video.name}: ended by you after frame 5"]
    assert read_table(tmp_path / "talk.csv")["frame"].tolist() == [1, 2, 3, 4, 5]
    assert [path.name for path in tmp_path.iterdir()] == ["talk.csv"]


def test_other_keys_do_not_end_it_but_closing_the_window_does(screen, predictor, video) -> None:
    screen.key, screen.at, screen.closed_at = ord("x"), 3, 7
    assert watch(predictor, video, Window(predictor)).frames == 7 and not screen.open


def test_ctrl_c_ends_watching(screen, predictor, video, monkeypatch) -> None:
    def interrupt(delay: int) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cv2, "waitKey", interrupt)
    assert watch(predictor, video, Window(predictor)).frames == 1


def test_a_display_that_goes_away_is_one_sentence(screen, predictor, video, monkeypatch) -> None:
    def fail(name: str, picture: np.ndarray) -> None:
        raise cv2.error("no display")

    monkeypatch.setattr(cv2, "imshow", fail)
    with pytest.raises(OSError, match="the window cannot be drawn"):
        watch(predictor, video, Window(predictor))


def test_without_windows_or_a_display_it_says_so(monkeypatch) -> None:
    monkeypatch.setattr(cv2, "currentUIFramework", lambda: "")
    with pytest.raises(MissingDependency, match=r"opencv-python-headless.*pip install"):
        require_display()
    monkeypatch.setattr(cv2, "currentUIFramework", lambda: "QT5")
    monkeypatch.setattr(window.sys, "platform", "linux")
    tried = []
    for code in (0, -6):  # Qt aborts
        monkeypatch.setattr(
            subprocess,
            "run",
            lambda command, code=code, **_: (
                tried.append(command) or subprocess.CompletedProcess(command, code)
            ),
        )
        if code == 0:
            require_display()
            continue
        with pytest.raises(OSError, match="wants a display, and there is none"):
            require_display()
    assert all("cv2.namedWindow" in command[2] for command in tried) and len(tried) == 2
    compile(tried[0][2], "probe", "exec")


def test_what_can_be_shown() -> None:
    camera, photo = Source("0", "camera", True), Source("a.png", "photograph", True)
    assert only_video([camera]) is camera
    for sources, got in (([photo], "a photograph"), ([camera, photo], "2 sources"), ([], "0 sources")):
        with pytest.raises(ValueError, match=f"one video or one camera, got {got}"):
            only_video(sources)
