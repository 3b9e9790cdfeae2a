"""The weighted softmax and Dice losses of multi-label AU detection, in one pass."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from jaa_ext import _library
from jaa_ext.ops import reference
from jaa_ext.ops.reference import SoftmaxDice


def softmax_dice_loss(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    smooth: float = 1.0,
    dice: Literal["sample", "batch"] = "sample",
    ignore_index: int = -1,
) -> SoftmaxDice:
    """Compute the weighted multi-label softmax loss (Eq. 6) and Dice loss (Eq. 7) of ECCV 2018 in one pass.

    Each loss is averaged over the valid labels of each AU, then over the AUs that have any. Missing labels
    take no part and get no gradient; where all are missing, both losses are 0.

    Args:
        logits: (N, 2, A); index 1 of the middle axis is "present".
        target: (N, A) of 0, 1 and `ignore_index` for missing, or probabilities 0..1 in a floating dtype,
            where `ignore_index` is missing too.
        weight: (A,) weight w_i of each AU, or None for 1.
        smooth: epsilon of Eq. 7, above 0.
        dice: "sample" takes the Dice ratio of each label (Eq. 7); "batch" first sums products and squares
            over the valid labels of an AU (V-Net).
        ignore_index: the value of a missing label, -2^24..2^24. Targets are compared with it as whole numbers
            whatever their dtype: an int8 target never equals 255.

    Returns:
        The scalars (softmax, dice) in the dtype of the logits. Half types compute in float32; autocast casts
        half logits to float32.

    Raises:
        ValueError: shapes, devices or options that do not fit; a target or weight that requires a gradient;
            on the CPU also a label outside 0..1 (elsewhere it makes the losses NaN, since a check would make
            the CPU wait for the device).
        TypeError: dtypes that do not fit.

    A logit of -inf gives a class the probability 0; one of inf or NaN makes the losses NaN, as in
    `torch.nn.functional.cross_entropy`. Gradients flow to the logits; differentiating twice, forward-mode
    differentiation and ``torch.func`` are not supported. Results are the same bits from run to run.

    Example:
        >>> logits = torch.randn(8, 2, 12, requires_grad=True)
        >>> labels = torch.randint(-1, 2, (8, 12))
        >>> softmax, dice = softmax_dice_loss(logits, labels)
        >>> (softmax + dice).backward()
    """
    if not _library.has_kernel(logits.device):
        return reference.softmax_dice_loss(
            logits, target, weight, smooth=smooth, dice=dice, ignore_index=ignore_index
        )
    return SoftmaxDice(
        *torch.ops.jaa_ext.softmax_dice_loss(logits, target, weight, smooth, dice, ignore_index)
    )


if _library.DEVICES:

    @torch.library.register_fake("jaa_ext::softmax_dice_loss")
    def _(
        logits: Tensor, target: Tensor, weight: Tensor | None, smooth: float, dice: str, ignore_index: int
    ) -> tuple[Tensor, Tensor]:
        reference.check_softmax_dice_loss(logits, target, weight, smooth, dice, ignore_index)
        return logits.new_empty(()), logits.new_empty(())

    @torch.library.register_fake("jaa_ext::softmax_dice_loss_backward")
    def _(grad_softmax: Tensor, grad_dice: Tensor, logits: Tensor, *others: Any) -> Tensor:
        return logits.new_empty(logits.shape)
