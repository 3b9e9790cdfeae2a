"""Pictures and videos of predictions, and time lines of tables."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from jaa_ext.atomic import replacing
from jaa_ext.data.images import ImageError
from jaa_ext.data.video import VideoError, check_times
from jaa_ext.facs import AU
from jaa_ext.plots.frames import FrameDrawer, write_video
from jaa_ext.plots.photographs import draw_faces
from jaa_ext.plots.timeline import timeline_figure
from jaa_ext.predict.job import Return, counted, returns, told
from jaa_ext.predict.predictor import Predictor, in_words
from jaa_ext.predict.sources import Source, new_name
from jaa_ext.predict.tables import read_table
from jaa_ext.progress import ProgressListener


def draw_sources(
    predictor: Predictor,
    sources: list[Source],
    out: Path,
    *,
    every: int = 1,
    start: float = 0.0,
    end: float | None = None,
    attention: AU | None = None,
    listener: ProgressListener | None = None,
) -> dict[Path, str]:
    """Draw photographs and videos with boxes, landmarks, AUs and, if asked for, an attention map.

    Args:
        predictor: predictor with any model.
        sources: see `find_sources`.
        out: a folder for a ``*_faces.png`` of each photograph and a ``*_faces.mp4`` of each video. For a
            single source it can also be the picture (.png, .jpg) or the video (see `write_video`) itself,
            which is assumed if the name has an ending and no folder has it.
        every, start, end: of videos, see `Video.frames`; each frame is shown at its time.
        attention: the AU whose attention map is painted over the faces.
        listener: hears how far each video is, and what is passed over.

    Returns:
        Each file, and a description of it.

    Raises:
        ImageError, VideoError: none of the sources can be read; if some can, these are drawn.
        ValueError: a file in place of a folder or the other way round, endings that do not fit, an AU that
            the model lacks; see also `FrameDrawer`.
    """
    FrameDrawer(predictor.aus, attention=attention)  # raises for a wrong AU before anything is read
    check_times(every, start, end)
    one_file = bool(out.suffix) and not out.is_dir()
    if one_file and len(sources) > 1:
        raise ValueError(f"{out}: is one file, but {len(sources)} sources are to be drawn; name a folder")
    if one_file and out.exists() and sources[0].path.exists() and out.samefile(sources[0].path):
        raise ValueError(f"{out}: is the source itself; name another file")
    written: dict[Path, str] = {}
    unreadable: list[ImageError | VideoError] = []
    names: set[str] = set()
    listener = listener or ProgressListener()
    for source in sources:
        ending = ".png" if source.kind == "photograph" else ".mp4"
        path = out if one_file else out / f"{new_name(source.stem, names)}_faces{ending}"
        try:
            if source.kind == "photograph":
                written[path] = _draw_photograph(predictor, source, path, attention)
            else:
                times = {"every": every, "start": start, "end": end}
                written[path] = _draw_video(predictor, source, path, attention, times, listener)
        except (ImageError, VideoError) as error:
            unreadable.append(error)
        except (cv2.error, MemoryError) as error:
            unreadable.append(VideoError(f"{source.name}: cannot be drawn ({in_words(error)})"))
        else:
            continue
        listener.on_message(f"note: {unreadable[-1]}; passed over")
    if not written:
        raise unreadable[0]
    return written


def draw_tables(tables: Sequence[Path], out: Path) -> dict[Path, str]:
    """Draw the AUs of each video of tables over time, see `timeline_figure`.

    Args:
        tables: CSV or Parquet files of `jaa predict`.
        out: a folder for a ``*_timeline.png`` of each video, or, if there is one video, the .png itself.

    Raises:
        FileNotFoundError, ValueError: see `read_table`; or several videos for a single file.
        MissingDependency: see `read_table`.
    """
    videos = [
        (path, str(source), rows)
        for path in tables
        for source, rows in read_table(path).groupby("source", sort=False)
        if rows["frame"].nunique() > 1  # photographs have no time line
    ]
    one_file = bool(out.suffix) and not out.is_dir()
    if one_file and out.suffix.lower() != ".png":
        raise ValueError(f"{out}: a time line must end in .png; or name a folder")
    if not videos:
        raise ValueError(
            f"{', '.join(map(str, tables))}: got no video of two frames or more, wanted one for a time line"
        )
    if one_file and len(videos) > 1:
        raise ValueError(f"{out}: is one file, but the tables have {len(videos)} sources; name a folder")
    written: dict[Path, str] = {}
    names: set[str] = set()
    for table, source, rows in videos:
        stem = new_name(Path(source).stem or table.stem, names)
        path = out if one_file else out / f"{stem}_timeline.png"
        try:
            timeline_figure(rows, path)
        except ValueError as error:
            raise ValueError(f"{table}: {error}") from None
        written[path] = f"the AUs of {source} over time"
    return written


def _frame_drawer(predictor: Predictor, attention: AU | None) -> FrameDrawer:
    return FrameDrawer(
        predictor.aus, note=predictor.note, attention=attention, thresholds=predictor.thresholds
    )


def _draw_photograph(predictor: Predictor, source: Source, path: Path, attention: AU | None) -> str:
    """Draw a photograph; returns a description of the picture."""
    (frame,) = predictor.photographs([source.name])
    if attention is None:
        thresholds = predictor.thresholds
        picture = draw_faces(frame.image, frame.faces, predictor.aus, predictor.note, thresholds=thresholds)
    else:
        picture = _frame_drawer(predictor, attention)(frame)
    _write_picture(path, picture)
    return counted(len(frame.faces), "face")


def _draw_video(
    predictor: Predictor,
    source: Source,
    path: Path,
    attention: AU | None,
    times: dict[str, Any],
    listener: ProgressListener,
) -> str:
    """Draw a video; returns a description of it."""
    video = source.open()
    draw = _frame_drawer(predictor, attention)
    listener.on_start(video.name, video.expected(**times))
    began, done = time.perf_counter(), 0
    frames = predictor.video(video, **times)
    came_back: list[Return] = []
    try:
        with write_video(path, video.copy_rate(times["every"])) as file:
            try:
                for done, frame in enumerate(frames, 1):
                    file.write(draw(frame), frame.timestamp)
                    came_back += returns(frame)
                    speed = done / (time.perf_counter() - began)
                    listener.on_progress(done, f"{speed:.1f} frames/s")
            except KeyboardInterrupt:
                if source.kind != "camera":  # Ctrl-C ends the video of a camera
                    raise
            if done == 0:
                raise VideoError(f"{video.name}: has no frame between --start and --end")
            if video.ends_at is not None:
                file.hold(video.ends_at)
    finally:
        frames.close()
        listener.on_end()
    for remark in [*told(video.name, came_back), *video.damage(video.missing)]:
        listener.on_message(f"note: {remark}")
    if file.shortened:
        listener.on_message(f"note: {path}: its pauses are shortened by {file.shortened:.0f} s")
    return f"{counted(done, 'frame')}, {done / (time.perf_counter() - began):.1f} frames/s"


def _write_picture(path: Path, picture: NDArray[np.uint8]) -> None:
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise ValueError(f"{path}: a picture must end in .png, .jpg or .jpeg")
    with replacing(path) as temporary:
        temporary.write_bytes(cv2.imencode(path.suffix, picture[..., ::-1])[1].tobytes())
