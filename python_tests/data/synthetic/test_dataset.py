import hashlib
import math
import subprocess
import sys
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest

from jaa_ext import facs
from jaa_ext.data import SyntheticFaces
from jaa_ext.data.synthetic.dataset import LOADINGS, RATES

ALL = tuple(RATES)


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
