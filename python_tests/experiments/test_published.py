from __future__ import annotations

import pytest

from jaa_ext import facs
from jaa_ext.experiments.published import ABAW, ABLATION, BY_AUS
from jaa_ext.recipes.schema import builtin_recipes

ROUNDING = 0.06
"""Between a mean of figures rounded to 0.1 and the mean as printed, rounded to 0.1 too."""


@pytest.mark.parametrize("aus", BY_AUS)
def test_means_are_those_of_the_figures_of_each_au(aus: tuple[int, ...]) -> None:
    table = BY_AUS[aus]
    assert len(table.f1) == len(table.accuracy) == len(aus)
    assert abs(sum(table.f1) / len(aus) - table.f1_mean) < ROUNDING
    assert abs(sum(table.accuracy) / len(aus) - table.accuracy_mean) < ROUNDING


def test_the_ablation_ends_in_the_system_of_table_1() -> None:
    rows = {row.name: row for row in ABLATION}
    table = BY_AUS[facs.BP4D_AUS]
    assert rows["JAA-Net"].f1 == table.f1_mean
    assert (rows["JAA-Net"].mean_error, rows["JAA-Net"].failure_rate) == (
        table.mean_error,
        table.failure_rate,
    )


def test_the_score_of_abaw_is_the_mean_of_f1_and_accuracy() -> None:
    rows = [row for row in ABAW if row.score is not None]
    assert len(rows) == 3
    for row in rows:
        assert abs((row.f1 + row.accuracy_total) / 2 - row.score) < ROUNDING


def test_every_row_has_a_recipe_of_its_own() -> None:
    recipes = [row.recipe for row in (*ABLATION, *ABAW) if row.recipe is not None]
    assert len(set(recipes)) == len(recipes) == len(ABLATION) + len(ABAW) - 1
    assert set(recipes) <= set(builtin_recipes())
    assert [row.name for row in ABAW if row.recipe is None] == ["Baseline"]
