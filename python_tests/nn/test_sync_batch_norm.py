"""Batch norm over the images of several processes. Run by torchrun, this file is also what they do."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from jaa_ext.models import JAANet, JAANetConfig
from jaa_ext.nn import BatchNormReLU2d, FeatureStack, RegionBatchNorm2d
from jaa_ext.nn.sync_batch_norm import synchronize_batch_norm

SHARES = {"even": [2, 2], "uneven": [3, 1], "one has none": [0, 4]}
CASES: dict[str, Any] = {
    # 13 x 11 pixels: cells of different sizes.
    "region": lambda: RegionBatchNorm2d(3, (4, 3), momentum=0.3),
    "region, ReLU": lambda: RegionBatchNorm2d(3, 2, relu=True),
    "not affine": lambda: RegionBatchNorm2d(3, 2, affine=False),
    "whole image, ReLU": lambda: BatchNormReLU2d(3),
    "cumulative statistics": lambda: RegionBatchNorm2d(3, 2, momentum=None),
    "no statistics": lambda: BatchNormReLU2d(3, track_running_stats=False),
    "torch's own": lambda: nn.BatchNorm2d(3),
    "half": lambda: RegionBatchNorm2d(3, 2, relu=True),
}

LARGE = torch.zeros(1, 4, 512, 512)
"""Images so large that groups are faster one after the other."""


def case(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    """A layer, images and the gradient of its output."""
    generator = torch.Generator().manual_seed(3)
    layer = CASES[name]()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    dtype = torch.bfloat16 if name == "half" else torch.float64
    # A mean far from 0: sums of squares would cancel.
    images = 50 + torch.randn(4, 3, 13, 11, generator=generator, dtype=torch.float64)
    grad = torch.randn(images.shape, generator=generator, dtype=torch.float64)
    if name != "half":
        layer.double()
    return layer, images.to(dtype), grad.to(dtype)


def train(layer: nn.Module, images: Tensor, grad: Tensor) -> dict[str, Tensor]:
    """Two batches, the second with other images, so that running statistics move twice."""
    images = images.contiguous(memory_format=torch.channels_last).requires_grad_()
    layer(images.detach() * 0.5 + 7)
    output = layer(images)
    output.backward(grad)
    assert images.grad is not None
    grads = {f"grad of {name}": p.grad for name, p in layer.named_parameters()}
    state = {name: value.clone() for name, value in layer.state_dict().items()}
    made = {"output": output.detach(), "grad": images.grad, **grads, **state}
    if layer.track_running_stats:
        made["later"] = layer.eval()(images).detach()
    return made


def work(folder: Path) -> None:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    for shares, sizes in SHARES.items():
        for name in CASES:
            layer, images, grad = case(name)
            synchronize_batch_norm(layer)
            made = train(layer, images.split(sizes)[rank], grad.split(sizes)[rank])
            torch.save(made, folder / f"{name}, {shares}.{rank}.pt")

    torch.manual_seed(0)
    stack = FeatureStack(2, 3, groups=2)
    synchronize_batch_norm(stack)
    stack(torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(5 + rank)))
    assert not stack.one_by_one(LARGE)
    torch.save(stack.state_dict(), folder / f"stack.{rank}.pt")

    try:
        layer = RegionBatchNorm2d(1, 2)
        synchronize_batch_norm(layer)
        layer(torch.zeros(1 - rank, 1, 2, 2))
    except ValueError as error:
        (folder / f"error.{rank}").write_text(str(error))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes found."""
    folder = tmp_path_factory.mktemp("two")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, __file__, str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.parametrize("shares", list(SHARES))
@pytest.mark.parametrize("name", list(CASES))
def test_statistics_and_gradients_are_those_of_all_images(two: Path, name: str, shares: str) -> None:
    layer, images, grad = case(name)
    wanted = train(layer, images, grad)  # by the ordinary layer
    first, second = (torch.load(two / f"{name}, {shares}.{rank}.pt") for rank in (0, 1))
    assert list(first) == list(wanted)
    tolerance = {"rtol": 2e-2, "atol": 2e-2} if name == "half" else {"rtol": 1e-9, "atol": 1e-9}
    for key, value in wanted.items():
        if key in ("output", "grad", "later"):
            ours = torch.cat([first[key], second[key]])
        elif key.startswith("grad of "):
            ours = first[key] + second[key]
        else:
            assert torch.equal(first[key], second[key])
            ours = first[key]
        assert ours.dtype == value.dtype
        torch.testing.assert_close(ours, value, **tolerance)
    assert second["output"].is_contiguous(memory_format=torch.channels_last)


def test_a_stack_of_groups_is_synchronized_as_a_whole(two: Path) -> None:
    torch.manual_seed(0)
    stack = FeatureStack(2, 3, groups=2)
    images = [torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(5 + k)) for k in (0, 1)]
    stack(torch.cat(images))
    for rank in (0, 1):
        torch.testing.assert_close(
            torch.load(two / f"stack.{rank}.pt"), dict(stack.state_dict()), rtol=1e-4, atol=1e-6
        )


def test_a_single_value_is_no_batch(two: Path) -> None:
    wanted = (
        "region_batch_norm: a training batch must have more than 1 value per channel in each cell, "
        "got 1 images of 2 x 2 on all processes with 2 x 2 cells"
    )
    assert (two / "error.0").read_text() == (two / "error.1").read_text() == wanted


def test_in_one_process_nothing_changes() -> None:
    torch.manual_seed(0)
    model = JAANet(JAANetConfig.released((1, 12), image_size=64, width=1))
    synchronized = copy.deepcopy(model)
    synchronize_batch_norm(synchronized)
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(model(images).logits, synchronized(images).logits)
    assert list(model.state_dict()) == list(synchronized.state_dict())
    fused = synchronized.eval().fuse()
    assert torch.equal(fused(images).logits, model.eval().fuse()(images).logits)
    groups = fused.attention.local_features.stack
    assert groups.one_by_one(LARGE) and groups.one_by_one.__self__ is groups  # not the copied model's


def test_other_batch_norms_are_refused() -> None:
    wanted = (
        "synchronize_batch_norm: batch norms must be RegionBatchNorm2d, BatchNormReLU2d or nn.BatchNorm2d, "
        'got BatchNorm1d as "1"'
    )
    with pytest.raises(TypeError, match=wanted):
        synchronize_batch_norm(nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm1d(1)))


def test_twice_is_as_once_and_what_torch_synchronizes_stays() -> None:
    model = nn.Sequential(nn.BatchNorm2d(2), nn.SyncBatchNorm(2), BatchNormReLU2d(2), RegionBatchNorm2d(2, 2))
    synchronize_batch_norm(model)
    kinds = [type(layer) for layer in model]
    synchronize_batch_norm(model)
    assert [type(layer) for layer in model] == kinds and kinds[1] is nn.SyncBatchNorm


if __name__ == "__main__":
    torch.set_num_threads(1)
    work(Path(sys.argv[1]))
