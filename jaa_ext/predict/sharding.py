"""The processes of `torchrun` that share the inputs of a prediction."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.nn.functional as F
from torch import distributed

from jaa_ext.device import started_by_torchrun

LONGEST_WAIT = timedelta(days=7)
"""For the slowest process; one that fails ends all others at once, by `torchrun`."""


@dataclass(frozen=True)
class Sharers:
    """This process among those of a run."""

    rank: int
    number: int

    @classmethod
    @contextmanager
    def joined(cls) -> Iterator[Sharers]:
        """Those that `torchrun` started; else this one alone."""
        number, _ = started_by_torchrun()
        if distributed.is_available() and distributed.is_initialized():
            yield cls(distributed.get_rank(), distributed.get_world_size())
            return
        if number == 1:
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
        """What each process gives, by rank; of what JSON knows."""
        if self.number == 1:
            return [what]
        # As JSON: torch's own way would run whatever code the other side sends.
        mine = torch.tensor(list(json.dumps(what).encode()), dtype=torch.uint8)
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.number)]
        distributed.all_gather(sizes, torch.tensor([len(mine)]))
        parts = [torch.empty(int(max(sizes)), dtype=torch.uint8) for _ in sizes]
        distributed.all_gather(parts, F.pad(mine, (0, len(parts[0]) - len(mine))))
        texts = (bytes(part[: int(size)].tolist()) for part, size in zip(parts, sizes, strict=True))
        return [json.loads(text) for text in texts]


def local_device(device: str) -> str:
    """Of several processes on a machine with GPUs each takes one, unless a number says which."""
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if device in ("auto", "cuda") and local_rank > 0 and torch.cuda.is_available():
        return f"cuda:{local_rank % torch.cuda.device_count()}"
    return device
