"""Readers of the files that a run or an evaluation wrote, and the record of what was tested."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, Field, FiniteFloat, PositiveInt

from jaa_ext.data import FaceDataset
from jaa_ext.evaluation.predictions import Predictions
from jaa_ext.evaluation.scores import Scores
from jaa_ext.facs import NUM_LANDMARKS, au_column
from jaa_ext.json_files import read_json, write_json
from jaa_ext.models import JAANetConfig
from jaa_ext.models.serialization import MODELS
from jaa_ext.recipes.datasets import (
    STAND_IN,
    BuiltIn,
    Data,
    Several,
    choose_data,
    faces_to_test,
)

EVALUATION_FILE = "evaluation.json"

MAX_COORDINATE = 1e30
"""Beyond it, distances of landmarks would not be finite in float32."""


@dataclass(frozen=True)
class EvaluationSource:
    """The model and the faces of an evaluation, as evaluation.json records them."""

    config: JAANetConfig
    """The config of the model."""
    recipe_data: Data | None
    """The data section of the recipe; None without a recipe."""
    data: str | tuple[str, ...] | None = None
    """The folder, or built-in faces, or several of them, that took its place, see `faces_to_test`."""
    fold: str | None = None
    """The fold tested; "all" for every face."""
    model: str | None = None
    """File of the model; None for that of a run itself."""
    recipe: str | None = None
    """Name or file of the recipe; None without one."""

    def faces(self) -> FaceDataset:
        """Read the faces, see `faces_to_test`."""
        return faces_to_test(self.recipe_data, self.data, self.fold, self.config)

    def moved_to(self, data: str | tuple[str, ...] | None) -> EvaluationSource:
        """Take the faces from elsewhere: `data` is as in `faces_to_test`; None changes nothing."""
        return self if data is None else replace(self, data=data)

    def data_in_words(self) -> str:
        """Say which data and fold were tested."""
        every = self.fold == "all"
        section = choose_data(self.recipe_data or STAND_IN, self.data, None if every else self.fold)
        text = section.title
        if isinstance(section, BuiltIn):
            train, test = section.train_subjects, section.test_subjects
            text += f": {train} people to train, {test} to test, {section.samples_per_subject} faces of each"
        if every:
            return f"{text}, all folds"
        if isinstance(section, Several) and section.leave_out is not None:
            return f"{text}, tested on {section.leave_out}"
        return text if section.test_fold is None else f"{text}, tested on fold {section.test_fold}"

    def write(self, folder: Path) -> None:
        """Write evaluation.json."""
        values = {
            "model": self.model,
            "class": next(name for name, (_, kind) in MODELS.items() if kind is type(self.config)),
            "config": self.config.to_dict(),
            "recipe": self.recipe,
            "recipe_data": None if self.recipe_data is None else self.recipe_data.model_dump(mode="json"),
            "data": self.data,
            "fold": self.fold,
        }
        write_json(folder / EVALUATION_FILE, values)

    @classmethod
    def read(cls, folder: Path) -> EvaluationSource | None:
        """Read evaluation.json; None if there is none.

        Raises:
            ValueError: the file is damaged.
        """
        path = folder / EVALUATION_FILE
        if not path.exists():
            return None
        record = read_json(path, _EvaluationFile, "what jaa evaluate writes")
        if record.kind not in MODELS:
            raise ValueError(
                f"{path}: is damaged: wanted the class {' or '.join(MODELS)}, got {record.kind[:60]!r}"
            )
        try:
            config = MODELS[record.kind][1].from_dict(record.config)
            source = cls(config, record.recipe_data, record.data, record.fold, record.model, record.recipe)
            source.data_in_words()  # raises if there is no such fold
        except ValueError as error:
            raise ValueError(f"{path}: is damaged: {error}") from None
        return source


def one_or_several(data: Sequence[str] | None) -> str | tuple[str, ...] | None:
    """Give what `--data` names as evaluation.json records it: nothing, one data set or several."""
    return (tuple(data) if len(data) > 1 else data[0]) if data else None


class _EvaluationFile(BaseModel):
    """The content of evaluation.json."""

    kind: str = Field(alias="class")
    config: dict[str, Any]
    recipe_data: Data | None
    data: str | tuple[str, ...] | None
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
    """Read metrics.json.

    Raises:
        ValueError: it is damaged.
    """
    scores: Scores = read_json(path, Scores, "the scores that jaa writes")
    return scores


def read_history(path: Path) -> list[dict[str, Any]]:
    """Read history.json; empty if there is none.

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
    """Read predictions.csv, see `Predictions.to_csv`; without errors, since it lacks the true landmarks.

    Args:
        path: the file.
        scores: the scores of these predictions.

    Raises:
        ValueError: it is damaged, or lacks an AU of the scores.
    """
    labels = [au_column(au) for au in scores.aus] if scores.f1 is not None else []
    points = [f"{axis}_{i}" for i in range(NUM_LANDMARKS) for axis in "xy"]
    if scores.failure_rate is None:
        points = []
    columns = [*labels, *(f"{label}_p" for label in labels), *points]
    ids, values = [], []
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        try:
            names = next(rows, [])
            header = {name: i for i, name in enumerate(names)}
            if len(header) < len(names):
                raise ValueError(f"{path}: is damaged: wanted different columns, got one of them twice")
            missing = [name for name in ("id", *columns) if name not in header]
            if missing:
                raise ValueError(f"{path}: is damaged, or not of metrics.json: wanted a column {missing[0]}")
            for row in rows:
                cells = [row[header[name]] for name in columns] if len(row) == len(header) else []
                numbers = _numbers(cells, len(labels))
                if numbers is None or len(row) != len(header):
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
    """Parse the cells of labels, as many probabilities, and landmarks; an empty one is NaN.

    None if one of them cannot be such a number.
    """
    try:
        numbers = [float(cell) if cell else math.nan for cell in cells]
    except ValueError:
        return None
    probabilities, rest = numbers[labels : 2 * labels], numbers[2 * labels :]
    fits = (
        all(label in (-1, 0, 1) for label in numbers[:labels])
        and all(math.isnan(p) or 0 <= p <= 1 for p in probabilities)
        and all(math.isnan(x) or abs(x) < MAX_COORDINATE for x in rest)
    )
    return numbers if fits else None
