"""The graph over AUs on faces whose AUs co-occur strongly: what docs/graph.md chooses by.

    python scripts/graph_study.py drawn OUT
    python scripts/graph_study.py rendered OUT

"drawn": for each of three seeds it trains the journal network at l = 112 (narrow, on few faces), then the
second stage of ABAW 2021 with and without the graph; and, on features kept from the frozen first stage, many
variants of the graph. About half an hour on two cores; given again it goes on. "rendered": the first stage is
the network that comes with jaa_ext, which has never seen these people, and their AUs co-occur as in BP4D; the
variants alone, in some twenty minutes of one core. Prints the tables and writes them to OUT.
"""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor, nn

from jaa_ext.cli.output import show_table
from jaa_ext.cli.training_progress import training_progress
from jaa_ext.data import Crops, normalize
from jaa_ext.evaluation import Metrics, Scores
from jaa_ext.evaluation.metrics import mean
from jaa_ext.experiments.tables import ResultTable, percent_of_one
from jaa_ext.models import JAANet, JAAOutput, load_model
from jaa_ext.nn import AUGraph, au_adjacency, au_weights
from jaa_ext.recipes import Recipe, load_recipe
from jaa_ext.recipes.datasets import Rendered, Synthetic
from jaa_ext.training import JointLoss, train
from jaa_ext.training.run_folder import has_begun
from jaa_ext.training.schedule import Batches, learning_rate

SEEDS = (0, 1, 2)
FIRST, NO_GRAPH, GRAPH = "abaw-1", "abaw-2-no-graph", "abaw-2"
Batch = tuple[Tensor, Tensor, Tensor]
"""Features of alignment and the whole face (n, ...), local features (n, A, ...), labels (n, A)."""


def recipe(name: str, seed: int, init: Path | None) -> Recipe:
    made = load_recipe(name)
    data = Synthetic(
        train_subjects=30, test_subjects=20, samples_per_subject=40, seed=seed, co_occurrence=1.6
    )
    # Few iterations want a higher rate than the hundred thousands of the paper.
    warmup = 20 if init is None else 0
    update = {
        "seed": seed,
        "data": data,
        "batch_size": 16,
        "init": None if init is None else str(init),
        "model": made.model.model_copy(update={"width": 4}),
        "stages": tuple(stage.model_copy(update={"lr": 0.04, "warmup": warmup}) for stage in made.stages),
    }
    return made.model_copy(update=update)


def on_rendered(seed: int) -> Recipe:
    """The second stage on rendered faces of other people than the shipped network has seen."""
    data = Rendered(
        name="rendered",
        train_subjects=60,
        test_subjects=30,
        samples_per_subject=40,
        seed=1000 + seed,
        mix="bp4d",
    )
    return recipe(GRAPH, seed, None).model_copy(update={"data": data})


def trained(name: str, seed: int, out: Path, console: Console) -> Scores:
    folder = out / f"seed-{seed}" / name
    init = None if name == FIRST else model_of_first(out, seed)
    console.print(folder, highlight=False)
    made = recipe(name, seed, init)
    with training_progress(console) as listener:
        return train(made, folder, resume=has_begun(folder), device="cpu", listener=listener)


def model_of_first(out: Path, seed: int) -> Path:
    return out / f"seed-{seed}" / FIRST / "model.safetensors"


class Frozen:
    """A seed's first stage: features of its training batches, epoch by epoch, and of its test faces."""

    def __init__(self, model: JAANet, made: Recipe) -> None:
        self.model, self.recipe, self.aus = model, made, model.config.aus
        training, test = made.data.build(model.config)
        crops = Crops(training, model.config.image_size, train=True, seed=made.seed)
        batches = Batches(len(training), made.batch_size, made.seed)
        self.epochs: list[list[Batch]] = []
        for epoch in range(made.epochs):
            batches.epoch = epoch
            self.epochs.append([self.features([crops[index] for index in batch]) for batch in batches])
        central = Crops(test, model.config.image_size, train=False)
        self.test = [
            self.features([central[i] for i in range(k, min(k + 40, len(test)))])
            for k in range(0, len(test), 40)
        ]
        self.labels = training.label_matrix()

    @torch.no_grad()
    def features(self, samples: list[dict]) -> Batch:
        images = normalize(torch.stack([sample["image"] for sample in samples]))
        pool2 = self.model.region_learning(images.contiguous(memory_format=torch.channels_last))
        aligned, landmarks = self.model.alignment(pool2)
        whole = self.model.global_features(pool2)
        local = self.model.attention(pool2, landmarks).local
        labels = torch.stack([sample["labels"] for sample in samples])
        return torch.cat((aligned.flatten(1), whole.flatten(1)), 1), local.flatten(2), labels


class Mixed(AUGraph):
    """A graph with a G of its own, and a nonlinearity after its last layer."""

    def __init__(self, size: int, widths: tuple[int, ...], mix: Tensor, last: Callable) -> None:
        super().__init__(size, widths, len(mix))
        self.mix, self.last = mix, last

    def normalized_adjacency(self) -> Tensor:
        return self.mix

    def forward(self, features: Tensor) -> Tensor:
        return self.last(super().forward(features))


def shares(adjacency: Tensor, share: float = 0.2) -> Tensor:
    """Neighbours by their share, the rest an AU's own."""
    return AUGraph(1, (1,), adjacency, neighbor_share=share).normalized_adjacency()


def row_mean(adjacency: Tensor) -> Tensor:
    """The plain mean over an AU and its neighbours."""
    return adjacency / adjacency.sum(1, keepdim=True)


def symmetric(adjacency: Tensor) -> Tensor:
    """Kipf and Welling's normalisation, of the adjacency without its direction."""
    both = torch.maximum(adjacency, adjacency.T)
    scale = both.sum(1).rsqrt()
    return scale[:, None] * both * scale


LINEAR = nn.Identity()


def graph(
    frozen: Frozen,
    mix: Callable[[Tensor], Tensor] = shares,
    *,
    threshold: float = 0.4,
    widths: tuple[int, ...] = (256,),
    last: Callable[[Tensor], Tensor] = LINEAR,
) -> nn.Module:
    size = frozen.test[0][1].shape[2]
    return nn.Sequential(Mixed(size, widths, mix(au_adjacency(frozen.labels, threshold)), last), nn.Flatten())


class Average(nn.Module):
    def forward(self, local: Tensor) -> Tensor:
        return local.mean(1)


VARIANTS: dict[str, tuple[Callable[[Frozen], nn.Module], float, float]] = {
    # name: (what is done to the local features, factor of the rate, lambda2)
    "no graph, fresh AU head": (lambda frozen: Average(), 1, 1),
    "no graph, local features side by side": (lambda frozen: nn.Flatten(), 1, 1),
    "**graph as chosen**": (graph, 1, 1),
    "without edges": (partial(graph, mix=partial(shares, share=0.0)), 1, 1),
    "neighbours' share 0.1": (partial(graph, mix=partial(shares, share=0.1)), 1, 1),
    "neighbours' share 0.35": (partial(graph, mix=partial(shares, share=0.35)), 1, 1),
    "neighbours' share 0.5": (partial(graph, mix=partial(shares, share=0.5)), 1, 1),
    "mean over itself and its neighbours": (partial(graph, mix=row_mean), 1, 1),
    "the same, threshold 0.8": (partial(graph, mix=row_mean, threshold=0.8), 1, 1),
    "symmetric normalisation": (partial(graph, mix=symmetric), 1, 1),
    "threshold 0.3": (partial(graph, threshold=0.3), 1, 1),
    "threshold 0.6": (partial(graph, threshold=0.6), 1, 1),
    "one layer of 64": (partial(graph, widths=(64,)), 1, 1),
    "one layer of 512": (partial(graph, widths=(512,)), 1, 1),
    "two layers of 128": (partial(graph, widths=(128, 128)), 1, 1),
    "two layers of 256": (partial(graph, widths=(256, 256)), 1, 1),
    "ReLU after the layer": (partial(graph, last=F.relu), 1, 1),
    "leaky ReLU after the layer": (partial(graph, last=partial(F.leaky_relu, negative_slope=0.2)), 1, 1),
    "half the rate": (graph, 0.5, 1),
    "twice the rate": (graph, 2, 1),
    "lambda2 = 0.5": (graph, 1, 0.5),
    "lambda2 = 2": (graph, 1, 2),
}


def second_step(
    frozen: Frozen, variant: Callable[[Frozen], nn.Module], rate: float, dice: float
) -> Scores | None:
    """Train a fresh join of local features and AU head as the trainer would, and test them; None if it
    diverges."""
    torch.manual_seed(frozen.recipe.seed)
    join = variant(frozen)
    whole, local, _ = frozen.test[0]
    size = whole.shape[1] + join(local).shape[1]
    hidden, aus = frozen.model.config.resolved_hidden_size, len(frozen.aus)
    head = nn.Sequential(nn.Linear(size, hidden), nn.Linear(hidden, 2 * aus), nn.Unflatten(1, (2, aus)))
    loss = frozen.recipe.loss.model_copy(update={"dice": float(dice)})
    criterion = JointLoss(loss, au_weights(frozen.labels, frozen.aus))
    parameters = [*join.parameters(), *head.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=1, **frozen.recipe.optimizer.model_dump())
    (stage,) = frozen.recipe.stages
    for epoch, batches in enumerate(frozen.epochs):
        for place, (whole, local, labels) in enumerate(batches):
            lr = rate * learning_rate(stage, epoch * len(batches) + place, len(batches))
            optimizer.param_groups[0]["lr"] = lr
            logits = head(torch.cat((whole, join(local)), 1))
            total = criterion(JAAOutput(logits=logits), labels, labels)["total"]
            if not total.isfinite():
                return None
            total.backward()
            optimizer.step()
            optimizer.zero_grad()
    metrics = Metrics(frozen.aus)
    with torch.no_grad():
        for whole, local, labels in frozen.test:
            output = JAAOutput(logits=head(torch.cat((whole, join(local)), 1)))
            metrics.update(output.probabilities, labels, None, labels)
    return metrics.result()


def table(title: str, scores: dict[str, list[Scores | None]]) -> ResultTable:
    rows = []
    for name, of_seeds in scores.items():
        f1 = [None if score is None else score.f1_mean for score in of_seeds]
        abaw = [None if score is None else score.abaw_score for score in of_seeds]
        means = [None if None in values else mean(values) for values in (f1, abaw)]
        rows.append((name, *(percent_of_one(value) or "diverged" for value in (*f1, *means))))
    header = ("", *(f"F1, seed {seed}" for seed in SEEDS), "F1, mean", "ABAW score, mean")
    return ResultTable(title, header, tuple(rows))


def study_variants(frozen: Frozen, scores: dict[str, list[Scores | None]], console: Console) -> None:
    for name, variant in VARIANTS.items():
        scores[name].append(second_step(frozen, *variant))
        f1 = None if scores[name][-1] is None else scores[name][-1].f1_mean
        console.print(f"{name}: F1 {percent_of_one(f1) or '-'} %", highlight=False)


def main(faces: str, out: Path) -> None:
    if faces not in ("drawn", "rendered"):
        sys.exit(f'graph_study.py: the faces must be "drawn" or "rendered", got "{faces}"')
    out.mkdir(parents=True, exist_ok=True)
    console = Console()
    runs: dict[str, list[Scores | None]] = {name: [] for name in (FIRST, NO_GRAPH, GRAPH)}
    variants: dict[str, list[Scores | None]] = {name: [] for name in VARIANTS}
    for seed in SEEDS:
        if faces == "drawn":
            for name, scores in runs.items():
                scores.append(trained(name, seed, out, console))
            first = model_of_first(out, seed)
            frozen = Frozen(load_model(first), recipe(GRAPH, seed, first))
        else:
            frozen = Frozen(load_model(), on_rendered(seed))
        study_variants(frozen, variants, console)
    tables = {"variants": table("Variants of the second stage, in percent", variants)}
    if faces == "drawn":
        tables = {"runs": table("Recipes, in percent", runs), **tables}
    for name, made in tables.items():
        show_table(made, console)
        made.write(out, name)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
