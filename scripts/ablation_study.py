"""Adaptive attention taken apart on rendered faces: what docs/ablation.md says of them.

    jaa prepare rendered --out FACES --subjects 220 --samples-per-subject 40 --size 73 --seed 5
    python scripts/ablation_study.py FACES OUT

For each of three seeds it trains a narrow HMR-Net+DWA, which has landmarks and no attention, and from it
JAA-Net and the three systems of ECCV 2018 that lack a part of its attention, each for as long: so that maps
are drawn from good landmarks from the first iteration on, and the iterations go into the attention. About
half an hour on two cores; given again it goes on. Prints a table and writes it to OUT.
"""

import sys
from pathlib import Path

from rich.console import Console

from jaa_ext.engine import Recipe, Scores, load_recipe, train
from jaa_ext.engine.datasets import Prepared
from jaa_ext.engine.recipe import Step
from jaa_ext.engine.tables import ResultTable, mean, percent, percent_of_one

SEEDS = (0, 1, 2)
START = "hmr-net-dwa"
SYSTEMS = {
    "paper": "JAA-Net",
    "no-ar": "w/o AR",
    "no-be": "w/o BE",
    "no-ga": "w/o GA",
}


def recipe(name: str, seed: int, faces: Path, init: Path | None) -> Recipe:
    made = load_recipe(name)
    step = Step(name="joint", epochs=2 if init is None else 3, lr=0.03, schedule="cosine", warmup=100)
    update = {
        "seed": seed,
        "data": Prepared(name="prepared", folder=str(faces)),
        "batch_size": 16,
        "init": None if init is None else str(init),
        "model": made.model.model_copy(update={"image_size": 64, "width": 2}),
        "steps": (step,),
        "workers": 1,
    }
    return made.model_copy(update=update)


def trained(made: Recipe, folder: Path, console: Console) -> Scores:
    console.print(folder, highlight=False)
    resume = (folder / "checkpoint.pt").exists()
    return train(made, folder, resume=resume, device="cpu", console=console)


def main(faces: Path, out: Path) -> None:
    console = Console()
    scores: dict[str, list[Scores]] = {name: [] for name in SYSTEMS}
    for seed in SEEDS:
        start = out / f"seed-{seed}" / "start"
        trained(recipe(START, seed, faces, None), start, console)
        for name, of_seeds in scores.items():
            made = recipe(name, seed, faces, start / "model.safetensors")
            of_seeds.append(trained(made, out / f"seed-{seed}" / name, console))
    rows = []
    for name, of_seeds in scores.items():
        f1 = [score.f1_mean for score in of_seeds]
        error = mean([score.mean_error for score in of_seeds])
        rows.append((SYSTEMS[name], *map(percent_of_one, (*f1, mean(f1))), percent(error, 2)))
    header = ("", *(f"F1, seed {seed}" for seed in SEEDS), "F1, mean", "landmarks, mean error")
    made_table = ResultTable("Rendered faces, in percent", header, tuple(rows))
    made_table.show(console)
    made_table.write(out, "ablation")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
