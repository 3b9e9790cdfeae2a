"""Layers and losses of joint AU detection and face alignment, for use in any model."""

from jaa_ext.nn.attention import AttentionRefinement, FeatureStack, GroupedSequential, LocalFeatures
from jaa_ext.nn.losses import (
    AlignmentLoss,
    AttentionLoss,
    SoftmaxDiceLoss,
    au_weights,
    scale_gradient,
)
from jaa_ext.nn.region import (
    BatchNormReLU2d,
    HierarchicalMultiScaleRegion,
    RegionBatchNorm2d,
    RegionConv2d,
    RegionLayer,
)

__all__ = [
    "AlignmentLoss",
    "AttentionLoss",
    "AttentionRefinement",
    "BatchNormReLU2d",
    "FeatureStack",
    "GroupedSequential",
    "HierarchicalMultiScaleRegion",
    "LocalFeatures",
    "RegionBatchNorm2d",
    "RegionConv2d",
    "RegionLayer",
    "SoftmaxDiceLoss",
    "au_weights",
    "scale_gradient",
]
