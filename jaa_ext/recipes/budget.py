"""Smaller variants of recipes, which run from end to end in short time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaa_ext.recipes.datasets import BuiltIn, OneSet, Several
from jaa_ext.recipes.schema import Recipe

BudgetName = Literal["tiny", "small"]


@dataclass(frozen=True)
class Budget:
    """Sizes of a shrunken recipe."""

    image_size: int
    width: int
    subjects: tuple[int, int]
    """Numbers of subjects of built-in faces for training and for testing."""
    samples_per_subject: int
    batch_size: int
    epochs: float
    """Share of each stage's epochs that is kept; at least one epoch."""
    decay_every: int
    """Factor of the epochs between two decays of the rate."""
    warmup: int
    """Iterations over which the learning rate of a stage rises."""


BUDGETS: dict[BudgetName, Budget] = {
    "tiny": Budget(
        image_size=64, width=1, subjects=(4, 2), samples_per_subject=4, batch_size=8,
        epochs=0.1, decay_every=1, warmup=0,
    ),
    "small": Budget(
        image_size=64, width=4, subjects=(40, 20), samples_per_subject=40, batch_size=16,
        epochs=1, decay_every=2, warmup=200,
    ),
}  # fmt: skip
"""tiny takes seconds, for tests. small takes minutes a run on two cores; with a hundred iterations an epoch,
where the papers have ten thousand, its learning rate must rise gently and decay late."""


def shrink(recipe: Recipe, budget: BudgetName) -> Recipe:
    """Make a recipe of the same experiment with a smaller network, fewer faces and fewer epochs.

    Prepared data must have been prepared at a size that suits the smaller network; built-in faces are.
    """
    small = BUDGETS[budget]
    data = recipe.data
    if isinstance(data, Several):
        data = data.model_copy(update={"sets": tuple(_shrunk(section, small) for section in data.sets)})
    else:
        data = _shrunk(data, small)
    stages = tuple(
        stage.model_copy(
            update={
                "epochs": max(1, round(small.epochs * stage.epochs)),
                "lr_decay_every": small.decay_every * stage.lr_decay_every,
                "warmup": small.warmup,
            }
        )
        for stage in recipe.stages
    )
    model = recipe.model.model_copy(update={"image_size": small.image_size, "width": small.width})
    return recipe.model_copy(
        update={"model": model, "data": data, "batch_size": small.batch_size, "stages": stages}
    )


def _shrunk(data: OneSet, small: Budget) -> OneSet:
    """Give fewer built-in faces."""
    if not isinstance(data, BuiltIn):
        return data
    sizes = (*small.subjects, small.samples_per_subject)
    names = ("train_subjects", "test_subjects", "samples_per_subject")
    return data.model_copy(update=dict(zip(names, sizes, strict=True)))
