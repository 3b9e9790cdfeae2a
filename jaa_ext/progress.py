"""Sentences and progress bars on the console."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def say(console: Console, sentence: str, *, style: str | None = None) -> None:
    """Print a sentence without markup, since file names may have brackets; the terminal wraps it."""
    console.print(sentence, style=style, soft_wrap=True, highlight=False, markup=False)


def progress(console: Console, *, shown: bool = True) -> Progress:
    """Make a bar with the time left and the field ``text`` of its task; hidden if there is no terminal."""
    return Progress(
        TextColumn("{task.description}", markup=False),  # file names may have brackets
        BarColumn(20),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}", markup=False),
        console=console,
        disable=not (shown and console.is_terminal),
    )
