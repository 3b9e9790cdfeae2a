"""The bar that shows how far a long command has come."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def progress(console: Console, *, shown: bool = True) -> Progress:
    """A bar with the time left and the field ``text`` of its task; nothing where there is no terminal."""
    return Progress(
        TextColumn("{task.description}", markup=False),  # file names may have brackets
        BarColumn(20),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}", markup=False),
        console=console,
        disable=not (shown and console.is_terminal),
    )
