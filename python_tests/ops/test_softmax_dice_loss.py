"""softmax_dice_loss against the reference in float64, and both against Eq. 6 and 7 written as loops."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck

from jaa_ext.ops import reference, softmax_dice_loss

TOLERANCE = {torch.float64: 1e-13, torch.float32: 5e-7, torch.float16: 1e-3, torch.bfloat16: 8e-3}


def random_case(
    samples: int = 30, aus: int = 7, dtype: torch.dtype = torch.float64, device: str = "cpu", seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, labels with about a third missing (AU 3 wholly), weights."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(samples, 2, aus, generator=generator, dtype=torch.float64)
    target = torch.randint(-1, 2, (samples, aus), generator=generator)
    target[:, 3:4] = -1
    weight = torch.rand(aus, generator=generator, dtype=torch.float64) + 0.1
    return logits.to(dtype).to(device), target.to(device), weight.to(device)


def loss_by_loops(
    logits: Tensor, target: Tensor, weight: Tensor, smooth: float, dice: str
) -> tuple[float, float]:
    softmax_terms, dice_terms = [], []
    for i in range(logits.shape[2]):
        entropies, ratios, overlap, squares = [], [], 0.0, 0.0
        for n in range(logits.shape[0]):
            p = float(target[n, i])
            if p == -1:
                continue
            absent, present = logits[n, :, i].tolist()
            p_hat = math.exp(present) / (math.exp(absent) + math.exp(present))
            entropies.append(-(p * math.log(p_hat) + (1 - p) * math.log(1 - p_hat)))
            ratios.append(1 - (2 * p * p_hat + smooth) / (p**2 + p_hat**2 + smooth))
            overlap, squares = overlap + p * p_hat, squares + p**2 + p_hat**2
        if entropies:
            w = float(weight[i])
            softmax_terms.append(w * sum(entropies) / len(entropies))
            whole = 1 - (2 * overlap + smooth) / (squares + smooth)
            dice_terms.append(w * (sum(ratios) / len(ratios) if dice == "sample" else whole))
    count = max(len(softmax_terms), 1)
    return sum(softmax_terms) / count, sum(dice_terms) / count


def gradients(function, logits: Tensor, *rest, **options) -> Tensor:
    losses = function(logits, *rest, **options)
    return torch.autograd.grad(0.7 * losses.softmax + 1.9 * losses.dice, logits)[0]


@pytest.mark.parametrize("dice", ["sample", "batch"])
@pytest.mark.parametrize("smooth", [1.0, 0.25])
def test_equations(dice: str, smooth: float, device: str) -> None:
    logits, target, weight = random_case(device=device)
    expected = loss_by_loops(logits.cpu(), target.cpu(), weight.cpu(), smooth, dice)
    for function in (softmax_dice_loss, reference.softmax_dice_loss):
        losses = function(logits, target, weight, smooth=smooth, dice=dice)
        assert [v.item() for v in losses] == pytest.approx(expected, rel=1e-12)


def assert_matches_reference(logits: Tensor, target: Tensor, weight: Tensor, dice: str) -> None:
    tolerance = TOLERANCE[logits.dtype]
    exact = logits.double().requires_grad_()
    logits.requires_grad_()
    losses = softmax_dice_loss(logits, target, weight, dice=dice)
    expected = reference.softmax_dice_loss(exact, target, weight, dice=dice)
    for actual, other in zip(losses, expected, strict=True):
        assert actual.dtype == logits.dtype and actual.shape == ()
        assert actual.item() == pytest.approx(other.item(), rel=tolerance)
    grad = gradients(softmax_dice_loss, logits, target, weight, dice=dice)
    exact_grad = gradients(reference.softmax_dice_loss, exact, target, weight, dice=dice)
    assert grad.dtype == logits.dtype
    assert (grad - exact_grad).abs().max() <= tolerance * exact_grad.abs().max()


@pytest.mark.parametrize("dice", ["sample", "batch"])
@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_matches_reference(dtype: torch.dtype, dice: str, device: str) -> None:
    assert_matches_reference(*random_case(200, 12, dtype, device), dice)


def test_every_instruction_set(at_level: Callable[[str], None]) -> None:
    """With AU counts around whole vectors."""
    at_level("""
from test_softmax_dice_loss import TOLERANCE, assert_matches_reference, random_case
for dtype in TOLERANCE:
    for aus in (1, 4, 15, 16, 17, 40):
        for dice in ("sample", "batch"):
            logits, target, weight = random_case(70, aus, dtype)
            assert_matches_reference(logits.clone(), target, weight, dice)
            strided = logits.permute(2, 0, 1).contiguous().permute(1, 2, 0)
            assert_matches_reference(strided, target, weight, dice)
""")


def test_every_single_label_is_accurate(device: str) -> None:
    """The kernels' own exponential and logarithm, over all margins that float32 tells apart from 0."""
    margins = torch.cat([torch.linspace(-86, 86, 500), torch.linspace(-1, 1, 500)])
    for margin in margins:
        logits = torch.stack([torch.zeros(1), margin[None]])[None].to(device).requires_grad_()
        for label in (0, 1):
            losses = softmax_dice_loss(logits, torch.tensor([[label]], device=device))
            signed = margin.double() if label else -margin.double()
            assert losses.softmax.item() == pytest.approx(math.log1p(math.exp(-signed)), rel=3e-7)
            (grad,) = torch.autograd.grad(losses.softmax, logits)
            p_hat = 1 / (1 + math.exp(-margin))
            assert grad[0, 1, 0].item() == pytest.approx(p_hat - label, rel=3e-7, abs=1e-7 * label)


@pytest.mark.parametrize("dice", ["sample", "batch"])
@pytest.mark.parametrize("weighted", [False, True])
def test_gradcheck(dice: str, weighted: bool, device: str) -> None:
    logits, target, weight = random_case(5, 4, device=device)
    assert gradcheck(
        lambda x: softmax_dice_loss(x, target, weight if weighted else None, dice=dice),
        logits.requires_grad_(),
    )


@settings(deadline=None, max_examples=50)
@given(
    samples=st.integers(0, 150),
    aus=st.integers(0, 40),
    seed=st.integers(0, 1000),
    dice=st.sampled_from(["sample", "batch"]),
    missing=st.sampled_from([-1, 9]),
)
def test_drawn_shapes(device: str, samples: int, aus: int, seed: int, dice: str, missing: int) -> None:
    logits, target, weight = random_case(samples, aus, seed=seed, device=device)
    target[target == -1] = missing
    options = dict(dice=dice, ignore_index=missing)
    logits.requires_grad_()
    for actual, expected in zip(
        softmax_dice_loss(logits, target, weight, **options),
        reference.softmax_dice_loss(logits, target, weight, **options),
        strict=True,
    ):
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(
        gradients(softmax_dice_loss, logits, target, weight, **options),
        gradients(reference.softmax_dice_loss, logits, target, weight, **options),
        rtol=1e-10,
        atol=1e-14,
    )


@pytest.mark.parametrize("dice", ["sample", "batch"])
def test_missing_labels_take_no_part(dice: str, device: str) -> None:
    logits, target, weight = random_case(device=device)
    logits.requires_grad_()
    missing = (target == -1)[:, None].expand_as(logits)
    grad = gradients(softmax_dice_loss, logits, target, weight, dice=dice)
    assert grad[missing].count_nonzero() == 0 and grad[~missing].count_nonzero() > 0
    changed = torch.where(missing, 1e4, logits)
    for a, b in zip(
        softmax_dice_loss(logits, target, weight, dice=dice),
        softmax_dice_loss(changed, target, weight, dice=dice),
        strict=True,
    ):
        assert torch.equal(a, b)


@pytest.mark.parametrize("dice", ["sample", "batch"])
@pytest.mark.parametrize("samples", [0, 3])
def test_all_missing_gives_zero(samples: int, dice: str, device: str) -> None:
    logits = torch.randn(samples, 2, 5, device=device, requires_grad=True)
    target = torch.full((samples, 5), -1, device=device)
    for function in (softmax_dice_loss, reference.softmax_dice_loss):
        losses = function(logits, target, dice=dice)
        assert losses.softmax == 0 and losses.dice == 0
        assert gradients(function, logits, target, dice=dice).count_nonzero() == 0


def test_probabilities_as_targets(device: str) -> None:
    logits, target, weight = random_case(device=device)
    logits.requires_grad_()
    soft = torch.rand(target.shape, dtype=torch.float64, device=device)
    soft = torch.where(target == -1, -1.0, soft)
    for actual, expected in zip(
        softmax_dice_loss(logits, soft, weight),
        reference.softmax_dice_loss(logits, soft, weight),
        strict=True,
    ):
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(
        gradients(softmax_dice_loss, logits, soft, weight),
        gradients(reference.softmax_dice_loss, logits, soft, weight),
    )
    for kind in (torch.float32, torch.float16, torch.int32, torch.int8):
        again = softmax_dice_loss(logits, target.to(kind), weight)
        assert all(
            torch.equal(a, b) for a, b in zip(again, softmax_dice_loss(logits, target, weight), strict=True)
        )


def test_extreme_logits_stay_finite(device: str) -> None:
    for dtype in (torch.float32, torch.float64):
        logits = torch.tensor([[[-1e4, 1e4, 300.0]], [[1e4, -1e4, -300.0]]], dtype=dtype, device=device)
        logits = logits.transpose(0, 1).contiguous().requires_grad_()
        target = torch.tensor([[1, 1, 0]], device=device)
        losses = softmax_dice_loss(logits, target)
        assert losses.softmax.item() == pytest.approx(2e4 / 3)
        assert gradients(softmax_dice_loss, logits, target).isfinite().all()


def of_one_label(logits: Tensor, label: int) -> tuple[Tensor, Tensor]:
    """What `cross_entropy` makes of a label, and its gradient in the logits (absent, present)."""
    logits = (logits if logits.dtype == torch.float64 else logits.float()).detach().requires_grad_()
    loss = torch.nn.functional.cross_entropy(logits[None], torch.tensor([label]))
    return loss.detach().double(), torch.autograd.grad(loss, logits)[0].double()


ENDS = [
    *itertools.product([torch.inf, -torch.inf, torch.nan, 0.5], repeat=2),
    (3.4e38, -3.4e38),
    (-3.4e38, 0.5),
]
"""Pairs of logits, present and absent."""


def check_infinite_logits(function: Callable[..., Any], dtype: torch.dtype) -> None:
    """Every pair of logits with either label, each beside other AUs and a missing label of the same."""
    for present, absent in ENDS:
        for label in (0, 1):
            logits = torch.zeros(2, 2, 3, dtype=torch.float64)
            logits[:, :, 1] = torch.tensor([absent, present])
            logits = logits.to(dtype).requires_grad_()
            target = torch.tensor([[1, label, 0], [0, -1, 1]])
            entropy, by_logits = of_one_label(logits[0, :, 1], label)
            for kind in (torch.int64, torch.float32):
                losses = function(logits, target.to(kind), dice="sample")
                grad = torch.autograd.grad(losses.softmax, logits, retain_graph=True)[0].double()
                want = (entropy + 2 * math.log(2)) / 3
                torch.testing.assert_close(losses.softmax.double(), want, rtol=1e-2, atol=0, equal_nan=True)
                torch.testing.assert_close(grad[0, :, 1], by_logits / 3, rtol=1e-2, atol=1e-6, equal_nan=True)
                assert (grad[1, :, 1] == 0).all() and grad[:, :, [0, 2]].isfinite().all()
                # of Dice: finite wherever the probability is
                assert losses.dice.isfinite() == by_logits.isfinite().all()
                dice_grad = torch.autograd.grad(losses.dice, logits)[0]
                assert dice_grad[0, :, 1].isfinite().all() == by_logits.isfinite().all()
                assert (dice_grad[1, :, 1] == 0).all() and dice_grad[:, :, [0, 2]].isfinite().all()


@pytest.mark.parametrize(
    "function", [softmax_dice_loss, reference.softmax_dice_loss], ids=["op", "reference"]
)
@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_infinite_logits_are_as_in_cross_entropy(function: Callable[..., Any], dtype: torch.dtype) -> None:
    check_infinite_logits(function, dtype)


def test_infinite_logits_at_every_instruction_set(at_level: Callable[[str], None]) -> None:
    at_level("""
from test_softmax_dice_loss import TOLERANCE, check_infinite_logits, softmax_dice_loss
for dtype in TOLERANCE:
    check_infinite_logits(softmax_dice_loss, dtype)
""")


@pytest.mark.parametrize("dice", ["sample", "batch"])
@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_what_is_not_finite_is_so_in_the_reference(dtype: torch.dtype, value: float, dice: str) -> None:
    for place in ((0, 0, 1), (3, 1, 5), (2, 1, 6)):
        logits, target, weight = random_case(20, 7, dtype)
        logits[place] = value
        logits.requires_grad_()
        functions = softmax_dice_loss, reference.softmax_dice_loss
        for one, other in zip(*(f(logits, target, weight, dice=dice) for f in functions), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-2, equal_nan=True)
        grads = [gradients(f, logits, target, weight, dice=dice) for f in functions]
        torch.testing.assert_close(*grads, rtol=5e-2, atol=1e-2, equal_nan=True)


@pytest.mark.parametrize(
    "function", [softmax_dice_loss, reference.softmax_dice_loss], ids=["op", "reference"]
)
@pytest.mark.parametrize(
    ("dtype", "missing"),
    [
        (torch.int8, 255),
        (torch.int8, -129),
        (torch.uint8, -1),
        (torch.uint8, 256),
        (torch.int16, 2**16),
        (torch.bool, -1),
        (torch.float16, 2**16),
        (torch.bfloat16, 257),
        (torch.float32, 2**24),
    ],
)
def test_a_missing_label_that_the_target_cannot_hold(
    function: Callable[..., Any], dtype: torch.dtype, missing: int
) -> None:
    """Nothing is missing then, and the number that it would wrap to is a wrong label."""
    logits = torch.randn(4, 2, 3, dtype=torch.float64)
    target = torch.tensor([[0, 1, 0], [1, 1, 0], [0, 0, 1], [1, 0, 1]])
    got = function(logits, target.to(dtype), ignore_index=missing)
    for one, other in zip(got, function(logits, target), strict=True):
        assert torch.equal(one, other)
    if dtype in (torch.int8, torch.uint8, torch.int16):
        wraps = torch.tensor(missing).to(dtype)
        target = target.to(dtype)
        target[1, 2] = wraps
        if wraps in (0, 1):
            return
        if function is softmax_dice_loss:
            with pytest.raises(
                ValueError, match=rf"ignore_index \({missing}\), got {wraps.item()} for sample 1"
            ):
                function(logits, target, ignore_index=missing)
        else:
            assert all(loss.isnan() for loss in function(logits, target, ignore_index=missing))


@pytest.mark.parametrize(
    "function", [softmax_dice_loss, reference.softmax_dice_loss], ids=["op", "reference"]
)
def test_autocast_leaves_float64(function: Callable[..., Any]) -> None:
    logits, target, weight = random_case()
    with torch.autocast("cpu", torch.bfloat16):
        losses = function(logits, target, weight)
    for one, other in zip(losses, function(logits, target, weight), strict=True):
        assert one.dtype == torch.float64 and torch.equal(one, other)


def test_any_strides(device: str) -> None:
    logits, target, weight = random_case(device=device)
    expected = softmax_dice_loss(logits, target, weight)
    views = (
        logits.permute(2, 0, 1).contiguous().permute(1, 2, 0),
        target.t().contiguous().t(),
        weight.repeat_interleave(2)[::2],
    )
    actual = softmax_dice_loss(*views)
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))


def test_only_one_loss_used(device: str) -> None:
    logits, target, weight = random_case(device=device)
    logits.requires_grad_()
    for k in range(2):
        (actual,) = torch.autograd.grad(softmax_dice_loss(logits, target, weight)[k], logits)
        (expected,) = torch.autograd.grad(reference.softmax_dice_loss(logits, target, weight)[k], logits)
        torch.testing.assert_close(actual, expected)


def test_same_bits_whatever_the_threads() -> None:
    logits, target, weight = random_case(1000, 12, torch.float32)
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(gradients(softmax_dice_loss, logits.requires_grad_(), target, weight))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


def test_autocast_computes_in_float32(device: str) -> None:
    logits, target, weight = random_case(dtype=torch.bfloat16, device=device)
    logits.requires_grad_()
    with torch.autocast(device, torch.bfloat16):
        losses = softmax_dice_loss(logits, target, weight)
    expected = softmax_dice_loss(logits.float(), target, weight)
    assert all(torch.equal(a, b) for a, b in zip(losses, expected, strict=True))
    assert losses.softmax.dtype == torch.float32
    losses.dice.backward()
    assert logits.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("dice", ["sample", "batch"])
def test_opcheck(dice: str, device: str, opcheck: Callable[..., Any]) -> None:
    logits, target, weight = random_case(device=device)
    arguments = (target, weight, 1.0, dice, -1)
    opcheck(torch.ops.jaa_ext.softmax_dice_loss.default, (logits.requires_grad_(), *arguments))
    one = torch.ones((), dtype=torch.float64, device=device)
    opcheck(torch.ops.jaa_ext.softmax_dice_loss_backward.default, (one, one, logits.detach(), *arguments))


def test_compile_and_export(device: str) -> None:
    logits, target, weight = random_case(dtype=torch.float32, device=device)

    class Module(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("weight", weight)

        def forward(self, logits: Tensor, target: Tensor) -> Tensor:
            losses = softmax_dice_loss(logits, target, self.weight)
            return losses.softmax + losses.dice

    compiled = torch.compile(Module(), fullgraph=True, dynamic=True, backend="aot_eager")
    for count in (30, 12):
        x, y = logits[:count].clone().requires_grad_(), target[:count]
        (actual,) = torch.autograd.grad(compiled(x, y), x)
        (expected,) = torch.autograd.grad(Module()(x, y), x)
        torch.testing.assert_close(actual, expected)
    program = torch.export.export(Module(), (logits, target))
    assert torch.equal(program.module()(logits, target), Module()(logits, target))


def test_differentiating_twice_is_refused(device: str) -> None:
    logits, target, _ = random_case(device=device)
    logits.requires_grad_()
    (grad,) = torch.autograd.grad(softmax_dice_loss(logits, target).dice, logits, create_graph=True)
    with pytest.raises(RuntimeError, match="not implemented"):
        grad.sum().backward()


@pytest.mark.parametrize("wrong", [9, 2, -2])
def test_a_label_that_is_none(wrong: int, device: str) -> None:
    logits, target, weight = random_case(100, 5, device=device)
    target[70, 2] = wrong
    assert reference.softmax_dice_loss(logits, target, weight).softmax.isnan()
    if device == "cpu":
        with pytest.raises(
            ValueError, match=rf"0\.\.1 or ignore_index \(-1\), got {wrong} for sample 70, AU at"
        ):
            softmax_dice_loss(logits, target, weight)
    else:
        assert softmax_dice_loss(logits, target, weight).softmax.isnan()


MISTAKES = {
    "dice": (dict(dice="mean"), ValueError, 'dice must be "sample" or "batch", got "mean"'),
    "smooth": (dict(smooth=0.0), ValueError, "smooth must be above 0, got 0"),
    "ignore_index": (dict(ignore_index=2**24 + 1), ValueError, r"must be in -2\^24\.\.2\^24, got 16777217"),
    "logits": (dict(logits=torch.zeros(4, 3, 5)), ValueError, r"logits must be \(N, 2, A\), got \[4, 3, 5\]"),
    "logits dtype": (
        dict(logits=torch.zeros(4, 2, 5, dtype=torch.int64)),
        TypeError,
        "logits must be float64.* got int64",
    ),
    "target": (dict(target=torch.zeros(5, 4)), ValueError, r"must be \(N, A\) = \[4, 5\], got \[5, 4\]"),
    "complex": (
        dict(target=torch.zeros(4, 5, dtype=torch.complex64)),
        TypeError,
        "target must be bool, integer or floating, got complex64",
    ),
    "weight": (dict(weight=torch.ones(4)), ValueError, r"weight must be \(A,\) = \[5\], got \[4\]"),
    "target gradient": (
        dict(target=torch.zeros(4, 5, requires_grad=True)),
        ValueError,
        "target is a constant",
    ),
    "weight gradient": (
        dict(weight=torch.ones(5, requires_grad=True)),
        ValueError,
        "weight is a constant",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_named_alike(mistake: str, refused_alike: Callable[..., None]) -> None:
    changes, error, message = MISTAKES[mistake]
    arguments = dict(logits=torch.zeros(4, 2, 5), target=torch.zeros(4, 5), weight=torch.ones(5)) | changes
    refused_alike(softmax_dice_loss, arguments, error, message)
