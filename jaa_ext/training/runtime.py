"""How training runs: on which devices, with the same bits every time, and what Ctrl-C does."""

from __future__ import annotations

import atexit
import gc
import inspect
import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch.nn.parallel import DistributedDataParallel

from jaa_ext.device import resolve_device, started_by_torchrun
from jaa_ext.distributed import TIMEOUT
from jaa_ext.training.precision import precision_on


def make_fabric(device: str, precision: Any) -> Fabric:
    """Lightning Fabric on one device, see `resolve_device`; launched, with DDP, in a process of several.

    Of several processes each has a GPU of its own (communicating by NCCL), or all are on the CPU (gloo).

    Args:
        precision: a recipe's; the one used is its `precision_on` the device.

    Raises:
        ValueError: a device that is not there, one that several processes cannot have, or one without the
            precision.
        SystemExit: the same, in all processes of a machine but one, which has said so.
    """
    count, here = started_by_torchrun()
    if count == 1:
        chosen = resolve_device(device)
        _require_precision(precision, chosen)
        return Fabric(
            accelerator=chosen.type,
            devices=1 if chosen.type == "cpu" else [chosen.index or 0],
            precision=precision_on(chosen, precision),
        )
    try:
        chosen = _device_of_several(device, count, here)
        _require_precision(precision, chosen)
    except ValueError:
        if os.environ["LOCAL_RANK"] != "0":  # the processes do not know of each other yet
            raise SystemExit(2) from None
        raise
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it tells that it begins
    # Buffers are the trainer's to keep alike: DDP would send them in every iteration. The option has
    # another name from torch 2.13 on.
    known = inspect.signature(DistributedDataParallel).parameters
    sending = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    options: dict[str, Any] = {"timeout": TIMEOUT, sending: False}
    fabric = Fabric(
        accelerator=chosen.type,
        devices=here,
        num_nodes=count // here,
        strategy=DDPStrategy(**options),
        precision=precision_on(chosen, precision),
    )
    if not torch.distributed.is_initialized():
        atexit.register(_leave)
    fabric.launch()
    return fabric


def _require_precision(precision: Any, device: torch.device) -> None:
    # Fabric would train in bfloat16 without a word.
    if precision == "16-mixed" and device.type == "cpu":
        raise ValueError('precision "16-mixed" needs a GPU; on a CPU choose "32-true" or "bf16-mixed"')


def _device_of_several(device: str, count: int, here: int) -> torch.device:
    if ":" in device:
        raise ValueError(
            f'device must be "auto", "cpu" or "cuda" for {count} processes, each of which has its own GPU, '
            f'got "{device}"'
        )
    chosen = resolve_device(device)
    if chosen.type == "cuda" and here > torch.cuda.device_count():
        raise ValueError(
            f"the {here} processes of this machine want a GPU each, CUDA devices found: "
            f"{torch.cuda.device_count()}"
        )
    if count != here * int(os.environ.get("GROUP_WORLD_SIZE", count // here)):
        raise ValueError(
            f"every machine must have as many processes (--nproc-per-node), got {here} of {count} on this one"
        )
    return chosen


def _leave() -> None:
    """Gloo's threads must have ended before the process does, or they abort it."""
    if torch.distributed.is_initialized():
        gc.collect()  # a model or loader in a cycle would keep the group, and so its threads
        torch.distributed.destroy_process_group()


@contextmanager
def deterministic() -> Iterator[None]:
    """The same bits from run to run, on a GPU too; a warning names an operation that cannot."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    settings: Any = torch.utils.deterministic
    mode, fill = torch.get_deterministic_debug_mode(), settings.fill_uninitialized_memory
    torch.set_deterministic_debug_mode("warn")
    settings.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)
        settings.fill_uninitialized_memory = fill


@contextmanager
def interruptible(patient: bool = False) -> Iterator[threading.Event]:
    """Ctrl-C sets the event, so that an iteration can end whole; a second one interrupts as usual.

    Args:
        patient: do not heed a second one. torchrun sends one to each process beside the terminal's, and ends
            those that take too long.
    """
    pressed = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield pressed  # only the main thread may handle signals
        return
    former = signal.getsignal(signal.SIGINT)

    def handle(number: int, frame: Any) -> None:
        pressed.set()
        if not patient:
            signal.signal(signal.SIGINT, former)

    signal.signal(signal.SIGINT, handle)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, former)
