"""Runs inputs in other processes, within limits, and says how each ended.

A worker survives many inputs. It is ended when an input takes too long, and replaced when it dies of one.
"""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from random import Random
from typing import Any, Protocol

SECONDS = 20.0
"""Of a processor, that an input may take; by the clock, in which other programs have their part, three times
as many."""
MEMORY = 2 << 30
"""Bytes that reading an input may take beyond what the worker had."""
INPUTS_A_WORKER = 1000
"""Then it is replaced: what other libraries leak shall not add up."""

MOST_LINES, MOST_CHARACTERS = 50, 5000
"""Of the sentence by which an input is refused: a recipe has one for each mistake, up to a point."""

CLEARLY_REFUSED = (ValueError, OSError, RuntimeError, ImportError)
"""What `jaa_ext.cli.main` makes one sentence and exit code 2 of."""

OUTCOMES = ("read", "refused", "traceback", "hang", "memory", "nonsense", "died")
FINE = ("read", "refused")


class Nonsense(Exception):
    """Something was accepted that makes no sense."""


class Unclear(Exception):
    """The command refused something, but not in one sentence that says what."""


class Kind(Protocol):
    """A kind of input. It is made once in a worker, with a folder of its own."""

    def damage(self, random: Random) -> None:
        """Write a damaged input in place of the valid one."""

    def read(self) -> None:
        """Read it as jaa_ext does. Raises `Nonsense` where what was accepted makes no sense."""

    def names(self) -> Iterable[str]:
        """One of these must be in the sentence by which it is refused."""


@dataclass(frozen=True)
class Task:
    kind: str
    seed: int
    number: int

    def random(self) -> Random:
        return Random(f"{self.seed} {self.kind} {self.number}")


@dataclass(frozen=True)
class Result:
    task: Task
    outcome: str
    """One of `OUTCOMES`."""
    reason: str = ""
    seconds: float = 0.0


def attempt(kind: Kind, random: Random, *, details: bool = False) -> tuple[str, str]:
    """Outcome and reason of one input in this process."""
    kind.damage(random)
    try:
        kind.read()
    except Nonsense as error:
        return "nonsense", str(error)
    except Unclear as error:
        return "traceback", str(error)
    except MemoryError as error:
        return "memory", _one_line(error)
    except CLEARLY_REFUSED as error:
        if details:
            traceback.print_exc()
        wrong = why_unclear(str(error), kind.names())
        return (
            ("traceback", f"{wrong}: {_one_line(error)} at {_where(error)}")
            if wrong
            else ("refused", str(error))
        )
    except Exception as error:
        if details:
            traceback.print_exc()
        return "traceback", f"{_one_line(error)} at {_where(error)}"
    return "read", ""


def why_unclear(sentence: str, names: Iterable[str]) -> str:
    """What is wrong with the sentence by which an input is refused; empty if nothing is."""
    lines = sentence.split("\n")
    if len(lines) > MOST_LINES or len(sentence) > MOST_CHARACTERS:
        return f"{len(lines)} lines of {len(sentence)} characters"
    names = list(names)
    for line in lines:
        if not any(name in line for name in names):
            return (
                "names no file"
                if len(lines) == 1
                else f"has {len(lines)} lines, not all with the file's name"
            )
    return ""


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _where(error: BaseException) -> str:
    """The innermost place in jaa_ext."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "jaa_ext" in Path(f.filename).parts]
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"


def run(
    tasks: Iterable[Task], make: Callable[[str, Path], Kind], workers: int, preload: list[str]
) -> Iterator[Result]:
    """Run tasks in so many processes; results come as they are ready.

    Args:
        make: makes a kind by its name, in a folder; can be pickled.
        preload: modules that all workers need, loaded once.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(preload)
    queue = iter(tasks)
    free = [_Worker(context, make) for _ in range(workers)]
    busy: list[_Worker] = []
    try:
        while True:
            while free and (task := next(queue, None)) is not None:
                worker = free.pop()
                worker.give(task)
                busy.append(worker)
            if not busy:
                return
            wait([worker.pipe for worker in busy], timeout=0.5)
            for worker in list(busy):
                result = worker.result()
                if result is None:
                    continue
                busy.remove(worker)
                if worker.worn or result.outcome in ("hang", "memory", "died"):
                    worker.end()
                    worker = _Worker(context, make)
                free.append(worker)
                yield result
    finally:
        for worker in free + busy:
            worker.end()


class _Worker:
    def __init__(self, context: Any, make: Callable[[str, Path], Kind]) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="attack."))
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(other, self.folder, make), daemon=True)
        self.process.start()
        other.close()
        self.done = 0
        self.worn = False

    def give(self, task: Task) -> None:
        self.task, self.began, self.before = task, time.monotonic(), self._computed()
        self.pipe.send(task)

    def result(self) -> Result | None:
        """Of the task that was given; None while it runs."""
        seconds = time.monotonic() - self.began
        if self.pipe.poll():
            try:
                outcome, reason = self.pipe.recv()
            except (EOFError, ConnectionResetError):
                self.process.join(10)
                return Result(self.task, "died", self._last_words(), seconds)
            if outcome == "broken":
                raise RuntimeError(f"the attack itself failed at {self.task}:\n{reason}")
            self.done += 1
            self.worn = self.done >= INPUTS_A_WORKER
            return Result(self.task, outcome, reason, seconds)
        # The first task waits for the worker to start and to make the kind.
        allowed = SECONDS if self.done else SECONDS + 60
        if seconds > 3 * allowed or (seconds > allowed and self._computed() - self.before > allowed):
            os.kill(self.process.pid, signal.SIGABRT)  # faulthandler then says where it was
            self.process.join(10)
            return Result(self.task, "hang", f"over {SECONDS:g} s {self._last_words()}", seconds)
        return None

    def _computed(self) -> float:
        """Seconds of a processor that it has had."""
        with contextlib.suppress(FileNotFoundError):
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return 0.0

    def _last_words(self) -> str:
        """How it died and where."""
        code = self.process.exitcode
        how = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
        lines = (self.folder / "fault").read_text(errors="replace").splitlines()
        frames = [line.strip() for line in lines if line.startswith("  File")]
        ours = [frame for frame in frames if "/jaa_ext/" in frame]
        return " in ".join([how, *frames[:1], *ours[:1]])

    def end(self) -> None:
        self.pipe.close()
        if self.process.is_alive():
            self.process.kill()
        self.process.join(10)
        shutil.rmtree(self.folder, ignore_errors=True)


def _serve(pipe: Connection, folder: Path, make: Callable[[str, Path], Kind]) -> None:
    # Kept open: faulthandler writes into it when the process is dying.
    fault = (folder / "fault").open("w")
    faulthandler.enable(fault)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):  # other libraries' remarks
        os.dup2(nowhere, descriptor)
    kinds: dict[str, Kind] = {}
    before = 0
    while True:
        try:
            task: Task = pipe.recv()
        except EOFError:
            return
        try:
            if task.kind not in kinds:
                kinds[task.kind] = make(task.kind, folder / task.kind.replace(" ", "_"))
            before = before or _limit_memory()
            outcome, reason = attempt(kinds[task.kind], task.random())
        except Exception:
            pipe.send(("broken", traceback.format_exc()))
            return
        taken = _largest() - before
        if taken > MEMORY and outcome not in ("traceback", "nonsense"):
            outcome, reason = "memory", f"{taken / 1e9:.1f} GB, then {outcome} {reason}"
        pipe.send((outcome, reason[:1000]))


def _limit_memory() -> int:
    """Keep the process, and the machine, from ruin; gives the memory taken so far."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + 2 * MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    return _largest()


def _largest() -> int:
    """Most bytes that this process ever had in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
