"""Kills at random moments, two processes at once, full disks: results must be those of an undisturbed run.

The commands run in children of this process, which has everything imported: what is disturbed is their work,
and not the seconds in which Python starts.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import cv2
import numpy as np
import skimage.data
import torch
from files import releases
from kinds_models import TINY

from jaa_ext import cli
from jaa_ext.models import JAANet, JAANetConfig, save_model
from jaa_ext.predict import job
from jaa_ext.training import load_checkpoint

PATIENCE = 300
"""Seconds after which a run is said to hang."""
WRITES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")


@dataclass(frozen=True)
class Situation:
    """A command that is disturbed."""

    name: str
    command: str
    share: int
    """Of 100 kills."""
    resumed: str = ""
    """The command that goes on, where it is another one; what was hardly begun it may refuse."""
    exclusive: bool = True
    """Whether a second process on the same folder must be refused."""
    disk: bool = False
    """Whether full disks are tried."""


MODEL = "--weights model.safetensors"
TRAIN, PREPARE = "train tiny.yaml --out out/run", "prepare bp4d BP4D --size 64 --out out/faces --workers"
SITUATIONS = (
    Situation("train", TRAIN, 24, f"{TRAIN} --resume", disk=True),
    Situation("crossval", "crossval tiny.yaml --out out/cv", 12, "crossval tiny.yaml --out out/cv --resume"),
    Situation("prepare", f"{PREPARE} 0", 12, disk=True),
    Situation("prepare in two processes", f"{PREPARE} 2", 4),
    Situation(
        "predict a video", f"predict talk.avi --search-every 4 {MODEL} --out out/tables", 14, disk=True
    ),
    Situation("predict photographs", f"predict photos {MODEL} --out out/photos.csv", 12, disk=True),
    Situation(
        "evaluate",
        "evaluate model.safetensors --recipe tiny.yaml --out out/scores",
        10,
        exclusive=False,
        disk=True,
    ),
    Situation("draw", f"draw talk.avi {MODEL} --every 3 --out out/drawn.mp4", 6, exclusive=False),
    Situation("export", "export small.safetensors --out out/small.onnx", 4, exclusive=False),
    Situation(
        "export a program",
        "export small.safetensors --format exported-program --out out/small.pt2",
        2,
        exclusive=False,
    ),
)


@dataclass(frozen=True)
class Whole:
    """What an undisturbed run leaves."""

    files: dict[str, str]
    seconds: float
    steps: int
    """Times that it opened, renamed or removed something."""
    bytes: int


@dataclass(frozen=True)
class Disturbance:
    how: str
    """"kill", "two at once" or "full disk"."""
    situation: Situation
    seed: int
    number: int


@dataclass(frozen=True)
class Ending:
    disturbance: Disturbance
    problem: str = ""
    kills: int = 0
    seconds: float = 0.0


def run(
    kills: int, seed: int, processes: int, chosen: list[str] | None = None, only: int | None = None
) -> Iterator[Ending]:
    """So many kills, and a fifth as many runs of two at once and on full disks."""
    situations = [s for s in SITUATIONS if chosen is None or s.name in chosen]
    total = sum(s.share for s in situations)
    counts = {s: count for s in situations if (count := round(kills * s.share / total))}
    with tempfile.TemporaryDirectory(prefix="attack.") as text:
        stage = Path(text) / "stage"
        # Forked before anything here computes: a process that has threads must not be forked.
        fork = multiprocessing.get_context("fork")
        with ProcessPoolExecutor(processes, fork, _started, (stage,)) as pool:
            pool.submit(make_stage, stage).result()
            wholes = dict(zip(counts, pool.map(undisturbed, counts), strict=True))
            todo = [one for s, count in counts.items() for one in _plan(s, count, seed)]
            if only is not None:
                todo = [one for one in todo if one.number == only]
            for ending in as_completed(pool.submit(_disturbed, one, wholes[one.situation]) for one in todo):
                yield ending.result()


def _plan(situation: Situation, kills: int, seed: int) -> Iterator[Disturbance]:
    ways = {
        "kill": kills,
        "two at once": -(-kills // 5) * situation.exclusive,
        "full disk": -(-kills // 5) * situation.disk,
    }
    for how, count in ways.items():
        yield from (Disturbance(how, situation, seed, number) for number in range(count))


def make_stage(folder: Path) -> None:
    """What all commands need."""
    folder.mkdir()
    (folder / "tiny.yaml").write_text(TINY)
    torch.manual_seed(0)
    save_model(
        JAANet(JAANetConfig.released((1, 4, 12), image_size=64, width=1)), folder / "model.safetensors"
    )
    save_model(
        JAANet(JAANetConfig.released((1,), image_size=64, width=1, region="R")), folder / "small.safetensors"
    )
    releases.make_bp4d(folder / "BP4D", ("F001", "F003", "F004", "F006"), frames=6)
    astronaut = skimage.data.astronaut()[:260]
    pictures = [np.ascontiguousarray(astronaut[:, 80 + 2 * i : 360 + 2 * i]) for i in range(16)]
    releases.write_video(folder / "talk.avi", pictures)
    for i, picture in enumerate(pictures[:10]):
        releases.write_image(folder / "photos" / f"{i}.jpg", picture)


_stage: Path


def _started(stage: Path) -> None:
    global _stage
    _stage = stage
    cv2.setNumThreads(1)
    torch.set_num_threads(1)


def undisturbed(situation: Situation) -> Whole:
    with _workplace() as place:
        began = time.monotonic()
        code, said = place.finish(place.start(situation.command))
        if code:
            raise RuntimeError(f"the attack itself failed: jaa {situation.command}\n{said}")
        seconds = time.monotonic() - began
        size = sum(path.stat().st_size for path in (place.folder / "out").rglob("*"))
        return Whole(place.files(), seconds, place.steps(), size)


def _disturbed(one: Disturbance, whole: Whole) -> Ending:
    random = Random(f"{one.seed} {one.how} {one.situation.name} {one.number}")
    began = time.monotonic()
    with _workplace() as place:
        disturb = {"kill": _kill, "two at once": _two_at_once, "full disk": _full_disk}[one.how]
        problem, kills = disturb(one.situation, whole, place, random)
        if not problem:
            problem = difference(whole.files, place.files())
        return Ending(one, problem, kills, time.monotonic() - began)


def _kill(situation: Situation, whole: Whole, place: Workplace, random: Random) -> tuple[str, int]:
    """Kill the run, perhaps the one that goes on too, then let it finish."""
    command = situation.command
    kills = random.choice((1, 1, 1, 2))
    for _ in range(kills):
        if random.random() < 0.5:
            process = place.start(command, die_at=random.randrange(whole.steps + 1))
        else:
            process = place.start(command)
            place.wait(process, random.uniform(0, whole.seconds))
        place.kill(process)
        command = random.choice((situation.resumed or command, command))
    return _finish(situation, place), kills


def _two_at_once(situation: Situation, whole: Whole, place: Workplace, random: Random) -> tuple[str, int]:
    commands = [situation.command, random.choice((situation.command, situation.resumed or situation.command))]
    first = place.start(commands[0], name="first")
    ended = place.wait(first, random.uniform(0, whole.seconds))
    second = place.start(commands[1], name="second")
    (one, said_first), (other, said_second) = place.finish(first, "first"), place.finish(second, "second")
    for code, said in ((one, said_first), (other, said_second)):
        if code not in (0, 2) or (code == 2 and len(said.splitlines()) != 1):
            return f"two at once: one ended with {code}: {said[-500:]}", 0
    if not ended and (one, other) == (0, 0) and "finished already" not in said_second:
        # The second may have begun when the first had done its work; then it found the results.
        (began, ended), (began_too, ended_too) = place.wrote("first"), place.wrote("second")
        if max(began, began_too) < min(ended, ended_too):
            return "two at once: both ran", 0
    if one == other == 2:
        return f"two at once: both were refused: {said_first} {said_second}", 0
    return "", 0


def _full_disk(situation: Situation, whole: Whole, place: Workplace, random: Random) -> tuple[str, int]:
    """A disk that is full after some bytes; then there is room, and it must go on."""
    room = random.randrange(int(1.1 * whole.bytes) + 4096)
    with place.small_disk(room) as limit:
        code, said = place.finish(place.start(situation.command, file_size=limit))
        if code == 2:
            lines = said.strip().splitlines()
            sentence = lines[-1] if lines else ""
            if "out" not in sentence or not sentence.startswith("jaa: "):
                return f"full disk: names no file: {said[-300:]!r}", 0
        elif code != 0:
            return f"full disk: ended with {code}: {said[-500:]}", 0
    return _finish(situation, place), 0


def _finish(situation: Situation, place: Workplace) -> str:
    """Run to the end, as a user would who gives the command again; gives what went wrong."""
    if situation.resumed:
        code, said = place.finish(place.start(situation.resumed))
        if code == 0:
            return ""
        if code != 2:
            return f"going on ended with {code}: {said[-500:]}"
    code, again = place.finish(place.start(situation.command))
    if code == 0:
        return ""
    before = f" (and --resume: {said.strip()[-300:]})" if situation.resumed else ""
    return f"going on ended with {code}: {again.strip()[-500:]}{before}"


class Workplace:
    """A folder with the stage in it, and the processes that work there."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.logs = folder / "work", folder / "logs"
        shutil.copytree(_stage, self.folder)
        (self.folder / "out").mkdir()
        self.logs.mkdir()
        self.running: set[int] = set()
        self.codes: dict[int, int] = {}

    def start(
        self, command: str, *, name: str = "run", die_at: int | None = None, file_size: int | None = None
    ) -> int:
        """`jaa` with these arguments in a process of its own.

        Args:
            die_at: of the times that it opens, renames or removes something, the one before which it dies.
            file_size: bytes that a file of it may have.
        """
        sys.stdout.flush()
        process = os.fork()
        if process == 0:
            self._run(command, name, die_at, file_size)
        self.running.add(process)
        return process

    def _run(self, command: str, name: str, die_at: int | None, file_size: int | None) -> None:
        code = 1
        try:
            os.setsid()
            os.chdir(self.folder)
            log = os.open(self.logs / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            for descriptor in (1, 2):
                os.dup2(log, descriptor)
            steps = _Steps(self.folder, die_at)
            sys.addaudithook(steps)
            if file_size is not None:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
            # So that little work has several pieces.
            job.SAVED_EVERY, job.PHOTOGRAPHS_A_PART = 0.0, 3
            sys.argv = ["jaa", *command.split()]
            try:
                cli.main()
                code = 0
            except SystemExit as end:
                code = end.code or 0
            (self.logs / f"{name}.json").write_text(json.dumps([steps.first, steps.last, steps.taken]))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def wait(self, process: int, seconds: float) -> bool:
        """Whether it has ended by then."""
        until = time.monotonic() + seconds
        while process in self.running:
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                self.running.discard(process)
                self.codes[process] = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > until:
                return False
            else:
                time.sleep(0.002)
        return True

    def finish(self, process: int, name: str = "run") -> tuple[int, str]:
        """Its exit code and what it said."""
        if not self.wait(process, PATIENCE):
            self.kill(process)
            return -1, f"hangs: over {PATIENCE} s"
        return self.codes[process], (self.logs / name).read_text(errors="replace")

    def kill(self, process: int) -> None:
        """It alone: its workers, if it has any, must notice."""
        if process in self.running:
            os.kill(process, signal.SIGKILL)
            self.wait(process, PATIENCE)

    def wrote(self, name: str) -> tuple[float, float]:
        """When it first and last touched a file; it may have touched none."""
        first, last, _ = json.loads((self.logs / f"{name}.json").read_text())
        return first, last

    def steps(self) -> int:
        return int(json.loads((self.logs / "run.json").read_text())[2])

    def files(self) -> dict[str, str]:
        """A digest of each file, hidden ones too."""
        files = {}
        for path in sorted(self.folder.rglob("*")):
            name = path.relative_to(self.folder).as_posix()
            if "/tensorboard/" not in name:  # has times in it, and a file for each resumption
                files[name] = "folder" if path.is_dir() else digest(path, self.folder)
        return files

    @contextmanager
    def small_disk(self, room: int) -> Iterator[int | None]:
        """Make `out` a disk of so many bytes until the block ends.

        Who may not mount one is given the size that each file may have.
        """
        out = self.folder / "out"
        libc = ctypes.CDLL(None, use_errno=True)
        options = f"size={max(4096, room)}".encode()
        if libc.mount(b"tmpfs", bytes(out), b"tmpfs", 0, options):
            yield room
            return
        kept = self.folder.parent / "kept"
        try:
            yield None
            shutil.copytree(out, kept)
        finally:
            libc.umount2(bytes(out), 2)  # even if something is still open
        shutil.copytree(kept, out, dirs_exist_ok=True)


class _Steps:
    """Counts what a process does to files of a folder; kills it before a step."""

    def __init__(self, folder: Path, die_at: int | None) -> None:
        self.folder, self.die_at, self.taken = str(folder), die_at, 0
        self.first, self.last = float("inf"), 0.0

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return
        elif event in WRITES:
            path = arguments[0]
        else:
            return
        if isinstance(path, int) or not os.path.abspath(os.fsdecode(path)).startswith(self.folder):
            return
        if self.taken == self.die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.taken += 1
        if event != "os.mkdir":  # the folder itself, before it is locked
            self.last = time.monotonic()
            self.first = min(self.first, self.last)


@contextmanager
def _workplace() -> Iterator[Workplace]:
    with tempfile.TemporaryDirectory(prefix="attack.") as folder:
        place = Workplace(Path(folder))
        try:
            yield place
        finally:
            for process in list(place.running):
                place.kill(process)


def digest(path: Path, folder: Path) -> str:
    """Of what a file says: its bytes, unless the same results may have others; wherever the folder lies."""
    if path.name == "checkpoint.pt":
        return _hash(repr(_plain(load_checkpoint(path))).encode())
    if path.suffix == ".pt2":
        program = torch.export.load(path)
        image = torch.arange(64 * 64 * 3).remainder(251).to(torch.uint8).reshape(1, 64, 64, 3)
        return _hash(repr(_plain(list(program.module()(image)))).encode())
    return _hash(path.read_bytes().replace(os.fsencode(folder), b""))


def _plain(tree: Any) -> Any:
    if isinstance(tree, torch.Tensor):
        data = tree.detach().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes()
        return str(tree.dtype), tuple(tree.shape), _hash(data)
    if isinstance(tree, dict):
        return {key: _plain(value) for key, value in tree.items()}
    return [_plain(value) for value in tree] if isinstance(tree, list | tuple) else tree


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def difference(wanted: dict[str, str], got: dict[str, str]) -> str:
    """In words; empty where there is none."""
    left, lost = sorted(got.keys() - wanted.keys()), sorted(wanted.keys() - got.keys())
    other = [name for name in wanted.keys() & got.keys() if wanted[name] != got[name]]
    words = [
        f"{what}: {', '.join(names[:5])}"
        for what, names in (("left behind", left), ("missing", lost), ("other bytes", other))
        if names
    ]
    return "; ".join(words)
