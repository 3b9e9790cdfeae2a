"""Attack jaa_ext: damaged inputs of every kind, and kills. Ends with 1 if anything fell short.

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
    # Processes that are started in the repository's root would import the source tree, wherever jaa_ext is.
    os.chdir(tempfile.gettempdir())
    if options.only is not None and options.kind:
        return one_input(options.kind[0], options.seed, options.only, options.keep)
    table, fell_short = [], 0
    if options.inputs:
        table, fell_short = attack_inputs(options)
    if options.kills:
        rows, problems = disturb(options)
        table, fell_short = [*table, "", *rows], fell_short + problems
    text = "\n".join(table).strip()
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n")
    return int(fell_short > 0)


def attack_inputs(options: argparse.Namespace) -> tuple[list[str], int]:
    """A table, and how many inputs fell short."""
    import kinds

    counts = kinds.shares(options.inputs, options.kind or list(kinds.KINDS))
    tasks = [workers.Task(kind, options.seed, i) for kind, count in counts.items() for i in range(count)]
    tally = {kind: Counter() for kind in counts}
    began = told = time.monotonic()
    for done, result in enumerate(workers.run(tasks, kinds.make, options.workers, ["kinds"]), 1):
        task = result.task
        tally[task.kind][result.outcome] += 1
        if result.outcome not in workers.FINE:
            again = f"--kind {task.kind!r} --seed {task.seed} --only {task.number}"
            print(f"{again}: {result.outcome}: {result.reason}", flush=True)
        if time.monotonic() - told > 10:
            told = time.monotonic()
            _progress(f"{done:,} of {len(tasks):,} inputs, {told - began:.0f} s, {task.kind}")
    table = ["| kind | inputs | " + " | ".join(workers.OUTCOMES) + " |", "|---" + "|--:" * 8 + "|"]
    for kind, outcomes in {**tally, "all": sum(tally.values(), Counter())}.items():
        cells = (outcomes.total(), *(outcomes[outcome] for outcome in workers.OUTCOMES))
        table.append(f"| {kind} | " + " | ".join(f"{cell:,}" for cell in cells) + " |")
    return table, sum(
        n for outcomes in tally.values() for outcome, n in outcomes.items() if outcome not in workers.FINE
    )


def disturb(options: argparse.Namespace) -> tuple[list[str], int]:
    """A table of kills, two processes at once and full disks, and how many fell short."""
    import kills

    tally: dict[tuple[str, str], Counter] = {}
    began = time.monotonic()
    for ending in kills.run(options.kills, options.seed, options.workers, options.command, options.only):
        one = ending.disturbance
        counts = tally.setdefault((one.how, one.situation.name), Counter())
        counts.update(runs=1, kills=ending.kills, problems=int(ending.problem != ""))
        if ending.problem:
            again = f"--kills {options.kills} --command {one.situation.name!r} --seed {one.seed}"
            again += f" --only {one.number}"
            print(f"{again}: {one.how}: {ending.problem}", flush=True)
        _progress(f"{one.how}, {one.situation.name} {one.number}, {time.monotonic() - began:.0f} s")
    table = ["| disturbance | command | runs | kills | fell short |", "|---|---|--:|--:|--:|"]
    for (how, name), counts in sorted(tally.items()):
        table.append(f"| {how} | {name} | {counts['runs']} | {counts['kills']} | {counts['problems']} |")
    return table, sum(counts["problems"] for counts in tally.values())


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def one_input(kind: str, seed: int, number: int, keep: Path | None) -> int:
    """In this process, and told in full."""
    import kinds

    folder = keep or Path(tempfile.mkdtemp(prefix="attack."))
    folder.mkdir(exist_ok=True)
    outcome, reason = workers.attempt(
        kinds.make(kind, folder / "kind"), workers.Task(kind, seed, number).random(), details=True
    )
    print(f"{outcome}: {reason}")
    return outcome not in ("read", "refused")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--inputs", type=int, default=0, help="how many damaged inputs, divided among the kinds"
    )
    parser.add_argument(
        "--kills", type=int, default=0, help="how many kills; full disks and two at once besides"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", action="append", help="of input; all if not given")
    parser.add_argument("--command", action="append", help="that is killed, such as train; all if not given")
    parser.add_argument("--only", type=int, help="the number of an input, or of a disturbance")
    parser.add_argument("--keep", type=Path, help="with --only: a folder for the damaged input, which stays")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="processes")
    parser.add_argument("--out", type=Path, help="a file for the table")
    options = parser.parse_args()
    options.keep, options.out = (None if p is None else p.absolute() for p in (options.keep, options.out))
    return options


if __name__ == "__main__":
    sys.exit(main())
