"""The training loop, and its state: after an interruption it goes on with the same bits."""

from __future__ import annotations

import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray

from jaa_ext.data import CombinedFaces, FaceDataset, with_mirror
from jaa_ext.distributed import Processes
from jaa_ext.evaluation.evaluate import evaluate, require_same_aus
from jaa_ext.evaluation.scores import Scores
from jaa_ext.models.serialization import check_tensors, find_not_finite
from jaa_ext.nn import au_weights
from jaa_ext.nn.sync_batch_norm import synchronize_batch_norm
from jaa_ext.recipes.schema import Recipe, Stage
from jaa_ext.training.checkpoint import check_momentum, check_state, load_checkpoint, save_checkpoint
from jaa_ext.training.cuda_graph import require_recordable
from jaa_ext.training.divergence import Diverged, NonFiniteLoss
from jaa_ext.training.initialization import initialize_model
from jaa_ext.training.listener import Listener, listed
from jaa_ext.training.loading import require_other_subjects, training_loader
from jaa_ext.training.optimization import Optimization, Update, trained_modules, trained_parameters
from jaa_ext.training.run_folder import Log
from jaa_ext.training.runtime import interruptible
from jaa_ext.training.schedule import Batches, learning_rate


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
        ValueError: data, shares or stages that do not fit the model, subjects in both sets, or a CUDA graph
            where none can be recorded.
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
        for dataset in datasets:
            require_same_aus(config.aus, dataset)
        require_other_subjects(self.train_set, self.test_set)
        if recipe.trainer.cuda_graph:
            require_recordable(fabric.device, world_size)
        self.model, self.transfer = initialize_model(recipe, self.train_set, transfer=not resume)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model.to(fabric.device)
        for stage in recipe.stages:
            trained_modules(stage, self.model)  # one that does not fit is found before the first has run
        if world_size > 1 and recipe.trainer.sync_batch_norm:
            synchronize_batch_norm(self.model)
        self.batches = Batches(
            len(self.train_set),
            recipe.batch_size,
            recipe.seed,
            sets=_shares(self.train_set),
            processes=world_size,
            rank=self.processes.rank,
        )
        _require_faces_of_each(self.train_set, self.batches)
        self.loader = training_loader(recipe, self.train_set, self.batches, fabric)
        weighted = recipe.loss.weighted and config.au_detection
        labels = with_mirror(self.train_set.label_matrix(), self.train_set.aus)
        often = _frequencies(self.train_set, len(labels))
        self.weight = au_weights(labels, config.aus, frequencies=often) if weighted else None

        self.stage = recipe.stages[0]
        """Stage under way."""
        self.stage_start = 0
        """Iterations before it."""
        self.epoch = 0
        """Epochs done, over all stages."""
        self.batch = 0
        """Batches done of the epoch under way."""
        self.sums: dict[str, float] = {}
        """Its losses so far."""
        self.iteration = 0
        """Batches done in all."""
        self.history: list[dict[str, Any]] = []
        """Number, stage, last learning rate, mean losses and scores of each epoch done."""
        self._momentum: dict[int, Any] | None = None
        """What a checkpoint has of the stage under way."""

    def fit(self, listener: Listener | None = None) -> Scores:
        """Train from where the run stands to its end; give the scores after the last epoch."""
        main = self.processes.is_main_process
        self.listener = listener if main and listener is not None else Listener()
        log = Log.opened(self.out, self.iteration) if main else nullcontext()
        with log as self.log, interruptible(patient=self.processes.world_size > 1) as self.interrupted:
            if self.iteration == 0:
                with self.processes.fail_together():
                    self.save({})
            first = 0
            for stage in self.recipe.stages:
                if self.epoch < first + stage.epochs:
                    self.train_stage(stage, first)
                first += stage.epochs
        return Scores.from_dict(self.history[-1]["scores"])

    def train_stage(self, stage: Stage, first: int) -> None:
        """Train the epochs of a stage, of which the first is that number, or those that are left."""
        self.stage, self.stage_start = stage, first * len(self.batches)
        momentum, self._momentum = self._momentum, None
        if self.iteration == self.stage_start:
            momentum = None  # of the stage before
        if momentum is not None:
            check_momentum(self.out / "checkpoint.pt", momentum, trained_parameters(stage, self.model))
        optimization = Optimization(
            stage, self.recipe, self.model, self.weight, self.fabric, self.processes, momentum=momentum
        )
        while self.epoch < first + stage.epochs:
            self.train_epoch(optimization)
            self.end_epoch(optimization)

    def train_epoch(self, optimization: Optimization) -> None:
        """Train on the batches that are left of an epoch."""
        optimization.set_training()
        self.batches.epoch, self.batches.start = self.epoch, self.batch
        batches = iter(self.loader)
        with self.processes.fail_together():
            self.listener.on_epoch_start(self)
            following = next(batches, None)
        while (batch := following) is not None:
            optimization.set_learning_rate(self._learning_rate(self.iteration))
            if self.processes.world_size > 1:
                optimization.sizes = self.batches.sizes(self.batch)
            inputs = (batch[name] for name in ("image", "labels", "landmarks", "intensities"))
            update = optimization.update(*inputs)
            with self.processes.fail_together():
                following = next(batches, None)  # while a GPU computes
                losses = self._losses(optimization, update)
                self.iteration += 1
                self.batch += 1
                self.sums = {key: self.sums.get(key, 0.0) + value for key, value in losses.items()}
                if self.log is not None:
                    self.log.iteration(self.iteration, self.epoch + 1, losses)
                if self.iteration % self.recipe.checkpoint_every == 0:
                    self.save(optimization.optimizer.state_dict())
                self.listener.on_update(self, losses)
            if self.processes.any(self.interrupted.is_set()):
                with self.processes.fail_together():
                    self.save(optimization.optimizer.state_dict())
                    self.listener.on_interrupt(self)
                raise KeyboardInterrupt

    def end_epoch(self, optimization: Optimization) -> None:
        """Test the model, and write down how the epoch went."""
        if not self.recipe.trainer.sync_batch_norm:
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
        lr = self._learning_rate(self.iteration - 1)
        self.epoch, self.batch, self.sums = self.epoch + 1, 0, {}
        entry = {"epoch": self.epoch, "stage": self.stage.name, "lr": lr, "losses": losses}
        self.history.append({**entry, "scores": scores.to_dict()})
        with self.processes.fail_together():
            if self.log is not None:
                self.log.epoch(self.iteration, scores.summary(), self.history)
            self.save(optimization.optimizer.state_dict())
            self.listener.on_epoch_end(self, scores)

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
        path, state = self.out / "checkpoint.pt", {}
        with self.processes.fail_together():
            if self.processes.is_main_process:
                state = load_checkpoint(path)
                check_state(path, state, epochs=self.recipe.epochs, per_epoch=len(self.batches))
                check_tensors(path, self.model.state_dict(), state["model"])
        state = self.processes.broadcast_object(state)
        try:
            self.fabric.strategy.precision.load_state_dict(state["scaler"])
        except (RuntimeError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: is damaged: scaler: {error}") from None
        self.model.load_state_dict(state["model"])
        self.model.note = state.get("note", self.model.note)
        self._momentum = state["optimizer"].get("state", {})
        self.epoch, self.batch, self.iteration = state["epoch"], state["batch"], state["iteration"]
        self.sums, self.history = state["sums"], state["history"]
        torch.set_rng_state(state["random"]["cpu"])
        if self.fabric.device.type == "cuda" and "cuda" in state["random"]:
            torch.cuda.set_rng_state(state["random"]["cuda"], self.fabric.device)

    def _losses(self, optimization: Optimization, update: Update) -> dict[str, float]:
        """Read the losses of an update, once it is over.

        Raises:
            NonFiniteLoss: one is not finite; it names the samples whose own loss is not, or the whole batch.
        """
        losses = dict(zip(update.names, update.losses.tolist(), strict=True))
        if not all(map(math.isfinite, losses.values())):
            # Read anew, for most of them may be other processes'.
            ids = [self.train_set[i].id for _, i in self.batches.whole(self.batch)]
            broken = [name for i, name in enumerate(ids) if not optimization.is_finite(update, i)] or ids
            raise NonFiniteLoss(
                f'the loss is not finite at iteration {self.iteration + 1} (stage "{self.stage.name}", '
                f"epoch {self.epoch + 1}): {listed(losses)}; samples {', '.join(broken)}"
            )
        return losses

    def _learning_rate(self, iteration: int) -> float:
        """Give the rate of an iteration of the stage under way."""
        return learning_rate(self.stage, iteration - self.stage_start, len(self.batches))


def _require_faces_of_each(faces: FaceDataset, batches: Batches) -> None:
    """Check that an epoch has faces of each data set.

    Raises:
        ValueError: the share of one is too small; the message names it.
    """
    if _shares(faces) is None:
        return
    assert isinstance(faces, CombinedFaces)
    for name, (_, count) in zip(faces.sets, batches.sets, strict=True):
        if count == 0:
            raise ValueError(
                f"{name}: its share is none of the {len(faces)} faces of an epoch, wanted a larger one"
            )


def _frequencies(faces: FaceDataset, rows: int) -> NDArray[np.float64] | None:
    """Give how often each row of labels, of faces and of mirrored ones, comes; None where all do alike."""
    sets = _shares(faces)
    if sets is None:
        return None
    sizes, shares = zip(*sets, strict=True)
    return np.resize(np.repeat(np.divide(shares, sizes), sizes), rows)


def _shares(faces: FaceDataset) -> list[tuple[int, float]] | None:
    """Give the number of faces and the share of each data set; None where each face comes once an epoch."""
    if not isinstance(faces, CombinedFaces) or faces.shares is None:
        return None
    return list(zip(faces.sizes, faces.shares, strict=True))
