"""Attention maps over faces."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import cv2
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from jaa_ext import facs
from jaa_ext.plots.style import au_label, save_figure


def attention_figure(
    images: NDArray[np.uint8],
    initial_maps: NDArray[np.float32],
    refined_maps: NDArray[np.float32],
    aus: Sequence[facs.AU | facs.AURule],
    path: str | os.PathLike[str],
    note: str = "",
) -> None:
    """Save initial and refined attention maps over faces as a PNG, after Fig. 4 of ECCV 2018.

    An AU has a column, a face two rows: its initial maps and, below, its refined ones.

    Args:
        images: (N, l, l, 3) uint8 RGB aligned faces.
        initial_maps: (N, A, M, M) weights 0..1; any M, the map covers the face.
        refined_maps: (N, A, m, m) weights 0..1.
        aus: the A AUs.
        path: the PNG file.
        note: printed at the bottom, ``model.note``.

    Raises:
        ValueError: numbers of faces or AUs that differ.
    """
    shape = (len(images), len(aus))
    for name, maps in (("initial_maps", initial_maps), ("refined_maps", refined_maps)):
        if maps.ndim != 4 or maps.shape[:2] != shape:
            raise ValueError(
                f"attention_figure: {name} must be (N, A, side, side) with N, A = {shape}, got {maps.shape}"
            )
    rows, columns = 2 * shape[0], shape[1]
    cell, label, bar, title, foot = 1.2, 0.45, 0.95, 0.4, 0.4 if note else 0.1  # inches
    width, height = label + columns * cell + bar, title + rows * cell + foot
    figure = Figure(figsize=(width, height), dpi=150)

    def add_axes(left: float, bottom: float, wide: float, high: float) -> Axes:
        return figure.add_axes((left / width, bottom / height, wide / width, high / height))

    for row in range(rows):
        face, refined = divmod(row, 2)
        grey = cv2.cvtColor(images[face], cv2.COLOR_RGB2GRAY)[..., None] / 255
        for column in range(columns):
            weights = (refined_maps if refined else initial_maps)[face, column]
            weights = cv2.resize(weights, grey.shape[1::-1], interpolation=cv2.INTER_LINEAR)
            left, bottom = label + column * cell, foot + (rows - 1 - row) * cell
            axes = add_axes(left, bottom, 0.96 * cell, 0.96 * cell)
            axes.imshow(_overlay(grey, weights))
            axes.set(xticks=[], yticks=[])
            if row == 0:
                axes.set_title(au_label(aus[column], column), size=9)
            if column == 0:
                axes.set_ylabel("refined" if refined else "initial", size=9)
    bar_height = min(rows * cell, 3.5)
    bar_axes = add_axes(width - bar + 0.15, foot + (rows * cell - bar_height) / 2, 0.15, bar_height)
    colours = ListedColormap(_overlay(np.full((256, 1), 0.5), np.linspace(0, 1, 256)))
    figure.colorbar(ScalarMappable(Normalize(0, 1), colours), cax=bar_axes, label="attention weight")
    save_figure(figure, path, note)


def _overlay(grey: NDArray[np.float64], weights: NDArray[Any]) -> NDArray[np.float64]:
    """Give RGB (..., 3) of weights (...) over a grey picture (..., 1) of 0..1; higher weights are more
    opaque."""
    opacity: NDArray[np.float64] = 0.75 * np.sqrt(np.clip(weights, 0, 1))[..., None]
    colours: NDArray[np.float64] = np.asarray(matplotlib.colormaps["inferno"](weights))[..., :3]
    return grey * (1 - opacity) + colours * opacity
