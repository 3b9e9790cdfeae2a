"""A scripted detector: its faces are where the test says, and nowhere else."""

import json
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from jaa_ext import facs
from jaa_ext.predict import DetectedFace
from jaa_ext.predict.identity import Gallery
from jaa_ext.predict.tracking import ALIGNMENTS, REMEMBERED, USUAL_STEP, Schedule, Tracker, confidence

SIZE = 60
"""Of a face's box."""
EYES = 0.4 * SIZE
"""Their distance."""
A_SECOND = 30
"""Frames."""


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
    """A picture of grey 10 with faces (x, y) or (x, y, person), brighter than 60; persons look different."""
    image = np.full((300, 600, 3), 10, np.uint8)
    for x, y, *person in faces:
        coarse = np.random.default_rng(person or 0).uniform(70, 240, (5, 5, 3)).astype(np.uint8)
        matrix = np.array([[SIZE / 5, 0, x - SIZE / 2], [0, SIZE / 5, y - SIZE / 2]])
        cv2.warpAffine(coarse, matrix, (600, 300), image, borderMode=cv2.BORDER_TRANSPARENT)
    return image


class Scripted:
    """Finds what `faces` holds, and confirms a face where the middle of the aligned picture is bright."""

    def __init__(self):
        self.faces, self.searches, self.scores = [], 0, 0

    def __call__(self, image):
        self.searches += 1
        return [DetectedFace(box(x, y), landmarks(x, y), 1.5) for x, y, *_ in sorted(self.faces)]

    def score(self, aligned):
        self.scores += 1
        middle = aligned.shape[0] // 2
        return 0.5 if aligned[middle - 2 : middle + 2, middle - 2 : middle + 2].mean() > 60 else -np.inf


class Unsettled(Scripted):
    """As long as `unsettled` holds, landmarks in its boxes are those of a mean face, elsewhere."""

    unsettled = False

    def __call__(self, image):
        faces = super().__call__(image)
        if not self.unsettled:
            return faces
        return [replace(face, landmarks=face.landmarks + np.float32((9, 9)), settled=False) for face in faces]


class Locating(Scripted):
    """Also says where that face is: around all that is bright."""

    def locate(self, aligned):
        score = self.score(aligned)
        rows, columns = np.nonzero(aligned[..., 1] > 60)
        within = score > 0 and (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        return score, tuple(map(float, within)) if within else None


class Film:
    """Shows frames to a tracker, with a network that sees each face exactly where it is now."""

    def __init__(self, search_every=1.0, *, detector=None, step=1 / A_SECOND):
        self.detector = detector or Scripted()
        self.tracker = Tracker(self.detector, search_every)
        self.step, self.shown, self.aligned = step, 0, 0

    def show(self, *faces, found=None, network=None, image=None, timestamp=None):
        """The faces of one frame, as they were aligned, by id; `found`, if the detector sees others."""
        self.detector.faces = list(faces if found is None else found)

        def see(placed):
            self.aligned += len(placed)
            points = (network or self.exact)(placed, faces)
            return [
                SimpleNamespace(face=face, landmarks=one) for face, one in zip(placed, points, strict=True)
            ]

        timestamp = self.shown * self.step if timestamp is None else timestamp
        self.shown += 1
        seen = self.tracker.track(picture(*faces) if image is None else image, timestamp, see)
        return {one.face.face_id: one.face for one in seen}

    @staticmethod
    def exact(placed, faces):
        """Of each face placed, the landmarks of that face in the picture that is next to it."""
        return [
            landmarks(
                *min(faces, key=lambda at: np.hypot(*(face.landmarks.mean(0) - landmarks(*at[:2]).mean(0))))[
                    :2
                ]
            )
            for face in placed
        ]

    @staticmethod
    def short_sighted(placed, faces):
        """As `exact`, of a face less than 0.4 eye distances away; others it sees where they are expected."""
        return [
            points if np.hypot(*(face.landmarks - points).mean(0)) < 0.4 * EYES else face.landmarks
            for face, points in zip(placed, Film.exact(placed, faces), strict=True)
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
            # What moves by more than a twentieth of the eye distance is aligned anew.
            assert near(faces[0], 50 + 3 * i, 80 + i)
            assert near(faces[1], 500 - 3 * i, 240 - i / 2)

    def test_a_new_face_gets_a_new_one_at_the_next_search(self, film):
        seen = [list(film.show((100, 100), *[(400, 150)] * (i >= 5))) for i in range(32)]
        assert seen == [[0]] * 30 + [[0, 1]] * 2

    def test_the_newcomer_may_stand_left_of_all_others(self, film):
        film.show((300, 100))
        for _ in range(29):
            film.show((300, 100))
        faces = film.show((100, 100), (300, 100))
        assert near(faces[0], 300, 100) and near(faces[1], 100, 100)

    @pytest.mark.parametrize("step", [1 / 30, 1 / 5, 1.0])
    @pytest.mark.parametrize("at", [(110, 95), (400, 200)])
    def test_a_face_is_known_again_for_so_many_seconds(self, step, at):
        for gap, same in ((0.9 * REMEMBERED, True), (1.5 * REMEMBERED, False)):
            film = Film(step=step)
            film.show((100, 100))
            for _ in range(round(gap / step)):
                assert film.show() == {}
            assert list(film.show(at)) == [0 if same else 1]

    @pytest.mark.parametrize("gap", [0, 1, 20])
    @pytest.mark.parametrize("at", [(100, 100), (108, 94), (400, 200)])
    def test_another_person_is_another_at_once(self, film, gap, at):
        """Beside the first one's place or not; in the next frame, a cut, or later."""
        for _ in range(7):
            film.show((100, 100, 1))
        for _ in range(gap):
            film.show()
        for _ in range(7):
            faces = film.show((*at, 2), network=film.short_sighted)
            assert list(faces) == [1] and near(faces[1], *at)
        # Back to the first one.
        assert list(film.show((100, 100, 1), network=film.short_sighted)) == [0]

    @pytest.mark.parametrize("every", [5, 10, 30])
    def test_few_frames_a_second(self, every):
        """4 pixels a frame, of eyes 24 pixels apart."""
        for detector in (Scripted(), Locating()):
            film = Film(step=every / 30, detector=detector)
            for x in range(50, 550, 4 * every):
                faces = film.show((x, 150), network=film.short_sighted)
                assert list(faces) == [0] and near(faces[0], x, 150)

    def test_a_face_that_waits_keeps_its_id_beside_one_that_is_seen(self, film):
        film.show((100, 100), (400, 100))
        for _ in range(10):
            assert list(film.show((400, 100))) == [1]
        # The search of every 30th frame finds it, or that of a frame in which another is lost.
        for _ in range(19):
            film.show((100, 100), (400, 100))
        assert list(film.show((100, 100), (400, 100))) == [0, 1]

    def test_each_face_found_takes_the_id_that_it_overlaps_most(self):
        film = Film(search_every=0)
        film.show((100, 100, 1), (160, 100, 2))
        faces = film.show((120, 100, 1), (170, 100, 2))
        assert near(faces[0], 120, 100) and near(faces[1], 170, 100)
        # Both overlap id 1 most; it goes to the nearer one.
        faces = film.show((185, 100, 3), (160, 100, 2))
        assert near(faces[1], 160, 100) and near(faces[2], 185, 100)

    def test_of_two_faces_that_cross_one_is_lost_while_they_are_at_one_place(self, film):
        """The one in front goes on; the other, half covered when it was last seen, comes as a new one."""
        seen = {}
        for i in range(61):
            left, right = (100 + 4 * i, 150, 1), (340 - 4 * i, 150, 2)
            if abs(left[0] - right[0]) < 30:
                front = lambda placed, faces: film.exact(placed, faces[1:])  # noqa: E731
                seen[i] = film.show(right, left, found=[left], network=front)
            else:
                seen[i] = film.show(right, left)
        assert list(seen[0]) == list(seen[20]) == [0, 1]
        assert list(seen[29]) == list(seen[30]) == [0]
        assert near(seen[60][0], 340, 150) and near(seen[60][2], 100, 150) and len(seen[60]) == 2

    def test_no_two_ids_follow_one_face(self, film):
        """A face goes behind another; the network, which sees that one, brings both landmarks together."""
        for i in range(20):
            film.show((100, 100), (200 - 5 * i, 100))
        assert list(film.show((100, 100))) == [0]
        for _ in range(40):
            assert list(film.show((100, 100))) == [0]


class TestSearches:
    def test_one_a_second(self, film):
        for _ in range(61):
            film.show((100, 100))
        assert film.detector.searches == 3
        assert film.detector.scores == 1 + 60  # new, and in all frames after that the face is confirmed
        assert film.aligned == 61  # and goes through the network once

    @pytest.mark.parametrize(
        ("step", "searches"), [(1 / 30, 2), (1 / 3, 11), (0.45, 16), (1.0, 31), (3.0, 31)]
    )
    def test_a_second_is_one_of_the_video(self, step, searches):
        """Of frames 0.45 s apart each second one is due, which is nearer to a second than each third."""
        film = Film(step=step)
        for _ in range(31):
            film.show((100, 100))
        assert film.detector.searches == searches

    def test_each_frame_without_faces(self, film):
        for _ in range(10):
            film.show()
        assert film.detector.searches == 10 and film.detector.scores == 0

    def test_every_frame_if_so_wanted(self):
        film = Film(search_every=0)
        for _ in range(5):
            film.show((100, 100))
        assert film.detector.searches == 5

    def test_what_looks_like_a_face_in_the_frame_alone_is_none(self, film):
        for _ in range(3):
            assert film.show((100, 100), found=[(100, 100), (400, 150)]).keys() == {0}
        # It costs no id.
        assert film.show((100, 100), (400, 150), timestamp=9).keys() == {0, 1}

    def test_one_whose_landmarks_do_not_settle_does_not_spoil_those_followed(self):
        film = Film(search_every=0, detector=Unsettled())
        film.show((100, 100))
        film.detector.unsettled = True
        faces = film.show((100, 100), (400, 150))
        assert faces[0].settled and np.array_equal(faces[0].landmarks, landmarks(100, 100))
        # Of a new one there is nothing better.
        assert not faces[1].settled and np.array_equal(faces[1].landmarks, landmarks(409, 159))
        film.detector.unsettled = False
        faces = film.show((100, 100), (400, 150))
        assert faces[1].settled and np.array_equal(faces[1].landmarks, landmarks(400, 150))

    def test_a_lost_face_is_searched_for_in_the_same_frame(self, film):
        for _ in range(5):
            film.show((100, 100), (400, 100))
        assert film.detector.searches == 1
        faces = film.show((100, 100), (400, 200))
        assert film.detector.searches == 2
        assert list(faces) == [0, 1] and near(faces[1], 400, 200)

    def test_a_search_that_misses_a_face_does_not_end_it(self, film):
        film.show((100, 100), (400, 100))
        for _ in range(29):
            film.show((100, 100), (400, 100))
        faces = film.show((100, 100), (400, 100), found=[(100, 100)])
        assert film.detector.searches == 2 and list(faces) == [0, 1]
        assert (faces[0].score, faces[1].score) == (1.5, 0.5)

    def test_a_face_that_the_network_sees_somewhere_else_is_searched_for_if_it_is_not_there(self, film):
        film.show((100, 100))
        film.show((100, 100))
        away = lambda placed, faces: [face.landmarks + np.float32([60, 0]) for face in placed]  # noqa: E731
        faces = film.show((100, 100), network=away)
        assert film.detector.searches == 2 and near(faces[0], 100, 100)
        assert film.aligned == 4

    def test_a_network_that_never_comes_to_an_end(self, film):
        """It sees the face to the right of wherever it is expected, until the detector corrects it."""
        off = lambda placed, faces: [face.landmarks + np.float32([3, 0]) for face in placed]  # noqa: E731
        film.show((100, 100))
        for _ in range(3):
            faces = film.show((100, 100), network=off)
            assert list(faces) == [0] and near(faces[0], 100, 100)
        assert film.aligned == 1 + (ALIGNMENTS + 1) + 1 + 1 and film.detector.searches == 2

    def test_a_face_beside_the_place_is_not_confirmed_there(self):
        """It covers the middle, too; the network, misled, does not see that it has moved."""
        blind = lambda placed, faces: [face.landmarks for face in placed]  # noqa: E731
        for detector in (Scripted(), Locating()):
            film = Film(detector=detector)
            for x in (100, 114, 128):
                faces = film.show((x, 100), network=blind)
                assert list(faces) == [0] and near(faces[0], x, 100)

    def test_nor_one_of_another_size(self):
        film = Film(detector=Locating())
        image = picture((100, 100))
        film.show((100, 100))
        nearer = cv2.warpAffine(image, np.array([[1.6, 0, -60], [0, 1.6, -60]]), (600, 300))
        film.show((100, 100), found=[], image=nearer)
        assert film.detector.searches == 2

    def test_faces_that_were_searched_for_already(self, film):
        found = [DetectedFace(box(70, 80), landmarks(70, 80), 1.0)]
        (face,) = film.tracker.track(picture((70, 80)), 0.0, lambda faces: faces, lambda: found)
        assert face.box == box(70, 80) and film.detector.searches == 0
        no_search = lambda: pytest.fail("no search was due")  # noqa: E731
        film.tracker.track(picture((70, 80)), 0.1, lambda faces: faces, no_search)

    def test_whether_faces_are_seen(self, film):
        assert not film.tracker.sees_faces
        film.show((100, 100))
        assert film.tracker.sees_faces
        film.show()
        assert not film.tracker.sees_faces and len(film.tracker.known) == 1


class TestFollow:
    def test_the_box_goes_and_grows_with_the_landmarks(self, film):
        film.show((100, 100))
        film.show((100, 100), network=lambda placed, faces: [landmarks(101.5, 99.5, size=1.04 * SIZE)])
        (face,) = film.tracker.known
        assert np.abs(np.array(face.box) - box(101.5, 99.5, size=1.04 * SIZE)).max() < 1e-3
        assert np.abs(face.landmarks - landmarks(101.5, 99.5, size=1.04 * SIZE)).max() < 1e-3

    def test_what_the_network_is_off_by_does_not_add_up(self, film):
        """It sees each face 4 pixels too far right and 7 too low, of a box of 60; the detector does not."""

        def network(placed, faces):
            return [points + np.float32([4, 7]) for points in film.exact(placed, faces)]

        for i in range(30):
            x, y = 80 + 4 * i, 100 + i
            faces = film.show((x, y), network=network)
            assert list(faces) == [0] and near(faces[0], x, y)
            assert np.abs(film.tracker.known[0].landmarks - landmarks(x, y)).max() < 1e-3
        assert film.detector.searches == 1

    def test_nor_when_the_face_turns_and_comes_nearer(self, film):
        """What the network is off by turns and grows with the face."""

        for i in range(30):
            turn, growth = 0.01 * i, 1.01**i
            matrix = growth * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])

            def points(off, matrix=matrix):
                return ((landmarks(0, 0) + np.array(off)) @ matrix.T + (250, 150)).astype(np.float32)

            matrix = np.column_stack([matrix, (250, 150) - matrix @ (250, 150)])
            image = cv2.warpAffine(picture((250, 150)), matrix, (600, 300))
            see = lambda placed, faces, points=points: [points((4, 7))]  # noqa: E731
            film.show((250, 150), image=image, network=see)
            # The matrix is that of the frame before: off by a hundredth of what the network is off by.
            assert np.abs(film.tracker.known[0].landmarks - points((0, 0))).max() < 0.3
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
        def network(placed, faces):
            return [spoilt(landmarks(102, 100)).astype(np.float32), landmarks(401, 100)]

        film.show((100, 100), (400, 100))
        film.show((100, 100), (400, 100), network=network)
        first, second = film.tracker.known
        assert near(first, 100, 100) and np.array_equal(first.landmarks, landmarks(100, 100))
        assert near(second, 401, 100, within=1e-3)
        assert list(film.show((100, 100), (401, 100))) == [0, 1]

    def test_those_out_of_sight_stay_where_they_are(self, film):
        film.show((100, 100), (400, 100))
        film.show((402, 100))
        where = {face.face_id: face for face in film.tracker.known}
        assert near(where[0], 100, 100) and near(where[1], 402, 100)
        assert where[0].missed == pytest.approx(1 / A_SECOND) and where[1].missed == 0


def scene(number, *faces):
    """A picture with a dark background of its own."""
    coarse = np.random.default_rng(1000 + number).uniform(5, 50, (4, 7, 3)).astype(np.uint8)
    return np.where(picture(*faces) > 10, picture(*faces), cv2.resize(coarse, (600, 300)))


def colours(faces):
    """An embedding for persons of `picture`."""
    middles = faces[:, 30:100, 20:90]
    small = np.stack([cv2.resize(face, (5, 5), interpolation=cv2.INTER_AREA) for face in middles])
    return (small - small.mean((1, 2), keepdims=True)).reshape(len(faces), -1)


class TestCuts:
    def test_ids_end_though_the_same_face_is_at_the_same_place(self, film):
        for cut in range(3):
            for i in range(5):
                at = (100 + 2 * i, 100)
                assert list(film.show(at, image=scene(cut, at))) == [cut]

    def test_of_those_out_of_sight_too(self, film):
        film.show((100, 100), (400, 100), image=scene(0, (100, 100), (400, 100)))
        film.show((400, 100), image=scene(0, (400, 100)))
        film.show((400, 100), image=scene(1, (400, 100)))
        assert [face.face_id for face in film.tracker.known] == [2]

    def test_after_frames_that_show_nothing(self, film):
        """A dark or grey picture is no cut; what follows it may be another scene, or the same one."""
        film.show((100, 100), image=scene(0, (100, 100)))
        for colour in (0, 50):
            film.show(image=np.full((300, 600, 3), colour, np.uint8))
            assert list(film.show((100, 100), image=scene(0, (100, 100)))) == [0]
        film.show(image=np.zeros((300, 600, 3), np.uint8))
        assert list(film.show((100, 100), image=scene(1, (100, 100)))) == [1]

    def test_a_state_remembers_the_scene(self, film):
        film.show((100, 100), image=scene(0, (100, 100)))
        state = json.loads(json.dumps(film.tracker.state()))
        for number in (0, 1):
            other = Film()
            other.tracker.load_state(state)
            assert list(other.show((100, 100), image=scene(number, (100, 100)))) == [number]

    @pytest.mark.parametrize("light", [0.5, 1.6])
    def test_another_light_is_none(self, film, light):
        image = scene(0, (100, 100))
        film.show((100, 100), image=image)
        lit = np.clip(image * light, 0, 255).astype(np.uint8)
        assert list(film.show((100, 100), image=lit)) == [0]
        assert list(film.show((100, 100), image=image)) == [0]


class TestReturns:
    @pytest.fixture
    def film(self):
        film = Film()
        film.tracker.gallery = Gallery(colours)
        return film

    def away(self, film, *faces, seconds=2 * REMEMBERED):
        for _ in range(round(seconds * A_SECOND)):
            film.show(*faces)
            assert film.tracker.merged == {}

    def test_a_face_that_was_gone_for_long_has_its_id_again(self, film):
        assert list(film.show((100, 100, 1))) == [0] and film.tracker.merged == {}
        self.away(film)
        assert list(film.show((400, 200, 1))) == [0]
        assert film.tracker.merged == {0: pytest.approx(1, abs=0.05)}
        assert list(film.show((400, 200, 1))) == [0] and film.tracker.merged == {}  # it is told once

    def test_after_a_cut(self, film):
        for _ in range(2):
            for number, person, face_id in ((0, 1, 0), (1, 2, 1), (2, 1, 0)):
                at = (100, 100, person)
                assert list(film.show(at, image=scene(number, at))) == [face_id]

    def test_others_are_new_and_no_id_is_left_out(self, film):
        film.show((100, 100, 1))
        self.away(film)
        assert list(film.show((100, 100, 2))) == [1] and film.tracker.merged == {}
        self.away(film)
        assert list(film.show((100, 100, 1), (300, 100, 3), (500, 100, 2))) == [0, 1, 2]
        assert set(film.tracker.merged) == {0, 1}

    def test_nobody_is_twice_in_a_frame(self, film):
        """As if in a mirror: who is there cannot have come back."""
        film.show((100, 100, 1))
        for _ in range(40):
            faces = film.show((100, 100, 1), (400, 100, 1))
        assert list(faces) == [0, 1] and film.tracker.merged == {}

    def test_without_a_gallery_the_face_is_new(self):
        film = Film()
        film.show((100, 100, 1))
        self.away(film)
        assert list(film.show((100, 100, 1))) == [1]

    def test_a_state_goes_on(self, film):
        def faces(i):
            return [(60 + i / 2, 100, 1)] * (not 70 < i < 160) + [(500, 220, 2)] * (i > 100)

        def shown(film, frames):
            seen = []
            for i in frames:
                ids = list(film.show(*faces(i)))
                seen.append((ids, dict(film.tracker.merged)))
            return seen

        expected = shown(film, range(200))
        assert [i for i, (_, merged) in enumerate(expected) if merged] == [180]
        for stop in (1, 65, 90, 179):
            before, after = (Film() for _ in range(2))
            for one in (before, after):
                one.tracker.gallery = Gallery(colours)
            shown(before, range(stop))
            state = json.loads(json.dumps(before.tracker.state(), allow_nan=False))
            after.tracker.load_state(state)
            after.shown = stop
            assert shown(after, range(stop, 200)) == expected[stop:]
            assert after.tracker.gallery.state() == film.tracker.gallery.state()


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


class TestSchedule:
    @staticmethod
    def due(timestamps, every=1.0):
        schedule = Schedule(every)
        return [i for i, timestamp in enumerate(timestamps) if schedule.due(timestamp)]

    def test_frames_of_any_rate(self):
        assert self.due(np.arange(100) / 30) == [0, 30, 60, 90]
        assert self.due(np.arange(100) / 30, every=0) == list(range(100))
        assert self.due(np.arange(100) / 25 + 7.3, every=0.5) == [0, 13, 25, 38, 50, 63, 75, 88]
        assert self.due(np.arange(5) * 60.0) == [0, 1, 2, 3, 4]
        # 30 a second, then 5, in milliseconds.
        times = [*np.arange(60) / 30, *(2 + np.arange(10) / 5)]
        assert self.due(np.round(times, 3)) == [0, 30, 60, 65]

    @pytest.mark.parametrize(
        "clock", [lambda i: 0.0, lambda i: -i / 30, lambda i: np.nan, lambda i: 5.0 if i < 10 else 0.0]
    )
    def test_a_clock_that_stands_still_or_runs_back(self, clock):
        a_second = round(1 / USUAL_STEP)
        assert self.due([clock(i) for i in range(10 * a_second)]) == list(range(0, 10 * a_second, a_second))

    def test_a_clock_that_is_set_back_or_forward(self):
        times = [*np.arange(45) / 30, *np.arange(45) / 30]
        assert self.due(times) == [0, 30, 60]
        times = [*np.arange(10) / 30, *(1000 + np.arange(40) / 30)]
        assert self.due(times) == [0, 10, 40]


def test_confidence():
    assert confidence(0) == 0.5 and confidence(-np.inf) == 0 and confidence(100) == 1
    assert confidence(0.25) == pytest.approx(np.e / (1 + np.e))
    assert isinstance(confidence(1.0), float)
