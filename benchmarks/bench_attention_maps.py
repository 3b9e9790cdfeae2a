"""attention_maps for a batch of faces and the AUs of BP4D, against plain PyTorch and plain Python."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from authors_arrangement import draw_attention_maps
from comparison import Comparison
from torch import Tensor

from jaa_ext import facs
from jaa_ext.ops import attention_maps, reference


@dataclass(frozen=True)
class Case:
    faces: int
    image_size: int
    map_size: int

    def __str__(self) -> str:
        return f"{self.faces} faces, {len(facs.BP4D_AUS)} AUs, {self.map_size}x{self.map_size}"


CASES = {
    "cpu": [Case(faces=8, image_size=176, map_size=52)],
    "cuda": [Case(faces, image_size=176, map_size=52) for faces in (64, 1024)],
}
SMOKE_CASE = Case(faces=2, image_size=44, map_size=13)


def test_attention_maps(case: Case, device: str, comparison: Comparison) -> None:
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn((case.faces, facs.NUM_LANDMARKS, 2), generator=generator)
    landmarks = ((normal + 2) * case.image_size / 4).to(device)  # spread over the image, a few points outside
    sizes = {"image_size": case.image_size, "map_size": case.map_size}
    functions = {
        "jaa_ext": attention_maps,
        "eager reference": reference.attention_maps,
        "nested Python loops": draw_attention_maps,
    }

    def exact(landmarks: Tensor) -> Tensor:
        # In float32: centres are rounded to whole pixels, in float64 perhaps the other way.
        return reference.attention_maps(landmarks.float(), facs.BP4D_AUS, **sizes)

    for name, function in functions.items():
        comparison.add(name, partial(function, aus=facs.BP4D_AUS, **sizes), (landmarks,), exact=exact)
    comparison.add_compiled(["eager reference"])
    numbers = landmarks.numel() + case.faces * len(facs.BP4D_AUS) * case.map_size**2
    comparison.run("attention_maps", str(case), operations=0, bytes=4 * numbers)
