"""Region learning: layers whose filters and statistics belong to one cell of a grid each."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from jaa_ext.ops import region_batch_norm, region_conv2d


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
    """Batch normalisation by itself for each cell of a grid: `jaa_ext.ops.region_batch_norm` as a layer.

    One `nn.BatchNorm2d` a cell; cells are those of `RegionConv2d`.

    Args:
        num_features: channels C.
        grid: cells a side, or (rows, columns).
        eps: added to the variance.
        momentum: share of the batch in the running statistics.
        affine: whether each cell and channel learns a scale and a shift.
        relu: whether ReLU follows.

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
        relu: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.grid = _pair("RegionBatchNorm2d: grid", grid)
        self.eps = eps
        self.momentum = momentum
        self.relu = relu
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
        return _batch_norm(self, input)

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, grid={self.grid}, eps={self.eps}, momentum={self.momentum}, "
            f"affine={self.weight is not None}, relu={self.relu}"
        )


class BatchNormReLU2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` and ReLU in one op, `jaa_ext.ops.region_batch_norm` with a single cell.

    Parameters, buffers and their names are those of `nn.BatchNorm2d`.

    Args:
        num_features: channels C.
        eps: added to the variance.
        momentum: share of the batch in the running statistics.

    Shape:
        input (N, num_features, H, W) -> the same, memory format kept.
    """

    momentum: float
    grid = (1, 1)
    relu = True

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(num_features, eps, momentum, device=device, dtype=dtype)

    def forward(self, input: Tensor) -> Tensor:
        return _batch_norm(self, input)

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}, momentum={self.momentum}"


class RegionLayer(nn.Module):
    """Block R: the region layer of DRML (CVPR 2016), ECCV 2018, Fig. 2(b) as we read it.

    A convolution; batch norm, ReLU and convolution by cells of an 8 x 8 grid, added to the first convolution;
    batch norm, ReLU.

    Args:
        in_channels: channels of the input.
        width: channels of the output.

    Shape:
        (N, in_channels, H, W) -> (N, width, H, W).
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.width = width
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.conv = nn.Conv2d(in_channels, width, 3, padding=1, **factory)
        self.region = _region_stage(width, width, 8, factory)
        self.bn = BatchNormReLU2d(width, **factory)

    def reset_parameters(self) -> None:
        reset_layers(self)

    def forward(self, input: Tensor) -> Tensor:
        x = self.conv(input)
        output: Tensor = self.bn(x + self.region(x))
        return output

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.width}"


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

    def __init__(
        self,
        in_channels: int,
        width: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if width < 4 or width % 4:
            raise ValueError(f"HierarchicalMultiScaleRegion: width must be a multiple of 4, got {width}")
        self.in_channels = in_channels
        self.width = width
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.conv = nn.Conv2d(in_channels, width, 3, padding=1, **factory)
        self.region8 = _region_stage(width, width // 2, 8, factory)
        self.region4 = _region_stage(width // 2, width // 4, 4, factory)
        self.region2 = _region_stage(width // 4, width // 4, 2, factory)
        self.bn = BatchNormReLU2d(width, **factory)

    def reset_parameters(self) -> None:
        reset_layers(self)

    def forward(self, input: Tensor) -> Tensor:
        x = self.conv(input)
        b1 = self.region8(x)
        b2 = self.region4(b1)
        b3 = self.region2(b2)
        output: Tensor = self.bn(torch.cat((b1, b2, b3), 1).add_(x))
        return output

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.width}"


def reset_layers(module: nn.Module) -> None:
    """Call `reset_parameters` of every layer inside `module`, in the order in which they were made."""
    for child in module.children():
        reset: Callable[[], None] | None = getattr(child, "reset_parameters", None)
        if reset is None:
            reset_layers(child)
        else:
            reset()


def _region_stage(in_channels: int, out_channels: int, grid: int, factory: dict[str, Any]) -> nn.Sequential:
    # "0" and "2" are the names in saved models, whose "1" was a ReLU of its own.
    return nn.Sequential(
        OrderedDict(
            {
                "0": RegionBatchNorm2d(in_channels, grid, relu=True, **factory),
                "2": RegionConv2d(in_channels, out_channels, 3, grid, **factory),
            }
        )
    )


def _batch_norm(layer: RegionBatchNorm2d | BatchNormReLU2d, input: Tensor) -> Tensor:
    if layer.training and layer.num_batches_tracked is not None:
        layer.num_batches_tracked.add_(1)
    return region_batch_norm(
        input,
        layer.weight,
        layer.bias,
        layer.running_mean,
        layer.running_var,
        grid=layer.grid,
        training=layer.training,
        momentum=layer.momentum,
        eps=layer.eps,
        relu=layer.relu,
    )


def _pair(name: str, value: int | tuple[int, int]) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or min(pair) < 1:
        raise ValueError(f"{name} must be a positive integer or a pair of them, got {value}")
    return pair
