"""What training prints while it runs."""

import io
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from jaa_ext.cli.training_progress import training_progress
from jaa_ext.data import CombinedFaces, SyntheticFaces
from jaa_ext.recipes.schema import Recipe
from jaa_ext.training import Trainer, train

pytestmark = pytest.mark.usefixtures("one_thread")

RECIPE: dict[str, Any] = {
    "name": "tiny",
    "model": {"aus": [6, 7, 12], "image_size": 64, "width": 1},
    "data": {"train_subjects": 2, "test_subjects": 1, "samples_per_subject": 5},
    "batch_size": 4,
    "stages": [{"name": "joint", "epochs": 2, "lr": 0.01}],
}  # 3 iterations an epoch


def run(out: Path, *, terminal: bool = False, resume: bool = False, stop: int = 0, **changes: Any) -> str:
    """What a run prints, which Ctrl-C stops in an iteration."""
    text = io.StringIO()
    with training_progress(Console(file=text, width=200, force_terminal=terminal)) as listener:
        heard = listener.on_update

        def on_update(trainer: Trainer, losses: dict[str, float]) -> None:
            heard(trainer, losses)
            if trainer.iteration == stop:
                signal.raise_signal(signal.SIGINT)

        listener.on_update = on_update  # type: ignore[method-assign]
        made = Recipe.model_validate({**RECIPE, **changes})
        try:
            train(made, out, device="cpu", resume=resume, listener=listener)
        except KeyboardInterrupt:
            assert stop
    return text.getvalue()


def test_a_line_an_epoch(tmp_path: Path) -> None:
    first, last = run(tmp_path).splitlines()
    assert first.startswith("joint 1/2  lr 0.01  au_softmax ")
    assert last.startswith("joint 2/2  lr 0.01  au_softmax ")
    assert all(word in last for word in ("align", "total", "F1", "mean error", "images/s"))
    assert run(tmp_path, resume=True) == ""  # nothing is left to do


def test_a_terminal_sees_the_losses_of_each_iteration(tmp_path: Path) -> None:
    text = run(tmp_path, terminal=True, stages=[{"name": "joint", "epochs": 1, "lr": 0.01}])
    assert "0/3" in text  # the bar, then the epoch's line
    assert "joint 1/1  lr " in text


def test_an_interrupted_run_says_how_it_goes_on_and_what_it_began_with_once(tmp_path: Path) -> None:
    run(tmp_path / "first")
    source = tmp_path / "first" / "model.safetensors"
    lines = run(tmp_path / "second", stop=5, init=str(source)).splitlines()
    assert lines[0] == f"{source}: fresh: nothing"
    assert lines[2] == "Stopped after iteration 5: --resume goes on from there."
    (line,) = run(tmp_path / "second", resume=True, init=str(source)).splitlines()
    assert line.startswith("joint 2/2  lr 0.01  ")


def test_folds_and_systems() -> None:
    text = io.StringIO()
    with training_progress(Console(file=text, width=40)) as listener:
        listener.on_system("abaw-1", 1, 3)
        listener.on_fold("abaw-1", "validation", 2, 5)
    rule, line = text.getvalue().splitlines()
    assert rule.startswith("abaw-1: 1 of 3 ──") and len(rule) == 40
    assert line == "abaw-1: fold validation (2 of 5)"


def test_nothing_is_divided_by_where_an_epoch_has_no_update_left() -> None:
    """A run that was killed while it tested has only the test of its epoch to do."""
    text = io.StringIO()
    trainer: Any = SimpleNamespace(
        iteration=3, transfer=None, stage=SimpleNamespace(name="joint"), epoch=0, batch=3, batches=[1, 2, 3],
        recipe=SimpleNamespace(epochs=1), history=[{"epoch": 1, "stage": "joint", "lr": 0.1, "losses": {}}],
    )  # fmt: skip
    scores: Any = SimpleNamespace(summary=lambda: {"F1": 12.5})
    with training_progress(Console(file=text, width=80)) as listener:
        listener.on_epoch_start(trainer)
        listener.on_epoch_end(trainer, scores)
    assert text.getvalue() == "joint 1/1  lr 0.1    F1 12.5 %  0 images/s\n"


def test_several_data_sets_and_people_of_one_name(tmp_path: Path) -> None:
    def faces(*subjects: int) -> SyntheticFaces:
        return SyntheticFaces(subjects=subjects, samples_per_subject=4, size=73, aus=(6, 7, 12))

    train_set = CombinedFaces({"one": faces(1, 2), "other": faces(3)}, shares=(1, 2))
    test_set = CombinedFaces({"one": faces(4), "other": faces(1, 2)})
    text = io.StringIO()
    with training_progress(Console(file=text, width=200)) as listener:
        train(
            Recipe.model_validate(RECIPE),
            tmp_path,
            device="cpu",
            datasets=(train_set, test_set),
            listener=listener,
        )
    printed = text.getvalue()
    assert "  one: 8 faces to train, 4 an epoch.\n  other: 4 faces to train, 8 an epoch.\n" in printed
    assert printed.count("  Subjects of the same name in one and other: 2. Are they the same people?") == 1
