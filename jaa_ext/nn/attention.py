"""Adaptive attention learning: feature stacks, refinement of attention maps, local features of AUs.

The branches of the AUs are kept as one grouped layer. With k output channels an AU, rows ``i * k`` to
``(i + 1) * k - 1`` of its weight, bias and batch-norm tensors are the branch of AU i, in the order of the
maps: the tensors of separate branches, concatenated along dimension 0, are the tensor of the grouped layer.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from functools import partial, reduce
from itertools import pairwise
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook
from torch.nn.utils.fusion import fuse_conv_bn_weights

from jaa_ext.nn.conv import Conv3x3, FoldedConv3x3, by_group, chunks, is_3x3
from jaa_ext.nn.region import BatchNormReLU2d, norm_arguments, reset_layers
from jaa_ext.ops import region_batch_norm
from jaa_ext.ops.conv3x3 import has_kernel

MAX_GROUPED_IMAGE_ELEMENTS = 250_000
"""Elements of the first layer's output, for one image, up to which groups run together on a CPU in float32.

It counts one image, not the batch, so that an image gives the same bits alone and in a batch.
"""

MAX_GROUPED_BATCH_ELEMENTS = 6_000_000
"""The same bound for a whole batch, where `jaa_ext.ops.conv3x3` has no kernels."""


class GroupedSequential(nn.Sequential):
    """Several stacks of convolutions, batch norms and poolings side by side, one stack a group.

    Large images on a CPU go through one group after the other, each with its rows of the parameters, so that
    what a group computes stays in the cache. Everything else goes through the grouped layers, which need
    fewer calls; so does a stack with hooks or with a layer that cannot be split. The results are the same.
    For refinement and local features of 12 AUs, inference in float32 on one core of Zen 4 takes 59 ms grouped
    and 52 one by one with an image of 176 pixels and c = 8, but 5.0 and 6.5 ms with 64 pixels and c = 4.

    Args:
        groups: number of groups.
        layers: grouped `nn.Conv2d`, `BatchNormReLU2d`, and any others that keep the groups apart; or, as for
            `nn.Sequential`, one `OrderedDict` of them.

    Shape:
        (N, groups * C, H, W) -> (N, groups * C', H', W').

    Example:
        >>> stacks = GroupedSequential(2, nn.Conv2d(6, 8, 3, groups=2), BatchNormReLU2d(8), nn.MaxPool2d(2))
        >>> stacks(torch.randn(1, 6, 16, 16)).shape
        torch.Size([1, 8, 7, 7])
    """

    def __init__(self, groups: int, *layers: nn.Module | OrderedDict[str, nn.Module]) -> None:
        super().__init__(*layers)  # type: ignore[arg-type]
        self.groups = groups

    def reset_parameters(self) -> None:
        reset_layers(self)

    def __getitem__(self, index: slice | int) -> Any:
        """Return a layer, or for a slice a `GroupedSequential` that shares the layers."""
        if not isinstance(index, slice):
            return super().__getitem__(index)
        return GroupedSequential(self.groups, OrderedDict(list(self._modules.items())[index]))  # type: ignore[arg-type]

    def forward(self, input: Tensor) -> Tensor:
        if not self.one_by_one(input):
            output: Tensor = super().forward(input)  # type: ignore[no-untyped-call]
            return output
        parts = zip(self.branches(), input.chunk(self.groups, 1), strict=True)
        return torch.cat([branch(part) for branch, part in parts], 1)

    def one_by_one(self, input: Tensor) -> bool:
        """Whether groups run one after the other for an input (N, any number, H, W): where that is faster.

        They never do in `torch.export`, whose program is for batches of any size and for other processors.
        """
        if (
            torch.compiler.is_exporting()
            or input.device.type != "cpu"
            or input.dim() != 4
            or self.groups == 1
        ):
            return False
        widths = (
            layer.out_channels if isinstance(layer, nn.Conv2d) else layer.num_features
            for layer in self
            if isinstance(layer, nn.Conv2d | BatchNormReLU2d)
        )
        size = next(widths, 0) * input.shape[2] * input.shape[3]
        if has_kernel(input):
            large = size > MAX_GROUPED_IMAGE_ELEMENTS
        else:
            large = input.shape[0] * size > MAX_GROUPED_BATCH_ELEMENTS
        return large and self._can_be_split()

    def _can_be_split(self) -> bool:
        """Whether `branches` gives the same results as calling the layers one after the other."""
        layers = [layer for layer in self if type(layer) is not nn.Identity]
        return (
            not _has_any_global_hook()  # type: ignore[no-untyped-call]
            and not any(_is_changed(module) for module in (self, *self))
            and all(_keeps_groups_apart(layer, self.groups) for layer in layers)
            # Any other layer could work in place, on a chunk of the caller's input.
            and isinstance(layers[0], nn.Conv2d | BatchNormReLU2d)
        )

    def branches(self) -> list[Callable[..., Tensor]]:
        """Each group's layers as one function, (N, C, H, W) -> (N, C', H', W'), to be called once.

        It also takes a map ``attention`` (N, 1, H, W), by which it multiplies the input first.
        """
        layers = [layer for layer in self if not isinstance(layer, nn.Identity)]
        functions = zip(*(_split(layer, self.groups) for layer in layers), strict=True)
        return [partial(_apply, each, _is_group_of_3x3(layers[0], self.groups)) for each in functions]

    def extra_repr(self) -> str:
        return f"groups={self.groups}"

    @torch.no_grad()
    def fold(self) -> None:
        """Fold each batch norm into the convolution before it: the same results in evaluation mode.

        A 3 x 3 convolution also takes in the ReLU, and 2 x 2 max-pooling, behind it. From its first image on
        a CPU in float32 it keeps its filters transformed, at four times the memory of the weight.
        """
        for i in range(len(self)):
            if type(self[i]) in (nn.Conv2d, Conv3x3) and not _is_changed(self[i]):
                relu = self._fold_norm(i)
                if _is_group_of_3x3(self[i], self.groups):
                    pool = relu and self._fold_pool(i + 1)
                    self[i] = FoldedConv3x3(self[i], relu=relu, pool=pool)

    def _fold_norm(self, i: int) -> bool:
        """Fold the batch norm behind convolution i, which leaves a ReLU; whether there was one."""
        norm = self[i + 1] if i + 1 < len(self) else None
        if not (isinstance(norm, BatchNormReLU2d) and norm.is_plain()) or _is_changed(norm):
            return False
        mean, var = norm.running_mean, norm.running_var
        if mean is None or var is None:
            return False
        self[i] = folded = copy.deepcopy(self[i])
        folded.weight, folded.bias = fuse_conv_bn_weights(
            folded.weight, folded.bias, mean, var, norm.eps, norm.weight, norm.bias
        )
        self[i + 1] = nn.ReLU(inplace=True)
        return True

    def _fold_pool(self, i: int) -> bool:
        """Take out the ReLU i and the 2 x 2 max-pooling behind it; whether there was one."""
        self[i] = nn.Identity()
        for j in range(i + 1, len(self)):
            if _is_changed(self[j]) or not (_is_2x2(self[j]) or type(self[j]) is nn.Identity):
                return False
            if _is_2x2(self[j]):
                self[j] = nn.Identity()
                return True
        return False


class FeatureStack(GroupedSequential):
    """Stack P of ECCV 2018, section 3.2: three stages of two convolutions and 2 x 2 max-pooling.

    Each 3 x 3 convolution is followed by batch norm and ReLU. The stages have 12c, 16c and 20c channels:
    P(l/4, l/4, 3c), P(l/8, l/8, 4c) and P(l/16, l/16, 5c) of the paper.

    Args:
        in_channels: input channels of one group.
        width: unit width c.
        groups: number of separate stacks; group i reads input channels ``i * in_channels`` onwards.

    Shape:
        (N, groups * in_channels, H, W) -> (N, groups * 20c, H // 8, W // 8), H and W at least 8.

    Example:
        >>> FeatureStack(64, 8)(torch.randn(1, 64, 44, 44)).shape
        torch.Size([1, 160, 5, 5])
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        *,
        groups: int = 1,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        widths = [12 * width, 16 * width, 20 * width]
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        layers: list[nn.Module] = []
        for before, after in pairwise([in_channels, *widths]):
            layers += _conv_bn_relu(before, after, groups, padding=1, **factory)
            layers += _conv_bn_relu(after, after, groups, padding=1, **factory)
            layers.append(nn.MaxPool2d(2))
        super().__init__(groups, *layers)
        self.in_channels, self.out_channels, self.width = in_channels, widths[-1], width

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.width}, groups={self.groups}"


class AttentionRefinement(GroupedSequential):
    """A branch for each AU that refines its initial attention map (ECCV 2018, section 3.3).

    A branch has four unpadded 3 x 3 convolutions, 1 -> 8c -> 8c -> 8c -> 1, the first three with batch norm
    and ReLU, and a sigmoid. The sigmoid is computed in the dtype of the maps, also where autocast runs the
    convolutions in half precision.

    Args:
        width: unit width c.
        num_aus: number of AUs A.

    Shape:
        initial maps (N, A, m + 8, m + 8) -> refined maps (N, A, m, m) of weights in 0..1.

    Example:
        >>> AttentionRefinement(8, num_aus=12)(torch.rand(1, 12, 52, 52)).shape
        torch.Size([1, 12, 44, 44])
    """

    def __init__(
        self,
        width: int,
        *,
        num_aus: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        super().__init__(
            num_aus,
            *_conv_bn_relu(1, 8 * width, num_aus, padding=0, **factory),
            *_conv_bn_relu(8 * width, 8 * width, num_aus, padding=0, **factory),
            *_conv_bn_relu(8 * width, 8 * width, num_aus, padding=0, **factory),
            Conv3x3(num_aus * 8 * width, num_aus, padding=0, groups=num_aus, **factory),
        )
        self.width = width

    def forward(self, maps: Tensor) -> Tensor:
        return super().forward(maps).to(maps.dtype).sigmoid()

    def extra_repr(self) -> str:
        return f"{self.width}, num_aus={self.groups}"


class LocalFeatures(nn.Module):
    """Features of each AU from where its attention lies: P_i(features * map_i), a `FeatureStack` for each AU.

    Args:
        in_channels: channels C of the shared features.
        width: unit width c of the stacks.
        num_aus: number of AUs A.

    Shape:
        features (N, C, H, W), maps (N, A, H, W) -> (N, A, 20c, H // 8, W // 8).

    Example:
        >>> features, maps = torch.randn(1, 64, 44, 44), torch.rand(1, 12, 44, 44)
        >>> LocalFeatures(64, 8, num_aus=12)(features, maps).shape
        torch.Size([1, 12, 160, 5, 5])
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        *,
        num_aus: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.num_aus = num_aus
        self.stack = FeatureStack(in_channels, width, groups=num_aus, device=device, dtype=dtype)

    def reset_parameters(self) -> None:
        self.stack.reset_parameters()

    def forward(self, features: Tensor, maps: Tensor) -> Tensor:
        maps = maps.to(features.dtype)
        if self.stack.one_by_one(features):
            parts = zip(self.stack.branches(), maps.chunk(self.num_aus, 1), strict=True)
            return torch.stack([branch(features, attention=part) for branch, part in parts], 1)
        attended = features.unsqueeze(1) * maps.unsqueeze(2)
        local: Tensor = self.stack(attended.flatten(1, 2))
        return local.reshape(local.shape[0], self.num_aus, self.stack.out_channels, *local.shape[2:])

    def extra_repr(self) -> str:
        return f"{self.stack.in_channels}, {self.stack.width}, num_aus={self.num_aus}"


def _conv_bn_relu(
    in_channels: int, out_channels: int, groups: int, padding: int, **factory: Any
) -> list[nn.Module]:
    return [
        Conv3x3(groups * in_channels, groups * out_channels, padding=padding, groups=groups, **factory),
        BatchNormReLU2d(groups * out_channels, **factory),
        nn.Identity(),  # in the place of a ReLU: files name tensors by the numbers of their layers
    ]


def _is_changed(module: nn.Module) -> bool:
    """Whether calling the module does more, or else, than the `forward` of its class."""
    hooks = (
        module._forward_hooks,
        module._forward_pre_hooks,
        module._backward_hooks,
        module._backward_pre_hooks,
    )
    return any(hooks) or "forward" in vars(module)


def _is_group_of_3x3(layer: nn.Module, groups: int) -> TypeGuard[nn.Conv2d]:
    """Whether each group of the layer is what `jaa_ext.ops.conv3x3` computes."""
    return isinstance(layer, nn.Conv2d) and layer.groups == groups and is_3x3(layer)


def _is_2x2(layer: nn.Module) -> bool:
    """Whether the layer is the max-pooling that `jaa_ext.ops.conv3x3` computes."""
    return (
        type(layer) is nn.MaxPool2d
        and layer.kernel_size in (2, (2, 2))
        and layer.stride in (2, (2, 2))
        and layer.padding in (0, (0, 0))
        and layer.dilation in (1, (1, 1))
        and not layer.ceil_mode
        and not layer.return_indices
    )


def _keeps_groups_apart(layer: nn.Module, groups: int) -> bool:
    """Whether `_split` can split the layer: each group of the output reads that group of the input alone."""
    if type(layer) is FoldedConv3x3:
        return layer.groups == groups
    # Other subclasses, parametrized ones too, may convolve with other weights.
    if type(layer) is nn.Conv2d or type(layer) is Conv3x3:
        return layer.groups % groups == 0 and layer.padding_mode == "zeros"
    if isinstance(layer, BatchNormReLU2d):
        return layer.is_plain() and layer.num_features % groups == 0
    return type(layer) in (nn.ReLU, nn.Sigmoid, nn.AvgPool2d) or (
        type(layer) is nn.MaxPool2d and not layer.return_indices
    )


def _split(layer: nn.Module, groups: int) -> list[Callable[..., Tensor]]:
    """Split a layer into one function a group, which uses views of its tensors."""
    if _is_group_of_3x3(layer, groups):
        return by_group(layer)
    if isinstance(layer, nn.Conv2d):
        options = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation}
        convolution = partial(F.conv2d, groups=layer.groups // groups, **options)
        parameters = zip(chunks(layer.weight, groups), chunks(layer.bias, groups), strict=True)
        return [partial(convolution, weight=weight, bias=bias) for weight, bias in parameters]
    if isinstance(layer, BatchNormReLU2d):
        arguments = norm_arguments(layer)
        names = ("weight", "bias", "running_mean", "running_var")
        tensors = zip(*(chunks(arguments.pop(name), groups) for name in names), strict=True)
        norm = partial(region_batch_norm, **arguments, grid=layer.grid, relu=layer.relu)
        return [partial(norm, **dict(zip(names, part, strict=True))) for part in tensors]
    return [layer] * groups


def _apply(
    functions: tuple[Callable[..., Tensor], ...],
    takes_attention: bool,
    input: Tensor,
    attention: Tensor | None = None,
) -> Tensor:
    first, *others = functions
    if attention is None:
        output = first(input)
    else:
        output = first(input, attention=attention) if takes_attention else first(input * attention)
    return reduce(lambda x, function: function(x), others, output)
