"""What each iteration of training is given: its samples and its learning rate."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from jaa_ext.distributed import shares
from jaa_ext.recipes.schema import Stage

REPEATED = 2**32
"""Added to the epoch for each time that a sample has come in it before, so that its crop is another one."""


class Batches(Sampler[list[tuple[int, int]]]):
    """Batches of indices (epoch, i), every sample once an epoch, in an order drawn from (seed, epoch).

    Epochs count over all stages of a recipe. The last batch of an epoch is smaller where the sizes do not
    divide; where it would be a single sample, no base for batch norm statistics, it is left out.

    With shares, an epoch has as many samples as without them, and each data set gives its share: some of
    its samples, drawn anew in each epoch, or all of them and some again, with `REPEATED` added to the
    epoch.

    Args:
        samples: in the training set.
        batch_size: of all processes together.
        seed: of the order.
        sets: number of samples and share of each data set, one after another; of the shares the ratios count.
            None for each sample once.
        processes: how many train together; iterating gives what one of them has of each batch, see `shares`.
        rank: which of them.

    Raises:
        ValueError: too few samples, or more processes than samples in a batch.
    """

    def __init__(
        self,
        samples: int,
        batch_size: int,
        seed: int,
        *,
        sets: Sequence[tuple[int, float]] | None = None,
        processes: int = 1,
        rank: int = 0,
    ) -> None:
        if samples < 2:
            raise ValueError(f"training needs at least 2 samples, got {samples}")
        if batch_size < processes:
            raise ValueError(
                f"batch_size, that of all processes together, must be at least their number, {processes}, "
                f"got {batch_size}"
            )
        self.samples, self.batch_size, self.seed = samples, batch_size, seed
        self.processes, self.rank = processes, rank
        self.sets = [(samples, samples)]
        """Number of samples of each data set, and how many of an epoch are its."""
        if sets is not None:
            sizes, ratios = zip(*sets, strict=True)
            self.sets = list(zip(sizes, apportion(samples, ratios), strict=True))
        self.epoch = 0
        self.start = 0
        """Batches of the epoch to pass over."""

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        full, rest = divmod(self.samples, self.batch_size)
        return full + (rest > 1)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for batch in self._whole(self.start):
            yield batch[shares(len(batch), self.processes)[self.rank]]

    def sizes(self, batch: int) -> list[int]:
        """How many samples of a batch each process has."""
        whole = min(self.batch_size, self.samples - batch * self.batch_size)
        return [share.stop - share.start for share in shares(whole, self.processes)]

    def whole(self, batch: int) -> list[tuple[int, int]]:
        """A batch of the epoch, of all processes."""
        return next(self._whole(batch))

    def _whole(self, start: int) -> Iterator[list[tuple[int, int]]]:
        order = self._order()
        for batch in range(start, len(self)):
            yield order[batch * self.batch_size : (batch + 1) * self.batch_size]

    def _order(self) -> list[tuple[int, int]]:
        random = np.random.default_rng((self.seed, self.epoch))
        drawn: list[tuple[int, int]] = []
        first = 0
        for size, count in self.sets:
            for time, left in enumerate(range(count, 0, -size)):
                again = self.epoch + time * REPEATED
                drawn += [(again, first + i) for i in random.permutation(size)[:left].tolist()]
            first += size
        # A single set is in random order as it is.
        return drawn if len(self.sets) == 1 else [drawn[i] for i in random.permutation(len(drawn)).tolist()]


def apportion(count: int, ratios: Sequence[float]) -> list[int]:
    """Divide a number into whole parts in these ratios, each less than one away from its exact part.

    Example:
        >>> apportion(10, (2, 1))
        [7, 3]
    """
    whole = math.fsum(ratio / max(ratios) for ratio in ratios)
    exact = [count * (ratio / max(ratios)) / whole for ratio in ratios]
    parts = [math.floor(part) for part in exact]
    by_rest = sorted(range(len(parts)), key=lambda k: parts[k] - exact[k])
    for k in by_rest[: count - sum(parts)]:
        parts[k] += 1
    return parts


def learning_rate(stage: Stage, iteration: int, per_epoch: int) -> float:
    """The rate of an iteration of a stage, counted from 0; `per_epoch` iterations make an epoch."""
    if stage.schedule == "cosine":
        factor = (1 + math.cos(math.pi * iteration / (stage.epochs * per_epoch))) / 2
    else:
        factor = stage.lr_decay ** (iteration // per_epoch // stage.lr_decay_every)
    return stage.lr * factor * min(1.0, (iteration + 1) / (stage.warmup + 1))
