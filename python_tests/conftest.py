"""Every op test runs on the CPU and, where there is one, on the GPU."""

import gc
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from jaa_ext import _library, cli
from jaa_ext.data.faces import aligned_size, alignment_matrix, transform
from jaa_ext.evaluation import Intervals, Scores
from jaa_ext.models import JAANet
from jaa_ext.predict import FacePrediction
from jaa_ext.predict.alignment import MEAN_FACE
from jaa_ext.progress import ProgressListener

DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() and "cuda" in _library.DEVICES else [])


def pytest_configure(config: pytest.Config) -> None:
    # From the source tree every test would pass on the reference implementations: that must not go unseen.
    if "cpu" not in _library.DEVICES:
        pytest.exit(
            "the compiled kernels are not loaded: install with `pip install '.[test]'` and run `pytest`, not "
            "`python -m pytest` from the repository's root, which imports the source tree",
            returncode=2,
        )
    # float32 means float32: TensorFloat-32, which convolutions use by default, keeps three digits.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    # As often as by default, looking for unreachable objects takes a seventh of the time of tracing models.
    gc.set_threshold(10_000, 10, 100)


@pytest.fixture(params=DEVICES, scope="session")
def device(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the repository's root, other processes that a test starts would import the source tree."""
    monkeypatch.chdir(tmp_path)


class Heard(ProgressListener):
    """What a listener heard: sentences, tasks as (name, total, done), and the steps of each task."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.tasks: list[tuple[str, int | None, int]] = []
        self.steps: list[list[int]] = []
        self.ended = 0

    def on_message(self, sentence: str) -> None:
        self.messages.append(sentence)

    def on_start(self, task: str, total: int | None, done: int = 0) -> None:
        self.tasks.append((task, total, done))
        self.steps.append([])

    def on_progress(self, done: int, text: str = "") -> None:
        self.steps[-1].append(done)

    def on_end(self) -> None:
        self.ended += 1


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """At the sizes of most tests more threads would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def groups_split_from(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the size beyond which the groups of a `GroupedSequential` go one after the other."""

    def set_size(size: float) -> None:
        for name in ("MAX_GROUPED_IMAGE_ELEMENTS", "MAX_GROUPED_BATCH_ELEMENTS"):
            monkeypatch.setattr(f"jaa_ext.nn.attention.{name}", size)

    return set_size


@pytest.fixture(scope="session")
def some_scores() -> Scores:
    """Scores of two AUs, the second without valid labels, with intervals."""
    intervals = Intervals(
        resamples=200, seed=3,
        f1=((0.2, 0.3125), None), accuracy=((0.7, 0.8), None), precision=((0.1, 0.2), None),
        recall=((0.5, 0.625), None), auc=(None, None),
        f1_mean=(0.1875, 0.3125), accuracy_mean=(0.7, 0.8), precision_mean=(0.1, 0.2),
        recall_mean=(0.5, 0.625), auc_mean=None, accuracy_total=(0.5, 0.75),
        abaw_score=(0.375, 0.5), mean_error=(6.25, 6.75), failure_rate=(10.0, 15.0),
    )  # fmt: skip
    return Scores(
        aus=(1, 12), f1=(0.25, None), accuracy=(0.75, None), f1_mean=0.25, accuracy_mean=0.75, mean_error=6.5,
        failure_rate=12.5, note="Not for real use.", precision=(0.125, None), recall=(0.5625, None),
        auc=(None, None), precision_mean=0.125, recall_mean=0.5625, auc_mean=None, accuracy_total=0.625,
        positives=(5, 0), valid=(20, 0), subjects=7, intervals=intervals,
    )  # fmt: skip


@pytest.fixture(scope="session")
def intensity_scores(some_scores: Scores) -> Scores:
    """`some_scores`, and scores of intensities."""
    assert some_scores.intervals is not None
    return replace(
        some_scores, icc=(0.8125, None), pearson=(0.9, None), mae=(0.25, 1.5), icc_mean=0.8125,
        pearson_mean=0.9, mae_mean=0.875, rated=(1200, 1),
        intervals=replace(some_scores.intervals, icc=((0.75, 0.875), None), mae_mean=(0.5, 1.0)),
    )  # fmt: skip


@pytest.fixture(scope="session")
def at_rest() -> Callable[[JAANet], JAANet]:
    """Makes a network see the mean face in its place, whatever it looks at: its landmarks settle at once."""

    def make(model: JAANet) -> JAANet:
        side = aligned_size(model.config.image_size)
        margin = (side - model.config.image_size) // 2
        model.set_mean_shape(transform(MEAN_FACE, alignment_matrix(MEAN_FACE, size=side)) - margin)
        torch.nn.init.zeros_(model.alignment.landmarks.weight)
        return model

    return make


@pytest.fixture
def prediction() -> Callable[..., FacePrediction]:
    """Makes a face of 300 pixels, its landmarks on a grid, with 12 AUs; fields can be given."""

    def make(probabilities: Any = (0.9,) * 12, **fields: Any) -> FacePrediction:
        grid = np.stack(np.meshgrid(np.linspace(130, 370, 7), np.linspace(50, 290, 7)), -1).reshape(49, 2)
        probabilities = np.asarray(probabilities, np.float32)
        face = dict(
            face_id=0,
            box=(100.0, 20.0, 400.0, 320.0),
            landmarks=grid.astype(np.float32),
            detected_landmarks=np.zeros((49, 2), np.float32),
            probabilities=probabilities,
            present=probabilities > 0.5,
            crop=np.zeros((8, 8, 3), np.uint8),
            initial_maps=None,
            refined_maps=None,
        )
        return FacePrediction(**(face | fields))

    return make


@pytest.fixture
def jaa(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run the command; returns exit code, standard output and standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["jaa", *map(str, arguments)])
        capfd.readouterr()
        environment = dict(os.environ)
        try:
            with pytest.raises(SystemExit) as end:
                cli.main()
        finally:  # commands set switches of OpenCV, which other tests read
            os.environ.clear()
            os.environ.update(environment)
        return end.value.code or 0, *capfd.readouterr()

    return run


@pytest.fixture(scope="session")
def releases() -> ModuleType:
    """Miniature releases of the licensed data sets: the module data/releases.py, which tests cannot import
    under --import-mode=importlib."""
    spec = importlib.util.spec_from_file_location("releases", Path(__file__).parent / "data" / "releases.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
