"""What training starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from jaa_ext.data import FaceSample, SyntheticFaces
from jaa_ext.models import JAAGraphNet, build_model, save_model
from jaa_ext.recipes.datasets import DEMONSTRATION
from jaa_ext.recipes.schema import Recipe
from jaa_ext.training.initialization import initialize_model

AUS = (6, 7, 12)


def recipe(**changes: Any) -> Recipe:
    model = {"aus": list(AUS), "image_size": 64, "width": 1, **changes.pop("model", {})}
    stages = [{"name": "joint", "epochs": 1, "lr": 0.01}]
    data = {"train_subjects": 2, "test_subjects": 1, "samples_per_subject": 2}
    values = {"name": "tiny", "model": model, "data": data, "batch_size": 2, "stages": stages}
    return Recipe.model_validate({**values, **changes})


def faces() -> SyntheticFaces:
    return SyntheticFaces(subjects=range(2), samples_per_subject=3, size=73, aus=AUS)


class Rated:
    """Drawn faces with intensities of one's own."""

    subjects, aus = ("S000", "S001"), AUS

    def __init__(self, intensities: NDArray[np.float32]) -> None:
        self.faces, self.intensities = faces(), intensities

    def __len__(self) -> int:
        return len(self.faces)

    def __getitem__(self, index: int) -> FaceSample:
        return self.faces[index]._replace(intensities=self.intensities[index])

    def label_matrix(self) -> NDArray[np.int64]:
        return self.faces.label_matrix()

    def intensity_matrix(self) -> NDArray[np.float32]:
        return self.intensities


def test_landmarks_start_at_the_mean_of_the_training_faces() -> None:
    drawn = faces()
    model, transfer = initialize_model(recipe(), drawn)
    mean = np.mean([drawn[i].landmarks - 4 for i in range(len(drawn))], axis=0)  # the crop of 64 in 73
    assert model.alignment.landmarks.bias.detach().view(49, 2).numpy() == pytest.approx(mean, abs=1e-3)
    assert transfer is None and model.note == DEMONSTRATION


def test_weights_are_drawn_from_the_seed() -> None:
    torch.rand(7)
    first, second, other = (
        initialize_model(recipe(seed=seed), faces())[0].state_dict() for seed in (1, 1, 2)
    )
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_landmarks_that_are_not_finite_are_told() -> None:
    class Broken(Rated):
        def __getitem__(self, index: int) -> FaceSample:
            sample = self.faces[index]
            return sample._replace(landmarks=sample.landmarks * np.float32(np.nan if index == 4 else 1))

    with pytest.raises(ValueError, match=r"^the landmarks of training face S001/00001 are not finite$"):
        initialize_model(recipe(), Broken(np.zeros((6, 3), np.float32)))


def test_intensities_start_at_each_aus_mean() -> None:
    intensities = np.full((6, 3), np.nan, np.float32)
    intensities[:4, 0], intensities[0, 1] = (1, 2, 3, 4), 5
    model, _ = initialize_model(recipe(model={"intensity": True}), Rated(intensities))
    wanted = build_model(model.config)
    wanted.set_mean_intensity(np.array([2.5, 5, np.nan]))
    got, want = model.state_dict(), wanted.state_dict()
    biases = [key for key in got if "intensit" in key and key.endswith("bias")]
    # AU 12 has none, and keeps the bias that was drawn.
    assert biases and all(torch.equal(got[key][:2], want[key][:2]) for key in biases)
    with pytest.raises(ValueError, match=r"needs intensities, but the training faces have none"):
        initialize_model(recipe(model={"intensity": True}), Rated(np.full((6, 3), np.nan, np.float32)))


class Sided(Rated):
    """Drawn faces with labels and intensities of one's own of both sides of AU 12, and of AU 6."""

    aus: Any = ("12L", "12R", 6)

    def label_matrix(self) -> NDArray[np.int64]:
        # AU 6 comes with the right side.
        return np.array([[1, 0, 0], [0, 1, 1], [0, 1, 1], [0, 0, 0], [0, 1, 1], [0, -1, 0]])


@pytest.mark.parametrize("known", [[0, 1], [1], [0]])
def test_sides_start_alike_as_training_flips_faces(known: list[int]) -> None:
    intensities = np.full((6, 3), np.nan, np.float32)
    intensities[:4, known] = np.array([[1], [2], [3], [4]])
    section = {"aus": list(Sided.aus), "preset": "graph", "threshold": 0.6, "intensity": True}
    model, _ = initialize_model(recipe(model=section), Sided(intensities))
    assert isinstance(model, JAAGraphNet) and model.au_head is not None
    head = model.au_head.intensity
    assert head is not None and head.rated.tolist() == [True, True, False]
    assert head.linear.bias[0] == head.linear.bias[1]
    assert model.graph.adjacency.tolist() == [[1, 0, 1], [0, 1, 1], [0, 0, 1]]


def test_weights_and_note_come_from_another_model_once(tmp_path: Path) -> None:
    file = tmp_path / "other.safetensors"
    other, _ = initialize_model(recipe(seed=5), faces())
    save_model(other, file, note="For non-commercial use.")
    model, transfer = initialize_model(recipe(init=str(file)), faces())
    assert transfer is not None and model.note == f"For non-commercial use. {DEMONSTRATION}"
    mine, theirs = model.state_dict(), other.state_dict()
    assert all(torch.equal(mine[key], theirs[key]) for key in theirs)
    with pytest.raises(ValueError, match=rf"^{file}: width must be alike, the model has 2, the other 1$"):
        initialize_model(recipe(init=str(file), model={"width": 2}), faces())
    file.unlink()
    own, nothing = initialize_model(recipe(init=str(file)), faces(), transfer=False)
    assert nothing is None and own.note == DEMONSTRATION
    with pytest.raises(FileNotFoundError, match=r"other\.safetensors"):
        initialize_model(recipe(init=str(file)), faces())
