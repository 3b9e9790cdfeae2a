from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import MixedPrecision
from numpy.typing import NDArray

from jaa_ext.data import FaceSample, RenderedFaces, SyntheticFaces
from jaa_ext.evaluation import NonFiniteOutput, Scores, evaluate
from jaa_ext.facs import AURule
from jaa_ext.models import load_model, save_model
from jaa_ext.recipes.datasets import DEMONSTRATION
from jaa_ext.recipes.schema import Recipe, load_recipe
from jaa_ext.training import (
    Diverged,
    Listener,
    NonFiniteLoss,
    RunError,
    Trainer,
    load_checkpoint,
    save_checkpoint,
    train,
)
from jaa_ext.training.runtime import make_fabric

RECIPE: dict[str, Any] = {
    "name": "tiny",
    "model": {"aus": [6, 7, 12], "image_size": 64, "width": 2},
    "data": {"train_subjects": 2, "test_subjects": 1, "samples_per_subject": 5},
    "batch_size": 4,
    "loss": {"attention": 2e-4, "attention_reduction": "mean"},
    "stages": [{"name": "joint", "epochs": 2, "lr": 0.01}],
    "checkpoint_every": 2,
}  # 3 iterations an epoch

RUN = """
import os, pathlib, signal, sys, warnings
warnings.simplefilter("ignore")
import torch
torch.set_num_threads(1)
from jaa_ext.recipes import load_recipe
from jaa_ext.training import Listener, train
recipe, out, kill_at = load_recipe(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3])
class Dying(Listener):
    def on_epoch_start(self, trainer):
        if trainer.iteration == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
    def on_update(self, trainer, losses):
        if trainer.batch < len(trainer.batches):
            self.on_epoch_start(trainer)
train(recipe, out, device="cpu", listener=Dying())
"""


def recipe(**changes: Any) -> Recipe:
    return Recipe.model_validate({**RECIPE, **changes})


def run(made: Recipe, out: Path, **options: Any) -> Scores:
    return train(made, out, device="cpu", **options)


class After(Listener):
    """Does something after an update, the first of which is number 1."""

    def __init__(self, iteration: int, what: Callable[[Trainer], Any]) -> None:
        self.iteration, self.what = iteration, what

    def on_update(self, trainer: Trainer, losses: dict[str, float]) -> None:
        if trainer.iteration == self.iteration:
            self.what(trainer)


def fail(trainer: Trainer) -> None:
    raise MemoryError


def losses(out: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((out / "losses.csv").open()))


def files(out: Path) -> dict[str, str]:
    """What a run leaves but its checkpoint, whose archive has no fixed bytes: texts, hashes of weights.

    (pytest would spend minutes on telling how megabytes differ.)
    """
    return {
        p.name: hashlib.sha256(p.read_bytes()).hexdigest() if p.suffix == ".safetensors" else p.read_text()
        for p in out.iterdir()
        if p.is_file() and p.name != "checkpoint.pt"
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Scores]:
    """A run that nothing interrupted."""
    out = tmp_path_factory.mktemp("finished")
    torch.set_num_threads(1)
    return out, run(recipe(), out)


def test_what_a_run_leaves(finished: tuple[Path, Scores]) -> None:
    out, scores = finished
    assert {p.name for p in out.iterdir()} == {
        "recipe.yaml", "checkpoint.pt", "losses.csv", "history.json", "tensorboard",
        "model.safetensors", "metrics.json", "metrics.csv", "predictions.csv",
    }  # fmt: skip
    assert any((out / "tensorboard").iterdir())
    assert Scores.from_dict(json.loads((out / "metrics.json").read_text())) == scores
    assert scores.note == DEMONSTRATION == load_model(out / "model.safetensors").note

    rows, history = losses(out), json.loads((out / "history.json").read_text())
    assert [(int(r["iteration"]), int(r["epoch"])) for r in rows] == [(i + 1, i // 3 + 1) for i in range(6)]
    assert [(e["epoch"], e["stage"], e["lr"]) for e in history] == [(1, "joint", 0.01), (2, "joint", 0.01)]
    for epoch, entry in enumerate(history):
        mean = sum(float(r["total"]) for r in rows[3 * epoch : 3 * epoch + 3]) / 3
        assert entry["losses"]["total"] == pytest.approx(mean)
    assert Scores.from_dict(history[1]["scores"]) == scores
    for row in rows:
        total = float(row["au_softmax"]) + float(row["au_dice"]) + 0.5 * float(row["align"])
        assert float(row["total"]) == pytest.approx(total + 2e-4 * float(row["attention"]), rel=1e-5)


class Told(Listener):
    """Notes what it hears, and where training was."""

    def __init__(self) -> None:
        self.events: list[tuple[str, int, int, int]] = []
        self.losses: list[dict[str, float]] = []
        self.scores: list[Scores] = []

    def note(self, name: str, trainer: Trainer) -> None:
        self.events.append((name, trainer.epoch, trainer.batch, trainer.iteration))

    def on_epoch_start(self, trainer: Trainer) -> None:
        self.note(f"start of {trainer.stage.name}", trainer)

    def on_update(self, trainer: Trainer, losses: dict[str, float]) -> None:
        self.note("update", trainer)
        self.losses.append(losses)

    def on_epoch_end(self, trainer: Trainer, scores: Scores) -> None:
        self.note("end", trainer)
        self.scores.append(scores)
        assert load_checkpoint(trainer.out / "checkpoint.pt")["epoch"] == trainer.epoch
        assert Scores.from_dict(trainer.history[-1]["scores"]) == scores


def test_a_listener_hears_of_updates_and_epochs_and_nothing_is_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    told = Told()
    stages = [{"name": "one", "epochs": 1, "lr": 0.01}, {"name": "two", "epochs": 1, "lr": 0.01}]
    scores = run(recipe(stages=stages), tmp_path, listener=told)
    assert told.events == [
        ("start of one", 0, 0, 0), *(("update", 0, i, i) for i in (1, 2, 3)), ("end", 1, 0, 3),
        ("start of two", 1, 0, 3), *(("update", 1, i, 3 + i) for i in (1, 2, 3)), ("end", 2, 0, 6),
    ]  # fmt: skip
    logged = [{name: float(value) for name, value in row.items() if value} for row in losses(tmp_path)]
    heard = [{"iteration": i + 1, "epoch": 1 + i // 3, **values} for i, values in enumerate(told.losses)]
    assert heard == logged
    assert len(told.scores) == 2 and told.scores[1] == scores
    assert capfd.readouterr() == ("", "")


def test_training_starts_at_the_mean_face_and_learns(finished: tuple[Path, Scores]) -> None:
    out, _ = finished
    faces = SyntheticFaces(subjects=range(2), samples_per_subject=5, size=73)
    mean = np.mean([faces[i].landmarks - 4 for i in range(10)], axis=0)
    trainer = Trainer(
        recipe(), out, make_fabric("cpu", "32-true"), recipe().data.build(recipe().model.config())
    )
    bias = trainer.model.alignment.landmarks.bias.detach().view(49, 2)
    assert bias.numpy() == pytest.approx(mean, abs=1e-3)
    before, after = trainer.model.state_dict(), load_model(out / "model.safetensors").state_dict()
    assert not torch.equal(before["alignment.embedding.weight"], after["alignment.embedding.weight"])


def test_the_same_seed_gives_the_same_bits_and_another_does_not(
    finished: tuple[Path, Scores], tmp_path: Path
) -> None:
    torch.rand(7)  # what was drawn before does not matter
    scores = run(recipe(), tmp_path / "again")
    assert files(tmp_path / "again") == files(finished[0])
    assert scores == finished[1]
    other = recipe(stages=[{"name": "joint", "epochs": 1, "lr": 0.01}])
    run(other, tmp_path / "other", seed=1)
    assert losses(tmp_path / "other")[0] != losses(finished[0])[0]
    assert "seed: 1" in (tmp_path / "other" / "recipe.yaml").read_text()


@pytest.mark.parametrize("kill_at", [3, 5])
def test_a_killed_run_goes_on_with_the_same_bits(
    finished: tuple[Path, Scores], tmp_path: Path, kill_at: int
) -> None:
    out, file = tmp_path / "run", tmp_path / "tiny.yaml"
    file.write_text(recipe().to_yaml())
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    arguments = [sys.executable, "-c", RUN, str(file), str(out), str(kill_at)]
    done = subprocess.run(arguments, env=env, check=False, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (out / "model.safetensors").exists()
    # Killed in the fourth iteration, at the start of an epoch; or in the sixth, two after the checkpoint.
    position = load_checkpoint(out / "checkpoint.pt")
    assert (position["epoch"], position["batch"]) == ((1, 0) if kill_at == 3 else (1, 1))

    scores = run(recipe(), out, resume=True)
    assert files(out) == files(finished[0])
    assert scores == finished[1]


def test_resuming_a_finished_run_writes_the_same_files(finished: tuple[Path, Scores], tmp_path: Path) -> None:
    out, whole = finished
    before = files(out)
    (out / "metrics.json").unlink()
    told = Told()
    assert run(recipe(), out, resume=True, listener=told) == whole
    assert files(out) == before and not told.events


def test_ctrl_c_ends_the_iteration_and_saves(finished: tuple[Path, Scores], tmp_path: Path) -> None:
    class Interrupting(After):
        heard = 0

        def on_interrupt(self, trainer: Trainer) -> None:
            self.heard += load_checkpoint(tmp_path / "checkpoint.pt")["iteration"]

    listener = Interrupting(5, lambda trainer: signal.raise_signal(signal.SIGINT))
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(recipe(checkpoint_every=100), tmp_path, listener=listener)
    assert listener.heard == load_checkpoint(tmp_path / "checkpoint.pt")["iteration"] == 5
    assert signal.getsignal(signal.SIGINT) is handler
    run(recipe(checkpoint_every=100), tmp_path, resume=True)
    assert (tmp_path / "losses.csv").read_bytes() == (finished[0] / "losses.csv").read_bytes()


def test_a_folder_that_holds_a_run_is_refused(finished: tuple[Path, Scores], tmp_path: Path) -> None:
    out = finished[0]
    before = files(out)
    with pytest.raises(RunError, match="holds a run already; resume it, or give another folder"):
        run(recipe(), out)
    with pytest.raises(RunError, match=r"begun by another recipe \(batch_size was 4, is 5\)"):
        run(recipe(batch_size=5), out, resume=True)
    with pytest.raises(RunError, match=r"begun by another recipe \(seed was 0, is 3\)"):
        run(recipe(), out, resume=True, seed=3)
    assert files(out) == before
    with pytest.raises(RunError, match=r"no run to resume \(no checkpoint\.pt\)"):
        run(recipe(), tmp_path, resume=True)


def test_a_stage_keeps_fixed_modules_to_the_bit(tmp_path: Path) -> None:
    states: dict[int, dict[str, torch.Tensor]] = {}

    class Snapshots(Listener):
        def on_epoch_end(self, trainer: Trainer, scores: Scores) -> None:
            states[trainer.epoch] = {key: x.clone() for key, x in trainer.model.state_dict().items()}

    stages = [
        {"name": "joint", "epochs": 1, "lr": 0.01},
        {"name": "alignment", "epochs": 1, "lr": 0.01, "align": 1, "train": ["alignment", "au_head"]},
        {"name": "aus", "epochs": 1, "lr": 0.01, "train": ["global_features", "attention"]},
    ]
    run(recipe(stages=stages), tmp_path, listener=Snapshots())
    modules = {"region_learning", "alignment", "global_features", "attention", "au_head"}
    assert {key.split(".")[0] for key in states[1]} == modules
    for epoch, trained in ((2, {"alignment", "au_head"}), (3, {"global_features", "attention"})):
        for module in modules:
            same = {
                key: torch.equal(value, states[epoch - 1][key])
                for key, value in states[epoch].items()
                if key.split(".")[0] == module
            }
            statistics = [key for key in same if "running" in key]
            if module in trained:
                assert not any(same[key] for key in statistics)
                assert not all(same.values())
            else:
                assert all(same.values())
                assert statistics or module == "au_head"
    rows = losses(tmp_path)
    factors = [
        (float(r["total"]) - float(r["au_softmax"]) - float(r["au_dice"])) / float(r["align"]) for r in rows
    ]
    assert factors == pytest.approx(
        [0.5] * 3 + [1.0] * 3 + [0.5] * 3, abs=2e-3
    )  # the attention term is small


class FailingAfterAnEpoch(Listener):
    def on_epoch_end(self, trainer: Trainer, scores: Scores) -> None:
        raise MemoryError


def test_a_resumed_stage_starts_with_fresh_momentum(tmp_path: Path) -> None:
    stages = [{"name": "a", "epochs": 1, "lr": 0.01}, {"name": "b", "epochs": 1, "lr": 0.01}]
    one, two = tmp_path / "one", tmp_path / "two"
    run(recipe(stages=stages), one)

    with pytest.raises(MemoryError):
        run(recipe(stages=stages), two, listener=FailingAfterAnEpoch())
    run(recipe(stages=stages), two, resume=True)
    assert files(one) == files(two)


def test_a_stage_that_trains_nothing_of_the_model(tmp_path: Path) -> None:
    model = {**RECIPE["model"], "attention": False, "refinement": False, "gradient_enhancement": 1}
    stages = [
        {"name": "joint", "epochs": 1, "lr": 0.01, "train": ["attention", "au_head"]},
        {"name": "late", "epochs": 1, "lr": 0.01, "train": ["attention"]},
    ]
    with pytest.raises(
        ValueError, match='stage "late" trains nothing: it names attention, but the model has only'
    ):
        run(recipe(model=model, stages=stages), tmp_path)
    assert not (tmp_path / "checkpoint.pt").exists()


class Broken(SyntheticFaces):
    """Faces of which one has eyes in one place, so that its alignment loss is infinite."""

    def __getitem__(self, index: int) -> FaceSample:
        sample = super().__getitem__(index)
        return sample._replace(landmarks=np.full((49, 2), 30, np.float32)) if index == 6 else sample


def test_a_broken_sample_is_named_before_it_spoils_the_model(tmp_path: Path) -> None:
    test_set = SyntheticFaces(subjects=[9], samples_per_subject=2, size=73, aus=(6, 7, 12))
    broken = Broken(subjects=[4, 5], samples_per_subject=5, size=73, aus=(6, 7, 12))
    with pytest.raises(NonFiniteLoss) as caught:
        run(recipe(checkpoint_every=1), tmp_path, datasets=(broken, test_set))
    message = str(caught.value)
    done = len(losses(tmp_path))
    assert f'at iteration {done + 1} (stage "joint", epoch 1): au_softmax ' in message
    assert "align inf" in message and "total inf" in message
    assert message.endswith("; samples S005/00001")
    state = load_checkpoint(tmp_path / "checkpoint.pt")
    assert state["iteration"] == done
    assert all(value.isfinite().all() for value in state["model"].values())


def test_divergence_names_the_whole_batch(tmp_path: Path) -> None:
    stages = [{"name": "joint", "epochs": 4, "lr": 1e12}]
    with pytest.raises(NonFiniteLoss, match=r"samples S00\d/\d+, S00\d/\d+, "):
        run(recipe(stages=stages), tmp_path)


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_mixed_precision_resumes_with_the_same_bits(tmp_path: Path, precision: Any) -> None:
    made = recipe(precision=precision)

    def fit(out: Path, *, resume: bool = False, listener: Listener | None = None) -> None:
        out.mkdir(exist_ok=True)
        # Fabric itself offers float16 and its gradient scaler on GPUs only.
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**30) if precision == "16-mixed" else None
        fabric = Fabric(accelerator="cpu", devices=1, plugins=MixedPrecision(precision, "cpu", scaler))
        trainer = Trainer(made, out, fabric, made.data.build(made.model.config()), resume=resume)
        if resume:
            trainer.load()
        trainer.fit(listener)

    fit(tmp_path / "one")
    with pytest.raises(MemoryError):
        fit(tmp_path / "two", listener=After(5, fail))
    fit(tmp_path / "two", resume=True)
    assert files(tmp_path / "one") == files(tmp_path / "two")
    state, resumed = (load_checkpoint(tmp_path / name / "checkpoint.pt") for name in ("one", "two"))
    assert state["model"].keys() == resumed["model"].keys()
    assert all(torch.equal(value, resumed["model"][name]) for name, value in state["model"].items())
    assert state["scaler"] == resumed["scaler"]
    assert all(value.dtype != torch.bfloat16 and value.isfinite().all() for value in state["model"].values())
    if precision == "16-mixed":
        assert 0 < state["scaler"]["scale"] < 2.0**30  # gradients did overflow, and those steps were left out


def test_workers_read_the_same_crops(finished: tuple[Path, Scores], tmp_path: Path) -> None:
    run(recipe(workers=2), tmp_path)
    assert losses(tmp_path) == losses(finished[0])


def test_other_aus_and_other_devices_are_refused(tmp_path: Path) -> None:
    faces = SyntheticFaces(subjects=[9], samples_per_subject=2, size=73, aus=(1, 6))
    with pytest.raises(ValueError, match=r"the model has AUs \[6, 7, 12\], but the data set has \[1, 6\]"):
        run(recipe(), tmp_path, datasets=(faces, faces))
    for device, sentence in (
        ("gpu", 'device must be "auto", "cpu", "cuda" or "cuda:<number>", got "gpu"'),
        ("cuda:99", 'device "cuda:99" is not there: CUDA devices found: '),
    ):
        with pytest.raises(ValueError, match=sentence):
            train(recipe(), tmp_path, device=device)


def test_training_starts_from_another_model(finished: tuple[Path, Scores], tmp_path: Path) -> None:
    source = finished[0] / "model.safetensors"
    made = recipe(init=str(source), seed=1)
    config = made.model.config()
    trainer = Trainer(made, tmp_path, make_fabric("cpu", "32-true"), made.data.build(config))
    began, theirs = trainer.model.state_dict(), load_model(source).state_dict()
    assert all(torch.equal(began[key], theirs[key]) for key in theirs)

    run(made, tmp_path / "one")
    assert losses(tmp_path / "one")[0] != losses(finished[0])[0]
    with pytest.raises(MemoryError):
        run(made, tmp_path / "two", listener=After(4, fail))
    (tmp_path / "aside").write_bytes(source.read_bytes())
    source.unlink()  # the checkpoint holds everything
    run(made, tmp_path / "two", resume=True)
    (tmp_path / "aside").rename(source)
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_the_note_of_the_weights_stays_with_what_is_made_of_them(
    finished: tuple[Path, Scores], tmp_path: Path
) -> None:
    model = load_model(finished[0] / "model.safetensors")
    source = tmp_path / "source.safetensors"
    save_model(model, source, note="For non-commercial use.")
    made = recipe(init=str(source), stages=[{"name": "one", "epochs": 1, "lr": 0.01}])
    run(made, tmp_path / "run")
    wanted = f"For non-commercial use. {DEMONSTRATION}"
    assert load_model(tmp_path / "run" / "model.safetensors").note == wanted
    source.unlink()
    run(made, tmp_path / "run", resume=True)
    assert load_model(tmp_path / "run" / "model.safetensors").note == wanted


def test_a_model_that_is_missing_or_of_another_size(finished: tuple[Path, Scores], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"^no such file: \S*nothing\.safetensors$"):
        run(recipe(init=str(tmp_path / "nothing.safetensors")), tmp_path)
    source = str(finished[0] / "model.safetensors")
    with pytest.raises(ValueError, match="width must be alike, the model has 1, the other 2"):
        run(recipe(init=source, model={**RECIPE["model"], "width": 1}), tmp_path)
    assert not (tmp_path / "checkpoint.pt").exists()


def test_an_au_by_a_rule_of_one_s_own(tmp_path: Path) -> None:
    rule = {"number": 12, "points": [0, 9], "dy": -0.5}
    made = recipe(
        model={**RECIPE["model"], "aus": [6, rule]}, stages=[{"name": "joint", "epochs": 1, "lr": 0.01}]
    )
    scores = run(made, tmp_path)
    assert scores.aus == (6, 12)
    assert load_model(tmp_path / "model.safetensors").config.aus == (6, AURule((0, 9), -0.5, 12))


def test_the_rate_reaches_the_optimizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    whole = torch.optim.SGD.step

    def spy(self: torch.optim.SGD, *arguments: Any) -> Any:
        seen.append(float(self.param_groups[0]["lr"]))
        return whole(self, *arguments)

    monkeypatch.setattr(torch.optim.SGD, "step", spy)
    run(
        recipe(stages=[{"name": "s", "epochs": 2, "lr": 0.01, "lr_decay": 0.5, "lr_decay_every": 1}]),
        tmp_path,
    )
    assert seen == pytest.approx([0.01] * 3 + [0.005] * 3)


def test_training_leaves_the_callers_settings(finished: tuple[Path, Scores]) -> None:
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory


@pytest.mark.parametrize("spoilt", ["au_head.0.weight", "region_learning.0.bn.running_var"])
def test_divergence_that_the_losses_do_not_show_is_told(tmp_path: Path, spoilt: str) -> None:
    """Weights, or statistics of batch norms, that became infinite in the last iteration of an epoch."""

    def spoil(trainer: Trainer) -> None:
        trainer.model.state_dict()[spoilt].view(-1)[1] = math.inf

    with pytest.raises(Diverged, match=rf"tensor '{spoilt}' has 1 of \d+ values .* after iteration 6"):
        run(recipe(checkpoint_every=100), tmp_path, listener=After(6, spoil))
    state = load_checkpoint(tmp_path / "checkpoint.pt")
    assert state["iteration"] == 3 and not (tmp_path / "metrics.json").exists()
    assert all(value.isfinite().all() for value in state["model"].values())


def test_a_rate_that_is_far_too_high_ends_in_an_error(jaa: Any, tmp_path: Path) -> None:
    made = recipe(stages=[{"name": "joint", "epochs": 2, "lr": 1000}])
    (tmp_path / "high.yaml").write_text(made.to_yaml())
    code, printed, error = jaa("train", tmp_path / "high.yaml", "--out", tmp_path / "run", "--device", "cpu")
    assert code == 2 and "nan %" not in printed and "not finite" in error


def test_outputs_that_are_not_finite_are_told(
    finished: tuple[Path, Scores], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model(finished[0] / "model.safetensors")
    _, test_set = recipe().data.build(model.config)
    with torch.no_grad():
        model.alignment.landmarks.weight.fill_(3e38)
    with pytest.raises(NonFiniteOutput, match=r"^the model's \w+ of face S002/00000 are not finite, though"):
        evaluate(model, test_set)


def test_the_files_of_a_run_are_one_process_s(finished: tuple[Path, Scores], tmp_path: Path) -> None:
    """Two runs into one folder, and a resumed one beside the first; after a kill nothing is in the way."""
    out, file = tmp_path / "run", tmp_path / "tiny.yaml"
    file.write_text(recipe(workers=1).to_yaml())
    waiting = RUN.replace(
        "os.kill(os.getpid(), signal.SIGKILL)", "print('here', flush=True); sys.stdin.read()"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    arguments = [sys.executable, "-c", waiting, str(file), str(out), "4"]
    with subprocess.Popen(arguments, env=env, stdin=-1, stdout=-1) as first:
        assert b"here\n" in iter(first.stdout.readline, b"")
        before = files(out)
        for resume in (False, True):
            with pytest.raises(
                RunError, match="run: another process is writing its results into this folder"
            ):
                run(recipe(workers=1), out, resume=resume)
        assert files(out) == before
        first.kill()  # its reading process lives on for seconds
        first.wait()
        run(recipe(workers=1), out, resume=True)
    assert losses(out) == losses(finished[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("model"), "model: Field required"),
        (lambda state: state.update(epoch="1"), "epoch: Input should be a valid integer"),
        (lambda state: state.update(epoch=-1), "epoch: Input should be greater than or equal to 0"),
        (lambda state: state.update(epoch=2), "got epoch 2, batch 0, iteration 3 and 1 epochs"),
        (lambda state: state.update(iteration=4), "got epoch 1, batch 0, iteration 4 and 1 epochs"),
        (lambda state: state["history"].clear(), "iteration 3 and 0 epochs of scores"),
        (lambda state: state["history"][0]["scores"].update(f1_mean="x"), "scores"),
        (lambda state: state["history"][0]["losses"].update(total=math.nan), "losses.total"),
        (lambda state: state["random"].update(cpu=torch.zeros(3, dtype=torch.uint8)), "random"),
        (lambda state: state["random"].clear(), "random"),
        (lambda state: state["model"].popitem(), "missing tensor"),
        (lambda state: state["model"].update({"au_head.1.bias": torch.zeros(3)}), "must be [6], got [3]"),
        (lambda state: state["model"]["au_head.1.bias"].fill_(math.nan), "6 of 6 values that are not finite"),
        (lambda state: state["optimizer"]["state"].update({0: {}}), "optimizer.state.0.momentum_buffer"),
        (
            lambda state: state["optimizer"]["state"].update({0: {"momentum_buffer": torch.zeros(2)}}),
            "the momentum of parameter 0 must be finite and [8, 3, 3, 3], got [2]",
        ),
    ],
)
def test_a_checkpoint_of_other_content(
    half: Path, tmp_path: Path, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    out = tmp_path / "run"
    shutil.copytree(half, out)
    state = load_checkpoint(out / "checkpoint.pt")
    change(state)
    save_checkpoint(out / "checkpoint.pt", state)
    with pytest.raises(ValueError) as caught:
        run(recipe(), out, resume=True)
    assert str(caught.value).startswith(f"{out / 'checkpoint.pt'}: ") and message in str(caught.value)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda lines: lines[:3], 4),
        (lambda lines: [], 1),
        (lambda lines: [lines[0], *lines[2:]], 2),
        (lambda lines: [*lines[:2], "2,1,\x00", *lines[3:]], 3),
    ],
)
def test_losses_that_are_not_those_behind_the_checkpoint(
    half: Path, tmp_path: Path, change: Callable[[list[str]], list[str]], line: int
) -> None:
    out = tmp_path / "run"
    shutil.copytree(half, out)
    lines = (out / "losses.csv").read_text().splitlines()
    (out / "losses.csv").write_text("\n".join(change(lines)) + "\n")
    with pytest.raises(ValueError, match=rf"losses\.csv: is damaged: .* in line {line}$"):
        run(recipe(), out, resume=True)


def test_losses_of_an_early_version_without_intensities(half: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(half, out)
    now = losses(out)
    with (out / "losses.csv").open("w", newline="") as file:
        rows = csv.DictWriter(file, [name for name in now[0] if name != "intensity"], extrasaction="ignore")
        rows.writeheader()
        rows.writerows(now)
    run(recipe(), out, resume=True)
    assert losses(out)[:3] == now and len(losses(out)) == 6


INTENSITY = {**RECIPE["model"], "intensity": True}


def test_intensity_is_learnt(tmp_path: Path) -> None:
    train_set, test_set = (
        SyntheticFaces(subjects=subjects, samples_per_subject=count, size=73, aus=(1, 12, 26))
        for subjects, count in (((1, 2), 20), ((9,), 3))
    )
    parts = {"alignment": False, "attention": False, "refinement": False, "gradient_enhancement": 1.0}
    made = recipe(
        model={"aus": [1, 12, 26], "image_size": 64, "width": 1, "intensity": True, **parts},
        batch_size=10,
        stages=[{"name": "joint", "epochs": 25, "lr": 0.03, "schedule": "cosine", "warmup": 6}],
    )
    scores = run(made, tmp_path / "run", datasets=(train_set, test_set))
    assert "ICC" in scores.summary() and scores.icc is not None and scores.rated == (3, 3, 3)
    told = [float(row["intensity"]) for row in losses(tmp_path / "run")]
    assert np.mean(told[-10:]) < 0.7 * np.mean(told[:10])
    learnt = evaluate(load_model(tmp_path / "run" / "model.safetensors"), train_set)
    assert learnt.icc_mean is not None and learnt.icc_mean > 0.5


class Partly(SyntheticFaces):
    """Faces with intensities of some AUs."""

    known: tuple[bool, ...] = (True, False, True)

    def __getitem__(self, index: int) -> FaceSample:
        return super().__getitem__(index)._replace(intensities=self.intensity_matrix()[index])

    def intensity_matrix(self) -> NDArray[np.float32]:
        return np.where(self.known, super().intensity_matrix(), np.nan).astype(np.float32)


def test_an_au_without_intensities_gets_none(tmp_path: Path) -> None:
    options: dict[str, Any] = {"samples_per_subject": 5, "size": 73, "aus": (6, 7, 12)}
    faces = Partly(subjects=[1, 2], **options), SyntheticFaces(subjects=[9], **options)
    made = recipe(model=INTENSITY, stages=[{"name": "joint", "epochs": 1, "lr": 0.01}])
    scores = run(made, tmp_path / "run", datasets=faces)
    assert scores.rated == (5, 0, 5) and scores.mae is not None and scores.mae[1] is None
    model = load_model(tmp_path / "run" / "model.safetensors")
    assert model.au_head is not None and model.au_head.intensity is not None
    assert model.au_head.intensity.rated.tolist() == [True, False, True]
    # What begins from it has the intensities of its own faces.
    again = recipe(model=INTENSITY, stages=made.stages, init=str(tmp_path / "run" / "model.safetensors"))
    trainer = Trainer(again, tmp_path / "again", make_fabric("cpu", "32-true"), (faces[1], faces[0]))
    assert trainer.model.au_head is not None and trainer.model.au_head.intensity is not None
    assert trainer.model.au_head.intensity.rated.all()
    assert torch.equal(trainer.model.au_head.intensity.linear.bias.cpu(), model.au_head.intensity.linear.bias)


def test_sides_of_which_one_has_intensities(tmp_path: Path) -> None:
    """Flips show them on the other side, too; and left and right equally often, whatever the labels."""

    class Right(RenderedFaces):
        def __getitem__(self, index: int) -> FaceSample:
            sample, matrix = super().__getitem__(index), self.intensity_matrix()
            return sample._replace(intensities=matrix[index], labels=self.label_matrix()[index])

        def intensity_matrix(self) -> NDArray[np.float32]:
            return np.where([False, True, True], super().intensity_matrix(), np.nan).astype(np.float32)

        def label_matrix(self) -> NDArray[np.int64]:
            return np.array([[0, 1, 1], [0, 1, 0], [0, 0, 1], [0, 0, 1], [0, 0, 1]] * len(self.subjects))

    aus = ("12L", "12R", 6)
    faces = [Right(subjects=[i], samples_per_subject=5, size=73, aus=aus) for i in (1, 2)]
    made = recipe(
        model={**INTENSITY, "aus": list(aus), "width": 1}, stages=[{"name": "joint", "epochs": 1, "lr": 0.01}]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no AU "never occurs"
        trainer = Trainer(made, tmp_path / "run", make_fabric("cpu", "32-true"), tuple(faces))
    assert trainer.weight is not None
    assert trainer.weight.tolist() == pytest.approx([4 / 3, 4 / 3, 1 / 3], rel=1e-5)  # of 1/5, 1/5 and 4/5
    trainer.fit()
    assert all(math.isfinite(float(row["intensity"])) for row in losses(tmp_path / "run"))


def test_faces_without_any_intensity_are_refused(tmp_path: Path) -> None:
    options: dict[str, Any] = {"samples_per_subject": 5, "size": 73, "aus": (6, 7, 12)}
    faces = Partly(subjects=[1, 2], **options), SyntheticFaces(subjects=[9], **options)
    faces[0].known = (False,) * 3
    with pytest.raises(ValueError, match=r"model\.intensity=true needs intensities, but the training faces"):
        run(recipe(model=INTENSITY), tmp_path / "run", datasets=faces)


def test_faces_that_do_not_tell_which_intensities_they_have(tmp_path: Path) -> None:
    options: dict[str, Any] = {"samples_per_subject": 5, "size": 73, "aus": (6, 7, 12)}
    faces = tuple(Others(SyntheticFaces(subjects=s, **options)) for s in ([1, 2], [9]))
    trainer = Trainer(recipe(model=INTENSITY), tmp_path, make_fabric("cpu", "32-true"), faces)  # type: ignore[arg-type]
    assert trainer.model.au_head is not None and trainer.model.au_head.intensity is not None
    assert trainer.model.au_head.intensity.rated.all()


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that ended after its first epoch, in its checkpoint with momentum."""
    out = tmp_path_factory.mktemp("half") / "run"
    torch.set_num_threads(1)
    with pytest.raises(MemoryError):
        run(recipe(), out, listener=FailingAfterAnEpoch())
    return out


class Others(NamedTuple):
    """Faces that are not drawn as far as anybody can tell."""

    faces: SyntheticFaces

    @property
    def aus(self) -> tuple[int, ...]:
        return self.faces.aus

    @property
    def subjects(self) -> tuple[str, ...]:
        return self.faces.subjects

    def __len__(self) -> int:
        return len(self.faces)

    def __getitem__(self, index: int) -> FaceSample:
        return self.faces[index]

    def label_matrix(self) -> Any:
        return self.faces.label_matrix()


def test_the_note_is_that_of_the_data_used(tmp_path: Path) -> None:
    drawn = [SyntheticFaces(subjects=[i], samples_per_subject=4, size=73, aus=(6, 7, 12)) for i in range(2)]
    made = recipe(stages=[{"name": "joint", "epochs": 1, "lr": 0.01}])
    for name, wrap, note in (("others", Others, ""), ("drawn", lambda faces: faces, DEMONSTRATION)):
        scores = run(made, tmp_path / name, datasets=tuple(map(wrap, drawn)))
        assert scores.note == note == load_model(tmp_path / name / "model.safetensors").note


def test_float16_is_refused_on_a_cpu(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r'^precision "16-mixed" needs a GPU; on a CPU choose "32-true" or "bf16'
    ):
        run(recipe(precision="16-mixed"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_slow_bfloat16_is_float32(
    finished: tuple[Path, Scores], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a processor that has none: warned of once, recorded, and resumed in the same precision alone."""
    monkeypatch.delenv("JAA_SLOW_BFLOAT16", raising=False)
    asked, out = recipe(precision="bf16-mixed"), tmp_path / "run"
    monkeypatch.setattr("jaa_ext.device.has_bfloat16", lambda device: False)
    with pytest.warns(UserWarning, match="float32 is used instead; .* JAA_SLOW_BFLOAT16=1 insists") as said:
        run(asked, out)
    assert len(said) == 1
    got, wanted = files(out), files(finished[0])
    assert load_recipe(out / "recipe.yaml") == recipe(precision="32-true")
    assert "precision: 32-true" in got.pop("recipe.yaml") and wanted.pop("recipe.yaml") and got == wanted

    with pytest.warns(UserWarning, match="float32 is used instead"):
        run(asked, out, resume=True)
    monkeypatch.setenv("JAA_SLOW_BFLOAT16", "1")
    with pytest.raises(RunError, match=r"\(precision was 32-true, is bf16-mixed\); resume it by its own"):
        run(asked, out, resume=True)


def test_insisting_on_slow_bfloat16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jaa_ext.device.has_bfloat16", lambda device: False)
    monkeypatch.setenv("JAA_SLOW_BFLOAT16", "1")
    made = recipe(precision="bf16-mixed", stages=[{"name": "joint", "epochs": 1, "lr": 0.01}])
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*bfloat16")
        run(made, tmp_path)
    assert load_recipe(tmp_path / "recipe.yaml") == made
    run(recipe(stages=[{"name": "joint", "epochs": 1, "lr": 0.01}]), tmp_path / "float32")
    assert losses(tmp_path) != losses(tmp_path / "float32")
    monkeypatch.delenv("JAA_SLOW_BFLOAT16")
    with (
        pytest.warns(UserWarning, match="float32 is used instead"),
        pytest.raises(RunError, match=r"was bf16-mixed, is 32-true.* with JAA_SLOW_BFLOAT16=1 where"),
    ):
        run(made, tmp_path, resume=True)


def test_processes_must_have_one_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    others = "jaa_ext.distributed.Processes.gather_object"
    monkeypatch.setattr(others, lambda self, precision: [precision, "bf16-mixed"])
    with pytest.raises(ValueError, match="processors of some processes multiply bfloat16 natively and"):
        run(recipe(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_a_seed_out_of_range(tmp_path: Path, seed: int) -> None:
    with pytest.raises(ValueError, match=rf"train: seed must be in 0\.\.{2**63 - 1}, got {seed}"):
        run(recipe(), tmp_path / "run", seed=seed)


def test_a_folder_that_cannot_hold_a_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(NotADirectoryError, match=r"file: is a file, wanted a folder for the results$"):
            run(recipe(), out)
    with pytest.raises(ValueError, match=r"udcff: wanted a folder whose name is UTF-8$"):
        run(recipe(), tmp_path / os.fsdecode(b"\xff"))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
