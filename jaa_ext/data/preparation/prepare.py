"""Preparing a released data set for training: every face aligned once, and one table of all of them.

The folder that `prepare` writes, and `jaa_ext.data.PreparedFaces` reads:

``images/<clip>/<frame>.png``
    The aligned faces, lossless. The pictures of a release that is aligned already keep bytes and ending.
``index.parquet`` or ``index.csv``
    One row a face, in the order of the release. ``subject``; ``task``, what the subject did; ``frame``, the
    number in the release's own counting; ``fold``; ``path`` of the image, relative to the folder, with
    slashes; ``eye_distance`` between the means of the eyes' six points (`facs.eye_distance`); the landmarks
    ``x_0`` to ``x_48`` and ``y_0`` to ``y_48``; one column an AU, ``AU01`` and so on: 1 present, 0 absent,
    null (in CSV: empty) missing; and where the data set has intensities, ``AU01_intensity`` of each AU that
    has any: float32 in 0..5, null (empty) missing. Lengths are float32 in pixels of the image in ``path``,
    whose pixel centres are whole numbers from 0 on. ``task`` and ``fold`` are empty where the release has
    none.
``skipped.csv``
    The frames that are left out: ``sequence``, ``frame``, ``reason``.
``prepare.json``
    Of which data set and how the folder was made, the side of the images and the report.
``parts/``
    One file for each clip that is done, until all are.
"""

from __future__ import annotations

import concurrent.futures
import csv
import math
import multiprocessing
import os
import shutil
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from jaa_ext import facs
from jaa_ext.atomic import locked, replacing
from jaa_ext.data.errors import quoted
from jaa_ext.data.plausible import OUTSIDE, QUESTIONS
from jaa_ext.data.preparation.parts import PARTS, Detector, Part, Preparer, part_file
from jaa_ext.data.preparation.report import Report
from jaa_ext.data.prepared import (
    FORMAT,
    IMAGES,
    LANDMARK_COLUMNS,
    SETTINGS,
    FolderError,
    Preparation,
    Settings,
    alignment_warning,
    au_columns,
    index_file,
    intensity_columns,
    read_begun,
    require_exclusive_folds,
    require_table,
    sort_folds,
)
from jaa_ext.data.release import MISSING, Clip, Release, ReleaseError
from jaa_ext.device import processors
from jaa_ext.progress import say

LOOKS = 20
"""Frames, or a few more, that a checker looks at."""
ENOUGH_LOOKS = 5
"""Faces that it must have found to stop a preparation; one or two may be a poster on the wall."""
BESIDE = 0.5
"""Mean distance, in eye distances, beyond which landmarks are not those of a face; two ways of placing them
on the same face differ by 0.05."""


def prepare(
    release: Release,
    out: str | os.PathLike[str],
    *,
    size: int = 200,
    align: bool = True,
    detector: Callable[[], Detector] | None = None,
    checker: Callable[[], Detector] | None = None,
    table: Literal["parquet", "csv"] = "parquet",
    workers: int | None = None,
    console: Console | None = None,
) -> Report:
    """Align the faces of a released data set and tabulate them, see `jaa_ext.data.preparation.prepare`.

    A frame that cannot be used is left out and listed with its reason. After Ctrl-C, or when it was killed,
    the same call goes on at the clips that are not done; on a finished folder it changes nothing. The
    index has the same bytes whatever the number of workers.

    Args:
        release: what a reader of a data set returned.
        out: the folder; made if need be, else empty or begun by the same call.
        size: side of the aligned images in pixels.
        align: False keeps the pictures as they are, for a release that is aligned already; `size` has no
            meaning then. The pictures must be square; those that have not the side of most are left out.
        detector: makes a detector, in each worker (so it must be picklable), for frames that come without
            landmarks: of several faces the one with the largest box is taken. None leaves such frames out.
        checker: makes a detector that looks at about `LOOKS` frames whose landmarks come with the data: they
            should lie on a face that it finds. None, or one whose package is not installed: nobody looks.
        table: format of the index.
        workers: processes that work at a time; 0 works in this one. None: one for each processor. A script
            that calls this with workers needs ``if __name__ == "__main__":``.
        console: where progress and the report go; without a bar if that is no terminal.

    Raises:
        FolderError: the folder belongs to another call, or holds other files, or another process works in it.
        ReleaseError: clips that cannot be told apart, files that do not look as released, no frame that
            can be used, or landmarks of which most cannot be the faces'.
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
    settings = Settings(
        name=release.name,
        source=release.source,
        aus=[int(au) for au in release.aus],
        size=int(size) if align else None,
        align=align,
        detector=detector is not None,
        table=table,
    )
    out.mkdir(parents=True, exist_ok=True)
    with locked(out, FolderError(f"{out}: another process is preparing a data set in this folder")):
        known = _begin(out, settings, release, console)
        if known.report is not None:
            shutil.rmtree(out / PARTS, ignore_errors=True)
            say(console, f"{out}: is finished already, nothing was changed; delete it to prepare it anew")
            report = known.report
        else:
            # Evenly over the data set: one clip may be unlike the others.
            looked_at = release.clips[:: math.ceil(len(release.clips) / LOOKS)]
            work = Preparer(
                out,
                release.aus,
                size if align else None,
                detector,
                checker,
                looks=math.ceil(LOOKS / len(looked_at)),
                looked_at=frozenset(clip.name for clip in looked_at),
            )
            try:
                _work(work, release, workers, console)
                report = _merge(out, known, release, table)
            except KeyboardInterrupt:
                say(console, f"{out}: interrupted; the same command goes on")
                raise
    report.show(console)
    return report


def _check(release: Release) -> None:
    """See that ids, paths and folds will be what `PreparedFaces` promises."""
    odd = len(set(release.aus)) < len(release.aus) or not all(1 <= au <= 999 for au in release.aus)
    if not release.clips or not release.aus or odd:
        raise ReleaseError(
            f"{release.name}: wanted clips of frames and distinct AUs from 1 to 999, "
            f"got {len(release.clips)} clips and AUs {list(release.aus)}"
        )
    for clip in release.clips:
        name, subject = clip.name, clip.subject
        if not subject or "/" in subject:
            raise ReleaseError(
                f"{release.name}: wanted a subject without a slash, got {quoted(subject)} in clip "
                f"{quoted(name)}"
            )
        if name.split("/")[0] != subject:
            raise ReleaseError(
                f"{release.name}: wanted a clip's name to begin with subject {quoted(subject)}, "
                f"got {quoted(name)}"
            )
        long = any(len(part.encode("utf-8", "replace")) > _LONGEST_NAME for part in name.split("/"))
        if long or {"", ".", ".."} & set(name.split("/")) or "\\" in name or not name.isprintable():
            raise ReleaseError(f"{release.name}: wanted a clip's name that can be a path, got {quoted(name)}")
    require_exclusive_folds(((s.subject, s.fold) for s in release.clips), release.name)
    ((name, times),) = Counter(s.name for s in release.clips).most_common(1)
    if times > 1:
        raise ReleaseError(
            f"{release.name}: wanted clips of different names, got {quoted(name)} {times} times"
        )


def _begin(out: Path, settings: Settings, release: Release, console: Console) -> Preparation:
    """prepare.json of this call, which is written if there is none."""
    opencv = [cv2.__version__] if settings.align else []
    clips = [[s.name, s.subject, s.task, s.fold] for s in release.clips]
    known = read_begun(out)
    if known is not None:
        difference = _difference(known, settings, clips)
        if difference:
            raise FolderError(
                f"{out}: was begun with {difference}; give another folder, or delete it to prepare it anew"
            )
        if known.report is None and not set(opencv) <= set(known.opencv):
            known = known.model_copy(update={"opencv": [*(known.opencv or ["an unknown version"]), *opencv]})
            _write_settings(out, known)
            if warning := alignment_warning(out, known.opencv):
                say(console, warning)
        return known
    if any(not path.name.startswith(".") for path in out.iterdir()):
        raise FolderError(f"{out}: wanted an empty folder, or one with a preparation begun, got other files")
    known = Preparation(
        format=FORMAT, settings=settings, sequences=clips, opencv=opencv, image_size=None, report=None
    )
    _write_settings(out, known)
    return known


def _difference(known: Preparation, settings: Settings, clips: list[list[str]]) -> str:
    """In words; empty where there is none."""
    for key, value in settings:
        if getattr(known.settings, key) != value:
            return f"{key} {getattr(known.settings, key)!r}, not {value!r}"
    if known.sequences == clips:
        return ""
    for former, now in zip(known.sequences, clips, strict=False):
        if former != now:
            names = ("clip", "subject", "task", "fold")
            (name, old, new) = next(z for z in zip(names, former, now, strict=True) if z[1] != z[2])
            where = "" if name == "clip" else f" in clip {former[0]!r}"
            return f"{name} {old!r}, not {new!r}{where}"
    return f"{len(known.sequences)} clips, not {len(clips)}"


def _write_settings(out: Path, known: Preparation) -> None:
    with replacing(out / SETTINGS) as temporary:
        temporary.write_text(known.model_dump_json(indent=1) + "\n", encoding="utf-8")


def _work(work: Preparer, release: Release, workers: int | None, console: Console) -> None:
    """Prepare the clips that have no part yet."""
    (work.out / PARTS).mkdir(exist_ok=True)
    lengths = {clip.name: clip.length for clip in release.clips}
    todo = [s for s in release.clips if Part.load(part_file(work.out, s)) is None]
    done = len(release.clips) - len(todo)
    if done:
        say(console, f"{work.out}: goes on; {done:,} of {len(release.clips):,} clips are done")
    total = sum(lengths.values())
    processes = min(len(todo), processors() if workers is None else workers)
    with _bar(console) as bar:
        before = total - sum(lengths[clip.name] for clip in todo)
        frames = bar.add_task(release.name, total=total, completed=before)
        if processes:
            _work_in_processes(
                work, todo, processes, lambda done: bar.update(frames, completed=before + done)
            )
        else:
            for clip in todo:
                work(clip, lambda done: bar.advance(frames, done))


def _work_in_processes(work: Preparer, todo: list[Clip], processes: int, show: Callable[[int], None]) -> None:
    context = multiprocessing.get_context("spawn")
    counter = context.Value("q", 0)
    # Workers end when this end of the pipe is closed, as it is too when this process is killed: they would go
    # on otherwise, and then wait for ever.
    leash, holder = context.Pipe(duplex=False)
    pool = concurrent.futures.ProcessPoolExecutor(
        processes, mp_context=context, initializer=_start_worker, initargs=(work, counter, leash)
    )
    try:
        with _interrupts_held():
            waiting = {pool.submit(_work_in_worker, clip) for clip in todo}
        while waiting:
            finished, waiting = concurrent.futures.wait(
                waiting, timeout=0.2, return_when=concurrent.futures.FIRST_COMPLETED
            )
            for future in finished:
                future.result()
            show(counter.value)
        pool.shutdown()
    except BrokenProcessPool:
        raise RuntimeError(
            f"{work.out}: a worker died, killed perhaps for want of memory; the same command goes on, "
            "with fewer workers if need be"
        ) from None
    finally:
        holder.close()
        pool.shutdown(cancel_futures=True)
        leash.close()


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Processes that start meanwhile never see Ctrl-C, which is sent to them too; this one sees it after."""
    former = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


_LONGEST_NAME = 200
"""Bytes of a folder's name; file systems take 255, and parts and temporary files add to it."""

_worker: tuple[Preparer, Callable[[int], None]]
"""What a worker process works with."""


def _start_worker(work: Preparer, counter: Any, leash: Connection) -> None:
    global _worker

    def tick(frames: int) -> None:
        with counter.get_lock():
            counter.value += frames

    def end() -> None:
        leash.poll(None)
        os._exit(1)

    _worker = (work, tick)
    cv2.setNumThreads(1)
    threading.Thread(target=end, daemon=True).start()


def _work_in_worker(clip: Clip) -> None:
    work, tick = _worker
    work(clip, tick)


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


def _merge(out: Path, known: Preparation, release: Release, table: str) -> Report:
    """From the parts to the index; prepare.json comes last and declares the folder finished."""
    parts = []
    for clip in release.clips:
        part = Part.load(part_file(out, clip))
        if part is None:
            raise FolderError(f"{part_file(out, clip)}: is damaged; the same command makes it anew")
        parts.append(part)
    _check_landmarks(out, release, parts)
    size = known.settings.size or _commonest(np.concatenate([part.side for part in parts]))
    skipped: list[tuple[str, int, str]] = []
    for place, (clip, part) in enumerate(zip(release.clips, parts, strict=True)):
        left_out = list(zip(part.skipped.tolist(), part.reason.tolist(), strict=True))
        other = part.side != size
        for number, path in zip(part.number[other].tolist(), part.path[other].tolist(), strict=True):
            left_out.append((number, "the picture has not the side of most pictures"))
            (out / path).unlink(missing_ok=True)
        skipped += [(clip.name, number, reason) for number, reason in left_out]
        parts[place] = part._replace(
            number=part.number[~other],
            path=part.path[~other],
            landmarks=part.landmarks[~other],
            labels=part.labels[~other],
            intensities=part.intensities[~other],
            reach=part.reach[~other],
            distance=part.distance[~other],
        )
    remarks = _remarks(parts)
    report = _report(release, parts, Counter(reason for _, _, reason in skipped), size, remarks)
    if not report.kept:
        # Nothing that would be worth going on with: the cure may be to put images where they belong.
        _begin_anew(out)
        raise ReleaseError(
            f"{release.name}: wanted frames that can be used, got none: {_why(skipped, report)}"
        )
    with replacing(out / "skipped.csv") as file, file.open("w", encoding="utf-8", newline="") as text:
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["sequence", "frame", "reason"])
        writer.writerows(skipped)
    _write_index(index_file(out, table), release, parts, report.aus_with_intensities)
    _write_settings(out, known.model_copy(update={"image_size": size, "report": report}))
    shutil.rmtree(out / PARTS)
    return report


def _check_landmarks(out: Path, release: Release, parts: list[Part]) -> None:
    """Raise a ReleaseError if most landmarks cannot be those of the pictures' faces."""
    kept = sum(len(part.number) for part in parts)
    faults = Counter(reason for part in parts for reason in part.reason.tolist() if reason in QUESTIONS)
    if faults.total() > kept:
        ((reason, _),) = faults.most_common(1)
        of, question = f"{kept + faults.total():,} frames", QUESTIONS[reason]
        missed = [part.skipped[part.reason == reason] for part in parts]
        reach = np.concatenate([part.skipped_reach[part.reason == reason] for part in parts])
    else:
        reason, question = "they lie beside the face that a detector finds", QUESTIONS[OUTSIDE]
        frames = sum(int(np.isfinite(part.distance).sum()) for part in parts)
        missed = [part.number[part.distance > BESIDE] for part in parts]
        reach = np.concatenate([part.reach[part.distance > BESIDE] for part in parts])
        of = f"{frames:,} frames that were looked at"
        if frames < ENOUGH_LOOKS or 2 * len(reach) <= frames:
            return
    name, number = next(
        (clip.name, int(number))
        for clip, numbers in zip(release.clips, missed, strict=True)
        for number in numbers
    )
    # The cure is another table, which the parts know nothing of.
    _begin_anew(out)
    raise ReleaseError(
        f"{release.name}: wanted landmarks of the faces in the pictures, but in {len(reach):,} of {of}, "
        f"such as frame {number} of {name}, {reason}: {_in_words(reach)}; {question}"
    )


def _in_words(reach: NDArray[np.float64]) -> str:
    """What landmarks, `Part.reach`, look like."""
    (left, top), (right, bottom) = reach[:, :2].min(0), reach[:, 2:4].max(0)
    (((width, height), _),) = Counter(map(tuple, reach[:, 4:].astype(int).tolist())).most_common(1)
    return (
        f"they reach from x {left:.4g} to {right:.4g} and from y {top:.4g} to {bottom:.4g} "
        f"in pictures of {width} x {height}"
    )


def _begin_anew(out: Path) -> None:
    for folder in (PARTS, IMAGES):
        shutil.rmtree(out / folder)
    (out / SETTINGS).unlink()


def _why(skipped: list[tuple[str, int, str]], report: Report) -> str:
    if not skipped:
        return "the clips have no frames"
    reason, times = next(iter(report.skipped.items()))
    clip, number = next((name, number) for name, number, given in skipped if given == reason)
    return f"{reason} in {times:,} of {len(skipped):,}, such as frame {number} of {clip}"


def _remarks(parts: list[Part]) -> tuple[str, ...]:
    """What is odd about landmarks that lie on the pictures as those of faces do."""
    reach = np.concatenate([part.reach for part in parts])
    distance = np.concatenate([part.distance for part in parts])
    right, bottom, width, height = reach[:, 2:].T
    # Landmarks of pictures of half the size lie in one quarter, all of them: faces do not.
    if len(reach) > 1 and (right <= width / 2).all() and (bottom <= height / 2).all():
        odd = "all landmarks lie in the upper left quarter of their pictures"
    elif 2 * (distance > BESIDE).sum() > np.isfinite(distance).sum():
        odd = "the landmarks lie beside the face that a detector finds"
    else:
        return ()
    return (f"{odd}: {_in_words(reach)}; look at some of the faces: are they of another resolution?",)


def _commonest(sides: NDArray[np.int64]) -> int:
    """Of equally common sides the largest; 0 where there are none."""
    values, counts = np.unique(sides, return_counts=True)
    return int(values[counts == counts.max()].max()) if len(values) else 0


def _report(
    release: Release, parts: list[Part], skipped: Counter[str], size: int, remarks: tuple[str, ...]
) -> Report:
    labels = np.concatenate([part.labels for part in parts])
    valid, present = (labels != MISSING).sum(0).tolist(), (labels == 1).sum(0).tolist()
    rated = np.isfinite(np.concatenate([part.intensities for part in parts])).sum(0).tolist()
    frames: Counter[str] = Counter()
    subjects = set()
    for clip, part in zip(release.clips, parts, strict=True):
        if len(part.number):
            frames[clip.fold] += len(part.number)
            subjects.add(clip.subject)
    return Report(
        name=release.name,
        kept=len(labels),
        expected=release.expected,
        skipped=dict(skipped.most_common()),
        aus=release.aus,
        occurrence=tuple(p / v if v else None for p, v in zip(present, valid, strict=True)),
        valid=tuple(valid),
        subjects=len(subjects),
        folds={fold: frames[fold] for fold in sort_folds(frames)},
        image_size=size,
        remarks=(*release.remarks, *remarks),
        intensities=tuple(rated) if any(rated) else (),
    )


def _write_index(
    path: Path, release: Release, parts: list[Part], aus_with_intensities: tuple[int, ...]
) -> None:
    import pandas as pd

    def repeated(field: str) -> list[str]:
        pairs = zip(release.clips, parts, strict=True)
        return [getattr(clip, field) for clip, part in pairs for _ in range(len(part.number))]

    landmarks = np.concatenate([part.landmarks for part in parts])
    labels, intensities = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("labels", "intensities")
    )
    columns: dict[str, Any] = {
        "subject": repeated("subject"),
        "task": repeated("task"),
        "frame": np.concatenate([part.number for part in parts]),
        "fold": repeated("fold"),
        "path": [path for part in parts for path in part.path.tolist()],
        "eye_distance": facs.eye_distance(torch.from_numpy(landmarks)).numpy(),
    }
    columns |= zip(LANDMARK_COLUMNS, landmarks.transpose(2, 1, 0).reshape(-1, len(landmarks)), strict=True)
    columns |= {
        name: pd.arrays.IntegerArray(values, values == MISSING)
        for name, values in zip(au_columns(release.aus), labels.T.copy(), strict=True)
    }
    columns |= zip(
        intensity_columns(aus_with_intensities),
        (intensities[:, release.aus.index(au)] for au in aus_with_intensities),
        strict=True,
    )
    index = pd.DataFrame(columns)
    with replacing(path) as temporary:
        if path.suffix == ".parquet":
            index.to_parquet(temporary, engine="pyarrow", index=False)
        else:
            index.to_csv(temporary, index=False, lineterminator="\n", encoding="utf-8")
