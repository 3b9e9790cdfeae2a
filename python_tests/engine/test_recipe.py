from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from jaa_ext import facs
from jaa_ext.engine.recipe import RecipeError, builtin_recipes, difference, load_recipe
from jaa_ext.models import JAANetConfig

GOOD = """
name: tiny
model: {aus: [1, 6, 12], image_size: 64, width: 2}
data: {train_subjects: 3, test_subjects: 2, samples_per_subject: 4}
batch_size: 4
loss: {attention: 1e-7}
steps:
  - {name: all, epochs: 2, lr: 0.01}
  - {name: late, epochs: 1, lr: 1e-3, train: [alignment], align: 1}
"""


def problem(tmp_path: Path, old: str, new: str) -> str:
    """What `load_recipe` says of GOOD with one change."""
    assert old in GOOD
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    return str(caught.value)


def test_every_builtin_recipe_loads() -> None:
    assert set(builtin_recipes()) >= {"demo", "released", "paper", "journal"}
    for name in builtin_recipes():
        assert load_recipe(name).name == name


def test_paper_has_the_three_steps_of_its_text() -> None:
    recipe = load_recipe("paper")
    assert recipe.model.config() == JAANetConfig.paper(facs.BP4D_AUS)
    assert (recipe.batch_size, recipe.epochs) == (9, 12)
    assert recipe.optimizer.model_dump() == {"momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}
    assert (recipe.loss.align, recipe.loss.attention, recipe.loss.attention_reduction) == (0.5, 1e-7, "sum")
    assert [(s.epochs, s.lr, s.lr_decay, s.lr_decay_every, s.align) for s in recipe.steps] == [
        (8, 0.01, 0.3, 2, None),
        (2, 0.001, 0.3, 2, 1),
        (2, 0.001, 0.3, 2, 1),
    ]
    assert [s.train for s in recipe.steps] == [
        None,
        ("alignment", "au_head"),
        ("global_features", "attention"),
    ]


def test_released_and_journal_train_in_one_step() -> None:
    released, journal = load_recipe("released"), load_recipe("journal")
    assert released.model.config() == JAANetConfig.released(facs.BP4D_AUS)
    assert (released.loss.attention, released.loss.attention_reduction) == (2e-4, "mean")
    assert journal.model.config() == JAANetConfig.journal(facs.BP4D_AUS)
    assert (journal.loss.attention, journal.loss.local) == (0, 1)
    for recipe in (released, journal):
        (step,) = recipe.steps
        assert (step.epochs, step.lr, step.lr_decay, step.lr_decay_every) == (12, 0.01, 0.3, 2)
        assert (recipe.batch_size, recipe.loss.align, step.train) == (8, 0.5, None)


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
    assert recipe.steps[1].lr == 0.001


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
    ("old", "new", "sentence"),
    [
        ("lr: 0.01", "lr: fast", 'mine.yaml: steps.0.lr: should be a number above 0, got "fast"'),
        ("lr: 0.01", 'lr: "0.01"', 'mine.yaml: steps.0.lr: should be a number above 0, got "0.01"'),
        ("lr: 0.01", "lr: -1", "mine.yaml: steps.0.lr: should be a number above 0, got -1"),
        ("lr: 0.01", "lr: .nan", "mine.yaml: steps.0.lr: should be a number above 0, got NaN"),
        ("lr: 0.01", "lr: true", "mine.yaml: steps.0.lr: should be a number above 0, got true"),
        ("lr: 0.01", "lrr: 0.01", "mine.yaml: steps.0.lr: is missing"),
        ("lr: 0.01", "lr: 1, lrr: 2", 'mine.yaml: steps.0.lrr: unknown key, the nearest known one is "lr"'),
        ("size: 4", "size: 4.5", "mine.yaml: batch_size: should be a whole number of at least 1, got 4.5"),
        ("align: 1", "align: much", 'mine.yaml: steps.1.align: should be a number of at least 0, got "much"'),
        (
            "[alignment]",
            "[alinment]",
            "mine.yaml: steps.1.train.0: should be a list of modules out of region_learning, alignment, "
            'global_features, attention, au_head, got "alinment"',
        ),
        ("batch_size", "batchsize", 'batchsize: unknown key, the nearest known one is "batch_size"'),
        ("width: 2", "widht: 2", 'mine.yaml: model.widht: unknown key, the nearest known one is "width"'),
        ("width: 2", "width: wide", 'mine.yaml: model.width: should be a whole number, got "wide"'),
        ("width: 2", "region: XX", "mine.yaml: model.region: should be 'R' or 'HMR', got \"XX\""),
        ("[1, 6, 12]", "[1, six]", 'mine.yaml: model.aus.1: should be a list of AU numbers, got "six"'),
        ("width: 2", "width: 0", "mine.yaml: model: width must be at least 1, got 0"),
        ("width: 2", "alignment: false", "mine.yaml: model: attention=True needs alignment=True"),
        ("{attention: 1e-7}", "3", "mine.yaml: loss: should be keys and values, got 3"),
        ("name: tiny", "name: tiny\nname: two", 'the key "name" stands twice'),
        (
            "loss:",
            "optimizer: {momentum: 0}\nloss:",
            "mine.yaml: optimizer: nesterov needs a momentum above 0",
        ),
        (
            "batch_size: 4",
            "batch_size: 4\nprecision: 16-mixed\ntrainer: {cuda_graph: true}",
            'mine.yaml: trainer: cuda_graph=true needs precision "32-true" or "bf16-mixed", got "16-mixed"',
        ),
        ("batch_size: 4", "batch_size: 4\ntrainer: {graph: true}", 'the nearest known one is "cuda_graph"'),
        ("name: tiny", "name: [", "mine.yaml: not YAML: "),
    ],
)  # fmt: skip
def test_each_problem_is_one_sentence(tmp_path: Path, old: str, new: str, sentence: str) -> None:
    lines = problem(tmp_path, old, new).splitlines()
    assert any(sentence in line for line in lines)
    assert len(lines) == (2 if "lrr: 0.01" in new or "batchsize" in new else 1)


def test_several_problems_are_all_told(tmp_path: Path) -> None:
    lines = problem(tmp_path, "lr: 0.01}", "lr: fast, warmup: -3}").splitlines()
    assert [line.split(": ")[1] for line in lines] == ["steps.0.lr", "steps.0.warmup"]


@pytest.mark.parametrize("text", ["", "- 1", "just words"])
def test_a_file_without_keys(tmp_path: Path, text: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(RecipeError, match=r"^mine\.yaml: should be keys and values, got "):
        load_recipe(tmp_path / "mine.yaml")


def test_an_unknown_name_lists_the_builtin_ones() -> None:
    with pytest.raises(RecipeError, match=r"papr: no such recipe; give a YAML file or one of demo, .*paper"):
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
    changed["steps"][0]["lr"] = 0.02
    changed["seed"] = 7
    changed["loss"]["attention"] = 1e-7  # the plain loader reads text
    changed["steps"][1]["lr"] = 1e-3
    (tmp_path / "b.yaml").write_text(yaml.safe_dump(changed))
    text = difference(load_recipe(tmp_path / "a.yaml"), load_recipe(tmp_path / "b.yaml"))
    assert text == "seed was 0, is 7; steps.0.lr was 0.01, is 0.02"
