"""conv3x3 against PyTorch's convolution in float64."""

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from jaa_ext.ops import conv3x3, conv3x3_filters, reference

# Of the largest value: Winograd's F(4x4, 3x3) with random numbers.
TOLERANCE = 3e-6
GRADIENT_TOLERANCE = 1e-5
LAYOUTS = [torch.contiguous_format, torch.channels_last]
HALF = [torch.bfloat16, torch.float16]


def random_case(
    *,
    batch: int = 2,
    in_channels: int = 5,
    out_channels: int = 19,
    size: tuple[int, int] = (13, 17),
    groups: int = 1,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Input, weight, bias and attention; channels are those of a group."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    weight = draw(groups * out_channels, in_channels, 3, 3) / (9 * in_channels) ** 0.5
    attention = draw(batch, 1, *size).sigmoid()
    input = draw(batch, groups * in_channels, *size)
    return input, weight, draw(groups * out_channels), attention


def exact(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    padding: int = 1,
    groups: int = 1,
    relu: bool = False,
    pool: bool = False,
    attention: Tensor | None = None,
) -> Tensor:
    x, weight, bias, attention = (None if t is None else t.double() for t in (input, weight, bias, attention))
    x = x if attention is None else x * attention
    output = F.conv2d(x, weight, bias, padding=padding, groups=groups)
    output = output.clamp_min(0) if relu else output
    return F.max_pool2d(output, 2) if pool else output


def assert_close(actual: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> None:
    assert actual.shape == expected.shape
    if expected.numel():
        scale = expected.abs().max().clamp_min(1e-30)
        assert ((actual.double() - expected).abs().max() / scale).item() <= tolerance


def assert_matches(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    tolerance: float = TOLERANCE,
    **options: Any,
) -> Tensor:
    """Output for inference, with filters made at each call and beforehand; returns it."""
    expected = exact(input, weight, bias, **options)
    layout = torch._prims_common.suggest_memory_format(input)
    for filters in (None, conv3x3_filters(weight, options.get("groups", 1))):
        output = conv3x3(input, weight, bias, filters=filters, **options)
        assert output.dtype == input.dtype and output.is_contiguous(memory_format=layout)
        assert_close(output, expected, tolerance)
    return output


def assert_learns(input: Tensor, weight: Tensor, bias: Tensor | None = None, **options: Any) -> None:
    """Output and all gradients."""
    attention = options.pop("attention", None)
    leaves = [t.detach().requires_grad_() for t in (input, weight, bias, attention) if t is not None]
    doubles = [t.detach().double().requires_grad_() for t in leaves]
    results = []
    for function, tensors in ((conv3x3, leaves), (exact, doubles)):
        rest = iter(tensors)
        arguments = [next(rest) if t is not None else None for t in (input, weight, bias, attention)]
        output = function(*arguments[:3], attention=arguments[3], **options)
        grad = torch.randn(output.shape, generator=torch.Generator().manual_seed(1)).to(output)
        results.append([output, *torch.autograd.grad(output, tensors, grad)])
    assert_close(results[0][0], results[1][0])
    for actual, expected in zip(results[0][1:], results[1][1:], strict=True):
        assert actual.dtype == torch.float32
        assert_close(actual, expected, GRADIENT_TOLERANCE)


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "channels", [(1, 64), (64, 1), (3, 8), (5, 16), (8, 17), (16, 33), (17, 5), (64, 64)]
)
def test_matches_float64(channels: tuple[int, int], layout: torch.memory_format, padding: int) -> None:
    input, weight, bias, attention = random_case(in_channels=channels[0], out_channels=channels[1])
    input = input.contiguous(memory_format=layout)
    for relu in (False, True):
        for pool in (False, True):
            for each in (None, attention):
                assert_matches(input, weight, bias, padding=padding, relu=relu, pool=pool, attention=each)
    assert_learns(input, weight, bias, padding=padding, attention=attention)
    assert_learns(input, weight, padding=padding)


@pytest.mark.parametrize("padding", [0, 1])
def test_every_rest_of_a_tile(padding: int) -> None:
    """Outputs are computed in tiles of 4 x 4; pooling leaves out an odd row or column."""
    for height in range(1, 14):
        for width in range(1, 14):
            if min(height, width) < 3 - 2 * padding:
                continue
            case = random_case(size=(height, width), in_channels=3, out_channels=8)
            input = case[0].contiguous(memory_format=torch.channels_last)
            pool = min(height, width) >= 4 - 2 * padding
            assert_matches(input, *case[1:3], padding=padding, relu=True, pool=pool)
            if height % 4 == width % 3:
                assert_learns(input, *case[1:3], padding=padding)


@pytest.mark.parametrize("padding", [0, 1])
def test_sizes_of_the_network(padding: int) -> None:
    """Where more than one block of tiles is in work at a time."""
    for channels, side in (((64, 96), 44), ((128, 128), 22), ((160, 160), 11), ((3, 32), 90)):
        input, weight, bias, attention = random_case(
            batch=1, in_channels=channels[0], out_channels=channels[1], size=(side, side)
        )
        input = input.contiguous(memory_format=torch.channels_last)
        assert_matches(input, weight, bias, padding=padding, relu=True, pool=True, attention=attention)
        assert_learns(input, weight, bias, padding=padding)


@pytest.mark.parametrize(
    ("channels", "side", "padding"), [((64, 64), 46, 0), ((96, 96), 44, 1), ((160, 160), 11, 1)]
)
def test_errors_of_long_sums(channels: tuple[int, int], side: int, padding: int) -> None:
    """Those of one run after the other are half of those of one long sum, whose terms here have one sign."""
    input, weight, *_ = random_case(in_channels=channels[0], out_channels=channels[1], size=(side, side))
    leaves = [t.contiguous(memory_format=torch.channels_last) for t in (input.relu(), weight)]
    grad = torch.randn(
        2, channels[1], *(2 * [side + 2 * padding - 2]), generator=torch.Generator().manual_seed(1)
    )
    results = []
    for function, dtype in ((conv3x3, torch.float32), (exact, torch.float64)):
        tensors = [t.to(dtype).requires_grad_() for t in leaves]
        output = function(*tensors, padding=padding)
        results.append([output, *torch.autograd.grad(output, tensors, (grad + 1).to(dtype))])
    for actual, expected, tolerance in zip(*results, (1e-6, 1e-6, 6e-7), strict=True):
        assert_close(actual, expected, tolerance)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels", [(1, 8), (8, 1), (3, 5), (16, 17), (33, 16)])
def test_groups(channels: tuple[int, int], layout: torch.memory_format) -> None:
    for groups in (2, 5):
        for padding in (0, 1):
            input, weight, bias, _ = random_case(
                in_channels=channels[0], out_channels=channels[1], groups=groups, size=(10, 11)
            )
            input = input.contiguous(memory_format=layout)
            options = {"padding": padding, "groups": groups}
            output = assert_matches(input, weight, bias, relu=True, pool=True, **options)
            assert_learns(input, weight, bias, **options)
            parts = zip(input.chunk(groups, 1), weight.chunk(groups), bias.chunk(groups), strict=True)
            alone = [conv3x3(*part, padding=padding, relu=True, pool=True) for part in parts]
            assert_close(output, torch.cat(alone, 1).double())
            filters = conv3x3_filters(weight, groups).chunk(groups)
            for one, part in zip(filters, weight.chunk(groups), strict=True):
                assert torch.equal(one, conv3x3_filters(part))


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_drawn_shapes(data: st.DataObject) -> None:
    def draw(low: int, high: int) -> int:
        return data.draw(st.integers(low, high))

    padding, pool = draw(0, 1), bool(draw(0, 1))
    least = (4 if pool else 3) - 2 * padding
    input, weight, bias, attention = random_case(
        batch=draw(0, 3),
        in_channels=draw(1, 40),
        out_channels=draw(1, 40),
        size=(draw(least, 30), draw(least, 30)),
        seed=draw(0, 1000),
    )
    input = input.contiguous(memory_format=data.draw(st.sampled_from(LAYOUTS)))
    assert_matches(
        input,
        weight,
        bias if draw(0, 1) else None,
        padding=padding,
        relu=bool(draw(0, 1)),
        pool=pool,
        attention=attention if draw(0, 1) else None,
    )
    assert_learns(input, weight, bias, padding=padding)


def test_any_strides() -> None:
    input, weight, bias, attention = random_case(batch=3, in_channels=4, size=(12, 14))
    views = {
        "transposed": input.transpose(2, 3).contiguous().transpose(2, 3),
        "sliced": F.pad(input, (1, 2, 3, 0))[:, :, 3:, 1:-2],
        "strided": input.repeat_interleave(2, 3)[..., ::2],
        "expanded": input[:1].expand(3, -1, -1, -1),
        "channels of a larger one": torch.cat([input, input], 1).to(memory_format=torch.channels_last)[:, 4:],
    }
    kinds = {
        "transposed": weight.transpose(2, 3).contiguous().transpose(2, 3),
        "channels_last": weight.to(memory_format=torch.channels_last),
    }
    attention = attention.repeat_interleave(2, 3)[..., ::2]
    for view in views.values():
        for kind in kinds.values():
            expected = exact(view, kind, bias, attention=attention)
            assert_close(conv3x3(view, kind, bias, attention=attention), expected)
            assert_learns(view, kind, bias, attention=attention)


def test_expanded_gradient() -> None:
    """`.sum().backward()` gives a gradient whose strides are all 0."""
    leaves = [t.requires_grad_() for t in random_case()[:3]]
    doubles = [t.detach().double().requires_grad_() for t in leaves]
    expected = torch.autograd.grad(exact(*doubles).sum(), doubles)
    for a, b in zip(torch.autograd.grad(conv3x3(*leaves).sum(), leaves), expected, strict=True):
        assert_close(a, b, GRADIENT_TOLERANCE)


def test_only_the_wanted_gradients() -> None:
    case = random_case()[:3]
    leaves = [t.detach().requires_grad_() for t in case]
    full = torch.autograd.grad(conv3x3(*leaves).square().sum(), leaves)
    for k in range(3):
        tensors = [t.detach().requires_grad_(i == k) for i, t in enumerate(case)]
        conv3x3(*tensors).square().sum().backward()
        assert [t.grad is not None for t in tensors] == [i == k for i in range(3)]
        assert torch.equal(tensors[k].grad, full[k])


def test_gradients_through_relu_and_pooling() -> None:
    leaves = [t.requires_grad_() for t in random_case()]
    one = conv3x3(*leaves[:3], attention=leaves[3], relu=True, pool=True)
    other = F.max_pool2d(conv3x3(leaves[0] * leaves[3], *leaves[1:3]).relu(), 2)
    assert torch.equal(one, other)
    grad = torch.randn_like(one)
    pairs = zip(torch.autograd.grad(one, leaves, grad), torch.autograd.grad(other, leaves, grad), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_same_bits_whatever_the_threads_and_the_batch() -> None:
    for channels, side in (((16, 24), 40), ((64, 64), 22), ((160, 160), 5), ((1, 64), 18), ((64, 1), 18)):
        input, *rest = random_case(
            batch=5, in_channels=channels[0], out_channels=channels[1], size=(side, side + 1)
        )
        input = input.contiguous(memory_format=torch.channels_last)
        leaves = [t.requires_grad_() for t in (input, *rest[:2])]
        threads = torch.get_num_threads()
        results = []
        try:
            for count in (1, 2, 3):
                torch.set_num_threads(count)
                output = conv3x3(*leaves)
                with torch.no_grad():
                    fused = conv3x3(*leaves, attention=rest[2], relu=True, pool=True)
                grad_input, grad_weight, grad_bias = torch.autograd.grad(output.square().sum(), leaves)
                results.append([fused, output, grad_input, grad_bias])
                if min(channels) >= 16:  # oneDNN makes the others
                    results[-1].append(grad_weight)
        finally:
            torch.set_num_threads(threads)
        for other in results[1:]:
            assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
        with torch.no_grad():
            for i in range(5):
                alone = conv3x3(
                    input[i : i + 1], *leaves[1:], attention=rest[2][i : i + 1], relu=True, pool=True
                )
                assert torch.equal(alone, results[0][0][i : i + 1])
                assert torch.equal(conv3x3(input[i : i + 1], *leaves[1:]), results[0][1][i : i + 1])


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
@pytest.mark.parametrize("padding", [0, 1])
def test_what_is_not_finite_stays_in_its_tiles(padding: int, value: float) -> None:
    clean, weight, bias, _ = random_case(in_channels=16, out_channels=16, size=(19, 22))
    clean = clean.contiguous(memory_format=torch.channels_last)
    for row, column in ((0, 0), (4, 5), (7, 8), (18, 21)):
        input = clean.clone()
        input[1, 3, row, column] = value
        window = exact(input.isnan() | input.isinf(), torch.ones_like(weight), padding=padding) > 0
        # Tiles start at output 0: those hit anywhere are hit whole.
        hit = F.max_pool2d(window.float(), 4, ceil_mode=True).repeat_interleave(4, 2).repeat_interleave(4, 3)
        tiles = hit[:, :, : window.shape[2], : window.shape[3]] > 0
        # A tile's 6 x 6 inputs hold a frame of which only some windows are in the tile.
        output, before = (
            conv3x3(input, weight, bias, padding=padding),
            conv3x3(clean, weight, bias, padding=padding),
        )
        assert not output[window].isfinite().any()
        assert torch.equal(output[~tiles], before[~tiles])
        pooled = conv3x3(input, weight, bias, padding=padding, relu=True, pool=True)
        want = F.max_pool2d(output.relu(), 2)
        assert torch.equal(pooled.isnan(), want.isnan())


def test_empty_batch() -> None:
    input, weight, bias, attention = (t.requires_grad_() for t in random_case(batch=0))
    output = conv3x3(input, weight, bias, attention=attention, pool=True)
    assert output.shape == (0, 19, 6, 8)
    output.sum().backward()
    assert weight.grad.count_nonzero() == 0 and bias.grad.count_nonzero() == 0
    assert conv3x3(input.detach(), weight.detach(), relu=True).shape == (0, 19, 13, 17)


@pytest.mark.parametrize("dtype", [torch.float64, *HALF])
def test_other_dtypes_are_torchs_convolution(dtype: torch.dtype) -> None:
    input, weight, bias, attention = random_case(dtype=dtype)
    want = F.max_pool2d(F.conv2d(input * attention, weight, bias, padding=1).relu(), 2)
    got = conv3x3(
        input, weight, bias, relu=True, pool=True, attention=attention, filters=conv3x3_filters(weight)
    )
    assert torch.equal(got, want)


@pytest.mark.parametrize("function", [conv3x3, reference.conv3x3], ids=["op", "reference"])
@pytest.mark.parametrize("autocast", HALF)
def test_autocast_treats_every_dtype_as_in_torchs_convolution(
    function: Callable[..., Tensor], autocast: torch.dtype
) -> None:
    """It leaves float64: alone that is kept, beside others it is refused."""
    dtypes = [torch.float64, torch.float32, *HALF]
    for of_input in dtypes:
        for of_weight in dtypes:
            input, weight = random_case(dtype=of_input)[0], random_case(dtype=of_weight)[1]
            with torch.autocast("cpu", autocast):
                try:
                    want = F.conv2d(input, weight, padding=1)
                except RuntimeError:
                    with pytest.raises(TypeError, match="must have the dtype of input"):
                        function(input, weight)
                    continue
                got = function(input, weight)
            assert got.dtype == want.dtype and torch.equal(got, want)


def test_gradients_under_autocast_are_float32() -> None:
    leaves = [t.requires_grad_() for t in random_case()]
    with torch.autocast("cpu", torch.bfloat16):
        output = conv3x3(*leaves[:3], attention=leaves[3], relu=True)
    output.float().sum().backward()
    assert output.dtype == torch.bfloat16 and all(t.grad.dtype == torch.float32 for t in leaves)


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_opcheck(layout: torch.memory_format, padding: int, opcheck: Callable[..., Any]) -> None:
    input, weight, bias, attention = random_case(size=(6, 9))
    input = input.contiguous(memory_format=layout)
    leaves = [t.clone().requires_grad_() for t in (input, weight, bias)]
    ops = torch.ops.jaa_ext
    opcheck(ops.conv3x3.default, (*leaves, padding, 1))
    opcheck(ops.conv3x3.default, (*leaves[:2], None, padding, 1))
    grad = torch.randn(2, 19, 4 + 2 * padding, 7 + 2 * padding)
    for mask in ([True, False, True], [False, True, False]):
        opcheck(ops.conv3x3_backward.default, (grad, input, weight, padding, 1, mask))
    opcheck(ops.conv3x3_filters.default, (weight, 1))
    for pool in (False, True):
        opcheck(ops.conv3x3_fused.default, (input, weight, None, bias, attention, padding, 1, True, pool))
    input, weight, bias, _ = random_case(size=(6, 9), in_channels=16, groups=2)
    leaves = [t.clone().requires_grad_() for t in (input.contiguous(memory_format=layout), weight, bias)]
    opcheck(ops.conv3x3.default, (*leaves, padding, 2))


def test_compile_and_dynamic_batch() -> None:
    _, weight, bias, _ = random_case()
    weight.requires_grad_()

    @torch.compile(fullgraph=True, dynamic=True, backend="aot_eager")
    def step(x: Tensor, map: Tensor) -> Tensor:
        return conv3x3(x, weight, bias, attention=map, relu=True, pool=True).square().sum()

    for batch in (2, 3, 5):
        input, *_, attention = random_case(batch=batch)
        with torch.no_grad():
            plain = conv3x3(input, weight, bias, attention=attention, relu=True, pool=True).square().sum()
            torch.testing.assert_close(step(input, attention), plain)
        want = conv3x3(input, weight, bias, attention=attention, relu=True, pool=True).square().sum()
        for got, expected in zip(
            torch.autograd.grad(step(input, attention), weight),
            torch.autograd.grad(want, weight),
            strict=True,
        ):
            torch.testing.assert_close(got, expected)


def test_an_exported_program_has_standard_convolutions() -> None:
    class Module(torch.nn.Module):
        def forward(self, input: Tensor, weight: Tensor, bias: Tensor, attention: Tensor) -> Tensor:
            return conv3x3(input, weight, bias, attention=attention, relu=True, pool=True)

    case = random_case()
    batch = torch.export.Dim("n")
    shapes = ({0: batch}, None, None, {0: batch})
    for strict in (False, True):
        program = torch.export.export(Module(), case, dynamic_shapes=shapes, strict=strict)
        assert "jaa_ext" not in str(program.graph) and "conv2d" in str(program.graph)
        other = random_case(batch=4)
        assert_close(program.module()(*other), exact(*other[:3], attention=other[3], relu=True, pool=True))


@pytest.mark.parametrize("function", [conv3x3, reference.conv3x3], ids=["op", "reference"])
def test_tensors_without_storage(function: Callable[..., Tensor]) -> None:
    case = [t.to("meta").requires_grad_() for t in random_case()]
    output = function(*case[:3], attention=case[3], padding=0, relu=True, pool=True)
    assert output.is_meta and output.shape == (2, 19, 5, 7)
    assert [g.shape for g in torch.autograd.grad(output.sum(), case)] == [t.shape for t in case]


def test_differentiating_twice_is_refused() -> None:
    case = [t.requires_grad_() for t in random_case()[:3]]
    (grad,) = torch.autograd.grad(conv3x3(*case).square().sum(), case[1], create_graph=True)
    with pytest.raises(RuntimeError, match="not implemented"):
        grad.sum().backward()


def test_filters_that_kernels_could_not_read_are_refused() -> None:
    input, weight, *_ = random_case(in_channels=16, out_channels=16)
    filters = conv3x3_filters(weight)
    size = len(filters)
    conv3x3(input, weight, filters=filters)
    for bad in (filters[:-1], filters[:1].expand(size), torch.cat([filters, filters])[1 : size + 1]):
        with pytest.raises(ValueError, match="filters must be those that conv3x3_filters gave"):
            conv3x3(input, weight, filters=bad)


MISTAKES = {
    "groups": (dict(groups=3), ValueError, "groups must divide the 4 output channels, got 3"),
    "no groups": (dict(groups=0), ValueError, "groups must divide the 4 output channels, got 0"),
    "channels of groups": (dict(groups=2), ValueError, "input has 3 channels, but weight wants 6"),
    "attention of groups": (
        dict(groups=2, input=torch.zeros(1, 6, 8, 8), attention=torch.zeros(1, 1, 8, 8)),
        ValueError,
        "attention needs groups=1, got 2",
    ),
    "padding": (dict(padding=2), ValueError, "padding must be 0 or 1, got 2"),
    "input dim": (dict(input=torch.zeros(3, 8, 8)), ValueError, r"input must be .* got \[3, 8, 8\]"),
    "weight dim": (dict(weight=torch.zeros(4, 3, 9)), ValueError, r"weight must be .* got \[4, 3, 9\]"),
    "kernel": (dict(weight=torch.zeros(4, 3, 5, 3)), ValueError, r"weight must be .* got \[4, 3, 5, 3\]"),
    "no channels": (
        dict(weight=torch.zeros(0, 3, 3, 3), bias=None),
        ValueError,
        r"weight .*at least 1, got \[0, 3, 3, 3\]",
    ),
    "channels": (dict(input=torch.zeros(1, 4, 8, 8)), ValueError, "input has 4 channels, but weight wants 3"),
    "bias": (dict(bias=torch.zeros(3)), ValueError, r"bias must be \(out_channels\) = \[4\], got \[3\]"),
    "attention": (
        dict(attention=torch.zeros(1, 3, 8, 8)),
        ValueError,
        r"attention must be \(N, 1, H, W\) = \[1, 1, 8, 8\], got \[1, 3, 8, 8\]",
    ),
    "small": (
        dict(input=torch.zeros(1, 3, 2, 9), padding=0),
        ValueError,
        "images must be at least 3 x 3 with padding 0, got 2 x 9",
    ),
    "empty": (
        dict(input=torch.zeros(1, 3, 0, 9)),
        ValueError,
        "images must be at least 1 x 1 with padding 1, got 0 x 9",
    ),
    "small for pooling": (
        dict(input=torch.zeros(1, 3, 9, 1), pool=True),
        ValueError,
        "images must be at least 2 x 2 with padding 1 and pooling, got 9 x 1",
    ),
    "integers": (
        dict(input=torch.zeros(1, 3, 8, 8, dtype=torch.int32)),
        TypeError,
        "input must be float64.* got int32",
    ),
    "mixed dtypes": (
        dict(weight=torch.zeros(4, 3, 3, 3, dtype=torch.float64)),
        TypeError,
        "weight .*dtype of input, float32, got float64",
    ),
    "mixed attention": (
        dict(attention=torch.zeros(1, 1, 8, 8, dtype=torch.float64)),
        TypeError,
        "attention .*dtype of input, float32, got float64",
    ),
    "device": (
        dict(weight=torch.zeros(4, 3, 3, 3, device="meta")),
        ValueError,
        "weight .*device of input, cpu, got meta",
    ),
}


@pytest.mark.parametrize("learns", [False, True])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_named_alike(mistake: str, learns: bool, refused_alike: Callable[..., None]) -> None:
    """The kernel, the reference and the fake each give the same sentence."""
    changes, error, message = MISTAKES[mistake]
    arguments = dict(input=torch.zeros(1, 3, 8, 8), weight=torch.zeros(4, 3, 3, 3), bias=torch.zeros(4))
    arguments.update(changes)
    if learns and arguments["weight"].is_floating_point():
        arguments["weight"] = arguments["weight"].clone().requires_grad_()
    refused_alike(conv3x3, arguments, error, f"conv3x3: .*{message}", reaches_kernel=mistake != "device")


@pytest.mark.parametrize("form", ["winograd", "direct"])
def test_every_instruction_set(form: str, at_level: Callable[[str], None]) -> None:
    at_level(f"""
import os
os.environ["JAA_EXT_CONV3X3"] = "{form}"
import torch
from jaa_ext import _C
from test_conv3x3 import assert_learns, assert_matches, random_case
assert _C.conv3x3_form(11, 35) == "{form}"
for channels in ((1, 8), (11, 35), (33, 1), (64, 64)):
    for padding in (0, 1):
        for layout in (torch.contiguous_format, torch.channels_last):
            input, weight, bias, attention = random_case(
                batch=3, in_channels=channels[0], out_channels=channels[1], size=(15, 18)
            )
            input = input.contiguous(memory_format=layout)
            assert_matches(input, weight, bias, padding=padding, relu=True, pool=True, attention=attention)
            assert_learns(input, weight, bias, padding=padding)
""")


def run(code: str, form: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "JAA_EXT_CONV3X3": form},
        capture_output=True,
        text=True,
    )


def test_torchs_convolution_can_be_forced() -> None:
    done = run(
        "import torch; from jaa_ext import ops, _C\n"
        "x, w = torch.randn(2, 64, 22, 22), torch.randn(64, 64, 3, 3)\n"
        "assert torch.equal(ops.conv3x3(x, w), torch.nn.functional.conv2d(x, w, padding=1))\n"
        "assert not len(ops.conv3x3_filters(w))\n"
        "print(_C.conv3x3_form(64, 64))",
        "torch",
    )
    assert done.stdout.split() == ["torch"], done.stderr


def test_an_unknown_form_is_refused() -> None:
    done = run(
        "import torch; from jaa_ext import ops\nops.conv3x3(torch.ones(1, 1, 3, 3), torch.ones(1, 1, 3, 3))",
        "fft",
    )
    assert done.returncode and "JAA_EXT_CONV3X3 must be winograd, direct or torch, got fft" in done.stderr
