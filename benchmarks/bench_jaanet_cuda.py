"""JAA-Net on a GPU in bfloat16, training steps and inference: against its authors' program, plain PyTorch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from bench_jaanet import Batch, Step, exact_results, networks, operations_a_face, prepared
from bench_jaanet import Case as Network
from comparison import DTYPE, Comparison, Function, relative_distance
from plain_pytorch import NoKernels, plain_pytorch
from torch import Tensor, nn

ROUNDS = 7


@dataclass(frozen=True)
class Case:
    mode: str
    """"inference" or "training"."""
    network: Network

    def __str__(self) -> str:
        return f"{self.mode}, {self.network}"


CASES = {
    "cuda": [
        Case("training", Network(batch=16)),
        Case("training", Network(batch=64)),
        Case("inference", Network(batch=1)),
        Case("inference", Network(batch=256)),
    ]
}
SMOKE_CASE = Case("training", Network(image_size=64, width=2, aus=(1, 12), batch=3))

# Relative to the length of what the plain network gives in float32 (gradients: of all together), itself off
# by the float32 figure. As in `bench_jaanet`, bfloat16 only tells right from wrong.
TOLERANCE = {
    "inference": {"float32": 1e-4, "bfloat16": 5e-2},
    "training": {"float32": 1e-2, "bfloat16": 0.7},
}


def test_jaanet_cuda(case: Case, device: str, comparison: Comparison) -> None:
    mode, network = case.mode, case.network
    model, authors = networks(network.network)
    ours = prepared(model, mode)
    plain = copy.deepcopy(model).to(memory_format=torch.channels_last)
    expected: list[Tensor] = []

    def add(
        name: str,
        network_: nn.Module,
        precision: str,
        layout: torch.memory_format = torch.channels_last,
        *,
        compile: Callable[[Function], Function] = lambda function: function,
        captured: bool = False,
    ) -> None:
        batch = Batch.draw(network).to(device, layout)
        step = Step(copy.deepcopy(network_).to(device), batch, mode, DTYPE[precision], compile)
        call = Captured(step) if captured else step

        def error() -> float:
            return distance(step.named(call()), expected, mode)

        comparison.add_call(name, call, error=error, tolerance=TOLERANCE[mode][precision])

    with plain_pytorch():
        batch = Batch.draw(network).to(device, torch.channels_last)
        expected += Step(copy.deepcopy(plain).to(device), batch, mode, torch.float32).results()
    graphs = [False, True] if device == "cuda" else [False]
    for captured in graphs:
        add("jaa_ext, CUDA graph" if captured else "jaa_ext", ours, "bfloat16", captured=captured)
    for precision in ("float32", "bfloat16"):
        add(f"authors' arrangement, {precision}", authors, precision, torch.contiguous_format)
    if mode == "training" and comparison.compiled:
        for captured in graphs:
            name = "torch.compile, CUDA graph" if captured else "torch.compile"
            compile = partial(compiled_plain, comparison)
            add(f"{name} (plain PyTorch)", plain, "bfloat16", compile=compile, captured=captured)
    comparison.run(
        "JAA-Net",
        str(network),
        direction="training step" if mode == "training" else "inference",
        dtype="bfloat16",
        operations=operations_a_face(network.network, mode) * network.batch,
        bytes=0,
        launching=True,
    )


@pytest.mark.parametrize("mode", ["inference", "training"])
def test_plain_pytorch_agrees(mode: str) -> None:
    """In float64 with the authors' arrangement; and it is plain."""
    network = SMOKE_CASE.network.network
    model = copy.deepcopy(networks(network)[0]).double()
    step = Step(model, Batch.draw(network, 2), mode, torch.float64)
    with plain_pytorch(), NoKernels():
        assert step.error(exact_results(network, mode)) < 1e-10
    with NoKernels(), pytest.raises(RuntimeError, match="is no plain PyTorch"):
        step()


def compiled_plain(comparison: Comparison, function: Function) -> Function:
    """The function compiled with plain PyTorch in place of the ops: once, when it is called first."""
    compiled = comparison.compile(function)

    def call(*tensors: Tensor) -> Any:
        with plain_pytorch():  # at each call: what the package's names stand for is part of what was compiled
            return compiled(*tensors)

    return call


def distance(results: list[Tensor], expected: list[Tensor], mode: str) -> float:
    """Of all gradients together; of logits, landmarks and maps, the largest."""
    if mode == "training":
        return relative_distance(results, [e.double() for e in expected])
    pairs = zip(results, expected, strict=True)
    return max(relative_distance([result], [e.double()]) for result, e in pairs)


class Captured:
    """A call without arguments in a CUDA graph: captured once, then replayed into the same results."""

    def __init__(self, call: Callable[[], tuple[Tensor, ...]]) -> None:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):  # compiles, chooses algorithms, creates handles
                call()
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.results = call()

    def __call__(self) -> tuple[Tensor, ...]:
        self.graph.replay()
        return self.results
