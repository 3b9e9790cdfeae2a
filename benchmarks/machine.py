"""The machine as a run sees it: processor, GPU, limits, and a lesser instruction set that the run is held to.

``python benchmarks/machine.py FILE`` writes them all to a JSON file.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from roofline import measure

from jaa_ext import _library

DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() and "cuda" in _library.DEVICES else [])
LOAD_AT_START = os.getloadavg()[0]

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
            f"zen4-2cores-{kernels()['cpu_level']}-forced.json"
        )
    if not forced() and "forced" in path.stem:
        raise ValueError(f"{path}: has forced in its name, but none of {', '.join(FORCING)} is set")


def processor() -> dict[str, Any]:
    """Facts for a file of results."""
    return {
        "cpu": cpu_name(),
        "cpu_count": os.cpu_count(),
        "cpu_level": kernels()["cpu_level"],
        **({"forced": forced()} if forced() else {}),
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
    }


def kernels() -> dict[str, Any]:
    """What the compiled kernels tell of themselves."""
    from jaa_ext import _C

    return dict(_C.build_info())


def cpu_name() -> str:
    """As the kernel has it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def facts() -> dict[str, Any]:
    """Of the whole machine, its limits measured now (`roofline`)."""
    level = kernels()["cpu_level"]
    return {
        **processor(),
        **gpu_facts(),
        "load_at_start": round(LOAD_AT_START, 2),
        "system": platform.system(),
        "python": platform.python_version(),
        "compiler": kernels()["compiler"],
        "roofline": {device: measure(device, level, forced=bool(forced())) for device in DEVICES},
    }


def gpu_facts() -> dict[str, str | None]:
    if "cuda" not in DEVICES:
        return {"gpu": None}
    driver = "unknown"
    if shutil.which("nvidia-smi"):
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
        driver = subprocess.run(asked, capture_output=True, text=True).stdout.strip()
    return {"gpu": torch.cuda.get_device_name(), "driver": driver, "cuda": torch.version.cuda}


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(facts(), indent=1) + "\n", encoding="utf-8")
