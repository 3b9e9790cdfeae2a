"""Tables of many photographs and videos: resumable, in constant memory, shared among processes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import cv2

from jaa_ext.atomic import locked, naming, replacing, sync
from jaa_ext.data.images import ImageError
from jaa_ext.data.video import VideoError, check_times
from jaa_ext.distributed import Processes
from jaa_ext.predict.correction import Correction
from jaa_ext.predict.prediction import FramePrediction
from jaa_ext.predict.predictor import Predictor, in_words
from jaa_ext.predict.sources import PHOTOGRAPH_ENDINGS, VIDEO_ENDINGS, Source, new_name
from jaa_ext.predict.tables import TABLE_ENDINGS, csv_rows, join_tables, require_table
from jaa_ext.progress import ProgressListener

PHOTOGRAPHS_A_PART = 64
SAVED_EVERY = 5.0
"""Seconds of work on a video that a killed run loses at most."""
RUN_FILE = "run.json"
"""The file that records the settings of an unfinished run."""
SKIPPED = "; passed over"
MOST_TOLD = 10
"""Most returns of faces in a video that are told one by one."""
FILE_ENDINGS = {
    *PHOTOGRAPH_ENDINGS,
    *VIDEO_ENDINGS,
    *(".xlsx", ".xls", ".ods", ".tsv", ".json", ".txt", ".html", ".pdf", ".feather", ".zip"),
}
"""Endings of files that are no tables of ours, by which no new folder is named."""


@dataclass
class Summary:
    """Counts of a run over all its processes."""

    tables: list[Path] = field(default_factory=list)
    frames: int = 0
    """Number of photographs and frames."""
    without_face: int = 0
    faces: int = 0
    """Number of rows with a face."""
    unsettled: int = 0
    """Number of rows with a face that is not `FacePrediction.settled`."""
    remarks: list[str] = field(default_factory=list)
    """A sentence for each file that could not be read, or not to its end, for a video's hard cuts, and for
    faces that came back."""
    seconds: float = 0.0
    """Seconds of this run, without those before it was interrupted."""
    done_now: int = 0
    """Number of frames in this run, without those before it was interrupted."""
    busy: dict[str, float] = field(default_factory=dict)
    """Seconds of each stage in this run, see `Stages`; those of the first process."""


@dataclass(frozen=True)
class _Part:
    """Photographs or a video that one process does at a time."""

    table: Path
    sources: list[Source]


def predict_tables(
    predictor: Predictor,
    sources: list[Source],
    out: Path,
    *,
    every: int = 1,
    start: float = 0.0,
    end: float | None = None,
    weights: str = "",
    correction: Correction | None = None,
    listener: ProgressListener | None = None,
    watch: Callable[[FramePrediction], bool] | None = None,
) -> Summary:
    """Write tables of photographs, videos and cameras.

    Finished rows are kept in a hidden folder beside the tables. An interrupted run that is started again,
    with the same arguments on the same files, goes on from there and writes the rows that an uninterrupted
    run would write. Files that cannot be read are skipped. Several processes (`torchrun`) share the
    photographs and videos and write the tables that one process would write.

    Args:
        predictor: predictor with any model.
        sources: see `find_sources`.
        out: a file ending in .csv or .parquet for one table of everything; else a folder for a CSV table of
            each video, named after it, one of all photographs and one of a camera.
        every, start, end: of videos, see `Video.frames`.
        weights: identifies the weights, for example by a digest of their file; a run goes on with the same
            weights only.
        correction: corrects the finished tables; a run may go on with another one.
        listener: hears of each source; of several processes, the main one tells how far it is.
        watch: called with each frame of a video or camera once its rows are written; False ends the video
            there, and its table is complete.

    Raises:
        ValueError: none of the sources can be read, impossible numbers, a file of that name that is no such
            table, a new name with the ending of another kind of file, or an unfinished run with other
            settings or by another process.
        MissingDependency: Parquet without pyarrow.
        KeyboardInterrupt: after Ctrl-C; at a camera Ctrl-C ends the table instead.
    """
    check_times(every, start, end)
    if not sources:
        raise ValueError("got no photograph and no video, wanted at least one")
    one_table = out.suffix.lower() in TABLE_ENDINGS
    if one_table:
        require_table(out)
        if out.is_dir():
            raise ValueError(f"{out}: wanted a table, got a folder")
    elif out.is_file():
        raise ValueError(f"{out}: wanted a folder, or a table that ends in .csv or .parquet, got a file")
    elif not out.exists() and out.suffix.lower() in FILE_ENDINGS:
        raise ValueError(
            f"{out}: wanted a folder, or a table that ends in .csv or .parquet, got the ending {out.suffix}"
        )
    for name in (predictor.detector_identity, predictor.embedding_identity):
        if "<lambda>" in name or name.startswith("functools.partial"):
            raise ValueError(
                f"{name} is the name of many functions, so that an unfinished run could go "
                "on with another one; give it an attribute `identity`, a text of its own"
            )
    parts = _parts(sources, out, one_table)
    for part in parts:
        _require_free(part.table)
    folder = out.with_name(f".{out.name}.unfinished") if one_table else out / ".unfinished"
    chosen = {"every": every, "start": start, "end": end}
    settings = {
        "weights": weights,
        "precision": predictor.precision,
        "device": predictor.device.type,
        "search_every": predictor.search_every,
        "landmarks": predictor.landmarks,
        "focal_length": predictor.focal_length,
        "detector": predictor.detector_identity,
        "embedding": [predictor.embedding_identity, predictor.least_likeness]
        if predictor.embedding_identity
        else None,
        "frames": chosen,
        "sources": [[source.name, source.kind, *_fingerprint(source)] for source in sources],
    }
    began, before = time.perf_counter(), dict(predictor.stages.seconds)
    with Processes.of_torchrun() as processes, ExitStack() as stack:
        if processes.is_main_process:
            folder.mkdir(parents=True, exist_ok=True)
            another = ValueError(f"{folder}: another process is writing these tables")
            stack.enter_context(locked(folder, another))
            _open(folder, settings)
        processes.barrier()
        mine = range(processes.rank, len(parts), processes.world_size)
        listener = listener or ProgressListener()
        if not processes.is_main_process:
            listener = _Messages(listener)
        run = _Run(predictor, folder, parts, chosen, listener, watch)
        try:
            for number in mine:
                run.do(number)
        except Exception:
            if processes.world_size == 1 and run.has_nothing():
                shutil.rmtree(folder)  # else it would stand in the way of the same tables by other settings
            raise
        summary = run.summary
        summary.seconds = time.perf_counter() - began
        summary.busy = {stage: s - before[stage] for stage, s in predictor.stages.seconds.items()}
        summary = _merge([Summary(**each) for each in processes.gather_object(asdict(summary))])
        nothing = summary.frames == 0 and len(summary.remarks) == len(sources)
        if processes.is_main_process and not nothing:
            for table in dict.fromkeys(part.table for part in parts):
                files = [run.file(i, "rows") for i, part in enumerate(parts) if part.table == table]
                summary.remarks += join_tables(
                    table,
                    files,
                    predictor.aus,
                    intensity=predictor.intensity,
                    correction=correction,
                    thresholds=predictor.thresholds,
                )
                summary.tables.append(table)
        if processes.is_main_process:
            (folder / RUN_FILE).unlink()  # first, since without it the rest counts as rubbish
            shutil.rmtree(folder)
            if nothing:
                raise ValueError(summary.remarks[0].removesuffix(SKIPPED))
    return summary


class _Run:
    """The parts of a run that this process does or has done."""

    def __init__(
        self,
        predictor: Predictor,
        folder: Path,
        parts: list[_Part],
        chosen: dict[str, Any],
        listener: ProgressListener,
        watch: Callable[[FramePrediction], bool] | None,
    ) -> None:
        self.predictor, self.folder, self.parts, self.chosen = predictor, folder, parts, chosen
        self.listener, self.watch = listener, watch
        self.summary = Summary()
        self.began = time.perf_counter()

    def file(self, number: int, kind: str) -> Path:
        """Name a file of a part: "rows" of a finished part, "begun" of an unfinished one, "state" or
        "counts"."""
        return self.folder / f"{number:06d}.{kind}"

    def has_nothing(self) -> bool:
        """Tell whether no row has been kept."""
        kept = [*self.folder.glob("*.rows"), *self.folder.glob("*.begun")]
        return not any(file.stat().st_size for file in kept)

    def do(self, number: int) -> None:
        """Do a part, or the rest of it."""
        rows_file, counts_file = self.file(number, "rows"), self.file(number, "counts")
        counts = _read_state(counts_file)
        if counts is None or not rows_file.exists() or rows_file.stat().st_size != counts["bytes"]:
            begun = self.file(number, "begun")
            part = self.parts[number]
            with naming(part.table):
                counts = (
                    self._photographs(begun, part.sources)
                    if part.sources[0].kind == "photograph"
                    else self._video(begun, self.file(number, "state"), part.sources[0])
                )
                sync(begun)
            counts["bytes"] = begun.stat().st_size
            _write_state(counts_file, counts)
            begun.replace(rows_file)
        # A gallery of embeddings is in it, which no finished video needs.
        self.file(number, "state").unlink(missing_ok=True)
        self.summary.frames += counts["frames"]
        self.summary.without_face += counts["without_face"]
        self.summary.faces += counts["faces"]
        self.summary.unsettled += counts["unsettled"]
        self.summary.remarks += counts["remarks"]

    def _photographs(self, path: Path, sources: list[Source]) -> dict[str, Any]:
        """Predict photographs, always from the first one, so that the batches are the same in every run."""
        counts = _zero_counts()
        self._start(counted(len(sources), "photograph"), len(sources))

        def unreadable(name: str, error: ImageError) -> None:
            counts["remarks"].append(f"{error}{SKIPPED}")
            self._advance()

        frames = self.predictor.photographs([source.name for source in sources], unreadable=unreadable)
        try:
            with path.open("wb") as file:
                for frame in frames:
                    self._write(file, frame, counts)
        finally:
            self.listener.on_end()
        names = dict.fromkeys((sources[0].name, sources[-1].name))
        self._end(" to ".join(names), "photograph", counts)
        return counts

    def _video(self, path: Path, state_file: Path, source: Source) -> dict[str, Any]:
        counts, after, length, tracker = _zero_counts(), 0, 0, self.predictor.tracker()
        missing: list[tuple[int, int]] = []  # before the frame `after`, see `Video.missing`
        state = _read_state(state_file)
        path.touch()
        if state is not None and path.stat().st_size >= state["length"] and source.kind == "video":
            counts, after, length = counts | state["counts"], state["after"], state["length"]
            missing = [(first, many) for first, many in state["missing"]]
            tracker.load_state(state["tracker"])
        errors: list[Exception] = []
        try:
            video = source.open()
            self._start(video.name, video.expected(**self.chosen), counts["frames"])
            with path.open("r+b") as file:
                file.truncate(length)
                file.seek(length)
                saved, safe = time.monotonic(), after
                frames = self.predictor.video(video, after=after, tracker=tracker, **self.chosen)
                try:
                    for frame in _until_error(frames, errors):
                        length += self._write(file, frame, counts)
                        counts["cuts"] += tracker.behind_cut
                        after = frame.frame
                        if self.watch is not None and not self.watch(frame):
                            if source.kind == "video":
                                counts["remarks"].append(f"{video.name}: ended by you after frame {after}")
                            break
                        if source.kind == "video" and time.monotonic() - saved > SAVED_EVERY:
                            file.flush()
                            os.fsync(file.fileno())
                            lost = missing + [each for each in video.missing if each[0] <= after]
                            state = {"counts": counts, "after": after, "length": length, "missing": lost}
                            _write_state(state_file, {**state, "tracker": tracker.state()})
                            saved, safe = time.monotonic(), after
                except KeyboardInterrupt:
                    if source.kind == "video":
                        self.listener.on_message(
                            f"{video.name}: stopped; the same command goes on after frame {safe}"
                        )
                        raise
                    file.truncate(length)  # Ctrl-C ends the table of a camera
                finally:
                    frames.close()
                    self.listener.on_end()
            self._end(video.name, "frame", counts)
            if counts["cuts"]:
                counts["remarks"].append(
                    f"{video.name}: {counted(counts['cuts'], 'hard cut')}; a cut ends every face's id, "
                    "unless an embedding knows the face again"
                )
            counts["remarks"] += told(video.name, counts["returns"])
            why = in_words(errors[0]).removeprefix(f"{video.name}: ") if errors else ""
            if why and not counts["frames"]:
                raise VideoError(f"{video.name}: {why}")
            if why:
                counts["remarks"].append(f"{video.name}: breaks off after frame {after} ({why})")
            elif not counts["frames"]:
                counts["remarks"].append(f"{video.name}: has no frame between --start and --end")
            else:
                counts["remarks"] += video.damage(missing + video.missing)
        except VideoError as error:
            counts["remarks"].append(f"{error}{SKIPPED}")
        return counts

    def _write(self, file: IO[bytes], frame: FramePrediction, counts: dict[str, Any]) -> int:
        """Write the rows of a frame; returns the number of bytes."""
        with self.predictor.stages.busy("writing"):
            rows = csv_rows(
                frame, self.predictor.aus, self.predictor.note, intensity=self.predictor.intensity
            )
            text = rows.encode()
            file.write(text)
        counts["frames"] += 1
        counts["faces"] += len(frame.faces)
        counts["unsettled"] += sum(not face.settled for face in frame.faces)
        counts["without_face"] += not frame.faces
        counts["returns"] += returns(frame)
        self.summary.done_now += 1
        self._advance()
        return len(text)

    def _start(self, name: str, total: int | None, done: int = 0) -> None:
        self.steps = done
        self.listener.on_start(name, total, done)

    def _advance(self) -> None:
        self.steps += 1
        speed = self.summary.done_now / (time.perf_counter() - self.began)
        self.listener.on_progress(self.steps, f"{speed:.1f} frames/s")

    def _end(self, name: str, what: str, counts: dict[str, Any]) -> None:
        self.listener.on_message(
            f"{name}: {counted(counts['frames'], what)}, {counts['without_face']} without a face"
        )


class _Messages(ProgressListener):
    """Pass on sentences, but not how far the work is, which several processes would tell at once."""

    def __init__(self, listener: ProgressListener) -> None:
        self.listener = listener

    def on_message(self, sentence: str) -> None:
        self.listener.on_message(sentence)


def counted(number: int, what: str) -> str:
    """Write a number with its noun.

    Example:
        >>> counted(1, "frame"), counted(2, "frame")
        ('1 frame', '2 frames')
    """
    return f"{number} {what}{'s' * (number != 1)}"


Return = tuple[int, float, int, float]
"""Of a face that came back: frame, seconds, id, likeness; 0 if it only is no longer like itself."""


def returns(frame: FramePrediction) -> list[Return]:
    """List the faces of a frame that came back and got their ids again, or are no longer like themselves."""
    return [
        (frame.frame, frame.timestamp, face.face_id, face.merged)
        for face in frame.faces
        if face.merged or face.unlike
    ]


def told(source: str, all_returns: Sequence[Return]) -> list[str]:
    """Tell of the faces that `returns` lists: of each, or only how often if they are many.

    Example:
        >>> told("talk.mp4", [(152, 6.08, 0, 0.714)])
        ['talk.mp4: face 0 came back in frame 152, at 6.080 s (likeness 0.714)']
    """
    back = [
        f"{source}: face {face_id} came back in frame {number}, at {seconds:.3f} s (likeness {likeness:.3f})"
        for number, seconds, face_id, likeness in all_returns
        if likeness
    ]
    unlike = [
        f"{source}: face {face_id} no longer looks like itself from frame {number} on, at {seconds:.3f} s; "
        "it may be somebody else"
        for number, seconds, face_id, likeness in all_returns
        if not likeness
    ]
    if len(back) > MOST_TOLD:
        back = [f"{source}: faces came back {len(back)} times, see the column `merged` of the table"]
    if len(unlike) > MOST_TOLD:
        unlike = [f"{source}: {len(unlike)} faces no longer look like themselves; they may be others"]
    return back + unlike


def _parts(sources: list[Source], out: Path, one_table: bool) -> list[_Part]:
    """Divide sources into parts, in their order."""
    parts: list[_Part] = []
    names: set[str] = set()

    def table(stem: str) -> Path:
        return out if one_table else out / f"{new_name(stem, names)}.csv"

    photographs = [source for source in sources if source.kind == "photograph"]
    if photographs and not one_table:
        of_photographs = table("photographs")
        chunks = range(0, len(photographs), PHOTOGRAPHS_A_PART)
        parts += [_Part(of_photographs, photographs[i : i + PHOTOGRAPHS_A_PART]) for i in chunks]
        sources = [source for source in sources if source.kind != "photograph"]
    for source in sources:
        if source.kind == "photograph":
            last = parts[-1].sources if parts else []
            if last and last[-1].kind == "photograph" and len(last) < PHOTOGRAPHS_A_PART:
                last.append(source)
            else:
                parts.append(_Part(out, [source]))
        else:
            parts.append(_Part(table(source.stem), [source]))
    return parts


def _require_free(table: Path) -> None:
    """Raise if the file exists and is no table of ours, which alone may be replaced."""
    if table.exists():
        start = b"PAR1" if table.suffix.lower() == ".parquet" else b"frame,face_id,timestamp,"
        with table.open("rb") as file:
            if file.read(len(start)) != start:
                raise ValueError(
                    f"{table}: is there already, and no table of `jaa predict`; name another --out"
                )


def _open(folder: Path, settings: dict[str, Any]) -> None:
    """Check that an unfinished run has the same settings; without one, empty the folder and record them."""
    file = folder / RUN_FILE
    found = _read_state(file)
    if found is None:  # files without a record are of no use
        for rest in folder.iterdir():
            if rest.is_dir() and not rest.is_symlink():
                shutil.rmtree(rest)
            else:
                rest.unlink()
        _write_state(file, settings)
    elif found != json.loads(json.dumps(settings)):
        raise ValueError(
            f"{folder}: holds an unfinished run of other settings or files; finish it by its own command, or "
            "remove this folder"
        )


def _write_state(path: Path, state: dict[str, Any]) -> None:
    """Write JSON behind a line with its digest."""
    text = json.dumps(state)
    with replacing(path) as temporary:
        temporary.write_text(f"{_digest(text)}\n{text}\n", encoding="utf-8")


def _read_state(path: Path) -> dict[str, Any] | None:
    """Read what `_write_state` wrote; None if there is no file, or a damaged one."""
    try:
        digest, text, end = path.read_text(encoding="utf-8").split("\n")
    except (FileNotFoundError, ValueError):
        return None
    if end or digest != _digest(text):
        return None
    state: dict[str, Any] = json.loads(text)
    return state


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _until_error(
    frames: Iterator[FramePrediction], errors: list[Exception]
) -> Generator[FramePrediction, None, None]:
    """Yield the frames up to one that cannot be read or searched, and append its error to `errors`."""
    try:
        yield from frames
    except (ValueError, cv2.error, MemoryError, OSError) as error:
        errors.append(error)


def _fingerprint(source: Source) -> tuple[int, int]:
    """Give the size and time of a file, by which to tell whether it is still the same."""
    if source.kind == "camera":
        return 0, 0
    try:
        about = source.path.stat()
    except OSError:  # skipped when it is read
        return -1, -1
    return about.st_size, about.st_mtime_ns


def _zero_counts() -> dict[str, Any]:
    numbers = dict.fromkeys(("frames", "without_face", "faces", "unsettled", "cuts"), 0)
    return {**numbers, "returns": [], "remarks": []}


def _merge(summaries: list[Summary]) -> Summary:
    """Merge the summaries of all processes; the times of stages are those of the first."""
    first = summaries[0]
    for other in summaries[1:]:
        first.frames += other.frames
        first.without_face += other.without_face
        first.faces += other.faces
        first.unsettled += other.unsettled
        first.done_now += other.done_now
        first.remarks += other.remarks
        first.seconds = max(first.seconds, other.seconds)
    return first
