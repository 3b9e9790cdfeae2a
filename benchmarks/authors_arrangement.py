"""JAA-Net arranged as in its authors' PyTorch program: the baseline of the whole network.

Same results as `JAANet(JAANetConfig.released(aus))`, from modules of its own for every cell of a grid and for
every AU, called one after another on slices; attention maps drawn pixel by pixel; NCHW. Written for these
benchmarks from the description of that program, with none of its code.
"""

from __future__ import annotations

import re
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jaa_ext import facs
from jaa_ext.models import JAANet, JAANetConfig, JAAOutput
from jaa_ext.nn import HierarchicalMultiScaleRegion, scale_gradient


class AuthorsArrangement(nn.Module):
    """The released JAA-Net.

    Args:
        config: `JAANetConfig.released`, of any AUs, image size and width.

    Shape:
        image (N, 3, l, l) -> `JAAOutput`, as `JAANet`.

    Raises:
        ValueError: another variant.
    """

    def __init__(self, config: JAANetConfig) -> None:
        super().__init__()
        released = JAANetConfig.released(config.aus, image_size=config.image_size, width=config.width)
        if config != released:
            raise ValueError(f"AuthorsArrangement: config must be JAANetConfig.released, got {config}")
        self.config = config
        hidden_size = config.resolved_hidden_size
        c, flat = config.width, 20 * config.width * (config.map_size // 8) ** 2
        self.region_learning = nn.Sequential(
            CellLoopRegion(3, 4 * c), nn.MaxPool2d(2), CellLoopRegion(4 * c, 8 * c), nn.MaxPool2d(2)
        )
        self.alignment = nn.ModuleDict(
            {
                "features": feature_stack(c),
                "embedding": nn.Linear(flat, hidden_size),
                "landmarks": nn.Linear(hidden_size, 2 * facs.NUM_LANDMARKS),
            }
        )
        self.global_features = feature_stack(c)
        self.refinement = nn.ModuleList(refinement_branch(c) for _ in config.aus)
        self.local_features = nn.ModuleList(feature_stack(c) for _ in config.aus)
        self.au_head = nn.Sequential(
            nn.Linear(3 * flat, hidden_size), nn.Linear(hidden_size, 2 * len(config.aus))
        )

    def forward(self, image: Tensor) -> JAAOutput:
        side = self.config.map_size
        pool2 = self.region_learning(image)

        alignment_features = self.alignment["features"](pool2)
        embedding = self.alignment["embedding"](alignment_features.flatten(1))
        # As JAANet: half a type rounds to whole pixels.
        with torch.autocast(image.device.type, enabled=False):
            flat = self.alignment["landmarks"](embedding.to(self.alignment["landmarks"].weight.dtype))
        landmarks = flat.view(-1, facs.NUM_LANDMARKS, 2)

        initial_maps = draw_attention_maps(
            landmarks.detach(), self.config.aus, image_size=self.config.image_size, map_size=side + 8
        )
        target_maps = F.interpolate(initial_maps, size=(side, side), mode="nearest")
        refined = []
        for i, branch in enumerate(self.refinement):
            refined.append(branch(initial_maps[:, i : i + 1]).to(initial_maps.dtype).sigmoid())
        refined_maps = torch.cat(refined, 1)

        maps = scale_gradient(refined_maps, self.config.gradient_enhancement).to(pool2.dtype)
        local = torch.zeros_like(alignment_features)
        for i, branch in enumerate(self.local_features):
            local = local + branch(pool2 * maps[:, i : i + 1])
        local = local / len(self.local_features)

        features = torch.cat((alignment_features, self.global_features(pool2), local), 1)
        return JAAOutput(
            logits=self.au_head(features.flatten(1)).view(-1, 2, len(self.config.aus)),
            landmarks=landmarks,
            initial_maps=initial_maps,
            target_maps=target_maps,
            refined_maps=refined_maps,
        )


class CellLoopRegion(nn.Module):
    """The hierarchical and multi-scale region layer with modules of its own for each cell.

    Shape:
        (N, in_channels, H, W) -> (N, width, H, W); H and W divide by 8.
    """

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, width, 3, padding=1)
        self.region8 = CellLoop(width, width // 2, 8)
        self.region4 = CellLoop(width // 2, width // 4, 4)
        self.region2 = CellLoop(width // 4, width // 4, 2)
        self.bn = nn.BatchNorm2d(width)

    def forward(self, input: Tensor) -> Tensor:
        x = self.conv(input)
        b1 = self.region8(x)
        b2 = self.region4(b1)
        b3 = self.region2(b2)
        return F.relu(self.bn(x + torch.cat((b1, b2, b3), 1)))


class CellLoop(nn.Module):
    """Batch norm, ReLU and convolution, cell by cell."""

    def __init__(self, in_channels: int, out_channels: int, grid: int) -> None:
        super().__init__()
        cells = range(grid * grid)
        self.grid = grid
        self.bns = nn.ModuleList(nn.BatchNorm2d(in_channels) for _ in cells)
        self.convs = nn.ModuleList(nn.Conv2d(in_channels, out_channels, 3, padding=1) for _ in cells)

    def forward(self, input: Tensor) -> Tensor:
        height, width = input.shape[2] // self.grid, input.shape[3] // self.grid
        rows = []
        for i in range(self.grid):
            cells = []
            for j in range(self.grid):
                p = i * self.grid + j
                cell = input[:, :, i * height : (i + 1) * height, j * width : (j + 1) * width]
                cells.append(self.convs[p](F.relu(self.bns[p](cell))))
            rows.append(torch.cat(cells, 3))
        return torch.cat(rows, 2)


def feature_stack(width: int) -> nn.Sequential:
    """Stack P of one branch: (N, 8c, H, W) -> (N, 20c, H // 8, W // 8)."""
    layers: list[nn.Module] = []
    for before, after in pairwise([8 * width, 12 * width, 16 * width, 20 * width]):
        layers += conv_bn_relu(before, after, padding=1) + conv_bn_relu(after, after, padding=1)
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


def refinement_branch(width: int) -> nn.Sequential:
    """Refinement of one AU's map before the sigmoid: (N, 1, m + 8, m + 8) -> (N, 1, m, m)."""
    k = 8 * width
    hidden = conv_bn_relu(1, k, padding=0) + conv_bn_relu(k, k, padding=0) + conv_bn_relu(k, k, padding=0)
    return nn.Sequential(*hidden, nn.Conv2d(k, 1, 3))


def conv_bn_relu(in_channels: int, out_channels: int, padding: int) -> list[nn.Module]:
    conv = nn.Conv2d(in_channels, out_channels, 3, padding=padding)
    return [conv, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)]


def draw_attention_maps(
    landmarks: Tensor,
    aus: tuple[int | facs.AURule, ...],
    *,
    image_size: int,
    map_size: int,
    roi_ratio: float = 0.14,
    decay: float = 0.56,
) -> Tensor:
    """`jaa_ext.ops.attention_maps` face by face, AU by AU, pixel by pixel of the region of interest."""
    scale = map_size / image_size
    last = map_size - 1
    half = round(last / 2 * roi_ratio)
    slope = decay / (map_size * roi_ratio)
    faces = landmarks.tolist()
    maps = [[[[0.0] * map_size for _ in range(map_size)] for _ in aus] for _ in faces]
    for points, face_maps in zip(faces, maps, strict=True):
        left, right = facs.INNER_EYE_CORNERS
        r = abs(points[left][0] - points[right][0])
        for rule, weights in zip(facs.rules(aus), face_maps, strict=True):
            for point in rule.points:
                x, y = points[point]
                cx, cy = round(x * scale), round((y + rule.dy * r) * scale)
                for row in range(min(max(cy - half, 0), last), min(max(cy + half, 0), last) + 1):
                    for column in range(min(max(cx - half, 0), last), min(max(cx + half, 0), last) + 1):
                        value = 1 - (abs(column - cx) + abs(row - cy)) * slope
                        weights[row][column] = max(value, weights[row][column])
    return torch.tensor(maps, dtype=landmarks.dtype, device=landmarks.device)


def copy_weights(
    source: JAANet | HierarchicalMultiScaleRegion, target: AuthorsArrangement | CellLoopRegion
) -> None:
    """Give `target` the parameters and running statistics of `source`."""
    aus = len(target.config.aus) if isinstance(target, AuthorsArrangement) else 0
    target.load_state_dict(split(source.state_dict(), aus))


def split(tensors: dict[str, Tensor], aus: int) -> dict[str, Tensor]:
    """Tensors by their names in `JAANet` (parameters or gradients) as views by the names used here.

    What JAANet keeps in one tensor for all cells or all AUs is one tensor a cell or an AU here.
    """
    parts: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        region = re.fullmatch(r"(.*region(\d))\.(0|2)\.(\w+)", name)
        grouped = re.fullmatch(r"attention\.(refinement|local_features\.stack)\.(.*)", name)
        if region:
            stage, grid, layer, kind = region.groups()
            prefix = f"{stage}.{'bns' if layer == '0' else 'convs'}"
            cells = tensor.flatten(0, 1) if tensor.dim() else tensor.expand(int(grid) ** 2)
            parts.update({f"{prefix}.{p}.{kind}": cell for p, cell in enumerate(cells)})
        elif grouped:
            prefix = grouped[1].removesuffix(".stack")
            branches = tensor.chunk(aus) if tensor.dim() else tensor.expand(aus)
            parts.update({f"{prefix}.{i}.{grouped[2]}": branch for i, branch in enumerate(branches)})
        else:
            parts[name] = tensor
    return parts
