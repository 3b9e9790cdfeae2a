"""Training in several processes. Run by torchrun, this file is also what they do: see `torchrun`."""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from jaa_ext.data import CombinedFaces, FaceDataset, FaceSample, SyntheticFaces
from jaa_ext.distributed import Processes, require_one_process
from jaa_ext.evaluation import Scores
from jaa_ext.models import build_model
from jaa_ext.recipes.schema import Recipe
from jaa_ext.training import Listener, Trainer, load_checkpoint, train
from jaa_ext.training.runtime import make_fabric

AUS = (6, 7, 12)
MODEL = {"aus": list(AUS), "image_size": 64, "width": 1}
RECIPE: dict[str, Any] = {
    "name": "tiny",
    "model": MODEL,
    "data": {"train_subjects": 2, "test_subjects": 1, "samples_per_subject": 6},
    "batch_size": 5,
    "loss": {"attention": 2e-4, "attention_reduction": "mean"},
    "stages": [{"name": "joint", "epochs": 1, "lr": 0.001}],
}  # batches of 5, 5 and 2 faces

DIRECT = {"JAA_EXT_CONV3X3": "torch"}
"""Convolutions whose rounding hides least of the difference between one process and several."""

TIME = 240
"""Seconds after which processes hang."""


class Patchy(SyntheticFaces):
    """Faces with missing labels and intensities: so many that processes hold different numbers of each AU."""

    def __getitem__(self, index: int) -> FaceSample:
        labels, intensities = self.label_matrix()[index], self.intensity_matrix()[index]
        return super().__getitem__(index)._replace(labels=labels, intensities=intensities)

    def label_matrix(self) -> NDArray[np.int64]:
        labels = super().label_matrix()
        labels[::3, 0] = -1
        labels[1:9, 1] = -1
        return labels

    def intensity_matrix(self) -> NDArray[np.float32]:
        intensities = super().intensity_matrix()
        intensities[1:9, 0] = np.nan
        intensities[::3, 2] = np.nan
        return intensities


class Shared(SyntheticFaces):
    """Faces that are one of two data sets, of which the smaller one gives two thirds of an epoch."""


class Unreadable(SyntheticFaces):
    def __getitem__(self, index: int) -> FaceSample:
        if index == self.bad:
            raise ValueError(f"face {index} is unreadable")
        return super().__getitem__(index)

    bad = -1


class Flat(SyntheticFaces):
    """One face has its eyes in one place, so that its alignment loss is infinite."""

    def __getitem__(self, index: int) -> FaceSample:
        sample = super().__getitem__(index)
        return sample._replace(landmarks=np.full((49, 2), 30, np.float32)) if index == self.bad else sample

    bad = -1


def recipe(**changes: Any) -> Recipe:
    return Recipe.model_validate({**RECIPE, **changes})


def faces(kind: type[SyntheticFaces] = SyntheticFaces) -> tuple[FaceDataset, FaceDataset]:
    training: FaceDataset = kind(subjects=[1, 2], samples_per_subject=6, size=73, aus=AUS)
    if kind is Shared:
        several = {"one": training, "other": kind(subjects=[3], samples_per_subject=3, size=73, aus=AUS[1:])}
        test = SyntheticFaces(subjects=[9], samples_per_subject=7, size=73, aus=AUS)
        return CombinedFaces(several, aus=AUS, shares=(1, 2)), CombinedFaces({"one": test}, aus=AUS)
    return training, SyntheticFaces(subjects=[9], samples_per_subject=7, size=73, aus=AUS)


VARIANTS: dict[str, tuple[Recipe, type[SyntheticFaces]]] = {
    "missing labels": (recipe(model={**MODEL, "intensity": True}), Patchy),
    "dice over the batch": (recipe(loss={"dice_over": "batch", "weighted": False}), Patchy),
    # Some of what is trained gets no gradient, in a module that is trained and in one that is fixed.
    "stages": (
        recipe(
            model={**MODEL, "preset": "journal"},
            loss={"local": 0, "align": 0.5},
            stages=[
                {"name": "all", "epochs": 1, "lr": 0.001},
                {"name": "some", "epochs": 1, "lr": 0.001, "train": ["attention", "au_head"]},
            ],
        ),
        SyntheticFaces,
    ),
    "bfloat16": (recipe(precision="bf16-mixed"), SyntheticFaces),
    "shares of several data sets": (recipe(), Shared),
}


@contextmanager
def first_gradients(path: Path) -> Iterator[None]:
    """Write those of the optimizer's first step."""
    whole = torch.optim.SGD.step

    def step(self: Any, *arguments: Any) -> Any:
        if not path.exists():
            parameters = self.param_groups[0]["params"]
            torch.save([p.new_zeros(0) if p.grad is None else p.grad for p in parameters], path)
        return whole(self, *arguments)

    torch.optim.SGD.step = step
    try:
        yield
    finally:
        torch.optim.SGD.step = whole


class Heard(Listener):
    """Notes the epochs of which it hears."""

    def __init__(self) -> None:
        self.epochs: list[str] = []

    def on_epoch_end(self, trainer: Trainer, scores: Scores) -> None:
        self.epochs.append(f"{trainer.stage.name} {trainer.epoch}")


def run(made: Recipe, out: Path, **options: Any) -> str:
    heard = Heard()
    train(made, out, device="cpu", listener=heard, **options)
    return ", ".join(heard.epochs)


def stop_at(iteration: int, how: Callable[[], Any]) -> Callable[[], None]:
    """Let this process do something in an iteration, counted from 0; the result undoes that."""
    whole, steps = torch.optim.SGD.step, itertools.count()

    def step(self: Any, *arguments: Any) -> Any:
        if next(steps) == iteration:
            how()
        return whole(self, *arguments)

    torch.optim.SGD.step = step
    return lambda: setattr(torch.optim.SGD, "step", whole)


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


TWO_EPOCHS = recipe(checkpoint_every=2, stages=[{"name": "joint", "epochs": 2, "lr": 0.001}])


def work_of_two(folder: Path) -> None:
    """What the tests of the fixture `two` look at."""
    rank, told = int(os.environ["RANK"]), {}
    for name, (made, kind) in VARIANTS.items():
        with first_gradients(folder / f"{name}.{rank}.pt"):
            told[name] = run(made, folder / name, datasets=faces(kind))
    told["again"] = run(VARIANTS["missing labels"][0], folder / "again", datasets=faces(Patchy))
    told["more"] = run(TWO_EPOCHS, folder / "one, then two", resume=True)

    undo = stop_at(4, interrupt if rank == 1 else lambda: None)  # of one process only
    try:
        run(TWO_EPOCHS, folder / "two, then one")
    except KeyboardInterrupt:
        told["interrupted"] = "yes"
    undo()
    told["error"] = failure(lambda: run(TWO_EPOCHS, folder / "two, then one"))
    for name, kind, bad in (("unreadable", Unreadable, 7), ("flat", Flat, 7)):
        training, test = faces(kind)
        training.bad = bad  # type: ignore[attr-defined]
        told[name] = failure(
            lambda name=name, data=(training, test): run(recipe(), folder / name, datasets=data)
        )
    told["small"] = failure(lambda: run(recipe(batch_size=1), folder / "small"))
    graph = recipe(trainer={"cuda_graph": True})
    told["graph"] = failure(lambda: run(graph, folder / "graph"))
    told["another device"] = failure(lambda: make_fabric("cuda:1", "32-true"))
    told["one process"] = failure(lambda: require_one_process("`jaa demo`"))
    (folder / f"told.{rank}.json").write_text(json.dumps(told))
    end_of_two(folder)


def failure(work: Callable[[], Any]) -> str:
    try:
        work()
    except (Exception, SystemExit) as error:
        return f"{type(error).__name__}: {error}"
    return "none"


def work_of_three(folder: Path) -> None:
    """The last batch has two faces: none for the third process."""
    for synchronized in (True, False):
        made = recipe(trainer={"sync_batch_norm": synchronized})
        run(made, folder / f"sync {synchronized}", datasets=faces(Patchy))


def end_of_two(folder: Path) -> None:
    """One is killed."""
    stop_at(4, lambda: os.kill(os.getpid(), signal.SIGKILL) if os.environ["RANK"] == "1" else None)
    sys.argv = ["jaa", "train", str(folder / "tiny.yaml"), "--out", str(folder / "killed"), "--device", "cpu"]
    from jaa_ext.cli import main

    main()


def torchrun(processes: int, work: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a function of this file in so many processes."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)} | DIRECT
    return subprocess.run(
        [*launcher, str(processes), __file__, work, str(folder)],
        env=env,
        check=False,
        capture_output=True,
        text=True,
        timeout=TIME,
    )


def succeeded(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stderr[-3000:]


def losses(out: Path) -> list[float]:
    return [float(row["total"]) for row in csv.DictReader((out / "losses.csv").open())]


def files(out: Path) -> dict[str, str]:
    return {
        p.name: hashlib.sha256(p.read_bytes()).hexdigest()
        for p in out.iterdir()
        if p.is_file() and p.name != "checkpoint.pt"
    }


def state(out: Path) -> dict[str, torch.Tensor]:
    checkpoint: dict[str, torch.Tensor] = load_checkpoint(out / "checkpoint.pt")["model"]
    return checkpoint


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Relative to b, which is 0 for biases before a batch norm."""
    return float((a.double() - b.double()).norm() / b.double().norm().clamp_min(1e-4))


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of what two processes did, and one process in folders that begin with "single"."""
    folder = tmp_path_factory.mktemp("two")
    torch.set_num_threads(1)
    # In this process kernels may have run already, and with them the choice.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["jaa_ext.ops.conv3x3"], "has_kernel", lambda input: False)
        single_processes(folder)
    (folder / "tiny.yaml").write_text(TWO_EPOCHS.to_yaml())
    done = torchrun(2, "work_of_two", folder)
    assert (folder / "told.0.json").exists() and (folder / "told.1.json").exists(), done.stderr[-3000:]
    (folder / "code").write_text(str(done.returncode))
    (folder / "stdout").write_text(done.stdout)
    (folder / "stderr").write_text(done.stderr)
    return folder


def single_processes(folder: Path) -> None:
    for name, (made, kind) in VARIANTS.items():
        with first_gradients(folder / f"{name}.pt"):
            run(made, folder / f"single {name}", datasets=faces(kind))
    run(TWO_EPOCHS, folder / "single two epochs")
    undo = stop_at(4, interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(TWO_EPOCHS, folder / "one, then two")
    undo()


@pytest.fixture(scope="module")
def told(two: Path) -> list[dict[str, str]]:
    return [json.loads((two / f"told.{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize("name", [name for name in VARIANTS if name != "bfloat16"])
def test_gradients_are_those_of_one_process(two: Path, name: str) -> None:
    one = torch.load(two / f"{name}.pt")
    model = build_model(VARIANTS[name][0].model.config())
    names = [name for name, _ in model.named_parameters()]
    assert len(one) == len(names) > 20
    compared = set()
    largest = max(float(gradient.norm()) for gradient in one)
    for rank in (0, 1):
        both = torch.load(two / f"{name}.{rank}.pt")
        for path, wanted, gradient in zip(names, one, both, strict=True):
            assert gradient.shape == wanted.shape
            if wanted.norm() < 1e-5 * largest:  # biases before a batch norm, where it is but rounding errors
                assert gradient.norm() < 1e-5 * largest, path
            else:
                compared.add(path)
                # Where terms cancel, it is their rounding that counts, not that of their sum: a tenth of
                # float32's epsilon of the largest gradient.
                assert (gradient - wanted).norm() < 1e-5 * wanted.norm() + 1e-8 * largest, path
    assert {
        "region_learning.0.conv.weight",
        "region_learning.0.region8.0.weight",
        "au_head.0.bias",
    } <= compared
    assert len(compared) > len(one) / 2
    unreached = {path.split(".")[1] for path, wanted in zip(names, one, strict=True) if not len(wanted)}
    assert unreached == ({"local_head", "local_features", "refinement"} if name == "stages" else set())


@pytest.mark.parametrize("name", list(VARIANTS))
def test_losses_and_weights_are_those_of_one_process(two: Path, name: str) -> None:
    tolerance = 1e-5 if name != "bfloat16" else 1e-2
    assert losses(two / name) == pytest.approx(losses(two / f"single {name}"), rel=tolerance)
    ours, theirs = state(two / name), state(two / f"single {name}")
    assert list(ours) == list(theirs)
    for key, value in theirs.items():
        if "num_batches" in key:
            assert torch.equal(ours[key], value)
        elif name != "bfloat16":
            assert distance(ours[key], value) < 1e-4, key
    assert sorted(files(two / name)) == sorted(files(two / f"single {name}"))


def test_every_test_face_is_scored_once_and_in_order(two: Path) -> None:
    name = "missing labels"
    rows, wanted = (
        list(csv.DictReader((two / folder / "predictions.csv").open())) for folder in (name, f"single {name}")
    )
    assert len(rows) == 7
    for row, other in zip(rows, wanted, strict=True):
        for key, value in row.items():
            if "probability" in key or key[0] in "xy":
                assert float(value) == pytest.approx(float(other[key]), abs=2e-3)
            else:
                assert value == other[key]
    ours, theirs = (
        Scores.from_dict(json.loads((two / folder / "metrics.json").read_text()))
        for folder in (name, f"single {name}")
    )
    assert (ours.f1, ours.accuracy, ours.valid) == (theirs.f1, theirs.accuracy, theirs.valid)
    assert ours.mean_error == pytest.approx(theirs.mean_error, rel=1e-4)


def test_as_many_processes_give_the_same_bits(two: Path) -> None:
    assert files(two / "again") == files(two / "missing labels")


def test_only_the_first_process_speaks(two: Path, told: list[dict[str, str]]) -> None:
    assert told[0]["missing labels"] == "joint 1"
    assert told[0]["stages"] == "all 1, some 2"
    assert {told[1][name] for name in (*VARIANTS, "again", "more")} == {""}
    lines = (two / "stdout").read_text().splitlines()  # of the command, whose run does not come to its end
    assert [line.split("  ")[0] for line in lines] == ["joint 1/2"]


def test_a_run_goes_on_with_another_number_of_processes(two: Path, told: list[dict[str, str]]) -> None:
    assert told[0]["interrupted"] == told[1]["interrupted"] == "yes"  # though one of them was
    assert load_checkpoint(two / "two, then one" / "checkpoint.pt")["iteration"] == 5
    run(TWO_EPOCHS, two / "two, then one", resume=True)
    wanted = state(two / "single two epochs")
    for name in ("one, then two", "two, then one"):
        ours = state(two / name)
        assert len(losses(two / name)) == 6
        assert losses(two / name) == pytest.approx(losses(two / "single two epochs"), rel=2e-5)
        for key, value in wanted.items():
            assert distance(ours[key], value) < 1e-3, key


def test_an_error_of_one_process_ends_all_with_one_message(told: list[dict[str, str]], two: Path) -> None:
    for name, message in (
        ("unreadable", "ValueError: face 7 is unreadable"),
        ("flat", "NonFiniteLoss: the loss is not finite at iteration "),
        ("error", f"RunError: {two / 'two, then one'}: holds a run already; resume it"),
        (
            "small",
            "ValueError: batch_size, that of all processes together, must be at least their number, 2, got 1",
        ),
        ("graph", "ValueError: trainer.cuda_graph=true needs a single process, got 2"),
    ):
        said = [one[name] for one in told]
        assert sum(text.startswith(message) for text in said) == 1, said
        assert said.count("SystemExit: 2") == 1, said
    flat = next(one["flat"] for one in told if one["flat"] != "SystemExit: 2")
    assert flat.endswith("; samples S002/00001")  # whichever process it was of
    assert [one["another device"] for one in told] == [
        'ValueError: device must be "auto", "cpu" or "cuda" for 2 processes, each of which has its own GPU, '
        'got "cuda:1"',
        "SystemExit: 2",
    ]
    assert told[0]["one process"] == (
        "RuntimeError: `jaa demo` runs in one process, got 2 of torchrun; `jaa train` can have several"
    )


def test_a_process_may_have_none_of_the_last_batch(tmp_path: Path) -> None:
    run(recipe(), tmp_path / "single", datasets=faces(Patchy))
    succeeded(torchrun(3, "work_of_three", tmp_path))
    wanted, ours = losses(tmp_path / "single"), losses(tmp_path / "sync True")
    assert len(wanted) == 3
    assert ours == pytest.approx(wanted, rel=1e-5)
    together = state(tmp_path / "sync True")
    for key, value in state(tmp_path / "single").items():
        assert distance(together[key], value) < 1e-4, key

    apart = losses(tmp_path / "sync False")
    assert len(apart) == 3 and all(np.isfinite(apart))
    assert abs(apart[0] - wanted[0]) > 1e-3  # statistics of two faces are others than those of five
    tracked = [value for key, value in state(tmp_path / "sync False").items() if "num_batches" in key]
    assert {int(value) for value in tracked} == {3}


def test_the_others_end_when_a_process_is_killed(two: Path) -> None:
    said = (two / "stderr").read_text()
    assert (two / "code").read_text() != "0"
    # Or torchrun ended the other one before it noticed.
    assert said.count("jaa: ") == said.count("jaa: another process of this run is gone without a word") <= 1
    assert load_checkpoint(two / "killed" / "checkpoint.pt")["iteration"] == 4
    assert not (two / "killed" / "model.safetensors").exists()
    run(TWO_EPOCHS, two / "killed", resume=True)
    assert losses(two / "killed") == pytest.approx(losses(two / "single two epochs"), rel=2e-5)


def test_one_process_communicates_nothing() -> None:
    one = Processes()
    rows = torch.ones(3, 2, requires_grad=True)
    assert one.gather(rows, [3]) is rows
    assert one.gather_object(5) == [5] and one.broadcast_object(6) == 6
    assert one.any(True) and not one.any(False)
    with pytest.raises(KeyError), one.raise_first_error(), one.fail_together():
        raise KeyError
    require_one_process("`jaa demo`")


if __name__ == "__main__":
    torch.set_num_threads(1)
    globals()[sys.argv[1]](Path(sys.argv[2]))
