"""The ops of JAA-Net in plain PyTorch as `torch.compile` likes them: the cells of a grid in the channels.

`jaa_ext.ops.reference` loops over cells; the compiler takes minutes to unroll them for a whole network.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch.nn.functional as F
from bench_region_conv2d import cells_to_channels, channels_to_cells, grouped_convolution
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from jaa_ext import ops
from jaa_ext.ops import reference


@contextmanager
def plain_pytorch() -> Iterator[None]:
    """Within, what the package calls as `jaa_ext.ops` is plain PyTorch: these functions or the references."""
    own = {"region_conv2d": region_conv2d, "region_batch_norm": region_batch_norm}
    plain: dict[Any, Callable[..., Any]] = {
        getattr(ops, name): own.get(name, getattr(reference, name))
        for name in reference.__all__
        if not isinstance(getattr(ops, name), type)
    }
    modules = [module for name, module in sys.modules.items() if name.startswith("jaa_ext.")]
    swapped = [
        (module, name, value)
        for module in modules
        if module not in (ops, reference)
        for name, value in vars(module).items()
        if callable(value) and not isinstance(value, type) and value in plain
    ]
    for module, name, op in swapped:
        setattr(module, name, plain[op])
    try:
        yield
    finally:
        for module, name, op in swapped:
            setattr(module, name, op)


class NoKernels(TorchDispatchMode):
    """Refuses the ops of jaa_ext."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "jaa_ext":
            raise RuntimeError(f"{func} is no plain PyTorch")
        return func(*args, **(kwargs or {}))


def region_conv2d(input: Tensor, weight: Tensor, bias: Tensor, *, border: str = "cell") -> Tensor:
    """As `jaa_ext.ops.region_conv2d` for square grids that divide the image."""
    assert border == "cell"
    return grouped_convolution(input, weight, bias)


def region_batch_norm(
    input: Tensor,
    *,
    grid: tuple[int, int],
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor,
    bias: Tensor,
    training: bool,
    momentum: float = 0.1,
    eps: float = 1e-5,
    relu: bool = False,
) -> Tensor:
    """As `jaa_ext.ops.region_batch_norm` for square grids that divide the image."""
    cells = cells_to_channels(input, grid[0]) if grid != (1, 1) else input
    tensors = (tensor.view(-1) for tensor in (running_mean, running_var, weight, bias))
    output = F.batch_norm(cells, *tensors, training, momentum, eps)
    output = output.relu() if relu else output
    return channels_to_cells(output, grid[0]) if grid != (1, 1) else output
