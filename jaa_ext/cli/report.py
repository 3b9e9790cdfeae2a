"""The command `jaa report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jaa_ext.cli.output import console, say_where
from jaa_ext.cli.progress import say, shown_progress


def report(
    results: Annotated[
        Path,
        typer.Argument(
            help="The folder that `jaa train`, `jaa evaluate` or `jaa crossval` wrote; or, with --video, a "
            "table of `jaa predict`."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="The HTML file; report.html in the folder, or named after the table, if not given.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            help='Where the test faces lie now: a folder of `jaa prepare`, or "synthetic"; once for each of '
            "several data sets, in their order."
        ),
    ] = None,
    video: Annotated[
        Path | None, typer.Option(help="The video of the table, shown beside its time line.")
    ] = None,
    link: Annotated[
        bool, typer.Option("--link", help="Link to the video even if it is small enough to be in the page.")
    ] = False,
) -> None:
    """Make one HTML file, for any browser: of a run, an evaluation or a cross validation; or of a video.

    With --video, a click on the time line of the table goes to that frame of the video.
    """
    from jaa_ext.distributed import require_one_process
    from jaa_ext.predict.tables import TABLE_ENDINGS

    require_one_process("`jaa report`")
    is_table = results.suffix.lower() in TABLE_ENDINGS and not results.is_dir()
    if video is not None:
        if not is_table:
            raise ValueError(f"{results}: --video wants a table of `jaa predict`, *.csv or *.parquet")
        if data:
            raise ValueError("--data is of runs and evaluations: leave it out with --video")
        _video_page(results, video, results.with_suffix(".html") if out is None else out, link)
        return
    if is_table:
        raise ValueError(f"{results}: is a table: name its video by --video")
    if link:
        raise ValueError("--link is of videos: name one by --video")
    from jaa_ext.evaluation.results import one_or_several
    from jaa_ext.report.html_report import write_report

    out = results / "report.html" if out is None else out
    with shown_progress(console) as listener:
        why = write_report(results, out, data=one_or_several(data), listener=listener)
    if why:
        say(console, f"Without faces: {why}.")
    say_where({out: "the report, for any browser; it needs no other file"})


def _video_page(table: Path, video: Path, out: Path, link: bool) -> None:
    from jaa_ext.report.video_page import write_video_page

    page = write_video_page(table, video, out, link=link)
    for note in page.notes:
        say(console, f"note: {note}")
    what = (
        "it needs no other file"
        if page.embedded
        else f"it shows {video}: if you move one, move both together"
    )
    say_where({out: f"the video beside its time line, for any browser; {what}"})
