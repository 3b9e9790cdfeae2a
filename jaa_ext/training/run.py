"""A training run by a recipe, in a folder of its own."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from jaa_ext.data import FaceDataset
from jaa_ext.distributed import Processes
from jaa_ext.evaluation.scores import Scores
from jaa_ext.memory import keep_freed_memory
from jaa_ext.recipes.datasets import LARGEST_SEED
from jaa_ext.recipes.schema import Recipe
from jaa_ext.training.listener import Listener
from jaa_ext.training.precision import recipe_on
from jaa_ext.training.run_folder import hold_folder, open_run, require_run, write_results
from jaa_ext.training.runtime import deterministic, make_fabric
from jaa_ext.training.trainer import Trainer


def train(
    recipe: Recipe,
    out: Path,
    *,
    resume: bool = False,
    device: str = "auto",
    seed: int | None = None,
    datasets: tuple[FaceDataset, FaceDataset] | None = None,
    listener: Listener | None = None,
) -> Scores:
    """Train a model and test it after every epoch.

    Writes into `out`: recipe.yaml, with the precision that is used (see `recipe_on`); checkpoint.pt;
    losses.csv, the terms of each iteration; history.json, a list with each epoch's mean losses, last learning
    rate and scores; predictions.csv, of the test set after the last epoch so far (see `evaluate`);
    tensorboard/; and in the end model.safetensors, metrics.json and metrics.csv, in this order. A finished
    run that is resumed writes these three again. Prints nothing.

    In processes that torchrun has started, each trains on its share of every batch (see
    `TrainerSection.sync_batch_norm`), and the main one alone writes files and calls the listener. A run may
    go on with another number of processes.

    Args:
        recipe: see `load_recipe`.
        out: folder of the run, made if need be.
        resume: go on from the checkpoint in `out`: on the same machine, in as many processes, with the bits
            of a run that was never interrupted.
        device: "auto" (the first GPU if there is one), "cpu", "cuda" or "cuda:1", which several processes
            refuse: each of them has a GPU of its own.
        seed: in place of the recipe's.
        datasets: training and test set in place of the recipe's; they share no subject.
        listener: is told of updates and epochs.

    Returns:
        The scores after the last epoch, in every process.

    Raises:
        RunError: `out` holds a run already, or, to resume, none or one by another recipe; or another process
            is writing into it.
        Diverged: training diverged; `NonFiniteLoss`, one of these, may also come from a broken sample. The
            last checkpoint, whose numbers are finite, stays.
        NonFiniteOutput: see `evaluate`.
        KeyboardInterrupt: after Ctrl-C, once the iteration has ended and a checkpoint is written; a second
            Ctrl-C interrupts at once.
        ValueError: a device that is not there or does not have the precision, a seed out of range, data or
            stages that do not fit the model, more processes than faces in a batch, or a damaged file.
        SystemExit: in a process of several, after another one has failed and told why.
    """
    out = Path(out)
    if seed is not None:
        if not 0 <= seed <= LARGEST_SEED:
            raise ValueError(f"train: seed must be in 0..{LARGEST_SEED}, got {seed}")
        recipe = recipe.model_copy(update={"seed": seed})
    keep_freed_memory()
    fabric = make_fabric(device, recipe.precision)
    processes = Processes(fabric.world_size, fabric.global_rank)
    with (
        processes.raise_first_error(),
        processes.warn_on_main_process(),
        deterministic(),
        ExitStack() as held,
    ):
        recipe = recipe_on(fabric.device, recipe)
        if len(set(processes.gather_object(recipe.precision))) > 1:
            raise ValueError(
                "the processors of some processes multiply bfloat16 natively and those of others do not: "
                'choose precision "32-true", or set JAA_SLOW_BFLOAT16=1 for all of them'
            )
        with processes.fail_together():
            if processes.is_main_process:
                if resume:
                    require_run(out)
                held.enter_context(hold_folder(out))
                open_run(recipe, out, resume=resume)
            chosen = datasets or recipe.data.build(recipe.model.config())
            trainer = Trainer(recipe, out, fabric, chosen, resume=resume, processes=processes)
        if resume:
            trainer.load()
        scores = trainer.fit(listener)
        with processes.fail_together():
            if processes.is_main_process:
                write_results(out, trainer.model, scores)
    return scores
