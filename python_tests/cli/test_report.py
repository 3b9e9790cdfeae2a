"""`jaa report` of a video."""

import cv2
import numpy as np
import pytest

from jaa_ext.facs import NUM_LANDMARKS
from jaa_ext.predict import FacePrediction, FramePrediction, write_table


@pytest.fixture
def talk(tmp_path):
    """A video that browsers play, and its table."""
    video, table = tmp_path / "talk.webm", tmp_path / "talk.csv"
    file = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"VP80"), 10, (64, 48))
    frames = []
    for i in range(8):
        image = np.full((48, 64, 3), 30 * i, np.uint8)
        file.write(image)
        points, p = np.full((NUM_LANDMARKS, 2), 20, np.float32), np.float32([i / 8, 1 - i / 8])
        face = FacePrediction(0, (9, 9, 39, 39), points, points, p, p > 0.5, image, None, None)
        frames.append(FramePrediction("talk.webm", i + 1, i / 10, image, [face] if i else []))
    file.release()
    write_table(table, frames, (1, 12), weights="only a test")
    return video, table


def test_report_of_a_video(jaa, talk, tmp_path) -> None:
    video, table = talk
    code, printed, error = jaa("report", table, "--video", video)
    assert code == 0 and "talk.html" in printed and "it needs no other file" in printed, error
    page = (tmp_path / "talk.html").read_text()
    assert "only a test" in page and 'src="data:video/webm;base64,' in page and "8 frames of talk.csv" in page
    code, printed, _ = jaa("report", table, "--video", video, "--link", "--out", tmp_path / "a" / "b.html")
    assert code == 0 and f"it shows {video}: if you move one, move both together" in printed
    assert 'src="../talk.webm"' in (tmp_path / "a" / "b.html").read_text()


def test_mistakes_are_one_sentence(jaa, talk, tmp_path) -> None:
    video, table = talk
    for arguments, sentence in {
        (table,): "talk.csv: is a table: name its video by --video",
        (tmp_path, "--video", video): "--video wants a table of `jaa predict`",
        (table, "--video", video, "--data", "synthetic"): "--data is of runs and evaluations",
        (tmp_path, "--link"): "--link is of videos",
        (table, "--video", tmp_path / "no.mp4"): "no.mp4: there is no such file",
        (table, "--video", table): "talk.csv: is damaged, or not a video",
        (tmp_path / "no.csv", "--video", video): "no.csv: there is no such file",
    }.items():
        code, _, error = jaa("report", *arguments)
        assert code == 2 and sentence in error and len(error.splitlines()) == 1, (arguments, error)
    assert not list(tmp_path.glob("*.html"))
