from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from jaa_ext.data import FaceDataset, RenderedFaces, SyntheticFaces
from jaa_ext.data.prepared import FolderError
from jaa_ext.facs import AURule
from jaa_ext.models import JAANetConfig
from jaa_ext.recipes import datasets
from jaa_ext.recipes.datasets import (
    DEMONSTRATION,
    OF_RENDERED_FACES,
    STAND_IN,
    BuiltIn,
    Prepared,
    Rendered,
    Synthetic,
    choose_data,
    note_of,
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
            ["data.mix: ", "'natural' or 'bp4d'", 'got "disfa"'],
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
    ],
)
def test_a_data_section_is_written_and_read(tmp_path: Path, data: BuiltIn | Prepared) -> None:
    (tmp_path / "mine.yaml").write_text(RECIPE.replace("DATA", "{name: prepared}"))
    recipe: Recipe = load_recipe(tmp_path / "mine.yaml").model_copy(update={"data": data})
    (tmp_path / "copy.yaml").write_text(recipe.to_yaml())
    assert load_recipe(tmp_path / "copy.yaml").data == data
    assert type(load_recipe(tmp_path / "copy.yaml").data) is type(data)


OPEN = Prepared(name="prepared")
HERE = Prepared(name="prepared", folder="here", test_fold="2")


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
    ],
)
def test_what_a_command_makes_of_a_recipe_s_data(
    default: BuiltIn | Prepared, data: str | None, fold: str | None, chosen: BuiltIn | Prepared
) -> None:
    got = choose_data(default, data, fold)
    assert got == chosen
    assert type(got) is type(chosen)


def test_drawn_faces_have_three_folds() -> None:
    for default, data in ((DRAWN, None), (OPEN, "synthetic")):
        with pytest.raises(ValueError, match=r'drawn faces: has no test fold "4", .*1, 2, 3$'):
            choose_data(default, data, "4")
    assert (STAND_IN.train_subjects + STAND_IN.test_subjects) == 41  # those of BP4D


def test_data_without_a_folder_says_how_to_give_one() -> None:
    for ask in (OPEN.folds, lambda: OPEN.build(CONFIG), lambda: OPEN.title):
        with pytest.raises(ValueError, match=r"recipe leaves open .*--data "):
            ask()


def make_folder(folder: Path, fold_of: dict[str, str], frames: int = 2, name: str = "Mine") -> None:
    """A prepared data set of drawn faces with labels of AUs 6 and 12, its fold given by subject."""
    points = [f"{axis}_{i}" for axis in "xy" for i in range(49)]
    rows = []
    for number, (subject, fold) in enumerate(fold_of.items()):
        faces = SyntheticFaces(subjects=[number], samples_per_subject=frames, size=73, aus=(6, 12))
        for i in range(frames):
            face, path = faces[i], f"images/{subject}/T1/{i}.png"
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / path), face.image[..., ::-1])
            rows.append([subject, fold, path, *face.landmarks.T.ravel(), *face.labels])
    with (folder / "index.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["subject", "fold", "path", *points, "AU06", "AU12"], *rows])
    settings = {"name": name, "aus": [6, 12], "size": 73, "align": True, "detector": False, "table": "csv"}
    report = {
        "name": "Mine",
        "kept": len(rows),
        "expected": None,
        "skipped": {},
        "aus": [6, 12],
        "image_size": 73,
    }
    report |= {"occurrence": [0.5, 0.5], "valid": [len(rows)] * 2, "subjects": len(fold_of), "folds": {}}
    known = {"format": 1, "settings": settings, "sequences": [], "image_size": 73, "report": report}
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
