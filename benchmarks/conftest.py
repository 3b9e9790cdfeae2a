"""Options, devices and machine facts of the benchmarks; see NOTES.md for how to run them."""

from __future__ import annotations

import os
from typing import Any

import pytest
import roofline
import torch
from comparison import Comparison
from pytest_benchmark.fixture import BenchmarkFixture

from jaa_ext import _library

DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() and "cuda" in _library.DEVICES else [])
ROUNDS = 20
SMOKE_ROUNDS = 2
LOAD_AT_START = os.getloadavg()[0]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("jaa_ext benchmarks")
    group.addoption("--smoke", action="store_true", help="one tiny size of each op: do all results match?")
    group.addoption(
        "--rounds", type=int, help="how often each formulation is timed (default 20, of whole networks 7)"
    )


def pytest_configure(config: pytest.Config) -> None:
    # From the source tree the reference would be timed against itself.
    if "cpu" not in _library.DEVICES:
        raise pytest.UsageError(
            "the compiled kernels are not loaded: install with `pip install '.[test]'` and run `pytest`, not "
            "`python -m pytest` from the repository's root, which imports the source tree"
        )
    rounds = config.getoption("--rounds")
    if rounds is not None and rounds < 2:
        raise pytest.UsageError(f"--rounds must be at least 2, got {rounds}")
    if config.getoption("--smoke"):
        torch.set_num_threads(1)  # tiny sizes, and perhaps a busy machine
    # float32 means float32, and cuDNN may search for its quickest algorithm.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give a benchmark its ``case``s: its module's CASES, or with --smoke its SMOKE_CASE alone."""
    if "case" in metafunc.fixturenames:
        smoke = metafunc.config.getoption("--smoke")
        cases = [metafunc.module.SMOKE_CASE] if smoke else metafunc.module.CASES
        metafunc.parametrize("case", cases, ids=str)


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=[False, True], ids=["forward", "forward+backward"])
def backward(request: pytest.FixtureRequest) -> bool:
    return request.param


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@pytest.fixture
def comparison(request: pytest.FixtureRequest, benchmark: BenchmarkFixture, device: str) -> Comparison:
    """The rounds are those of the command line, or ROUNDS of the module, or the default."""
    smoke = request.config.getoption("--smoke")
    rounds = request.config.getoption("--rounds") or getattr(request.module, "ROUNDS", ROUNDS)
    return Comparison(
        benchmark,
        device=device,
        backward="backward" in request.fixturenames and request.getfixturevalue("backward"),
        rounds=SMOKE_ROUNDS if smoke else rounds,
        smoke=smoke,
    )


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    from jaa_ext import _C

    cpu = machine_info["cpu"]
    facts = {
        "cpu": cpu.get("brand_raw", cpu.get("arch", "")),
        "cpu_count": cpu.get("count"),
        "cpu_level": _C.build_info()["cpu_level"],
        "gpu": torch.cuda.get_device_name() if "cuda" in DEVICES else None,
        "load_at_start": round(LOAD_AT_START, 2),
        "system": machine_info["system"],
        "python": machine_info["python_version"],
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
        "compiler": _C.build_info()["compiler"],
        "roofline": {device: roofline.measure(device, _C.build_info()["cpu_level"]) for device in DEVICES},
    }
    machine_info.clear()
    machine_info.update(facts)


def pytest_benchmark_update_json(config: pytest.Config, benchmarks: Any, output_json: dict[str, Any]) -> None:
    """Keep the file small: no single samples of pytest-benchmark's own timing, no repeated options."""
    commit = output_json["commit_info"]
    output_json["commit_info"] = {key: commit[key] for key in ("id", "time", "dirty")}
    for entry in output_json["benchmarks"]:
        entry["stats"].pop("data", None)
        for key in ("options", "params", "param", "group"):
            del entry[key]
