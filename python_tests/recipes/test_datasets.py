from __future__ import annotations

import csv
import json
import math
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from jaa_ext import facs
from jaa_ext.data import FaceDataset, RenderedFaces, SyntheticFaces
from jaa_ext.data.prepared import FolderError
from jaa_ext.facs import AURule
from jaa_ext.models import JAANetConfig
from jaa_ext.recipes import datasets
from jaa_ext.recipes.datasets import (
    DEMONSTRATION,
    OF_RENDERED_FACES,
    STAND_IN,
    STAND_INS,
    Prepared,
    Rendered,
    Several,
    Synthetic,
    choose_data,
    note_of,
    union_of,
    with_fold,
)
from jaa_ext.recipes.schema import Recipe, RecipeError, load_recipe

CONFIG = JAANetConfig.released((6, 12), image_size=64, width=1)
DRAWN = Synthetic(train_subjects=5, test_subjects=3, samples_per_subject=2, seed=4)


def drawn(**changes: Any) -> Synthetic:
    return DRAWN.model_copy(update=changes)


def subjects(sets: tuple[FaceDataset, FaceDataset]) -> tuple[set[str], set[str]]:
    train, test = sets
    return set(train.subjects), set(test.subjects)


def test_drawn_people_are_trained_on_or_tested() -> None:
    train, test = DRAWN.build(CONFIG)
    assert subjects((train, test)) == ({f"S00{i}" for i in range(5)}, {"S005", "S006", "S007"})
    assert (len(train), len(test)) == (10, 6)
    assert tuple(train.aus) == tuple(test.aus) == (6, 12)
    assert train[0].image.shape == (73, 73, 3)  # 64 * 200 / 176
    same = SyntheticFaces(subjects=[5], samples_per_subject=2, seed=4, size=73, aus=(6, 12))
    assert np.array_equal(test[1].image, same[1].image)


@pytest.mark.parametrize(("train", "test"), [(5, 3), (4, 2), (27, 14), (2, 1), (1, 3)])
def test_folds_are_disjoint_and_cover_all_people(train: int, test: int) -> None:
    everyone = {f"S{i:03d}" for i in range(train + test)}
    tested: list[set[str]] = []
    for fold in DRAWN.folds():
        data = drawn(train_subjects=train, test_subjects=test, test_fold=fold)
        trained, left = subjects(data.build(CONFIG))
        assert not trained & left
        assert trained | left == everyone
        tested.append(left)
    assert DRAWN.folds() == ("1", "2", "3")
    assert sum(map(len, tested)) == len(everyone) and set.union(*tested) == everyone
    assert max(map(len, tested)) - min(map(len, tested)) <= 1


def test_the_first_fold_holds_the_first_people() -> None:
    assert subjects(drawn(test_fold="1").build(CONFIG))[1] == {"S000", "S001", "S002"}
    assert subjects(drawn(test_fold="3").build(CONFIG))[1] == {"S005", "S006", "S007"}


def test_two_people_are_too_few_for_three_folds() -> None:
    data = drawn(train_subjects=1, test_subjects=1, test_fold="2")
    with pytest.raises(ValueError, match=r"fold 2 of the drawn faces .*at least 3 subjects, got 2$"):
        data.build(CONFIG)


def test_co_occurrence_and_seed_reach_the_faces() -> None:
    faces = drawn(co_occurrence=0.0, samples_per_subject=50).build(CONFIG)[0]
    own = [
        SyntheticFaces(
            subjects=range(5), samples_per_subject=50, seed=4, size=73, aus=(6, 12), co_occurrence=c
        )
        for c in (0.0, 1.0)
    ]
    assert np.array_equal(faces.label_matrix(), own[0].label_matrix())
    assert not np.array_equal(faces.label_matrix(), own[1].label_matrix())


def test_a_rule_of_one_s_own_is_known_to_the_data_by_its_number() -> None:
    config = JAANetConfig.released((6, AURule((0, 9), 0.2, number=12)), image_size=64, width=1)
    train, _ = DRAWN.build(config)
    assert tuple(train.aus) == (6, 12)
    unknown = JAANetConfig.released((AURule((31, 37), number=20),), image_size=64, width=1)
    with pytest.raises(ValueError, match=r"\[1, 2, .*\], got \[20\]"):
        DRAWN.build(unknown)
    nameless = JAANetConfig.released((AURule((31, 37)),), image_size=64, width=1)
    with pytest.raises(ValueError, match="no number"):
        DRAWN.build(nameless)


def test_what_drawn_faces_are_worth() -> None:
    faces, _ = DRAWN.build(CONFIG)
    assert note_of(faces) == DEMONSTRATION
    assert "not for real use" in DEMONSTRATION
    assert DRAWN.title == "drawn faces"


RENDERED = Rendered(name="rendered", train_subjects=4, test_subjects=2, samples_per_subject=3, seed=7)


def test_rendered_people_are_trained_on_or_tested() -> None:
    config = JAANetConfig.released((12, 20), image_size=64, width=1)
    train, test = RENDERED.build(config)
    assert subjects((train, test)) == ({f"R000{i}" for i in range(4)}, {"R0004", "R0005"})
    assert (len(train), len(test)) == (12, 6) and tuple(train.aus) == (12, 20)
    same = RenderedFaces(subjects=[5], samples_per_subject=3, seed=7, size=73, aus=(12, 20))
    assert np.array_equal(test[4].image, same[1].image)
    folds = [RENDERED.model_copy(update={"test_fold": fold}) for fold in RENDERED.folds()]
    assert [len(fold.build(config)[1].subjects) for fold in folds] == [2, 2, 2]
    bp4d = RENDERED.model_copy(update={"mix": "bp4d", "samples_per_subject": 300}).build(CONFIG)[1]
    assert bp4d.label_matrix().mean(0) == pytest.approx((0.46, 0.56), abs=0.06)


def test_what_rendered_faces_are_worth(tmp_path: Path) -> None:
    train, _ = RENDERED.build(CONFIG)
    assert note_of(train) == OF_RENDERED_FACES and RENDERED.title == "rendered faces"
    assert "rendered faces" in OF_RENDERED_FACES and "demonstration" not in OF_RENDERED_FACES.lower()
    make_folder(tmp_path, {"R0000": "1", "R0001": "2"}, name="rendered faces")
    assert note_of(prepared(tmp_path, "1").build(CONFIG)[0]) == OF_RENDERED_FACES


SECTIONS = 'name "synthetic", "rendered", "prepared" or "several"'
RECIPE = """
name: mine
model: {aus: [6, 12], image_size: 64, width: 1}
data: DATA
batch_size: 2
stages:
  - {name: all, epochs: 1, lr: 0.01}
"""


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (
            "{name: synthetic, train_subjects: 0, test_subjects: 2, samples_per_subject: 4}",
            ["data.train_subjects: ", "at least 1", "got 0"],
        ),
        (
            "{train_subjects: 3, test_subjects: 2, samples_per_subject: 4, co_occurrence: -1}",
            ["data.co_occurrence: ", "at least 0", "got -1"],
        ),
        (
            "{train_subjects: 3, test_subjects: 2, samples_per_subject: 4, test_fold: '4'}",
            ["data.test_fold: ", "'1', '2' or '3'", 'got "4"'],
        ),
        (
            "{name: rendered, train_subjects: 3, test_subjects: 2, samples_per_subject: 4, mix: disfa}",
            ["data.mix: ", "'natural', 'bp4d' or 'sides'", 'got "disfa"'],
        ),
        ("{name: prepared, foldr: x}", ["data.foldr: unknown key", '"folder"']),
        # A key of the other section is none of this one.
        ("{name: prepared, seed: 3}", ["data.seed: unknown key"]),
        ("{name: prepared, folder: 3}", ["data.folder: ", "text", "got 3"]),
        ("{name: prepared, test_fold: 1}", ["data.test_fold: ", "text", "got 1"]),
        ("{name: bp4d, folder: x}", ["data: ", SECTIONS, 'got {"name": "bp4d"']),
        ("{name: [prepared]}", ["data: ", SECTIONS, 'got {"name": ["p']),
        ("3", ["data: ", "keys and values", "got 3"]),
        ("[prepared]", ["data: ", "keys and values", 'got ["prepared"]']),
        ("{name: several}", ["data.sets: is missing"]),
        ("{name: several, sets: []}", ["data.sets: ", "a list of data sections", "got []"]),
        ("{name: several, sets: [3]}", ["data.sets.0: ", "keys and values", "got 3"]),
        ("{name: several, sets: [{name: several, sets: []}]}", ["data.sets.0: ", 'got {"name": "several"']),
        ("{name: several, sets: [{name: prepared, foldr: x}]}", ["data.sets.0.foldr: unknown", '"folder"']),
        ("{name: several, sets: [{name: prepared, folder: 3}]}", ["data.sets.0.folder: ", "text", "got 3"]),
        ("{name: several, sets: [{name: prepared}], shares: [0]}", ["data.shares.0: ", "above 0", "got 0"]),
        (
            "{name: several, sets: [{name: prepared}], shares: 1}",
            ["data.shares: ", "a list of numbers", "got 1"],
        ),
        (
            "{name: several, sets: [{name: prepared}], shares: [1, 2]}",
            ["data: shares", "each of 1 sets, got 2"],
        ),
        ("{name: several, sets: [{name: prepared}], folder: x}", ["data.folder: unknown key"]),
        (
            "{name: several, sets: [{name: prepared, called: 'a:b'}]}",
            ['data.sets.0.called: should be letters, digits and . _ + - alone, got "a:b"'],
        ),
    ],
)
def test_each_problem_of_a_data_section_is_one_sentence(tmp_path: Path, data: str, words: list[str]) -> None:
    (line,) = problems(tmp_path, data)
    assert line.startswith(f"mine.yaml: {words[0]}") and all(word in line for word in words)


def test_several_problems_of_a_data_section(tmp_path: Path) -> None:
    misspelt, missing = sorted(
        problems(tmp_path, "{train_subjcts: 3, test_subjects: 2, samples_per_subject: 4}")
    )
    assert "data.train_subjcts: unknown key" in misspelt and '"train_subjects"' in misspelt
    assert "data.train_subjects: is missing" in missing


def problems(folder: Path, data: str) -> list[str]:
    """What `load_recipe` says of a data section."""
    (folder / "mine.yaml").write_text(RECIPE.replace("DATA", data))
    with pytest.raises(RecipeError) as caught:
        load_recipe(folder / "mine.yaml")
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    "data",
    [
        DRAWN,
        drawn(test_fold="2", co_occurrence=0.5),
        RENDERED,
        RENDERED.model_copy(update={"mix": "bp4d", "test_fold": "1"}),
        Prepared(name="prepared", folder="x", test_fold="val"),
        Several(name="several", sets=(DRAWN, RENDERED)),
        Several(
            name="several",
            sets=(Prepared(called="mine", name="prepared", folder="x"), RENDERED),
            shares=(2.0, 0.5),
            test_fold="1",
            leave_out="rendered",
        ),
    ],
)
def test_a_data_section_is_written_and_read(tmp_path: Path, data: datasets.Data) -> None:
    (tmp_path / "mine.yaml").write_text(RECIPE.replace("DATA", "{name: prepared}"))
    recipe: Recipe = load_recipe(tmp_path / "mine.yaml").model_copy(update={"data": data})
    (tmp_path / "copy.yaml").write_text(recipe.to_yaml())
    assert load_recipe(tmp_path / "copy.yaml").data == data
    assert type(load_recipe(tmp_path / "copy.yaml").data) is type(data)


OPEN = Prepared(name="prepared")
HERE = Prepared(name="prepared", folder="here", test_fold="2")
THERE = Prepared(name="prepared", folder="there")
MIXED = Several(name="several", sets=(OPEN, RENDERED), shares=(3, 1), leave_out="rendered")
THREE = Several(name="several", sets=(THERE, RENDERED, STAND_IN))
BOTH = Several(name="several", sets=(THERE, HERE, RENDERED), shares=(3, 2, 1), test_fold="1")
MINE, MOVED = (
    Prepared(called="mine", name="prepared", folder=folder, test_fold=fold)
    for folder, fold in (("there", None), ("a=b", "2"))
)


def called(name: str) -> Rendered:
    return STAND_INS["rendered"].model_copy(update={"called": name})


NAMED = Several(
    name="several",
    sets=(MINE.model_copy(update={"test_fold": "2"}), called("new")),
    shares=(2, 1),
    leave_out="mine",
)
RENDERED_1 = RENDERED.model_copy(update={"test_fold": "1"})
SEED_1, SEED_2, SEED_1C, SEED_2D = (
    RENDERED.model_copy(update={"seed": seed, "called": name})
    for seed, name in ((1, "a"), (2, "b"), (1, "c"), (2, "d"))
)
SEEDS = Several(name="several", sets=(SEED_1, SEED_2), shares=(2, 1), leave_out="a")


@pytest.mark.parametrize(
    ("default", "data", "fold", "chosen"),
    [
        (DRAWN, None, None, DRAWN),
        (DRAWN, None, "2", drawn(test_fold="2")),
        (DRAWN, "synthetic", None, DRAWN),
        (DRAWN, "there", None, Prepared(name="prepared", folder="there")),
        (DRAWN, "there", "a", Prepared(name="prepared", folder="there", test_fold="a")),
        (RENDERED, None, "2", RENDERED.model_copy(update={"test_fold": "2"})),
        (RENDERED, "synthetic", None, STAND_IN),
        (OPEN, None, None, OPEN),
        (OPEN, "synthetic", None, STAND_IN),
        (OPEN, "synthetic", "3", STAND_IN.model_copy(update={"test_fold": "3"})),
        (OPEN, "there", "1", Prepared(name="prepared", folder="there", test_fold="1")),
        (HERE, None, "1", Prepared(name="prepared", folder="here", test_fold="1")),
        # Another folder for the same data: the recipe's fold stays.
        (HERE, "there", None, Prepared(name="prepared", folder="there", test_fold="2")),
        (OPEN, "rendered", None, STAND_INS["rendered"]),
        (RENDERED, "rendered", None, RENDERED),
        (OPEN, [], None, OPEN),
        (OPEN, ["there"], None, THERE),
        (OPEN, ["there", "rendered"], None, Several(name="several", sets=(THERE, STAND_INS["rendered"]))),
        (DRAWN, ["synthetic", "there"], "1", Several(name="several", sets=(DRAWN, THERE), test_fold="1")),
        (MIXED, None, None, MIXED),
        (MIXED, "there", None, THERE),
        # As many data sets as the recipe has stand in their places.
        (MIXED, ["there", "rendered"], None, MIXED.model_copy(update={"sets": (THERE, RENDERED)})),
        (MIXED, ["there", "rendered", "synthetic"], None, THREE),
        # Other data sets, or another order, have none of the recipe's shares.
        (
            BOTH,
            ["here", "there", "rendered"],
            None,
            Several(name="several", sets=(HERE, THERE, RENDERED_1)),
        ),
        (BOTH, ["rendered", "here"], None, Several(name="several", sets=(RENDERED_1, HERE))),
        (
            BOTH,
            ["rendered", "here", "synthetic"],
            None,
            Several(name="several", sets=(RENDERED_1, HERE, STAND_IN)),
        ),
        # Built-in faces stay the recipe's, and its fold is tested, wherever they are named.
        (BOTH, "rendered", None, RENDERED_1),
        (BOTH, "here", None, HERE),
        (MIXED, None, "1", MIXED.model_copy(update={"test_fold": "1", "leave_out": None})),
        # Names; those of the recipe are known again, wherever their folders are.
        (OPEN, "mine=there", None, MINE),
        (OPEN, ["mine=there", "old=rendered"], None, Several(name="several", sets=(MINE, called("old")))),
        (
            NAMED,
            ["mine=a=b", "new=rendered"],
            None,
            NAMED.model_copy(update={"sets": (MOVED, called("new"))}),
        ),
        (NAMED, ["new=rendered", "mine=a=b"], None, Several(name="several", sets=(called("new"), MOVED))),
        (NAMED, ["there", "new=rendered"], None, NAMED),
        (SEEDS, ["a=rendered", "b=rendered"], None, SEEDS),
        (SEEDS, ["b=rendered", "a=rendered"], None, Several(name="several", sets=(SEED_2, SEED_1))),
        (SEEDS, ["c=rendered", "d=rendered"], None, Several(name="several", sets=(SEED_1C, SEED_2D))),
        (OPEN, "no name=there", None, Prepared(name="prepared", folder="no name=there")),
    ],
)
def test_what_a_command_makes_of_a_recipe_s_data(
    default: datasets.Data, data: str | list[str] | None, fold: str | None, chosen: datasets.Data
) -> None:
    got = choose_data(default, data, fold)
    assert got == chosen
    assert type(got) is type(chosen)


def test_a_folder_with_the_name_of_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("rendered", "synthetic"):
        (tmp_path / name).mkdir()
        assert choose_data(OPEN, name, None) == STAND_INS[name]
        (tmp_path / name / "prepare.json").touch()
    assert choose_data(OPEN, "rendered", None) == Prepared(name="prepared", folder="rendered")
    assert choose_data(OPEN, "synthetic", None) == STAND_IN


def test_a_name_before_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a=b").mkdir()
    (tmp_path / "b").mkdir()
    for text, name, folder in (
        ("a=b", None, "a=b"),
        ("x=a=b", "x", "a=b"),
        ("./a=b", None, "./a=b"),
        ("é+1.0_x-y=b", "é+1.0_x-y", "b"),
        ("./missing=folder", None, "./missing=folder"),
    ):
        got = choose_data(OPEN, text, None)
        assert isinstance(got, Prepared) and (got.called, got.folder) == (name, folder)
    (tmp_path / "z=").mkdir()
    assert choose_data(OPEN, "z=", None) == Prepared(name="prepared", folder="z=")
    for text in ("x=", ""):  # Path("") would be the working folder
        with pytest.raises(ValueError, match=rf'^--data "{text}": wanted a folder, got none$'):
            choose_data(OPEN, text, None)
    for name in ("a:b", "x/y", "", "a b"):
        with pytest.raises(ValueError, match=rf"^--data {name}=b: a name has letters, .* got '{name}'$"):
            choose_data(OPEN, f"{name}=b", None)


def test_shares_of_a_command() -> None:
    got = choose_data(OPEN, ["there", "rendered"], None, [2, 1])
    assert isinstance(got, Several) and got.shares == (2, 1)
    again = choose_data(MIXED, None, None, [0.5, 4])
    assert isinstance(again, Several) and (again.shares, again.sets) == ((0.5, 4), MIXED.sets)
    for default, data, count in (
        (OPEN, "there", 1),
        (OPEN, None, 1),
        (MIXED, None, 2),
        (OPEN, ["a", "b"], 2),
    ):
        with pytest.raises(ValueError, match=rf"^--share is .* once for each: got 3 of them for {count}$"):
            choose_data(default, data, None, [1, 2, 3])
    for share in (0, -1, math.nan, math.inf):
        with pytest.raises(ValueError, match=rf"^--share: wanted numbers above 0, got 1, {share}$"):
            choose_data(OPEN, ["a", "b"], None, [1, share])


def test_a_fold_in_place_of_a_data_set_that_is_left_out() -> None:
    assert with_fold(DRAWN, "2") == drawn(test_fold="2")
    fold = with_fold(MIXED, "2")
    assert isinstance(fold, Several) and (fold.test_fold, fold.leave_out) == ("2", None)


def test_drawn_faces_have_three_folds() -> None:
    for default, data in ((DRAWN, None), (OPEN, "synthetic")):
        with pytest.raises(ValueError, match=r'drawn faces: has no test fold "4", .*1, 2, 3$'):
            choose_data(default, data, "4")
    assert (STAND_IN.train_subjects + STAND_IN.test_subjects) == 41  # those of BP4D


def test_data_without_a_folder_says_how_to_give_one() -> None:
    for ask in (OPEN.folds, lambda: OPEN.build(CONFIG), lambda: OPEN.title):
        with pytest.raises(ValueError, match=r"recipe leaves open .*--data "):
            ask()


def make_folder(
    folder: Path,
    fold_of: dict[str, str],
    frames: int = 2,
    name: str = "Mine",
    aus: tuple[facs.AU, ...] = (6, 12),
    size: int = 73,
    source: str = "",
) -> None:
    """A prepared data set of drawn faces with labels of some AUs, its fold given by subject."""
    kind = RenderedFaces if any(isinstance(au, str) for au in aus) else SyntheticFaces
    points = [f"{axis}_{i}" for axis in "xy" for i in range(49)]
    rows = []
    for number, (subject, fold) in enumerate(fold_of.items()):
        faces = kind(subjects=[number], samples_per_subject=frames, size=size, aus=aus)
        for i in range(frames):
            face, path = faces[i], f"images/{subject}/T1/{i}.png"
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / path), face.image[..., ::-1])
            rows.append([subject, fold, path, *face.landmarks.T.ravel(), *face.labels])
    with (folder / "index.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["subject", "fold", "path", *points, *map(facs.au_column, aus)], *rows])
    settings = {"name": name, "source": source, "aus": [*aus], "size": size}
    settings |= {"align": True, "detector": False, "table": "csv"}
    report = {
        "name": "Mine",
        "kept": len(rows),
        "expected": None,
        "skipped": {},
        "aus": [*aus],
        "image_size": size,
    }
    report |= {
        "occurrence": [0.5] * len(aus),
        "valid": [len(rows)] * len(aus),
        "subjects": len(fold_of),
        "folds": {},
    }
    known = {"format": 1, "settings": settings, "sequences": [], "image_size": size, "report": report}
    (folder / "prepare.json").write_text(json.dumps(known))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three folds of four people."""
    made = tmp_path_factory.mktemp("prepared")
    make_folder(made, {"F001": "1", "F002": "2", "M001": "3", "M002": "2"})
    return made


def prepared(folder: Path, fold: str | None = None) -> Prepared:
    return Prepared(name="prepared", folder=str(folder), test_fold=fold)


def test_prepared_folds_are_tested_one_by_one(folder: Path) -> None:
    data = prepared(folder)
    assert data.folds() == ("1", "2", "3")
    assert data.title == str(folder)
    for fold, tested in (("1", {"F001"}), ("2", {"F002", "M002"}), ("3", {"M001"})):
        train, test = prepared(folder, fold).build(CONFIG)
        assert note_of(train) == ""
        assert subjects((train, test)) == ({"F001", "F002", "M001", "M002"} - tested, tested)
        assert (len(train), len(test)) == (8 - 2 * len(tested), 2 * len(tested))
        assert tuple(test.aus) == (6, 12)


def test_prepared_faces_are_those_of_the_folder(folder: Path) -> None:
    drawn = SyntheticFaces(subjects=[2], samples_per_subject=2, size=73, aus=(12, 6))[1]
    config = JAANetConfig.released((12, 6), image_size=64, width=1)
    face = prepared(folder, "3").build(config)[1][1]
    assert np.array_equal(face.image, drawn.image)
    assert np.allclose(face.landmarks, drawn.landmarks, atol=1e-3)
    assert face.labels.tolist() == drawn.labels.tolist()
    assert (face.subject, face.id) == ("M001", "M001/T1/1")


NO_FOLD = "no test fold is chosen, .*1, 2, 3$"


def test_a_prepared_fold_must_be_chosen(folder: Path) -> None:
    with pytest.raises(ValueError, match=NO_FOLD):
        prepared(folder).build(CONFIG)
    with pytest.raises(ValueError, match=r': has no test fold "4", .*1, 2, 3$'):
        prepared(folder, "4").build(CONFIG)


@pytest.mark.parametrize("name", ["validation", "test"])
def test_folds_for_testing_only(tmp_path: Path, name: str) -> None:
    make_folder(tmp_path, {"F001": "train", "F002": name, "F003": "more"})
    assert prepared(tmp_path).folds() == (name,)
    sets = prepared(tmp_path).build(CONFIG)
    assert subjects(sets) == ({"F001", "F003"}, {"F002"})
    with pytest.raises(ValueError, match=rf': has no test fold "train", .*{name}$'):
        prepared(tmp_path, "train").build(CONFIG)


def test_validation_is_not_trained_on_when_test_is_tested(tmp_path: Path) -> None:
    make_folder(tmp_path, {"F001": "train", "F002": "validation", "F003": "test"})
    assert set(prepared(tmp_path).folds()) == {"validation", "test"}
    for fold, tested in (("validation", "F002"), ("test", "F003")):
        assert subjects(prepared(tmp_path, fold).build(CONFIG)) == ({"F001"}, {tested})


def test_a_prepared_folder_of_one_fold(tmp_path: Path) -> None:
    make_folder(tmp_path, {"F001": "1", "F002": "1"})
    with pytest.raises(ValueError, match=r'fold "1" alone'):
        prepared(tmp_path).build(CONFIG)


def test_people_without_folds_are_dealt_into_three(tmp_path: Path) -> None:
    people = [f"F00{i}" for i in range(5)]
    make_folder(tmp_path, dict.fromkeys(people, ""))
    data = prepared(tmp_path)
    assert data.folds() == ("1", "2", "3")
    tested: list[str] = []
    for fold in data.folds():
        sets = prepared(tmp_path, fold).build(CONFIG)
        trained, left = subjects(sets)
        assert left and not trained & left and trained | left == set(people)
        assert (len(sets[0]), len(sets[1])) == (2 * len(trained), 2 * len(left))
        tested += left
    assert sorted(tested) == people
    with pytest.raises(ValueError, match=NO_FOLD):
        data.build(CONFIG)


def test_a_folder_that_is_not_prepared_or_has_other_aus(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(FolderError, match="wanted a prepared data set"):
        prepared(tmp_path / "nothing").folds()
    with pytest.raises(FolderError, match=r"no labels of AU 1, .*\[6, 12\]"):
        prepared(folder, "1").build(JAANetConfig.released((1, 6), image_size=64, width=1))


def test_what_a_model_is_scored_on(folder: Path) -> None:
    # Not imported by its name, which pytest would take for a test's.
    chosen = datasets.faces_to_test
    assert set(chosen(DRAWN, None, None, CONFIG).subjects) == {"S005", "S006", "S007"}
    assert set(chosen(DRAWN, "synthetic", "1", CONFIG).subjects) == {"S000", "S001", "S002"}
    assert set(chosen(None, str(folder), "1", CONFIG).subjects) == {"F001"}
    assert len(chosen(None, str(folder), "all", CONFIG)) == 8
    assert len(chosen(OPEN, str(folder), "all", CONFIG)) == 8
    assert len(chosen(prepared(folder, "3"), None, None, CONFIG)) == 2
    assert len(chosen(prepared(folder, "3"), None, "all", CONFIG)) == 8


def test_nothing_to_score_on(folder: Path) -> None:
    for data in (None, "synthetic"):
        with pytest.raises(ValueError, match="--recipe, or --data"):
            datasets.faces_to_test(None, data, None, CONFIG)
    with pytest.raises(ValueError, match=r'drawn faces: has no test fold "all"'):
        datasets.faces_to_test(DRAWN, None, "all", CONFIG)
    with pytest.raises(ValueError, match=NO_FOLD):
        datasets.faces_to_test(None, str(folder), None, CONFIG)


def config_of(*aus: int) -> JAANetConfig:
    return JAANetConfig.released(aus, image_size=64, width=1)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Data sets of three folds whose people have the same names; of AUs 6 and 12, and of 4 and 12."""
    one, other = (tmp_path_factory.mktemp(name) for name in ("one", "other"))
    make_folder(one, {"F001": "1", "F002": "2", "M001": "3", "M002": "2"})
    make_folder(other, {"F001": "1", "F002": "2", "F003": "3"}, frames=3, name="Yours: 2", aus=(4, 12))
    return one, other


def several(*folders: Path, **options: Any) -> Several:
    sets = tuple(prepared(folder) for folder in folders)
    return Several.model_validate({"name": "several", "sets": sets, **options})


def test_several_data_sets_are_trained_on_and_tested_by_fold(two: tuple[Path, Path]) -> None:
    data = several(*two, test_fold="2", shares=[2, 1])
    assert data.set_names() == ("Mine", "Yours-2") and data.folds() == ("1", "2", "3")
    assert data.title == f"{two[0]}, {two[1]}"
    assert data.known_aus() == union_of(data) == (4, 6, 12)
    train, test = data.build(config_of(12, 4, 6))
    assert subjects((train, test)) == (
        {"Mine:F001", "Mine:M001", "Yours-2:F001", "Yours-2:F003"},
        {"Mine:F002", "Mine:M002", "Yours-2:F002"},
    )
    assert train.aus == test.aus == (12, 4, 6)
    assert (train.sizes, train.shares, test.sizes, test.shares) == ((4, 6), (2, 1), (4, 3), None)
    known = train.label_matrix() >= 0
    assert known.all(0).tolist() == [True, False, False]
    assert not known[:4, 1].any() and known[4:, 1].all() and known[:4, 2].all() and not known[4:, 2].any()
    assert test[5].id == "Yours-2:F002/T1/1"


def test_a_set_that_lacks_all_aus_but_one(two: tuple[Path, Path]) -> None:
    train, _ = several(*two, test_fold="1").build(config_of(4, 6))
    assert (train.label_matrix() >= 0).sum(0).tolist() == [6, 6]


def test_aus_that_no_set_has(two: tuple[Path, Path]) -> None:
    data = several(*two, test_fold="1")
    with pytest.raises(
        ValueError, match=rf"^{two[0]}, {two[1]}: have no labels of AU 9, only of \[4, 6, 12\]$"
    ):
        data.build(config_of(12, 9))
    with pytest.raises(ValueError, match=rf"^{two[1]}: wanted labels of at least one of AUs 6, got none$"):
        data.build(config_of(6))


def test_every_set_may_have_a_fold_of_its_own(two: tuple[Path, Path], tmp_path: Path) -> None:
    own = Several(name="several", sets=(prepared(two[0], "3"), RENDERED))
    train, test = own.build(CONFIG)
    assert set(test.subjects) == {"Mine:M001", "rendered:R0004", "rendered:R0005"}
    assert note_of(train) == OF_RENDERED_FACES
    with pytest.raises(ValueError, match=NO_FOLD):
        several(*two).build(CONFIG)
    third = own.model_copy(update={"test_fold": "1"}).build(CONFIG)[1]
    assert set(third.subjects) == {"Mine:F001", "rendered:R0000", "rendered:R0001"}


def test_a_set_that_comes_divided_keeps_its_test_fold(two: tuple[Path, Path], tmp_path: Path) -> None:
    make_folder(tmp_path, {"F001": "train", "F002": "validation", "F003": "test"}, name="Divided")
    data = several(two[0], tmp_path, test_fold="1")
    assert data.folds() == ("1", "2", "3")
    train, test = data.build(CONFIG)
    assert set(test.subjects) == {"Mine:F001", "Divided:F003"}
    assert "Divided:F001" in train.subjects and "Divided:F002" not in train.subjects
    chosen = data.model_copy(update={"sets": (prepared(two[0]), prepared(tmp_path, "validation"))})
    assert set(chosen.build(CONFIG)[1].subjects) == {"Mine:F001", "Divided:F002"}
    alone = several(tmp_path)
    assert set(alone.folds()) == {"validation", "test"}


def test_of_a_set_that_came_divided_one_fold_is_tested(two: tuple[Path, Path], tmp_path: Path) -> None:
    """Validation would be tested by the same training."""
    for name, folds in (("val", ("test", "val")), ("validation", ("test", "validation"))):
        make_folder(tmp_path / name, {"F001": "train", "F002": name, "F003": "test"}, name=name)
        data = prepared(tmp_path / name)
        assert data.folds() == folds
        assert datasets.folds_to_test(data) == ("test",)
        assert datasets.folds_to_test(data, [name]) == (name,)
        assert subjects(prepared(tmp_path / name, "test").build(CONFIG)) == ({"F001"}, {"F003"})
    make_folder(tmp_path / "two", {"F001": "train", "F002": "val"})
    assert datasets.folds_to_test(prepared(tmp_path / "two")) == ("val",)
    data = several(*two, tmp_path / "val")
    assert (data.divided(data.folds()), data.divided(["1"])) == (("val",), ())
    assert datasets.folds_to_test(data) == ("1", "2", "3")
    make_folder(tmp_path / "other", {"F001": "train", "F002": "validation"}, name="other")
    data = several(tmp_path / "other", tmp_path / "val")
    assert set(data.folds()) == {"validation", "val", "test"} and datasets.folds_to_test(data) == ("test",)
    assert set(with_fold(data, "test").build(CONFIG)[1].subjects) == {"other:F002", "val:F003"}


def test_val_and_validation_are_one_part(tmp_path: Path) -> None:
    for name in ("val", "validation"):
        make_folder(tmp_path / name, {"F001": "train", "F002": name, "F003": "test"}, name=name)
    make_folder(tmp_path / "one", {"F001": "train", "F002": "test"}, name="one")
    data = several(*(tmp_path / name for name in ("val", "validation", "one")))
    for fold, person in (("val", "F002"), ("validation", "F002"), ("test", "F003")):
        tested = with_fold(data, fold).build(CONFIG)[1].subjects
        assert tested == (f"val:{person}", f"validation:{person}", "one:F002")
    with pytest.raises(ValueError, match=r'one: has no test fold "7", wanted one of test, val, validation$'):
        with_fold(data, "7").build(CONFIG)
    alone = several(tmp_path / "val", tmp_path / "one")
    assert with_fold(alone, "validation").build(CONFIG)[1].subjects == ("val:F002", "one:F002")
    assert data.divided(["validation", "test"]) == ("one",)
    assert data.divided(["validation", "val"]) == ("val", "validation", "one")


def test_folds_of_several_that_do_not_fit(two: tuple[Path, Path], tmp_path: Path) -> None:
    make_folder(tmp_path, {"F001": "a", "F002": "b"}, name="Lettered")
    data = several(two[0], tmp_path)
    with pytest.raises(ValueError, match=r"^wanted the same folds .*, got 1, 2, 3 in .* and a, b in "):
        data.folds()
    with pytest.raises(ValueError, match=r': has no test fold "1", wanted one of a, b$'):
        data.model_copy(update={"test_fold": "1"}).build(CONFIG)
    with pytest.raises(ValueError, match=r'rendered faces: has no test fold "b", wanted one of 1, 2, 3$'):
        Several(name="several", sets=(RENDERED,), test_fold="b").build(CONFIG)


SAME_PEOPLE = r" show the same people, who would be trained on and tested: wanted each data set once \(ren"


def test_one_data_set_twice_is_refused(two: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=SAME_PEOPLE):
        several(two[0], two[0], test_fold="1").build(CONFIG)
    make_folder(tmp_path, {"R0000": "1", "R0001": "2"}, name="rendered faces")
    with pytest.raises(ValueError, match=r'and rendered faces are called "rendered" and "rendered": if '):
        Several(name="several", sets=(prepared(tmp_path), RENDERED), test_fold="1").build(CONFIG)


def test_two_data_sets_of_one_name_are_called_by_others(tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        make_folder(folder, {"F001": "1", "F002": "2"}, name="faces")
    with pytest.raises(ValueError, match=r'called "faces" and "faces".* \(--data NAME=FOLDER, "called" in'):
        several(*folders, test_fold="1").build(CONFIG)
    with pytest.raises(ValueError, match=r'b and .*a are called "Faces" and "faces": .*not in case alone'):
        choose_data(OPEN, [f"Faces={folders[1]}", str(folders[0])], "1").build(CONFIG)
    data = choose_data(OPEN, [str(folders[0]), f"b={folders[1]}"], "1")
    assert isinstance(data, Several) and data.set_names() == ("faces", "b")
    train, test = data.build(CONFIG)
    assert subjects((train, test)) == ({"faces:F002", "b:F002"}, {"faces:F001", "b:F001"})
    assert data.model_copy(update={"leave_out": "b"}).build(CONFIG)[1].subjects == ("b:F001", "b:F002")
    faces = datasets.faces_to_test(None, [f"x={folders[0]}", f"y={folders[1]}"], "2", CONFIG)
    assert faces.subjects == ("x:F002", "y:F002")
    with pytest.raises(ValueError, match="--recipe, or --data"):
        datasets.faces_to_test(None, "x=rendered", None, CONFIG)
    seeds = [RENDERED.model_copy(update={"seed": seed, "called": f"seed-{seed}"}) for seed in (1, 2)]
    both = Several(name="several", sets=tuple(seeds)).build(CONFIG)[0]
    assert set(both.sets) == {"seed-1", "seed-2"}


def test_a_name_does_not_make_two_of_one_data_set(
    two: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(two[0].parent)
    name = two[0].name
    (tmp_path / "link").symlink_to(two[0])
    spellings = (name, f"{name}/", f"./{name}", f"{two[1]}/../{name}", str(two[0]), str(tmp_path / "link"))
    for data in (*([f"a={name}", f"b={other}"] for other in spellings), ["a=rendered", "rendered"]):
        chosen = choose_data(OPEN, data, "1")
        with pytest.raises(ValueError, match=SAME_PEOPLE):
            chosen.build(CONFIG)


def test_people_of_one_seed_are_one_data_set(tmp_path: Path) -> None:
    """Whatever else differs, and wherever they were rendered."""
    folders = {}
    for name, seed, count in (("r1", 0, 2), ("r2", 0, 3), ("r3", 5, 2)):
        fold_of = {f"R000{i}": "train" if i < count - 1 else "test" for i in range(count)}
        source = f"seed {seed}, {count} a subject, 73 pixels, mix natural"
        make_folder(tmp_path / name, fold_of, name="rendered faces", source=source)
        folders[name] = prepared(tmp_path / name).model_copy(update={"called": name})
    early = tmp_path / "early"  # before a folder told its seed: the usual one
    make_folder(early, {"R0000": "train", "R0001": "test"}, name="rendered faces")
    few, many = (
        RENDERED.model_copy(update={"seed": 0, "called": f"of-{count}", "samples_per_subject": count})
        for count in (1, 2)
    )
    for pair in (
        (folders["r1"], folders["r2"]),
        (folders["r1"], few),
        (few, many),
        (prepared(early), folders["r2"]),
        (DRAWN, drawn(called="other", co_occurrence=0.5)),
    ):
        with pytest.raises(ValueError, match=SAME_PEOPLE):
            Several(name="several", sets=pair, test_fold="1").build(CONFIG)
    sets = (folders["r1"], folders["r3"], many.model_copy(update={"seed": 1}))
    assert Several(name="several", sets=sets).set_names() == ("r1", "r3", "of-2")


def test_images_of_several_sizes(two: tuple[Path, Path], tmp_path: Path) -> None:
    make_folder(tmp_path, {"F001": "1", "F002": "2"}, name="Large", size=90)
    with pytest.raises(
        ValueError, match=r"^the images of Large have 90 pixels and those of Mine 73: prepare"
    ):
        several(two[0], tmp_path, test_fold="1").build(CONFIG)


def test_a_data_set_that_is_left_out(two: tuple[Path, Path]) -> None:
    """All its faces are tested, on the AUs that the others have; these train with all their folds."""
    sets = (prepared(two[0]), prepared(two[1]), RENDERED)
    data = Several(name="several", sets=sets, shares=(1, 2, 3), leave_out="Yours-2")
    train, test = data.build(config_of(4, 6, 12))
    assert (train.sizes, train.shares) == ((8, 18), (1, 3))
    assert test.subjects == ("Yours-2:F001", "Yours-2:F002", "Yours-2:F003") and len(test) == 9
    assert (test.label_matrix() >= 0).all(0).tolist() == [True, False, True]
    without = several(*two, leave_out="Yours-2").build(config_of(4, 6, 12))[1]
    assert without.aus == (4, 6, 12)
    assert (without.label_matrix() >= 0).sum(0).tolist() == [0, 0, 9]  # nobody could learn AU 4
    with pytest.raises(ValueError, match=r': has no data set "theirs", wanted one of Mine, Yours-2$'):
        several(*two, leave_out="theirs").build(CONFIG)


def test_a_data_set_with_sides_that_is_left_out(two: tuple[Path, Path], tmp_path: Path) -> None:
    """Its sides are tested where another data set has them, too."""
    make_folder(tmp_path, {"F001": "1", "F002": "2"}, name="Sides", aus=(12, "12L", "12R"))
    config = JAANetConfig.released((6, 12, "12L", "12R"), image_size=64, width=1)
    for sets, known in (
        ((prepared(two[0]), prepared(tmp_path)), [False, True, False, False]),
        ((RENDERED, prepared(tmp_path)), [False, True, True, True]),
    ):
        data = Several(name="several", sets=sets, leave_out="Sides")
        train, test = data.build(config)
        assert train.aus == test.aus == (6, 12, "12L", "12R")
        assert (test.label_matrix() >= 0).all(0).tolist() == known
        assert (test.label_matrix() >= 0).any(0).tolist() == known
    # One without sides, of a model that learnt them elsewhere.
    data = several(two[0], tmp_path, leave_out="Mine")
    train, test = data.build(config)
    assert (train.label_matrix() >= 0).all(0).tolist() == [False, True, True, True]
    assert (test.label_matrix() >= 0).any(0).tolist() == [False, True, False, False]


def test_a_data_set_that_shares_no_au_with_the_others(two: tuple[Path, Path], tmp_path: Path) -> None:
    make_folder(tmp_path, {"F001": "1", "F002": "2"}, name="Brows", aus=(1, 2))
    data = several(two[0], tmp_path, leave_out="Brows")
    with pytest.raises(
        ValueError, match=r"^the other data sets: wanted labels .* one of AUs 1, 2, got none$"
    ):
        data.build(config_of(1, 2, 6, 12))


def test_notes_of_several() -> None:
    train, _ = Several(name="several", sets=(RENDERED, DRAWN)).build(CONFIG)
    assert note_of(train) == f"{OF_RENDERED_FACES} {DEMONSTRATION}"


def test_a_model_is_tested_on_several(two: tuple[Path, Path]) -> None:
    chosen = datasets.faces_to_test
    folders = [str(folder) for folder in two]
    config = config_of(4, 6, 12, 15)  # none of them has AU 15
    faces = chosen(None, folders, "3", config)
    assert faces.subjects == ("Mine:M001", "Yours-2:F003") and faces.aus == (4, 6, 12, 15)
    assert len(chosen(None, folders, "all", config)) == 17
    assert len(chosen(several(*two), None, "all", config)) == 17
    assert chosen(OPEN, [folders[0], "rendered"], "1", config).subjects[0] == "Mine:F001"
    # One that lacks AUs of the model is tested on the others.
    faces = chosen(None, folders[1], "3", config)
    assert faces.subjects == ("Yours-2:F003",)
    assert (faces.label_matrix() >= 0).all(0).tolist() == [True, False, True, False]
    assert len(chosen(None, folders[1:], "all", config)) == 9
    with pytest.raises(ValueError, match=r"wanted labels of at least one of AUs 15, got none$"):
        chosen(None, folders[1], "3", config_of(15))
    for data in (["synthetic", "rendered"], [folders[0], "rendered"], []):
        with pytest.raises(ValueError, match="--recipe, or --data"):
            chosen(None, data, None, config)


def test_nobody_who_was_trained_on_is_tested_by_another_order_of_data_sets(two: tuple[Path, Path]) -> None:
    made = several(two[0]).model_copy(update={"sets": (prepared(two[0]), RENDERED), "test_fold": "1"})
    trained, tested = subjects(made.build(CONFIG))
    folders = [str(folder) for folder in two]
    for data in ([folders[0], "rendered"], ["rendered", folders[0]], [*folders, "rendered"]):
        again = set(datasets.faces_to_test(made, data, "1", CONFIG).subjects)
        assert not trained & again and tested <= again
    alone = datasets.faces_to_test(made, "rendered", None, CONFIG)
    assert {f"rendered:{name}" for name in alone.subjects} == {"rendered:R0000", "rendered:R0001"} <= tested


def test_shares_of_data_sets_that_moved(two: tuple[Path, Path], tmp_path: Path) -> None:
    made = several(*two, shares=[2, 1], leave_out="Mine")
    moved = tmp_path / "moved"
    shutil.copytree(two[0], moved)
    for first in (two[0], moved):
        kept = choose_data(made, [str(first), str(two[1])], None)
        assert isinstance(kept, Several) and (kept.shares, kept.leave_out) == ((2, 1), "Mine")
    make_folder(tmp_path / "new", {"F001": "1"}, name="New")
    for others in ((two[1], two[0]), (tmp_path / "new", two[1])):
        other = choose_data(made, [str(folder) for folder in others], None)
        assert isinstance(other, Several) and other.shares is other.leave_out is None
    # One that has a name is known by it alone.
    sets = (made.sets[0].model_copy(update={"called": "mine"}), made.sets[1])
    made = made.model_copy(update={"sets": sets, "leave_out": "mine"})
    for first, left_out in ((two[0], "mine"), (f"mine={moved}", "mine"), (moved, None)):
        got = choose_data(made, [str(first), str(two[1])], None)
        assert isinstance(got, Several) and got.leave_out == left_out
        assert got.set_names()[0] == (left_out or "Mine")


def test_a_new_name_of_a_folder_that_is_gone(two: tuple[Path, Path], tmp_path: Path) -> None:
    """The data set that the recipe leaves out was known by the name in that folder."""
    made = several(tmp_path / "gone", two[1], shares=[2, 1], leave_out="Mine")
    kept = choose_data(made, [str(folder) for folder in two], None)
    assert isinstance(kept, Several) and kept.leave_out == "Mine"
    kept.build(CONFIG)
    new = choose_data(made, [f"new={two[0]}", str(two[1])], "1")
    assert isinstance(new, Several) and new.leave_out is new.shares is None
    assert new.build(CONFIG)[1].subjects == ("new:F001", "Yours-2:F001")


def test_a_recipe_that_leaves_out_a_data_set_tests_nobody_else(two: tuple[Path, Path]) -> None:
    made, test = several(*two, leave_out="Mine"), datasets.faces_to_test
    assert test(made, None, None, CONFIG).subjects[0] == "Mine:F001"
    assert len(test(made, None, "all", CONFIG)) == 17
    folders = [str(folder) for folder in two]
    for data, fold in ((None, "1"), (folders, "1"), (folders[1], None), (folders[::-1], None)):
        with pytest.raises(ValueError, match=r'^the recipe leaves out the data set "Mine" and trains all'):
            test(made, data, fold, CONFIG)


def test_an_au_without_a_label_is_not_learnt(two: tuple[Path, Path], tmp_path: Path) -> None:
    """The column of AU 6 alone teaches nothing: the data set that is left out is not scored on it."""
    make_folder(tmp_path, {"F001": "1", "F002": "2"}, name="Empty")
    rows = list(csv.reader((tmp_path / "index.csv").open()))
    for row in rows[1:]:
        row[rows[0].index("AU06")] = ""
    with (tmp_path / "index.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    train, test = several(two[0], tmp_path, leave_out="Mine").build(CONFIG)
    assert not (train.label_matrix()[:, 0] >= 0).any()
    assert (test.label_matrix() >= 0).sum(0).tolist() == [0, 8]


def test_the_size_of_the_set_that_is_left_out(two: tuple[Path, Path], tmp_path: Path) -> None:
    make_folder(tmp_path, {"F001": "1", "F002": "2"}, name="Large", size=90)
    with pytest.raises(ValueError, match=r"^the images of Large have 90 pixels and those of Mine 73"):
        several(two[0], tmp_path, leave_out="Large").build(CONFIG)


def test_one_side_alone_in_a_set_of_a_model_that_mirrors(two: tuple[Path, Path]) -> None:
    config = JAANetConfig.released((6, "6L", "6R", "12L", "12R"), image_size=64, width=1, mirror=True)
    data = Several(name="several", sets=(prepared(two[0]), RENDERED), test_fold="1")
    assert data.build(config)[0].aus == config.aus
    only_left = datasets._with_aus(config, {6, "12L"}, "half")
    assert only_left.aus == (6, "12L")
