"""What only a GPU has: CUDA graphs, streams, its allocator, TensorFloat-32, more than 2 ** 31 elements."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from jaa_ext import _library, facs
from jaa_ext.ops import attention_maps, reference, region_batch_norm, region_conv2d, softmax_dice_loss

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available() or "cuda" not in _library.DEVICES, reason="no GPU, or no kernels for it"
)

FEATURES = 64 * 1408 * 1408
IMAGES = 2**31 // FEATURES + 2
"""Images of 64 channels and 1408 x 1408 pixels, of which all but the last have more than 2 ** 31 elements."""


@dataclass
class Case:
    """An op with its arguments: what is differentiated, and what is not."""

    op: Callable[..., Any]
    leaves: list[Tensor]
    others: tuple[Any, ...] = ()
    options: dict[str, Any] | None = None

    def step(self) -> list[Tensor]:
        """Outputs and gradients."""
        found = self.op(*self.leaves, *self.others, **self.options or {})
        outputs = [found] if isinstance(found, Tensor) else list(found)
        if not outputs[0].requires_grad:
            return outputs
        factors = [torch.linspace(-1, 2, o.numel(), device=o.device).view(o.shape).to(o) for o in outputs]
        return [*outputs, *torch.autograd.grad(outputs, self.leaves, factors)]


def draw_case(name: str, dtype: torch.dtype = torch.float32, device: str = "cuda", seed: int = 0) -> Case:
    """A case as large as a layer of JAA-Net, so that every kernel runs in many blocks."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device, dtype)

    if name == "region_conv2d":
        leaves = [draw(4, 32, 88, 88), draw(8, 8, 16, 32, 3, 3) / 17, draw(8, 8, 16)]
        return Case(region_conv2d, [leaf.requires_grad_() for leaf in leaves])
    if name == "region_batch_norm":
        leaves = [draw(4, 32, 88, 88), draw(8, 8, 32), draw(8, 8, 32)]
        options = dict(grid=(8, 8), training=True, relu=True)
        return Case(normalise, [leaf.requires_grad_() for leaf in leaves], options=options)
    if name == "softmax_dice_loss":
        target = torch.randint(-1, 2, (500, 12), generator=generator).to(device)
        return Case(softmax_dice_loss, [draw(500, 2, 12).requires_grad_()], (target, draw(12).abs()))
    landmarks = ((draw(30, 49, 2) + 2) * 44).to(dtype)
    return Case(attention_maps, [landmarks], (facs.BP4D_AUS,), dict(image_size=176, map_size=52))


def normalise(input: Tensor, weight: Tensor, bias: Tensor, **options: Any) -> Tensor:
    return region_batch_norm(input, weight=weight, bias=bias, **options)


OPS = ["region_conv2d", "region_batch_norm", "softmax_dice_loss", "attention_maps"]
every_op = pytest.mark.parametrize("name", OPS)


def assert_same_bits(actual: list[Tensor], expected: list[Tensor]) -> None:
    assert len(actual) == len(expected)
    for a, e in zip(actual, expected, strict=True):
        assert torch.equal(a, e)


def relative_error(actual: Tensor, expected: Tensor) -> float:
    expected = expected.cpu().double()
    return ((actual.cpu().double() - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@every_op
def test_captured_in_a_cuda_graph(name: str, dtype: torch.dtype) -> None:
    """Replayed over other values it gives what the op gives for them."""
    case = draw_case(name, dtype)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        case.step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = case.step()
    for seed in (1, 2):
        other = draw_case(name, dtype, seed=seed)
        with torch.no_grad():
            for leaf, value in zip(case.leaves, other.leaves, strict=True):
                leaf.copy_(value)
        for theirs, mine in zip(other.others, case.others, strict=True):
            if isinstance(mine, Tensor):
                mine.copy_(theirs)
        graph.replay()
        assert_same_bits(results, other.step())


@every_op
def test_runs_on_the_current_stream(name: str) -> None:
    """The values come late on a stream of their own: a kernel on another one would not see them."""
    other = draw_case(name, seed=1)
    expected = other.step()
    case = draw_case(name)
    torch.cuda.synchronize()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side), torch.no_grad():
        torch.cuda._sleep(200_000_000)  # a tenth of a second
        for leaf, value in zip(case.leaves, other.leaves, strict=True):
            leaf.copy_(value)
        for theirs, mine in zip(other.others, case.others, strict=True):
            if isinstance(mine, Tensor):
                mine.copy_(theirs)
        with torch.enable_grad():
            results = case.step()
    side.synchronize()
    assert_same_bits(results, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@every_op
def test_same_bits_every_time(name: str, dtype: torch.dtype) -> None:
    case = draw_case(name, dtype)
    expected = case.step()
    for _ in range(20):
        assert_same_bits(case.step(), expected)


@pytest.fixture
def deterministic_algorithms() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@every_op
def test_deterministic_algorithms_are_no_hindrance(name: str, deterministic_algorithms: None) -> None:
    case = draw_case(name)
    assert_same_bits(case.step(), case.step())


@every_op
def test_writes_all_of_its_results(name: str) -> None:
    """Into memory that held NaN."""
    case = draw_case(name)
    expected = [result.clone() for result in case.step()]
    assert all(result.isfinite().all() for result in expected)
    for _ in range(2):
        small = [torch.full((2**17,), torch.nan, device="cuda") for _ in range(64)]
        large = [torch.full((2**23,), torch.nan, device="cuda") for _ in range(16)]
        del small, large
        assert_same_bits(case.step(), expected)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_convolution_of_more_than_2_31_elements(layout: torch.memory_format) -> None:
    """The last image, forward and backward, as if it were alone."""
    needs_memory(26)
    images = torch.zeros(IMAGES, 64, 1408, 1408, dtype=torch.bfloat16, device="cuda")
    images = images.contiguous(memory_format=layout)
    assert images[:-1].numel() > 2**31
    generator = torch.Generator().manual_seed(0)
    weight = (torch.randn(2, 2, 8, 64, 3, 3, generator=generator) / 24).to(images)
    last = torch.randn(1, 64, 1408, 1408, generator=generator).to(images).contiguous(memory_format=layout)
    images[-1:] = last
    grad = torch.randn(1, 8, 1408, 1408, generator=generator).to(images).contiguous(memory_format=layout)
    grads = torch.zeros(IMAGES, 8, 1408, 1408, dtype=torch.bfloat16, device="cuda")
    grads = grads.contiguous(memory_format=layout)
    grads[-1:] = grad

    def step(input: Tensor, grad: Tensor) -> list[Tensor]:
        leaves = [input.requires_grad_(), weight.requires_grad_()]
        output = region_conv2d(*leaves)
        grad_input, grad_weight = torch.autograd.grad(output, leaves, grad)
        return [output[-1], grad_input[-1], grad_weight]

    for actual, expected in zip(step(images, grads), step(last, grad), strict=True):
        assert relative_error(actual, expected) <= 8e-3


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_batch_norm_of_more_than_2_31_elements(layout: torch.memory_format) -> None:
    """All images are the last one over again, so that its statistics are those of the batch."""
    needs_memory(26)
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, 64, 1408, 1408, generator=generator).to("cuda", torch.bfloat16)
    images, grads = (
        torch.empty(IMAGES, *image.shape[1:], dtype=image.dtype, device="cuda", memory_format=layout)
        for _ in range(2)
    )
    grad = image.flip(3) * image
    images[:], grads[:] = image, grad
    weight = torch.randn(2, 2, 64, generator=generator).to("cuda")

    def step(input: Tensor, grad: Tensor) -> list[Tensor]:
        input.requires_grad_()
        output = region_batch_norm(input, grid=(2, 2), weight=weight, bias=weight, training=True)
        (grad_input,) = torch.autograd.grad(output, input, grad)
        return [output[-1], grad_input[-1]]

    alone = step(image.contiguous(memory_format=layout), grad.contiguous(memory_format=layout))
    for actual, expected in zip(step(images, grads), alone, strict=True):
        assert relative_error(actual, expected) <= 8e-3


def test_maps_of_more_than_2_31_elements() -> None:
    needs_memory(12)
    faces = 2**31 // (12 * 52 * 52) + 2
    generator = torch.Generator().manual_seed(0)
    last = (torch.rand(1, 49, 2, generator=generator) * 176).to("cuda", torch.float16)
    landmarks = torch.zeros(faces, 49, 2, dtype=torch.float16, device="cuda")
    landmarks[-1:] = last
    options = dict(image_size=176, map_size=52)
    maps = attention_maps(landmarks, facs.BP4D_AUS, **options)
    assert maps.numel() > 2**31
    assert torch.equal(maps[-1:], attention_maps(last, facs.BP4D_AUS, **options))


def needs_memory(gigabytes: int) -> None:
    torch.cuda.empty_cache()
    free = torch.cuda.mem_get_info()[0] / 2**30
    if free < gigabytes:
        pytest.skip(f"needs {gigabytes} GiB of free GPU memory")


def test_tensors_on_several_devices_are_refused() -> None:
    here, there = torch.zeros(1, 3, 8, 8, device="cuda"), torch.zeros(2, 2, 4, 3, 3, 3)
    device = here.device
    with pytest.raises(ValueError, match=f"weight .*device of input, {device}, got cpu"):
        region_conv2d(here, there)
    with pytest.raises(ValueError, match=f"weight .*device of input, {device}, got cpu"):
        parameters = there[..., 0, 0, 0]
        region_batch_norm(here, grid=(2, 2), weight=parameters, bias=parameters, training=True)
    with pytest.raises(ValueError, match=f"target .*device of logits, {device}, got cpu"):
        softmax_dice_loss(torch.zeros(4, 2, 5, device="cuda"), torch.zeros(4, 5))


def test_errors_of_arguments_are_those_of_the_reference(refused_alike: Callable[..., None]) -> None:
    image, weight = torch.zeros(1, 3, 8, 8, device="cuda"), torch.zeros(2, 2, 4, 3, 2, 3, device="cuda")
    refused_alike(
        region_conv2d, dict(input=image, weight=weight), ValueError, "kernel sides must be odd, got 2 x 3"
    )
    logits = torch.zeros(4, 3, 5, device="cuda")
    refused_alike(
        softmax_dice_loss, dict(logits=logits, target=logits[:, 0]), ValueError, r"must be \(N, 2, A\)"
    )
    arguments = dict(landmarks=logits, aus=[1], image_size=176, map_size=52)
    refused_alike(attention_maps, arguments, ValueError, r"must be \(N, 49, 2\)")


@pytest.fixture
def tf32(request: pytest.FixtureRequest) -> Iterator[bool]:
    torch.backends.cudnn.allow_tf32 = request.param
    yield request.param
    torch.backends.cudnn.allow_tf32 = False


@pytest.mark.parametrize("tf32", [False, True], indirect=True)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_tensor_float_32_only_where_torch_allows_it(tf32: bool, layout: torch.memory_format) -> None:
    """Two factors rounded at 2 ** -11 or cut at 2 ** -10, against float32's 2 ** -24 in sums of 288."""
    case = draw_case("region_conv2d")
    case.leaves[0] = case.leaves[0].detach().contiguous(memory_format=layout).requires_grad_()
    doubles = [leaf.detach().cpu().double().requires_grad_() for leaf in case.leaves]
    exact = Case(reference.region_conv2d, doubles).step()
    for actual, expected in zip(case.step(), exact, strict=True):
        assert relative_error(actual, expected) <= (2**-9 if tf32 else 1e-6)


@every_op
def test_compiled_by_inductor(name: str) -> None:
    pytest.importorskip("triton")
    case = draw_case(name)
    op = case.op

    def between_negations(
        first: Tensor, *rest: Any, **options: Any
    ) -> list[Tensor]:  # exact, and to be fused
        found = op(-first, *rest, **options)
        return [-found] if isinstance(found, Tensor) else [-part for part in found]

    case.op = between_negations
    expected = case.step()
    case.op = torch.compile(between_negations, fullgraph=True, dynamic=False)
    assert_same_bits(case.step(), expected)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU")
@every_op
def test_a_device_that_is_not_the_current_one(name: str) -> None:
    expected = draw_case(name, device="cuda:0").step()
    with torch.cuda.device(0):
        results = draw_case(name, device="cuda:1").step()
    assert all(result.device.index == 1 for result in results)
    assert_same_bits([result.to("cuda:0") for result in results], expected)
