"""How the benchmarks time a GPU, on one that only takes notes."""

import time

import pytest
import torch
from comparison import DeviceClock


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the GPU was asked for, in order."""
    asked: list[str] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            asked.append("record")
            self.time = time.perf_counter()

        def elapsed_time(self, end: "Event") -> float:
            return (end.time - self.time) * 1e3

    class Memory:
        def sum(self) -> None:
            asked.append("empty the cache")

    def ones(size: int, device: str) -> Memory:
        assert (size, device) == (2**20, "cuda")
        return Memory()

    properties = type("Properties", (), {"L2_cache_size": 2**20})
    monkeypatch.setattr(torch, "ones", ones)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: asked.append("wait"))
    monkeypatch.setattr(torch.cuda, "_sleep", lambda cycles: asked.append(f"sleep {cycles}"))
    return asked


def test_a_head_start_hides_launching(notes: list[str]) -> None:
    DeviceClock().seconds(lambda: notes.append("call"), 1e-3)
    assert notes == ["empty the cache", "wait", "sleep 2000000", "record", "call", "record", "wait"]


def test_without_one_the_device_is_idle_at_the_start(notes: list[str]) -> None:
    seconds = DeviceClock().seconds(lambda: (notes.append("call"), time.sleep(0.02)), 0)
    assert notes == ["empty the cache", "wait", "record", "call", "record", "wait"]
    assert 0.02 <= seconds < 1


def test_the_head_start_is_longer_than_queueing(notes: list[str]) -> None:
    assert DeviceClock().head_start(lambda: time.sleep(0.02)) >= 0.04
