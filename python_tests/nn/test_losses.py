"""Losses against numbers worked out by hand or by plain loops."""

import math
import warnings

import numpy as np
import pytest
import torch

from jaa_ext import facs
from jaa_ext.nn import (
    AlignmentLoss,
    AttentionLoss,
    IntensityLoss,
    SoftmaxDiceLoss,
    au_weights,
    scale_gradient,
)


def test_softmax_dice_by_hand():
    # Equal logits: every probability is 1/2.
    logits = torch.zeros(2, 2, 2, requires_grad=True)
    target = torch.tensor([[1, 0], [0, -1]])
    loss = SoftmaxDiceLoss(weight=torch.tensor([0.5, 1.5]))(logits, target)
    present, absent = 1 - (2 * 0.5 + 1) / (1 + 0.25 + 1), 1 - 1 / (0.25 + 1)
    assert loss.softmax.item() == pytest.approx((0.5 + 1.5) / 2 * math.log(2))
    assert loss.dice.item() == pytest.approx((0.5 * (present + absent) / 2 + 1.5 * absent) / 2)
    (loss.softmax + loss.dice).backward()
    assert (logits.grad[1, :, 1] == 0).all(), "a missing label has a gradient"
    assert (logits.grad[0] != 0).all()


def test_softmax_dice_without_any_label_is_zero():
    loss = SoftmaxDiceLoss(ignore_index=9)(torch.randn(2, 2, 3), torch.full((2, 3), 9))
    assert loss.softmax == 0 and loss.dice == 0


def test_softmax_dice_over_the_batch_and_its_options():
    logits = torch.zeros(2, 2, 1)
    target = torch.tensor([[1], [1]])
    loss = SoftmaxDiceLoss(dice="batch", smooth=0.5)(logits, target)
    assert loss.dice.item() == pytest.approx(1 - (2 * 1.0 + 0.5) / (2.5 + 0.5))
    layer = SoftmaxDiceLoss(weight=torch.ones(2))
    assert torch.equal(layer.state_dict()["weight"], torch.ones(2))


def test_alignment_by_hand():
    target = torch.zeros(2, 49, 2)
    target[:, facs.LEFT_EYE] = torch.tensor([10.0, 20.0])
    target[:, facs.RIGHT_EYE] = torch.tensor([13.0, 24.0])  # 5 pixels away
    landmarks = target.clone()
    landmarks[0, 7] += torch.tensor([3.0, 4.0])
    landmarks[0, 40, 0] -= 2
    landmarks[1, 0, 1] += 1
    want = ((25 + 4) / (2 * 25) + 1 / (2 * 25)) / 2
    assert AlignmentLoss()(landmarks, target).item() == pytest.approx(want)
    with pytest.raises(ValueError, match=r"must both be \(N, 49, 2\), got \[2, 48, 2\] and \[2, 49, 2\]"):
        AlignmentLoss()(landmarks[:, :48], target)


def test_alignment_computes_half_types_in_float32():
    target = torch.rand(2, 49, 2) * 100
    landmarks = target + 300  # the sum of squares overflows float16
    loss = AlignmentLoss()(landmarks.half(), target.half())
    assert loss.dtype == torch.float32 and loss.isfinite()


NONE = float("nan")


def test_intensity_by_hand():
    # The second AU is known in one face, the third in none.
    target = torch.tensor([[3.0, NONE, NONE], [0.0, 5.0, NONE]])
    got = torch.tensor([[1.0, NONE, 2.0], [1.0, 2.0, NONE]], requires_grad=True)
    loss = IntensityLoss(weight=torch.tensor([0.5, 2.0, 9.0]))(got, target)
    first, second = (2**2 + 1**2) / 2, 3**2
    assert loss.item() == pytest.approx((0.5 * first + 2 * second) / 2)
    loss.backward()
    # 2 * error * weight / (faces * AUs), and 0 for what is missing.
    assert got.grad.tolist() == [[-1.0 / 2, 0, 0], [0.5 / 2, -6.0, 0]]
    assert IntensityLoss()(got, target).item() == pytest.approx((first + second) / 2)


def test_intensity_without_any_is_zero():
    got = torch.full((2, 3), 2.5, requires_grad=True)
    loss = IntensityLoss()(got, torch.full((2, 3), NONE))
    loss.backward()
    assert loss.item() == 0 and got.grad.tolist() == [[0, 0, 0], [0, 0, 0]]


def test_intensity_computes_half_types_in_float32():
    got = torch.tensor([[4.0]], dtype=torch.bfloat16)
    loss = IntensityLoss()(got, torch.tensor([[3.999]]))
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(1e-6, rel=1e-3)
    with pytest.raises(ValueError, match=r"must both be \(N, A\), got \[1, 1\] and \[1, 2\]"):
        IntensityLoss()(got, torch.zeros(1, 2))


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_attention_by_loops(reduction):
    generator = torch.Generator().manual_seed(0)
    refined = torch.rand(2, 3, 4, 4, generator=generator, dtype=torch.float64)
    target = torch.rand(2, 3, 4, 4, generator=generator, dtype=torch.float64)
    total = 0.0
    for v_hat, v in zip(refined.flatten().tolist(), target.flatten().tolist(), strict=True):
        total -= v * math.log(v_hat) + (1 - v) * math.log(1 - v_hat)
    want = total / 2 / (16 if reduction == "mean" else 1)
    assert AttentionLoss(reduction)(refined, target).item() == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_attention_is_finite_where_maps_saturate(dtype):
    refined = torch.tensor([0.0, 1.0, 0.0, 1.0, 1e-7, 0.5]).to(dtype).view(1, 1, 2, 3).requires_grad_()
    target = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0, 0.5]).view(1, 1, 2, 3)
    with torch.autocast("cpu", torch.bfloat16):
        loss = AttentionLoss()(refined, target)
    loss.backward()
    assert loss.dtype == torch.float32 and loss.isfinite() and loss > 5
    assert refined.grad.isfinite().all()


def test_attention_of_diverged_maps_is_nan_and_no_crash():
    assert AttentionLoss()(torch.full((1, 1, 2, 2), torch.nan), torch.zeros(1, 1, 2, 2)).isnan()


def test_attention_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match='reduction must be "sum" or "mean", got "none"'):
        AttentionLoss("none")
    with pytest.raises(ValueError, match=r"got \[1, 2, 4, 4\] and \[1, 2, 5, 5\]"):
        AttentionLoss()(torch.rand(1, 2, 4, 4), torch.rand(1, 2, 5, 5))


def test_scale_gradient_is_the_identity_with_another_gradient():
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    y = scale_gradient(x, 3.0)
    assert torch.equal(x, y)
    (grad,) = torch.autograd.grad((y**3).sum(), x, create_graph=True)
    torch.testing.assert_close(grad, 9 * x**2)
    (second,) = torch.autograd.grad(grad.sum(), x)
    torch.testing.assert_close(second, 3 * 3 * 6 * x)  # each pass through the node scales once
    assert not scale_gradient(x.detach(), 3.0).requires_grad


def test_scale_gradient_compiles():
    x = torch.randn(3, requires_grad=True)
    compiled = torch.compile(lambda x: scale_gradient(x.sin(), 2.5), fullgraph=True, backend="aot_eager")
    y = compiled(x)
    assert torch.equal(y, x.sin())
    y.sum().backward()
    torch.testing.assert_close(x.grad, 2.5 * x.detach().cos())


def test_weights_by_hand():
    # Rates over valid labels: 1/2 (of 4) and 1/3 (of 3).
    labels = np.array([[1, 0], [0, 1], [1, -1], [0, 0]])
    want = torch.tensor([2 * 2 / 5, 2 * 3 / 5])
    torch.testing.assert_close(au_weights(labels), want)
    torch.testing.assert_close(au_weights(torch.tensor(labels)), want)


def test_weights_of_rows_that_come_more_often_than_others():
    """As of the rows repeated; the unit does not matter, and equal rows change no bit."""
    labels = torch.tensor([[1, 0], [0, 1], [1, -1], [0, 0]])
    often = torch.tensor([3, 1, 2, 1])
    want = au_weights(labels.repeat_interleave(often, 0))
    torch.testing.assert_close(au_weights(labels, frequencies=often), want)
    torch.testing.assert_close(au_weights(labels, frequencies=often / 1000), want)
    assert torch.equal(au_weights(labels, frequencies=np.ones(4)), au_weights(labels))


NEVER = {"absent": 0, "missing": -1}


@pytest.mark.parametrize("never", NEVER)
def test_an_au_that_never_occurs_has_no_weight_and_changes_no_other(never):
    labels = torch.tensor([[1, 0, 1], [0, 0, 1], [1, 0, 0], [1, -1, -1]])
    labels[:, 1] = torch.where(labels[:, 1] == -1, -1, NEVER[never])
    with pytest.warns(UserWarning) as warned:
        weights = au_weights(labels, aus=(1, 24, 6))
    assert [str(w.message) for w in warned] == [
        "AU 24 never occurs in the labels: its weight in the loss is 0, and the others have theirs as if it "
        "were not there"
    ]
    assert weights[1] == 0 and torch.equal(weights[[0, 2]], au_weights(labels[:, [0, 2]]))
    with pytest.warns(UserWarning, match="the AU at index 1 never occurs"):
        assert torch.equal(au_weights(labels), weights)


def test_several_aus_that_never_occur_are_named_together():
    labels = torch.tensor([[1, 0, 0, -1], [0, 0, 1, -1], [0, 0, 1, 0]])
    own = facs.AURule((31, 37), 0.1)
    with pytest.warns(UserWarning) as warned:
        weights = au_weights(labels, aus=(1, 2, 4, own))
    (told,) = (str(w.message) for w in warned)
    assert told.startswith(
        "AU 2, the AU at index 3 never occur in the labels: their weights in the loss are 0"
    )
    torch.testing.assert_close(weights, torch.tensor([2 * 3 / 4.5, 0, 2 * 1.5 / 4.5, 0]))
    with pytest.warns(UserWarning):
        assert torch.equal(au_weights(torch.tensor([[1, 0], [0, 0]] * 500)), torch.tensor([1.0, 0.0]))


def test_weights_of_an_au_that_always_occurs():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.testing.assert_close(au_weights(torch.tensor([[1, 0], [1, 1]])), torch.tensor([2 / 3, 4 / 3]))
        assert au_weights(torch.empty(3, 0)).shape == (0,)


@pytest.mark.parametrize("labels", [torch.zeros(3, 2), torch.full((3, 2), -1), torch.zeros(0, 2)])
def test_labels_without_any_occurrence_give_no_weights(labels):
    with pytest.raises(ValueError, match=r"au_weights: .*none of 2"):
        au_weights(labels)


@pytest.mark.parametrize("dice", ["sample", "batch"])
def test_an_au_of_weight_0_teaches_nothing(dice):
    """Alone or beside others, in a batch where it has labels, some, or none."""
    logits = torch.randn(4, 2, 3, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([[1, 0, 0], [0, 0, 1], [1, 0, -1], [0, -1, -1]])
    for weight in ([1.5, 0, 0.5], [0, 0, 1], [0, 0, 0]):
        losses = SoftmaxDiceLoss(torch.tensor(weight), dice=dice)(logits, target)
        (grad,) = torch.autograd.grad(sum(losses), logits)
        assert losses.softmax.isfinite() and losses.dice.isfinite() and grad.isfinite().all()
        assert grad.any(0).any(0).tolist() == [w > 0 for w in weight]


def test_weights_refuse_other_codes():
    with pytest.raises(ValueError, match=r"1, 0 or -1 .*got 9"):
        au_weights(torch.tensor([[1, 9]]))
    with pytest.raises(ValueError, match=r"must be \(n, A\), got \[3\]"):
        au_weights(torch.tensor([1, 0, 1]))
