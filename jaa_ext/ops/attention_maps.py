"""Initial attention maps of AUs, drawn from landmarks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from jaa_ext import _library, facs
from jaa_ext.ops import reference


def attention_maps(
    landmarks: Tensor,
    aus: Sequence[facs.AU | facs.AURule],
    *,
    image_size: int,
    map_size: int,
    roi_ratio: float = 0.14,
    decay: float = 0.56,
) -> Tensor:
    """Draw the initial attention map of each AU (ECCV 2018, section 3.3, Eq. 3).

    Each of an AU's two centres is scaled to the map and rounded (half to even). The region of interest is a
    square around it of half side ``round((map_size - 1) / 2 * roi_ratio)``, with its edges clamped into the
    map. Inside, the weight is ``max(1 - (|dx| + |dy|) * decay / (map_size * roi_ratio), 0)``, and the larger
    of two where the squares overlap; outside it is 0.

    Args:
        landmarks: (N, 49, 2) x, y in pixels of the image; they may lie outside it. An AU with a centre that
            is not finite gets an all-zero map.
        aus: AU numbers (`facs.AU_RULES`), "12L" for one side, or `facs.AURule` objects of one's own.
        image_size: side l of the square image in pixels.
        map_size: side M of the maps in pixels.
        roi_ratio: zeta, the side of the region of interest as a share of the map's.
        decay: xi; 0 gives uniform regions of interest.

    Returns:
        (N, len(aus), map_size, map_size) of weights in 0..1, in the dtype of the landmarks. Half types
        compute in float32, and autocast changes nothing. The maps are constants: no gradient reaches the
        landmarks.

    Raises:
        ValueError: an AU without a rule, or shapes and numbers that do not fit.
        TypeError: landmarks that are not floating.

    Example:
        >>> landmarks = torch.rand(2, 49, 2) * 176
        >>> mine = facs.AURule(points=(31, 37), dy=0.2)  # below the corners of the mouth
        >>> attention_maps(landmarks, [1, 12, mine], image_size=176, map_size=44).shape
        torch.Size([2, 3, 44, 44])
    """
    if not _library.has_kernel(landmarks.device):
        return reference.attention_maps(
            landmarks, aus, image_size=image_size, map_size=map_size, roi_ratio=roi_ratio, decay=decay
        )
    rules = facs.rules(aus)
    points = [point for rule in rules for point in rule.points]
    dy = [rule.dy for rule in rules]
    maps: Tensor = torch.ops.jaa_ext.attention_maps(
        landmarks, points, dy, image_size, map_size, roi_ratio, decay
    )
    return maps


if _library.DEVICES:

    @torch.library.register_fake("jaa_ext::attention_maps")
    def _(
        landmarks: Tensor,
        points: list[int],
        dy: list[float],
        image_size: int,
        map_size: int,
        roi_ratio: float,
        decay: float,
    ) -> Tensor:
        reference.check_attention_maps(landmarks, image_size, map_size, roi_ratio, decay)
        return landmarks.new_empty((landmarks.shape[0], len(dy), map_size, map_size))
