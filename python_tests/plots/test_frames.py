"""Frames of a video with predictions on them: everything is at its place, and the file can be read back."""

import time
from dataclasses import replace

import cv2
import numpy as np
import pytest
from skimage import data

from jaa_ext import facs
from jaa_ext.data.faces import align_face, transform
from jaa_ext.data.video import Video, read_frames
from jaa_ext.plots import frames as overlay
from jaa_ext.plots.frames import FrameDrawer, write_video
from jaa_ext.predict.prediction import FramePrediction

NOTE = "Demonstration weights, trained on drawn faces: not for real use."
AUS = facs.BP4D_AUS
ORANGE, BLUE, VERMILION, PALE = (230, 159, 0), (0, 114, 178), (213, 94, 0), (230, 230, 230)

HEAD = 62
"""Rows of the panel of a frame of 512 pixels or fewer above its first bar."""


@pytest.fixture(scope="module")
def astronaut():
    return data.astronaut()


@pytest.fixture
def frame(astronaut):
    def make(*faces, image=astronaut, number=7, seconds=0.28):
        return FramePrediction("a.mp4", number, seconds, image, list(faces))

    return make


def where(picture, colour):
    return np.abs(picture.astype(int) - colour).max(-1) <= 1


def runs(row):
    """First and last place of each run of True."""
    edges = np.flatnonzero(np.diff(row.astype(int), prepend=0, append=0))
    return list(zip(edges[::2], edges[1::2] - 1, strict=True))


def tracks(picture, width):
    """A list of AUs of a list of columns: (share that is orange, share that is blue)."""
    panel = picture[:, width:]
    filled = where(panel, ORANGE) | where(panel, BLUE) | where(panel, PALE)
    # Bars are the widest things in these colours; the tick at 0.5 cuts them in two.
    wide = [runs(row) for row in filled]
    wide = [[run for run in row if run[1] - run[0] >= 8] for row in wide]
    wide[:HEAD] = [[]] * HEAD
    rows = runs(np.array([sum(b - a for a, b in row) > 60 for row in wide]))
    result = []
    for top, bottom in rows:
        middle = (top + bottom) // 2
        halves = wide[middle]
        assert len(halves) % 2 == 0
        columns = [(halves[i][0], halves[i + 1][1] + 1) for i in range(0, len(halves), 2)]
        result.append(
            [
                tuple(where(panel[middle, a:b], colour).sum() / (b - a) for colour in (ORANGE, BLUE))
                for a, b in columns
            ]
        )
    return result


def test_landmarks_and_box_are_drawn_and_the_rest_is_the_frame(frame, prediction, astronaut):
    face = prediction()
    drawn = FrameDrawer(AUS)(frame(face))
    assert drawn.dtype == np.uint8 and drawn.shape[0] % 2 == drawn.shape[1] % 2 == 0
    photo = drawn[:512, :512]
    changed = (photo != astronaut).any(-1)
    for x, y in face.landmarks.round().astype(int):
        # A dot has a radius of 300 / 75 = 4 pixels and a black rim of about one.
        assert where(photo[[y, y - 2, y + 2, y, y], [x, x, x, x - 2, x + 2]], ORANGE).all()
        assert (photo[y, [x - 5, x + 5]] < 90).all()
        assert not changed[y, [x - 7, x + 7]].any() and not changed[[y - 7, y + 7], x].any()
    assert where(photo[[20, 320, 170, 170], [200, 200, 100, 400]], BLUE).all()
    # Nothing is drawn beyond the box, its white rim, and the label above.
    assert changed[:18, 98:150].any()
    changed[17:324, 97:404] = False
    changed[:20, 98:160] = False
    assert not changed.any()


def test_a_bar_is_as_long_as_its_probability_and_coloured_and_marked_by_presence(frame, prediction):
    probabilities = np.linspace(0.02, 0.98, 12)
    drawn = FrameDrawer(AUS)(frame(prediction(probabilities)))
    bars = tracks(drawn, 512)
    assert len(bars) == 12 and all(len(row) == 1 for row in bars)
    for probability, [(orange, blue)] in zip(probabilities, bars, strict=True):
        # The tick at 0.5 hides up to two of some 220 pixels.
        long, other = (orange, blue) if probability > 0.5 else (blue, orange)
        assert abs(long - probability) < 0.015 and other == 0

    # Their ticks lie where the thresholds are.
    thresholds = np.linspace(0.1, 0.9, 12)
    marked = FrameDrawer(AUS, thresholds=thresholds)(frame(prediction([0.0] * 12)))[:, 512:]
    track = where(marked, PALE).sum(0) > 12 * 5
    left, right = np.flatnonzero(track)[[0, -1]]
    ticks = [
        np.flatnonzero((marked[row, left : right + 1] < 90).all(-1)).mean() / (right - left)
        for row in np.flatnonzero(where(marked[:, left], PALE))
    ]
    np.testing.assert_allclose(sorted(set(np.round(ticks, 6))), thresholds, atol=0.01)

    # Presence is said by more than a colour: a mark before the bar.
    present, absent = (prediction([0.6] * 12, present=np.full(12, p)) for p in (True, False))
    with_marks, without = (FrameDrawer(AUS)(frame(face))[:, 512:] for face in (present, absent))
    left = np.flatnonzero(where(with_marks, ORANGE).sum(0) > 50)[0]
    mark = slice(left - 14, left)
    rows = np.flatnonzero(where(with_marks[:, left + 3], ORANGE))
    assert ((with_marks[:, mark] < 128).any((1, 2))[rows]).sum() > 12 * 5
    assert (without[rows][:, mark] == 255).all()


def test_faces_have_columns_side_by_side_and_those_beyond_are_counted(frame, prediction):
    faces = [prediction([0.1 + 0.2 * i] * 12, face_id=i) for i in range(5)]
    drawer = FrameDrawer(AUS)
    one = drawer(frame(*faces[:1]))
    three, five = drawer(frame(*faces[:3])), drawer(frame(*faces))
    assert one.shape == three.shape == five.shape
    bars = tracks(five, 512)
    assert len(bars) == 12 and all(len(row) == 3 for row in bars)
    # Columns are narrow: a pixel is 0.03, and the tick hides another two.
    np.testing.assert_allclose(
        [[sum(cell) for cell in row] for row in bars], [[0.1, 0.3, 0.5]] * 12, atol=0.1
    )
    changed = (three[:, 512:] != five[:, 512:]).any(-1)
    rows, columns = np.nonzero(changed)
    assert len(rows) > 50 and rows.max() < 70 and columns.max() < 120  # "+2 more", at the upper left


def test_a_face_keeps_its_column_and_a_new_one_takes_a_free_one(frame, prediction):
    faces = [prediction([p] * 12, face_id=i) for i, p in enumerate((0.9, 0.2, 0.9))]
    drawer = FrameDrawer(AUS)
    both = tracks(drawer(frame(*faces[:2])), 512)
    alone = tracks(drawer(frame(faces[1])), 512)
    assert [row[1] for row in alone] == [row[1] for row in both]
    assert all(row[0] == (0, 0) for row in alone)
    again = tracks(drawer(frame(*faces[1:])), 512)
    assert again == both


def test_without_a_face_the_frame_is_left_alone(frame, prediction, astronaut):
    drawer = FrameDrawer(AUS)
    drawn = drawer(frame())
    assert np.array_equal(drawn[:512, :512], astronaut)
    assert tracks(drawn, 512) == [[(0, 0)]] * 12
    head = slice(36, 60), slice(512, 512 + 150)
    assert (drawn[head] < 128).any()  # says so
    assert (drawer(frame(prediction()))[head] == 255).all()


def test_time_and_number_are_in_the_first_line(frame):
    drawer = FrameDrawer(AUS)
    first, later, other = (drawer(frame(number=n, seconds=s)) for n, s in ((7, 0.28), (7, 61.28), (8, 0.28)))
    assert np.array_equal(first, drawer(frame()))
    middle = (512 + first.shape[1]) // 2
    for picture, columns in ((later, slice(512, middle)), (other, slice(middle, None))):
        changed = (picture != first).any(-1)
        assert changed[:32, columns].sum() > 10
        changed[:32, columns] = False
        assert not changed.any()


@pytest.mark.parametrize(
    "seconds, text",
    [(0, "0:00.000"), (59.9994, "0:59.999"), (59.9996, "1:00.000"), (3723.456, "1:02:03.456")],
)
def test_time_is_written_as_on_a_clock(seconds, text):
    assert overlay._clock(seconds) == text


def test_the_note_is_in_every_picture_and_reaches_no_border(frame, prediction):
    short, long = FrameDrawer(AUS, note=NOTE), FrameDrawer(AUS, note=NOTE * 6)
    for faces in ((), (prediction(),)):
        plain, with_note, much = (d(frame(*faces)) for d in (FrameDrawer(AUS), short, long))
        assert np.array_equal(with_note[: plain.shape[0]], plain)
        assert where(with_note[plain.shape[0] :], VERMILION).sum() > 200
        assert with_note.shape[0] < much.shape[0] and with_note.shape[1] == much.shape[1]
        assert where(much, VERMILION).sum() > 5 * where(with_note, VERMILION).sum()
        assert (much[-2:] == 255).all() and (much[plain.shape[0] :, -4:] == 255).all()


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
    top, bottom = runs(letters.any(1))[0]
    assert bottom - top > 7 and 0.012 < (bottom + 1 - top) / min(height, width) < 0.03
    # Nothing of the panel is cut off.
    assert not letters[:, -3:].any() and not letters[-2:].any()


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (1, 1), (33, 47)])
def test_extreme_frames(frame, prediction, size):
    for aus in ((12,), tuple(facs.AU_RULES) * 3):
        face = prediction([0.7] * len(aus), box=(-900.0, -5.0, 1e6, 40.0))
        drawn = FrameDrawer(aus, note=NOTE)(frame(face, image=np.zeros((*size, 3), np.uint8)))
        assert drawn.shape[0] % 2 == drawn.shape[1] % 2 == 0
        assert len(tracks(drawn, drawn.shape[1] - 490)) == len(aus)


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


def test_rules_of_ones_own_are_drawn(frame, prediction):
    drawn = FrameDrawer((facs.AURule((1, 2)), *AUS[1:]), note=NOTE)(frame(prediction()))
    assert len(tracks(drawn, 512)) == 12


def test_a_picture_can_be_kept(frame, prediction):
    drawer = FrameDrawer(AUS)
    first = drawer(frame(prediction()))
    kept = first.copy()
    drawer(frame())
    assert np.array_equal(first, kept)


def test_frames_that_do_not_fit(frame, prediction):
    drawer = FrameDrawer(AUS)
    drawer(frame())
    with pytest.raises(ValueError, match=r"frame 7 of a.mp4 has shape \(8, 9, 3\), wanted \(512, 512, 3\)"):
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
def test_a_face_whose_numbers_are_not_finite_is_drawn_without_them(frame, prediction, value):
    probabilities, landmarks = np.full(12, 0.9, np.float32), prediction().landmarks.copy()
    probabilities[3], landmarks[5] = value, value
    odd = prediction(
        probabilities, landmarks=landmarks, refined_maps=np.full((12, 22, 22), value, np.float32)
    )
    drawn, without = (FrameDrawer(AUS)(frame(face)) for face in (odd, prediction()))
    assert drawn.shape == without.shape
    assert not np.array_equal(drawn, without)


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
        # 0.4 of the middle and 0.8 of the end of matplotlib's inferno, over what is left of the grey.
        np.testing.assert_allclose(pixels, [(128,) * 3, (152, 99, 110), (227, 229, 157)], atol=2)

    def test_a_face_outside_the_frame_is_no_trouble(self, frame, prediction):
        face = self.face(prediction, refined_maps=self.maps(5, 5))
        away = replace(face, detected_landmarks=face.detected_landmarks + 9000)
        assert not self.painted(frame, away)[0].any()

    def test_a_model_without_maps_or_without_the_au(self, frame, prediction):
        with pytest.raises(ValueError, match="a face without attention maps"):
            FrameDrawer(AUS, attention=12)(frame(self.face(prediction)))
        with pytest.raises(ValueError, match=r"attention=9, .*: 1, 2, 4, 6, 7, 10"):
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
