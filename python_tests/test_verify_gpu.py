"""scripts/verify_gpu.sh as far as it goes without a GPU."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

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
    module.WORK.mkdir()
    return module


MACHINE = {
    "gpu": "NVIDIA H0 (80 GB)",
    **dict.fromkeys(("driver", "cuda", "torch", "python", "capability", "commit"), "1"),
}


def session(verify_gpu: ModuleType, folder: Path, name: str = "all", seconds: float = 60) -> Any:
    call = verify_gpu.CALLS[name]
    folder.mkdir(exist_ok=True)
    return verify_gpu.Session(name, call, MACHINE, folder, list(call.benchmarks), time.monotonic() + seconds)


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
        log = verify_gpu.WORK / "log"
        return lambda clock, run: {"status": clock.run(log, [sys.executable, "-c", code], {})}

    def broken(clock, run):
        raise OSError("disk full")

    stages = {
        "build": command("raise SystemExit(3)"),
        "test": command("import time; time.sleep(60)"),
        "sanitize": broken,
        "bench": command("pass"),
    }
    call = verify_gpu.Call(60, {"build": 9, "test": 1.5, "sanitize": 9, "bench": 9}, "", (), ())
    monkeypatch.setattr(verify_gpu, "STAGES", stages)
    monkeypatch.setitem(verify_gpu.CALLS, "all", call)
    monkeypatch.setattr(verify_gpu, "describe_machine", lambda: MACHINE)
    monkeypatch.setattr(sys, "argv", ["verify_gpu.sh", str(tmp_path)])
    begin = time.monotonic()
    assert verify_gpu.main() == 1 and time.monotonic() - begin < 30
    told = json.loads((tmp_path / "nvidia-h0-80-gb.json").read_text())["verification"]["stages"]
    statuses = {name: stage["status"] for name, stage in told.items()}
    assert statuses["all.build"] == "failed, exit status 3" and statuses["all.bench"] == "ok"
    assert statuses["all.test"].startswith("stopped after ")
    assert statuses["all.sanitize"] == "OSError: disk full"
    assert "| all.build | failed, exit status 3 |" in (tmp_path / "nvidia-h0-80-gb.md").read_text()


def test_two_short_calls_fit_and_leave_nothing_out(verify_gpu: ModuleType) -> None:
    whole, first, rest = (verify_gpu.CALLS[name] for name in ("all", "first", "rest"))
    longest = verify_gpu.SECONDS_TO_STOP
    assert first.total + longest < 6 * 60 and first.total + rest.total + 2 * longest < 13 * 60
    # What comes before the first benchmark leaves time for the first ones.
    before = first.limits["build"] + max(first.limits["test"], first.limits["sanitize"])
    assert first.total - before > 60
    assert {*first.sanitizers, *rest.sanitizers} == {*whole.sanitizers} == {*verify_gpu.SANITIZERS}
    assert first.sanitizers == ("memcheck",) and rest.tests == f"not ({first.tests})"
    headline = {"region_conv2d", "attention_maps", "softmax_dice_loss", "jaanet_cuda"}
    assert {bench.name for bench in first.benchmarks} == headline
    assert not any(bench.compiled for bench in first.benchmarks)
    for bench in (*first.benchmarks, *rest.benchmarks):
        assert bench.seconds > 2 * verify_gpu.SECONDS_TO_FINISH
    assert {bench.name for bench in rest.benchmarks} == {bench.name for bench in whole.benchmarks}


def test_the_first_call_chooses_tests_and_benchmarks(
    verify_gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commands: dict[str, list[str]] = {}

    def run(clock, log, command, environment, folder=None):
        commands[log.name] = [str(part) for part in command]
        return "ok"

    monkeypatch.setattr(verify_gpu.Clock, "run", run)
    first = session(verify_gpu, tmp_path / "parts", "first", 300)
    clock = verify_gpu.Clock(first.deadline)
    assert verify_gpu.build(clock, first)["status"] == "ok"
    verify_gpu.test(clock, first)
    found = verify_gpu.bench(clock, first)
    assert found["status"] == "ok" and list(found["files"]) == [
        "limits of the machine", "attention_maps, cuda", "softmax_dice_loss, cuda",
        "region_conv2d, cuda-bfloat16", "jaanet_cuda, cuda", "region_conv2d, cuda-float32",
        "region_conv2d, cuda-TF32",
    ]  # fmt: skip
    assert commands["first.test.log"][-2:] == ["-k", "cuda or on_gpu"]
    region = commands["first.region_conv2d.cuda-bfloat16.log"]
    assert {"--no-compile", "cuda-bfloat16 and not agree", "--seconds=50"} <= set(region)
    rest = session(verify_gpu, tmp_path / "parts", "rest", 300)
    assert verify_gpu.build(clock, rest).get("remark") == "an earlier call's"
    verify_gpu.bench(clock, rest)
    assert "--no-compile" not in commands["rest.region_conv2d.cuda.log"]
    monkeypatch.setattr(verify_gpu, "digest_of_sources", lambda: "others")
    assert "remark" not in verify_gpu.build(clock, rest)


BENCHMARK = """
import time
import pytest

@pytest.mark.parametrize("case", ["cuda-a", "cuda-b", "cuda-c"])
def test_maps(case, benchmark):
    if case == "cuda-c":
        time.sleep(300)
    times = [{"name": n, "median_ms": ms, "quartiles_ms": [ms, ms], "relative_error": 0.0, "matched": True}
             for n, ms in (("jaa_ext", 1.0), ("eager reference", 20.0))]
    facts = {"op": "attention_maps", "case": case, "direction": "forward", "dtype": "float32"}
    benchmark.extra_info.update(facts, device="cuda", formulations=times)
    benchmark(lambda: None)
"""
OPTIONS = """
def pytest_addoption(parser):
    for name in ("--rounds", "--seconds"):
        parser.addoption(name)
    parser.addoption("--no-compile", action="store_true")
"""
PROGRAM = """if True:
    import importlib.util, pathlib, signal, sys
    spec = importlib.util.spec_from_file_location("verify_gpu", sys.argv[1])
    module = importlib.util.module_from_spec(spec)
    sys.modules["verify_gpu"] = module
    spec.loader.exec_module(module)
    module.ROOT, module.WORK = pathlib.Path("repository").resolve(), pathlib.Path("work").resolve()
    module.describe_machine = lambda: MACHINE
    signal.signal(signal.SIGTERM, module.kill_all)
    sys.argv = ["verify_gpu.sh", "out", "--first", "test", "bench"]
    module.main()
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="there is no /proc to see processes in")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_call_killed_in_the_middle_loses_nothing(
    verify_gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: signal.Signals
) -> None:
    root = tmp_path / "repository"
    for folder in ("benchmarks", "python_tests"):
        (root / folder).mkdir(parents=True)
    (root / "scripts").symlink_to(SCRIPTS)
    (root / "pyproject.toml").touch()
    (root / "python_tests" / "test_x.py").write_text("def test_on_gpu_or_not(): pass")
    (root / "benchmarks" / "conftest.py").write_text(OPTIONS)
    (root / "benchmarks" / "bench_attention_maps.py").write_text(BENCHMARK)
    (root / "benchmarks" / "machine.py").write_text("raise SystemExit(1)")
    program = PROGRAM.replace("MACHINE", repr(MACHINE))
    call = subprocess.Popen(
        [sys.executable, "-c", program, SCRIPTS / "verify_gpu.py"], cwd=tmp_path, stdout=subprocess.DEVNULL
    )
    out = tmp_path / "out"
    runs = out / "parts" / "first.runs.jsonl"
    try:
        deadline = time.monotonic() + 60
        while not (runs.exists() and len(runs.read_text().splitlines()) == 2):
            assert call.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        benchmark = children(call.pid)
        call.send_signal(number)
        call.wait(10)
    assert benchmark
    if number == signal.SIGTERM:
        assert call.returncode == 128 + number
        deadline = time.monotonic() + 10
        while any(map(alive, benchmark)):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    else:
        for process in filter(alive, benchmark):
            os.kill(process, signal.SIGKILL)

    monkeypatch.setattr(sys, "argv", ["verify_gpu.sh", "--summary", str(out)])
    assert verify_gpu.main() == 1  # for what is missing
    result = json.loads((out / "nvidia-h0-80-gb.json").read_text())
    assert [entry["extra_info"]["case"] for entry in result["benchmarks"]] == ["cuda-a", "cuda-b"]
    stages = result["verification"]["stages"]
    assert stages["first.test"]["status"] == "ok" and stages["first.test"]["passed"] == 1
    assert stages["first.bench"]["status"] == "cut short" and stages["first.bench"]["passed"] == 2
    text = (out / "nvidia-h0-80-gb.md").read_text()
    assert "| first.bench | cut short |" in text and "| cuda-b | 1.00 ± 0.00 | 20.0 ± 0.0 (20.00x) |" in text
    assert "times eager, lowest | 10 | 20 (20, 20) | yes |" in text


def children(process: int) -> list[int]:
    """Of the process, and theirs."""
    parents = {int(path.name): fields(int(path.name)) for path in Path("/proc").glob("[0-9]*")}
    found = [process]
    for one in found:
        found += [child for child, told in parents.items() if told[1:2] == [str(one)]]
    return found[1:]


def alive(process: int) -> bool:
    return fields(process)[:1] not in ([], ["Z"])


def fields(process: int) -> list[str]:
    """State, parent and more; nothing of a process that is gone."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def test_results_of_two_calls_come_together(verify_gpu: ModuleType, tmp_path: Path) -> None:
    """What was measured again counts, and a line that was cut off does not."""
    parts = tmp_path / "parts"
    parts.mkdir()
    lines = {"first": [("a", 1), ("b", 2)], "rest": [("b", 3)]}
    for call, entries in lines.items():
        text = "".join(json.dumps({"test": test, "run": {"ms": ms}}) + "\n" for test, ms in entries)
        (parts / f"{call}.runs.jsonl").write_text(text + '{"test": "c", "ru')
    merged = verify_gpu.merge_benchmarks(MACHINE, parts)
    assert [entry["extra_info"]["ms"] for entry in merged["benchmarks"]] == [1, 3]
    (parts / "machine.json").write_text('{"gpu": "that one"}')
    assert verify_gpu.merge_benchmarks(MACHINE, parts)["machine_info"] == {"gpu": "that one"}


def test_no_results_are_one_sentence(
    verify_gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    monkeypatch.setattr(sys, "argv", ["verify_gpu.sh", "--summary", str(tmp_path)])
    assert verify_gpu.main() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{tmp_path / 'parts'}: " in line and "no results" in line


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
        tmp_path / "log", verify_gpu.pytest_command(tmp_path), {"JAA_EXT_OUTCOMES": str(outcomes)}
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
    run = session(verify_gpu, tmp_path / "parts")
    found = verify_gpu.sanitize(verify_gpu.Clock(run.deadline), run)
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
