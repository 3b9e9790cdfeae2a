"""Scores and their files."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from jaa_ext.evaluation import Scores


def test_files_of_intensities(some_scores: Scores, intensity_scores: Scores, tmp_path: Path) -> None:
    intensity_scores.to_json(tmp_path / "metrics.json")
    assert Scores.from_dict(json.loads((tmp_path / "metrics.json").read_text())) == intensity_scores
    intensity_scores.to_csv(tmp_path / "metrics.csv")
    au1, au12, mean = csv.DictReader((tmp_path / "metrics.csv").open())
    assert [au1[c] for c in ("icc", "icc_low", "icc_high", "mae", "rated")] == [
        "0.8125", "0.75", "0.875", "0.25", "1200",
    ]  # fmt: skip
    assert [au12[c] for c in ("icc", "pearson", "mae", "rated", "f1")] == ["", "", "1.5", "1", ""]
    assert [mean[c] for c in ("icc", "mae", "mae_low", "f1")] == ["0.8125", "0.875", "0.5", "0.25"]
    assert intensity_scores.summary()["ICC"] == 81.25
    some_scores.to_csv(tmp_path / "without.csv")
    assert "icc" not in (tmp_path / "without.csv").read_text()
    with pytest.raises(ValueError, match="1 values of icc for 2 AUs"):
        replace(some_scores, icc=(0.5,))


def test_files_say_the_same(tmp_path: Path) -> None:
    note = "Not for real use."
    scores = Scores((1, 12), (0.25, None), (0.75, None), 0.25, 0.75, 6.5, 12.5, note)
    scores.to_json(tmp_path / "metrics.json")
    scores.to_csv(tmp_path / "metrics.csv")
    values = json.loads((tmp_path / "metrics.json").read_text())
    assert Scores.from_dict(values) == scores
    assert values["f1"] == [0.25, None]
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    assert [(r["au"], r["f1"], r["mean_error"], r["note"]) for r in rows] == [
        ("1", "0.25", "", note),
        ("12", "", "", note),
        ("mean", "0.25", "6.5", note),
    ]


def test_files_hold_everything(some_scores: Scores, tmp_path: Path) -> None:
    some_scores.to_json(tmp_path / "metrics.json")
    values = json.loads((tmp_path / "metrics.json").read_text())
    assert values["abaw_score"] == 0.4375
    assert values["intervals"]["f1"] == [[0.2, 0.3125], None]
    assert Scores.from_dict(values) == some_scores

    some_scores.to_csv(tmp_path / "metrics.csv")
    au1, au12, mean = csv.DictReader((tmp_path / "metrics.csv").open())
    assert [au1[c] for c in ("f1", "f1_low", "f1_high", "recall_high")] == ["0.25", "0.2", "0.3125", "0.625"]
    assert [au1[c] for c in ("auc", "auc_low", "accuracy_total")] == [""] * 3
    assert [au1[c] for c in ("positives", "valid")] == ["5", "20"]
    assert [au12[c] for c in ("au", "f1", "f1_low", "positives", "valid")] == ["12", "", "", "0", "0"]
    assert [mean[c] for c in ("f1", "f1_low", "accuracy_total_high")] == ["0.25", "0.1875", "0.75"]
    assert [mean[c] for c in ("abaw_score", "abaw_score_low")] == ["0.4375", "0.375"]
    assert [mean[c] for c in ("mean_error", "mean_error_high")] == ["6.5", "6.75"]
    assert au1["note"] == mean["note"] == some_scores.note


def test_scores_of_an_older_version_are_read() -> None:
    older = {
        "aus": [1, 12], "f1": [0.25, None], "accuracy": [0.75, None], "f1_mean": 0.25, "accuracy_mean": 0.75,
        "mean_error": 6.5, "failure_rate": 12.5, "note": "",
    }  # fmt: skip
    scores = Scores.from_dict(older)
    assert (scores.f1, scores.mean_error) == ((0.25, None), 6.5)
    assert (scores.precision, scores.auc_mean, scores.intervals, scores.abaw_score) == (None,) * 4


def test_files_hold_the_scores_of_several_data_sets(some_scores: Scores, tmp_path: Path) -> None:
    one = Scores((1, 12), (0.5, None), (0.75, None), 0.5, 0.75, 6.0, 12.5, some_scores.note)
    several = replace(some_scores, sets={"one": one, "two": some_scores})
    several.to_json(tmp_path / "metrics.json")
    values = json.loads((tmp_path / "metrics.json").read_text())
    assert Scores.from_dict(values) == several
    assert values["sets"]["two"]["abaw_score"] == 0.4375
    assert "sets" not in values["sets"]["one"] and "sets" not in some_scores.to_dict()
    several.to_csv(tmp_path / "several.csv")
    some_scores.to_csv(tmp_path / "alone.csv")
    rows, alone = (list(csv.DictReader((tmp_path / f"{name}.csv").open())) for name in ("several", "alone"))
    assert next(iter(rows[0])) == "data" and [row["data"] for row in rows] == [
        *[""] * 3,
        *["one"] * 3,
        *["two"] * 3,
    ]
    assert [{k: v for k, v in row.items() if k != "data"} for row in rows[:3]] == alone
    assert [{k: v for k, v in row.items() if k != "data"} for row in rows[6:]] == alone
    assert [row["f1"] for row in rows[3:6]] == ["0.5", "", "0.5"]
    for wrong in (replace(one, aus=(1, 4)), several):
        with pytest.raises(ValueError, match="the scores of one are of other AUs, or of several data sets"):
            replace(some_scores, sets={"one": wrong})
