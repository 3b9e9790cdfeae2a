"""The joint loss of JAA-Net."""

from __future__ import annotations

from torch import Tensor, nn

from jaa_ext.models import JAAOutput
from jaa_ext.nn import AlignmentLoss, AttentionLoss, IntensityLoss, SoftmaxDiceLoss
from jaa_ext.recipes.schema import Loss

TERMS = ("au_softmax", "au_dice", "align", "attention", "local_softmax", "local_dice", "intensity", "total")
"""Every name that `JointLoss` can give, in order."""


class JointLoss(nn.Module):
    """E = E_au + lambda1 E_align + lambda2 E_r, Eq. 1 of ECCV 2018; E_au = E_softmax + E_dice, Eq. 8.

    With the journal version's local predictions their E_au is added, by the factor `loss.local`, and that of
    intensities by `loss.intensity` (see `IntensityLoss`). lambda3 of
    Eq. 5 is no factor here: the model applies it, between the maps and what follows.

    Args:
        loss: the factors; a term of factor 0 is left out.
        weight: (A,) weight w_i of each AU, Eq. 6, or None for 1.
    """

    def __init__(self, loss: Loss, weight: Tensor | None = None) -> None:
        super().__init__()
        self.factors = loss
        self.au = SoftmaxDiceLoss(weight, smooth=loss.smooth, dice=loss.dice_over)
        self.align = AlignmentLoss()
        self.attention = AttentionLoss(reduction=loss.attention_reduction)
        self.intensity = IntensityLoss(weight)

    def forward(
        self, output: JAAOutput, labels: Tensor, landmarks: Tensor, intensities: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The terms before their factors, and `total`.

        Args:
            output: of the model, N faces.
            labels: (N, A) of 1, 0 and -1 for missing.
            landmarks: (N, 49, 2) in pixels of the model's input.
            intensities: (N, A) of 0..5, NaN where missing; None where all are.

        Returns:
            Scalars by the names of `TERMS`, without those that the variant or a factor of 0 leaves out.

        Raises:
            ValueError: no term is left.
        """
        factors = self.factors
        terms: dict[str, Tensor] = {}
        weighted: list[Tensor] = []

        def add(name: str, factor: float, term: Tensor) -> None:
            if factor > 0:
                terms[name] = term
                weighted.append(factor * term)

        if output.logits is not None:
            softmax, dice = self.au(output.logits, labels)
            add("au_softmax", 1, softmax)
            add("au_dice", factors.dice, dice)
        if output.landmarks is not None and factors.align > 0:
            add("align", factors.align, self.align(output.landmarks, landmarks))
        if output.refined_maps is not None and output.target_maps is not None and factors.attention > 0:
            add("attention", factors.attention, self.attention(output.refined_maps, output.target_maps))
        if output.local_logits is not None:
            softmax, dice = self.au(output.local_logits, labels)
            add("local_softmax", factors.local, softmax)
            add("local_dice", factors.local * factors.dice, dice)
        if output.intensities is not None and intensities is not None and factors.intensity > 0:
            add("intensity", factors.intensity, self.intensity(output.intensities, intensities))
        if not weighted:
            raise ValueError("no loss is left: the model predicts no AUs, and the factor loss.align is 0")
        return {**terms, "total": sum(weighted[1:], weighted[0])}
