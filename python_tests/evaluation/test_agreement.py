"""Agreement of two tables on AUs, against numbers worked out by hand."""

import doctest

import numpy as np
import pytest

from jaa_ext.evaluation import agreement
from jaa_ext.evaluation.agreement import agreements, cohens_kappa

NAN = float("nan")


def column(*values: float) -> np.ndarray:
    return np.array(values)[:, None]


def one(present, values=None, quantity="intensity"):
    """The agreement on one AU."""
    nothing = (column(*[NAN] * len(present[0])),) * 2
    pairs = nothing if values is None else tuple(column(*part) for part in values)
    found = agreements(["AU12"], tuple(column(*part) for part in present), pairs, [quantity])
    return found[0]


def test_examples() -> None:
    assert doctest.testmod(agreement, extraglobs={"np": np}).failed == 0


class TestKappa:
    def test_of_a_table_of_four(self) -> None:
        # 20 both, 5 only a, 10 only b, 15 neither: 0.7 alike, 0.5 of it by chance.
        a = [1] * 25 + [0] * 25
        b = [1] * 20 + [0] * 5 + [1] * 10 + [0] * 15
        assert cohens_kappa(a, b) == pytest.approx(0.4)
        assert cohens_kappa(b, a) == pytest.approx(0.4)

    def test_its_ends(self) -> None:
        assert cohens_kappa([1, 0, 1, 0], [1, 0, 1, 0]) == 1
        assert cohens_kappa([1, 0, 1, 0], [0, 1, 0, 1]) == -1
        assert cohens_kappa([1, 1, 0, 0], [1, 0, 1, 0]) == 0

    def test_where_it_is_not_defined(self) -> None:
        assert cohens_kappa([], []) is None
        assert cohens_kappa([0, 0], [0, 0]) is None
        assert cohens_kappa([1, 1], [1, 1]) is None
        assert cohens_kappa([0, 0, 0], [0, 0, 1]) == 0

    def test_codings_of_other_lengths(self) -> None:
        with pytest.raises(ValueError, match=r"wanted two codings \(N,\), got \(2,\) and \(3,\)"):
            cohens_kappa([1, 0], [1, 0, 1])


class TestAgreements:
    def test_of_presence(self) -> None:
        smile = one(([1, 1, 0, 0, 1], [1, 0, 0, 0, NAN]))
        assert (smile.au, smile.frames, smile.present_a, smile.present_b) == ("AU12", 4, 0.5, 0.25)
        assert smile.kappa == 0.5 and smile.f1 == pytest.approx(2 / 3)
        assert (smile.values, smile.quantity, smile.icc, smile.mean_difference) == (0, None, None, None)

    def test_of_values(self) -> None:
        values = ([0.0, 1.0, 2.0, 3.0, NAN], [1.0, 2.0, 3.0, 4.0, 5.0])
        smile = one(([0] * 5, [0] * 5), values)
        assert smile.values == 4 and smile.quantity == "intensity"
        assert smile.icc == pytest.approx(1) and smile.pearson == pytest.approx(1)
        assert smile.mean_difference == 1 and smile.sd_difference == 0

    def test_a_wider_spread_counts_for_icc_alone(self) -> None:
        x = np.array([-1.0, 0.0, 1.0])
        smile = one(([0] * 3, [0] * 3), (x + 2, 2 * x + 2), "probability")
        assert smile.pearson == pytest.approx(1) and smile.icc == pytest.approx(0.8)
        assert smile.mean_difference == pytest.approx(0) and smile.sd_difference == pytest.approx(1)

    def test_an_au_that_nobody_sees(self) -> None:
        smile = one(([0, 0], [0, 0]))
        assert (smile.frames, smile.kappa, smile.f1) == (2, None, None)

    def test_nothing_known(self) -> None:
        smile = one(([NAN, 1], [1, NAN]), ([NAN, 1], [1, NAN]))
        assert (smile.frames, smile.present_a, smile.kappa, smile.values) == (0, None, None, 0)
        assert smile.quantity is None and smile.sd_difference is None

    def test_several_aus_are_kept_apart(self) -> None:
        a, b = np.array([[1, 0], [0, 1], [1, 1]]), np.array([[1, 1], [0, 0], [1, 0]])
        nothing = np.full((3, 2), NAN)
        first, second = agreements(["AU01", "AU04"], (a, b), (nothing, nothing), [None, None])
        assert (first.kappa, first.f1) == (1, 1)
        assert second.f1 == 0 and second.kappa is not None and second.kappa < 0
