"""region_conv2d against the cell loop in float64."""

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck

from jaa_ext.ops import reference, region_conv2d

# Relative to the largest value: the unit roundoff of the type with room for a few hundred terms of a sum.
TOLERANCE = {torch.float64: 1e-14, torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
DTYPES = list(TOLERANCE)


def random_case(
    *,
    batch: int = 2,
    in_channels: int = 5,
    out_channels: int = 19,
    size: tuple[int, int] = (13, 17),
    grid: tuple[int, int] = (3, 4),
    kernel: tuple[int, int] = (3, 3),
    dtype: torch.dtype = torch.float64,
    device: str = "cpu",
    seed: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).to(device)

    weight = draw(*grid, out_channels, in_channels, *kernel) / (in_channels * kernel[0] * kernel[1]) ** 0.5
    return draw(batch, in_channels, *size), weight, draw(*grid, out_channels)


def assert_matches_reference(
    input: Tensor, weight: Tensor, bias: Tensor | None, border: str, tolerance: float
) -> Tensor:
    """Output and all gradients against the float64 reference; returns the output."""
    tensors = [t.detach().requires_grad_() for t in (input, weight, bias) if t is not None]
    exact = [t.detach().cpu().double().requires_grad_() for t in tensors]
    output = region_conv2d(*tensors, border=border)
    expected = reference.region_conv2d(*exact, border=border)
    grad = torch.randn(output.shape, generator=torch.Generator().manual_seed(1)).to(output)
    output.backward(grad)
    expected.backward(grad.cpu().double())
    assert output.dtype == input.dtype and output.device == input.device
    assert_close(output, expected, tolerance)
    for tensor, other in zip(tensors, exact, strict=True):
        assert_close(tensor.grad, other.grad, tolerance)
    return output


def assert_close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    assert actual.shape == expected.shape
    if expected.numel():
        scale = expected.abs().max().clamp_min(1e-30)
        assert ((actual.double().cpu() - expected.cpu()).abs().max() / scale).item() <= tolerance


@pytest.mark.parametrize("border", ["cell", "image"])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_matches_reference(dtype: torch.dtype, channels_last: bool, border: str, device: str) -> None:
    input, weight, bias = random_case(dtype=dtype, device=device)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    input = input.contiguous(memory_format=layout)
    output = assert_matches_reference(input, weight, bias, border, TOLERANCE[dtype])
    assert output.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("border", ["cell", "image"])
@pytest.mark.parametrize("kernel", [(1, 1), (5, 5), (7, 7), (1, 3), (7, 3)])
def test_odd_kernels(kernel: tuple[int, int], border: str, device: str) -> None:
    assert_matches_reference(*random_case(kernel=kernel, device=device), border, 1e-14)


@pytest.mark.parametrize("border", ["cell", "image"])
def test_cells_smaller_than_the_kernel(border: str, device: str) -> None:
    """A kernel then reads past the neighbouring cell: with image borders, several cells away."""
    assert_matches_reference(
        *random_case(size=(7, 6), grid=(7, 3), kernel=(7, 5), device=device), border, 1e-14
    )


@pytest.mark.parametrize("channels", [(1, 1), (3, 8), (8, 16), (16, 8), (32, 16), (7, 33), (64, 32), (1, 40)])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_channel_counts(
    dtype: torch.dtype, channels_last: bool, channels: tuple[int, int], device: str
) -> None:
    """Three images: where values are paired, one is left alone."""
    case = random_case(
        batch=3, in_channels=channels[0], out_channels=channels[1], size=(11, 12), dtype=dtype, device=device
    )
    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert_matches_reference(case[0].contiguous(memory_format=layout), *case[1:], "cell", TOLERANCE[dtype])


@pytest.mark.parametrize("out_channels", [8, 16, 19])
@pytest.mark.parametrize("dtype", DTYPES)
def test_row_lengths(dtype: torch.dtype, out_channels: int, device: str) -> None:
    """Rows are cut into pieces held in registers: every remainder once."""
    for width in range(1, 50):
        case = random_case(
            size=(3, width), grid=(1, 1), out_channels=out_channels, dtype=dtype, device=device
        )
        assert_matches_reference(*case, "cell", TOLERANCE[dtype])


def test_large_cells_are_cut_into_bands(device: str) -> None:
    case = random_case(batch=1, in_channels=24, out_channels=8, size=(90, 100), grid=(1, 2), device=device)
    for border in ("cell", "image"):
        assert_matches_reference(*case, border, 1e-13)


def test_without_bias(device: str) -> None:
    input, weight, _ = random_case(device=device)
    assert_matches_reference(input, weight, None, "cell", 1e-14)


def test_empty_batch(device: str) -> None:
    input, weight, bias = (t.requires_grad_() for t in random_case(batch=0, device=device))
    output = region_conv2d(input, weight, bias)
    assert output.shape == (0, 19, 13, 17)
    output.sum().backward()
    assert weight.grad.count_nonzero() == 0 and bias.grad.count_nonzero() == 0


def test_any_strides(device: str) -> None:
    input, weight, bias = random_case(batch=3, in_channels=4, size=(12, 14), grid=(2, 2), device=device)
    views = {
        "transposed": input.transpose(2, 3).contiguous().transpose(2, 3),
        "sliced": torch.nn.functional.pad(input, (1, 2, 3, 0))[:, :, 3:, 1:-2],
        "strided": input.repeat_interleave(2, 3)[..., ::2],
        "expanded": input[:1].expand(3, -1, -1, -1),
    }
    weight = weight.transpose(2, 3).contiguous().transpose(2, 3)
    for name, view in views.items():
        output = assert_matches_reference(view, weight, bias, "image", 1e-14)
        assert output.is_contiguous(), name


def test_expanded_gradient(device: str) -> None:
    """`.sum().backward()` gives a gradient whose strides are all 0."""
    input, weight, bias = (t.requires_grad_() for t in random_case(device=device))
    exact = [t.detach().cpu().requires_grad_() for t in (input, weight, bias)]
    expected = torch.autograd.grad(reference.region_conv2d(*exact).sum(), exact)
    actual = torch.autograd.grad(region_conv2d(input, weight, bias).sum(), (input, weight, bias))
    for a, b in zip(actual, expected, strict=True):
        assert_close(a, b, 1e-14)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_drawn_shapes(device: str, data: st.DataObject) -> None:
    def draw(low: int, high: int) -> int:
        return data.draw(st.integers(low, high))

    size = draw(1, 24), draw(1, 24)
    case = random_case(
        batch=draw(0, 3),
        in_channels=draw(1, 20),
        out_channels=draw(1, 40),
        size=size,
        grid=(draw(1, size[0]), draw(1, size[1])),
        kernel=(2 * draw(0, 3) + 1, 2 * draw(0, 3) + 1),
        seed=draw(0, 1000),
        device=device,
    )
    assert_matches_reference(*case, data.draw(st.sampled_from(["cell", "image"])), 1e-13)


@pytest.mark.parametrize("border", ["cell", "image"])
def test_gradcheck(border: str, device: str) -> None:
    case = random_case(batch=2, in_channels=2, out_channels=3, size=(5, 7), grid=(2, 3), device=device)
    assert gradcheck(
        lambda *tensors: region_conv2d(*tensors, border=border), [t.requires_grad_() for t in case]
    )


def test_only_the_wanted_gradients(device: str) -> None:
    input, weight, bias = random_case(device=device)
    full = torch.autograd.grad(
        region_conv2d(*(t.requires_grad_() for t in (input, weight, bias))).square().sum(),
        (input, weight, bias),
    )
    for k in range(3):
        tensors = [t.detach().requires_grad_(i == k) for i, t in enumerate((input, weight, bias))]
        region_conv2d(*tensors).square().sum().backward()
        assert [t.grad is not None for t in tensors] == [i == k for i in range(3)]
        assert torch.equal(tensors[k].grad, full[k])


def test_same_bits_whatever_the_threads() -> None:
    case = [t.requires_grad_() for t in random_case(batch=5, size=(40, 44), dtype=torch.float32)]
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            output = region_conv2d(*case)
            results.append((output, *torch.autograd.grad(output.square().sum(), case)))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("border", ["cell", "image"])
def test_opcheck(border: str, device: str, opcheck: Callable[..., Any]) -> None:
    input, weight, bias = random_case(size=(6, 8), grid=(2, 2), device=device)
    opcheck(
        torch.ops.jaa_ext.region_conv2d.default,
        (input.requires_grad_(), weight.requires_grad_(), bias.requires_grad_(), border),
    )
    opcheck(
        torch.ops.jaa_ext.region_conv2d_backward.default,
        (torch.randn(2, 19, 6, 8).to(input), input.detach(), weight.detach(), border, [True, False, True]),
    )


def test_compile_and_dynamic_batch(device: str) -> None:
    _, weight, bias = random_case(dtype=torch.float32, device=device)
    weight.requires_grad_()

    @torch.compile(fullgraph=True, dynamic=True, backend="aot_eager")
    def step(x: Tensor) -> Tensor:
        return region_conv2d(x.relu(), weight, bias, border="image").square().sum()

    for batch in (2, 3, 5):
        input = torch.randn(batch, 5, 13, 17, device=device)
        actual = torch.autograd.grad(step(input), weight)[0]
        expected = torch.autograd.grad(
            region_conv2d(input.relu(), weight, bias, border="image").square().sum(), weight
        )[0]
        torch.testing.assert_close(actual, expected)


def test_export(device: str) -> None:
    class Module(torch.nn.Module):
        def forward(self, input: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
            return region_conv2d(input, weight, bias)

    case = random_case(device=device)
    program = torch.export.export(Module(), case, dynamic_shapes=({0: torch.export.Dim("n")}, None, None))
    assert "jaa_ext.region_conv2d" in str(program.graph)
    other = random_case(batch=4, device=device)
    assert torch.equal(program.module()(*other), region_conv2d(*other))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_uses_its_dtype(dtype: torch.dtype, device: str) -> None:
    case = [t.requires_grad_() for t in random_case(dtype=torch.float32, device=device)]
    with torch.autocast(device, dtype):
        output = region_conv2d(*case)
    assert output.dtype == dtype
    assert torch.equal(output, region_conv2d(*(t.to(dtype) for t in case)))
    output.float().sum().backward()
    assert all(t.grad.dtype == torch.float32 for t in case)


@pytest.mark.parametrize("function", [region_conv2d, reference.region_conv2d], ids=["op", "reference"])
@pytest.mark.parametrize("autocast", [torch.bfloat16, torch.float16])
def test_autocast_treats_every_dtype_as_in_torchs_convolution(
    function: Callable[..., Tensor], autocast: torch.dtype
) -> None:
    """It leaves float64: alone that is kept, beside others it is refused."""
    for of_input in DTYPES:
        for of_weight in DTYPES:
            for of_bias in (None, *DTYPES):
                x, weight = torch.randn(2, 3, 4, 4).to(of_input), torch.randn(2, 3, 3, 3).to(of_weight)
                bias = None if of_bias is None else torch.randn(2).to(of_bias)
                each = weight[None, None], None if bias is None else bias[None, None]
                with torch.autocast("cpu", autocast):
                    try:
                        want = torch.nn.functional.conv2d(x, weight, bias, padding=1)
                    except RuntimeError:
                        with pytest.raises(TypeError, match="must have the dtype of input"):
                            function(x, *each)
                        continue
                    got = function(x, *each)
                assert got.dtype == want.dtype
                torch.testing.assert_close(got, want, rtol=2e-2, atol=5e-2)


@pytest.mark.parametrize("function", [region_conv2d, reference.region_conv2d], ids=["op", "reference"])
def test_autocast_lets_no_integers_in(function: Callable[..., Tensor]) -> None:
    with (
        torch.autocast("cpu", torch.bfloat16),
        pytest.raises(TypeError, match=r"input .*float64, .*bfloat16, got int32"),
    ):
        function(torch.zeros(1, 3, 4, 4, dtype=torch.int32), torch.zeros(1, 1, 2, 3, 3, 3))


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_not_finite_stays_in_its_window(dtype: torch.dtype, value: float) -> None:
    """As in float64: in half types oneDNN's convolution, which the reference calls, lets a NaN leak."""
    for border in ("cell", "image"):
        for layout in (torch.contiguous_format, torch.channels_last):
            input, weight, bias = random_case(in_channels=3, out_channels=5, dtype=dtype)
            input[1, 2, 6, 8] = value
            case = [input.contiguous(memory_format=layout), weight, bias]
            results = []
            for function, kind in ((region_conv2d, dtype), (reference.region_conv2d, torch.float64)):
                leaves = [t.to(kind, copy=True).requires_grad_() for t in case]
                output = function(*leaves, border=border)
                results.append([output, *torch.autograd.grad(output.sum(), leaves)])
            for actual, expected in zip(*results, strict=True):
                assert torch.equal(actual.isnan(), expected.isnan())
                assert torch.equal(actual.isposinf(), expected.isposinf())
                assert torch.equal(actual.isneginf(), expected.isneginf())


@pytest.mark.parametrize("function", [region_conv2d, reference.region_conv2d], ids=["op", "reference"])
def test_tensors_without_storage(function: Callable[..., Tensor]) -> None:
    case = [t.to("meta").requires_grad_() for t in random_case()]
    output = function(*case, border="image")
    assert output.is_meta and output.shape == (2, 19, 13, 17)
    assert [g.shape for g in torch.autograd.grad(output.sum(), case)] == [t.shape for t in case]


def test_differentiating_twice_is_refused(device: str) -> None:
    case = [t.requires_grad_() for t in random_case(device=device)]
    (grad,) = torch.autograd.grad(region_conv2d(*case).square().sum(), case[1], create_graph=True)
    with pytest.raises(RuntimeError, match="not implemented"):
        grad.sum().backward()


MISTAKES = {
    "border": (dict(border="wrap"), ValueError, 'border must be "cell" or "image", got "wrap"'),
    "input dim": (dict(input=torch.zeros(3, 4, 4)), ValueError, r"input must be .* got \[3, 4, 4\]"),
    "weight dim": (dict(weight=torch.zeros(2, 3, 3, 3)), ValueError, r"weight must be .* got \[2, 3, 3, 3\]"),
    "channels": (dict(input=torch.zeros(1, 4, 8, 8)), ValueError, "input has 4 channels, but weight wants 3"),
    "even kernel": (
        dict(weight=torch.zeros(2, 2, 4, 3, 2, 3)),
        ValueError,
        "kernel sides must be odd, got 2 x 3",
    ),
    "grid": (
        dict(input=torch.zeros(1, 3, 8, 1)),
        ValueError,
        "at most one cell a pixel, got 2 x 2 cells for an image of 8 x 1",
    ),
    "no cells": (
        dict(weight=torch.zeros(0, 2, 4, 3, 3, 3), bias=None),
        ValueError,
        "every dimension of weight must be at least 1",
    ),
    "bias": (dict(bias=torch.zeros(4)), ValueError, r"bias must be .* = \[2, 2, 4\], got \[4\]"),
    "integers": (
        dict(input=torch.zeros(1, 3, 8, 8, dtype=torch.int32)),
        TypeError,
        "input must be float64.* got int32",
    ),
    "mixed dtypes": (
        dict(weight=torch.zeros(2, 2, 4, 3, 3, 3, dtype=torch.float64)),
        TypeError,
        "weight .*dtype of input, float32, got float64",
    ),
    "device": (
        dict(weight=torch.zeros(2, 2, 4, 3, 3, 3, device="meta")),
        ValueError,
        "weight .*device of input, cpu, got meta",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_named_alike(mistake: str, refused_alike: Callable[..., None]) -> None:
    """The kernel, the reference and the fake each give the same sentence."""
    changes, error, message = MISTAKES[mistake]
    arguments = dict(
        input=torch.zeros(1, 3, 8, 8),
        weight=torch.zeros(2, 2, 4, 3, 3, 3),
        bias=torch.zeros(2, 2, 4),
        border="cell",
    )
    arguments.update(changes)
    # The dispatcher sends a mixture with meta tensors to the fake.
    refused_alike(
        region_conv2d, arguments, error, f"region_conv2d: .*{message}", reaches_kernel=mistake != "device"
    )


def test_every_instruction_set(at_level: Callable[[str], None]) -> None:
    at_level("""
import torch
from test_region_conv2d import TOLERANCE, assert_matches_reference, random_case
for dtype, tolerance in TOLERANCE.items():
    for border in ("cell", "image"):
        for out_channels in (3, 8, 35):
            for layout in (torch.contiguous_format, torch.channels_last):
                case = random_case(batch=3, in_channels=11, out_channels=out_channels, dtype=dtype)
                input = case[0].contiguous(memory_format=layout)
                assert_matches_reference(input, *case[1:], border, tolerance)
""")


def test_unknown_instruction_set_is_refused() -> None:
    code = (
        "import torch; from jaa_ext import ops\n"
        "ops.region_conv2d(torch.ones(1, 1, 1, 1), torch.ones(1, 1, 1, 1, 1, 1))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "JAA_EXT_CPU": "avx1024"},
        capture_output=True,
        text=True,
    )
    assert (
        run.returncode
        and "JAA_EXT_CPU must be baseline, avx2, avx512 or avx512_bf16, got avx1024" in run.stderr
    )
