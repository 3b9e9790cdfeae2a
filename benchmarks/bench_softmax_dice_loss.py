"""softmax_dice_loss for a batch and for many samples, against plain PyTorch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from comparison import Comparison

from jaa_ext.ops import reference, softmax_dice_loss


@dataclass(frozen=True)
class Case:
    samples: int
    aus: int = 12

    def __str__(self) -> str:
        return f"{self.samples} samples, {self.aus} AUs"


CASES = {"cpu": [Case(16), Case(1024)], "cuda": [Case(64), Case(1024)]}
SMOKE_CASE = Case(5, aus=3)


def test_softmax_dice_loss(case: Case, backward: bool, device: str, comparison: Comparison) -> None:
    generator = torch.Generator().manual_seed(0)
    shape = (case.samples, case.aus)
    logits = torch.randn((case.samples, 2, case.aus), generator=generator).to(device).requires_grad_(backward)
    target = torch.randint(-1, 2, shape, generator=generator).to(device)  # -1 is missing
    weight = torch.randn(case.aus, generator=generator).exp().to(device)
    functions = {"jaa_ext": softmax_dice_loss, "eager reference": reference.softmax_dice_loss}
    for name, function in functions.items():
        comparison.add(name, function, (logits, target, weight), exact=reference.softmax_dice_loss)
    comparison.add_compiled(["eager reference"])
    # The backward pass reads logits and target again and writes the gradient of the logits.
    pairs = case.samples * case.aus
    read, written = pairs * (2 * 4 + 8), pairs * 2 * 4
    bytes = 2 * read + written if backward else read
    comparison.run("softmax_dice_loss", str(case), operations=0, bytes=bytes)
