"""What there is to compute with: devices, what they are fast in, processors and processes."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import torch

from jaa_ext import _library


def processors() -> int:
    """Number of processors that this process may use, on a cluster often fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def resolve_device(device: str | torch.device) -> torch.device:
    """Give the device of "auto" (the first GPU if there is one), "cpu", "cuda" or "cuda:1", or of itself.

    Raises:
        ValueError: another word, or a GPU that is not there.
    """
    if isinstance(device, torch.device):
        return device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = device.partition(":")
    if device != "cpu" and (kind != "cuda" or (number and not number.isdecimal())):
        raise ValueError(f'device must be "auto", "cpu", "cuda" or "cuda:<number>", got "{device}"')
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise ValueError(f'device "{device}" is not there: CUDA devices found: {torch.cuda.device_count()}')
    return torch.device(f"cuda:{number}" if number else kind)


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 natively: an NVIDIA GPU from Ampere on, or a processor with
    AVX512-BF16 (those with AMX have it too) whose levels are not forced below it by JAA_EXT_CPU or
    ONEDNN_MAX_CPU_ISA, and a build of jaa_ext that uses it.

    AVX-512 alone is not enough, though torch then computes bfloat16 by oneDNN as well: JAA-Net takes 2.7
    times as long as in float32 (Zen 4 with oneDNN held to AVX512_CORE_VNNI), by AVX2 5 (Zen 4) to 28 times
    (Zen 3).
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if not _library.DEVICES:
        return False
    from jaa_ext import _C

    # torch's word heeds ONEDNN_MAX_CPU_ISA (of old, DNNL_MAX_CPU_ISA), but takes AVX-512 for enough.
    one_dnn = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)  # which torch may lack
    forced = os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or ""
    return (
        _C.build_info()["cpu_level"] == "avx512_bf16"
        and one_dnn is not None
        and bool(one_dnn())
        and forced.upper() not in ("AVX512_CORE", "AVX512_CORE_VNNI")
    )


def is_fastest_in_bfloat16(device: torch.device) -> bool:
    """Whether prediction is faster in bfloat16 than in float32: on a GPU that multiplies it natively, on a
    processor if that has AMX.

    With AVX512-BF16 alone float32 is faster, whose convolutions take a quarter of the multiplications
    (`jaa_ext.ops.conv3x3`): 83 ms a face against 103 (one core of Zen 4, papers' network).
    """
    amx = getattr(torch.cpu, "_is_amx_tile_supported", None)  # which torch may lack
    return has_bfloat16(device) and (device.type == "cuda" or (amx is not None and bool(amx())))


def float32_instead(device: torch.device) -> bool:
    """Whether float32 takes the place of bfloat16 where that is asked for: on a device that does not multiply
    it natively, unless the environment variable JAA_SLOW_BFLOAT16 is 1."""
    return not has_bfloat16(device) and os.environ.get("JAA_SLOW_BFLOAT16") != "1"


def warn_of_float32_instead(device: torch.device) -> None:
    """Say why, in the first process of `torchrun` alone."""
    several, _ = started_by_torchrun()
    if several > 1 and os.environ["RANK"] != "0":
        return
    if device.type == "cuda":
        why = "this GPU does not multiply bfloat16 natively (those from Ampere on do)"
    else:
        what = "this processor" if _library.DEVICES else "jaa_ext without compiled kernels"
        why = (
            f"{what} does not multiply bfloat16 natively (that takes AVX512-BF16 or AMX), and JAA-Net was "
            "measured to take 28 times as long in it as in float32 with AVX2, 2.7 times with AVX-512"
        )
    warnings.warn(
        f"{why}: float32 is used instead; the environment variable JAA_SLOW_BFLOAT16=1 insists on bfloat16",
        stacklevel=3,
    )


def warn_of_one_thread(device: torch.device) -> None:
    """Say once if torch has one thread on a processor of several cores though the user did not ask for it:
    some packages set that for the whole process when they are imported."""
    several = processors()
    if device.type != "cpu" or torch.get_num_threads() > 1 or several == 1 or "one thread" in _said:
        return
    start = _environment_at_start()
    asked_for = (start.get(name, "") for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"))
    if any(threads.split(",")[0].strip() == "1" for threads in asked_for):
        return
    _said.add("one thread")
    warnings.warn(
        f"torch has 1 thread though this process may use {several} processors, which is slow; a package set "
        f"it so (py-feat does when imported): torch.set_num_threads({several}) gives it all of them",
        stacklevel=3,
    )


def _environment_at_start() -> dict[str, str]:
    """As the user gave it. `os.environ` also has what packages put there: py-feat sets OMP_NUM_THREADS."""
    try:
        lines = os.fsdecode(Path("/proc/self/environ").read_bytes()).split("\0")
    except OSError:
        return dict(os.environ)
    return dict(line.split("=", 1) for line in lines if "=" in line)


def started_by_torchrun() -> tuple[int, int]:
    """Processes of the run on all machines, and on this one; (1, 1) without torchrun."""
    if not (torch.distributed.is_available() and torch.distributed.is_torchelastic_launched()):
        return 1, 1
    return int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])


_said: set[str] = set()
