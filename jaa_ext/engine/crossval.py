"""Cross validation: one run for each fold, and the tables of the papers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from jaa_ext.atomic import replacing
from jaa_ext.engine.metrics import Scores
from jaa_ext.engine.published import BY_AUS
from jaa_ext.engine.recipe import Recipe
from jaa_ext.engine.run import RunError, open_run
from jaa_ext.engine.tables import ResultTable, mean, percent, percent_of_one
from jaa_ext.engine.trainer import train


@dataclass(frozen=True)
class FoldResult:
    """What the run of a fold gave."""

    fold: str
    last: Scores
    """After the last epoch."""
    best: Scores
    """After the epoch of the highest mean F1 on this very fold (without AUs: of the lowest mean error)."""
    best_epoch: int
    """From 1."""


@dataclass(frozen=True)
class CrossValidation:
    """The folds of a recipe."""

    recipe: str
    data: str
    """What it ran on, in words."""
    folds: tuple[FoldResult, ...]

    @property
    def aus(self) -> tuple[int, ...]:
        return self.folds[0].last.aus

    @property
    def note(self) -> str:
        return self.folds[0].last.note

    def mean(self, score: str, *, best: bool = False) -> float | None:
        """The mean over the folds of one of `Scores`' figures, such as "f1_mean"."""
        return mean([getattr(fold.best if best else fold.last, score) for fold in self.folds])

    def mean_of_au(self, score: str, au: int, *, best: bool = False) -> float | None:
        """The mean over the folds of an AU's "f1" or "accuracy"; None if no fold has a valid label of it."""
        return mean([_of_au(fold.best if best else fold.last, score, au) for fold in self.folds])

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and text."""
        folds = [
            {
                "fold": fold.fold,
                "last": fold.last.to_dict(),
                "best": fold.best.to_dict(),
                "best_epoch": fold.best_epoch,
            }
            for fold in self.folds
        ]
        return {"recipe": self.recipe, "data": self.data, "folds": folds}

    def table(self) -> ResultTable:
        """F1 and accuracy in percent, in the layout of the papers' Tables 1 and 2.

        A row for each AU and their mean; the published figure, each fold, the folds' mean, and that of each
        fold's best epoch.
        """
        published = BY_AUS.get(self.aus)
        rows = []
        if self.folds[0].last.f1 is not None:
            for i, au in enumerate(self.aus):
                cells = [f"{au}"]
                for score in ("f1", "accuracy"):
                    cells += ["" if published is None else percent(getattr(published, score)[i])]
                    cells += [percent_of_one(_of_au(fold.last, score, au)) for fold in self.folds]
                    cells += [percent_of_one(self.mean_of_au(score, au, best=best)) for best in (False, True)]
                rows.append(tuple(cells))
            cells = ["Avg"]
            for score in ("f1_mean", "accuracy_mean"):
                cells += ["" if published is None else percent(getattr(published, score))]
                cells += [percent_of_one(getattr(fold.last, score)) for fold in self.folds]
                cells += [percent_of_one(self.mean(score, best=best)) for best in (False, True)]
            rows.append(tuple(cells))
        header = ["AU"]
        for word in ("F1", "Acc."):
            header += [f"{word} paper", *(f"{word} fold {fold.fold}" for fold in self.folds)]
            header += [f"{word} mean", f"{word} best"]
        return ResultTable(
            f"{self.recipe} on {self.data}, in percent", tuple(header), tuple(rows), tuple(self._notes())
        )

    def _notes(self) -> list[str]:
        epochs = ", ".join(f"fold {fold.fold}: {fold.best_epoch}" for fold in self.folds)
        notes = [
            'Folds and "mean" are after the last epoch. "best" is the mean over each fold\'s epoch of the '
            f"highest mean F1 on the very faces it is tested on ({epochs}): better than on other faces."
        ]
        if self.mean("mean_error") is not None:
            notes.append(
                f"Landmarks, last epoch: mean error {percent(self.mean('mean_error'), 2)} % of the distance "
                f"between the eyes, failures {percent(self.mean('failure_rate'), 2)} %."
            )
        published = BY_AUS.get(self.aus)
        if published is not None:
            f1, accuracy = (
                ", ".join(f"{name} {value:.1f}" for name, value in others.items())
                for others in (published.others_f1, published.others_accuracy)
            )
            notes.append(
                f'"paper" is JAA-Net on {published.title}; means of others there: F1 {f1}; '
                f"accuracy {accuracy}."
            )
        return [*notes, *([self.note] if self.note else [])]


def cross_validate(
    recipe: Recipe,
    out: Path,
    *,
    folds: Sequence[str] | None = None,
    init: Callable[[str], Path] | None = None,
    resume: bool = False,
    device: str = "auto",
    console: Console | None = None,
) -> CrossValidation:
    """Train and test a recipe on each fold of its data: on all others, and on this one.

    Weights of AUs, the mean face and a graph come from each fold's training set alone. Writes into `out` a
    folder for each fold, see `train`, and crossval.json, crossval.md and crossval.csv.

    Args:
        recipe: its data's `test_fold` is not looked at.
        out: folder, made if need be.
        folds: the folds to test, None for all.
        init: gives the model file that a fold's training starts from, in place of the recipe's `init`.
        resume: go on with what `out` holds: finished folds are read, a begun one is resumed.
        device, console: see `train`.

    Raises:
        RunError: `out` holds runs already, and they are not to be resumed or are of another recipe.
        ValueError: a fold that the data does not have, or what `train` raises.
    """
    console = console or Console()
    known = recipe.data.folds()
    unknown = [fold for fold in folds or () if fold not in known]
    if unknown:
        raise ValueError(f'there is no fold "{unknown[0]}" to test, wanted some of {", ".join(known)}')
    chosen = tuple(folds or known)
    runs = {fold: out / f"fold-{fold}" for fold in chosen}
    if not resume:
        for folder in runs.values():
            if (folder / "checkpoint.pt").exists():
                raise RunError(f"{folder}: holds a run already; resume it, or give another folder")
    results = []
    for place, (fold, folder) in enumerate(runs.items(), 1):
        update: dict[str, Any] = {"data": recipe.data.model_copy(update={"test_fold": fold})}
        if init is not None:
            update["init"] = str(init(fold))
        console.print(f"{recipe.name}: fold {fold} ({place} of {len(runs)})", highlight=False)
        results.append(_run_fold(recipe.model_copy(update=update), fold, folder, device, console))
    result = CrossValidation(recipe.name, recipe.data.title, tuple(results))
    with replacing(out / "crossval.json") as temporary:
        temporary.write_text(json.dumps(result.to_dict(), indent=1) + "\n")
    result.table().write(out, "crossval")
    return result


def _run_fold(recipe: Recipe, fold: str, folder: Path, device: str, console: Console) -> FoldResult:
    begun = (folder / "checkpoint.pt").exists()
    if begun and (folder / "metrics.json").exists():
        open_run(recipe, folder, resume=True)  # sees that it is by the same recipe
    else:
        train(recipe, folder, resume=begun, device=device, console=console)
    history = json.loads((folder / "history.json").read_text())
    epochs = [Scores.from_dict(entry["scores"]) for entry in history]
    best = max(range(len(epochs)), key=lambda i: _quality(epochs[i]))
    return FoldResult(fold, epochs[-1], epochs[best], best + 1)


def _quality(scores: Scores) -> float:
    """The higher the better."""
    if scores.f1_mean is not None:
        return scores.f1_mean
    assert scores.mean_error is not None
    return -scores.mean_error


def _of_au(scores: Scores, score: str, au: int) -> float | None:
    values = getattr(scores, score)
    return None if values is None else values[scores.aus.index(au)]
