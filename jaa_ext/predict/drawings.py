"""Photographs, videos and tables of predictions as pictures."""

from __future__ import annotations

import time
from collections.abc import Iterable
from itertools import count
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from jaa_ext.atomic import replacing
from jaa_ext.predict.draw import draw_faces
from jaa_ext.predict.overlay import FrameDrawer, write_video
from jaa_ext.predict.prediction import FramePrediction
from jaa_ext.predict.predictor import Predictor
from jaa_ext.predict.sources import Source
from jaa_ext.predict.tables import read_table
from jaa_ext.predict.timeline import timeline_figure
from jaa_ext.progress import progress


def draw_sources(
    predictor: Predictor,
    sources: list[Source],
    out: Path,
    *,
    every: int = 1,
    start: float = 0.0,
    end: float | None = None,
    attention: int | None = None,
    console: Console | None = None,
) -> dict[Path, str]:
    """Draw photographs and videos with boxes, landmarks, AUs and, if asked for, an attention map.

    Args:
        predictor: of any model.
        sources: see `find_sources`.
        out: a folder for a ``*_faces.png`` of each photograph and a ``*_faces.mp4`` of each video; for a
            single source also the picture (.png, .jpg) or video (see `write_video`) itself.
        every, start, end: of videos, see `Video.frames`; with `every` the video keeps its speed.
        attention: the number of an AU whose attention map is painted over the faces.
        console: where progress goes.

    Returns:
        Each file, and what it is in words.

    Raises:
        ImageError, VideoError: a source that cannot be read.
        ValueError: endings that do not fit, an AU that the model has not; see also `FrameDrawer`.
    """
    FrameDrawer(predictor.aus, attention=attention)  # a wrong AU is told before anything is read
    if out.suffix and len(sources) > 1:
        raise ValueError(f"{out}: is one file, but {len(sources)} sources are to be drawn; name a folder")
    written: dict[Path, str] = {}
    names: set[str] = set()
    with progress(console or Console()) as bar:
        for source in sources:
            stem = f"camera_{source.name}" if source.kind == "camera" else source.path.stem
            stem = next(name for i in count(1) if (name := f"{stem}_{i}" if i > 1 else stem) not in names)
            names.add(stem)
            ending = ".png" if source.kind == "photograph" else ".mp4"
            path = out if out.suffix else out / f"{stem}_faces{ending}"
            if source.kind == "photograph":
                (frame,) = predictor.photographs([source.name])
                with predictor.stages.busy("drawing"):
                    _write_picture(path, _draw_photograph(predictor, frame, attention))
                written[path] = f"{len(frame.faces)} face{'s' * (len(frame.faces) != 1)}"
                continue
            video = source.open()
            draw = FrameDrawer(predictor.aus, note=predictor.note, attention=attention)
            task = bar.add_task(source.path.name, total=video.expected(every, start, end), text="")
            began = time.perf_counter()
            with write_video(path, video.fps / every) as file:
                frames = predictor.video(video, every=every, start=start, end=end)
                try:
                    for done, frame in enumerate(frames, 1):
                        with predictor.stages.busy("drawing"):
                            picture = draw(frame)
                        with predictor.stages.busy("writing"):
                            file.write(picture)
                        speed = done / (time.perf_counter() - began)
                        bar.update(task, advance=1, text=f"{speed:.1f} frames/s")
                except KeyboardInterrupt:
                    if source.kind != "camera":
                        raise
                finally:
                    frames.close()
            bar.remove_task(task)
            written[path] = f"{done} frames, {done / (time.perf_counter() - began):.1f} frames/s"
    return written


def draw_tables(tables: Iterable[Path], out: Path) -> dict[Path, str]:
    """Draw the AUs of each video of tables over time, see `timeline_figure`.

    Args:
        tables: CSV or Parquet, of `jaa predict`.
        out: a folder for a ``*_timeline.png`` of each video, or, if there is one video, the .png itself.

    Raises:
        FileNotFoundError, ValueError: see `read_table`; several videos and a single file.
        MissingDependency: see `read_table`.
    """
    videos = [
        (path, str(source), rows)
        for path in tables
        for source, rows in read_table(path).groupby("source", sort=False)
    ]
    if out.suffix and len(videos) > 1:
        raise ValueError(f"{out}: is one file, but the tables have {len(videos)} sources; name a folder")
    written: dict[Path, str] = {}
    for table, source, rows in videos:
        stem = Path(source).stem or table.stem
        names = (f"{stem}_{i}" if i > 1 else stem for i in count(1))
        path = (
            out if out.suffix else next(p for n in names if (p := out / f"{n}_timeline.png") not in written)
        )
        timeline_figure(rows, path)
        written[path] = f"the AUs of {source} over time"
    return written


def _draw_photograph(
    predictor: Predictor, frame: FramePrediction, attention: int | None
) -> NDArray[np.uint8]:
    if attention is None:
        return draw_faces(frame.image, frame.faces, predictor.aus, predictor.note)
    return FrameDrawer(predictor.aus, note=predictor.note, attention=attention)(frame)


def _write_picture(path: Path, picture: NDArray[np.uint8]) -> None:
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise ValueError(f"{path}: a picture must end in .png, .jpg or .jpeg")
    with replacing(path) as temporary:
        temporary.write_bytes(cv2.imencode(path.suffix, picture[..., ::-1])[1].tobytes())
