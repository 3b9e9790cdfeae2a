"""Options, devices and machine facts of the benchmarks; see NOTES.md for how to run them."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterator
from typing import Any

import pytest
import torch
from comparison import DTYPE, Comparison
from machine import DEVICES, facts, require_name
from pytest_benchmark.fixture import BenchmarkFixture
from roofline import allow_tf32

from jaa_ext import _library
from jaa_ext.device import has_bfloat16

PRECISIONS = {"cpu": ["float32", "bfloat16"], "cuda": ["float32", "TF32", "bfloat16"]}
"""On a processor without native bfloat16 float32 alone, but for smoke tests: see `has_bfloat16`."""
ROUNDS = 20
SMOKE_ROUNDS = 2
STARTED = time.monotonic()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("jaa_ext benchmarks")
    group.addoption("--smoke", action="store_true", help="one tiny size of each op: do all results match?")
    group.addoption(
        "--rounds", type=int, help="how often each formulation is timed (default 20, of whole networks 7)"
    )
    group.addoption("--no-compile", action="store_true", help="leave torch.compile out, which takes long")
    group.addoption("--seconds", type=float, help="start no benchmark later than this after the beginning")


def pytest_configure(config: pytest.Config) -> None:
    # From the source tree the reference would be timed against itself.
    if "cpu" not in _library.DEVICES:
        raise pytest.UsageError(
            "the compiled kernels are not loaded: install with `pip install '.[test]'` and run `pytest`, not "
            "`python -m pytest` from the repository's root, which imports the source tree"
        )
    if config.getoption("--benchmark-json"):
        try:
            require_name(config.getoption("--benchmark-json"))
        except ValueError as error:
            raise pytest.UsageError(str(error)) from None
    rounds = config.getoption("--rounds")
    if rounds is not None and rounds < 2:
        raise pytest.UsageError(f"--rounds must be at least 2, got {rounds}")
    if config.getoption("--smoke"):
        torch.set_num_threads(1)  # tiny sizes, and perhaps a busy machine
    # float32 means float32, and cuDNN may search for its quickest algorithm.
    allow_tf32(False)
    torch.backends.cudnn.benchmark = True


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give a benchmark its devices, cases and precisions, those that it asks for.

    Cases are its module's CASES, a list, or lists by device; with --smoke SMOKE_CASE alone.
    """
    if "case" not in metafunc.fixturenames:
        return
    smoke, module = metafunc.config.getoption("--smoke"), metafunc.module
    with_precision = "precision" in metafunc.fixturenames
    names = ("device", "precision", "case") if with_precision else ("device", "case")
    chosen = []
    for device in DEVICES:
        listed = module.CASES if isinstance(module.CASES, list) else module.CASES.get(device, [])
        for case in [module.SMOKE_CASE] if smoke else listed:
            for precision in precisions(device, smoke) if with_precision else [""]:
                chosen.append((device, precision, case) if with_precision else (device, case))
    metafunc.parametrize(names, chosen, ids=["-".join(map(str, values)) for values in chosen])


def precisions(device: str, smoke: bool) -> list[str]:
    slow = [] if smoke or has_bfloat16(torch.device(device)) else ["bfloat16"]
    return [precision for precision in PRECISIONS[device] if precision not in slow]


def pytest_runtest_setup(item: pytest.Item) -> None:
    seconds = item.config.getoption("--seconds")
    if seconds is not None and time.monotonic() - STARTED > seconds:
        pytest.skip(f"not begun within --seconds {seconds:g}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, None, None]:
    """A benchmark that does not fit this GPU's memory is skipped."""
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        pytest.skip(str(error).splitlines()[0])
    finally:
        if "cuda" in DEVICES:
            torch.cuda.empty_cache()


@pytest.fixture(params=[False, True], ids=["forward", "forward+backward"])
def backward(request: pytest.FixtureRequest) -> bool:
    return request.param


@pytest.fixture
def dtype(precision: str) -> torch.dtype:
    return DTYPE[precision]


@pytest.fixture
def comparison(
    request: pytest.FixtureRequest, benchmark: BenchmarkFixture, device: str
) -> Iterator[Comparison]:
    """The rounds are those of the command line, or ROUNDS of the module, or the default."""

    def asked(name: str, default: Any) -> Any:
        return request.getfixturevalue(name) if name in request.fixturenames else default

    smoke = request.config.getoption("--smoke")
    rounds = request.config.getoption("--rounds") or getattr(request.module, "ROUNDS", ROUNDS)
    precision = asked("precision", "float32")
    allow_tf32(precision == "TF32")
    yield Comparison(
        benchmark,
        device=device,
        backward=asked("backward", False),
        precision=precision,
        rounds=SMOKE_ROUNDS if smoke else rounds,
        smoke=smoke,
        compiled=not request.config.getoption("--no-compile"),
    )
    allow_tf32(False)


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    machine_info.clear()
    machine_info.update(facts())


def pytest_benchmark_update_json(config: pytest.Config, benchmarks: Any, output_json: dict[str, Any]) -> None:
    """Keep the file small: no single samples of pytest-benchmark's own timing, no repeated options."""
    commit = output_json["commit_info"]
    output_json["commit_info"] = {key: commit[key] for key in ("id", "time", "dirty")}
    if "JAA_EXT_COMMIT" in os.environ:  # of a copy without its repository
        output_json["commit_info"]["id"] = os.environ["JAA_EXT_COMMIT"]
    for entry in output_json["benchmarks"]:
        entry["stats"].pop("data", None)
        for key in ("options", "params", "param", "group"):
            del entry[key]
