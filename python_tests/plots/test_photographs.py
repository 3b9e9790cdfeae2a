"""Pictures: that what is to be seen is there, and nothing else of the photograph is touched."""

import cv2
import numpy as np
import pytest
from matplotlib.colors import to_hex
from skimage import data

from jaa_ext import facs
from jaa_ext.plots.photographs import DRAWN_SIDES, draw_faces, faces_figure
from jaa_ext.plots.style import BLUE, ORANGE, SIDES

NOTE = "Demonstration weights, trained on drawn faces: not for real use."
AUS = facs.BP4D_AUS
SIDE = DRAWN_SIDES[0]
"""To which the astronaut's 512 pixels are enlarged."""


@pytest.fixture(scope="module")
def astronaut():
    return data.astronaut()


def enlarged(photograph, side=SIDE):
    return cv2.resize(photograph, (side, side), interpolation=cv2.INTER_CUBIC)


def bars(figure):
    """Track and bar of each AU of each face, in order."""
    filled = [patch for patch in figure.axes[0].patches if patch.get_fill()]
    return list(zip(filled[::2], filled[1::2], strict=True))


def texts(figure):
    """The texts, each with its x and y."""
    return [(text.get_text(), *text.get_position()) for text in figure.axes[0].texts]


def test_landmarks_and_box_are_drawn_and_the_rest_is_the_photograph(astronaut, prediction, near):
    face = prediction()
    drawn = draw_faces(astronaut, [face], AUS, NOTE)
    assert drawn.dtype == np.uint8
    changed = (drawn[:SIDE, :SIDE] != enlarged(astronaut)).any(-1)
    points = (face.landmarks + 0.5) * SIDE / 512
    assert all(changed[near([point], changed.shape, 3)].all() for point in points)
    left, top, right, bottom = (round(edge * SIDE / 512) for edge in face.box)
    edges = np.zeros(changed.shape, np.uint8)
    cv2.rectangle(edges, (left, top), (right, bottom), 1, 9)
    assert changed[round((top + bottom) / 2), left] and changed[top, round((left + right) / 2)]
    label = np.zeros(changed.shape, bool)
    label[:top, left - 9 : right] = True
    assert changed[label].any()
    assert not changed[~(near(points, changed.shape, 12) | (edges > 0) | label)].any()


@pytest.mark.parametrize("side", [40, 80, 300])
def test_the_dots_of_a_face_do_not_touch(prediction, side):
    """Next to each other the mean face's landmarks are 0.044 of its width apart, but for closed lips."""
    black = np.zeros((SIDE, SIDE, 3), np.uint8)
    in_photograph, close_up = (
        faces_figure(black, [prediction(box=(9.0, 9.0, 9.0 + side, 9.0 + side))], AUS).axes[0].collections
    )
    for dots, width in ((in_photograph, side), (close_up, 10 * SIDE / 32 / 1.4)):
        assert 1 <= np.sqrt(dots.get_sizes()[0]) + dots.get_linewidths()[0] < 0.044 * width


def test_without_a_face_the_photograph_is_left_alone(astronaut):
    assert np.array_equal(draw_faces(astronaut, [], AUS)[:SIDE, :SIDE], enlarged(astronaut))
    ((text, x, _),) = texts(faces_figure(astronaut, [], AUS))
    assert text == "no face found" and x > SIDE


def test_the_note_is_printed_below(astronaut, prediction):
    without, with_note, long = (draw_faces(astronaut, [prediction()], AUS, NOTE * n) for n in (0, 1, 6))
    height = without.shape[0]
    assert np.array_equal(with_note[:height], without) and np.array_equal(long[:height], without)
    assert (with_note[height:] < 128).any()
    # A long one is wrapped and reaches no border.
    assert long.shape[0] > with_note.shape[0] and (long[height:, -5:] == 255).all()
    figure = faces_figure(astronaut, [prediction()], AUS, NOTE * 6)
    lines = [text for text, _, y in texts(figure) if y > height]
    assert "".join(lines).replace(" ", "") == (NOTE * 6).replace(" ", "") and len(lines) > 2


def test_a_bar_is_as_long_as_its_probability_and_coloured_and_marked_by_presence(astronaut, prediction):
    probabilities = np.linspace(0.02, 0.98, 12)
    figure = faces_figure(astronaut, [prediction(probabilities)], AUS)
    written = texts(figure)
    for au, probability, (track, bar) in zip(AUS, probabilities, bars(figure), strict=True):
        assert bar.get_xy() == track.get_xy() and bar.get_height() == track.get_height()
        assert bar.get_width() == pytest.approx(probability * track.get_width())
        assert to_hex(bar.get_facecolor()).upper() == (ORANGE if probability > 0.5 else BLUE)
        row = [text for text, _, y in written if 0 < y - track.get_y() < track.get_height()]
        marked = ["\N{CHECK MARK}"] if probability > 0.5 else []
        assert row == [*marked, f"AU {au}", facs.AU_NAMES[au], f"{probability:.2f}"]


def test_the_line_lies_where_the_thresholds_are(astronaut, prediction):
    for thresholds in (None, np.linspace(0.1, 0.9, 12)):
        figure = faces_figure(astronaut, [prediction()], AUS, thresholds=thresholds)
        (line,) = figure.axes[0].lines
        pieces = line.get_xydata().reshape(12, 2, 2)  # start and end, x and y
        for threshold, piece, (track, _) in zip(
            [0.5] * 12 if thresholds is None else thresholds, pieces, bars(figure), strict=True
        ):
            assert piece[:, 0] == pytest.approx(track.get_x() + threshold * track.get_width())
            assert piece[0, 1] < track.get_y() and piece[1, 1] > track.get_y() + track.get_height()
        (label,) = (text for text in figure.axes[0].texts if text.get_text() == "threshold")
        assert label.get_position()[0] == pytest.approx(pieces[0][0, 0])
    with pytest.raises(ValueError, match="12 AUs, got 1"):
        draw_faces(astronaut, [], AUS, thresholds=[0.5])


@pytest.mark.parametrize("side, drawn_side", [(60, 900), (900, 900), (1500, 1500), (3000, 2400)])
def test_size_and_letters_follow_the_photograph(side, drawn_side):
    black = np.zeros((side, side), np.uint8)
    drawn = draw_faces(black, [], AUS)
    assert (drawn[:drawn_side, :drawn_side] == 0).all() and (drawn[:, drawn_side] == 255).all()
    (text,) = faces_figure(np.stack((black,) * 3, -1), [], AUS).axes[0].texts
    assert 0.013 < text.get_size() / drawn_side < 0.03


def test_extreme_photographs():
    for shape in ((1, 5000), (5000, 1), (1, 1)):
        assert draw_faces(np.zeros(shape, np.uint8), [], AUS, NOTE).ndim == 3


def test_a_face_that_reaches_out_of_the_photograph_stays_inside(astronaut, prediction):
    face = prediction(box=(400.0, -50.0, 600.0, 150.0), landmarks=np.full((49, 2), (600, 100), np.float32))
    drawn, usual = (draw_faces(astronaut, [f], AUS) for f in (face, prediction()))
    assert drawn.shape == usual.shape
    track, _ = bars(faces_figure(astronaut, [face], AUS))[-1]
    rows = slice(0, round(track.get_y() + track.get_height()))
    assert np.array_equal(drawn[rows, SIDE:], usual[rows, SIDE:])


def test_every_face_has_a_block_and_rules_of_ones_own_are_named(astronaut, prediction):
    faces = [prediction([0.1 + 0.2 * i] * 12, face_id=i) for i in range(3)]
    figure = faces_figure(astronaut, faces, (facs.AURule((1, 2)), *AUS[1:]))
    written = texts(figure)
    blocks = [(x, y) for text, x, y in written if text.startswith("Face ")]
    assert len(set(blocks)) == 3 and all(x > SIDE for x, _ in blocks)
    lengths = [bar.get_width() / track.get_width() for track, bar in bars(figure)]
    assert lengths == pytest.approx(np.repeat([0.1, 0.3, 0.5], 12))
    assert [text for text, *_ in written].count("rule 0") == 3


def test_whose_left_and_right_is_said_below_the_aus_of_one_side(astronaut, prediction):
    aus = ("12L", "12R", *AUS[2:])
    figure = faces_figure(astronaut, [prediction(), prediction(face_id=1)], aus)
    said = [(x, y) for text, x, y in texts(figure) if text == SIDES]
    assert len(said) == 2
    close_up = [image.get_extent() for image in figure.axes[0].images[1:]]
    low = figure.axes[0].get_ylim()[0]
    for (x, y), (_, _, bottom, _) in zip(said, close_up, strict=True):
        assert x > SIDE and bottom < y < low
    assert SIDES not in [text for text, *_ in texts(faces_figure(astronaut, [prediction()], AUS))]


def test_same_input_same_bits(astronaut, prediction):
    first, second = (draw_faces(astronaut, [prediction()], AUS, NOTE) for _ in range(2))
    assert np.array_equal(first, second)
