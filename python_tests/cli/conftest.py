"""Models, photographs, videos and data sets on which the commands run."""

import csv
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data

from jaa_ext import facs
from jaa_ext.models import JAANet, JAANetConfig, save_model

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


@pytest.fixture(scope="session")
def tiny() -> tuple[str, ...]:
    """Options of a short run, whose networks take images of 73 = round(64 * 200 / 176) pixels."""
    return "--budget", "tiny", "--device", "cpu"


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second of a face."""
    path = tmp_path_factory.mktemp("videos") / "talk.avi"
    picture = np.ascontiguousarray(skimage.data.astronaut()[:300, 80:380, ::-1])
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (300, 300))
    for _ in range(10):
        video.write(picture)
    video.release()
    return path


@pytest.fixture(scope="session")
def released(releases, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of miniature releases."""
    folder = tmp_path_factory.mktemp("released")
    releases.make_bp4d(folder / "bp4d")
    releases.make_disfa(folder / "disfa")
    releases.make_affwild2(folder / "affwild2")
    return folder


@pytest.fixture
def jaa_ok(jaa: Callable[..., tuple[int, str, str]]) -> Callable[..., str]:
    """Run the command, which must succeed; returns standard output."""

    def run(*arguments: object) -> str:
        code, printed, error = jaa(*arguments)
        assert code == 0, error
        return printed

    return run


@pytest.fixture(scope="session")
def read() -> Callable[[Path], list[dict[str, str]]]:
    """Reads the rows of a CSV file."""

    def rows(path: Path) -> list[dict[str, str]]:
        with path.open(newline="") as file:
            return list(csv.DictReader(file))

    return rows
