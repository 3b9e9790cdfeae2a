import signal

import pytest
import torch

from jaa_ext.data import workers
from jaa_ext.data.workers import ignore_interrupts, reading_workers


@pytest.mark.parametrize(
    ("processors", "processes", "expected"), [(8, 1, 8), (8, 3, 2), (64, 2, 16), (2, 4, 1)]
)
def test_processes_share_the_processors(monkeypatch, processors, processes, expected):
    monkeypatch.setattr(workers, "processors", lambda: processors)
    monkeypatch.setattr(workers, "started_by_torchrun", lambda: (processes, processes))
    assert reading_workers(None, torch.device("cuda")) == expected
    assert reading_workers(None, torch.device("cpu")) == 0
    assert reading_workers(5, torch.device("cpu")) == reading_workers(5, torch.device("cuda")) == 5


def test_workers_ignore_ctrl_c():
    former = signal.getsignal(signal.SIGINT)
    try:
        ignore_interrupts(0)
        signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, former)
