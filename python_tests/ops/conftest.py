"""What the tests of several ops share."""

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cuda_on_host
import pytest
import torch

from jaa_ext.ops import reference

LEVELS = ["baseline", "avx2", "avx512", "avx512_bf16"]


@pytest.fixture
def refused_alike() -> Callable[..., None]:
    """Asserts that the reference refuses arguments with a matching error, and the op in the same words."""

    def check(
        op: Callable[..., Any],
        arguments: dict[str, Any],
        error: type[Exception],
        message: str,
        *,
        reaches_kernel: bool = True,
    ) -> None:
        with pytest.raises(error, match=message) as from_reference:
            getattr(reference, op.__name__)(**arguments)
        if reaches_kernel:
            with pytest.raises(error) as from_kernel:
                op(**arguments)
            assert str(from_kernel.value).splitlines()[0] == str(from_reference.value)

    return check


@pytest.fixture
def opcheck() -> Callable[..., Any]:
    """`torch.library.opcheck`."""
    pytest.importorskip("expecttest")  # which torch's own testing tools import
    return torch.library.opcheck


FORKING = """
import json, multiprocessing, os, sys
import hypothesis, pytest, torch, torch.distributed.tensor  # the last by torch.testing
import jaa_ext.ops  # the instruction set is chosen when a kernel first runs

def run(level, output, code):
    os.environ["JAA_EXT_CPU"] = level
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1), os.dup2(file, 2)
    exec(code, {})

for line in sys.stdin:
    process = multiprocessing.get_context("fork").Process(target=run, args=json.loads(line))
    process.start(), process.join()
    print(process.exitcode, flush=True)
"""


@pytest.fixture(scope="session")
def forking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[str]]:
    """A process that has imported what takes long, and forks another one for each code that it is sent."""
    with subprocess.Popen(
        [sys.executable, "-c", FORKING],
        cwd=tmp_path_factory.mktemp("elsewhere"),  # not in the source tree, which it would import
        env={**os.environ, "PYTHONPATH": search_path()},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process


@pytest.fixture(params=LEVELS)
def at_level(
    request: pytest.FixtureRequest, forking: subprocess.Popen[str], tmp_path: Path
) -> Callable[[str], None]:
    """Runs code that may import these tests in a process of its own, with an instruction set forced.

    Where the processor lacks the set, the process must say so.
    """
    level, output = request.param, tmp_path / "output"

    def run(code: str) -> None:
        told = "from jaa_ext import _C; print(_C.build_info()['cpu_level'])"
        assert forking.stdin is not None and forking.stdout is not None
        forking.stdin.write(json.dumps([level, str(output), f"{code}\n{told}"]) + "\n")
        forking.stdin.flush()
        failed, printed = int(forking.stdout.readline()), output.read_text()
        if failed:
            assert f"JAA_EXT_CPU={level}: this processor has at most" in printed, printed
        else:
            assert printed.split() == [level]

    return run


def search_path() -> str:
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    return os.pathsep.join(path for path in paths if path)


@pytest.fixture(scope="session")
def library_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    built = os.environ.get(cuda_on_host.LIBRARY_VARIABLE)
    return built or str(cuda_on_host.build(tmp_path_factory.mktemp("cuda_on_host")))


@pytest.fixture
def library(library_path: str) -> Iterator[ctypes.CDLL]:
    """The CUDA kernels on the CPU."""
    library = ctypes.CDLL(library_path)
    cuda_on_host.schedule(library)
    library.set_compute_capability(90)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # at these sizes more would only wait for each other
    yield library
    torch.set_num_threads(threads)
