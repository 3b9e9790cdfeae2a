"""What verify_gpu.sh runs; see there."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
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
ON_GPU = "cuda or on_gpu"
"""By their names, tests that the GPU runs."""
SECONDS_TO_FINISH = 10
"""Before its limit a benchmark file begins no further case."""
SECONDS_TO_STOP = 15
"""That a command which is stopped at its limit may go on."""
CUT_SHORT = "cut short"
"""What became of a stage that never came to its end."""


@dataclass(frozen=True)
class Bench:
    """A benchmark file, or part of it."""

    name: str
    seconds: int
    """At most."""
    rounds: int
    only: str = "cuda and not agree"
    compiled: bool = True
    """Whether `torch.compile` takes part, which takes most of the time."""


@dataclass(frozen=True)
class Call:
    """What a call of the script does. Benchmarks are in the order of what is asked for: after everything
    else, time may not suffice for the last ones."""

    total: int
    """Seconds for all stages together."""
    limits: dict[str, int]
    """Seconds at most, of each stage."""
    tests: str
    """What `pytest -k` chooses; "" is everything."""
    sanitizers: tuple[str, ...]
    benchmarks: tuple[Bench, ...]
    again: bool = False
    """Whether an earlier call's build of the same sources is taken."""


CALLS = {
    "all": Call(
        500,
        {"build": 200, "test": 220, "sanitize": 180, "bench": 500},
        "",
        ("memcheck", "racecheck"),
        (
            Bench("attention_maps", 40, 20),
            Bench("softmax_dice_loss", 50, 20),
            Bench("jaanet_cuda", 150, 7),
            Bench("region_conv2d", 280, 10),
            Bench("region_batch_norm", 80, 10),
            Bench("region_block", 80, 7),
        ),
    ),
    # What there is of a GPU may be 15 minutes in all, with the time to get it.
    "first": Call(
        335,
        {"build": 170, "test": 90, "sanitize": 90, "bench": 335},
        ON_GPU,
        ("memcheck",),
        (
            Bench("attention_maps", 40, 10, compiled=False),
            Bench("softmax_dice_loss", 40, 10, compiled=False),
            Bench("region_conv2d", 60, 5, "cuda-bfloat16 and not agree", compiled=False),
            Bench("jaanet_cuda", 60, 5, compiled=False),
            Bench("region_conv2d", 60, 5, "cuda-float32 and not agree", compiled=False),
            Bench("region_conv2d", 60, 5, "cuda-TF32 and not agree", compiled=False),
        ),
    ),
    "rest": Call(
        400,
        {"build": 170, "test": 90, "sanitize": 90, "bench": 400},
        f"not ({ON_GPU})",
        ("racecheck",),
        (
            Bench("softmax_dice_loss", 50, 20),
            Bench("jaanet_cuda", 150, 7),
            Bench("region_batch_norm", 60, 7, compiled=False),
            Bench("region_block", 60, 7, compiled=False),
            Bench("attention_maps", 40, 20),
            Bench("region_conv2d", 280, 10),
        ),
        again=True,
    ),
}

Run = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/verify_gpu.sh")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for <gpu>.json, <gpu>.md and parts/")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--first", action="store_true", help="in under 6 minutes what matters most")
    which.add_argument("--rest", action="store_true", help="what --first leaves out")
    which.add_argument(
        "--summary",
        action="store_true",
        help="only write <gpu>.json and <gpu>.md of OUT/parts, without a GPU",
    )
    named = [*STAGES, *dict.fromkeys(bench.name for bench in CALLS["all"].benchmarks)]
    parser.add_argument("stages", nargs="*", metavar="stage", help=f"of {', '.join(named)}; default all")
    arguments = parser.parse_intermixed_args()
    begin = time.monotonic()
    unknown = [stage for stage in arguments.stages if stage not in named]
    if unknown:
        parser.error(f"no stage {unknown[0]!r}: there are {', '.join(named)}")
    parts = arguments.out.resolve() / "parts"
    if arguments.summary:
        if not (parts / "gpu.json").exists():
            print(f"scripts/verify_gpu.sh: {parts}: holds no results of an earlier call", file=sys.stderr)
            return 2
        return summarize(parts)
    machine = describe_machine()
    if "problem" in machine:
        print(f"scripts/verify_gpu.sh: nothing can be verified: {machine['problem']}", file=sys.stderr)
        return 2

    name = "first" if arguments.first else "rest" if arguments.rest else "all"
    call = CALLS[name]
    wanted = [stage if stage in STAGES else "bench" for stage in arguments.stages or STAGES]
    files = [stage for stage in arguments.stages if stage not in STAGES]
    benchmarks = [bench for bench in call.benchmarks if not files or bench.name in files]
    run = Session(name, call, machine, parts, benchmarks, begin + call.total)
    parts.mkdir(parents=True, exist_ok=True)
    WORK.mkdir(parents=True, exist_ok=True)
    write_json(parts / "gpu.json", machine)
    # Tests and sanitizer need the GPU to be right, not quick; benchmarks need it to themselves.
    for together in (["build"], ["test", "sanitize"], ["bench"]):
        chosen = [stage for stage in together if stage in wanted]
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda stage: run_stage(stage, run), chosen))
        if chosen:  # not only in the end: an aborted call leaves something
            status = summarize(parts)
    print(f"results in {arguments.out}", flush=True)
    return status


@dataclass
class Session:
    """A call on a machine. All that it finds is written into `parts` at once: raw results, named after the
    call, from which `summarize` makes the rest."""

    name: str
    call: Call
    machine: dict[str, str]
    parts: Path
    benchmarks: list[Bench]
    deadline: float
    """On the monotonic clock."""

    def file(self, name: str) -> Path:
        return self.parts / f"{self.name}.{name}"


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


def run_stage(name: str, run: Session) -> None:
    """Run a stage to its end or its limit; what it found goes to <call>.<stage>.stage.json."""
    print(f"== {name}", flush=True)
    path, begin = run.file(f"{name}.stage.json"), time.monotonic()
    write_json(path, {"status": CUT_SHORT, "seconds": 0, "commit": run.machine["commit"]})
    clock = Clock(min(begin + run.call.limits[name], run.deadline))
    try:
        found = STAGES[name](clock, run)
    except Exception as error:  # whatever it is, the next stage is to run
        found = {"status": f"{type(error).__name__}: {error}"}
    found = {**found, "seconds": round(time.monotonic() - begin), "commit": run.machine["commit"]}
    write_json(path, found)
    print(f"== {name}: {found['status']} ({found['seconds']} s)", flush=True)


def build(clock: Clock, run: Session) -> dict[str, Any]:
    """For this GPU alone, into folders of its own."""
    made, sources = WORK / "built.json", {**run.machine, "sources": digest_of_sources()}
    if run.call.again and made.exists() and json.loads(made.read_text(encoding="utf-8")) == sources:
        return {"status": "ok", "remark": "an earlier call's"}
    made.unlink(missing_ok=True)
    shutil.rmtree(WORK / "site", ignore_errors=True)
    environment = {
        "FORCE_CUDA": "1",
        "TORCH_CUDA_ARCH_LIST": run.machine["capability"],
        "MAX_JOBS": str(os.cpu_count()),
    }
    command = ["setup.py", "-q", "build", "--build-base", WORK / "build", "--build-lib", WORK / "site"]
    status = clock.run(run.file("build.log"), [sys.executable, *command], environment, folder=ROOT)
    if status == "ok":
        code = (
            f"from jaa_ext import _C, _library; assert 'cuda' in _library.DEVICES and '{WORK}' in _C.__file__"
        )
        status = clock.run(run.file("import.log"), [sys.executable, "-c", code], {})
    if status == "ok":
        write_json(made, sources)
    return {"status": status}


def digest_of_sources() -> str:
    """Of all that is built."""
    digest = hashlib.sha256()
    for path in sorted([ROOT / "setup.py", *(ROOT / "csrc").rglob("*"), *(ROOT / "jaa_ext").rglob("*")]):
        if path.is_file() and path.suffix not in (".so", ".pyc") and path.name != "_build_info.py":
            digest.update(f"{path.relative_to(ROOT)} {path.stat().st_size}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def test(clock: Clock, run: Session) -> dict[str, Any]:
    outcomes = run.file("test.outcomes.jsonl")
    outcomes.unlink(missing_ok=True)
    ignored = [f"--ignore={ROOT / 'python_tests' / path}" for path in LEFT_OUT]
    parallel = ["-n", str(PROCESSES)] if importlib.util.find_spec("xdist") else []
    chosen = ["-k", run.call.tests] if run.call.tests else []
    command = pytest_command(ROOT / "python_tests", *ignored, *parallel, *chosen)
    threads = max(1, (os.cpu_count() or 1) // PROCESSES) if parallel else os.cpu_count()
    environment = {"JAA_EXT_OUTCOMES": str(outcomes), "OMP_NUM_THREADS": str(threads)}
    return {"status": clock.run(run.file("test.log"), command, environment)}


def count_outcomes(path: Path) -> dict[str, Any]:
    """How many tests passed, which failed, and how many were skipped for which reason."""
    by_test = {entry["test"]: (entry["outcome"], entry["reason"]) for entry in read_lines(path)}
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


def sanitize(clock: Clock, run: Session) -> dict[str, Any]:
    tool, names = find_sanitizer(), run.call.sanitizers
    if tool is None:
        return {"status": "ok", "verdicts": dict.fromkeys(names, "not run: compute-sanitizer was not found")}
    with ThreadPoolExecutor() as pool:
        told = pool.map(lambda name: sanitize_with(tool, name, clock, run), names)
        verdicts = dict(zip(names, told, strict=True))
    clean = all(re.search(r": 0 (errors|hazards)", verdict) for verdict in verdicts.values())
    return {"status": "ok" if clean else "failed", "verdicts": verdicts}


def find_sanitizer() -> str | None:
    homes = [os.environ.get("CUDA_HOME", ""), "/usr/local/cuda"]
    places = [f"{home}/{folder}" for home in homes if home for folder in ("bin", "compute-sanitizer")]
    return shutil.which("compute-sanitizer", path=os.pathsep.join([os.environ.get("PATH", ""), *places]))


def sanitize_with(tool: str, name: str, clock: Clock, run: Session) -> str:
    """What the tool says of our kernels."""
    log = run.file(f"{name}.txt")
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
    status = clock.run(run.file(f"{name}.log"), command, environment)
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    verdict = re.findall(SANITIZERS[name], text)
    if status == "ok" and verdict:
        return str(verdict[-1])
    lines = [line.strip("= ") for line in text.splitlines() if line.strip("= ")]
    return "; ".join([status, *(verdict[-1:] or lines[-1:])])


def bench(clock: Clock, run: Session) -> dict[str, Any]:
    """Each benchmark's result is a line of <call>.runs.jsonl as soon as it is there."""
    statuses = {}
    limits = run.parts / "machine.json"
    if not limits.exists():
        temporary = WORK / "machine.json"  # whole or not at all
        part = Clock(min(time.monotonic() + 40, clock.end))
        command = [sys.executable, ROOT / "benchmarks" / "machine.py", temporary]
        statuses["limits of the machine"] = part.run(run.file("machine.log"), command, {})
        if temporary.exists():
            shutil.move(temporary, limits)
    environment = {
        "JAA_EXT_OUTCOMES": str(run.file("bench.outcomes.jsonl")),
        "JAA_EXT_RUNS": str(run.file("runs.jsonl")),
    }
    for chosen in run.benchmarks:
        part = Clock(min(time.monotonic() + chosen.seconds, clock.end))
        last_start = max(part.left() - SECONDS_TO_FINISH, 0)
        options = ["-k", chosen.only, "--benchmark-only", f"--rounds={chosen.rounds}"]
        options += [f"--seconds={last_start:.0f}", *["--no-compile"] * (not chosen.compiled)]
        command = pytest_command(ROOT / "benchmarks" / f"bench_{chosen.name}.py", *options)
        what = f"{chosen.name}, {chosen.only.partition(' ')[0]}"
        statuses[what] = part.run(run.file(f"{what.replace(', ', '.')}.log"), command, environment)
        print(f"   {what}: {statuses[what]}", flush=True)
        summarize(run.parts)
    return {"status": "ok" if set(statuses.values()) == {"ok"} else "failed", "files": statuses}


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
        log: Path,
        command: Iterable[str | Path],
        environment: dict[str, str],
        folder: Path | None = None,
    ) -> str:
        """Run a command, its output in the log, and say "ok" or what became of it.

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
            running.add(process.pid)
            begin = time.monotonic()
            try:
                code = process.wait(max(self.left(), 0))
            except subprocess.TimeoutExpired:
                stop(process)
                return f"stopped after {time.monotonic() - begin:.0f} s, its limit"
            finally:
                running.discard(process.pid)
        if code == 0:
            return "ok"
        tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-12:]
        print("\n".join(f"   {log.stem}: {line}" for line in tail), flush=True)
        return f"failed, exit status {code}"


running: set[int] = set()
"""Process groups of commands."""


def stop(process: subprocess.Popen[bytes]) -> None:
    """Interrupt, so that a verdict is written; then kill the process and its children."""
    for number, seconds in ((signal.SIGINT, SECONDS_TO_STOP - 5), (signal.SIGKILL, 5)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)


def kill_all(number: int, frame: Any) -> None:
    """The call is ended from outside: nothing goes on without it, and what was found is in `parts`."""
    for group in list(running):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
    os._exit(128 + number)


STAGES: dict[str, Callable[[Clock, Session], dict[str, Any]]] = {
    "build": build,
    "test": test,
    "sanitize": sanitize,
    "bench": bench,
}


# The summary


def summarize(parts: Path) -> int:
    """Write <gpu>.json and <gpu>.md from what `parts` holds, whoever put it there; 0 if all of it is well."""
    try:
        machine = json.loads((parts / "gpu.json").read_text(encoding="utf-8"))
        stages = read_stages(parts)
        result = merge_benchmarks(machine, parts)
        result["verification"] = {"machine": machine, "stages": stages}
        name = re.sub(r"[^a-z0-9]+", "-", machine["gpu"].lower()).strip("-")
        for path, text in (
            (parts.parent / f"{name}.json", json.dumps(result, indent=1)),
            (parts.parent / f"{name}.md", summary(machine, stages, result)),
        ):
            write_text(path, text)
    except Exception:
        traceback.print_exc()
        return 1
    return 0 if all(stage["status"] == "ok" for stage in stages.values()) else 1


def read_stages(parts: Path) -> dict[str, dict[str, Any]]:
    """By "<call>.<stage>"; with the tests' outcomes as far as they came."""
    stages = {}
    for name in (f"{call}.{stage}" for call in CALLS for stage in STAGES):
        path = parts / f"{name}.stage.json"
        if path.exists():
            stages[name] = json.loads(path.read_text(encoding="utf-8"))
            if name.partition(".")[2] in ("test", "bench"):
                stages[name].update(count_outcomes(parts / f"{name}.outcomes.jsonl"))
    return stages


def merge_benchmarks(machine: dict[str, str], parts: Path) -> dict[str, Any]:
    """As pytest-benchmark would have written it, for `report`. What was measured again counts."""
    runs: dict[str, Run] = {}
    for call in CALLS:
        for entry in read_lines(parts / f"{call}.runs.jsonl"):
            runs[entry["test"]] = entry["run"]
    path = parts / "machine.json"
    if path.exists():
        facts = json.loads(path.read_text(encoding="utf-8"))
    else:
        unknown = dict.fromkeys(("cpu", "cpu_level", "torch_threads", "load_at_start"), "unknown")
        facts = {**unknown, "gpu": machine["gpu"], "torch": machine["torch"], "roofline": {}}
    return {
        "machine_info": facts,
        "commit_info": {"id": machine["commit"]},
        "benchmarks": [{"extra_info": run} for run in runs.values()],
    }


def read_lines(path: Path) -> list[Any]:
    """Of JSON; the last one may have been cut off."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        with contextlib.suppress(json.JSONDecodeError):
            found.append(json.loads(line))
    return found


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value))


def write_text(path: Path, text: str) -> None:
    """Whole or not at all."""
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def summary(machine: dict[str, str], stages: dict[str, dict[str, Any]], result: dict[str, Any]) -> str:
    facts = ("driver", "cuda", "torch", "python", "capability", "commit")
    parts = [
        f"# {machine['gpu']}",
        ", ".join(f"{fact} {machine[fact]}" for fact in facts) + f"; {time.strftime('%Y-%m-%d')}",
        markdown(["stage", "result", "seconds"], [[n, s["status"], s["seconds"]] for n, s in stages.items()]),
    ]
    tests, sanitizers, benches = (
        [stages[f"{call}.{stage}"] for call in CALLS if f"{call}.{stage}" in stages]
        for stage in ("test", "sanitize", "bench")
    )
    if tests:
        left_out = f"Left out, as they are of the CPU: {', '.join(LEFT_OUT)}."
        parts += ["## Tests", *map(in_words, tests), left_out]
    if sanitizers:
        verdicts = [pair for found in sanitizers for pair in found.get("verdicts", {}).items()]
        parts += ["## compute-sanitizer", "\n".join(f"- {tool}: {said}" for tool, said in verdicts)]
    if result["benchmarks"]:
        sys.path.insert(0, str(ROOT / "benchmarks"))
        import report

        roof = result["machine_info"]["roofline"].get("cuda")
        rows = ratios(report, report.runs_of(result), roof)
        header = ["what", "asked", "measured", "holds"]
        parts += ["## What was asked", markdown(header, rows), "## Benchmarks"]
        parts += [*map(in_words, benches), report.report(result)]
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


def ratios(report: Any, runs: list[Run], roof: dict[str, Any] | None) -> list[list[str]]:
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
            shares = [report.limit(run, roof)[0] / fastest(run, "jaa_ext") for run in panel if roof]
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
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, kill_all)
    sys.exit(main())
