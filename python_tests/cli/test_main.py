"""Mistakes in what any command of `jaa` is given: one sentence, exit code 2."""

from pathlib import Path

import pytest

from jaa_ext.models import load_model, save_model
from jaa_ext.training.run_folder import hold_folder

pytestmark = pytest.mark.usefixtures("one_thread")


def test_mistakes_are_one_sentence_and_exit_code_2(
    jaa, weights: Path, photo: Path, recipe: Path, tmp_path: Path
) -> None:
    text, out = tmp_path / "notes.png", tmp_path / "out"
    text.write_text("no image")
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(recipe.read_text().replace("lr: 0.01", "lr: fast"))
    graphed = tmp_path / "graphed.yaml"
    graphed.write_text(recipe.read_text() + "trainer: {cuda_graph: true}\n")
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
        (
            "draw",
            photo,
            "--weights",
            weights,
            "--attention",
            5,
        ): "jaa: --attention must be an AU of the model, one of 1, 2, 4",
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


def test_mistakes_with_data_are_one_sentence(
    jaa, jaa_ok, tiny: tuple[str, ...], released: Path, tmp_path: Path
) -> None:
    faces = tmp_path / "faces"
    jaa_ok("prepare", "bp4d", released / "bp4d", "--out", faces, "--size", 73, "--workers", 0)
    out = tmp_path / "out"
    for arguments, sentence in {
        ("prepare", "bp4d", tmp_path / "nowhere"): "nowhere",
        ("prepare", "disfa", released / "bp4d"): "ActionUnit_Labels",
        ("train", "paper"): "the recipe leaves open where its data lies: give --data",
        ("train", "paper", "--data", tmp_path): "wanted a prepared data set",
        ("train", "paper", "--data", faces, *tiny): "no test fold is chosen, wanted one of 1, 2, 3",
        ("train", "paper", "--data", faces, "--fold", 7, *tiny): 'has no test fold "7", wanted',
        ("train", "paper", "--data", "synthetic", "--fold", 4): 'drawn faces: has no test fold "4"',
        ("train", "paper-disfa", "--data", faces, "--fold", 1, *tiny): "AU 9",
        ("train", "paper", "--data", faces, "--fold", 1): "images of shape (200, 200, 3)",
        ("train", "paper", "--data", faces, "--fold", 1, "--init", out, *tiny): "no such file",
        ("crossval", "paper", "--data", faces, "--folds", "1,9", *tiny): 'has no test fold "9", wanted',
    }.items():
        code, _, error = jaa(*arguments, "--out", out)
        assert code == 2 and sentence in error, (arguments, error)
        assert error.startswith("jaa: ") and len(error.splitlines()) == 1, error


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
    text = recipe.read_text().replace("name: tiny", "name: '[/b] x'").replace("name: joint", "name: '[/red]'")
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
