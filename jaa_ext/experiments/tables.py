"""Tables of results, for the terminal, for Markdown and for programs."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaa_ext.atomic import replacing


@dataclass(frozen=True)
class ResultTable:
    """Text in rows and columns; the first column names the rows, the others hold figures."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    """Sentences below."""

    def show(self, console: Console) -> None:
        """Print it."""
        # Without frames and with names whole, the sixteen columns of Table 3 fit into 80.
        table = Table(
            title=Text(self.title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=0
        )
        for i, name in enumerate(self.header):
            table.add_column(name, justify="right" if i else "left", overflow="fold", no_wrap=i == 0)
        for row in self.rows:
            table.add_row(*row)
        console.print(table)
        for note in self.notes:
            console.print(note, soft_wrap=True, markup=False, highlight=False)

    def markdown(self) -> str:
        lines = [
            f"**{self.title}**",
            "",
            _line(self.header),
            _line(["---", *["---:"] * (len(self.header) - 1)]),
        ]
        lines += [_line(row) for row in self.rows]
        for note in self.notes:
            lines += ["", note]
        return "\n".join(lines) + "\n"

    def write(self, folder: Path, name: str) -> None:
        """As `name`.md and `name`.csv; the notes are in the first alone."""
        with replacing(folder / f"{name}.md") as temporary:
            temporary.write_text(self.markdown())
        with replacing(folder / f"{name}.csv") as temporary, temporary.open("w", newline="") as file:
            csv.writer(file).writerows([self.header, *self.rows])


def percent(value: float | None, digits: int = 1) -> str:
    """A figure that is in percent already; empty for None."""
    return "" if value is None else f"{value:.{digits}f}"


def percent_of_one(value: float | None) -> str:
    """A figure of 0..1 in percent; empty for None."""
    return percent(None if value is None else 100 * value)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
