"""The training step as a CUDA graph: recorded once, then launched whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")

WARM_UP = 3
"""Batches that run kernel by kernel before the step is recorded: libraries then choose their algorithms and
allocate what they keep, and the optimizer makes its momentum, none of which can be recorded."""


class GraphedStep(Generic[Result]):
    """A step of training, recorded when `WARM_UP` full batches have gone through it, replayed from then on.

    Every batch trains the model once, as `step` would: recording runs no kernel, and the batches before it
    are ordinary iterations. So are those that are not full.

    Args:
        step: of tensors on the GPU. It does the same whatever their values, changes the model and the
            optimizer in place, reads nothing back to the host, and returns tensors without history: those
            of a replay hold until the next one.
        batch_size: length of a full batch.
        device: the GPU.
    """

    def __init__(self, step: Callable[..., Result], batch_size: int, device: torch.device) -> None:
        self.step, self.batch_size, self.device = step, batch_size, device
        # One for warming up and recording: autograd adds a gradient on the stream that its parameter was
        # first used on, and what is recorded must not wait for another one.
        self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self.warm_up = WARM_UP
        self.graph: torch.cuda.CUDAGraph | None = None
        self.inputs: tuple[Tensor, ...] = ()
        self.result: Result

    def __call__(self, *inputs: Tensor) -> Result:
        if len(inputs[0]) < self.batch_size:
            return self.step(*inputs)
        if self.warm_up > 0:
            self.warm_up -= 1
            return self._beside(inputs)
        if self.graph is None:
            self._record(inputs)
        assert self.graph is not None
        for static, given in zip(self.inputs, inputs, strict=True):
            static.copy_(given)
        self.graph.replay()
        return self.result

    def _beside(self, inputs: tuple[Tensor, ...]) -> Result:
        """Run the step on the stream that will be recorded."""
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            result = self.step(*inputs)
        current.wait_stream(self.stream)
        return result

    def _record(self, inputs: tuple[Tensor, ...]) -> None:
        self.inputs = tuple(given.clone() for given in inputs)
        self.graph = torch.cuda.CUDAGraph()
        # Other threads may go on: the data loader's pins memory.
        with torch.cuda.graph(self.graph, stream=self.stream, capture_error_mode="thread_local"):
            self.result = self.step(*self.inputs)


def require_recordable(device: torch.device, world_size: int) -> None:
    """Refuse to record where that cannot be done.

    Raises:
        ValueError: several processes, or a device that is no GPU.
    """
    if world_size > 1:
        what = "whose exchange of gradients it does not record"
        raise ValueError(f"trainer.cuda_graph=true needs a single process, got {world_size}, {what}")
    require_cuda(device)


def require_cuda(device: torch.device) -> None:
    """Refuse to record on anything but a GPU.

    Raises:
        ValueError: another device.
    """
    if device.type != "cuda":
        raise ValueError(f"trainer.cuda_graph=true needs a CUDA device, got {device.type}")
