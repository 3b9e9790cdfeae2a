"""Where and how training computes: the device, the same bits every time, and Ctrl-C."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning_fabric import Fabric

from jaa_ext.device import resolve_device


def make_fabric(device: str, precision: Any) -> Fabric:
    """Lightning Fabric on one device, see `resolve_device`."""
    chosen = resolve_device(device)
    return Fabric(
        accelerator=chosen.type,
        devices=1 if chosen.type == "cpu" else [chosen.index or 0],
        precision=precision,
    )


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
