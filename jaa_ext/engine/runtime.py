"""Where and how training computes: the device, the same bits every time, and Ctrl-C."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning_fabric import Fabric

from jaa_ext.device import processors, resolve_device


def make_fabric(device: str, precision: Any) -> Fabric:
    """Lightning Fabric on one device, see `resolve_device`."""
    chosen = resolve_device(device)
    return Fabric(
        accelerator=chosen.type,
        devices=1 if chosen.type == "cpu" else [chosen.index or 0],
        precision=precision,
    )


def reading_workers(workers: int | None, device: torch.device) -> int:
    """Processes that read images. None: with a GPU one for each processor, up to 16; else 0."""
    if workers is not None:
        return workers
    return min(16, processors()) if device.type == "cuda" else 0


def keep_freed_memory() -> None:
    """Let the C library keep freed memory for the next tensors; does nothing where it is not glibc.

    glibc gives blocks of more than 32 MB, and the end of the heap, back to the kernel, which clears every
    page of them when the next tensor asks for it. Batch 8 on two Zen 5 cores in float32: inference takes 303
    ms instead of 317, a training step 1087 instead of 1117. It holds for the whole process: for programs, not
    for libraries.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(-4, 0)  # M_MMAP_MAX: no blocks of their own for large tensors
    mallopt(-1, -1)  # M_TRIM_THRESHOLD: the heap never shrinks


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
def interruptible() -> Iterator[threading.Event]:
    """Ctrl-C sets the event, so that an iteration can end whole; a second one interrupts as usual."""
    pressed = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield pressed  # only the main thread may handle signals
        return
    former = signal.getsignal(signal.SIGINT)

    def handle(number: int, frame: Any) -> None:
        pressed.set()
        signal.signal(signal.SIGINT, former)

    signal.signal(signal.SIGINT, handle)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, former)


def ignore_interrupts(worker: int) -> None:
    """For the data loader's workers: Ctrl-C reaches them too, but the iteration under way needs them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
