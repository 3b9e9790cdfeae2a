"""The files of a run or an evaluation, read back, and what an evaluation was of."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from jaa_ext.atomic import replacing
from jaa_ext.data import FaceDataset
from jaa_ext.engine.datasets import STAND_IN, Data, Prepared, Synthetic, choose_data, faces_to_test
from jaa_ext.engine.metrics import OF_EACH_AU, Predictions, Scores
from jaa_ext.facs import NUM_LANDMARKS
from jaa_ext.models import JAANetConfig
from jaa_ext.models.files import MODELS

ABOUT = "evaluation.json"


@dataclass(frozen=True)
class Origin:
    """Which faces a model was tested on, so that they can be found again."""

    config: JAANetConfig
    """The model's."""
    recipe_data: Synthetic | Prepared | None
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
        if isinstance(section, Synthetic):
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
        with replacing(folder / ABOUT) as temporary:
            temporary.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Origin | None:
        """What `write` wrote; None where it did not.

        Raises:
            ValueError: the file is damaged.
        """
        path = folder / ABOUT
        if not path.exists():
            return None
        values = read_json(path)
        try:
            section = values["recipe_data"]
            return cls(
                MODELS[values["class"]][1].from_dict(values["config"]),
                None if section is None else TypeAdapter(Data).validate_python(section),
                **{name: values[name] for name in ("data", "fold", "model", "recipe")},
            )
        except (KeyError, TypeError, ValueError) as error:
            raise _damaged(path, "what jaa evaluate writes", error) from None


def read_scores(path: Path) -> Scores:
    """metrics.json.

    Raises:
        ValueError: it is damaged.
    """
    values = read_json(path)
    try:
        scores = Scores.from_dict(values)
        for name in OF_EACH_AU:
            of_aus = getattr(scores, name)
            if of_aus is not None and len(of_aus) != len(scores.aus):
                raise ValueError(f"{len(of_aus)} values of {name} for {len(scores.aus)} AUs")
            for value in of_aus or ():
                if value is not None and not isinstance(value, int | float):
                    raise TypeError(f"{name} has {value!r}, which is no number")
    except (TypeError, AttributeError, ValueError) as error:
        raise _damaged(path, "the scores that jaa writes", error) from None
    return scores


def read_history(path: Path) -> list[dict[str, Any]]:
    """history.json; empty where there is none.

    Raises:
        ValueError: it is damaged.
    """
    if not path.exists():
        return []
    history = read_json(path)
    if not isinstance(history, list) or not all(map(_is_epoch, history)):
        raise ValueError(f"{path}: is damaged: wanted a list of epochs and their losses")
    return history


def _is_epoch(entry: Any) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("losses"), dict):
        return False
    scores = entry.get("scores") or {}
    if not isinstance(scores, dict):
        return False
    plain = [scores.get(name) for name in ("f1_mean", "accuracy_mean", "mean_error", "failure_rate")]
    numbers = [entry.get("epoch"), *entry["losses"].values(), entry.get("lr", 0.0)]
    return all(isinstance(x, int | float) for x in [*numbers, *(x for x in plain if x is not None)])


def read_predictions(path: Path, scores: Scores) -> Predictions:
    """predictions.csv, see `Predictions.to_csv`; without errors, for which it has not the true landmarks.

    Args:
        path: the file.
        scores: those of the predictions.

    Raises:
        ValueError: it is damaged, or lacks an AU of the scores.
    """
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        header = {name: place for place, name in enumerate(next(rows, []))}
        labels = [f"AU{au}" for au in scores.aus] if scores.f1 is not None else []
        points = [f"{axis}{i}" for i in range(NUM_LANDMARKS) for axis in "xy"]
        if scores.mean_error is None:
            points = []
        columns = [*labels, *(f"{label}_probability" for label in labels), *points]
        missing = [name for name in ("id", *columns) if name not in header]
        if missing:
            raise ValueError(f"{path}: is damaged, or not of metrics.json: wanted a column {missing[0]}")
        places = [header[name] for name in columns]
        ids, values = [], []
        for row in rows:
            try:
                ids.append(row[header["id"]])
                values.append([float(row[place]) for place in places])
            except (ValueError, IndexError):
                wanted = f"{len(header)} columns, numbers for the AUs and landmarks"
                raise ValueError(
                    f"{path}: line {rows.line_num}: wanted {wanted}, got {','.join(row)[:60]!r}"
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
    )


def read_json(path: Path) -> Any:
    """A JSON file.

    Raises:
        ValueError: it is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _damaged(path, "JSON", error) from None


def _damaged(path: Path, wanted: str, error: Exception) -> ValueError:
    return ValueError(f"{path}: is damaged: wanted {wanted}, got {' '.join(f'{error!r}'.split())}")
