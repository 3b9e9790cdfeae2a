"""region_conv2d at the sizes of JAA-Net's six region convolutions, against plain PyTorch."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from comparison import LAYOUTS, TOLERANCE, Comparison
from torch import Tensor

from jaa_ext.ops import reference, region_conv2d

KERNEL = 3
UNFOLD_TOLERANCE = 3 * 2**-8
"""The gradient of the input is a sum of nine patches, rounded nine times in bfloat16: a random walk."""


@dataclass(frozen=True)
class Case:
    in_channels: int
    out_channels: int
    size: int
    grid: int
    batch: int = 8

    def __str__(self) -> str:
        return f"{self.in_channels}->{self.out_channels}, {self.size}x{self.size}, grid {self.grid}"

    def tolerance(self, name: str, precision: str) -> float:
        """`TOLERANCE`, whose float32 is that of sums over batches of 8."""
        if precision == "bfloat16" and name == "unfold + bmm":
            return UNFOLD_TOLERANCE
        return TOLERANCE[precision] * ((self.batch / 8) ** 0.5 if precision == "float32" else 1)

    @property
    def operations(self) -> int:
        """Multiplications and additions of the forward pass, without those with a cell's zero padding."""
        taps = (
            KERNEL * self.size - 2 * self.grid
        )  # along an axis: a cell's first and last pixel miss one each
        return 2 * self.batch * self.in_channels * self.out_channels * taps**2

    def numbers(self, backward: bool) -> int:
        """Each input read and each result written once; the backward pass reads input and weight again."""
        pixels = self.batch * self.size**2
        weights = self.grid**2 * self.out_channels * (self.in_channels * KERNEL**2 + 1)
        forward = pixels * (self.in_channels + self.out_channels) + weights
        again = pixels * (2 * self.in_channels + self.out_channels) + 2 * weights
        return forward + again if backward else forward


SHAPES = [
    Case(32, 16, 176, 8),
    Case(16, 8, 176, 4),
    Case(8, 8, 176, 2),
    Case(64, 32, 88, 8),
    Case(32, 16, 88, 4),
    Case(16, 16, 88, 2),
]
CASES = {"cpu": SHAPES, "cuda": [replace(shape, batch=64) for shape in SHAPES]}
SMOKE_CASE = Case(5, 3, 8, 2, batch=2)


def test_region_conv2d(
    case: Case, precision: str, dtype: torch.dtype, backward: bool, device: str, comparison: Comparison
) -> None:
    generator = torch.Generator(device).manual_seed(0)

    def draw(*shape: int) -> Tensor:
        values = torch.randn(shape, generator=generator, device=device)
        return values.to(dtype).requires_grad_(backward)

    def lay_out(tensor: Tensor, layout: torch.memory_format) -> Tensor:
        return tensor.detach().contiguous(memory_format=layout).requires_grad_(backward)

    image = draw(case.batch, case.in_channels, case.size, case.size)
    weight = draw(case.grid, case.grid, case.out_channels, case.in_channels, KERNEL, KERNEL)
    bias = draw(case.grid, case.grid, case.out_channels)
    ordinary_weight = draw(case.out_channels, case.in_channels, KERNEL, KERNEL)
    ordinary_bias = draw(case.out_channels)
    peers = {
        "cell loop": reference.region_conv2d,
        "grouped convolution": grouped_convolution,
        "unfold + bmm": unfold_bmm,
    }
    for name, function in {"jaa_ext": region_conv2d, **peers}.items():
        for layout_name, layout in LAYOUTS.items():
            comparison.add(
                f"{name} ({layout_name})",
                function,
                (lay_out(image, layout), weight, bias),
                exact=reference.region_conv2d,
                tolerance=case.tolerance(name, precision),
            )
    comparison.add_compiled(list(peers))
    # An ordinary convolution of the same size computes something else: its own float64 results are expected.
    for layout_name, layout in LAYOUTS.items():
        comparison.add(
            f"ordinary convolution ({layout_name})",
            ordinary_convolution,
            (lay_out(image, layout), lay_out(ordinary_weight, layout), ordinary_bias),
            exact=ordinary_convolution,
            tolerance=case.tolerance("ordinary convolution", precision),
        )
    comparison.run(
        "region_conv2d",
        str(case),
        operations=case.operations * (3 if backward else 1),
        bytes=dtype.itemsize * case.numbers(backward),
    )


def grouped_convolution(input: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Cells moved into the channels, each a group of one convolution, which pads each with zeros."""
    grid = weight.shape[0]
    cells = cells_to_channels(input, grid)
    output = F.conv2d(cells, weight.flatten(0, 2), bias.flatten(), padding=KERNEL // 2, groups=grid * grid)
    return channels_to_cells(output, grid)


def unfold_bmm(input: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The patches of each cell as columns, times that cell's filters as a matrix."""
    batch, _, height, width = input.shape
    grid, _, out_channels = weight.shape[:3]
    cells = to_cells(input, grid).flatten(0, 2)  # (gh*gw*N, Cin, h, w)
    columns = F.unfold(cells, KERNEL, padding=KERNEL // 2)  # (gh*gw*N, Cin*9, h*w)
    filters = weight.reshape(grid * grid, 1, out_channels, -1).expand(-1, batch, -1, -1).flatten(0, 1)
    biases = bias.reshape(grid * grid, 1, out_channels, 1).expand(-1, batch, -1, -1).flatten(0, 1)
    output = torch.baddbmm(biases, filters, columns)
    return (
        output.view(grid, grid, batch, out_channels, height // grid, width // grid)
        .permute(2, 3, 0, 4, 1, 5)
        .reshape(batch, out_channels, height, width)
    )


def ordinary_convolution(input: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.conv2d(input, weight, bias, padding=KERNEL // 2)


def to_cells(input: Tensor, grid: int) -> Tensor:
    """(N, C, H, W) to (gh, gw, N, C, h, w), a view; H and W divide by the grid."""
    batch, channels, height, width = input.shape
    cells = input.view(batch, channels, grid, height // grid, grid, width // grid)
    return cells.permute(2, 4, 0, 1, 3, 5)


def cells_to_channels(input: Tensor, grid: int) -> Tensor:
    """(N, C, H, W) to (N, gh * gw * C, h, w), layout kept."""
    cells = to_cells(input, grid)
    if is_nhwc(input):
        return cells.permute(2, 4, 5, 0, 1, 3).flatten(3).permute(0, 3, 1, 2)
    return cells.permute(2, 0, 1, 3, 4, 5).flatten(1, 3)


def channels_to_cells(cells: Tensor, grid: int) -> Tensor:
    """(N, gh * gw * C, h, w) to (N, C, H, W), layout kept."""
    batch, _, height, width = cells.shape
    if is_nhwc(cells):
        parts = cells.permute(0, 2, 3, 1).unflatten(3, (grid, grid, -1))
        image = parts.permute(0, 3, 1, 4, 2, 5).reshape(batch, grid * height, grid * width, -1)
        return image.permute(0, 3, 1, 2)
    parts = cells.unflatten(1, (grid, grid, -1))
    return parts.permute(0, 3, 1, 4, 2, 5).reshape(batch, -1, grid * height, grid * width)


def is_nhwc(input: Tensor) -> bool:
    return not input.is_contiguous() and input.is_contiguous(memory_format=torch.channels_last)
