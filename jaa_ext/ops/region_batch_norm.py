"""Region batch normalisation: each cell of a grid has its own statistics, scale and shift."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from jaa_ext import _library
from jaa_ext.ops import reference


def region_batch_norm(
    input: Tensor,
    *,
    grid: tuple[int, int],
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool,
    momentum: float = 0.1,
    eps: float = 1e-5,
    relu: bool = False,
) -> Tensor:
    """Normalise each channel of each cell of a grid by its mean and variance, then scale and shift it.

    It is one `torch.nn.BatchNorm2d` (Ioffe and Szegedy 2015, algorithm 1) a cell; grid (1, 1) is the ordinary
    one. Cell i of grid_h spans rows ``floor(i * H / grid_h)`` up to ``floor((i + 1) * H / grid_h)``, columns
    likewise, so that the grid need not divide H and W.

    Args:
        input: (N, C, H, W), any strides; a channels_last input gives a channels_last output.
        grid: cells (grid_h, grid_w).
        running_mean, running_var: (grid_h, grid_w, C), or for grid (1, 1) also (C,). In training each moves
            in place by ``momentum`` towards the mean and the unbiased variance of the batch, and both may be
            None; otherwise they normalise the input.
        weight, bias: scale and shift, of the same shape; both or neither.
        training: whether the batch's own statistics normalise it; gradients then flow through them.
        momentum: share of the batch in the running statistics.
        eps: added to the variance.
        relu: whether negative results become 0.

    Returns:
        (N, C, H, W) in the dtype of input, one out of float64, float32, float16 and bfloat16, also under
        autocast. All other tensors have that dtype or float32; arithmetic is float32, or float64 for a
        float64 input.

    Raises:
        ValueError: shapes or devices that do not fit; a training batch with a single value for a channel of a
            cell.
        TypeError: dtypes that do not fit.

    Gradients flow to input, weight and bias; differentiating twice, forward-mode differentiation and
    ``torch.func`` are not supported. Results are the same bits from run to run.

    Example:
        >>> mean, var = torch.zeros(4, 4, 8), torch.ones(4, 4, 8)
        >>> output = region_batch_norm(
        ...     torch.randn(2, 8, 30, 44), grid=(4, 4), running_mean=mean, running_var=var, training=True
        ... )
        >>> output.shape
        torch.Size([2, 8, 30, 44])
    """
    if not _library.has_kernel(input.device):
        return reference.region_batch_norm(
            input,
            grid=grid,
            running_mean=running_mean,
            running_var=running_var,
            weight=weight,
            bias=bias,
            training=training,
            momentum=momentum,
            eps=eps,
            relu=relu,
        )
    output: Tensor
    output, mean, var = torch.ops.jaa_ext.region_batch_norm(
        input, weight, bias, running_mean, running_var, grid, training, eps, relu
    )
    if training and running_mean is not None and running_var is not None:
        batch = [mean.to(running_mean.dtype), var.to(running_var.dtype)]
        torch._foreach_lerp_([running_mean, running_var], batch, momentum)
    return output


if _library.DEVICES:

    @torch.library.register_fake("jaa_ext::region_batch_norm")
    def _(
        input: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        grid: Sequence[int],
        training: bool,
        eps: float,
        relu: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        reference.check_region_batch_norm(input, weight, bias, running_mean, running_var, grid, training)
        output = torch.empty_like(input, memory_format=torch._prims_common.suggest_memory_format(input))
        dtype = torch.float64 if input.dtype == torch.float64 else torch.float32
        shape = [0]
        if training:
            shape = [*grid, input.shape[1]] if running_mean is None else list(running_mean.shape)
        return output, input.new_empty(shape, dtype=dtype), input.new_empty(shape, dtype=dtype)

    @torch.library.register_fake("jaa_ext::region_batch_norm_backward")
    def _(
        grad_output: Tensor,
        input: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        var: Tensor,
        grid: Sequence[int],
        training: bool,
        eps: float,
        relu: bool,
        output_mask: list[bool],
    ) -> tuple[Tensor, Tensor, Tensor]:
        grad_input = torch.empty_like(input, memory_format=torch._prims_common.suggest_memory_format(input))
        of_parameters = (None if p is None else p.new_empty(p.shape) for p in (weight, bias))
        return _library.wanted_only((grad_input, *of_parameters), output_mask)
