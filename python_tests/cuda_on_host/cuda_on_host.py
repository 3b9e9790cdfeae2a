"""Compiles the CUDA kernels' own code for the CPU and calls it."""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor

SOURCES = Path(__file__).parent
CSRC = SOURCES.parents[1] / "csrc"
LIBRARY_VARIABLE = "JAA_EXT_CUDA_ON_HOST"  # names a library that is already built, with sanitizers

# Threads forwards or backwards, and at most so many blocks: kernels loop over the rest.
SCHEDULES = {"forwards": (False, 1 << 20), "backwards": (True, 1 << 20), "as one block": (False, 1)}
# Sanitizers see overruns and races in whatever order; one block has them all.
SANITIZED_SCHEDULES = ["as one block"]


def build(folder: Path, *sanitizers: str) -> Path:
    """The shared library of the kernels, in `folder`; what runs them (*.cpp) knows no sanitizers."""
    compiler = shutil.which("g++") or pytest.skip("there is no g++ to compile the CUDA kernels for the CPU")
    options = ["-std=c++17", "-fPIC", "-fvisibility=hidden", "-DJAA_EXT_HOST_CUDA", "-I", SOURCES, "-I", CSRC]

    def compile(source: Path) -> Path:
        chosen = (
            ["-O2"] if source.suffix == ".cpp" else ["-O1", *(["-g1", *sanitizers] if sanitizers else [])]
        )
        result = folder / f"{source.name}.o"
        subprocess.run([compiler, *options, *chosen, "-c", "-x", "c++", source, "-o", result], check=True)
        return result

    sources = sorted([*CSRC.glob("*/*_cuda.cu"), *SOURCES.glob("*.cu"), *SOURCES.glob("*.cpp")])
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile, sources))
    library = folder / "kernels.so"
    subprocess.run([compiler, "-shared", *sanitizers, *objects, "-o", library], check=True)
    return library


def call(library: ctypes.CDLL, name: str, *arguments: bytes | Tensor | int | None) -> None:
    """Structures are bytes and go by reference; so do the data of tensors."""
    function = getattr(library, name)
    function.restype = ctypes.c_char_p

    def plain(argument: bytes | Tensor | int | None) -> object:
        if isinstance(argument, Tensor):
            return ctypes.c_void_p(argument.data_ptr())
        return ctypes.c_int64(argument) if isinstance(argument, int) else argument

    message = function(*map(plain, arguments))
    if message is not None:
        raise RuntimeError(message.decode())


def schedule(library: ctypes.CDLL, name: str = "forwards") -> None:
    backwards, most_blocks = SCHEDULES[name]
    library.set_schedule(backwards, ctypes.c_int64(most_blocks))


def in_every_order(library: ctypes.CDLL, run: Callable[[], Sequence[Tensor]]) -> Sequence[Tensor]:
    """What `run` gives; the order of threads and the number of blocks must not change a bit of it."""
    results = {}
    for name in SANITIZED_SCHEDULES if LIBRARY_VARIABLE in os.environ else SCHEDULES:
        schedule(library, name)
        results[name] = run()
    schedule(library)
    first, *others = results
    for name in others:
        for actual, expected in zip(results[name], results[first], strict=True):
            assert torch.equal(bits(actual), bits(expected)), f"other bits {name}"
    return results[first]


def bits(tensor: Tensor) -> Tensor:
    return tensor.flatten().view(torch.uint8)
