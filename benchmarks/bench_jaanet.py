"""JAA-Net as a whole, inference and training steps, against the arrangement of its authors' program, and for
inference in float32 against onnxruntime."""

from __future__ import annotations

import copy
import ctypes
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from authors_arrangement import AuthorsArrangement, copy_weights, split
from bench_region_block import autocast
from comparison import DTYPE, Comparison, Function, max_relative_error, relative_distance
from machine import forced
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from jaa_ext import facs
from jaa_ext.data import Crops, SyntheticFaces, aligned_size, normalize
from jaa_ext.export import export_model
from jaa_ext.models import JAANet, JAANetConfig, JAAOutput
from jaa_ext.nn import AlignmentLoss, AttentionLoss, SoftmaxDiceLoss

ROUNDS = 7
CHECKED_FACES = 2
"""float64 is slow: results are compared for so many faces of the batch."""


@dataclass(frozen=True)
class Case:
    memory: str = ""
    """What the C library does with freed memory on a CPU: "default", or "kept" for the next tensor."""
    image_size: int = 176
    width: int = 8
    aus: tuple[int, ...] = facs.BP4D_AUS
    batch: int = 8

    def __str__(self) -> str:
        memory = f", memory {self.memory}" if self.memory else ""
        return f"batch {self.batch}, {self.image_size}x{self.image_size}, c={self.width}{memory}"

    @property
    def network(self) -> Case:
        """The same network, whatever its batch."""
        return Case(image_size=self.image_size, width=self.width, aus=self.aus)


CASES = {"cpu": [Case("default"), Case("kept"), Case("kept", batch=1)]}
SMOKE_CASE = Case("kept", image_size=64, width=2, aus=(1, 12), batch=3)

# Inference in bfloat16: some 15 layers that round to 2 ** -8 each, as a random walk. Gradients: rounding
# switches ReLUs and max-poolings (`relative_distance`), for the authors' arrangement as for jaa_ext; 1 would
# be no gradient at all. That both compute the same, `test_arrangements_agree` shows.
TOLERANCE = {
    "inference": {"float32": 3e-5, "TF32": 2e-2, "bfloat16": 2e-2},
    "training": {"float32": 1e-2, "TF32": 0.7, "bfloat16": 0.7},
}


def test_jaanet(case: Case, precision: str, backward: bool, device: str, comparison: Comparison) -> None:
    """On a GPU a smoke test alone; `bench_jaanet_cuda` is for GPUs."""
    mode = "training" if backward else "inference"
    if backward and case.batch == 1:
        pytest.skip("nobody trains with one face at a time")
    model, authors = networks(case.network)
    formulations = [("jaa_ext", prepared(model, mode), precision, torch.channels_last)]
    for p in dict.fromkeys(("float32", precision)):
        formulations.append((f"authors' arrangement, {p}", authors, p, torch.contiguous_format))
    with freed_memory_kept() if case.memory == "kept" else nullcontext():
        for name, network, p, layout in formulations:
            network = copy.deepcopy(network).to(device)
            step = Step(network, Batch.draw(case).to(device, layout), mode, DTYPE[p])
            checked = Step(network, Batch.draw(case, CHECKED_FACES).to(device, layout), mode, DTYPE[p])
            error = partial(checked.error, exact_results(case.network, mode))
            comparison.add_call(name, step, error=error, tolerance=TOLERANCE[mode][p])
        remark = {}
        if (mode, precision, device) == ("inference", "float32", "cpu"):
            try:
                peer, checked = (OnnxRuntime(case, faces) for faces in (case.batch, CHECKED_FACES))
                name, remark = OnnxRuntime.at_level()
                comparison.add_call(name, peer, error=checked.error, tolerance=TOLERANCE[mode][precision])
            except ImportError as error:
                remark = {"remark": f"Without onnxruntime: {error}."}
        comparison.run(
            "JAA-Net",
            str(case),
            direction="training step" if backward else "inference",
            operations=operations_a_face(case.network, mode) * case.batch,
            bytes=0,
            launching=True,
            **remark,
        )


@pytest.mark.parametrize("mode", ["inference", "training"])
def test_arrangements_agree(mode: str) -> None:
    """In float64, where no rounding switches a path, all outputs and gradients are the same."""
    model, _ = networks(SMOKE_CASE.network)
    batch = Batch.draw(SMOKE_CASE, CHECKED_FACES).to("cpu", torch.channels_last)
    model = copy.deepcopy(model).double()
    step = Step(prepared(model, mode), batch, mode, torch.float64)
    assert step.error(exact_results(SMOKE_CASE.network, mode)) < 1e-10


class Batch(NamedTuple):
    images: Tensor
    labels: Tensor
    landmarks: Tensor

    @classmethod
    def draw(cls, case: Case, faces: int | None = None) -> Batch:
        """The batch of a case, or its first faces."""
        faces = case.batch if faces is None else faces
        return cls(*draw_faces(faces, case.image_size, case.aus))

    def to(self, device: str, layout: torch.memory_format) -> Batch:
        images = self.images.to(device, memory_format=layout)
        return Batch(images, self.labels.to(device), self.landmarks.to(device))


@cache
def draw_faces(faces: int, image_size: int, aus: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Images, labels and landmarks."""
    people = SyntheticFaces(
        subjects=range(faces), samples_per_subject=1, size=aligned_size(image_size), aus=aus
    )
    crops = Crops(people, image_size, train=False)
    samples = [crops[i] for i in range(faces)]
    images, labels, landmarks = (
        torch.stack([sample[key] for sample in samples]) for key in ("image", "labels", "landmarks")
    )
    return normalize(images), labels, landmarks


class Step:
    """One inference or training step of a network: under autocast for bfloat16, in float64 if so asked.

    Args:
        compile: what turns the forward pass, in training with the loss, into the function that is called.
    """

    def __init__(
        self,
        network: nn.Module,
        batch: Batch,
        mode: str,
        dtype: torch.dtype,
        compile: Callable[[Function], Function] = lambda function: function,
    ) -> None:
        self.network = network
        self.training = mode == "training"
        self.dtype = dtype
        self.images, self.labels, self.landmarks = batch
        if dtype == torch.float64:
            self.images, self.landmarks = self.images.double(), self.landmarks.double()
        self.parameters = dict(network.named_parameters())
        self.forward = compile(self.forward_of_mode)

    def __call__(self) -> tuple[Tensor, ...]:
        """In inference logits, landmarks and refined maps; in training the gradients of all parameters."""
        self.network.train(self.training)
        with torch.set_grad_enabled(self.training):
            results = self.forward(self.images, self.labels, self.landmarks)
        return torch.autograd.grad(results, list(self.parameters.values())) if self.training else results

    def forward_of_mode(self, images: Tensor, labels: Tensor, landmarks: Tensor) -> Any:
        with autocast(images.device.type, self.dtype):
            output = self.network(images)
        if self.training:
            return joint_loss(output, labels, landmarks)
        return output.logits, output.landmarks, output.refined_maps

    def results(self) -> list[Tensor]:
        """On the CPU, gradients in an order that both arrangements have."""
        return self.named(self())

    def named(self, results: tuple[Tensor, ...]) -> list[Tensor]:
        """`results`, from what a call gave."""
        on_cpu = [result.cpu() for result in results]
        if not self.training:
            return on_cpu
        gradients = split(dict(zip(self.parameters, on_cpu, strict=True)), len(self.network.config.aus))
        return [gradients[name] for name in sorted(gradients)]

    def error(self, expected: list[Tensor]) -> float:
        distance = relative_distance if self.training else max_relative_error
        return distance(self.results(), expected)


class OnnxRuntime:
    """Inference in onnxruntime by the file that `jaa export` makes, with as many threads as torch has.

    Raises:
        ImportError: a package of the extra ``export`` is not installed.
    """

    def __init__(self, case: Case, faces: int) -> None:
        exported = onnx_file(case.network)  # tells which package is missing
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        # Or its threads would still be waiting, busily, while the next formulation is timed.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self.session = onnxruntime.InferenceSession(exported, options, providers=["CPUExecutionProvider"])
        images = Batch.draw(case, faces).images
        pictures = ((images.double() + 1) * 127.5).round().to(torch.uint8)  # as before `normalize`
        self.inputs = {"image": pictures.permute(0, 2, 3, 1).contiguous().numpy()}
        self.network = case.network

    def __call__(self) -> list[Any]:
        """Probabilities, landmarks and refined maps."""
        return self.session.run(["probabilities", "landmarks", "refined_maps"], self.inputs)

    def error(self) -> float:
        logits, landmarks, maps = exact_results(self.network, "inference")
        expected = [logits.softmax(1)[:, 1], landmarks, maps]
        return max_relative_error([torch.from_numpy(result) for result in self()], expected)

    @staticmethod
    def at_level() -> tuple[str, dict[str, str]]:
        """Its name, and a remark where jaa_ext is held to less than the processor has: it cannot be."""
        if not forced():
            return "onnxruntime", {}
        best = "AVX-512" if torch.cpu._is_avx512_supported() else "AVX2"
        said = f"onnxruntime chooses its kernels by the processor alone, and ran with {best} all the same."
        return f"onnxruntime ({best})", {"remark": said}


@cache
def onnx_file(case: Case) -> bytes:
    """What `jaa export` writes, once for all batches."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        export_model(networks(case)[0], path)
        return path.read_bytes()


def joint_loss(output: JAAOutput, labels: Tensor, landmarks: Tensor) -> Tensor:
    """With the factors of the recipe `released`."""
    softmax, dice = SoftmaxDiceLoss()(output.logits, labels)
    alignment = AlignmentLoss()(output.landmarks, landmarks)
    attention = AttentionLoss(reduction="mean")(output.refined_maps, output.target_maps)
    return softmax + dice + 0.5 * alignment + 2e-4 * attention


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
def operations_a_face(case: Case, mode: str) -> int:
    """Multiplications and additions in convolutions and linear layers, padding included."""
    _, authors = networks(case)
    step = Step(copy.deepcopy(authors), Batch.draw(case, CHECKED_FACES), mode, torch.float32)
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops() // CHECKED_FACES


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """`keep_freed_memory`, and back to where glibc's own adjustment arrives once a large tensor was freed."""
    from jaa_ext.memory import keep_freed_memory

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
