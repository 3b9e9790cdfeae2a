"""The commands that train, from released data sets to the papers' tables."""

import csv
import json
from pathlib import Path

import pytest

from jaa_ext import facs
from jaa_ext.data import PreparedFaces, prepare
from jaa_ext.data.readers.bp4d import read_bp4d
from jaa_ext.data.readers.disfa import read_disfa
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
    printed = jaa_ok("prepare", "disfa", released / "disfa", "--out", disfa, "--size", 73, "--workers", 0)
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


@pytest.fixture(scope="module")
def two(releases, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """BP4D and DISFA of three people each, prepared."""
    folder = tmp_path_factory.mktemp("two")
    releases.make_bp4d(folder / "BP4D")
    releases.make_disfa(folder / "DISFA")
    for name, read in (("bp4d", read_bp4d), ("disfa", read_disfa)):
        prepare(read(folder / name.upper()), folder / name, size=73, workers=0)
    return folder / "bp4d", folder / "disfa"


def test_several_data_sets(jaa_ok, two: tuple[Path, Path], tiny: tuple[str, ...], tmp_path: Path) -> None:
    data = ("--data", two[0], "--data", two[1], "--data", "rendered")
    arguments = ("train", "released", *data, "--share", 2, "--share", 1, "--share", 1, "--fold", 1)
    printed = jaa_ok(*arguments, "--out", tmp_path, *tiny)
    union = sorted({*facs.BP4D_AUS, *facs.DISFA_AUS, 5, 20})
    assert f"AUs of the model: {', '.join(map(str, union))}." in printed
    assert f"DISFA ({two[1]}) has {', '.join(map(str, facs.DISFA_AUS))}." in printed
    assert "  rendered (rendered faces) has all of them.\n" in printed
    assert "  BP4D: 6 faces to train, " in printed and "Are they the same people?" not in printed
    assert "all data sets together" in printed and "\nDISFA\n" in printed and "\nrendered\n" in printed
    assert jaa_ok(*arguments, "--out", tmp_path, "--resume", *tiny)
    model = load_model(tmp_path / "model.safetensors")
    assert model.config.aus == tuple(union) and "rendered faces" in model.note
    sets = json.loads((tmp_path / "metrics.json").read_text())["sets"]
    assert list(sets) == ["BP4D", "DISFA", "rendered"]
    assert [i for i, f1 in enumerate(sets["DISFA"]["f1"]) if f1 is not None] == [
        union.index(au) for au in facs.DISFA_AUS
    ]


def test_aus_that_are_chosen_scores_and_reports(
    jaa_ok, two: tuple[Path, Path], tiny: tuple[str, ...], tmp_path: Path
) -> None:
    run, scores, data = tmp_path / "run", tmp_path / "scores", ("--data", two[0], "--data", two[1])
    printed = jaa_ok("train", "released", *data, "--fold", 1, "--aus", "12, 1,25", "--out", run, *tiny)
    assert "AUs of the model: 12, 1, 25." in printed and f"  BP4D ({two[0]}) has 12, 1.\n" in printed
    weights = run / "model.safetensors"
    assert load_model(weights).config.aus == (12, 1, 25)
    printed = jaa_ok("evaluate", weights, *data, "--fold", "all", "--bootstrap", 20, "--out", scores)
    assert "Tested on 18 faces of 6 subjects" in printed and "\nBP4D\n" in printed
    assert list(json.loads((scores / "metrics.json").read_text())["sets"]) == ["BP4D", "DISFA"]
    jaa_ok("report", scores)
    assert "DISFA by itself" in (scores / "report.html").read_text()
    assert "Without faces" not in jaa_ok("report", run, *data)
    # One of them alone, which lacks an AU of the model; and from the run's recipe.
    printed = jaa_ok("evaluate", weights, "--data", two[0], "--fold", "all", "--out", scores)
    assert "Tested on 9 faces of 3 subjects" in printed
    printed = jaa_ok("evaluate", weights, "--recipe", run / "recipe.yaml", "--bootstrap", 0, "--out", scores)
    assert "Tested on 6 faces of 2 subjects" in printed
    jaa_ok("train", "released", "--data", "synthetic", "--aus", "6,12", *tiny, "--out", tmp_path / "alone")
    assert load_model(tmp_path / "alone" / "model.safetensors").config.aus == (6, 12)


def test_a_data_set_is_left_out(
    jaa_ok, two: tuple[Path, Path], tiny: tuple[str, ...], tmp_path: Path
) -> None:
    out = tmp_path / "left-out"
    data = ("--data", two[0], "--data", two[1])
    printed = jaa_ok("crossval", "released", *data, "--leave-out", "data", "--out", out, *tiny)
    assert "the run that tests data set DISFA" in printed and "0.065" in printed
    assert "released: without BP4D (1 of 2)" in printed and ": fold" not in printed
    rows = list(csv.reader((out / "f1.csv").open()))
    assert rows[0] == ["AU", "BP4D", "DISFA", "mean", "best"]
    by_au = {row[0]: row[1:] for row in rows}
    shared = [str(au) for au in facs.BP4D_AUS if au in facs.DISFA_AUS]
    assert all((by_au[au][0] != "") == (au in shared) for au in by_au if au not in ("AU", "Avg"))
    jaa_ok("report", out)
    assert "0.065" in (out / "report.html").read_text()
    jaa_ok("report", out / "fold-DISFA")


def test_two_data_sets_of_one_name(jaa, jaa_ok, tiny: tuple[str, ...], tmp_path: Path) -> None:
    """Rendered people of two seeds: named on the command line, in the run, and where that is read."""
    people = ("--subjects", 3, "--samples-per-subject", 4, "--size", 73, "--workers", 0)
    for seed in (1, 2):
        jaa_ok("prepare", "rendered", "--out", tmp_path / f"seed={seed}", "--seed", seed, *people)
    run, (one, other) = tmp_path / "run", (tmp_path / "seed=1", tmp_path / "seed=2")
    arguments = ("train", "journal", "--data", one, "--data", other, "--fold", "test", "--out", run, *tiny)
    code, _, error = jaa(*arguments)
    assert code == 2 and 'called "rendered" and "rendered"' in error and "--data NAME=FOLDER" in error
    data = ("--data", f"one={one}", "--data", f"two={other}")
    command = ("train", "journal", *data, "--aus", "12,25", "--fold", "test", "--out", run, *tiny)
    assert f"  two ({other}) has all of them." in jaa_ok(*command)
    jaa_ok(*command, "--resume")
    weights, scores = run / "model.safetensors", tmp_path / "scores"
    for options in (("--recipe", run / "recipe.yaml"), (*data, "--fold", "test")):
        jaa_ok("evaluate", weights, *options, "--bootstrap", 0, "--out", scores)
        assert list(json.loads((scores / "metrics.json").read_text())["sets"]) == ["one", "two"]
    jaa_ok("report", scores)
    jaa_ok("calibrate", weights, *data, "--fold", "all", "--out", tmp_path / "calibrated.safetensors")
    moved = tmp_path / "moved"
    other.rename(moved)
    data = ("--data", f"one={one}", "--data", f"two={moved}")
    assert "Without faces" not in jaa_ok("report", scores, *data)
    out = tmp_path / "cv"
    options = ("--leave-out", "data", "--folds", "two", "--aus", "12,25", "--out", out)
    jaa_ok("crossval", "journal", *data, *options, *tiny)
    assert (out / "fold-two" / "metrics.json").exists()


def test_mistakes_with_several_data_sets_are_one_sentence(
    jaa, two: tuple[Path, Path], tiny: tuple[str, ...], tmp_path: Path
) -> None:
    both = ("--data", two[0], "--data", two[1])
    for arguments, sentence in {
        ("train", "paper", *both): "no test fold is chosen, wanted one of 1, 2, 3",
        ("train", "paper", *both, "--fold", 4): 'has no test fold "4"',
        ("train", "paper", *both, "--share", 1): "once for each: got 1 of them for 2",
        (
            "train",
            "paper",
            *both,
            "--share",
            1,
            "--share",
            0,
            "--fold",
            1,
        ): "--share: wanted numbers above 0, got 1.0, 0",
        ("train", "paper", *both, "--aus", "1,99", "--fold", 1): "no rule for AU 99",
        ("train", "paper", *both, "--aus", "1,5", "--fold", 1): "have no labels of AU 5, only of [1, 2,",
        ("train", "paper", *both, "--aus", "1,x", "--fold", 1): "got 'x'",
        ("train", "paper", *both, "--aus", "1,1", "--fold", 1): "jaa: --aus: wanted each AU once, got 1,1",
        ("train", "paper", "--data", "synthetic", "--aus", 5): "jaa: aus must be some of [1, 2,",
        (
            "train",
            "paper",
            *both,
            "--data",
            "there",
        ): "jaa: there: wanted a prepared data set, got no such folder",
        ("train", "paper", *both, "--data", f"a:b={two[0]}"): "a name has letters, digits and . _ + - alone",
        (
            "train",
            "paper",
            *both,
            "--data",
            two[0],
            "--fold",
            1,
        ): "show the same people, who would be trained on and tested",
        (
            "crossval",
            "paper",
            "--data",
            two[0],
            "--leave-out",
            "data",
        ): "leaving out data sets wants several of them",
        (
            "crossval",
            "paper",
            *both,
            "--leave-out",
            "data",
            "--folds",
            "GFT",
        ): 'no data set "GFT", wanted one of BP4D',
    }.items():
        code, _, error = jaa(*arguments, "--out", tmp_path / "out", *tiny)
        assert code == 2 and sentence in error, (arguments, error)
        assert error.startswith("jaa: ") and len(error.splitlines()) == 1, error
        assert "leaves it out" not in error, error


def test_an_au_of_the_union_without_a_rule(
    jaa, two: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jaa_ext.recipes.datasets.union_of", lambda data: (1, 43))
    code, _, error = jaa("train", "released", "--data", two[0], "--data", two[1], "--out", tmp_path / "out")
    assert (
        code == 2
        and "no rule for AU 43" in error
        and "(--aus with the AUs of the model leaves it out)" in error
    )
    assert not (tmp_path / "out").exists()
