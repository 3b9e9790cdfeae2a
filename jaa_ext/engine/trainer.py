"""Training by a recipe: steps, epochs, checkpoints, and going on after an interruption with the same bits."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.utils.data import DataLoader

from jaa_ext import facs
from jaa_ext.data import Crops, FaceDataset, normalize
from jaa_ext.engine.checkpoint import load_checkpoint, save_checkpoint
from jaa_ext.engine.criterion import JointLoss
from jaa_ext.engine.cuda_graph import GraphedStep, require_cuda
from jaa_ext.engine.evaluate import evaluate
from jaa_ext.engine.metrics import Scores
from jaa_ext.engine.precision import CastAtOnce
from jaa_ext.engine.recipe import Recipe, Step
from jaa_ext.engine.run import Log, open_run
from jaa_ext.engine.runtime import (
    deterministic,
    ignore_interrupts,
    interruptible,
    keep_freed_memory,
    make_fabric,
    reading_workers,
)
from jaa_ext.engine.schedule import Batches, learning_rate
from jaa_ext.models import (
    JAAGraphNet,
    JAAOutput,
    Transfer,
    build_model,
    load_model,
    save_model,
    transfer_weights,
)
from jaa_ext.nn import au_weights

MEAN_SHAPE_FACES = 256
"""Faces of the training set whose mean is the landmarks' starting point."""


class NonFiniteLoss(RuntimeError):
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

    Writes into `out`: recipe.yaml; checkpoint.pt; losses.csv, the terms of each iteration; history.json, a
    list with each epoch's mean losses, last learning rate and scores; predictions.csv, of the test set after
    the last epoch so far (see `evaluate`); tensorboard/; and in the end model.safetensors, metrics.json and
    metrics.csv, in this order. A finished run that is resumed writes these three again.

    Args:
        recipe: see `load_recipe`.
        out: folder of the run, made if need be.
        resume: go on from the checkpoint in `out`: on the same machine, with the bits of a run that was never
            interrupted.
        device: "auto" (the first GPU if there is one), "cpu", "cuda" or "cuda:1".
        seed: in place of the recipe's.
        datasets: training and test set in place of the recipe's; they share no subject.
        console: where progress goes; one line an epoch if that is no terminal.

    Returns:
        The scores after the last epoch.

    Raises:
        RunError: `out` holds a run already, or, to resume, none or one by another recipe.
        NonFiniteLoss: training diverged, or a sample is broken. The last checkpoint stays.
        KeyboardInterrupt: after Ctrl-C, once the iteration has ended and a checkpoint is written; a second
            Ctrl-C interrupts at once.
        ValueError: a device that is not there, or data or steps that do not fit the model.
    """
    out = Path(out)
    if seed is not None:
        recipe = recipe.model_copy(update={"seed": seed})
    open_run(recipe, out, resume=resume)
    keep_freed_memory()
    with deterministic():
        chosen = datasets or recipe.data.build(recipe.model.config())
        trainer = Trainer(recipe, out, device, chosen, resume=resume)
        if resume:
            trainer.load()
        return trainer.fit(console or Console())


@dataclass
class _Stage:
    """A step of the recipe while it runs."""

    step: Step
    first: int
    """Epochs of the steps before."""
    trained: set[str]
    """The model's modules that are not fixed."""
    module: Any
    """The model, set up by Fabric."""
    optimizer: Any
    criterion: JointLoss
    run: Callable[[Tensor, Tensor, Tensor], _Iteration] = field(init=False)
    """An iteration by a batch's images, labels and landmarks."""


class _Iteration(NamedTuple):
    """What an iteration leaves on the device."""

    names: tuple[str, ...]
    losses: Tensor
    """(terms,) by the names."""
    output: JAAOutput


class Trainer:
    """A run: the model, its data, and how far training has come. `train` is the way in."""

    def __init__(
        self,
        recipe: Recipe,
        out: Path,
        device: str,
        datasets: tuple[FaceDataset, FaceDataset],
        *,
        resume: bool = False,
    ) -> None:
        config = recipe.model.config()
        self.recipe, self.out = recipe, out
        self.train_set, self.test_set = datasets
        for data in datasets:
            if tuple(data.aus) != facs.au_numbers(config.aus):
                raise ValueError(f"the model has AUs {list(config.aus)}, but the data has {list(data.aus)}")
        shared = sorted(set(self.train_set.subjects) & set(self.test_set.subjects))
        if shared:
            raise ValueError(
                "subjects of the test set must be none of the training set's, "
                f"got {', '.join(shared[:5])} in both"
            )

        self.fabric = make_fabric(device, recipe.precision)
        if recipe.trainer.cuda_graph:
            require_cuda(self.fabric.device)
        torch.manual_seed(recipe.seed)
        self.model = build_model(config)
        self.model.note = recipe.data.note
        if config.alignment:
            self.model.set_mean_shape(_mean_shape(self.train_set, config.image_size))
        self.transfer: Transfer | None = None
        if recipe.init is not None and not resume:
            source = load_model(recipe.init)
            self.transfer = transfer_weights(self.model, source)
            # Weights that come from others' stay what the others are: for demonstration, or non-commercial.
            notes = dict.fromkeys(note for note in (source.note, self.model.note) if note)
            self.model.note = " ".join(notes)
        if isinstance(self.model, JAAGraphNet):  # after the transfer, whose graph is that of other labels
            self.model.set_labels(self.train_set.label_matrix())
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model.to(self.fabric.device)
        for step in recipe.steps:
            self._trained(step)  # a step that does not fit is found before the first one has run

        self.batches = Batches(len(self.train_set), recipe.batch_size, recipe.seed)
        workers = reading_workers(recipe.workers, self.fabric.device)
        loader: DataLoader[Any] = DataLoader(
            Crops(self.train_set, config.image_size, train=True, seed=recipe.seed),
            batch_sampler=self.batches,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=self.fabric.device.type == "cuda",
            worker_init_fn=ignore_interrupts,
            generator=torch.Generator(),
        )
        self.loader: Any = self.fabric.setup_dataloaders(loader, use_distributed_sampler=False)
        self.weight = au_weights(self.train_set.label_matrix(), config.aus) if recipe.loss.weighted else None

        self.epoch = 0
        """Epochs done, over all steps."""
        self.batch = 0
        """Batches done of the epoch under way."""
        self.sums: dict[str, float] = {}
        """Its losses so far."""
        self.iteration = 0
        """Batches done in all."""
        self.history: list[dict[str, Any]] = []
        self._optimizer_state: dict[str, Any] | None = None

    def fit(self, console: Console) -> Scores:
        """Train from where the run stands to its end."""
        bar = _progress(console)
        with (
            Log.opened(self.out, self.iteration) as self.log,
            interruptible() as self.interrupted,
            bar as self.bar,
        ):
            if self.iteration == 0:
                if self.transfer is not None:
                    bar.console.print(f"{self.recipe.init}: {self.transfer}", soft_wrap=True, markup=False)
                self._save({})
            first = 0
            for step in self.recipe.steps:
                if self.epoch < first + step.epochs:
                    self._train_step(step, first)
                first += step.epochs
        scores = Scores.from_dict(self.history[-1]["scores"])
        save_model(self.model, self.out / "model.safetensors", note=self.model.note)
        scores.to_json(self.out / "metrics.json")
        scores.to_csv(self.out / "metrics.csv")
        return scores

    def load(self) -> None:
        """Take up the run from its checkpoint."""
        state = load_checkpoint(self.out / "checkpoint.pt")
        self.model.load_state_dict(state["model"])
        self.model.note = state.get("note", self.model.note)
        self.fabric.strategy.precision.load_state_dict(state["scaler"])
        self._optimizer_state = state["optimizer"]
        self.epoch, self.batch, self.iteration = state["epoch"], state["batch"], state["iteration"]
        self.sums, self.history = state["sums"], state["history"]
        torch.set_rng_state(state["random"]["cpu"])
        if self.fabric.device.type == "cuda" and "cuda" in state["random"]:
            torch.cuda.set_rng_state(state["random"]["cuda"], self.fabric.device)

    def _train_step(self, step: Step, first: int) -> None:
        """The epochs of a step, or those that are left."""
        trained = self._trained(step)
        for name, child in self.model.named_children():
            child.requires_grad_(name in trained)
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        # The rate lies on the device, where a CUDA graph reads it anew in every iteration.
        lr = torch.tensor(step.lr, device=self.fabric.device)
        optimizer = torch.optim.SGD(parameters, lr=lr, fused=True, **self.recipe.optimizer.model_dump())
        if self._optimizer_state is not None and (self.epoch > first or self.batch > 0):
            # Its momentum alone: the settings are the recipe's, and older checkpoints have others.
            settings = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": self._optimizer_state["state"], "param_groups": settings})
        self._optimizer_state = None
        loss = self.recipe.loss
        if step.align is not None:
            loss = loss.model_copy(update={"align": step.align})
        criterion = JointLoss(loss, self.weight).to(self.fabric.device)
        module, stepper = self.fabric.setup(CastAtOnce(self.model), optimizer)
        stage = _Stage(step, first, trained, module, stepper, criterion)
        stage.run = partial(self._iterate, stage)
        if self.recipe.trainer.cuda_graph:
            stage.run = GraphedStep(stage.run, self.recipe.batch_size, self.fabric.device)
        while self.epoch < first + step.epochs:
            speed = self._train_one_epoch(stage)
            self._end_epoch(stage, speed)

    def _train_one_epoch(self, stage: _Stage) -> float:
        """The batches that are left of an epoch; gives images per second."""
        self.model.train()
        for name, child in self.model.named_children():
            child.train(name in stage.trained)  # a fixed module keeps its batch norm statistics
        per_epoch = len(self.batches)
        self.batches.epoch, self.batches.start = self.epoch, self.batch
        name = f"{stage.step.name} {self.epoch + 1}/{self.recipe.epochs}"
        task = self.bar.add_task(name, total=per_epoch, completed=self.batch, text="")
        images, speed, start = 0, 0.0, time.perf_counter()
        batches = iter(self.loader)
        following = next(batches, None)
        while (batch := following) is not None:
            for group in stage.optimizer.param_groups:
                group["lr"].fill_(self._learning_rate(stage, self.batch))
            iteration = self._train_one_batch(stage, batch)
            following = next(batches, None)  # while a GPU computes
            losses = self._losses(stage, batch, iteration)
            self.iteration += 1
            self.batch += 1
            self.sums = {key: self.sums.get(key, 0.0) + value for key, value in losses.items()}
            self.log.iteration(self.iteration, self.epoch + 1, losses)
            images += len(batch["id"])
            speed = images / (time.perf_counter() - start)
            self.bar.update(task, completed=self.batch, text=f"{_listed(losses)}  {speed:.0f} images/s")
            if self.interrupted.is_set():
                self._save(stage.optimizer.state_dict())
                self.bar.console.print(
                    f"Stopped after iteration {self.iteration}: --resume goes on from there."
                )
                raise KeyboardInterrupt
            if self.iteration % self.recipe.checkpoint_every == 0:
                self._save(stage.optimizer.state_dict())
        self.bar.remove_task(task)
        return speed

    def _train_one_batch(self, stage: _Stage, batch: dict[str, Any]) -> _Iteration:
        return stage.run(batch["image"], batch["labels"], batch["landmarks"])

    def _iterate(self, stage: _Stage, image: Tensor, labels: Tensor, landmarks: Tensor) -> _Iteration:
        """The whole iteration on the device: the host reads nothing, and a CUDA graph can hold it."""
        image = normalize(image).contiguous(memory_format=torch.channels_last)
        output = stage.module(image)
        losses = stage.criterion(output, labels, landmarks)
        total = losses["total"].detach()
        self.fabric.backward(losses["total"])
        # Makes the fused optimizer leave out the step if the loss is not finite (0 times it is not 0 then),
        # of which `_losses` tells.
        stage.optimizer.optimizer.found_inf = (0 * total).ne(0).float()
        stage.optimizer.step()
        stage.optimizer.zero_grad()
        constants = {name: None if x is None else x.detach() for name, x in vars(output).items()}
        return _Iteration(tuple(losses), torch.stack(list(losses.values())).detach(), JAAOutput(**constants))

    def _losses(self, stage: _Stage, batch: dict[str, Any], iteration: _Iteration) -> dict[str, float]:
        """The losses of an iteration, once it is over."""
        values = dict(zip(iteration.names, iteration.losses.tolist(), strict=True))
        if not all(map(math.isfinite, values.values())):
            raise NonFiniteLoss(
                f'the loss is not finite at iteration {self.iteration + 1} (step "{stage.step.name}", epoch '
                f"{self.epoch + 1}): {_listed(values)}; "
                f"samples {', '.join(_broken(stage, iteration.output, batch))}"
            )
        return values

    def _end_epoch(self, stage: _Stage, speed: float) -> None:
        scores = evaluate(
            self.model,
            self.test_set,
            batch_size=self.recipe.batch_size,
            workers=self.recipe.workers,
            predictions=self.out / "predictions.csv",
        )
        losses = {name: value / self.batch for name, value in self.sums.items()}
        lr = self._learning_rate(stage, self.batch - 1)
        self.epoch, self.batch, self.sums = self.epoch + 1, 0, {}
        entry = {"epoch": self.epoch, "step": stage.step.name, "lr": lr, "losses": losses}
        self.history.append({**entry, "scores": scores.to_dict()})
        percent = scores.summary()
        self.log.epoch(self.iteration, percent, self.history)
        self._save(stage.optimizer.state_dict())
        self.bar.console.print(
            f"{stage.step.name} {self.epoch}/{self.recipe.epochs}  lr {lr:.2g}  {_listed(losses)}  "
            f"{'  '.join(f'{name} {value:.1f} %' for name, value in percent.items())}  {speed:.0f} images/s",
            soft_wrap=True,
            markup=False,
            highlight=False,
        )

    def _learning_rate(self, stage: _Stage, batch: int) -> float:
        """That of a batch of the epoch under way."""
        per_epoch = len(self.batches)
        return learning_rate(stage.step, (self.epoch - stage.first) * per_epoch + batch, per_epoch)

    def _trained(self, step: Step) -> set[str]:
        """Names of the modules that a step trains; the model's variant may lack some that the step names."""
        present = {name for name, _ in self.model.named_children()}
        trained = present if step.train is None else present & set(step.train)
        if not trained:
            raise ValueError(
                f'step "{step.name}" trains nothing: it names {", ".join(step.train or ())}, '
                f"but the model has only {', '.join(sorted(present))}"
            )
        return trained

    def _save(self, optimizer: dict[str, Any]) -> None:
        self.log.sync()
        random = {"cpu": torch.get_rng_state()}
        if self.fabric.device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(self.fabric.device)
        state = {
            "model": self.model.state_dict(),
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


def _broken(stage: _Stage, output: JAAOutput, batch: dict[str, Any]) -> list[str]:
    """Ids of the samples whose loss alone is not finite; the whole batch's if no sample's is."""

    def finite(i: int) -> bool:
        one = {name: value[i : i + 1] for name, value in vars(output).items() if value is not None}
        losses = stage.criterion(JAAOutput(**one), batch["labels"][i : i + 1], batch["landmarks"][i : i + 1])
        return bool(losses["total"].isfinite())

    ids: list[str] = batch["id"]
    return [name for i, name in enumerate(ids) if not finite(i)] or ids


def _mean_shape(dataset: FaceDataset, size: int) -> Tensor:
    crops = Crops(dataset, size, train=False)
    # Spread over the set: its first faces may all be one person's.
    picked = np.linspace(0, len(dataset) - 1, min(MEAN_SHAPE_FACES, len(dataset)), dtype=int).tolist()
    return torch.stack([crops[0, i]["landmarks"] for i in picked]).mean(0)


def _listed(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(20),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}"),
        console=console,
        disable=not console.is_terminal,
    )
