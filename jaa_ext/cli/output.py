"""Output that the commands of `jaa` share, and the options of device and weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaa_ext.cli.progress import say
from jaa_ext.score_text import score_text

if TYPE_CHECKING:
    from jaa_ext.evaluation import Scores
    from jaa_ext.experiments.tables import ResultTable

console = Console()

Device = Annotated[
    str, typer.Option(help='"auto" (the first GPU if there is one), "cpu", "cuda" or "cuda:1".')
]


def say_where(files: dict[Path, str]) -> None:
    """Print where the results are, and what each is."""
    console.print("Results:")
    for path, what in files.items():
        say(console, f"  {path}  {what}")


def chosen_weights(weights: Path | None) -> Path:
    """Give the file of the weights; if none is named, print and give the one that comes with jaa_ext."""
    if weights is not None:
        return weights
    from jaa_ext.weights import default_weights, digest

    file = default_weights()
    say(console, f"Weights: those that come with jaa_ext, {file.name} ({digest(file)[:8]}).")
    return file


def show_scores(scores: Scores, console: Console = console) -> None:
    """Print the scores of AUs, landmarks and intensities, and the note, in at most 80 columns.

    Of several data sets those of each follow those of all together.
    """
    for name, part in {"all data sets together": scores, **(scores.sets or {})}.items():
        if scores.sets is not None:
            say(console, name, style="bold")
        console.print(_au_table(part))
        if any(part.rated or ()):
            console.print(_intensity_table(part))
    if scores.note:
        say(console, scores.note, style="bold")


def show_table(table: ResultTable, console: Console = console) -> None:
    """Print a table of results and the notes below it."""
    # Without frames and with names whole, the sixteen columns of Table 3 fit into 80.
    printed = Table(
        title=Text(table.title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=0
    )
    for i, name in enumerate(table.header):
        printed.add_column(name, justify="right" if i else "left", overflow="fold", no_wrap=i == 0)
    for row in table.rows:
        printed.add_row(*row)
    console.print(printed)
    for note in table.notes:
        say(console, note)


def _au_table(scores: Scores) -> Table:
    """Scores of AUs in percent, intervals in brackets; those of all AUs and of landmarks below."""
    from jaa_ext.evaluation.scores import AU_SCORES

    aus = () if scores.f1 is None else scores.aus
    # Five scores with their intervals on a second line fit into 80 columns.
    interval_width = 0 if scores.intervals is None else len("(12.3-45.6)")
    table = _table()
    for name in ("AU", "present %"):
        table.add_column(name, justify="right")
    for name in ("F1 %", "accuracy %", "precision %", "recall %", "AUC %"):
        table.add_column(name, justify="right", min_width=interval_width)
    for i, au in enumerate(aus):
        positives, valid = scores.of("positives", i)[0], scores.of("valid", i)[0]
        present = score_text(positives / valid if positives is not None and valid else None)
        table.add_row(str(au), present, *(score_text(*scores.of(name, i)) for name in AU_SCORES))
    table.show_header = bool(aus)
    if aus:
        table.add_section()
        table.add_row("mean", "", *(score_text(*scores.of(f"{name}_mean")) for name in AU_SCORES))
    lines = [
        f"{name}: {score_text(*scores.of(score), factor=factor, digits=digits)}{unit}"
        for name, score, factor, digits, unit in (
            ("accuracy over all labels", "accuracy_total", 100, 1, " %"),
            ("ABAW score", "abaw_score", 1, 3, ""),
            ("mean error", "mean_error", 1, 1, " %"),
            ("failures", "failure_rate", 1, 1, " %"),
        )
        if scores.of(score)[0] is not None
    ]
    table.caption = "\n".join(filter(None, (*lines, scores.about_thresholds(), scores.about_intervals())))
    return table


def _intensity_table(scores: Scores) -> Table:
    """Scores of intensities, intervals in brackets."""
    table = _table()
    header, *rows, mean = scores.intensity_rows()
    for heading in header:
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(*row)
    table.add_section()
    table.add_row(*mean)
    if any("-" in row for row in rows):
        table.caption = "-: fewer than two, or all alike"
    return table


def _table() -> Table:
    return Table(box=box.SIMPLE_HEAD, padding=0, caption_style="", caption_justify="left")
