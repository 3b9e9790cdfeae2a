"""Draw the figures of the documentation: ``python scripts/make_figures.py [--out docs/figures]``."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from jaa_ext import facs
from jaa_ext.data import FaceSample, SyntheticFaces
from jaa_ext.data.synthetic import RATES

AUS = tuple(RATES)
SKY_BLUE = "#56B4E9"  # of Okabe and Ito's palette, told apart from skin by the colour-blind too
COLUMNS = 8
PORTRAIT = 4


def synthetic_faces() -> Figure:
    """Neutral faces, each AU at full strength with its landmarks, and random samples with their labels."""
    people = SyntheticFaces(subjects=range(COLUMNS), samples_per_subject=2, size=160, aus=AUS)
    figure, axes = plt.subplots(5, COLUMNS, figsize=(12, 8.9))
    figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.02)

    for subject, ax in enumerate(axes[0]):
        show(ax, people.draw(subject, {}), f"S{subject:03d}, neutral")
    single = [("neutral", people.draw(PORTRAIT, {}))]
    single += [(f"AU {au} {facs.AU_NAMES[au]}", people.draw(PORTRAIT, {au: 1.0})) for au in AUS]
    for (title, sample), ax in zip(single, axes[1:3].flat, strict=True):
        show(ax, sample, title)
        ax.scatter(*sample.landmarks.T, s=3, color=SKY_BLUE, edgecolors="black", linewidths=0.2)
    for i, ax in enumerate(axes[3:].T.flat):
        sample = people[i]
        present = [str(au) for au, label in zip(AUS, sample.labels, strict=True) if label]
        show(ax, sample, "AU " + " ".join(present) if present else "no AU")
    return figure


def show(ax: Axes, sample: FaceSample, title: str) -> None:
    ax.imshow(sample.image)
    ax.set_title(title, fontsize=7.5, pad=2)
    ax.axis("off")


def save(figure: Figure, path: Path) -> None:
    """Write a PNG of 256 colours, a fraction of the size, under its name only once it is whole."""
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3]  # type: ignore[attr-defined]
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".tmp")
    picture = Image.fromarray(pixels).quantize(256, dither=Image.Dither.NONE)
    picture.save(unfinished, format="PNG", optimize=True)
    os.replace(unfinished, path)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "docs" / "figures")
    save(synthetic_faces(), parser.parse_args().out / "synthetic_faces.png")
