"""What training starts from: the model, as the training set and other weights make it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jaa_ext.data import Crops, FaceDataset
from jaa_ext.data.faces import HasIntensities, with_mirror
from jaa_ext.models import JAAGraphNet, JAANet, Transfer, build_model, load_model, transfer_weights
from jaa_ext.recipes.datasets import note_of
from jaa_ext.recipes.schema import Recipe

MEAN_SHAPE_FACES = 256
"""Faces of the training set whose mean is the landmarks' starting point."""


def initialize_model(
    recipe: Recipe, train_set: FaceDataset, *, transfer: bool = True
) -> tuple[JAANet, Transfer | None]:
    """Build a recipe's model, drawn from its seed, on the CPU.

    Landmarks start at the training set's mean shape, intensities at each AU's mean. Both sides of an AU have
    the same one, as training flips half of the faces.

    Args:
        recipe: its `init` names a model file to take weights from, which then keep that file's note.
        train_set: with the model's AUs.
        transfer: False leaves `init` alone, for weights that come from a checkpoint.

    Returns:
        The model, and what came from `init`.

    Raises:
        ValueError: landmarks that are not finite, no intensities for a model that predicts them, or a file
            that does not fit.
    """
    config = recipe.model.config()
    torch.manual_seed(recipe.seed)
    model = build_model(config)
    model.note = note_of(train_set)
    if config.alignment:
        model.set_mean_shape(_mean_shape(train_set, config.image_size))
    intensities = _mean_intensity(train_set) if config.intensity else None
    if intensities is not None:
        model.set_mean_intensity(intensities)
    transferred: Transfer | None = None
    if recipe.init is not None and transfer:
        source = load_model(recipe.init)
        try:
            transferred = transfer_weights(model, source)
        except ValueError as error:
            raise ValueError(f"{recipe.init}: {error}") from None
        # Weights that come from others' stay what the others are: for demonstration, or non-commercial.
        notes = dict.fromkeys(note for note in (source.note, model.note) if note)
        model.note = " ".join(notes)
    # After the transfer, which brings the graph and the rated AUs of other labels.
    if isinstance(model, JAAGraphNet):
        model.set_labels(with_mirror(train_set.label_matrix(), train_set.aus))
    if intensities is not None:
        model.set_rated(np.isfinite(intensities))
    return model, transferred


def _mean_shape(dataset: FaceDataset, size: int) -> Tensor:
    crops = Crops(dataset, size, train=False)
    # Spread over the set: its first faces may all be one person's.
    picked = np.linspace(0, len(dataset) - 1, min(MEAN_SHAPE_FACES, len(dataset)), dtype=int).tolist()
    faces = [crops[i] for i in picked]
    for face in faces:
        if not face["landmarks"].isfinite().all():
            raise ValueError(f"the landmarks of training face {face['id']} are not finite")
    return torch.stack([face["landmarks"] for face in faces]).mean(0)


def _mean_intensity(dataset: FaceDataset) -> NDArray[np.float64] | None:
    """(A,) of each AU in crops, NaN where it has none; None of a data set that does not tell."""
    if not isinstance(dataset, HasIntensities):
        return None
    intensities = with_mirror(dataset.intensity_matrix(), dataset.aus)
    known = np.isfinite(intensities)
    if not known.any():
        raise ValueError("model.intensity=true needs intensities, but the training faces have none")
    sums = np.where(known, intensities, 0).sum(0, dtype=np.float64)
    return np.where(known.any(0), sums / known.sum(0).clip(1), np.nan)
