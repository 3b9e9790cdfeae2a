"""Cross validation: a run for each fold, and the tables of the papers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel

from jaa_ext.data.combined import union_of_aus
from jaa_ext.data.prepared import require_known
from jaa_ext.device import resolve_device
from jaa_ext.distributed import require_one_process
from jaa_ext.evaluation.bootstrap import bootstrap_intervals
from jaa_ext.evaluation.metrics import mean
from jaa_ext.evaluation.results import read_predictions
from jaa_ext.evaluation.scores import PER_AU, Interval, Scores
from jaa_ext.experiments.published import BY_AUS, PublishedTable
from jaa_ext.experiments.tables import ResultTable, percent
from jaa_ext.facs import AU
from jaa_ext.json_files import read_json, write_json
from jaa_ext.recipes.datasets import Several, folds_to_test, with_fold
from jaa_ext.recipes.schema import Recipe
from jaa_ext.score_text import score_text
from jaa_ext.training.listener import Listener
from jaa_ext.training.precision import recipe_on
from jaa_ext.training.run import train
from jaa_ext.training.run_folder import has_begun, hold_folder, is_finished, open_run, require_no_run

LeftOut = Literal["fold", "data"]
"""What each run of a cross validation leaves to its test: a fold of the subjects, or a whole data set."""

NOISE = (
    "Between two tables of three folds, differences of mean F1 below about 6.5 points (0.065) are noise: so "
    "it was found of random folds of BP4D+ (arXiv 2604.02162)."
)


@dataclass(frozen=True)
class FoldResult:
    """Scores of the run of a fold."""

    fold: str
    """The fold, or the data set that is left out."""
    last: Scores
    """After the last epoch."""
    best: Scores
    """After the epoch of the highest mean F1 on this very fold (without AUs: of the lowest mean error)."""
    best_epoch: int
    """Number of that epoch, from 1."""
    f1_intervals: dict[str, Interval | None] = field(default_factory=dict)
    """95 % interval of the mean F1 after the last epoch, over resamples of the subjects: of all faces by the
    name "", of each data set of several by its own. None or nothing where it is not known."""


@dataclass(frozen=True)
class CrossValidation:
    """Scores of all folds of a recipe."""

    recipe: str
    data: str
    """Description of the data."""
    folds: tuple[FoldResult, ...]
    """At least one fold, all of the same AUs."""
    leave_out: LeftOut = "fold"
    data_set: str | None = None
    """Own name of the data set, such as "BP4D"; None of several, or where it is not known."""
    divided: tuple[str, ...] = ()
    """Names of those of several data sets of which every fold tests the same part."""
    own_names: dict[str, str] = field(default_factory=dict)
    """Own names of several data sets by those that they are called; one that is not here has but one."""

    def __post_init__(self) -> None:
        if not self.folds:
            raise ValueError("a cross validation has at least one fold")
        kinds = {
            (
                scores.aus,
                scores.f1 is None,
                scores.accuracy is None,
                scores.failure_rate is None,
                tuple(scores.sets or ()),
            )
            for fold in self.folds
            for scores in (fold.last, fold.best)
        }
        if len(kinds) > 1:
            raise ValueError("the folds have scores of different AUs, models or data sets")

    @property
    def aus(self) -> tuple[AU, ...]:
        return self.folds[0].last.aus

    @property
    def note(self) -> str:
        notes = dict.fromkeys(fold.last.note for fold in self.folds)
        # Where data sets are left out, one model may have the notes of two of them.
        return " ".join(note for note in notes if not any(note in other and note != other for other in notes))

    def mean(self, score: str, *, best: bool = False) -> float | None:
        """Give the mean over the folds of a field of `Scores`, such as "f1_mean"."""
        return mean([getattr(fold.best if best else fold.last, score) for fold in self.folds])

    def to_dict(self) -> dict[str, Any]:
        """Give plain numbers, lists and text."""
        folds = [
            {**vars(fold), "last": fold.last.to_dict(), "best": fold.best.to_dict()} for fold in self.folds
        ]
        return {**vars(self), "folds": folds}

    def tables(self) -> dict[str, ResultTable]:
        """Give the tables of F1, accuracy and landmarks in percent, by the names of their files.

        F1 and accuracy have the layout of the papers' Tables 1 and 2: a row for each AU and one for their
        mean. The columns are the published figure of the data set, if there is one (none where data sets were
        left out, and of several together), each fold and their mean
        after the last epoch, and the mean over the folds' best epochs. Where the folds are of several data
        sets, the tables of each follow, such as "f1-DISFA", with the AUs that it has.
        """
        tables = self._tables()
        for name in self.folds[0].last.sets or ():
            tables |= {f"{kind}-{name}": table for kind, table in self._of_set(name)._tables().items()}
        return tables

    def _of_set(self, name: str) -> CrossValidation:
        """Give the scores of one of several data sets, of the AUs that it has labels of."""
        parts = [fold.last.sets[name] for fold in self.folds if fold.last.sets is not None]
        kept = [i for i in range(len(self.aus)) if any(part.of("valid", i)[0] != 0 for part in parts)]

        def of(scores: Scores) -> Scores:
            assert scores.sets is not None
            part = scores.sets[name]
            per_au = {"aus": part.aus, **{score: getattr(part, score) for score in PER_AU}}
            picked: dict[str, Any] = {k: v and tuple(v[i] for i in kept) for k, v in per_au.items()}
            return replace(part, **picked, intervals=None)

        folds = tuple(
            replace(
                fold,
                last=of(fold.last),
                best=of(fold.best),
                f1_intervals={"": fold.f1_intervals.get(name)},
            )
            for fold in self.folds
        )
        divided = tuple(other for other in self.divided if other == name)
        own = self.own_names.get(name, name)
        data = f"{name} (of {self.data})"
        return replace(self, data=data, data_set=own, divided=divided, folds=folds)

    def _tables(self) -> dict[str, ResultTable]:
        tables = {}
        for score, word in (("f1", "F1"), ("accuracy", "accuracy")):
            if self.folds[0].last.f1 is None:
                continue
            rows = [self._row(str(au), score, 100, 1, i) for i, au in enumerate(self.aus)]
            tables[score] = self._table(word, [*rows, self._row("Avg", f"{score}_mean", 100, 1)])
        if self.folds[0].last.mean_error is not None:
            rows = [self._row("mean error", "mean_error", 1, 2), self._row("failures", "failure_rate", 1, 2)]
            tables["landmarks"] = self._table("landmarks", rows)
        return tables

    def _row(
        self, name: str, score: str, factor: float, digits: int, au: int | None = None
    ) -> tuple[str, ...]:
        """Give a row: the score as published, which is in percent, and those of the folds times a factor."""

        def of(scores: Any) -> float | None:
            value = getattr(scores, score)
            return value if au is None else value[au]  # type: ignore[no-any-return]

        published = self._published()
        paper = None if published is None else of(published)
        last, best = ([of(getattr(fold, which)) for fold in self.folds] for which in ("last", "best"))
        figures = [None if value is None else factor * value for value in (*last, mean(last), mean(best))]
        papers = [paper] if self.leave_out == "fold" else []
        return (name, *(percent(value, digits) for value in (*papers, *figures)))

    def _published(self) -> PublishedTable | None:
        """Give what the papers report of this data set; where it is not known, the AUs tell which."""
        if self.leave_out == "data" or self.folds[0].last.sets is not None:
            return None
        table = BY_AUS.get(self.aus)
        return table if table and (self.data_set is None or table.is_of(self.data_set)) else None

    def _label(self, fold: FoldResult) -> str:
        return f"fold {fold.fold}" if self.leave_out == "fold" else fold.fold

    def _table(self, what: str, rows: list[tuple[str, ...]]) -> ResultTable:
        papers = ["paper"] if self.leave_out == "fold" else []
        folds = map(self._label, self.folds)
        header = ("AU" if what != "landmarks" else "", *papers, *folds, "mean", "best")
        title = f"{self.recipe} on {self.data}: {what} in percent"
        return ResultTable(title, header, tuple(rows), tuple(self._notes(what)))

    def _notes(self, what: str) -> list[str]:
        one = "fold" if self.leave_out == "fold" else "data set"
        epochs = ", ".join(f"{self._label(fold)}: {fold.best_epoch}" for fold in self.folds)
        quality = "lowest mean error" if self.folds[0].last.f1 is None else "highest mean F1"
        last = (
            '"fold" and "mean"'
            if self.leave_out == "fold"
            else "Each data set, tested with all its faces by a model of the others on the AUs that these "
            'have too, and "mean"'
        )
        notes = [
            f'{last}: after the last epoch. "best": after each {one}\'s epoch of the {quality} on '
            f"the very faces it is tested on ({epochs}), so better than on other faces."
        ]
        if self.divided:
            notes.append(
                f"{', '.join(self.divided)} came divided: every fold tests the same faces, its test part, "
                "by another model; the mean is over these models."
            )
        if what == "F1":
            intervals = [
                f"{self._label(fold)}: {score_text(fold.last.f1_mean, interval)}"
                for fold in self.folds
                if (interval := fold.f1_intervals.get("")) is not None
            ]
            if intervals:
                notes.append(
                    "95 % intervals of the mean F1 over resamples of the subjects that are tested: "
                    f"{', '.join(intervals)}."
                )
            notes.append(NOISE)
        published = self._published()
        if published is not None and what != "landmarks":
            others = published.others_f1 if what == "F1" else published.others_accuracy
            listed = ", ".join(f"{name} {value:.1f}" for name, value in others.items())
            notes.append(f'"paper": JAA-Net on {published.title}; means of others: {listed}.')
        if what == "landmarks":
            if published is not None and published.mean_error is not None:
                notes.append('"paper": JAA-Net on BP4D (ECCV 2018, Table 4).')
            notes.append(
                "Mean error in percent of the distance between the eyes; a failure has more than 10 %."
            )
        return [*notes, *([self.note] if self.note else [])]


def cross_validate(
    recipe: Recipe,
    out: Path,
    *,
    folds: Sequence[str] | None = None,
    leave_out: LeftOut = "fold",
    init: Callable[[str], Path] | None = None,
    resume: bool = False,
    device: str = "auto",
    listener: Listener | None = None,
) -> CrossValidation:
    """Train and test a recipe on each fold of its data: on all others, and on this one.

    Weights of AUs, the mean face and a graph come from each fold's training set alone. Writes into `out` a
    folder for each fold, see `train`, crossval.json, and f1, accuracy and landmarks as .md and .csv.

    Args:
        recipe: the recipe; the `test_fold` of its data is ignored.
        out: folder, made if need be.
        folds: the folds to test; None for all, or for the test part of data that came divided.
        leave_out: "data" leaves out whole data sets of several, one by one, in place of folds: each is tested
            with all its faces, and `folds` names some of them.
        init: gives the model file that a fold's training starts from, in place of the recipe's `init`.
        resume: go on with what `out` holds: finished folds are read, a begun one is resumed.
        device: see `train`.
        listener: is told of folds, updates and epochs.

    Raises:
        RunError: `out` holds runs already, and they are not to be resumed or are of another recipe; or
            another process works in it.
        ValueError: a fold that the data does not have, or what `train` raises.
    """
    require_one_process("`jaa crossval`")
    listener = listener or Listener()
    recipe = recipe_on(resolve_device(device), recipe)
    chosen = folds_to_test(recipe.data, folds) if leave_out == "fold" else _sets_to_test(recipe, folds)
    known: dict[str, Any] = {}
    if isinstance(recipe.data, Several):
        known["own_names"] = {section.data_set: section.own_name for section in recipe.data.sets}
        known["divided"] = recipe.data.divided(chosen) if leave_out == "fold" else ()
    else:
        known["data_set"] = recipe.data.own_name
    runs = {fold: out / f"fold-{fold}" for fold in chosen}
    with hold_folder(out):
        if not resume:
            for folder in runs.values():
                require_no_run(folder)
        results = []
        for i, (fold, folder) in enumerate(runs.items(), 1):
            if leave_out == "fold":
                data = with_fold(recipe.data, fold)
            else:
                data = recipe.data.model_copy(update={"leave_out": fold})
            update: dict[str, Any] = {"data": data}
            if init is not None:
                update["init"] = str(init(fold))
            listener.on_fold(recipe.name, fold, i, len(runs))
            results.append(_run_fold(recipe.model_copy(update=update), fold, folder, device, listener))
        result = CrossValidation(recipe.name, recipe.data.title, tuple(results), leave_out, **known)
        write_json(out / "crossval.json", result.to_dict())
        for name, table in result.tables().items():
            table.write(out, name)
    return result


def _sets_to_test(recipe: Recipe, names: Sequence[str] | None) -> tuple[str, ...]:
    """Give the data sets that are left out one by one.

    Raises:
        ValueError: there are not several, one is none of them, or one has no label of an AU that another one
            has labels of.
    """
    data = recipe.data
    if not isinstance(data, Several) or len(data.sets) < 2:
        raise ValueError(f"leaving out data sets wants several of them (--data A --data B), got {data.title}")
    known = data.set_names()
    chosen = require_known(names or known, known, "data set", data.title)
    # By the labels: a column may be empty, and a data set's turn may come after hours.
    faces = data.every(recipe.model.config())
    parts = np.split(faces.label_matrix() >= 0, np.cumsum(faces.sizes)[:-1])
    labelled = {
        name: [au for au, column in zip(faces.aus, part.T, strict=True) if column.any()]
        for name, part in zip(known, parts, strict=True)
    }
    for name in chosen:
        others = union_of_aus(labelled[other] for other in known if other != name)
        if not set(labelled[name]) & set(others):
            own, theirs = (", ".join(map(str, aus)) or "none" for aus in (labelled[name], others))
            raise ValueError(
                f"{name}: wanted an AU of the model that another data set has labels of, too ({theirs}), to "
                f"be tested by a model of the others, got {own}"
            )
    return chosen


def read_crossval(path: Path) -> CrossValidation:
    """Read crossval.json.

    Raises:
        ValueError: it is damaged.
    """
    result: CrossValidation = read_json(path, CrossValidation, "what jaa crossval writes")
    return result


def _run_fold(recipe: Recipe, fold: str, folder: Path, device: str, listener: Listener) -> FoldResult:
    if is_finished(folder):
        open_run(recipe, folder, resume=True)  # raises if the run is of another recipe
    else:
        train(recipe, folder, resume=has_begun(folder), device=device, listener=listener)
    path = folder / "history.json"
    tested: list[_Tested] = read_json(path, list[_Tested], "the scores of each epoch")
    if not tested:
        raise ValueError(f"{path}: is damaged: wanted the scores of at least one epoch, got none")
    epochs = [epoch.scores for epoch in tested]
    best = max(range(len(epochs)), key=lambda i: _quality(epochs[i]))
    return FoldResult(fold, epochs[-1], epochs[best], best + 1, _f1_intervals(folder, epochs[-1]))


def _f1_intervals(folder: Path, scores: Scores) -> dict[str, Interval | None]:
    """Give the intervals of a finished run, see `FoldResult`; none if its predictions cannot be read."""
    path = folder / "predictions.csv"
    if scores.f1 is None or not path.exists():
        return {}
    try:
        every = read_predictions(path, scores)
    except ValueError:  # such as of an earlier version; the table does not need them
        return {}
    of_each = {"": every, **{name: every.of_set(name) for name in scores.sets or ()}}
    intervals = {name: bootstrap_intervals(predictions) for name, predictions in of_each.items()}
    return {name: None if found is None else found.f1_mean for name, found in intervals.items()}


class _Tested(BaseModel):
    """An entry of history.json."""

    scores: Scores


def _quality(scores: Scores) -> float:
    """Give a number that is higher for better scores."""
    if scores.f1_mean is not None:
        return scores.f1_mean
    return -math.inf if scores.mean_error is None else -scores.mean_error
