"""Devices and processors at hand, and the precisions in which they are fast."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import torch

from jaa_ext import _library


def processors() -> int:
    """Count the processors that this process may use, on a cluster often fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def resolve_device(device: str | torch.device) -> torch.device:
    """Turn "auto" (the first GPU if there is one), "cpu", "cuda" or "cuda:1" into a device.

    Raises:
        ValueError: another word, or a GPU that is not there.

    Example:
        >>> resolve_device("cpu")
        device(type='cpu')
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
    """Tell whether a device multiplies bfloat16 natively.

    NVIDIA GPUs do from Ampere on. Processors do with AVX512-BF16 (which those with AMX have too), if the
    build of jaa_ext uses it and neither JAA_EXT_CPU nor ONEDNN_MAX_CPU_ISA forces a lower level.

    AVX-512 alone is not enough, although oneDNN then computes bfloat16 as well: JAA-Net takes 2.7 times as
    long as in float32 (Zen 4 with ONEDNN_MAX_CPU_ISA=AVX512_CORE_VNNI), and with AVX2 5 (Zen 4) to 28 times
    (Zen 3).
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if not _library.DEVICES:
        return False
    from jaa_ext import _C

    # torch's own test respects ONEDNN_MAX_CPU_ISA (formerly DNNL_MAX_CPU_ISA), but is content with AVX-512.
    one_dnn = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)  # private: torch may drop it
    forced = os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or ""
    return (
        _C.build_info()["cpu_level"] == "avx512_bf16"
        and one_dnn is not None
        and bool(one_dnn())
        and forced.upper() not in ("AVX512_CORE", "AVX512_CORE_VNNI")
    )


def is_fastest_in_bfloat16(device: torch.device) -> bool:
    """Tell whether prediction is faster in bfloat16: on a GPU that multiplies it natively, or with AMX.

    With AVX512-BF16 alone float32 is faster, since its convolutions take a quarter of the multiplications
    (`jaa_ext.ops.conv3x3`): 83 ms a face against 103 (one core of Zen 4, the papers' network).
    """
    amx = getattr(torch.cpu, "_is_amx_tile_supported", None)  # private: torch may drop it
    return has_bfloat16(device) and (device.type == "cuda" or (amx is not None and bool(amx())))


def float32_instead(device: torch.device) -> bool:
    """Tell whether float32 is used where bfloat16 is asked for.

    It is on a device that does not multiply bfloat16 natively, unless the environment variable
    JAA_SLOW_BFLOAT16 is 1.
    """
    return not has_bfloat16(device) and os.environ.get("JAA_SLOW_BFLOAT16") != "1"


def warn_of_float32_instead(device: torch.device) -> None:
    """Warn that float32 is used in place of bfloat16, in the main process alone."""
    if not is_main_process():
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
    """Warn once if torch has one thread though there are several processors and the user did not ask for it.

    Some packages set this for the whole process when they are imported.
    """
    several = processors()
    if device.type != "cpu" or torch.get_num_threads() > 1 or several == 1 or "one thread" in warned:
        return
    start = environment_at_start()
    asked_for = (start.get(name, "") for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"))
    if any(threads.split(",")[0].strip() == "1" for threads in asked_for):
        return
    warned.add("one thread")
    warnings.warn(
        f"torch has 1 thread though this process may use {several} processors, which is slow; a package set "
        f"it so (py-feat does when imported): torch.set_num_threads({several}) gives it all of them",
        stacklevel=3,
    )


def environment_at_start() -> dict[str, str]:
    """Give the environment as the user set it; packages change `os.environ`, as py-feat does
    OMP_NUM_THREADS."""
    try:
        lines = os.fsdecode(Path("/proc/self/environ").read_bytes()).split("\0")
    except OSError:
        return dict(os.environ)
    return dict(line.split("=", 1) for line in lines if "=" in line)


def started_by_torchrun() -> tuple[int, int]:
    """Count the processes of the run, on all machines and on this one; (1, 1) without torchrun."""
    if not (torch.distributed.is_available() and torch.distributed.is_torchelastic_launched()):
        return 1, 1
    return int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])


def is_main_process() -> bool:
    """Tell whether this process is the one that speaks of those that torchrun has started, if it has."""
    processes, _ = started_by_torchrun()
    return processes == 1 or os.environ["RANK"] == "0"


warned: set[str] = set()
