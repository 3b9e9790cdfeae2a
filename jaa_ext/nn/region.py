"""Region learning: layers whose filters and statistics belong to one cell of a grid each."""

from __future__ import annotations

import math
import sys
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from jaa_ext.nn.conv import Conv3x3
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


class CellBatchNorm2d(nn.BatchNorm2d):
    """What `RegionBatchNorm2d` and `BatchNormReLU2d` are to torch: an `nn.BatchNorm2d`.

    What torch does with one (`momentum=None`, `track_running_stats=False`, `swa_utils.update_bn`, freezing by
    `isinstance`) it does with these. Where it makes another layer of a batch norm's numbers, by which grid
    and ReLU would be lost, a TypeError names what to call.
    """

    grid: tuple[int, int]
    relu: bool

    @property
    def eps(self) -> float:  # type: ignore[override]
        # Both read it before they change anything, and torch has no hook by which a layer could take part.
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
        """Whether `forward` is `region_batch_norm` with the layer's tensors and nothing else."""
        return type(self).forward is CellBatchNorm2d.forward


_INSTEAD = {
    "convert_sync_batchnorm": "jaa_ext.nn.synchronize_batch_norm",
    "fuse_conv_bn_eval": "jaa_ext.nn.GroupedSequential.fold or jaa_ext.models.JAANet.fuse",
    "fuse_linear_bn_eval": "jaa_ext.nn.GroupedSequential.fold or jaa_ext.models.JAANet.fuse",
}
"""By functions of torch, and of libraries that name theirs likewise: what to call in their place."""


class RegionBatchNorm2d(CellBatchNorm2d):
    """Batch normalisation by itself for each cell of a grid: `jaa_ext.ops.region_batch_norm` as a layer.

    One `nn.BatchNorm2d` a cell; cells are those of `RegionConv2d`.

    Args:
        num_features: channels C.
        grid: cells a side, or (rows, columns).
        eps: added to the variance.
        momentum: share of the batch in the running statistics; None for their mean over all batches.
        affine: whether each cell and channel learns a scale and a shift.
        track_running_stats: whether there are running statistics; without, batches are normalised by their
            own in evaluation too.
        relu: whether ReLU follows.

    Shape:
        input (N, C, H, W) -> the same, memory format kept;
        weight, bias, running_mean and running_var (gh, gw, C).

    Raises:
        ValueError: an empty grid; in forward, an input that does not fit or, as from `nn.BatchNorm2d`, a
            training batch with a single value for a channel of a cell.
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
    """`nn.BatchNorm2d` and ReLU in one op, `jaa_ext.ops.region_batch_norm` with a single cell.

    Arguments, parameters, buffers and their names are those of `nn.BatchNorm2d`.

    Args:
        num_features: channels C.
        eps: added to the variance.
        momentum: share of the batch in the running statistics; None for their mean over all batches.
        affine: whether each channel learns a scale and a shift.
        track_running_stats: whether there are running statistics; without, batches are normalised by their
            own in evaluation too.

    Shape:
        input (N, num_features, H, W) -> the same, memory format kept.
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
        self.conv = Conv3x3(in_channels, width, padding=1, **factory)
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
        self.conv = Conv3x3(in_channels, width, padding=1, **factory)
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


def norm_arguments(layer: nn.BatchNorm2d) -> dict[str, Any]:
    """Arguments of `region_batch_norm`, but for grid and ReLU, for the layer's next input, which is counted.

    All is as `nn.BatchNorm2d` does it.
    """
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
