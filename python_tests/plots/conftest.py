"""Figures of matplotlib, looked at by what is drawn in them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved; their files stay empty, which saves the time of drawing."""
    saved: list[Figure] = []

    def save(figure: Figure, file: Path, **_: Any) -> None:
        file.touch()
        saved.append(figure)

    monkeypatch.setattr(Figure, "savefig", save)
    return saved


@pytest.fixture
def texts() -> Callable[[Figure], list[str]]:
    """Lists all texts of a figure."""

    def find(figure: Figure) -> list[str]:
        return [artist.get_text() for artist in figure.findobj(lambda artist: hasattr(artist, "get_text"))]

    return find
