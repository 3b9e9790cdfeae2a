"""Preparing a released data set for training: every face aligned once, and one table of all of them.

The folder that `prepare` writes, and `jaa_ext.data.PreparedFaces` reads:

``images/<sequence>/<frame>.png``
    The aligned faces, lossless. The pictures of a release that is aligned already keep their bytes and ending.
``index.parquet`` or ``index.csv``
    One row a face, in the order of the release, with the columns: ``subject``; ``task``, what the subject did;
    ``frame``, the number in the release's own counting; ``fold``; ``path`` of the image, relative to the folder,
    with slashes; ``eye_distance`` between the means of the eyes' six points (`facs.eye_distance`);
    ``x_0`` to ``x_48`` and ``y_0`` to ``y_48``, the landmarks; one column an AU, ``AU01`` and so on: 1 present,
    0 absent, null (in CSV: empty) missing. Lengths are float32 in pixels of the image in ``path``, whose pixel
    centres are whole numbers from 0 on. ``task`` and ``fold`` are empty where the release has none.
``skipped.csv``
    The frames that are left out: ``sequence``, ``frame``, ``reason``.
``prepare.json``
    Of which data set and how the folder was made, the side of the images and the report.
``parts/``
    One file for each sequence that is done, until all are.
"""

from __future__ import annotations

import concurrent.futures
import csv
import fcntl
import json
import multiprocessing
import os
import shutil
import signal
import threading
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Rows
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from jaa_ext import facs
from jaa_ext.atomic import replacing, sync
from jaa_ext.data.faces import align_face
from jaa_ext.data.images import ImageError, as_rgb, read_image
from jaa_ext.data.prepared import (
    FORMAT,
    IMAGES,
    LANDMARK_COLUMNS,
    SETTINGS,
    FolderError,
    au_columns,
    index_file,
    read_begun,
    require_exclusive_folds,
    require_table,
    sort_folds,
)
from jaa_ext.data.release import MISSING, Frame, Release, ReleaseError, Sequence, Skipped


class Face(Protocol):
    """A face that a detector found."""

    @property
    def box(self) -> tuple[float, float, float, float]:
        """left, top, right, bottom in pixels of the image."""

    @property
    def landmarks(self) -> NDArray[np.float32]:
        """(49, 2) x, y in pixels of the image."""

    @property
    def score(self) -> float:
        """How clear the face is."""


Detector = Callable[[NDArray[np.uint8]], Rows[Face]]
"""From an RGB image, (H, W, 3) uint8, to its faces, such as `jaa_ext.predict.FaceDetector`."""


@dataclass(frozen=True)
class Report:
    """What a preparation kept and what it left out."""

    name: str
    """Of the data set."""
    kept: int
    """Frames in the index."""
    expected: int | None
    """Frames that the papers keep of the whole data set, where that is known."""
    skipped: dict[str, int]
    """Frames left out, by reason; the commonest first."""
    aus: tuple[int, ...]
    occurrence: tuple[float | None, ...]
    """How often each AU is present among its valid labels, 0..1; None where it has none."""
    valid: tuple[int, ...]
    """Frames in which each AU is coded."""
    subjects: int
    folds: dict[str, int]
    """Frames of each fold; empty where the release has no folds."""
    image_size: int
    """Side of the images in pixels."""

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists; `from_dict` reads them back."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Report:
        fields: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        return cls(**fields)

    def show(self, console: Console) -> None:
        """Print it."""
        table = Table()
        for heading in ("AU", "present %", "valid labels"):
            table.add_column(heading, justify="right")
        for au, rate, valid in zip(self.aus, self.occurrence, self.valid, strict=True):
            table.add_row(str(au), "-" if rate is None else f"{100 * rate:.1f}", f"{valid:,}")
        console.print(table)
        for line in self.lines():
            console.print(line, soft_wrap=True, highlight=False, markup=False)

    def lines(self) -> list[str]:
        """The report without its table, as sentences."""
        kept = f"{self.name}: {self.kept:,} frames of {self.subjects:,} subjects kept"
        if self.expected is not None:
            difference = self.kept - self.expected
            kept += f"; the papers keep {self.expected:,}"
            kept += f" ({difference:+,})" if difference else ", as many"
        folds = ", ".join(f"{fold}: {frames:,}" for fold, frames in self.folds.items())
        skipped = [f"  {frames:,} left out: {reason}" for reason, frames in self.skipped.items()]
        return [kept, *([f"frames of each fold: {folds}"] if folds else []), *skipped]


def prepare(
    release: Release,
    out: str | os.PathLike[str],
    *,
    size: int = 200,
    align: bool = True,
    detector: Callable[[], Detector] | None = None,
    table: Literal["parquet", "csv"] = "parquet",
    workers: int | None = None,
    console: Console | None = None,
) -> Report:
    """Align the faces of a released data set and tabulate them, see `jaa_ext.data.prepare`.

    A frame that cannot be used is left out and listed with its reason. Interrupted, even killed, the same call
    goes on at the sequences that are not done; on a finished folder it changes nothing. The folder's index is
    the same bytes whatever the number of workers.

    Args:
        release: what a reader of a data set returned.
        out: the folder; made if need be, else empty or begun by the same call.
        size: side of the aligned images in pixels.
        align: False keeps the pictures as they are, for a release that is aligned already; `size` has no
            meaning then. The pictures must be square; those that have not the side of most are left out.
        detector: makes a detector, in each worker (so it must be picklable), for frames that come without
            landmarks: of several faces the one with the largest box is taken. None leaves such frames out.
        table: format of the index.
        workers: processes that work at a time; 0 works in this one. None: one for each processor. A script
            that calls this with workers needs ``if __name__ == "__main__":``.
        console: where progress and the report go; without a bar if that is no terminal.

    Raises:
        FolderError: the folder belongs to another call, or holds other files, or another process works in it.
        ReleaseError: sequences that cannot be told apart, files that do not look as released, or no frame that
            can be used.
        ValueError: size, table or workers out of range.
        ImportError: pandas, or pyarrow for a Parquet index, is not installed.
        RuntimeError: a worker was killed.
    """
    if size < 2 or table not in ("parquet", "csv") or (workers is not None and workers < 0):
        raise ValueError(
            "prepare: wanted size >= 2, table 'parquet' or 'csv' and workers >= 0 or None, "
            f"got {size}, {table!r} and {workers}"
        )
    out, console = Path(out), console or Console()
    require_table(table)
    _check(release)
    settings = {
        "name": release.name,
        "source": release.source,
        "aus": list(release.aus),
        "size": size if align else None,
        "align": align,
        "detector": detector is not None,
        "table": table,
    }
    out.mkdir(parents=True, exist_ok=True)
    with _locked(out):
        known = _begin(out, settings, release)
        if known["report"] is not None:
            shutil.rmtree(out / PARTS, ignore_errors=True)
            _say(console, f"{out}: is finished already, nothing was changed; delete it to prepare it anew")
            report = Report.from_dict(known["report"])
        else:
            work = _Preparer(out, release.aus, size if align else None, detector)
            _work(work, release, workers, console)
            report = _merge(out, known, release, table)
    report.show(console)
    return report


PARTS = "parts"


class _Interrupted(Exception):
    """The main process has told the workers to stop."""


def _check(release: Release) -> None:
    """See that ids, paths and folds will be what `PreparedFaces` promises."""
    if not release.sequences or not release.aus or len(set(release.aus)) < len(release.aus):
        raise ReleaseError(
            f"{release.name}: wanted sequences of frames and distinct AUs, "
            f"got {len(release.sequences)} sequences and AUs {list(release.aus)}"
        )
    for sequence in release.sequences:
        name, subject = sequence.name, sequence.subject
        if not subject or "/" in subject:
            raise ReleaseError(
                f"{release.name}: wanted a subject's name without a slash, got {subject!r} in sequence {name!r}"
            )
        if name.split("/")[0] != subject:
            raise ReleaseError(
                f"{release.name}: wanted a sequence's name to begin with its subject, {subject!r}, and a slash, "
                f"got {name!r}"
            )
        if any(part in ("", ".", "..") for part in name.split("/")) or "\\" in name or "\0" in name:
            raise ReleaseError(f"{release.name}: wanted a sequence's name that can be a path, got {name!r}")
    require_exclusive_folds(((s.subject, s.fold) for s in release.sequences), release.name)
    ((name, times),) = Counter(s.name for s in release.sequences).most_common(1)
    if times > 1:
        raise ReleaseError(f"{release.name}: wanted sequences of different names, got {name!r} {times} times")


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Two processes must not write the same images. The lock goes with its process, however that ends."""
    folder = os.open(out, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FolderError(f"{out}: another process is preparing a data set in this folder") from None
        except OSError:
            pass  # a network file system without locks
        yield
    finally:
        os.close(folder)


def _begin(out: Path, settings: dict[str, Any], release: Release) -> dict[str, Any]:
    """prepare.json as it is, if it is of this call; as it is when it has just been written, if there was none."""
    sequences = [[s.name, s.subject, s.task, s.fold] for s in release.sequences]
    known = read_begun(out)
    if known is not None:
        difference = _difference(known, settings, sequences)
        if difference:
            raise FolderError(
                f"{out}: was begun with {difference}; give another folder, or delete it to prepare it anew"
            )
        return known
    if any(not path.name.startswith(".") for path in out.iterdir()):
        raise FolderError(f"{out}: wanted an empty folder, or one with a preparation begun, got other files")
    known = {
        "format": FORMAT,
        "settings": settings,
        "sequences": sequences,
        "image_size": None,
        "report": None,
    }
    _write_settings(out, known)
    return known


def _difference(known: dict[str, Any], settings: dict[str, Any], sequences: list[list[str]]) -> str:
    """In words; empty where there is none."""
    for key, value in settings.items():
        if known["settings"][key] != value:
            return f"{key} {known['settings'][key]!r}, not {value!r}"
    if known["sequences"] == sequences:
        return ""
    for former, now in zip(known["sequences"], sequences, strict=False):
        if former != now:
            names = ("sequence", "subject", "task", "fold")
            (name, old, new) = next(z for z in zip(names, former, now, strict=True) if z[1] != z[2])
            where = "" if name == "sequence" else f" in sequence {former[0]!r}"
            return f"{name} {old!r}, not {new!r}{where}"
    return f"{len(known['sequences'])} sequences, not {len(sequences)}"


def _write_settings(out: Path, known: dict[str, Any]) -> None:
    with replacing(out / SETTINGS) as temporary:
        temporary.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")


# --- One sequence ------------------------------------------------------------------------------------------


class _Face(NamedTuple):
    number: int
    path: str
    """Of the image, relative to the folder."""
    side: int
    landmarks: NDArray[np.float32]
    labels: tuple[int, ...]


@dataclass
class _Preparer:
    """Aligns the faces of a sequence and writes its part. Can be pickled.

    Args:
        out: the folder.
        aus: AU numbers of the labels.
        size: side of the aligned images; None keeps the pictures as they are.
        detector: see `prepare`.
    """

    out: Path
    aus: tuple[int, ...]
    size: int | None
    detector: Callable[[], Detector] | None

    def __call__(self, sequence: Sequence, tick: Callable[[int], None]) -> None:
        """`tick` is told of frames that are done."""
        faces: list[_Face] = []
        skipped: list[Skipped] = []
        seen: set[int] = set()
        ticked, length = 0, sequence.length
        (self.out / IMAGES / sequence.name).mkdir(parents=True, exist_ok=True)
        for frame in sequence.read():
            if frame.number in seen:
                done: _Face | Skipped = Skipped(frame.number, "its frame number came before")
            else:
                done = frame if isinstance(frame, Skipped) else self._prepare(frame, sequence.name)
            seen.add(frame.number)
            if isinstance(done, Skipped):
                skipped.append(done)
            else:
                faces.append(done)
            # The length may be an estimate, and the bar must not run past it.
            if ticked < length:
                tick(1)
                ticked += 1
        # All together, before the part vouches for them: one by one each would wait for the disk.
        for face in faces:
            sync(self.out / face.path)
        with replacing(part_file(self.out, sequence)) as temporary, temporary.open("wb") as file:
            np.savez(
                file,
                number=np.array([face.number for face in faces], np.int64),
                path=np.array([face.path for face in faces], np.str_),
                side=np.array([face.side for face in faces], np.int64),
                landmarks=np.array([f.landmarks for f in faces], np.float32).reshape(-1, facs.NUM_LANDMARKS, 2),
                labels=np.array([face.labels for face in faces], np.int8).reshape(-1, len(self.aus)),
                skipped=np.array([frame.number for frame in skipped], np.int64),
                reason=np.array([frame.reason for frame in skipped], np.str_),
            )
        tick(length - ticked)

    def _prepare(self, frame: Frame, sequence: str) -> _Face | Skipped:
        if len(frame.labels) != len(self.aus) or not set(frame.labels) <= {0, 1, MISSING}:
            raise ReleaseError(
                f"{sequence}, frame {frame.number}: wanted {len(self.aus)} labels of 1, 0 and {MISSING}, "
                f"got {frame.labels}"
            )
        try:
            image = read_image(frame.image) if isinstance(frame.image, Path) else as_rgb(frame.image)
        except (ImageError, ValueError, TypeError):
            missing = isinstance(frame.image, Path) and not frame.image.exists()
            return Skipped(frame.number, "the image is missing" if missing else "the image cannot be read")
        if self.size is None and image.shape[0] != image.shape[1]:
            return Skipped(frame.number, "the picture is not square")
        landmarks = frame.landmarks
        if landmarks is None and self._detect is not None:
            face = max(self._detect(image), key=_area, default=None)
            if face is None:
                return Skipped(frame.number, "no face was found")
            landmarks = face.landmarks
        if landmarks is None:
            return Skipped(frame.number, "no landmarks")
        if landmarks.shape != (facs.NUM_LANDMARKS, 2):
            return Skipped(frame.number, f"not {facs.NUM_LANDMARKS} landmarks")
        if not np.isfinite(landmarks).all():
            return Skipped(frame.number, "landmarks that are not finite")
        stem = f"{IMAGES}/{sequence}/{frame.number}"
        if self.size is None:
            path, points = self._keep(frame, image, stem), landmarks.astype(np.float32)
        else:
            try:
                image, points, _ = align_face(image, landmarks, size=self.size)
            except (ValueError, cv2.error):
                return Skipped(frame.number, "landmarks by which the face cannot be aligned")
            path = self._write_png(image, stem)
        return _Face(frame.number, path, image.shape[0], points, frame.labels)

    def _keep(self, frame: Frame, image: NDArray[np.uint8], stem: str) -> str:
        if not isinstance(frame.image, Path):
            return self._write_png(image, stem)
        path = stem + frame.image.suffix
        shutil.copyfile(frame.image, self.out / path)
        return path

    def _write_png(self, image: NDArray[np.uint8], stem: str) -> str:
        path = f"{stem}.png"
        (self.out / path).write_bytes(cv2.imencode(".png", image[..., ::-1])[1].tobytes())
        return path

    @cached_property
    def _detect(self) -> Detector | None:
        return None if self.detector is None else self.detector()


def part_file(out: Path, sequence: Sequence) -> Path:
    """Where the rows of a sequence lie until all are done."""
    return out / PARTS / f"{urllib.parse.quote(sequence.name, safe='')}.npz"


def _area(face: Face) -> tuple[float, float]:
    left, top, right, bottom = face.box
    return (right - left) * (bottom - top), face.score


# --- All sequences -----------------------------------------------------------------------------------------


def _work(work: _Preparer, release: Release, workers: int | None, console: Console) -> None:
    """Prepare the sequences that have no part yet."""
    (work.out / PARTS).mkdir(exist_ok=True)
    lengths = {sequence.name: sequence.length for sequence in release.sequences}
    todo = [sequence for sequence in release.sequences if not part_file(work.out, sequence).exists()]
    done = len(release.sequences) - len(todo)
    if done:
        _say(console, f"{work.out}: goes on; {done:,} of {len(release.sequences):,} sequences are done")
    total = sum(lengths.values())
    processes = min(len(todo), os.cpu_count() or 1 if workers is None else workers)
    try:
        with _bar(console) as bar:
            left = sum(lengths[sequence.name] for sequence in todo)
            frames = bar.add_task(release.name, total=total, completed=total - left)
            if processes:
                _work_in_processes(work, todo, processes, lambda n: bar.update(frames, completed=total - left + n))
            else:
                for sequence in todo:
                    work(sequence, lambda n: bar.advance(frames, n))
    except KeyboardInterrupt:
        _say(console, f"{work.out}: interrupted; the same command goes on")
        raise


def _work_in_processes(
    work: _Preparer, todo: list[Sequence], processes: int, show: Callable[[int], None]
) -> None:
    context = multiprocessing.get_context("spawn")
    counter, stop = context.Value("q", 0), context.Event()
    with concurrent.futures.ProcessPoolExecutor(
        processes, mp_context=context, initializer=_start_worker, initargs=(work, counter, stop)
    ) as pool:
        try:
            with _interrupts_held():
                waiting = {pool.submit(_work_in_worker, sequence) for sequence in todo}
            while waiting:
                finished, waiting = concurrent.futures.wait(
                    waiting, timeout=0.2, return_when=concurrent.futures.FIRST_COMPLETED
                )
                for future in finished:
                    future.result()
                show(counter.value)
        except BrokenProcessPool:
            raise RuntimeError(
                f"{work.out}: a worker died, killed perhaps for want of memory; the same command goes on, "
                "with fewer workers if need be"
            ) from None
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Processes that start meanwhile never see Ctrl-C, which goes to all of them; this one sees it afterwards."""
    former = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


_worker: tuple[_Preparer, Callable[[int], None]]
"""What a worker process works with."""


def _start_worker(work: _Preparer, counter: Any, stop: Any) -> None:
    global _worker

    def tick(frames: int) -> None:
        if stop.is_set():
            raise _Interrupted
        with counter.get_lock():
            counter.value += frames

    _worker = (work, tick)
    cv2.setNumThreads(1)
    # A worker whose parent is killed would go on, and then wait for ever.
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _work_in_worker(sequence: Sequence) -> None:
    work, tick = _worker
    work(sequence, tick)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(20),
        MofNCompleteColumn(),
        TextColumn("frames,"),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=console,
        disable=not console.is_terminal,
    )


def _say(console: Console, sentence: str) -> None:
    console.print(sentence, soft_wrap=True, highlight=False, markup=False)


# --- The index ---------------------------------------------------------------------------------------------


def _merge(out: Path, known: dict[str, Any], release: Release, table: str) -> Report:
    """From the parts to the index; prepare.json comes last and declares the folder finished."""
    parts = [dict(np.load(part_file(out, sequence))) for sequence in release.sequences]
    size = known["settings"]["size"] or _commonest(np.concatenate([part["side"] for part in parts]))
    skipped: list[tuple[str, int, str]] = []
    for sequence, part in zip(release.sequences, parts, strict=True):
        left_out = zip(part["skipped"].tolist(), part["reason"].tolist(), strict=True)
        skipped += [(sequence.name, number, reason) for number, reason in left_out]
        other = part["side"] != size
        for number, path in zip(part["number"][other].tolist(), part["path"][other].tolist(), strict=True):
            skipped.append((sequence.name, number, "the picture has not the side of most pictures"))
            (out / path).unlink(missing_ok=True)
        for key in ("number", "path", "landmarks", "labels"):
            part[key] = part[key][~other]
    with replacing(out / "skipped.csv") as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["sequence", "frame", "reason"])
        writer.writerows(skipped)

    report = _report(release, parts, Counter(reason for _, _, reason in skipped), size)
    if not report.kept:
        # Nothing was made that would be worth going on with.
        shutil.rmtree(out / PARTS)
        shutil.rmtree(out / IMAGES)
        (out / SETTINGS).unlink()
        (out / "skipped.csv").unlink()
        reason, times = next(iter(report.skipped.items()), ("the sequences have no frames", 0))
        raise ReleaseError(
            f"{release.name}: wanted frames that can be used, got none: {reason}"
            + (f" in {times:,} of {len(skipped):,}" if times else "")
            + (f", for example {skipped[0][0]}, frame {skipped[0][1]}" if skipped else "")
        )
    _write_index(index_file(out, table), release, parts)
    _write_settings(out, known | {"image_size": size, "report": report.to_dict()})
    shutil.rmtree(out / PARTS)
    return report


def _commonest(sides: NDArray[np.int64]) -> int:
    """Of equally common sides the largest; 0 where there are none."""
    values, counts = np.unique(sides, return_counts=True)
    return int(values[counts == counts.max()].max()) if len(values) else 0


def _report(
    release: Release, parts: list[dict[str, NDArray[Any]]], skipped: Counter[str], size: int
) -> Report:
    labels = np.concatenate([part["labels"] for part in parts])
    valid, present = (labels != MISSING).sum(0).tolist(), (labels == 1).sum(0).tolist()
    frames: Counter[str] = Counter()
    for sequence, part in zip(release.sequences, parts, strict=True):
        frames[sequence.fold] += len(part["number"])
    return Report(
        name=release.name,
        kept=len(labels),
        expected=release.expected,
        skipped=dict(skipped.most_common()),
        aus=release.aus,
        occurrence=tuple(p / v if v else None for p, v in zip(present, valid, strict=True)),
        valid=tuple(valid),
        subjects=len({s.subject for s, part in zip(release.sequences, parts, strict=True) if len(part["number"])}),
        folds={fold: frames[fold] for fold in sort_folds(frames)},
        image_size=size,
    )


def _write_index(path: Path, release: Release, parts: list[dict[str, NDArray[Any]]]) -> None:
    import pandas as pd

    def repeated(field: str) -> list[str]:
        pairs = zip(release.sequences, parts, strict=True)
        return [getattr(s, field) for s, part in pairs for _ in range(len(part["number"]))]

    number, image, landmarks, labels = (
        np.concatenate([part[key] for part in parts]) for key in ("number", "path", "landmarks", "labels")
    )
    columns: dict[str, Any] = {
        "subject": repeated("subject"),
        "task": repeated("task"),
        "frame": number,
        "fold": repeated("fold"),
        "path": image.tolist(),
        "eye_distance": facs.eye_distance(torch.from_numpy(landmarks)).numpy(),
    }
    columns |= zip(LANDMARK_COLUMNS, landmarks.transpose(2, 1, 0).reshape(-1, len(landmarks)), strict=True)
    columns |= {
        name: pd.arrays.IntegerArray(values, values == MISSING)
        for name, values in zip(au_columns(release.aus), labels.T.copy(), strict=True)
    }
    index = pd.DataFrame(columns)
    with replacing(path) as temporary:
        if path.suffix == ".parquet":
            index.to_parquet(temporary, engine="pyarrow", index=False)
        else:
            index.to_csv(temporary, index=False, lineterminator="\n", encoding="utf-8")
