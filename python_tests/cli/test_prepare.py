"""`jaa prepare` on miniature releases, and training on what it makes."""

import csv
from pathlib import Path

import pytest

from jaa_ext import facs
from jaa_ext.data import PreparedFaces
from jaa_ext.data.generated import MIN_SIZE
from jaa_ext.models import load_model, save_model

pytestmark = pytest.mark.usefixtures("one_thread")


def test_without_dlibs_landmark_model_data_without_landmarks_cannot_be_prepared(
    jaa, jaa_ok, released: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr("jaa_ext.predict.detector.MODEL_FILE", "nowhere")
    code, _, error = jaa(
        "prepare", "affwild2", released / "affwild2", "--out", tmp_path / "a", "--workers", 0
    )
    assert code == 2 and len(error.splitlines()) == 1
    assert "dlib's landmarks need its model nowhere" in error and "'jaa_ext[dlib-landmarks]'" in error
    # One that has them can, as nobody looks at them.
    jaa_ok("prepare", "bp4d", released / "bp4d", "--out", tmp_path / "b", "--size", 73, "--workers", 0)


def test_own_images_with_a_rule_of_ones_own(jaa_ok, releases, tmp_path: Path) -> None:
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
    printed = jaa_ok("prepare", "csv", table, "--out", faces, "--size", 73, "--workers", 0)
    assert "9 frames of 3 subjects kept" in printed
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        "base: journal\nname: mine\n"
        "model: {aus: [1, 12, {number: 20, points: [31, 37], dy: 0.1}], image_size: 64, width: 1}\n"
        "stages: [{name: joint, epochs: 1, lr: 0.01}]\n"
    )
    jaa_ok("crossval", recipe, "--data", faces, "--out", tmp_path / "cv")
    rows = list(csv.reader((tmp_path / "cv" / "f1.csv").open()))
    assert [row[0] for row in rows] == ["AU", "1", "12", "20", "Avg"]
    model = load_model(tmp_path / "cv" / "fold-1" / "model.safetensors")
    assert model.config.aus[2] == facs.AURule((31, 37), 0.1, 20)


def test_rendered_faces_are_prepared_and_trained_on(jaa, jaa_ok, tmp_path: Path) -> None:
    faces = tmp_path / "faces"
    sizes = ["--subjects", "3", "--samples-per-subject", "4", "--size", "73"]
    command = ("prepare", "rendered", "--out", faces, *sizes)
    printed = jaa_ok(*command, "--workers", 0)
    assert "rendered faces: 12 frames of 3 subjects kept" in printed
    assert "is finished already, nothing was changed" in jaa_ok(*command, "--workers", 0)
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
    jaa_ok("train", recipe, "--data", faces, "--out", tmp_path / "run")
    assert "rendered faces" in load_model(tmp_path / "run" / "model.safetensors").note
    code, _, error = jaa(*command, "--mix", "bp4d", "--workers", 0)
    assert code == 2 and "was begun with source 'seed 0, 4 a subject, 73 pixels, mix natural'" in error
    code, _, error = jaa(*command, "--size", MIN_SIZE - 1)
    assert code == 2 and "'--size'" in error and str(MIN_SIZE) in error


def test_sides_from_faces_to_scores_and_tables(jaa, jaa_ok, talk: Path, at_rest, tmp_path: Path) -> None:
    """Faces are prepared, trained on, scored and told of; a video is predicted, corrected and drawn."""
    faces, run = tmp_path / "faces", tmp_path / "run"
    sizes = ["--subjects", "4", "--samples-per-subject", "6", "--size", "73", "--workers", 0]
    printed = jaa_ok("prepare", "rendered", "--out", faces, *sizes, "--mix", "sides", "--sides")
    assert "12L" in printed and "20R" in printed
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        "base: journal\nname: mine\n"
        "model: {aus: [12L, 1, 12R], image_size: 64, width: 1, intensity: true, mirror: true}\n"
        "stages: [{name: joint, epochs: 1, lr: 0.01}]\n"
    )
    jaa_ok("train", recipe, "--data", faces, "--out", run)
    assert load_model(run / "model.safetensors").config.aus == ("12L", 1, "12R")
    with (run / "metrics.csv").open() as file:
        assert [row["au"] for row in csv.DictReader(file)] == ["12L", "1", "12R", "mean"]
    with (run / "predictions.csv").open() as file:
        assert {"AU12L", "AU12L_p", "AU12R_intensity", "AU12R_r"} <= set(next(csv.reader(file)))
    jaa_ok("report", run, "--out", tmp_path / "run.html")
    assert "lip corner puller, left" in (tmp_path / "run.html").read_text(encoding="utf-8")
    calibrated = tmp_path / "calibrated.safetensors"
    jaa_ok("calibrate", run / "model.safetensors", "--data", faces, "--fold", "test", "--out", calibrated)
    jaa_ok("evaluate", calibrated, "--data", faces, "--fold", "test", "--out", tmp_path / "scores")

    model = at_rest(load_model(calibrated))  # finds the face
    save_model(model, calibrated)
    table = tmp_path / "talk.csv"
    jaa_ok("predict", talk, "--weights", calibrated, "--smooth", "0.3", "--out", table)
    with table.open() as file:
        row = next(csv.DictReader(file))
    for name, kind in (("AU12_asymmetry", "p"), ("AU12_asymmetry_intensity", "r")):
        for raw in ("", "_raw"):
            difference = float(row[f"AU12L_{kind}{raw}"]) - float(row[f"AU12R_{kind}{raw}"])
            assert float(row[name + raw]) == pytest.approx(difference, abs=1e-9)
    jaa_ok("draw", table, "--out", tmp_path / "talk.png")
    jaa_ok("convert", table, "--to", "openface", "--out", tmp_path / "openface.csv")
    jaa_ok("compare", table, table, "--out", tmp_path / "compared")
    options = ("--weights", calibrated, "--every", 5, "--out", tmp_path / "talk.avi", "--attention")
    jaa_ok("draw", talk, *options, "12R")
    for au, message in (
        ("12", "--attention must be an AU of the model, one of 12L, 1, 12R, got 12"),
        ("12l", "an AU is written as 12,"),
    ):
        code, _, error = jaa("draw", talk, *options, au)
        assert code == 2 and message in error and len(error.splitlines()) == 1


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


def test_the_authors_lists(jaa_ok, tiny: tuple[str, ...], releases, tmp_path: Path) -> None:
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
    printed = jaa_ok("prepare", "lists", *prefixes, *arguments, "--out", faces)
    assert "9 frames of 3 subjects kept" in printed
    assert f"Try next: jaa crossval paper --data {faces} --out cv" in printed
    assert PreparedFaces(faces).folds == ("BP4D_part1", "BP4D_part2", "BP4D_part3")
    assert PreparedFaces(faces).subjects == ("F001", "F003", "F004")
    arguments = ("--data", faces, "--fold", "BP4D_part2", "--out", tmp_path / "run")
    jaa_ok("train", "paper", *arguments, *tiny)


def test_lists_without_landmarks(jaa_ok, releases, tmp_path: Path) -> None:
    for fold, subject in enumerate(("F001", "F003"), 1):
        (face,) = releases.draw(fold, 1, facs.BP4D_AUS)
        releases.write_image(tmp_path / "images" / subject / "T1" / "7.jpg", face.picture)
        (tmp_path / f"BP4D_test_img_path_fold{fold}.txt").write_text(f"{subject}/T1/7.jpg\n")
        labels = " ".join(map(str, face.labels))
        (tmp_path / f"BP4D_test_label_fold{fold}.txt").write_text(f"{labels}\n")
    arguments = ("--images", tmp_path / "images", "--landmarks", "none", "--workers", 0)
    jaa_ok("prepare", "lists", tmp_path / "BP4D", *arguments, "--out", tmp_path / "faces")
    faces = PreparedFaces(tmp_path / "faces", folds=["2"])
    (sample,) = faces
    assert sample.id == "F003/T1/7" and tuple(sample.labels) == face.labels
