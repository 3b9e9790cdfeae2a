"""region_batch_norm against one ordinary batch norm a cell in float64."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck

from jaa_ext.ops import reference, region_batch_norm

# Relative to the largest value: the unit roundoff of the type with room for a few hundred terms of a sum.
TOLERANCE = {torch.float64: 1e-14, torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
DTYPES = list(TOLERANCE)
LAYOUTS = [torch.contiguous_format, torch.channels_last]


def in_order(op: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The op with its tensors by position, as `random_case` gives them."""

    def call(
        input: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        **options: Any,
    ) -> Tensor:
        return op(
            input,
            weight=weight,
            bias=bias,
            running_mean=running_mean,
            running_var=running_var,
            **options,
        )

    return call


ours, plain = in_order(region_batch_norm), in_order(reference.region_batch_norm)


def random_case(
    *,
    batch: int = 3,
    channels: int = 5,
    size: tuple[int, int] = (13, 17),
    grid: tuple[int, int] = (3, 4),
    dtype: torch.dtype = torch.float64,
    parameter_dtype: torch.dtype | None = None,
    device: str = "cpu",
    seed: int = 0,
) -> list[Tensor]:
    """Input, weight, bias, running mean and running variance."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(device)

    input = (2 * draw(batch, channels, *size) + 0.5).to(dtype)
    parameters = [draw(*grid, channels).to(parameter_dtype or dtype) for _ in range(4)]
    parameters[3] = parameters[3].abs() + 0.1
    return [input, *parameters]


def assert_matches_reference(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    tolerance: float,
    *,
    grid: tuple[int, int] = (3, 4),
    training: bool = True,
    relu: bool = False,
) -> Tensor:
    """Output, all gradients and running statistics against the float64 reference; returns the output."""
    leaves = [t.detach().requires_grad_() for t in (input, weight, bias) if t is not None]
    exact = [t.detach().cpu().double().requires_grad_() for t in leaves]
    without = [None, None] if weight is None else []
    running = [None if t is None else t.clone() for t in (running_mean, running_var)]
    exact_running = [None if t is None else t.cpu().double().clone() for t in (running_mean, running_var)]
    options = dict(grid=grid, training=training, momentum=0.3, eps=1e-3, relu=relu)
    output = ours(*leaves, *without, *running, **options)
    expected = plain(*exact, *without, *exact_running, **options)
    grad = torch.randn(output.shape, generator=torch.Generator().manual_seed(1)).to(output)
    if relu:
        # Where ReLU bends, rounding decides whether the gradient passes.
        grad = torch.where(
            plain(*exact, *without, *exact_running, **options | dict(relu=False, momentum=0.0)).abs() > 1e-3,
            grad.cpu(),
            0,
        ).to(output)
    output.backward(grad)
    expected.backward(grad.cpu().double())
    assert output.dtype == input.dtype and output.device == input.device
    assert_close(output, expected, tolerance)
    for tensor, other in zip(leaves, exact, strict=True):
        assert tensor.grad.dtype == tensor.dtype
        assert_close(tensor.grad, other.grad, tolerance)
    for tensor, other in zip(running, exact_running, strict=True):
        if tensor is not None:
            assert_close(tensor, other, tolerance)
    return output


def assert_close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    assert actual.shape == expected.shape
    if expected.numel():
        scale = expected.abs().max().clamp_min(1e-30)
        assert ((actual.double().cpu() - expected.cpu()).abs().max() / scale).item() <= tolerance


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_matches_reference(
    dtype: torch.dtype, layout: torch.memory_format, training: bool, relu: bool, device: str
) -> None:
    case = random_case(dtype=dtype, device=device)
    case[0] = case[0].contiguous(memory_format=layout)
    output = assert_matches_reference(*case, TOLERANCE[dtype], training=training, relu=relu)
    assert output.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_float32_parameters(
    dtype: torch.dtype, training: bool, layout: torch.memory_format, device: str
) -> None:
    case = random_case(dtype=dtype, parameter_dtype=torch.float32, device=device)
    case[0] = case[0].contiguous(memory_format=layout)
    assert_matches_reference(*case, TOLERANCE[dtype], training=training, relu=True)
    # The statistics are not rounded to the half type.
    mean, var = torch.zeros(3, 4, 5, device=device), torch.ones(3, 4, 5, device=device)
    ours(case[0], None, None, mean, var, grid=(3, 4), training=True, momentum=1.0)
    cell = case[0][:, :, 4:8, 12:].double()
    assert_close(mean[1, 3], cell.mean((0, 2, 3)), 1e-6)
    assert_close(var[1, 3], cell.var((0, 2, 3)), 1e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("grid", [(1, 1), (2, 2)])
@pytest.mark.parametrize("channels", [1, 2, 3, 7, 8, 12, 16, 20, 31, 32, 33, 64, 65, 96, 160, 200])
def test_channel_counts(
    channels: int, grid: tuple[int, int], layout: torch.memory_format, device: str
) -> None:
    case = random_case(batch=2, channels=channels, size=(6, 10), grid=grid, device=device)
    case[0] = case[0].contiguous(memory_format=layout)
    assert_matches_reference(*case, 1e-14, grid=grid, relu=True)


@pytest.mark.parametrize("width", range(2, 40))
def test_row_lengths(width: int, device: str) -> None:
    """Rows end in parts of vectors: every remainder once, in rows of their own and joined."""
    for grid in ((2, 2), (2, 1)):
        size = (5, width)
        case = random_case(batch=2, channels=3, size=size, grid=grid, dtype=torch.float32, device=device)
        assert_matches_reference(*case, 1e-6, grid=grid)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("grid", [(1, 1), (2, 1), (4, 8)])
def test_many_chunks(grid: tuple[int, int], layout: torch.memory_format, device: str) -> None:
    """Statistics of large cells are summed in parts."""
    case = random_case(batch=3, channels=6, size=(150, 130), grid=grid, device=device)
    case[0] = case[0].contiguous(memory_format=layout)
    assert_matches_reference(*case, 1e-12, grid=grid)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("grid", [(1, 1), (4, 4)])
def test_mean_far_from_zero(grid: tuple[int, int], layout: torch.memory_format, device: str) -> None:
    """Mean 1e3 and deviation 1: a float32 difference of mean squares would have no digit left."""
    generator = torch.Generator().manual_seed(0)
    input = (torch.randn(4, 8, 64, 64, generator=generator) + 1e3).contiguous(memory_format=layout).to(device)
    mean, var = torch.zeros(*grid, 8, device=device), torch.ones(*grid, 8, device=device)
    output = ours(input, None, None, mean, var, grid=grid, training=True, momentum=1.0)
    expected_mean, expected_var = mean.double(), var.double()
    expected = plain(
        input.double(), None, None, expected_mean, expected_var, grid=grid, training=True, momentum=1.0
    )
    assert_close(mean, expected_mean, 6e-8)
    assert_close(var, expected_var, 1e-6)
    assert (output - expected).abs().max() < 1e-4  # half the spacing of float32 at 1e3 is 3e-5


def test_without_parameters_or_running_statistics(device: str) -> None:
    input, weight, bias, mean, var = random_case(device=device)
    for training in (False, True):
        assert_matches_reference(input, None, None, mean, var, 1e-14, training=training)
    assert_matches_reference(input, weight, bias, None, None, 1e-14)


def test_a_single_cell_takes_vectors(device: str) -> None:
    """With grid (1, 1) parameters and statistics may be those of nn.BatchNorm2d."""
    case = random_case(grid=(1, 1), device=device)
    flat = [case[0], *(t.view(5) for t in case[1:])]
    for training in (False, True):
        expected = assert_matches_reference(*case, 1e-14, grid=(1, 1), training=training)
        assert torch.equal(assert_matches_reference(*flat, 1e-14, grid=(1, 1), training=training), expected)


def test_batch_norm_of_pytorch(device: str) -> None:
    input, weight, bias, mean, var = random_case(grid=(1, 1), device=device)
    parameters = mean.view(5).clone(), var.view(5).clone(), weight.view(5), bias.view(5)
    for training in (True, False):
        expected = F.batch_norm(input, *parameters, training, 0.2, 1e-4).relu()
        options = dict(grid=(1, 1), training=training, momentum=0.2, eps=1e-4, relu=True)
        assert_close(ours(input, weight, bias, mean, var, **options), expected, 1e-14)
    assert_close(mean.view(5), parameters[0], 1e-14)
    assert_close(var.view(5), parameters[1], 1e-14)


def test_evaluation_leaves_the_running_statistics(device: str) -> None:
    input, weight, bias, mean, var = random_case(device=device)
    before = mean.clone(), var.clone()
    ours(input, weight, bias, mean, var, grid=(3, 4), training=False)
    assert torch.equal(mean, before[0]) and torch.equal(var, before[1])


def test_relu_lets_nan_through(device: str) -> None:
    input, weight, bias, mean, var = random_case(device=device)
    input[1, 2, 3, 4] = torch.nan
    for layout in LAYOUTS:
        output = ours(
            input.contiguous(memory_format=layout),
            weight,
            bias,
            mean,
            var,
            grid=(3, 4),
            training=False,
            relu=True,
        )
        assert output[1, 2, 3, 4].isnan() and output.isnan().sum() == 1


def test_empty_batch(device: str) -> None:
    case = random_case(batch=0, device=device)
    output = assert_matches_reference(*case, 1e-14, training=False)
    assert output.shape == (0, 5, 13, 17)


def unusual_layouts(x: Tensor) -> list[Tensor]:
    """The same numbers in layouts that tell only by sides of 1 whether they are channels_last."""
    n, c, h, w = x.shape
    strides = [(c * h * w, h * w, w, 1), (c * h * w, 1, c * w, c)]
    strides += [(7, 1, c * w, c), (c * h * w, 1, c, 1)] if n == 1 or h == 1 or w == 1 else []
    layouts = []
    for own in strides:
        if (
            len({sum(i * s for i, s in zip(at, own, strict=True)) for at in np.ndindex(n, c, h, w)})
            == x.numel()
        ):
            layouts.append(x.new_zeros(2 * x.numel() + 16).as_strided(x.shape, own).copy_(x))
    return layouts


@pytest.mark.parametrize("function", [ours, plain], ids=["op", "reference"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(3, 5, 4, 1), (3, 5, 1, 4), (1, 8, 2, 8), (2, 1, 3, 3), (2, 5, 1, 1)])
def test_sides_of_one(function: Callable[..., Tensor], training: bool, shape: tuple[int, ...]) -> None:
    """Against the formula, whatever the layouts of input and gradient: torch 2.13 confuses some."""
    generator = torch.Generator().manual_seed(0)
    x, grad = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    channels = [torch.rand(1, 1, shape[1], generator=generator, dtype=torch.float64) + 0.5 for _ in range(4)]

    def formula(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        mean, var = (t.view(1, -1, 1, 1) for t in channels[2:])
        if training:
            mean = x.mean((0, 2, 3), keepdim=True)
            var = (x - mean).square().mean((0, 2, 3), keepdim=True)
        return (x - mean) / (var + 1e-5).sqrt() * weight.view(1, -1, 1, 1) + bias.view(1, -1, 1, 1)

    def results(function: Callable[..., Tensor], x: Tensor, grad: Tensor) -> list[Tensor]:
        leaves = [t.detach().requires_grad_() for t in (x, *channels[:2])]
        output = function(*leaves)
        return [output, *torch.autograd.grad(output, leaves, grad)]

    def layer(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        running = [t.clone() for t in channels[2:]]
        return function(x, weight, bias, *running, grid=(1, 1), training=training)

    expected = results(formula, x, grad)
    for one in unusual_layouts(x):
        for other in unusual_layouts(grad):
            for got, want in zip(results(layer, one, other), expected, strict=True):
                torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_of_what_is_not_finite(dtype: torch.dtype, layout: torch.memory_format, relu: bool) -> None:
    """With running statistics an infinite pixel has the gradient of any other."""
    input, *rest = random_case(dtype=dtype)
    for k, value in enumerate((torch.inf, -torch.inf, torch.nan)):
        input[k, 2, 3, 4 * k] = value
    results = []
    for function in (ours, plain):
        x = input.clone().contiguous(memory_format=layout).requires_grad_()
        output = function(x, *rest, grid=(3, 4), training=False, relu=relu)
        results.append(torch.autograd.grad(output, x, torch.ones_like(output))[0])
    assert results[0].isfinite().all()
    torch.testing.assert_close(*results, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
def test_autocast_changes_nothing(dtype: torch.dtype) -> None:
    case = random_case(dtype=dtype, parameter_dtype=torch.float32)
    for function in (ours, plain):
        with torch.autocast("cpu", torch.bfloat16):
            output = function(*(t.clone() for t in case), grid=(3, 4), training=True)
        assert output.dtype == dtype
        assert torch.equal(output, function(*(t.clone() for t in case), grid=(3, 4), training=True))


def test_any_strides(device: str) -> None:
    input, *rest = random_case(batch=3, channels=6, size=(12, 14), device=device)
    last = input.contiguous(memory_format=torch.channels_last)
    views = {
        "transposed": input.transpose(2, 3).contiguous().transpose(2, 3),
        "sliced": F.pad(input, (1, 2, 3, 0))[:, :, 3:, 1:-2],
        "strided": input.repeat_interleave(2, 3)[..., ::2],
        "expanded": input[:1].expand(3, -1, -1, -1),
        "channels last, channels sliced": torch.cat([last, last], 1)[:, 3:9],
        "channels last, sliced": F.pad(last, (1, 2, 3, 0))[:, :, 3:, 1:-2],
    }
    for name, view in views.items():
        for training in (False, True):
            output = assert_matches_reference(view, *rest, 1e-14, training=training, relu=True)
            layout = torch.channels_last if "channels last" in name else torch.contiguous_format
            assert output.is_contiguous(memory_format=layout), name


def test_gradient_in_another_layout(device: str) -> None:
    """Such as an expanded one, some of whose strides are 0, or one of a permuted layer."""
    *leaves, mean, var = random_case(device=device)
    leaves = [t.requires_grad_() for t in leaves]
    factor = torch.randn(leaves[0].shape, dtype=torch.float64).to(device)
    for grad in (factor[:1].expand_as(factor), factor.contiguous(memory_format=torch.channels_last)):
        for training in (False, True):
            results = [
                torch.autograd.grad(
                    op(*leaves, mean, var, grid=(3, 4), training=training, momentum=0.0),
                    leaves,
                    grad,
                )
                for op in (ours, plain)
            ]
            for actual, expected in zip(*results, strict=True):
                assert_close(actual, expected, 1e-13)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_drawn_shapes(device: str, data: st.DataObject) -> None:
    def draw(low: int, high: int) -> int:
        return data.draw(st.integers(low, high))

    size = draw(1, 24), draw(1, 24)
    grid = draw(1, size[0]), draw(1, size[1])
    training = data.draw(st.booleans())
    fewest = 3 if training else 0
    batch, channels, seed = draw(fewest, 4), draw(1, 40), draw(0, 1000)
    case = random_case(batch=batch, channels=channels, size=size, grid=grid, seed=seed, device=device)
    case[0] = case[0].contiguous(memory_format=data.draw(st.sampled_from(LAYOUTS)))
    assert_matches_reference(*case, 1e-12, grid=grid, training=training, relu=data.draw(st.booleans()))


@pytest.mark.parametrize("training", [False, True])
def test_gradcheck(training: bool, device: str) -> None:
    input, weight, bias, mean, var = random_case(channels=2, size=(5, 7), grid=(2, 3), device=device)
    leaves = [t.requires_grad_() for t in (input, weight, bias)]
    for relu in (False, True):
        assert gradcheck(
            lambda *tensors, relu=relu: ours(
                *tensors, mean, var, grid=(2, 3), training=training, momentum=0.0, relu=relu
            ),
            leaves,
        )


@pytest.mark.parametrize("training", [False, True])
def test_only_the_wanted_gradients(training: bool, device: str) -> None:
    *leaves, mean, var = random_case(device=device)

    def gradients(wanted: list[int]) -> list[Tensor | None]:
        tensors = [t.detach().requires_grad_(k in wanted) for k, t in enumerate(leaves)]
        options = dict(grid=(3, 4), training=training, momentum=0.0, relu=True)
        ours(*tensors, mean, var, **options).square().sum().backward()
        return [t.grad for t in tensors]

    full = gradients([0, 1, 2])
    for k in range(3):
        grads = gradients([k])
        assert [g is not None for g in grads] == [i == k for i in range(3)]
        assert torch.equal(grads[k], full[k])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_same_bits_whatever_the_threads(layout: torch.memory_format) -> None:
    threads = torch.get_num_threads()
    for grid in ((1, 1), (4, 5)):
        case = random_case(batch=5, channels=8, size=(70, 80), grid=grid, dtype=torch.float32)
        case[0] = case[0].contiguous(memory_format=layout)
        leaves = [t.requires_grad_() for t in case[:3]]
        results = []
        try:
            for count in (1, 2, 3):
                torch.set_num_threads(count)
                running = [t.clone() for t in case[3:]]
                output = ours(*leaves, *running, grid=grid, training=True, relu=True)
                grads = torch.autograd.grad(output.square().sum(), leaves)
                results.append((output, *running, *grads))
        finally:
            torch.set_num_threads(threads)
        for other in results[1:]:
            assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("training", [False, True])
def test_opcheck(training: bool, device: str, opcheck: Callable[..., Any]) -> None:
    input, weight, bias, mean, var = random_case(size=(6, 8), grid=(2, 2), device=device)
    leaves = [t.clone().requires_grad_() for t in (input, weight, bias)]
    arguments = (*leaves, mean, var, (2, 2), training, 1e-5, True)
    opcheck(torch.ops.jaa_ext.region_batch_norm.default, arguments)
    opcheck(
        torch.ops.jaa_ext.region_batch_norm.default,
        (
            input,
            None,
            None,
            None if training else mean,
            None if training else var,
            (2, 2),
            training,
            1e-5,
            False,
        ),
    )
    grad = torch.randn(3, 5, 6, 8).to(input)
    opcheck(
        torch.ops.jaa_ext.region_batch_norm_backward.default,
        (grad, input, weight, bias, mean, var, (2, 2), training, 1e-5, True, [True, False, True]),
    )


def test_compile_and_dynamic_batch(device: str) -> None:
    _, weight, bias, mean, var = random_case(dtype=torch.float32, device=device)
    weight.requires_grad_()

    def step(x: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        return ours(x.sin(), weight, bias, mean, var, grid=(3, 4), training=True, relu=True)

    compiled = torch.compile(step, fullgraph=True, dynamic=True, backend="aot_eager")
    for batch in (2, 3, 5):
        input = torch.randn(batch, 5, 13, 17, device=device)
        results = []
        for function in (compiled, step):
            running = mean.clone(), var.clone()
            output = function(input, *running)
            results.append((output, *running, *torch.autograd.grad(output.square().sum(), weight)))
        for actual, expected in zip(*results, strict=True):
            torch.testing.assert_close(actual, expected)


def test_export(device: str) -> None:
    class Module(torch.nn.Module):
        def forward(self, *tensors: Tensor) -> Tensor:
            return ours(*tensors, grid=(3, 4), training=False)

    case = tuple(random_case(device=device))
    dynamic = ({0: torch.export.Dim("n")}, None, None, None, None)
    program = torch.export.export(Module(), case, dynamic_shapes=(dynamic,))
    assert "jaa_ext.region_batch_norm" in str(program.graph)
    other = random_case(batch=4, device=device)
    assert torch.equal(program.module()(*other), ours(*other, grid=(3, 4), training=False))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_leaves_the_dtype_of_the_input(dtype: torch.dtype, device: str) -> None:
    case = random_case(dtype=dtype, parameter_dtype=torch.float32, device=device)
    leaves = [t.requires_grad_() for t in case[:3]]
    options = dict(grid=(3, 4), training=True, relu=True)
    expected = ours(*leaves, *(t.clone() for t in case[3:]), **options)
    with torch.autocast(device, torch.bfloat16):
        output = ours(*leaves, *case[3:], **options)
    assert output.dtype == dtype and torch.equal(output, expected)
    output.float().sum().backward()
    assert [t.grad.dtype for t in leaves] == [dtype, torch.float32, torch.float32]


def test_differentiating_twice_is_refused(device: str) -> None:
    input, weight, bias, mean, var = random_case(device=device)
    output = ours(input, weight.requires_grad_(), bias, mean, var, grid=(3, 4), training=True)
    (grad,) = torch.autograd.grad(output.square().sum(), weight, create_graph=True)
    with pytest.raises(RuntimeError, match="not implemented"):
        grad.sum().backward()


MISTAKES = {
    "input dim": (dict(input=torch.zeros(3, 4, 4)), ValueError, r"input must be .* got \[3, 4, 4\]"),
    "no cells": (dict(grid=(0, 2)), ValueError, r"two positive numbers of cells, got \[0, 2\]"),
    "grid": (
        dict(input=torch.zeros(1, 3, 8, 1)),
        ValueError,
        "at most one cell a pixel, got 2 x 2 cells for an image of 8 x 1",
    ),
    "weight alone": (dict(bias=None), ValueError, "weight and bias must both be given or both be None"),
    "mean alone": (
        dict(running_var=None),
        ValueError,
        "running_mean and running_var .*both",
    ),
    "no statistics": (
        dict(running_mean=None, running_var=None, training=False),
        ValueError,
        "outside training running_mean and running_var must be given",
    ),
    "one value": (
        dict(input=torch.zeros(1, 3, 3, 2)),
        ValueError,
        "more than 1 value per channel in each cell, got 1 images of 3 x 2 with 2 x 2 cells",
    ),
    "weight": (
        dict(weight=torch.zeros(3)),
        ValueError,
        r"weight must be \(grid_h, grid_w, C\) = \[2, 2, 3\], got \[3\]",
    ),
    "bias": (dict(bias=torch.zeros(2, 2, 4)), ValueError, r"bias must be .* = \[2, 2, 3\], got \[2, 2, 4\]"),
    "mean": (dict(running_mean=torch.zeros(2, 2)), ValueError, r"running_mean must be .* got \[2, 2\]"),
    "variance": (
        dict(running_var=torch.zeros(2, 3, 2)),
        ValueError,
        r"running_var must be .* got \[2, 3, 2\]",
    ),
    "integers": (
        dict(input=torch.zeros(1, 3, 8, 8, dtype=torch.int32)),
        TypeError,
        "input must be float64.* got int32",
    ),
    "mixed dtypes": (
        dict(weight=torch.zeros(2, 2, 3, dtype=torch.float64)),
        TypeError,
        "weight .*dtype of input, float32, .*got float64",
    ),
    "device": (
        dict(weight=torch.zeros(2, 2, 3, device="meta")),
        ValueError,
        "weight .*device of input, cpu, got meta",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_named_alike(mistake: str, refused_alike: Callable[..., None]) -> None:
    """The kernel, the reference and the fake each give the same sentence."""
    changes, error, message = MISTAKES[mistake]
    arguments = dict(
        input=torch.zeros(2, 3, 8, 8),
        weight=torch.zeros(2, 2, 3),
        bias=torch.zeros(2, 2, 3),
        running_mean=torch.zeros(2, 2, 3),
        running_var=torch.ones(2, 2, 3),
        grid=(2, 2),
        training=True,
    )
    arguments.update(changes)
    # The dispatcher sends a mixture with meta tensors to the fake.
    refused_alike(
        region_batch_norm,
        arguments,
        error,
        f"region_batch_norm: .*{message}",
        reaches_kernel=mistake != "device",
    )


def test_every_instruction_set(at_level: Callable[[str], None]) -> None:
    at_level("""
from test_region_batch_norm import LAYOUTS, TOLERANCE, assert_matches_reference, random_case
for dtype, tolerance in TOLERANCE.items():
    for layout in LAYOUTS:
        for channels in (5, 32, 67):
            case = random_case(dtype=dtype, channels=channels)
            case[0] = case[0].contiguous(memory_format=layout)
            for training in (False, True):
                assert_matches_reference(*case, tolerance, training=training, relu=True)
""")
