"""The commands that test and calibrate models."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from jaa_ext.data import PreparedFaces
from jaa_ext.models import JAANet, JAANetConfig, load_model, save_model

pytestmark = pytest.mark.usefixtures("one_thread")


def test_calibrate(jaa, read, recipe: Path, tmp_path: Path) -> None:
    """Probabilities of a model that knows nothing lie close together; thresholds move to where they are."""
    torch.manual_seed(0)
    aus = (1, 4, 6, 10, 12, 17)
    model, calibrated = tmp_path / "model.safetensors", tmp_path / "calibrated.safetensors"
    save_model(JAANet(JAANetConfig.released(aus, image_size=64, width=1)), model, note="only a test")
    recipe.write_text(recipe.read_text().replace("samples_per_subject: 4", "samples_per_subject: 60"))
    code, printed, error = jaa("calibrate", model, "--recipe", recipe, "--half", "--out", calibrated)
    assert code == 0 and "thresholds of the model: AU 1 0." in printed, error
    assert "Calibrated on 180 faces of 3 subjects." in printed and "only a test" in printed
    assert "on others they will be lower" in printed
    told = " ".join(printed.split())
    thresholds = load_model(calibrated).thresholds
    assert load_model(calibrated).note == "only a test" and load_model(model).thresholds == (0.5,) * 6
    assert calibrated.stat().st_size < 0.8 * model.stat().st_size

    scores = tmp_path / "scores"
    code, printed, error = jaa("evaluate", calibrated, "--recipe", recipe, "--bootstrap", 0, "--out", scores)
    assert code == 0 and "thresholds of the model: AU 1 0." in printed, error
    metrics = json.loads((scores / "metrics.json").read_text())
    assert tuple(metrics["thresholds"]) == thresholds
    rows = read(scores / "predictions.csv")
    few: list[str] = []
    for au, threshold, accuracy in zip(aus, thresholds, metrics["accuracy"], strict=True):
        labels = np.array([int(row[f"AU{au:02d}"]) for row in rows])
        said = np.array([float(row[f"AU{au:02d}_p"]) for row in rows]) > threshold
        assert np.mean(said == (labels == 1)) == pytest.approx(accuracy, abs=0.02)
        enough = min(labels.sum(), (1 - labels).sum()) >= 20
        assert enough or threshold == 0.5
        few += [] if enough else [str(au)]
    kept = f"note: fewer than 20 faces, or those of one subject alone, have or lack AU {', '.join(few)}: the"
    assert (kept in told) == bool(few)
    assert not load_model(calibrated).config.mirror
    for option in ("--mirror", None, "--no-mirror"):  # None leaves it as it is
        options = () if option is None else (option,)
        code, _, error = jaa("calibrate", calibrated, "--recipe", recipe, *options, "--out", calibrated)
        assert code == 0 and load_model(calibrated).config.mirror == (option != "--no-mirror"), error
    # Of twelve faces none moves a threshold.
    network = load_model(calibrated)
    network.thresholds = (0.3,) * len(aus)
    save_model(network, calibrated)
    recipe.write_text(recipe.read_text().replace("samples_per_subject: 60", "samples_per_subject: 4"))
    code, printed, error = jaa("calibrate", calibrated, "--recipe", recipe, "--out", calibrated)
    assert code == 0 and load_model(calibrated).thresholds == (0.3,) * len(aus), error
    assert "Nothing was calibrated on 12 faces of 3 subjects." in printed and "will be lower" not in printed
    code, _, error = jaa("calibrate", model, "--out", calibrated)
    assert code == 2 and "say what to test on" in error


def test_what_keeps_its_threshold_and_which_size_is_wanted(jaa, jaa_ok, tmp_path: Path) -> None:
    """One person is tested; and the message of another size says which is wanted."""
    model, faces = tmp_path / "model.safetensors", tmp_path / "faces"
    save_model(JAANet(JAANetConfig.released((20, 25), image_size=64, width=1)), model)
    people = ("--subjects", 2, "--samples-per-subject", 80, "--workers", 0)
    jaa_ok("prepare", "rendered", "--out", faces, "--size", 73, *people)
    labels = PreparedFaces(faces, aus=(25,), folds=["test"]).label_matrix()
    assert min((labels == 1).sum(), (labels == 0).sum()) >= 20
    out = ("--out", tmp_path / "calibrated.safetensors")
    printed = " ".join(jaa_ok("calibrate", model, "--data", faces, "--fold", "test", *out).split())
    assert "note: fewer than 20 faces, or those of one subject alone, have or lack AU 20, 25: the" in printed
    save_model(JAANet(JAANetConfig.released((20, 25), image_size=96, width=1)), model)
    for command in ("calibrate", "evaluate"):
        code, _, error = jaa(command, model, "--data", faces, "--fold", "test", "--out", tmp_path / command)
        assert code == 2 and error.startswith("jaa: crops of 96 pixels want images of shape (109, 109, 3) or")
        assert ": prepare the faces with --size 109 (and with --align similarity, if " in error


def test_a_model_without_aus_has_no_figures(jaa, jaa_ok, tiny: tuple[str, ...], tmp_path: Path) -> None:
    jaa_ok("train", "no-au", "--data", "synthetic", "--out", tmp_path / "run", *tiny)
    model, out = tmp_path / "run" / "model.safetensors", tmp_path / "scores"
    printed = jaa_ok("evaluate", model, "--recipe", tmp_path / "run" / "recipe.yaml", "--out", out)
    assert "mean error" in printed and "F1" not in printed and "figures" not in printed
    assert not (out / "figures").exists()
    code, _, error = jaa("calibrate", model, "--recipe", tmp_path / "run" / "recipe.yaml", "--out", model)
    assert (
        code == 2
        and error == f"jaa: {model}: detects no AUs (au_detection=False), wanted a model that does\n"
    )
