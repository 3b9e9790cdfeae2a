"""Layers and losses of joint AU detection and face alignment, for use in any model."""

from jaa_ext.nn.attention import AttentionRefinement, FeatureStack, GroupedSequential, LocalFeatures
from jaa_ext.nn.conv import Conv3x3
from jaa_ext.nn.graph import AUGraph, au_adjacency, conditional_probabilities
from jaa_ext.nn.losses import (
    AlignmentLoss,
    AttentionLoss,
    IntensityLoss,
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
from jaa_ext.nn.sync_batch_norm import synchronize_batch_norm

__all__ = [
    "AUGraph",
    "AlignmentLoss",
    "AttentionLoss",
    "AttentionRefinement",
    "BatchNormReLU2d",
    "Conv3x3",
    "FeatureStack",
    "GroupedSequential",
    "HierarchicalMultiScaleRegion",
    "IntensityLoss",
    "LocalFeatures",
    "RegionBatchNorm2d",
    "RegionConv2d",
    "RegionLayer",
    "SoftmaxDiceLoss",
    "au_adjacency",
    "au_weights",
    "conditional_probabilities",
    "scale_gradient",
    "synchronize_batch_norm",
]
