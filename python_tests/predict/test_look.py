"""Looks of drawn faces: one person's from frame to frame, and those of different people."""

from dataclasses import replace

import numpy as np
import pytest

from jaa_ext.data import SyntheticFaces, align_face
from jaa_ext.data.synthetic.drawing import AUS, Person, View, draw_face
from jaa_ext.predict.look import ALIKE, SAME_LOOK, likeness, look

PEOPLE = range(12)


def aligned(person, aus=(), off=(0.0, 0.0), **view):
    """A person with AUs, 160 pixels wide as tracking wants it, aligned with an offset in eye distances."""
    intensity = np.isin(AUS, aus).astype(float)
    drawn = Person.random(np.random.default_rng(person))
    image, landmarks = draw_face(drawn, intensity, replace(View(noise=(3.0, 0, 0)), **view), 200)
    eyes = np.hypot(*(landmarks[25:31].mean(0) - landmarks[19:25].mean(0)))
    return align_face(image, landmarks + np.float32(off) * eyes, size=160)[0]


@pytest.fixture(scope="module")
def faces():
    return [aligned(person) for person in PEOPLE]


def compared(a, b):
    return likeness(look(a), look(b))


def test_its_size(faces):
    assert look(faces[0]).shape == (32, 32, 3) and look(faces[0]).dtype == np.uint8


def test_a_face_is_like_itself(faces):
    for face in faces:
        assert compared(face, face) == (pytest.approx(1, abs=1e-3), 0)


@pytest.mark.parametrize(
    "change",
    [
        {"noise": (6.0, 20, 30)},
        {"aus": (12, 6, 25)},
        {"aus": (1, 2, 25, 26)},
        {"aus": (4, 7, 9, 17)},
        {"gaze": (0.05, 0.01)},
        {"yaw": 0.08, "pitch": 0.04},
        {"jitter": (0.04, 0.03, 0.0, 0.0)},
        {"off": (0.15, -0.1)},
    ],
    ids=str,
)
def test_a_person_is_alike_in_the_next_frame(faces, change):
    values = [compared(face, aligned(person, **change))[0] for person, face in enumerate(faces)]
    assert min(values) >= SAME_LOOK and np.median(values) >= ALIKE


@pytest.mark.parametrize(
    "light",
    [
        lambda face: 0.5 * face,
        lambda face: 0.15 * face,
        lambda face: 1.4 * face,
        lambda face: 3.0 * face,
        lambda face: face * (1.2, 1.0, 0.75),
        lambda face: face * np.linspace(0.6, 1.4, 160)[None, :, None],
    ],
    ids=["half", "dark", "bright", "flash", "warm", "from the side"],
)
def test_light_makes_nobody_another(faces, light):
    for face in faces:
        assert compared(face, light(face.astype(float)).clip(0, 255).astype(np.uint8))[0] >= SAME_LOOK


def test_most_people_are_told_apart():
    """Under one light, with one expression: harder than a cut from one scene to another."""
    people = SyntheticFaces(subjects=range(20), samples_per_subject=1)
    drawn = [people.draw(subject, {}) for subject in range(20)]
    looks = [look(align_face(face.image, face.landmarks, size=160)[0]) for face in drawn]
    values = np.array([likeness(a, b)[0] for i, a in enumerate(looks) for b in looks[:i]])
    assert np.mean(values >= SAME_LOOK) < 0.15 and np.mean(values >= ALIKE) < 0.06


@pytest.mark.parametrize("off", [0.3, 0.45, 0.6])
def test_how_far_a_face_is_shifted(faces, off):
    """In shares of the picture's side, of which the eye distance is about 0.3; in steps of 0.06."""
    for person in (0, 3, 7):
        alike, shift = compared(faces[person], aligned(person, off=(off, 0)))
        assert alike >= SAME_LOOK and abs(shift - 0.3 * off) < 0.04
        assert compared(faces[person], aligned(person, off=(0.1, 0.1)))[1] <= 0.09
