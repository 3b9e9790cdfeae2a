"""region_batch_norm with ReLU at the sizes of JAA-Net's batch norms, in training, against plain PyTorch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from comparison import LAYOUTS, TOLERANCE, Comparison, Function
from torch import Tensor

from jaa_ext.ops import reference, region_batch_norm


@dataclass(frozen=True)
class Case:
    channels: int
    size: int
    grid: int
    batch: int = 8

    def __str__(self) -> str:
        return f"{self.channels}, {self.size}x{self.size}, grid {self.grid}"

    @property
    def values(self) -> int:
        return self.batch * self.channels * self.size**2

    def bytes(self, backward: bool) -> int:
        """Input read and output written once; then input and gradient read and a gradient written once."""
        return 4 * self.values * (5 if backward else 2)


SHAPES = [
    Case(32, 176, 8),
    Case(16, 176, 4),
    Case(8, 176, 2),
    Case(32, 176, 1),
    Case(96, 44, 1),
    Case(160, 11, 1),
]
CASES = {"cpu": SHAPES, "cuda": [replace(shape, batch=64) for shape in SHAPES]}
SMOKE_CASE = Case(5, 8, 2, batch=2)


def test_region_batch_norm(case: Case, backward: bool, device: str, comparison: Comparison) -> None:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    # Nothing normalised lies near 0, where rounding would decide whether ReLU lets a gradient pass.
    shape = (case.batch, case.channels, case.size, case.size)
    values = (0.5 + draw(*shape)) * (draw(*shape) - 0.5).sign()
    of_cells = (case.grid, case.grid, case.channels)
    weight, bias, input = (
        t.to(device).requires_grad_(backward) for t in (1 + draw(*of_cells), 0.2 * draw(*of_cells), values)
    )
    # float32: sums over the batch, as the gradients of `bench_region_conv2d`.
    tolerance = TOLERANCE["float32"] * (case.batch / 8) ** 0.5
    ours = partial(normalise, region_batch_norm)
    exact = partial(normalise, reference.region_batch_norm)
    eager = cells_as_channels if case.grid > 1 else ordinary
    for name, function in (("jaa_ext", ours), ("eager reference", eager)):
        for layout_name, layout in LAYOUTS.items():
            image = input.detach().contiguous(memory_format=layout).requires_grad_(backward)
            tensors = image, weight, bias
            comparison.add(f"{name} ({layout_name})", function, tensors, exact=exact, tolerance=tolerance)
    comparison.add_compiled(["eager reference"])
    comparison.run("region_batch_norm", str(case), operations=0, bytes=case.bytes(backward))


def normalise(op: Function, input: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The op with the statistics of the batch."""
    return op(input, grid=tuple(weight.shape[:2]), weight=weight, bias=bias, training=True, relu=True)


def ordinary(input: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.batch_norm(input, None, None, weight.flatten(), bias.flatten(), training=True).relu()


def cells_as_channels(input: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Cells moved into the channels of one batch norm, in the order that leaves its memory format."""
    batch, channels, height, width = input.shape
    grid = weight.shape[0]
    cells = input.reshape(batch, channels, grid, height // grid, grid, width // grid)
    if input.is_contiguous():
        output = ordinary(cells.permute(0, 2, 4, 1, 3, 5).flatten(1, 3), weight, bias)
        output = output.view(batch, grid, grid, channels, height // grid, width // grid)
        return output.permute(0, 3, 1, 4, 2, 5).reshape(input.shape)
    output = ordinary(cells.permute(0, 3, 5, 2, 4, 1).flatten(3).permute(0, 3, 1, 2), weight, bias)
    output = output.permute(0, 2, 3, 1).view(batch, height // grid, width // grid, grid, grid, channels)
    return output.permute(0, 3, 1, 4, 2, 5).reshape(batch, height, width, channels).permute(0, 3, 1, 2)
