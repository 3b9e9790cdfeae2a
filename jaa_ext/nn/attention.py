"""Adaptive attention learning: plain feature stacks, refinement of attention maps, local features of AUs.

What is separate for each AU runs as one grouped convolution. In a grouped layer with k output channels an AU,
rows ``i * k`` to ``(i + 1) * k - 1`` of the weight, bias and batch-norm tensors are the layer of AU i, in the
order of the maps: the tensors of separate branches, concatenated along dimension 0, are the grouped tensor.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn


class FeatureStack(nn.Sequential):
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
        super().__init__(*layers)
        self.out_channels = widths[-1]


class AttentionRefinement(nn.Sequential):
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
            *_conv_bn_relu(1, 8 * width, aus, padding=0),
            *_conv_bn_relu(8 * width, 8 * width, aus, padding=0),
            *_conv_bn_relu(8 * width, 8 * width, aus, padding=0),
            nn.Conv2d(aus * 8 * width, aus, 3, groups=aus),
        )

    def forward(self, maps: Tensor) -> Tensor:
        x = maps
        for layer in self:
            x = layer(x)
        return x.to(maps.dtype).sigmoid()


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
        attended = features.unsqueeze(1) * maps.to(features.dtype).unsqueeze(2)
        local: Tensor = self.stack(attended.flatten(1, 2))
        return local.reshape(local.shape[0], self.aus, self.stack.out_channels, *local.shape[2:])


def _conv_bn_relu(in_channels: int, out_channels: int, groups: int, padding: int) -> list[nn.Module]:
    return [
        nn.Conv2d(groups * in_channels, groups * out_channels, 3, padding=padding, groups=groups),
        nn.BatchNorm2d(groups * out_channels),
        nn.ReLU(inplace=True),
    ]
