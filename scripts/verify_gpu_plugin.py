"""A pytest plugin of verify_gpu.py: skips what a missing package keeps from running, and logs what comes out.

A line of JSON for each report goes to the file that JAA_EXT_OUTCOMES names, and one for each benchmark to
that of JAA_EXT_RUNS, at once: a run that is cut short leaves what it did. With pytest-xdist every process
writes, and a line may be there twice.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

NAMES = ("jaa_ext", "torch")
"""Packages whose absence is a failure."""


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    name = missing_package(str(report.longrepr)) if report.failed else ""
    if name:
        report.outcome, report.longrepr = "skipped", (str(collector.path), 0, f"Skipped: needs {name}")
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if call.excinfo is not None and call.excinfo.errisinstance(ModuleNotFoundError):
        name = missing_package(call.excinfo.exconly())
        if name:
            report.outcome, report.longrepr = "skipped", (str(item.path), 0, f"Skipped: needs {name}")
    benchmark = getattr(item, "funcargs", {}).get("benchmark")
    if call.when == "call" and benchmark is not None and "formulations" in benchmark.extra_info:
        append("JAA_EXT_RUNS", {"test": item.nodeid, "run": benchmark.extra_info})
    return report


def missing_package(message: str) -> str:
    """The package that a ModuleNotFoundError in the message names, if tests may do without it."""
    _, found, rest = message.rpartition("ModuleNotFoundError: No module named '")
    name = rest.partition("'")[0].partition(".")[0]
    return name if found and name not in NAMES else ""


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" or not report.passed:
        log(report)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if not report.passed:
        log(report)


def log(report: pytest.TestReport | pytest.CollectReport) -> None:
    reason = ""
    if report.skipped:
        text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reason = text.removeprefix("Skipped: ")
    elif report.failed:
        lines = str(report.longrepr).splitlines()
        reason = next((line[1:] for line in lines if line.startswith("E   ")), lines[-1] if lines else "")
    outcome = {"test": report.nodeid, "outcome": report.outcome, "reason": reason.strip()[:300]}
    append("JAA_EXT_OUTCOMES", outcome)


def append(variable: str, value: dict[str, Any]) -> None:
    """A line to the file that an environment variable names, if it is set."""
    if variable in os.environ:
        with Path(os.environ[variable]).open("a", encoding="utf-8") as file:
            file.write(json.dumps(value) + "\n")
