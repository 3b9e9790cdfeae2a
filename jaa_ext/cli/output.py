"""What the commands of `jaa` have in common: where they print, the device and the weights they take."""

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


def chosen_weights(weights: Path | None) -> Path:
    """The file of the weights; if none is named, those that come with jaa_ext, and says so."""
    if weights is not None:
        return weights
    from jaa_ext.weights import default_weights, digest

    file = default_weights()
    say(console, f"Weights: those that come with jaa_ext, {file.name} ({digest(file)[:8]}).")
    return file
