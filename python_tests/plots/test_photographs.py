"""Pictures: that what is to be seen is there, and nothing else of the photograph is touched."""

import cv2
import numpy as np
import pytest
from skimage import data

from jaa_ext import facs
from jaa_ext.plots.photographs import draw_faces

NOTE = "Demonstration weights, trained on drawn faces: not for real use."
AUS = facs.BP4D_AUS
ORANGE, BLUE = (230, 159, 0), (0, 114, 178)


@pytest.fixture(scope="module")
def astronaut():
    return data.astronaut()


def count(picture, colour):
    return int((np.abs(picture.astype(int) - colour).max(-1) <= 2).sum())


def enlarged(photograph, side):
    return cv2.resize(photograph, (side, side), interpolation=cv2.INTER_CUBIC)


def test_landmarks_and_box_are_drawn_and_the_rest_is_the_photograph(astronaut, prediction):
    drawn = draw_faces(astronaut, [prediction()], AUS, NOTE)
    assert drawn.dtype == np.uint8 and drawn.shape[0] > 900 and drawn.shape[1] > 1400
    photo, scale = enlarged(astronaut, 900), 900 / 512
    changed = np.abs(drawn[:900, :900].astype(int) - photo).max(-1) > 0
    for x, y in (prediction().landmarks + 0.5) * scale:
        # A dot of 300 * scale / 40 = 13 pixels around the point.
        column, row = int(x), int(y)
        for near in (
            (row, column),
            (row, column - 4),
            (row, column + 4),
            (row - 4, column),
            (row + 4, column),
        ):
            assert np.abs(drawn[near].astype(int) - ORANGE).max() <= 2
        assert not changed[row, [column - 12, column + 12]].any()
        assert not changed[[row - 12, row + 12], column].any()
    assert np.abs(drawn[round(90 * scale), round(100 * scale)].astype(int) - BLUE).max() <= 2
    # Nothing is drawn beyond the box and its label.
    changed[: round(323 * scale), round(97 * scale) : round(403 * scale)] = False
    assert not changed.any()


def test_without_a_face_the_photograph_is_left_alone(astronaut):
    drawn = draw_faces(astronaut, [], AUS)
    assert np.array_equal(drawn[:900, :900], enlarged(astronaut, 900))
    assert (drawn[:, 900:] < 100).any()  # says that no face was found


def test_the_note_is_printed_below(astronaut, prediction):
    without, with_note = (draw_faces(astronaut, [prediction()], AUS, note) for note in ("", NOTE))
    height = without.shape[0]
    assert np.array_equal(with_note[:height], without)
    strip = with_note[height:]
    assert strip.shape[0] >= 20 and (strip.min(-1) < 128).sum() > 500


def test_a_long_note_is_wrapped_and_reaches_no_border(astronaut, prediction):
    short, long = (draw_faces(astronaut, [prediction()], AUS, NOTE * n) for n in (1, 6))
    assert long.shape[0] > short.shape[0] and long.shape[1] == short.shape[1]
    assert (long[-20:, -5:] == 255).all()


def test_present_aus_have_longer_bars_another_colour_and_a_mark(astronaut, prediction):
    present, absent = (draw_faces(astronaut, [prediction([p] * 12)], AUS)[:, 900:] for p in (0.75, 0.25))
    bars = present[:395]  # above the close-up
    assert count(bars, ORANGE) > 10000 and count(bars, BLUE) == 0
    assert count(absent[:395], BLUE) > 3000 and count(absent[:395], ORANGE) == 0
    assert 2.8 < count(bars, ORANGE) / count(absent[:395], BLUE) < 3.2
    mark = slice(45, 375), slice(0, 40)
    assert (present[mark] < 128).any() and (absent[mark] == 255).all()


def test_the_line_lies_where_the_thresholds_are(astronaut, prediction):
    thresholds = [0.25] * 6 + [0.75] * 6
    usual, stepped = (
        draw_faces(astronaut, [prediction([0.0] * 12, present=np.zeros(12, bool))], AUS, thresholds=chosen)
        for chosen in (None, thresholds)
    )
    dark = [(picture[:395, 900:].max(-1) < 128) for picture in (usual, stepped)]
    line = 900 / 32
    for i, threshold in enumerate(thresholds):
        row = round((2.1 + i) * line)
        for picture, at in zip(dark, (0.5, threshold), strict=True):
            there, mirrored = (round((12 + 7 * place) * line) for place in (at, 1 - at))
            assert picture[row, there - 2 : there + 3].any(), (i, at)
            assert at == 0.5 or not picture[row, mirrored - 2 : mirrored + 3].any(), (i, at)
    with pytest.raises(ValueError, match="one for each of the 12 AUs, got 1"):
        draw_faces(astronaut, [], AUS, thresholds=[0.5])


@pytest.mark.parametrize("side, drawn_side", [(60, 900), (900, 900), (1500, 1500), (3000, 2400)])
def test_size_and_letters_follow_the_photograph(side, drawn_side):
    drawn = draw_faces(np.zeros((side, side), np.uint8), [], AUS)
    assert (drawn[:drawn_side, :drawn_side] == 0).all() and (drawn[:, drawn_side] == 255).all()
    rows = np.nonzero((drawn[:, drawn_side:] < 128).any((1, 2)))[0]
    assert 0.013 < np.ptp(rows) / drawn_side < 0.03  # height of the words "no face found"


def test_extreme_photographs():
    for shape in ((1, 5000), (5000, 1), (1, 1)):
        assert draw_faces(np.zeros(shape, np.uint8), [], AUS, NOTE).ndim == 3


def test_a_face_that_reaches_out_of_the_photograph_stays_inside(astronaut, prediction):
    face = prediction(box=(400.0, -50.0, 600.0, 150.0), landmarks=np.full((49, 2), (600, 100), np.float32))
    drawn = draw_faces(astronaut, [face], AUS)
    usual = draw_faces(astronaut, [prediction()], AUS)
    assert drawn.shape == usual.shape
    assert np.array_equal(drawn[:395, 900:], usual[:395, 900:])


def test_every_face_has_a_block_and_rules_of_ones_own_are_drawn(astronaut, prediction):
    aus = (facs.AURule((1, 2)), *AUS[1:])
    one, three = (draw_faces(astronaut, [prediction()] * n, aus) for n in (1, 3))
    assert count(three[:, 900:], ORANGE) > 2.5 * count(one[:, 900:], ORANGE)


def test_same_input_same_bits(astronaut, prediction):
    first, second = (draw_faces(astronaut, [prediction()], AUS, NOTE) for _ in range(2))
    assert np.array_equal(first, second)
