"""The command `jaa demo`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jaa_ext.cli.options import LARGEST_SEED, Out
from jaa_ext.cli.output import Device, console, show_scores
from jaa_ext.cli.progress import say

if TYPE_CHECKING:
    from jaa_ext.data import FaceDataset
    from jaa_ext.models import JAANet

FIGURE_AUS = (1, 4, 6, 10, 12, 17)
FIGURE_FACES = 3

FILES = {
    "metrics.json": "F1 and accuracy (0..1) of each AU, landmark error and failures (%)",
    "model.safetensors": "the trained model",
    "predictions.csv": "labels, probabilities and landmarks of each test face",
    "training.png": "the course of training",
    "attention.png": "initial and refined attention maps",
}


def demo(
    out: Out = Path("jaa-demo"),
    seed: Annotated[
        int,
        typer.Option(min=0, max=LARGEST_SEED, help="Of the weights and the order of the training faces."),
    ] = 0,
    device: Device = "auto",
) -> None:
    """Train a small JAA-Net on drawn faces, test it on unseen subjects and draw what it learnt.

    Takes a few minutes on two processor cores and downloads nothing. Interrupted, the same command goes on.
    """
    from jaa_ext.cli.training_progress import training_progress
    from jaa_ext.distributed import require_one_process
    from jaa_ext.evaluation.results import read_history
    from jaa_ext.models import load_model
    from jaa_ext.plots.training import training_figure
    from jaa_ext.recipes import load_recipe
    from jaa_ext.training import train

    require_one_process("`jaa demo`")
    start = time.perf_counter()
    recipe = load_recipe("demo")
    say(console, "Training a small JAA-Net on drawn faces. Ctrl-C stops it, the same command goes on.")
    resume = (out / "checkpoint.pt").exists()
    with training_progress(console) as listener:
        scores = train(recipe, out, resume=resume, seed=seed, device=device, listener=listener)

    model = load_model(out / "model.safetensors")
    _, test_set = recipe.data.build(model.config)
    training_figure(read_history(out / "history.json"), out / "training.png", model.note)
    _draw_attention(model, test_set, out / "attention.png")

    show_scores(scores)
    say(
        console, f"Tested on {len(test_set)} faces of {len(test_set.subjects)} subjects not seen in training."
    )
    say(console, f"{time.perf_counter() - start:.0f} seconds. In {out}:")
    for name, what in FILES.items():
        say(console, f"  {name:18} {what}")
    say(console, f"Try next: jaa predict PHOTO --weights {out / 'model.safetensors'} --out faces")


def _draw_attention(model: JAANet, test_set: FaceDataset, path: Path) -> None:
    """Draw the maps of a few AUs on one face of each of the first test subjects."""
    import numpy as np
    import torch

    from jaa_ext.data import Crops, normalize
    from jaa_ext.plots.attention import attention_figure

    crops = Crops(test_set, model.config.image_size, train=False)
    per_subject = len(test_set) // len(test_set.subjects)
    images = torch.stack([crops[i * per_subject]["image"] for i in range(FIGURE_FACES)])
    with torch.inference_mode():
        output = model(normalize(images))
    picked = [model.config.aus.index(au) for au in FIGURE_AUS]
    attention_figure(
        np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy()),
        output.initial_maps[:, picked].numpy(),
        output.refined_maps[:, picked].numpy(),
        FIGURE_AUS,
        path,
        model.note,
    )
