"""The command `jaa`, run in this process."""

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data

from jaa_ext import facs
from jaa_ext.models import JAANet, JAANetConfig, load_model, save_model

RECIPE = """
name: tiny
model: {aus: [1, 4, 6, 10, 12, 17], image_size: 64, width: 1}
data: {name: synthetic, train_subjects: 4, test_subjects: 3, samples_per_subject: 4}
batch_size: 8
loss: {align: 0.5, attention: 2e-4, attention_reduction: mean}
steps: [{name: joint, epochs: 2, lr: 0.01}]
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    model = JAANet(JAANetConfig.released(facs.BP4D_AUS, image_size=64, width=1))
    save_model(model, path, note="only a test")
    return path


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "astronaut.png"
    cv2.imwrite(str(path), skimage.data.astronaut()[..., ::-1])
    return path


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
    for one, other in zip(again, trained, strict=True):
        assert float(one["AU12_probability"]) == pytest.approx(float(other["AU12_probability"]), abs=1e-4)


def test_demo_writes_what_it_says(jaa, recipe: Path, tmp_path: Path, monkeypatch) -> None:
    from jaa_ext import demo
    from jaa_ext.engine import load_recipe

    monkeypatch.setattr(demo, "load_recipe", lambda name: load_recipe(recipe))
    out = tmp_path / "demo"
    for _ in range(2):  # again: goes on from what is there
        code, printed, error = jaa("demo", "--out", out, "--seed", 3)
        assert code == 0, error
    for name in demo.FILES:
        assert (out / name).stat().st_size > 0 and name in printed
    metrics = json.loads((out / "metrics.json").read_text())
    assert 0 <= metrics["f1_mean"] <= 1 and 0 <= metrics["accuracy_mean"] <= 1
    assert metrics["mean_error"] > 0 and 0 <= metrics["failure_rate"] <= 100
    assert "not for real use" in printed and "Try next: jaa predict" in printed
    assert "not for real use" in load_model(out / "model.safetensors").note
    for figure in ("training.png", "attention.png"):
        assert cv2.imread(str(out / figure)).std() > 10


def test_predict(jaa, weights: Path, photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "faces"
    code, printed, _ = jaa("predict", photo, "--weights", weights, "--out", out)
    assert code == 0 and "1 face found" in printed and "only a test" in printed
    with (out / "faces.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row["image"] == str(photo) and row["weights"] == "only a test"
    assert 0 <= float(row["AU12_p"]) <= 1 and row["AU12_c"] in "01"
    assert 150 < float(row["left"]) < float(row["right"]) < 300
    assert cv2.imread(str(out / "astronaut_faces.png")).shape[1] > 512


def test_predict_where_there_is_no_face(jaa, weights: Path, tmp_path: Path) -> None:
    blank = tmp_path / "blank.png"
    cv2.imwrite(str(blank), np.full((120, 160, 3), 90, np.uint8))
    code, printed, _ = jaa("predict", blank, "--weights", weights, "--out", tmp_path / "none")
    assert code == 0 and "0 faces found" in printed
    with (tmp_path / "none" / "faces.csv").open() as file:
        assert list(csv.DictReader(file)) == []


def test_two_photographs_of_one_name(jaa, weights: Path, photo: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / photo.name
    other.parent.mkdir()
    cv2.imwrite(str(other), np.zeros((50, 50, 3), np.uint8))
    assert jaa("predict", photo, other, "--weights", weights, "--out", tmp_path / "faces")[0] == 0
    names = sorted(path.name for path in (tmp_path / "faces").iterdir())
    assert names == ["astronaut_2_faces.png", "astronaut_faces.png", "faces.csv"]


def test_mistakes_are_one_sentence_and_exit_code_2(
    jaa, weights: Path, photo: Path, recipe: Path, tmp_path: Path
) -> None:
    text, out = tmp_path / "notes.png", tmp_path / "out"
    text.write_text("no image")
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(RECIPE.replace("lr: 0.01", "lr: fast"))
    graphed = tmp_path / "graphed.yaml"
    graphed.write_text(RECIPE + "trainer: {cuda_graph: true}\n")
    for arguments, sentence in {
        ("predict", text, "--weights", weights): "notes.png: is damaged, or not an image",
        ("predict", tmp_path / "missing.jpg", "--weights", weights): "missing.jpg: there is no such file",
        ("predict", photo, "--weights", tmp_path / "none"): "no such file",
        ("predict", photo, "--weights", photo): "astronaut.png: not a safetensors file",
        ("train", "nonsense"): "nonsense: no such recipe; give a YAML file or one of abaw-1, abaw-2",
        ("train", wrong): 'wrong.yaml: steps.0.lr: should be a number above 0, got "fast"',
        ("train", recipe, "--device", "tpu"): 'device must be "auto", "cpu", "cuda" or "cuda:<number>"',
        ("predict", photo, "--weights", weights, "--device", "tpu"): "device must be",
        ("train", graphed, "--device", "cpu"): "trainer.cuda_graph=true needs a CUDA device, got cpu",
        ("train", recipe, "--resume"): "no run to resume",
        ("evaluate", weights, "--recipe", "nonsense"): "no such recipe",
    }.items():
        code, _, error = jaa(*arguments, "--out", out)
        assert code == 2 and sentence in error, (arguments, error)
        assert error.startswith("jaa: ") and len(error.splitlines()) == 1, error
    assert not (out / "faces.csv").exists()


def test_usage_errors_exit_with_2(jaa) -> None:
    assert jaa("train")[0] == 2
    assert jaa("predict", "x.png")[0] == 2
    assert jaa("frobnicate")[0] == 2


def test_info(jaa) -> None:
    code, printed, _ = jaa("info")
    assert code == 0
    for word in ("jaa_ext", "torch", "kernels", "CPU", "compiler", "GPU"):
        assert word in printed
    assert any(level in printed for level in ("baseline", "avx2", "avx512"))
