"""The running time line: values at their times, gaps left empty, one face at a time."""

import matplotlib
import numpy as np
import pytest

from jaa_ext.plots.running import AWAY, HEAD, NAMES, ROW, SECONDS, STRIP, RunningTimeline
from jaa_ext.predict.prediction import FramePrediction

WIDTH = NAMES + 8 + 500
"""So that a second has 50 columns."""
ORANGE, WHITE, PALE = (230, 159, 0), (255, 255, 255), (230, 230, 230)


def colour(probability):
    return np.asarray(matplotlib.colormaps["GnBu"](np.round(probability, 2), bytes=True))[..., :3]


@pytest.fixture
def line(prediction):
    line = RunningTimeline((1, 12), WIDTH)

    def add(seconds, *faces):
        """Faces are an id and a probability of AU 1; AU 12 has its complement."""
        made = [prediction((p, 1 - p), face_id=face_id) for face_id, p in faces]
        line.add(FramePrediction("camera 0", 1, seconds, np.zeros((9, 9, 3), np.uint8), made))

    line.take = add
    return line


def rows(line):
    """The colours of AU 1 and its marks, and the colours of AU 12, each (500, 3)."""
    picture = line.picture()
    assert picture.shape == (HEAD + 2 * ROW, WIDTH, 3) and picture.dtype == np.uint8
    across = picture[:, NAMES : NAMES + 500]
    return across[HEAD + 2], across[HEAD + 1 + STRIP + 1], across[HEAD + ROW + 2]


def test_the_newest_is_on_the_right_and_the_rest_moves_left(line) -> None:
    probabilities = np.round(np.random.default_rng(0).random(400), 2)
    for i, p in enumerate(probabilities):
        line.take(0.01 + i / 25, (0, float(p)))  # two columns a frame; 16 seconds
    first, marks, second = rows(line)
    expected = np.repeat(probabilities[-250:], 2)
    assert np.abs(first.astype(int) - colour(expected)).max() <= 3  # a hundredth
    assert np.abs(second.astype(int) - colour(1 - expected)).max() <= 3
    assert (marks[expected > 0.5] == ORANGE).all() and (marks[expected <= 0.5] == WHITE).all()


def test_frames_of_one_column_show_the_highest(line) -> None:
    line.take(0, (0, 0.1))
    for i, p in enumerate((0.2, 0.9, 0.3)):
        line.take(0.9801 + i / 1000, (0, p))
    first, marks, _ = rows(line)
    assert (first[-1] == colour(0.9)).all() and (marks[-1] == ORANGE).all()


def test_where_the_face_is_missing_it_is_grey(line) -> None:
    for i in range(100):
        line.take(i / 10, *([(0, 0.7)] if not 40 <= i < 60 else []))
    first, marks, _ = rows(line)
    there = (first == colour(0.7)).all(-1)
    assert (there | (first == PALE).all(-1)).all() and (marks[~there] == WHITE).all()
    assert abs((~there)[10:].sum() - 100) <= 5 and there[-190:].all()  # two seconds of ten
    line.take(13, (0, 0.7))  # a pause of three: no frame is drawn for longer than half a second
    first, _, _ = rows(line)
    assert (first[-150 - 5 : -25 - 1] == PALE).all(-1).sum() > 120 and (first[-20:] == colour(0.7)).all()
    line.take(13 + 2 * SECONDS)
    assert (rows(line)[0] == PALE).all()


def test_it_is_of_one_face_until_that_is_gone(line) -> None:
    assert line.face_id is None
    line.take(0, (3, 0.2), (5, 0.8))
    assert line.face_id == 3
    line.take(1, (1, 0.5), (3, 0.2))
    line.take(1 + AWAY / 2, (1, 0.5), (5, 0.8))
    assert line.face_id == 3 and (rows(line)[0][-1] == PALE).all()
    line.take(1 + AWAY, (1, 0.5), (5, 0.8))
    assert line.face_id == 1
    first, _, _ = rows(line)
    assert not (first == colour(0.2)).all(-1).any()  # nothing of the other face stays


def test_what_is_no_number_and_times_that_go_back(prediction) -> None:
    line = RunningTimeline((1, 12), WIDTH)
    for seconds in (5.0, 4.0, 5.02):
        face = prediction((np.nan, 2.0), present=np.array([False, True]))
        line.add(FramePrediction("a", 1, seconds, np.zeros((9, 9, 3), np.uint8), [face]))
    first, _, second = rows(line)
    assert (first[-1] == colour(0.0)).all() and (second[-1] == colour(1.0)).all()
    with pytest.raises(ValueError, match="at least 300 pixels, got 299"):
        RunningTimeline((1,), 299)
