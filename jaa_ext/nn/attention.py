"""Adaptive attention learning: plain feature stacks, refinement of attention maps, local features of AUs.

What is separate for each AU is kept as one grouped layer. In a grouped layer with k output channels an AU, rows
``i * k`` to ``(i + 1) * k - 1`` of the weight, bias and batch-norm tensors are the layer of AU i, in the order
of the maps: the tensors of separate branches, concatenated along dimension 0, are the grouped tensor.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial, reduce
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FORM = os.environ.get("FORM", "apart")


class GroupedSequential(nn.Sequential):
    """Layers with groups of their own"""

    def __init__(self, groups: int, *layers: nn.Module) -> None:
        super().__init__(*layers)
        self.groups = groups

    def forward(self, input: Tensor) -> Tensor:
        if not self.apart(input):
            output: Tensor = super().forward(input)
            return output
        parts = zip(self.branches(), input.chunk(self.groups, 1), strict=True)
        return torch.cat([branch(part) for branch, part in parts], 1)

    def apart(self, input: Tensor) -> bool:
        return self.groups > 1 and not input.is_cuda and FORM == "apart"

    def branches(self) -> list[Callable[[Tensor], Tensor]]:
        """The layers of each group as a function of their own, over views of the parameters."""
        layers = [_split(layer, self.groups) for layer in self]
        return [partial(_chain, branch) for branch in zip(*layers, strict=True)]


class FeatureStack(GroupedSequential):
    """Stack P: three stages of two 3 x 3 convolutions (batch norm, ReLU), each stage followed by max-pooling.

    The stages are 12c, 16c and 20c channels wide: P(l/4, l/4, 3c), P(l/8, l/8, 4c) and P(l/16, l/16, 5c) of
    ECCV 2018, section 3.2.

    Args:
        in_channels: channels of the input of one group.
        width: unit width c.
        groups: number of separate stacks; group i reads input channels ``i * in_channels`` onwards.

    Shape:
        (N, groups * in_channels, H, W) -> (N, groups * 20c, H // 8, W // 8), H and W at least 8.
    """

    def __init__(self, in_channels: int, width: int, groups: int = 1) -> None:
        widths = [12 * width, 16 * width, 20 * width]
        layers: list[nn.Module] = []
        for before, after in pairwise([in_channels, *widths]):
            layers += _conv_bn_relu(before, after, groups, padding=1)
            layers += _conv_bn_relu(after, after, groups, padding=1)
            layers.append(nn.MaxPool2d(2))
        super().__init__(groups, *layers)
        self.out_channels = widths[-1]


class AttentionRefinement(GroupedSequential):
    """Refine the initial attention map of each AU by a branch of its own (ECCV 2018, section 3.3).

    Four unpadded 3 x 3 convolutions, 1 -> 8c -> 8c -> 8c -> 1, the first three with batch norm and ReLU; a
    sigmoid, computed in the dtype of the maps even where autocast runs the convolutions in half precision.

    Args:
        aus: number of AUs A.
        width: unit width c.

    Shape:
        initial maps (N, A, m + 8, m + 8) -> refined maps (N, A, m, m) of weights in 0..1.
    """

    def __init__(self, aus: int, width: int) -> None:
        super().__init__(
            aus,
            *_conv_bn_relu(1, 8 * width, aus, padding=0),
            *_conv_bn_relu(8 * width, 8 * width, aus, padding=0),
            *_conv_bn_relu(8 * width, 8 * width, aus, padding=0),
            nn.Conv2d(aus * 8 * width, aus, 3, groups=aus),
        )

    def forward(self, maps: Tensor) -> Tensor:
        return super().forward(maps).to(maps.dtype).sigmoid()


class LocalFeatures(nn.Module):
    """Features of each AU from where its attention lies: P_i(features * map_i), own weights for each AU.

    Args:
        in_channels: channels C of the shared features.
        width: unit width c of the stacks.
        aus: number of AUs A.

    Shape:
        features (N, C, H, W), maps (N, A, H, W) -> (N, A, 20c, H // 8, W // 8).
    """

    def __init__(self, in_channels: int, width: int, aus: int) -> None:
        super().__init__()
        self.aus = aus
        self.stack = FeatureStack(in_channels, width, groups=aus)

    def forward(self, features: Tensor, maps: Tensor) -> Tensor:
        maps = maps.to(features.dtype)
        if self.stack.apart(features):
            parts = zip(self.stack.branches(), maps.split(1, 1), strict=True)
            return torch.stack([branch(features * part) for branch, part in parts], 1)
        attended = features.unsqueeze(1) * maps.unsqueeze(2)
        local: Tensor = self.stack(attended.flatten(1, 2))
        return local.reshape(local.shape[0], self.aus, self.stack.out_channels, *local.shape[2:])


def _conv_bn_relu(in_channels: int, out_channels: int, groups: int, padding: int) -> list[nn.Module]:
    return [
        nn.Conv2d(groups * in_channels, groups * out_channels, 3, padding=padding, groups=groups),
        nn.BatchNorm2d(groups * out_channels),
        nn.ReLU(inplace=True),
    ]


def _split(layer: nn.Module, groups: int) -> list[Callable[[Tensor], Tensor]]:
    """A grouped layer as one function a group."""
    if isinstance(layer, nn.Conv2d):
        assert layer.bias is not None
        convolution = partial(F.conv2d, padding=layer.padding)
        parts = zip(layer.weight.chunk(groups), layer.bias.chunk(groups), strict=True)
        return [partial(convolution, weight=weight, bias=bias) for weight, bias in parts]
    if isinstance(layer, nn.BatchNorm2d):
        if layer.training:
            layer.num_batches_tracked.add_(1)
        tensors = (layer.running_mean, layer.running_var, layer.weight, layer.bias)
        norm = partial(_batch_norm, layer.training, layer.momentum, layer.eps)
        return [partial(norm, *part) for part in zip(*(t.chunk(groups) for t in tensors), strict=True)]
    return [layer] * groups


def _batch_norm(training, momentum, eps, mean, var, weight, bias, x):
    return F.batch_norm(x, mean, var, weight, bias, training, momentum, eps)


def _chain(functions: tuple[Callable[[Tensor], Tensor], ...], x: Tensor) -> Tensor:
    return reduce(lambda y, function: function(y), functions, x)
