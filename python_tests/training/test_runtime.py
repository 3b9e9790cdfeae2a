"""The process that trains."""

import signal

import pytest
import torch

from jaa_ext.training import runtime


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
