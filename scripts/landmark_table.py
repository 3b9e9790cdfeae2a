"""The landmarks that align a face, by the network itself and by dlib's 68-point model: the table of
docs/predict.md.

    python scripts/landmark_table.py FOLDER [--weights MODEL.safetensors] [--out TABLE.md]

Goes through the photographs of a folder, and through the astronaut of scikit-image with --astronaut. Both
kinds start from the boxes of dlib's detector. Distances are in percent of the distance between the eyes by
dlib's model. Needs the extra `dlib-landmarks`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

import jaa_ext
from jaa_ext.data.images import read_image
from jaa_ext.predict import FaceDetector, FacePrediction, Predictor
from jaa_ext.predict.alignment import displacement, eye_distance
from jaa_ext.predict.sources import find_sources
from jaa_ext.weights import default_weights

SMALLEST = 18.0
"""Pixels between the eyes of faces that count; smaller ones are of people in the background."""
Image = NDArray[np.uint8]


class Counting:
    """A network that counts how many faces it gave landmarks of."""

    def __init__(self, predictor: Predictor) -> None:
        self.find, self.faces = predictor.model.find_landmarks, 0
        predictor.model.find_landmarks = self  # type: ignore[method-assign, assignment]

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        self.faces += len(image)
        return self.find(image)


def photographs(folder: str, largest: int, astronaut: bool) -> Iterator[tuple[str, Image]]:
    for source in find_sources([folder]):
        if source.kind == "photograph":
            image = read_image(source.name)
            scale = largest / max(image.shape[:2])
            if scale < 1:
                image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA).astype(
                    np.uint8
                )
            yield source.path.name, image
    if astronaut:
        import skimage.data

        yield "astronaut", skimage.data.astronaut()


def timed(function: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """What it gives, and the least of three times that it took, in milliseconds."""
    took = []
    for _ in range(3):
        start = time.perf_counter()
        result = function(*arguments)
        took.append(1000 * (time.perf_counter() - start))
    return result, min(took)


def without_offset(offsets: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 49, 2) offsets of N faces, each less the mean over the other faces, point by point."""
    others = (offsets.sum(0) - offsets) / max(1, len(offsets) - 1)
    return offsets - others


def distance(offsets: NDArray[np.float64]) -> str:
    """Of (N, 49, 2) offsets: median and mean over the faces."""
    of_faces = np.linalg.norm(offsets, axis=-1).mean(-1)
    return f"{np.median(of_faces):.1f} (mean {of_faces.mean():.1f})"


def upright(offset: NDArray[Any], points: NDArray[Any]) -> NDArray[np.float64]:
    """Offsets in percent of the eye distance, in the face's own directions."""
    left, right = points[19:25].mean(0), points[25:31].mean(0)
    x, y = (right - left) / eye_distance(points)
    return np.asarray(100 * offset @ np.array([[x, -y], [y, x]]) / eye_distance(points))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("folder", help="of photographs")
    arguments.add_argument("--weights", type=Path, help="a model file; that of jaa_ext if not given")
    arguments.add_argument("--largest", type=int, default=1400, help="side to which photographs are reduced")
    arguments.add_argument("--astronaut", action="store_true", help="the astronaut of scikit-image as well")
    arguments.add_argument("--out", type=Path, help="a Markdown file for the table")
    chosen = arguments.parse_args()
    torch.set_num_threads(1)
    weights = chosen.weights or default_weights()
    own = Predictor(jaa_ext.load(weights), device="cpu", precision="float32")
    dlibs = Predictor(jaa_ext.load(weights), device="cpu", precision="float32", landmarks="dlib")
    boxes, points = FaceDetector(), FaceDetector(landmarks="dlib")
    rounds_seen = Counting(own)

    pairs: list[tuple[FacePrediction, FacePrediction]] = []
    searching, by_dlib, by_own, seen, rounds = [], [], [], 0, 0.0
    for name, image in photographs(chosen.folder, chosen.largest, chosen.astronaut):
        found, search = timed(boxes, image)
        if not found:
            print(f"{name}: no face")
            continue
        _, with_points = timed(points, image)
        rounds_seen.faces = 0
        placed, spent = timed(own._with_landmarks, [(image, face) for face in found])
        rounds += rounds_seen.faces / 3
        searching.append(search)
        by_dlib.append((with_points - search) / len(found))
        by_own.append(spent / len(found))
        faces = own.faces(image), dlibs.faces(image)
        seen += len(found)
        pairs += [
            pair for pair in zip(*faces, strict=True) if eye_distance(pair[1].detected_landmarks) >= SMALLEST
        ]
        unsettled = sum(not face.settled for face in placed)
        print(f"{name}: {len(found)} faces" + (f", {unsettled} not settled" if unsettled else ""))
    if not pairs:
        raise SystemExit(f"{chosen.folder}: no face was found")

    settled = [pair for pair in pairs if pair[0].settled]
    true = [theirs.detected_landmarks for _, theirs in settled]
    offsets = {
        "aligning landmarks": [ours.detected_landmarks for ours, _ in settled],
        "predicted landmarks": [ours.landmarks for ours, _ in settled],
        "predicted landmarks, aligned by dlib's": [theirs.landmarks for _, theirs in settled],
    }
    probabilities = np.array([[face.probabilities for face in pair] for pair in settled])
    changed = np.mean([ours.present != theirs.present for ours, theirs in settled])
    moved = [displacement(theirs.detected_landmarks, ours.detected_landmarks) for ours, theirs in settled]
    lines = [
        f"{len(pairs)} faces of at least {SMALLEST:g} pixels between the eyes; one thread, float32.",
        "",
        "| | the network's own | dlib's 68-point model |",
        "| --- | ---: | ---: |",
        f"| faces found | {len(pairs)} | {len(pairs)} |",
        f"| of these with landmarks that settle | {len(settled)} | {len(pairs)} |",
    ]
    for what, ours in offsets.items():
        off = np.stack([upright(a - b, b) for a, b in zip(ours, true, strict=True)])
        lines.append(f"| {what}: % from dlib's, median | {distance(off)} | |")
        lines.append(f"| the same without each point's constant offset | {distance(without_offset(off))} | |")
    lines += [
        f"| aligned pictures lie beside each other, eye distances, median | {np.median(moved):.3f} | |",
        f"| AU probabilities differ, mean | {np.abs(np.diff(probabilities, axis=1)).mean():.3f} | |",
        f"| AUs said to be present here and absent there | {100 * changed:.1f} % | |",
        f"| ms a face, median | {np.median(by_own):.1f} | {np.median(by_dlib):.1f} |",
        f"| rounds a face, mean | {rounds / seen:.2f} | |",
        f"| ms a photograph for the boxes, median | {np.median(searching):.0f} | the same |",
    ]
    table = "\n".join(lines) + "\n"
    print(f"\n{table}")
    if chosen.out:
        chosen.out.write_text(table, encoding="utf-8")


if __name__ == "__main__":
    main()
