"""Landmarks that can and that cannot be those of a face in a picture."""

import numpy as np
import pytest

from jaa_ext import facs
from jaa_ext.data import SyntheticFaces
from jaa_ext.data.plausible import OUTSIDE, QUESTIONS, SHAPELESS, TINY, UPSIDE_DOWN, fault

WIDTH, HEIGHT = 640, 480


@pytest.fixture
def face(releases):
    """In the middle of the picture, 200 pixels wide."""
    return releases.face_points(0, 200) - (-220, -140)


def turned(points, degrees):
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    centre = points.mean(0)
    return (points - centre) @ np.array([[cos, sin], [-sin, cos]]) + centre


def looking_aside(points, share):
    """Narrowed, as a face that turns away."""
    return (points - points.mean(0)) * (share, 1) + points.mean(0)


def test_faces_of_any_pose_and_place(face):
    for degrees in range(0, 360, 15):
        assert fault(turned(face, degrees), WIDTH, HEIGHT) is None
    for share in (0.8, 0.5, 0.25):
        assert fault(looking_aside(face, share), WIDTH, HEIGHT) is None
    left = face - (face[:, 0].min(), 0)
    for shift in ((0, 0), (-50, 0), (560, 0)):  # whole at the edge, and nearly half outside
        assert fault(left + shift, WIDTH, HEIGHT) is None
    assert fault(face * 0.1, WIDTH, HEIGHT) is None  # eyes 7 pixels apart


def test_drawn_faces():
    faces = SyntheticFaces(subjects=range(8), samples_per_subject=3, size=96, aus=facs.BP4D_AUS)
    assert {fault(sample.landmarks.astype(float), 96, 96) for sample in faces} == {None}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda p: p * 3, OUTSIDE),  # a table of pictures of three times the size
        (lambda p: p - (-400, 0), OUTSIDE),
        (lambda p: p - (400, 0), OUTSIDE),
        (lambda p: p * 1e30, OUTSIDE),
        (lambda p: -p, OUTSIDE),
        (lambda p: p / (WIDTH, HEIGHT), TINY),  # 0..1
        (lambda p: p / (WIDTH / 2, HEIGHT / 2) - 1, TINY),  # -1..1
        (lambda p: p * 0 + 100, TINY),
        (lambda p: p * 0, TINY),
        (lambda p: p[:, ::-1], UPSIDE_DOWN),  # y and x
        (lambda p: p[list(facs.FLIP)], UPSIDE_DOWN),  # mirrored numbers
        (lambda p: (WIDTH - 1, 0) + p * (-1, 1), UPSIDE_DOWN),  # of a mirrored picture
        (lambda p: (0, HEIGHT - 1) + p * (1, -1), UPSIDE_DOWN),  # y counts upwards
        (lambda p: np.concatenate([p[:20], [[639, 479]], p[21:]]), SHAPELESS),
        (lambda p: np.concatenate([p[:40], [[1e6, 0]], p[41:]]), SHAPELESS),
        (lambda p: np.concatenate([p[:31], p[:18]]), UPSIDE_DOWN),  # brows for a mouth
        (lambda p: np.concatenate([p[:31], p[19:31] - (0, -5), p[19:25]]), SHAPELESS),  # eyes for a mouth
    ],
)
def test_landmarks_that_cannot_be_a_face(face, change, reason):
    assert fault(change(face), WIDTH, HEIGHT) == reason
    assert reason in QUESTIONS
