"""Each op in plain PyTorch: the tests' oracle, the benchmarks' baseline, and what runs without kernels.

Names, signatures and errors are those of `jaa_ext.ops`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from jaa_ext import facs

__all__ = [
    "SoftmaxDice",
    "attention_maps",
    "conv3x3",
    "region_batch_norm",
    "region_conv2d",
    "softmax_dice_loss",
]

Border = Literal["cell", "image"]
"""What `region_conv2d` reads outside a cell: zeros, or the image."""

FLOAT_TYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


class SoftmaxDice(NamedTuple):
    """The two AU losses, scalars in the dtype of the logits.

    Example:
        >>> loss = softmax_dice_loss(torch.zeros(4, 2, 3), torch.ones(4, 3))
        >>> loss.softmax, loss.dice
        (tensor(0.6931), tensor(0.1111))
    """

    softmax: Tensor
    """E_softmax, Eq. 6."""
    dice: Tensor
    """E_dice, Eq. 7."""


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
    """See `jaa_ext.ops.conv3x3`; this takes one step after the other and ignores `filters`."""
    input, weight, bias, attention = _autocast(input, weight, bias, attention)
    check_conv3x3(input, weight, bias, padding, groups, pool, attention)
    attended = input if attention is None else input * attention
    output = F.conv2d(attended, weight, bias, padding=padding, groups=groups)
    output = output.relu() if relu else output
    return F.max_pool2d(output, 2) if pool else output


def region_conv2d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, *, border: Border = "cell"
) -> Tensor:
    """See `jaa_ext.ops.region_conv2d`; this is one ordinary convolution a cell."""
    input, weight, bias = _autocast(input, weight, bias)
    check_region_conv2d(input, weight, bias, border)
    grid_h, grid_w, _, _, kernel_h, kernel_w = weight.shape
    row_edges, column_edges = cell_edges(input.shape[2], grid_h), cell_edges(input.shape[3], grid_w)
    padding, halo = (kernel_h // 2, kernel_w // 2), (0, 0)
    if border == "image":  # each cell then reads `halo` more rows and columns of the padded image
        input = F.pad(input, (padding[1], padding[1], padding[0], padding[0]))
        padding, halo = (0, 0), (2 * padding[0], 2 * padding[1])
    rows = []
    for i, (top, bottom) in enumerate(pairwise(row_edges)):
        cells = []
        for j, (left, right) in enumerate(pairwise(column_edges)):
            cell = input[:, :, top : bottom + halo[0], left : right + halo[1]]
            cells.append(F.conv2d(cell, weight[i, j], None if bias is None else bias[i, j], padding=padding))
        rows.append(torch.cat(cells, 3))
    return torch.cat(rows, 2)


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
    """See `jaa_ext.ops.region_batch_norm`; this is one ordinary batch norm a cell."""
    check_region_batch_norm(input, weight, bias, running_mean, running_var, grid, training)
    x = full_precision(input)
    shape = (*grid, input.shape[1])
    scale, shift = (None if t is None else t.to(x.dtype).view(shape) for t in (weight, bias))
    mean, var = (
        None if t is None else t.to(x.dtype, copy=True).view(shape) for t in (running_mean, running_var)
    )
    row_starts, column_starts = (cell_edges(size, n)[1:-1] for size, n in zip(x.shape[2:], grid, strict=True))
    rows = []
    for i, row in enumerate(x.tensor_split(row_starts, 2)):
        cells = []
        for j, cell in enumerate(row.tensor_split(column_starts, 3)):
            own = [None if t is None else t[i, j] for t in (mean, var, scale, shift)]
            # With a side of 1, torch 2.13 can mistake a channels_last gradient for a contiguous one in 4-D.
            plane = cell.flatten(2) if 1 in cell.shape else cell
            normal = F.batch_norm(plane, own[0], own[1], own[2], own[3], training, momentum, eps)
            cells.append(normal.view(cell.shape) if plane is not cell else normal)
        rows.append(torch.cat(cells, 3))
    if training:
        for running, moved in ((running_mean, mean), (running_var, var)):
            if running is not None and moved is not None:
                running.copy_(moved.view(running.shape))
    output = torch.cat(rows, 2)
    output = (output.relu() if relu else output).to(input.dtype)
    return output.contiguous(memory_format=torch._prims_common.suggest_memory_format(input))


def attention_maps(
    landmarks: Tensor,
    aus: Sequence[facs.AU | facs.AURule],
    *,
    image_size: int,
    map_size: int,
    roi_ratio: float = 0.14,
    decay: float = 0.56,
) -> Tensor:
    """See `jaa_ext.ops.attention_maps`; this draws all faces and AUs at once by broadcasting."""
    rules = facs.rules(aus)
    check_attention_maps(landmarks, image_size, map_size, roi_ratio, decay)
    # Half types compute in float32, since a centre is rounded to a whole pixel of the map.
    x = full_precision(landmarks.detach())
    points = torch.tensor([rule.points for rule in rules], device=x.device, dtype=torch.int64).view(-1, 2)
    dy = torch.tensor([rule.dy for rule in rules], device=x.device, dtype=x.dtype)

    inner = x[:, list(facs.INNER_EYE_CORNERS), 0]
    r = (inner[:, 0] - inner[:, 1]).abs()
    maps = draw_maps(x[:, points], dy * r[:, None], image_size, map_size, roi_ratio, decay)
    return maps.to(landmarks.dtype)


def draw_maps(
    centres: Tensor, shift: Tensor, image_size: int, map_size: int, roi_ratio: float, decay: float
) -> Tensor:
    """Draw attention maps, (N, A, M, M), around centres (N, A, 2, 2) that are moved down by (N, A) pixels."""
    scale = map_size / image_size
    cx = (centres[..., 0] * scale).round()
    cy = ((centres[..., 1] + shift.unsqueeze(-1)) * scale).round()
    finite = (cx.isfinite() & cy.isfinite()).all(-1)

    last = map_size - 1
    half = round(last / 2 * roi_ratio)
    grid = torch.arange(map_size, device=centres.device, dtype=centres.dtype)

    def axis(c: Tensor) -> tuple[Tensor, Tensor]:
        """Each pixel's distance to the centre along an axis, and whether it is in the ROI: (N, A, 2, M)."""
        c = c.unsqueeze(-1)
        inside = (grid >= (c - half).clamp(0, last)) & (grid <= (c + half).clamp(0, last))
        return (grid - c).abs(), inside

    dx, in_x = axis(cx)
    dy, in_y = axis(cy)
    distance = dx.unsqueeze(-2) + dy.unsqueeze(-1)  # (N, A, 2, M, M)
    slope = decay / (map_size * roi_ratio)
    value = (1 - distance * slope).clamp_min(0)
    roi = in_x.unsqueeze(-2) & in_y.unsqueeze(-1) & finite[..., None, None, None]
    return torch.where(roi, value, 0).amax(2)


def softmax_dice_loss(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    smooth: float = 1.0,
    dice: Literal["sample", "batch"] = "sample",
    ignore_index: int = -1,
) -> SoftmaxDice:
    """See `jaa_ext.ops.softmax_dice_loss`."""
    check_softmax_dice_loss(logits, target, weight, smooth, dice, ignore_index)
    if is_autocast(logits):
        logits = full_precision(logits)
    x = full_precision(logits)
    # A narrow integer type would turn an ignore_index that it cannot hold into another number.
    target = target.to(x.dtype if target.is_floating_point() else torch.int64)
    valid = target != ignore_index
    p = torch.where(valid, target, 0).to(x.dtype)  # symbol p of Eq. 6 and 7
    p = torch.where((p >= 0) & (p <= 1), p, torch.nan)  # an impossible label makes the loss NaN
    log_absent, log_present = F.log_softmax(torch.where(valid.unsqueeze(1), x, 0), 1).unbind(1)
    p_hat = log_present.exp()

    count = valid.sum(0)
    aus_with_labels = (count > 0).sum()
    w = torch.ones_like(count, dtype=x.dtype) if weight is None else weight.to(x.dtype)

    def over_aus(per_au: Tensor) -> Tensor:
        return torch.where(count > 0, w * per_au, 0).sum() / aus_with_labels.clamp_min(1)

    def over_samples(value: Tensor) -> Tensor:
        return torch.where(valid, value, 0).sum(0) / count.clamp_min(1)

    # A term of weight 0 is 0, also where its logarithm is infinite.
    present, absent = (
        torch.where(share == 0, 0, share * log) for share, log in ((p, log_present), (1 - p, log_absent))
    )
    e_softmax = over_aus(over_samples(-(present + absent)))
    if dice == "sample":
        e_dice = over_aus(over_samples(1 - (2 * p * p_hat + smooth) / (p**2 + p_hat**2 + smooth)))
    else:
        overlap = torch.where(valid, p * p_hat, 0).sum(0)
        squares = torch.where(valid, p**2 + p_hat**2, 0).sum(0)
        e_dice = over_aus(1 - (2 * overlap + smooth) / (squares + smooth))
    return SoftmaxDice(e_softmax.to(logits.dtype), e_dice.to(logits.dtype))


def is_autocast(input: Tensor) -> bool:
    """Whether autocast is on where the tensor lies."""
    return not input.is_meta and torch.is_autocast_enabled(input.device.type)


def full_precision(x: Tensor) -> Tensor:
    """Return half types as float32, and float32 and float64 as they are."""
    return x if x.dtype == torch.float64 else x.float()


def _autocast(input: Tensor, *others: Tensor | None) -> list[Any]:
    """Cast tensors as autocast does, if it is on where the first one lies: float64 and integers stay."""
    tensors = [input, *others]
    if not is_autocast(input):
        return tensors
    dtype = torch.get_autocast_dtype(input.device.type)
    return [
        t if t is None or not t.is_floating_point() or t.dtype == torch.float64 else t.to(dtype)
        for t in tensors
    ]


def cell_edges(size: int, cells: int) -> list[int]:
    """Edges of the cells along one side of an image: cell i spans edges[i] up to edges[i + 1].

    Edge i is floor(i * size / cells), as in csrc; cells need not divide size.
    """
    return [i * size // cells for i in range(cells + 1)]


def check_conv3x3(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    padding: int,
    groups: int,
    pool: bool,
    attention: Tensor | None,
) -> None:
    """Check arguments as the compiled op does, in the same words."""
    name = "conv3x3"
    if padding not in (0, 1):
        raise ValueError(f"{name}: padding must be 0 or 1, got {padding}")
    if input.dim() != 4:
        raise ValueError(f"{name}: input must be (N, in_channels, H, W), got {_shape(input)}")
    if weight.dim() != 4 or weight.shape[2] != 3 or weight.shape[3] != 3:
        raise ValueError(f"{name}: weight must be (out_channels, in_channels, 3, 3), got {_shape(weight)}")
    if 0 in weight.shape:
        raise ValueError(f"{name}: every dimension of weight must be at least 1, got {_shape(weight)}")
    out_channels, in_channels = weight.shape[0], groups * weight.shape[1]
    if groups < 1 or out_channels % groups:
        raise ValueError(f"{name}: groups must divide the {out_channels} output channels, got {groups}")
    if input.shape[1] != in_channels:
        raise ValueError(f"{name}: input has {input.shape[1]} channels, but weight wants {in_channels}")
    batch, _, height, width = input.shape
    least = (4 if pool else 3) - 2 * padding
    if height < least or width < least:
        raise ValueError(
            f"{name}: images must be at least {least} x {least} with padding {padding}"
            f"{' and pooling' if pool else ''}, got {height} x {width}"
        )
    if bias is not None and _shape(bias) != [out_channels]:
        raise ValueError(f"{name}: bias must be (out_channels) = [{out_channels}], got {_shape(bias)}")
    if attention is not None and groups != 1:
        raise ValueError(f"{name}: attention needs groups=1, got {groups}")
    if attention is not None and _shape(attention) != [batch, 1, height, width]:
        raise ValueError(
            f"{name}: attention must be (N, 1, H, W) = {[batch, 1, height, width]}, got {_shape(attention)}"
        )
    _check_alike(name, input, weight=weight, bias=bias, attention=attention)


def check_region_conv2d(input: Tensor, weight: Tensor, bias: Tensor | None, border: Border) -> None:
    """Check arguments as the compiled op does, in the same words."""
    name = "region_conv2d"
    if border not in ("cell", "image"):
        raise ValueError(f'{name}: border must be "cell" or "image", got "{border}"')
    if input.dim() != 4:
        raise ValueError(f"{name}: input must be (N, in_channels, H, W), got {_shape(input)}")
    if weight.dim() != 6:
        raise ValueError(
            f"{name}: weight must be (grid_h, grid_w, out_channels, in_channels, kernel_h, kernel_w), "
            f"got {_shape(weight)}"
        )
    if 0 in weight.shape:
        raise ValueError(f"{name}: every dimension of weight must be at least 1, got {_shape(weight)}")
    grid_h, grid_w, _, in_channels, kernel_h, kernel_w = weight.shape
    if input.shape[1] != in_channels:
        raise ValueError(f"{name}: input has {input.shape[1]} channels, but weight wants {in_channels}")
    if kernel_h % 2 == 0 or kernel_w % 2 == 0:
        raise ValueError(f"{name}: kernel sides must be odd, got {kernel_h} x {kernel_w}")
    height, width = input.shape[2:]
    if grid_h > height or grid_w > width:
        raise ValueError(
            f"{name}: the grid must have at most one cell a pixel, "
            f"got {grid_h} x {grid_w} cells for an image of {height} x {width}"
        )
    if bias is not None and bias.shape != weight.shape[:3]:
        raise ValueError(
            f"{name}: bias must be (grid_h, grid_w, out_channels) = {list(weight.shape[:3])}, "
            f"got {_shape(bias)}"
        )
    _check_alike(name, input, weight=weight, bias=bias)


def check_region_batch_norm(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    grid: Sequence[int],
    training: bool,
) -> None:
    """Check arguments as the compiled op does, in the same words."""
    name = "region_batch_norm"
    if input.dim() != 4:
        raise ValueError(f"{name}: input must be (N, C, H, W), got {_shape(input)}")
    if len(grid) != 2 or min(grid) < 1:
        raise ValueError(f"{name}: grid must be two positive numbers of cells, got {list(grid)}")
    batch, channels, height, width = input.shape
    grid_h, grid_w = grid
    if grid_h > height or grid_w > width:
        raise ValueError(
            f"{name}: the grid must have at most one cell a pixel, "
            f"got {grid_h} x {grid_w} cells for an image of {height} x {width}"
        )
    if (weight is None) != (bias is None):
        raise ValueError(f"{name}: weight and bias must both be given or both be None")
    if (running_mean is None) != (running_var is None):
        raise ValueError(f"{name}: running_mean and running_var must both be given or both be None")
    if not training and running_mean is None:
        raise ValueError(f"{name}: outside training running_mean and running_var must be given")
    if training and batch * (height // grid_h) * (width // grid_w) < 2:
        raise ValueError(
            f"{name}: a training batch must have more than 1 value per channel in each cell, got {batch} "
            f"images of {height} x {width} with {grid_h} x {grid_w} cells"
        )
    _check_float(name, "input", input)
    shape = [grid_h, grid_w, channels]
    others = {"weight": weight, "bias": bias, "running_mean": running_mean, "running_var": running_var}
    for other_name, other in others.items():
        if other is None:
            continue
        if _shape(other) != shape and not (grid_h == grid_w == 1 and _shape(other) == [channels]):
            raise ValueError(
                f"{name}: {other_name} must be (grid_h, grid_w, C) = {shape}, got {_shape(other)}"
            )
        if other.dtype not in (input.dtype, torch.float32):
            raise TypeError(
                f"{name}: {other_name} must have the dtype of input, {_dtype(input)}, or float32, "
                f"got {_dtype(other)}"
            )
        _check_device(name, "input", input, other_name, other)


def check_attention_maps(
    landmarks: Tensor, image_size: int, map_size: int, roi_ratio: float, decay: float
) -> None:
    """Check arguments as the compiled op does, in the same words."""
    name = "attention_maps"
    if landmarks.dim() != 3 or landmarks.shape[1] != facs.NUM_LANDMARKS or landmarks.shape[2] != 2:
        raise ValueError(f"{name}: landmarks must be (N, 49, 2), got {_shape(landmarks)}")
    _check_float(name, "landmarks", landmarks)
    for size_name, size in (("image_size", image_size), ("map_size", map_size)):
        if size < 1:
            raise ValueError(f"{name}: {size_name} must be at least 1, got {size}")
    if not 0 < roi_ratio <= 1:
        raise ValueError(f"{name}: roi_ratio must be in (0, 1], got {roi_ratio:g}")
    if not decay >= 0:
        raise ValueError(f"{name}: decay must be at least 0, got {decay:g}")


def check_softmax_dice_loss(
    logits: Tensor, target: Tensor, weight: Tensor | None, smooth: float, dice: str, ignore_index: int
) -> None:
    """Check arguments as the compiled op does, in the same words."""
    name = "softmax_dice_loss"
    if dice not in ("sample", "batch"):
        raise ValueError(f'{name}: dice must be "sample" or "batch", got "{dice}"')
    if not smooth > 0:
        raise ValueError(f"{name}: smooth must be above 0, got {smooth:g}")
    if not -(2**24) <= ignore_index <= 2**24:  # up to where float32 holds whole numbers
        raise ValueError(f"{name}: ignore_index must be in -2^24..2^24, got {ignore_index}")
    if logits.dim() != 3 or logits.shape[1] != 2:
        raise ValueError(f"{name}: logits must be (N, 2, A), got {_shape(logits)}")
    _check_float(name, "logits", logits)
    samples, _, num_aus = logits.shape
    if target.dim() != 2 or target.shape[0] != samples or target.shape[1] != num_aus:
        raise ValueError(f"{name}: target must be (N, A) = [{samples}, {num_aus}], got {_shape(target)}")
    if target.dtype.is_complex:
        raise TypeError(f"{name}: target must be bool, integer or floating, got {_dtype(target)}")
    if weight is not None and (weight.dim() != 1 or weight.shape[0] != num_aus):
        raise ValueError(f"{name}: weight must be (A,) = [{num_aus}], got {_shape(weight)}")
    for other_name, other in (("target", target), ("weight", weight)):
        if other is None:
            continue
        _check_device(name, "logits", logits, other_name, other)
        if other.requires_grad:
            raise ValueError(f"{name}: {other_name} is a constant of the loss, but it requires a gradient")


def _check_float(name: str, tensor_name: str, tensor: Tensor) -> None:
    if tensor.dtype not in FLOAT_TYPES:
        raise TypeError(
            f"{name}: {tensor_name} must be float64, float32, float16 or bfloat16, got {_dtype(tensor)}"
        )


def _check_alike(name: str, input: Tensor, **others: Tensor | None) -> None:
    _check_float(name, "input", input)
    for other_name, other in others.items():
        if other is None:
            continue
        if other.dtype != input.dtype:
            raise TypeError(
                f"{name}: {other_name} must have the dtype of input, {_dtype(input)}, got {_dtype(other)}"
            )
        _check_device(name, "input", input, other_name, other)


def _check_device(name: str, tensor_name: str, tensor: Tensor, other_name: str, other: Tensor) -> None:
    if other.device != tensor.device:
        raise ValueError(
            f"{name}: {other_name} must be on the device of {tensor_name}, {tensor.device}, "
            f"got {other.device}"
        )


def _shape(tensor: Tensor) -> list[int]:
    return list(tensor.shape)


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
