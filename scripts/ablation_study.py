"""Adaptive attention taken apart on rendered faces: what docs/ablation.md says of them.

    jaa prepare rendered --out FACES --subjects 220 --samples-per-subject 40 --size 109 --seed 5
    python scripts/ablation_study.py FACES OUT [MODEL]

JAA-Net, and the three systems of ECCV 2018 that lack a part of its attention, each for three seeds. Region
learning and alignment are those of MODEL, by default the network that comes with jaa_ext, and stay as they
are, as in the last stage of the paper's schedule: so that maps are drawn from good landmarks from the first
iteration on, and all iterations go into the attention and what follows. FACES are none that it was trained
on. About an hour on one core; given again it goes on. Prints a table and writes it to OUT.
"""

import sys
from pathlib import Path

from rich.console import Console

from jaa_ext.cli.output import show_table
from jaa_ext.cli.training_progress import training_progress
from jaa_ext.evaluation import Scores
from jaa_ext.evaluation.metrics import mean
from jaa_ext.experiments.tables import ResultTable, percent_of_one
from jaa_ext.models import JAANet, JAANetConfig, load_model, save_model, transfer_weights
from jaa_ext.recipes import Recipe, load_recipe
from jaa_ext.recipes.datasets import Prepared
from jaa_ext.recipes.schema import Stage
from jaa_ext.training import train
from jaa_ext.training.run_folder import has_begun

SEEDS = (0, 1, 2)
SYSTEMS = {"paper": "JAA-Net", "no-ar": "w/o AR", "no-be": "w/o BE", "no-ga": "w/o GA"}
AUS = (1, 4, 6, 12, 17)
"""Of brows, eyes, mouth and chin."""
STAGE = Stage(
    name="attention",
    epochs=2,
    lr=0.03,
    schedule="cosine",
    warmup=100,
    train=("global_features", "attention", "au_head"),
)


def recipe(name: str, seed: int, faces: Path, start: Path, config: JAANetConfig) -> Recipe:
    made = load_recipe(name)
    size = {"aus": AUS, "image_size": config.image_size, "width": config.width}
    update = {
        "seed": seed,
        "data": Prepared(name="prepared", folder=str(faces)),
        "batch_size": 16,
        "init": str(start),
        "model": made.model.model_copy(update=size),
        "stages": (STAGE,),
    }
    return made.model_copy(update=update)


def without_attention(model: JAANet) -> JAANet:
    """Its region learning, alignment and features of the whole face: each system's attention starts fresh."""
    config = JAANetConfig.paper(
        AUS,
        image_size=model.config.image_size,
        width=model.config.width,
        attention=False,
        refinement=False,
        padding_removal=False,
        gradient_enhancement=1.0,
    )
    start = JAANet(config)
    transfer_weights(start, model)
    return start


def trained(made: Recipe, folder: Path, console: Console) -> Scores:
    console.print(folder, highlight=False)
    with training_progress(console) as listener:
        return train(made, folder, resume=has_begun(folder), device="cpu", listener=listener)


def main(faces: Path, out: Path, weights: Path | None = None) -> None:
    console = Console()
    start = without_attention(load_model(weights))
    save_model(start, out / "start.safetensors")
    scores: dict[str, list[Scores]] = {name: [] for name in SYSTEMS}
    for seed in SEEDS:
        for name, of_seeds in scores.items():
            made = recipe(name, seed, faces, out / "start.safetensors", start.config)
            of_seeds.append(trained(made, out / f"seed-{seed}" / name, console))
    rows = []
    for name, of_seeds in scores.items():
        f1 = [score.f1_mean for score in of_seeds]
        auc = mean([score.auc_mean for score in of_seeds])
        rows.append((SYSTEMS[name], *map(percent_of_one, (*f1, mean(f1), auc))))
    header = ("", *(f"F1, seed {seed}" for seed in SEEDS), "F1, mean", "AUC, mean")
    table = ResultTable("Rendered faces, in percent", header, tuple(rows))
    show_table(table, console)
    table.write(out, "ablation")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
