"""Scores of a model on a test set."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from jaa_ext.atomic import replacing
from jaa_ext.data import Crops, FaceDataset, normalize
from jaa_ext.device import resolve_device
from jaa_ext.engine.metrics import Metrics, Scores
from jaa_ext.engine.runtime import ignore_interrupts, reading_workers
from jaa_ext.facs import NUM_LANDMARKS
from jaa_ext.models import JAANet, JAANetConfig


def evaluate(
    model: JAANet,
    dataset: FaceDataset,
    *,
    batch_size: int = 16,
    device: torch.device | str | None = None,
    workers: int | None = None,
    predictions: Path | None = None,
) -> Scores:
    """Score a model on the central crops of a data set, in float32.

    Args:
        model: is left in evaluation mode, on the device; a fused copy of it computes (`JAANet.fuse`).
        dataset: with the model's AUs in its order, images of side ``round(image_size * 200 / 176)``.
        batch_size: faces at a time.
        device: see `jaa_ext.device.resolve_device`; None for where the model is.
        workers: processes that read images; 0 reads in this one. None: see `Recipe.workers`.
        predictions: a CSV file to write, one row a face in the order of the data set: id, subject (the id
            up to the first slash), each AU's label (-1 missing) and probability, the predicted landmarks in
            pixels of the crop, and the model's note.

    Raises:
        ValueError: no face, the data set has other AUs than the model, or a device that is not there.
    """
    if len(dataset) == 0:
        raise ValueError("evaluate: the data set is empty")
    if tuple(dataset.aus) != tuple(model.config.aus):
        raise ValueError(
            f"evaluate: the model has AUs {list(model.config.aus)}, but the data set has {list(dataset.aus)}"
        )
    device = resolve_device(device) if device is not None else next(model.parameters()).device
    fused = model.to(device).eval().fuse()
    loader: DataLoader[Any] = DataLoader(
        Crops(dataset, model.config.image_size, train=False),
        batch_size,
        sampler=[(0, i) for i in range(len(dataset))],
        num_workers=reading_workers(workers, device),
        worker_init_fn=ignore_interrupts,
    )
    metrics = Metrics(dataset.aus, note=getattr(model, "note", ""))
    rows: list[list[Any]] = []
    with torch.inference_mode():
        for batch in loader:
            image = normalize(batch["image"].to(device)).contiguous(memory_format=torch.channels_last)
            output = fused(image)
            probabilities = None if output.logits is None else output.probabilities.cpu()
            landmarks = None if output.landmarks is None else output.landmarks.cpu()
            metrics.update(probabilities, batch["labels"], landmarks, batch["landmarks"])
            if predictions is not None:
                rows += _rows(batch, probabilities, landmarks)
    if predictions is not None:
        _write_predictions(predictions, rows, model.config, metrics.note)
    return metrics.result()


def _rows(batch: dict[str, Any], probabilities: Tensor | None, landmarks: Tensor | None) -> list[list[Any]]:
    rows = []
    for i, name in enumerate(batch["id"]):
        row = [name, name.split("/")[0]]
        if probabilities is not None:
            for label, probability in zip(
                batch["labels"][i].tolist(), probabilities[i].tolist(), strict=True
            ):
                row += [label, f"{probability:.6f}"]
        if landmarks is not None:
            row += [f"{value:.3f}" for value in landmarks[i].flatten().tolist()]
        rows.append(row)
    return rows


def _write_predictions(path: Path, rows: list[list[Any]], config: JAANetConfig, note: str) -> None:
    """A model without AUs or without landmarks has no columns for them."""
    header = ["id", "subject"]
    if config.au_detection:
        header += [column for au in config.aus for column in (f"AU{au}", f"AU{au}_probability")]
    if config.alignment:
        header += [f"{axis}{i}" for i in range(NUM_LANDMARKS) for axis in "xy"]
    with replacing(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*header, "note"])
        writer.writerows([*row, note] for row in rows)
