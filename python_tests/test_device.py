"""The words for devices, and how many processors there are."""

import os
import subprocess
import sys
import warnings

import pytest
import torch

from jaa_ext import _C, device
from jaa_ext.device import (
    float32_instead,
    has_bfloat16,
    is_fastest_in_bfloat16,
    processors,
    resolve_device,
    warn_of_float32_instead,
    warn_of_one_thread,
)
from jaa_ext.models import JAANet, JAANetConfig
from jaa_ext.predict import Predictor


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


def test_one_thread_of_several_processors_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "warned", set())
    monkeypatch.setattr(device, "processors", lambda: 8)
    monkeypatch.setattr(device, "environment_at_start", lambda: {"OMP_NUM_THREADS": "4"})
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    model = JAANet(JAANetConfig.journal((1, 12), image_size=64, width=1))
    with pytest.warns(UserWarning, match=r"1 thread .* 8 processors, .* torch.set_num_threads\(8\)") as told:
        Predictor(model, detector=lambda image: [], device="cpu")
        Predictor(model, detector=lambda image: [], device="cpu")
    assert len(told) == 1
    assert told[0].filename == __file__  # the line that made the predictor


@pytest.mark.parametrize(
    "threads, several, start, kind",
    [
        (2, 8, {}, "cpu"),
        (1, 1, {}, "cpu"),
        (1, 8, {}, "cuda"),
        (1, 8, {"OMP_NUM_THREADS": "1"}, "cpu"),
        (1, 8, {"OMP_NUM_THREADS": "1,2"}, "cpu"),
        (1, 8, {"MKL_NUM_THREADS": " 1"}, "cpu"),
    ],
)
def test_one_thread_that_is_right_or_asked_for_is_not_told(
    threads: int, several: int, start: dict[str, str], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "warned", set())
    monkeypatch.setattr(device, "processors", lambda: several)
    monkeypatch.setattr(device, "environment_at_start", lambda: start)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_one_thread(torch.device(kind))


@pytest.mark.skipif(not os.path.exists("/proc/self/environ"), reason="only there the two can be told apart")
def test_what_a_package_put_into_the_environment_was_not_asked_for() -> None:
    # As py-feat does it, before torch is imported.
    program = """if True:
        import os, sys
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        import torch
        from jaa_ext import device
        assert torch.get_num_threads() == 1
        device.processors = lambda: 8
        device.warn_of_one_thread(torch.device("cpu"))"""
    for asked_for in (False, True):
        environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
        environment |= {"OMP_NUM_THREADS": "1"} if asked_for else {}
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert ("torch has 1 thread" in done.stderr) is not asked_for


@pytest.fixture
def native(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor with AVX512-BF16 and a GPU of Ampere's, whatever is there."""
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "JAA_SLOW_BFLOAT16"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(_C, "build_info", lambda: {"cpu_level": "avx512_bf16"})
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))


def test_where_bfloat16_is_the_faster_type(native: None, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    for amx in (False, True):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda amx=amx: amx)
        assert is_fastest_in_bfloat16(cpu) is amx and is_fastest_in_bfloat16(gpu)
    monkeypatch.setattr(_C, "build_info", lambda: {"cpu_level": "avx2"})
    assert not is_fastest_in_bfloat16(cpu)


def test_what_multiplies_bfloat16(native: None, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert has_bfloat16(cpu) and has_bfloat16(gpu) and not float32_instead(cpu)
    lesser = {
        "no kernels": (device._library, "DEVICES", frozenset()),
        "oneDNN without": (torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False),
        "JAA_EXT_CPU=avx512": (_C, "build_info", lambda: {"cpu_level": "avx512"}),
    }
    for what, change in lesser.items():
        with monkeypatch.context() as changed:
            changed.setattr(*change)
            assert not has_bfloat16(cpu) and has_bfloat16(gpu), what
    for variable in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        for level, enough in {
            "avx512_core_vnni": False,
            "AVX512_CORE": False,
            "AVX512_CORE_BF16": True,
        }.items():
            with monkeypatch.context() as changed:
                changed.setenv(variable, level)
                assert has_bfloat16(cpu) is enough, level
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert not has_bfloat16(gpu) and float32_instead(gpu)
    monkeypatch.setenv("JAA_SLOW_BFLOAT16", "1")
    assert not has_bfloat16(gpu) and not float32_instead(gpu)


@pytest.mark.parametrize("forced", ["JAA_EXT_CPU", "ONEDNN_MAX_CPU_ISA"])
def test_a_processor_forced_to_less_has_no_bfloat16(forced: str) -> None:
    if not has_bfloat16(torch.device("cpu")):
        pytest.skip("nor has this processor")
    program = (
        "import torch; from jaa_ext.device import has_bfloat16; print(has_bfloat16(torch.device('cpu')))"
    )
    environment = {**os.environ, forced: "avx2"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


def test_the_first_process_says_why_it_takes_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    with pytest.warns(
        UserWarning, match=r"^this processor does not multiply bfloat16 natively .* 28 times .*: f"
    ):
        warn_of_float32_instead(cpu)
    with pytest.warns(UserWarning, match=r"^this GPU .*: float32 is used .*=1 insists"):
        warn_of_float32_instead(torch.device("cuda"))
    monkeypatch.setattr(device, "started_by_torchrun", lambda: (2, 2))
    for rank in (0, 1):
        monkeypatch.setenv("RANK", str(rank))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            warn_of_float32_instead(cpu)
        assert len(caught) == (rank == 0)
