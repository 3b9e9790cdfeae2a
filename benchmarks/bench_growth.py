"""How time grows with the batch, the width c and the image size: the region convolution and JAA-Net."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from bench_jaanet import Batch, Step, freed_memory_kept, networks, prepared
from bench_jaanet import Case as Network
from comparison import Comparison

from jaa_ext.ops import region_conv2d

ROUNDS = 5


@dataclass(frozen=True)
class Case:
    what: str
    """"region_conv2d" (forward and backward), "inference" or "training"."""
    axis: str
    """"batch", "width" or "image_size"."""
    values: tuple[int, ...]
    network: Network
    """The values that are not varied."""

    def __str__(self) -> str:
        fixed = {
            "batch": self.network.batch,
            "width": self.network.width,
            "image_size": self.network.image_size,
        }
        return f"{self.what} by {self.axis}, " + ", ".join(
            f"{name} {value}" for name, value in fixed.items() if name != self.axis
        )


BATCHES, WIDTHS, SIZES = (1, 2, 4, 8, 16, 32, 64), (4, 6, 8, 12, 16), (112, 128, 144, 176, 208, 256)
CASES = [
    Case("region_conv2d", "batch", BATCHES, Network("kept")),
    Case("region_conv2d", "width", WIDTHS, Network("kept")),
    Case("region_conv2d", "image_size", SIZES, Network("kept")),
    Case("inference", "batch", BATCHES, Network("kept")),
    Case("inference", "width", WIDTHS, Network("kept")),
    Case("inference", "image_size", SIZES, Network("kept")),
    Case("training", "batch", BATCHES[:5], Network("kept")),
    Case("training", "width", WIDTHS, Network("kept", batch=4)),
    Case("training", "image_size", SIZES, Network("kept", batch=4)),
]
SMOKE_CASE = Case("inference", "batch", (1, 2), Network("kept", image_size=64, width=2, aus=(1, 12)))


def test_growth(case: Case, device: str, comparison: Comparison) -> None:
    for value in case.values:
        call = prepare(case.what, replace(case.network, **{case.axis: value}), device)
        # Results are compared in the benchmarks of the op and of the network.
        comparison.add_call(str(value), call, error=lambda: 0.0, tolerance=0.0)
    with freed_memory_kept():
        comparison.run("growth", str(case), direction=case.what, axis=case.axis)


def prepare(what: str, network: Network, device: str) -> Callable[[], Any]:
    """A call at one size; the region convolution is that of the first block's 8 x 8 grid."""
    if what != "region_conv2d":
        model = prepared(networks(network.network)[0], what).to(device)
        batch = Batch.draw(network).to(device, torch.channels_last)
        return Step(model, batch, what, torch.float32)

    side, c = network.image_size, network.width
    image = torch.randn(network.batch, 4 * c, side, side, device=device)
    image = image.contiguous(memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(8, 8, 2 * c, 4 * c, 3, 3, device=device, requires_grad=True)
    bias = torch.randn(8, 8, 2 * c, device=device, requires_grad=True)
    grad = torch.randn(network.batch, 2 * c, side, side, device=device)
    grad = grad.contiguous(memory_format=torch.channels_last)
    leaves = (image, weight, bias)
    return lambda: torch.autograd.grad(region_conv2d(*leaves), leaves, grad)
