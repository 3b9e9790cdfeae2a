"""The batches that training reads."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from lightning_fabric import Fabric
from torch.utils.data import DataLoader, default_collate

from jaa_ext import facs
from jaa_ext.data import CombinedFaces, Crops, FaceDataset, PreparedFaces
from jaa_ext.data.workers import ignore_interrupts, reading_workers
from jaa_ext.recipes.schema import Recipe
from jaa_ext.training.schedule import Batches


def training_loader(recipe: Recipe, train_set: FaceDataset, batches: Batches, fabric: Fabric) -> Any:
    """Read the crops of `batches`, this process' share of each, which may be none."""
    config = recipe.model.config()
    workers = reading_workers(recipe.workers, fabric.device)
    loader: DataLoader[Any] = DataLoader(
        Crops(train_set, config.image_size, train=True, seed=recipe.seed, augment=recipe.augment),
        batch_sampler=batches,
        collate_fn=partial(_collate, nothing=_no_faces(config.image_size, len(config.aus))),
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=fabric.device.type == "cuda",
        worker_init_fn=ignore_interrupts,
        generator=torch.Generator(),
    )
    return fabric.setup_dataloaders(loader, use_distributed_sampler=False)


def require_other_subjects(train_set: FaceDataset, test_set: FaceDataset) -> None:
    """Check that nobody is both trained on and tested on.

    Raises:
        ValueError: the sets share subjects; the message names some.
    """
    shared = sorted(set(train_set.subjects) & set(test_set.subjects))
    if not shared and isinstance(train_set, CombinedFaces) != isinstance(test_set, CombinedFaces):
        # One of both names people with their data set.
        shared = sorted(name for _, name in _people(train_set) & _people(test_set))
    if shared:
        names = ", ".join(shared[:5])
        raise ValueError(f"subjects of the test set must be none of the training set's, got {names} in both")


def _people(faces: FaceDataset) -> set[tuple[str, str]]:
    """Give the people with the data sets that they are of."""
    parts = faces.sets.values() if isinstance(faces, CombinedFaces) else [faces]
    return {
        (part.name if isinstance(part, PreparedFaces) else type(part).__name__, name)
        for part in parts
        for name in part.subjects
    }


def _collate(samples: list[dict[str, Any]], nothing: dict[str, Any]) -> dict[str, Any]:
    """A batch of samples of `Crops`, or `nothing` of none."""
    return default_collate(samples) if samples else nothing  # type: ignore[no-any-return]


def _no_faces(size: int, num_aus: int) -> dict[str, Any]:
    return {
        "image": torch.empty(0, 3, size, size, dtype=torch.uint8),
        "landmarks": torch.empty(0, facs.NUM_LANDMARKS, 2),
        "labels": torch.empty(0, num_aus, dtype=torch.int64),
        "intensities": torch.empty(0, num_aus),
        "id": [],
    }
