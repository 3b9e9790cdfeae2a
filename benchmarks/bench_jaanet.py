"""JAA-Net as a whole, inference and training steps, against the arrangement of its authors' program."""

from __future__ import annotations

import copy
import ctypes
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache, partial
from typing import NamedTuple

import pytest
import torch
from authors_arrangement import AuthorsArrangement, copy_weights, split
from bench_region_block import autocast
from comparison import Comparison, max_relative_error, relative_distance
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from jaa_ext import facs
from jaa_ext.data import Crops, SyntheticFaces, aligned_size, normalize
from jaa_ext.engine.criterion import JointLoss
from jaa_ext.engine.recipe import Loss
from jaa_ext.engine.runtime import keep_freed_memory
from jaa_ext.models import JAANet, JAANetConfig

ROUNDS = 7
CHECKED_FACES = 2
"""float64 is slow: results are compared for so many faces of the batch."""


@dataclass(frozen=True)
class Case:
    memory: str
    """What the C library does with freed memory: "default", or "kept" for the next tensor."""
    image_size: int = 176
    width: int = 8
    aus: tuple[int, ...] = facs.BP4D_AUS
    batch: int = 8

    def __str__(self) -> str:
        return (
            f"batch {self.batch}, {self.image_size}x{self.image_size}, c={self.width}, memory {self.memory}"
        )


CASES = [Case("default"), Case("kept")]
SMOKE_CASE = Case("kept", image_size=64, width=2, aus=(1, 12), batch=3)

# Inference in bfloat16: some 15 layers that round to 2 ** -8 each, as a random walk. Gradients: rounding
# switches ReLUs and max-poolings (`relative_distance`), for the authors' arrangement as for jaa_ext; 1 would
# be no gradient at all. That both compute the same, `test_arrangements_agree` shows.
TOLERANCE = {
    "inference": {torch.float32: 3e-5, torch.bfloat16: 2e-2},
    "training": {torch.float32: 1e-2, torch.bfloat16: 0.7},
}


def test_jaanet(case: Case, dtype: torch.dtype, backward: bool, device: str, comparison: Comparison) -> None:
    if device != "cpu" and case.memory == "kept":
        pytest.skip("the setting is of the CPU's memory")
    mode = "training" if backward else "inference"
    model, authors = networks(case)
    networks_and_types = [("jaa_ext", prepared(model, mode), dtype, torch.channels_last)]
    for t in dict.fromkeys((torch.float32, dtype)):
        name = f"authors' arrangement, {type_name(t)}"
        networks_and_types.append((name, authors, t, torch.contiguous_format))
    with freed_memory_kept() if case.memory == "kept" else nullcontext():
        for name, network, t, layout in networks_and_types:
            network = copy.deepcopy(network).to(device)
            step = Step(network, Batch.draw(case).to(device, layout), mode, t)
            checked = Step(network, Batch.draw(case, CHECKED_FACES).to(device, layout), mode, t)
            error = partial(checked.error, exact_results(case, mode))
            comparison.add_call(name, step, error=error, tolerance=TOLERANCE[mode][t])
        comparison.run(
            "JAA-Net",
            str(case),
            direction="training step" if backward else "inference",
            dtype=type_name(dtype),
            operations=operations(case, mode),
            bytes=0,
        )


@pytest.mark.parametrize("mode", ["inference", "training"])
def test_arrangements_agree(mode: str) -> None:
    """In float64, where no rounding switches a path, all outputs and gradients are the same."""
    model, _ = networks(SMOKE_CASE)
    batch = Batch.draw(SMOKE_CASE, CHECKED_FACES).to("cpu", torch.channels_last)
    model = copy.deepcopy(model).double()
    step = Step(prepared(model, mode), batch, mode, torch.float64)
    assert step.error(exact_results(SMOKE_CASE, mode)) < 1e-10


class Batch(NamedTuple):
    images: Tensor
    labels: Tensor
    landmarks: Tensor

    @classmethod
    def draw(cls, case: Case, faces: int | None = None) -> Batch:
        """The batch of a case, or its first faces."""
        faces = case.batch if faces is None else faces
        people = SyntheticFaces(
            subjects=range(faces),
            samples_per_subject=1,
            size=aligned_size(case.image_size),
            aus=case.aus,
        )
        crops = Crops(people, case.image_size, train=False)
        samples = [crops[0, i] for i in range(faces)]
        images, labels, landmarks = (
            torch.stack([sample[key] for sample in samples]) for key in ("image", "labels", "landmarks")
        )
        return cls(normalize(images), labels, landmarks)

    def to(self, device: str, layout: torch.memory_format) -> Batch:
        images = self.images.to(device, memory_format=layout)
        return Batch(images, self.labels.to(device), self.landmarks.to(device))


class Step:
    """One inference or training step of a network: under autocast for bfloat16, in float64 if so asked."""

    def __init__(self, network: nn.Module, batch: Batch, mode: str, dtype: torch.dtype) -> None:
        self.network = network
        self.training = mode == "training"
        self.dtype = dtype
        self.images, self.labels, self.landmarks = batch
        if dtype == torch.float64:
            self.images, self.landmarks = self.images.double(), self.landmarks.double()
        self.parameters = dict(network.named_parameters())
        self.criterion = JointLoss(Loss(align=0.5, attention=2e-4, attention_reduction="mean"))

    def __call__(self) -> tuple[Tensor, ...]:
        """In inference logits, landmarks and refined maps; in training the gradients of all parameters."""
        self.network.train(self.training)
        with torch.set_grad_enabled(self.training), autocast(self.images.device.type, self.dtype):
            output = self.network(self.images)
        if not self.training:
            return output.logits, output.landmarks, output.refined_maps
        loss = self.criterion(output, self.labels, self.landmarks)["total"]
        return torch.autograd.grad(loss, list(self.parameters.values()))

    def results(self) -> list[Tensor]:
        """On the CPU, gradients in an order that both arrangements have."""
        results = [result.cpu() for result in self()]
        if not self.training:
            return results
        gradients = split(dict(zip(self.parameters, results, strict=True)), len(self.network.config.aus))
        return [gradients[name] for name in sorted(gradients)]

    def error(self, expected: list[Tensor]) -> float:
        distance = relative_distance if self.training else max_relative_error
        return distance(self.results(), expected)


@cache
def networks(case: Case) -> tuple[JAANet, AuthorsArrangement]:
    """The two arrangements with the same weights, and running statistics that fit them."""
    torch.manual_seed(0)
    model = JAANet(JAANetConfig.released(case.aus, image_size=case.image_size, width=case.width))
    batch = Batch.draw(case)
    model.set_mean_shape(batch.landmarks.mean(0))
    with torch.no_grad():
        model(batch.images)
    authors = AuthorsArrangement(model.config)
    copy_weights(model, authors)
    return model, authors


def prepared(model: JAANet, mode: str) -> JAANet:
    """A copy in channels_last; for inference a fused one."""
    return model.fuse() if mode == "inference" else copy.deepcopy(model).to(memory_format=torch.channels_last)


@cache
def exact_results(case: Case, mode: str) -> list[Tensor]:
    """What the authors' arrangement gives in float64 for the checked faces."""
    _, authors = networks(case)
    batch = Batch.draw(case, CHECKED_FACES)
    return Step(copy.deepcopy(authors).double(), batch, mode, torch.float64).results()


@cache
def operations(case: Case, mode: str) -> int:
    """Multiplications and additions of a batch in convolutions and linear layers, padding included."""
    _, authors = networks(case)
    step = Step(copy.deepcopy(authors), Batch.draw(case, CHECKED_FACES), mode, torch.float32)
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops() * case.batch // CHECKED_FACES


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """`keep_freed_memory`, and back to where glibc's own adjustment arrives once a large tensor was freed."""
    keep_freed_memory()
    try:
        yield
    finally:
        library = ctypes.CDLL(None)
        if hasattr(library, "mallopt"):
            library.mallopt(-4, 65536)  # M_MMAP_MAX
            library.mallopt(-3, 32 * 2**20)  # M_MMAP_THRESHOLD
            library.mallopt(-1, 64 * 2**20)  # M_TRIM_THRESHOLD
            library.malloc_trim(0)


def type_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
