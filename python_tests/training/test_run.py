"""Whole runs on several data sets."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from jaa_ext.data import CombinedFaces, RenderedFaces, SyntheticFaces
from jaa_ext.evaluation import Scores, evaluate
from jaa_ext.facs import AU
from jaa_ext.models import load_model
from jaa_ext.nn import au_weights
from jaa_ext.recipes.datasets import DEMONSTRATION
from jaa_ext.recipes.schema import Recipe
from jaa_ext.training import Listener, Trainer, train

AUS = (4, 6, 12)
RECIPE: dict[str, Any] = {
    "name": "several",
    "model": {"aus": [*AUS], "image_size": 64, "width": 1, "intensity": True},
    "data": {"train_subjects": 2, "test_subjects": 1, "samples_per_subject": 5},
    "batch_size": 5,
    "stages": [{"name": "joint", "epochs": 2, "lr": 0.01}],
    "checkpoint_every": 1,
}


def faces(subjects: list[int], count: int, aus: tuple[int, ...]) -> SyntheticFaces:
    return SyntheticFaces(subjects=subjects, samples_per_subject=count, size=73, aus=aus)


def datasets(shares: tuple[float, ...] | None = (1, 2)) -> tuple[CombinedFaces, CombinedFaces]:
    """Twelve faces of AUs 6 and 12 and four of 4 and 12; of the latter as many test faces."""
    one, other = (
        (faces([1, 2], 6, (6, 12)), faces([9], 4, (6, 12))),
        (faces([1], 4, (4, 12)), faces([5], 4, (4, 12))),
    )
    train_set = CombinedFaces({"one": one[0], "other": other[0]}, aus=AUS, shares=shares)
    return train_set, CombinedFaces({"one": one[1], "other": other[1]}, aus=AUS)


def run(out: Path, *, shares: tuple[float, ...] | None = (1, 2), **options: Any) -> Scores:
    made = Recipe.model_validate(RECIPE)
    return train(made, out, device="cpu", datasets=datasets(shares), **options)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Scores]:
    out = tmp_path_factory.mktemp("several") / "run"
    torch.set_num_threads(1)
    return out, run(out)


def losses(out: Path) -> list[dict[str, str]]:
    with (out / "losses.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_scores_of_each_data_set_stand_beside_those_of_all(finished: tuple[Path, Scores]) -> None:
    out, scores = finished
    assert scores.sets is not None and list(scores.sets) == ["one", "other"]
    assert scores.note == DEMONSTRATION
    assert (scores.valid, scores.rated) == ((4, 4, 8), (4, 4, 8))
    model = load_model(out / "model.safetensors")
    for name, lacking in (("one", 0), ("other", 1)):
        part = scores.sets[name]
        alone = CombinedFaces({name: datasets()[1].sets[name]}, aus=AUS)
        again = evaluate(model, alone)
        assert again.sets is None and again.valid == part.valid and again.subjects == part.subjects == 1
        for score in ("f1", "accuracy", "precision", "recall", "auc"):
            own, other = getattr(part, score), getattr(again, score)
            assert own[lacking] is None and own == pytest.approx(other)
        assert part.mean_error == pytest.approx(again.mean_error, rel=1e-4)
        assert part.f1_mean == pytest.approx(sum(v for v in part.f1 or () if v is not None) / 2)


def test_files_hold_the_scores_of_each(finished: tuple[Path, Scores]) -> None:
    out, scores = finished
    values = json.loads((out / "metrics.json").read_text())
    assert Scores.from_dict(values) == scores
    assert values["sets"]["other"]["f1"][0] == (scores.sets or {})["other"].f1[0]  # type: ignore[index]
    with (out / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    aus = [*map(str, AUS), "mean"]
    assert [(row["data"], row["au"]) for row in rows] == [(d, au) for d in ("", "one", "other") for au in aus]
    assert rows[4]["f1"] == rows[9]["f1"] == "" and rows[4]["valid"] == "0"
    history = json.loads((out / "history.json").read_text())
    assert Scores.from_dict(history[-1]["scores"]) == scores
    with (out / "predictions.csv").open(newline="") as file:
        ids = [row["id"] for row in csv.DictReader(file)]
    assert ids[0] == "one:S009/00000" and ids[-1] == "other:S005/00003"


class Watch(Listener):
    """Notes the shares of the data sets in each epoch, and that no update spoils the model."""

    def __init__(self) -> None:
        self.counts: list[tuple[int, int]] = []

    def on_epoch_start(self, trainer: Trainer) -> None:
        drawn = [i for batch in range(len(trainer.batches)) for _, i in trainer.batches.whole(batch)]
        self.counts.append((sum(i < 12 for i in drawn), sum(i >= 12 for i in drawn)))

    def on_update(self, trainer: Trainer, losses: dict[str, float]) -> None:
        assert all(value.isfinite().all() for value in trainer.model.state_dict().values())


def test_shares_reach_training(finished: tuple[Path, Scores], tmp_path: Path) -> None:
    watch = Watch()
    run(tmp_path / "by-share", listener=watch)
    # 16 faces in batches of 5: the last batch would be a single face, and is left out.
    assert len(losses(tmp_path / "by-share")) == 6
    assert all(sum(counts) == 15 and counts[0] in (4, 5, 6) for counts in watch.counts)
    assert losses(tmp_path / "by-share") == losses(finished[0])
    watch = Watch()
    run(tmp_path / "each-once", shares=None, listener=watch)
    assert all(sum(counts) == 15 and counts[0] in (11, 12) for counts in watch.counts)


class Failing(Listener):
    def on_update(self, trainer: Trainer, losses: dict[str, float]) -> None:
        if trainer.iteration == 4:
            raise MemoryError


def test_an_interrupted_run_goes_on_with_the_same_bits(finished: tuple[Path, Scores], tmp_path: Path) -> None:
    with pytest.raises(MemoryError):
        run(tmp_path / "run", listener=Failing())
    assert run(tmp_path / "run", resume=True) == finished[1]
    assert losses(tmp_path / "run") == losses(finished[0])
    models = [load_model(out / "model.safetensors").state_dict() for out in (finished[0], tmp_path / "run")]
    assert all(torch.equal(value, models[1][name]) for name, value in models[0].items())


def test_weights_of_aus_count_labels_as_often_as_they_come(tmp_path: Path) -> None:
    """By hand, of two sets whose faces come in the ratio 1 : 2 and whose numbers are 12 and 4."""
    train_set, _ = datasets()
    labels = [part.label_matrix() for part in train_set.sets.values()]
    six, four = (labels[0] == 1).mean(0), (labels[1] == 1).mean(0)
    rates = {4: four[0], 6: six[0], 12: (six[1] + 2 * four[1]) / 3}
    inverse = [1 / rates[au] if rates[au] else 0.0 for au in AUS]
    watch = _Weights()
    run(tmp_path / "shares", listener=watch)
    assert watch.weight == pytest.approx([sum(map(bool, inverse)) * x / sum(inverse) for x in inverse])
    run(tmp_path / "none", shares=None, listener=watch)
    assert watch.weight == au_weights(train_set.label_matrix()).tolist()


class _Weights(Listener):
    def on_epoch_start(self, trainer: Trainer) -> None:
        assert trainer.weight is not None
        self.weight = trainer.weight.tolist()


def test_a_share_of_no_face_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^other: its share is none of the 16 faces of an epoch"):
        run(tmp_path, shares=(1000, 1))


def test_weights_of_sides_count_mirrored_faces_as_often_as_the_faces(tmp_path: Path) -> None:
    """By hand: what is one side's in half of the crops is the other's in the others."""
    aus: tuple[AU, ...] = (6, "12L", "12R")
    sets = {
        name: RenderedFaces(subjects=[person], samples_per_subject=count, size=73, aus=aus, mix="sides")
        for name, person, count in (("one", 1, 12), ("other", 2, 4))
    }
    test_set = CombinedFaces({"one": RenderedFaces(subjects=[3], samples_per_subject=2, size=73, aus=aus)})
    watch = _Weights()
    made = Recipe.model_validate({**RECIPE, "model": {"aus": [*aus], "image_size": 64, "width": 1}})
    datasets = CombinedFaces(sets, shares=(1, 2)), test_set
    train(made, tmp_path, device="cpu", datasets=datasets, listener=watch)
    one, other = ((part.label_matrix() == 1).mean(0) for part in sets.values())
    rates = (one + 2 * other) / 3
    side = (rates[1] + rates[2]) / 2
    inverse = [1 / rates[0], 1 / side, 1 / side]
    assert watch.weight == pytest.approx([3 * x / sum(inverse) for x in inverse])
