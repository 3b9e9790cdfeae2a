"""The files of a run or an evaluation, read back, and what an evaluation was of."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, Field, FiniteFloat, PositiveInt

from jaa_ext.data import FaceDataset
from jaa_ext.evaluation.metrics import Predictions, Scores
from jaa_ext.facs import NUM_LANDMARKS
from jaa_ext.json_files import read_json, write_json
from jaa_ext.models import JAANetConfig
from jaa_ext.models.serialization import MODELS
from jaa_ext.recipes.datasets import STAND_IN, BuiltIn, Data, Prepared, choose_data, faces_to_test

ABOUT = "evaluation.json"

LARGEST = 1e30
"""Coordinates beyond it are no landmarks: their distances would not be finite in float32."""


@dataclass(frozen=True)
class Origin:
    """Which faces a model was tested on, so that they can be found again."""

    config: JAANetConfig
    """The model's."""
    recipe_data: BuiltIn | Prepared | None
    """The data section of the recipe, if there was one."""
    data: str | None = None
    """What `faces_to_test` took in its place, and the fold."""
    fold: str | None = None
    model: str | None = None
    """The model's file; None: a run's own."""
    recipe: str | None = None
    """Name or file of the recipe, if there was one."""

    def faces(self) -> FaceDataset:
        """See `faces_to_test`."""
        return faces_to_test(self.recipe_data, self.data, self.fold, self.config)

    def on(self, data: str | None) -> Origin:
        """The same faces where they lie now: `data` is a folder, or "synthetic"; None leaves them."""
        return self if data is None else replace(self, data=data)

    def data_in_words(self) -> str:
        every = self.fold == "all"
        section = choose_data(self.recipe_data or STAND_IN, self.data, None if every else self.fold)
        text = section.title
        if isinstance(section, BuiltIn):
            train, test = section.train_subjects, section.test_subjects
            text += f": {train} people to train, {test} to test, {section.samples_per_subject} faces of each"
        if every:
            return f"{text}, all folds"
        return text if section.test_fold is None else f"{text}, tested on fold {section.test_fold}"

    def write(self, folder: Path) -> None:
        """As evaluation.json."""
        values = {
            "model": self.model,
            "class": next(name for name, (_, kind) in MODELS.items() if kind is type(self.config)),
            "config": self.config.to_dict(),
            "recipe": self.recipe,
            "recipe_data": None if self.recipe_data is None else self.recipe_data.model_dump(mode="json"),
            "data": self.data,
            "fold": self.fold,
        }
        write_json(folder / ABOUT, values)

    @classmethod
    def read(cls, folder: Path) -> Origin | None:
        """What `write` wrote; None where it did not.

        Raises:
            ValueError: the file is damaged.
        """
        path = folder / ABOUT
        if not path.exists():
            return None
        about = read_json(path, _About, "what jaa evaluate writes")
        if about.kind not in MODELS:
            raise ValueError(
                f"{path}: is damaged: wanted the class {' or '.join(MODELS)}, got {about.kind[:60]!r}"
            )
        try:
            config = MODELS[about.kind][1].from_dict(about.config)
            origin = cls(config, about.recipe_data, about.data, about.fold, about.model, about.recipe)
            origin.data_in_words()  # there may be no such fold
        except ValueError as error:
            raise ValueError(f"{path}: is damaged: {error}") from None
        return origin


class _About(BaseModel):
    """evaluation.json."""

    kind: str = Field(alias="class")
    config: dict[str, Any]
    recipe_data: Data | None
    data: str | None
    fold: str | None
    model: str | None
    recipe: str | None


class Epoch(BaseModel):
    """An entry of history.json."""

    epoch: PositiveInt
    stage: str = ""
    lr: FiniteFloat | None = None
    losses: dict[str, FiniteFloat]
    scores: Scores | None = None


def read_scores(path: Path) -> Scores:
    """metrics.json.

    Raises:
        ValueError: it is damaged.
    """
    scores: Scores = read_json(path, Scores, "the scores that jaa writes")
    return scores


def read_history(path: Path) -> list[dict[str, Any]]:
    """history.json; empty where there is none.

    Raises:
        ValueError: it is damaged.
    """
    if not path.exists():
        return []
    epochs: list[Epoch] = read_json(path, list[Epoch], "a list of epochs and their losses")
    return [
        {**epoch.model_dump(exclude_none=True), "scores": epoch.scores and epoch.scores.to_dict()}
        for epoch in epochs
    ]


def read_predictions(path: Path, scores: Scores) -> Predictions:
    """predictions.csv, see `Predictions.to_csv`; without errors, for which it has not the true landmarks.

    Args:
        path: the file.
        scores: those of the predictions.

    Raises:
        ValueError: it is damaged, or lacks an AU of the scores.
    """
    labels = [f"AU{au}" for au in scores.aus] if scores.f1 is not None else []
    points = [f"{axis}{i}" for i in range(NUM_LANDMARKS) for axis in "xy"]
    if scores.failure_rate is None:
        points = []
    columns = [*labels, *(f"{label}_probability" for label in labels), *points]
    ids, values = [], []
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        try:
            names = next(rows, [])
            header = {name: place for place, name in enumerate(names)}
            if len(header) < len(names):
                raise ValueError(f"{path}: is damaged: wanted different columns, got one of them twice")
            missing = [name for name in ("id", *columns) if name not in header]
            if missing:
                raise ValueError(f"{path}: is damaged, or not of metrics.json: wanted a column {missing[0]}")
            for row in rows:
                numbers = (
                    _numbers([row[header[name]] for name in columns], len(labels))
                    if (len(row) == len(header))
                    else None
                )
                if numbers is None:
                    raise ValueError(
                        f"{path}: line {rows.line_num}: wanted {len(header)} columns, numbers for the AUs "
                        f"and landmarks, got {','.join(row)[:60]!r}"
                    )
                ids.append(row[header["id"]])
                values.append(numbers)
        except (csv.Error, UnicodeDecodeError):
            raise ValueError(
                f"{path}: line {rows.line_num + 1}: is damaged: wanted a CSV file in UTF-8"
            ) from None
    if not ids:
        raise ValueError(f"{path}: wanted a row for each face, got none")
    table, a = np.array(values), len(labels)
    if a and scores.positives is not None and scores.valid is not None:
        positives, valid = (table[:, :a] == 1).sum(0), (table[:, :a] >= 0).sum(0)
        if positives.tolist() != list(scores.positives) or valid.tolist() != list(scores.valid):
            raise ValueError(f"{path}: has other labels than metrics.json beside it was made of; test again")
    return Predictions(
        aus=scores.aus,
        labels=table[:, :a].astype(np.int64) if a else np.full((len(ids), len(scores.aus)), -1),
        probabilities=table[:, a : 2 * a].astype(np.float32) if a else None,
        landmarks=table[:, 2 * a :].astype(np.float32).reshape(len(ids), -1, 2) if points else None,
        errors=None,
        ids=tuple(ids),
        note=scores.note,
        thresholds=scores.thresholds,
    )


def _numbers(cells: list[str], labels: int) -> list[float] | None:
    """Labels, as many probabilities, and landmarks; empty cells are NaN. None if they are something else."""
    try:
        numbers = [float(cell) if cell else math.nan for cell in cells]
    except ValueError:
        return None
    probabilities, rest = numbers[labels : 2 * labels], numbers[2 * labels :]
    fits = (
        all(label in (-1, 0, 1) for label in numbers[:labels])
        and all(math.isnan(p) or 0 <= p <= 1 for p in probabilities)
        and all(math.isnan(x) or abs(x) < LARGEST for x in rest)
    )
    return numbers if fits else None
