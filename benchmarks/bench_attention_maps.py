"""attention_maps for a batch of faces and the AUs of BP4D, against plain PyTorch and plain Python."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from comparison import Comparison
from torch import Tensor

from jaa_ext import facs
from jaa_ext.ops import attention_maps, reference

ROI_RATIO, DECAY = 0.14, 0.56


@dataclass(frozen=True)
class Case:
    faces: int
    image_size: int
    map_size: int

    def __str__(self) -> str:
        return f"{self.faces} faces, {len(facs.BP4D_AUS)} AUs, {self.map_size}x{self.map_size}"


CASES = [Case(faces=8, image_size=176, map_size=52)]
SMOKE_CASE = Case(faces=2, image_size=44, map_size=13)


def test_attention_maps(case: Case, device: str, comparison: Comparison) -> None:
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn((case.faces, facs.NUM_LANDMARKS, 2), generator=generator)
    landmarks = ((normal + 2) * case.image_size / 4).to(device)  # spread over the image, a few points outside
    sizes = {"image_size": case.image_size, "map_size": case.map_size}
    functions = {
        "jaa_ext": attention_maps,
        "eager reference": reference.attention_maps,
        "nested Python loops": nested_loops,
    }
    exact = partial(reference.attention_maps, aus=facs.BP4D_AUS, **sizes)
    for name, function in functions.items():
        comparison.add(name, partial(function, aus=facs.BP4D_AUS, **sizes), (landmarks,), exact=exact)
    comparison.add_compiled(["eager reference"])
    comparison.run("attention_maps", str(case))


def nested_loops(landmarks: Tensor, aus: tuple[int, ...], *, image_size: int, map_size: int) -> Tensor:
    """Face by face, AU by AU, pixel by pixel of the region of interest, in Python numbers."""
    scale = map_size / image_size
    last = map_size - 1
    half = round(last / 2 * ROI_RATIO)
    slope = DECAY / (map_size * ROI_RATIO)
    faces = landmarks.tolist()
    maps = [[[[0.0] * map_size for _ in range(map_size)] for _ in aus] for _ in faces]
    for points, face_maps in zip(faces, maps, strict=True):
        left, right = facs.INNER_EYE_CORNERS
        r = abs(points[left][0] - points[right][0])
        for rule, weights in zip(facs.rules(aus), face_maps, strict=True):
            for point in rule.points:
                x, y = points[point]
                cx, cy = round(x * scale), round((y + rule.dy * r) * scale)
                for row in range(min(max(cy - half, 0), last), min(max(cy + half, 0), last) + 1):
                    for column in range(min(max(cx - half, 0), last), min(max(cx + half, 0), last) + 1):
                        value = 1 - (abs(column - cx) + abs(row - cy)) * slope
                        weights[row][column] = max(value, weights[row][column])
    return torch.tensor(maps, dtype=landmarks.dtype, device=landmarks.device)
