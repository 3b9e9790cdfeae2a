"""From released data sets to the papers' tables: each command on miniature releases."""

import csv
import json
from pathlib import Path

import pytest

from jaa_ext import facs
from jaa_ext.data import PreparedFaces
from jaa_ext.models import load_model

pytestmark = pytest.mark.usefixtures("one_thread")

# 73 = round(64 * 200 / 176): for the networks of --budget tiny.
TINY = ("--budget", "tiny", "--device", "cpu")


@pytest.fixture(scope="module")
def released(releases, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("released")
    releases.make_bp4d(folder / "bp4d")
    releases.make_disfa(folder / "disfa")
    releases.make_affwild2(folder / "affwild2")
    return folder


def ok(result: tuple[int, str, str]) -> str:
    code, printed, error = result
    assert code == 0, error
    return printed


def test_bp4d_from_release_to_table_1(jaa, released: Path, tmp_path: Path) -> None:
    faces, out = tmp_path / "faces", tmp_path / "cv"
    printed = ok(jaa("prepare", "bp4d", released / "bp4d", "--out", faces, "--size", 73, "--workers", 0))
    assert "9 frames of 3 subjects kept; the papers keep 146,576" in printed
    rows = [line.split("│")[1:-1] for line in printed.splitlines() if "│" in line]
    assert [int(row[0]) for row in rows] == [*facs.BP4D_AUS]
    rates = 100 * PreparedFaces(faces).label_matrix().mean(0)
    assert [float(row[1]) for row in rows] == pytest.approx(rates, abs=0.05)
    assert PreparedFaces(faces).aus == facs.BP4D_AUS
    assert (faces / "skipped.csv").read_text().splitlines() == ["sequence,frame,reason"]

    printed = ok(jaa("crossval", "paper", "--data", faces, "--out", out, *TINY))
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
    code, _, error = jaa("crossval", "paper", "--data", faces, "--out", out, *TINY)
    assert code == 2 and "holds a run already" in error
    ok(jaa("crossval", "paper", "--data", faces, "--out", out, "--resume", *TINY))
    assert (out / "fold-2" / "losses.csv").stat().st_mtime_ns == before

    # Scores of one fold, with intervals and figures; of every face of the folder.
    model, scores = out / "fold-1" / "model.safetensors", tmp_path / "scores"
    printed = ok(jaa("evaluate", model, "--data", faces, "--fold", 1, "--out", scores))
    assert "Tested on 3 faces of 1 subjects" in printed
    assert (scores / "figures" / "scores.png").stat().st_size > 0
    assert (scores / "figures" / "AU12.png").stat().st_size > 0
    printed = ok(jaa("evaluate", model, "--data", faces, "--fold", "all", "--out", scores))
    assert "Tested on 9 faces of 3 subjects" in printed
    assert len(json.loads((scores / "metrics.json").read_text())["intervals"]["f1"]) == 12


def test_disfa_starts_from_bp4d(jaa, released: Path, tmp_path: Path) -> None:
    bp4d, disfa = tmp_path / "bp4d", tmp_path / "disfa"
    ok(jaa("prepare", "bp4d", released / "bp4d", "--out", bp4d, "--size", 73, "--index", "csv"))
    assert (bp4d / "index.csv").exists()
    ok(jaa("train", "released", "--data", bp4d, "--fold", 1, "--out", tmp_path / "first", *TINY))
    printed = ok(jaa("prepare", "disfa", released / "disfa", "--out", disfa, "--size", 73))
    assert "9 frames of 3 subjects kept; the papers keep 126,144" in printed
    init = tmp_path / "first" / "model.safetensors"
    printed = ok(
        jaa(
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
            *TINY,
        )
    )
    assert "AU 25 from AU 23, AU 26 from AU 17; fresh:" in printed
    assert load_model(tmp_path / "run" / "model.safetensors").config.aus == facs.DISFA_AUS

    (tmp_path / "of-2").mkdir()
    (tmp_path / "of-2" / "model.safetensors").write_bytes(init.read_bytes())
    pattern = tmp_path / "of-{fold}" / "model.safetensors"
    arguments = ("--data", disfa, "--init", pattern, "--folds", 2, "--out", tmp_path / "cv")
    assert "AU 26 from AU 17" in ok(jaa("crossval", "released-disfa", *arguments, *TINY))
    assert list(csv.reader((tmp_path / "cv" / "f1.csv").open()))[-1][:2] == ["Avg", "56.0"]


def test_affwild2_two_steps(jaa, released: Path, tmp_path: Path) -> None:
    faces, out = tmp_path / "faces", tmp_path / "abaw"
    printed = ok(jaa("prepare", "affwild2", released / "affwild2", "--out", faces, "--workers", 0))
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
    ok(jaa("train", one, "--data", faces, "--out", out / "1"))
    init = out / "1" / "model.safetensors"
    ok(jaa("crossval", two, "--data", faces, "--init", init, "--out", out / "2"))
    model = load_model(out / "2" / "fold-validation" / "model.safetensors")
    assert type(model).__name__ == "JAAGraphNet"


def test_without_dlibs_landmark_model_data_without_landmarks_cannot_be_prepared(
    jaa, released: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr("jaa_ext.predict.detector.MODEL_FILE", "nowhere")
    code, _, error = jaa(
        "prepare", "affwild2", released / "affwild2", "--out", tmp_path / "a", "--workers", 0
    )
    assert code == 2 and len(error.splitlines()) == 1
    assert "dlib's landmarks need its model nowhere" in error and "'jaa_ext[dlib-landmarks]'" in error
    # One that has them can, as nobody looks at them.
    ok(jaa("prepare", "bp4d", released / "bp4d", "--out", tmp_path / "b", "--size", 73, "--workers", 0))


def test_own_images_with_a_rule_of_ones_own(jaa, releases, tmp_path: Path) -> None:
    aus = (1, 12, 20)
    table = tmp_path / "mine.csv"
    with table.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(
            ["image", "subject", *(f"AU{au}" for au in aus), *(f"{a}_{i}" for a in "xy" for i in range(49))]
        )
        for person in range(3):
            for i, face in enumerate(releases.draw(person, 3, (1, 12, 26))):
                releases.write_image(tmp_path / f"{person}-{i}.png", face.picture)
                labels = ["" if (person, i) == (0, 0) else label for label in face.labels]
                rows.writerow(
                    [f"{person}-{i}.png", f"P{person}", *labels, *face.landmarks.T.flatten().tolist()]
                )
    faces = tmp_path / "faces"
    printed = ok(jaa("prepare", "csv", table, "--out", faces, "--size", 73, "--workers", 0))
    assert "9 frames of 3 subjects kept" in printed
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        "base: journal\nname: mine\n"
        "model: {aus: [1, 12, {number: 20, points: [31, 37], dy: 0.1}], image_size: 64, width: 1}\n"
        "stages: [{name: joint, epochs: 1, lr: 0.01}]\n"
    )
    ok(jaa("crossval", recipe, "--data", faces, "--out", tmp_path / "cv"))
    rows = list(csv.reader((tmp_path / "cv" / "f1.csv").open()))
    assert [row[0] for row in rows] == ["AU", "1", "12", "20", "Avg"]
    model = load_model(tmp_path / "cv" / "fold-1" / "model.safetensors")
    assert model.config.aus[2] == facs.AURule((31, 37), 0.1, 20)


def test_rendered_faces_are_prepared_and_trained_on(jaa, tmp_path: Path) -> None:
    faces = tmp_path / "faces"
    sizes = ["--subjects", "3", "--samples-per-subject", "4", "--size", "73"]
    command = ("prepare", "rendered", "--out", faces, *sizes)
    printed = ok(jaa(*command, "--workers", 0))
    assert "rendered faces: 12 frames of 3 subjects kept" in printed
    assert "is finished already, nothing was changed" in ok(jaa(*command, "--workers", 0))
    prepared = PreparedFaces(faces)
    assert prepared.subjects == ("R0000", "R0001", "R0002") and prepared.intensity_matrix().max() > 2
    assert prepared.opencv == ()  # nothing was aligned
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        "base: journal\nname: mine\n"
        "model: {aus: [1, 12, 20, 25], image_size: 64, width: 1}\n"
        "augment: {}\n"
        "stages: [{name: joint, epochs: 1, lr: 0.01}]\n"
    )
    ok(jaa("train", recipe, "--data", faces, "--out", tmp_path / "run"))
    assert "rendered faces" in load_model(tmp_path / "run" / "model.safetensors").note
    code, _, error = jaa(*command, "--mix", "bp4d", "--workers", 0)
    assert code == 2 and "was begun with source 'seed 0, 4 a subject, 73 pixels, mix natural'" in error


def test_landmarks_that_miss_the_faces_stop(jaa, releases, tmp_path: Path) -> None:
    """Of a table in 80 % of the pictures' size: they lie on the pictures, and not on the faces."""
    rows = [["image", "subject", "AU1", *(f"{a}_{i}" for a in "xy" for i in range(49))]]
    for person in range(6):
        (face,) = releases.draw(person, 1, (1,), width=400, height=400)
        releases.write_image(tmp_path / f"{person}.png", face.picture)
        rows.append([f"{person}.png", f"P{person}", "1", *(0.8 * face.landmarks).T.flatten().tolist()])
    with (tmp_path / "mine.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    code, _, error = jaa("prepare", "csv", tmp_path / "mine.csv", "--out", tmp_path / "faces", "--workers", 0)
    assert code == 2 and len(error.splitlines()) == 1
    assert "frames that were looked at" in error and "beside the face that a detector finds" in error
    assert "in pictures of 400 x 400; are they of another resolution, or of a crop of the pictures?" in error


def test_the_authors_lists(jaa, releases, tmp_path: Path) -> None:
    for part, subject in enumerate(("F001", "F003", "F004"), 1):
        lines: dict[str, list[str]] = {"path": [], "land": [], "AUoccur": []}
        for i, face in enumerate(releases.draw(part, 3, facs.BP4D_AUS)):
            name = f"{subject}/T1/{100 + i}.jpg"
            releases.write_image(tmp_path / "images" / "BP4D" / name, face.picture)
            lines["path"].append(f"BP4D/{name}")
            lines["land"].append(" ".join(map(str, (face.landmarks + 1).flatten().tolist())))
            lines["AUoccur"].append(" ".join(map(str, face.labels)))
        for what, text in lines.items():
            (tmp_path / f"BP4D_part{part}_{what}.txt").write_text("\n".join(text) + "\n")
    prefixes = [tmp_path / f"BP4D_part{part}" for part in (1, 2, 3)]
    arguments = ("--images", tmp_path / "images", "--landmarks", "raw", "--size", 73, "--workers", 0)
    faces = tmp_path / "faces [red]"  # which is no colour to print in
    printed = ok(jaa("prepare", "lists", *prefixes, *arguments, "--out", faces))
    assert "9 frames of 3 subjects kept" in printed
    assert f"Try next: jaa crossval paper --data {faces} --out cv" in printed
    assert PreparedFaces(faces).folds == ("BP4D_part1", "BP4D_part2", "BP4D_part3")
    assert PreparedFaces(faces).subjects == ("F001", "F003", "F004")
    arguments = ("--data", faces, "--fold", "BP4D_part2", "--out", tmp_path / "run")
    ok(jaa("train", "paper", *arguments, *TINY))


def test_lists_without_landmarks(jaa, releases, tmp_path: Path) -> None:
    for fold, subject in enumerate(("F001", "F003"), 1):
        (face,) = releases.draw(fold, 1, facs.BP4D_AUS)
        releases.write_image(tmp_path / "images" / subject / "T1" / "7.jpg", face.picture)
        (tmp_path / f"BP4D_test_img_path_fold{fold}.txt").write_text(f"{subject}/T1/7.jpg\n")
        labels = " ".join(map(str, face.labels))
        (tmp_path / f"BP4D_test_label_fold{fold}.txt").write_text(f"{labels}\n")
    arguments = ("--images", tmp_path / "images", "--landmarks", "none", "--workers", 0)
    ok(jaa("prepare", "lists", tmp_path / "BP4D", *arguments, "--out", tmp_path / "faces"))
    faces = PreparedFaces(tmp_path / "faces", folds=["2"])
    (sample,) = faces
    assert sample.id == "F003/T1/7" and tuple(sample.labels) == face.labels


@pytest.mark.parametrize(("study", "tables"), [("eccv", ("table3", "table4")), ("abaw", ("table1",))])
def test_ablate_prints_the_papers_tables(jaa, study: str, tables: tuple[str, ...], tmp_path: Path) -> None:
    out = tmp_path / "ablation"
    printed = ok(jaa("ablate", "--study", study, "--data", "synthetic", "--folds", 1, "--out", out, *TINY))
    for table in tables:
        assert (out / f"{table}.md").exists() and f"{table}.md" in printed
    assert "not for real use" in (out / f"{tables[0]}.md").read_text()


def test_a_model_without_aus_has_no_figures(jaa, tmp_path: Path) -> None:
    ok(jaa("train", "no-au", "--data", "synthetic", "--out", tmp_path / "run", *TINY))
    model, out = tmp_path / "run" / "model.safetensors", tmp_path / "scores"
    printed = ok(jaa("evaluate", model, "--recipe", tmp_path / "run" / "recipe.yaml", "--out", out))
    assert "mean error" in printed and "F1" not in printed and "figures" not in printed
    assert not (out / "figures").exists()


def test_mistakes_are_one_sentence(jaa, released: Path, tmp_path: Path) -> None:
    faces = tmp_path / "faces"
    ok(jaa("prepare", "bp4d", released / "bp4d", "--out", faces, "--size", 73, "--workers", 0))
    out = tmp_path / "out"
    for arguments, sentence in {
        ("prepare", "bp4d", tmp_path / "nowhere"): "nowhere",
        ("prepare", "disfa", released / "bp4d"): "ActionUnit_Labels",
        ("train", "paper"): "the recipe leaves open where its data lies: give --data",
        ("train", "paper", "--data", tmp_path): "wanted a prepared data set",
        ("train", "paper", "--data", faces, *TINY): "no test fold is chosen, wanted one of 1, 2, 3",
        ("train", "paper", "--data", faces, "--fold", 7, *TINY): 'there is no fold "7" to test',
        ("train", "paper", "--data", "synthetic", "--fold", 4): 'there is no fold "4" of the drawn faces',
        ("train", "paper-disfa", "--data", faces, "--fold", 1, *TINY): "AU 9",
        ("train", "paper", "--data", faces, "--fold", 1): "images of shape (200, 200, 3)",
        ("train", "paper", "--data", faces, "--fold", 1, "--init", out, *TINY): "no such file",
        ("crossval", "paper", "--data", faces, "--folds", "1,9", *TINY): 'there is no fold "9" to test',
    }.items():
        code, _, error = jaa(*arguments, "--out", out)
        assert code == 2 and sentence in error, (arguments, error)
        assert error.startswith("jaa: ") and len(error.splitlines()) == 1, error
