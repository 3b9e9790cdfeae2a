"""Faces turned to the side, found by each detector: the table of docs/predict.md.

    python scripts/detector_table.py --detector dlib --detector opencv-yunet:FILE [--out TABLE.md]

Renders faces that are turned by up to 60 degrees and counts, by the yaw, those that each detector finds; of
these, those whose alignment by the network settles, and how far from the true landmarks'. The column "five
points" stands for a detector that gives the true five points of each face.

With --constants it prints instead what `face_by_box` should be told so that a detector's boxes lie as dlib's
would around the mean face: size 1 and shift 0 where they do already.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaa_ext import facs
from jaa_ext.data.faces import alignment_matrix, transform
from jaa_ext.data.rendered.expression import Expression
from jaa_ext.data.rendered.person import Person, View
from jaa_ext.data.rendered.render import render_face
from jaa_ext.predict import (
    BatchDetector,
    DetectedFace,
    Predictor,
    alignment,
    choose_detector,
    face_by_points,
)
from jaa_ext.predict.batch_detector import BatchSearch

BINS = ((0, 15), (15, 30), (30, 45), (45, 60))
"""Degrees of yaw to either side."""
SIDE, AROUND = 320, 2.2
"""Side of the pictures, and of what they show in aligned pictures: the face has 110 pixels."""
SUBJECTS = 5000
"""The first subject: none of those that the shipped weights have seen."""
NUMBER, OFF = "{:.0f}", "{:.1f}"
POINTS = "five points"
Search = Callable[[NDArray[np.uint8]], list[DetectedFace]]


@dataclass
class Found:
    """What a detector found, by the bin of the yaw."""

    all: list[list[bool]] = field(default_factory=lambda: [[] for _ in BINS])
    settled: list[list[bool]] = field(default_factory=lambda: [[] for _ in BINS])
    off: list[list[float]] = field(default_factory=lambda: [[] for _ in BINS])
    milliseconds: list[float] = field(default_factory=list)
    false: int = 0


def rendered(
    number: int, bins: tuple[tuple[int, int], ...], around: tuple[float, float]
) -> Iterator[tuple[int, NDArray[np.uint8], NDArray[np.float32]]]:
    """The bin, picture and landmarks of faces, as many in each bin and to each side."""
    for i in range(number):
        rng = np.random.default_rng((17, i))
        person = Person.random(np.random.default_rng((0, SUBJECTS + i, 0)))
        which, to_the_left = i % len(bins), (i // len(bins)) % 2
        yaw = rng.uniform(*bins[which]) * (-1) ** to_the_left
        grow = rng.uniform(*np.log(around)) if around[0] < around[1] else math.log(around[0])
        view = replace(
            View.random(rng, person),
            yaw=float(yaw),
            pitch=float(rng.normal(0, 6)),
            jitter=(float(np.radians(rng.normal(0, 6))), float(grow), *rng.normal(0, 0.3, 2).tolist()),
        )
        image, landmarks, _ = render_face(person, Expression.of({}), view, SIDE)
        yield which, image, landmarks


def true_face(landmarks: NDArray[np.float32]) -> DetectedFace:
    eyes = [landmarks[list(eye)].mean(0) for eye in (facs.LEFT_EYE, facs.RIGHT_EYE)]
    return face_by_points(np.stack([*eyes, *landmarks[[13, 31, 37]]]), 0.9)


def place(face: DetectedFace) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Middle and sides of a face's box."""
    corners = np.array(face.box).reshape(2, 2)
    return corners.mean(0), corners[1] - corners[0]


def is_found(face: DetectedFace, true: DetectedFace) -> bool:
    (middle, sides), (true_middle, true_sides) = place(face), place(true)
    return bool(
        (np.abs(true_middle - middle) < sides / 2).all() and 0.5 < sides.mean() / true_sides.mean() < 2
    )


def misalignment(landmarks: NDArray[np.float32], true: NDArray[np.float32]) -> float:
    """Distance of the true points in aligned pictures from where they should be, in % of their side."""
    moved, right = (transform(true, alignment_matrix(points, size=200)) for points in (landmarks, true))
    return float(np.hypot(*(moved - right).T).mean() / 2)


def percent(shares: list[bool]) -> str:
    return f"{100 * np.mean(shares):.0f} %" if shares else "-"


def median(values: list[Any], format: str) -> str:
    return format.format(np.median(values)) if values else "-"


def table(names: list[str], found: list[Found], number: int) -> str:
    def row(what: str, cell: Callable[[Found], str]) -> str:
        return f"| {what} | " + " | ".join(cell(each) for each in found) + " |"

    lines = [f"| {number} rendered faces | " + " | ".join(names) + " |", "| --- |" + " ---: |" * len(names)]
    turned = [f"{low}° to {high}°" for low, high in BINS]
    for b, by in enumerate(turned):
        lines.append(row(f"found, turned by {by}", lambda f, b=b: percent(f.all[b])))
    lines.append(row("finds that are no face", lambda f: str(f.false)))
    lines.append(row(f"ms of a processor, {SIDE}x{SIDE}, median", lambda f: median(f.milliseconds, NUMBER)))
    for b, by in enumerate(turned):
        lines.append(row(f"of these, alignment settles, {by}", lambda f, b=b: percent(f.settled[b])))
    for b, by in enumerate(turned):
        what = f"aligned pictures off by % of their side, {by}"
        lines.append(row(what, lambda f, b=b: median(f.off[b], OFF)))
    return "\n".join(lines) + "\n"


def make_table(names: list[str], searches: list[Search], number: int, out: Path | None) -> None:
    predictor = Predictor(device="cpu", precision="float32")
    results = [Found() for _ in (*names, POINTS)]
    for i, (which, image, landmarks) in enumerate(rendered(number, BINS, (AROUND, AROUND))):
        true = true_face(landmarks)
        for result, search in zip(results, [*searches, lambda _, true=true: [true]], strict=True):
            start = time.process_time()
            faces = search(image)
            result.milliseconds.append(1000 * (time.process_time() - start))
            right = [face for face in faces if is_found(face, true)]
            result.false += len(faces) - min(1, len(right))
            result.all[which].append(bool(right))
            for face in right[:1]:
                (settled,) = alignment.settle([(image, face)], predictor._predict_landmarks)
                result.settled[which].append(settled.settled)
                if settled.settled and settled.landmarks is not None:
                    result.off[which].append(misalignment(settled.landmarks, landmarks))
        if i % 20 == 19:
            text = table([*names, POINTS], results, i + 1)
            print(text, flush=True)
            if out is not None:
                out.write_text(text, encoding="utf-8")


def measure_constants(names: list[str], searches: list[Search], number: int) -> None:
    """Print what `face_by_box` should be told, over many sizes: detectors find boxes of a few sizes only."""
    boxes: list[list[list[float]]] = [[] for _ in names]
    for i, (_, image, landmarks) in enumerate(rendered(number, BINS[:2], (1.7, 2.8))):
        true = true_face(landmarks)
        true_middle, true_sides = place(true)
        for each, search in zip(boxes, searches, strict=True):
            for face in [face for face in search(image) if is_found(face, true)][:1]:
                middle, sides = place(face)
                shift = (true_middle - middle) / sides
                each.append([math.log(true_sides.mean() / sides.mean()), *shift.tolist()])
        if i % 20 == 19:
            for name, each in zip(names, boxes, strict=True):
                size, right, down = np.mean(each, 0)
                print(
                    f"{name}, {len(each)} boxes: size={math.exp(size):.2f}, shift=({right:.2f}, {down:.2f})"
                )


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--detector", action="append", default=[], help="see choose_detector; several")
    parser.add_argument("--faces", type=int, default=240)
    parser.add_argument("--constants", action="store_true", help="of face_by_box, in place of the table")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    names = options.detector or ["dlib"]
    searches: list[Search] = []
    for name in names:
        detector = choose_detector(name)
        searches.append(BatchSearch(detector) if isinstance(detector, BatchDetector) else detector)
    if options.constants:
        measure_constants(names, searches, options.faces)
    else:
        make_table(names, searches, options.faces, options.out)


if __name__ == "__main__":
    main()
