"""Sentences and bars on the console: names of files stay as they are, and no bar runs into a file."""

import io

import pytest
from rich.console import Console

from jaa_ext.cli.progress import say, shown_progress


def test_brackets_are_no_markup_and_long_sentences_are_not_cut() -> None:
    console = Console(file=io.StringIO(), width=20)
    say(console, "[bold]a.mp4: is a longer sentence than the console is wide")
    assert console.file.getvalue() == "[bold]a.mp4: is a longer sentence than the console is wide\n"


@pytest.mark.parametrize("terminal", [True, False])
def test_a_bar_is_for_a_terminal(terminal: bool) -> None:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100, color_system=None)
    with shown_progress(console) as listener:
        listener.on_start("[red]a.mp4", 4, 1)
        listener.on_progress(3, "9.5 frames/s")
        listener.on_message("b.mp4: is passed over")
    printed = console.file.getvalue()
    assert all((word in printed) == terminal for word in ("[red]a.mp4", "3/4", "9.5 frames/s"))
    assert "b.mp4: is passed over\n" in printed


def test_a_task_that_ended_leaves_its_bar() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)
    with shown_progress(console) as listener:
        listener.on_start("a.mp4", None)
        listener.on_end()
        listener.on_start("b.mp4", 2)
    drawn = [line for line in console.file.getvalue().splitlines() if ".mp4" in line]
    assert "a.mp4" in drawn[0] and "b.mp4" in drawn[-1] and "a.mp4" not in drawn[-1]


def test_nothing_is_printed_where_nothing_is_heard() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with shown_progress(console):
        pass
    assert console.file.getvalue() == ""
