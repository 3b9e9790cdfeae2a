"""One update, and what of the model a stage trains."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from jaa_ext.data import normalize
from jaa_ext.distributed import Processes
from jaa_ext.models import JAANet, JAANetConfig
from jaa_ext.recipes.schema import Recipe
from jaa_ext.training.criterion import JointLoss
from jaa_ext.training.optimization import Optimization, trained_modules, trained_parameters
from jaa_ext.training.runtime import make_fabric

SETTINGS = {"momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}


@pytest.fixture
def model() -> JAANet:
    torch.manual_seed(0)
    return JAANet(JAANetConfig.released((1, 12), image_size=64, width=1))


@pytest.fixture
def batch() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    image = torch.randint(0, 256, (3, 3, 64, 64), generator=g, dtype=torch.uint8)
    labels = torch.tensor([[1, 0], [0, -1], [1, 1]])
    return image, labels, torch.rand(3, 49, 2, generator=g) * 64, torch.full((3, 2), math.nan)


def optimization(model: JAANet, *, weight: Tensor | None = None, **stage: Any) -> Optimization:
    recipe = Recipe.model_validate(
        {
            "name": "tiny",
            "model": {"aus": [1, 12], "image_size": 64, "width": 1},
            "data": {"train_subjects": 2, "test_subjects": 1, "samples_per_subject": 2},
            "batch_size": 3,
            "stages": [{"name": "late", "epochs": 1, "lr": 0.1, **stage}],
        }
    )
    fabric = make_fabric("cpu", "32-true")
    return Optimization(recipe.stages[0], recipe, model, weight, fabric, Processes(1, 0), momentum=None)


def test_an_update_is_a_step_down_the_joint_loss(model: JAANet, batch: Any) -> None:
    weight = torch.tensor([0.5, 1.5])
    by_hand = copy.deepcopy(model).train()
    made = optimization(model, weight=weight)
    made.set_training()
    made.set_learning_rate(0.02)
    update = made.compute_update(*batch)

    image, labels, landmarks, _ = batch
    optimizer = torch.optim.SGD(by_hand.parameters(), lr=0.02, **SETTINGS)
    losses = JointLoss(made.criterion.factors, weight)(by_hand(normalize(image)), labels, landmarks)
    losses["total"].backward()
    optimizer.step()
    assert update.names == tuple(losses)
    torch.testing.assert_close(update.losses, torch.stack(list(losses.values())).detach())
    for (name, got), want in zip(model.named_parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-3, msg=name)


def test_a_loss_that_is_not_finite_changes_no_weight(model: JAANet, batch: Any) -> None:
    image, labels, landmarks, intensities = batch
    landmarks[1] = math.nan
    made = optimization(model)
    made.set_training()
    before = [p.clone() for p in model.parameters()]
    update = made.compute_update(image, labels, landmarks, intensities)
    assert not update.losses.isfinite().all()
    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    assert [made.is_finite(update, face) for face in range(3)] == [True, False, True]


def test_a_stage_trains_its_modules_and_leaves_the_others_in_evaluation(model: JAANet) -> None:
    made = optimization(model, train=["alignment", "au_head"], align=2.0)
    made.set_training()
    modes = {name: child.training for name, child in model.named_children()}
    wants = {name: name in ("alignment", "au_head") for name in modes}
    assert modes == wants and made.criterion.factors.align == 2.0
    for name, child in model.named_children():
        assert all(p.requires_grad == wants[name] for p in child.parameters())
    named = [p for group in made.optimizer.param_groups for p in group["params"]]
    assert [id(p) for p in named] == [id(p) for p in trained_parameters(made.stage, model)]


def test_modules_that_the_model_lacks_are_passed_over_but_not_all(model: JAANet) -> None:
    lean = JAANet(JAANetConfig((1, 12), image_size=64, width=1, attention=False, refinement=False,
                               gradient_enhancement=1))  # fmt: skip
    stage = optimization(model, train=["attention", "au_head"]).stage
    assert trained_modules(stage, lean) == {"au_head"}
    with pytest.raises(ValueError, match='stage "late" trains nothing: it names attention, but the model'):
        trained_modules(stage.model_copy(update={"train": ("attention",)}), lean)
