"""The ordinary 3 x 3 convolution, on the CPU by Winograd's algorithm where that is faster."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from jaa_ext import _library
from jaa_ext.ops import reference


def conv3x3(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    padding: int = 1,
    groups: int = 1,
    relu: bool = False,
    pool: bool = False,
    attention: Tensor | None = None,
    filters: Tensor | None = None,
) -> Tensor:
    """Compute ``max_pool2d(relu(conv2d(input * attention, weight, bias, padding=padding)), 2)`` of stride 1.

    Attention, ReLU and pooling are optional. In float32 on a CPU there are kernels: Winograd's F(4x4, 3x3)
    and direct ones, chosen by the size of one image. Everything else, also under autocast and in
    `torch.export`, goes through PyTorch's convolution.

    Args:
        input: (N, in_channels, H, W), any strides. The output is channels_last where input or weight is.
        weight: (out_channels, in_channels / groups, 3, 3).
        bias: (out_channels) or None.
        padding: rows and columns of zeros on each side, 0 or 1.
        groups: number of separate convolutions side by side, as in `torch.nn.functional.conv2d`.
        relu: whether ReLU follows.
        pool: whether 2 x 2 max-pooling of stride 2 follows, which drops a last odd row or column.
        attention: (N, 1, H, W) by which each channel of the input is multiplied first, or None; only for
            groups=1.
        filters: the weight as `conv3x3_filters` prepared it, which saves preparing it at each call; used only
            where no gradient is wanted.

    Returns:
        (N, out_channels, H', W'), H' = H + 2 * padding - 2, halved and rounded down by `pool`. All tensors
        share one dtype out of float64, float32, float16 and bfloat16. Under autocast they are cast to its
        dtype.

    Raises:
        ValueError: shapes, devices or padding that do not fit.
        TypeError: dtypes that do not fit.

    Gradients flow to input, weight, bias and attention; differentiating twice, forward-mode differentiation
    and ``torch.func`` are not supported. The kernels give the same bits from run to run, for any number of
    threads, and for an image alone and in a batch. Their errors are below 3e-6 of the largest value, so that
    an exact 0 may come out as a small number. A NaN or infinity in the input spreads to the tiles of 4 x 4
    outputs whose 6 x 6 inputs contain it, and no further.

    Example:
        >>> image, weight = torch.randn(2, 16, 45, 44), torch.randn(32, 16, 3, 3)
        >>> conv3x3(image, weight, relu=True, pool=True).shape
        torch.Size([2, 32, 22, 22])
    """
    if not has_kernel(input):
        return reference.conv3x3(
            input, weight, bias, padding=padding, groups=groups, relu=relu, pool=pool, attention=attention
        )
    tensors = (input, weight, bias, attention)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors):
        reference.check_conv3x3(input, weight, bias, padding, groups, pool, attention)
        x = input if attention is None else input * attention
        output: Tensor = torch.ops.jaa_ext.conv3x3(x, weight, bias, padding, groups)
        output = output.relu() if relu else output
        return F.max_pool2d(output, 2) if pool else output
    fused: Tensor = torch.ops.jaa_ext.conv3x3_fused(
        input, weight, filters, bias, attention, padding, groups, relu, pool
    )
    return fused


def conv3x3_filters(weight: Tensor, groups: int = 1) -> Tensor:
    """Prepare a weight for many calls of `conv3x3` without gradients.

    Args:
        weight: (out_channels, in_channels / groups, 3, 3).
        groups: of the convolution.

    Returns:
        A 1-D tensor, one group after the other, for `conv3x3` in this process only; about four times as many
        numbers as the weight, or none where there is nothing to prepare.

    Example:
        >>> image, weight = torch.randn(2, 16, 45, 44), torch.randn(32, 16, 3, 3)
        >>> output = conv3x3(image, weight, filters=conv3x3_filters(weight))
        >>> torch.testing.assert_close(output, conv3x3(image, weight))
    """
    if not has_kernel(weight):
        return weight.new_empty(0)
    filters: Tensor = torch.ops.jaa_ext.conv3x3_filters(weight.detach(), groups)
    return filters


def has_kernel(input: Tensor) -> bool:
    """Whether `conv3x3` runs its own kernels for an input like this one, not PyTorch's convolution."""
    return (
        input.device.type == "cpu"
        and input.dtype == torch.float32
        and "cpu" in _library.DEVICES
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_exporting()
    )


if _library.DEVICES:

    @torch.library.register_fake("jaa_ext::conv3x3")
    def _(input: Tensor, weight: Tensor, bias: Tensor | None, padding: int, groups: int) -> Tensor:
        reference.check_conv3x3(input, weight, bias, padding, groups, False, None)
        return _output_like(input, weight, padding, False)

    @torch.library.register_fake("jaa_ext::conv3x3_backward")
    def _(
        grad_output: Tensor, input: Tensor, weight: Tensor, padding: int, groups: int, output_mask: list[bool]
    ) -> tuple[Tensor, Tensor, Tensor]:
        grad_input = torch.empty_like(input, memory_format=_memory_format(input, weight))
        weight_format = torch._prims_common.suggest_memory_format(weight)
        grad_weight = torch.empty_like(weight, memory_format=weight_format)
        gradients = (grad_input, grad_weight, weight.new_empty(weight.shape[0]))
        return _library.wanted_only(gradients, output_mask)

    @torch.library.register_fake("jaa_ext::conv3x3_filters")
    def _(weight: Tensor, groups: int) -> Tensor:
        return weight.new_empty(torch.library.get_ctx().new_dynamic_size())

    @torch.library.register_fake("jaa_ext::conv3x3_fused")
    def _(
        input: Tensor,
        weight: Tensor,
        filters: Tensor | None,
        bias: Tensor | None,
        attention: Tensor | None,
        padding: int,
        groups: int,
        relu: bool,
        pool: bool,
    ) -> Tensor:
        reference.check_conv3x3(input, weight, bias, padding, groups, pool, attention)
        return _output_like(input, weight, padding, pool)


def _output_like(input: Tensor, weight: Tensor, padding: int, pool: bool) -> Tensor:
    height, width = (side + 2 * padding - 2 for side in input.shape[2:])
    if pool:
        height, width = height // 2, width // 2
    return input.new_empty((input.shape[0], weight.shape[0], height, width)).to(
        memory_format=_memory_format(input, weight)
    )


def _memory_format(input: Tensor, weight: Tensor) -> torch.memory_format:
    """The memory format of the output, by the rule of torch's own convolutions."""
    formats = [torch._prims_common.suggest_memory_format(tensor) for tensor in (input, weight)]
    return torch.channels_last if torch.channels_last in formats else torch.contiguous_format
