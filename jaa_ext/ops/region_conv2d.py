"""Region convolution: each cell of a grid has its own filters."""

from __future__ import annotations

import torch
from torch import Tensor

from jaa_ext import _library
from jaa_ext.ops import reference
from jaa_ext.ops.reference import Border


def region_conv2d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, *, border: Border = "cell"
) -> Tensor:
    """Convolve each cell of a grid with filters of its own, at stride 1; the output is as large as the input.

    This is the locally shared convolution of DRML's region layer and of the hierarchical and multi-scale
    region layer (ECCV 2018, section 3.1). Cell i of grid_h spans rows ``floor(i * H / grid_h)`` up to
    ``floor((i + 1) * H / grid_h)``, columns likewise, so that the grid need not divide H and W.

    Args:
        input: (N, in_channels, H, W), any strides; a channels_last input gives a channels_last output.
        weight: (grid_h, grid_w, out_channels, in_channels, kernel_h, kernel_w), odd kernel sides.
        bias: (grid_h, grid_w, out_channels) or None.
        border: "cell" pads each cell by itself with zeros, as JAA-Net does; "image" reads across the borders
            between cells and pads only the image with zeros.

    Returns:
        (N, out_channels, H, W). All tensors share one dtype out of float64, float32, float16 and bfloat16;
        half types accumulate in float32. Under autocast all three are cast to its dtype. On a GPU float32
        factors are rounded to TensorFloat-32 where ``torch.backends.cudnn.allow_tf32`` lets convolutions do
        so, which is PyTorch's default.

    Raises:
        ValueError: shapes, devices or border that do not fit.
        TypeError: dtypes that do not fit.

    Gradients flow to input, weight and bias; differentiating twice, forward-mode differentiation and
    ``torch.func`` are not supported. Results are the same bits from run to run. On a CPU cells of 100 pixels
    and more of channels_last images, with 3 x 3 filters and 8 channels and more in float32, go through
    Winograd's F(4x4, 3x3), as in `conv3x3`: there a NaN or infinity spreads to the tiles of 4 x 4 outputs of
    its cell whose 6 x 6 inputs contain it.

    Example:
        >>> image, weight = torch.randn(2, 3, 30, 44), torch.randn(4, 4, 8, 3, 3, 3)
        >>> region_conv2d(image, weight, border="image").shape
        torch.Size([2, 8, 30, 44])
    """
    if not _library.has_kernel(input.device):
        return reference.region_conv2d(input, weight, bias, border=border)
    output: Tensor = torch.ops.jaa_ext.region_conv2d(input, weight, bias, border)
    return output


if _library.DEVICES:

    @torch.library.register_fake("jaa_ext::region_conv2d")
    def _(input: Tensor, weight: Tensor, bias: Tensor | None, border: Border) -> Tensor:
        reference.check_region_conv2d(input, weight, bias, border)
        batch, _, height, width = input.shape
        return input.new_empty((batch, weight.shape[2], height, width)).to(
            memory_format=torch._prims_common.suggest_memory_format(input)
        )

    @torch.library.register_fake("jaa_ext::region_conv2d_backward")
    def _(
        grad_output: Tensor, input: Tensor, weight: Tensor, border: Border, output_mask: list[bool]
    ) -> tuple[Tensor, Tensor, Tensor]:
        grad_input = torch.empty_like(input, memory_format=torch._prims_common.suggest_memory_format(input))
        gradients = (grad_input, weight.new_empty(weight.shape), weight.new_empty(weight.shape[:3]))
        return _library.wanted_only(gradients, output_mask)
