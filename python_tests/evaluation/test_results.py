"""The files of a run or an evaluation come back as they were written, or are told to be damaged."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from jaa_ext import facs
from jaa_ext.evaluation import Metrics, Scores
from jaa_ext.evaluation.predictions import Predictions
from jaa_ext.evaluation.results import (
    EvaluationSource,
    one_or_several,
    read_history,
    read_predictions,
    read_scores,
)
from jaa_ext.models import JAAGraphNetConfig
from jaa_ext.recipes.datasets import STAND_INS, Prepared, Several


def scored() -> tuple[Scores, Predictions]:
    """Four faces of two AUs, one label missing."""
    g = torch.Generator().manual_seed(0)
    metrics = Metrics((1, 12))
    target = 50 * torch.rand(4, facs.NUM_LANDMARKS, 2, generator=g)
    labels = torch.tensor([[1, 0], [0, -1], [1, 1], [0, 0]])
    ids = ["a/1", "a/2", "b/1", "b/2"]
    metrics.update(torch.rand(4, 2, generator=g), labels, target + 1, target, ids)
    return metrics.result(), metrics.predictions()


def test_predictions_come_back(tmp_path: Path) -> None:
    scores, predictions = scored()
    predictions.to_csv(tmp_path / "predictions.csv")
    read = read_predictions(tmp_path / "predictions.csv", replace(scores, note="A note."))
    assert read.ids == predictions.ids and read.aus == (1, 12) and read.note == "A note."
    np.testing.assert_array_equal(read.labels, predictions.labels)
    np.testing.assert_allclose(read.probabilities, predictions.probabilities, atol=1e-6)
    np.testing.assert_allclose(read.landmarks, predictions.landmarks, atol=6e-4)
    assert read.errors is None


def test_predictions_of_other_labels_than_the_scores(tmp_path: Path) -> None:
    scores, predictions = scored()
    predictions.to_csv(tmp_path / "predictions.csv")
    with pytest.raises(ValueError, match=r"predictions\.csv: has other labels than metrics\.json"):
        read_predictions(tmp_path / "predictions.csv", replace(scores, positives=(1, 1)))
    with pytest.raises(ValueError, match=r"or not of metrics\.json: wanted a column AU04$"):
        read_predictions(tmp_path / "predictions.csv", replace(scores, aus=(1, 4)))


@pytest.mark.parametrize("cell", ["2", "x", "1e400"])
def test_a_cell_that_no_label_can_be(tmp_path: Path, cell: str) -> None:
    scores, predictions = scored()
    file = tmp_path / "predictions.csv"
    predictions.to_csv(file)
    lines = file.read_text().splitlines()
    place = lines[0].split(",").index("AU01")
    cells = lines[2].split(",")
    cells[place] = cell
    lines[2] = ",".join(cells)
    file.write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"predictions\.csv: line 3: wanted \d+ columns, numbers"):
        read_predictions(file, scores)


def test_scores_and_history_come_back(tmp_path: Path, some_scores: Scores) -> None:
    some_scores.to_json(tmp_path / "metrics.json")
    assert read_scores(tmp_path / "metrics.json") == some_scores
    assert read_history(tmp_path / "history.json") == []
    epoch = {"epoch": 1, "stage": "joint", "lr": 0.1, "losses": {"total": 2.5}}
    written = [{**epoch, "scores": some_scores.to_dict()}]
    (tmp_path / "history.json").write_text(json.dumps(written))
    (read,) = read_history(tmp_path / "history.json")
    assert Scores.from_dict(read.pop("scores")) == some_scores and read == epoch
    (tmp_path / "history.json").write_text('[{"epoch": 0, "losses": {}}]')
    with pytest.raises(ValueError, match=r"history\.json: is damaged: wanted a list of epochs"):
        read_history(tmp_path / "history.json")


def test_what_was_tested_comes_back(tmp_path: Path) -> None:
    assert EvaluationSource.read(tmp_path) is None
    rule = facs.AURule((31, 37), 0.1, 20)
    source = EvaluationSource(
        JAAGraphNetConfig.graph((1, rule), image_size=64),
        Prepared(name="prepared", folder="there"),
        data="here",
        fold="all",
        model="m.safetensors",
        recipe="abaw-2",
    )
    source.write(tmp_path)
    assert EvaluationSource.read(tmp_path) == source
    assert source.data_in_words() == "here, all folds"
    assert source.moved_to("moved").data == "moved" and source.moved_to(None) is source
    several = replace(source, data=("here", "rendered"), fold="1")
    several.write(tmp_path)
    assert EvaluationSource.read(tmp_path) == several
    assert several.data_in_words() == "here, rendered faces, tested on fold 1"
    assert replace(several, fold="all").data_in_words() == "here, rendered faces, all folds"
    sets = (Prepared(name="prepared", folder="there"), STAND_INS["rendered"])
    left_out = Several(name="several", sets=sets, leave_out="rendered")
    left_out_source = EvaluationSource(source.config, left_out)
    assert left_out_source.data_in_words() == "there, rendered faces, tested on rendered"
    moved = left_out_source.moved_to(("elsewhere", "rendered"))
    assert moved.data_in_words() == "elsewhere, rendered faces, tested on rendered"
    moved.write(tmp_path)
    assert EvaluationSource.read(tmp_path) == moved
    for names in ("mine=here", "./no=folder", "a b=c"):  # a folder need not be there any more
        named = replace(several, data=(names, "x=rendered"))
        named.write(tmp_path)
        assert EvaluationSource.read(tmp_path) == named
    for damaged, message in (('{"model": 1}', "jaa evaluate"), ("{", "wanted JSON")):
        (tmp_path / "evaluation.json").write_text(damaged)
        with pytest.raises(ValueError, match=rf"evaluation\.json: is damaged.*{message}"):
            EvaluationSource.read(tmp_path)


def test_what_data_names() -> None:
    assert one_or_several(None) is None and one_or_several([]) is None
    assert one_or_several(["here"]) == "here" and one_or_several(["here", "there"]) == ("here", "there")
