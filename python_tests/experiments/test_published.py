from __future__ import annotations

import pytest

from jaa_ext import facs
from jaa_ext.experiments.published import ABAW, ABLATION, BY_AUS
from jaa_ext.recipes.schema import builtin_recipes

ROUNDING = 0.06
"""Between a mean of figures rounded to 0.1 and the mean as printed, rounded to 0.1 too."""


def test_bp4d_and_disfa_are_there() -> None:
    assert set(BY_AUS) == {facs.BP4D_AUS, facs.DISFA_AUS}
    assert "BP4D" in BY_AUS[facs.BP4D_AUS].title and "Table 1" in BY_AUS[facs.BP4D_AUS].title
    assert "DISFA" in BY_AUS[facs.DISFA_AUS].title and "Table 2" in BY_AUS[facs.DISFA_AUS].title


@pytest.mark.parametrize("aus", BY_AUS)
def test_means_are_those_of_the_figures_of_each_au(aus: tuple[int, ...]) -> None:
    table = BY_AUS[aus]
    assert len(table.f1) == len(table.accuracy) == len(aus)
    assert abs(sum(table.f1) / len(aus) - table.f1_mean) < ROUNDING
    assert abs(sum(table.accuracy) / len(aus) - table.accuracy_mean) < ROUNDING


def test_figures_of_single_aus() -> None:
    """Where a figure stands in the row, not only that it is there."""
    bp4d, disfa = (
        {au: (f1, accuracy) for au, f1, accuracy in zip(aus, table.f1, table.accuracy, strict=True)}
        for aus, table in BY_AUS.items()
    )
    assert (bp4d[1], bp4d[12], bp4d[15], bp4d[24]) == ((47.2, 74.7), (86.9, 85.4), (43.6, 83.1), (41.9, 85.4))
    assert (bp4d[2], bp4d[14], bp4d[17], bp4d[23]) == ((44.0, 80.8), (61.9, 64.8), (60.3, 73.5), (42.7, 82.3))
    assert (bp4d[4], bp4d[6], bp4d[7], bp4d[10]) == ((54.9, 80.4), (77.5, 78.9), (74.6, 71.0), (84.0, 80.2))
    assert (disfa[1], disfa[2], disfa[4]) == ((43.7, 93.4), (46.2, 96.1), (56.0, 86.9))
    assert (disfa[6], disfa[9], disfa[12]) == ((41.4, 91.4), (44.7, 95.8), (69.6, 91.2))
    assert (disfa[25], disfa[26]) == ((88.3, 93.4), (58.4, 93.2))


def test_means_as_printed() -> None:
    bp4d, disfa = BY_AUS[facs.BP4D_AUS], BY_AUS[facs.DISFA_AUS]
    assert (bp4d.f1_mean, bp4d.accuracy_mean) == (60.0, 78.4)
    assert (disfa.f1_mean, disfa.accuracy_mean) == (56.0, 92.7)
    assert bp4d.others_f1 == {
        "LSVM": 35.3, "JPML": 45.9, "DRML": 48.3, "CPM": 50.0, "EAC-Net": 55.9, "ROI": 56.4,
        "JAA-Net (IJCV)": 62.4,
    }  # fmt: skip
    assert bp4d.others_accuracy == {"LSVM": 32.2, "JPML": 50.5, "DRML": 56.0, "EAC-Net": 75.2}
    assert disfa.others_f1 == {
        "LSVM": 21.8, "APL": 23.8, "DRML": 26.7, "EAC-Net": 48.5, "JAA-Net (IJCV)": 63.5,
    }  # fmt: skip
    assert disfa.others_accuracy == {"LSVM": 27.5, "APL": 46.0, "DRML": 52.3, "EAC-Net": 80.6}


def test_the_ablation_of_tables_3_and_4() -> None:
    rows = {row.name: (row.f1, row.mean_error, row.failure_rate) for row in ABLATION}
    assert rows == {
        "R-Net": (54.9, None, None),
        "HMR-Net": (55.8, None, None),
        "HMR-Net+D": (56.6, None, None),
        "HMR-Net+DW": (57.4, None, None),
        "HMR-Net+DWA": (58.0, 11.86, 65.84),
        "JAA-Net": (60.0, 6.38, 3.27),
        "JAA-Net w/o AR": (57.4, 12.32, 53.48),
        "JAA-Net w/o BE": (59.1, 9.21, 34.46),
        "JAA-Net w/o GA": (57.3, 14.14, 76.04),
        "JAA-Net w/o AU": (None, 12.23, 66.85),
    }
    assert BY_AUS[facs.BP4D_AUS].f1_mean == rows["JAA-Net"][0]


def test_abaw() -> None:
    rows = {row.name: (row.f1, row.accuracy_total, row.score) for row in ABAW}
    assert rows == {
        "Baseline": (40.0, 22.0, 31.0),
        "JAA-Net": (44.4, 87.9, 66.2),
        "JAA-Net, second stage": (None, None, None),
        "JAA-Net with the graph": (46.7, 88.0, 67.4),
    }
    for f1, accuracy, score in rows.values():
        if f1 is not None and accuracy is not None and score is not None:
            assert abs((f1 + accuracy) / 2 - score) < ROUNDING


def test_every_row_has_a_recipe_of_its_own() -> None:
    recipes = [row.recipe for row in (*ABLATION, *ABAW) if row.recipe is not None]
    assert len(set(recipes)) == len(recipes) == len(ABLATION) + len(ABAW) - 1
    assert set(recipes) <= set(builtin_recipes())
    assert [row.name for row in ABAW if row.recipe is None] == ["Baseline"]
