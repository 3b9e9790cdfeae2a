"""Landmarks that settle: scripted networks, whose faces are where the test says."""

import cv2
import numpy as np
import pytest

from jaa_ext import facs
from jaa_ext.data import SyntheticFaces
from jaa_ext.data.faces import alignment_matrix, transform
from jaa_ext.predict import DetectedFace, FaceDetector
from jaa_ext.predict.alignment import MEAN_FACE, MOVED, ROUNDS, displacement, place_mean_face, settle

IMAGE = np.zeros((400, 400, 3), np.uint8)
BOX = (100.0, 100.0, 200.0, 200.0)


def face(box=BOX, roll=0.0):
    return DetectedFace(box, None, 1.0, roll)


def turned(points, degrees, scale=1.0, shift=(0.0, 0.0)):
    """About their mean, clockwise as one sees it."""
    angle = np.radians(degrees)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return ((points - points.mean(0)) @ turn.T + points.mean(0) + shift).astype(np.float32)


class Network:
    """Sees each face nearer to where it is than to where it was aligned: `left` of the way remains."""

    def __init__(self, *truth, left=0.2):
        self.truth, self.left, self.seen = truth, left, []

    def __call__(self, faces):
        self.seen.append(len(faces))
        nearest = [
            min(self.truth, key=lambda true: np.abs(true.mean(0) - points.mean(0)).max())
            for _, points in faces
        ]
        return [
            (true + self.left * (points - true)).astype(np.float32)
            for (_, points), true in zip(faces, nearest, strict=True)
        ]


class TestMeanFace:
    def test_it_lies_in_dlibs_boxes_as_faces_do(self):
        """Around drawn faces that are none of those it was made of."""
        find, off = FaceDetector(), []
        faces = SyntheticFaces(subjects=range(600, 620), samples_per_subject=1)
        for drawn in (faces[i] for i in range(20)):
            image = cv2.copyMakeBorder(drawn.image, 60, 60, 60, 60, cv2.BORDER_REPLICATE)
            found = find(image)
            if len(found) == 1:
                placed = place_mean_face(found[0].box, found[0].roll)
                off.append(displacement(placed, drawn.landmarks + 60))
        assert len(off) >= 18 and np.median(off) < 0.2 and max(off) < 0.5

    def test_a_box_moves_turns_and_stretches_it(self):
        upright = place_mean_face(BOX)
        assert upright.shape == (49, 2) and upright.dtype == np.float32
        left, right = (upright[list(eye)].mean(0) for eye in (facs.LEFT_EYE, facs.RIGHT_EYE))
        assert np.allclose(left[1], right[1]) and np.allclose((left + right)[0] / 2, 150)
        twice = place_mean_face((0.0, 0.0, 200.0, 200.0))
        assert np.allclose(twice, 2 * (upright - 100), atol=1e-4)
        # Clockwise as one sees it: the eye on the right lies lower.
        left, right = (place_mean_face(BOX, 30)[list(eye)].mean(0) for eye in (facs.LEFT_EYE, facs.RIGHT_EYE))
        assert np.degrees(np.arctan2(*(right - left)[::-1])) == pytest.approx(30, abs=1e-3)

    def test_left_and_right_are_alike(self):
        mirrored = MEAN_FACE[list(facs.FLIP)] * (-1, 1)
        assert np.array_equal(mirrored, MEAN_FACE)


class TestDisplacement:
    def test_of_a_shift_it_is_its_length(self):
        points = place_mean_face(BOX)
        left, right = (points[list(eye)].mean(0) for eye in (facs.LEFT_EYE, facs.RIGHT_EYE))
        eyes = np.hypot(*(right - left))
        assert displacement(points, points) == 0
        assert displacement(points, points + np.float32((3, 4))) == pytest.approx(5 / eyes, rel=0.01)

    def test_it_has_no_unit(self):
        points = place_mean_face(BOX)
        moved = turned(points, 10, 1.1, (2, 1))
        assert displacement(3 * points, 3 * moved) == pytest.approx(displacement(points, moved), rel=1e-4)

    def test_what_does_not_change_the_alignment_does_not_count(self):
        """A brow that is raised."""
        points = place_mean_face(BOX)
        raised = points.copy()
        raised[:5, 1] -= 20
        assert displacement(points, raised) == pytest.approx(0, abs=1e-6)


class TestSettle:
    def test_a_face_that_is_where_the_mean_face_is_settles_at_once(self):
        network = Network(place_mean_face(BOX))
        (settled,) = settle([(IMAGE, face())], network)
        assert network.seen == [1] and settled.settled
        assert np.array_equal(settled.landmarks, place_mean_face(BOX))
        assert (settled.box, settled.score) == (BOX, 1.0)

    @pytest.mark.parametrize("roll", [-29.0, 0.0, 29.0])
    def test_a_face_that_is_elsewhere_settles_where_it_is(self, roll):
        truth = turned(place_mean_face(BOX), roll + 12, 0.85, (6, -4))
        network = Network(truth)
        (settled,) = settle([(IMAGE, face(roll=roll))], network)
        assert settled.settled and 2 <= len(network.seen) <= 3
        assert displacement(settled.landmarks, truth) < MOVED

    def test_each_face_has_its_own_rounds(self):
        """Those that have settled are not looked at again; their pictures may be different ones."""
        boxes = [BOX, (0.0, 0.0, 60.0, 60.0), (250.0, 250.0, 390.0, 390.0)]
        truth = [
            place_mean_face(boxes[0]),
            turned(place_mean_face(boxes[1]), 15, 1.1),
            turned(place_mean_face(boxes[2]), -20, 0.8, (10, 10)),
        ]
        network = Network(*truth)
        settled = settle([(IMAGE.copy(), face(box)) for box in boxes], network)
        assert network.seen[0] == 3 and network.seen == sorted(network.seen, reverse=True)
        assert network.seen[1] == 2
        for one, true in zip(settled, truth, strict=True):
            assert one.settled and displacement(one.landmarks, true) < MOVED
        alone = [settle([(IMAGE, face(box))], Network(*truth))[0] for box in boxes]
        assert all(np.array_equal(a.landmarks, b.landmarks) for a, b in zip(alone, settled, strict=True))

    def test_no_face(self):
        assert settle([], lambda faces: pytest.fail("nothing to look at")) == []

    def test_landmarks_that_never_rest(self):
        """To the left, to the right: the mean face is left, and it is said so."""
        network = Network(turned(place_mean_face(BOX), 0, shift=(3, 0)), left=-1.0)
        (settled,) = settle([(IMAGE, face())], network)
        assert len(network.seen) == ROUNDS and not settled.settled
        assert np.array_equal(settled.landmarks, place_mean_face(BOX))

    @pytest.mark.filterwarnings("error")
    @pytest.mark.parametrize(
        "spoilt",
        [
            lambda points: np.full_like(points, np.nan),
            lambda points: np.where(np.arange(49)[:, None] == 30, np.inf, points),
            np.zeros_like,
            lambda points: turned(points, 0, 0.3),
            lambda points: turned(points, 0, 2.5),
            lambda points: points + np.float32((0, 90)),
            lambda points: points + np.float32((-70, 0)),
            lambda points: turned(points, 180)[list(facs.FLIP)],
        ],
        ids=["NaN", "infinity", "one place", "tiny", "huge", "below", "beside", "upside down"],
    )
    def test_landmarks_that_cannot_be_those_of_the_face(self, spoilt):
        """Beside one that is as it should be."""
        other = (250.0, 250.0, 350.0, 350.0)

        def network(faces):
            return [spoilt(points) if points.mean() < 200 else points for _, points in faces]

        one, two = settle([(IMAGE, face()), (IMAGE, face(other))], network)
        assert not one.settled and np.array_equal(one.landmarks, place_mean_face(BOX))
        assert two.settled


def test_the_matrix_of_the_mean_face_shows_the_box():
    """Its aligned picture is 1.32 boxes wide, and its middle a little below the box's."""
    matrix = alignment_matrix(place_mean_face(BOX), size=200)
    corners = transform(np.array([(100.0, 100.0), (200.0, 200.0)]), matrix)
    assert np.allclose(corners, 99.5 + 99.5 / 0.66 * np.array([(-0.5, -0.52), (0.5, 0.48)]), atol=0.2)
