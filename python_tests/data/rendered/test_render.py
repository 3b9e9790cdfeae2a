"""`render_face`: geometry, light and camera of rendered faces.

After a change that is meant to change pictures, this file as a program renders reference.png anew.
"""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from jaa_ext import _C, facs
from jaa_ext.data import RenderedFaces
from jaa_ext.data.faces import alignment_matrix
from jaa_ext.data.rendered.expression import Expression
from jaa_ext.data.rendered.head import head_model
from jaa_ext.data.rendered.person import Person, View
from jaa_ext.data.rendered.render import render_face

NOSE_TIP, UPPER_LIP, LOWER_LIP = 13, 44, 47
REST = Expression.of({})
REFERENCE = Path(__file__).with_name("reference.png")


@pytest.fixture(scope="module")
def person() -> Person:
    person = Person.random(np.random.default_rng(8))
    looks = {
        **person.looks,
        "beard_density": 0.0,
        "moustache_density": 0.0,
        "glasses": False,
        "long_hair": False,
    }
    return dataclasses.replace(person, looks=looks)


def portrait(**changes: object) -> View:
    """The plain view with other surroundings."""
    view = View()
    return dataclasses.replace(view, surroundings={**view.surroundings, **changes})


def light_from(x: float) -> View:
    return portrait(
        lights=[{"direction": (x, 0.2, 0.5), "colour": (1, 1, 1)}], sky=(0.2,) * 3, ground=(0.2,) * 3
    )


def eyes(landmarks: np.ndarray) -> np.ndarray:
    return np.stack([landmarks[list(eye)].mean(0) for eye in (facs.LEFT_EYE, facs.RIGHT_EYE)])


def test_a_portrait_is_aligned(person):
    image, landmarks, pose = render_face(person, REST, View(), 120)
    assert image.shape == (120, 120, 3) and image.dtype == np.uint8
    assert landmarks.shape == (49, 2) and landmarks.dtype == np.float32
    np.testing.assert_array_equal(pose, (0, 0, 0))
    np.testing.assert_allclose(alignment_matrix(landmarks, size=120), np.eye(2, 3), atol=1e-3)


def test_the_landmarks_lie_where_things_are_seen(person):
    view = portrait()
    image, landmarks, _ = render_face(person, Expression.of({26: 5, 25: 4}), view, 200)
    grey = image.astype(float).mean(2)

    def at(point):
        x, y = np.round(point).astype(int)
        return grey[y - 1 : y + 2, x - 1 : x + 2].mean()

    skin = at((landmarks[NOSE_TIP] + landmarks[10]) / 2)
    for iris in eyes(landmarks):
        assert at(iris) < 0.6 * skin
    assert at((landmarks[UPPER_LIP] + landmarks[LOWER_LIP]) / 2) < 0.7 * skin


@pytest.mark.parametrize(("turn", "axis", "sign"), [("yaw", 0, 1), ("pitch", 1, -1)])
def test_the_nose_goes_where_the_head_turns(person, turn, axis, sign):
    shifts = []
    for degrees in (-20, 0, 20):
        view = dataclasses.replace(View(), **{turn: degrees})
        _, landmarks, pose = render_face(person, REST, view, 200)
        assert pose[("yaw", "pitch").index(turn)] == degrees
        shifts.append(sign * (landmarks[NOSE_TIP] - eyes(landmarks).mean(0))[axis])
    assert shifts[0] + 5 < shifts[1] < shifts[2] - 5


def test_roll_is_clockwise_and_aligned_away(person):
    view = dataclasses.replace(light_from(1), roll=0.0)
    rolled = dataclasses.replace(light_from(1), roll=20.0)
    _, upright, _ = render_face(person, REST, view, 100)
    _, landmarks, pose = render_face(person, REST, rolled, 100)
    assert pose[2] == 20
    np.testing.assert_allclose(landmarks, upright, atol=1.0)
    # Seen by the camera, before alignment, the eye on the right lies lower.
    angle = np.radians(20)
    model = head_model()
    turn = [np.cos(angle), np.sin(angle), 0, -np.sin(angle), np.cos(angle), 0, 0, 0, 1]
    posed = _C.pose(model.compiled, person.identity.tolist(), [0.0] * len(model.action_names), turn, 1000.0)
    left, right = eyes(posed.landmarks)
    assert np.degrees(np.arctan2(*(right - left)[::-1])) == pytest.approx(20, abs=1.5)


def test_the_same_bits_in_threads(person):
    view = View.random(np.random.default_rng(3), person)

    def draw(_):
        return render_face(person, Expression.of({12: 4, 25: 3}), view, 96)[0].tobytes()

    with ThreadPoolExecutor(4) as threads:
        pictures = set(threads.map(draw, range(8)))
    assert pictures == {draw(0)}


def test_light_comes_from_where_it_is(person):
    def halves(view):
        image, landmarks, _ = render_face(person, REST, view, 120)
        middle = int(landmarks[NOSE_TIP, 0])
        cheeks = image[60:85].astype(float)
        return cheeks[:, middle - 25 : middle - 5].mean(), cheeks[:, middle + 5 : middle + 25].mean()

    left, right = halves(light_from(1))
    assert right > 1.3 * left
    left, right = halves(light_from(-1))
    assert left > 1.3 * right


def test_what_is_before_the_face_covers_it(person):
    blue = {
        "start": (0, -70, 60),
        "end": (0, -80, 60),
        "from_radius": 20,
        "to_radius": 20,
        "colour": (0, 0, 0.8),
    }
    image, landmarks, _ = render_face(person, REST, portrait(rods=[blue]), 200)
    x, y = np.round(landmarks[[UPPER_LIP, LOWER_LIP]].mean(0)).astype(int)
    red, _, blue_light = image[y, x].astype(int)
    assert blue_light > red + 60


def test_one_brow_moves_by_itself(person):
    _, rest, _ = render_face(person, REST, View(), 200)
    _, raised, _ = render_face(person, Expression.of({2: (5, 0)}), View(), 200)
    up = rest[:, 1] - raised[:, 1]
    # The person's right brow is on the left of the picture.
    assert up[1] > 3 and abs(up[8]) < 1


def test_intensities_move_the_landmarks_more_and_more(person):
    gaps = []
    for intensity in (0, 1, 2, 3, 4, 5):
        _, landmarks, _ = render_face(person, Expression.of({26: intensity, 25: intensity}), View(), 200)
        gaps.append(landmarks[LOWER_LIP, 1] - landmarks[UPPER_LIP, 1])
    assert (np.diff(gaps) > 0.3).all()


@pytest.mark.parametrize("quality", [30, 60, 90])
def test_jpeg_is_as_opencv_has_it(person, quality):
    """In brightness; colours, which have half the resolution, are spread over pixels in another way."""
    plain, _, _ = render_face(person, REST, portrait(), 128)
    ours, _, _ = render_face(person, REST, portrait(jpeg_quality=quality), 128)
    _, data = cv2.imencode(".jpg", plain[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    theirs = cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]

    def off(a, b):
        return np.abs((a.astype(float) - b) @ (0.299, 0.587, 0.114)).mean()

    assert off(ours, theirs) < 0.5 * off(theirs, plain)


def test_bad_input_is_told(person):
    model = head_model()
    with pytest.raises(
        ValueError, match=r"pose: wanted .* weights of identity and .* of actions, got 1 and 2"
    ):
        _C.pose(model.compiled, [0.0], [0.0, 0.0], [1.0] * 9, 1000.0)
    with pytest.raises(ValueError, match="rotation must be 9 numbers"):
        _C.pose(model.compiled, person.identity.tolist(), [0.0] * len(model.action_names), [1.0], 1000.0)
    with pytest.raises(ValueError, match=r"wanted a size in 16..4096"):
        render_face(person, REST, View(), 8)
    with pytest.raises(AttributeError):
        render_face(person, REST, portrait(hairs=1), 32)


def pictures() -> np.ndarray:
    """(80, 480, 3): six people with all that a picture varies in."""
    people = RenderedFaces(subjects=range(6), samples_per_subject=1, size=80, seed=9)
    return np.hstack([people[i].image for i in range(len(people))])


def test_the_pictures_are_those_of_the_reference_within_one_grey_level():
    wanted = cv2.imread(str(REFERENCE))[..., ::-1].astype(int)
    assert np.abs(pictures() - wanted).max() <= 1


if __name__ == "__main__":
    cv2.imwrite(str(REFERENCE), np.ascontiguousarray(pictures()[..., ::-1]))
