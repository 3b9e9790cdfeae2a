"""3 x 3 convolutions computed by `jaa_ext.ops.conv3x3`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from jaa_ext.ops import conv3x3, conv3x3_filters
from jaa_ext.ops.conv3x3 import has_kernel


class Conv3x3(nn.Conv2d):
    """An `nn.Conv2d` of kernel 3 and stride 1, computed by `jaa_ext.ops.conv3x3`: faster in float32 on a CPU.

    Parameters, their initial values and their names are those of `nn.Conv2d`. An input without a batch
    dimension goes through PyTorch's convolution.

    Args:
        in_channels, out_channels: channels of input and output.
        padding: rows and columns of zeros on each side, 0 or 1.
        groups: number of separate convolutions, one beside the other.
        bias: whether each output channel adds a bias.

    Shape:
        (N, in_channels, H, W) -> (N, out_channels, H + 2 * padding - 2, W + 2 * padding - 2), memory format
        kept.

    Raises:
        ValueError: another padding; in forward, an input that does not fit.

    Example:
        >>> Conv3x3(16, 32, padding=1)(torch.randn(2, 16, 45, 44)).shape
        torch.Size([2, 32, 45, 44])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        padding: int = 1,
        groups: int = 1,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if padding not in (0, 1):
            raise ValueError(f"Conv3x3: padding must be 0 or 1, got {padding}")
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        super().__init__(in_channels, out_channels, 3, padding=padding, groups=groups, bias=bias, **factory)

    def forward(self, input: Tensor) -> Tensor:
        if input.dim() != 4 or not is_3x3(self):
            return super().forward(input)
        padding = int(self.padding[0])
        return conv3x3(input, self.weight, self.bias, padding=padding, groups=self.groups)

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, padding={self.padding[0]}"
        text += f", groups={self.groups}" if self.groups != 1 else ""
        return text if self.bias is not None else text + ", bias=False"


def is_3x3(layer: nn.Conv2d) -> bool:
    """Whether `jaa_ext.ops.conv3x3` computes the layer, one group at a time."""
    return (
        layer.kernel_size == (3, 3)
        and layer.stride == (1, 1)
        and layer.dilation == (1, 1)
        and layer.padding in ((0, 0), (1, 1))
        and layer.padding_mode == "zeros"
    )


class FoldedConv3x3(Conv3x3):
    """A 3 x 3 convolution for inference, and the ReLU and 2 x 2 max-pooling behind it, in one call.

    On a CPU in float32, and for a weight that requires no gradient, the layer keeps its filters as
    `jaa_ext.ops.conv3x3_filters` makes them: from the first call until weight, device or dtype change. Beside
    the weight they take four times its memory (36 numbers for 9); files and copies of the layer leave them
    out. A change that torch does not count, as by ``weight.data.mul_()``, goes unnoticed.

    Args:
        convolution: one of which `is_3x3` is true; the layer shares its parameters.
        relu: whether ReLU follows.
        pool: whether 2 x 2 max-pooling of stride 2 follows.
    """

    def __init__(self, convolution: nn.Conv2d, *, relu: bool, pool: bool) -> None:
        super().__init__(
            convolution.in_channels,
            convolution.out_channels,
            padding=int(convolution.padding[0]),
            groups=convolution.groups,
            bias=convolution.bias is not None,
            device="meta",
        )
        self.weight, self.bias = convolution.weight, convolution.bias
        self.train(convolution.training)
        self.relu, self.pool = relu, pool
        self._kept: _Kept | None = None

    def forward(self, input: Tensor) -> Tensor:
        images = input if input.dim() == 4 else input.unsqueeze(0)
        options = {"groups": self.groups, "filters": self.filters(), **_options(self)}
        output = conv3x3(images, self.weight, self.bias, **options)
        return output if input.dim() == 4 else output.squeeze(0)

    def filters(self) -> Tensor | None:
        """The weight as `conv3x3_filters` prepares it; None where preparing it is of no use."""
        weight = self.weight
        if (
            not has_kernel(weight)
            or torch.compiler.is_compiling()  # a compiled program cannot ask whether the weight has changed
            or weight.is_inference()  # such a tensor does not count its changes
            or weight.requires_grad  # fused optimizers change it without counting
        ):
            return None
        kept = self._kept
        if kept is None or (kept.address, kept.version) != (weight.data_ptr(), weight._version):
            filters = conv3x3_filters(weight, self.groups)
            kept = _Kept(weight.detach(), weight.data_ptr(), weight._version, filters)
            self._kept = kept  # in one assignment: threads that share the layer see all of it or nothing
        return kept.filters

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, relu={self.relu}, pool={self.pool}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FoldedConv3x3:
        self._kept = None
        return super()._apply(fn, recurse)  # type: ignore[no-any-return, no-untyped-call]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": None}


class _Kept(NamedTuple):
    weight: Tensor
    """The weight that the filters were made from; held, so that no other tensor gets its address."""
    address: int
    version: int
    filters: Tensor


def by_group(layer: nn.Conv2d) -> list[Callable[..., Tensor]]:
    """Split a layer of which `is_3x3` is true into one function a group.

    Each is `conv3x3` with the group's weight, bias and prepared filters.
    """
    filters = layer.filters() if isinstance(layer, FoldedConv3x3) else None
    each = zip(*(chunks(tensor, layer.groups) for tensor in (layer.weight, layer.bias, filters)), strict=True)
    return [partial(conv3x3, weight=w, bias=b, filters=f, **_options(layer)) for w, b, f in each]


def _options(layer: nn.Conv2d) -> dict[str, Any]:
    """What `conv3x3` takes besides groups and tensors."""
    fused = {"relu": layer.relu, "pool": layer.pool} if isinstance(layer, FoldedConv3x3) else {}
    return {"padding": int(layer.padding[0]), **fused}


def chunks(tensor: Tensor | None, groups: int) -> Sequence[Any]:
    """Divide a layer's tensor among its groups; a layer without it has None in each."""
    return [None] * groups if tensor is None else tensor.chunk(groups)
