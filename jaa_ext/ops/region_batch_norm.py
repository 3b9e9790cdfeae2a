"""Region batch normalisation: every cell of a grid has its own statistics, scale and shift."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from jaa_ext import _library
from jaa_ext.ops import reference


def region_batch_norm(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    *,
    grid: tuple[int, int],
    training: bool,
    momentum: float = 0.1,
    eps: float = 1e-5,
    relu: bool = False,
) -> Tensor:
    """Normalise each channel of each cell of a grid by its mean and variance, scale and shift it; maybe ReLU.

    One `torch.nn.BatchNorm2d` (Ioffe and Szegedy 2015, algorithm 1) a cell; grid (1, 1) is the ordinary one.
    Cell i of grid_h spans rows ``floor(i * H / grid_h)`` to ``floor((i + 1) * H / grid_h)``, columns
    likewise: H and W need not divide.

    Args:
        input: (N, C, H, W), any strides; a channels_last input gives a channels_last output.
        weight, bias: (grid_h, grid_w, C), or for grid (1, 1) also (C,); both or neither.
        running_mean, running_var: of the same shape. In training each moves by ``momentum`` towards the mean
            and the unbiased variance of the batch, in place (both may be None); else they normalise the
            input.
        grid: cells (grid_h, grid_w).
        training: whether the batch's own statistics normalise it; gradients then flow through them.
        momentum: share of the batch in the running statistics.
        eps: added to the variance.
        relu: whether negative results become 0.

    Returns:
        (N, C, H, W) in the dtype of input, one out of float64, float32, float16 and bfloat16. All other
        tensors have that dtype or float32 (under autocast the op runs in the dtype of its input); arithmetic
        is float32, or float64 for a float64 input.

    Raises:
        ValueError: shapes or devices that do not fit; a training batch with a single value for a channel of a
            cell.
        TypeError: dtypes that do not fit.

    Gradients flow to input, weight and bias; differentiating twice, forward-mode differentiation and
    ``torch.func`` are not supported. Results are the same bits from run to run.
    """
    if not _library.has_kernel(input.device):
        return reference.region_batch_norm(
            input,
            weight,
            bias,
            running_mean,
            running_var,
            grid=grid,
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
        memory_format = torch._prims_common.suggest_memory_format(input)
        grad_input = torch.empty_like(input, memory_format=memory_format)
        nothing = input.new_empty(0)

        def like(parameter: Tensor | None, wanted: bool) -> Tensor:
            return (
                parameter.new_empty(parameter.shape)
                if wanted and parameter is not None
                else input.new_empty(0)
            )

        return (
            grad_input if output_mask[0] else nothing,
            like(weight, output_mask[1]),
            like(bias, output_mask[2]),
        )
