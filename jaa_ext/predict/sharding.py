"""The processes of `torchrun` that share the inputs of a prediction."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import distributed

LONGEST_WAIT = timedelta(days=7)
"""For the slowest process; one that fails ends all others at once, by `torchrun`."""


@dataclass(frozen=True)
class Processes:
    """This process among those of a run."""

    rank: int
    number: int

    @classmethod
    @contextmanager
    def joined(cls) -> Iterator[Processes]:
        """Those that `torchrun` started; else this one alone."""
        number = int(os.environ.get("WORLD_SIZE", "1"))
        if number == 1 or distributed.is_initialized():
            yield cls(0, 1)
            return
        distributed.init_process_group("gloo", timeout=LONGEST_WAIT)
        try:
            yield cls(distributed.get_rank(), number)
        finally:
            distributed.destroy_process_group()

    def wait(self) -> None:
        """Until all have come this far."""
        if self.number > 1:
            distributed.barrier()

    def gather(self, what: dict[str, Any]) -> list[dict[str, Any]]:
        """What each process gives, by rank."""
        if self.number == 1:
            return [what]
        everything: list[Any] = [None] * self.number
        distributed.all_gather_object(everything, what)
        return everything


def local_device(device: str) -> str:
    """Of several processes on a machine with GPUs each takes one, unless a number says which."""
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if device in ("auto", "cuda") and local_rank > 0 and torch.cuda.is_available():
        return f"cuda:{local_rank % torch.cuda.device_count()}"
    return device
