"""Attack jaa_ext: damaged inputs of every kind, and kills. Prints a table; ends with 1 if anything fell short.

    python python_tests/attack/run.py --inputs 30000 --kills 100 --out table.md
    python python_tests/attack/run.py --kind videos --seed 0 --only 17   # one input again, with its traceback
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

# Before anything that reads them is imported: one thread for each worker, no remarks of other libraries.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
if Path("/dev/shm").is_dir():
    os.environ.setdefault("TMPDIR", "/dev/shm")  # a disk would spend most of the time on being asked to sync

sys.path[:0] = [str(Path(__file__).parent)]
os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)

import workers  # noqa: E402


def main() -> int:
    options = _options()
    import kinds

    if options.only is not None:
        return one_input(options.kind[0], options.seed, options.only, options.keep)
    chosen = options.kind or list(kinds.KINDS)
    tasks = [
        workers.Task(kind, options.seed, number)
        for kind, count in (kinds.shares(options.inputs, chosen) if options.inputs else {}).items()
        for number in range(options.first, options.first + count)
    ]
    lines = attack_inputs(tasks, options.workers) if tasks else []
    if options.kills:
        lines += ["", *attack_by_kills(options.kills, options.seed, options.workers, options.situation)]
    text = "\n".join(lines)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n")
    return 0


def attack_inputs(tasks: list[workers.Task], processes: int) -> list[str]:
    import kinds

    results: list[workers.Result] = []
    began = time.monotonic()
    told = 0.0
    preload = ["kinds"]
    for result in workers.run(tasks, kinds.make, processes, preload):
        results.append(result)
        if result.outcome not in ("read", "refused"):
            task = result.task
            print(f"--kind {task.kind!r} --seed {task.seed} --only {task.number}: {result.outcome}: {result.reason}", flush=True)
        if time.monotonic() - told > 10:
            told = time.monotonic()
            print(f"{len(results)} of {len(tasks)} inputs, {told - began:.0f} s", file=sys.stderr, flush=True)
    table = ["| kind | inputs | " + " | ".join(workers.OUTCOMES) + " |", "|---" + "|--:" * 8 + "|"]
    by_kind: dict[str, Counter] = {}
    spent: Counter = Counter()
    for result in results:
        by_kind.setdefault(result.task.kind, Counter())[result.outcome] += 1
        spent[result.task.kind] += result.seconds
    for kind in dict.fromkeys(task.kind for task in tasks):
        counts = by_kind[kind]
        cells = [counts[outcome] for outcome in workers.OUTCOMES]
        table.append(f"| {kind} | {counts.total():,} | " + " | ".join(f"{c:,}" for c in cells) + " |")
        print(f"{kind}: {1000 * spent[kind] / counts.total():.0f} ms", file=sys.stderr)
    return table


def attack_by_kills(count: int, seed: int, processes: int, chosen: list[str] | None) -> list[str]:
    import kills

    rows: dict[tuple[str, str], Counter] = {}
    began = time.monotonic()
    for ending in kills.run(count, seed, processes, chosen):
        one = ending.disturbance
        counts = rows.setdefault((one.how, one.situation.name), Counter())
        counts["runs"] += 1
        counts["kills"] += ending.kills
        counts["fell short"] += bool(ending.problem)
        counts["seconds"] += ending.seconds
        if ending.problem:
            print(f"{one.how} {one.situation.name!r} --seed {one.seed} number {one.number}: {ending.problem}", flush=True)
        print(f"{one.how} {one.situation.name} {one.number} {ending.seconds:.1f} s of {time.monotonic() - began:.0f}", file=sys.stderr)
    table = ["| disturbance | command | runs | kills | fell short |", "|---|---|--:|--:|--:|"]
    for (how, name), counts in sorted(rows.items()):
        table.append(f"| {how} | {name} | {counts['runs']} | {counts['kills']} | {counts['fell short']} |")
    return table


def one_input(kind: str, seed: int, number: int, keep: Path | None) -> int:
    """In this process, and told in full."""
    import kinds

    folder = keep or Path(tempfile.mkdtemp(prefix="attack."))
    folder.mkdir(exist_ok=True)
    outcome, reason = workers.attempt(kinds.make(kind, folder / "kind"), workers.Task(kind, seed, number).random(), details=True)
    print(f"{outcome}: {reason}")
    return outcome not in ("read", "refused")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=0)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", action="append")
    parser.add_argument("--situation", action="append")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--only", type=int)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
