"""Starting from another model's weights, tensor by tensor and row by row; the two stages of ABAW 2021."""

import hashlib
from pathlib import Path

import pytest
import torch

from jaa_ext import facs
from jaa_ext.data import SyntheticFaces
from jaa_ext.models import (
    JAAGraphNet,
    JAAGraphNetConfig,
    JAANet,
    JAANetConfig,
    Transfer,
    build_model,
    load_model,
    transfer_weights,
)
from jaa_ext.models.transfer import branch_places
from jaa_ext.recipes import load_recipe
from jaa_ext.recipes.budget import shrink
from jaa_ext.recipes.datasets import Synthetic
from jaa_ext.training import Listener, Trainer, train

PLAIN = {"attention": False, "refinement": False, "gradient_enhancement": 1.0}
DISFA_FROM_BP4D = (0, 1, 2, 3, None, 6, 10, 9)
"""For each AU of DISFA the place of its branch in BP4D's order, as the authors' program has it."""


def make(config, value):
    """A model all of whose numbers differ from each other, and from those of a model of another value."""
    model = build_model(config)
    for k, tensor in enumerate(model.state_dict().values()):
        if tensor.is_floating_point():
            count = torch.arange(tensor.numel(), dtype=torch.float64).view(tensor.shape)
            tensor.copy_(value + k / 1000 + count / 1e7)
        else:
            tensor.fill_(round(10 * value))
    return model


def config(aus=facs.BP4D_AUS, preset="released", **changes):
    return getattr(JAANetConfig, preset)(aus, **{"image_size": 64, "width": 1, **changes})


def graph(aus=facs.BP4D_AUS, **changes):
    return JAAGraphNetConfig.graph(aus, **{"image_size": 64, "width": 1, "graph_widths": (6, 4), **changes})


def copied(model):
    return {key: tensor.clone() for key, tensor in model.state_dict().items()}


def changed(before, model):
    return {key for key, tensor in model.state_dict().items() if not torch.equal(tensor, before[key])}


def keys(model, *modules):
    return {key for key in model.state_dict() if key.startswith(modules)}


def transferred(model_config, source_config):
    """The model before and after, the source before, and what the transfer says."""
    model, source = make(model_config, 1.0), make(source_config, 2.0)
    before, theirs = copied(model), copied(source)
    result = transfer_weights(model, source)
    assert not changed(theirs, source), "the source changed"
    assert len(before) > 50 and all(p.requires_grad for p in model.parameters())
    return model, before, theirs, result


def assert_taken(model, before, theirs, fresh=()):
    """Every tensor equals the source's, but those of the fresh modules their own."""
    for key, tensor in model.state_dict().items():
        want = before[key] if key.startswith(tuple(fresh)) else theirs[key]
        assert torch.equal(tensor, want), key


# The same AUs.


@pytest.mark.parametrize(
    "make_config", [config, graph, lambda: config(preset="journal"), lambda: config(**PLAIN)]
)
def test_a_model_of_the_same_config_takes_everything(make_config):
    model, before, theirs, result = transferred(make_config(), make_config())
    assert_taken(model, before, theirs)
    assert result.fresh == () and str(result) == "fresh: nothing"
    attends = make_config().attention
    assert result.branches == (tuple((au, au) for au in facs.BP4D_AUS) if attends else ())


def test_taken_weights_are_copies():
    model, source = make(config(), 1.0), make(config(), 2.0)
    transfer_weights(model, source)
    after = copied(model)
    for tensor in source.state_dict().values():
        tensor.zero_()
    assert not changed(after, model)


def test_graph_net_from_jaanet_takes_all_but_graph_and_head():
    model, before, theirs, result = transferred(graph(), config(preset="journal"))
    assert_taken(model, before, theirs, fresh=("graph.", "au_head."))
    assert torch.equal(model.graph.adjacency, before["graph.adjacency"])
    assert set(result.fresh) == {"graph", "au_head"}
    assert result.branches == tuple((au, au) for au in facs.BP4D_AUS)
    assert str(result) in ("fresh: au_head, graph", "fresh: graph, au_head")


def test_graph_net_from_graph_net_takes_the_adjacency_too():
    a, b = build_model(graph((1, 2, 4))), build_model(graph((1, 2, 4)))
    edges = torch.tensor([[1.0, 1, 0], [0, 1, 0], [1, 1, 1]])
    b.graph.set_adjacency(edges)
    transfer_weights(a, b)
    assert torch.equal(a.graph.adjacency, edges)
    assert not changed(copied(b), a)


def test_jaanet_from_graph_net_takes_all_but_the_head():
    model, before, theirs, result = transferred(config(preset="journal"), graph())
    assert_taken(model, before, theirs, fresh=("au_head.",))
    assert str(result) == "fresh: au_head"


def test_a_head_behind_another_graph_is_fresh():
    """Though of the same shape."""
    model, before, theirs, result = transferred(graph(), graph(graph_widths=(5, 4)))
    assert_taken(model, before, theirs, fresh=("graph.", "au_head."))
    assert set(result.fresh) == {"graph", "au_head"}


def test_a_head_of_other_features_is_fresh():
    """Here the sizes of the heads are alike by chance."""
    for one, other in (
        (config(global_features=False), config(**PLAIN)),  # alignment beside local or global features
        (config((1, 2), preset="journal"), graph((1, 2), graph_widths=(40,))),  # 2 x 40 = 20c x 2 x 2
    ):
        model, before, theirs, result = transferred(one, other)
        head = "au_head.0.weight"
        assert before[head].shape == theirs[head].shape, "nothing is tested"
        assert "au_head" in result.fresh
        assert keys(model, "au_head.").isdisjoint(changed(before, model))


def test_intensities_are_taken_with_the_head():
    rated = config(intensity=True)
    model, before, theirs, result = transferred(rated, rated)
    assert_taken(model, before, theirs)
    model, before, theirs, result = transferred(rated, config())
    assert_taken(model, before, theirs, fresh=("au_head.intensity.",))
    assert str(result) == "fresh: au_head.intensity"
    model, before, theirs, result = transferred(config(), rated)
    assert_taken(model, before, theirs)
    assert str(result) == "fresh: nothing"
    model, before, theirs, result = transferred(rated, config(facs.BP4D_AUS[::-1], intensity=True))
    assert changed(before, model).isdisjoint(keys(model, "au_head."))
    assert result.fresh == ("au_head", "au_head.intensity")


def test_intensities_of_local_features_are_taken_with_the_aus():
    rated = config(preset="journal", intensity=True)
    model, before, theirs, result = transferred(rated, rated)
    assert_taken(model, before, theirs)
    model, before, theirs, result = transferred(rated, config(preset="journal"))
    assert_taken(model, before, theirs, fresh=("au_head.intensity.", "attention.local_intensity."))
    assert result.fresh == ("attention.local_intensity", "au_head.intensity")
    other = config(facs.BP4D_AUS[::-1], preset="journal", intensity=True)
    model, before, theirs, result = transferred(rated, other)
    assert changed(before, model).isdisjoint(keys(model, "attention.local_intensity."))


def test_aus_in_another_order_take_their_branches():
    model, before, theirs, result = transferred(config((12, 6, 1)), config((1, 6, 12)))
    for key in keys(model, "attention."):
        got, want = model.state_dict()[key], theirs[key]
        if got.dim():
            want = torch.cat(want.chunk(3)[::-1])
        assert torch.equal(got, want), key
    assert changed(before, model).isdisjoint(keys(model, "au_head."))
    assert result == Transfer(((12, 12), (6, 6), (1, 1)), ("au_head",))


# DISFA from BP4D.


@pytest.mark.parametrize("preset", ["released", "journal"])
def test_disfa_from_bp4d(preset):
    model, before, theirs, result = transferred(config(facs.DISFA_AUS, preset=preset), config(preset=preset))
    after = model.state_dict()
    whole = keys(model, "region_learning.", "alignment.", "global_features.")
    branches = keys(model, "attention.refinement.", "attention.local_features.")
    heads = keys(model, "au_head.", "attention.local_head.")
    assert whole | branches | heads == set(after) and (preset == "journal") == (len(heads) > 4)
    for key in whole:
        assert torch.equal(after[key], theirs[key]), key
    for key in heads:
        assert torch.equal(after[key], before[key]), key
    kinds = {key.rsplit(".", 1)[1] for key in branches}
    assert kinds == {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}
    for key in branches:
        if key.endswith("num_batches_tracked"):
            assert after[key] == theirs[key] == 20, key
            continue
        rows = len(theirs[key]) // 12
        assert len(after[key]) == 8 * rows
        for i, place in enumerate(DISFA_FROM_BP4D):
            got = after[key][i * rows : (i + 1) * rows]
            if place is None:
                want = before[key][i * rows : (i + 1) * rows]
            else:
                want = theirs[key][place * rows : (place + 1) * rows]
            assert torch.equal(got, want), (key, i)
    assert result.branches == (
        (1, 1), (2, 2), (4, 4), (6, 6), (9, None), (12, 12), (25, 23), (26, 17),
    )  # fmt: skip
    local_head = ("attention.local_head",) if preset == "journal" else ()
    modules = ("attention.refinement", "attention.local_features", *local_head, "au_head")
    assert result.fresh == modules
    assert str(result) == f"with AU 25 from AU 23, AU 26 from AU 17; fresh: {', '.join(modules)}"


def test_branches_compute_what_they_computed():
    model, source = JAANet(config(facs.DISFA_AUS)).eval(), JAANet(config()).eval()
    transfer_weights(model, source)
    maps = torch.rand(2, 8, 24, 24, generator=torch.Generator().manual_seed(0))
    given = torch.zeros(2, 12, 24, 24)
    for i, place in enumerate(DISFA_FROM_BP4D):
        if place is not None:
            given[:, place] = maps[:, i]
    with torch.no_grad():
        got, want = model.attention.refinement(maps), source.attention.refinement(given)
    for i, place in enumerate(DISFA_FROM_BP4D):
        if place is not None:
            torch.testing.assert_close(got[:, i], want[:, place])


def test_places_of_branches():
    own = facs.AURule((3, 4), 0.25)
    assert branch_places(facs.DISFA_AUS, facs.BP4D_AUS) == DISFA_FROM_BP4D
    assert branch_places(facs.BP4D_AUS, facs.BP4D_AUS) == tuple(range(12))
    # AUs 12, 14 and 15 have the same centres: an AU's own place comes before the first of them.
    assert branch_places((15, 14, 12), (12, 15)) == (1, 0, 0)
    # AUs 17 and 26 lie half an r below the points 39 and 41, AUs 9 and 1 elsewhere.
    assert branch_places((26, 1), (9, 17)) == (1, None)
    assert branch_places((own, 1), (1, own)) == (1, 0)
    assert branch_places((facs.AURule((31, 37)),), (6, 14, 12)) == (1,)
    assert branch_places((own, facs.AURule((3, 4), 0.5)), (facs.AURule((3, 4), 0.25, 20),)) == (0, None)


def test_an_au_given_as_a_rule_is_the_au_of_its_number():
    fifteen = facs.AURule((31, 37), 0.0, 15)
    assert branch_places((fifteen,), facs.BP4D_AUS) == (facs.BP4D_AUS.index(15),)
    assert branch_places((15,), (12, fifteen)) == (1,)
    assert branch_places((facs.AURule((31, 37), 0.1, 15),), facs.BP4D_AUS) == (facs.BP4D_AUS.index(15),)
    model, before, theirs, result = transferred(config((1, fifteen)), config((1, 15)))
    assert_taken(model, before, theirs)
    assert result.fresh == ()


# Models that lack modules.


def test_a_source_without_attention_gives_no_branches():
    model, before, theirs, result = transferred(config(facs.DISFA_AUS), config(**PLAIN))
    assert_taken(model, before, theirs, fresh=("attention.", "au_head."))
    assert result.branches == tuple((au, None) for au in facs.DISFA_AUS)
    assert str(result) == "fresh: attention.refinement, attention.local_features, au_head"


def test_a_model_without_attention_takes_the_rest():
    model, before, theirs, result = transferred(config(facs.DISFA_AUS, **PLAIN), config())
    assert_taken(model, before, theirs, fresh=("au_head.",))
    assert result == Transfer((), ("au_head",))


def test_a_model_without_attention_needs_no_rules():
    model, before, theirs, result = transferred(config((5, 20), **PLAIN), config())
    assert_taken(model, before, theirs, fresh=("au_head.",))
    assert result == Transfer((), ("au_head",))


def test_a_source_without_a_refinement():
    source = config(refinement=False, gradient_enhancement=1.0)
    model, before, _, result = transferred(config(facs.DISFA_AUS), source)
    assert keys(model, "attention.refinement.").isdisjoint(changed(before, model))
    assert keys(model, "attention.local_features.") <= changed(before, model)
    assert result.fresh == ("attention.refinement", "attention.local_features", "au_head")


def test_a_source_without_local_heads():
    model, before, theirs, result = transferred(config(preset="journal"), config())
    assert_taken(model, before, theirs, fresh=("attention.local_head.",))
    assert result.fresh == ("attention.local_head",)


def test_a_source_without_global_features_or_alignment():
    model, before, theirs, result = transferred(config(**PLAIN), config(**PLAIN, global_features=False))
    assert_taken(model, before, theirs, fresh=("global_features.", "au_head."))
    assert result.fresh == ("global_features", "au_head")
    model, before, theirs, result = transferred(config(**PLAIN), config(**PLAIN, alignment=False))
    assert_taken(model, before, theirs, fresh=("alignment.", "au_head."))
    assert result.fresh == ("alignment", "au_head")


def test_alignment_alone():
    alone = config(**PLAIN, au_detection=False, global_features=False)
    model, before, theirs, result = transferred(alone, config())
    assert_taken(model, before, theirs)
    assert result == Transfer((), ())
    model, before, theirs, result = transferred(config(), alone)
    assert_taken(model, before, theirs, fresh=("global_features.", "attention.", "au_head."))


# What does not fit, and what is said.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 80}, "image_size must be alike, the model has 64, the other 80"),
        ({"width": 2}, "width must be alike, the model has 1, the other 2"),
        ({"region": "R"}, "region must be alike, the model has HMR, the other R"),
        ({"hidden_size": 7}, "hidden_size must be alike, the model has 64, the other 7"),
    ],
)
def test_models_of_other_sizes(changes, message):
    model, source = make(config(), 1.0), make(config(**changes), 2.0)
    before = copied(model)
    with pytest.raises(ValueError, match=f"^{message}$"):
        transfer_weights(model, source)
    assert not changed(before, model)


def test_the_same_embedding_given_in_another_way_fits():
    transfer_weights(make(config(), 1.0), make(config(hidden_size=64), 2.0))


def test_what_a_transfer_says():
    own = facs.AURule((3, 4), 0.25)
    assert str(Transfer((), ())) == "fresh: nothing"
    assert str(Transfer(((1, 1), (9, None)), ("au_head",))) == "fresh: au_head"
    assert str(Transfer(((own, 12),), ())) == f"with {own} from AU 12; fresh: nothing"
    assert str(Transfer(((25, 23), (26, own)), ("a", "b"))) == (
        f"with AU 25 from AU 23, AU 26 from {own}; fresh: a, b"
    )


# ABAW 2021: the journal version first, then graph and head alone.

DATA = Synthetic(train_subjects=1, test_subjects=1, samples_per_subject=1, seed=3)
"""`shrink` says how many."""


class Begun(Listener):
    """Notes what the run takes from the model that it starts from."""

    def on_epoch_start(self, trainer: Trainer) -> None:
        self.transfer = str(trainer.transfer)


def run(name: str, out: Path, init: Path | None = None) -> str:
    recipe = load_recipe(name)
    recipe = shrink(
        recipe.model_copy(update={"data": DATA, "init": None if init is None else str(init)}), "tiny"
    )
    begun = Begun()
    train(recipe, out, device="cpu", listener=begun)
    return begun.transfer


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory):
    """The folders of both stages, and what the second said."""
    folder = tmp_path_factory.mktemp("abaw")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    run("abaw-1", folder / "1")
    text = run("abaw-2", folder / "2", folder / "1" / "model.safetensors")
    torch.set_num_threads(threads)
    return folder / "1", folder / "2", text


def test_the_second_step_trains_graph_and_head_alone(two_steps):
    first, second = (load_model(out / "model.safetensors") for out in two_steps[:2])
    assert type(first) is JAANet and type(second) is JAAGraphNet
    before, after = first.state_dict(), second.state_dict()
    fixed = {key for key in after if not key.startswith(("graph.", "au_head."))}
    assert fixed == {key for key in before if not key.startswith("au_head.")}
    batches = [key for key in fixed if key.endswith("num_batches_tracked")]
    assert len(batches) > 10 and all(before[key] > 0 for key in batches)
    for key in fixed:
        assert before[key].dtype == after[key].dtype and torch.equal(after[key], before[key]), key


def test_the_second_step_trains_all_of_graph_and_head(two_steps):
    """It starts from the fresh weights that the recipe's seed gives."""
    after = load_model(two_steps[1] / "model.safetensors")
    torch.manual_seed(load_recipe("abaw-2").seed)
    fresh = build_model(after.config).state_dict()
    moved = {
        key
        for key, tensor in after.state_dict().items()
        if key.startswith(("graph.", "au_head.")) and not torch.equal(tensor, fresh[key])
    }
    assert moved == {
        "graph.adjacency", "graph.layers.0.weight",
        "au_head.0.weight", "au_head.0.bias", "au_head.1.weight", "au_head.1.bias",
    }  # fmt: skip


def test_the_adjacency_is_that_of_the_training_labels(two_steps):
    model = load_model(two_steps[1] / "model.safetensors")
    # 4 people train; `tiny` draws 4 faces of each, for crops of side 64.
    labels = SyntheticFaces(
        subjects=range(4), samples_per_subject=4, seed=3, size=73, aus=facs.AFFWILD2_AUS
    ).label_matrix()
    assert labels.shape == (16, 12)
    for i in range(12):
        present = labels[labels[:, i] == 1]
        for j in range(12):
            edge = i == j or (len(present) > 0 and present[:, j].sum() >= 0.4 * len(present))
            assert model.graph.adjacency[i, j] == float(edge), (i, j)
    off = model.graph.adjacency - torch.eye(12)
    assert off.any() and not torch.equal(off, off.T), "nothing is tested"


def test_what_the_second_step_says(two_steps):
    _, second, text = two_steps
    assert text == "fresh: au_head, graph"
    header, *rows = (second / "losses.csv").read_text().splitlines()
    names = header.split(",")
    filled = {name for row in rows for name, value in zip(names, row.split(","), strict=True) if value}
    assert filled == {"iteration", "epoch", "au_softmax", "au_dice", "total"}


def test_the_same_seed_gives_the_same_bits(two_steps, tmp_path):
    first, second, _ = two_steps
    torch.rand(5)  # what was drawn before does not matter
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    run("abaw-1", tmp_path / "1")
    run("abaw-2", tmp_path / "2", tmp_path / "1" / "model.safetensors")
    torch.set_num_threads(threads)

    def digest(out, name):
        return hashlib.sha256((out / name).read_bytes()).hexdigest()

    for name in ("model.safetensors", "losses.csv", "predictions.csv", "metrics.json"):
        assert digest(tmp_path / "1", name) == digest(first, name), name
        assert digest(tmp_path / "2", name) == digest(second, name), name


def test_the_control_without_a_graph_trains_the_head_alone(two_steps, tmp_path):
    first = two_steps[0] / "model.safetensors"
    text = run("abaw-2-no-graph", tmp_path / "2", first)
    before, after = load_model(first).state_dict(), load_model(tmp_path / "2" / "model.safetensors")
    assert type(after) is JAANet
    assert changed(before, after) == keys(after, "au_head.")
    assert text == "fresh: nothing"


def test_sides_take_the_branches_and_the_heads_of_both_sides():
    aus = (1, "12L", 17, "12R")
    for preset in ("released", "journal"):
        rated = {"preset": preset, "intensity": True}
        model, _, theirs, result = transferred(config(aus, **rated), config(**rated))
        assert str(result) == "with AU 12L from AU 12, AU 12R from AU 12; fresh: nothing"
        places = [facs.BP4D_AUS.index(au) for au in (1, 12, 17, 12)]
        for key, tensor in model.state_dict().items():
            want = theirs[key]
            if key.startswith(("attention.", "au_head.1.", "au_head.intensity.")) and want.dim():
                # The AU head's last layer gives (2, A) logits: "absent", "present".
                rows = want.view(2 if key.startswith("au_head.1.") else 1, 12, -1)
                want = rows[:, places].reshape(tensor.shape)
            assert torch.equal(tensor, want), key


def test_sides_among_aus_that_the_other_model_lacks():
    model, before, _, result = transferred(config(("12L", "15R", 25)), config((12, "15L")))
    # AU 15R has the centre of no AU there; AU 25 neither.
    assert str(result) == "with AU 12L from AU 12; fresh: " + ", ".join(result.fresh)
    assert keys(model, "au_head.").isdisjoint(changed(before, model))
    assert branch_places(("14L", "12L", "15R"), (12, "12L", 14)) == (2, 1, None)
    result = transferred(graph(("12L", "12R")), graph((12,)))[-1]
    assert set(result.fresh) == {"attention.local_head", "graph", "au_head"}


def test_sides_of_one_model_answer_as_both_sides_of_the_other():
    """At first, for the AU head, whose local features are a mean, where all AUs have as many sides."""
    torch.manual_seed(0)
    plain = {"attention": False, "refinement": False, "gradient_enhancement": 1.0}
    source = build_model(config((1, 12), **plain)).eval()
    model = build_model(config(("12R", "1L", "12L"), **plain)).eval()
    transfer_weights(model, source)
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(image).logits, source(image).logits[..., [1, 0, 1]])


def test_branches_that_the_other_model_has_not_are_not_told():
    model, before, _, result = transferred(config(("12L", "12R")), config((12,), **PLAIN))
    assert result.branches == (("12L", None), ("12R", None)) and str(result).startswith("fresh: ")
    assert {"attention.refinement", "attention.local_features"} <= set(result.fresh)
    assert keys(model, "attention.").isdisjoint(changed(before, model))


def test_sums_of_local_features_of_more_aus_get_a_fresh_head():
    for preset, fresh in (("paper", ("au_head",)), ("released", ())):
        result = transferred(config(("12L", "12R"), preset), config((12,), preset))[-1]
        assert result.fresh == fresh
        assert result.branches == (("12L", 12), ("12R", 12))
    # As many AUs, one of which becomes that of a side.
    assert transferred(config((1, "12L"), "paper"), config((1, 12), "paper"))[-1].fresh == ()
    # No local features, no sum.
    plain = {**PLAIN, "preset": "paper", "padding_removal": False}
    assert transferred(config(("12L", "12R"), **plain), config((12,), **plain))[-1].fresh == ()
