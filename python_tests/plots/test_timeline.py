"""The time line: every frame at its time in its colour, gaps left empty, long videos aggregated as told."""

import time

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from jaa_ext import facs
from jaa_ext.data.images import read_image
from jaa_ext.plots.style import ORANGE, PALE, VERMILION
from jaa_ext.plots.timeline import COLOURS, COLUMNS, ROW, STRIP, timeline_figure

NOTE = "Demonstration weights, trained on drawn faces: not for real use."
PALETTE = matplotlib.colormaps[COLOURS](np.linspace(0, 1, 256), bytes=True)[:, :3].astype(int)
LEVEL = 2 / 255
"""How closely a colour tells the probability."""


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


class Panel:
    """The rows of a face, by what their colours say."""

    def __init__(self, axes):
        self.axes, self.title = axes, axes.get_title(loc="left")
        (image,) = axes.images
        assert image.get_interpolation() == "none"
        pixels = np.asarray(image.get_array())
        assert pixels.shape[1] == COLUMNS
        strips, marks = pixels[STRIP // 2 :: ROW], pixels[STRIP + 2 :: ROW]
        distances = np.abs(strips[:, :, None] - PALETTE).sum(-1)
        unknown = is_colour(strips, PALE)
        assert ((distances.min(-1) == 0) | unknown).all()
        self.probabilities = np.where(unknown, np.nan, distances.argmin(-1) / 255)
        """(A, COLUMNS); NaN where the face was not found."""
        self.present = is_colour(marks, ORANGE)
        assert (unknown == is_colour(marks, PALE)).all()
        (hatched,) = axes.collections
        assert hatched.get_hatch() and hatched.get_linewidth()[0] > 0
        self.gaps = [pytest.approx(path.get_extents().intervalx) for path in hatched.get_paths()]
        """Start and end of each hatched time in seconds."""

    def times(self, start, end):
        """The columns that show a time."""
        first, last = self.axes.get_xlim()
        return slice(*(round((time - first) / (last - first) * COLUMNS) for time in (start, end)))

    def shows(self, expected, row=0):
        """Whether a row has these probabilities, each for as many columns."""
        expected = np.repeat(expected, COLUMNS // len(expected))
        return np.allclose(self.probabilities[row], expected, atol=LEVEL)


def is_colour(pixels, name):
    return (pixels == np.round(255 * np.array(matplotlib.colors.to_rgb(name)))).all(-1)


@pytest.fixture
def draw(figures, tmp_path):
    def make(*tables, note=""):
        """The panels, one below the other, and their figure."""
        timeline_figure(pd.concat(tables), tmp_path / "a.png", note=note)
        panels = [Panel(axes) for axes in figures[-1].axes if axes.images]
        return panels, figures[-1]

    return make


def test_every_frame_has_its_colour_for_as_long_as_it_lasts(draw):
    probabilities = np.stack((np.linspace(0, 1, 12), np.linspace(1, 0, 12) ** 2), 1)
    (panel,), _ = draw(table(probabilities))
    for row in range(2):
        assert panel.shows(probabilities[:, row], row)
        assert (panel.present[row] == np.repeat(probabilities[:, row] > 0.5, COLUMNS // 12)).all()
    assert panel.gaps == []


def test_a_face_without_a_neutral_face_is_left_out(draw, texts):
    """In a corrected table its AUs are empty."""
    whole = table([0.9, 0.1])
    empty = whole.assign(face_id=1, AU01_p=np.nan, AU01_c=np.nan)
    (panel,), figure = draw(whole, empty)
    assert panel.title == "face 0: in 2 of 2 frames" and panel.shows([0.9, 0.1])
    assert "Without AUs, and left out: face 1, of which no neutral face was seen." in texts(figure)


def test_a_column_and_a_row_of_an_au_are_whole_pixels(tmp_path, monkeypatch):
    """In the file each column of the panel is a column of pixels: nothing is blended."""
    boxes, save = [], matplotlib.figure.Figure.savefig

    def noting(figure, *arguments, **options):
        save(figure, *arguments, **options)
        FigureCanvasAgg(figure).draw()
        height = figure.bbox.height
        boxes.extend((axes.get_window_extent(), height) for axes in figure.axes if axes.images)

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", noting)
    probabilities = np.random.default_rng(0).random((COLUMNS, 2))
    timeline_figure(table(probabilities), tmp_path / "a.png")
    ((box, height),) = boxes
    assert box.width == pytest.approx(COLUMNS) and box.height == pytest.approx(2 * ROW)
    left, top = round(box.x0), round(height - box.y1)
    picture = read_image(tmp_path / "a.png")
    for row in range(2):
        line = picture[top + row * ROW + STRIP // 2, left : left + COLUMNS].astype(int)
        wanted = matplotlib.colormaps[COLOURS](probabilities[:, row], bytes=True)[:, :3].astype(int)
        assert np.abs(line - wanted).max() <= 1


def test_presence_is_the_tables_own(draw):
    (panel,), _ = draw(table([0.9, 0.9, 0.1, 0.1], present=[1, 0, 1, 0]))
    assert (panel.present == np.repeat([True, False, True, False], COLUMNS // 4)).all()


def test_thresholds_other_than_one_half_are_told(draw, texts):
    said = "Some AUs are present above another threshold than 0.5: that in the model's file."
    for present, own in (([1, 1, 0], False), ([1, 0, 0], True), ([1, 1, 1], True)):
        _, figure = draw(table([0.9, 0.6, 0.3], present=present))
        assert (said in texts(figure)) == own
    assert said not in texts(draw(table([0.9, 0.5, 0.3], present=[1, 1, 0]))[1])  # 0.5000001 in six digits
    missing = table([0.9, 0.6, 0.3])
    missing.loc[1, ["success", "AU01_c", "AU01_p"]] = 0, np.nan, np.nan
    assert said not in texts(draw(missing)[1])


def test_how_a_table_was_corrected_is_told(draw, texts):
    said = "AUs are corrected: smoothed over 0.5 s."
    assert said in texts(draw(table([0.9, 0.6], corrected="smoothed over 0.5 s"))[1])
    assert not any("corrected" in text for text in texts(draw(table([0.9, 0.6]))[1]))


@pytest.mark.parametrize("rows_without", [True, False])
def test_gaps_are_empty_and_nothing_is_interpolated(draw, rows_without):
    kept = [1, 2, 3, 4, 8, 9, 10, 11, 12]
    tables = [table([0.8] * len(kept), frames=kept)]
    if rows_without:
        tables.append(without_face([5, 6, 7]))
    (panel,), _ = draw(*tables)
    # A missing row of the table ends half a frame later: how long frame 4 was shown is not known.
    start, end = 0.16 if rows_without else 0.18, 0.28
    assert panel.gaps == [(start, end)]
    expected = np.full((1, COLUMNS), 0.8)
    expected[:, panel.times(start, end)] = np.nan
    np.testing.assert_allclose(panel.probabilities, expected, atol=LEVEL)
    assert (panel.present == (expected == 0.8)).all()


def test_a_gap_of_one_frame_can_be_seen(draw):
    kept = np.delete(np.arange(1, 601), 299)
    (panel,), _ = draw(table([0.0] * 599, frames=kept), without_face([300]))
    gap = 299 * 0.04, 300 * 0.04
    assert panel.gaps == [gap]
    assert np.isnan(panel.probabilities).nonzero()[1].tolist() == [*range(COLUMNS)][panel.times(*gap)]


def test_frames_that_lie_apart_in_time_are_shown_when_they_were(draw):
    # Predictions of every tenth frame; frame 31 is missing.
    (panel,), _ = draw(table([0.2, 0.4, 0.6, 0.8, 1.0], frames=[1, 11, 21, 41, 51]))
    for start, p in ((0, 0.2), (0.4, 0.4), (0.8, 0.6), (1.6, 0.8), (2.0, 1.0)):
        assert panel.probabilities[0, panel.times(start, start + 0.4)] == pytest.approx(p, abs=LEVEL)
    # A frame may have been shown for half as long again as the others.
    assert panel.gaps == [(1.4, 1.6)]


def test_a_column_of_many_frames_shows_their_maximum(draw, texts):
    probabilities = np.full(12000, 0.1)
    probabilities[6004] = 0.9  # the fifth of ten
    present = np.zeros(12000)
    present[3007] = 1
    (panel,), figure = draw(table(probabilities, present=present))
    assert panel.shows(probabilities.reshape(COLUMNS, 10).max(1))
    assert (panel.present[0] == present.reshape(COLUMNS, 10).max(1)).all()
    assert "maximum of about 10 frames" in "\n".join(texts(figure))
    assert "maximum" not in "\n".join(texts(draw(table([0.1]))[1]))


def test_a_column_is_hatched_where_half_of_its_frames_or_more_are_missing(draw):
    missing = [*range(1001, 1001 + 4), *range(2001, 2001 + 5), *range(3001, 3001 + 10)]
    kept = np.setdiff1d(np.arange(1, 12001), missing)
    (panel,), _ = draw(table(np.full(len(kept), 0.3), frames=kept), without_face(missing))
    assert panel.gaps == [(frame * 0.04, (frame + 10) * 0.04) for frame in (2000, 3000)]
    assert np.isnan(panel.probabilities[0]).nonzero()[0].tolist() == [300]
    assert np.nanmax(np.abs(panel.probabilities - 0.3)) < LEVEL and not panel.present.any()


def test_the_four_faces_seen_longest_have_panels_in_order_of_their_ids(draw, texts):
    lengths = {0: 3, 2: 60, 3: 40, 5: 5, 7: 40, 9: 20}
    faces = [
        table(np.full(n, (i + 1) / 10), face_id=i, frames=np.arange(1, n + 1)) for i, n in lengths.items()
    ]
    panels, figure = draw(*faces)
    assert len(panels) == 4
    for panel, i in zip(panels, (2, 3, 7, 9), strict=True):
        assert panel.title == f"face {i}: in {lengths[i]} of 60 frames"
        assert panel.probabilities[0, : lengths[i] * 20] == pytest.approx((i + 1) / 10, abs=LEVEL)
        assert np.isnan(panel.probabilities[0, lengths[i] * 20 :]).all()
    heights = [panel.axes.get_position().y0 for panel in panels]
    assert heights == sorted(heights, reverse=True)
    assert "2 more faces are left out, seen in at most 5 frames." in texts(figure)
    of_four, figure = draw(*(face for face in faces if face["face_id"][0] in (2, 3, 7, 9)))
    assert "left out" not in "\n".join(texts(figure))
    for panel, same in zip(panels, of_four, strict=True):
        assert np.array_equal(panel.probabilities, same.probabilities, equal_nan=True)
        assert panel.title == same.title


def test_without_any_face(draw):
    (panel,), _ = draw(table([0.5, 0.5]).assign(success=0, AU01_p=np.nan, AU01_c=np.nan))
    assert panel.gaps == [(0, 0.08)] and np.isnan(panel.probabilities).all()
    assert panel.title == "no face in 2 frames"


@pytest.mark.parametrize("frames", [1, 2, 3])
@pytest.mark.filterwarnings("error")
def test_tiny_tables(draw, frames):
    (panel,), _ = draw(table([0.7] * frames))
    assert panel.shows([0.7])


@pytest.mark.filterwarnings("error")
def test_times_that_stand_still(draw):
    # As some cameras have it.
    (panel,), _ = draw(table([0.7] * 5, seconds=0.0))
    assert panel.shows([0.7])


def test_names_come_from_the_table(draw):
    own = table([[0.1, 0.9]]).rename(columns=lambda name: name.replace("AU02", "AUrule1"))
    (panel,), _ = draw(own)
    assert panel.shows([0.9], row=1)
    names = [label.get_text() for label in panel.axes.get_yticklabels()]
    assert names[0].endswith("AU 1") and names[1] == "AUrule1"


def test_the_note_is_given_or_the_tables(draw):
    for weights, note, wanted in (("", "", ""), ("", NOTE, NOTE), (NOTE, "", NOTE)):
        _, figure = draw(table([0.1] * 3, weights=weights), note=note)
        (printed,) = [text for text in figure.texts if text.get_color() == VERMILION]
        assert printed.get_text().replace("\n", " ") == wanted


@pytest.mark.parametrize("end, wanted", [(100, False), (150, True)])
def test_long_videos_count_minutes(draw, end, wanted):
    (panel,), _ = draw(table(np.zeros(end), seconds=1.0))
    labels = [panel.axes.xaxis.get_major_formatter()(value, None) for value in (0, 60, 90)]
    assert (labels == ["0:00", "1:00", "1:30"]) == wanted
    assert panel.axes.get_xlabel() == ("time (min:s)" if wanted else "time (s)")


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
        (
            lambda t: t.assign(source=["a.mp4", "b.mp4", "a.mp4"]),
            r"^wanted the table of one video, got 2 sources: a.mp4, b.mp4$",
        ),
        (lambda t: t.drop(columns="success"), r"^the table lacks the column 'success'"),
        (lambda t: t.drop(columns="AU01_c"), r"the table lacks the column 'AU01_c'"),
        (lambda t: t.drop(columns="AU01_p"), r"the table lacks the column 'AU.._p'"),
        (lambda t: t.iloc[:0], r"^got an empty table, wanted at least one row"),
        (
            lambda t: t.assign(timestamp=[0.0, 2.0, 1.0]),
            r"^time must rise .* 2 s for frame 2 and 1 s for frame 3",
        ),
        (lambda t: t.assign(timestamp=[0.0, np.nan, 1.0]), r"got 0 s for frame 1 and nan s for frame 2"),
    ],
)
def test_tables_that_are_wrong(tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        timeline_figure(wrong(table([0.1, 0.2, 0.3])), tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_both_sides_of_an_au_have_one_row(figures, tmp_path, texts):
    """The left strip above the right one, whatever their order in the table; letters tell which is which."""
    rng = np.random.default_rng(0)
    names = ("AU12R", "AU01", "AU12L", "AU04L")
    values = {name: rng.random(12) for name in names}
    columns = {f"{name}_p": p for name, p in values.items()}
    columns |= {f"{name}_c": (p > 0.5).astype(int) for name, p in values.items()}
    rows = table(np.zeros(12)).drop(columns=["AU01_c", "AU01_p"]).assign(**columns)
    timeline_figure(rows, tmp_path / "a.png")
    (axes,) = (axes for axes in figures[-1].axes if axes.images)
    pixels = np.asarray(axes.images[0].get_array())
    # Pixels from the top: two strips of 16 with marks of 5, then 5 between rows.
    tops = {"AU12L": 0, "AU12R": 21, "AU01": 47, "AU04L": 73}
    assert len(pixels) == 73 + 21
    for name, top in tops.items():
        wanted = np.repeat(matplotlib.colormaps[COLOURS](values[name], bytes=True)[:, :3], COLUMNS // 12, 0)
        assert (pixels[top + 8] == wanted).all() and (pixels[top] == wanted).all()
        present = np.repeat(values[name] > 0.5, COLUMNS // 12)
        assert (is_colour(pixels[top + 18], ORANGE) == present).all()
    labels = {label.get_text(): y for label, y in zip(axes.get_yticklabels(), axes.get_yticks(), strict=True)}
    assert labels == {
        "lip corner puller  AU 12": 18.5,
        "inner brow raiser  AU 1": 55,
        "brow lowerer  AU 4L": 81,
    }
    letters = {text.get_text(): text.xy[1] for text in axes.texts}
    assert letters == {"L": 8, "R": 29}
    said = "L, R: the person's left and right."
    assert said in texts(figures[-1])
    timeline_figure(rows[[name for name in rows if "12L" not in name]], tmp_path / "a.png")
    assert said in texts(figures[-1])
    timeline_figure(table(np.zeros(12)), tmp_path / "a.png")
    assert said not in texts(figures[-1])


def test_names_of_rows_and_legend_have_room(figures, tmp_path):
    """Each by itself and as both sides of one row, below the name of a long file."""
    for sides in ("L", "R", "LR", ""):
        names = [f"AU{au:02d}{side}" for au in facs.AU_NAMES for side in sides or [""]]
        values = {f"{name}_{kind}": np.zeros(3) for kind in "cp" for name in names}
        frames = (
            table(np.zeros(3)).drop(columns=["AU01_c", "AU01_p"]).assign(source="a long name " * 4 + "a.mp4")
        )
        timeline_figure(frames.assign(**values), tmp_path / "a.png")
        FigureCanvasAgg(figures[-1]).draw()
        axes = next(axes for axes in figures[-1].axes if axes.images)
        assert len(axes.get_yticklabels()) == len(facs.AU_NAMES)
        for label in axes.get_yticklabels():
            assert label.get_window_extent().x0 >= 4, label.get_text()
        (legend,), source = figures[-1].legends, next(t for t in figures[-1].texts if "a.mp4" in t.get_text())
        assert source.get_window_extent().x1 < legend.get_texts()[0].get_window_extent().x0
