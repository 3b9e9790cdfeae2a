from __future__ import annotations

import csv
import io
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import yaml
from rich.console import Console

from jaa_ext import facs
from jaa_ext.cli.output import show_table
from jaa_ext.data import SyntheticFaces
from jaa_ext.evaluation import Scores
from jaa_ext.experiments import Comparison, ablate
from jaa_ext.experiments.ablate import Study
from jaa_ext.experiments.crossval import CrossValidation, FoldResult
from jaa_ext.experiments.published import ABAW, ABLATION
from jaa_ext.models import JAAGraphNet, load_model
from jaa_ext.recipes.budget import shrink
from jaa_ext.recipes.datasets import STAND_IN
from jaa_ext.recipes.schema import Recipe, load_recipe
from jaa_ext.training import Listener, RunError, train

TABLE_3 = """
R-Net          | R   S     GF                       | 54.9
HMR-Net        | HMR S     GF                       | 55.8
HMR-Net+D      | HMR S D   GF                       | 56.6
HMR-Net+DW     | HMR S D W GF                       | 57.4
HMR-Net+DWA    | HMR S D W GF FA                    | 58.0
JAA-Net        | HMR S D W GF FA LF AR BE GA        | 60.0
JAA-Net w/o AR | HMR S D W GF FA LF GA              | 57.4
JAA-Net w/o BE | HMR S D W GF FA LF AR GA           | 59.1
JAA-Net w/o GA | HMR S D W GF FA LF AR BE UA        | 57.3
"""
TABLE_4 = {
    "HMR-Net+DWA": ("11.86", "65.84"),
    "JAA-Net": ("6.38", "3.27"),
    "JAA-Net w/o AR": ("12.32", "53.48"),
    "JAA-Net w/o BE": ("9.21", "34.46"),
    "JAA-Net w/o GA": ("14.14", "76.04"),
    "JAA-Net w/o AU": ("12.23", "66.85"),
}


def tiny(name: str) -> Recipe:
    return shrink(load_recipe(name).model_copy(update={"data": STAND_IN}), "tiny")


def run(study: Study, out: Path, prepare: Callable[[str], Recipe] = tiny, **options: Any) -> Comparison:
    return ablate(study, out, prepare, folds=["2"], device="cpu", **options)


@pytest.fixture(scope="module", autouse=True)
def one_thread_for_all() -> Iterator[None]:
    """Module-scoped fixtures come before those of each test."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Finished(NamedTuple):
    out: Path
    comparison: Comparison


@pytest.fixture(scope="module")
def eccv(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    out = tmp_path_factory.mktemp("eccv")
    return Finished(out, run("eccv", out))


@pytest.fixture(scope="module")
def abaw(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    out = tmp_path_factory.mktemp("abaw")
    return Finished(out, run("abaw", out))


def rows(out: Path, name: str) -> dict[str, dict[str, str]]:
    """A written table by the names of its rows and columns."""
    with (out / f"{name}.csv").open(newline="") as file:
        return {row["method"]: row for row in csv.DictReader(file)}


def metrics(out: Path, recipe: str) -> dict[str, Any]:
    made: dict[str, Any] = json.loads((out / recipe / "fold-2" / "metrics.json").read_text())
    return made


def test_files_of_a_study(eccv: Finished, abaw: Finished) -> None:
    for (out, comparison), names, tables in (
        (eccv, {row.recipe for row in ABLATION}, ("table3", "table4")),
        (abaw, {"abaw-1", "abaw-2", "abaw-2-no-graph"}, ("table1",)),
    ):
        files = {f"{table}.{kind}" for table in tables for kind in ("md", "csv")}
        assert {p.name for p in out.iterdir()} == {*names, *files, "ablation.json"}
        assert set(comparison.results) == set(comparison.recipes) == names
        written = json.loads((out / "ablation.json").read_text())
        assert written == json.loads(json.dumps({n: r.to_dict() for n, r in comparison.results.items()}))
        for name in names:
            assert written[name] == json.loads((out / str(name) / "crossval.json").read_text())
            assert (out / str(name) / "fold-2" / "model.safetensors").exists()
        for name, table in comparison.tables().items():
            assert (out / f"{name}.md").read_text() == table.markdown()
            assert "not for real use" in table.markdown()


def test_table_3(eccv: Finished) -> None:
    table = rows(eccv.out, "table3")
    wanted = [[cell.strip() for cell in line.split("|")] for line in TABLE_3.strip().splitlines()]
    assert list(table) == [name for name, _, _ in wanted]
    recipes = {row.name: row.recipe for row in ABLATION}
    for name, parts, paper in wanted:
        row = table[name]
        marks = {key for key in row if key.isupper() and row[key]}
        assert marks == set(parts.split())
        assert row["paper"] == paper
        mean = metrics(eccv.out, recipes[name])["f1_mean"]
        assert row["ours, last epoch"] == f"{100 * mean:.1f}"
        assert float(row["ours, best epoch"]) >= float(row["ours, last epoch"])
    assert "on the very faces it is tested on" in (eccv.out / "table3.md").read_text()


def test_table_4(eccv: Finished) -> None:
    table = rows(eccv.out, "table4")
    assert {n: (r["mean error paper"], r["failures paper"]) for n, r in table.items()} == TABLE_4
    assert list(table) == list(TABLE_4)
    for row in ABLATION:
        if row.name in TABLE_4:
            scores = metrics(eccv.out, row.recipe)
            assert table[row.name]["mean error ours"] == f"{scores['mean_error']:.2f}"
            assert table[row.name]["failures ours"] == f"{scores['failure_rate']:.2f}"
    assert metrics(eccv.out, "no-au")["f1_mean"] is None
    assert metrics(eccv.out, "r-net")["mean_error"] is None


def test_table_1_of_abaw(abaw: Finished) -> None:
    table = rows(abaw.out, "table1")
    published = {
        name: [row[f"{s} paper"] for s in ("F1", "total accuracy", "score")] for name, row in table.items()
    }
    assert published == {
        "Baseline": ["40.0", "22.0", "31.0"],
        "JAA-Net": ["44.4", "87.9", "66.2"],
        "JAA-Net, second stage": ["", "", ""],
        "JAA-Net with the graph": ["46.7", "88.0", "67.4"],
    }
    for row in ABAW:
        ours = [table[row.name][f"{score} ours"] for score in ("F1", "total accuracy", "score")]
        if row.recipe is None:
            assert ours == ["", "", ""]
        else:
            scores = metrics(abaw.out, row.recipe)
            f1, accuracy = scores["f1_mean"], scores["accuracy_total"]
            assert ours == [f"{100 * v:.1f}" for v in (f1, accuracy, (f1 + accuracy) / 2)]


def test_tables_fit_into_a_terminal_of_80_columns(eccv: Finished, abaw: Finished) -> None:
    """Every row on one line."""
    for finished in (eccv, abaw):
        for table in finished.comparison.tables().values():
            text = io.StringIO()
            show_table(table, Console(file=text, width=80))
            shown = [" ".join(line.split()) for line in text.getvalue().splitlines()]
            for row in table.rows:
                assert " ".join(cell for cell in row if cell) in shown


def test_the_second_step_goes_on_from_the_first(abaw: Finished) -> None:
    """Fold by fold; it changes the AU head and makes the graph, and nothing else."""
    first_file = abaw.out / "abaw-1" / "fold-2" / "model.safetensors"
    first = load_model(first_file).state_dict()
    for name in ("abaw-2", "abaw-2-no-graph"):
        folder = abaw.out / name / "fold-2"
        assert yaml.safe_load((folder / "recipe.yaml").read_text())["init"] == str(first_file)
        model = load_model(folder / "model.safetensors")
        assert isinstance(model, JAAGraphNet) == (name == "abaw-2")
        second = model.state_dict()
        same = {
            key.split(".")[0]: all(torch.equal(second[k], first[k]) for k in first if k.split(".")[0] == key)
            for key in {key.split(".")[0] for key in first}
            if key != "au_head"
        }
        assert set(same) == {"region_learning", "alignment", "global_features", "attention"}
        assert all(same.values())
        if name == "abaw-2-no-graph":
            assert second.keys() == first.keys()
            heads = [key for key in first if key.startswith("au_head")]
            assert heads and not any(torch.equal(first[key], second[key]) for key in heads)
    assert "init" not in yaml.safe_load((abaw.out / "abaw-1" / "fold-2" / "recipe.yaml").read_text())


def test_the_graph_is_that_of_the_training_folds(abaw: Finished) -> None:
    model = load_model(abaw.out / "abaw-2" / "fold-2" / "model.safetensors")
    assert isinstance(model, JAAGraphNet)
    faces = SyntheticFaces(subjects=[0, 1, 4, 5], samples_per_subject=4, aus=facs.AFFWILD2_AUS)
    present = faces.label_matrix()
    together = present.T @ present
    graph = together / np.maximum(present.sum(0), 1)[:, None] >= model.config.threshold
    np.fill_diagonal(graph, True)
    assert np.array_equal(model.graph.adjacency.numpy(), graph)
    assert not np.array_equal(graph, graph.T)


def contents(out: Path, *, runs: bool) -> dict[str, Any]:
    """Bytes of all files, and when those of runs were written."""
    made: dict[str, Any] = {}
    for path in sorted(out.rglob("*")):
        if path.is_file() and ("fold-" in str(path.relative_to(out))) == runs:
            made[str(path.relative_to(out))] = (path.stat().st_mtime_ns if runs else 0, path.read_bytes())
    return made


def test_a_finished_study_is_read_and_not_trained_again(
    abaw: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*args: Any, **options: Any) -> None:
        raise AssertionError("a finished run was trained")

    monkeypatch.setattr("jaa_ext.experiments.crossval.train", never)
    before = [contents(abaw.out, runs=runs) for runs in (True, False)]
    again = run("abaw", abaw.out, resume=True)
    assert [contents(abaw.out, runs=runs) for runs in (True, False)] == before
    assert again.tables() == abaw.comparison.tables()
    with pytest.raises(RunError, match=r"abaw-1/fold-2: holds a run already"):
        run("abaw", abaw.out)


def test_an_interrupted_study_goes_on(
    abaw: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []

    def dying(recipe: Recipe, *args: Any, **options: Any) -> Scores:
        if recipe.name == "abaw-2" and "abaw-2" not in trained:
            trained.append("abaw-2")
            raise MemoryError
        trained.append(recipe.name)
        return train(recipe, *args, **options)

    monkeypatch.setattr("jaa_ext.experiments.crossval.train", dying)
    with pytest.raises(MemoryError):
        run("abaw", tmp_path)
    assert trained == ["abaw-1", "abaw-2-no-graph", "abaw-2"]
    assert not (tmp_path / "ablation.json").exists() and not (tmp_path / "table1.md").exists()
    first = contents(tmp_path / "abaw-1", runs=True)
    trained.clear()
    trained.append("abaw-2")  # does not die again
    comparison = run("abaw", tmp_path, resume=True)
    assert trained == ["abaw-2", "abaw-2"]
    assert contents(tmp_path / "abaw-1", runs=True) == first
    assert comparison.tables() == abaw.comparison.tables()
    assert (tmp_path / "ablation.json").read_bytes() == (abaw.out / "ablation.json").read_bytes()


def test_a_study_that_was_moved_goes_on(abaw: Finished, tmp_path: Path) -> None:
    """Its second stages know their first ones by paths that are no more."""
    moved = tmp_path / "moved"
    shutil.copytree(abaw.out, moved)
    shutil.rmtree(moved / "abaw-2" / "fold-2")
    (moved / "abaw-2-no-graph" / "fold-2" / "metrics.csv").unlink()
    comparison = run("abaw", moved, resume=True)
    assert comparison.tables() == abaw.comparison.tables()
    for name in ("abaw-1", "abaw-2", "abaw-2-no-graph"):
        file = Path(name, "fold-2", "model.safetensors")
        assert (moved / file).read_bytes() == (abaw.out / file).read_bytes()
    first = Path("abaw-1", "fold-2", "model.safetensors")
    for name, out in (("abaw-2", moved), ("abaw-2-no-graph", abaw.out)):
        assert load_recipe(moved / name / "fold-2" / "recipe.yaml").init == str(out / first)


def test_another_recipe_is_refused(abaw: Finished) -> None:
    def other(name: str) -> Recipe:
        return tiny(name).model_copy(update={"seed": 1})

    with pytest.raises(RunError, match=r"abaw-1/fold-2: was begun by another recipe \(seed was 0, is 1\)"):
        run("abaw", abaw.out, other, resume=True)


def test_every_system_is_prepared_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And cross validated on its own data, on the folds asked for."""
    asked: list[str] = []
    heard: list[tuple[str, int, int]] = []
    validated: list[tuple[str, Path, Any, str | None]] = []

    def prepare(name: str) -> Recipe:
        asked.append(name)
        return tiny(name)

    def fake(recipe: Recipe, out: Path, *, folds: Any, init: Any, **options: Any) -> CrossValidation:
        validated.append((recipe.name, out, folds, None if init is None else str(init("2"))))
        score = Scores(recipe.model.config().aus, None, None, None, None, 1.0, 0.0)  # type: ignore[arg-type]
        return CrossValidation(recipe.name, "nothing", (FoldResult("2", score, score, 1),))

    # The package's attribute of that name is the function.
    monkeypatch.setattr(sys.modules["jaa_ext.experiments.ablate"], "cross_validate", fake)

    class Systems(Listener):
        def on_system(self, *system: Any) -> None:
            heard.append(system)

    run("eccv", tmp_path, prepare, listener=Systems())
    assert asked == [row.recipe for row in ABLATION]
    assert heard == [(name, number, len(asked)) for number, name in enumerate(asked, 1)]
    assert validated == [(name, tmp_path / name, ["2"], None) for name in asked]
    asked.clear(), validated.clear()
    run("abaw", tmp_path, prepare)
    assert asked == ["abaw-1", "abaw-2-no-graph", "abaw-2"]
    start = str(tmp_path / "abaw-1" / "fold-2" / "model.safetensors")
    assert validated == [
        (name, tmp_path / name, ["2"], None if name == "abaw-1" else start) for name in asked
    ]
