from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from jaa_ext.experiments.ablate import parts_of
from jaa_ext.recipes.budget import BudgetName, shrink
from jaa_ext.recipes.datasets import STAND_IN, STAND_INS, Prepared, Rendered, Several, Synthetic
from jaa_ext.recipes.schema import Recipe, builtin_recipes, load_recipe

BUDGETS: list[BudgetName] = ["tiny", "small"]


def with_faces(name: str) -> Recipe:
    """A recipe on drawn faces."""
    return load_recipe(name).model_copy(update={"data": STAND_IN})


@pytest.mark.parametrize("name", builtin_recipes())
@pytest.mark.parametrize("budget", BUDGETS)
def test_the_experiment_stays_the_same(name: str, budget: BudgetName) -> None:
    recipe = load_recipe(name)
    small = shrink(recipe, budget)
    want, got = recipe.model.config(), small.model.config()
    sizes: dict[str, Any] = {"image_size": got.image_size, "width": got.width}
    assert dataclasses.replace(want, **sizes) == got
    assert (type(got), parts_of(small)) == (type(want), parts_of(recipe))
    changed = {"model", "data", "batch_size", "stages"}
    assert small.model_dump(exclude=changed) == recipe.model_dump(exclude=changed)
    for before, after in zip(recipe.stages, small.stages, strict=True):
        kept = {"epochs", "lr_decay_every", "warmup"}
        assert after.model_dump(exclude=kept) == before.model_dump(exclude=kept)


def test_tiny() -> None:
    small = shrink(with_faces("paper"), "tiny")
    assert (small.model.config().image_size, small.model.config().width, small.batch_size) == (64, 1, 8)
    assert small.data == Synthetic(train_subjects=4, test_subjects=2, samples_per_subject=4)
    # A tenth of 8, 2 and 2 epochs, but not less than one.
    assert [(s.epochs, s.lr, s.warmup) for s in small.stages] == [(1, 0.01, 0), (1, 0.001, 0), (1, 0.001, 0)]


def test_small() -> None:
    small = shrink(with_faces("paper"), "small")
    assert (small.model.config().image_size, small.model.config().width, small.batch_size) == (64, 4, 16)
    assert small.data == Synthetic(train_subjects=40, test_subjects=20, samples_per_subject=40)
    assert [s.epochs for s in small.stages] == [8, 2, 2]
    assert [(s.lr_decay_every, s.warmup) for s in small.stages] == [(4, 200)] * 3


def test_long_steps_keep_more_epochs_than_short_ones() -> None:
    recipe = with_faces("released")
    (stage,) = recipe.stages
    long = recipe.model_copy(update={"stages": (stage.model_copy(update={"epochs": 38}),)})
    assert shrink(long, "tiny").stages[0].epochs == 4


def test_the_kind_of_data_stays() -> None:
    drawn = Synthetic(train_subjects=9, test_subjects=9, samples_per_subject=9, seed=5, test_fold="2")
    small = shrink(load_recipe("paper").model_copy(update={"data": drawn}), "tiny").data
    assert small == Synthetic(train_subjects=4, test_subjects=2, samples_per_subject=4, seed=5, test_fold="2")
    rendered = Rendered(name="rendered", train_subjects=9, test_subjects=9, samples_per_subject=9, mix="bp4d")
    small = shrink(load_recipe("paper").model_copy(update={"data": rendered}), "tiny").data
    assert small == Rendered(
        name="rendered", train_subjects=4, test_subjects=2, samples_per_subject=4, mix="bp4d"
    )
    prepared = Prepared(name="prepared", folder="faces", test_fold="1")
    recipe = load_recipe("paper").model_copy(update={"data": prepared})
    assert shrink(recipe, "tiny").data == prepared
    several = Several(name="several", sets=(prepared, STAND_INS["rendered"]), shares=(2, 1))
    few = Rendered(name="rendered", train_subjects=4, test_subjects=2, samples_per_subject=4)
    wanted = several.model_copy(update={"sets": (prepared, few)})
    assert shrink(recipe.model_copy(update={"data": several}), "tiny").data == wanted


@pytest.mark.parametrize("name", ["paper", "abaw-2", "no-au"])
def test_a_small_recipe_is_written_and_read(tmp_path: Path, name: str) -> None:
    recipe = with_faces(name)
    before = recipe.model_copy(deep=True)
    small = shrink(recipe, "tiny")
    assert recipe == before
    (tmp_path / "small.yaml").write_text(small.to_yaml())
    again = load_recipe(tmp_path / "small.yaml")
    assert again == small
    assert again.model.config() == small.model.config()
