"""The commands for tables of other tools: convert, compare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from jaa_ext.cli.output import console, say_where, show_table
from jaa_ext.cli.progress import say


def convert(
    table: Annotated[Path, typer.Argument(help="A table of `jaa predict`, *.csv or *.parquet.")],
    to: Annotated[Literal["openface", "pyfeat"], typer.Option(help="Whose columns.")],
    out: Annotated[Path, typer.Option(help="The table to write, *.csv or *.parquet.")],
) -> None:
    """Write a table of `jaa predict` under the columns of OpenFace 2 or py-feat, for scripts for these."""
    from jaa_ext.distributed import require_one_process
    from jaa_ext.predict.convert import convert_file

    require_one_process("`jaa convert`")
    say(console, convert_file(table, to, out))
    say_where({out: f"the table under the columns of {to}"})


def compare(
    a: Annotated[
        Path, typer.Argument(help="A table of `jaa predict`, OpenFace 2 or 3, py-feat or LibreFace.")
    ],
    b: Annotated[Path, typer.Argument(help="Another table of the same video.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for compare.csv, compare.json and compare.png.")
    ] = None,
    by: Annotated[
        Literal["frame", "time"],
        typer.Option(help="What frames are matched by: their number, or their time within half a frame."),
    ] = "frame",
) -> None:
    """Compare two tables of one video: how far they agree on each AU that both have."""
    from jaa_ext.distributed import require_one_process
    from jaa_ext.experiments.tables import ResultTable
    from jaa_ext.predict.compare import compare_tables
    from jaa_ext.training.run_folder import hold_folder

    require_one_process("`jaa compare`")
    comparison = compare_tables(a, b, by=by)
    header, *rows = comparison.rows()
    show_table(ResultTable("Agreement", tuple(header), tuple(map(tuple, rows)), tuple(comparison.notes())))
    if out is not None:
        with hold_folder(out):
            files = comparison.write(out)
        say_where(files)
