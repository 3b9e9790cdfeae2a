"""What AUs do to the head, measured on its landmarks in millimetres: x to the person's left, y up."""

import itertools

import numpy as np
import pytest

from jaa_ext.data.rendered.expression import (
    ACTIONS,
    AUS,
    OPENING,
    REST,
    WRINKLES,
    Expression,
    Manner,
)
from jaa_ext.data.rendered.head import FILE
from jaa_ext.facs import FLIP

RIGHT_BROW, LEFT_BROW = range(5), range(5, 10)
RIGHT_CORNER, LEFT_CORNER = 31, 37


@pytest.fixture(scope="module")
def moves() -> dict[str, np.ndarray]:
    """By how much each action at 1 moves the 49 landmarks of the mean head, (49, 3)."""
    with np.load(FILE, allow_pickle=False) as head:
        corners, weights = head["landmark_vertices"], head["landmark_weights"]
        actions = head["actions"].astype(np.float64) * head["action_scale"][:, None, None]
        at = (actions[:, corners] * weights[..., None]).sum(2)
        return dict(zip(head["action_names"].tolist(), at, strict=True))


def moved(moves: dict[str, np.ndarray], expression: Expression) -> np.ndarray:
    """(49, 3) against the head at rest with its lips closed."""
    actions = dict(expression.actions)
    actions["mouthClose"] = actions.get("mouthClose", 0.0) - REST
    return sum(weight * moves[name] for name, weight in actions.items())


def test_at_rest_only_the_lips_are_closed() -> None:
    expression = Expression.of({})
    assert expression.actions == {"mouthClose": REST}
    assert expression.wrinkles.shape == (len(WRINKLES), 2) and expression.wrinkles.dtype == np.float32
    assert not expression.wrinkles.any()
    assert Expression.of(dict.fromkeys(AUS, 0)).actions == expression.actions


@pytest.mark.parametrize("au", AUS)
def test_movement_and_wrinkles_grow_with_the_intensity(moves, au: int) -> None:
    sizes = [np.abs(moved(moves, Expression.of({au: i / 2}))).sum() for i in range(11)]
    assert all(low < high for low, high in itertools.pairwise(sizes))
    # A trace is hardly seen, the maximum is.
    assert sizes[2] < 0.35 * sizes[10]
    wrinkles = [Expression.of({au: i / 2}).wrinkles.sum() for i in range(11)]
    assert (np.diff(wrinkles) >= 0).all() and wrinkles[10] <= 4


def test_each_au_does_what_facs_says(moves) -> None:
    def full(au: int) -> np.ndarray:
        return moved(moves, Expression.of({au: 5}))

    def up(au: int, points) -> float:
        return float(full(au)[list(points), 1].mean())

    assert up(1, (4, 5)) > 3 and up(1, (0, 9)) < 1  # the inner ends of the brows
    assert up(2, (0, 9)) > 3 and up(2, (4, 5)) < 1  # the outer ones
    assert up(4, range(10)) < -3 and full(4)[4, 0] > 1 and full(4)[5, 0] < -1  # down and together
    assert up(5, (20, 21, 26, 27)) > 2
    lower_lids = (23, 24, 29, 30)
    assert up(6, lower_lids) > 1 and up(7, lower_lids) > 2
    assert up(7, (20, 21, 26, 27)) < -0.4  # the upper lid too
    assert up(9, (14, 18)) > 2 and up(9, range(10)) < 0  # the wings of the nose, and the brows a little
    assert up(9, range(10)) > -4
    assert up(10, (33, 34, 35)) > 2 and abs(up(10, (RIGHT_CORNER, LEFT_CORNER))) < 2.5
    corners = (RIGHT_CORNER, LEFT_CORNER)
    assert up(12, corners) > 6 and full(12)[LEFT_CORNER, 0] > 3 > -3 > full(12)[RIGHT_CORNER, 0]
    assert up(15, corners) < -4
    assert abs(up(14, corners)) < 2 and full(14)[LEFT_CORNER, 0] > 2  # out, not up: no smile
    assert up(17, (39, 40, 41)) > 1.8
    assert full(20)[LEFT_CORNER, 0] > 4 and -2.5 < up(20, corners) < 1.5  # out, neither smile nor frown
    narrower = full(23)[RIGHT_CORNER, 0] - full(23)[LEFT_CORNER, 0]
    assert narrower > 3
    for au in (23, 24):  # the red of both lips is thinner
        assert up(au, (33, 34, 35)) < -1.4 and up(au, (39, 40, 41)) > 1
    assert abs(up(24, corners)) < 2
    opened = full(25)
    assert opened[44, 1] - opened[47, 1] > 5 and opened[40, 1] > -8
    jaw = moved(moves, Expression.of({26: 5, 25: 5}))
    assert jaw[40, 1] < -12


def test_sides_are_the_person_s_own(moves) -> None:
    right = moved(moves, Expression.of({12: (5, 0), 2: (0, 5)}))
    assert right[RIGHT_CORNER, 1] > 3 * abs(right[LEFT_CORNER, 1])
    assert right[9, 1] > 3 and abs(right[0, 1]) < 0.5
    left = moved(moves, Expression.of({12: (0, 5), 2: (5, 0)}))
    mirrored = left[list(FLIP)] * (-1, 1, 1)
    np.testing.assert_allclose(right, mirrored, atol=0.8)  # the head's own actions are not quite even
    wrinkles = Expression.of({6: (5, 0)}).wrinkles
    assert wrinkles[WRINKLES.index("crow")].tolist() == [1, 0]


def test_every_action_is_one_of_the_head_s(moves) -> None:
    rng = np.random.default_rng(0)
    named = set(OPENING)
    for _ in range(400):
        intensities = {au: float(rng.uniform(0, 5)) for au in AUS if rng.random() < 0.3}
        named |= set(Expression.random(rng, intensities, Manner.random(rng)).actions)
    assert named <= set(moves)
    assert {"eyeBlinkLeft", "mouthPucker", "mouthFunnel", "tongueOut", "cheekPuff", "jawLeft"} <= named


def test_by_how_much_actions_part_the_lips(moves) -> None:
    used = {name.replace("*", side) for a in ACTIONS.values() for name in a for side in ("Left", "Right")}
    for name in used | set(OPENING):
        if name in moves:
            opens = moves[name][44, 1] - moves[name][47, 1]
            assert opens == pytest.approx(OPENING.get(name, 0.0), abs=0.5), name


def test_lips_are_as_far_apart_as_au_25_says(moves) -> None:
    def opening(intensities: dict[int, float]) -> float:
        at = moved(moves, Expression.of(intensities))
        return at[44, 1] - at[47, 1]

    # Whatever else the mouth does: closed without AU 25, behind a dropped jaw too, ...
    for others in ({}, {10: 5}, {26: 5}, {12: 5}, {17: 4, 10: 4}, {9: 5, 10: 5}):
        assert opening(others) < 0.8, others
        # ... a gap from "slight" on, and a wide one at the maximum.
        assert opening({**others, 25: 2}) > 1.5, others
        assert opening({**others, 25: 3}) > 3.5, others
        assert opening({**others, 25: 5}) > 6, others
    # The jaw opens further than lips alone.
    assert opening({25: 5, 26: 5}) > 1.5 * opening({25: 5})


def test_people_differ_and_are_uneven() -> None:
    def face(person: int, picture: int, intensities: dict[int, float]) -> Expression:
        manner = Manner.random(np.random.default_rng(person))
        return Expression.random(np.random.default_rng((person, picture)), intensities, manner)

    smile = {12: 4.0, 6: 3.0}
    one, again = face(0, 0, smile), face(0, 0, smile)
    assert one.actions == again.actions and np.array_equal(one.wrinkles, again.wrinkles)
    weights = np.array([[face(p, i, smile).actions["mouthSmileRight"] for i in range(20)] for p in range(60)])
    plain = Expression.of(smile).actions["mouthSmileRight"]
    assert weights.mean() == pytest.approx(plain, rel=0.05)
    assert 0.05 < weights.mean(1).std() / plain < 0.25 and 0.02 < weights.std(1).mean() / plain < 0.15
    left = np.array([face(p, 0, smile).actions["mouthSmileLeft"] for p in range(60)])
    assert 0.02 < np.abs(np.log(left / weights[:, 0])).mean() < 0.4


def test_what_is_no_au_contradicts_none(moves) -> None:
    rng = np.random.default_rng(1)
    blinked = 0
    for _ in range(500):
        manner = Manner.random(rng)
        actions = Expression.random(rng, {5: 3.0}, manner).actions
        assert "eyeBlinkLeft" not in actions and "eyeBlinkRight" not in actions
        expression = Expression.random(rng, {12: 2.0, 10: 3.0}, manner)
        at = moved(moves, expression)
        assert at[44, 1] - at[47, 1] < 1.2
        assert not {"mouthFunnel", "tongueOut"} & set(expression.actions)
        blinked += "eyeBlinkLeft" in expression.actions
    assert 50 < blinked < 130


@pytest.mark.parametrize(
    ("intensities", "sentence"),
    [
        ({13: 2}, r"^Expression: AU 13 is not one of \[1, 2, 4, "),
        ({12: 5.5}, r"^Expression: AU 12 wants an intensity from 0 to 5, got 5\.5$"),
        ({12: (1, -1)}, r"AU 12 wants an intensity from 0 to 5, got \(1, -1\)$"),
        ({12: float("nan")}, r"got nan$"),
    ],
)
def test_bad_intensities(intensities, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Expression.of(intensities)
    with pytest.raises(ValueError, match=sentence):
        Expression.random(np.random.default_rng(0), intensities, Manner.random(np.random.default_rng(0)))
