"""The processes that read images."""

import torch

from jaa_ext.data import workers


def test_of_several_processes_each_reads_with_its_share_of_the_processors(monkeypatch):
    monkeypatch.setattr(workers, "processors", lambda: 12)
    gpu = torch.device("cuda")
    assert workers.started_by_torchrun() == (1, 1)
    assert workers.reading_workers(None, gpu) == 12
    monkeypatch.setattr(workers, "started_by_torchrun", lambda: (8, 4))
    assert workers.reading_workers(None, gpu) == 3
    assert workers.reading_workers(5, gpu) == 5  # what was asked for
    assert workers.reading_workers(None, torch.device("cpu")) == 0
