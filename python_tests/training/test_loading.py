from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from jaa_ext.data import CombinedFaces, PreparedFaces, RenderedFaces, SyntheticFaces, prepare
from jaa_ext.data.rendered.release import rendered_release
from jaa_ext.recipes.schema import Recipe
from jaa_ext.training import train
from jaa_ext.training.loading import require_other_subjects, training_loader
from jaa_ext.training.runtime import make_fabric
from jaa_ext.training.schedule import Batches

RECIPE = Recipe.model_validate(
    {
        "name": "tiny",
        "model": {"aus": [6, 7, 12], "image_size": 64, "width": 1},
        "data": {"train_subjects": 2, "test_subjects": 1, "samples_per_subject": 5},
        "batch_size": 4,
        "stages": [{"name": "joint", "epochs": 1, "lr": 0.01}],
    }
)


def faces(subjects: list[int], count: int = 2, aus: tuple[int, ...] = (6, 7, 12)) -> SyntheticFaces:
    return SyntheticFaces(subjects=subjects, samples_per_subject=count, size=73, aus=aus)


def read(batches: Batches, train_set: Any) -> list[dict[str, Any]]:
    return list(training_loader(RECIPE, train_set, batches, make_fabric("cpu", "32-true")))


def test_people_who_are_trained_on_are_not_tested(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError,
        match=r"^subjects of the test set must be none of the training set's, got S003, S005 in both$",
    ):
        train(RECIPE, tmp_path, device="cpu", datasets=(faces([1, 5, 3]), faces([3, 4, 5])))
    assert not (tmp_path / "checkpoint.pt").exists()


def test_people_of_one_name_in_two_data_sets_are_two() -> None:
    require_other_subjects(CombinedFaces({"one": faces([1])}), CombinedFaces({"two": faces([1])}))
    with pytest.raises(ValueError, match=r"got one:S001 in both$"):
        sets = {"one": faces([1]), "two": faces([2])}
        require_other_subjects(CombinedFaces(sets), CombinedFaces({"one": faces([1])}))


def test_people_of_one_of_several_data_sets_and_of_it_alone() -> None:
    several, alone = CombinedFaces({"one": faces([1]), "two": faces([2])}), faces([2, 3])
    for sets in ((several, alone), (alone, several)):
        with pytest.raises(ValueError, match=r"got S002 in both$"):
            require_other_subjects(*sets)
    require_other_subjects(several, faces([3]))
    others = RenderedFaces(subjects=[1], samples_per_subject=1, size=73, aus=(6, 7, 12))
    require_other_subjects(several, others)


def test_people_of_a_folder_among_several_and_of_it_alone(tmp_path: Path) -> None:
    release = rendered_release(subjects=2, samples_per_subject=1, size=73)
    prepare(release, tmp_path, align=False, table="csv", workers=0)
    folder = PreparedFaces(tmp_path, aus=(6, 12))
    with pytest.raises(ValueError, match=r"got R0000, R0001 in both$"):
        require_other_subjects(CombinedFaces({"a": folder, "b": faces([1])}), folder)


def test_a_process_reads_its_part_of_each_batch_which_may_be_none() -> None:
    whole = read(Batches(6, 5, seed=0), faces([1, 2, 3]))
    parts = [read(Batches(7, 5, seed=0, processes=3, rank=rank), faces([1, 2, 3, 4])) for rank in range(3)]
    assert [len(batch["id"]) for batch in whole] == [5]
    assert [[len(batch["id"]) for batch in part] for part in parts] == [[2, 1], [2, 1], [1, 0]]
    nothing, something = parts[2][1], parts[1][1]
    for name in ("image", "labels", "landmarks", "intensities"):
        assert nothing[name].shape == (0, *something[name].shape[1:])
        assert nothing[name].dtype == something[name].dtype


def test_a_face_that_comes_again_in_an_epoch_is_cropped_anew() -> None:
    several = CombinedFaces({"few": faces([1], 3), "many": faces([2], 30)})
    (batch,) = read(Batches(33, 33, seed=0, sets=[(3, 10), (30, 1)]), several)
    crops: dict[str, set[bytes]] = {}
    for name, image in zip(batch["id"], batch["image"], strict=True):
        crops.setdefault(name, set()).add(image.numpy().tobytes())
    times = [len(crops[f"few:S001/{i:05d}"]) for i in range(3)]
    assert sum(times) == 30 and min(times) == 10  # of a hundred ways to crop and two to flip


def test_labels_that_a_data_set_does_not_have_are_missing() -> None:
    several = CombinedFaces({"one": faces([1], 4, (6, 7)), "two": faces([2], 4, (12, 7))}, aus=(6, 7, 12))
    (batch,) = read(Batches(8, 8, seed=0), several)
    of_one = torch.tensor([name.startswith("one:") for name in batch["id"]])
    missing = torch.stack([~of_one, torch.zeros(8, dtype=torch.bool), of_one], 1)
    assert torch.equal(batch["labels"] == -1, missing) and torch.equal(batch["intensities"].isnan(), missing)
