"""Training by a recipe: steps, epochs, checkpoints, and going on after an interruption with the same bits."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from jaa_ext import facs
from jaa_ext.data import Crops, FaceDataset, normalize
from jaa_ext.data.faces import HasIntensities
from jaa_ext.data.workers import ignore_interrupts, reading_workers
from jaa_ext.distributed import Processes
from jaa_ext.evaluation.evaluate import evaluate
from jaa_ext.evaluation.metrics import Scores
from jaa_ext.memory import keep_freed_memory
from jaa_ext.models import (
    JAAGraphNet,
    JAAOutput,
    Transfer,
    build_model,
    load_model,
    save_model,
    transfer_weights,
)
from jaa_ext.models.serialization import check_tensors, find_not_finite, is_plain
from jaa_ext.nn import au_weights
from jaa_ext.nn.sync_batch_norm import synchronize_batch_norm
from jaa_ext.progress import progress
from jaa_ext.recipes.datasets import LARGEST_SEED, note_of
from jaa_ext.recipes.schema import Recipe, Step
from jaa_ext.training.checkpoint import check_state, load_checkpoint, save_checkpoint
from jaa_ext.training.criterion import JointLoss
from jaa_ext.training.cuda_graph import GraphedStep, require_cuda
from jaa_ext.training.precision import CastAtOnce, recipe_on
from jaa_ext.training.run_folder import Log, hold_folder, open_run, require_run
from jaa_ext.training.runtime import deterministic, interruptible, make_fabric
from jaa_ext.training.schedule import Batches, learning_rate

MEAN_SHAPE_FACES = 256
"""Faces of the training set whose mean is the landmarks' starting point."""


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
            steps that do not fit the model, more processes than faces in a batch, or a damaged file.
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
    run: Callable[[Tensor, Tensor, Tensor, Tensor], _Iteration] = field(init=False)
    """An iteration by a batch's images, labels, landmarks and intensities."""


class _Iteration(NamedTuple):
    """What an iteration leaves on the device."""

    names: tuple[str, ...]
    losses: Tensor
    """(terms,) by the names."""
    output: JAAOutput
    """Of all processes, as is what it was compared with."""
    labels: Tensor
    landmarks: Tensor
    intensities: Tensor


class Trainer:
    """A run: the model, its data, and how far training has come. `train` is the way in."""

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
        config = recipe.model.config()
        self.recipe, self.out, self.fabric = recipe, out, fabric
        self.processes = processes or Processes()
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

        if recipe.trainer.cuda_graph:
            require_cuda(self.fabric.device)
            if self.processes.world_size > 1:
                raise ValueError(
                    f"trainer.cuda_graph=true needs a single process, got {self.processes.world_size}, whose "
                    "exchange of gradients it does not record"
                )
        torch.manual_seed(recipe.seed)
        self.model = build_model(config)
        self.model.note = note_of(self.train_set)
        if config.alignment:
            self.model.set_mean_shape(_mean_shape(self.train_set, config.image_size))
        intensities = _mean_intensity(self.train_set) if config.intensity else None
        if intensities is not None:
            self.model.set_mean_intensity(intensities)
        self.transfer: Transfer | None = None
        if recipe.init is not None and not resume:
            source = load_model(recipe.init)
            self.transfer = transfer_weights(self.model, source)
            # Weights that come from others' stay what the others are: for demonstration, or non-commercial.
            notes = dict.fromkeys(note for note in (source.note, self.model.note) if note)
            self.model.note = " ".join(notes)
        if isinstance(self.model, JAAGraphNet):  # after the transfer, whose graph is that of other labels
            self.model.set_labels(self.train_set.label_matrix())
        if intensities is not None:  # likewise
            self.model.set_rated(np.isfinite(intensities))
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model.to(self.fabric.device)
        for step in recipe.steps:
            self._trained(step)  # a step that does not fit is found before the first one has run

        self.synchronized = self.processes.world_size > 1 and recipe.trainer.sync_batch_norm
        if self.synchronized:
            synchronize_batch_norm(self.model)

        self.batches = Batches(
            len(self.train_set),
            recipe.batch_size,
            recipe.seed,
            processes=self.processes.world_size,
            rank=self.processes.rank,
        )
        workers = reading_workers(recipe.workers, self.fabric.device)
        loader: DataLoader[Any] = DataLoader(
            Crops(self.train_set, config.image_size, train=True, seed=recipe.seed, augment=recipe.augment),
            batch_sampler=self.batches,
            collate_fn=partial(_collate, nothing=_no_faces(config.image_size, len(config.aus))),
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=self.fabric.device.type == "cuda",
            worker_init_fn=ignore_interrupts,
            generator=torch.Generator(),
        )
        self.loader: Any = self.fabric.setup_dataloaders(loader, use_distributed_sampler=False)
        weighted = recipe.loss.weighted and config.au_detection
        self.weight = au_weights(self.train_set.label_matrix(), config.aus) if weighted else None

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
        bar = progress(console)
        with (
            Log.opened(self.out, self.iteration)
            if self.processes.is_main_process
            else nullcontext() as self.log,
            interruptible(patient=self.processes.world_size > 1) as self.interrupted,
            bar as self.bar,
        ):
            if self.iteration == 0:
                if self.transfer is not None:
                    bar.console.print(f"{self.recipe.init}: {self.transfer}", soft_wrap=True, markup=False)
                with self.processes.fail_together():
                    self._save({})
            first = 0
            for step in self.recipe.steps:
                if self.epoch < first + step.epochs:
                    self._train_step(step, first)
                first += step.epochs
        scores = Scores.from_dict(self.history[-1]["scores"])
        with self.processes.fail_together():
            if self.processes.is_main_process:
                save_model(self.model, self.out / "model.safetensors", note=self.model.note)
                scores.to_json(self.out / "metrics.json")
                scores.to_csv(self.out / "metrics.csv")
        return scores

    def load(self) -> None:
        """Take up the run from its checkpoint."""
        state: dict[str, Any] = {}
        with self.processes.fail_together():
            if self.processes.is_main_process:
                state = load_checkpoint(self.out / "checkpoint.pt")
                self._check(state)
        state = self.processes.broadcast_object(state)
        self.model.load_state_dict(state["model"])
        self.model.note = state.get("note", self.model.note)
        self.fabric.strategy.precision.load_state_dict(state["scaler"])
        self._optimizer_state = state["optimizer"]
        self.epoch, self.batch, self.iteration = state["epoch"], state["batch"], state["iteration"]
        self.sums, self.history = state["sums"], state["history"]
        torch.set_rng_state(state["random"]["cpu"])
        if self.fabric.device.type == "cuda" and "cuda" in state["random"]:
            torch.cuda.set_rng_state(state["random"]["cuda"], self.fabric.device)

    def _check(self, state: dict[str, Any]) -> None:
        """See that what checkpoint.pt holds is the state of this run.

        Raises:
            ValueError: it is not.
        """
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
            momentum = self._optimizer_state.get("state", {})
            self._check_momentum(momentum, parameters)
            optimizer.load_state_dict({"state": momentum, "param_groups": settings})
        elif self.recipe.precision == "16-mixed" and self.recipe.optimizer.momentum > 0:
            # Where the first step is left out, for an overflow, torch's fused optimizer leaves the momentum
            # uninitialised, and goes on with it.
            for parameter in parameters:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        self._optimizer_state = None
        loss = self.recipe.loss
        if step.align is not None:
            loss = loss.model_copy(update={"align": step.align})
        criterion = JointLoss(loss, self.weight).to(self.fabric.device)
        if self.processes.world_size > 1:
            self._fix_unreached(criterion, parameters)
        module, stepper = self.fabric.setup(CastAtOnce(self.model), optimizer)
        stage = _Stage(step, first, trained, module, stepper, criterion)
        stage.run = partial(self._iterate, stage)
        if self.recipe.trainer.cuda_graph:
            stage.run = GraphedStep(stage.run, self.recipe.batch_size, self.fabric.device)
        while self.epoch < first + step.epochs:
            speed = self._train_one_epoch(stage)
            self._end_epoch(stage, speed)

    def _check_momentum(self, momentum: dict[int, Any], parameters: list[torch.nn.Parameter]) -> None:
        for place, kept in momentum.items():
            buffer = kept["momentum_buffer"]
            shape = parameters[place].shape if 0 <= place < len(parameters) else None
            if buffer is not None and (
                not is_plain(buffer) or buffer.shape != shape or not buffer.isfinite().all()
            ):
                raise ValueError(
                    f"{self.out / 'checkpoint.pt'}: is damaged: the momentum of parameter {place} must be "
                    f"finite and {list(shape or ())}, got {list(buffer.shape)}"
                )

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
        with self.processes.fail_together():
            following = next(batches, None)
        while (batch := following) is not None:
            for group in stage.optimizer.param_groups:
                group["lr"].fill_(self._learning_rate(stage, self.batch))
            iteration = self._train_one_batch(stage, batch)
            with self.processes.fail_together():
                following = next(batches, None)  # while a GPU computes
                losses = self._losses(stage, iteration)
                self.iteration += 1
                self.batch += 1
                self.sums = {key: self.sums.get(key, 0.0) + value for key, value in losses.items()}
                if self.log is not None:
                    self.log.iteration(self.iteration, self.epoch + 1, losses)
                images += len(iteration.labels)
                speed = images / (time.perf_counter() - start)
                self.bar.update(task, completed=self.batch, text=f"{_listed(losses)}  {speed:.0f} images/s")
                if self.iteration % self.recipe.checkpoint_every == 0:
                    self._save(stage.optimizer.state_dict())
            if self.processes.any(self.interrupted.is_set()):
                with self.processes.fail_together():
                    self._save(stage.optimizer.state_dict())
                self.bar.console.print(
                    f"Stopped after iteration {self.iteration}: --resume goes on from there."
                )
                raise KeyboardInterrupt
        self.bar.remove_task(task)
        return speed

    def _train_one_batch(self, stage: _Stage, batch: dict[str, Any]) -> _Iteration:
        return stage.run(batch["image"], batch["labels"], batch["landmarks"], batch["intensities"])

    def _iterate(
        self, stage: _Stage, image: Tensor, labels: Tensor, landmarks: Tensor, intensities: Tensor
    ) -> _Iteration:
        """The whole iteration on the device: the host reads nothing, and a CUDA graph can hold it."""
        image = normalize(image).contiguous(memory_format=torch.channels_last)
        with self._resting() if len(image) == 0 else nullcontext():
            output = stage.module(image)
        if self.processes.world_size > 1:
            output, labels, landmarks, intensities = self._of_all(output, labels, landmarks, intensities)
        losses = stage.criterion(output, labels, landmarks, intensities)
        total = losses["total"].detach()
        # Every process has the loss of the whole batch, and of its gradient the part that came from its own
        # faces. The parts add up; DDP takes their mean.
        count = self.processes.world_size
        self.fabric.backward(losses["total"] if count == 1 else count * losses["total"])
        # Makes the fused optimizer leave out the step if the loss is not finite (0 times it is not 0 then),
        # of which `_losses` tells.
        stage.optimizer.optimizer.found_inf = (0 * total).ne(0).float()
        stage.optimizer.step()
        stage.optimizer.zero_grad()
        constants = {name: None if x is None else x.detach() for name, x in vars(output).items()}
        values = torch.stack(list(losses.values())).detach()
        return _Iteration(tuple(losses), values, JAAOutput(**constants), labels, landmarks, intensities)

    def _of_all(self, output: JAAOutput, *truth: Tensor) -> tuple[JAAOutput, Tensor, Tensor, Tensor]:
        """What the loss reads of all processes' faces, so that each computes that of the whole batch: means
        over labels that are not missing, and Dice's sums over a batch, are no means over processes."""
        gather = partial(self.processes.gather, sizes=self.batches.sizes(self.batch))
        read = {"logits", "landmarks", "local_logits", "intensities"}
        if self.recipe.loss.attention > 0:
            read |= {"target_maps", "refined_maps"}
        everything = {name: gather(x) for name, x in vars(output).items() if name in read and x is not None}
        labels, landmarks, intensities = map(gather, truth)
        return JAAOutput(**everything), labels, landmarks, intensities

    @contextmanager
    def _resting(self) -> Iterator[None]:
        """For a process that has nothing of a small last batch: batch norms want statistics of some faces."""
        training = [] if self.synchronized else [m for m in self.model.modules() if m.training]
        for module in training:
            module.training = False
        try:
            yield
        finally:
            for module in training:
                module.training = True

    def _fix_unreached(self, criterion: JointLoss, parameters: list[torch.nn.Parameter]) -> None:
        """Fix the parameters that the loss does not depend on, such as those of a term of factor 0.

        One process leaves them alone, since they get no gradient; DDP would wait for it.
        """
        config, device = self.model.config, self.fabric.device
        output = self.model.eval()(torch.zeros(1, 3, config.image_size, config.image_size, device=device))
        labels = torch.zeros(1, len(config.aus), dtype=torch.int64, device=device)
        landmarks = torch.arange(98.0, device=device).view(1, 49, 2)
        total = criterion(output, labels, landmarks, torch.zeros_like(labels, dtype=torch.float32))["total"]
        for parameter, grad in zip(
            parameters, torch.autograd.grad(total, parameters, allow_unused=True), strict=True
        ):
            parameter.requires_grad_(grad is not None)

    def _losses(self, stage: _Stage, iteration: _Iteration) -> dict[str, float]:
        """The losses of an iteration, once it is over."""
        values = dict(zip(iteration.names, iteration.losses.tolist(), strict=True))
        if not all(map(math.isfinite, values.values())):
            raise NonFiniteLoss(
                f'the loss is not finite at iteration {self.iteration + 1} (step "{stage.step.name}", epoch '
                f"{self.epoch + 1}): {_listed(values)}; "
                f"samples {', '.join(self._broken(stage, iteration))}"
            )
        return values

    def _broken(self, stage: _Stage, iteration: _Iteration) -> list[str]:
        """Ids of the samples whose loss alone is not finite; the whole batch's if no sample's is."""

        def finite(i: int) -> bool:
            one = {k: v[i : i + 1] for k, v in vars(iteration.output).items() if v is not None}
            truth = (iteration.labels, iteration.landmarks, iteration.intensities)
            losses = stage.criterion(JAAOutput(**one), *(rows[i : i + 1] for rows in truth))
            return bool(losses["total"].isfinite())

        # Read anew, for most of them may be other processes'.
        ids = [self.train_set[i].id for _, i in self.batches.whole(self.batch)]
        return [name for i, name in enumerate(ids) if not finite(i)] or ids

    def _end_epoch(self, stage: _Stage, speed: float) -> None:
        if not self.synchronized:
            self.processes.broadcast_buffers(self.model)
        with self.processes.fail_together():
            self._save(
                stage.optimizer.state_dict()
            )  # a test can take hours, and Ctrl-C does not reach into it
        scores = evaluate(
            self.model,
            self.test_set,
            batch_size=self.recipe.batch_size,
            workers=self.recipe.workers,
            predictions=self.out / "predictions.csv",
            processes=self.processes,
        )
        losses = {name: value / self.batch for name, value in self.sums.items()}
        lr = self._learning_rate(stage, self.batch - 1)
        self.epoch, self.batch, self.sums = self.epoch + 1, 0, {}
        entry = {"epoch": self.epoch, "step": stage.step.name, "lr": lr, "losses": losses}
        self.history.append({**entry, "scores": scores.to_dict()})
        percent = scores.summary()
        with self.processes.fail_together():
            if self.log is not None:
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
        """The first process' part: its state is every process'.

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


def _collate(samples: list[dict[str, Any]], nothing: dict[str, Any]) -> dict[str, Any]:
    """A batch of samples of `Crops`, or `nothing` of none."""
    return default_collate(samples) if samples else nothing  # type: ignore[no-any-return]


def _no_faces(size: int, aus: int) -> dict[str, Any]:
    return {
        "image": torch.empty(0, 3, size, size, dtype=torch.uint8),
        "landmarks": torch.empty(0, facs.NUM_LANDMARKS, 2),
        "labels": torch.empty(0, aus, dtype=torch.int64),
        "intensities": torch.empty(0, aus),
        "id": [],
    }


def _mean_shape(dataset: FaceDataset, size: int) -> Tensor:
    crops = Crops(dataset, size, train=False)
    # Spread over the set: its first faces may all be one person's.
    picked = np.linspace(0, len(dataset) - 1, min(MEAN_SHAPE_FACES, len(dataset)), dtype=int).tolist()
    faces = [crops[i] for i in picked]
    for face in faces:
        if not face["landmarks"].isfinite().all():
            raise ValueError(f"the landmarks of training face {face['id']} are not finite")
    return torch.stack([face["landmarks"] for face in faces]).mean(0)


def _mean_intensity(dataset: FaceDataset) -> NDArray[np.float64] | None:
    """(A,) of each AU, NaN where it has none; None of a data set that does not tell."""
    if not isinstance(dataset, HasIntensities):
        return None
    intensities = dataset.intensity_matrix()
    known = np.isfinite(intensities)
    if not known.any():
        raise ValueError("model.intensity=true needs intensities, but the training faces have none")
    sums = np.where(known, intensities, 0).sum(0, dtype=np.float64)
    return np.where(known.any(0), sums / known.sum(0).clip(1), np.nan)


def _listed(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())
