"""What training and the experiments print while they run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import combinations

from rich.console import Console
from rich.progress import Progress

from jaa_ext.cli.progress import progress_bar, say
from jaa_ext.data import CombinedFaces
from jaa_ext.evaluation import Scores
from jaa_ext.training.listener import Listener, listed
from jaa_ext.training.trainer import Trainer


@contextmanager
def training_progress(console: Console, *, fold: str = "fold") -> Iterator[Listener]:
    """Give a listener that prints a line an epoch, and on a terminal draws a bar of the epoch's updates.

    Args:
        console: where it prints.
        fold: word before the name of a fold: "without" where it is a data set that is left out.
    """
    bar = progress_bar(console)
    try:
        yield _Printing(bar, fold)
    finally:
        bar.stop()


class _Printing(Listener):
    def __init__(self, bar: Progress, fold: str) -> None:
        self.bar, self.console, self.fold = bar, bar.console, fold

    def on_epoch_start(self, trainer: Trainer) -> None:
        if trainer.iteration == 0 and trainer.transfer is not None:
            say(self.console, f"{trainer.recipe.init}: {trainer.transfer}")
        if trainer.iteration == 0:
            self._say_sets(trainer)
        self.bar.start()
        name = f"{trainer.stage.name} {trainer.epoch + 1}/{trainer.recipe.epochs}"
        self.task = self.bar.add_task(name, total=len(trainer.batches), completed=trainer.batch, text="")
        self.images, self.speed, self.start = 0, 0.0, time.perf_counter()

    def on_update(self, trainer: Trainer, losses: dict[str, float]) -> None:
        self.images += sum(trainer.batches.sizes(trainer.batch - 1))
        self.speed = self.images / (time.perf_counter() - self.start)
        text = f"{listed(losses)}  {self.speed:.0f} images/s"
        self.bar.update(self.task, completed=trainer.batch, text=text)

    def on_epoch_end(self, trainer: Trainer, scores: Scores) -> None:
        self.bar.remove_task(self.task)
        epoch = trainer.history[-1]
        percent = "  ".join(f"{name} {value:.1f} %" for name, value in scores.summary().items())
        say(
            self.console,
            f"{epoch['stage']} {epoch['epoch']}/{trainer.recipe.epochs}  lr {epoch['lr']:.2g}  "
            f"{listed(epoch['losses'])}  {percent}  {self.speed:.0f} images/s",
        )

    def on_interrupt(self, trainer: Trainer) -> None:
        say(self.console, f"Stopped after iteration {trainer.iteration}: --resume goes on from there.")

    def on_fold(self, recipe: str, fold: str, number: int, count: int) -> None:
        say(self.console, f"{recipe}: {self.fold} {fold} ({number} of {count})")

    def on_system(self, recipe: str, number: int, count: int) -> None:
        self.console.rule(f"{recipe}: {number} of {count}", align="left")

    def _say_sets(self, trainer: Trainer) -> None:
        """Print how many faces of each of several data sets train, and which share names of people."""
        train_set, test_set = trainer.train_set, trainer.test_set
        if not isinstance(train_set, CombinedFaces) or not isinstance(test_set, CombinedFaces):
            return
        whole = train_set.shares is None
        counts = train_set.sizes if whole else [count for _, count in trainer.batches.sets]
        for name, size, count in zip(train_set.sets, train_set.sizes, counts, strict=True):
            say(self.console, f"  {name}: {size:,} faces to train, {count:,} an epoch.")
        people: dict[str, set[str]] = {}
        for name, part in (*train_set.sets.items(), *test_set.sets.items()):
            people.setdefault(name, set()).update(part.subjects)
        for one, other in combinations(people, 2):
            if same := len(people[one] & people[other]):
                say(
                    self.console,
                    f"  Subjects of the same name in {one} and {other}: {same}. Are they the same people? "
                    "Then one may be trained on and tested.",
                )
