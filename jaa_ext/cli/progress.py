"""Sentences and progress bars on the console."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from jaa_ext.progress import ProgressListener


def say(console: Console, sentence: str, *, style: str | None = None) -> None:
    """Print a sentence without markup, since file names may have brackets; the terminal wraps it."""
    console.print(sentence, style=style, soft_wrap=True, highlight=False, markup=False)


def progress_bar(console: Console) -> Progress:
    """Make a bar with the time left and the field ``text`` of its task; hidden if there is no terminal."""
    return Progress(
        TextColumn("{task.description}", markup=False),  # file names may have brackets
        BarColumn(20),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}", markup=False),
        console=console,
        disable=not console.is_terminal,
    )


@contextmanager
def shown_progress(console: Console) -> Iterator[ProgressListener]:
    """Give a listener that prints sentences, and on a terminal draws a bar of the task."""
    bar = progress_bar(console)
    try:
        yield _Printing(bar)
    finally:
        bar.stop()


class _Printing(ProgressListener):
    def __init__(self, bar: Progress) -> None:
        self.bar = bar

    def on_message(self, sentence: str) -> None:
        say(self.bar.console, sentence)

    def on_start(self, task: str, total: int | None, done: int = 0) -> None:
        self.bar.start()
        self.task = self.bar.add_task(task, total=total, completed=done, text="")

    def on_progress(self, done: int, text: str = "") -> None:
        self.bar.update(self.task, completed=done, text=text)

    def on_end(self) -> None:
        self.bar.remove_task(self.task)
