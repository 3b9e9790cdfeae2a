"""The JAA-Net with a graph over AUs against plain loops, and what flows where."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from jaa_ext import facs
from jaa_ext.models import (
    JAAGraphNet,
    JAAGraphNetConfig,
    JAANet,
    JAANetConfig,
    build_model,
    load_model,
    save_model,
)

LABELS = torch.tensor([[1, 0, 0], [1, 1, -1], [1, 1, 0], [0, 0, 1], [0, 0, 1], [-1, 1, 1]])
EDGES = torch.tensor([[1.0, 1, 0], [1, 1, 1], [0, 0, 1]])
"""Those of `LABELS` from 0.5 on: 2 of 3, 2 of 2, 1 of 2; not 0 of 2, 0 of 2, 1 of 3."""


def small(preset="graph", aus=(1, 6, 24), **changes):
    return getattr(JAAGraphNetConfig, preset)(
        aus, **{"image_size": 64, "width": 1, "graph_widths": (6, 4), **changes}
    )


def build(config, seed=0):
    """A model with nothing at its neutral value, whose landmarks lie on the image and whose features live."""
    torch.manual_seed(seed)
    model = build_model(config)
    norms = [module for module in model.modules() if hasattr(module, "running_mean")]
    for norm in norms:
        torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
        torch.nn.init.uniform_(norm.bias, -0.2, 0.5)
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
    if isinstance(model, JAAGraphNet):
        model.set_labels(LABELS[:, : len(config.aus)])
    return model


def images(config, n=3, seed=1, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, config.image_size, config.image_size, generator=generator, dtype=dtype)


def present(output):
    return {field.name for field in dataclasses.fields(output) if getattr(output, field.name) is not None}


# The whole forward pass, against plain loops.


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("preset", "changes"),
    [
        ("graph", {}),
        ("graph", {"graph_widths": (7,)}),
        ("released", {"graph_widths": (8, 6, 5)}),
        ("paper", {}),
        ("released", {"intensity": True}),
    ],
)
def test_forward_against_plain_loops(preset, changes, training, plain):
    config = small(preset, width=2, **changes)
    model = build(config).double().train(training)
    image = images(config, dtype=torch.float64)
    with torch.no_grad():
        got, want = model(image), plain.PlainGraph(model, training).forward(image)
    assert present(got) == present(want)
    assert (want.target_maps > 0).flatten(2).any(2).all(), "the landmarks lie outside: nothing is tested"
    assert (want.logits[0] - want.logits[1]).abs().max() > 0.01, "the features are dead: nothing is tested"
    for name in present(want):
        torch.testing.assert_close(getattr(got, name), getattr(want, name), rtol=1e-8, atol=1e-9, msg=name)


def test_the_logits_depend_on_every_edge():
    config = small()
    model = build(config).double().eval()
    image = images(config, dtype=torch.float64)
    with torch.no_grad():
        want = model(image).logits
        for i, j in EDGES.nonzero().tolist():
            if i == j:
                continue
            changed = EDGES.clone()
            changed[i, j] = 0
            model.graph.set_adjacency(changed)
            assert (model(image).logits - want).abs().max() > 1e-6, (i, j)
        model.graph.set_adjacency(EDGES)
        assert torch.equal(model(image).logits, want)


def test_everything_but_the_logits_is_the_jaanets():
    config = small()
    model = build(config).eval()
    base = build(JAANetConfig.journal(config.aus, image_size=64, width=1)).eval()
    theirs = {key: t for key, t in model.state_dict().items() if not key.startswith(("graph.", "au_head."))}
    missing, unexpected = base.load_state_dict(theirs, strict=False)
    assert missing == [key for key in base.state_dict() if key.startswith("au_head.")] and not unexpected
    image = images(config)
    with torch.no_grad():
        got, want = model(image), base(image)
    assert present(got) == present(want)
    for name in present(want) - {"logits"}:
        assert torch.equal(getattr(got, name), getattr(want, name)), name
    assert got.logits.shape == want.logits.shape and not torch.equal(got.logits, want.logits)


@pytest.mark.parametrize("image_size", [64, 80, 112])
def test_shapes(image_size):
    config = small(aus=(1, 2), image_size=image_size)
    output = build(config).eval()(images(config, n=2))
    side = image_size // 4
    assert {name: tuple(getattr(output, name).shape) for name in present(output)} == {
        "logits": (2, 2, 2),
        "landmarks": (2, 49, 2),
        "initial_maps": (2, 2, side + 8, side + 8),
        "target_maps": (2, 2, side, side),
        "refined_maps": (2, 2, side, side),
        "local_logits": (2, 2, 2),
    }
    assert output.probabilities.shape == (2, 2)


# Parameter counts from the layers' shapes.


@pytest.mark.parametrize(
    ("preset", "changes"),
    [
        ("graph", {}),
        ("graph", {"graph_widths": (3, 2, 9), "hidden_size": 7}),
        ("graph", {"global_features": False, "width": 2}),
        ("released", {"image_size": 112, "region": "R"}),
        ("paper", {"refinement": False, "gradient_enhancement": 1.0}),
    ],
)
def test_parameters(preset, changes, plain):
    config = small(preset, **changes)
    with torch.device("meta"):
        model = JAAGraphNet(config)
    a, d = len(config.aus), config.hidden_size or 64 * config.width
    flat = 20 * config.width * (config.image_size // 32) ** 2
    widths = config.graph_widths
    want = plain.count_parameters(config)
    want["graph"] = sum(i * o for i, o in zip((flat, *widths), widths, strict=False))
    joined = (1 + config.global_features) * flat + a * widths[-1]
    want["au_head"] = joined * d + d + 2 * a * d + 2 * a
    got = {name: sum(p.numel() for p in child.parameters()) for name, child in model.named_children()}
    assert got == {name: count for name, count in want.items() if count}


def test_the_papers_network():
    config = JAAGraphNetConfig.graph(facs.AFFWILD2_AUS)
    assert config.image_size == 112 and (config.threshold, config.neighbor_share) == (0.4, 0.2)
    assert dataclasses.asdict(JAANetConfig.journal(facs.AFFWILD2_AUS, image_size=112)).items() <= (
        dataclasses.asdict(config).items()
    )
    with torch.device("meta"):
        model = JAAGraphNet(config)
    # 20c = 160 channels of 3 x 3 points, since 112 / 4 / 8 = 3.5.
    assert [tuple(layer.weight.shape) for layer in model.graph.layers] == [(256, 1440)]
    assert model.graph.adjacency.shape == (12, 12)
    assert model.au_head[0].in_features == 2 * 1440 + 12 * 256


# The adjacency.


def test_a_fresh_model_has_no_edges():
    assert torch.equal(JAAGraphNet(small()).graph.adjacency, torch.eye(3))


@pytest.mark.parametrize(
    ("threshold", "edges"),
    [
        (0.5, EDGES),
        (2 / 3, torch.tensor([[1.0, 1, 0], [1, 1, 0], [0, 0, 1]])),
        (0.7, torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, 0, 1]])),
        (1 / 3, torch.tensor([[1.0, 1, 0], [1, 1, 1], [0, 1, 1]])),
    ],
)
def test_labels_make_the_adjacency_at_the_configs_threshold(threshold, edges):
    model = JAAGraphNet(small(threshold=threshold))
    for labels in (LABELS, LABELS.numpy(), np.repeat(LABELS.numpy(), 3, 0)):
        model.set_labels(labels)
        assert torch.equal(model.graph.adjacency, edges)
        model.graph.set_adjacency(torch.eye(3))


def test_labels_of_other_aus_do_not_fit():
    model = JAAGraphNet(small())
    with pytest.raises(ValueError, match=r"adjacency must be \(3, 3\), got \[2, 2\]"):
        model.set_labels(LABELS[:, :2])


# Training.


def without_gradient(model):
    return {name for name, parameter in model.named_parameters() if parameter.grad is None}


def within(model, *modules):
    return {name for name, _ in model.named_parameters() if name.startswith(modules)}


def test_logits_train_no_local_features():
    """As in the journal version: those learn from their own loss alone."""
    config = small()
    model = build(config)
    model(images(config)).logits.square().sum().backward()
    linear = ("alignment.embedding.", "alignment.landmarks.")  # no gradient flows from maps to landmarks
    assert without_gradient(model) == within(model, "attention.", *linear)
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or parameter.grad.abs().max() > 0, name


def test_local_logits_train_neither_graph_nor_head():
    config = small()
    model = build(config)
    model(images(config)).local_logits.square().sum().backward()
    assert without_gradient(model) == within(model, "graph.", "au_head.", "global_features.", "alignment.")


def test_landmarks_train_neither_graph_nor_head():
    config = small()
    model = build(config)
    model(images(config)).landmarks.square().sum().backward()
    assert without_gradient(model) == within(model, "graph.", "au_head.", "global_features.", "attention.")


def test_without_a_local_loss_logits_train_the_local_features():
    config = small("released")
    model = build(config)
    model(images(config)).logits.square().sum().backward()
    assert without_gradient(model) == within(model, "alignment.embedding.", "alignment.landmarks.")


def test_same_seed_same_bits():
    config = small()
    outputs = [build(config, seed=5)(images(config)) for _ in range(2)]
    assert torch.equal(outputs[0].logits, outputs[1].logits)


@pytest.mark.parametrize("autocast", [False, True])
def test_a_fused_model_computes_the_same(autocast, plain):
    config = small()
    model = build(config).eval()
    fused = plain.check_fused(model, images(config), autocast)
    assert type(fused) is JAAGraphNet and torch.equal(fused.graph.adjacency, EDGES)


def test_channels_last():
    config = small()
    model = build(config).eval()
    image = images(config)
    with torch.no_grad():
        want = model(image)
        got = model.to(memory_format=torch.channels_last)(image.to(memory_format=torch.channels_last))
    torch.testing.assert_close(got.logits, want.logits)


# Files and configs.


def test_a_saved_model_comes_back_with_its_adjacency(tmp_path):
    config = small(threshold=0.7)
    model = build(config)
    model(images(config))  # running statistics other than their start
    model.graph.set_adjacency(EDGES)
    want = model.eval()(images(config))
    save_model(model, tmp_path / "model.safetensors", note="with a graph")
    loaded = load_model(tmp_path / "model.safetensors")
    assert type(loaded) is JAAGraphNet and loaded.config == config and loaded.note == "with a graph"
    assert torch.equal(loaded.graph.adjacency, EDGES)
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    got = loaded(images(config))
    for name in present(want):
        assert torch.equal(getattr(got, name), getattr(want, name)), name
    loaded.set_labels(LABELS)  # a buffer, not a view of the file
    loaded.train()(images(config)).logits.sum().backward()


def test_a_config_makes_the_model_of_its_class():
    assert type(build_model(small())) is JAAGraphNet
    assert type(build_model(JAANetConfig.journal((1,), image_size=64, width=1))) is JAANet


def test_config_survives_json():
    own = facs.AURule((3, 4), 0.25, 20)
    config = small(aus=[1, own, 24], graph_widths=[5, 3], threshold=0.25)
    text = json.dumps(config.to_dict())
    read = JAAGraphNetConfig.from_dict(json.loads(text))
    assert read == config and type(read) is JAAGraphNetConfig
    assert read.graph_widths == (5, 3) and read.threshold == 0.25 and read.aus == (1, own, 24)
    assert hash(read) == hash(config)
    with pytest.raises(ValueError, match="unknown field 'depth'"):
        JAAGraphNetConfig.from_dict({"aus": [1], "depth": 3})
    with pytest.raises(ValueError, match="unknown field 'graph_widths'"):
        JAANetConfig.from_dict(config.to_dict())
    earlier = config.to_dict()
    earlier["neighbours"] = earlier.pop("neighbor_share") / 2
    assert JAAGraphNetConfig.from_dict(earlier).neighbor_share == config.neighbor_share / 2


def test_presets_can_be_changed():
    config = JAAGraphNetConfig.graph((1, 2), image_size=176, graph_widths=(8,), gradient_enhancement=2.0)
    assert (config.image_size, config.graph_widths, config.gradient_enhancement) == (176, (8,), 2.0)
    assert config.local_loss and JAAGraphNetConfig.graph((1, 2)).gradient_enhancement == 1
    assert config != JAANetConfig.journal((1, 2), gradient_enhancement=2.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"attention": False, "refinement": False, "local_loss": False},
            "graph_widths needs attention=True",
        ),
        ({"graph_widths": ()}, r"graph_widths must be at least one number of at least 1, got \[\]"),
        ({"graph_widths": (8, 0)}, r"graph_widths must be .*, got \[8, 0\]"),
        ({"threshold": 0.0}, r"threshold must be in \(0, 1\], got 0.0"),
        ({"threshold": 1.5}, r"threshold must be in \(0, 1\], got 1.5"),
        ({"threshold": float("nan")}, r"threshold must be in \(0, 1\], got nan"),
        ({"alignment": False}, "attention=True needs alignment=True"),
        ({"au_detection": False}, "au_detection=False leaves no use for"),
        ({"aus": (1, facs.AURule((3, 4), number=1))}, "aus has AU 1 more than once"),
        ({"aus": (1, 3)}, "no rule for AU 3"),
        ({"image_size": 100}, "image_size must be a multiple of 16"),
    ],
)
def test_what_is_no_config(changes, message):
    with pytest.raises(ValueError, match=message):
        JAAGraphNetConfig.graph(**{"aus": (1, 2), **changes})
    assert JAAGraphNetConfig.graph((1, 2), threshold=1.0).threshold == 1.0
