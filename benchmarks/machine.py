"""The processor as a run sees it: its instruction set, or a lesser one that the run is held to."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import torch

from jaa_ext import _C

FORCING = ("JAA_EXT_CPU", "ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY")
"""Environment variables that name a lesser instruction set: for jaa_ext, oneDNN, and PyTorch's own loops."""


def forced() -> str:
    """The variables that are set, as before a command; empty where the processor does what it can."""
    return " ".join(f"{name}={os.environ[name]}" for name in FORCING if os.environ.get(name))


def require_name(path: Path) -> None:
    """Raise a `ValueError` if the name of a file of results hides that the run is forced, or claims it."""
    if forced() and "forced" not in path.stem:
        raise ValueError(
            f"{path}: the name of results under {forced()} must have forced in it, such as "
            f"zen4-2cores-{_C.build_info()['cpu_level']}-forced.json"
        )
    if not forced() and "forced" in path.stem:
        raise ValueError(f"{path}: has forced in its name, but none of {', '.join(FORCING)} is set")


def processor() -> dict[str, Any]:
    """Facts for a file of results."""
    return {
        "cpu": cpu_name(),
        "cpu_count": os.cpu_count(),
        "cpu_level": _C.build_info()["cpu_level"],
        **({"forced": forced()} if forced() else {}),
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
    }


def cpu_name() -> str:
    """As the kernel has it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
