"""The command `jaa`, run in this process."""

import csv
import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
import torch

from jaa_ext import facs
from jaa_ext.data.video import read_frames
from jaa_ext.device import has_bfloat16
from jaa_ext.models import JAANet, JAANetConfig, load_model, save_model
from jaa_ext.training.run_folder import hold_folder

RECIPE = """
name: tiny
model: {aus: [1, 4, 6, 10, 12, 17], image_size: 64, width: 1}
data: {name: synthetic, train_subjects: 4, test_subjects: 3, samples_per_subject: 4}
batch_size: 8
loss: {align: 0.5, attention: 2e-4, attention_reduction: mean}
stages: [{name: joint, epochs: 2, lr: 0.01}]
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory, at_rest) -> Path:
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    model = at_rest(JAANet(JAANetConfig.released(facs.BP4D_AUS, image_size=64, width=1)))
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
    code, printed, error = jaa("report", tmp_path / "scores")
    assert code == 0 and str(tmp_path / "scores" / "report.html") in printed, error
    assert "data:image" in (tmp_path / "scores" / "report.html").read_text()
    for one, other in zip(again, trained, strict=True):
        assert float(one["AU12_probability"]) == pytest.approx(float(other["AU12_probability"]), abs=1e-4)


def test_demo_writes_what_it_says(jaa, recipe: Path, tmp_path: Path, monkeypatch) -> None:
    from jaa_ext.experiments import demo
    from jaa_ext.recipes import load_recipe

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


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second of a face."""
    path = tmp_path_factory.mktemp("videos") / "talk.avi"
    picture = np.ascontiguousarray(skimage.data.astronaut()[:300, 80:380, ::-1])
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (300, 300))
    for _ in range(10):
        video.write(picture)
    video.release()
    return path


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_predict(jaa, weights: Path, photo: Path, talk: Path, tmp_path: Path) -> None:
    out = tmp_path / "faces"
    code, printed, error = jaa("predict", photo, talk, "--weights", weights, "--out", out)
    assert code == 0, error
    assert "11 frames, 11 faces; no face in 0 frames" in printed and "only a test" in printed
    assert "frames/s" in printed and "what binds is" in printed
    (row,) = read(out / "photographs.csv")
    assert row["source"] == str(photo) and row["weights"] == "only a test" and row["success"] == "1"
    assert 0 <= float(row["AU12_p"]) <= 1 and row["AU12_c"] in "01"
    assert 150 < float(row["left"]) < float(row["right"]) < 300
    assert [row["timestamp"] for row in read(out / "talk.csv")] == [f"{i / 10:.3f}" for i in range(10)]


class TestShippedWeights:
    """Commands that no weights are given."""

    @pytest.fixture(autouse=True)
    def shipped(self, weights: Path, monkeypatch) -> None:
        monkeypatch.setattr("jaa_ext.weights.FILE", weights)

    def test_they_are_used_and_named_on_one_line(
        self, jaa, photo: Path, weights: Path, tmp_path: Path
    ) -> None:
        start = hashlib.sha256(weights.read_bytes()).hexdigest()[:8]
        line = f"Weights: those that come with jaa_ext, model.safetensors ({start})."
        code, printed, error = jaa("predict", photo, "--out", tmp_path / "faces")
        assert code == 0 and line in printed.splitlines() and "only a test" in printed, error
        (row,) = read(tmp_path / "faces" / "photographs.csv")
        assert row["weights"] == "only a test" and row["success"] == "1"
        code, printed, error = jaa("draw", photo, "--out", tmp_path / "drawn.png")
        assert code == 0 and line in printed.splitlines() and (tmp_path / "drawn.png").exists(), error
        assert f"weights   model.safetensors ({start})" in jaa("info")[1]

    def test_their_own_file_is_as_good(self, jaa, photo: Path, weights: Path, tmp_path: Path) -> None:
        assert jaa("predict", photo, "--out", tmp_path / "a.csv")[0] == 0
        code, printed, _ = jaa("predict", photo, "--weights", weights, "--out", tmp_path / "b.csv")
        assert code == 0 and "come with" not in printed
        assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()

    def test_they_are_evaluated(self, jaa, weights: Path, tmp_path: Path) -> None:
        recipe = tmp_path / "bp4d.yaml"
        recipe.write_text(RECIPE.replace("[1, 4, 6, 10, 12, 17]", str(list(facs.BP4D_AUS))))
        code, printed, error = jaa(
            *("evaluate", "--recipe", recipe, "--bootstrap", 0, "--out", tmp_path / "scores")
        )
        assert code == 0 and "come with jaa_ext" in printed, error
        assert json.loads((tmp_path / "scores" / "evaluation.json").read_text())["model"] == str(weights)

    def test_a_build_without_them_says_so(self, jaa, photo: Path, tmp_path: Path, monkeypatch) -> None:
        monkeypatch.setattr("jaa_ext.weights.FILE", tmp_path / "default.safetensors")
        for command in (("predict", photo), ("draw", photo), ("evaluate", "--recipe", "demo")):
            code, _, error = jaa(*command, "--out", tmp_path / "out")
            assert code == 2 and len(error.splitlines()) == 1
            assert error.startswith("jaa: this build of jaa_ext comes without weights of its own")
            assert not (tmp_path / "out").exists()
        assert "none: this build comes without" in jaa("info")[1]


def test_landmarks_that_align(jaa, weights: Path, photo: Path, tmp_path: Path, monkeypatch) -> None:
    tables = {}
    for landmarks in ("network", "dlib"):
        tables[landmarks] = tmp_path / f"{landmarks}.csv"
        code, _, error = jaa(
            *("predict", photo, "--weights", weights, "--landmarks", landmarks, "--out", tables[landmarks])
        )
        assert code == 0, error
    (own,), (dlibs,) = (read(table) for table in tables.values())
    assert own["left"] == dlibs["left"] and own["x_13"] != dlibs["x_13"]
    monkeypatch.setattr("jaa_ext.predict.detector.MODEL_FILE", "nowhere")
    options = ("--weights", weights, "--out", tmp_path / "c.csv")
    assert jaa("predict", photo, *options)[0] == 0
    code, _, error = jaa("predict", photo, "--landmarks", "dlib", *options)
    assert code == 2 and "pip install 'jaa_ext[dlib-landmarks]'" in error and len(error.splitlines()) == 1


def test_faces_that_do_not_settle_are_counted(jaa, photo: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    blind = tmp_path / "blind.safetensors"
    save_model(JAANet(JAANetConfig.released((1, 12), image_size=64, width=1)), blind)
    code, printed, _ = jaa("predict", photo, "--weights", blind, "--out", tmp_path / "faces.csv")
    assert code == 0 and "1 face with success 0: the landmarks that align did not settle." in printed
    (row,) = read(tmp_path / "faces.csv")
    assert row["success"] == "0" and row["face_id"] == "0" and row["AU12_p"]


def test_calibrate(jaa, recipe: Path, tmp_path: Path) -> None:
    """Probabilities of a model that knows nothing lie close together; thresholds move to where they are."""
    torch.manual_seed(0)
    aus = (1, 4, 6, 10, 12, 17)
    model, calibrated = tmp_path / "model.safetensors", tmp_path / "calibrated.safetensors"
    save_model(JAANet(JAANetConfig.released(aus, image_size=64, width=1)), model, note="only a test")
    recipe.write_text(RECIPE.replace("samples_per_subject: 4", "samples_per_subject: 60"))
    code, printed, error = jaa("calibrate", model, "--recipe", recipe, "--half", "--out", calibrated)
    assert code == 0 and "thresholds of the model: AU 1 0." in printed, error
    assert "Calibrated on 180 faces of 3 subjects." in printed and "only a test" in printed
    thresholds = load_model(calibrated).thresholds
    assert load_model(calibrated).note == "only a test" and load_model(model).thresholds == (0.5,) * 6
    assert calibrated.stat().st_size < 0.8 * model.stat().st_size

    scores = tmp_path / "scores"
    code, printed, error = jaa("evaluate", calibrated, "--recipe", recipe, "--bootstrap", 0, "--out", scores)
    assert code == 0 and "thresholds of the model: AU 1 0." in printed, error
    metrics = json.loads((scores / "metrics.json").read_text())
    assert tuple(metrics["thresholds"]) == thresholds
    rows = read(scores / "predictions.csv")
    for au, threshold, accuracy in zip(aus, thresholds, metrics["accuracy"], strict=True):
        labels = np.array([int(row[f"AU{au}"]) for row in rows])
        said = np.array([float(row[f"AU{au}_probability"]) for row in rows]) > threshold
        assert np.mean(said == (labels == 1)) == pytest.approx(accuracy, abs=0.02)
        enough = min(labels.sum(), (1 - labels).sum()) >= 20
        assert enough or threshold == 0.5
    assert not load_model(calibrated).config.mirror
    for option in ("--mirror", None, "--no-mirror"):  # None leaves it as it is
        options = () if option is None else (option,)
        code, _, error = jaa("calibrate", calibrated, "--recipe", recipe, *options, "--out", calibrated)
        assert code == 0 and load_model(calibrated).config.mirror == (option != "--no-mirror"), error
    code, _, error = jaa("calibrate", model, "--out", calibrated)
    assert code == 2 and "say what to test on" in error


def test_predict_where_there_is_no_face(jaa, weights: Path, tmp_path: Path) -> None:
    blank = tmp_path / "blank.png"
    cv2.imwrite(str(blank), np.full((120, 160, 3), 90, np.uint8))
    code, printed, _ = jaa("predict", blank, "--weights", weights, "--out", tmp_path / "none.csv")
    assert code == 0 and "1 frame, 0 faces; no face in 1 frame." in printed
    (row,) = read(tmp_path / "none.csv")
    assert row["success"] == "0" and row["face_id"] == "-1" and row["x_0"] == row["AU12_p"] == ""


def test_predict_names_what_it_leaves_out(jaa, weights: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    for name in ("10.png", "9.png"):
        cv2.imwrite(str(folder / name), np.full((40, 60, 3), 90, np.uint8))
    (folder / "8.heic").touch()
    code, printed, _ = jaa("predict", folder, "--weights", weights, "--out", tmp_path / "all.csv")
    assert code == 0 and f"note: {folder}: 1 file is left out, neither" in printed and ".heic (1)" in printed
    assert [Path(row["source"]).name for row in read(tmp_path / "all.csv")] == ["9.png", "10.png"]


def test_times_of_a_video(jaa, weights: Path, talk: Path, tmp_path: Path) -> None:
    options = ("--weights", weights, "--out", tmp_path / "talk.csv")
    assert jaa("predict", talk, "--start", "0:00.3", "--end", "0.8", "--every", 2, *options)[0] == 0
    assert [row["frame"] for row in read(tmp_path / "talk.csv")] == ["4", "6", "8"]


def test_draw(jaa, weights: Path, photo: Path, talk: Path, tmp_path: Path) -> None:
    out = tmp_path / "pictures"
    other = tmp_path / "other" / photo.name
    other.parent.mkdir()
    cv2.imwrite(str(other), np.zeros((50, 50, 3), np.uint8))
    code, printed, error = jaa("draw", photo, talk, other, "--weights", weights, "--out", out)
    assert code == 0 and "only a test" in printed, error
    names = ["astronaut_2_faces.png", "astronaut_faces.png", "talk_faces.mp4"]
    assert sorted(path.name for path in out.iterdir()) == names and all(name in printed for name in names)
    assert cv2.imread(str(out / "astronaut_faces.png")).shape[1] > 512
    frames = list(read_frames(out / "talk_faces.mp4"))
    assert len(frames) == 10 and frames[0].shape[1] > 300
    code, printed, error = jaa(
        *("draw", talk, "--weights", weights, "--every", 5, "--attention", 12, "--out", tmp_path / "talk.avi")
    )
    assert code == 0 and len(list(read_frames(tmp_path / "talk.avi"))) == 2, error


def test_draw_a_time_line(jaa, weights: Path, photo: Path, talk: Path, tmp_path: Path) -> None:
    table = tmp_path / "all.csv"
    assert jaa("predict", photo, talk, "--weights", weights, "--out", table)[0] == 0
    assert jaa("draw", table, "--out", tmp_path / "lines")[0] == 0
    assert [path.name for path in (tmp_path / "lines").iterdir()] == [
        "talk_timeline.png"
    ]  # photographs have none
    for out, sentence in {
        "one.png": "the tables have 2 sources",
        "one.jpg": "a time line must end in .png",
        table.name: "a time line must end in .png",
    }.items():
        code, _, error = jaa("draw", table, table, "--out", tmp_path / out)
        assert code == 2 and sentence in error
    assert len(read(table)) == 11


def test_draw_keeps_what_it_draws(jaa, weights: Path, photo: Path, talk: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_text("no image")
    before = photo.read_bytes()
    (tmp_path / "v.2").mkdir()  # a folder, whatever its name
    code, _, error = jaa("draw", photo, "--weights", weights, "--out", photo)
    assert code == 2 and "is the source itself" in error and photo.read_bytes() == before
    code, printed, _ = jaa("draw", broken, photo, "--weights", weights, "--out", tmp_path / "v.2")
    assert code == 0 and "broken.png: is damaged" in printed
    code, _, error = jaa("draw", broken, "--weights", weights, "--out", tmp_path / "v.2")
    assert code == 2 and "broken.png: is damaged" in error
    code, _, error = jaa("draw", talk, "--weights", weights, "--start", 60, "--out", tmp_path / "v.2")
    assert code == 2 and "talk.avi: has no frame between --start and --end" in error
    assert [path.name for path in (tmp_path / "v.2").iterdir()] == ["astronaut_faces.png"]


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
        ("train", wrong): 'wrong.yaml: stages.0.lr: should be a number above 0, got "fast"',
        ("train", recipe, "--device", "tpu"): 'device must be "auto", "cpu", "cuda" or "cuda:<number>"',
        ("predict", photo, "--weights", weights, "--device", "tpu"): "device must be",
        (
            "predict",
            photo,
            "--weights",
            weights,
            "--start",
            "soon",
        ): "--start must be seconds or hours:minutes",
        ("predict", photo, "--weights", weights, "--start", "9", "--end", "3"): "and end after it",
        ("draw", photo, "t.csv", "--weights", weights): "draw either tables, or photographs and videos",
        ("draw", photo, "--weights", weights, "--attention", 5): "got attention=5, wanted an AU of the model",
        ("draw", "t.csv"): "t.csv: there is no such file",
        ("train", graphed, "--device", "cpu"): "trainer.cuda_graph=true needs a CUDA device, got cpu",
        ("train", recipe, "--resume"): "no run to resume",
        ("evaluate", weights, "--recipe", "nonsense"): "no such recipe",
    }.items():
        code, _, error = jaa(*arguments, "--out", out)
        assert code == 2 and sentence in error, (arguments, error)
        assert error.startswith("jaa: ") and len(error.splitlines()) == 1, error
    assert not list(out.glob("*.csv"))
    code, _, error = jaa("report", tmp_path)
    assert code == 2 and "wanted a folder of jaa train, evaluate or crossval" in error


@pytest.mark.parametrize(
    "command",
    [
        *("crossval tiny.yaml", "ablate", "demo", "evaluate model.safetensors", "report run"),
        "export model.safetensors",
    ],
)
def test_commands_for_one_process_say_so(jaa, recipe: Path, monkeypatch, command: str) -> None:
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    code, _, error = jaa(*command.split(), "--out", "out")
    assert code == 2 and "runs in one process, got 2 of torchrun" in error
    assert not Path("out").exists()


def test_usage_errors_exit_with_2(jaa) -> None:
    assert jaa("train")[0] == 2
    assert jaa("predict", "x.png")[0] == 2
    assert jaa("frobnicate")[0] == 2


def test_info(jaa) -> None:
    code, printed, _ = jaa("info")
    assert code == 0
    for word in ("jaa_ext", "torch", "kernels", "CPU", "conv3x3", "compiler", "GPU"):
        assert word in printed
    assert any(level in printed for level in ("baseline", "avx2", "avx512"))
    native = has_bfloat16(torch.device("cpu"))
    assert f"bfloat16  CPU {'native' if native else 'slow: float32 in its place'}" in printed


def test_what_stands_in_place_of_results(jaa, weights: Path, recipe: Path, tmp_path: Path) -> None:
    """A file for a folder, a folder for a file, a folder that another process has: nothing is written."""
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    there = sorted(tmp_path.rglob("*"))
    for arguments, sentence in {
        ("train", recipe, "--out", "file"): "file: is a file, wanted a folder for the results",
        ("crossval", recipe, "--out", "file/x"): "file: is a file, wanted a folder for the results",
        ("ablate", "--budget", "tiny", "--out", "file"): "file: is a file, wanted a folder for the results",
        ("evaluate", weights, "--recipe", recipe, "--out", "file"): "file: is a file, wanted a folder",
        ("demo", "--out", "file"): "file: is a file, wanted a folder for the results",
        ("export", weights, "--out", "file/m.onnx"): "file: is a file, wanted a folder",
    }.items():
        code, _, error = jaa(*arguments)
        assert code == 2 and sentence in error and len(error.splitlines()) == 1, (arguments, error)
    with hold_folder(tmp_path / "folder"):
        for arguments in (
            ("train", recipe),
            ("crossval", recipe),
            ("ablate", "--budget", "tiny"),
            ("evaluate", weights, "--recipe", recipe),
        ):
            code, _, error = jaa(*arguments, "--out", "folder")
            assert code == 2 and "folder: another process is writing its results into this folder" in error
    assert sorted(tmp_path.rglob("*")) == there


@pytest.mark.parametrize("command", ["train demo", "crossval demo", "demo", "ablate", "evaluate model"])
def test_seeds_out_of_range(jaa, command: str) -> None:
    for seed in ("-1", str(2**63), "x"):
        code, _, error = jaa(*command.split(), "--out", "out", "--seed", seed)
        assert code == 2 and "--seed" in error
    assert not Path("out").exists()


def test_names_with_brackets_are_no_markup(jaa, recipe: Path, tmp_path: Path) -> None:
    text = RECIPE.replace("name: tiny", "name: '[/b] x'").replace("name: joint", "name: '[/red]'")
    recipe.write_text(text.replace("epochs: 2", "epochs: 1"))
    code, printed, error = jaa("crossval", recipe, "--folds", "1", "--out", tmp_path / "runs")
    assert code == 0 and "[/b] x: fold 1 (1 of 1)" in printed, error
    model = load_model(tmp_path / "runs" / "fold-1" / "model.safetensors")
    save_model(model, tmp_path / "noted.safetensors", note="[/b] note")
    code, printed, error = jaa(
        *("evaluate", tmp_path / "noted.safetensors", "--recipe", recipe, "--out", tmp_path / "scores"),
        *("--bootstrap", 0),
    )
    assert code == 0 and "[/b] note" in printed, error


def test_a_full_memory_is_told_in_a_sentence(jaa, monkeypatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("jaa_ext.models.load_model", full)
    assert jaa("export", "m.safetensors", "--out", "m.onnx")[::2] == (2, "jaa: the memory is full\n")
    monkeypatch.setattr(
        "jaa_ext.models.load_model", lambda path: (_ for _ in ()).throw(RuntimeError("a\nb\nc"))
    )
    assert jaa("export", "m.safetensors", "--out", "m.onnx")[::2] == (2, "jaa: a\n")
