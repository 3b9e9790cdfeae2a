"""Preparing a released data set for training: each face aligned once, and one table of all faces.

`prepare` writes this folder, and `jaa_ext.data.PreparedFaces` reads it:

``images/<clip>/<frame>.png``
    The aligned faces, lossless. If the release is aligned already, its files are copied as they are.
``index.parquet`` or ``index.csv``
    One row for each face, in the order of the release, with the columns

    - ``subject``; ``task``, what the subject did; ``fold``; the last two empty where the release has none;
    - ``frame``, its number as the release counts;
    - ``path`` of the image, relative to the folder, with slashes;
    - ``eye_distance``, see `facs.eye_distance`, and the landmarks ``x_0`` to ``x_48`` and ``y_0`` to
      ``y_48``: float32 in pixels of the image, whose pixel centres are whole numbers from 0 on;
    - ``AU01`` and so on: 1 present, 0 absent, null (in CSV: empty) missing;
    - ``AU01_intensity`` and so on, for each AU that has any intensity: float32 in 0..5, null missing.
``skipped.csv``
    The frames that are left out: ``sequence`` (the clip's name), ``frame``, ``reason``.
``prepare.json``
    The data set, the settings, the side of the images and the report.
``parts/``
    One file for each clip that is done, until all are.
"""

from __future__ import annotations

import concurrent.futures
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

from jaa_ext import facs
from jaa_ext.atomic import locked
from jaa_ext.data.errors import quoted
from jaa_ext.data.preparation.folder import (
    FORMAT,
    FolderError,
    Preparation,
    Settings,
    alignment_warning,
    read_begun,
    require_exclusive_folds,
    require_table,
    write_preparation,
)
from jaa_ext.data.preparation.merge import merge
from jaa_ext.data.preparation.parts import PARTS, Detector, Part, Preparer, part_file
from jaa_ext.data.preparation.report import Report
from jaa_ext.data.release import Clip, Release, ReleaseError
from jaa_ext.device import processors
from jaa_ext.progress import ProgressListener

CHECKED_FRAMES = 20
"""About how many frames a checker looks at."""


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
    listener: ProgressListener | None = None,
) -> Report:
    """Align the faces of a released data set and tabulate them, see `jaa_ext.data.preparation.prepare`.

    A frame that cannot be used is left out and listed with its reason. After Ctrl-C, or after it was killed,
    the same call continues with the clips that are not done; a finished folder is left as it is. The bytes
    of the index do not depend on the number of workers.

    Args:
        release: what a reader of a data set returned.
        out: the folder; made if it is not there, else it must be empty or begun by the same call.
        size: side of the aligned images in pixels.
        align: False keeps the images of a release that is aligned already, whatever `size`. They must be
            square; those that have not the commonest side are left out.
        detector: makes a detector for frames without landmarks, in each worker (so it must be picklable). Of
            several faces the one with the largest box is taken. None: such frames are left out.
        checker: makes a detector that looks at about `CHECKED_FRAMES` frames which have landmarks: these
            should lie on a face that it finds. None, or one whose package is not installed: no check.
        table: format of the index.
        workers: processes that work at a time; 0 to work in this one, None for one for each processor. A
            script that calls this with workers needs ``if __name__ == "__main__":``.
        listener: hears how many frames are done, and what is found begun or finished.

    Returns:
        What was kept and left out.

    Raises:
        FolderError: the folder belongs to another call, holds other files, or another process works in it.
        ReleaseError: clips that cannot be told apart, files that do not look as released, no frame that
            can be used, or landmarks most of which cannot be those of the faces.
        ValueError: size, table or workers out of range.
        ImportError: pandas, or pyarrow for a Parquet index, is not installed.
        RuntimeError: a worker was killed.

    Example:
        >>> from jaa_ext.data import PreparedFaces
        >>> from jaa_ext.data.rendered.release import rendered_release
        >>> release = rendered_release(subjects=2, samples_per_subject=3, size=73)
        >>> report = prepare(release, "faces", align=False, table="csv", workers=0)
        >>> report.kept, PreparedFaces("faces").subjects
        (6, ('R0000', 'R0001'))
    """
    if size < 2 or table not in ("parquet", "csv") or (workers is not None and workers < 0):
        raise ValueError(
            "prepare: wanted size >= 2, table 'parquet' or 'csv' and workers >= 0 or None, "
            f"got {size}, {table!r} and {workers}"
        )
    out, listener = Path(out), listener or ProgressListener()
    require_table(table)
    _check(release)
    settings = Settings(
        name=release.name,
        source=release.source,
        aus=[au if isinstance(au, str) else int(au) for au in release.aus],
        size=int(size) if align else None,
        align=align,
        detector=detector is not None,
        table=table,
    )
    out.mkdir(parents=True, exist_ok=True)
    with locked(out, FolderError(f"{out}: another process is preparing a data set in this folder")):
        known = _begin(out, settings, release, listener)
        if known.report is not None:
            shutil.rmtree(out / PARTS, ignore_errors=True)
            listener.on_message(
                f"{out}: is finished already, nothing was changed; delete it to prepare it anew"
            )
            report = known.report
        else:
            # Spread over the data set, since one clip may differ from the others.
            checked = release.clips[:: math.ceil(len(release.clips) / CHECKED_FRAMES)]
            preparer = Preparer(
                out,
                release.aus,
                size if align else None,
                detector,
                checker,
                checked_clips=frozenset(clip.name for clip in checked),
                checked_per_clip=math.ceil(CHECKED_FRAMES / len(checked)),
            )
            try:
                _prepare_clips(preparer, release, workers, listener)
                report = merge(out, known, release)
            except KeyboardInterrupt:
                listener.on_message(f"{out}: interrupted; the same command goes on")
                raise
    return report


def _check(release: Release) -> None:
    """Check what `PreparedFaces` promises of ids, paths and folds."""
    numbers = [facs.split_au(au)[0] for au in release.aus]
    odd = len(set(release.aus)) < len(release.aus) or not all(1 <= number <= 999 for number in numbers)
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
        long = any(len(part.encode("utf-8", "replace")) > _MAX_NAME_BYTES for part in name.split("/"))
        if long or {"", ".", ".."} & set(name.split("/")) or "\\" in name or not name.isprintable():
            raise ReleaseError(f"{release.name}: wanted a clip's name that can be a path, got {quoted(name)}")
    require_exclusive_folds(((s.subject, s.fold) for s in release.clips), release.name)
    ((name, times),) = Counter(s.name for s in release.clips).most_common(1)
    if times > 1:
        raise ReleaseError(
            f"{release.name}: wanted clips of different names, got {quoted(name)} {times} times"
        )


def _begin(out: Path, settings: Settings, release: Release, listener: ProgressListener) -> Preparation:
    """Read prepare.json, and see that it is this call's; write it if there is none."""
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
            write_preparation(out, known)
            if warning := alignment_warning(out, known.opencv):
                listener.on_message(warning)
        return known
    if any(not path.name.startswith(".") for path in out.iterdir()):
        raise FolderError(f"{out}: wanted an empty folder, or one with a preparation begun, got other files")
    known = Preparation(
        format=FORMAT, settings=settings, sequences=clips, opencv=opencv, image_size=None, report=None
    )
    write_preparation(out, known)
    return known


def _difference(known: Preparation, settings: Settings, clips: list[list[str]]) -> str:
    """Say what the folder's preparation differs in; empty if in nothing."""
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


def _prepare_clips(
    preparer: Preparer, release: Release, workers: int | None, listener: ProgressListener
) -> None:
    """Prepare the clips that have no part yet."""
    (preparer.out / PARTS).mkdir(exist_ok=True)
    lengths = {clip.name: clip.length for clip in release.clips}
    todo = [clip for clip in release.clips if Part.load(part_file(preparer.out, clip)) is None]
    if done := len(release.clips) - len(todo):
        listener.on_message(f"{preparer.out}: goes on; {done:,} of {len(release.clips):,} clips are done")
    total = sum(lengths.values())
    before = total - sum(lengths[clip.name] for clip in todo)
    processes = min(len(todo), processors() if workers is None else workers)

    def show(frames: int) -> None:
        listener.on_progress(before + frames, "frames")

    listener.on_start(release.name, total, before)
    try:
        if processes:
            _prepare_in_processes(preparer, todo, processes, show)
        else:
            _prepare_here(preparer, todo, show)
    finally:
        listener.on_end()


def _prepare_here(preparer: Preparer, todo: list[Clip], show: Callable[[int], None]) -> None:
    """Prepare clips in this process; `show` gets the number of frames done so far."""
    done = 0

    def count(frames: int) -> None:
        nonlocal done
        done += frames
        show(done)

    for clip in todo:
        preparer(clip, count)


def _prepare_in_processes(
    preparer: Preparer, todo: list[Clip], processes: int, show: Callable[[int], None]
) -> None:
    """Prepare clips in worker processes; `show` gets the number of frames done so far."""
    context = multiprocessing.get_context("spawn")
    frames = context.Value("q", 0)
    # Its writing end closes with this process, even if that is killed. Workers wait for this at the other end
    # and then end themselves: else they would wait for work for ever.
    parent_ends, never_written = context.Pipe(duplex=False)
    pool = concurrent.futures.ProcessPoolExecutor(
        processes, mp_context=context, initializer=_start_worker, initargs=(preparer, frames, parent_ends)
    )
    try:
        with _interrupts_held():
            waiting = {pool.submit(_prepare_in_worker, clip) for clip in todo}
        while waiting:
            finished, waiting = concurrent.futures.wait(
                waiting, timeout=0.2, return_when=concurrent.futures.FIRST_COMPLETED
            )
            for future in finished:
                future.result()
            show(frames.value)
        pool.shutdown()
    except BrokenProcessPool:
        raise RuntimeError(
            f"{preparer.out}: a worker died, killed perhaps for want of memory; the same command goes on, "
            "with fewer workers if need be"
        ) from None
    finally:
        never_written.close()
        pool.shutdown(cancel_futures=True)
        parent_ends.close()


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Delay Ctrl-C until the block ends; processes started in it ignore Ctrl-C."""
    former = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


_worker: tuple[Preparer, Callable[[int], None]]
"""In a worker process: its preparer, and what counts frames."""


def _start_worker(preparer: Preparer, frames: Any, parent_ends: Connection) -> None:
    global _worker

    def count(done: int) -> None:
        with frames.get_lock():
            frames.value += done

    def end_with_parent() -> None:
        parent_ends.poll(None)
        os._exit(1)

    _worker = (preparer, count)
    cv2.setNumThreads(1)
    threading.Thread(target=end_with_parent, daemon=True).start()


def _prepare_in_worker(clip: Clip) -> None:
    preparer, count = _worker
    preparer(clip, count)


_MAX_NAME_BYTES = 200
"""Bytes of a folder's name; file systems take 255, and the names of parts and temporary files are longer."""
