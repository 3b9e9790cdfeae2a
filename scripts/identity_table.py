"""How well cuts are told, and how like an embedding finds one person and another: numbers of docs/predict.md.

    python scripts/identity_table.py [--identity FILE.onnx] [--faces FOLDER] [--out TABLE.md]

Cuts: between parts of the photographs of scikit-image and between rendered people, and what is none. With
--identity, as `jaa predict` takes it, also the likeness of faces. `--least-likeness` belongs between the
highest of two people and the lowest of one person changed; where these overlap, the embedding takes some for
others or leaves some new. The faces are rendered people, of whom networks may know little; better are
photographs like yours, --faces FOLDER, where those in one subfolder are of one person.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from itertools import combinations, permutations
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import skimage.data
import torch
from numpy.typing import NDArray

from jaa_ext.data.images import as_rgb, read_image
from jaa_ext.data.rendered import RenderedFaces
from jaa_ext.predict import Predictor
from jaa_ext.predict.alignment import eye_distance
from jaa_ext.predict.cuts import is_cut, thumbnail
from jaa_ext.predict.identity import align_five_points, choose_embedding
from jaa_ext.predict.sources import find_sources

Image = NDArray[np.uint8]
PHOTOGRAPHS = (
    *("astronaut", "brick", "camera", "chelsea", "coffee", "coins", "grass", "gravel", "hubble_deep_field"),
    *("immunohistochemistry", "moon", "retina", "rocket"),
)
"""Of scikit-image, which come with it."""
PARTS = ((0.1, 0.1), (0.5, 0.5), (0.9, 0.3))
"""Where parts of a photograph begin, in shares of what is left beside them."""
FIRST = 50_000
"""The first rendered person's number, whom no training set holds."""
SMALLEST, LARGEST = 18.0, 1400
"""Pixels between the eyes of faces that count, and the side to which photographs are reduced."""


def part(image: Image, left: float, top: float, share: float = 0.6) -> Image:
    """A part of a photograph in 320x240."""
    height, width = image.shape[:2]
    wide = share * min(width, 4 / 3 * height)
    x, y = round(left * (width - wide)), round(top * (height - 0.75 * wide))
    return resized(image[y : y + round(0.75 * wide), x : x + round(wide)], (320, 240))


def resized(image: NDArray[Any], size: tuple[int, int]) -> Image:
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8)


def lit(image: Image, light: NDArray[Any] | float) -> Image:
    return np.clip(image * light, 0, 255).astype(np.uint8)


def cuts(people: int) -> Iterator[tuple[str, list[bool]]]:
    """What happens between two frames, and whether each of its cases counts as a cut."""
    photographs = [as_rgb(getattr(skimage.data, name)()) for name in PHOTOGRAPHS]
    parts = [[part(image, *place) for place in PARTS] for image in photographs]
    yield (
        "two photographs",
        [
            is_cut(thumbnail(a), thumbnail(b))
            for one, other in permutations(parts, 2)
            for a, b in zip(one, other, strict=True)
        ],
    )
    twice, thrice = (np.linspace(1, most, 320)[None, :, None] for most in (2, 3))
    changes: dict[str, Callable[[Image, float, float], Image]] = {
        "a flash": lambda image, x, y: np.clip(part(image, x, y) * 1.5 + 60, 0, 255).astype(np.uint8),
        "a lamp from the side, up to twice as bright": lambda image, x, y: lit(part(image, x, y), twice),
        "up to three times as bright": lambda image, x, y: lit(part(image, x, y), thrice),
        "shifted by a tenth": lambda image, x, y: part(shifted(image, 0.1), x, y),
        "shifted by a seventh": lambda image, x, y: part(shifted(image, 1 / 7), x, y),
        "1.2 times as large": lambda image, x, y: part(image, x, y, 0.5),
    }
    for name, change in changes.items():
        cases = []
        for image in photographs:
            for x, y in PARTS:
                before, after = thumbnail(part(image, x, y)), thumbnail(change(image, x, y))
                cases += [is_cut(before, after), is_cut(after, before)]
        yield name, cases
    rendered = [
        thumbnail(sample.image[:150])
        for sample in RenderedFaces(subjects=range(FIRST, FIRST + people), samples_per_subject=1)
    ]
    yield "two rendered people", [is_cut(a, b) for a, b in combinations(rendered, 2)]


def shifted(image: Image, share: float) -> Image:
    """A photograph whose parts of three fifths are moved by a share of their width."""
    height, width = image.shape[:2]
    by = share * 0.6 * min(width, 4 / 3 * height)
    matrix = np.array([[1, 0, by], [0, 1, 0]])
    return cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REFLECT).astype(np.uint8)


def pictures(folder: str | None, people: int) -> Iterator[tuple[str, Image]]:
    """Pictures and the names of those who are in them; several in one picture are several people."""
    if folder is None:
        faces = RenderedFaces(subjects=range(FIRST, FIRST + people), samples_per_subject=3)
        for i in range(len(faces)):
            yield f"person {i // 3}", cv2.copyMakeBorder(faces[i].image, 50, 50, 50, 50, cv2.BORDER_REPLICATE)
        return
    for source in find_sources([folder]):
        if source.kind == "photograph":
            image = read_image(source.name)
            scale = min(1.0, LARGEST / max(image.shape[:2]))
            image = resized(image, (round(scale * image.shape[1]), round(scale * image.shape[0])))
            inner = source.path.parent != Path(folder)
            yield str(source.path.parent if inner else source.path), image


def changed(image: Image) -> dict[str, Image]:
    """A picture of a face, and the same changed."""
    height, width = image.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), 10, 1)
    small = cv2.resize(image, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA)
    return {
        "as it is": image,
        "turned by 10°": cv2.warpAffine(image, turn, (width, height), borderMode=cv2.BORDER_REPLICATE),
        "mirrored": np.ascontiguousarray(image[:, ::-1]),
        "half as bright": lit(image, 0.5),
        "blurred": cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR),
    }


def likenesses(name: str, folder: str | None, people: int) -> Iterator[tuple[str, list[float]]]:
    """Pairs of faces, and the likeness of each."""
    embed = choose_embedding(name)
    predictor = Predictor(device="cpu", precision="float32")

    def vectors(image: Image) -> list[NDArray[np.float64]]:
        """Of the faces from left to right."""
        found = [
            align_five_points(image, face.landmarks)
            for face in predictor.faces(image)
            if face.settled and eye_distance(face.landmarks) >= SMALLEST
        ]
        if not found:
            return []
        rows = np.asarray(embed(np.stack(found)), np.float64)
        return list(rows / np.linalg.norm(rows, axis=1, keepdims=True))

    seen: list[tuple[str, NDArray[np.float64]]] = []
    same: dict[str, list[float]] = {}
    for person, image in pictures(folder, people):
        kinds = {kind: vectors(picture) for kind, picture in changed(image).items()}
        whole = kinds.pop("as it is")
        for kind, rows in kinds.items():
            if len(rows) == len(whole):
                rows = rows[::-1] if kind == "mirrored" else rows
                same.setdefault(kind, []).extend(float(a @ b) for a, b in zip(whole, rows, strict=True))
        alone = len(whole) == 1
        seen += [(person if alone else f"{person}, face {i}", row) for i, row in enumerate(whole)]
    pairs = [(one == other, float(a @ b)) for (one, a), (other, b) in combinations(seen, 2)]
    yield "two people", [likeness for is_same, likeness in pairs if not is_same]
    yield "one person, other pictures", [likeness for is_same, likeness in pairs if is_same]
    yield from ((f"one picture, {kind}", found) for kind, found in same.items())


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--identity", help="FILE.onnx or MODULE:ATTRIBUTE, as of `jaa predict`")
    arguments.add_argument("--faces", metavar="FOLDER", help="photographs; rendered people if not given")
    arguments.add_argument("--people", type=int, default=40, help="number of rendered people")
    arguments.add_argument("--out", type=Path, help="a Markdown file for the tables")
    chosen = arguments.parse_args()
    torch.set_num_threads(1)
    lines = ["| between two frames | pairs | cuts |", "| --- | ---: | ---: |"]
    for name, cases in cuts(chosen.people):
        lines += [f"| {name} | {len(cases)} | {100 * np.mean(cases):.0f} % |"]
    if chosen.identity:
        lines += ["", "| likeness of | pairs | lowest | median | 99 % are below | highest |"]
        lines += ["| --- |" + " ---: |" * 5]
        for name, found in likenesses(chosen.identity, chosen.faces, chosen.people):
            if found:
                cells = [f"{likeness:.3f}" for likeness in np.quantile(found, (0, 0.5, 0.99, 1))]
                lines += [f"| {name} | {len(found)} | {' | '.join(cells)} |"]
    text = "\n".join(lines) + "\n"
    print(text, end="")
    if chosen.out is not None:
        chosen.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
