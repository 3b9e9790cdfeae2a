"""Which AUs rendered faces show: rates, what comes together, and faces that are possible."""

import numpy as np
import pytest

from jaa_ext import facs
from jaa_ext.data.rendered.expression import AUS
from jaa_ext.data.rendered.labels import (
    BP4D_GIVEN,
    BP4D_RATES,
    KINDS,
    PRESENT,
    correlations,
    draw_intensities,
    everyday_rates,
    of_face,
    present,
)

COUNT = 40_000


@pytest.fixture(scope="module")
def natural() -> np.ndarray:
    return draw_intensities(np.random.default_rng(0), COUNT)


@pytest.fixture(scope="module")
def everyday() -> np.ndarray:
    return draw_intensities(np.random.default_rng(1), COUNT, "bp4d")


def column(intensities: np.ndarray, au: int) -> np.ndarray:
    return of_face(intensities)[:, AUS.index(au)]


def shows(intensities: np.ndarray, au: int) -> np.ndarray:
    return column(intensities, au) >= PRESENT


def test_a_draw_is_intensities_of_both_sides(natural: np.ndarray) -> None:
    assert natural.shape == (COUNT, 17, 2) and natural.dtype == np.float32
    assert natural.min() == 0 and 4.9 < natural.max() <= 5
    assert len(AUS) == 17 and set(AUS) <= set(facs.AU_RULES) and set(AUS) <= set(facs.AU_NAMES)


def test_the_first_faces_do_not_hang_on_the_count(natural: np.ndarray) -> None:
    assert np.array_equal(draw_intensities(np.random.default_rng(0), 7), natural[:7])
    assert not np.array_equal(draw_intensities(np.random.default_rng(2), 7), natural[:7])


def test_bp4d_s_rates_and_co_occurrence(everyday: np.ndarray) -> None:
    showing = np.stack([shows(everyday, au) for au in facs.BP4D_AUS], 1)
    rates = showing.mean(0)
    # Standard errors of the draw: 0.002 of the rates, 0.005 of the conditional ones of the rarest AU.
    np.testing.assert_allclose(rates, BP4D_RATES, atol=0.008)
    given = (showing[:, :, None] & showing[:, None]).mean(0) / rates[:, None]
    assert np.abs(given - BP4D_GIVEN).max() < 0.03
    assert np.abs(given - BP4D_GIVEN).mean() < 0.006
    independent = np.tile(rates, (12, 1))
    assert np.abs(independent - BP4D_GIVEN)[~np.eye(12, dtype=bool)].max() > 0.4  # what the test can tell


def test_the_other_aus_of_everyday_faces(everyday: np.ndarray) -> None:
    assert shows(everyday, 25).mean() == pytest.approx(0.40, abs=0.03)  # a jaw that drops parts the lips
    for au in (5, 9, 20, 26):
        wanted = everyday_rates()[AUS.index(au)]
        assert shows(everyday, au).mean() == pytest.approx(wanted, abs=0.01)
    with_26 = shows(everyday, 25)[shows(everyday, 26)].mean()
    assert 0.95 < with_26 < 1  # a few jaws drop behind closed lips


def test_correlations_are_those_of_a_distribution() -> None:
    matrix = correlations()
    np.testing.assert_allclose(np.diag(matrix), 1)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-12)
    assert np.linalg.eigvalsh(matrix).min() > 0.005
    assert matrix[AUS.index(6), AUS.index(12)] > 0.7 and matrix[AUS.index(24), AUS.index(25)] < -0.5


def test_kinds_of_faces(natural: np.ndarray) -> None:
    assert sum(share for share, _ in KINDS.values()) == pytest.approx(1)
    number = present(of_face(natural)).sum(1)
    assert (number == 0).mean() == pytest.approx(KINDS["rest"][0], abs=0.03)
    assert 0.1 < (number == 1).mean() < 0.25 and (number > 9).mean() < 0.02
    # No AU is so rare that it cannot be learnt, and none is usual.
    rates = present(of_face(natural)).mean(0)
    assert rates.min() > 0.05 and rates.max() < 0.4
    # Every AU is seen alone; a dropped jaw seldom, which parts the lips.
    alone = dict(zip(AUS, present(of_face(natural))[number == 1].mean(0), strict=True))
    assert 0 < alone.pop(26) < 0.01 and min(alone.values()) > 0.03
    assert shows(natural, 6)[shows(natural, 12)].mean() > 2 * shows(natural, 6).mean()


def test_few_intensities_are_near_the_threshold(natural: np.ndarray) -> None:
    intensities = of_face(natural)
    showing = intensities[present(intensities)]
    assert (showing < 2).mean() < 0.08
    assert ((intensities > 1) & (intensities < 1.5)).sum() < 0.08 * len(showing)
    assert (intensities == 0).mean() > 0.5
    # From slight to the maximum, the strongest the rarest.
    histogram = np.histogram(showing, [2, 3, 4, 5])[0] / len(showing)
    assert histogram[0] > histogram[1] > histogram[2] > 0.1


@pytest.mark.parametrize("faces", ["natural", "everyday"])
def test_faces_are_possible(faces: str, request: pytest.FixtureRequest) -> None:
    drawn = request.getfixturevalue(faces)
    assert not (shows(drawn, 24) & (shows(drawn, 25) | shows(drawn, 26))).any()
    for a, b in ((12, 15), (12, 23), (20, 23), (12, 20), (5, 7)):
        assert np.minimum(column(drawn, a), column(drawn, b)).max() <= 2.5
    assert (shows(drawn, 12) & shows(drawn, 15)).any()  # both, but not both strongly
    assert column(drawn, 25)[shows(drawn, 23)].max() > PRESENT


def test_sides_move_by_themselves_now_and_then(natural: np.ndarray) -> None:
    right, left = natural[..., 0], natural[..., 1]
    shown = present(of_face(natural))
    uneven = (np.abs(right - left) > 0.3 * of_face(natural)) & shown
    share = uneven.sum(0) / shown.sum(0)
    for au, of_au in zip(AUS, share, strict=True):
        assert of_au == (pytest.approx(0.06, abs=0.015) if au in facs.ONE_SIDED_AUS else 0)
    assert (right < left)[uneven].mean() == pytest.approx(0.5, abs=0.05)
