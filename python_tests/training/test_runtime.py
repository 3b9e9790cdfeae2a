"""The process that trains."""

import ctypes
import signal
import subprocess
import sys

import pytest
import torch

from jaa_ext.training import runtime

PAGE_FAULTS = f"""
import resource, sys, torch
from {runtime.__name__} import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(24):
    torch.ones(16 * 2**20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library has no mallopt")
def test_freed_memory_is_not_cleared_page_by_page_again():
    def faults(argument):
        run = [sys.executable, "-c", PAGE_FAULTS, argument]
        return int(subprocess.run(run, capture_output=True, text=True, check=True).stdout)

    # The heap grows for the first tensors, until an aligned block fits.
    assert 3 * faults("keep") < faults("default")


def test_of_several_processes_each_reads_with_its_share_of_the_processors(monkeypatch):
    monkeypatch.setattr(runtime, "processors", lambda: 12)
    gpu = torch.device("cuda")
    assert runtime.started_by_torchrun() == (1, 1)
    assert runtime.reading_workers(None, gpu) == 12
    monkeypatch.setattr(runtime, "started_by_torchrun", lambda: (8, 4))
    assert runtime.reading_workers(None, gpu) == 3
    assert runtime.reading_workers(5, gpu) == 5  # what was asked for
    assert runtime.reading_workers(None, torch.device("cpu")) == 0


@pytest.mark.parametrize(
    ("devices", "counts", "message"),
    [
        (2, (4, 4), "the 4 processes of this machine want a GPU each, CUDA devices found: 2"),
        (
            4,
            (3, 2),
            r"every machine must have as many processes \(--nproc-per-node\), got 2 of 3 on",
        ),
    ],
)
def test_each_process_wants_a_gpu_of_its_own(monkeypatch, devices, counts, message):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
    monkeypatch.setattr(runtime, "started_by_torchrun", lambda: counts)
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(ValueError, match=message):
        runtime.make_fabric("cuda", "32-true")
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(SystemExit):
        runtime.make_fabric("cuda", "32-true")


def test_a_second_ctrl_c_interrupts_unless_torchrun_sent_it(request):
    # A shell that starts the tests in the background has them ignore Ctrl-C.
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, former))
    with runtime.interruptible(patient=True) as pressed:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert pressed.is_set()
    with pytest.raises(KeyboardInterrupt), runtime.interruptible() as pressed:
        signal.raise_signal(signal.SIGINT)
        assert pressed.is_set()
        signal.raise_signal(signal.SIGINT)
