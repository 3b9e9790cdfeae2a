"""The commands `jaa predict` and `jaa draw`."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from jaa_ext import facs
from jaa_ext.cli.options import names_options
from jaa_ext.cli.output import Device, chosen_weights, console, say_where
from jaa_ext.cli.progress import say, shown_progress

if TYPE_CHECKING:
    from jaa_ext.predict import Predictor
    from jaa_ext.predict.job import Summary

Sources = Annotated[
    list[str],
    typer.Argument(
        help='Photographs, videos, folders of them, patterns such as "talks/*.mp4", the number of a camera.'
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        help="A model file, *.safetensors; the weights that come with jaa_ext if not given.",
        show_default=False,
    ),
]
DetectorName = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help='What finds faces: "dlib"; "dlib-landmarks", which is that with --landmarks dlib; '
        '"opencv-yunet:FILE", OpenCV\'s YuNet with your copy of its model; or MODULE:ATTRIBUTE, your own.',
    ),
]
Landmarks = Annotated[
    Literal["network", "dlib"],
    typer.Option(
        help="Those by which faces are aligned: the network's own, or those of dlib's model, which is for "
        "non-commercial use (extra `dlib-landmarks`)."
    ),
]
Every = Annotated[int, typer.Option(min=1, help="Of videos: every second frame, every third ...")]
Start = Annotated[str, typer.Option(help="Of videos: from here on, in seconds or as 1:02:03.5.")]
End = Annotated[str | None, typer.Option(help="Of videos: up to here.")]
SearchEvery = Annotated[
    float,
    typer.Option(
        min=0,
        metavar="SECONDS",
        help="Of videos: seconds from one search for new faces to the next; known ones are followed. "
        "0 searches each frame.",
    ),
]
FocalLength = Annotated[
    float | None,
    typer.Option(
        metavar="PIXELS",
        help="Of the camera, for head poses; by default OpenFace's guess, 500 at 640x480 and in proportion "
        "to the size of the picture.",
        show_default=False,
    ),
]
Identity = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Of videos: what tells whether a face that comes back was there before, so that it gets its id "
        "again: FILE.onnx, your copy of a network such as SFace or ArcFace; or MODULE:ATTRIBUTE, a function "
        "of your own. Without it, a face is a new one after 2.5 s out of sight, and after a cut.",
        show_default=False,
    ),
]
LeastLikeness = Annotated[
    float | None,
    typer.Option(
        metavar="COSINE",
        help="With --identity: least likeness of a face that comes back, which depends on the network; "
        "0.4 if not given.",
        show_default=False,
    ),
]
Neutral = Annotated[
    str | None,
    typer.Option(
        metavar="TIME-TIME",
        help="Of videos: subtract each face's neutral face, which it shows at these times, as 0:02-0:05; "
        "auto: in the tenth of its frames with the least action. The raw columns stand beside.",
        show_default=False,
    ),
]
Smooth = Annotated[
    float,
    typer.Option(
        min=0,
        metavar="SECONDS",
        help="Of videos: average AUs over so many seconds around each frame. The raw columns stand beside.",
    ),
]
Precision = Annotated[
    Literal["auto", "float32", "bfloat16"],
    typer.Option(
        help='Of the network; "auto": bfloat16 on a GPU that multiplies it natively and on a processor with '
        "AMX, where it is the faster one. Where it is not native, float32 is used in any case, "
        "unless the environment variable JAA_SLOW_BFLOAT16 is 1."
    ),
]
Show = Annotated[
    bool,
    typer.Option(
        "--show",
        help="Of one video or camera: open a window with landmarks, AUs and a running time line; q or Escape "
        "ends it, and the table. Needs a display and opencv-python.",
    ),
]


@names_options
def predict(
    sources: Sources,
    out: Annotated[
        Path | None,
        typer.Option(
            help="One table of everything, *.csv or *.parquet; or a folder for a table of each video and one "
            "of all photographs. Only with --show it can be left out.",
            show_default=False,
        ),
    ] = None,
    show: Show = False,
    weights: Weights = None,
    detector: DetectorName = "dlib",
    landmarks: Landmarks = "network",
    every: Every = 1,
    start: Start = "0",
    end: End = None,
    search_every: SearchEvery = 1.0,
    focal_length: FocalLength = None,
    identity: Identity = None,
    least_likeness: LeastLikeness = None,
    neutral: Neutral = None,
    smooth: Smooth = 0.0,
    precision: Precision = "auto",
    device: Device = "auto",
) -> None:
    """Find the faces of photographs and videos and write their AUs, landmarks and head poses as tables.

    Needs the extra `faces`. Interrupted, the same command goes on. At a camera, Ctrl-C ends the table.
    Photographs of more than 120 million pixels are passed over; JAA_MAX_PIXELS sets another limit.
    """
    from jaa_ext.predict.correction import Correction
    from jaa_ext.predict.job import predict_tables
    from jaa_ext.predict.sources import find_sources
    from jaa_ext.weights import digest

    if show:
        _require_window()
    elif out is None:
        raise ValueError("--out must name a table or a folder; only with --show it can be left out")
    left_out: list[str] = []
    correction = None
    if neutral is not None or smooth != 0:
        if out is None:
            raise ValueError("--neutral and --smooth correct a finished table: they need --out")
        correction = Correction(None if neutral is None else neutral_times(neutral), smooth)
    found = find_sources(sources, left_out.append)
    weights = chosen_weights(weights)
    frames = _frames(every, start, end)
    if show:
        from jaa_ext.predict.window import Window, only_video, watch

        shown = only_video(found)
    predictor = _predictor(
        weights,
        detector=detector,
        landmarks=landmarks,
        device=device,
        precision=precision,
        search_every=search_every,
        focal_length=focal_length,
        identity=identity,
        least_likeness=least_likeness,
    )
    window = Window(predictor) if show else None
    if out is None:
        assert window is not None
        summary = watch(predictor, shown, window, **frames)
    else:
        try:
            with shown_progress(console) as listener:
                summary = predict_tables(
                    predictor,
                    found,
                    out,
                    weights=digest(weights),
                    correction=correction,
                    listener=listener,
                    watch=None if window is None else window.show,
                    **frames,
                )
        finally:
            if window is not None:
                window.close()
        if not summary.tables:
            return  # another process prints the summary
    summary.remarks = left_out + summary.remarks
    _show(summary, predictor)
    _say_note(predictor.note)
    if summary.tables:
        say_where(dict.fromkeys(summary.tables, "a row for each face of each frame"))


@names_options
def draw(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Photographs, videos, folders, patterns, a camera; or tables of `jaa predict` "
            "(*.csv, *.parquet), which give a time line of the AUs."
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="Folder for the pictures; for a single one also a file, such as talk.mp4.")
    ],
    weights: Weights = None,
    detector: DetectorName = "dlib",
    landmarks: Landmarks = "network",
    attention: Annotated[
        str | None,
        typer.Option(help="The AU whose attention map is painted over the faces, such as 12 or 12L."),
    ] = None,
    every: Every = 1,
    start: Start = "0",
    end: End = None,
    search_every: SearchEvery = 1.0,
    identity: Identity = None,
    least_likeness: LeastLikeness = None,
    precision: Precision = "auto",
    device: Device = "auto",
) -> None:
    """Draw landmarks and AUs over photographs and videos, and tables as time lines.

    Needs the extra `faces`.
    """
    from jaa_ext.predict.drawings import draw_sources, draw_tables
    from jaa_ext.predict.sources import find_sources
    from jaa_ext.predict.tables import TABLE_ENDINGS

    tables = [Path(source) for source in sources if Path(source).suffix.lower() in TABLE_ENDINGS]
    if tables and len(tables) < len(sources):
        raise ValueError("draw either tables, or photographs and videos, not both at once")
    note = ""
    if tables:
        files = draw_tables(tables, out)
    else:
        au = None if attention is None else facs.parse_au(attention)
        found = find_sources(sources, lambda sentence: say(console, f"note: {sentence}"))
        weights = chosen_weights(weights)
        predictor = _predictor(
            weights,
            detector=detector,
            landmarks=landmarks,
            device=device,
            precision=precision,
            search_every=search_every,
            identity=identity,
            least_likeness=least_likeness,
        )
        with shown_progress(console) as listener:
            files = draw_sources(
                predictor, found, out, attention=au, listener=listener, **_frames(every, start, end)
            )
        note = predictor.note
    _say_note(note)
    say_where(files)


def seconds(text: str, option: str) -> float:
    """Parse a time such as ``90``, ``1:30`` or ``1:02:03.5``.

    Example:
        >>> seconds("1:30", "--start")
        90.0
    """
    try:
        parts = [float(part) for part in text.split(":")]
        if len(parts) > 3 or not all(0 <= part < float("inf") for part in parts):
            raise ValueError
    except ValueError:
        raise ValueError(f'{option} must be seconds or hours:minutes:seconds, got "{text}"') from None
    return math.fsum(part * 60**power for power, part in enumerate(reversed(parts)))


def neutral_times(text: str) -> tuple[float, float] | Literal["auto"]:
    """Parse the times of a neutral face, such as ``0:02-0:05``, or ``auto``.

    Example:
        >>> neutral_times("0:02-0:05"), neutral_times("auto")
        ((2.0, 5.0), 'auto')
    """
    if text == "auto":
        return "auto"
    start, dash, end = text.partition("-")
    if not dash:
        raise ValueError(f'--neutral must be two times, as 0:02-0:05, or "auto", got "{text}"')
    return seconds(start, "--neutral"), seconds(end, "--neutral")


def _frames(every: int, start: str, end: str | None) -> dict[str, Any]:
    """Give the arguments of `Video.frames`."""
    until = None if end is None else seconds(end, "--end")
    return {"every": every, "start": seconds(start, "--start"), "end": until}


def _predictor(
    weights: Path,
    *,
    detector: str,
    landmarks: Literal["network", "dlib"],
    device: str,
    precision: Literal["auto", "float32", "bfloat16"],
    search_every: float,
    focal_length: float | None = None,
    identity: str | None = None,
    least_likeness: float | None = None,
) -> Predictor:
    if least_likeness is not None and identity is None:
        raise ValueError("--least-likeness is of an embedding: it needs --identity")
    from jaa_ext.distributed import local_device
    from jaa_ext.memory import keep_freed_memory
    from jaa_ext.models import load_model
    from jaa_ext.predict import Predictor

    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # silences its remarks on damaged videos
    keep_freed_memory()
    return Predictor(
        load_model(weights),
        detector=detector,
        landmarks=landmarks,
        device=local_device(device),
        precision=precision,
        search_every=search_every,
        focal_length=focal_length,
        embedding=identity,
        least_likeness=least_likeness,
    )


def _require_window() -> None:
    from jaa_ext.distributed import require_one_process
    from jaa_ext.predict.window import require_display

    require_one_process("`jaa predict --show`")
    require_display()


def _show(summary: Summary, predictor: Predictor) -> None:
    """Print what was done, how fast, and which stage limits the speed."""
    from jaa_ext.device import processors
    from jaa_ext.predict.job import counted

    lines = [f"note: {remark}" for remark in summary.remarks]
    lines += [
        f"{counted(summary.frames, 'frame')}, {counted(summary.faces, 'face')}; "
        f"no face in {counted(summary.without_face, 'frame')}."
    ]
    if summary.unsettled:
        lines += [
            f"{counted(summary.unsettled, 'face')} with success 0: the landmarks that align did not settle."
        ]
    if summary.done_now:
        several = {"finding faces": processors()}  # the threads of a stage that has more than one
        at_work = {
            stage: spent / summary.seconds
            for stage, spent in sorted(summary.busy.items(), key=lambda item: -item[1])
        }
        slowest = max(at_work, key=lambda stage: at_work[stage] / several.get(stage, 1))
        threads = ", ".join(
            f"{stage} {count:.2f}" + (f" of {several[stage]}" if stage in several else "")
            for stage, count in at_work.items()
            if count >= 0.005
        )
        lines += [
            f"{summary.done_now / summary.seconds:.1f} frames/s ({predictor.precision} on "
            f"{predictor.device}). Threads at work, on average: {threads}; what binds is {slowest}."
        ]
    for line in lines:
        say(console, line)


def _say_note(note: str) -> None:
    if note:
        say(console, note, style="bold")
