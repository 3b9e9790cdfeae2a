"""The folder of a training run, and its logs."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaa_ext.atomic import replacing, sync
from jaa_ext.engine.criterion import TERMS
from jaa_ext.engine.recipe import Recipe, difference, load_recipe

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class RunError(RuntimeError):
    """The folder of a run cannot be used as asked."""


def open_run(recipe: Recipe, out: Path, *, resume: bool) -> None:
    """Make the folder and put the recipe there, or, to resume, see that it holds a run by the same recipe.

    Raises:
        RunError: otherwise.
    """
    if not resume:
        require_no_run(out)
        with replacing(out / "recipe.yaml") as temporary:
            temporary.write_text(recipe.to_yaml(), encoding="utf-8")
        return
    if not has_begun(out):
        raise RunError(f"{out}: no run to resume (no checkpoint.pt)")
    former = load_recipe(out / "recipe.yaml")
    if former != recipe:
        raise RunError(
            f"{out}: was begun by another recipe ({difference(former, recipe)}); "
            "resume it by its own, recipe.yaml, or give another folder"
        )


def has_begun(out: Path) -> bool:
    """Whether a folder holds a run that can be resumed."""
    return (out / "checkpoint.pt").exists()


def require_no_run(out: Path) -> None:
    """Raise a `RunError` if a folder holds a run."""
    if has_begun(out):
        raise RunError(f"{out}: holds a run already; resume it, or give another folder")


class Log:
    """losses.csv, history.json and TensorBoard of a run."""

    def __init__(self, out: Path, losses: Any, board: SummaryWriter) -> None:
        self.out, self.losses, self.board = out, losses, board

    @classmethod
    @contextmanager
    def opened(cls, out: Path, iteration: int) -> Iterator[Log]:
        """To go on after `iteration` iterations; what was logged beyond them is dropped."""
        from torch.utils.tensorboard import SummaryWriter

        path = out / "losses.csv"
        columns = ["iteration", "epoch", *TERMS]
        rows = path.read_text(encoding="utf-8").splitlines()[1 : iteration + 1] if path.exists() else []
        with replacing(path) as temporary:
            temporary.write_text("\n".join([",".join(columns), *rows, ""]), encoding="utf-8")
        board = SummaryWriter(str(out / "tensorboard"), purge_step=iteration)
        with path.open("a", buffering=1) as file, board:
            yield cls(out, csv.DictWriter(file, columns, restval="", lineterminator="\n"), board)

    def iteration(self, number: int, epoch: int, losses: dict[str, float]) -> None:
        """Numbers count from 1."""
        self.losses.writerow({"iteration": number, "epoch": epoch, **losses})
        for name, value in losses.items():
            self.board.add_scalar(f"loss/{name}", value, number)

    def epoch(self, iteration: int, scores: dict[str, float], history: list[dict[str, Any]]) -> None:
        """Scores for TensorBoard, and the history of all epochs so far."""
        for name, value in scores.items():
            self.board.add_scalar(f"test/{name}", value, iteration)
        with replacing(self.out / "history.json") as temporary:
            temporary.write_text(json.dumps(history, indent=1) + "\n", encoding="utf-8")

    def sync(self) -> None:
        """To the disk: a checkpoint must never know more iterations than losses.csv."""
        sync(self.out / "losses.csv")
