"""Training by a recipe: stages, epochs, checkpoints; after an interruption it goes on with the same bits."""

from __future__ import annotations

import math
import time
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from rich.console import Console

from jaa_ext import facs
from jaa_ext.data import FaceDataset
from jaa_ext.distributed import Processes
from jaa_ext.evaluation.evaluate import evaluate
from jaa_ext.evaluation.scores import Scores
from jaa_ext.memory import keep_freed_memory
from jaa_ext.models import JAANetConfig, save_model
from jaa_ext.models.serialization import check_tensors, find_not_finite
from jaa_ext.nn import au_weights
from jaa_ext.nn.sync_batch_norm import synchronize_batch_norm
from jaa_ext.progress import progress, say
from jaa_ext.recipes.datasets import LARGEST_SEED
from jaa_ext.recipes.schema import Recipe, Stage
from jaa_ext.training.checkpoint import check_momentum, check_state, load_checkpoint, save_checkpoint
from jaa_ext.training.cuda_graph import require_cuda
from jaa_ext.training.initialization import initialize_model
from jaa_ext.training.loading import training_loader
from jaa_ext.training.optimization import Optimization, Update, trained_modules, trained_parameters
from jaa_ext.training.precision import recipe_on
from jaa_ext.training.run_folder import Log, hold_folder, open_run, require_run
from jaa_ext.training.runtime import deterministic, interruptible, make_fabric
from jaa_ext.training.schedule import Batches, learning_rate


class Diverged(RuntimeError):
    """Weights or batch norm statistics are not finite: the message names iteration and tensor."""


class NonFiniteLoss(Diverged):
    """A loss became infinite or not a number: the message names the iteration, the terms and the samples."""


def train(
    recipe: Recipe,
    out: Path,
    *,
    resume: bool = False,
    device: str = "auto",
    seed: int | None = None,
    datasets: tuple[FaceDataset, FaceDataset] | None = None,
    console: Console | None = None,
) -> Scores:
    """Train a model and test it after every epoch.

    Writes into `out`: recipe.yaml, with the precision that is used (see `recipe_on`); checkpoint.pt;
    losses.csv, the terms of each iteration; history.json, a list with each epoch's mean losses, last learning
    rate and scores; predictions.csv, of the test set after the last epoch so far (see `evaluate`);
    tensorboard/; and in the end model.safetensors, metrics.json and metrics.csv, in this order. A finished
    run that is resumed writes these three again.

    In processes that torchrun has started, each trains on its share of every batch (see
    `TrainerSection.sync_batch_norm`), and the first alone writes files and shows progress. A run may go on
    with another number of processes.

    Args:
        recipe: see `load_recipe`.
        out: folder of the run, made if need be.
        resume: go on from the checkpoint in `out`: on the same machine, in as many processes, with the bits
            of a run that was never interrupted.
        device: "auto" (the first GPU if there is one), "cpu", "cuda" or "cuda:1", which several processes
            refuse: each of them has a GPU of its own.
        seed: in place of the recipe's.
        datasets: training and test set in place of the recipe's; they share no subject.
        console: where progress goes; one line an epoch if that is no terminal. In other processes than the
            first it is made quiet.

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
    console = console or Console()
    keep_freed_memory()
    fabric = make_fabric(device, recipe.precision)
    processes = Processes(fabric.world_size, fabric.global_rank)
    with (
        processes.raise_first_error(),
        processes.print_on_main_process(console),
        deterministic(),
        ExitStack() as held,
    ):
        asked_for, recipe = recipe.precision, recipe_on(fabric.device, recipe)
        changed = recipe.precision != asked_for
        if processes.any(changed) and processes.any(not changed):
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
        return trainer.fit(console)


class Trainer:
    """A run: the model, its data, and how far training has come. `train` is the way in.

    Args:
        recipe: the run's; its precision is the device's.
        out: folder of the run, which is there.
        fabric: launched.
        datasets: training and test set.
        resume: whether `load` will follow: `init` of the recipe is then left alone.
        processes: those that train together; None for one.

    Raises:
        ValueError: data or stages that do not fit the model, subjects in both sets, or a CUDA graph where
            none can be recorded.
    """

    def __init__(
        self,
        recipe: Recipe,
        out: Path,
        fabric: Fabric,
        datasets: tuple[FaceDataset, FaceDataset],
        *,
        resume: bool = False,
        processes: Processes | None = None,
    ) -> None:
        self.recipe, self.out, self.fabric = recipe, out, fabric
        self.processes = processes or Processes()
        self.train_set, self.test_set = datasets
        config, world_size = recipe.model.config(), self.processes.world_size
        _require_apart(self.train_set, self.test_set, config)
        if recipe.trainer.cuda_graph:
            require_cuda(fabric.device)
            if world_size > 1:
                raise ValueError(
                    f"trainer.cuda_graph=true needs a single process, got {world_size}, whose exchange of "
                    "gradients it does not record"
                )
        self.model, self.transfer = initialize_model(recipe, self.train_set, transfer=not resume)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model.to(fabric.device)
        for stage in recipe.stages:
            trained_modules(stage, self.model)  # one that does not fit is found before the first has run
        self.synchronized = world_size > 1 and recipe.trainer.sync_batch_norm
        if self.synchronized:
            synchronize_batch_norm(self.model)
        self.batches = Batches(
            len(self.train_set),
            recipe.batch_size,
            recipe.seed,
            processes=world_size,
            rank=self.processes.rank,
        )
        self.loader = training_loader(recipe, self.train_set, self.batches, fabric)
        weighted = recipe.loss.weighted and config.au_detection
        self.weight = au_weights(self.train_set.label_matrix(), config.aus) if weighted else None

        self.epoch = 0
        """Epochs done, over all stages."""
        self.batch = 0
        """Batches done of the epoch under way."""
        self.sums: dict[str, float] = {}
        """Its losses so far."""
        self.iteration = 0
        """Batches done in all."""
        self.history: list[dict[str, Any]] = []
        self._momentum: dict[int, Any] | None = None
        """What a checkpoint has of the stage under way."""

    def fit(self, console: Console) -> Scores:
        """Train from where the run stands to its end."""
        log = Log.opened(self.out, self.iteration) if self.processes.is_main_process else nullcontext()
        with (
            log as self.log,
            interruptible(patient=self.processes.world_size > 1) as self.interrupted,
            progress(console) as self.bar,
        ):
            if self.iteration == 0:
                if self.transfer is not None:
                    say(self.bar.console, f"{self.recipe.init}: {self.transfer}")
                with self.processes.fail_together():
                    self.save({})
            first = 0
            for stage in self.recipe.stages:
                if self.epoch < first + stage.epochs:
                    self.train_stage(stage, first)
                first += stage.epochs
        scores = Scores.from_dict(self.history[-1]["scores"])
        with self.processes.fail_together():
            if self.processes.is_main_process:
                save_model(self.model, self.out / "model.safetensors", note=self.model.note)
                scores.to_json(self.out / "metrics.json")
                scores.to_csv(self.out / "metrics.csv")
        return scores

    def train_stage(self, stage: Stage, first: int) -> None:
        """Train the epochs of a stage, of which the first is that number, or those that are left."""
        momentum, self._momentum = self._momentum, None
        if momentum is not None and (self.epoch > first or self.batch > 0):
            parameters = trained_parameters(stage, self.model)
            check_momentum(self.out / "checkpoint.pt", momentum, parameters)
        else:
            momentum = None  # of the stage before
        optimization = Optimization(
            stage,
            self.recipe,
            self.model,
            self.weight,
            self.fabric,
            self.processes,
            synchronized=self.synchronized,
            momentum=momentum,
        )
        while self.epoch < first + stage.epochs:
            speed = self.train_epoch(optimization, first)
            self.end_epoch(optimization, first, speed)

    def train_epoch(self, optimization: Optimization, first: int) -> float:
        """Train on the batches that are left of an epoch; gives images per second."""
        optimization.set_training()
        self.batches.epoch, self.batches.start = self.epoch, self.batch
        name = f"{optimization.stage.name} {self.epoch + 1}/{self.recipe.epochs}"
        task = self.bar.add_task(name, total=len(self.batches), completed=self.batch, text="")
        images, speed, start = 0, 0.0, time.perf_counter()
        batches = iter(self.loader)
        with self.processes.fail_together():
            following = next(batches, None)
        while (batch := following) is not None:
            optimization.set_learning_rate(self._learning_rate(optimization.stage, first, self.batch))
            update = self.train_batch(optimization, batch)
            with self.processes.fail_together():
                following = next(batches, None)  # while a GPU computes
                losses = self._losses(optimization, update)
                self.iteration += 1
                self.batch += 1
                self.sums = {key: self.sums.get(key, 0.0) + value for key, value in losses.items()}
                if self.log is not None:
                    self.log.iteration(self.iteration, self.epoch + 1, losses)
                images += len(update.labels)
                speed = images / (time.perf_counter() - start)
                self.bar.update(task, completed=self.batch, text=f"{_listed(losses)}  {speed:.0f} images/s")
                if self.iteration % self.recipe.checkpoint_every == 0:
                    self.save(optimization.optimizer.state_dict())
            if self.processes.any(self.interrupted.is_set()):
                with self.processes.fail_together():
                    self.save(optimization.optimizer.state_dict())
                stopped = f"Stopped after iteration {self.iteration}: --resume goes on from there."
                say(self.bar.console, stopped)
                raise KeyboardInterrupt
        self.bar.remove_task(task)
        return speed

    def train_batch(self, optimization: Optimization, batch: dict[str, Any]) -> Update:
        """One update."""
        if self.processes.world_size > 1:
            optimization.sizes = self.batches.sizes(self.batch)
        return optimization.update(batch["image"], batch["labels"], batch["landmarks"], batch["intensities"])

    def end_epoch(self, optimization: Optimization, first: int, speed: float) -> None:
        """Test the model, and write down how the epoch went."""
        if not self.synchronized:
            self.processes.broadcast_buffers(self.model)
        with self.processes.fail_together():
            # A test can take hours, and Ctrl-C does not reach into it.
            self.save(optimization.optimizer.state_dict())
        scores = evaluate(
            self.model,
            self.test_set,
            batch_size=self.recipe.batch_size,
            workers=self.recipe.workers,
            predictions=self.out / "predictions.csv",
            processes=self.processes,
        )
        losses = {name: value / self.batch for name, value in self.sums.items()}
        lr = self._learning_rate(optimization.stage, first, self.batch - 1)
        self.epoch, self.batch, self.sums = self.epoch + 1, 0, {}
        entry = {"epoch": self.epoch, "stage": optimization.stage.name, "lr": lr, "losses": losses}
        self.history.append({**entry, "scores": scores.to_dict()})
        percent = scores.summary()
        with self.processes.fail_together():
            if self.log is not None:
                self.log.epoch(self.iteration, percent, self.history)
            self.save(optimization.optimizer.state_dict())
        say(
            self.bar.console,
            f"{optimization.stage.name} {self.epoch}/{self.recipe.epochs}  lr {lr:.2g}  {_listed(losses)}  "
            f"{'  '.join(f'{name} {value:.1f} %' for name, value in percent.items())}  {speed:.0f} images/s",
        )

    def save(self, optimizer: dict[str, Any]) -> None:
        """Write the checkpoint, in the main process: its state is every process'.

        Raises:
            Diverged: it is nothing to go on from.
        """
        if self.log is None:
            return
        weights = self.model.state_dict()
        if what := find_not_finite(weights):
            epoch = self.epoch + (self.batch > 0)
            raise Diverged(
                f"training diverged: {what} after iteration {self.iteration} (epoch {epoch} of "
                f"{self.recipe.epochs}); the checkpoint before it stays, a smaller lr may help"
            )
        self.log.sync()
        random = {"cpu": torch.get_rng_state()}
        if self.fabric.device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(self.fabric.device)
        state = {
            "model": weights,
            "note": self.model.note,
            "optimizer": optimizer,
            "scaler": self.fabric.strategy.precision.state_dict(),
            "epoch": self.epoch,
            "batch": self.batch,
            "iteration": self.iteration,
            "sums": self.sums,
            "history": self.history,
            "random": random,
        }
        save_checkpoint(self.out / "checkpoint.pt", state)

    def load(self) -> None:
        """Take up the run from its checkpoint.

        Raises:
            ValueError: it is not of this run.
        """
        state: dict[str, Any] = {}
        with self.processes.fail_together():
            if self.processes.is_main_process:
                state = load_checkpoint(self.out / "checkpoint.pt")
                self._check(state)
        state = self.processes.broadcast_object(state)
        self.model.load_state_dict(state["model"])
        self.model.note = state.get("note", self.model.note)
        self.fabric.strategy.precision.load_state_dict(state["scaler"])
        self._momentum = state["optimizer"].get("state", {})
        self.epoch, self.batch, self.iteration = state["epoch"], state["batch"], state["iteration"]
        self.sums, self.history = state["sums"], state["history"]
        torch.set_rng_state(state["random"]["cpu"])
        if self.fabric.device.type == "cuda" and "cuda" in state["random"]:
            torch.cuda.set_rng_state(state["random"]["cuda"], self.fabric.device)

    def _check(self, state: dict[str, Any]) -> None:
        path = self.out / "checkpoint.pt"
        check_state(path, state)
        check_tensors(path, self.model.state_dict(), state["model"])
        epoch, batch, per_epoch = state["epoch"], state["batch"], len(self.batches)
        if (
            epoch > self.recipe.epochs
            or batch > per_epoch
            or state["iteration"] != epoch * per_epoch + batch
            or len(state["history"]) != epoch
            or any(entry.get("scores") is None for entry in state["history"])
        ):
            raise ValueError(
                f"{path}: is damaged: wanted up to {self.recipe.epochs} epochs of {per_epoch} batches, each "
                f"with its scores, got epoch {epoch}, batch {batch}, iteration {state['iteration']} and "
                f"{len(state['history'])} epochs of scores"
            )
        try:
            self.fabric.strategy.precision.load_state_dict(state["scaler"])
        except (RuntimeError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: is damaged: scaler: {error}") from None

    def _losses(self, optimization: Optimization, update: Update) -> dict[str, float]:
        """The losses of an update, once it is over.

        Raises:
            NonFiniteLoss: one is not finite; it names the samples whose own loss is not, or the whole batch.
        """
        values = dict(zip(update.names, update.losses.tolist(), strict=True))
        if not all(map(math.isfinite, values.values())):
            # Read anew, for most of them may be other processes'.
            ids = [self.train_set[i].id for _, i in self.batches.whole(self.batch)]
            broken = [name for i, name in enumerate(ids) if not optimization.is_finite(update, i)] or ids
            raise NonFiniteLoss(
                f"the loss is not finite at iteration {self.iteration + 1} (stage "
                f'"{optimization.stage.name}", epoch {self.epoch + 1}): {_listed(values)}; '
                f"samples {', '.join(broken)}"
            )
        return values

    def _learning_rate(self, stage: Stage, first: int, batch: int) -> float:
        """That of a batch of the epoch under way."""
        per_epoch = len(self.batches)
        return learning_rate(stage, (self.epoch - first) * per_epoch + batch, per_epoch)


def _require_apart(train_set: FaceDataset, test_set: FaceDataset, config: JAANetConfig) -> None:
    for data in (train_set, test_set):
        if tuple(data.aus) != facs.au_numbers(config.aus):
            raise ValueError(f"the model has AUs {list(config.aus)}, but the data has {list(data.aus)}")
    shared = sorted(set(train_set.subjects) & set(test_set.subjects))
    if shared:
        raise ValueError(
            "subjects of the test set must be none of the training set's, "
            f"got {', '.join(shared[:5])} in both"
        )


def _listed(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())
