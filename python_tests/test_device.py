"""The words for devices, and how many processors there are."""

import os
import warnings

import pytest
import torch

from jaa_ext.device import processors, resolve_device, warn_of_slow_bfloat16


def test_the_first_gpu_if_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for count, chosen in ((0, "cpu"), (2, "cuda")):
        monkeypatch.setattr(torch.cuda, "device_count", lambda count=count: count)
        monkeypatch.setattr(torch.cuda, "is_available", lambda count=count: count > 0)
        assert resolve_device("auto") == torch.device(chosen)
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("cuda:1") == torch.device("cuda", 1)
    assert resolve_device(torch.device("meta")) == torch.device("meta")


def test_other_words_and_missing_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for word in ("gpu", "cpu:1", "cuda:x", ""):
        with pytest.raises(ValueError, match=f'"cuda:<number>", got "{word}"'):
            resolve_device(word)
    with pytest.raises(ValueError, match='device "cuda:2" is not there: CUDA devices found: 2'):
        resolve_device("cuda:2")


def test_processors_are_those_that_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 3, 5}, raising=False)
    assert processors() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert processors() == 1


def test_slow_bfloat16_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    with pytest.warns(
        UserWarning, match=r"no bfloat16 convolutions for this processor .* --x is faster here$"
    ):
        warn_of_slow_bfloat16(torch.device("cpu"), "--x")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    with pytest.warns(UserWarning, match=r"^this GPU does not multiply bfloat16 natively"):
        warn_of_slow_bfloat16(torch.device("cuda"), "--x")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for device in ("cpu", "cuda"):
            warn_of_slow_bfloat16(torch.device(device), "--x")
