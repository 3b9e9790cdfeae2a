"""Region batch normalisation: every cell of a grid has its own statistics, scale and shift."""

from __future__ import annotations

from torch import Tensor

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
    Cell i of grid_h spans rows ``floor(i * H / grid_h)`` to ``floor((i + 1) * H / grid_h)``, columns likewise:
    H and W need not divide.

    Args:
        input: (N, C, H, W), any strides; a channels_last input gives a channels_last output.
        weight, bias: (grid_h, grid_w, C), or for grid (1, 1) also (C,); both or neither.
        running_mean, running_var: of the same shape. In training each moves by ``momentum`` towards the mean
            and the unbiased variance of the batch, in place (both may be None); else they normalise the input.
        grid: cells (grid_h, grid_w).
        training: whether the batch's own statistics normalise it; gradients then flow through them.
        momentum: share of the batch in the running statistics.
        eps: added to the variance.
        relu: whether negative results become 0.

    Returns:
        (N, C, H, W) in the dtype of input, one out of float64, float32, float16 and bfloat16. All other tensors
        have that dtype or float32 (under autocast the op runs in the dtype of its input); arithmetic is float32,
        or float64 for a float64 input.

    Raises:
        ValueError: shapes or devices that do not fit; a training batch with a single value for a channel of a
            cell.
        TypeError: dtypes that do not fit.

    Gradients flow to input, weight and bias; differentiating twice, forward-mode differentiation and
    ``torch.func`` are not supported. Results are the same bits from run to run.
    """
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
