"""The folder of a run: whose it is, and its logs."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import pytest

from jaa_ext.evaluation import Scores
from jaa_ext.models import JAANet, JAANetConfig, load_model
from jaa_ext.recipes.schema import Recipe, load_recipe
from jaa_ext.training import RunError
from jaa_ext.training.criterion import TERMS
from jaa_ext.training.run_folder import (
    Log,
    has_begun,
    hold_folder,
    is_finished,
    open_run,
    require_no_run,
    require_run,
    write_results,
)

HEADER = ",".join(["iteration", "epoch", *TERMS])


def recipe(**changes: Any) -> Recipe:
    values = {
        "name": "tiny",
        "model": {"aus": [6, 7, 12], "image_size": 64, "width": 1},
        "data": {"train_subjects": 2, "test_subjects": 1, "samples_per_subject": 2},
        "batch_size": 2,
        "stages": [{"name": "joint", "epochs": 1, "lr": 0.01}],
    }
    return Recipe.model_validate({**values, **changes})


def test_a_folder_is_held_by_one_and_free_afterwards(tmp_path: Path) -> None:
    out = tmp_path / "a" / "run"
    taken = r"run: another process is writing its results into this folder$"
    with hold_folder(out), pytest.raises(RunError, match=taken), hold_folder(out):
        pass
    with pytest.raises(KeyError), hold_folder(out):
        raise KeyError
    with hold_folder(out):
        assert out.is_dir()


def test_places_that_cannot_hold_a_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(NotADirectoryError, match=r"file: is a file, wanted a folder"), hold_folder(out):
            pass
    name = tmp_path / os.fsdecode(b"\xff")
    with pytest.raises(ValueError, match="wanted a folder whose name is UTF-8"), hold_folder(name):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_recipe_opens_a_run_and_no_other_one_goes_on_with_it(tmp_path: Path) -> None:
    assert not has_begun(tmp_path)
    with pytest.raises(RunError, match=r"no run to resume \(no checkpoint\.pt\)"):
        open_run(recipe(), tmp_path, resume=True)
    open_run(recipe(), tmp_path, resume=False)
    assert load_recipe(tmp_path / "recipe.yaml") == recipe()
    open_run(recipe(), tmp_path, resume=False)  # nothing has begun yet
    (tmp_path / "checkpoint.pt").touch()
    require_run(tmp_path)
    open_run(recipe(), tmp_path, resume=True)
    with pytest.raises(RunError, match="holds a run already; resume it, or give another folder"):
        open_run(recipe(), tmp_path, resume=False)
    with pytest.raises(RunError, match=r"begun by another recipe \(batch_size was 2, is 4\)"):
        open_run(recipe(batch_size=4), tmp_path, resume=True)
    with pytest.raises(RunError, match="holds a run already"):
        require_no_run(tmp_path)


def test_results_are_there_once_the_last_file_is(tmp_path: Path, some_scores: Scores) -> None:
    (tmp_path / "checkpoint.pt").touch()
    model = JAANet(JAANetConfig((1, 12), image_size=64, width=1))
    model.note = "A note."
    assert has_begun(tmp_path) and not is_finished(tmp_path)
    write_results(tmp_path, model, some_scores)
    assert is_finished(tmp_path) and load_model(tmp_path / "model.safetensors").note == "A note."
    assert Scores.from_dict(json.loads((tmp_path / "metrics.json").read_text())) == some_scores


def log(out: Path, begin: int, end: int) -> None:
    """Log the iterations after `begin` up to `end`."""
    with Log.opened(out, begin) as made:
        for number in range(begin + 1, end + 1):
            made.iteration(number, 1, {"au_softmax": number / 8, "total": number / 4})
        made.epoch(end, {"F1": 0.5}, [{"epoch": 1}])
        made.sync()


def test_logs_go_on_and_drop_what_no_checkpoint_knows(tmp_path: Path) -> None:
    log(tmp_path, 0, 3)
    log(tmp_path, 2, 4)
    rows = list(csv.DictReader((tmp_path / "losses.csv").open()))
    assert [(row["iteration"], row["au_softmax"], row["total"]) for row in rows] == [
        ("1", "0.125", "0.25"), ("2", "0.25", "0.5"), ("3", "0.375", "0.75"), ("4", "0.5", "1.0"),
    ]  # fmt: skip
    assert all(row["align"] == "" for row in rows)
    assert json.loads((tmp_path / "history.json").read_text()) == [{"epoch": 1}]
    assert any((tmp_path / "tensorboard").iterdir())


def test_losses_of_an_early_version_get_the_column_that_they_lack(tmp_path: Path) -> None:
    early = HEADER.replace(",intensity", "")
    (tmp_path / "losses.csv").write_text(f"{early}\n1,1,0.1,0.2,0.3,,,,0.6\n")
    log(tmp_path, 1, 1)
    (row,) = csv.DictReader((tmp_path / "losses.csv").open())
    assert row["total"] == "0.6" and row["intensity"] == "" and row["align"] == "0.3"


@pytest.mark.parametrize(
    ("lines", "line"),
    [
        ([], 1),
        (["iteration,epoch"], 1),
        ([HEADER, "1,1,,,,,,,,0.5"], 3),
        ([HEADER, "2,1,,,,,,,,0.5", "1,1,,,,,,,,0.5"], 2),
        ([HEADER, "1,1,,,,,,,,0.5", "2,1,\x00"], 3),
    ],
)
def test_losses_that_a_checkpoint_cannot_have_behind_it(tmp_path: Path, lines: list[str], line: int) -> None:
    (tmp_path / "losses.csv").write_text("".join(f"{text}\n" for text in lines))
    before = (tmp_path / "losses.csv").read_bytes()
    with pytest.raises(ValueError, match=rf"losses\.csv: is damaged: .* in line {line}$"):
        log(tmp_path, 2, 3)
    assert (tmp_path / "losses.csv").read_bytes() == before
