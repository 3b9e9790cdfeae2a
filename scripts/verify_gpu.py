"""What verify_gpu.sh runs; see there."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import math
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "build" / "verify_gpu"
TOTAL_SECONDS = 500
"""For all stages of a call together."""
PROCESSES = 8
"""That run tests at once, where pytest-xdist is there."""
LEFT_OUT = ("ops/test_cuda_on_host.py", "ops/test_cuda_harness.py", "ops/test_speed.py")
"""Tests of the CPU alone: the kernels' own code run there, and speed, for which the machine must be idle."""
OPS = ("region_conv2d", "region_batch_norm", "attention_maps", "softmax_dice_loss")
SANITIZED = (
    "matches_reference or odd_kernels or smaller_than or any_strides or large_cells or many_chunks or empty"
)
"""Tests at small sizes that reach every kernel; compute-sanitizer is slow."""
SANITIZERS = {"memcheck": r"ERROR SUMMARY: .*", "racecheck": r"RACECHECK SUMMARY: .*"}
"""Tools, and what in their logs is the verdict."""
BENCHMARKS = {  # seconds at most, rounds
    "attention_maps": (40, 20),
    "softmax_dice_loss": (50, 20),
    "jaanet_cuda": (150, 7),
    "region_conv2d": (280, 10),
    "region_batch_norm": (80, 10),
    "region_block": (80, 7),
}
"""In the order of what is asked for: after everything else, time may not suffice for the last ones."""
SECONDS_TO_FINISH = 25
"""Before its limit a benchmark file begins no further case."""

Run = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/verify_gpu.sh")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for <gpu>.json and <gpu>.md")
    named = [*STAGES, *BENCHMARKS]
    parser.add_argument("stages", nargs="*", metavar="stage", help=f"of {', '.join(named)}; default all")
    arguments = parser.parse_args()
    unknown = [stage for stage in arguments.stages if stage not in named]
    if unknown:
        parser.error(f"no stage {unknown[0]!r}: there are {', '.join(named)}")
    wanted = [stage if stage in STAGES else "bench" for stage in arguments.stages or STAGES]
    benchmarks = [name for name in BENCHMARKS if name in arguments.stages] or list(BENCHMARKS)
    machine = describe_machine()
    if "problem" in machine:
        print(f"scripts/verify_gpu.sh: nothing can be verified: {machine['problem']}", file=sys.stderr)
        return 2

    arguments.out.mkdir(parents=True, exist_ok=True)
    results().mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + TOTAL_SECONDS
    # Tests and sanitizer need the GPU to be right, not quick; benchmarks need it to themselves.
    for together in (["build"], ["test", "sanitize"], ["bench"]):
        chosen = [stage for stage in together if stage in wanted]
        with ThreadPoolExecutor() as pool:
            list(
                pool.map(
                    lambda stage: run_stage(stage, machine | {"benchmarks": benchmarks}, deadline), chosen
                )
            )
        if chosen:  # not only in the end: an aborted call leaves something
            complete = write_summary(machine, arguments.out)
    return 0 if complete and all(stage["status"] == "ok" for stage in read_stages().values()) else 1


def results() -> Path:
    return WORK / "results"


def describe_machine() -> dict[str, str]:
    """GPU, driver, CUDA, torch, Python, capability and commit; or the "problem" that leaves no GPU."""
    code = """if True:
        import json, sys
        try:
            import torch
        except ImportError as error:
            print(json.dumps({"problem": f"torch cannot be imported ({error})"})), sys.exit()
        if torch.version.cuda is None:
            print(json.dumps({"problem": f"torch {torch.__version__} is built without CUDA"})), sys.exit()
        if not torch.cuda.is_available():
            print(json.dumps({"problem": f"torch {torch.__version__} finds no NVIDIA GPU"})), sys.exit()
        print(json.dumps({
            "gpu": torch.cuda.get_device_name(),
            "capability": "%d.%d" % torch.cuda.get_device_capability(),
            "cuda": torch.version.cuda,
            "torch": torch.__version__,
            "python": sys.version.split()[0],
        }))
    """
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")
    if told.returncode != 0 or not told.stdout.strip():
        return {"problem": f"{sys.executable} fails: {told.stderr.strip().splitlines()[-1:]}"}
    machine: dict[str, str] = json.loads(told.stdout.splitlines()[-1])
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
    commit = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    return {
        **machine,
        "driver": output_of(asked) or "unknown",
        "commit": os.environ.get("JAA_EXT_COMMIT") or output_of(commit) or "unknown",
    }


def output_of(command: list[str]) -> str:
    if shutil.which(command[0]) is None:
        return ""
    told = subprocess.run(command, capture_output=True, text=True)
    return told.stdout.strip() if told.returncode == 0 else ""


# Stages


def run_stage(name: str, machine: dict[str, str], deadline: float) -> None:
    """Run a stage to its end or its limit; what it found goes to results/<name>.stage.json."""
    print(f"== {name}", flush=True)
    limit, function = STAGES[name]
    begin = time.monotonic()
    try:
        found = function(Clock(min(begin + limit, deadline)), machine)
    except Exception as error:  # whatever it is, the next stage is to run
        found = {"status": f"{type(error).__name__}: {error}"}
    found = {**found, "seconds": round(time.monotonic() - begin), "commit": machine["commit"]}
    (results() / f"{name}.stage.json").write_text(json.dumps(found), encoding="utf-8")
    print(f"== {name}: {found['status']} ({found['seconds']} s)", flush=True)


def build(clock: Clock, machine: dict[str, str]) -> dict[str, Any]:
    """For this GPU alone, into folders of its own."""
    shutil.rmtree(WORK / "site", ignore_errors=True)
    environment = {
        "FORCE_CUDA": "1",
        "TORCH_CUDA_ARCH_LIST": machine["capability"],
        "MAX_JOBS": str(os.cpu_count()),
    }
    command = ["setup.py", "-q", "build", "--build-base", WORK / "build", "--build-lib", WORK / "site"]
    status = clock.run("build", [sys.executable, *command], environment, folder=ROOT)
    if status == "ok":
        code = (
            f"from jaa_ext import _C, _library; assert 'cuda' in _library.DEVICES and '{WORK}' in _C.__file__"
        )
        status = clock.run("import", [sys.executable, "-c", code], {})
    return {"status": status}


def test(clock: Clock, machine: dict[str, str]) -> dict[str, Any]:
    outcomes = results() / "outcomes.jsonl"
    outcomes.unlink(missing_ok=True)
    ignored = [f"--ignore={ROOT / 'python_tests' / path}" for path in LEFT_OUT]
    parallel = ["-n", str(PROCESSES)] if importlib.util.find_spec("xdist") else []
    command = pytest_command(ROOT / "python_tests", *ignored, *parallel)
    threads = max(1, (os.cpu_count() or 1) // PROCESSES) if parallel else os.cpu_count()
    environment = {"JAA_EXT_OUTCOMES": str(outcomes), "OMP_NUM_THREADS": str(threads)}
    status = clock.run("test", command, environment)
    return {"status": status, **count_outcomes(outcomes)}


def count_outcomes(*paths: Path) -> dict[str, Any]:
    """How many tests passed, which failed, and how many were skipped for which reason."""
    by_test: dict[str, tuple[str, str]] = {}
    order = ["passed", "skipped", "failed"]
    lines = [
        line for path in paths if path.exists() for line in path.read_text(encoding="utf-8").splitlines()
    ]
    for line in lines:
        entry = json.loads(line)
        former = by_test.get(entry["test"], ("passed", ""))
        if order.index(entry["outcome"]) >= order.index(former[0]):
            by_test[entry["test"]] = entry["outcome"], entry["reason"]
    skipped: dict[str, int] = {}
    for outcome, reason in by_test.values():
        if outcome == "skipped":
            skipped[reason] = skipped.get(reason, 0) + 1
    return {
        "passed": sum(outcome == "passed" for outcome, _ in by_test.values()),
        "failed": {test: reason for test, (outcome, reason) in by_test.items() if outcome == "failed"},
        "skipped": skipped,
        "on_gpu": sum(
            outcome == "passed" and re.search(r"\bcuda\b|test_on_gpu", test) is not None
            for test, (outcome, _) in by_test.items()
        ),
    }


def sanitize(clock: Clock, machine: dict[str, str]) -> dict[str, Any]:
    tool = find_sanitizer()
    if tool is None:
        return {
            "status": "ok",
            "verdicts": dict.fromkeys(SANITIZERS, "not run: compute-sanitizer was not found"),
        }
    with ThreadPoolExecutor() as pool:
        told = pool.map(lambda name: sanitize_with(tool, name, clock), SANITIZERS)
        verdicts = dict(zip(SANITIZERS, told, strict=True))
    clean = all(re.search(r": 0 (errors|hazards)", verdict) for verdict in verdicts.values())
    return {"status": "ok" if clean else "failed", "verdicts": verdicts}


def find_sanitizer() -> str | None:
    homes = [os.environ.get("CUDA_HOME", ""), "/usr/local/cuda"]
    places = [f"{home}/{folder}" for home in homes if home for folder in ("bin", "compute-sanitizer")]
    return shutil.which("compute-sanitizer", path=os.pathsep.join([os.environ.get("PATH", ""), *places]))


def sanitize_with(tool: str, name: str, clock: Clock) -> str:
    """What the tool says of our kernels."""
    log = results() / f"{name}.txt"
    log.unlink(missing_ok=True)
    tests = [ROOT / "python_tests" / "ops" / f"test_{op}.py" for op in OPS]
    options = ["--tool", name, "--kernel-name", "kns=jaa_ext", "--target-processes", "application-only"]
    options += [
        "--report-api-errors",
        "no",
        "--print-limit",
        "20",
        "--error-exitcode",
        "9",
        "--log-file",
        log,
    ]
    # Without the caching allocator every tensor is an allocation of its own, whose bounds are then known.
    environment = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    command = [tool, *options, *pytest_command(*tests, "-k", f"cuda and ({SANITIZED})")]
    status = clock.run(name, command, environment)
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    verdict = re.findall(SANITIZERS[name], text)
    if status == "ok" and verdict:
        return str(verdict[-1])
    lines = [line.strip("= ") for line in text.splitlines() if line.strip("= ")]
    return "; ".join([status, *(verdict[-1:] or lines[-1:])])


def bench(clock: Clock, machine: dict[str, Any]) -> dict[str, Any]:
    """The chosen files; of the others, what an earlier call found stays."""
    statuses = dict(read_stages().get("bench", {}).get("files", {}))
    for name in machine["benchmarks"]:
        path, outcomes = results() / f"bench_{name}.json", results() / f"bench_{name}.jsonl"
        path.unlink(missing_ok=True), outcomes.unlink(missing_ok=True)
        seconds, rounds = BENCHMARKS[name]
        part = Clock(min(time.monotonic() + seconds, clock.end))
        last_start = max(part.left() - SECONDS_TO_FINISH, 0)
        options = [
            "-k",
            "cuda and not agree",
            "--benchmark-only",
            f"--benchmark-json={path}",
            f"--rounds={rounds}",
        ]
        options += [f"--seconds={last_start:.0f}"]
        command = pytest_command(ROOT / "benchmarks" / f"bench_{name}.py", *options)
        statuses[name] = part.run(f"bench_{name}", command, {"JAA_EXT_OUTCOMES": str(outcomes)})
        print(f"   {name}: {statuses[name]}", flush=True)
    status = "ok" if set(statuses.values()) == {"ok"} else "failed"
    return {
        "status": status,
        "files": statuses,
        **count_outcomes(*(results() / f"bench_{n}.jsonl" for n in BENCHMARKS)),
    }


def pytest_command(*arguments: str | Path) -> list[str | Path]:
    options = ["-q", "-p", "no:cacheprovider", "-p", "verify_gpu_plugin", "--rootdir", ROOT]
    return [sys.executable, "-m", "pytest", *options, "-c", ROOT / "pyproject.toml", *arguments]


@dataclass
class Clock:
    """Runs commands until a time on the monotonic clock."""

    end: float

    def left(self) -> float:
        return self.end - time.monotonic()

    def run(
        self,
        name: str,
        command: Iterable[str | Path],
        environment: dict[str, str],
        folder: Path | None = None,
    ) -> str:
        """Run a command, its output in results/<name>.log, and say "ok" or what became of it.

        In the work folder, unless told: the repository's root has a jaa_ext without kernels.
        """
        if self.left() < 1:
            return "not begun: no time was left"
        paths = [WORK / "site", ROOT / "scripts", os.environ.get("PYTHONPATH", "")]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(str(p) for p in paths if str(p)),
            **environment,
        }
        log = results() / f"{name}.log"
        with log.open("w", encoding="utf-8") as file:
            process = subprocess.Popen(
                [str(part) for part in command],
                cwd=folder or WORK,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            begin = time.monotonic()
            try:
                code = process.wait(self.left())
            except subprocess.TimeoutExpired:
                stop(process)
                return f"stopped after {time.monotonic() - begin:.0f} s, its limit"
            except BaseException:
                stop(process)
                raise
        if code == 0:
            return "ok"
        tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-12:]
        print("\n".join(f"   {name}: {line}" for line in tail), flush=True)
        return f"failed, exit status {code}"


def stop(process: subprocess.Popen[bytes]) -> None:
    """Interrupt, so that results are written; then kill the process and its children."""
    for number, seconds in ((signal.SIGINT, 25), (signal.SIGKILL, 5)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)


STAGES: dict[str, tuple[float, Callable[[Clock, dict[str, str]], dict[str, Any]]]] = {
    "build": (200, build),
    "test": (220, test),
    "sanitize": (180, sanitize),
    "bench": (TOTAL_SECONDS, bench),
}
"""Seconds at most."""


# The summary


def write_summary(machine: dict[str, str], out: Path) -> bool:
    """Whether all of it could be written."""
    stages = read_stages()
    name = re.sub(r"[^a-z0-9]+", "-", machine["gpu"].lower()).strip("-")
    try:
        result = merge_benchmarks(machine)
        result["verification"] = {"machine": machine, "stages": stages}
        for path, text in (
            (out / f"{name}.json", json.dumps(result, indent=1)),
            (out / f"{name}.md", summary(machine, stages, result)),
        ):
            path.write_text(text, encoding="utf-8")
            print(path, flush=True)
    except Exception:
        traceback.print_exc()
        return False
    return True


def read_stages() -> dict[str, dict[str, Any]]:
    paths = {name: results() / f"{name}.stage.json" for name in STAGES}
    return {
        name: json.loads(path.read_text(encoding="utf-8")) for name, path in paths.items() if path.exists()
    }


def merge_benchmarks(machine: dict[str, str]) -> dict[str, Any]:
    """The files of the parts as one; its limits of the machine are the best of all parts."""
    paths = [results() / f"bench_{name}.json" for name in BENCHMARKS]
    parts = [
        json.loads(path.read_text(encoding="utf-8"))
        for path in paths
        if path.exists() and path.stat().st_size
    ]
    if not parts:
        return {"benchmarks": []}
    merged: dict[str, Any] = {**parts[0], "benchmarks": [b for part in parts for b in part["benchmarks"]]}
    roofs = [part["machine_info"]["roofline"]["cuda"] for part in parts]
    best = {key: max((roof[key] for roof in roofs), key=rate) for key in roofs[0]}
    merged["machine_info"]["roofline"]["cuda"] = best
    merged["commit_info"]["id"] = machine["commit"]
    return merged


def rate(entry: Any) -> float:
    return float(entry["gflops"] if isinstance(entry, dict) else entry)


def summary(machine: dict[str, str], stages: dict[str, dict[str, Any]], result: dict[str, Any]) -> str:
    facts = ("driver", "cuda", "torch", "python", "capability", "commit")
    parts = [
        f"# {machine['gpu']}",
        ", ".join(f"{fact} {machine[fact]}" for fact in facts) + f"; {time.strftime('%Y-%m-%d')}",
        markdown(["stage", "result", "seconds"], [[n, s["status"], s["seconds"]] for n, s in stages.items()]),
    ]
    if "test" in stages:
        left_out = f"Left out, as they are of the CPU: {', '.join(LEFT_OUT)}."
        parts += ["## Tests", in_words(stages["test"]), left_out]
    if "sanitize" in stages:
        verdicts = stages["sanitize"].get("verdicts", {})
        parts += ["## compute-sanitizer", "\n".join(f"- {tool}: {said}" for tool, said in verdicts.items())]
    if result["benchmarks"]:
        sys.path.insert(0, str(ROOT / "benchmarks"))
        import report

        roof = result["machine_info"]["roofline"]["cuda"]
        rows = ratios(report, report.runs_of(result), roof)
        header = ["what", "asked", "measured", "holds"]
        parts += ["## What was asked", markdown(header, rows), "## Benchmarks"]
        parts += [in_words(stages["bench"])] if "bench" in stages else []
        parts += [report.report(result)]
    return "\n\n".join(parts).rstrip() + "\n"


def in_words(found: dict[str, Any]) -> str:
    failed, skipped = found.get("failed", {}), found.get("skipped", {})
    lines = [
        f"{found.get('passed', 0)} passed ({found.get('on_gpu', 0)} of them on the GPU), "
        f"{len(failed)} failed, tests and whole files skipped: {sum(skipped.values())}.",
        "",
        *(f"- failed: `{test}`: {reason}" for test, reason in list(failed.items())[:40]),
        *(f"- skipped, {count}: {reason}" for reason, count in sorted(skipped.items())),
    ]
    return "\n".join(lines).rstrip()


def ratios(report: Any, runs: list[Run], roof: dict[str, Any]) -> list[list[str]]:
    """What the project asks of itself on a data-centre GPU, what was measured, and whether it holds."""
    rows: list[list[str]] = []

    def add(what: str, asked: float, values: list[float], mean: Callable[[list[float]], float]) -> None:
        if values:
            measured = mean(values)
            listed = ", ".join(f"{value:.3g}" for value in values)
            rows.append(
                [what, f"{asked:g}", f"{measured:.3g} ({listed})", "yes" if measured >= asked else "**no**"]
            )

    for title, panel in report.panels(runs).items():
        if panel[0]["device"] != "cuda":
            continue
        op = panel[0]["op"]
        if op == "region_conv2d":
            shares = [report.limit(run, roof)[0] / fastest(run, "jaa_ext") for run in panel]
            add(f"{title}: share of the floor, lowest of {len(panel)} shapes", 0.7, shares, min)
            quicker = [
                min(f["median_ms"] for f in report.split_ours(run)[1]) / fastest(run, "jaa_ext")
                for run in panel
            ]
            add(f"{title}: times the best plain PyTorch, geometric mean", 3, quicker, geometric_mean)
        if op == "attention_maps":
            add(f"{title}: times eager, lowest", 10, times(panel, "eager reference", "jaa_ext"), min)
        if op == "softmax_dice_loss":
            add(f"{title}: times eager, lowest", 5, times(panel, "eager reference", "jaa_ext"), min)
            add(f"{title}: times torch.compile, lowest", 1.5, times(panel, "torch.compile", "jaa_ext"), min)
        if panel[0]["direction"] == "training step":
            for ours in ("jaa_ext", "jaa_ext, CUDA graph"):
                for peer, asked in (("authors' arrangement, float32", 10), ("torch.compile", 2)):
                    add(f"{title}: {ours}, times {peer}, lowest", asked, times(panel, peer, ours), min)
    return rows


def geometric_mean(values: list[float]) -> float:
    return math.exp(statistics.mean(map(math.log, values)))


def times(runs: list[Run], peer: str, ours: str) -> list[float]:
    pairs = [(fastest(run, peer), fastest(run, ours)) for run in runs]
    return [theirs / mine for theirs, mine in pairs if theirs and mine]


def fastest(run: Run, name: str) -> float:
    """Median ms of the quickest formulation of this name, whatever stands in parentheses; 0 without one."""
    found = [f["median_ms"] for f in run["formulations"] if f["name"].partition(" (")[0] == name]
    return min(found, default=0.0)


def markdown(header: list[str], rows: list[list[Any]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
