"""The worker processes of data loaders."""

from __future__ import annotations

import signal

import torch

from jaa_ext.device import processors, started_by_torchrun


def reading_workers(workers: int | None, device: torch.device) -> int:
    """Choose how many worker processes a data loader of this process has.

    Args:
        workers: the number asked for. None: with a GPU an equal share of the machine's processors, at most
            16; else 0.
        device: where the model computes.
    """
    if workers is not None:
        return workers
    _, here = started_by_torchrun()
    return min(16, max(1, processors() // here)) if device.type == "cuda" else 0


def ignore_interrupts(worker: int) -> None:
    """Ignore Ctrl-C in a data loader's worker, which the iteration under way still needs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
