"""The commands that train, from released data sets to the papers' tables."""

import csv
import json
from pathlib import Path

import pytest

from jaa_ext import facs
from jaa_ext.data import PreparedFaces
from jaa_ext.models import load_model

pytestmark = pytest.mark.usefixtures("one_thread")


def test_train_resume_evaluate(jaa, recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    code, printed, _ = jaa("train", recipe, "--out", out)
    assert code == 0 and "model.safetensors" in printed and "F1" in printed
    trained = json.loads((out / "metrics.json").read_text())
    assert trained["aus"] == [1, 4, 6, 10, 12, 17] and "Demonstration" in trained["note"]

    code, _, error = jaa("train", recipe, "--out", out)
    assert code == 2 and "holds a run already" in error and len(error.splitlines()) == 1
    assert jaa("train", recipe, "--out", out, "--resume")[0] == 0

    code, _, _ = jaa("evaluate", out / "model.safetensors", "--recipe", recipe, "--out", tmp_path / "scores")
    assert code == 0
    evaluated = json.loads((tmp_path / "scores" / "metrics.json").read_text())
    assert evaluated.pop("intervals")["resamples"] == 1000
    assert evaluated == {name: value for name, value in trained.items() if name != "intervals"}
    again, trained = (
        list(csv.DictReader((folder / "predictions.csv").open())) for folder in (tmp_path / "scores", out)
    )
    assert len(again) == 12 and [row["id"] for row in again] == [row["id"] for row in trained]
    code, printed, error = jaa("report", tmp_path / "scores")
    assert code == 0 and str(tmp_path / "scores" / "report.html") in printed, error
    assert "data:image" in (tmp_path / "scores" / "report.html").read_text()
    for one, other in zip(again, trained, strict=True):
        assert float(one["AU12_p"]) == pytest.approx(float(other["AU12_p"]), abs=1e-4)


def test_bp4d_from_release_to_table_1(
    jaa, jaa_ok, tiny: tuple[str, ...], released: Path, tmp_path: Path
) -> None:
    faces, out = tmp_path / "faces", tmp_path / "cv"
    printed = jaa_ok("prepare", "bp4d", released / "bp4d", "--out", faces, "--size", 73, "--workers", 0)
    assert "9 frames of 3 subjects kept; the papers keep 146,576" in printed
    rows = [line.split("│")[1:-1] for line in printed.splitlines() if "│" in line]
    assert [int(row[0]) for row in rows] == [*facs.BP4D_AUS]
    rates = 100 * PreparedFaces(faces).label_matrix().mean(0)
    assert [float(row[1]) for row in rows] == pytest.approx(rates, abs=0.05)
    assert PreparedFaces(faces).aus == facs.BP4D_AUS
    assert (faces / "skipped.csv").read_text().splitlines() == ["sequence,frame,reason"]

    printed = jaa_ok("crossval", "paper", "--data", faces, "--out", out, *tiny)
    assert "F1 in percent" in printed and "best" in printed
    rows = list(csv.reader((out / "f1.csv").open()))
    assert rows[0] == ["AU", "paper", "fold 1", "fold 2", "fold 3", "mean", "best"]
    assert [row[0] for row in rows[1:]] == [*map(str, facs.BP4D_AUS), "Avg"]
    assert rows[1][1] == "47.2" and rows[-1][1] == "60.0"
    for folder in ("fold-1", "fold-2", "fold-3"):
        note = load_model(out / folder / "model.safetensors").note
        assert note == ""  # these weights are from real data, not from drawn faces

    # Again: refused, and with --resume nothing is trained anew.
    before = (out / "fold-2" / "losses.csv").stat().st_mtime_ns
    code, _, error = jaa("crossval", "paper", "--data", faces, "--out", out, *tiny)
    assert code == 2 and "holds a run already" in error
    jaa_ok("crossval", "paper", "--data", faces, "--out", out, "--resume", *tiny)
    assert (out / "fold-2" / "losses.csv").stat().st_mtime_ns == before

    # Scores of one fold, with intervals and figures; of every face of the folder.
    model, scores = out / "fold-1" / "model.safetensors", tmp_path / "scores"
    printed = jaa_ok("evaluate", model, "--data", faces, "--fold", 1, "--out", scores)
    assert "Tested on 3 faces of 1 subjects" in printed
    assert (scores / "figures" / "scores.png").stat().st_size > 0
    assert (scores / "figures" / "AU12.png").stat().st_size > 0
    printed = jaa_ok("evaluate", model, "--data", faces, "--fold", "all", "--out", scores)
    assert "Tested on 9 faces of 3 subjects" in printed
    assert len(json.loads((scores / "metrics.json").read_text())["intervals"]["f1"]) == 12


def test_disfa_starts_from_bp4d(jaa_ok, tiny: tuple[str, ...], released: Path, tmp_path: Path) -> None:
    bp4d, disfa = tmp_path / "bp4d", tmp_path / "disfa"
    jaa_ok("prepare", "bp4d", released / "bp4d", "--out", bp4d, "--size", 73, "--index", "csv")
    assert (bp4d / "index.csv").exists()
    jaa_ok("train", "released", "--data", bp4d, "--fold", 1, "--out", tmp_path / "first", *tiny)
    printed = jaa_ok("prepare", "disfa", released / "disfa", "--out", disfa, "--size", 73)
    assert "9 frames of 3 subjects kept; the papers keep 126,144" in printed
    init = tmp_path / "first" / "model.safetensors"
    printed = jaa_ok(
        "train",
        "released-disfa",
        "--data",
        disfa,
        "--fold",
        2,
        "--init",
        init,
        "--out",
        tmp_path / "run",
        *tiny,
    )
    assert "AU 25 from AU 23, AU 26 from AU 17; fresh:" in printed
    assert load_model(tmp_path / "run" / "model.safetensors").config.aus == facs.DISFA_AUS

    (tmp_path / "of-2").mkdir()
    (tmp_path / "of-2" / "model.safetensors").write_bytes(init.read_bytes())
    pattern = tmp_path / "of-{fold}" / "model.safetensors"
    arguments = ("--data", disfa, "--init", pattern, "--folds", 2, "--out", tmp_path / "cv")
    assert "AU 26 from AU 17" in jaa_ok("crossval", "released-disfa", *arguments, *tiny)
    assert list(csv.reader((tmp_path / "cv" / "f1.csv").open()))[-1][:2] == ["Avg", "56.0"]


def test_affwild2_two_steps(jaa_ok, released: Path, tmp_path: Path) -> None:
    faces, out = tmp_path / "faces", tmp_path / "abaw"
    printed = jaa_ok("prepare", "affwild2", released / "affwild2", "--out", faces, "--workers", 0)
    assert "12 frames of 4 subjects kept" in printed
    data = PreparedFaces(faces)
    assert data.image_size == 112 and data.folds == ("train", "validation")
    # At l = 112, as the images are; --budget tiny would want them smaller.
    recipe = (
        "base: abaw-{stage}\nname: stage-{stage}\nmodel: {{width: 1}}\n"
        "stages: [{{name: short, epochs: 1, lr: 0.01{train}}}]\n"
    )
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text(recipe.format(stage=1, train=""))
    two.write_text(recipe.format(stage=2, train=", train: [graph, au_head]"))
    jaa_ok("train", one, "--data", faces, "--out", out / "1")
    init = out / "1" / "model.safetensors"
    jaa_ok("crossval", two, "--data", faces, "--init", init, "--out", out / "2")
    model = load_model(out / "2" / "fold-validation" / "model.safetensors")
    assert type(model).__name__ == "JAAGraphNet"


@pytest.mark.parametrize(("study", "tables"), [("eccv", ("table3", "table4")), ("abaw", ("table1",))])
def test_ablate_prints_the_papers_tables(
    jaa_ok, tiny: tuple[str, ...], study: str, tables: tuple[str, ...], tmp_path: Path
) -> None:
    out = tmp_path / "ablation"
    printed = jaa_ok("ablate", "--study", study, "--data", "synthetic", "--folds", 1, "--out", out, *tiny)
    for table in tables:
        assert (out / f"{table}.md").exists() and f"{table}.md" in printed
    assert "not for real use" in (out / f"{tables[0]}.md").read_text()
