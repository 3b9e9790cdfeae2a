"""Several processes, such as torchrun starts: what training and prediction share of them."""

from __future__ import annotations

import io
import itertools
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import pairwise
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from jaa_ext.device import started_by_torchrun

Value = TypeVar("Value")

TIMEOUT = timedelta(minutes=10)
"""How long a process that trains waits for another one that is still there."""

LONGEST_WAIT = timedelta(days=7)
"""How long a process that predicts waits for a slower one; torchrun ends all when one fails."""

_NUMBERS = itertools.count()
"""Numbers of the runs of several processes that this one takes part in."""


class Processes:
    """The processes of a run, as one of them sees them; where there is one only, nothing is communicated.

    Args:
        world_size: how many there are, on all machines; more than one need torch's default process group.
        rank: which of them this one is, from 0.
        timeout: how long they wait for each other.
    """

    def __init__(self, world_size: int = 1, rank: int = 0, timeout: timedelta = TIMEOUT) -> None:
        self.world_size, self.rank = world_size, rank
        # Words about the run go around on processors: a GPU is neither waited for nor asked for memory.
        self._group: Any = dist.new_group(backend="gloo", timeout=timeout) if world_size > 1 else None
        self._number = next(_NUMBERS) if world_size > 1 else 0
        self._spoken: bool | None = None

    @classmethod
    @contextmanager
    def of_torchrun(cls) -> Iterator[Processes]:
        """Join the processes of torchrun, in a group that ends with the block; else this one is alone.

        A process group that is there already is used, and stays.
        """
        world_size, _ = started_by_torchrun()
        if dist.is_available() and dist.is_initialized():
            yield cls(dist.get_world_size(), dist.get_rank(), LONGEST_WAIT)
        elif world_size == 1:
            yield cls()
        else:
            dist.init_process_group("gloo", timeout=LONGEST_WAIT)
            try:
                yield cls(world_size, dist.get_rank(), LONGEST_WAIT)
            finally:
                dist.destroy_process_group()

    @property
    def is_main_process(self) -> bool:
        """Whether this is the one that writes files and shows progress."""
        return self.rank == 0

    def gather(self, rows: Tensor, sizes: Sequence[int]) -> Tensor:
        """Gather the rows of all processes, (sum of sizes, ...), in the order of the processes.

        A gradient flows to this process' own rows only.

        Args:
            rows: (sizes[rank], ...), which may be none.
            sizes: how many rows each process has.
        """
        if self.world_size == 1:
            return rows
        # Collectives want tensors of one size.
        padded = rows.new_zeros((max(sizes), *rows.shape[1:]))
        padded[: len(rows)] = rows.detach()
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        parts = [part[:size] for part, size in zip(parts, sizes, strict=True)]
        parts[self.rank] = rows
        return torch.cat(parts)

    def gather_object(self, value: Value) -> list[Value]:
        """Gather the values of all processes, on the CPU, in the order of the processes."""
        if self.world_size == 1:
            return [value]
        mine = _packed(value)
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.world_size)]
        dist.all_gather(sizes, torch.tensor([len(mine)]), group=self._group)
        parts = [torch.empty(int(max(sizes)), dtype=torch.uint8) for _ in sizes]
        dist.all_gather(parts, F.pad(mine, (0, len(parts[0]) - len(mine))), group=self._group)
        return [_unpacked(part[: int(size)]) for part, size in zip(parts, sizes, strict=True)]

    def broadcast_object(self, value: Value) -> Value:
        """Give all processes the main process' value."""
        if self.world_size == 1:
            return value
        packed = _packed(value) if self.is_main_process else torch.empty(0, dtype=torch.uint8)
        size = torch.tensor([len(packed)])
        dist.broadcast(size, 0, group=self._group)
        if not self.is_main_process:
            packed = packed.new_empty(int(size))
        dist.broadcast(packed, 0, group=self._group)
        return _unpacked(packed)  # type: ignore[no-any-return]

    def barrier(self) -> None:
        """Wait until all processes have come this far."""
        if self.world_size > 1:
            dist.barrier(group=self._group)

    def any(self, flag: bool) -> bool:
        """Whether a flag is set in any process."""
        if self.world_size == 1:
            return flag
        flags = torch.tensor([int(flag)])
        dist.all_reduce(flags, dist.ReduceOp.MAX, group=self._group)
        return bool(flags)

    def broadcast_buffers(self, module: nn.Module) -> None:
        """Give all processes the main process' buffers."""
        if self.world_size > 1:
            for buffer in module.buffers():
                dist.broadcast(buffer, 0)

    @contextmanager
    def fail_together(self) -> Iterator[None]:
        """Run work that does not communicate: it ends well in all processes, or ends them all with its error.

        Raises:
            SystemExit: in a process whose own work went well, when another's did not.
        """
        if self.world_size == 1:
            yield
            return
        failure: Exception | None = None
        try:
            yield
        except Exception as error:
            failure = error
            self._may_speak()
        if self.any(failure is not None):
            raise failure or SystemExit(2)

    @contextmanager
    def raise_first_error(self) -> Iterator[None]:
        """Raise only the first of the errors that end the processes: the others follow from it.

        Raises:
            SystemExit: in a process that fails after another one.
            RuntimeError: the connection to another process is lost, and it left no word.
        """
        try:
            yield
        except Exception as error:
            if self.world_size > 1:
                if not self._may_speak():
                    raise SystemExit(2) from error
                if _is_of_connection(error):
                    raise RuntimeError(
                        "another process of this run is gone without a word: it was killed, or its machine "
                        f"is out of reach (process {self.rank} of {self.world_size} lost the connection)"
                    ) from error
            raise

    @contextmanager
    def warn_on_main_process(self) -> Iterator[None]:
        """Keep the warnings of all but the main process quiet."""
        if self.is_main_process:
            yield
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield

    def _may_speak(self) -> bool:
        """Whether this process is the first that failed."""
        if self._spoken is None:
            try:
                store = dist.distributed_c10d._get_default_store()
                self._spoken = store.add(f"jaa_ext: run {self._number} failed", 1) == 1
            except RuntimeError:  # torchrun, which keeps the store, has ended
                self._spoken = False
        return self._spoken


def _packed(value: Any) -> Tensor:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return torch.frombuffer(bytearray(buffer.getbuffer()), dtype=torch.uint8)


def _unpacked(packed: Tensor) -> Any:
    """Data alone: whoever reaches the port of a process must not run code in it."""
    return torch.load(io.BytesIO(packed.numpy().tobytes()), map_location="cpu", weights_only=True)


def require_one_process(what: str) -> None:
    """Refuse to run under torchrun.

    Args:
        what: begins the message.

    Raises:
        RuntimeError: there are several processes.
    """
    processes, _ = started_by_torchrun()
    if processes > 1:
        raise RuntimeError(
            f"{what} runs in one process, got {processes} of torchrun; `jaa train` can have several"
        )


def _is_of_connection(error: Exception) -> bool:
    # Gloo's errors have no type of their own, but all name the place in its sources.
    return isinstance(error, dist.DistError) or "/gloo/" in str(error)


def shares(length: int, processes: int) -> list[slice]:
    """Divide a sequence among processes into contiguous parts; the first ones may be longer by one."""
    each, more = divmod(length, processes)
    edges = [rank * each + min(rank, more) for rank in range(processes + 1)]
    return [slice(*edge) for edge in pairwise(edges)]


def local_device(device: str) -> str:
    """Give each of several processes on a machine with GPUs one of them, unless a number says which."""
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if device in ("auto", "cuda") and local_rank > 0 and torch.cuda.is_available():
        return f"cuda:{local_rank % torch.cuda.device_count()}"
    return device
