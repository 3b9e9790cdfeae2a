"""Arguments and options that several commands take."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal

import typer


def names_options(command: Callable[..., None]) -> Callable[..., None]:
    """Let a mistake that begins with "focal_length must" begin with "--focal-length must"."""
    names = inspect.signature(command).parameters

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except ValueError as error:
            # What goes on otherwise may be a file whose name begins with this word.
            begins = re.match(r'(\w+)(?= must | wants | ")', str(error))
            if begins is None or begins[1] not in names:
                raise
            option = f"--{begins[1].replace('_', '-')}"
            raise ValueError(option + str(error)[begins.end() :]) from error

    return run


Out = Annotated[Path, typer.Option(help="Folder for the results; made if need be.")]
RecipeName = Annotated[
    str,
    typer.Argument(
        help="A YAML file, or a built-in recipe such as demo, paper, released or journal; an unknown name "
        "lists them all."
    ),
]
Data = Annotated[
    list[str] | None,
    typer.Option(
        help='A folder of `jaa prepare`, "rendered" for rendered faces or "synthetic" for drawn ones; in '
        "place of the recipe's. Given several times: all of them together; NAME=FOLDER names a data set."
    ),
]
Shares = Annotated[
    list[float] | None,
    typer.Option(
        "--share",
        help="How much of an epoch a data set gives, once for each --data in their order: 2 and 1 for two "
        "thirds and one; each face once if not given.",
    ),
]
AUs = Annotated[
    str | None,
    typer.Option(
        help="AUs of the model, with commas between, in place of the recipe's. If not given, several --data "
        "train all AUs that one of them has."
    ),
]
Fold = Annotated[str | None, typer.Option(help="The fold of the data that is tested; the others train.")]
Folds = Annotated[
    str | None,
    typer.Option(
        help="Folds to test, with commas between; if not given, all, or the test part of data that came "
        "divided into train and test."
    ),
]
Init = Annotated[
    Path | None, typer.Option(help="A model file to start from, such as one for BP4D to train for DISFA.")
]
Shrunk = Annotated[
    Literal["tiny", "small"] | None,
    typer.Option(
        help="A smaller network and schedule, on drawn faces if --data names no others: "
        "tiny takes seconds, small minutes a run."
    ),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with what --out holds; give the other options as before.")
]
Model = Annotated[
    Path | None,
    typer.Argument(
        help="A model file, *.safetensors; the weights that come with jaa_ext if not given.",
        show_default=False,
    ),
]
TestRecipe = Annotated[
    str | None, typer.Option(help="The recipe whose test set is used, if --data names no folder.")
]
TestFold = Annotated[
    str | None, typer.Option(help='The fold that is tested; "all" for every face of the folder.')
]
LARGEST_SEED = 2**63 - 1
"""See `jaa_ext.recipes.datasets`, which loads slowly."""
MOST_RESAMPLES = 1_000_000
Seed = Annotated[
    int | None, typer.Option(min=0, max=LARGEST_SEED, help="Random seed, in place of the recipe's.")
]
