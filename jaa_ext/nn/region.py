"""Region learning: layers in which each cell of a grid has its own filters and statistics."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from jaa_ext.nn.conv import Conv3x3
from jaa_ext.ops import region_batch_norm, region_conv2d
from jaa_ext.ops.reference import Border


class RegionConv2d(nn.Module):
    """A convolution with other filters in each cell of a grid: `jaa_ext.ops.region_conv2d` as a layer.

    Each cell is initialized like an `nn.Conv2d` of the same size.

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

    Example:
        >>> layer = RegionConv2d(3, 8, kernel_size=3, grid=4)
        >>> layer(torch.randn(2, 3, 30, 44)).shape
        torch.Size([2, 8, 30, 44])
        >>> layer.weight.shape
        torch.Size([4, 4, 8, 3, 3, 3])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        grid: int | tuple[int, int],
        *,
        bias: bool = True,
        border: Border = "cell",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.border = in_channels, out_channels, border
        self.kernel_size = _pair("RegionConv2d: kernel_size", kernel_size)
        self.grid = _pair("RegionConv2d: grid", grid)
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


class CellBatchNorm2d(nn.BatchNorm2d):
    """The base of `RegionBatchNorm2d` and `BatchNormReLU2d`, which makes them an `nn.BatchNorm2d` to torch.

    `momentum=None`, `track_running_stats=False`, `swa_utils.update_bn` and freezing by `isinstance` work as
    with torch's own. Some of torch's functions make another layer from a batch norm's tensors, which would
    lose the grid and the ReLU: they get a TypeError that names the function to call instead.
    """

    grid: tuple[int, int]
    relu: bool

    @property
    def eps(self) -> float:  # type: ignore[override]
        # The functions of `_INSTEAD` read eps before they change anything; torch offers no better hook.
        if not torch.compiler.is_compiling():
            caller = sys._getframe(1).f_code.co_name
            if caller in _INSTEAD:
                raise TypeError(
                    f"{caller} would lose the grid and the ReLU of {type(self).__name__}: "
                    f"call {_INSTEAD[caller]}"
                )
        value: float = self.__dict__["eps"]
        return value

    @eps.setter
    def eps(self, value: float) -> None:
        self.__dict__["eps"] = value

    def forward(self, input: Tensor) -> Tensor:
        return region_batch_norm(input, **norm_arguments(self), grid=self.grid, relu=self.relu)

    def is_plain(self) -> bool:
        """Whether `forward` calls `region_batch_norm` with the layer's tensors, and does nothing else."""
        return type(self).forward is CellBatchNorm2d.forward


_INSTEAD = {
    "convert_sync_batchnorm": "jaa_ext.nn.synchronize_batch_norm",
    "fuse_conv_bn_eval": "jaa_ext.nn.GroupedSequential.fold or jaa_ext.models.JAANet.fuse",
    "fuse_linear_bn_eval": "jaa_ext.nn.GroupedSequential.fold or jaa_ext.models.JAANet.fuse",
}
"""What to call instead of a function of torch, or of a library that gives its own the same name."""


class RegionBatchNorm2d(CellBatchNorm2d):
    """An `nn.BatchNorm2d` for each cell of a grid: `jaa_ext.ops.region_batch_norm` as a layer.

    The cells are those of `RegionConv2d`.

    Args:
        num_features: channels C.
        grid: cells a side, or (rows, columns).
        eps: added to the variance.
        momentum: share of the batch in the running statistics; None for their mean over all batches.
        affine: whether each cell and channel learns a scale and a shift.
        track_running_stats: whether there are running statistics; without them, evaluation also normalises a
            batch by its own statistics.
        relu: whether ReLU follows.

    Shape:
        input (N, C, H, W) -> the same, memory format kept;
        weight, bias, running_mean and running_var (gh, gw, C).

    Raises:
        ValueError: an empty grid; in forward, an input that does not fit or, as from `nn.BatchNorm2d`, a
            training batch with a single value for a channel of a cell.

    Example:
        >>> layer = RegionBatchNorm2d(8, grid=4, relu=True)
        >>> layer(torch.randn(2, 8, 30, 44)).min().item()
        0.0
    """

    def __init__(
        self,
        num_features: int,
        grid: int | tuple[int, int],
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        relu: bool = False,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype)
        self.grid = _pair("RegionBatchNorm2d: grid", grid)
        self.relu = relu
        for name in ("weight", "bias", "running_mean", "running_var"):
            tensor = getattr(self, name)
            if tensor is not None:
                each = tensor.detach().expand(*self.grid, num_features).clone()
                setattr(self, name, nn.Parameter(each) if isinstance(tensor, nn.Parameter) else each)

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, grid={self.grid}, eps={self.eps}, momentum={self.momentum}, "
            f"affine={self.affine}, track_running_stats={self.track_running_stats}, relu={self.relu}"
        )


class BatchNormReLU2d(CellBatchNorm2d):
    """An `nn.BatchNorm2d` and ReLU in one op: `jaa_ext.ops.region_batch_norm` with a single cell.

    Arguments, parameters, buffers and their names are those of `nn.BatchNorm2d`.

    Args:
        num_features: channels C.
        eps: added to the variance.
        momentum: share of the batch in the running statistics; None for their mean over all batches.
        affine: whether each channel learns a scale and a shift.
        track_running_stats: whether there are running statistics; without them, evaluation also normalises a
            batch by its own statistics.

    Shape:
        input (N, num_features, H, W) -> the same, memory format kept.

    Example:
        >>> layer, plain, x = BatchNormReLU2d(8), nn.BatchNorm2d(8), torch.randn(2, 8, 30, 44)
        >>> torch.testing.assert_close(layer(x), plain(x).relu())
    """

    grid = (1, 1)
    relu = True

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype)

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"track_running_stats={self.track_running_stats}"
        )


class _RegionBlock(nn.Module):
    """What the blocks of region learning share: they begin with an ordinary convolution."""

    def __init__(self, in_channels: int, width: int, factory: dict[str, Any]) -> None:
        super().__init__()
        self.in_channels, self.width = in_channels, width
        self.conv = Conv3x3(in_channels, width, padding=1, **factory)

    def reset_parameters(self) -> None:
        reset_layers(self)

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.width}"


class RegionLayer(_RegionBlock):
    """Block R, the region layer of DRML (CVPR 2016), as we read Fig. 2(b) of ECCV 2018.

    A convolution is followed by a region stage: batch norm, ReLU and convolution by cells of an 8 x 8 grid.
    The two outputs are added, and batch norm and ReLU close the block.

    Args:
        in_channels: channels of the input.
        width: channels of the output.

    Shape:
        (N, in_channels, H, W) -> (N, width, H, W).

    Example:
        >>> RegionLayer(3, 32)(torch.randn(2, 3, 48, 48)).shape
        torch.Size([2, 32, 48, 48])
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        super().__init__(in_channels, width, factory)
        self.region = _region_stage(width, width, 8, factory)
        self.bn = BatchNormReLU2d(width, **factory)

    def forward(self, input: Tensor) -> Tensor:
        x = self.conv(input)
        output: Tensor = self.bn(x + self.region(x))
        return output


class HierarchicalMultiScaleRegion(_RegionBlock):
    """Block R_hm, the hierarchical and multi-scale region layer (ECCV 2018, section 3.1, Fig. 2(a)).

    A convolution is followed by three region stages (batch norm, ReLU, convolution) by cells of 8 x 8, 4 x 4
    and 2 x 2 grids, each on the output of the one before. Their outputs, concatenated, are added to that of
    the first convolution, and batch norm and ReLU close the block.

    Args:
        in_channels: channels of the input.
        width: channels of the output, 4 * c1 in the paper: a multiple of 4.

    Shape:
        (N, in_channels, H, W) -> (N, width, H, W).

    Raises:
        ValueError: another width.

    Example:
        >>> HierarchicalMultiScaleRegion(3, 32)(torch.randn(2, 3, 48, 48)).shape
        torch.Size([2, 32, 48, 48])
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if width < 4 or width % 4:
            raise ValueError(f"HierarchicalMultiScaleRegion: width must be a multiple of 4, got {width}")
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        super().__init__(in_channels, width, factory)
        self.region8 = _region_stage(width, width // 2, 8, factory)
        self.region4 = _region_stage(width // 2, width // 4, 4, factory)
        self.region2 = _region_stage(width // 4, width // 4, 2, factory)
        self.bn = BatchNormReLU2d(width, **factory)

    def forward(self, input: Tensor) -> Tensor:
        x = self.conv(input)
        b1 = self.region8(x)
        b2 = self.region4(b1)
        b3 = self.region2(b2)
        output: Tensor = self.bn(torch.cat((b1, b2, b3), 1).add_(x))
        return output


def reset_layers(module: nn.Module) -> None:
    """Call `reset_parameters` of every layer inside `module`, in the order of their registration."""
    for child in module.children():
        reset: Callable[[], None] | None = getattr(child, "reset_parameters", None)
        if reset is None:
            reset_layers(child)
        else:
            reset()


def _region_stage(in_channels: int, out_channels: int, grid: int, factory: dict[str, Any]) -> nn.Sequential:
    stage = nn.Sequential(RegionBatchNorm2d(in_channels, grid, relu=True, **factory))
    # Files name these layers "0" and "2"; "1" was a separate ReLU.
    stage.add_module("2", RegionConv2d(in_channels, out_channels, 3, grid, **factory))
    return stage


def norm_arguments(layer: nn.BatchNorm2d) -> dict[str, Any]:
    """Count a batch as `nn.BatchNorm2d` does; return what `region_batch_norm` takes besides grid and relu."""
    momentum = layer.momentum
    if layer.training and layer.track_running_stats and layer.num_batches_tracked is not None:
        layer.num_batches_tracked.add_(1)
        if momentum is None:
            momentum = 1 / float(layer.num_batches_tracked)
    tracked = layer.track_running_stats or not layer.training
    mean = layer.running_mean if tracked else None
    return {
        "weight": layer.weight,
        "bias": layer.bias,
        "running_mean": mean,
        "running_var": layer.running_var if tracked else None,
        "training": layer.training or mean is None,
        "momentum": 0.0 if momentum is None else momentum,
        "eps": layer.eps,
    }


def _pair(name: str, value: int | tuple[int, int]) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or min(pair) < 1:
        raise ValueError(f"{name} must be a positive integer or a pair of them, got {value}")
    return pair
