"""Ablation studies of the papers: each system is trained by its own recipe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jaa_ext.distributed import require_one_process
from jaa_ext.experiments.crossval import CrossValidation, cross_validate
from jaa_ext.experiments.published import ABAW, ABLATION
from jaa_ext.experiments.tables import ResultTable, percent, percent_of_one
from jaa_ext.json_files import write_json
from jaa_ext.recipes.schema import Recipe, load_recipe
from jaa_ext.training.listener import Listener
from jaa_ext.training.run_folder import has_begun, hold_folder

Study = Literal["eccv", "abaw"]
"""Tables 3 and 4 of ECCV 2018, or Table 1 of ABAW 2021."""

STARTS_FROM = {"abaw-2": "abaw-1", "abaw-2-no-graph": "abaw-1"}
"""For each recipe that starts from the models of another one, fold by fold, that other one."""

PARTS = ("R", "HMR", "S", "D", "W", "FA", "GF", "LF", "AR", "BE", "GA", "UA")
"""Parts of a system, the columns of Table 3."""


@dataclass(frozen=True)
class Comparison:
    """The systems of a study, each cross validated."""

    study: Study
    recipes: dict[str, Recipe]
    """Recipes by their names."""
    results: dict[str, CrossValidation]
    """Results by the names of the recipes."""

    def tables(self) -> dict[str, ResultTable]:
        """Give the tables by the names of their files."""
        return self._abaw_table() if self.study == "abaw" else self._eccv_tables()

    def _eccv_tables(self) -> dict[str, ResultTable]:
        f1, landmarks = [], []
        for row in ABLATION:
            result, parts = self.results[row.recipe], parts_of(self.recipes[row.recipe])
            if row.f1 is not None:
                marks = ["x" if part in parts else "" for part in PARTS]
                ours = [percent_of_one(result.mean("f1_mean", best=best)) for best in (False, True)]
                f1.append((row.name, *marks, percent(row.f1), *ours))
            if row.mean_error is not None:
                error, failures = (percent(result.mean(s), 2) for s in ("mean_error", "failure_rate"))
                landmarks.append(
                    (row.name, percent(row.mean_error, 2), error, percent(row.failure_rate, 2), failures)
                )
        chosen = (
            '"best epoch": of each fold the one with the highest mean F1 on the very faces it is tested on, '
            "so better than on other faces."
        )
        return {
            "table3": ResultTable(
                f"ECCV 2018, Table 3: mean F1 in percent, on {self._data()}",
                ("method", *PARTS, "paper", "ours, last epoch", "ours, best epoch"),
                tuple(f1),
                self._notes("BP4D", chosen),
            ),
            "table4": ResultTable(
                f"ECCV 2018, Table 4: landmarks in percent, on {self._data()}",
                ("method", "mean error paper", "mean error ours", "failures paper", "failures ours"),
                tuple(landmarks),
                self._notes("BP4D"),
            ),
        }

    def _abaw_table(self) -> dict[str, ResultTable]:
        rows = []
        for row in ABAW:
            result = None if row.recipe is None else self.results[row.recipe]
            cells = [row.name]
            for published, score in (
                (row.f1, "f1_mean"), (row.accuracy_total, "accuracy_total"), (row.score, "abaw_score")
            ):  # fmt: skip
                ours = "" if result is None else percent_of_one(result.mean(score))
                cells += [percent(published), ours]
            rows.append(tuple(cells))
        columns = [
            f"{score} {whose}" for score in ("F1", "total accuracy", "score") for whose in ("paper", "ours")
        ]
        title = f"ABAW 2021, Table 1, in percent, on {self._data()}"
        return {"table1": ResultTable(title, ("method", *columns), tuple(rows), self._notes("Aff-Wild2"))}

    def _data(self) -> str:
        return next(iter(self.results.values())).data

    def _notes(self, published_on: str, *more: str) -> tuple[str, ...]:
        one = next(iter(self.results.values()))
        folds = ", ".join(fold.fold for fold in one.folds)
        means = (
            f'"paper" is on {published_on}; ours is the mean over the test folds {folds}, after the last '
            "epoch."
        )
        return tuple(note for note in (means, *more, one.note) if note)


def ablate(
    study: Study,
    out: Path,
    prepare: Callable[[str], Recipe],
    *,
    folds: Sequence[str] | None = None,
    resume: bool = False,
    device: str = "auto",
    listener: Listener | None = None,
) -> Comparison:
    """Train and test every system of a study.

    Writes into `out` a folder for each recipe, see `cross_validate`, and the study's tables as .md and .csv.

    Args:
        study: the study.
        out: folder, made if need be.
        prepare: gives the recipe of a name, with the data on which it is to run.
        folds, resume, device: see `cross_validate`.
        listener: is told of systems, folds, updates and epochs.

    Raises:
        RunError, ValueError: as `cross_validate`; RunError too if another process works in `out`.
    """
    require_one_process("`jaa ablate`")
    listener = listener or Listener()
    rows = ABAW if study == "abaw" else ABLATION
    recipes = {row.recipe: prepare(row.recipe) for row in rows if row.recipe is not None}
    results: dict[str, CrossValidation] = {}
    with hold_folder(out):
        for i, (name, recipe) in enumerate(recipes.items(), 1):
            listener.on_system(name, i, len(recipes))
            results[name] = cross_validate(
                recipe,
                out / name,
                folds=folds,
                init=_start(name, out),
                resume=resume,
                device=device,
                listener=listener,
            )
        comparison = Comparison(study, recipes, results)
        for name, table in comparison.tables().items():
            table.write(out, name)
        write_json(out / "ablation.json", {name: result.to_dict() for name, result in results.items()})
    return comparison


def parts_of(recipe: Recipe) -> set[str]:
    """List the parts of Table 3 that a recipe's model and loss have."""
    config, loss = recipe.model.config(), recipe.loss
    present = {
        "R": config.region == "R",
        "HMR": config.region == "HMR",
        "S": config.au_detection,
        "D": config.au_detection and loss.dice > 0,
        "W": config.au_detection and loss.weighted,
        "FA": config.alignment,
        "GF": config.global_features,
        "LF": config.attention,
        "AR": config.refinement,
        "BE": config.gradient_enhancement > 1,
        "GA": config.attention and config.decay > 0,
        "UA": config.attention and config.decay == 0,
    }
    return {part for part, there in present.items() if there}


def _start(name: str, out: Path) -> Callable[[str], Path] | None:
    if name not in STARTS_FROM:
        return None
    # Absolute, since a run resumed from another working directory must have the same recipe.
    first = (out / STARTS_FROM[name]).resolve()

    def start(fold: str) -> Path:
        run = out / name / f"fold-{fold}"
        # A begun run keeps its path though the study was moved: the weights are in its checkpoint.
        former = load_recipe(run / "recipe.yaml").init if has_begun(run) else None
        return Path(former) if former else first / f"fold-{fold}" / "model.safetensors"

    return start
