"""Times formulations of one computation against each other and checks that they agree."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

Function = Callable[..., Tensor | tuple[Tensor, ...]]

TOLERANCE = 3e-5
"""A float32 result matches if it lies this close to the float64 one, relative to the largest value.

The longest sums, gradients of filters, have 8 * 176 ** 2 terms. Rounding each partial sum at 2 ** -24 leaves
about sqrt(8 * 176 ** 2) * 2 ** -24 = 3e-5. TensorFloat-32, at 2 ** -11, does not pass.
"""
SAMPLE_SECONDS = 5e-3
"""A quick formulation is called repeatedly for about this long between two readings of the clock."""


@dataclass
class Formulation:
    name: str
    function: Function
    tensors: Sequence[Tensor]
    exact: Function
    """The formulation whose results in float64 are the expected ones."""
    grads: list[Tensor]
    """Gradients of the outputs; none in the forward direction."""

    def __post_init__(self) -> None:
        self.call = bind(self.function, self.tensors, self.grads)


class Comparison:
    """Formulations of one op at one size, timed in one interleaved run.

    Each round times every formulation once, starting one further down the list each time. A machine that
    slows down for a while thus slows all of them, and ratios of the medians hold. pytest-benchmark runs
    benchmarks one after another, so its own statistics come from the compiled op running alone afterwards and
    nothing is compared with them. The interleaved run is in ``extra_info``.

    On a GPU the clock is read after the device has finished, so launching kernels is part of the time.

    Args:
        backward: time the forward and the backward pass, with the gradients of all tensors that require one.
        rounds: how often each formulation is timed.
        sample_seconds: see `SAMPLE_SECONDS`.
    """

    def __init__(
        self, benchmark: BenchmarkFixture, *, device: str, backward: bool, rounds: int, sample_seconds: float
    ) -> None:
        self.benchmark = benchmark
        self.device = device
        self.backward = backward
        self.rounds = rounds
        self.sample_seconds = sample_seconds
        self.formulations: list[Formulation] = []

    def add(self, name: str, function: Function, tensors: Sequence[Tensor], *, exact: Function) -> None:
        """Add a formulation; the first one added is the compiled op."""
        outputs = flatten(function(*tensors)) if self.backward else []
        generator = torch.Generator().manual_seed(1)
        grads = [torch.empty_like(o).copy_(torch.randn(o.shape, generator=generator)) for o in outputs]
        self.formulations.append(Formulation(name, function, tensors, exact, grads))

    def add_compiled(self, names: Sequence[str]) -> None:
        """Add ``torch.compile`` of the quickest of the named formulations."""
        peers = [f for f in self.formulations if f.name in names]
        best = min(peers, key=lambda f: min(self.seconds(f, 1) for _ in range(3)))
        torch._dynamo.reset()
        compiled = torch.compile(best.function, dynamic=False, fullgraph=True)
        self.add(f"torch.compile ({best.name})", compiled, best.tensors, exact=best.exact)

    def run(self, op: str, case: str, **facts: float) -> None:
        """Compare all results with float64, time all formulations, write both to ``extra_info``."""
        errors = [self.max_relative_error(f) for f in self.formulations]
        calls = [max(1, round(self.sample_seconds / self.seconds(f, 1))) for f in self.formulations]
        samples: list[list[float]] = [[] for _ in self.formulations]
        for turn in range(self.rounds):
            for i in range(len(samples)):
                k = (turn + i) % len(samples)
                samples[k].append(self.seconds(self.formulations[k], calls[k]))

        entries = [
            {
                "name": formulation.name,
                "median_ms": significant(statistics.median(times) * 1e3),
                "quartiles_ms": [significant(q * 1e3) for q in quartiles(times)],
                "calls_per_sample": n,
                "max_relative_error": significant(error),
                "matched": error <= TOLERANCE,
            }
            for formulation, times, n, error in zip(self.formulations, samples, calls, errors, strict=True)
        ]
        direction = "forward+backward" if self.backward else "forward"
        self.benchmark.extra_info.update(
            op=op, case=case, device=self.device, direction=direction, rounds=self.rounds, **facts
        )
        self.benchmark.extra_info["formulations"] = entries

        def ours() -> None:
            self.formulations[0].call()
            self.synchronize()

        self.benchmark.pedantic(ours, rounds=self.rounds, iterations=calls[0], warmup_rounds=1)
        missed = {e["name"]: e["max_relative_error"] for e in entries if not e["matched"]}
        assert not missed, f"{op}, {case}: results do not match float64, relative errors {missed}"

    def max_relative_error(self, formulation: Formulation) -> float:
        """Largest deviation from float64 over all results, relative to the largest value of each result."""
        exact_tensors = [
            t.detach().double().requires_grad_(t.requires_grad) if t.is_floating_point() else t
            for t in formulation.tensors
        ]
        expected = bind(formulation.exact, exact_tensors, [g.double() for g in formulation.grads])
        errors = [
            (a.double() - e).abs().max() / e.abs().max()
            for a, e in zip(flatten(formulation.call()), flatten(expected()), strict=True)
        ]
        return torch.stack(errors).max().item()

    def seconds(self, formulation: Formulation, calls: int) -> float:
        """Seconds a call."""
        self.synchronize()
        start = time.perf_counter()
        for _ in range(calls):
            formulation.call()
        self.synchronize()
        return (time.perf_counter() - start) / calls

    def synchronize(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


def bind(function: Function, tensors: Sequence[Tensor], grads: Sequence[Tensor]) -> Callable[[], Any]:
    """A call that returns the outputs and, with gradients of the outputs given, those of the tensors."""
    if not grads:
        return partial(function, *tensors)
    leaves = [t for t in tensors if t.requires_grad]

    def forward_backward() -> Any:
        outputs = function(*tensors)
        return outputs, torch.autograd.grad(outputs, leaves, grads)

    return forward_backward


def flatten(results: Any) -> list[Tensor]:
    """All tensors in nested tuples."""
    return [results] if isinstance(results, Tensor) else [t for part in results for t in flatten(part)]


def quartiles(samples: Sequence[float]) -> tuple[float, float]:
    low, _, high = statistics.quantiles(samples, n=4, method="inclusive")
    return low, high


def significant(value: float) -> float:
    """Four digits: more is noise."""
    return float(f"{value:.4g}")
