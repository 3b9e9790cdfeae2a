"""How a stage of a recipe changes the model: what it trains, by which loss and rate, and one update."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import torch
from lightning_fabric import Fabric
from torch import Tensor

from jaa_ext.data import normalize
from jaa_ext.distributed import Processes
from jaa_ext.models import JAANet, JAAOutput
from jaa_ext.recipes.schema import Recipe, Stage
from jaa_ext.training.criterion import JointLoss
from jaa_ext.training.cuda_graph import GraphedStep
from jaa_ext.training.precision import BatchedWeightCast


class Update(NamedTuple):
    """What an update leaves on the device."""

    names: tuple[str, ...]
    losses: Tensor
    """(terms,) by the names."""
    output: JAAOutput
    """Output of all processes, as are the labels, landmarks and intensities."""
    labels: Tensor
    landmarks: Tensor
    intensities: Tensor


class Optimization:
    """The optimisation of one stage: its modules are set to train, the others fixed.

    Args:
        stage: of the recipe.
        recipe: its factors of the loss, its optimizer, precision and `trainer.cuda_graph` hold.
        model: on the device.
        weight: (A,) weights of the AUs in the loss; None for 1.
        fabric: launched.
        processes: those that train together.
        momentum: `state_dict()["state"]` of a former optimizer of the same parameters; None starts afresh.

    Raises:
        ValueError: the stage trains nothing of the model.
    """

    def __init__(
        self,
        stage: Stage,
        recipe: Recipe,
        model: JAANet,
        weight: Tensor | None,
        fabric: Fabric,
        processes: Processes,
        *,
        momentum: dict[int, Any] | None,
    ) -> None:
        self.stage, self.model, self.fabric, self.processes = stage, model, fabric, processes
        self.synchronized = recipe.trainer.sync_batch_norm
        self.attention_is_compared = recipe.loss.attention > 0
        self.sizes: Sequence[int] = ()
        """Faces of each process in the batch under way."""
        self.trained = trained_modules(stage, model)
        for name, child in model.named_children():
            child.requires_grad_(name in self.trained)
        parameters = trained_parameters(stage, model)
        optimizer = self._optimizer(recipe, parameters, momentum)
        loss = recipe.loss
        if stage.align is not None:
            loss = loss.model_copy(update={"align": stage.align})
        self.criterion = JointLoss(loss, weight).to(fabric.device)
        if processes.world_size > 1:
            self._fix_unreached(parameters)
        self.module: Any
        self.optimizer: Any
        self.module, self.optimizer = fabric.setup(BatchedWeightCast(model), optimizer)
        self.update: Callable[[Tensor, Tensor, Tensor, Tensor], Update] = self.compute_update
        """An update by a batch's images, labels, landmarks and intensities; perhaps a CUDA graph of it."""
        if recipe.trainer.cuda_graph:
            self.update = GraphedStep(self.compute_update, recipe.batch_size, fabric.device)

    def set_training(self) -> None:
        """Put the model into training mode; a fixed module keeps its batch norm statistics."""
        self.model.train()
        for name, child in self.model.named_children():
            child.train(name in self.trained)

    def set_learning_rate(self, lr: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"].fill_(lr)

    def compute_update(self, image: Tensor, labels: Tensor, landmarks: Tensor, intensities: Tensor) -> Update:
        """The whole update on the device: the host reads nothing, and a CUDA graph can hold it."""
        image = normalize(image).contiguous(memory_format=torch.channels_last)
        with self._resting() if len(image) == 0 else nullcontext():
            output = self.module(image)
        if self.processes.world_size > 1:
            output, labels, landmarks, intensities = self._of_all(output, labels, landmarks, intensities)
        losses = self.criterion(output, labels, landmarks, intensities)
        total = losses["total"].detach()
        # Every process has the loss of the whole batch, and of its gradient the part that came from its own
        # faces. The parts add up; DDP takes their mean.
        count = self.processes.world_size
        self.fabric.backward(losses["total"] if count == 1 else count * losses["total"])
        # Makes the fused optimizer leave out the step if the loss is not finite (0 times it is not 0 then),
        # of which the trainer tells once it reads the losses.
        self.optimizer.optimizer.found_inf = (0 * total).ne(0).float()
        self.optimizer.step()
        self.optimizer.zero_grad()
        constants = {name: None if x is None else x.detach() for name, x in vars(output).items()}
        values = torch.stack(list(losses.values())).detach()
        return Update(tuple(losses), values, JAAOutput(**constants), labels, landmarks, intensities)

    def is_finite(self, update: Update, face: int) -> bool:
        """Whether the loss of one face alone is finite."""
        rows = slice(face, face + 1)
        output = {name: x[rows] for name, x in vars(update.output).items() if x is not None}
        truth = (x[rows] for x in (update.labels, update.landmarks, update.intensities))
        return bool(self.criterion(JAAOutput(**output), *truth)["total"].isfinite())

    def _optimizer(
        self, recipe: Recipe, parameters: list[torch.nn.Parameter], momentum: dict[int, Any] | None
    ) -> torch.optim.SGD:
        # The rate lies on the device, where a CUDA graph reads it anew in every update.
        lr = torch.tensor(self.stage.lr, device=self.fabric.device)
        optimizer = torch.optim.SGD(parameters, lr=lr, fused=True, **recipe.optimizer.model_dump())
        if momentum is not None:
            # The settings are the recipe's: older checkpoints have others.
            settings = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": momentum, "param_groups": settings})
        elif recipe.precision == "16-mixed" and recipe.optimizer.momentum > 0:
            # Where the first update is left out, for an overflow, torch's fused optimizer leaves the momentum
            # uninitialised, and goes on with it.
            for parameter in parameters:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return optimizer

    def _fix_unreached(self, parameters: list[torch.nn.Parameter]) -> None:
        """Fix the parameters that the loss does not depend on, such as those of a term of factor 0.

        One process leaves them alone, since they get no gradient; DDP would wait for it.
        """
        config, device = self.model.config, self.fabric.device
        output = self.model.eval()(torch.zeros(1, 3, config.image_size, config.image_size, device=device))
        labels = torch.zeros(1, len(config.aus), dtype=torch.int64, device=device)
        landmarks = torch.arange(98.0, device=device).view(1, 49, 2)
        intensities = torch.zeros_like(labels, dtype=torch.float32)
        total = self.criterion(output, labels, landmarks, intensities)["total"]
        grads = torch.autograd.grad(total, parameters, allow_unused=True)
        for parameter, grad in zip(parameters, grads, strict=True):
            parameter.requires_grad_(grad is not None)

    def _of_all(self, output: JAAOutput, *truth: Tensor) -> tuple[JAAOutput, Tensor, Tensor, Tensor]:
        """What the loss reads of all processes' faces, so that each computes that of the whole batch: means
        over labels that are not missing, and Dice's sums over a batch, are no means over processes."""
        gather = partial(self.processes.gather, sizes=self.sizes)
        read = {"logits", "landmarks", "local_logits", "intensities"}
        if self.attention_is_compared:
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


def trained_modules(stage: Stage, model: JAANet) -> set[str]:
    """Names of the modules that a stage trains; the model's variant may lack some that the stage names.

    Raises:
        ValueError: it trains none.
    """
    present = {name for name, _ in model.named_children()}
    trained = present if stage.train is None else present & set(stage.train)
    if not trained:
        raise ValueError(
            f'stage "{stage.name}" trains nothing: it names {", ".join(stage.train or ())}, '
            f"but the model has only {', '.join(sorted(present))}"
        )
    return trained


def trained_parameters(stage: Stage, model: JAANet) -> list[torch.nn.Parameter]:
    """Parameters of the `trained_modules`, in the model's order."""
    trained = trained_modules(stage, model)
    return [p for name, child in model.named_children() if name in trained for p in child.parameters()]
