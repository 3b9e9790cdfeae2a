"""The losses of joint AU detection and face alignment (ECCV 2018)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from jaa_ext import facs
from jaa_ext.ops import SoftmaxDice, softmax_dice_loss
from jaa_ext.ops.reference import full_precision


class SoftmaxDiceLoss(nn.Module):
    """The AU detection loss (Eq. 6 and 7): `jaa_ext.ops.softmax_dice_loss` as a layer.

    Args:
        weight: (A,) weight w_i of each AU (see `au_weights`), or None for 1.
        smooth: epsilon of Eq. 7.
        dice: "sample" as in Eq. 7, "batch" as in V-Net.
        ignore_index: the value of a missing label.

    Shape:
        logits (N, 2, A), target (N, A) -> named tuple (softmax, dice) of scalars; their sum is E_au (Eq. 8).

    Example:
        >>> loss = SoftmaxDiceLoss()(torch.zeros(4, 2, 3), torch.tensor([[1, 0, -1]] * 4))
        >>> loss.softmax  # log 2: both answers are equally probable
        tensor(0.6931)
    """

    weight: Tensor | None

    def __init__(
        self,
        weight: Tensor | None = None,
        smooth: float = 1.0,
        dice: Literal["sample", "batch"] = "sample",
        ignore_index: int = -1,
    ) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.smooth, self.dice, self.ignore_index = smooth, dice, ignore_index

    def forward(self, logits: Tensor, target: Tensor) -> SoftmaxDice:
        return softmax_dice_loss(
            logits, target, self.weight, smooth=self.smooth, dice=self.dice, ignore_index=self.ignore_index
        )

    def extra_repr(self) -> str:
        weight = None if self.weight is None else tuple(self.weight.shape)
        return f'weight={weight}, smooth={self.smooth}, dice="{self.dice}", ignore_index={self.ignore_index}'


class AlignmentLoss(nn.Module):
    """The alignment loss E_align (Eq. 2): squared landmark errors over 2 d^2, d the distance of the eyes.

    It is summed over landmarks and averaged over the batch; d is the `jaa_ext.facs.eye_distance` of the true
    landmarks.

    Shape:
        landmarks and target (N, 49, 2) in pixels -> scalar. Half types compute in float32.

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> target = torch.rand(2, 49, 2) * 176
        >>> AlignmentLoss()(target, target)
        tensor(0.)
    """

    def forward(self, landmarks: Tensor, target: Tensor) -> Tensor:
        fits = landmarks.dim() == 3 and landmarks.shape[1:] == (facs.NUM_LANDMARKS, 2)
        _require_alike(fits, "AlignmentLoss: landmarks and target", "(N, 49, 2)", landmarks, target)
        landmarks, target = full_precision(landmarks), full_precision(target)
        errors = (landmarks - target).square().sum((1, 2))
        return (errors / (2 * facs.eye_distance(target).square())).mean()


class IntensityLoss(nn.Module):
    """The mean squared error of the intensities that are known (not in the papers).

    It is averaged over the known intensities of each AU, then over the AUs that have any.

    The error is squared because ICC and correlation, by which intensities are judged, are second moments too.
    A squared error is least at the mean of what coders would say of a face; an absolute error is least at
    their median, which for a faint AU is 0.

    Args:
        weight: (A,) weight of each AU (see `au_weights`), or None for 1.

    Shape:
        intensities (N, A) of 0..5, target (N, A) of 0..5 and NaN for missing -> scalar, 0 where all are
        missing; a missing one has the gradient 0. Half types compute in float32.

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> IntensityLoss()(torch.tensor([[1.0, 4.0]]), torch.tensor([[3.0, float("nan")]]))
        tensor(4.)
    """

    weight: Tensor | None

    def __init__(self, weight: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("weight", weight)

    def forward(self, intensities: Tensor, target: Tensor) -> Tensor:
        fits = intensities.dim() == 2
        _require_alike(fits, "IntensityLoss: intensities and target", "(N, A)", intensities, target)
        intensities, target = full_precision(intensities), full_precision(target)
        known = ~target.isnan()
        # Missing targets go before the subtraction: 0 times NaN would give the gradient NaN.
        intensities, target = (torch.where(known, x, 0.0) for x in (intensities, target))
        counts = known.sum(0)
        means = (intensities - target).square().sum(0) / counts.clamp_min(1)
        if self.weight is not None:
            means = means * self.weight
        return means.sum() / (counts > 0).sum().clamp_min(1)

    def extra_repr(self) -> str:
        return f"weight={None if self.weight is None else tuple(self.weight.shape)}"


class AttentionLoss(nn.Module):
    """The attention loss E_r (Eq. 4): cross entropy between refined and initial attention maps.

    It keeps the refinement near the initial maps; it is summed over AUs and averaged over the batch. Refined
    weights are clamped to one epsilon of their dtype away from 0 and 1, so that loss and gradient stay finite
    where the sigmoid saturates.

    Args:
        reduction: over the points of a map, "sum" (Eq. 4) or "mean" (the authors' PyTorch program).

    Shape:
        refined and target_maps (N, A, m, m) of weights in 0..1 -> scalar. Half types compute in float32, also
        under autocast.

    Raises:
        ValueError: an unknown reduction, or shapes that do not fit.

    Example:
        >>> refined, target_maps = torch.rand(2, 12, 44, 44), torch.rand(2, 12, 44, 44)
        >>> AttentionLoss("mean")(refined, target_maps).shape
        torch.Size([])
    """

    def __init__(self, reduction: Literal["sum", "mean"] = "sum") -> None:
        super().__init__()
        if reduction not in ("sum", "mean"):
            raise ValueError(f'AttentionLoss: reduction must be "sum" or "mean", got "{reduction}"')
        self.reduction = reduction

    def forward(self, refined: Tensor, target_maps: Tensor) -> Tensor:
        fits = refined.dim() == 4
        _require_alike(fits, "AttentionLoss: refined and target_maps", "(N, A, m, m)", refined, target_maps)
        eps = torch.finfo(refined.dtype).eps
        v_hat, v = full_precision(refined).clamp(eps, 1 - eps), full_precision(target_maps)
        entropy = -(v * v_hat.log() + (1 - v) * (-v_hat).log1p())
        points = entropy.sum((2, 3)) if self.reduction == "sum" else entropy.mean((2, 3))
        return points.sum(1).mean()

    def extra_repr(self) -> str:
        return f'reduction="{self.reduction}"'


def scale_gradient(x: Tensor, factor: float) -> Tensor:
    """Return x, whose gradient will be multiplied: the back-propagation enhancement of Eq. 5.

    Args:
        x: any tensor.
        factor: of the gradient, lambda_3 in Eq. 5.

    Example:
        >>> x = torch.ones(1, requires_grad=True)
        >>> scale_gradient(x, 2.0).backward()
        >>> x.grad
        tensor([2.])
    """
    output: Tensor = _ScaleGradient.apply(x, factor)  # type: ignore[no-untyped-call]
    return output


def au_weights(
    labels: Any, aus: Sequence[facs.AU | facs.AURule] | None = None, *, frequencies: Any = None
) -> Tensor:
    """Compute the weight of each AU, w_i = A (1 / r_i) / sum_j (1 / r_j) (section 3.4).

    The occurrence rate r_i is taken over valid labels. An AU that never occurs has weight 0, and the others
    are weighted as if it were not there: it cannot be learned, and a weight for its rarity would starve the
    others. One warning names all such AUs.

    Args:
        labels: (n, A) tensor or array of 1, 0 and -1 (missing).
        aus: the AUs' numbers, for the warning.
        frequencies: (n,) how often each row comes, in any unit, above 0; None for all alike.

    Returns:
        (A,) float32, summing to the number of AUs that occur.

    Raises:
        ValueError: labels that are not (n, A) or hold another value, or in which no AU occurs.

    Example:
        >>> au_weights([[1, 1], [0, 1], [0, 1], [0, -1]])  # rates 1/4 and 1
        tensor([1.6000, 0.4000])
    """
    labels = label_tensor("au_weights", labels)
    occurrences, valid = (labels == 1).sum(0), (labels != -1).sum(0)
    occurs = occurrences > 0
    never = (~occurs).nonzero().flatten().tolist()
    if never and len(never) == len(occurs):
        raise ValueError(
            f"au_weights: at least one AU must occur in the labels, but none of {len(occurs)} does: "
            f"{int((labels == 0).sum())} labels are absent, {int((labels == -1).sum())} are missing"
        )
    if never:
        numbers = [None if aus is None else facs.au_number(aus[i]) for i in never]
        named = zip(never, numbers, strict=True)
        names = ", ".join(f"the AU at index {i}" if au is None else f"AU {au}" for i, au in named)
        message = (
            f"{names} never occurs in the labels: its weight in the loss is 0, and the others have theirs "
            "as if it were not there"
            if len(never) == 1
            else f"{names} never occur in the labels: their weights in the loss are 0, and the others have "
            "theirs as if they were not there"
        )
        warnings.warn(message, stacklevel=2)
    if frequencies is not None:
        rows = torch.as_tensor(frequencies, dtype=torch.float64)
        occurrences, valid = rows @ (labels == 1).double(), rows @ (labels != -1).double()
    inverse_rates = torch.where(occurs, valid.double() / torch.where(occurs, occurrences, 1), 0)
    weights: Tensor = occurs.sum() * inverse_rates / inverse_rates.sum()
    return weights.float()


def label_tensor(where: str, labels: Any) -> Tensor:
    """Check labels and return them as a tensor.

    Raises:
        ValueError: labels that are not (n, A) or hold another value than 1, 0 and -1; the message begins with
            `where`.
    """
    tensor: Tensor = torch.as_tensor(labels)
    if tensor.dim() != 2:
        raise ValueError(f"{where}: labels must be (n, A), got {list(tensor.shape)}")
    unknown = tensor[(tensor != 0) & (tensor != 1) & (tensor != -1)]
    if len(unknown):
        raise ValueError(f"{where}: labels must be 1, 0 or -1 (missing), got {unknown[0].item():g}")
    return tensor


def _require_alike(fits: bool, names: str, wanted: str, tensor: Tensor, other: Tensor) -> None:
    if not fits or tensor.shape != other.shape:
        raise ValueError(f"{names} must both be {wanted}, got {list(tensor.shape)} and {list(other.shape)}")


class _ScaleGradient(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, factor: float) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        ctx.factor = inputs[1]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] * ctx.factor, None
