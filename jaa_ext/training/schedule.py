"""What each iteration of training is given: its samples and its learning rate."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from jaa_ext.distributed import shares
from jaa_ext.recipes.schema import Stage


class Batches(Sampler[list[tuple[int, int]]]):
    """Batches of indices (epoch, i), every sample once an epoch, in an order drawn from (seed, epoch).

    Epochs count over all stages of a recipe. The last batch of an epoch is smaller where the sizes do not
    divide; where it would be a single sample, no base for batch norm statistics, it is left out.

    Args:
        samples: in the training set.
        batch_size: of all processes together.
        seed: of the order.
        processes: how many train together; iterating gives what one of them has of each batch, see `shares`.
        rank: which of them.

    Raises:
        ValueError: too few samples, or more processes than samples in a batch.
    """

    def __init__(
        self, samples: int, batch_size: int, seed: int, *, processes: int = 1, rank: int = 0
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
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.samples).tolist()
        for batch in range(start, len(self)):
            picked = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield [(self.epoch, i) for i in picked]


def learning_rate(stage: Stage, iteration: int, per_epoch: int) -> float:
    """The rate of an iteration of a stage, counted from 0; `per_epoch` iterations make an epoch."""
    if stage.schedule == "cosine":
        factor = (1 + math.cos(math.pi * iteration / (stage.epochs * per_epoch))) / 2
    else:
        factor = stage.lr_decay ** (iteration // per_epoch // stage.lr_decay_every)
    return stage.lr * factor * min(1.0, (iteration + 1) / (stage.warmup + 1))
