from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from jaa_ext.data import eye_distance
from jaa_ext.models import JAAOutput
from jaa_ext.recipes.schema import Loss
from jaa_ext.training.criterion import TERMS, JointLoss

WEIGHT = torch.tensor([0.5, 1.5])
LABELS = torch.tensor([[1, 0], [0, -1], [1, 1]])


@pytest.fixture
def output() -> JAAOutput:
    g = torch.Generator().manual_seed(0)
    return JAAOutput(
        logits=torch.randn(3, 2, 2, generator=g),
        landmarks=torch.rand(3, 49, 2, generator=g) * 64,
        target_maps=torch.rand(3, 2, 16, 16, generator=g),
        refined_maps=torch.rand(3, 2, 16, 16, generator=g) * 0.8 + 0.1,
        local_logits=torch.randn(3, 2, 2, generator=g),
    )


@pytest.fixture
def landmarks() -> torch.Tensor:
    return torch.rand(3, 49, 2, generator=torch.Generator().manual_seed(1)) * 64


def by_hand(logits: torch.Tensor, weight: list[float]) -> tuple[float, float]:
    """Eq. 6 and 7, label by label."""
    softmax = dice = 0.0
    for au in range(2):
        valid = [i for i in range(3) if LABELS[i, au] >= 0]
        for i in valid:
            absent, present = math.exp(logits[i, 0, au]), math.exp(logits[i, 1, au])
            q, p = present / (absent + present), LABELS[i, au].item()
            softmax -= weight[au] * math.log(q if p else 1 - q) / len(valid) / 2
            dice += weight[au] * (1 - (2 * p * q + 1) / (p * p + q * q + 1)) / len(valid) / 2
    return softmax, dice


def test_total_is_equation_1(output: JAAOutput, landmarks: torch.Tensor) -> None:
    output.local_logits = None
    terms = JointLoss(Loss(align=0.3, attention=1e-2), WEIGHT)(output, LABELS, landmarks)
    assert list(terms) == ["au_softmax", "au_dice", "align", "attention", "total"]
    softmax, dice = by_hand(output.logits, [0.5, 1.5])
    assert terms["au_softmax"].item() == pytest.approx(softmax, rel=1e-5)
    assert terms["au_dice"].item() == pytest.approx(dice, rel=1e-5)

    squares = (output.landmarks - landmarks).square().sum((1, 2)) / (2 * eye_distance(landmarks) ** 2)
    assert terms["align"].item() == pytest.approx(squares.mean().item(), rel=1e-5)
    v, v_hat = output.target_maps, output.refined_maps
    entropy = -(v * v_hat.log() + (1 - v) * (1 - v_hat).log()).sum().item() / 3
    assert terms["attention"].item() == pytest.approx(entropy, rel=1e-4)
    total = softmax + dice + 0.3 * squares.mean().item() + 1e-2 * entropy
    assert terms["total"].item() == pytest.approx(total, rel=1e-4)


def test_reduction_mean_divides_by_the_points(output: JAAOutput, landmarks: torch.Tensor) -> None:
    summed = JointLoss(Loss(attention=1.0))(output, LABELS, landmarks)["attention"]
    mean = JointLoss(Loss(attention=1.0, attention_reduction="mean"))(output, LABELS, landmarks)["attention"]
    assert summed.item() == pytest.approx(256 * mean.item(), rel=1e-5)


def test_local_predictions_add_their_own_loss(output: JAAOutput, landmarks: torch.Tensor) -> None:
    terms = JointLoss(Loss(align=0.0, local=2.0, dice=0.5))(output, LABELS, landmarks)
    assert list(terms) == ["au_softmax", "au_dice", "local_softmax", "local_dice", "total"]
    softmax, dice = by_hand(output.logits, [1, 1])
    local_softmax, local_dice = by_hand(output.local_logits, [1, 1])
    assert terms["local_dice"].item() == pytest.approx(local_dice, rel=1e-5)
    total = softmax + 0.5 * dice + 2 * (local_softmax + 0.5 * local_dice)
    assert terms["total"].item() == pytest.approx(total, rel=1e-5)


INTENSITIES = torch.tensor([[3.0, torch.nan], [0.0, torch.nan], [torch.nan, 5.0]])


def test_intensities_add_their_squared_error(output: JAAOutput, landmarks: torch.Tensor) -> None:
    output.intensities = torch.tensor([[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]])
    factors = Loss(align=0.0, local=0.0, intensity=0.1)
    terms = JointLoss(factors, WEIGHT)(output, LABELS, landmarks, INTENSITIES)
    assert list(terms) == ["au_softmax", "au_dice", "intensity", "total"]
    error = (0.5 * (4 + 1) / 2 + 1.5 * 9) / 2
    assert terms["intensity"].item() == pytest.approx(error)
    total = sum(by_hand(output.logits, [0.5, 1.5])) + 0.1 * error
    assert terms["total"].item() == pytest.approx(total, rel=1e-5)
    for without in (JointLoss(Loss(intensity=0.0))(output, LABELS, landmarks, INTENSITIES),
                    JointLoss(Loss())(output, LABELS, landmarks)):  # fmt: skip
        assert "intensity" not in without


def test_a_factor_of_zero_leaves_a_term_out_even_if_it_is_not_finite(
    output: JAAOutput, landmarks: torch.Tensor
) -> None:
    output.landmarks = torch.full_like(landmarks, torch.inf)
    terms = JointLoss(Loss(align=0.0, dice=0.0, local=0.0))(output, LABELS, landmarks)
    assert list(terms) == ["au_softmax", "total"]
    assert terms["total"].item() == terms["au_softmax"].item()


def test_the_gradient_reaches_every_output(output: JAAOutput, landmarks: torch.Tensor) -> None:
    output.intensities = torch.full((3, 2), 2.5)
    used = [output.logits, output.landmarks, output.refined_maps, output.local_logits, output.intensities]
    for tensor in used:
        tensor.requires_grad_()
    terms = JointLoss(Loss(attention=1e-3), WEIGHT)(output, LABELS, landmarks, INTENSITIES)
    assert tuple(terms) == TERMS
    terms["total"].backward()
    assert all(tensor.grad.abs().sum() > 0 for tensor in used)


def test_no_loss_left(output: JAAOutput, landmarks: torch.Tensor) -> None:
    alone = JAAOutput(landmarks=output.landmarks)
    with pytest.raises(ValueError, match=r"no loss is left: .* loss\.align is 0"):
        JointLoss(Loss(align=0.0))(alone, LABELS, landmarks)


@pytest.mark.parametrize("dice_over", ["sample", "batch"])
def test_aus_without_labels_are_as_if_the_model_did_not_have_them(
    output: JAAOutput, landmarks: torch.Tensor, dice_over: Any
) -> None:
    """To the bit: losses, and the gradients of everything; those of the missing AU are 0."""
    g = torch.Generator().manual_seed(3)
    known = [0, 2]
    labels = torch.tensor([[1, -1, 0], [0, -1, -1], [1, -1, 1]])
    weight = torch.tensor([0.5, 1.7, 1.5])
    intensities = torch.where(labels >= 0, 2.5 * labels, torch.nan)
    shapes = {"logits": (3, 2, 3), "local_logits": (3, 2, 3), "intensities": (3, 3)}
    predicted = {name: torch.randn(shape, generator=g) for name, shape in shapes.items()}

    def losses(aus: list[int]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        own = {name: x[..., aus].clone().requires_grad_() for name, x in predicted.items()}
        loss = JointLoss(Loss(dice_over=dice_over), weight[aus])
        terms = loss(
            JAAOutput(**own, landmarks=output.landmarks), labels[:, aus], landmarks, intensities[:, aus]
        )
        grads = torch.autograd.grad(terms["total"], list(own.values()))
        return terms, dict(zip(own, grads, strict=True))

    (terms, grads), (without, grads_without) = losses([0, 1, 2]), losses(known)
    assert set(terms) == {*TERMS} - {"attention"}
    for name, value in terms.items():
        assert value.isfinite() and torch.equal(value, without[name]), name
    for name, grad in grads.items():
        assert torch.equal(grad[..., known], grads_without[name]), name
        assert (grad[..., 1] == 0).all()


def test_a_batch_without_any_label(output: JAAOutput, landmarks: torch.Tensor) -> None:
    assert output.logits is not None
    output.logits.requires_grad_()
    terms = JointLoss(Loss(), WEIGHT)(output, torch.full((3, 2), -1), landmarks, torch.full((3, 2), math.nan))
    assert terms["au_softmax"] == terms["au_dice"] == terms["local_softmax"] == terms["local_dice"] == 0
    terms["total"].backward()
    assert output.logits.grad is not None and (output.logits.grad == 0).all()
