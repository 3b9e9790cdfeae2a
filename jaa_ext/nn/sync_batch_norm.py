"""Batch normalisation by the images of all processes that train a model together."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from jaa_ext.nn.region import BatchNormReLU2d, RegionBatchNorm2d, norm_arguments
from jaa_ext.ops import reference
from jaa_ext.ops.reference import full_precision


def synchronize_batch_norm(module: nn.Module) -> None:
    """Let the batch norms in a module normalise by the images of all processes of the default process group.

    In place, `RegionBatchNorm2d`, `BatchNormReLU2d` and `nn.BatchNorm2d` become synchronized subclasses with
    the same parameters, buffers and names, so that files stay those of an ordinary model. Processes may hold
    different numbers of images, or none. In evaluation mode, or with one process, the layers compute as
    before. An `nn.SyncBatchNorm` stays what it is.

    Args:
        module: the model, before it is wrapped for several processes.

    Raises:
        TypeError: a batch norm of another kind; nothing has changed then.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), BatchNormReLU2d(8))
        >>> synchronize_batch_norm(model)
        >>> isinstance(model[1], BatchNormReLU2d)
        True
    """
    layers = dict(module.named_modules())
    for name, layer in layers.items():
        known = isinstance(layer, nn.SyncBatchNorm | _Synchronized) or type(layer) in _SYNCHRONIZED
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and not known:
            raise TypeError(
                "synchronize_batch_norm: batch norms must be RegionBatchNorm2d, BatchNormReLU2d or "
                f'nn.BatchNorm2d, got {type(layer).__name__} as "{name}"'
            )
    for layer in layers.values():
        if type(layer) in _SYNCHRONIZED:
            layer.__class__ = _SYNCHRONIZED[type(layer)]


class _Synchronized(nn.BatchNorm2d):
    """What makes a batch norm train on the statistics of all processes' images."""

    grid: tuple[int, int]
    relu: bool

    def forward(self, input: Tensor) -> Tensor:
        return _over_all(self, input) if _shared(self) else super().forward(input)

    def is_plain(self) -> bool:
        return not _shared(self)


class SyncRegionBatchNorm2d(_Synchronized, RegionBatchNorm2d):
    """A `RegionBatchNorm2d` that trains on the statistics of all processes' images."""


class SyncBatchNormReLU2d(_Synchronized, BatchNormReLU2d):
    """A `BatchNormReLU2d` that trains on the statistics of all processes' images."""


class SyncBatchNorm2d(_Synchronized):
    """An `nn.BatchNorm2d` that trains on the statistics of all processes' images."""

    grid = (1, 1)
    relu = False


_SYNCHRONIZED: dict[type[nn.Module], type[nn.Module]] = {
    RegionBatchNorm2d: SyncRegionBatchNorm2d,
    BatchNormReLU2d: SyncBatchNormReLU2d,
    nn.BatchNorm2d: SyncBatchNorm2d,
}


def _shared(layer: nn.Module) -> bool:
    return layer.training and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _over_all(layer: _Synchronized, input: Tensor) -> Tensor:
    arguments = norm_arguments(layer)
    weight, bias, grid = arguments["weight"], arguments["bias"], layer.grid
    running = arguments["running_mean"], arguments["running_var"]
    # Checked as if outside training: one process alone cannot tell whether there are enough values.
    mean, var = running if running[0] is not None else [input.new_zeros(*grid, layer.num_features)] * 2
    reference.check_region_batch_norm(input, weight, bias, mean, var, grid, training=False)
    output, mean, var = _SyncBatchNorm.apply(  # type: ignore[no-untyped-call]
        input, weight, bias, grid, arguments["eps"], layer.relu
    )
    with torch.no_grad():
        for statistics, batch in zip(running, (mean, var), strict=True):
            if statistics is not None:
                statistics.lerp_(batch.to(statistics.dtype).view_as(statistics), arguments["momentum"])
    return output  # type: ignore[no-any-return]


class _Cells(NamedTuple):
    """A grid over images of one size. Values of cells are (gh, gw, C), in float64: they sum many pixels."""

    rows: Tensor
    """(gh, H), 1 where the row belongs to the cell, else 0."""
    columns: Tensor
    """(W, gw), the same for columns."""
    pixels: Tensor
    """(gh, gw, 1), the number of pixels in each cell."""
    row_of: Tensor
    """(H,), the cell of each row."""
    column_of: Tensor
    """(W,), the cell of each column."""

    def sum(self, x: Tensor) -> Tensor:
        """Sum (N, C, H, W) over the images and the pixels of each cell: (gh, gw, C)."""
        return (self.rows @ x.sum(0, dtype=torch.float64) @ self.columns).permute(1, 2, 0)

    def spread(self, per_cell: Tensor, dtype: torch.dtype) -> Tensor:
        """Give each pixel the value of its cell: (C, H, W), or (C, 1, 1) for a single cell."""
        per_cell = per_cell.to(dtype)
        if per_cell.shape[:2] != (1, 1):
            per_cell = per_cell[self.row_of][:, self.column_of]
        return per_cell.permute(2, 0, 1)


@lru_cache(64)
def _cells(grid: tuple[int, int], height: int, width: int, device: torch.device) -> _Cells:
    def cell_of(size: int, cells: int) -> Tensor:
        edges = torch.tensor(reference.cell_edges(size, cells))
        return torch.arange(cells).repeat_interleave(edges.diff())

    row_of, column_of = cell_of(height, grid[0]), cell_of(width, grid[1])
    rows = (row_of == torch.arange(grid[0])[:, None]).double()
    columns = (column_of[:, None] == torch.arange(grid[1])).double()
    pixels = rows.sum(1)[:, None, None] * columns.sum(0)[None, :, None]
    return _Cells(*(t.to(device) for t in (rows, columns, pixels, row_of, column_of)))


class _SyncBatchNorm(torch.autograd.Function):
    """The normalised input, and the mean and unbiased variance (gh, gw, C) of all processes' images."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        grid: tuple[int, int],
        eps: float,
        relu: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        with torch.inference_mode(False):  # cached tensors made in inference mode could not be trained with
            cells = _cells(grid, *input.shape[2:], input.device)
        x = full_precision(input)
        images = cells.pixels.new_full((1,), len(x))
        mean = cells.sum(x) / (images * cells.pixels).clamp_min(1)
        squares = cells.sum((x - cells.spread(mean, x.dtype)).square())
        # Means and squared deviations are joined as by Chan, Golub and LeVeque (1979), since sums of squares
        # would cancel. All processes join the same numbers in the same order, so that their statistics have
        # the same bits.
        packed = torch.cat([images, mean.flatten(), squares.flatten()])
        parts = [torch.empty_like(packed) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, packed)
        every = torch.stack(parts)
        images = every[:, :1, None, None]
        means, each_squares = (half.view(-1, *mean.shape) for half in every[:, 1:].chunk(2, 1))
        count = images.sum() * cells.pixels
        # The count is read back only where this process alone has too few values: a GPU would wait for it.
        height, width = input.shape[2:]
        if len(x) * (height // grid[0]) * (width // grid[1]) < 2 and count.min() < 2:
            raise ValueError(
                "region_batch_norm: a training batch must have more than 1 value per channel in each cell, "
                f"got {int(images.sum())} images of {height} x {width} on all processes with "
                f"{grid[0]} x {grid[1]} cells"
            )
        mean = (images * means).sum(0) / images.sum()
        squares = each_squares.sum(0) + (images * cells.pixels * (means - mean).square()).sum(0)
        scale = (squares / count + eps).rsqrt()
        factor = scale if weight is None else scale * weight.view(scale.shape).double()
        output = (x - cells.spread(mean, x.dtype)).mul_(cells.spread(factor, x.dtype))
        if bias is not None:
            output.add_(cells.spread(bias.view(scale.shape), x.dtype))
        if relu:
            output.relu_()
        output = output.to(input.dtype)
        var = squares / (count - 1)
        ctx.save_for_backward(input, weight, bias, mean, scale, count, output if relu else None)
        ctx.cells = cells
        ctx.mark_non_differentiable(mean, var)
        return output, mean, var

    @staticmethod
    @once_differentiable  # type: ignore[no-untyped-call, untyped-decorator]
    def backward(ctx: Any, grad_output: Tensor, *constants: Any) -> tuple[Tensor | None, ...]:
        input, weight, bias, mean, scale, count, output = ctx.saved_tensors
        cells: _Cells = ctx.cells
        grad, x = full_precision(grad_output), full_precision(input)
        if output is not None:
            grad = torch.where(output > 0, grad, 0)
        normalized = (x - cells.spread(mean, x.dtype)).mul_(cells.spread(scale, x.dtype))
        sums = torch.stack([cells.sum(grad), cells.sum(grad * normalized)])
        grad_bias = None if bias is None else sums[0].to(bias.dtype).view_as(bias)
        grad_weight = None if weight is None else sums[1].to(weight.dtype).view_as(weight)
        grad_input = None
        if ctx.needs_input_grad[0]:
            of_all = sums.clone()
            dist.all_reduce(of_all)
            of_mean, of_scale = (cells.spread(part, x.dtype) for part in of_all / count)
            factor = scale if weight is None else scale * weight.view(scale.shape).double()
            grad_input = (grad - of_mean - normalized * of_scale).mul_(cells.spread(factor, x.dtype))
            grad_input = grad_input.to(input.dtype)
        return grad_input, grad_weight, grad_bias, None, None, None
