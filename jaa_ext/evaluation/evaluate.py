"""Scores of a model on a test set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from jaa_ext.data import CombinedFaces, Crops, FaceDataset, normalize
from jaa_ext.data.workers import ignore_interrupts, reading_workers
from jaa_ext.device import resolve_device
from jaa_ext.distributed import Processes, shares
from jaa_ext.evaluation.bootstrap import bootstrap_intervals
from jaa_ext.evaluation.metrics import Metrics, score
from jaa_ext.evaluation.predictions import Predictions
from jaa_ext.evaluation.scores import Scores
from jaa_ext.facs import AU, AURule, au_numbers, eye_distance
from jaa_ext.models import JAANet


class NonFiniteOutput(RuntimeError):
    """An output of the model is infinite or not a number; the message names the output and the face."""


def evaluate(
    model: JAANet,
    dataset: FaceDataset,
    *,
    batch_size: int = 16,
    device: torch.device | str | None = None,
    workers: int | None = None,
    predictions: Path | None = None,
    bootstrap: int = 0,
    seed: int = 0,
    figures: Path | None = None,
    processes: Processes | None = None,
) -> Scores:
    """Score a model on the central crops of a data set, in float32.

    Args:
        model: the model, of which a fused copy computes (`JAANet.fuse`). Its thresholds decide which AUs are
            predicted present: 0.5 as published, unless they are calibrated.
        dataset: faces with the model's AUs in its order and images of side ``round(image_size * 200 / 176)``.
            Several data sets (`CombinedFaces`) are scored together, and each by itself (`Scores.sets`).
        batch_size: number of faces at a time.
        device: see `jaa_ext.device.resolve_device`; None for where the model is.
        workers: number of processes that read images; 0 reads in this one. None: see `Recipe.workers`.
        predictions: a CSV file to write, one row a face in the order of the data set: id, subject (the id
            up to the first slash), each AU's label (-1 missing) and probability, each AU's true intensity
            and the predicted one, the predicted landmarks in pixels of the crop, and the model's note.
        bootstrap: number of resamples of the subjects for the scores' 95 % intervals, see
            `bootstrap_intervals`; 0 leaves the intervals out.
        seed: seed of the resamples.
        figures: a folder to write figures into, see `jaa_ext.plots.scores.write_figures`.
        processes: the processes of a training run. All of them call this function with the same model and
            divide the batches; all get the scores that one process would get, to the bit, and the main
            process writes the files.

    Raises:
        ValueError: no face, the data set has other AUs than the model, a device that is not there, a negative
            number of resamples or seed, or true landmarks that are not finite or have both eyes in one place.
        NonFiniteOutput: an output of the model is not finite.

    Example:
        >>> from jaa_ext.data.synthetic import SyntheticFaces
        >>> from jaa_ext.models import JAANet, JAANetConfig
        >>> model = JAANet(JAANetConfig((1, 12), image_size=64, width=1))
        >>> faces = SyntheticFaces(subjects=range(1), samples_per_subject=2, size=73, aus=(1, 12))
        >>> evaluate(model, faces, workers=0).valid
        (2, 2)
    """
    if bootstrap < 0:
        raise ValueError(f"evaluate: bootstrap must be a number of resamples, or 0 for none, got {bootstrap}")
    if seed < 0:
        raise ValueError(f"evaluate: seed must be at least 0, got {seed}")
    processes = processes or Processes()
    collected = collect_predictions(
        model, dataset, batch_size=batch_size, device=device, workers=workers, processes=processes
    )
    scores = _scored(collected, bootstrap, seed)
    if isinstance(dataset, CombinedFaces) and len(dataset.sets) > 1:
        of_each = {name: _scored(collected.of_set(name), bootstrap, seed) for name in dataset.sets}
        scores = replace(scores, sets=of_each)
    with processes.fail_together():
        if predictions is not None and processes.is_main_process:
            collected.to_csv(predictions)
        if figures is not None and processes.is_main_process:
            from jaa_ext.plots.scores import write_figures

            write_figures(figures, collected, scores)
    return scores


def collect_predictions(
    model: JAANet,
    dataset: FaceDataset,
    *,
    batch_size: int = 16,
    device: torch.device | str | None = None,
    workers: int | None = None,
    processes: Processes | None = None,
) -> Predictions:
    """Predict the central crops of a data set in float32, see `evaluate`.

    Raises:
        ValueError, NonFiniteOutput: see `evaluate`.
    """
    if len(dataset) == 0:
        raise ValueError("evaluate: the data set is empty")
    require_same_aus(model.config.aus, dataset)
    device = resolve_device(device) if device is not None else next(model.parameters()).device
    fused = model.fuse().to(device).float()
    processes = processes or Processes()
    indices = list(range(len(dataset)))
    # Whole batches: a face's last bits depend on how many are computed together.
    batches = [indices[k : k + batch_size] for k in range(0, len(indices), batch_size)]
    loader: DataLoader[Any] = DataLoader(
        Crops(dataset, model.config.image_size, train=False),
        batch_sampler=batches[shares(len(batches), processes.world_size)[processes.rank]],
        num_workers=reading_workers(workers, device),
        worker_init_fn=ignore_interrupts,
    )
    outputs = []
    with processes.fail_together(), torch.inference_mode():
        for batch in loader:
            image = normalize(batch["image"].to(device)).contiguous(memory_format=torch.channels_last)
            output = fused(image)
            probabilities = None if output.logits is None else output.probabilities.cpu()
            landmarks = None if output.landmarks is None else output.landmarks.cpu()
            intensities = None if output.intensities is None else output.intensities.cpu()
            _require_finite({"probabilities": probabilities, "landmarks": landmarks}, batch)
            truth = batch["labels"], batch["landmarks"], batch["id"], batch["intensities"]
            outputs.append((probabilities, landmarks, intensities, *truth))
    thresholds = getattr(model, "thresholds", None)
    metrics = Metrics(tuple(dataset.aus), note=getattr(model, "note", ""), thresholds=thresholds)
    for of_process in processes.gather_object(outputs):
        for probabilities, landmarks, intensities, labels, target, ids, true_intensities in of_process:
            metrics.update(probabilities, labels, landmarks, target, ids, intensities, true_intensities)
    return metrics.predictions()


def _scored(predictions: Predictions, bootstrap: int, seed: int) -> Scores:
    scores = score(predictions)
    if not bootstrap:
        return scores
    return replace(scores, intervals=bootstrap_intervals(predictions, bootstrap, seed=seed))


def require_same_aus(aus: Sequence[AU | AURule], dataset: FaceDataset) -> None:
    """Check that a data set has a model's AUs, in its order.

    Raises:
        ValueError: it has others.
    """
    numbers = au_numbers(aus)
    if tuple(dataset.aus) != numbers:
        raise ValueError(f"the model has AUs {list(numbers)}, but the data set has {list(dataset.aus)}")


def _require_finite(output: dict[str, Tensor | None], batch: dict[str, Any]) -> None:
    for name, tensor in output.items():
        if tensor is not None and not tensor.isfinite().all():
            face = int(tensor.isfinite().flatten(1).all(1).logical_not().nonzero()[0])
            raise NonFiniteOutput(
                f"the model's {name} of face {batch['id'][face]} are not finite, though its weights are: "
                "they have grown too large, or training diverged"
            )
    eyes = eye_distance(batch["landmarks"])
    wrong = (~((eyes > 0) & eyes.isfinite() & batch["landmarks"].isfinite().flatten(1).all(1))).nonzero()
    if output["landmarks"] is not None and len(wrong):
        raise ValueError(
            f"the true landmarks of face {batch['id'][int(wrong[0])]} must be finite and the eyes apart"
        )
