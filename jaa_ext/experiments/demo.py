"""`jaa demo`: train a small JAA-Net on drawn faces, test it, and draw what it learnt."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from jaa_ext import progress
from jaa_ext.data import Crops, FaceDataset, normalize
from jaa_ext.distributed import require_one_process
from jaa_ext.evaluation import Scores
from jaa_ext.evaluation.results import read_history
from jaa_ext.models import JAANet, load_model
from jaa_ext.plots.attention import attention_figure
from jaa_ext.plots.training import training_figure
from jaa_ext.recipes import load_recipe
from jaa_ext.training import train

FIGURE_AUS = (1, 4, 6, 10, 12, 17)
FIGURE_FACES = 3

FILES = {
    "metrics.json": "F1 and accuracy (0..1) of each AU, landmark error and failures (%)",
    "model.safetensors": "the trained model",
    "predictions.csv": "labels, probabilities and landmarks of each test face",
    "training.png": "the course of training",
    "attention.png": "initial and refined attention maps",
}


def run_demo(out: Path, *, seed: int, device: str, console: Console) -> Scores:
    """Everything that `jaa demo` does; a demo that was interrupted in `out` goes on.

    Raises:
        RunError: `out` holds another run.
    """
    require_one_process("`jaa demo`")
    start = time.perf_counter()
    recipe = load_recipe("demo")
    say = partial(progress.say, console)
    say("Training a small JAA-Net on drawn faces. Ctrl-C stops it, the same command goes on.")
    resume = (out / "checkpoint.pt").exists()
    scores = train(recipe, out, resume=resume, seed=seed, device=device, console=console)

    model = load_model(out / "model.safetensors")
    _, test_set = recipe.data.build(model.config)
    training_figure(read_history(out / "history.json"), out / "training.png", model.note)
    _draw_attention(model, test_set, out / "attention.png")

    scores.show(console)
    say(f"Tested on {len(test_set)} faces of {len(test_set.subjects)} subjects not seen in training.")
    say(f"{time.perf_counter() - start:.0f} seconds. In {out}:")
    for name, what in FILES.items():
        say(f"  {name:18} {what}")
    say(f"Try next: jaa predict PHOTO --weights {out / 'model.safetensors'} --out faces")
    return scores


def _draw_attention(model: JAANet, test_set: FaceDataset, path: Path) -> None:
    """The maps of a few AUs on one face of each of the first test subjects."""
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
