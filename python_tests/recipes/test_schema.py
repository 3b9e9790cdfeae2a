from __future__ import annotations

import dataclasses
import re
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from jaa_ext import facs
from jaa_ext.data import Augmentation
from jaa_ext.experiments.ablate import parts_of
from jaa_ext.models import JAAGraphNetConfig, JAANetConfig, build_model
from jaa_ext.recipes.datasets import Prepared, Rendered, Synthetic
from jaa_ext.recipes.schema import Loss, Recipe, RecipeError, builtin_recipes, difference, load_recipe

GOOD = """
name: tiny
model: {aus: [1, 6, 12], image_size: 64, width: 2}
data: {train_subjects: 3, test_subjects: 2, samples_per_subject: 4}
batch_size: 4
loss: {attention: 1e-7}
stages:
  - {name: all, epochs: 2, lr: 0.01}
  - {name: late, epochs: 1, lr: 1e-3, train: [alignment], align: 1}
"""

BP4D, DISFA, AFFWILD2 = facs.BP4D_AUS, facs.DISFA_AUS, facs.AFFWILD2_AUS
GLOBAL: dict[str, Any] = {
    "attention": False, "refinement": False, "padding_removal": False, "gradient_enhancement": 1.0,
}  # fmt: skip
"""What a network without local features lacks."""
MODELS: dict[str, JAANetConfig] = {
    "r-net": JAANetConfig.paper(BP4D, region="R", alignment=False, **GLOBAL),
    "hmr-net": JAANetConfig.paper(BP4D, alignment=False, **GLOBAL),
    "hmr-net-d": JAANetConfig.paper(BP4D, alignment=False, **GLOBAL),
    "hmr-net-dw": JAANetConfig.paper(BP4D, alignment=False, **GLOBAL),
    "hmr-net-dwa": JAANetConfig.paper(BP4D, **GLOBAL),
    "paper": JAANetConfig.paper(BP4D),
    "no-ar": JAANetConfig.paper(BP4D, refinement=False, gradient_enhancement=1.0),
    "no-be": JAANetConfig.paper(BP4D, gradient_enhancement=1.0),
    "no-ga": JAANetConfig.paper(BP4D, decay=0.0),
    "no-au": JAANetConfig.paper(BP4D, au_detection=False, global_features=False, **GLOBAL),
    "released": JAANetConfig.released(BP4D),
    "journal": JAANetConfig.journal(BP4D),
    "paper-disfa": JAANetConfig.paper(DISFA),
    "released-disfa": JAANetConfig.released(DISFA),
    "journal-disfa": JAANetConfig.journal(DISFA),
    "abaw-1": JAANetConfig.journal(AFFWILD2, image_size=112),
    "abaw-2": JAAGraphNetConfig.graph(AFFWILD2),
    "abaw-2-no-graph": JAANetConfig.journal(AFFWILD2, image_size=112),
}
"""Every published experiment."""

Schedule = list[tuple[int, float, float | None, tuple[str, ...] | None]]
"""Epochs, learning rate, lambda1 in place of the loss's and trained modules of each stage."""


def _three_steps(lr: float) -> Schedule:
    return [
        (8, lr, None, None),
        (2, 0.001, 1, ("alignment", "au_head")),
        (2, 0.001, 1, ("global_features", "attention")),
    ]


PAPER = {"align": 0.5, "attention": 1e-7, "attention_reduction": "sum"}
RELEASED = {"align": 0.5, "attention": 2e-4, "attention_reduction": "mean"}
JOURNAL = {"align": 0.5, "attention": 0, "local": 1}
GRAPH = {"align": 0, "attention": 0, "local": 0}
SECOND: Schedule = [(3, 0.01, None, ("graph", "au_head"))]
TRAINING: dict[str, tuple[Schedule, dict[str, Any], int]] = {
    **{name: (_three_steps(0.01), PAPER, 9) for name in ("hmr-net-dw", "hmr-net-dwa", "paper")},
    **{name: (_three_steps(0.01), PAPER, 9) for name in ("no-ar", "no-be", "no-ga")},
    "r-net": (_three_steps(0.01), {**PAPER, "dice": 0, "weighted": False}, 9),
    "hmr-net": (_three_steps(0.01), {**PAPER, "dice": 0, "weighted": False}, 9),
    "hmr-net-d": (_three_steps(0.01), {**PAPER, "weighted": False}, 9),
    "no-au": ([(8, 0.01, None, None), (2, 0.001, 1, ("alignment",))], PAPER, 9),
    "paper-disfa": (_three_steps(0.001), PAPER, 9),
    "released": ([(12, 0.01, None, None)], RELEASED, 8),
    "released-disfa": ([(12, 0.01, None, None)], RELEASED, 8),
    "journal": ([(12, 0.01, None, None)], JOURNAL, 8),
    "journal-disfa": ([(12, 0.01, None, None)], JOURNAL, 8),
    "abaw-1": ([(4, 0.01, None, None)], JOURNAL, 8),
    "abaw-2": (SECOND, GRAPH, 8),
    "abaw-2-no-graph": (SECOND, GRAPH, 8),
}
"""Schedule, loss and batch size."""

PARTS_OF = {
    "r-net": "R S GF",
    "hmr-net": "HMR S GF",
    "hmr-net-d": "HMR S D GF",
    "hmr-net-dw": "HMR S D W GF",
    "hmr-net-dwa": "HMR S D W FA GF",
    "paper": "HMR S D W FA GF LF AR BE GA",
    "no-ar": "HMR S D W FA GF LF GA",
    "no-be": "HMR S D W FA GF LF AR GA",
    "no-ga": "HMR S D W FA GF LF AR BE UA",
    "no-au": "HMR FA",
}
"""Table 3 of ECCV 2018, and alignment alone."""


def problem(tmp_path: Path, old: str, new: str) -> str:
    """What `load_recipe` says of GOOD with one change."""
    assert old in GOOD
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    return str(caught.value)


def test_every_builtin_recipe_loads() -> None:
    assert set(builtin_recipes()) == {"demo", "rendered", *MODELS}
    for name in builtin_recipes():
        assert load_recipe(name).name == name


@pytest.mark.parametrize("name", MODELS)
def test_a_published_experiment(name: str) -> None:
    """Its model, its losses and its schedule, to the last figure."""
    recipe = load_recipe(name)
    schedule, loss, batch_size = TRAINING[name]
    assert recipe.model.config() == MODELS[name]
    assert type(recipe.model.config()) is type(MODELS[name])
    assert [(s.epochs, s.lr, s.align, s.train) for s in recipe.stages] == schedule
    for stage in recipe.stages:
        assert (stage.schedule, stage.lr_decay, stage.lr_decay_every, stage.warmup) == ("step", 0.3, 2, 0)
    assert recipe.loss == Loss(**loss)
    assert recipe.optimizer.model_dump() == {"momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}
    assert recipe.batch_size == batch_size
    assert recipe.data == Prepared(name="prepared")
    assert recipe.init is None


@pytest.mark.parametrize(("name", "parts"), PARTS_OF.items())
def test_a_published_experiment_has_the_parts_of_its_row(name: str, parts: str) -> None:
    assert parts_of(load_recipe(name)) == set(parts.split())


@pytest.mark.parametrize("name", MODELS)
def test_a_published_model_gives_what_it_should(name: str) -> None:
    config = load_recipe(name).model.config()
    small = dataclasses.replace(config, image_size=64, width=1)
    with torch.no_grad():
        output = build_model(small).eval()(torch.zeros(1, 3, 64, 64))
    given = {field for field, value in vars(output).items() if value is not None}
    aus, landmarks = {"logits"}, {"landmarks"}
    maps, refined = {"initial_maps", "target_maps"}, {"refined_maps"}
    wanted = {
        "r-net": aus,
        "hmr-net": aus,
        "hmr-net-d": aus,
        "hmr-net-dw": aus,
        "hmr-net-dwa": aus | landmarks,
        "no-ar": aus | landmarks | maps,
        "no-au": landmarks,
    }.get(name, aus | landmarks | maps | refined)
    if name.startswith(("journal", "abaw")):
        wanted |= {"local_logits"}
    assert given == wanted
    if output.logits is not None:
        assert output.logits.shape == (1, 2, len(config.aus))


def test_model_fields_change_the_preset(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD.replace("model: {", "model: {preset: paper, gradient_enhancement: 1, "))
    config = load_recipe(path).model.config()
    assert config == JAANetConfig.paper((1, 6, 12), image_size=64, width=2, gradient_enhancement=1)


def test_exponents_without_a_point_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD)
    recipe = load_recipe(path)
    assert recipe.loss.attention == 1e-7
    assert recipe.stages[1].lr == 0.001


def test_a_written_recipe_reads_back_equal(tmp_path: Path) -> None:
    path, copy = tmp_path / "mine.yaml", tmp_path / "copy.yaml"
    path.write_text(GOOD)
    recipe = load_recipe(path)
    copy.write_text(recipe.to_yaml())
    assert load_recipe(copy) == recipe
    assert load_recipe(copy) != recipe.model_copy(update={"seed": 1})
    for name in builtin_recipes():
        copy.write_text(load_recipe(name).to_yaml())
        assert load_recipe(copy) == load_recipe(name)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("lr: 0.01", "lr: fast", ["stages.0.lr: ", "number above 0", 'got "fast"']),
        ("lr: 0.01", 'lr: "0.01"', ["stages.0.lr: ", "number above 0", 'got "0.01"']),
        ("lr: 0.01", "lr: -1", ["stages.0.lr: ", "number above 0", "got -1"]),
        ("lr: 0.01", "lr: .nan", ["stages.0.lr: ", "number above 0", "got NaN"]),
        ("lr: 0.01", "lr: true", ["stages.0.lr: ", "number above 0", "got true"]),
        ("lr: 0.01", "lrr: 0.01", ["stages.0.lr: ", "missing"]),
        ("lr: 0.01", "lr: 1, lrr: 2", ["stages.0.lrr: unknown", '"lr"']),
        ("size: 4", "size: 4.5", ["batch_size: ", "whole number of at least 1", "got 4.5"]),
        ("align: 1", "align: much", ["stages.1.align: ", "number of at least 0", 'got "much"']),
        (
            "[alignment]",
            "[alinment]",
            ["stages.1.train.0: ", "region_learning, alignment, global_features, attention, graph, au_head",
             'got "alinment"'],
        ),
        ("batch_size", "batchsize", ["batchsize: unknown", '"batch_size"']),
        ("width: 2", "widht: 2", ["model.widht: unknown", '"width"']),
        ("width: 2", "width: wide", ["model.width: ", "whole number", 'got "wide"']),
        ("width: 2", "region: XX", ["model.region: ", "'R' or 'HMR'", 'got "XX"']),
        ("[1, 6, 12]", "[1, six]", ["model.aus.1: ", "AU number", "number, points and dy", 'got "six"']),
        ("[1, 6, 12]", "6", ["model.aus: ", "list of AU numbers", "got 6"]),
        ("[1, 6, 12]", "[1, 6, 1]", ["model: ", "AU 1 more than once"]),
        ("[1, 6, 12]", "[1, 3]", ["model: ", "AU 3", "known are 1, 2, 4, "]),
        ("width: 2", "threshold: 0.4", ["model: threshold", '"graph"', 'got "released"']),
        (
            "width: 2",
            "preset: graph, graph_widths: [8, none]",
            ["model.graph_widths.1: ", "list of whole numbers", 'got "none"'],
        ),
        (
            "width: 2",
            "preset: graph, attention: false, refinement: false, local_loss: false",
            ["model: graph_widths", "attention=True"],
        ),
        ("batch_size: 4", "batch_size: 4\ninit: 3", ["init: ", "text", "got 3"]),
        ("width: 2", "width: 0", ["model: width", "at least 1", "got 0"]),
        ("width: 2", "alignment: false", ["model: attention=True", "alignment=True"]),
        ("{attention: 1e-7}", "3", ["loss: ", "keys and values", "got 3"]),
        ("name: tiny", "name: tiny\nname: two", ['"name"', "twice"]),
        ("loss:", "optimizer: {momentum: 0}\nloss:", ["optimizer: nesterov", "momentum above 0"]),
        (
            "batch_size: 4",
            "batch_size: 4\nprecision: 16-mixed\ntrainer: {cuda_graph: true}",
            ["trainer: cuda_graph=true", 'precision "32-true" or "bf16-mixed"', 'got "16-mixed"'],
        ),
        ("batch_size: 4", "batch_size: 4\ntrainer: {graph: true}", ["graph: unknown", '"cuda_graph"']),
        ("name: tiny", "name: [", ["not YAML: "]),
    ],
)  # fmt: skip
def test_each_problem_is_one_sentence(tmp_path: Path, old: str, new: str, words: list[str]) -> None:
    lines = problem(tmp_path, old, new).splitlines()
    assert any(all(word in line for word in words) for line in lines)
    assert all(line.startswith("mine.yaml: ") for line in lines)
    assert len(lines) == (2 if "lrr: 0.01" in new or "batchsize" in new else 1)


def test_several_problems_are_all_told(tmp_path: Path) -> None:
    lines = problem(tmp_path, "lr: 0.01}", "lr: fast, warmup: -3}").splitlines()
    assert [line.split(": ")[1] for line in lines] == ["stages.0.lr", "stages.0.warmup"]


@pytest.mark.parametrize("text", ["", "- 1", "just words"])
def test_a_file_without_keys(tmp_path: Path, text: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(RecipeError, match=r"^mine\.yaml: .*keys and values, got "):
        load_recipe(tmp_path / "mine.yaml")


def test_an_unknown_name_lists_the_builtin_ones() -> None:
    with pytest.raises(RecipeError, match=r"^papr: no such recipe; .*demo, .*paper"):
        load_recipe("papr")


def test_test_subjects_are_none_of_the_training_subjects(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(GOOD)
    recipe = load_recipe(tmp_path / "mine.yaml")
    training, test = recipe.data.build(recipe.model.config())
    assert (len(training.subjects), len(test.subjects)) == (3, 2)
    assert not set(training.subjects) & set(test.subjects)
    assert (len(training), len(test)) == (12, 8)
    assert training.aus == (1, 6, 12)
    assert training[0].image.shape == (73, 73, 3)  # 64 * 200 / 176


def test_difference_names_keys_and_values(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GOOD)
    changed = yaml.safe_load(GOOD)
    changed["stages"][0]["lr"] = 0.02
    changed["seed"] = 7
    changed["loss"]["attention"] = 1e-7  # the plain loader reads text
    changed["stages"][1]["lr"] = 1e-3
    (tmp_path / "b.yaml").write_text(yaml.safe_dump(changed))
    text = difference(load_recipe(tmp_path / "a.yaml"), load_recipe(tmp_path / "b.yaml"))
    assert text == "seed was 0, is 7; stages.0.lr was 0.01, is 0.02"


def write(folder: Path, **texts: str) -> Path:
    """Recipe files by their names; gives the first."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder / f"{next(iter(texts))}.yaml"


def test_augmentation_is_off_unless_a_recipe_asks_for_it(tmp_path: Path) -> None:
    assert {name for name in builtin_recipes() if load_recipe(name).augment is not None} == {"rendered"}
    usual = load_recipe(write(tmp_path, usual=GOOD + "augment: {}"))
    assert usual.augment == Augmentation()
    some = load_recipe(write(tmp_path, some=GOOD + "augment: {blur: 0.2, geometry: 0}"))
    assert some.augment == Augmentation(blur=0.2, geometry=0)
    (tmp_path / "copy.yaml").write_text(some.to_yaml())
    assert load_recipe(tmp_path / "copy.yaml") == some
    for text, words in (
        ("{blur: 2}", ["augment.blur: ", "from 0 to 1", "got 2"]),
        ("{colour: -1}", ["augment.colour: ", "from 0 to 3", "got -1"]),
        ("{colours: 1}", ["augment.colours: unknown", '"colour"']),
        ("true", ["augment: ", "keys and values", "{}", "got true"]),
    ):
        (line,) = problem(tmp_path, "batch_size: 4", f"batch_size: 4\naugment: {text}").splitlines()
        assert all(word in line for word in words)


def test_a_recipe_holds_what_differs_from_its_base(tmp_path: Path) -> None:
    own = """
    base: good.yaml
    name: own
    seed: 4
    model: {width: 3}
    loss: {attention: 0, dice: 2}
    stages:
      - {name: only, epochs: 5, lr: 0.5}
    """
    recipe = load_recipe(write(tmp_path, own=own, good=GOOD))
    base = load_recipe(tmp_path / "good.yaml")
    assert (recipe.name, recipe.seed, base.seed) == ("own", 4, 0)
    assert recipe.model.config() == JAANetConfig.released((1, 6, 12), image_size=64, width=3)
    assert (recipe.loss.attention, recipe.loss.dice, recipe.loss.align) == (0, 2, 0.5)
    assert (recipe.data, recipe.batch_size) == (base.data, 4)
    assert [(s.name, s.epochs, s.lr, s.align) for s in recipe.stages] == [("only", 5, 0.5, None)]


def test_lists_are_replaced_and_not_joined(tmp_path: Path) -> None:
    own = "base: good.yaml\nmodel: {aus: [4]}"
    recipe = load_recipe(write(tmp_path, own=own, good=GOOD))
    assert (recipe.name, recipe.model.aus) == ("tiny", (4,))
    assert recipe.stages == load_recipe(tmp_path / "good.yaml").stages


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        ("{test_subjects: 7}", Synthetic(train_subjects=3, test_subjects=7, samples_per_subject=4)),
        (
            "{name: synthetic, seed: 2}",
            Synthetic(train_subjects=3, test_subjects=2, samples_per_subject=4, seed=2),
        ),
        ("{name: prepared, folder: faces}", Prepared(name="prepared", folder="faces")),
        (
            "{name: rendered, train_subjects: 1, test_subjects: 2, samples_per_subject: 3}",
            Rendered(name="rendered", train_subjects=1, test_subjects=2, samples_per_subject=3),
        ),
    ],
)
def test_data_of_another_name_is_replaced_whole(tmp_path: Path, data: str, wanted: Any) -> None:
    assert load_recipe(write(tmp_path, own=f"base: good.yaml\ndata: {data}", good=GOOD)).data == wanted


def test_a_fold_of_the_base_s_prepared_data(tmp_path: Path) -> None:
    own = write(tmp_path, own="base: paper\ndata: {folder: here, test_fold: '2'}")
    assert load_recipe(own).data == Prepared(name="prepared", folder="here", test_fold="2")


def test_a_base_has_a_base(tmp_path: Path) -> None:
    top = write(
        tmp_path,
        top="base: middle.yaml\nname: top\nloss: {dice: 3}",
        middle="base: good.yaml\nseed: 9\nloss: {dice: 2, smooth: 0.5}",
        good=GOOD,
    )
    recipe = load_recipe(top)
    assert (recipe.name, recipe.seed, recipe.batch_size) == ("top", 9, 4)
    assert (recipe.loss.dice, recipe.loss.smooth, recipe.loss.attention) == (3, 0.5, 1e-7)


def test_a_base_lies_beside_the_file_that_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "common", good=GOOD, middle="base: good.yaml\nseed: 5")
    own = write(tmp_path / "mine", own="base: ../common/middle.yaml\nname: own", good="- wrong")
    monkeypatch.chdir(tmp_path)
    assert load_recipe(own).seed == load_recipe("mine/own.yaml").seed == 5


def test_a_builtin_recipe_comes_before_a_file_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("journal").write_text("- wrong")  # what abaw-1 is based on
    assert load_recipe("abaw-2").model.config() == MODELS["abaw-2"]
    Path("paper.yaml").write_text("base: paper\nseed: 3")
    assert load_recipe("paper.yaml") == load_recipe("paper").model_copy(update={"seed": 3})


@pytest.mark.parametrize(
    "texts",
    [
        {"a": "base: a.yaml"},
        {"a": "base: b.yaml", "b": "base: a.yaml"},
        {"a": "base: b.yaml", "b": "base: c.yaml", "c": "base: ./b.yaml"},
    ],
)
def test_bases_that_go_round_in_circles(tmp_path: Path, texts: dict[str, str]) -> None:
    with pytest.raises(RecipeError, match=r'^[abc]\.yaml: base: .*got "(\./)?[ab]\.yaml"$'):
        load_recipe(write(tmp_path, **texts))


def test_two_files_of_one_name_are_no_circle(tmp_path: Path) -> None:
    write(tmp_path, same=GOOD)
    write(tmp_path / "in", same="base: ../same.yaml\nseed: 1")
    recipe = load_recipe(write(tmp_path / "in" / "in", same="base: ../same.yaml\nloss: {dice: 2}"))
    assert (recipe.seed, recipe.loss.dice, recipe.batch_size) == (1, 2, 4)


def test_a_base_that_is_missing_is_told_with_the_file_that_names_it(tmp_path: Path) -> None:
    top = write(tmp_path, top="base: middle.yaml", middle="base: papr")
    with pytest.raises(RecipeError, match=r"^middle\.yaml: base: \S*papr: no such recipe"):
        load_recipe(top)


@pytest.mark.parametrize(
    ("base", "got"), [("3", "3"), ("[paper]", r"\["), ("{name: paper}", "{"), ("true", "true")]
)
def test_a_base_that_is_no_name(tmp_path: Path, base: str, got: str) -> None:
    with pytest.raises(RecipeError, match=rf"^own\.yaml: base: .*another recipe, got {got}"):
        load_recipe(write(tmp_path, own=f"base: {base}"))


def test_a_problem_over_a_base_names_the_file_that_was_asked_for(tmp_path: Path) -> None:
    own = write(tmp_path, own="base: good.yaml\nmodel: {widht: 3}", good=GOOD)
    with pytest.raises(RecipeError, match=r'^own\.yaml: model\.widht: unknown .*"width"$'):
        load_recipe(own)


def test_a_recipe_with_a_base_is_written_whole(tmp_path: Path) -> None:
    own = write(tmp_path, own="base: good.yaml\nmodel: {width: 3}\ninit: some.safetensors", good=GOOD)
    recipe = load_recipe(own)
    copy = write(tmp_path / "elsewhere", copy=recipe.to_yaml())
    assert "base" not in yaml.safe_load(recipe.to_yaml())
    assert load_recipe(copy) == recipe
    assert recipe.init == "some.safetensors"


RULES = "{number: 20, points: [31, 37], dy: 0.1}, 6, {number: 12, points: [0, 48]}"


def test_rules_of_one_s_own(tmp_path: Path) -> None:
    mine = write(tmp_path, mine=GOOD.replace("[1, 6, 12]", f"[{RULES}]"))
    recipe = load_recipe(mine)
    own, other = facs.AURule((31, 37), 0.1, 20), facs.AURule((0, 48), 0.0, 12)
    assert recipe.model.config().aus == (own, 6, other)
    assert all(isinstance(au.dy, float) for au in (own, other))
    copy = write(tmp_path, copy=recipe.to_yaml())
    assert load_recipe(copy) == recipe
    assert load_recipe(copy).model.config().aus == (own, 6, other)
    assert load_recipe(write(tmp_path, good=GOOD)) != recipe


def test_aus_of_one_side(tmp_path: Path) -> None:
    aus = '12L, 6, "12R", {number: 16, points: [36, 36], side: L}'
    recipe = load_recipe(write(tmp_path, mine=GOOD.replace("[1, 6, 12]", f"[{aus}]")))
    mine = facs.AURule((36, 36), 0.0, 16, "L")
    assert recipe.model.config().aus == ("12L", 6, "12R", mine)
    assert load_recipe(write(tmp_path, copy=recipe.to_yaml())) == recipe
    for wrong, sentence in (
        ("AU12L", "should be an AU number, with L or R for one side, or a rule"),
        ("12l", "should be an AU number, with L or R for one side, or a rule"),
        ("17L", "no rule for AU 17L: known are 1, 2, 4, "),
        ("{number: 16, points: [36, 36], side: right}", 'side must be "L" or "R"'),
        ("{number: 16, points: [36, 99]}", "mine.yaml: model.aus.0: points must be two landmark"),
        ("{number: 16, points: [36, 36], side: R}", "must be on the person's right, got landmark 36"),
    ):
        path = write(tmp_path, mine=GOOD.replace("[1, 6, 12]", f"[{wrong}]"))
        with pytest.raises(RecipeError) as caught:
            load_recipe(path)
        assert sentence in str(caught.value) and len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "rule",
    [
        "{points: [31, 37]}",
        "{number: 20}",
        "{number: 20, points: [31]}",
        "{number: 20, points: [31, 37, 38]}",
        "{number: 20, points: [31, right]}",
        "{number: lip, points: [31, 37]}",
        "{number: 20, points: [31, 37], dx: 0.1}",
        "{number: 20, points: [31, 37], dy: much}",
        "{number: 20, points: [31, 37], dy: null}",
        "{number: 20, points: [31, 37], dy: [1]}",
        "{number: 20, points: [31, 37], dy: .nan}",
        "true",
        "1.0",
        "null",
        "[20, 31, 37]",
    ],
)
def test_a_malformed_rule_is_one_sentence(tmp_path: Path, rule: str) -> None:
    (line,) = problem(tmp_path, "[1, 6, 12]", f"[6, {rule}]").splitlines()
    assert re.match(r"mine\.yaml: model\.aus\.1: .*AU number.* number, points and dy, got .", line)


def test_points_that_are_no_landmarks(tmp_path: Path) -> None:
    text = problem(tmp_path, "[1, 6, 12]", "[{number: 20, points: [31, 49]}]")
    assert re.match(r"mine\.yaml: model\.aus\.0: .*points .*in 0\.\.48, got \(31, 49\)$", text)


def test_widths_of_the_graph_are_a_list(tmp_path: Path) -> None:
    model = "preset: graph, graph_widths: [8, 4], threshold: 0.25"
    recipe = load_recipe(write(tmp_path, mine=GOOD.replace("width: 2", model)))
    assert recipe.model.config() == JAAGraphNetConfig.graph(
        (1, 6, 12), image_size=64, graph_widths=(8, 4), threshold=0.25
    )
    assert load_recipe(write(tmp_path, copy=recipe.to_yaml())) == recipe


# What a recipe's file could do to its reader.

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
NO_ANCHORS, TOO_DEEP, TOO_BIG = (
    ["not YAML: ", "anchors (&)"],
    ["not YAML: ", "20 lists"],
    "beyond whole numbers",
)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("name: tiny", LAUGHS, NO_ANCHORS),
        ("loss:", "x: &a [*a]\nloss:", NO_ANCHORS),
        ("width: 2", "width: &w 2", NO_ANCHORS),
        ("loss:", f"x: {5000 * '['}{5000 * ']'}\nloss:", TOO_DEEP),
        ("loss:", f"x: {500 * '{a: '}1{500 * '}'}\nloss:", TOO_DEEP),
        ("loss:", "x: !!python/object/apply:os.system ['true']\nloss:", ["not YAML: ", "tags (!)"]),
        ("loss:", "init: !!binary aGVsbG8=\nloss:", ["not YAML: ", "tags (!)"]),
        ("loss:", "--- {}\nloss:", ["not YAML: ", "single document"]),
        ("loss:", "<<: {seed: 3}\nloss:", ["not YAML: ", "key should be text"]),
        ("loss:", "3: 3\nloss:", ["not YAML: ", "key should be text"]),
        ("loss:", "[a, b]: 3\nloss:", ["not YAML: ", "key should be text"]),
        ("loss:", "seed: 18446744073709551616\nloss:", ["18446744073709551616 is", TOO_BIG]),
        ("loss:", f"seed: {5000 * '9'}\nloss:", ["999... is", TOO_BIG]),
        ("loss:", f"seed: 0x{5000 * 'f'}\nloss:", ["fff... is", TOO_BIG]),
        ("loss:", f"seed: {2000 * '9:'}9\nloss:", [":9... is", TOO_BIG]),
        ("loss:", "seed: -1\nloss:", ["seed: ", "at least 0", "got -1"]),
        ("loss:", "workers: 1000000\nloss:", ["workers: ", "at most 1024", "got 1000000"]),
        ("size: 4", "size: 1000000000000", ["batch_size: ", "at most 65536", "got 1000000000000"]),
        ("subjects: 3", "subjects: 100000000", ["data.train_subjects: ", "at most 10000000", "got 10000"]),
        ("subject: 4", "subject: 9000000", ["data: subjects and their samples", "at most 10000000"]),
        ("epochs: 2", "epochs: 1e400", ["stages.0.epochs: ", "at least 1", "got Infinity"]),
        ("epochs: 2", "epochs: 100000000", ["stages.0.epochs: ", "at most 10000000", "got 100000000"]),
        ("lr: 0.01", "lr: 1e400", ["stages.0.lr: ", "above 0", "got Infinity"]),
        ("lr: 0.01", "lr: 1, lr_decay: .nan", ["stages.0.lr_decay: ", "above 0 and up to 1", "got NaN"]),
        ("align: 1", "align: .inf", ["stages.1.align: ", "at least 0", "got Infinity"]),
        ("loss:", "optimizer: {momentum: .nan}\nloss:", ["optimizer.momentum: ", "0 to below 1", "got NaN"]),
        ("size: 64", "size: 1600000000", ["model: image_size", "at most 4096", "got 1600000000"]),
        ("width: 2", "decay: .inf", ["model: decay", "finite", "got inf"]),
        ("width: 2", "gradient_enhancement: .inf", ["model: gradient_enhancement", "finite", "got inf"]),
        ("[1, 6, 12]", f"[{', '.join(['12'] * 5000)}]", ["model: aus", "at most 1000", "got 5000"]),
        (
            "width: 2",
            "preset: graph, graph_widths: [1000000000000]",
            ["graph_widths", "at most 64", "at most 16777216", "got 1 up to 1000000000000"],
        ),
        ("[1, 6, 12]", "[{number: 0, points: [1, 2]}]", ["model.aus.0: ", "number", "at least 1", "got 0"]),
    ],
)  # fmt: skip
def test_what_is_no_recipe_at_all(tmp_path: Path, old: str, new: str, words: list[str]) -> None:
    start = time.perf_counter()
    (line,) = problem(tmp_path, old, new).splitlines()
    assert line.startswith("mine.yaml: ") and all(word in line for word in words) and len(line) < 400
    assert time.perf_counter() - start < 5


def test_of_many_problems_a_few_are_told(tmp_path: Path) -> None:
    keys = "".join(f"k{i}: 1\n" for i in range(4000))
    start = time.perf_counter()
    lines = problem(tmp_path, "loss:", f"{keys}loss:").splitlines()
    assert time.perf_counter() - start < 10
    assert [line.split(": ")[1] for line in lines] == ["k0", "k1", "k2", "k3", "k4", "and 3995 more problems"]
    long = 30 * "key"
    assert len(problem(tmp_path, "loss:", f"{long}: 1\nloss:")) < 200


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"name: \xff\xfe\n", "UTF-8.* in place 6"),
        (GOOD.encode("utf-16"), "UTF-8.* in place 0"),
        (bytes(range(1, 100)), "not YAML: "),
        (b"a: 1\n" * 20_000, "at most 65,536 bytes"),
        (b"".join(b"k%d: 1\n" % i for i in range(20_000)), "at most 65,536 bytes"),
    ],
)
def test_a_file_of_other_bytes(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "mine.yaml").write_bytes(content)
    with pytest.raises(RecipeError, match=rf"^mine\.yaml: .*{words}"):
        load_recipe(tmp_path / "mine.yaml")


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert load_recipe(tmp_path / "mine.yaml").name == "tiny"


def test_a_long_row_of_bases(tmp_path: Path) -> None:
    row = {f"b{i}": f"base: b{i + 1}.yaml" for i in range(30)}
    first = write(tmp_path, **row, b30=GOOD)
    with pytest.raises(RecipeError, match=r"^b20\.yaml: base: .*at most 20 recipes"):
        load_recipe(first)
    assert load_recipe(tmp_path / "b15.yaml").name == "tiny"


@pytest.mark.parametrize("base", ['"a\\0b"', "a" * 5000, "''", "."])
def test_a_base_of_an_impossible_name(tmp_path: Path, base: str) -> None:
    with pytest.raises(RecipeError, match=r"^own\.yaml: base: .*: no such recipe"):
        load_recipe(write(tmp_path, own=f"base: {base}"))


@pytest.mark.parametrize(
    "name", ["1e5", "2020-01-01", "true", "0x1f", "1:30", "=", "<<", "a: b", "[/b]", "\u2028"]
)
def test_a_name_that_looks_like_something_else_is_written_as_text(tmp_path: Path, name: str) -> None:
    (tmp_path / "mine.yaml").write_text(GOOD)
    recipe = load_recipe(tmp_path / "mine.yaml").model_copy(update={"name": name})
    (tmp_path / "mine.yaml").write_text(recipe.to_yaml())
    assert load_recipe(tmp_path / "mine.yaml") == recipe


def test_a_model_of_other_aus() -> None:
    rule = {"number": 12, "points": [0, 9], "dy": -0.5}
    model = Recipe.model_validate(
        {
            **yaml.safe_load(GOOD.replace("1e-7", "0.1").replace("1e-3", "0.1")),
            "model": {"aus": [6, rule], "width": 3},
        }
    ).model
    other = model.with_aus((1, 12, 26))
    assert other.config().aus == (1, facs.AURule((0, 9), -0.5, 12), 26)
    assert other.config().width == 3 and model.config().aus[0] == 6
    with pytest.raises(ValueError, match="no rule for AU 16"):
        model.with_aus((1, 16))
    with pytest.raises(ValueError, match=r"^aus has AU 1 more than once$"):
        model.with_aus((1, 1))
