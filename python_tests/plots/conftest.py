"""Figures and pictures, looked at by what is drawn in them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure
from numpy.typing import NDArray


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


@pytest.fixture
def near() -> Callable[..., NDArray[np.bool_]]:
    """Tells which pixels of a picture lie around any of some points: as a mask of its shape."""

    def find(points: Any, shape: tuple[int, ...], distance: int) -> NDArray[np.bool_]:
        mask = np.zeros(shape[:2], np.uint8)
        for x, y in np.rint(points).astype(int).tolist():
            cv2.circle(mask, (x, y), distance, 1, cv2.FILLED)
        return mask > 0

    return find
