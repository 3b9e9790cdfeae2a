import hashlib
import math
import subprocess
import sys
from pathlib import Path
from statistics import NormalDist

import cv2
import numpy as np
import pytest

from jaa_ext import facs
from jaa_ext.data import SyntheticFaces, align_face
from jaa_ext.data.synthetic.dataset import LOADINGS, RATES

ALL = tuple(RATES)
STILL = [10, 19, 22, 25, 28]
"""Eye corners and the root of the nose: what AUs barely move."""


def fingerprint(data):
    digest = hashlib.sha256(data.label_matrix().tobytes())
    for i in range(len(data)):
        digest.update(data[i].image.tobytes() + data[i].landmarks.tobytes())
    return digest.hexdigest()


def test_same_bits_in_another_instance_and_another_process():
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        f"from {Path(__file__).stem} import *\n"
        "print(fingerprint(SyntheticFaces(subjects=[4, 9], samples_per_subject=3, seed=7, size=96)))"
    )
    other = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    )
    here = fingerprint(SyntheticFaces(subjects=[4, 9], samples_per_subject=3, seed=7, size=96))
    assert other.stdout.strip() == here
    assert here != fingerprint(SyntheticFaces(subjects=[4, 9], samples_per_subject=3, seed=8, size=96))


def test_a_sample_does_not_depend_on_the_rest_of_the_data_set():
    small = SyntheticFaces(subjects=[6], samples_per_subject=3, size=96, aus=(12,))
    large = SyntheticFaces(subjects=range(8), samples_per_subject=10, size=96, aus=ALL)
    for i in range(3):
        a, b = small[i], large[60 + i]
        np.testing.assert_array_equal(a.image, b.image)
        np.testing.assert_array_equal(a.landmarks, b.landmarks)
        assert a.labels[0] == b.labels[ALL.index(12)]
        assert (a.subject, a.id) == (b.subject, b.id) == ("S006", f"S006/{i:05d}")


def test_samples_keep_the_contract():
    data = SyntheticFaces(subjects=[0, 31], samples_per_subject=4, size=127)
    matrix = data.label_matrix()
    assert len(data) == 8 and data.aus == facs.BP4D_AUS and data.subjects == ("S000", "S031")
    assert matrix.shape == (8, 12) and matrix.dtype == np.int64
    for i in range(8):
        sample = data[i]
        assert sample.image.shape == (127, 127, 3) and sample.image.dtype == np.uint8
        assert sample.landmarks.shape == (49, 2) and sample.landmarks.dtype == np.float32
        assert sample.labels.dtype == np.int64
        np.testing.assert_array_equal(sample.labels, matrix[i])
    assert data[-1].id == data[7].id == "S031/00003"


def test_label_matrix_draws_nothing(monkeypatch):
    monkeypatch.setattr("jaa_ext.data.synthetic.dataset.draw_face", None)
    assert SyntheticFaces(subjects=range(3), samples_per_subject=5).label_matrix().shape == (15, 12)


def test_intensities_are_those_that_the_labels_and_the_drawing_follow(monkeypatch):
    data = SyntheticFaces(subjects=[0, 31], samples_per_subject=20, size=64, aus=(12, 1, 25))
    samples = [data[i] for i in range(40)]
    degrees = np.stack([sample.intensities for sample in samples])
    assert degrees.dtype == np.float32 and data.intensity_matrix().dtype == np.float32
    present = np.stack([sample.labels for sample in samples]) == 1
    assert (degrees[present] >= 2.5).all() and (degrees[present] <= 5).all()
    assert (degrees[~present] >= 0).all() and (degrees[~present] <= 0.75).all()
    assert 0.2 < (degrees[~present] > 0).mean() < 0.6
    monkeypatch.setattr("jaa_ext.data.synthetic.dataset.draw_face", None)
    assert np.array_equal(data.intensity_matrix(), degrees)
    monkeypatch.undo()
    drawn = data.draw(0, {1: 0.3, 25: 1.0})
    assert drawn.intensities.tolist() == pytest.approx([0, 1.5, 5])


def test_rates_are_those_of_the_table():
    labels = SyntheticFaces(subjects=range(200), samples_per_subject=200, aus=ALL).label_matrix()
    for au, rate, published in zip(ALL, labels.mean(0), RATES.values(), strict=True):
        assert abs(rate - published) < 4.5 * (published * (1 - published) / len(labels)) ** 0.5, f"AU {au}"


def test_aus_co_occur():
    labels = SyntheticFaces(subjects=range(50), samples_per_subject=200, aus=ALL).label_matrix()
    correlation = np.corrcoef(labels.T)
    index = {au: i for i, au in enumerate(ALL)}
    for a, b in ((6, 12), (10, 12), (6, 10), (7, 12), (1, 2), (4, 9), (15, 17), (23, 24), (25, 26)):
        assert correlation[index[a], index[b]] > 0.1, (a, b)
    assert correlation[index[12], index[15]] < -0.1
    assert abs(correlation[index[2], index[23]]) < 0.05


def both_present(a, b, correlation):
    """P(x < a, y < b) for normal x and y of unit variance: x integrated, y given x."""
    x = np.linspace(-8, a, 400)
    density = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    given = (b - correlation * x) / math.sqrt(1 - correlation**2)
    values = density * [(1 + math.erf(z / math.sqrt(2))) / 2 for z in given]
    return float(((values[1:] + values[:-1]) / 2 * np.diff(x)).sum())


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.0, 2.0, math.inf])
def test_co_occurrence_multiplies_the_loadings(factor):
    labels = SyntheticFaces(
        subjects=range(100), samples_per_subject=200, aus=ALL, co_occurrence=factor
    ).label_matrix()
    normal, loadings = NormalDist(), {}
    for au in ALL:
        of_one = np.array([latent.get(au, 0.0) for latent in LOADINGS.values()])
        largest = math.sqrt(0.95) / math.hypot(*of_one)  # a twentieth of the variance stays its own
        loadings[au] = of_one * min(factor, largest)
    far = 0
    for i, a in enumerate(ALL):
        for j, b in enumerate(ALL[:i]):
            correlation = float(loadings[a] @ loadings[b])
            want = both_present(normal.inv_cdf(RATES[a]), normal.inv_cdf(RATES[b]), correlation)
            got = (labels[:, i] & labels[:, j]).mean()
            assert abs(got - want) < 4.5 * (want * (1 - want) / len(labels)) ** 0.5 + 1e-4, (a, b)
            far += abs(want - RATES[a] * RATES[b]) > 0.01
    assert (far == 0) == (factor == 0)
    for i, au in enumerate(ALL):
        bound = 4.5 * (RATES[au] * (1 - RATES[au]) / len(labels)) ** 0.5
        assert abs(labels[:, i].mean() - RATES[au]) < bound, f"AU {au}"


def test_co_occurrence_changes_labels_alone():
    def faces(**changes):
        return SyntheticFaces(subjects=[6, 8], samples_per_subject=40, size=96, aus=ALL, **changes)

    assert fingerprint(faces()) == fingerprint(faces(co_occurrence=1.0))
    plain, strong = faces(co_occurrence=0.0), faces(co_occurrence=2.0)
    assert (plain.label_matrix() != strong.label_matrix()).any()
    np.testing.assert_array_equal(plain.draw(6, {12: 1.0}).image, strong.draw(6, {12: 1.0}).image)
    for i in range(len(plain)):
        np.testing.assert_array_equal(strong[i].labels, strong.label_matrix()[i])


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
    for au in (None, *ALL):
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


@pytest.mark.parametrize("au", ALL)
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


@pytest.mark.parametrize("au", ALL)
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


def test_subjects_are_different_people():
    data = SyntheticFaces(subjects=range(12), samples_per_subject=1, size=96)
    neutral = [data.draw(s, {}) for s in range(12)]
    for i in range(12):
        for j in range(i):
            assert np.abs(neutral[i].landmarks - neutral[j].landmarks).max() > 1
            assert np.abs(neutral[i].image.astype(int) - neutral[j].image).mean() > 3
    rows = SyntheticFaces(subjects=[1], samples_per_subject=50).label_matrix()
    assert (rows != SyntheticFaces(subjects=[2], samples_per_subject=50).label_matrix()).any()


@pytest.mark.parametrize("factor", [-0.5, math.nan])
def test_a_negative_co_occurrence_is_refused(factor):
    with pytest.raises(
        ValueError, match=f"^SyntheticFaces: co_occurrence must be at least 0, got {factor:g}$"
    ):
        SyntheticFaces(subjects=[1], samples_per_subject=2, co_occurrence=factor)


def test_draw_rejects_an_unknown_au():
    with pytest.raises(ValueError, match="AU 5 is not one of"):
        SyntheticFaces(subjects=[1], samples_per_subject=1).draw(1, {5: 1.0})
