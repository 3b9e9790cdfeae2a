"""scripts/verify_gpu.sh as far as it goes without a GPU."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
import torch

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture
def verify_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("verify_gpu", SCRIPTS / "verify_gpu.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "verify_gpu", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "WORK", tmp_path / "work")
    module.results().mkdir(parents=True)
    return module


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu_is_one_sentence(tmp_path: Path) -> None:
    run = subprocess.run(
        [SCRIPTS / "verify_gpu.sh", tmp_path / "out"],
        env={"PYTHON": sys.executable, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 2
    assert run.stderr.startswith("scripts/verify_gpu.sh: nothing can be verified: torch ")
    assert len(run.stderr.splitlines()) == 1 and not (tmp_path / "out").exists()


def test_a_stage_that_fails_or_lasts_too_long_is_reported_and_the_next_one_runs(
    verify_gpu: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def command(code: str):
        return lambda clock, machine: {"status": clock.run("x", [sys.executable, "-c", code], {})}

    def broken(clock, machine):
        raise OSError("disk full")

    stages = {
        "build": (9, command("raise SystemExit(3)")),
        "test": (1.5, command("import time; time.sleep(60)")),
        "sanitize": (9, broken),
        "bench": (9, command("pass")),
    }
    machine = dict.fromkeys(("driver", "cuda", "torch", "python", "capability", "commit"), "1")
    monkeypatch.setattr(verify_gpu, "STAGES", stages)
    monkeypatch.setattr(verify_gpu, "describe_machine", lambda: machine | {"gpu": "NVIDIA H0 (80 GB)"})
    monkeypatch.setattr(sys, "argv", ["verify_gpu.sh", str(tmp_path)])
    begin = time.monotonic()
    assert verify_gpu.main() == 1 and time.monotonic() - begin < 30
    told = json.loads((tmp_path / "nvidia-h0-80-gb.json").read_text())["verification"]["stages"]
    statuses = {name: stage["status"] for name, stage in told.items()}
    assert statuses["build"] == "failed, exit status 3" and statuses["bench"] == "ok"
    assert statuses["test"].startswith("stopped after ") and statuses["sanitize"] == "OSError: disk full"
    assert "| build | failed, exit status 3 |" in (tmp_path / "nvidia-h0-80-gb.md").read_text()


def test_missing_packages_skip_and_are_named(verify_gpu: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "test_a.py").write_text("import no_such_package.part\n\ndef test_x(): pass\n")
    (tmp_path / "test_b.py").write_text("""
import pytest
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_passes(device): pass
def test_fails(): assert 1 == 2, "wrong"
def test_imports(): import no_such_package
def test_ours(): import jaa_ext.no_such_part
@pytest.mark.skip(reason="not today")
def test_skips(): pass
""")
    outcomes = tmp_path / "outcomes.jsonl"
    verify_gpu.Clock(time.monotonic() + 60).run(
        "test", verify_gpu.pytest_command(tmp_path), {"JAA_EXT_OUTCOMES": str(outcomes)}
    )
    found = verify_gpu.count_outcomes(outcomes)
    assert found["passed"] == 2 and found["on_gpu"] == 1
    assert found["skipped"] == {"needs no_such_package": 2, "not today": 1}
    reasons = sorted(found["failed"].values())
    assert reasons[0].startswith("AssertionError: wrong") and "jaa_ext.no_such_part" in reasons[1]
    assert len(reasons) == 2


def test_sanitizer_verdicts(verify_gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tool = tmp_path / "compute-sanitizer"
    tool.write_text("""#!/bin/sh
while [ "$1" != --log-file ]; do [ "$1" = --tool ] && tool=$2; shift; done
[ $tool = memcheck ] && echo "========= ERROR SUMMARY: 0 errors" >"$2" && exit 0
echo "========= Error: Device not supported" >"$2"
exit 9
""")
    tool.chmod(0o755)
    monkeypatch.setattr(verify_gpu, "find_sanitizer", lambda: str(tool))
    found = verify_gpu.sanitize(verify_gpu.Clock(time.monotonic() + 30), {})
    assert found["status"] == "failed"
    assert found["verdicts"] == {
        "memcheck": "ERROR SUMMARY: 0 errors",
        "racecheck": "failed, exit status 9; Error: Device not supported",
    }


def test_asked_ratios(verify_gpu: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS.parent / "benchmarks"))
    report = importlib.import_module("report")

    def run(case: str, ours: float, **others: float) -> dict:
        names = {"jaa_ext (NHWC)": ours, **{name.replace("_", " "): ms for name, ms in others.items()}}
        return {
            "op": "region_conv2d",
            "case": case,
            "direction": "forward",
            "dtype": "TF32",
            "device": "cuda",
            "operations": 4e9,  # 1 ms
            "bytes": 1e6,
            "formulations": [{"name": name, "median_ms": ms} for name, ms in names.items()],
        }

    runs = [run("a", 1.25, cell_loop=10.0, ordinary_convolution=0.1), run("b", 2.0, cell_loop=4.0)]
    roof = {"TF32": {"gflops": 4000}, "copy_gb_per_s": 1000}
    rows = verify_gpu.ratios(report, runs, roof)
    assert [row[1:] for row in rows] == [
        ["0.7", "0.5 (0.8, 0.5)", "**no**"],
        ["3", "4 (8, 2)", "yes"],
    ]
