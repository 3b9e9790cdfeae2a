"""Asymmetry against differences that are worked out by hand."""

from collections.abc import Sequence

import numpy as np
import pytest

from jaa_ext import facs
from jaa_ext.predict.asymmetry import asymmetry, asymmetry_columns

NAMES = ["AU12R", "AU01", "AU12L", "AU04L", "AU01L", "AU01R"]


def test_it_is_left_minus_right() -> None:
    p = np.array([[0.2, 0.5, 0.9, 1.0, 0.25, 0.75], [1.0, 0.5, 0.0, 1.0, 0.1 + 0.2, 0.3]])
    found = asymmetry({"c": p, "p": p, "r": 5 * p}, NAMES)
    assert list(found) == [
        *(("p", "AU12_asymmetry"), ("p", "AU01_asymmetry")),
        *(("r", "AU12_asymmetry_intensity"), ("r", "AU01_asymmetry_intensity")),
    ]
    assert found["p", "AU12_asymmetry"].tolist() == [0.7, -1.0]
    assert found["p", "AU01_asymmetry"].tolist() == [-0.5, 0.0]
    assert found["r", "AU12_asymmetry_intensity"].tolist() == [3.5, -5.0]
    assert asymmetry_columns(NAMES, "p") == ["AU12_asymmetry", "AU01_asymmetry"]
    assert asymmetry_columns(NAMES, "pr") == [column for _, column in found]
    assert asymmetry_columns(["AU12", "AU04L"], "pr") == []


def test_it_is_that_of_the_digits_in_tables() -> None:
    """Or a reader who subtracts two columns would get another number."""
    p = np.float32([0.1234564, 0.1234566])
    assert asymmetry({"p": p}, ["AU12L", "AU12R"])["p", "AU12_asymmetry"] == pytest.approx(-1e-6, abs=1e-12)
    zero = asymmetry({"p": np.array([0.3, 0.3000001])}, ["AU12L", "AU12R"])["p", "AU12_asymmetry"]
    assert f"{zero:.6f}" == "0.000000"


def test_the_pairs_of_many_rows_are_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    whole = facs.group_sides

    def spy(names: Sequence[str]) -> list[tuple[str, ...]]:
        found.append(names)
        return whole(names)

    monkeypatch.setattr(facs, "group_sides", spy)
    names = [*NAMES, "AU99L"]
    for value in range(5):
        asymmetry({"p": np.full(7, value / 5)}, names)
        asymmetry_columns(names, "p")
    assert len(found) == 1


def test_what_is_not_known_stays_unknown() -> None:
    found = asymmetry({"p": np.array([np.nan, 0.5])}, ["AU12L", "AU12R"])
    assert np.isnan(found["p", "AU12_asymmetry"])
