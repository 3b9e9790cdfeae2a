from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from jaa_ext.models import JAANet, JAANetConfig, JAAOutput
from jaa_ext.nn import RegionBatchNorm2d
from jaa_ext.nn.region import BatchNormReLU2d
from jaa_ext.training.precision import BatchedWeightCast


def step(model: JAANet, forward: nn.Module, **autocast: Any) -> tuple[list[Tensor], dict[str, Tensor | None]]:
    """Outputs, and gradients by name."""
    image = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.autocast(image.device.type, dtype=torch.bfloat16, **autocast):
        output: JAAOutput = forward(image.to(memory_format=torch.channels_last))
    tensors = [x for x in vars(output).values() if x is not None]
    sum(x.float().square().mean() for x in tensors if x.requires_grad).backward()
    return tensors, {name: p.grad for name, p in model.named_parameters()}


FIXED = ("region_learning", "global_features", "attention")


@pytest.mark.parametrize(
    ("preset", "autocast", "fixed"),
    [
        ("paper", {}, ()),
        ("paper", {}, FIXED),
        ("journal", {"cache_enabled": False}, ()),
        ("paper", {"enabled": False}, ()),
    ],
)
def test_the_same_bits_as_by_autocast(preset: str, autocast: dict[str, bool], fixed: tuple[str, ...]) -> None:
    config = getattr(JAANetConfig, preset)((1, 6, 12), image_size=64, width=2)
    model = JAANet(config).to(memory_format=torch.channels_last)
    for name in fixed:
        getattr(model, name).requires_grad_(False)
    other = copy.deepcopy(model)
    want, got = step(model, model, **autocast), step(other, BatchedWeightCast(other), **autocast)
    assert all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(want[0], got[0], strict=True))
    for name, gradient in want[1].items():
        assert (gradient is None) == (name.split(".")[0] in fixed)
        assert (got[1][name] is None) == (gradient is None), name
        assert gradient is None or (
            got[1][name].dtype == torch.float32 and torch.equal(gradient, got[1][name])
        ), name


def test_batch_norm_and_the_landmarks_stay_float32() -> None:
    model = JAANet(JAANetConfig.journal((1, 6), image_size=64, width=2))
    left = {name for name, _ in model.named_parameters()} - set(BatchedWeightCast(model).names)
    layers = {type(model.get_submodule(name.rpartition(".")[0])) for name in left}
    assert layers == {BatchNormReLU2d, RegionBatchNorm2d, nn.Linear}
    linear = {name for name in left if isinstance(model.get_submodule(name.rpartition(".")[0]), nn.Linear)}
    assert linear == {"alignment.landmarks.weight", "alignment.landmarks.bias"}
