"""The time line: every frame at its time in its colour, gaps left empty, long videos aggregated as told."""

import time

import matplotlib
import numpy as np
import pandas as pd
import pytest

from jaa_ext.data.images import read_image
from jaa_ext.plots import timeline
from jaa_ext.plots.timeline import COLUMNS, MARK, ROW, STRIP, timeline_figure

NOTE = "Demonstration weights, trained on drawn faces: not for real use."
ORANGE, VERMILION = (230, 159, 0), (213, 94, 0)
LEFT, TOP, GAP = 225, 80, 62
"""Where the first panel begins, and what lies between two."""


def table(probabilities, *, frames=None, face_id=0, present=None, seconds=0.04, **fields):
    """One face's table: probabilities (N, A) of AUs 1, 2, … in frames from 1."""
    probabilities = np.asarray(probabilities, float).reshape(len(probabilities), -1)
    frames = np.arange(1, len(probabilities) + 1) if frames is None else np.asarray(frames)
    present = probabilities > 0.5 if present is None else np.asarray(present).reshape(probabilities.shape)
    columns = {"frame": frames, "face_id": face_id, "timestamp": (frames - 1) * seconds, "success": 1}
    for i, au in enumerate((1, 2, 4, 6)[: probabilities.shape[1]]):
        columns |= {f"AU{au:02d}_c": present[:, i].astype(int), f"AU{au:02d}_p": probabilities[:, i]}
    return pd.DataFrame(columns | {"source": "a.mp4", "weights": ""} | fields)


def without_face(frames, seconds=0.04):
    frames = np.asarray(frames)
    times = (frames - 1) * seconds
    return pd.DataFrame(
        {"frame": frames, "face_id": -1, "timestamp": times, "success": 0, "source": "a.mp4", "weights": ""}
    )


@pytest.fixture
def draw(tmp_path):
    def make(*tables, note="", aus=1):
        """The panels' pixels, one below the other: the rows of `aus` AUs each."""
        timeline_figure(pd.concat(tables), tmp_path / "a.png", note=note)
        picture = read_image(tmp_path / "a.png")
        height = aus * ROW
        tops = range(TOP, picture.shape[0] - height, height + GAP)
        return [picture[top : top + height, LEFT : LEFT + COLUMNS] for top in tops], picture

    return make


def colour(probability):
    return np.asarray(matplotlib.colormaps["GnBu"](probability, bytes=True))[..., :3]


def near(pixels, wanted):
    return np.abs(pixels.astype(int) - wanted).max(-1) <= 1


def strip(panel, row=0):
    """One line of pixels through an AU's colours, and one through its marks."""
    return panel[row * ROW + STRIP // 2], panel[row * ROW + STRIP + 2]


def is_gap(pixels):
    """Nothing but grey paper, darker hatching and the blend of their edges: no colour at all."""
    hatched = (pixels.max(-1) < 200).mean()
    return np.ptp(pixels.astype(int), axis=-1).max() == 0 and 0.05 < hatched < 0.4


def test_every_frame_has_its_colour_for_as_long_as_it_lasts(draw):
    probabilities = np.stack((np.linspace(0, 1, 12), np.linspace(1, 0, 12) ** 2), 1)
    (panel, *_), _ = draw(table(probabilities), aus=2)
    for row in range(2):
        colours, marks = strip(panel, row)
        expected = np.repeat(probabilities[:, row], COLUMNS // 12)
        assert near(colours, colour(expected)).all()
        assert np.array_equal(near(marks, ORANGE), expected > 0.5)
        assert (marks[expected <= 0.5] == 255).all()


def test_presence_is_the_tables_own(draw):
    (panel, *_), _ = draw(table([0.9, 0.9, 0.1, 0.1], present=[1, 0, 1, 0]))
    assert np.array_equal(near(strip(panel)[1], ORANGE), np.repeat([True, False, True, False], COLUMNS // 4))


@pytest.mark.parametrize("rows_without", [True, False])
def test_gaps_are_empty_and_nothing_is_interpolated(draw, rows_without):
    kept = [1, 2, 3, 4, 8, 9, 10, 11, 12]
    tables = [table([0.8] * len(kept), frames=kept)]
    if rows_without:
        tables.append(without_face([5, 6, 7]))
    (panel, *_), _ = draw(*tables)
    for line in strip(panel):
        assert near(line[:399], line[0]).all() and near(line[702:], line[0]).all()
    # A missing row of the table ends half a frame later: how long frame 4 was shown is not known.
    gap = panel[:, slice(403 if rows_without else 453, 698)]
    assert is_gap(gap)


def test_a_gap_of_one_frame_can_be_seen(draw):
    kept = np.delete(np.arange(1, 601), 299)
    (panel, *_), _ = draw(table([0.0] * 599, frames=kept), without_face([300]))
    plain = near(panel[:, :500], panel[:, :1]).all()
    dark = (panel[: STRIP + MARK].max(-1) < 200).all(0)
    assert plain and dark.any() and not dark[:590].any() and not dark[610:].any()


def test_frames_that_lie_apart_in_time_are_shown_when_they_were(draw):
    # Of every tenth frame predictions; frame 31 is missing. Shown from 0 to 2.4 s.
    (panel, *_), _ = draw(table([0.2, 0.4, 0.6, 0.8, 1.0], frames=[1, 11, 21, 41, 51]))
    colours = strip(panel)[0]
    for start, p in ((0, 0.2), (10, 0.4), (20, 0.6), (40, 0.8), (50, 1.0)):
        middle = round((start + 5) * 0.04 / 2.4 * COLUMNS)
        assert near(colours[middle], colour(p)).all()
    gap = panel[:, round(1.42 / 2.4 * COLUMNS) : round(1.58 / 2.4 * COLUMNS)]
    assert is_gap(gap)


def test_a_column_of_many_frames_shows_their_maximum(draw):
    probabilities = np.full(12000, 0.1)
    probabilities[6004] = 0.9  # the fifth of ten
    present = np.zeros(12000)
    present[3007] = 1
    (panel, *_), picture = draw(table(probabilities, present=present))
    expected = np.full(COLUMNS, 0.1)
    expected[600] = 0.9
    colours, marks = strip(panel)
    assert near(colours, colour(expected)).all()
    assert np.flatnonzero(near(marks, ORANGE)).tolist() == [300]
    # Says so below, which a short table need not.
    _, short = draw(table([0.1]))
    assert picture.shape[0] == short.shape[0] + 18


def test_a_column_is_hatched_where_half_of_its_frames_or_more_are_missing(draw):
    missing = [*range(1001, 1001 + 4), *range(2001, 2001 + 5), *range(3001, 3001 + 10)]
    kept = np.setdiff1d(np.arange(1, 12001), missing)
    (panel, *_), _ = draw(table(np.full(len(kept), 0.3), frames=kept), without_face(missing))
    colours, marks = strip(panel)
    assert near(colours[95:105], colour(0.3)).all() and (marks[95:105] == 255).all()
    for column in (200, 300):
        around = marks[column - 3 : column + 4]
        assert (around.min(-1) < 200).any() and (around[[0, -1]] == 255).all()


def test_the_four_faces_seen_longest_have_panels_in_order_of_their_ids(draw):
    lengths = {0: 3, 2: 60, 3: 40, 5: 5, 7: 40, 9: 20}
    faces = [
        table(np.full(n, (i + 1) / 10), face_id=i, frames=np.arange(1, n + 1)) for i, n in lengths.items()
    ]
    panels, picture = draw(*faces)
    assert len(panels) >= 4
    for panel, i in zip(panels, (2, 3, 7, 9), strict=False):
        colours = strip(panel)[0]
        assert near(colours[5], colour((i + 1) / 10)).all()
        known = near(colours, colour((i + 1) / 10))
        assert abs(known.sum() - lengths[i] / 60 * COLUMNS) <= 3
    _, of_four = draw(*(face for face in faces if face["face_id"][0] in (2, 3, 7, 9)))
    # The same panels, and one more line below that tells of the others.
    assert picture.shape[0] == of_four.shape[0] + 18
    assert np.array_equal(picture[: TOP + 4 * ROW + 3 * GAP], of_four[: TOP + 4 * ROW + 3 * GAP])


def test_without_any_face(draw):
    (panel, *_), _ = draw(table([0.5, 0.5]).assign(success=0, AU01_p=np.nan, AU01_c=np.nan))
    assert is_gap(panel[: STRIP + MARK])


@pytest.mark.parametrize("frames", [1, 2, 3])
@pytest.mark.filterwarnings("error")
def test_tiny_tables(draw, frames):
    (panel, *_), _ = draw(table([0.7] * frames))
    assert near(strip(panel)[0], colour(0.7)).all()


@pytest.mark.filterwarnings("error")
def test_times_that_stand_still(draw):
    # As some cameras have it.
    (panel, *_), _ = draw(table([0.7] * 5, seconds=0.0))
    assert near(strip(panel)[0], colour(0.7)).all()


def test_names_come_from_the_table(draw):
    own = table([[0.1, 0.9]]).rename(columns=lambda name: name.replace("AU02", "AUrule1"))
    (panel, *_), _ = draw(own, aus=2)
    assert near(strip(panel, 1)[0], colour(0.9)).all()


def test_the_note_is_given_or_the_tables(draw):
    plain, given, from_table = (
        draw(table([0.1] * 3, weights=weights), note=note)[1]
        for weights, note in (("", ""), ("", NOTE), (NOTE, ""))
    )
    assert not near(plain, VERMILION).any()
    assert near(given[-40:], VERMILION).sum() > 200
    assert np.array_equal(given, from_table)


@pytest.mark.parametrize("end, wanted", [(100, False), (150, True)])
def test_long_videos_count_minutes(end, wanted, tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(timeline, "save_figure", lambda figure, path, note: saved.append(figure))
    timeline_figure(table(np.zeros(end), seconds=1.0), tmp_path / "a.png")
    panel = next(axes for axes in saved[0].axes if axes.get_xlabel())
    labels = [panel.xaxis.get_major_formatter()(value, None) for value in (0, 60, 90)]
    assert (labels == ["0:00", "1:00", "1:30"]) == wanted
    assert panel.get_xlabel() == ("time (min:s)" if wanted else "time (s)")


def test_a_hundred_thousand_frames(tmp_path):
    random = np.random.default_rng(0)
    long = table(random.random((100_000, 4)))
    start = time.perf_counter()
    timeline_figure(long, tmp_path / "a.png")
    assert time.perf_counter() - start < 5
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize(
    "wrong, message",
    [
        (lambda t: t.assign(source=["a.mp4", "b.mp4", "a.mp4"]), r"one video, got 2 sources: a.mp4, b.mp4$"),
        (lambda t: t.drop(columns="success"), r"the table lacks the column 'success'"),
        (lambda t: t.drop(columns="AU01_c"), r"the table lacks the column 'AU01_c'"),
        (lambda t: t.drop(columns="AU01_p"), r"the table lacks the column 'AU.._p'"),
        (lambda t: t.iloc[:0], r"got an empty table, wanted at least one row"),
        (
            lambda t: t.assign(timestamp=[0.0, 2.0, 1.0]),
            r"time must rise with the frames, got 2 s for frame 2 and 1 s for frame 3",
        ),
        (lambda t: t.assign(timestamp=[0.0, np.nan, 1.0]), r"got 0 s for frame 1 and nan s for frame 2"),
    ],
)
def test_tables_that_are_wrong(tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        timeline_figure(wrong(table([0.1, 0.2, 0.3])), tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []
