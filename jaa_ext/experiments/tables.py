"""Tables of results as Markdown and CSV."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jaa_ext.atomic import replacing


@dataclass(frozen=True)
class ResultTable:
    """Cells of text; the first column names the rows, the others hold figures."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    """Sentences below."""

    def markdown(self) -> str:
        """Give the table in Markdown, its title in bold above and its notes below."""
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
        """Write `name`.md and `name`.csv, the latter without title and notes."""
        with replacing(folder / f"{name}.md") as temporary:
            temporary.write_text(self.markdown())
        with replacing(folder / f"{name}.csv") as temporary, temporary.open("w", newline="") as file:
            csv.writer(file).writerows([self.header, *self.rows])


def percent(value: float | None, digits: int = 1) -> str:
    """Write a figure that is in percent already; empty for None."""
    return "" if value is None else f"{value:.{digits}f}"


def percent_of_one(value: float | None) -> str:
    """Write a figure of 0..1 in percent; empty for None."""
    return percent(None if value is None else 100 * value)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
