"""Draw the figures of the documentation.

``python scripts/make_figures.py [--out docs/figures] [--model jaa-demo/model.safetensors]``; those of a video
need the model that `jaa demo` trains.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import cv2
import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from jaa_ext import facs, load
from jaa_ext.data import FaceSample, RenderedFaces, SyntheticFaces
from jaa_ext.data.images import read_image
from jaa_ext.data.synthetic.dataset import RATES
from jaa_ext.plots.frames import FrameDrawer, write_video
from jaa_ext.plots.timeline import timeline_figure
from jaa_ext.predict import Predictor

AUS = tuple(RATES)
SKY_BLUE = "#56B4E9"  # of Okabe and Ito's palette, told apart from skin by the colour-blind too
COLUMNS = 8
PORTRAIT = 4
RENDERED_PORTRAIT = 12

ACTOR = 64
"""A person whom the demo's network has not seen."""
ACTED = [(1.0, 3.0, (1, 2)), (4.0, 6.5, (6, 12)), (7.5, 9.0, (4, 7)), (9.5, 11.0, (15, 17))]
"""What the person of the video does: from and until which second, and which AUs."""
SECONDS, FPS = 12, 25
SHOWN = 5.2
"""The second of the video that is shown."""


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


SHEET = (4, 10)
"""Rows and columns of the sheet of rendered faces."""


def rendered_faces() -> NDArray[np.uint8]:
    """Rendered faces as they come, each of somebody else."""
    rows, columns = SHEET
    people = RenderedFaces(subjects=range(rows * columns), samples_per_subject=1, size=100, seed=4)
    pictures = [people[i].image for i in range(len(people))]
    return np.vstack([np.hstack(pictures[i * columns : (i + 1) * columns]) for i in range(rows)])


def rendered_aus() -> Figure:
    """One rendered person at rest and with each AU at its maximum, with the landmarks."""
    people = RenderedFaces(subjects=range(100), samples_per_subject=1, size=180)
    figure, axes = plt.subplots(3, 6, figsize=(10.5, 5.7))
    figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.02)
    single = [("at rest", people.render(RENDERED_PORTRAIT, {}))]
    single += [
        (f"AU {au} {facs.AU_NAMES[au]}", people.render(RENDERED_PORTRAIT, {au: 5.0})) for au in people.aus
    ]
    for (title, sample), ax in zip(single, axes.flat, strict=True):
        show(ax, sample, title)
        ax.scatter(*sample.landmarks.T, s=3, color=SKY_BLUE, edgecolors="black", linewidths=0.2)
    return figure


def draw_video(path: Path) -> None:
    """A drawn person who raises the brows, smiles, frowns and pouts, moving about."""
    people = SyntheticFaces(subjects=[ACTOR], samples_per_subject=1, size=480, aus=AUS)
    with write_video(path, FPS) as video:
        for i in range(SECONDS * FPS):
            time = i / FPS
            acts = {
                au: float(np.clip(4 * min(time - begin, end - time), 0, 1))
                for begin, end, aus in ACTED
                for au in aus
                if begin < time < end
            }
            face = people.draw(ACTOR, acts).image
            matrix = cv2.getRotationMatrix2D((240, 240), 4 * np.sin(time), 1 + 0.06 * np.sin(1.3 * time))
            matrix[:, 2] += (400 + 60 * np.sin(0.9 * time), 120 + 25 * np.sin(1.7 * time))
            video.write(cv2.warpAffine(face, matrix, (1280, 720), borderValue=(200, 200, 200)))


def save_video_figures(model: Path, folder: Path) -> None:
    """overlay.png, a frame with all that is drawn over it, and timeline.png."""
    predictor = Predictor(load(model))
    with tempfile.TemporaryDirectory() as place:
        video = Path(place) / "drawn.mp4"
        draw_video(video)
        table = predictor(video)
        shown = next(predictor.frames(video, start=SHOWN))
        timeline_figure(table, Path(place) / "timeline.png")
        timeline = read_image(Path(place) / "timeline.png")
    drawn = Image.fromarray(
        FrameDrawer(predictor.aus, note=predictor.note, attention=12, thresholds=predictor.thresholds)(shown)
    )
    size = (drawn.width * 2 // 3, drawn.height * 2 // 3)  # in full colours, which the map over the face needs
    save_picture(drawn.resize(size, Image.Resampling.LANCZOS), folder / "overlay.png")
    save_pixels(timeline, folder / "timeline.png")


def show(ax: Axes, sample: FaceSample, title: str) -> None:
    ax.imshow(sample.image)
    ax.set_title(title, fontsize=7.5, pad=2)
    ax.axis("off")


def save(figure: Figure, path: Path) -> None:
    figure.canvas.draw()
    save_pixels(np.asarray(figure.canvas.buffer_rgba())[..., :3], path)  # type: ignore[attr-defined]


def save_pixels(pixels: NDArray[np.uint8], path: Path) -> None:
    """Write a PNG of 256 colours, a fraction of the size."""
    save_picture(Image.fromarray(pixels).quantize(256, dither=Image.Dither.NONE), path)


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a PNG under its name only once it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".tmp")
    picture.save(unfinished, format="PNG", optimize=True)
    os.replace(unfinished, path)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "docs" / "figures")
    parser.add_argument("--model", type=Path, help="of `jaa demo`")
    chosen = parser.parse_args()
    save(synthetic_faces(), chosen.out / "synthetic_faces.png")
    save_pixels(rendered_faces(), chosen.out / "rendered_faces.png")
    save(rendered_aus(), chosen.out / "rendered_aus.png")
    if chosen.model is not None:
        save_video_figures(chosen.model, chosen.out)
