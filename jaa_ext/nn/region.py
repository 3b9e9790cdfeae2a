"""Region learning: layers whose filters and statistics belong to one cell of a grid each."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jaa_ext.ops import region_conv2d
from jaa_ext.ops.reference import cell_edges


class RegionConv2d(nn.Module):
    """Convolution with filters of its own for each cell of a grid: `jaa_ext.ops.region_conv2d` as a layer.

    Each cell starts like an `nn.Conv2d` of the same size.

    Args:
        in_channels, out_channels: channels of input and output.
        kernel_size: odd side, or (height, width).
        grid: cells a side, or (rows, columns).
        bias: whether each cell adds a bias of its own.
        border: "cell" pads each cell by itself with zeros (JAA-Net); "image" reads across cell borders.

    Shape:
        input (N, in_channels, H, W) -> (N, out_channels, H, W), memory format kept;
        weight (gh, gw, out_channels, in_channels, kh, kw), bias (gh, gw, out_channels).

    Raises:
        ValueError: an even kernel, an empty grid, an unknown border; in forward, an input that does not fit.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        grid: int | tuple[int, int],
        *,
        bias: bool = True,
        border: Literal["cell", "image"] = "cell",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = _pair("RegionConv2d: kernel_size", kernel_size)
        self.grid = _pair("RegionConv2d: grid", grid)
        self.border = border
        if self.kernel_size[0] % 2 == 0 or self.kernel_size[1] % 2 == 0:
            raise ValueError(f"RegionConv2d: kernel sides must be odd, got {kernel_size}")
        if border not in ("cell", "image"):
            raise ValueError(f'RegionConv2d: border must be "cell" or "image", got "{border}"')
        shape = (*self.grid, out_channels, in_channels, *self.kernel_size)
        self.weight = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        if bias:
            self.bias = nn.Parameter(torch.empty(shape[:3], device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        bound = 1 / math.sqrt(self.in_channels * math.prod(self.kernel_size))
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Tensor) -> Tensor:
        return region_conv2d(input, self.weight, self.bias, border=self.border)

    def extra_repr(self) -> str:
        text = (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, grid={self.grid}, "
            f'border="{self.border}"'
        )
        return text if self.bias is not None else text + ", bias=False"


class RegionBatchNorm2d(nn.Module):
    """Batch normalisation by itself for each cell of a grid: one `nn.BatchNorm2d` a cell, in one pass.

    Cells are those of `RegionConv2d`. Equal cells become channels of one batch norm; where H or W does not
    divide, the cells are normalised one after another.

    Args:
        num_features: channels C.
        grid: cells a side, or (rows, columns).
        eps: added to the variance.
        momentum: share of the batch in the running statistics.
        affine: whether each cell and channel learns a scale and a shift.

    Shape:
        input (N, C, H, W) -> the same, memory format kept;
        weight, bias, running_mean and running_var (gh, gw, C).

    Raises:
        ValueError: an empty grid; in forward, an input that does not fit or, as from `nn.BatchNorm2d`, a
            training batch with a single value for a channel of a cell.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(
        self,
        num_features: int,
        grid: int | tuple[int, int],
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.grid = _pair("RegionBatchNorm2d: grid", grid)
        self.eps = eps
        self.momentum = momentum
        shape = (*self.grid, num_features)
        if affine:
            self.weight = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
            self.bias = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        else:
            self.register_parameter("weight", None)
            self.register_parameter("bias", None)
        self.register_buffer("running_mean", torch.empty(shape, device=device, dtype=dtype))
        self.register_buffer("running_var", torch.empty(shape, device=device, dtype=dtype))
        self.register_buffer("num_batches_tracked", torch.tensor(0, device=device))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        self.running_mean.zero_()
        self.running_var.fill_(1)
        self.num_batches_tracked.zero_()
        if self.weight is not None:
            nn.init.ones_(self.weight)
            nn.init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        self._check(input)
        if self.training:
            self.num_batches_tracked.add_(1)
        channels_last = not input.is_contiguous() and input.is_contiguous(memory_format=torch.channels_last)
        rows, columns = self.grid
        samples, channels, height, width = input.shape
        if height % rows or width % columns:
            output = self._one_by_one(input)
            return output.contiguous(memory_format=torch.channels_last) if channels_last else output

        h, w = height // rows, width // columns
        cells = input.reshape(samples, channels, rows, h, columns, w)
        if channels_last:
            cells = cells.permute(0, 3, 5, 2, 4, 1).flatten(3).permute(0, 3, 1, 2)
            output = (
                self._normalise(cells).permute(0, 2, 3, 1).reshape(samples, h, w, rows, columns, channels)
            )
            output = output.permute(0, 3, 1, 4, 2, 5).reshape(samples, height, width, channels)
            return output.permute(0, 3, 1, 2)
        cells = cells.permute(0, 2, 4, 1, 3, 5).flatten(1, 3)
        output = self._normalise(cells).reshape(samples, rows, columns, channels, h, w)
        return output.permute(0, 3, 1, 4, 2, 5).reshape(input.shape)

    def _one_by_one(self, input: Tensor) -> Tensor:
        row_starts = cell_edges(input.shape[2], self.grid[0])[1:-1]
        column_starts = cell_edges(input.shape[3], self.grid[1])[1:-1]
        rows = []
        for i, row in enumerate(input.tensor_split(row_starts, 2)):
            cells = row.tensor_split(column_starts, 3)
            rows.append(torch.cat([self._normalise(cell, (i, j)) for j, cell in enumerate(cells)], 3))
        return torch.cat(rows, 2)

    def _normalise(self, x: Tensor, cell: tuple[int, int] | None = None) -> Tensor:
        """Batch norm of one cell (N, C, h, w), or of all of them as channels (N, gh * gw * C, h, w)."""

        def part(tensor: Tensor) -> Tensor:
            return tensor.view(-1) if cell is None else tensor[cell]

        return F.batch_norm(
            x,
            part(self.running_mean),
            part(self.running_var),
            None if self.weight is None else part(self.weight),
            None if self.bias is None else part(self.bias),
            self.training,
            self.momentum,
            self.eps,
        )

    def _check(self, input: Tensor) -> None:
        if input.dim() != 4 or input.shape[1] != self.num_features:
            raise ValueError(
                f"RegionBatchNorm2d: input must be (N, {self.num_features}, H, W), got {list(input.shape)}"
            )
        if input.shape[2] < self.grid[0] or input.shape[3] < self.grid[1]:
            raise ValueError(
                f"RegionBatchNorm2d: the grid must have at most one cell a pixel, got {self.grid[0]} x "
                f"{self.grid[1]} cells for an image of {input.shape[2]} x {input.shape[3]}"
            )

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, grid={self.grid}, eps={self.eps}, momentum={self.momentum}, "
            f"affine={self.weight is not None}"
        )


class RegionLayer(nn.Module):
    """Block R: the region layer of DRML (CVPR 2016), ECCV 2018, Fig. 2(b) as we read it.

    A convolution; batch norm, ReLU and convolution by cells of an 8 x 8 grid, added to the first convolution;
    batch norm, ReLU.

    Shape:
        (N, in_channels, H, W) -> (N, width, H, W).
    """

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, width, 3, padding=1)
        self.region = _region_stage(width, width, 8)
        self.bn = nn.BatchNorm2d(width)

    def forward(self, input: Tensor) -> Tensor:
        x = self.conv(input)
        return F.relu(self.bn(x + self.region(x)))


class HierarchicalMultiScaleRegion(nn.Module):
    """Block R_hm: the hierarchical and multi-scale region layer (ECCV 2018, section 3.1, Fig. 2(a)).

    A convolution; three stages (batch norm, ReLU, convolution) by cells of 8 x 8, 4 x 4 and 2 x 2 grids, one
    after the other; their outputs, concatenated, are added to the first convolution; batch norm, ReLU.

    Args:
        in_channels: channels of the input.
        width: 4 * c1, channels of the output, a multiple of 4.

    Shape:
        (N, in_channels, H, W) -> (N, width, H, W).
    """

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        if width < 4 or width % 4:
            raise ValueError(f"HierarchicalMultiScaleRegion: width must be a multiple of 4, got {width}")
        self.conv = nn.Conv2d(in_channels, width, 3, padding=1)
        self.region8 = _region_stage(width, width // 2, 8)
        self.region4 = _region_stage(width // 2, width // 4, 4)
        self.region2 = _region_stage(width // 4, width // 4, 2)
        self.bn = nn.BatchNorm2d(width)

    def forward(self, input: Tensor) -> Tensor:
        x = self.conv(input)
        b1 = self.region8(x)
        b2 = self.region4(b1)
        b3 = self.region2(b2)
        return F.relu(self.bn(x + torch.cat((b1, b2, b3), 1)))


def _region_stage(in_channels: int, out_channels: int, grid: int) -> nn.Sequential:
    return nn.Sequential(
        RegionBatchNorm2d(in_channels, grid),
        nn.ReLU(inplace=True),
        RegionConv2d(in_channels, out_channels, 3, grid),
    )


def _pair(name: str, value: int | tuple[int, int]) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or min(pair) < 1:
        raise ValueError(f"{name} must be a positive integer or a pair of them, got {value}")
    return pair
