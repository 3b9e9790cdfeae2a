"""Predictions and their file."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from jaa_ext import facs
from jaa_ext.evaluation import Metrics
from jaa_ext.evaluation.results import read_predictions, read_scores


def test_what_is_not_finite_is_null_in_json_and_empty_in_csv(tmp_path: Path) -> None:
    target = 50 * torch.rand(2, facs.NUM_LANDMARKS, 2, generator=torch.Generator().manual_seed(1))
    metrics = Metrics((1, 2))
    probabilities = torch.tensor([[float("nan"), 0.25], [0.5, float("inf")]])
    predicted = target.clone()
    predicted[1, 3, 0] = float("inf")
    metrics.update(probabilities, torch.tensor([[1, 0], [0, 1]]), predicted, target, ["a/1", "b/1"])
    scores, predictions = metrics.result(), metrics.predictions()
    scores = replace(scores, f1_mean=float("nan"))  # from anywhere else
    scores.to_json(tmp_path / "metrics.json")
    predictions.to_csv(tmp_path / "predictions.csv")
    text = (tmp_path / "metrics.json").read_text()
    assert "NaN" not in text and "Infinity" not in text
    values = json.loads(text)
    assert values["f1_mean"] is values["mean_error"] is None
    first, second = csv.DictReader((tmp_path / "predictions.csv").open())
    assert (first["AU01_p"], first["AU02_p"]) == ("", "0.250000")
    assert (second["AU01_p"], second["AU02_p"], second["x_3"]) == ("0.500000", "", "")
    assert second["y_3"] != "" and read_scores(tmp_path / "metrics.json").failure_rate == 50
    read = read_predictions(tmp_path / "predictions.csv", read_scores(tmp_path / "metrics.json"))
    assert np.isnan(read.probabilities).tolist() == [[True, False], [False, True]]
    assert np.isnan(read.landmarks).sum() == 1


def test_subjects_are_what_stands_before_the_first_slash_of_the_ids() -> None:
    metrics = Metrics((1,))
    nowhere = torch.empty(0, facs.NUM_LANDMARKS, 2)
    metrics.update(torch.rand(2, 1), torch.ones(2, 1), None, nowhere, ["F001/T1/2440", "F001/T2/1"])
    metrics.update(torch.rand(1, 1), torch.ones(1, 1), None, nowhere, ["F002/T1/2440"])
    assert metrics.predictions().subjects == ("F001", "F001", "F002")
    assert metrics.result().subjects == 2
    metrics.update(torch.rand(1, 1), torch.ones(1, 1), None, nowhere)  # without an id
    assert metrics.predictions().subjects is None and metrics.result().subjects is None


def test_the_faces_of_one_data_set() -> None:
    metrics = Metrics((1, 2), note="A note.", thresholds=(0.3, 0.5))
    g = torch.Generator().manual_seed(1)
    target, probabilities = 50 * torch.rand(4, 49, 2, generator=g), torch.rand(4, 2, generator=g)
    labels = torch.tensor([[1, 0], [0, -1], [-1, 1], [0, 0]])
    ids = ["one:a/1", "one more:a/1", "one:b/1", "two:a/1"]
    intensities = 5 * torch.rand(4, 2, generator=g)
    metrics.update(probabilities, labels, target + 1, target, ids, intensities, intensities.flip(0))
    every = metrics.predictions()
    part = every.of_set("one")
    assert part.ids == ("one:a/1", "one:b/1") and part.subjects == ("one:a", "one:b")
    assert (part.aus, part.note, part.thresholds) == (every.aus, every.note, every.thresholds)
    for name in ("labels", "probabilities", "landmarks", "errors", "intensities", "true_intensities"):
        np.testing.assert_array_equal(getattr(part, name), getattr(every, name)[[0, 2]])
    assert replace(every, landmarks=None).of_set("two").landmarks is None
    assert len(every.of_set("three").labels) == 0
