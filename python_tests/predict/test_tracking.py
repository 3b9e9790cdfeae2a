"""A scripted detector: its faces are where the test says, and nowhere else."""

import json

import numpy as np
import pytest

from jaa_ext import facs
from jaa_ext.predict import DetectedFace
from jaa_ext.predict.tracking import REMEMBERED, Tracker, confidence

SIZE = 60
"""Of a face's box."""


def landmarks(x, y, size=SIZE):
    """Around the middle of a face, its eyes level."""
    points = np.random.default_rng(0).uniform(-0.3, 0.3, (49, 2))
    points[list(facs.LEFT_EYE)] = (-0.2, -0.2)
    points[list(facs.RIGHT_EYE)] = (0.2, -0.2)
    points[13] = (0, 0.05)
    points[[31, 37]] = (-0.15, 0.25), (0.15, 0.25)
    return (points * size + (x, y)).astype(np.float32)


def box(x, y, size=SIZE):
    return x - size / 2, y - size / 2, x + size / 2, y + size / 2


def picture(*faces):
    """A picture whose grey value is 200 in the faces, 10 elsewhere."""
    image = np.full((300, 600, 3), 10, np.uint8)
    for x, y in faces:
        left, top, right, bottom = (max(0, int(edge)) for edge in box(x, y))
        image[top:bottom, left:right] = 200
    return image


class Scripted:
    """Finds what `faces` holds, and confirms a face where the middle of the aligned picture is bright."""

    def __init__(self):
        self.faces, self.searches, self.scores = [], 0, 0

    def __call__(self, image):
        self.searches += 1
        return [DetectedFace(box(x, y), landmarks(x, y), 1.5) for x, y in sorted(self.faces)]

    def score(self, aligned):
        self.scores += 1
        middle = aligned.shape[0] // 2
        return 0.5 if aligned[middle - 2 : middle + 2, middle - 2 : middle + 2].mean() > 150 else -np.inf


class Film:
    """Shows frames to a tracker, with a network that sees each face exactly where it is now."""

    def __init__(self, search_every=30):
        self.detector = Scripted()
        self.tracker = Tracker(self.detector, search_every)

    def show(self, *faces, found=None, network=None):
        """Ids and boxes of one frame; `found`, if the detector sees others than are there."""
        self.detector.faces = list(faces if found is None else found)
        placed = self.tracker.place(picture(*faces))
        self.tracker.follow((network or self.exact)(placed, faces))
        return {face.face_id: face for face in placed}

    @staticmethod
    def exact(placed, faces):
        """Of each face placed, the landmarks of that face in the picture that is next to it."""
        return [
            landmarks(
                *min(faces, key=lambda at: np.hypot(*(face.landmarks.mean(0) - landmarks(*at).mean(0))))
            )
            for face in placed
        ]


@pytest.fixture
def film():
    return Film()


def near(face, x, y, within=0.5):
    return np.abs(np.array(face.box) - box(x, y)).max() <= within


class TestIds:
    def test_they_stay_while_faces_move(self, film):
        for i in range(70):
            faces = film.show((50 + 3 * i, 80 + i), (500 - 3 * i, 240 - i / 2))
            assert list(faces) == [0, 1]
            # Aligned by the frame before, which the network's landmarks follow from.
            assert near(faces[0], 50 + 3 * i, 80 + i, within=3.1)
            assert near(faces[1], 500 - 3 * i, 240 - i / 2, within=3.1)

    def test_a_new_face_gets_a_new_one_at_the_next_search(self, film):
        seen = [list(film.show((100, 100), *[(400, 150)] * (i >= 5))) for i in range(32)]
        assert seen == [[0]] * 30 + [[0, 1]] * 2

    def test_the_newcomer_may_stand_left_of_all_others(self, film):
        film.show((300, 100))
        for _ in range(29):
            film.show((300, 100))
        faces = film.show((100, 100), (300, 100))
        assert near(faces[0], 300, 100) and near(faces[1], 100, 100)

    @pytest.mark.parametrize(("gap", "same"), [(1, True), (REMEMBERED, True), (REMEMBERED + 1, False)])
    def test_found_again_where_it_was_last_seen(self, film, gap, same):
        film.show((100, 100))
        for _ in range(gap):
            assert film.show() == {}
        assert list(film.show((110, 95))) == [0 if same else 1]

    def test_found_again_elsewhere_it_is_another(self, film):
        film.show((100, 100))
        film.show()
        assert list(film.show((150, 100))) == [1]

    def test_a_face_that_waits_keeps_its_id_beside_one_that_is_seen(self, film):
        film.show((100, 100), (400, 100))
        for _ in range(10):
            assert list(film.show((400, 100))) == [1]
        # The search of every 30th frame finds it, or that of a frame in which another is lost.
        for _ in range(19):
            film.show((100, 100), (400, 100))
        assert list(film.show((100, 100), (400, 100))) == [0, 1]

    def test_each_face_found_takes_the_id_that_it_overlaps_most(self):
        film = Film(search_every=1)
        film.show((100, 100), (150, 100))
        faces = film.show((120, 100), (160, 100))
        assert near(faces[0], 120, 100) and near(faces[1], 160, 100)
        # Both overlap id 1 most; it goes to the nearer one.
        faces = film.show((155, 100), (175, 100))
        assert near(faces[1], 155, 100) and near(faces[2], 175, 100)

    def test_of_two_faces_that_cross_one_is_lost_while_they_are_at_one_place(self, film):
        """Who is who afterwards is not known: the one in front goes on, the other comes as a new face."""
        seen = {}
        for i in range(61):
            left, right = (100 + 4 * i, 150), (340 - 4 * i, 150)
            seen[i] = film.show(left, right, found=[left] if abs(left[0] - right[0]) < 30 else None)
        assert list(seen[0]) == list(seen[20]) == [0, 1]
        assert list(seen[29]) == list(seen[30]) == [0]
        assert len(seen[60]) == 2
        assert sorted(round(face.box[0] / 10) for face in seen[60].values()) == [7, 31]

    def test_no_two_ids_follow_one_face(self, film):
        """A face goes behind another; the network, which sees that one, brings both landmarks together."""
        for i in range(20):
            film.show((100, 100), (200 - 5 * i, 100))
        assert list(film.show((100, 100))) == [0]
        for _ in range(40):
            assert list(film.show((100, 100))) == [0]


class TestSearches:
    def test_one_in_so_many_frames(self, film):
        for _ in range(61):
            film.show((100, 100))
        assert film.detector.searches == 3
        assert film.detector.scores == 1 + 58  # new, and in all frames without a search the face is confirmed

    def test_each_frame_without_faces(self, film):
        for _ in range(10):
            film.show()
        assert film.detector.searches == 10 and film.detector.scores == 0

    def test_every_frame_if_so_wanted(self):
        film = Film(search_every=1)
        for _ in range(5):
            film.show((100, 100))
        assert film.detector.searches == 5 and film.detector.scores == 1  # when it was new

    def test_what_looks_like_a_face_in_the_frame_alone_is_none(self, film):
        for _ in range(3):
            assert film.show((100, 100), found=[(100, 100), (400, 150)]).keys() == {0}
        # It costs no id.
        film.tracker.frames = 0
        assert film.show((100, 100), (400, 150)).keys() == {0, 1}

    def test_a_lost_face_is_searched_for_in_the_same_frame(self, film):
        for _ in range(5):
            film.show((100, 100), (400, 100))
        assert film.detector.searches == 1
        faces = film.show((100, 100), (400, 200))
        assert film.detector.searches == 2
        assert list(faces) == [0, 2] and near(faces[2], 400, 200)

    def test_a_search_that_misses_a_face_does_not_end_it(self, film):
        film.show((100, 100), (400, 100))
        for _ in range(29):
            film.show((100, 100), (400, 100))
        faces = film.show((100, 100), (400, 100), found=[(100, 100)])
        assert film.detector.searches == 2 and list(faces) == [0, 1]
        assert (faces[0].score, faces[1].score) == (1.5, 0.5)

    def test_faces_that_were_searched_for_already(self, film):
        found = [DetectedFace(box(70, 80), landmarks(70, 80), 1.0)]
        (face,) = film.tracker.place(picture((70, 80)), lambda: found)
        assert face.box == box(70, 80) and film.detector.searches == 0
        film.tracker.follow([face.landmarks])
        film.tracker.place(picture((70, 80)), lambda: pytest.fail("no search was due"))

    def test_whether_faces_are_seen(self, film):
        assert not film.tracker.sees_faces
        film.show((100, 100))
        assert film.tracker.sees_faces
        film.show()
        assert not film.tracker.sees_faces and len(film.tracker.known) == 1


class TestFollow:
    def test_the_box_goes_and_grows_with_the_landmarks(self, film):
        film.show((100, 100))
        film.tracker.follow([landmarks(140, 90, size=1.5 * SIZE)])
        (face,) = film.tracker.known
        assert np.abs(np.array(face.box) - box(140, 90, size=1.5 * SIZE)).max() < 1e-3
        assert np.abs(face.landmarks - landmarks(140, 90, size=1.5 * SIZE)).max() < 1e-3

    def test_what_the_network_is_off_by_does_not_add_up(self, film):
        """It sees each face 4 pixels too far right and 7 too low, of a box of 60; the detector does not."""

        def network(placed, faces):
            return [points + np.float32([4, 7]) for points in film.exact(placed, faces)]

        for i in range(30):
            x, y = 80 + 4 * i, 100 + i
            faces = film.show((x, y), network=network)
            assert list(faces) == [0] and near(faces[0], x, y, within=4.1)
            assert np.abs(film.tracker.known[0].landmarks - landmarks(x, y)).max() < 1e-3
        assert film.detector.searches == 1

    def test_nor_when_the_face_turns_and_comes_nearer(self, film):
        """What the network is off by turns and grows with the face."""

        def points(i, off=(0.0, 0.0)):
            turn, size = 0.01 * i, SIZE * 1.01**i
            matrix = size / SIZE * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
            return ((landmarks(0, 0) + np.array(off)) @ matrix.T + (250, 150)).astype(np.float32)

        film.detector.faces = [(250, 150)]
        for i in range(30):
            film.tracker.place(picture((250, 150)))
            film.tracker.follow([points(i, off=(4, 7))])
            # The matrix is that of the frame before: off by a hundredth of what the network is off by.
            assert np.abs(film.tracker.known[0].landmarks - points(i)).max() < 0.3
        assert film.detector.searches == 1

    @pytest.mark.filterwarnings("error")
    @pytest.mark.parametrize(
        "spoilt",
        [
            lambda points: np.where(np.arange(49)[:, None] == 30, np.nan, points),
            lambda points: np.where(np.arange(49)[:, None] == 30, np.inf, points),
            np.zeros_like,
            lambda points: points * 0.01,
        ],
        ids=["NaN", "infinity", "all at one place", "eyes at one place"],
    )
    def test_landmarks_by_which_no_face_can_be_aligned_are_passed_over(self, film, spoilt):
        film.show((100, 100), (400, 100))
        film.tracker.follow([spoilt(landmarks(110, 100)).astype(np.float32), landmarks(410, 100)])
        first, second = film.tracker.known
        assert near(first, 100, 100) and np.array_equal(first.landmarks, landmarks(100, 100))
        assert near(second, 410, 100)
        assert list(film.show((100, 100), (410, 100))) == [0, 1]

    def test_those_out_of_sight_stay_where_they_are(self, film):
        film.show((100, 100), (400, 100))
        film.show((400, 100))
        film.tracker.follow([landmarks(420, 100)])
        where = {face.face_id: face for face in film.tracker.known}
        assert near(where[0], 100, 100) and near(where[1], 420, 100)
        assert (where[0].missed, where[1].missed) == (1, 0)


def test_a_state_goes_through_json_and_on_as_if_nothing_had_been():
    def faces(i):
        return [(60 + 3 * i, 100 + 0.37 * i)] * (not 10 <= i < 20) + [(500 - 2 * i, 220)] * (i > 4)

    def compared(seen):
        return [
            (k, face.box, face.landmarks.tolist(), face.landmarks.dtype, face.score)
            for k, face in seen.items()
        ]

    whole = Film()
    expected = [compared(whole.show(*faces(i))) for i in range(70)]
    for stop in (0, 3, 15, 30, 47):
        before = Film()
        for i in range(stop):
            before.show(*faces(i))
        state = json.loads(json.dumps(before.tracker.state(), allow_nan=False))
        after = Film()
        after.tracker.load_state(state)
        assert [compared(after.show(*faces(i))) for i in range(stop, 70)] == expected[stop:]
        assert before.detector.searches + after.detector.searches == whole.detector.searches


def test_confidence():
    assert confidence(0) == 0.5 and confidence(-np.inf) == 0 and confidence(100) == 1
    assert confidence(0.25) == pytest.approx(np.e / (1 + np.e))
    assert isinstance(confidence(1.0), float)
