"""Region learning's two blocks in JAA-Net, forward and backward in training, against plain PyTorch."""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from authors_arrangement import CellLoopRegion, copy_weights, split
from bench_region_conv2d import cells_to_channels, channels_to_cells
from comparison import LAYOUTS, Comparison, relative_distance
from torch import Tensor, nn

from jaa_ext.nn import HierarchicalMultiScaleRegion, RegionBatchNorm2d, RegionConv2d


@dataclass(frozen=True)
class Case:
    in_channels: int
    width: int
    size: int
    input_gradient: bool
    batch: int = 8

    def __str__(self) -> str:
        end = "" if self.input_gradient else ", no input gradient"
        return f"{self.in_channels}->{self.width}, {self.size}x{self.size}{end}"

    @property
    def operations(self) -> int:
        """Multiplications and additions of all four convolutions, zeros around cells included."""
        w = self.width
        region = w * w // 2 + (w // 2) * (w // 4) + (w // 4) ** 2
        first = self.in_channels * w
        passes = 3 * region + (3 if self.input_gradient else 2) * first
        return 2 * 9 * self.batch * self.size**2 * passes


BLOCKS = [Case(3, 32, 176, input_gradient=False), Case(32, 64, 88, input_gradient=True)]
CASES = {"cpu": BLOCKS, "cuda": [replace(block, batch=64) for block in BLOCKS]}
SMOKE_CASE = Case(3, 8, 16, input_gradient=True, batch=2)

# float32: rounding switches a few of ten million ReLUs, and each changes the gradient by up to a thousandth.
# bfloat16: values rounded at 2 ** -9 lie nearer to 0 than that in 1.5e-3 of all cases, and a ReLU that
# switches there leaves sqrt(1.5e-3) = 4e-2 of a gradient's length; four ReLUs follow each other. TF32: as
# bfloat16 with 2 ** -11.
TOLERANCE = {"float32": 5e-3, "TF32": 5e-2, "bfloat16": 1e-1}


def test_region_block(
    case: Case, precision: str, dtype: torch.dtype, device: str, comparison: Comparison
) -> None:
    torch.manual_seed(0)
    block = HierarchicalMultiScaleRegion(case.in_channels, case.width).to(device)
    cells = CellLoopRegion(case.in_channels, case.width).to(device)
    copy_weights(block, cells)
    grouped = GroupedRegion(case.in_channels, case.width).to(device)
    grouped.load_state_dict(block.state_dict())
    image = torch.randn(case.batch, case.in_channels, case.size, case.size, device=device)
    grad = torch.randn(case.batch, case.width, case.size, case.size, device=device)
    expected = Step(copy.deepcopy(cells).double(), image.double(), grad.double(), case.input_gradient)
    exact = expected.results()

    def add(name: str, module: nn.Module, layout: torch.memory_format) -> None:
        step = Step(
            module,
            image.contiguous(memory_format=layout),
            grad.contiguous(memory_format=layout),
            case.input_gradient,
            dtype,
        )
        comparison.add_call(name, step, error=partial(step.error, exact), tolerance=TOLERANCE[precision])

    for name, module in {"jaa_ext": block, "cell loop": cells, "grouped convolution": grouped}.items():
        for layout_name, layout in LAYOUTS.items():
            add(f"{name} ({layout_name})", module, layout)
    # The cell loop has 84 cells a block: the compiler takes minutes to unroll it.
    if comparison.compiled:
        add("torch.compile (grouped convolution, NCHW)", comparison.compile(grouped), LAYOUTS["NCHW"])
    comparison.run(
        "region block",
        str(case),
        direction="forward+backward",
        operations=case.operations,
        bytes=0,
    )


class Step:
    """One forward and backward pass of a block in training, under autocast where a half type is given."""

    def __init__(
        self,
        module: nn.Module,
        image: Tensor,
        grad: Tensor,
        input_gradient: bool,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.module = module
        self.image = image.requires_grad_(input_gradient)
        self.grad = grad
        self.dtype = dtype
        self.leaves = [*([image] if input_gradient else []), *module.parameters()]

    def __call__(self) -> tuple[Tensor, tuple[Tensor, ...]]:
        with autocast(self.image.device.type, self.dtype):
            output = self.module(self.image)
        return output, torch.autograd.grad(output, self.leaves, self.grad.to(output.dtype))

    def results(self) -> list[Tensor]:
        """Output, gradient of the input and gradients of the parameters in the order of the cell loop."""
        output, grads = self()
        names = [name for name, _ in self.module.named_parameters()]
        by_name = split(dict(zip(names, grads[len(grads) - len(names) :], strict=True)), 0)
        ordered = [by_name[name] for name in sorted(by_name)]
        return [output, *grads[: len(grads) - len(names)], *ordered]

    def error(self, expected: list[Tensor]) -> float:
        """Of output and gradients, the larger: they are of different scales."""
        output, *grads = self.results()
        distances = relative_distance([output], expected[:1]), relative_distance(grads, expected[1:])
        return max(distances)


class GroupedRegion(HierarchicalMultiScaleRegion):
    """The block with the cells of a stage in the channels: one batch norm, one grouped convolution."""

    def forward(self, input: Tensor) -> Tensor:
        x = self.conv(input)
        b1 = grouped_stage(x, *self.region8)
        b2 = grouped_stage(b1, *self.region4)
        b3 = grouped_stage(b2, *self.region2)
        return F.relu(batch_norm(x + torch.cat((b1, b2, b3), 1), self.bn))


def grouped_stage(input: Tensor, norm: RegionBatchNorm2d, conv: RegionConv2d) -> Tensor:
    grid = conv.weight.shape[0]
    cells = batch_norm(cells_to_channels(input, grid), norm)
    weight, bias = conv.weight.flatten(0, 2), conv.bias.flatten()
    return channels_to_cells(F.conv2d(F.relu(cells), weight, bias, padding=1, groups=grid * grid), grid)


def batch_norm(input: Tensor, norm: nn.Module) -> Tensor:
    """PyTorch's batch norm in training, the tensors of a layer flattened to the input's channels."""
    tensors = (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    return F.batch_norm(input, *(tensor.view(-1) for tensor in tensors), training=True)


def autocast(device: str, dtype: torch.dtype) -> AbstractContextManager[object]:
    """bfloat16 where wanted; float32 and float64 as they are."""
    return torch.autocast(device, dtype) if dtype == torch.bfloat16 else nullcontext()
