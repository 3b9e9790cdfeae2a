"""The compiled ops, and each again in plain PyTorch in `jaa_ext.ops.reference`.

An op runs its compiled kernel on every device it was built for, and the reference elsewhere.
"""

from jaa_ext.ops import reference
from jaa_ext.ops.attention_maps import attention_maps
from jaa_ext.ops.conv3x3 import conv3x3, conv3x3_filters
from jaa_ext.ops.reference import SoftmaxDice
from jaa_ext.ops.region_batch_norm import region_batch_norm
from jaa_ext.ops.region_conv2d import region_conv2d
from jaa_ext.ops.softmax_dice_loss import softmax_dice_loss

__all__ = [
    "SoftmaxDice",
    "attention_maps",
    "conv3x3",
    "conv3x3_filters",
    "reference",
    "region_batch_norm",
    "region_conv2d",
    "softmax_dice_loss",
]
