"""The processes that read images for a data loader."""

from __future__ import annotations

import signal

import torch

from jaa_ext.device import processors, started_by_torchrun


def reading_workers(workers: int | None, device: torch.device) -> int:
    """Processes that read images for this one.

    None: with a GPU an equal share of the machine's processors, up to 16; else 0.
    """
    if workers is not None:
        return workers
    _, here = started_by_torchrun()
    return min(16, max(1, processors() // here)) if device.type == "cuda" else 0


def ignore_interrupts(worker: int) -> None:
    """For the data loader's workers: Ctrl-C reaches them too, but the iteration under way needs them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
