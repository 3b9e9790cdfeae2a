"""The CUDA kernels' own code, compiled for the CPU (python_tests/cuda_on_host), against the reference."""

import ctypes
import struct
from collections.abc import Iterator, Sequence

import pytest
import torch
from cuda_on_host import call, in_every_order
from torch import Tensor

from jaa_ext import facs
from jaa_ext.ops import reference

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]  # as csrc/common/scalar.h numbers them
BORDERS = ["cell", "image"]  # as csrc/region_conv2d/region_conv2d.h numbers them
# Relative to the largest value: the unit roundoff of the type with room for a few hundred terms of a sum.
TOLERANCE = {torch.float64: 1e-14, torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}

# The structures of csrc, for struct.pack.
IMAGE, REGION_CONV2D, ATTENTION_MAPS, SOFTMAX_DICE_LOSS = "P4q", "ii?9q", "i3q3dP3qP", "i?2qdP3qP?qP"
REGION_BATCH_NORM, REGION_BATCH_NORM_TENSORS = "i??6qd", "4P"


def unwritten(*shape: int, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    return torch.full(shape, torch.nan, dtype=dtype or like.dtype)


def compute_type(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def assert_close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    assert actual.shape == expected.shape
    if expected.numel():
        scale = expected.abs().max().clamp_min(1e-30)
        assert ((actual.double() - expected).abs().max() / scale).item() <= tolerance


def image(tensor: Tensor) -> bytes:
    return struct.pack(IMAGE, tensor.data_ptr(), *tensor.stride())


def region_conv2d(
    library: ctypes.CDLL,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    border: str,
    grad: Tensor,
    tf32: bool = False,
) -> list[Tensor]:
    """Output and the gradients of input, weight and, if there is one, bias."""
    batch, in_channels, height, width = input.shape
    grid_h, grid_w, out_channels, _, kernel_h, kernel_w = weight.shape
    sizes = batch, in_channels, out_channels, height, width, grid_h, grid_w, kernel_h, kernel_w
    params = struct.pack(REGION_CONV2D, DTYPES.index(input.dtype), BORDERS.index(border), tf32, *sizes)

    output, grad_input = grad.clone().fill_(torch.nan), input.clone().fill_(torch.nan)
    grad_weight = unwritten(*weight.shape, like=weight)
    grad_bias = None if bias is None else unwritten(*bias.shape, like=bias)
    arguments = params, image(input), weight, bias, image(output)
    call(library, "region_conv2d_forward", *arguments)
    arguments = params, image(grad), weight, image(grad_input)
    call(library, "region_conv2d_backward_input", *arguments)
    arguments = params, image(grad), image(input), grad_weight, grad_bias
    call(library, "region_conv2d_backward_weight", *arguments)
    return [output, grad_input, grad_weight] + ([] if grad_bias is None else [grad_bias])


def check_region_conv2d(
    library: ctypes.CDLL,
    *,
    batch: int = 2,
    channels: tuple[int, int] = (3, 4),
    size: tuple[int, int] = (7, 11),
    grid: tuple[int, int] = (2, 3),
    kernel: tuple[int, int] = (3, 3),
    dtype: torch.dtype = torch.float64,
    border: str = "cell",
    has_bias: bool = True,
    layout: torch.memory_format = torch.contiguous_format,
    tf32: bool = False,
) -> None:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        values = torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)
        return as_tf32(values) if tf32 else values

    input = draw(batch, channels[0], *size).contiguous(memory_format=layout)
    weight = draw(*grid, channels[1], channels[0], *kernel)
    bias = draw(*grid, channels[1]) if has_bias else None
    grad = draw(batch, channels[1], *size).contiguous(memory_format=layout)
    actual = in_every_order(library, lambda: region_conv2d(library, input, weight, bias, border, grad, tf32))
    exact = [t.double().requires_grad_() for t in (input, weight, bias) if t is not None]
    output = reference.region_conv2d(*exact, border=border)
    expected = [output, *torch.autograd.grad(output, exact, grad.double())]
    for one, other in zip(actual, expected, strict=True):
        assert_close(one, other, TOLERANCE[dtype])


def as_tf32(values: Tensor) -> Tensor:
    """Rounded to ten bits of fraction, ties away from zero."""
    mantissa, exponent = torch.frexp(values.double())
    scaled = mantissa * 2**11
    return torch.ldexp((scaled.abs() + 0.5).floor() * scaled.sign() / 2**11, exponent).to(values.dtype)


@pytest.fixture(params=[75, 90], ids=["7.5", "9.0"])
def capability(library: ctypes.CDLL, request: pytest.FixtureRequest) -> Iterator[int]:
    """The compute capability of the GPU that is played."""
    library.set_compute_capability(request.param)
    yield request.param
    library.set_compute_capability(90)


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", DTYPES)
def test_region_conv2d(
    library: ctypes.CDLL, dtype: torch.dtype, layout: torch.memory_format, border: str, capability: int
) -> None:
    check_region_conv2d(library, dtype=dtype, layout=layout, border=border)


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize(
    "case",
    [
        dict(kernel=(1, 1)),
        dict(kernel=(5, 5)),
        dict(kernel=(1, 5), channels=(1, 1), batch=4),
        dict(kernel=(5, 3), size=(5, 4), grid=(5, 3)),  # cells smaller than the kernel
        dict(size=(1, 1), grid=(1, 1)),
        dict(batch=0),
        dict(batch=1),
        dict(has_bias=False),
    ],
    ids=str,
)
def test_region_conv2d_shapes(library: ctypes.CDLL, case: dict, border: str) -> None:
    check_region_conv2d(library, **case, border=border)


TILED = {
    "unequal cells": dict(channels=(8, 8), size=(7, 11)),
    "chunks of channels, output groups": dict(channels=(40, 36), size=(5, 4), grid=(2, 1)),
    "many output groups": dict(channels=(3, 100), size=(3, 2), grid=(1, 1), batch=1),
    "bands": dict(channels=(8, 16), size=(25, 3), grid=(1, 1), batch=1),
    "strips": dict(channels=(8, 4), size=(2, 100), grid=(1, 1), batch=1),
    "images side by side": dict(channels=(8, 8), size=(6, 10), grid=(3, 2), batch=11),
    "cells of a pixel": dict(channels=(8, 8), size=(3, 4), grid=(3, 4)),
    "odd channels": dict(channels=(9, 5), size=(6, 7), grid=(2, 2), batch=3),
    "one channel": dict(channels=(1, 1), size=(5, 6), grid=(2, 2)),
    "empty batch": dict(channels=(8, 8), batch=0),
    "without bias": dict(channels=(8, 8), has_bias=False),
}


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("arithmetic", ["float32", "TensorFloat-32", "bfloat16", "float16"])
@pytest.mark.parametrize("case", TILED)
def test_region_conv2d_tiles(
    library: ctypes.CDLL, case: str, arithmetic: str, layout: torch.memory_format, border: str
) -> None:
    tf32 = arithmetic == "TensorFloat-32"
    dtype = torch.float32 if tf32 else getattr(torch, arithmetic)
    check_region_conv2d(library, **TILED[case], dtype=dtype, tf32=tf32, layout=layout, border=border)


@pytest.mark.parametrize("arithmetic", ["float32", "bfloat16"])
@pytest.mark.parametrize("multiprocessors", [1, 3])
def test_region_conv2d_chunks(library: ctypes.CDLL, arithmetic: str, multiprocessors: int) -> None:
    """Blocks that sum several tiles for the weight's gradient, as few multiprocessors make them."""
    library.set_multiprocessors(multiprocessors)
    case = dict(batch=7, channels=(20, 8), size=(24, 40), grid=(1, 2), layout=torch.channels_last)
    check_region_conv2d(library, **case, dtype=getattr(torch, arithmetic))
    library.set_multiprocessors(132)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_region_conv2d_rounds_to_tf32(library: ctypes.CDLL, layout: torch.memory_format) -> None:
    """Factors are rounded to nearest; what is only added, the bias and its gradient, is not."""
    generator = torch.Generator().manual_seed(0)
    input, grad = (
        torch.randn(2, 8, 6, 5, generator=generator).contiguous(memory_format=layout) for _ in range(2)
    )
    weight, bias = (torch.randn(2, 1, 8, *shape, generator=generator) for shape in ((8, 3, 3), ()))

    def run(*factors: Tensor) -> list[Tensor]:
        input, weight, grad = factors
        return region_conv2d(library, input, weight, bias, "cell", grad, tf32=True)

    rounded = run(*map(as_tf32, (input, weight, grad)))
    actual = run(input, weight, grad)
    for one, other in zip(actual[:3], rounded[:3], strict=True):
        assert torch.equal(one, other)
    assert_close(actual[3], grad.double().view(2, 8, 2, 3, 5).sum((0, 3, 4)).t().unsqueeze(1), 1e-6)


def test_region_conv2d_strides(library: ctypes.CDLL) -> None:
    """Images whose rows are not 16-byte aligned, of which every other pixel counts."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(2, 2, 8, 8, 3, 3, generator=generator, dtype=torch.float64)
    for view in (slice(1, 9), slice(0, 8)):
        images = torch.randn(2, 2, 6, 14, 9, generator=generator)[..., ::2, view].permute(0, 1, 4, 2, 3)
        input, grad = images.unbind()
        actual = region_conv2d(library, input, weight.float(), None, "cell", grad)
        exact = [input.double().requires_grad_(), weight.float().double().requires_grad_()]
        output = reference.region_conv2d(*exact)
        expected = [output, *torch.autograd.grad(output, exact, grad.double())]
        for one, other in zip(actual, expected, strict=True):
            assert_close(one, other, TOLERANCE[torch.float32])


def test_region_conv2d_without_the_weight(library: ctypes.CDLL) -> None:
    """The bias's gradient alone."""
    for dtype in (torch.float64, torch.float32):
        params = struct.pack(REGION_CONV2D, DTYPES.index(dtype), 0, False, 1, 1, 2, 4, 4, 2, 2, 3, 3)
        grad, input = torch.rand(1, 2, 4, 4, dtype=dtype), torch.rand(1, 1, 4, 4, dtype=dtype)
        grad_bias = unwritten(2, 2, 2, like=grad)
        arguments = params, image(grad), image(input), None, grad_bias
        call(library, "region_conv2d_backward_weight", *arguments)
        expected = grad.view(2, 2, 2, 2, 2).sum((2, 4)).permute(1, 2, 0)  # channels, cell, row, cell, column
        torch.testing.assert_close(grad_bias, expected)


def region_batch_norm(
    library: ctypes.CDLL,
    input: Tensor,
    parameters: list[Tensor | None],
    grad: Tensor,
    grid: tuple[int, int],
    training: bool,
    relu: bool,
) -> list[Tensor]:
    """Output, the gradients of input, weight and bias and, in training, mean and variance."""
    sizes = *input.shape, *grid
    params = struct.pack(REGION_BATCH_NORM, DTYPES.index(input.dtype), training, relu, *sizes, 1e-3)
    weight, bias, mean, var = parameters
    if training:
        shape = *grid, input.shape[1]
        mean, var = (unwritten(*shape, like=input, dtype=compute_type(input)) for _ in range(2))
    pointers = [0 if t is None else t.data_ptr() for t in (weight, bias, mean, var)]
    arguments = params, struct.pack(REGION_BATCH_NORM_TENSORS, *pointers)
    output, grad_input = (torch.full_like(input, torch.nan) for _ in range(2))
    grad_weight, grad_bias = torch.full_like(mean, torch.nan), torch.full_like(mean, torch.nan)
    call(library, "region_batch_norm_forward", *arguments, image(input), image(output))
    images = image(grad), image(input), image(grad_input)
    call(library, "region_batch_norm_backward", *arguments, *images, grad_weight, grad_bias)
    return [output, grad_input, grad_weight, grad_bias] + ([mean, var] if training else [])


def check_region_batch_norm(
    library: ctypes.CDLL,
    *,
    batch: int = 3,
    channels: int = 5,
    size: tuple[int, int] = (13, 11),
    grid: tuple[int, int] = (2, 3),
    dtype: torch.dtype = torch.float64,
    layout: torch.memory_format = torch.contiguous_format,
    training: bool = True,
    affine: bool = True,
    relu: bool = True,
    margin: tuple[int, int] = (0, 0),
) -> None:
    """The input is cut out of an image that has so many more channels and columns on each side."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    (height, width), (before, left) = size, margin
    whole = draw(batch, channels + 2 * before, height, width + 2 * left) + 0.5  # means are not near 0
    whole = whole.to(dtype).contiguous(memory_format=layout)
    input = whole[:, before : before + channels, :, left : left + width]
    compute = compute_type(input)
    parameters = [draw(*grid, channels).to(compute) for _ in range(3)]
    parameters.append(torch.rand(*grid, channels, generator=generator).to(compute) + 0.1)
    mean, var = (t.double() for t in parameters[2:])
    leaves = [input, *parameters[:2]] if affine else [input]
    exact = [t.double().requires_grad_() for t in leaves]
    options = dict(grid=grid, running_mean=mean, running_var=var, training=training, eps=1e-3, momentum=1.0)
    affinity = dict(zip(("weight", "bias"), exact[1:], strict=True)) if affine else {}
    expected = reference.region_batch_norm(exact[0], **affinity, **options)
    grad = draw(*input.shape).to(dtype).contiguous(memory_format=layout)
    if relu:
        # Where ReLU bends, rounding decides whether the gradient passes.
        grad = torch.where(expected.abs() > 1e-3, grad, 0)
        expected = expected.relu()
    wanted = [expected, *torch.autograd.grad(expected, exact, grad.double())]
    own = parameters if affine else [None, None, *parameters[2:]]
    actual = in_every_order(
        library, lambda: region_batch_norm(library, input, own, grad, grid, training, relu)
    )
    for one, other in zip(actual, wanted, strict=False):
        assert_close(one, other, TOLERANCE[dtype])
    if training:
        assert_close(actual[4], mean, TOLERANCE[compute])
        assert_close(actual[5], var, TOLERANCE[compute])


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", DTYPES)
def test_region_batch_norm(
    library: ctypes.CDLL, dtype: torch.dtype, layout: torch.memory_format, training: bool
) -> None:
    options = dict(dtype=dtype, layout=layout, training=training)
    check_region_batch_norm(library, **options, grid=(1, 1))
    check_region_batch_norm(library, **options, channels=8, size=(13, 24))  # cells end within vectors
    check_region_batch_norm(library, **options, grid=(7, 2), affine=False, relu=False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    "case",
    [
        dict(channels=1, size=(6, 160), grid=(2, 3)),  # wider than a block
        dict(channels=3, size=(33, 32), grid=(1, 1)),  # rows that join, and several blocks one after another
        dict(channels=8, size=(40, 48), grid=(1, 2)),
        dict(channels=8, size=(5, 4), grid=(5, 4)),  # cells of a pixel
        dict(channels=20, batch=9, size=(12, 40), grid=(1, 1)),
        dict(channels=33, batch=8, size=(12, 8), grid=(2, 2), relu=False),
        dict(channels=67, batch=2, size=(2, 3), grid=(1, 2)),  # more channels than a block has
        dict(channels=16, margin=(8, 0), size=(8, 16)),
        dict(channels=16, margin=(1, 0), size=(8, 16)),  # not on a vector's border
        dict(channels=8, margin=(0, 8), size=(8, 16), grid=(1, 1)),  # rows that do not join
        dict(channels=8, batch=9, size=(1, 1), grid=(1, 1)),
    ],
    ids=str,
)
def test_region_batch_norm_shapes(
    library: ctypes.CDLL, case: dict, layout: torch.memory_format, dtype: torch.dtype
) -> None:
    check_region_batch_norm(library, **case, layout=layout, dtype=dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_region_batch_norm_far_from_zero(
    library: ctypes.CDLL, layout: torch.memory_format, dtype: torch.dtype, tolerance: float
) -> None:
    """A mean of ten thousand deviations, and an outlier where sums begin, cost the variance no digits."""
    values = torch.randn(9, 8, 4, 160, generator=torch.Generator().manual_seed(0), dtype=dtype) + 1e4
    values[0, :, 0, 0] = 0
    input = values.contiguous(memory_format=layout)
    nothing: list[Tensor | None] = [None] * 4
    *_, mean, var = region_batch_norm(library, input, nothing, input, (1, 3), True, False)
    exact_mean, exact_var = (torch.zeros(1, 3, 8, dtype=torch.float64) for _ in range(2))
    reference.region_batch_norm(
        input.double(),
        grid=(1, 3),
        running_mean=exact_mean,
        running_var=exact_var,
        training=True,
        momentum=1.0,
    )
    torch.testing.assert_close(mean.double(), exact_mean, rtol=4 * torch.finfo(dtype).eps, atol=0)
    torch.testing.assert_close(var.double(), exact_var, rtol=tolerance, atol=0)


def test_region_batch_norm_of_constants(library: ctypes.CDLL) -> None:
    input = torch.full((4, 2, 16, 16), 0.1)
    nothing: list[Tensor | None] = [None] * 4
    output, *_, mean, var = region_batch_norm(library, input, nothing, input, (2, 2), True, False)
    assert torch.equal(mean, torch.full_like(mean, 0.1)) and output.count_nonzero() == 0
    assert var.count_nonzero() == 0


def test_region_batch_norm_without_values(library: ctypes.CDLL) -> None:
    for batch, channels in ((0, 2), (2, 0)):
        input = torch.rand(batch, channels, 4, 4)
        parameters = [torch.ones(2, 2, channels) for _ in range(4)]
        output, *grads = region_batch_norm(library, input, parameters, input, (2, 2), False, True)
        assert output.shape == input.shape
        assert all(g.count_nonzero() == 0 for g in grads)


def attention_maps(
    library: ctypes.CDLL, landmarks: Tensor, rules: Sequence[facs.AURule], image_size: int, map_size: int
) -> Tensor:
    maps = unwritten(len(landmarks), len(rules), map_size, map_size, like=landmarks)
    half_size, slope = float(round((map_size - 1) / 2 * 0.14)), 0.56 / (map_size * 0.14)
    params = struct.pack(
        ATTENTION_MAPS,
        DTYPES.index(landmarks.dtype),
        *(len(landmarks), len(rules), map_size),
        *(map_size / image_size, half_size, slope),
        *(landmarks.data_ptr(), *landmarks.stride()),
        maps.data_ptr(),
    )
    points = torch.tensor([rule.points for rule in rules], dtype=torch.int64)
    dy = torch.tensor([rule.dy for rule in rules], dtype=torch.float64)
    call(library, "attention_maps", params, points, dy)
    return maps


@pytest.mark.parametrize("count", [0, 12, 64, 130])
@pytest.mark.parametrize("dtype", DTYPES)
def test_attention_maps(library: ctypes.CDLL, dtype: torch.dtype, count: int) -> None:
    generator = torch.Generator().manual_seed(0)
    landmarks = (torch.rand(4, 2, 49, generator=generator, dtype=torch.float64) * 236 - 30).to(dtype)
    landmarks = landmarks.transpose(1, 2)
    landmarks[1, 31, 0] = torch.nan
    landmarks[2, 24, 1] = torch.inf
    landmarks[3, 22, 0] = torch.nan  # with it r, and so every map
    rules = [facs.AURule((k % 49, 5 * k % 49), dy=(k % 7 - 3) / 3) for k in range(count)]
    (maps,) = in_every_order(library, lambda: [attention_maps(library, landmarks, rules, 176, 23)])
    expected = reference.attention_maps(landmarks, rules, image_size=176, map_size=23)
    # The same arithmetic: only the last bit of a weight may differ, never a centre.
    torch.testing.assert_close(maps, expected, rtol=0, atol=torch.finfo(dtype).eps)
    if count:
        assert maps[0].count_nonzero() > 0 and maps[3].count_nonzero() == 0


@pytest.mark.parametrize("batch", [0, 1])
def test_attention_maps_of_few_faces(library: ctypes.CDLL, batch: int) -> None:
    landmarks = torch.full((batch, 49, 2), 88.0)
    rules = facs.rules(facs.BP4D_AUS)
    maps = attention_maps(library, landmarks, rules, 176, 1)  # a map of one pixel
    assert torch.equal(maps, reference.attention_maps(landmarks, rules, image_size=176, map_size=1))


def softmax_dice_loss(
    library: ctypes.CDLL, logits: Tensor, target: Tensor, weight: Tensor | None, dice: str, smooth: float
) -> list[Tensor]:
    """The two losses and the gradient of 0.75 softmax + 1.5 dice."""
    compute = compute_type(logits)
    target = target.to(compute if target.is_floating_point() else torch.int64).contiguous()
    weight = None if weight is None else weight.to(compute)
    params = struct.pack(
        SOFTMAX_DICE_LOSS,
        *(DTYPES.index(logits.dtype), dice == "batch", logits.shape[0], logits.shape[2], smooth),
        *(logits.data_ptr(), *logits.stride()),
        *(target.data_ptr(), target.is_floating_point(), -1),
        0 if weight is None else weight.data_ptr(),
    )
    losses = [unwritten(1, like=logits), unwritten(1, like=logits)]
    grads = [torch.tensor([0.75], dtype=logits.dtype), torch.tensor([1.5], dtype=logits.dtype)]
    grad_logits = unwritten(*logits.shape, like=logits)
    call(library, "softmax_dice_loss_forward", params, *losses)
    call(library, "softmax_dice_loss_backward", params, *grads, grad_logits)
    return [*losses, grad_logits]


def random_labels(samples: int, aus: int) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, labels with about a third missing (AU 3 wholly), weights."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(samples, 2, aus, generator=generator, dtype=torch.float64)
    target = torch.randint(-1, 2, (samples, aus), generator=generator)
    target[:, 3:4] = -1
    return logits, target, torch.rand(aus, generator=generator, dtype=torch.float64) + 0.1


def check_softmax_dice_loss(
    library: ctypes.CDLL,
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    dice: str,
    smooth: float = 1.0,
    tolerance: float = 1e-13,
) -> None:
    actual = in_every_order(library, lambda: softmax_dice_loss(library, logits, target, weight, dice, smooth))
    exact = logits.double().requires_grad_()
    losses = reference.softmax_dice_loss(exact, target, weight, dice=dice, smooth=smooth)
    (grad,) = torch.autograd.grad(0.75 * losses.softmax + 1.5 * losses.dice, exact)
    for one, other in zip(actual, (losses.softmax.view(1), losses.dice.view(1), grad), strict=True):
        assert_close(one, other, tolerance)


@pytest.mark.parametrize("dice", ["sample", "batch"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax_dice_loss(library: ctypes.CDLL, dtype: torch.dtype, dice: str) -> None:
    logits, target, weight = random_labels(70, 12)
    logits = logits.to(dtype).permute(2, 0, 1).contiguous().permute(1, 2, 0)
    tolerance = max(TOLERANCE[dtype], 1e-13)
    check_softmax_dice_loss(library, logits, target, weight, dice, tolerance=tolerance)


@pytest.mark.parametrize("dice", ["sample", "batch"])
@pytest.mark.parametrize(("samples", "aus"), [(0, 5), (1, 1), (5, 0), (33, 16), (31, 17), (900, 3), (2, 520)])
def test_softmax_dice_loss_sizes(library: ctypes.CDLL, samples: int, aus: int, dice: str) -> None:
    logits, target, _ = random_labels(samples, aus)
    check_softmax_dice_loss(library, logits, target, None, dice, smooth=0.25)


@pytest.mark.parametrize("dice", ["sample", "batch"])
def test_softmax_dice_loss_targets(library: ctypes.CDLL, dice: str) -> None:
    logits, target, weight = random_labels(40, 5)
    soft = torch.rand(target.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    check_softmax_dice_loss(library, logits, torch.where(target == -1, -1.0, soft), weight, dice)
    missing = torch.full_like(target, -1)
    assert all(t.count_nonzero() == 0 for t in softmax_dice_loss(library, logits, missing, weight, dice, 1.0))


@pytest.mark.parametrize("dice", ["sample", "batch"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax_dice_loss_of_infinite_logits(library: ctypes.CDLL, dtype: torch.dtype, dice: str) -> None:
    for present in (torch.inf, -torch.inf, torch.nan, 0.5):
        for absent in (torch.inf, -torch.inf, torch.nan, 0.5):
            for label in (0, 1, -1):
                logits, target, weight = random_labels(9, 3)
                logits[4, :, 1], target[4, 1] = torch.tensor([absent, present]), label
                logits = logits.to(dtype)
                actual = softmax_dice_loss(library, logits, target, weight, dice, 1.0)
                exact = logits.double().requires_grad_()
                losses = reference.softmax_dice_loss(exact, target, weight, dice=dice)
                (grad,) = torch.autograd.grad(0.75 * losses.softmax + 1.5 * losses.dice, exact)
                for one, other in zip(
                    actual, (losses.softmax.view(1), losses.dice.view(1), grad), strict=True
                ):
                    torch.testing.assert_close(one.double(), other, rtol=2e-2, atol=1e-2, equal_nan=True)


@pytest.mark.parametrize("wrong", [9, 2, -2])
def test_softmax_dice_loss_wrong_label(library: ctypes.CDLL, wrong: int) -> None:
    logits, target, weight = random_labels(40, 20)
    target[35, 18] = wrong
    softmax, dice, _ = softmax_dice_loss(library, logits, target, weight, "sample", 1.0)
    assert softmax.isnan() and dice.isnan()
