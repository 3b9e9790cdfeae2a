"""Which network for the weights that come with jaa_ext: what docs/weights.md chooses by.

    python scripts/learning_curves.py OUT

Networks of several sizes learn from the same rendered faces, each for about as much processor time: the
smaller the network, the more often it sees them. About an hour and a half on one core; given again it goes
on. Prints a table and writes it to OUT, with a figure of the curves.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from rich.console import Console

from jaa_ext.cli.output import show_table
from jaa_ext.cli.progress import shown_progress
from jaa_ext.cli.training_progress import training_progress
from jaa_ext.data import aligned_size, prepare
from jaa_ext.data.rendered.release import SUBJECTS_PER_TEST_SUBJECT, rendered_release
from jaa_ext.evaluation.results import read_history, read_scores
from jaa_ext.experiments.tables import ResultTable, percent, percent_of_one
from jaa_ext.models import JAANet
from jaa_ext.plots.style import PALE, save_figure
from jaa_ext.plots.training import LINES
from jaa_ext.recipes import Recipe, load_recipe
from jaa_ext.recipes.datasets import Prepared
from jaa_ext.recipes.schema import Stage
from jaa_ext.training import train
from jaa_ext.training.run_folder import has_begun

Curve = tuple[float, list[dict[str, Any]]]
"""Minutes of training, and the entries of history.json."""


class Network(NamedTuple):
    """What differs from the recipe `rendered`, and for how many epochs it trains."""

    changes: dict[str, object]
    epochs: int


NETWORKS = {
    "l = 96, c = 4": Network({}, 3),
    "l = 64, c = 4": Network({"image_size": 64}, 7),
    "l = 128, c = 4": Network({"image_size": 128}, 2),
    "l = 96, c = 2": Network({"width": 2}, 8),
}
SUBJECTS, SAMPLES_PER_SUBJECT, SEED = 220, 40, 5


def recipe(network: Network, out: Path, console: Console) -> Recipe:
    made = load_recipe("rendered")
    # The mirror image costs every epoch's test twice the time, and ranks no network.
    model = made.model.model_copy(update={"mirror": False, **network.changes})
    faces = prepared_faces(out, model.config().image_size, console)
    stage = Stage(name="joint", epochs=network.epochs, lr=0.04, schedule="cosine", warmup=200)
    update = {
        "data": Prepared(name="prepared", folder=str(faces)),
        "model": model,
        "stages": (stage,),
    }
    return made.model_copy(update=update)


def prepared_faces(out: Path, side: int, console: Console) -> Path:
    """Of the same people whatever the side of the crops; the tenth of them is for the test."""
    folder = out / f"faces-{side}"
    release = rendered_release(
        subjects=SUBJECTS, samples_per_subject=SAMPLES_PER_SUBJECT, seed=SEED, size=aligned_size(side)
    )
    with shown_progress(console) as listener:
        prepare(release, folder, align=False, workers=0, listener=listener)
    return folder


@contextmanager
def timed(path: Path) -> Iterator[None]:
    """Add the minutes of processor time that it takes to those in a file."""
    before = minutes_in(path)
    start = time.process_time()
    try:
        yield
    finally:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{before + (time.process_time() - start) / 60:.3f}\n")


def minutes_in(path: Path) -> float:
    return float(path.read_text()) if path.exists() else 0.0


def figure(curves: dict[str, Curve], path: Path) -> None:
    """Scores on the test faces over the minutes of training."""
    drawn = Figure(figsize=(13, 4.8), dpi=120)
    panels = {
        "AUC, mean over AUs": "auc_mean",
        "intensity, ICC(3,1), mean over AUs": "icc_mean",
        "landmarks, error in % of the eye distance": "mean_error",
    }
    for axes, (title, score) in zip(drawn.subplots(1, 3), panels.items(), strict=True):
        for (name, (minutes, epochs)), (colour, style, marker) in zip(curves.items(), LINES, strict=False):
            times = [minutes * entry["epoch"] / len(epochs) for entry in epochs]
            values = [entry["scores"][score] for entry in epochs]
            axes.plot(times, values, style, color=colour, marker=marker, markersize=4, label=name)
        axes.set(title=title, xlabel="minutes of training on one core", xlim=(0, None))
        axes.grid(color=PALE)
        axes.spines[["top", "right"]].set_visible(False)
    drawn.legend(*axes.get_legend_handles_labels(), loc="lower center", ncols=3, frameon=False)
    drawn.tight_layout(rect=(0, 0.12, 1, 1))
    save_figure(drawn, path, "")


def main(out: Path) -> None:
    console = Console()
    curves: dict[str, Curve] = {}
    rows = []
    trained = (SUBJECTS - SUBJECTS // SUBJECTS_PER_TEST_SUBJECT) * SAMPLES_PER_SUBJECT
    for number, (name, network) in enumerate(NETWORKS.items()):
        folder = out / f"network-{number}"
        made = recipe(network, out, console)
        console.print(name, highlight=False)
        spent = out / f"network-{number}-minutes.txt"
        if not (folder / "metrics.json").exists():
            with timed(spent), training_progress(console) as listener:
                train(made, folder, resume=has_begun(folder), device="cpu", listener=listener)
        scores, minutes = read_scores(folder / "metrics.json"), minutes_in(spent)
        curves[name] = minutes, read_history(folder / "history.json")
        weights = sum(p.numel() for p in JAANet(made.model.config(), device="meta").parameters())
        rows.append(
            (
                name,
                percent(weights / 1e6),
                f"{network.epochs * trained / 1000:.0f}",
                percent(minutes),
                percent_of_one(scores.f1_mean),
                percent_of_one(scores.auc_mean),
                percent_of_one(scores.icc_mean),
                percent(scores.mean_error),
            )
        )
    header = ("", "weights, millions", "faces seen, thousands", "minutes", "F1", "AUC", "ICC", "landmarks, %")
    table = ResultTable("Networks after as long, in percent", header, tuple(rows))
    show_table(table, console)
    table.write(out, "learning-curves")
    figure(curves, out / "learning-curves.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
