"""Drawn faces look as their landmarks and AUs say."""

import cv2
import numpy as np
import pytest

from jaa_ext import facs
from jaa_ext.data import SyntheticFaces, align_face
from jaa_ext.data.synthetic.drawing import AUS

STILL = [10, 19, 22, 25, 28]
"""Eye corners and the root of the nose: what AUs barely move."""


def test_landmarks_lie_in_the_image_and_in_the_order_of_the_scheme():
    data = SyntheticFaces(subjects=range(30), samples_per_subject=4, size=96)
    for i in range(len(data)):
        p = data[i].landmarks
        assert (p >= 0).all() and (p <= 95).all()
        left, right = p[list(facs.LEFT_EYE)], p[list(facs.RIGHT_EYE)]
        assert left[:, 0].max() < right[:, 0].min()
        assert (np.diff(p[:10, 0]) > 0).all()  # brows from left to right
        assert (np.diff(p[10:14, 1]) > 0).all()  # bridge of the nose downwards
        assert (np.diff(p[14:19, 0]) > 0).all() and (np.diff(p[31:38, 0]) > 0).all()
        assert (np.diff(p[[37, 38, 39, 40, 41, 42, 31], 0]) < 0).all()
        assert (p[[20, 21], 1] < p[[24, 23], 1]).all() and (p[[26, 27], 1] < p[[30, 29], 1]).all()
        assert (p[43:46, 1] < p[[48, 47, 46], 1]).all()
        assert p[:10, 1].max() < p[[23, 24, 29, 30], 1].min() and p[13, 1] < p[34, 1] < p[40, 1]


def test_a_frontal_face_is_symmetric():
    data = SyntheticFaces(subjects=[3], samples_per_subject=1, size=200)
    for au in (None, *AUS):
        p = data.draw(3, {au: 1.0} if au else {}).landmarks
        mirrored = p[list(facs.FLIP)] * (-1, 1) + (199, 0)
        np.testing.assert_allclose(mirrored, p, atol=1e-3)


def test_faces_look_like_aligned_ones():
    """Without jitter a second alignment changes nothing; with it, little."""
    data = SyntheticFaces(subjects=range(20), samples_per_subject=2, size=200)
    _, again, matrix = align_face(*data.draw(5, {12: 1.0})[:2])
    np.testing.assert_allclose(again, data.draw(5, {12: 1.0}).landmarks, atol=1e-3)
    np.testing.assert_allclose(matrix, [[1, 0, 0], [0, 1, 0]], atol=1e-3)
    matrices = np.stack([align_face(*data[i][:2])[2] for i in range(len(data))])
    scales = np.hypot(matrices[:, 0, 0], matrices[:, 0, 1])
    angles = np.degrees(np.arctan2(matrices[:, 0, 1], matrices[:, 0, 0]))
    assert 0.01 < scales.std() < 0.04 and 0.5 < angles.std() < 2.5


def to_neutral(neutral, changed):
    """The similarity transform from one drawing to another that leaves what AUs do not move in place."""
    matrix, _ = cv2.estimateAffinePartial2D(
        changed.landmarks[STILL], neutral.landmarks[STILL], method=cv2.LMEDS
    )
    return matrix


# Which landmarks an AU moves (left half of the picture), and where to by its definition: dx, dy, y down.
MOVES = {
    1: {4: (0, -1)},
    2: {0: (0, -1), 1: (0, -1)},
    4: {4: (1, 1), 2: (1, 1)},
    6: {24: (0, -1)},
    7: {20: (0, 1), 24: (0, -1)},
    9: {14: (0, -1), 4: (0, 1)},
    10: {33: (0, -1), 34: (0, -1)},
    12: {31: (-1, -1)},
    14: {31: (-1, 0)},
    15: {31: (0, 1)},
    17: {40: (0, -1), 47: (0, -1)},
    23: {31: (1, 0), 33: (0, 1), 41: (0, -1)},
    24: {34: (0, 1), 40: (0, -1)},
    25: {47: (0, 1), 44: (0, -1)},
    26: {40: (0, 1), 47: (0, 1)},
}


@pytest.mark.parametrize("au", AUS)
def test_each_au_moves_its_landmarks_as_facs_says(au):
    data = SyntheticFaces(subjects=[0], samples_per_subject=1)
    for subject in range(6):
        neutral, strong = data.draw(subject, {}), data.draw(subject, {au: 1.0})
        matrix = to_neutral(neutral, strong)
        moved = strong.landmarks @ matrix[:, :2].T + matrix[:, 2] - neutral.landmarks
        for landmark, direction in MOVES[au].items():
            for axis, sign in enumerate(direction):
                if sign:
                    assert moved[landmark, axis] * sign > 0.9, (subject, landmark, moved[landmark])


@pytest.mark.parametrize("au", AUS)
def test_each_au_changes_the_picture_at_its_centres(au):
    data = SyntheticFaces(subjects=[0], samples_per_subject=1)
    y, x = np.mgrid[:200, :200]
    for subject in range(6):
        neutral, strong = data.draw(subject, {}), data.draw(subject, {au: 1.0})
        back = cv2.warpAffine(
            strong.image, to_neutral(neutral, strong), (200, 200), borderMode=cv2.BORDER_REPLICATE
        )
        change = np.abs(back.astype(float) - neutral.image).mean(-1)
        p = neutral.landmarks
        r = p[25, 0] - p[22, 0]
        near = np.zeros((200, 200), bool)
        for point in facs.AU_RULES[au].points:
            cx, cy = p[point] + (0, facs.AU_RULES[au].dy * r)
            near |= np.hypot(x - cx, y - cy) < 0.5 * r
        face = (np.abs(x - 99.5) < 62) & (np.abs(y - 99.5) < 80)
        assert change[near].mean() > 2 * change[face & ~near].mean(), subject


def test_intensity_grows_the_cue_and_noise_comes_with_the_generator_alone():
    data = SyntheticFaces(subjects=[0], samples_per_subject=1)
    images = [data.draw(2, {4: strength}).image.astype(int) for strength in (0, 0.5, 1)]
    assert np.abs(images[1] - images[0]).sum() < np.abs(images[2] - images[0]).sum()
    np.testing.assert_array_equal(images[0], data.draw(2, {}).image)
    same = [data.draw(2, {}, np.random.default_rng(3)) for _ in range(2)]
    np.testing.assert_array_equal(same[0].image, same[1].image)
    assert np.abs(same[0].landmarks - data.draw(2, {}).landmarks).max() > 0.1
