"""The commands that train: train, crossval, ablate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from jaa_ext.cli.options import AUs, Data, Fold, Folds, Init, Out, RecipeName, Resume, Seed, Shares, Shrunk
from jaa_ext.cli.output import Device, console, say_where, show_scores, show_table
from jaa_ext.cli.progress import say

if TYPE_CHECKING:
    from jaa_ext.recipes import Recipe


def train(
    recipe: RecipeName,
    out: Out,
    data: Data = None,
    share: Shares = None,
    aus: AUs = None,
    fold: Fold = None,
    init: Init = None,
    budget: Shrunk = None,
    resume: Resume = False,
    seed: Seed = None,
    device: Device = "auto",
) -> None:
    """Train a model by a recipe and test it after every epoch."""
    from jaa_ext.cli.training_progress import training_progress
    from jaa_ext.device import is_main_process
    from jaa_ext.training import train as run

    chosen = _recipe(recipe, data, share, aus, budget, seed, fold=fold, init=init)
    console.quiet = not is_main_process()
    _say_sets(chosen)
    with training_progress(console) as listener:
        scores = run(chosen, out, resume=resume, device=device, listener=listener)
    show_scores(scores)
    say_where(
        {
            out / "model.safetensors": "the trained model",
            out / "metrics.json": "its scores (metrics.csv likewise)",
            out / "predictions.csv": "labels, probabilities and landmarks of each test face",
            out / "history.json": "losses and scores of each epoch",
            out / "tensorboard": "the same for TensorBoard",
        }
    )


def crossval(
    recipe: RecipeName,
    out: Out,
    data: Data = None,
    share: Shares = None,
    aus: AUs = None,
    folds: Folds = None,
    leave_out: Annotated[
        Literal["fold", "data"],
        typer.Option(
            help='"fold": each fold is tested by a model of the others; "data": each data set of several, '
            "with all its faces; --folds then names data sets."
        ),
    ] = "fold",
    init: Annotated[
        str | None,
        typer.Option(help='Model file to start each fold from; "{fold}" in it stands for the fold.'),
    ] = None,
    budget: Shrunk = None,
    resume: Resume = False,
    seed: Seed = None,
    device: Device = "auto",
) -> None:
    """Train a recipe once for each fold of its data, test it on that fold, and print the papers' tables.

    Or once for each data set of several: --leave-out data.
    """
    from jaa_ext.cli.training_progress import training_progress
    from jaa_ext.experiments.crossval import cross_validate

    chosen = _recipe(recipe, data, share, aus, budget, seed)
    _say_sets(chosen)
    with training_progress(console, fold="fold" if leave_out == "fold" else "without") as listener:
        result = cross_validate(
            chosen,
            out,
            folds=_split(folds),
            leave_out=leave_out,
            init=None if init is None else lambda fold: Path(init.replace("{fold}", fold)),
            resume=resume,
            device=device,
            listener=listener,
        )
    tables = result.tables()
    for table in tables.values():
        show_table(table)
    what = "fold" if leave_out == "fold" else "data set"
    say_where(
        {
            **{out / f"{name}.md": f"the table of {name} ({name}.csv likewise)" for name in tables},
            out / "crossval.json": "the scores of every fold, after its last and its best epoch",
            **{out / f"fold-{fold.fold}": f"the run that tests {what} {fold.fold}" for fold in result.folds},
        }
    )


def ablate(
    out: Out,
    study: Annotated[
        Literal["eccv", "abaw"],
        typer.Option(help='"eccv": Tables 3 and 4 of ECCV 2018; "abaw": Table 1 of ABAW 2021.'),
    ] = "eccv",
    data: Data = None,
    share: Shares = None,
    aus: AUs = None,
    folds: Folds = None,
    budget: Shrunk = None,
    resume: Resume = False,
    seed: Seed = None,
    device: Device = "auto",
) -> None:
    """Train and test every system that a paper compares, and print its tables."""
    from jaa_ext.cli.training_progress import training_progress
    from jaa_ext.experiments.ablate import ablate as run

    with training_progress(console) as listener:
        comparison = run(
            study,
            out,
            lambda name: _recipe(name, data, share, aus, budget, seed),
            folds=_split(folds),
            resume=resume,
            device=device,
            listener=listener,
        )
    tables = comparison.tables()
    for table in tables.values():
        show_table(table)
    say_where(
        {
            **{out / f"{name}.md": f"{table.title} ({name}.csv likewise)" for name, table in tables.items()},
            out / "ablation.json": "the scores of every system and fold",
            **{out / name: "its runs" for name in comparison.results},
        }
    )


def _recipe(
    name: str,
    data: list[str] | None,
    share: list[float] | None,
    aus: str | None,
    budget: Literal["tiny", "small"] | None,
    seed: int | None,
    *,
    fold: str | None = None,
    init: Path | None = None,
) -> Recipe:
    """Load a recipe and replace the values that the options of the command set."""
    from jaa_ext.facs import parse_au
    from jaa_ext.recipes.budget import shrink
    from jaa_ext.recipes.datasets import Several, choose_data, union_of
    from jaa_ext.recipes.schema import load_recipe

    recipe = load_recipe(name)
    if budget is not None and not data and getattr(recipe.data, "folder", "") is None:
        data = ["synthetic"]
    chosen = choose_data(recipe.data, data, fold, share)
    update: dict[str, Any] = {"data": chosen}
    if aus is not None:
        numbers = [parse_au(au) for au in _split(aus) or ()]
        if len(set(numbers)) < len(numbers):
            raise ValueError(f"--aus: wanted each AU once, got {aus}")
        update["model"] = recipe.model.with_aus(numbers)
    elif isinstance(chosen, Several) and not isinstance(recipe.data, Several):
        union = union_of(chosen)
        try:
            update["model"] = recipe.model.with_aus(union)
        except ValueError as error:
            raise ValueError(f"{error} (--aus with the AUs of the model leaves it out)") from None
    if seed is not None:
        update["seed"] = seed
    if init is not None:
        update["init"] = str(init)
    recipe = recipe.model_copy(update=update)
    return recipe if budget is None else shrink(recipe, budget)


def _say_sets(recipe: Recipe) -> None:
    """Print which AUs are trained, what each of several data sets is, and which of them it has."""
    from jaa_ext.facs import au_numbers
    from jaa_ext.recipes.datasets import Several

    if not isinstance(recipe.data, Several):
        return
    aus = au_numbers(recipe.model.aus)
    say(console, f"AUs of the model: {', '.join(map(str, aus))}.")
    for name, section in zip(recipe.data.set_names(), recipe.data.sets, strict=True):
        own = [str(au) for au in aus if au in section.known_aus()]
        has = "all of them" if len(own) == len(aus) else ", ".join(own) or "none"
        say(console, f"  {name} ({section.title}) has {has}.")


def _split(text: str | None) -> list[str] | None:
    return None if text is None else [part.strip() for part in text.split(",")]
