from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray

from jaa_ext import facs
from jaa_ext.data import SyntheticFaces, prepare
from jaa_ext.data.rendered.release import rendered_release
from jaa_ext.evaluation import Scores
from jaa_ext.evaluation.bootstrap import bootstrap_intervals
from jaa_ext.evaluation.results import read_predictions
from jaa_ext.experiments import cross_validate
from jaa_ext.experiments.crossval import NOISE, CrossValidation, FoldResult, read_crossval
from jaa_ext.models import load_model, save_model
from jaa_ext.recipes.schema import Recipe
from jaa_ext.score_text import score_text
from jaa_ext.training import Listener, RunError, Trainer, train
from jaa_ext.training.run_folder import hold_folder

AUS, THRESHOLD = (6, 7, 12), 0.45
RECIPE: dict[str, Any] = {
    "name": "tiny",
    "model": {
        "preset": "graph",
        "aus": [*AUS],
        "image_size": 64,
        "width": 1,
        "graph_widths": [4],
        "threshold": THRESHOLD,
    },
    # Of six people 2 a fold; the recipe's own fold is not looked at.
    "data": {"train_subjects": 4, "test_subjects": 2, "samples_per_subject": 4, "test_fold": "2"},
    "batch_size": 8,
    "stages": [{"name": "joint", "epochs": 2, "lr": 0.01}],
    "checkpoint_every": 1,
}  # 2 iterations an epoch
PEOPLE = {"1": [0, 1], "2": [2, 3], "3": [4, 5]}


def recipe(**changes: Any) -> Recipe:
    return Recipe.model_validate({**RECIPE, **changes})


def run(made: Recipe, out: Path, **options: Any) -> CrossValidation:
    return cross_validate(made, out, device="cpu", **options)


class Seen(NamedTuple):
    """What a fold's run began with."""

    weight: torch.Tensor
    trained: set[str]
    tested: set[str]
    adjacency: torch.Tensor
    state: dict[str, torch.Tensor]
    transfer: str


class Watch(Listener):
    """Notes with what each run begins, and of which folds it hears."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.folds: list[tuple[str, str, int, int]] = []

    def on_fold(self, *fold: Any) -> None:
        self.folds.append(fold)

    def on_epoch_start(self, trainer: Trainer) -> None:
        if trainer.iteration == 0:
            state = {key: value.clone() for key, value in trainer.model.state_dict().items()}
            assert trainer.weight is not None
            people = set(trainer.train_set.subjects), set(trainer.test_set.subjects)
            told = str(trainer.transfer)
            self.seen.append(Seen(trainer.weight.clone(), *people, state["graph.adjacency"], state, told))


@pytest.fixture(scope="module", autouse=True)
def one_thread_for_all() -> Iterator[None]:
    """Module-scoped fixtures come before those of each test."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Finished(NamedTuple):
    out: Path
    result: CrossValidation
    seen: list[Seen]
    folds: list[tuple[str, str, int, int]]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A cross validation that nothing interrupted."""
    out = tmp_path_factory.mktemp("crossval")
    watch = Watch()
    return Finished(out, run(recipe(), out, listener=watch), watch.seen, watch.folds)


def files(out: Path) -> dict[str, tuple[int, bytes]]:
    """When each file was written, and its bytes."""
    return {
        str(p.relative_to(out)): (p.stat().st_mtime_ns, p.read_bytes())
        for p in sorted(out.rglob("*"))
        if p.is_file()
    }


def labels(people: list[int]) -> NDArray[np.int64]:
    return SyntheticFaces(subjects=people, samples_per_subject=4, size=73, aus=AUS).label_matrix()


def test_every_fold_is_a_run_of_its_own(finished: Finished) -> None:
    assert {p.name for p in finished.out.iterdir()} == {
        "fold-1", "fold-2", "fold-3", "crossval.json",
        *(f"{name}.{kind}" for name in ("f1", "accuracy", "landmarks") for kind in ("md", "csv")),
    }  # fmt: skip
    assert [fold.fold for fold in finished.result.folds] == ["1", "2", "3"]
    for fold in finished.result.folds:
        folder = finished.out / f"fold-{fold.fold}"
        assert fold.last == Scores.from_dict(json.loads((folder / "metrics.json").read_text()))
        assert yaml.safe_load((folder / "recipe.yaml").read_text())["data"]["test_fold"] == fold.fold
        assert (folder / "model.safetensors").exists()
    assert finished.folds == [("tiny", str(place), place, 3) for place in (1, 2, 3)]


def test_a_fold_is_trained_on_the_others_alone(finished: Finished) -> None:
    everyone = {f"S00{i}" for i in range(6)}
    for (fold, people), seen in zip(PEOPLE.items(), finished.seen, strict=True):
        assert seen.tested == {f"S00{i}" for i in people}, fold
        assert seen.trained == everyone - seen.tested


def test_weights_and_graph_are_those_of_the_training_folds(finished: Finished) -> None:
    weights = []
    for people, seen in zip(PEOPLE.values(), finished.seen, strict=True):
        known = labels([i for i in range(6) if i not in people])
        rates = known.mean(0)
        want = len(AUS) / rates / (1 / rates).sum()
        assert seen.weight.numpy() == pytest.approx(want, rel=1e-5)
        together = np.array([[(known[:, i] & known[:, j]).sum() for j in range(3)] for i in range(3)])
        graph = together / known.sum(0)[:, None] >= THRESHOLD
        assert np.array_equal(seen.adjacency.numpy(), graph | np.eye(3, dtype=bool))
        weights.append(want)
        assert known.sum(0).min() > 0
    # Folds differ, so that a fold's own labels would have shown.
    assert not np.allclose(weights[0], weights[1], rtol=1e-3)
    assert not np.allclose(weights[1], weights[2], rtol=1e-3)


def test_chosen_folds(tmp_path: Path, finished: Finished) -> None:
    result = run(recipe(), tmp_path, folds=["3"])
    assert [fold.fold for fold in result.folds] == ["3"]
    assert result.folds[0] == finished.result.folds[2]
    assert not (tmp_path / "fold-1").exists()
    with pytest.raises(ValueError, match=r'no test fold "4".* 1, 2, 3$'):
        run(recipe(), tmp_path / "other", folds=["1", "4"])
    assert not (tmp_path / "other").exists()


def test_what_is_finished_is_not_trained_again(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: Any, **options: Any) -> None:
        raise AssertionError("a finished fold was trained")

    monkeypatch.setattr("jaa_ext.experiments.crossval.train", never)
    before = files(finished.out)
    result = run(recipe(), finished.out, resume=True)
    after = files(finished.out)
    assert result == finished.result
    assert {name: content for name, (_, content) in before.items()} == {
        name: content for name, (_, content) in after.items()
    }
    runs = [name for name in before if name.startswith("fold-")]
    assert runs and all(before[name] == after[name] for name in runs)


class Iterations(Listener):
    """Notes each update, the first of a run being 1, and fails after one of them."""

    def __init__(self, last: tuple[str, int] | None = None) -> None:
        self.done: list[tuple[str, int]] = []
        self.last = last

    def on_update(self, trainer: Trainer, losses: dict[str, float]) -> None:
        self.done.append((trainer.out.name, trainer.iteration))
        if self.done[-1] == self.last:
            raise MemoryError


def test_an_interrupted_cross_validation_goes_on(finished: Finished, tmp_path: Path) -> None:
    with pytest.raises(MemoryError):
        run(recipe(), tmp_path, listener=Iterations(("fold-2", 3)))
    assert not (tmp_path / "crossval.json").exists() and not (tmp_path / "fold-3").exists()
    first = files(tmp_path / "fold-1")

    iterations = Iterations()
    result = run(recipe(), tmp_path, resume=True, listener=iterations)
    assert iterations.done == [("fold-2", 4), *(("fold-3", i) for i in (1, 2, 3, 4))]
    assert files(tmp_path / "fold-1") == first
    assert result == finished.result
    for name in ("crossval.json", "f1.md", "f1.csv", "fold-2/losses.csv", "fold-2/model.safetensors"):
        assert (tmp_path / name).read_bytes() == (finished.out / name).read_bytes(), name


def test_a_fold_killed_between_its_last_two_files_gets_the_last_one(
    finished: Finished, tmp_path: Path
) -> None:
    shutil.copytree(finished.out, tmp_path / "killed")
    (tmp_path / "killed" / "fold-2" / "metrics.csv").unlink()
    result = run(recipe(), tmp_path / "killed", resume=True)
    assert result == finished.result
    for name in ("metrics.csv", "model.safetensors"):
        made, wanted = ((out / "fold-2" / name).read_bytes() for out in (tmp_path / "killed", finished.out))
        assert made == wanted, name


def test_a_fold_that_was_not_begun_is_begun_by_resume(tmp_path: Path, finished: Finished) -> None:
    result = run(recipe(), tmp_path, folds=["2"], resume=True)
    assert result.folds[0] == finished.result.folds[1]


def test_finished_folds_in_place_of_slow_bfloat16_are_taken_up(
    finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JAA_SLOW_BFLOAT16", raising=False)
    monkeypatch.setattr("jaa_ext.device.has_bfloat16", lambda device: False)
    with pytest.warns(UserWarning, match="float32 is used instead") as warned:
        result = run(recipe(precision="bf16-mixed"), finished.out, resume=True)
    assert len(warned) == 1 and result == finished.result


def test_folders_that_hold_runs_are_refused(finished: Finished, tmp_path: Path) -> None:
    before = files(finished.out)
    with pytest.raises(RunError, match=r"fold-1: holds a run already"):
        run(recipe(), finished.out)
    with pytest.raises(RunError, match=r"fold-1: was begun by another recipe \(batch_size was 8, is 6\)"):
        run(recipe(batch_size=6), finished.out, resume=True)
    assert files(finished.out) == before


def test_a_folder_is_refused_before_any_fold_is_trained(tmp_path: Path) -> None:
    (tmp_path / "fold-3").mkdir()
    (tmp_path / "fold-3" / "checkpoint.pt").touch()
    with pytest.raises(RunError, match=r"fold-3: holds a run already"):
        run(recipe(), tmp_path)
    assert not (tmp_path / "fold-1").exists()


def test_each_fold_starts_from_a_model_of_its_own(tmp_path: Path) -> None:
    model = {"preset": "journal", "aus": [*AUS], "image_size": 64, "width": 1}
    short = [{"name": "joint", "epochs": 1, "lr": 0.01}]
    sources = {}
    for fold, seed in (("1", 5), ("2", 6)):
        train(recipe(model=model, seed=seed, stages=short), tmp_path / f"from-{fold}", device="cpu")
        sources[fold] = tmp_path / f"from-{fold}" / "model.safetensors"
    watch = Watch()
    run(recipe(stages=short), tmp_path / "out", folds=["1", "2"], init=sources.__getitem__, listener=watch)
    for (fold, source), began in zip(sources.items(), watch.seen, strict=True):
        written = yaml.safe_load((tmp_path / "out" / f"fold-{fold}" / "recipe.yaml").read_text())
        assert written["init"] == str(source)
        assert began.transfer.startswith("fresh: ")
        theirs = load_model(source).state_dict()
        taken = [key for key in theirs if not key.startswith("au_head")]
        assert len(taken) > 50
        assert all(torch.equal(began.state[key], theirs[key]) for key in taken)


def test_a_graph_is_not_that_of_the_model_one_starts_from(finished: Finished, tmp_path: Path) -> None:
    """Which may have seen the fold that is tested now."""
    source = finished.out / "fold-1" / "model.safetensors"
    changed = load_model(source)
    changed.graph.adjacency.copy_(torch.eye(3)[[1, 2, 0]])  # none that labels give
    save_model(changed, tmp_path / "other.safetensors")
    watch = Watch()
    source = tmp_path / "other.safetensors"
    run(recipe(), tmp_path / "out", folds=["2"], init=lambda fold: source, listener=watch)
    (began,) = watch.seen
    assert torch.equal(began.adjacency, finished.seen[1].adjacency)
    assert torch.equal(began.state["graph.layers.0.weight"], changed.graph.layers[0].weight)


def scores(f1: Any, *, error: float | None = 5.0, aus: tuple[int, ...] = AUS, **fields: Any) -> Scores:
    """Accuracy is 0.1 more than F1."""
    accuracy = None if f1 is None else tuple(None if value is None else value + 0.1 for value in f1)

    def over_aus(values: Any) -> float | None:
        known = [value for value in values or () if value is not None]
        return sum(known) / len(known) if known else None

    failures = None if error is None else 4 * error
    return Scores(aus, f1, accuracy, over_aus(f1), over_aus(accuracy), error, failures, **fields)


def finish(made: Recipe, out: Path, histories: dict[str, list[Scores]]) -> None:
    """Folders of finished folds with these scores after each epoch."""
    for fold, epochs in histories.items():
        folder = out / f"fold-{fold}"
        folder.mkdir(parents=True)
        data = made.data.model_copy(update={"test_fold": fold})
        (folder / "recipe.yaml").write_text(made.model_copy(update={"data": data}).to_yaml())
        (folder / "checkpoint.pt").touch()
        epochs[-1].to_json(folder / "metrics.json")
        epochs[-1].to_csv(folder / "metrics.csv")
        history = [{"epoch": i, "scores": s.to_dict()} for i, s in enumerate(epochs, 1)]
        (folder / "history.json").write_text(json.dumps(history))


HISTORIES = {
    # The best mean F1 is in the second epoch; of the AUs some are better in others.
    "1": [scores((0.1, 0.2, 0.6)), scores((0.4, 0.8, 0.6), error=6.0), scores((0.9, 0.3, 0.3), error=7.0)],
    # A tie: the first of the best counts.
    "2": [scores((0.5, 0.5, 0.2), error=8.0), scores((0.2, 0.5, 0.5), error=9.0)],
    # One AU has no valid label in this fold.
    "3": [scores((0.7, None, 0.1), error=2.0)],
}


@pytest.fixture
def known(tmp_path: Path) -> tuple[Path, CrossValidation]:
    """A cross validation whose histories are `HISTORIES`."""
    finish(recipe(), tmp_path, HISTORIES)
    return tmp_path, run(recipe(), tmp_path, resume=True)


def test_the_best_epoch_is_not_the_last(known: tuple[Path, CrossValidation]) -> None:
    folds = known[1].folds
    assert [fold.best_epoch for fold in folds] == [2, 1, 1]
    assert [fold.last for fold in folds] == [epochs[-1] for epochs in HISTORIES.values()]
    assert [fold.best for fold in folds] == [HISTORIES["1"][1], HISTORIES["2"][0], HISTORIES["3"][0]]


def test_means_over_folds(known: tuple[Path, CrossValidation]) -> None:
    result = known[1]
    # Last: (0.9 + 0.3 + 0.3) / 3 = 0.5, 0.4, (0.7 + 0.1) / 2 = 0.4; best of the first: 0.6.
    assert result.mean("f1_mean") == pytest.approx((0.5 + 0.4 + 0.4) / 3)
    assert result.mean("f1_mean", best=True) == pytest.approx((0.6 + 0.4 + 0.4) / 3)
    assert result.mean("accuracy_mean") == pytest.approx((0.6 + 0.5 + 0.5) / 3)
    assert result.mean("mean_error") == pytest.approx((7 + 9 + 2) / 3)
    assert result.mean("mean_error", best=True) == pytest.approx((6 + 8 + 2) / 3)
    assert result.mean("failure_rate") == pytest.approx(4 * (7 + 9 + 2) / 3)
    assert result.mean("accuracy_total") is None
    assert (result.recipe, result.data, result.aus, result.note) == ("tiny", "drawn faces", AUS, "")


def test_tables_by_hand(known: tuple[Path, CrossValidation]) -> None:
    tables = known[1].tables()
    assert list(tables) == ["f1", "accuracy", "landmarks"]
    columns = ("paper", "fold 1", "fold 2", "fold 3", "mean", "best")
    assert tables["f1"].header == tables["accuracy"].header == ("AU", *columns)
    assert tables["f1"].rows == (
        ("6", "", "90.0", "20.0", "70.0", "60.0", "53.3"),
        ("7", "", "30.0", "50.0", "", "40.0", "65.0"),
        ("12", "", "30.0", "50.0", "10.0", "30.0", "30.0"),
        ("Avg", "", "50.0", "40.0", "40.0", "43.3", "46.7"),
    )
    assert tables["accuracy"].rows == (
        ("6", "", "100.0", "30.0", "80.0", "70.0", "63.3"),
        ("7", "", "40.0", "60.0", "", "50.0", "75.0"),
        ("12", "", "40.0", "60.0", "20.0", "40.0", "40.0"),
        ("Avg", "", "60.0", "50.0", "50.0", "53.3", "56.7"),
    )
    assert tables["landmarks"].header[1:] == columns
    assert [row[0] for row in tables["landmarks"].rows] == ["mean error", "failures"]
    assert [[float(cell) for cell in row[2:]] for row in tables["landmarks"].rows] == [
        pytest.approx([7, 9, 2, 6, 16 / 3], abs=0.06),
        pytest.approx([28, 36, 8, 24, 64 / 3], abs=0.06),
    ]
    for table in tables.values():
        assert "fold 1: 2, fold 2: 1, fold 3: 1" in table.notes[0]
        assert table.title.startswith("tiny on drawn faces: ")


def test_files_by_hand(known: tuple[Path, CrossValidation]) -> None:
    out, result = known
    for name, table in result.tables().items():
        assert (out / f"{name}.md").read_text() == table.markdown()
        with (out / f"{name}.csv").open(newline="") as file:
            assert list(csv.reader(file)) == [list(row) for row in (table.header, *table.rows)]
    written = json.loads((out / "crossval.json").read_text())
    assert written == json.loads(json.dumps(result.to_dict()))
    assert (written["recipe"], written["data"]) == ("tiny", "drawn faces")
    for fold in written["folds"]:
        epochs = HISTORIES[fold["fold"]]
        assert Scores.from_dict(fold["last"]) == epochs[-1]
        assert Scores.from_dict(fold["best"]) == epochs[fold["best_epoch"] - 1]


def test_published_figures_stand_beside_ours() -> None:
    for aus, title, f1, accuracy, other in (
        (facs.BP4D_AUS, "BP4D", "47.2", "74.7", "DRML 48.3"),
        (facs.DISFA_AUS, "DISFA", "43.7", "93.4", "APL 23.8"),
    ):
        last = scores(tuple(0.5 for _ in aus), aus=aus, note="For tests.")
        tables = CrossValidation("mine", "here", (FoldResult("1", last, last, 1),)).tables()
        assert tables["f1"].rows[0] == ("1", f1, "50.0", "50.0", "50.0")
        assert tables["accuracy"].rows[0] == ("1", accuracy, "60.0", "60.0", "60.0")
        assert [row[0] for row in tables["f1"].rows] == [*map(str, aus), "Avg"]
        assert [tables[name].rows[-1][1] for name in ("f1", "accuracy")] == (
            ["60.0", "78.4"] if title == "BP4D" else ["56.0", "92.7"]
        )
        assert any(title in note and other in note for note in tables["f1"].notes)
        assert not any(other in note for note in tables["accuracy"].notes)
        assert all(table.notes[-1] == "For tests." for table in tables.values())
        bp4d = title == "BP4D"
        assert [row[1] for row in tables["landmarks"].rows] == (["6.38", "3.27"] if bp4d else ["", ""])
        told = '"paper": JAA-Net on BP4D (ECCV 2018, Table 4).' in tables["landmarks"].notes
        assert told == bp4d


def test_alignment_alone(tmp_path: Path) -> None:
    """The best epoch is that of the lowest mean error, and there is no table of AUs."""
    model: dict[str, Any] = {"preset": "paper", "aus": [*AUS], "image_size": 64, "width": 1}
    for part in ("au_detection", "global_features", "attention", "refinement", "padding_removal"):
        model[part] = False
    made = recipe(model={**model, "gradient_enhancement": 1.0})
    histories = {"1": [scores(None, error=e) for e in (9.0, 4.0, 5.0)], "2": [scores(None, error=8.0)]}
    finish(made, tmp_path, histories)
    result = run(made, tmp_path, folds=["1", "2"], resume=True)
    assert [fold.best_epoch for fold in result.folds] == [2, 1]
    assert result.mean("f1_mean") is None
    assert result.mean("mean_error", best=True) == 6.0
    tables = result.tables()
    assert list(tables) == ["landmarks"]
    assert "lowest mean error" in tables["landmarks"].notes[0]
    assert not (tmp_path / "f1.md").exists()


def test_aus_alone() -> None:
    last = scores((0.5, 0.5, 0.5), error=None)
    result = CrossValidation("mine", "here", (FoldResult("1", last, last, 1),))
    assert list(result.tables()) == ["f1", "accuracy"]
    assert result.mean("mean_error") is None


def test_two_at_once_are_refused(finished: Finished, tmp_path: Path) -> None:
    with hold_folder(tmp_path), pytest.raises(RunError, match="another process"):
        run(recipe(), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values.update(folds=[]),
        lambda values: values["folds"][0]["last"].update(aus=[1]),
        lambda values: values["folds"][1]["best"].update(f1=None),
        lambda values: values["folds"][1].update(best_epoch="2"),
        lambda values: values["folds"][1]["last"].update(sets={"BP4D": values["folds"][0]["last"]}),
        lambda values: values["folds"][0].update(f1_intervals={"": [0.5]}),
        lambda values: values.update(leave_out="people"),
        lambda values: values.pop("data"),
    ],
)
def test_a_damaged_summary(
    finished: Finished, tmp_path: Path, change: Callable[[dict[str, Any]], Any]
) -> None:
    values = json.loads((finished.out / "crossval.json").read_text())
    change(values)
    (tmp_path / "crossval.json").write_text(json.dumps(values))
    with pytest.raises(
        ValueError, match=r"crossval\.json: is damaged: wanted what jaa crossval writes, got "
    ):
        read_crossval(tmp_path / "crossval.json")
    assert read_crossval(finished.out / "crossval.json") == finished.result


def test_intervals_of_folds_and_what_is_noise(finished: Finished) -> None:
    """The interval is that of the fold's own predictions; none of a fold without its file."""
    result, notes = finished.result, finished.result.tables()["f1"].notes
    (told,) = (note for note in notes if note.startswith("95 % intervals of the mean F1"))
    for fold in result.folds:
        folder = finished.out / f"fold-{fold.fold}"
        wanted = bootstrap_intervals(read_predictions(folder / "predictions.csv", fold.last))
        assert wanted is not None and fold.f1_intervals == {"": wanted.f1_mean}
        assert f"fold {fold.fold}: {score_text(fold.last.f1_mean, wanted.f1_mean)}" in told
    assert notes[notes.index(told) + 1] == NOISE and "0.065" in NOISE
    assert NOISE not in result.tables()["accuracy"].notes
    without = replace(result, folds=tuple(replace(fold, f1_intervals={}) for fold in result.folds))
    assert not any("95 %" in note for note in without.tables()["f1"].notes)
    assert NOISE in without.tables()["f1"].notes


SETS: dict[str, Any] = {
    "name": "several",
    "sets": [
        {"name": "synthetic", "train_subjects": 4, "test_subjects": 2, "samples_per_subject": 4},
        {"name": "rendered", "train_subjects": 2, "test_subjects": 1, "samples_per_subject": 4},
    ],
    "shares": [1, 1],
}
MODEL: dict[str, Any] = {**RECIPE["model"], "aus": [5, 6, 12]}
"""Drawn faces have no AU 5."""
SHORT = [{"name": "joint", "epochs": 1, "lr": 0.01}]


def test_a_data_set_is_left_out(tmp_path: Path) -> None:
    made = recipe(data=SETS, model=MODEL, stages=SHORT)
    watch = Watch()
    with pytest.warns(UserWarning, match="AU 5 never occurs in the labels"):  # of drawn faces
        result = run(made, tmp_path, leave_out="data", listener=watch)
    assert [fold.fold for fold in result.folds] == ["synthetic", "rendered"]
    drawn, rendered = {f"synthetic:S00{i}" for i in range(6)}, {f"rendered:R000{i}" for i in range(3)}
    assert [(seen.trained, seen.tested) for seen in watch.seen] == [(rendered, drawn), (drawn, rendered)]
    assert [fold.last.valid for fold in result.folds] == [(0, 24, 24), (0, 12, 12)]
    assert all(fold.last.f1 is not None and fold.last.f1[0] is None for fold in result.folds)
    written = yaml.safe_load((tmp_path / "fold-rendered" / "recipe.yaml").read_text())
    assert written["data"]["leave_out"] == "rendered"

    tables = result.tables()
    assert list(tables) == ["f1", "accuracy", "landmarks"]
    table = tables["f1"]
    assert table.header == ("AU", "synthetic", "rendered", "mean", "best")
    assert table.rows[0] == ("5", "", "", "", "")
    assert table.notes[0].startswith(
        "Each data set, tested with all its faces by a model of the others on the AUs"
    )
    assert "synthetic: 1, rendered: 1" in table.notes[0] and NOISE in table.notes
    assert "synthetic: " in table.notes[1] and "fold" not in table.notes[1]
    assert read_crossval(tmp_path / "crossval.json") == result

    again = run(made, tmp_path, leave_out="data", folds=["rendered"], resume=True)
    assert again.folds == result.folds[1:]
    with pytest.raises(ValueError, match=r': has no data set "theirs", wanted one of rendered, synthetic$'):
        run(made, tmp_path, leave_out="data", folds=["theirs"], resume=True)


def test_one_data_set_cannot_be_left_out(tmp_path: Path) -> None:
    for data in (RECIPE["data"], {"name": "several", "sets": SETS["sets"][:1]}):
        with pytest.raises(
            ValueError, match=r"wants several of them \(--data A --data B\), got drawn faces$"
        ):
            run(recipe(data=data), tmp_path, leave_out="data")
    assert not list(tmp_path.iterdir())


def test_folds_of_several_data_sets(tmp_path: Path) -> None:
    """A table of all together, and one of each; a data set that the recipe leaves out is not."""
    made = recipe(data={**SETS, "leave_out": "rendered"}, model=MODEL, stages=SHORT)
    watch = Watch()
    result = run(made, tmp_path, folds=["2"], listener=watch)
    (fold,) = result.folds
    assert watch.seen[0].tested == {"synthetic:S002", "synthetic:S003", "rendered:R0001"}
    assert fold.last.sets is not None and list(fold.last.sets) == ["synthetic", "rendered"]
    tables = result.tables()
    of_each = [f"{kind}-{name}" for name in fold.last.sets for kind in ("f1", "accuracy", "landmarks")]
    assert list(tables) == ["f1", "accuracy", "landmarks", *of_each]
    assert tables["f1-synthetic"].title == "tiny on synthetic (of drawn faces, rendered faces): F1 in percent"
    assert [row[0] for row in tables["f1"].rows] == ["5", "6", "12", "Avg"]
    assert [row[0] for row in tables["f1-synthetic"].rows] == ["6", "12", "Avg"]  # drawn faces have no AU 5
    assert [row[0] for row in tables["f1-rendered"].rows] == ["5", "6", "12", "Avg"]
    part = fold.last.sets["synthetic"]
    assert part.f1 is not None and part.f1[2] is not None
    assert tables["f1-synthetic"].rows[1][2] == f"{100 * part.f1[2]:.1f}"
    mean = fold.last.sets["rendered"].f1_mean
    assert mean is not None and tables["f1-rendered"].rows[-1][2] == f"{100 * mean:.1f}"
    assert (tmp_path / "f1-rendered.csv").exists()
    # Intervals: the rendered faces tested are one person's.
    assert set(fold.f1_intervals) == {"", "synthetic", "rendered"} and fold.f1_intervals["rendered"] is None
    assert any("95 %" in note for note in tables["f1-synthetic"].notes)
    assert not any("95 %" in note for note in tables["f1-rendered"].notes)
    assert read_crossval(tmp_path / "crossval.json") == result


def test_published_figures_of_one_of_several_data_sets() -> None:
    """A model of more AUs than BP4D's is compared with the papers on BP4D's faces."""
    aus = (1, 2, 4, 6, 7, 9, 10, 12, 14, 15, 17, 23, 24)
    own = tuple(None if au == 9 else 0.5 for au in aus)
    part = scores(own, aus=aus, valid=tuple(0 if au == 9 else 7 for au in aus))
    last = replace(scores(tuple(0.5 for _ in aus), aus=aus), sets={"BP4D": part, "other": part})
    tables = CrossValidation("mine", "here", (FoldResult("1", last, last, 1),)).tables()
    assert tables["f1"].rows[0] == ("1", "", "50.0", "50.0", "50.0")
    assert tables["f1-BP4D"].rows[0] == ("1", "47.2", "50.0", "50.0", "50.0")
    assert [row[0] for row in tables["f1-BP4D"].rows] == [*map(str, facs.BP4D_AUS), "Avg"]
    assert tables["landmarks-BP4D"].rows[0][1] == "6.38"
    assert tables["f1-other"].rows[0] == ("1", "", "50.0", "50.0", "50.0")
    assert not any(
        '"paper"' in note for table in ("f1", "f1-other", "landmarks-other") for note in tables[table].notes
    )


def test_published_figures_stand_beside_their_data_set_alone() -> None:
    last = scores(tuple(0.5 for _ in facs.BP4D_AUS), aus=facs.BP4D_AUS)
    made = CrossValidation("mine", "here", (FoldResult("1", last, last, 1),))
    for name, paper in (
        ("BP4D", "47.2"),
        ("lists", "47.2"),
        ("synthetic", ""),
        ("DISFA", ""),
        ("BP4D-plus", ""),
    ):
        assert replace(made, data_set=name).tables()["f1"].rows[0][1] == paper
    together = replace(last, sets={"BP4D": last, "rendered": last})
    tables = replace(made, folds=(FoldResult("1", together, together, 1),)).tables()
    papers = {name: tables[name].rows[0][1] for name in ("f1", "f1-BP4D", "f1-rendered")}
    assert papers == {"f1": "", "f1-BP4D": "47.2", "f1-rendered": ""}
    # The folder knows what it is of, whatever it is called among others.
    together, own = replace(last, sets={"mine": last, "BP4D": last}), {"mine": "BP4D", "BP4D": "faces"}
    tables = replace(made, folds=(FoldResult("1", together, together, 1),), own_names=own).tables()
    assert [tables[name].rows[0][1] for name in ("f1-mine", "f1-BP4D")] == ["47.2", ""]


def test_a_data_set_without_an_au_of_the_others_is_found_first(tmp_path: Path) -> None:
    """Drawn faces have no AU 5, and rendered ones no AU but this one of the model."""
    made = recipe(data=SETS, model={**MODEL, "aus": [5, 6]}, stages=SHORT)
    sets = made.data.sets
    few = type(sets[1])
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch:
        patch.setattr(few, "known_aus", lambda self: (5,))
        with pytest.raises(ValueError, match=r"^synthetic: wanted an AU .* another data set has.* got 6$"):
            run(made, tmp_path, leave_out="data")
    assert not list(tmp_path.iterdir())


def rendered_folder(folder: Path) -> dict[str, str]:
    """Prepare two rendered people, the second of whom is the test part; give the data section."""
    release = rendered_release(subjects=2, samples_per_subject=12, size=73)
    prepare(release, folder, align=False, table="csv", workers=0)
    return {"name": "prepared", "folder": str(folder)}


def test_a_data_set_without_a_label_of_the_others_aus_is_found_first(tmp_path: Path) -> None:
    """The column of AU 6 is there, and empty."""
    section = rendered_folder(tmp_path / "faces")
    index = tmp_path / "faces" / "index.csv"
    header, *rows = csv.reader(index.open())
    with index.open("w", newline="") as file:
        csv.writer(file).writerows(
            [
                header,
                *(
                    [("" if name == "AU06" else cell) for name, cell in zip(header, row, strict=True)]
                    for row in rows
                ),
            ]
        )
    made = recipe(
        data={"name": "several", "sets": [SETS["sets"][0], section]}, model={**MODEL, "aus": [5, 6]}
    )
    for names, sentence in (
        (None, r"synthetic: .* too \(5\), .* got 6"),
        (["rendered"], r"rendered: .* too \(6\), .* got 5"),
    ):
        with pytest.raises(ValueError, match=rf"^{sentence}$"):
            run(made, tmp_path / "out", leave_out="data", folds=names)
    assert not (tmp_path / "out").exists()


def test_a_data_set_that_came_divided(tmp_path: Path) -> None:
    """By itself it is tested once; among others every fold tests the same faces, and the tables say so."""
    section = rendered_folder(tmp_path / "faces")
    result = run(recipe(data={**section, "called": "BP4D"}, stages=SHORT), tmp_path / "alone")
    assert [fold.fold for fold in result.folds] == ["test"] and result.data_set == "rendered"
    drawn = {**SETS["sets"][0], "called": "drawn"}
    both = recipe(data={"name": "several", "sets": [drawn, section]}, stages=SHORT)
    watch = Watch()
    result = run(both, tmp_path / "both", folds=["1", "2"], listener=watch)
    assert [seen.tested & {"rendered:R0001"} for seen in watch.seen] == [{"rendered:R0001"}] * 2
    assert result.divided == ("rendered",) and read_crossval(tmp_path / "both" / "crossval.json") == result
    assert result.own_names == {"drawn": "synthetic", "rendered": "rendered"} and result.data_set is None
    for name, told in {
        "f1": True,
        "f1-rendered": True,
        "landmarks-rendered": True,
        "f1-drawn": False,
    }.items():
        notes = [
            note for note in result.tables()[name].notes if note.startswith("rendered came divided: every")
        ]
        assert len(notes) == told


def test_predictions_of_an_earlier_version_cost_the_intervals_alone(
    finished: Finished, tmp_path: Path
) -> None:
    out = tmp_path / "cv"
    shutil.copytree(finished.out, out)
    for fold in finished.result.folds[:1]:
        path = out / f"fold-{fold.fold}" / "predictions.csv"
        path.write_text(path.read_text().replace("AU06_p", "AU06_probability"))
    again = run(recipe(), out, resume=True)
    assert again.folds[0] == replace(finished.result.folds[0], f1_intervals={})
    assert again.folds[1:] == finished.result.folds[1:]
