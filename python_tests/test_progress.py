"""Sentences and bars on the console: names of files stay as they are, and no bar runs into a file."""

import io

import pytest
from rich.console import Console

from jaa_ext.progress import progress, say


def test_brackets_are_no_markup_and_long_sentences_are_not_cut() -> None:
    console = Console(file=io.StringIO(), width=20)
    say(console, "[bold]a.mp4: is a longer sentence than the console is wide")
    assert console.file.getvalue() == "[bold]a.mp4: is a longer sentence than the console is wide\n"


@pytest.mark.parametrize(("terminal", "shown"), [(True, True), (True, False), (False, True)])
def test_a_bar_is_for_a_terminal(terminal: bool, shown: bool) -> None:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100, color_system=None)
    with progress(console, shown=shown) as bar:
        task = bar.add_task("[red]a.mp4", total=4, text="9.5 frames/s")
        bar.update(task, completed=3)
    printed = console.file.getvalue()
    words = ["[red]a.mp4", "3/4", "9.5 frames/s"]
    assert all((word in printed) == (terminal and shown) for word in words)
