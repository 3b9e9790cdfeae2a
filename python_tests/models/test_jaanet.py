"""JAA-Net against the papers' counts and against a forward pass written out in plain loops."""

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch

from jaa_ext import facs
from jaa_ext.models import JAAGraphNetConfig, JAANet, JAANetConfig, JAAOutput, build_model
from jaa_ext.nn import AlignmentLoss, AttentionLoss, SoftmaxDiceLoss

PRESETS = {
    "paper": JAANetConfig.paper,
    "released": JAANetConfig.released,
    "journal": JAANetConfig.journal,
}
PLAIN = {"attention": False, "refinement": False, "gradient_enhancement": 1.0}
VARIANTS = {  # the rows of the ablation, and what is left; and what is no part of the papers
    "R-Net": ({**PLAIN, "region": "R", "alignment": False}, {"logits"}),
    "HMR-Net": ({**PLAIN, "alignment": False}, {"logits"}),
    "HMR-Net+DWA": (PLAIN, {"logits", "landmarks"}),
    "w/o AR": (
        {"refinement": False, "gradient_enhancement": 1.0},
        {"logits", "landmarks", "initial_maps", "target_maps"},
    ),
    "w/o BE": (
        {"gradient_enhancement": 1.0},
        {"logits", "landmarks", "initial_maps", "target_maps", "refined_maps"},
    ),
    "w/o GA": ({"decay": 0.0}, {"logits", "landmarks", "initial_maps", "target_maps", "refined_maps"}),
    "w/o AU": ({**PLAIN, "au_detection": False, "global_features": False}, {"landmarks"}),
    "intensity": (
        {"intensity": True},
        {"logits", "landmarks", "initial_maps", "target_maps", "refined_maps", "intensities"},
    ),
}


def small(preset="released", aus=(1, 6, 24), **changes):
    return PRESETS[preset](aus, **{"image_size": 64, "width": 1, **changes})


def build(config, seed=0):
    """A model with nothing at its neutral value, whose landmarks lie on the image and whose features live."""
    torch.manual_seed(seed)
    model = JAANet(config)
    norms = [module for module in model.modules() if hasattr(module, "running_mean")]
    for norm in norms:
        torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
        torch.nn.init.uniform_(norm.bias, -0.2, 0.5)
    if config.alignment:
        shape = 0.3 + 0.4 * torch.rand(49, 2)
        shape[list(facs.INNER_EYE_CORNERS), 0] = torch.tensor([0.45, 0.55])
        model.set_mean_shape(shape * config.image_size)
    # Statistics of other images: with arbitrary ones, layer by layer, all features would soon be zero.
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model(images(config, n=8, seed=seed + 100))
    for norm in norms:
        norm.momentum = 0.1
    return model


def images(config, n=3, seed=1, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, config.image_size, config.image_size, generator=generator, dtype=dtype)


def present(output):
    return {field.name for field in dataclasses.fields(output) if getattr(output, field.name) is not None}


# Parameter counts from the layers' shapes.


def test_the_released_network_has_the_authors_size(plain):
    config = JAANetConfig.released(facs.BP4D_AUS)
    with torch.device("meta"):
        model = JAANet(config)
        features = model.alignment.features(torch.empty(2, 64, 44, 44))
    assert features.shape == (2, 160, 5, 5)
    counts = {name: sum(p.numel() for p in child.parameters()) for name, child in model.named_children()}
    assert counts == plain.count_parameters(config)
    assert round(sum(counts.values()) / 1e6, 1) == 22.2


@pytest.mark.parametrize("changes", [{}, {"hidden_size": 7, "width": 2}, {"image_size": 112}])
@pytest.mark.parametrize("name", [*PRESETS, *VARIANTS])
def test_parameters_of_every_variant(name, changes, plain):
    config = small(name, **changes) if name in PRESETS else small(**VARIANTS[name][0], **changes)
    with torch.device("meta"):
        model = JAANet(config)
    assert sum(p.numel() for p in model.parameters()) == sum(plain.count_parameters(config).values())
    for child, count in plain.count_parameters(config).items():
        assert (getattr(model, child) is None) == (count == 0)


# What each variant returns.


@pytest.mark.parametrize("name", VARIANTS)
def test_ablations_lack_what_they_should(name):
    changes, fields = VARIANTS[name]
    config = small(**changes)
    output = build(config).eval()(images(config, n=1))
    assert present(output) == fields
    assert (output.probabilities is None) == ("logits" not in fields)
    if name == "w/o GA":
        assert set(output.target_maps.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("image_size", [64, 80, 112, 176])
def test_shapes(preset, image_size):
    config = small(preset, aus=(1, 2), image_size=image_size)
    output = build(config).eval()(images(config, n=2))
    side = image_size // 4
    want = {
        "logits": (2, 2, 2),
        "landmarks": (2, 49, 2),
        "initial_maps": (2, 2, side + 8, side + 8),
        "target_maps": (2, 2, side, side),
        "refined_maps": (2, 2, side, side),
    }
    if preset == "journal":
        want["local_logits"] = (2, 2, 2)
    assert {name: tuple(getattr(output, name).shape) for name in present(output)} == want
    assert not output.initial_maps.requires_grad and not output.target_maps.requires_grad


def test_probabilities():
    output = JAAOutput(logits=torch.tensor([[[0.0, 1.0], [0.0, 3.0]]]))
    want = torch.tensor([[0.5, 1 / (1 + math.exp(-2))]])
    torch.testing.assert_close(output.probabilities, want)
    assert JAAOutput(logits=output.logits.bfloat16()).probabilities.dtype == torch.float32


# The whole forward pass, against plain loops.


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("preset", "changes"),
    [
        ("released", {}),
        ("paper", {}),
        ("journal", {}),
        ("released", {"target_maps": "drawn", "decay": 0.0}),
        ("paper", {"refinement": False, "gradient_enhancement": 1.0}),
        ("journal", {"intensity": True}),
        ("released", {"intensity": True, "mirror": True}),
        ("journal", {"average_heads": True}),
        ("journal", {"intensity": True, "average_heads": True, "mirror": True}),
    ],
)
def test_forward_against_plain_loops(preset, changes, training, plain):
    config = small(preset, width=2, **changes)
    model = build(config).double().train(training)
    image = images(config, dtype=torch.float64)
    with torch.no_grad():
        got, want = model(image), plain.Plain(model, training).forward(image)
    assert present(got) == present(want)
    assert (want.target_maps > 0).flatten(2).any(2).all(), "the landmarks lie outside: nothing is tested"
    assert (want.logits[0] - want.logits[1]).abs().max() > 0.01, "the features are dead: nothing is tested"
    for name in present(want):
        torch.testing.assert_close(getattr(got, name), getattr(want, name), rtol=1e-8, atol=1e-9, msg=name)


# Training.


def joint_loss(output, labels, landmarks):
    total = sum(SoftmaxDiceLoss()(output.logits, labels)) + 0.5 * AlignmentLoss()(output.landmarks, landmarks)
    if output.intensities is not None:
        total = total + 0.1 * output.intensities.square().mean()
    if output.local_logits is None:
        return total + 1e-7 * AttentionLoss()(output.refined_maps, output.target_maps)
    return total + sum(SoftmaxDiceLoss()(output.local_logits, labels))


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("changes", [{}, {"intensity": True}])
@pytest.mark.parametrize("autocast", [False, True])
def test_a_step_trains_every_parameter(preset, changes, autocast):
    config = small(preset, **changes)
    model = build(config)
    image = images(config)
    labels = torch.tensor([[1, 0, -1], [0, 1, 1], [1, 1, 0]])
    landmarks = model.alignment.landmarks.bias.detach().view(49, 2) + torch.randn(3, 49, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(3):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = joint_loss(model(image), labels, landmarks)
        optimizer.zero_grad()
        loss.backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        optimizer.step()
        losses.append(loss.item())
    assert losses[2] < losses[0]


def test_autocast_keeps_landmarks_and_maps_in_float32():
    config = small()
    with torch.autocast("cpu", torch.bfloat16):
        output = build(config)(images(config))
    assert output.logits.dtype == torch.bfloat16
    for name in ("landmarks", "initial_maps", "target_maps", "refined_maps"):
        assert getattr(output, name).dtype == torch.float32, name
    assert not torch.equal(output.landmarks, output.landmarks.bfloat16().float())


@pytest.mark.parametrize("preset", ["released", "journal"])
def test_intensities_lie_in_0_to_5_in_float32_under_autocast(preset):
    config = small(preset, intensity=True)
    model = build(config)
    with torch.autocast("cpu", torch.bfloat16):
        output = model(images(config))
    assert output.intensities.dtype == torch.float32 and output.intensities.shape == (3, 3)
    assert not torch.equal(output.intensities, output.intensities.bfloat16().float())
    assert model.double()(images(config).double()).intensities.dtype == torch.float64
    with torch.no_grad():
        model.au_head.intensity.linear.bias.copy_(torch.tensor([-1e4, 1e4, 0.0]))
    extreme = model(images(config).double()).intensities
    assert (extreme[:, 0] == 0).all() and (extreme[:, 1] == 5).all()


def test_intensities_leave_the_rest_as_it_is():
    with_them, without = small("journal", intensity=True), small("journal")
    model, other = build(with_them).eval(), build(without).eval()
    missing, unexpected = other.load_state_dict(model.state_dict(), strict=False)
    assert not missing and {key.rpartition(".")[0] for key in unexpected} == {
        "au_head.intensity",
        "au_head.intensity.linear",
        "attention.local_intensity",
    }
    with torch.no_grad():
        got, want = model(images(with_them)), other(images(with_them))
    for name in present(want):
        assert torch.equal(getattr(got, name), getattr(want, name)), name


def test_mean_intensity():
    model = build(small(intensity=True))
    torch.nn.init.zeros_(model.au_head.intensity.linear.weight)
    torch.nn.init.zeros_(model.au_head.intensity.linear.bias)
    model.set_mean_intensity(np.array([0.5, np.nan, 4.0]))
    torch.testing.assert_close(model(images(model.config)).intensities[0], torch.tensor([0.5, 2.5, 4.0]))
    model.set_mean_intensity([0.0, 0.0, 5.0])  # whose biases would not be finite
    torch.testing.assert_close(model(images(model.config)).intensities[0], torch.tensor([0.05, 0.05, 4.95]))
    with pytest.raises(ValueError, match=r"intensities must be \(3,\), got \[2\]"):
        model.set_mean_intensity([1.0, 2.0])
    with pytest.raises(ValueError, match=r"set_mean_intensity: this model predicts no intensities"):
        build(small()).set_mean_intensity([1.0, 2.0, 3.0])


@pytest.mark.parametrize("fused", [False, True])
def test_an_au_whose_intensity_was_not_learnt_has_none(fused):
    config = small(intensity=True)
    model = build(config).eval()
    with torch.no_grad():
        want = model(images(config)).intensities
        model.set_rated(np.array([True, False, True]))
        got = (model.fuse() if fused else model)(images(config)).intensities
    assert got[:, 1].isnan().all()
    torch.testing.assert_close(got[:, ::2], want[:, ::2])
    model.reset_parameters()
    assert model(images(config)).intensities.isfinite().all()
    with pytest.raises(ValueError, match=r"rated must be \(3,\), got \[2\]"):
        model.set_rated([True, False])
    with pytest.raises(ValueError, match=r"predicts no intensities \(intensity=False\)"):
        build(small()).set_rated([True, False, True])


def test_landmarks_that_are_nan_do_not_crash():
    config = small()
    model = build(config).eval()
    model.set_mean_shape(torch.full((49, 2), torch.nan))
    output = model(images(config))
    assert output.landmarks.isnan().all()
    assert (output.initial_maps == 0).all()


def test_gradient_enhancement_is_equation_5():
    """E_au reaches a refined map times lambda_3, E_r as it is; nothing upstream of another path changes."""

    def gradients(factor, loss):
        config = small(gradient_enhancement=factor)
        model = build(config).double()
        output = model(images(config, dtype=torch.float64))
        output.refined_maps.retain_grad()
        loss(output).backward()
        return output.refined_maps.grad, {name: p.grad for name, p in model.named_parameters()}

    def e_au(output):
        return sum(SoftmaxDiceLoss()(output.logits, torch.tensor([[1, 0, 1]] * 3)))

    def e_r(output):
        return 1e-3 * AttentionLoss()(output.refined_maps, output.target_maps)

    plain_au, plain_parameters = gradients(1.0, e_au)
    enhanced_au, enhanced_parameters = gradients(3.0, e_au)
    plain_r, _ = gradients(3.0, e_r)
    both, _ = gradients(3.0, lambda output: e_au(output) + e_r(output))
    assert plain_au.abs().max() > 0
    torch.testing.assert_close(enhanced_au, 3 * plain_au)
    torch.testing.assert_close(plain_r, gradients(1.0, e_r)[0])
    torch.testing.assert_close(both, 3 * plain_au + plain_r)
    for name, gradient in plain_parameters.items():
        if name.startswith(("alignment.embedding", "alignment.landmarks")):
            assert gradient is None and enhanced_parameters[name] is None
            continue
        factor = 3 if name.startswith("attention.refinement") else 1
        # Conv biases before batch norm have no gradient but rounding: the absolute tolerance is for them.
        torch.testing.assert_close(enhanced_parameters[name], factor * gradient, rtol=1e-7, atol=1e-14)


def test_journal_trains_local_features_by_their_own_loss_only():
    config = small("journal")
    model = build(config)
    model(images(config)).logits.sum().backward()
    assert all(p.grad is None for p in model.attention.parameters())
    assert model.global_features[0].weight.grad is not None
    model(images(config)).local_logits.sum().backward()
    assert all(p.grad is not None for p in model.attention.parameters())


def test_no_gradient_flows_from_maps_to_landmarks():
    config = small()
    model = build(config)
    model(images(config)).refined_maps.sum().backward()
    assert all(p.grad is None for p in model.alignment.parameters())


# As a module.


def test_mean_shape():
    config = small()
    model = JAANet(config)
    weight = model.alignment.landmarks.weight.clone()
    shape = np.arange(98, dtype=np.float64).reshape(49, 2)
    model.set_mean_shape(shape)
    assert torch.equal(model.alignment.landmarks.weight, weight)
    model.alignment.landmarks.weight.data.zero_()
    landmarks = model(images(config)).landmarks
    assert torch.equal(landmarks, torch.from_numpy(shape).float().expand(3, 49, 2))
    with pytest.raises(ValueError, match=r"must be \(49, 2\), got \[98\]"):
        model.set_mean_shape(shape.ravel())
    with pytest.raises(ValueError, match="predicts no landmarks"):
        JAANet(small(**VARIANTS["HMR-Net"][0])).set_mean_shape(shape)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("preset", PRESETS)
def test_landmarks_alone_are_those_of_the_whole(preset, fused):
    config = small(preset)
    model = build(config).eval()
    model = model.fuse() if fused else model
    image = images(config)
    with torch.no_grad():
        assert torch.equal(model.find_landmarks(image), model(image).landmarks)
    with pytest.raises(ValueError, match=r"image must be \(N, 3, 64, 64\), got \[1, 3, 80, 64\]"):
        model.find_landmarks(torch.zeros(1, 3, 80, 64))


def test_a_model_without_alignment_finds_none():
    config = small(**VARIANTS["HMR-Net"][0])
    with pytest.raises(ValueError, match=r"predicts no landmarks \(alignment=False\)"):
        JAANet(config).find_landmarks(images(config))


@pytest.mark.parametrize("preset", PRESETS)
def test_channels_last(preset):
    config = small(preset)
    model = build(config).eval()
    image = images(config)
    want = model(image)
    model.to(memory_format=torch.channels_last)
    assert model.region_learning[0].conv.weight.is_contiguous(memory_format=torch.channels_last)
    image = image.to(memory_format=torch.channels_last)
    assert model.region_learning(image).is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(model(image).logits, want.logits)


def test_a_deep_copy_is_independent():
    config = small()
    model = build(config).eval()
    image = images(config, n=1)
    twin = copy.deepcopy(model)
    assert torch.equal(twin(image).logits, model(image).logits)
    twin.au_head[1].bias.data += 1
    assert not torch.equal(twin(image).logits, model(image).logits)


def test_same_seed_same_bits():
    config = small()
    outputs = [build(config, seed=5)(images(config)) for _ in range(2)]
    assert torch.equal(outputs[0].logits, outputs[1].logits)


def test_groups_one_by_one_compile_into_one_graph(groups_split_from):
    """Those that go together do in nn/test_module_contract.py."""
    groups_split_from(0)
    config = small(aus=(1, 2))
    model = build(config).double()
    twin = copy.deepcopy(model)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    image = images(config, n=2, dtype=torch.float64)
    labels, landmarks = torch.tensor([[1, 0], [0, 1]]), torch.rand(2, 49, 2, dtype=torch.float64)
    got, want = compiled(image), twin(image)
    for name in present(want):
        torch.testing.assert_close(getattr(got, name), getattr(want, name))
    joint_loss(got, labels, landmarks).backward()
    joint_loss(want, labels, landmarks).backward()
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)
    for b, c in zip(model.buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(b, c)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("one_by_one", [False, True])
@pytest.mark.parametrize("name", [*PRESETS, *VARIANTS])
def test_a_fused_model_computes_the_same(name, one_by_one, autocast, groups_split_from, plain):
    config = small(name) if name in PRESETS else small(**VARIANTS[name][0])
    model = build(config).eval()
    if one_by_one:
        groups_split_from(0)
    plain.check_fused(model, images(config), autocast)


def test_a_fused_model_is_for_inference():
    model = build(small())
    model.note = "a note"
    fused = model.train().fuse()
    assert model.training and not fused.training and fused.note == "a note"
    assert not any(p.requires_grad for p in fused.parameters())
    image = images(model.config)
    assert torch.equal(fused.fuse()(image).logits, fused(image).logits)
    with pytest.raises(RuntimeError, match="fused model cannot be trained"):
        fused.train()
    assert not fused.eval().training


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (torch.zeros(1, 3, 80, 64), ValueError, r"image must be \(N, 3, 64, 64\), got \[1, 3, 80, 64\]"),
        (torch.zeros(1, 1, 64, 64), ValueError, r"image must be \(N, 3, 64, 64\), got \[1, 1, 64, 64\]"),
        (torch.zeros(3, 64, 64), ValueError, r"image must be \(N, 3, 64, 64\), got \[3, 64, 64\]"),
        (torch.zeros(1, 3, 64, 64, dtype=torch.uint8), TypeError, "image must be floating.*got uint8"),
    ],
)
def test_images_that_do_not_fit(image, error, message):
    with pytest.raises(error, match=message):
        JAANet(small())(image)


def test_a_mirrored_face_is_answered_alike():
    config = small("journal", intensity=True, average_heads=True, mirror=True)
    model, image = build(config).eval(), images(config)
    with torch.no_grad():
        face, mirrored = model(image), model(image.flip(3))
        assert torch.equal(model.find_landmarks(image), face.landmarks)
    # But for rounding: with several threads a face's last bits depend on its place in the batch.
    for name in ("logits", "local_logits", "intensities"):
        torch.testing.assert_close(getattr(face, name), getattr(mirrored, name))
    x, y = mirrored.landmarks[:, list(facs.FLIP)].unbind(2)
    torch.testing.assert_close(face.landmarks, torch.stack((config.image_size - 1 - x, y), 2))
    assert len(face.refined_maps) == len(image)


def test_a_model_in_training_answers_for_what_it_is_given():
    changes = {"average_heads": True, "mirror": True}
    plain, averaging = small("journal"), small("journal", **changes)
    image = images(plain)
    with torch.no_grad():
        for name, want in vars(build(plain).train()(image)).items():
            got = getattr(build(averaging).train()(image), name)
            assert (got is None and want is None) or torch.equal(got, want), name


def test_an_au_needs_no_rule_without_attention():
    config = small(aus=(5, 20), **PLAIN)
    assert build(config).eval()(images(config)).logits.shape == (3, 2, 2)


SIDES = ("12L", 6, "12R", 24)


@pytest.mark.parametrize("kind", ["journal", "graph"])
def test_sides_of_a_mirrored_face_change_places(kind):
    changes = {"intensity": True, "average_heads": True, "image_size": 64, "width": 1}
    make = {"journal": JAANetConfig.journal, "graph": JAAGraphNetConfig.graph}[kind]
    plain = make(SIDES, **changes)
    torch.manual_seed(0)
    model = build_model(plain).eval()
    both = build_model(make(SIDES, mirror=True, **changes)).eval()
    both.load_state_dict(model.state_dict())
    swapped = [2, 1, 0, 3]
    image = images(plain)
    with torch.no_grad():
        own, other, face, mirrored = model(image), model(image.flip(3)), both(image), both(image.flip(3))
    for name in ("logits", "local_logits", "intensities"):
        a, b = getattr(own, name), getattr(other, name)[..., swapped]
        torch.testing.assert_close(getattr(face, name), (a + b) / 2)
        # The left corner of the mouth is the right one of the mirror image.
        torch.testing.assert_close(getattr(face, name), getattr(mirrored, name)[..., swapped])
        assert not torch.equal(getattr(face, name)[..., 0], getattr(face, name)[..., 2])
    assert torch.equal(face.refined_maps[: len(image)], face.refined_maps)


def test_a_side_alone_has_no_mirror_image():
    with pytest.raises(ValueError, match="mirror=True needs both sides of an AU, got 12R alone"):
        small(aus=(1, "12R"), mirror=True)
    config = small(aus=(1, "12R"))
    assert build(config).eval()(images(config)).logits.shape == (3, 2, 2)
    with pytest.raises(ValueError, match="no rule for AU 24L: known are 1, 2, 4, "):
        small(aus=(1, "24L"))
