"""What the commands of `jaa` have in common: where they print, and the device they take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from jaa_ext.progress import say

console = Console()

Device = Annotated[
    str, typer.Option(help='"auto" (the first GPU if there is one), "cpu", "cuda" or "cuda:1".')
]


def say_where(files: dict[Path, str]) -> None:
    """Print where the results are, and what each is."""
    console.print("Results:")
    for path, what in files.items():
        say(console, f"  {path}  {what}")
