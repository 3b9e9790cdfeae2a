"""What the tests of several ops share."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

LEVELS = ["baseline", "avx2", "avx512", "avx512_bf16"]


@pytest.fixture(params=LEVELS)
def at_level(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Runs code that may import these tests in a process of its own, with an instruction set forced.

    Where the processor lacks the set, the process must say so.
    """
    level = request.param

    def run(code: str) -> None:
        told = "from jaa_ext import _C; print(_C.build_info()['cpu_level'])"
        process = subprocess.run(
            [sys.executable, "-c", f"{code}\n{told}"],
            env={**os.environ, "JAA_EXT_CPU": level, "PYTHONPATH": search_path()},
            capture_output=True,
            text=True,
        )
        if process.returncode:
            assert f"JAA_EXT_CPU={level}: this processor has at most" in process.stderr, process.stderr
        else:
            assert process.stdout.split() == [level]

    return run


def search_path() -> str:
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    return os.pathsep.join(path for path in paths if path)
