"""Frames of a video with predictions on them: everything is at its place, and the file can be read back."""

import time
from dataclasses import replace
from typing import NamedTuple

import cv2
import matplotlib
import numpy as np
import pytest
from skimage import data

from jaa_ext import facs
from jaa_ext.data.faces import align_face, transform
from jaa_ext.data.video import Video, read_frames
from jaa_ext.plots import frames as overlay
from jaa_ext.plots.frames import AttentionScale, Fill, FrameDrawer, Label, write_video
from jaa_ext.plots.style import BLUE, INK, ORANGE, PALE, SIDES
from jaa_ext.predict.prediction import FramePrediction

NOTE = "Demonstration weights, trained on drawn faces: not for real use."
AUS = facs.BP4D_AUS
CHECK_MARK = "\N{CHECK MARK}"


@pytest.fixture(scope="module")
def astronaut():
    return data.astronaut()


@pytest.fixture
def frame(astronaut):
    def make(*faces, image=astronaut, number=7, seconds=0.28):
        return FramePrediction("a.mp4", number, seconds, image, list(faces))

    return make


class Panel:
    """What is drawn beside a frame."""

    def __init__(self, shapes):
        self.labels = [shape for shape in shapes if isinstance(shape, Label)]
        self.texts = [label.text for label in self.labels]
        fills = [shape for shape in shapes if isinstance(shape, Fill)]
        rows = {}
        for start in (i for i, fill in enumerate(fills) if fill.colour == PALE):
            end = next(i for i in range(start, len(fills)) if fills[i].colour == INK)
            track, *bar, mark = fills[start : end + 1]
            assert all(fill[:2] + fill[3:4] == track[:2] + track[3:4] for fill in bar)  # but for its end
            assert mark.top < track.top < track.bottom < mark.bottom
            rows.setdefault(track.top, []).append(Bar(track, *bar or [None], mark))
        self.bars = [rows[top] for top in sorted(rows)]
        """A list of AUs, from the top, of lists of faces, from the left."""

    def beside(self, bar):
        """The texts in a bar's row, and whether they stand before it."""
        return {
            label.text: label.x < bar.track.left
            for label in self.labels
            if bar.track.top < label.y < bar.track.bottom
        }


class Bar(NamedTuple):
    track: Fill
    bar: Fill | None
    mark: Fill

    @property
    def length(self):
        """Share of the track; None without a bar."""
        left, right = self.track.left, self.track.right
        return None if self.bar is None else (self.bar.right - left) / (right - left)


@pytest.fixture
def panel(frame):
    def make(drawer, *faces, **fields):
        return Panel(drawer.panel(frame(*faces, **fields)))

    return make


def lengths(panel):
    return [[bar.length for bar in row] for row in panel.bars]


def test_landmarks_and_box_are_drawn_and_the_rest_is_the_frame(frame, prediction, astronaut, near):
    face = prediction()
    drawn = FrameDrawer(AUS)(frame(face))
    assert drawn.dtype == np.uint8 and drawn.shape[0] % 2 == drawn.shape[1] % 2 == 0
    changed = (drawn[:512, :512] != astronaut).any(-1)
    assert all(changed[near([point], changed.shape, 3)].all() for point in face.landmarks)
    left, top, right, bottom = map(round, face.box)
    edges = np.zeros(changed.shape, np.uint8)
    cv2.rectangle(edges, (left, top), (right, bottom), 1, 7)
    assert changed[(top + bottom) // 2, [left, right]].all() and changed[bottom, (left + right) // 2]
    label = np.zeros(changed.shape, bool)
    label[:top, left - 9 : right] = True
    assert changed[label].any()
    assert not changed[~(near(face.landmarks, changed.shape, 7) | (edges > 0) | label)].any()


def test_the_dots_of_a_small_face_do_not_merge(frame, prediction):
    grey = np.full((512, 512, 3), 128, np.uint8)
    x, y = np.meshgrid(range(218, 243, 4), range(218, 243, 4))
    face = prediction(box=(200.0, 200.0, 260.0, 260.0), landmarks=np.stack((x, y), -1).reshape(49, 2))
    changed = (FrameDrawer(AUS)(frame(face, image=grey))[:512, :512] != grey).any(-1)
    assert changed[y, x].all()
    assert not changed[218:243, 220:243:4].any() and not changed[220:243:4, 218:243].any()


def test_the_panel_is_drawn_as_it_is_listed(frame, prediction, panel):
    """Where one bar is shorter, the picture differs only there and in the number beside it."""
    drawer, faces = FrameDrawer(AUS), (prediction([0.8] * 12), prediction([*[0.8] * 11, 0.6]))
    (long, _), (short, shorter) = ((drawer(frame(face)), panel(drawer, face).bars[11][0]) for face in faces)
    changed = (long != short).any(-1)
    top, bottom = round(shorter.track.top), round(shorter.track.bottom)
    start, end = (round(at.right) for at in (shorter.bar, shorter.track))
    bar = changed[top:bottom, :end]
    assert not bar[:, :start].any() and bar[:, start : start + 9].all()
    assert changed[top:bottom, end:].any()
    changed[top - 9 : bottom + 9] = False
    assert not changed.any()


def test_a_bar_is_as_long_as_its_probability_and_coloured_and_marked_by_presence(panel, prediction):
    probabilities, thresholds = np.linspace(0.02, 0.98, 12), np.linspace(0.1, 0.9, 12)
    drawers = FrameDrawer(AUS), FrameDrawer(AUS, thresholds=thresholds)
    for drawer, marks in zip(drawers, ([0.5] * 12, thresholds), strict=True):
        shown = panel(drawer, prediction(probabilities))
        assert len(shown.bars) == 12
        for au, probability, mark, (bar,) in zip(AUS, probabilities, marks, shown.bars, strict=True):
            assert bar.length == pytest.approx(probability)
            # Presence is said by more than a colour: a mark before the bar.
            present = probability > 0.5
            assert bar.bar.colour == (ORANGE if present else BLUE)
            before = {f"AU {au}": True, facs.AU_NAMES[au]: True, f"{probability:.2f}": False}
            assert shown.beside(bar) == before | ({CHECK_MARK: True} if present else {})
            # A mark begins at a whole pixel.
            assert bar.mark.left == pytest.approx(
                bar.track.left + mark * (bar.track.right - bar.track.left), abs=0.5
            )
    assert f"{CHECK_MARK} present, above 0.5" in panel(FrameDrawer(AUS)).texts
    assert f"{CHECK_MARK} present, above the mark" in panel(FrameDrawer(AUS, thresholds=thresholds)).texts


def test_faces_have_columns_side_by_side_and_those_beyond_are_counted(panel, frame, prediction):
    faces = [prediction([0.1 + 0.2 * i] * 12, face_id=i) for i in range(5)]
    drawer = FrameDrawer(AUS)
    pictures = [drawer(frame(*faces[:count])) for count in (1, 3, 5)]
    assert len({picture.shape for picture in pictures}) == 1
    three, five = panel(drawer, *faces[:3]), panel(drawer, *faces)
    np.testing.assert_allclose(lengths(five), [[0.1, 0.3, 0.5]] * 12)
    assert five.bars == three.bars and all(row == sorted(row) for row in five.bars)
    assert [text for text in five.texts if text not in three.texts] == ["+2 more"]
    assert [text for text in five.texts if text.startswith(" face")] == [" face 0 ", " face 1 ", " face 2 "]


def test_a_face_keeps_its_column_and_a_new_one_takes_a_free_one(panel, prediction):
    faces = [prediction([p] * 12, face_id=i) for i, p in enumerate((0.9, 0.2, 0.9))]
    drawer = FrameDrawer(AUS)
    np.testing.assert_allclose(lengths(panel(drawer, *faces[:2])), [[0.9, 0.2]] * 12)
    alone = panel(drawer, faces[1])
    assert all(first is None and second == pytest.approx(0.2) for first, second in lengths(alone))
    np.testing.assert_allclose(lengths(panel(drawer, *faces[1:])), [[0.9, 0.2]] * 12)


def test_without_a_face_the_frame_is_left_alone(frame, panel, prediction, astronaut):
    drawer = FrameDrawer(AUS)
    assert np.array_equal(drawer(frame())[:512, :512], astronaut)
    shown = panel(drawer)
    assert lengths(shown) == [[None]] * 12 and "no face" in shown.texts
    assert "no face" not in panel(drawer, prediction()).texts


@pytest.mark.parametrize(
    "seconds, text",
    [(0, "0:00.000"), (59.9994, "0:59.999"), (59.9996, "1:00.000"), (3723.456, "1:02:03.456")],
)
def test_time_and_number_are_above_all_else(frame, panel, seconds, text):
    shown = panel(FrameDrawer(AUS), number=8, seconds=seconds)
    first = min(label.y for label in shown.labels)
    assert [label.text for label in shown.labels if label.y == first] == [text, "frame 8"]
    pictures = [FrameDrawer(AUS)(frame(number=8, seconds=time)) for time in (seconds, 5)]
    assert not np.array_equal(*pictures)


def test_the_note_is_in_every_picture_and_reaches_no_border(frame, panel, prediction):
    plain, short, long = (FrameDrawer(AUS, note=note) for note in ("", NOTE, NOTE * 6))
    for faces in ((), (prediction(),)):
        without, with_note, much = (drawer(frame(*faces)) for drawer in (plain, short, long))
        height = without.shape[0]
        assert np.array_equal(with_note[:height], without) and np.array_equal(much[:height], without)
        assert height < with_note.shape[0] < much.shape[0]
        assert (with_note[height:] < 128).any()
        assert (much[-2:] == 255).all() and (much[height:, -4:] == 255).all()
        lines = [label.text for label in panel(long, *faces).labels if label.y > height]
        assert "".join(lines).replace(" ", "") == (NOTE * 6).replace(" ", "")


@pytest.mark.parametrize(
    "size, scale",
    [
        ((240, 320), 2),
        ((480, 640), 1),
        ((720, 1280), 1),
        ((1280, 720), 1),
        ((2160, 3840), 1),
        ((50, 60), 9.6),
    ],
)
def test_letters_are_legible_at_every_size(frame, size, scale):
    drawn = FrameDrawer(AUS, note=NOTE)(frame(image=np.zeros((*size, 3), np.uint8)))
    height, width = (round(scale * side) for side in size)
    assert (drawn[:height, :width] == 0).all() and (drawn[:, width] == 255).all()
    assert drawn.shape[0] % 2 == drawn.shape[1] % 2 == 0
    letters = (drawn[:, width:] < 128).any(-1)
    top, bottom = np.flatnonzero(np.diff(letters.any(1)))[:2]  # before the first line, and its last row
    assert bottom - top > 8 and 0.012 < (bottom - top) / min(height, width) < 0.03
    # Nothing of the panel is cut off.
    assert not letters[:, -3:].any() and not letters[-2:].any()


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (1, 1), (33, 47)])
def test_extreme_frames(frame, panel, prediction, size):
    image = np.zeros((*size, 3), np.uint8)
    for aus in ((12,), tuple(facs.AU_RULES) * 3):
        face = prediction([0.7] * len(aus), box=(-900.0, -5.0, 1e6, 40.0))
        drawer = FrameDrawer(aus, note=NOTE)
        height, width, _ = drawer(frame(face, image=image)).shape
        assert height % 2 == width % 2 == 0
        shown = panel(drawer, face, image=image)
        np.testing.assert_allclose(lengths(shown), [[0.7]] * len(aus), rtol=1e-6)
        assert all(0 <= label.x < width and 0 <= label.y < height for label in shown.labels)


def test_a_face_that_reaches_out_of_the_frame_stays_inside(frame, prediction):
    points = np.full((49, 2), (600, 100), np.float32)
    points[:3] = np.array([[np.nan], [np.inf], [-1e30]])
    faces = [
        prediction(box=box, landmarks=points)
        for box in ((400.0, -50.0, 600.0, 150.0), (-90.0, 400.0, 5.0, 600.0))
    ]
    plain = FrameDrawer(AUS)(frame(prediction()))
    for face in faces:
        drawn = FrameDrawer(AUS)(frame(face))
        assert np.array_equal(drawn[:, 512:], plain[:, 512:]) and np.array_equal(drawn[512:], plain[512:])


def test_rules_of_ones_own_are_named(panel, prediction):
    shown = panel(FrameDrawer((facs.AURule((1, 2)), *AUS[1:])), prediction())
    assert "rule 0" in shown.beside(shown.bars[0][0]) and f"AU {AUS[1]}" in shown.beside(shown.bars[1][0])


def test_whose_left_and_right_is_said_above_the_names_of_aus_of_one_side(panel, prediction):
    aus = ("12L", "12R", *AUS[2:])
    shown = panel(FrameDrawer(aus), prediction())
    (said,) = (label for label in shown.labels if label.text == SIDES)
    assert said.x == next(label.x for label in shown.labels if label.text == "AU 12L")
    first = next(label for label in shown.labels if label.text == "0")
    drawer = FrameDrawer(aus)
    drawer.panel(FramePrediction("a.mp4", 1, 0.0, np.zeros((512, 512, 3), np.uint8), []))
    assert drawer._layout.small.right(said) < first.x - drawer._layout.line / 2 and said.y == first.y
    assert SIDES not in panel(FrameDrawer(AUS), prediction()).texts


def test_a_picture_can_be_kept(frame, prediction):
    drawer = FrameDrawer(AUS)
    first = drawer(frame(prediction()))
    kept = first.copy()
    drawer(frame())
    assert np.array_equal(first, kept)


def test_frames_that_do_not_fit(frame, prediction):
    drawer = FrameDrawer(AUS)
    drawer(frame())
    with pytest.raises(ValueError, match=r"frame 7 of a.mp4 .*\(8, 9, 3\), wanted \(512, 512, 3\)"):
        drawer(frame(image=np.zeros((8, 9, 3), np.uint8)))
    with pytest.raises(ValueError, match="3 probabilities, wanted 12"):
        drawer(frame(prediction([0.1] * 3)))


def test_sixty_frames_a_second_at_720p(frame, prediction):
    drawer, image = FrameDrawer(AUS, note=NOTE), np.zeros((720, 1280, 3), np.uint8)
    best = float("inf")
    for number in range(20):
        start = time.perf_counter()
        drawer(frame(prediction(), image=image, number=number, seconds=number / 25))
        best = min(best, time.perf_counter() - start)
    assert best < 1 / 60


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_face_whose_numbers_are_not_finite_is_drawn_without_them(frame, panel, prediction, value, near):
    probabilities, landmarks = np.full(12, 0.9, np.float32), prediction().landmarks.copy()
    probabilities[3], landmarks[5] = value, value
    odd = prediction(probabilities, landmarks=landmarks)
    drawn, usual = (FrameDrawer(AUS)(frame(face))[:512, :512] for face in (odd, prediction()))
    changed, missing = (drawn != usual).any(-1), near(prediction().landmarks[5:6], (512, 512), 7)
    assert changed.any() and not changed[~missing].any()
    drawn_lengths = lengths(panel(FrameDrawer(AUS), odd))
    assert drawn_lengths.pop(3) == [None] and np.allclose(drawn_lengths, 0.9)


class TestAttention:
    side, map_side = 88, 22

    def face(self, prediction, **maps):
        """A tilted face of about 150 pixels, as the predictor makes it."""
        points = prediction().landmarks
        angle = np.deg2rad(25)
        turn = np.array([(np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))])
        points = ((points - 250) @ turn.T * 0.5 + (260, 230)).astype(np.float32)
        crop = np.zeros((self.side, self.side, 3), np.uint8)
        # What else is drawn must not hide the paint.
        away = {"box": (2.0, 2.0, 9.0, 9.0), "landmarks": np.full((49, 2), -99, np.float32)}
        return prediction(detected_landmarks=points, crop=crop, **away, **maps)

    def expected(self, face, column, row):
        """Where a pixel of a map lies in the frame: through the crop and the aligned picture, 100 x 100."""
        _, _, matrix = align_face(np.zeros((512, 512, 3), np.uint8), face.detected_landmarks, size=100)
        in_crop = (np.array((column, row)) + 0.5) * self.side / self.map_side - 0.5
        return transform(in_crop + 6, cv2.invertAffineTransform(matrix))

    def maps(self, column, row, side=None):
        maps = np.zeros((12, side or self.map_side, side or self.map_side), np.float32)
        maps[AUS.index(12), row, column] = 1
        return maps

    def painted(self, frame, face, side=512, drawn_side=512):
        """How much a black frame is painted, and the centre of the paint, x and y."""
        black = np.zeros((side, side, 3), np.uint8)
        with_map, without = (
            drawer(frame(face, image=black))[:drawn_side, :drawn_side].astype(int)
            for drawer in (FrameDrawer(AUS, attention=12), FrameDrawer(AUS))
        )
        weights = np.abs(with_map - without).sum(-1)
        y, x = np.nonzero(weights)
        return weights, np.stack((x, y)) @ weights[y, x] / max(1, weights.sum())

    @pytest.mark.parametrize("column, row", [(10, 10), (3, 18), (19, 2)])
    def test_a_map_is_painted_where_its_pixels_come_from(self, frame, prediction, column, row):
        face = self.face(prediction, refined_maps=self.maps(column, row))
        _, centre = self.painted(frame, face)
        np.testing.assert_allclose(centre, self.expected(face, column, row), atol=0.6)

    def test_in_an_enlarged_frame(self, frame, prediction):
        face = self.face(prediction, refined_maps=self.maps(10, 10))
        half = ((face.detected_landmarks + 0.5) / 2 - 0.5).astype(np.float32)
        _, centre = self.painted(frame, replace(face, detected_landmarks=half), 256, 480)
        wanted = (self.expected(face, 10, 10) + 0.5) / 512 * 480 - 0.5
        np.testing.assert_allclose(centre, wanted, atol=0.6)

    def test_the_initial_map_is_painted_where_there_is_no_refined_one(self, frame, prediction):
        initial, refined = self.maps(20, 20, side=30), self.maps(3, 3)
        faces = [
            self.face(prediction, **maps)
            for maps in ({"initial_maps": initial, "refined_maps": refined}, {"initial_maps": initial})
        ]
        both, alone = (self.painted(frame, face)[0] for face in faces)
        assert np.array_equal(both, self.painted(frame, replace(faces[0], initial_maps=None))[0])
        assert both.any() and alone.any() and not ((both > 0) & (alone > 0)).any()

    def test_the_higher_the_weight_the_opaquer(self, frame, prediction):
        grey = np.full((512, 512, 3), 128, np.uint8)
        pixels = []
        for weight in (0.0, 0.5, 1.0):
            maps = np.full((12, 22, 22), weight, np.float32)
            drawn = FrameDrawer(AUS, attention=12)(
                frame(self.face(prediction, refined_maps=maps), image=grey)
            )
            pixels.append(drawn[230, 250].tolist())
        for weight, pixel in zip((0.0, 0.5, 1.0), pixels, strict=True):
            colour, opacity = 255 * np.array(matplotlib.colormaps["inferno"](weight)[:3]), 0.8 * weight
            np.testing.assert_allclose(pixel, opacity * colour + (1 - opacity) * 128, atol=2)

    def test_the_legend_has_the_scale(self, frame, prediction):
        shapes = FrameDrawer(AUS, attention=12).panel(frame())
        (place,) = (i for i, shape in enumerate(shapes) if isinstance(shape, AttentionScale))
        before, scale, behind = shapes[place - 1 : place + 2]
        assert before.text.startswith("attention of AU 12") and behind.text == "1"
        assert before.x < scale.left < scale.right < behind.x

    def test_a_face_outside_the_frame_is_no_trouble(self, frame, prediction):
        face = self.face(prediction, refined_maps=self.maps(5, 5))
        away = replace(face, detected_landmarks=face.detected_landmarks + 9000)
        assert not self.painted(frame, away)[0].any()

    def test_a_model_without_maps_or_without_the_au(self, frame, prediction):
        with pytest.raises(ValueError, match=r"^attention wants maps to paint, got a face without"):
            FrameDrawer(AUS, attention=12)(frame(self.face(prediction)))
        with pytest.raises(ValueError, match=r"^attention must be .*, one of 1, 2, 4, 6, 7, 10.*, got 9$"):
            FrameDrawer(AUS, attention=9)


class TestWriteVideo:
    colours = ((200, 30, 60), (20, 180, 90), (60, 90, 230))

    def pictures(self, height=48, width=64):
        return [np.full((height, width, 3), colour, np.uint8) for colour in self.colours]

    def write(self, path, fps=25.0, pictures=None):
        with write_video(path, fps) as video:
            for picture in self.pictures() if pictures is None else pictures:
                video.write(picture)

    @pytest.mark.parametrize("ending", [".mp4", ".avi", ".webm", ".MP4"])
    def test_what_is_written_is_read(self, tmp_path, capfd, ending):
        path = tmp_path / "new" / f"video{ending}"
        self.write(path, 29.97)
        assert capfd.readouterr() == ("", "")
        frames = list(read_frames(path))
        assert [frame.shape for frame in frames] == [(48, 64, 3)] * 3
        for frame, colour in zip(frames, self.colours, strict=True):
            np.testing.assert_allclose(frame.reshape(-1, 3).mean(0), colour, atol=6)
        capture = cv2.VideoCapture(str(path))
        assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(29.97, abs=0.01)
        capture.release()
        assert [p.name for p in path.parent.iterdir()] == [path.name]

    def test_drawn_frames_fit(self, tmp_path, frame, prediction):
        drawer = FrameDrawer(AUS, note=NOTE)
        drawn = drawer(frame(prediction(), image=np.zeros((33, 47, 3), np.uint8)))
        self.write(tmp_path / "a.avi", pictures=[drawn])
        [read] = read_frames(tmp_path / "a.avi")
        assert read.shape == drawn.shape and np.abs(read.astype(int) - drawn).mean() < 4

    @pytest.mark.parametrize("ending", [".mp4", ".avi", ".webm"])
    def test_each_picture_is_shown_at_its_time(self, tmp_path, ending):
        """30, 5 and 30 pictures a second from 7 s on, and one that is held at the end."""
        times = 7 + np.cumsum([0] + [1 / 30] * 12 + [1 / 5] * 5 + [1 / 30] * 12)
        levels = np.tile(np.arange(20, 250, 20), 3)[: len(times)]
        path = tmp_path / f"a{ending}"
        with write_video(path, 30) as video:
            for level, time in zip(levels, times, strict=True):
                video.write(np.full((48, 64, 3), level, np.uint8), time)
            video.hold(times[-1] + 0.5)
            assert video.shortened == 0
        copy = [(frame.timestamp, frame.image.mean()) for frame in Video(path).frames()]
        assert len(copy) == round(30 * (times[-1] - 7 + 0.5))
        for now, level in copy:
            shown = levels[np.searchsorted(times - 7, now + 0.5 / 30) - 1]
            assert abs(level - shown) < 5, now

    def test_of_pictures_in_one_place_the_last_is_shown(self, tmp_path):
        with write_video(tmp_path / "a.avi", 10) as video:
            for level, time in ((50, 0.0), (100, 0.1), (150, 0.12), (200, 0.2), (250, 0.15)):
                video.write(np.full((48, 64, 3), level, np.uint8), time)
        levels = [frame.mean() for frame in read_frames(tmp_path / "a.avi")]
        np.testing.assert_allclose(levels, [50, 150, 250], atol=3)

    def test_pauses_beyond_measure_are_shortened(self, tmp_path):
        with write_video(tmp_path / "a.avi", 30) as video:
            for time in (0.0, 1.0, 1e9, 1e9 + 1):
                video.write(np.zeros((48, 64, 3), np.uint8), time)
            video.hold(1e12)
        frames = sum(1 for _ in read_frames(tmp_path / "a.avi"))
        assert frames == 4 + overlay.REPEATS + 4 * overlay.REPEATS_A_PICTURE
        assert video.shortened == pytest.approx(1e12 - frames / 30, abs=1)

    def test_after_an_error_the_older_file_stays(self, tmp_path):
        path = tmp_path / "a.avi"
        path.write_text("old")
        with pytest.raises(KeyboardInterrupt), write_video(path, 25) as video:
            video.write(self.pictures()[0])
            raise KeyboardInterrupt
        assert [p.name for p in tmp_path.iterdir()] == ["a.avi"] and path.read_text() == "old"

    @pytest.mark.parametrize(
        "name, fps, pictures, message",
        [
            ("a.gif", 25, None, r"a.gif: .* .mp4, .avi, .webm"),
            ("a", 25, None, r"must end with one of"),
            ("a.avi", 0, None, r"a.avi: .*must be above 0, got 0"),
            ("a.avi", float("nan"), None, r"must be above 0, got nan"),
            ("a.avi", 25, [], r"a.avi: got no picture, wanted at least one"),
            (
                "a.avi",
                25,
                [(48, 64), (64, 48)],
                r"shape \(64, 48, 3\), wanted \(48, 64, 3\) as the first one",
            ),
            ("a.avi", 25, [(47, 64)], r"shape \(47, 64, 3\), wanted \(H, W, 3\), H and W even"),
        ],
    )
    def test_what_cannot_be_written(self, tmp_path, name, fps, pictures, message):
        if pictures is not None:
            pictures = [np.zeros((*size, 3), np.uint8) for size in pictures]
        with pytest.raises(ValueError, match=message):
            self.write(tmp_path / name, fps, pictures)
        assert list(tmp_path.iterdir()) == []

    def test_an_encoder_that_is_not_there(self, tmp_path, capfd, monkeypatch):
        monkeypatch.setitem(overlay.CODECS, ".mp4", "av01")
        with pytest.raises(ValueError, match=r"a.mp4: .* 64x48 .* av01"):
            self.write(tmp_path / "a.mp4")
        assert capfd.readouterr() == ("", "") and list(tmp_path.iterdir()) == []
