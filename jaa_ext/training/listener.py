"""What training and the experiments tell while they run."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaa_ext.evaluation.scores import Scores
    from jaa_ext.training.trainer import Trainer


class Listener:
    """Follow training: every method does nothing until a subclass overrides it.

    Of several processes the main one calls them. `trainer` is to be read: its recipe, stage, epoch, batch,
    iteration, history and model are those of the moment. What a method raises ends the run.

    Example:
        >>> class Losses(Listener):
        ...     def on_update(self, trainer, losses):
        ...         print(trainer.iteration, losses["total"])
    """

    def on_epoch_start(self, trainer: Trainer) -> None:
        """Hear that an epoch begins, or goes on after an interruption."""

    def on_update(self, trainer: Trainer, losses: dict[str, float]) -> None:
        """Hear the losses of an update, by their names, once it is logged."""

    def on_epoch_end(self, trainer: Trainer, scores: Scores) -> None:
        """Hear the scores of the test after an epoch, once the checkpoint has them."""

    def on_interrupt(self, trainer: Trainer) -> None:
        """Hear that Ctrl-C was pressed and the checkpoint is written."""

    def on_fold(self, recipe: str, fold: str, number: int, count: int) -> None:
        """Hear that a cross validation comes to a fold, the `number`th of `count`, from 1."""

    def on_system(self, recipe: str, number: int, count: int) -> None:
        """Hear that an ablation comes to a system, the `number`th of `count`, from 1."""


def listed(losses: dict[str, float]) -> str:
    """Write losses in one line."""
    return ", ".join(f"{name} {value:.4g}" for name, value in losses.items())
