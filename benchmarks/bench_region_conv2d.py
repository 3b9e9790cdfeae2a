"""region_conv2d at the sizes of JAA-Net's six region convolutions, against plain PyTorch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from comparison import Comparison
from torch import Tensor

from jaa_ext.ops import reference, region_conv2d

KERNEL = 3


@dataclass(frozen=True)
class Case:
    in_channels: int
    out_channels: int
    size: int
    grid: int
    batch: int = 8

    def __str__(self) -> str:
        return f"{self.in_channels}->{self.out_channels}, {self.size}x{self.size}, grid {self.grid}"

    @property
    def operations(self) -> int:
        """Multiplications and additions of the forward pass, without those with a cell's zero padding."""
        taps = (
            KERNEL * self.size - 2 * self.grid
        )  # along an axis: a cell's first and last pixel miss one each
        return 2 * self.batch * self.in_channels * self.out_channels * taps**2

    @property
    def weight_bytes(self) -> int:
        return 4 * self.grid**2 * self.out_channels * (self.in_channels * KERNEL**2 + 1)

    def bytes(self, backward: bool) -> int:
        """Each input read and each result written once; the backward pass reads input and weight again."""
        pixel = 4 * self.batch * self.size**2
        forward = pixel * (self.in_channels + self.out_channels) + self.weight_bytes
        again = pixel * (2 * self.in_channels + self.out_channels) + 2 * self.weight_bytes
        return forward + again if backward else forward


CASES = [
    Case(32, 16, 176, 8),
    Case(16, 8, 176, 4),
    Case(8, 8, 176, 2),
    Case(64, 32, 88, 8),
    Case(32, 16, 88, 4),
    Case(16, 16, 88, 2),
]
SMOKE_CASE = Case(5, 3, 8, 2, batch=2)


def test_region_conv2d(case: Case, backward: bool, device: str, comparison: Comparison) -> None:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device).requires_grad_(backward)

    input = draw(case.batch, case.in_channels, case.size, case.size)
    weight = draw(case.grid, case.grid, case.out_channels, case.in_channels, KERNEL, KERNEL)
    bias = draw(case.grid, case.grid, case.out_channels)
    peers = {
        "cell loop": reference.region_conv2d,
        "grouped convolution": grouped_convolution,
        "unfold + bmm": unfold_bmm,
    }
    for name, function in {"jaa_ext": region_conv2d, **peers}.items():
        comparison.add(name, function, (input, weight, bias), exact=reference.region_conv2d)
    nhwc = input.detach().contiguous(memory_format=torch.channels_last).requires_grad_(backward)
    comparison.add(
        "jaa_ext, channels last", region_conv2d, (nhwc, weight, bias), exact=reference.region_conv2d
    )
    comparison.add_compiled(list(peers))

    # An ordinary convolution of the same size computes something else: its own float64 results are expected.
    ordinary_weight = draw(case.out_channels, case.in_channels, KERNEL, KERNEL)
    ordinary_bias = draw(case.out_channels)
    for name, layout in (("NCHW", torch.contiguous_format), ("NHWC", torch.channels_last)):
        image, filters = (
            t.detach().contiguous(memory_format=layout).requires_grad_(backward)
            for t in (input, ordinary_weight)
        )
        comparison.add(
            f"ordinary convolution ({name})",
            ordinary_convolution,
            (image, filters, ordinary_bias),
            exact=ordinary_convolution,
        )
    comparison.run(
        "region_conv2d",
        str(case),
        operations=case.operations * (3 if backward else 1),
        bytes=case.bytes(backward),
    )


def grouped_convolution(input: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Cells moved into the channels, each a group of one convolution, which pads each with zeros."""
    batch, _, height, width = input.shape
    grid, _, out_channels = weight.shape[:3]
    cells = to_cells(input, grid).permute(2, 0, 1, 3, 4, 5).flatten(1, 3)  # (N, gh*gw*Cin, h, w)
    output = F.conv2d(cells, weight.flatten(0, 2), bias.flatten(), padding=KERNEL // 2, groups=grid * grid)
    cell = (height // grid, width // grid)
    return (
        output.view(batch, grid, grid, out_channels, *cell)
        .permute(0, 3, 1, 4, 2, 5)
        .reshape(batch, out_channels, height, width)
    )


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
