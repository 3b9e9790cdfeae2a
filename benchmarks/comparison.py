"""Times formulations of one computation against each other and checks that they agree."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

Function = Callable[..., Tensor | tuple[Tensor, ...]]

DTYPE = {"float32": torch.float32, "TF32": torch.float32, "bfloat16": torch.bfloat16}
"""Of tensors by precision; TF32 is float32 whose products may use TensorFloat-32."""
TOLERANCE = {"float32": 3e-5, "TF32": 2**-9, "bfloat16": 8e-3}
"""A result matches if it lies this close to the float64 one, relative to the largest value.

float32: the longest sums, gradients of filters, have 8 * 176 ** 2 terms. Rounding each partial sum at 2 **
-24 leaves about sqrt(8 * 176 ** 2) * 2 ** -24 = 3e-5. TensorFloat-32 does not pass.
TF32: both factors of a product are rounded at 2 ** -11 or cut at 2 ** -10.
bfloat16: the factors are exact in float64 and sums are kept in float32; what is left is rounding the result,
at most twice where a bias is added afterwards, at 2 ** -8 each.
"""
LAYOUTS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}
SAMPLE_SECONDS = 5e-3
"""On a CPU, a quick formulation is called again and again for about this long between two clock readings."""
CYCLES_A_SECOND = 2e9
"""About the highest clock of a GPU; a slower one waits longer for the host, which does no harm."""


@dataclass
class Formulation:
    name: str
    call: Callable[[], Any]
    """What is timed."""
    error: Callable[[], float]
    """How far its results are from those in float64."""
    tolerance: float
    add_compiled: Callable[[], None] | None = None


class Comparison:
    """Formulations of one computation at one size, timed in one interleaved run.

    Each round times every formulation once, starting one further down the list each time. A machine that
    slows down for a while thus slows all of them, and ratios of the medians hold. pytest-benchmark runs
    benchmarks one after another, so its own statistics come from the first formulation running alone
    afterwards and nothing is compared with them. The interleaved run is in ``extra_info``.

    On a GPU each call is timed by events (`DeviceClock`), both with its kernels queued beforehand and with
    launching them as part of the time.

    Args:
        backward: time the forward and the backward pass, with the gradients of all tensors that require one.
        precision: see `DTYPE`.
        rounds: how often each formulation is timed.
        smoke: do only what shows that all results match.
        compiled: whether ``torch.compile`` takes part.
    """

    def __init__(
        self,
        benchmark: BenchmarkFixture,
        *,
        device: str,
        backward: bool,
        precision: str,
        rounds: int,
        smoke: bool,
        compiled: bool = True,
    ) -> None:
        self.benchmark = benchmark
        self.device = device
        self.backward = backward
        self.precision = precision
        self.rounds = rounds
        self.smoke = smoke
        self.compiled = compiled
        self.formulations: list[Formulation] = []
        self.grads: dict[Function, list[Tensor]] = {}
        self.exact_results: dict[Function, list[Tensor]] = {}

    def add(
        self,
        name: str,
        function: Function,
        tensors: Sequence[Tensor],
        *,
        exact: Function,
        tolerance: float | None = None,
    ) -> None:
        """Add a formulation as a function of tensors; the first one added is the project's.

        Args:
            name: what it is, in parentheses what distinguishes it from others of the same kind.
            exact: the function whose results in float64 are the expected ones; formulations that share it
                have tensors of the same values.
            tolerance: None for that of the precision, `TOLERANCE`.
        """
        if tolerance is None:
            tolerance = TOLERANCE[self.precision]
        outputs = flatten(function(*tensors)) if self.backward else []
        if exact not in self.grads:
            generator = torch.Generator(self.device).manual_seed(1)
            draw = partial(torch.randn, generator=generator, device=self.device)
            self.grads[exact] = [draw(output.shape) for output in outputs]
        grads = [torch.empty_like(o).copy_(g) for o, g in zip(outputs, self.grads[exact], strict=True)]
        call = bind(function, tensors, grads)

        def error() -> float:
            if exact not in self.exact_results:
                exact_tensors = [
                    t.detach().double().requires_grad_(t.requires_grad) if t.is_floating_point() else t
                    for t in tensors
                ]
                results = bind(exact, exact_tensors, [g.double() for g in grads])()
                self.exact_results[exact] = [result.detach() for result in flatten(results)]
            return max_relative_error(flatten(call()), self.exact_results[exact])

        def add_compiled() -> None:
            compiled = self.compile(function)
            what = name.replace(" (", ", ").rstrip(")")
            self.add(f"torch.compile ({what})", compiled, tensors, exact=exact, tolerance=tolerance)

        self.formulations.append(Formulation(name, call, error, tolerance, add_compiled))

    def add_call(
        self, name: str, call: Callable[[], Any], *, error: Callable[[], float], tolerance: float
    ) -> None:
        """Add a formulation as a call without arguments, with the error that it may have."""
        self.formulations.append(Formulation(name, call, error, tolerance))

    def add_compiled(self, kinds: Sequence[str]) -> None:
        """Add ``torch.compile`` of the quickest formulation of the named kinds, each added by `add`."""
        if not self.compiled:
            return
        peers = [f for f in self.formulations if kind(f.name) in kinds]
        best = min(peers, key=lambda f: min(self.timer(f)() for _ in range(3)))
        assert best.add_compiled is not None
        best.add_compiled()

    def compile(self, function: Function) -> Function:
        """``torch.compile`` for fixed sizes; in a smoke run no code is generated from the traced graph."""
        torch._dynamo.reset()
        backend = "aot_eager" if self.smoke else "inductor"
        compiled: Function = torch.compile(function, dynamic=False, fullgraph=True, backend=backend)
        return compiled

    def run(self, op: str, case: str, *, launching: bool = False, **facts: Any) -> None:
        """Compare all results with float64, time all formulations, write both to ``extra_info``.

        Args:
            launching: whether on a GPU launching kernels is part of ``median_ms``, as for whole networks.
                Otherwise it is part of ``launched_ms`` alone.
            facts: of the case; with ``operations`` (multiplications and additions, each counted) and
                ``bytes`` (read and written at least) the report tells how near to the machine's limit the
                first one is.
        """
        errors = [f.error() for f in self.formulations]
        self.exact_results.clear()
        samples = self.samples(launching)
        entries = [
            {
                "name": formulation.name,
                "median_ms": significant(statistics.median(times) * 1e3),
                "quartiles_ms": [significant(q * 1e3) for q in quartiles(times)],
                "relative_error": significant(error),
                "matched": error <= formulation.tolerance,
            }
            for formulation, times, error in zip(self.formulations, samples, errors, strict=True)
        ]
        if self.device == "cuda" and not launching:
            for entry, times in zip(entries, self.samples(launching=True), strict=True):
                entry["launched_ms"] = significant(statistics.median(times) * 1e3)
        facts = {
            "direction": "forward+backward" if self.backward else "forward",
            "dtype": self.precision,
            **facts,
        }
        self.benchmark.extra_info.update(op=op, case=case, device=self.device, rounds=self.rounds, **facts)
        self.benchmark.extra_info["formulations"] = entries

        def first() -> None:
            self.formulations[0].call()
            self.synchronize()

        self.benchmark.pedantic(first, rounds=min(self.rounds, 3))
        # What cuDNN sums in half precision is its own affair: the report names who missed.
        ours = [e for e in entries if self.device == "cpu" or kind(e["name"]).startswith("jaa_ext")]
        missed = {e["name"]: e["relative_error"] for e in ours if not e["matched"]}
        assert not missed, f"{op}, {case}: results do not match float64, relative errors {missed}"

    def samples(self, launching: bool = False) -> list[list[float]]:
        """Seconds of a call of each formulation, round by round."""
        timers = [self.timer(f, launching) for f in self.formulations]
        samples: list[list[float]] = [[] for _ in timers]
        for turn in range(self.rounds):
            for i in range(len(samples)):
                k = (turn + i) % len(samples)
                samples[k].append(timers[k]())
        return samples

    def timer(self, formulation: Formulation, launching: bool = False) -> Callable[[], float]:
        """A function that times the formulation once and gives seconds a call."""
        if self.device == "cuda":
            call = formulation.call
            return partial(self.clock.seconds, call, 0.0 if launching else self.clock.head_start(call))
        calls = max(1, round((0 if self.smoke else SAMPLE_SECONDS) / seconds_a_call(formulation.call, 1)))
        return partial(seconds_a_call, formulation.call, calls)

    @cached_property
    def clock(self) -> DeviceClock:
        return DeviceClock()

    def synchronize(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


class DeviceClock:
    """Times single calls on the GPU by events, the last-level cache emptied before each.

    The cache is emptied by reading other memory: had that been written, the timed call would wait for the
    cache to write it back.
    """

    def __init__(self) -> None:
        cache = torch.cuda.get_device_properties(torch.cuda.current_device()).L2_cache_size
        self.other = torch.ones(cache, device="cuda")  # four times as large, in bytes
        self.start, self.end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def seconds(self, call: Callable[[], Any], head_start: float) -> float:
        """Seconds between the events before and after a call.

        Args:
            head_start: seconds that the device is kept waiting before the first event, so that the kernels
                are queued when it comes: the time is then the device's alone. With 0 the device is idle when
                the call begins, and launching is part of the time.
        """
        self.other.sum()
        torch.cuda.synchronize()
        if head_start:
            torch.cuda._sleep(round(head_start * CYCLES_A_SECOND))
        self.start.record()
        call()
        self.end.record()
        torch.cuda.synchronize()
        milliseconds: float = self.start.elapsed_time(self.end)
        return milliseconds / 1e3

    def head_start(self, call: Callable[[], Any]) -> float:
        """Time for the host to queue the call's kernels, with a margin.

        Where a call waits for the device, or for room in the queue (about a thousand kernels), the host is
        not ahead for what follows: launching remains part of the time.
        """

        def queueing() -> float:
            torch.cuda.synchronize()
            start = time.perf_counter()
            call()
            return time.perf_counter() - start

        queueing()  # the first one compiles and chooses algorithms
        return 2 * queueing() + 50e-6


def seconds_a_call(call: Callable[[], Any], calls: int) -> float:
    """On the CPU, the mean of several calls."""
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls


def bind(function: Function, tensors: Sequence[Tensor], grads: Sequence[Tensor]) -> Callable[[], Any]:
    """A call that returns the outputs and, with gradients of the outputs given, those of the tensors."""
    if not grads:
        return partial(function, *tensors)
    leaves = [t for t in tensors if t.requires_grad]

    def forward_backward() -> Any:
        outputs = function(*tensors)
        return outputs, torch.autograd.grad(outputs, leaves, grads)

    return forward_backward


def max_relative_error(results: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Largest deviation over all results, relative to the largest value of each result."""
    errors = [
        (result.double() - e).abs().max() / e.abs().max() for result, e in zip(results, expected, strict=True)
    ]
    return torch.stack(errors).max().item()


def relative_distance(results: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Euclidean distance of all results together, relative to the length of what is expected.

    For networks: a rounding in front of a ReLU or a max-pooling switches a path for whole gradients, so that
    single elements are off by percents in any formulation, and biases in front of a batch norm have the
    gradient 0.
    """
    pairs = list(zip(results, expected, strict=True))
    distance = sum((result.detach().double() - e).square().sum().item() for result, e in pairs)
    return (distance / sum(e.square().sum().item() for _, e in pairs)) ** 0.5


def flatten(results: Any) -> list[Tensor]:
    """All tensors in nested tuples."""
    return [results] if isinstance(results, Tensor) else [t for part in results for t in flatten(part)]


def kind(name: str) -> str:
    """The name of a formulation without its parenthesis, such as the layout."""
    return name.partition(" (")[0]


def quartiles(samples: Sequence[float]) -> tuple[float, float]:
    low, _, high = statistics.quantiles(samples, n=4, method="inclusive")
    return low, high


def significant(value: float) -> float:
    """Four digits: more is noise."""
    return float(f"{value:.4g}")
