"""Prepared folders read back; their folds."""

import csv
import json
import pickle
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pyarrow.parquet
import pytest
import torch

from jaa_ext.data import PreparedFaces, Release, prepare
from jaa_ext.data.images import ImageError
from jaa_ext.data.preparation.folder import FolderError
from jaa_ext.data.prepared import read_folds, subject_folds
from jaa_ext.data.readers.image_files import ImageFiles

AUS = (2, 5, 12)
LABELS = {
    "NA/T1": [(1, 0, -1), (0, 0, 1)],
    "007/T1": [(-1, -1, -1)],
    "007/T2": [(1, 1, 0)],
    "x": [(0, 1, 1)],
}
FOLDS = {"NA": "10", "007": "2", "x": "validation"}


@pytest.fixture(scope="module")
def points(releases):
    return lambda seed: releases.face_points(seed, 32)


@pytest.fixture(scope="module")
def originals(tmp_path_factory, points):
    """Aligned pictures of 32 x 32 random pixels with landmarks, each a little different."""
    folder, clips, seed = tmp_path_factory.mktemp("originals"), [], 0
    for name, labels in LABELS.items():
        images, landmarks = [], []
        for number in range(len(labels)):
            images.append(folder / f"{name.replace('/', '-')}-{number}.png")
            pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
            assert cv2.imwrite(str(images[-1]), pixels[..., ::-1])
            landmarks.append(points(seed))
            seed += 1
        subject, _, task = name.partition("/")
        numbers = tuple(range(5, 5 + len(labels)))
        labels = np.array(labels, np.int8)
        clips.append(
            ImageFiles(
                name, subject, task, FOLDS[subject], numbers, tuple(images), np.stack(landmarks), labels
            )
        )
    return Release("Mine", AUS, tuple(clips))


@pytest.fixture(scope="module", params=["parquet", "csv"])
def folder(request, originals, tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared") / request.param
    prepare(originals, out, align=False, table=request.param, workers=0)
    return out


@pytest.fixture
def csv_folder(originals, tmp_path):
    prepare(originals, tmp_path / "p", align=False, table="csv", workers=0)
    return tmp_path / "p"


def test_samples(folder, points):
    faces = PreparedFaces(folder)
    assert len(faces) == 5 and faces.name == "Mine" and faces.aus == AUS and faces.image_size == 32
    assert faces.subjects == ("NA", "007", "x")
    assert faces.frame_subjects == ("NA", "NA", "007", "007", "x")
    assert [faces[i].id for i in range(5)] == ["NA/T1/5", "NA/T1/6", "007/T1/5", "007/T2/5", "x/5"]
    assert [faces[i].subject for i in range(5)] == ["NA", "NA", "007", "007", "x"]
    flat = [labels for of_clip in LABELS.values() for labels in of_clip]
    assert faces.label_matrix().tolist() == [list(labels) for labels in flat]
    assert faces.label_matrix().dtype == np.int64
    for i in range(5):
        sample = faces[i]
        assert np.array_equal(
            sample.image, np.random.default_rng(i).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        )
        assert sample.landmarks.dtype == np.float32
        assert np.array_equal(sample.landmarks, points(i).astype(np.float32))
        assert sample.labels.dtype == np.int64 and sample.labels.tolist() == list(flat[i])


def test_samples_can_be_changed_without_changing_the_data_set(folder, points):
    faces = PreparedFaces(folder)
    for array in (faces[0].image, faces[0].landmarks, faces[0].labels, faces.label_matrix()):
        array[:] = 77
    assert np.array_equal(faces[0].landmarks, points(0).astype(np.float32))
    assert faces[0].labels.tolist() == [1, 0, -1]


def test_places_count_from_the_end_too(folder):
    faces = PreparedFaces(folder)
    assert faces[-1].id == "x/5"
    for index in (5, -6):
        with pytest.raises(IndexError, match=f"index {index} is out of range for 5 samples"):
            faces[index]


def test_chosen_aus_in_their_order(folder):
    faces = PreparedFaces(folder, aus=(12, 2))
    assert faces.aus == (12, 2) and faces[0].labels.tolist() == [-1, 1]
    assert faces.label_matrix().tolist() == [[-1, 1], [1, 0], [-1, -1], [0, 1], [1, 0]]


def test_a_folder_without_intensities(folder):
    faces = PreparedFaces(folder)
    assert faces[0].intensities is None
    matrix = faces.intensity_matrix()
    assert matrix.shape == (5, 3) and matrix.dtype == np.float32 and np.isnan(matrix).all()


@pytest.fixture(params=["parquet", "csv"])
def rated(request, originals, tmp_path):
    """A folder whose AUs 5 and 12 have intensities: 0, 0.25, 0.5 … by faces, none in the last."""
    clips, place = [], 0
    for clip in originals.clips:
        degrees = np.full((clip.length, 3), np.nan, np.float32)
        for row in degrees[: 0 if clip.name == "x" else None]:
            row[1:] = 0.25 * place, 0.25 * (place + 1)
            place += 2
        clips.append(replace(clip, intensities=degrees))
    out = tmp_path / "p"
    prepare(
        replace(originals, clips=tuple(clips)),
        out, align=False, table=request.param, workers=0,
    )  # fmt: skip
    return out


def test_intensities(rated):
    nan = np.nan
    wanted = [[nan, 0, 0.25], [nan, 0.5, 0.75], [nan, 1, 1.25], [nan, 1.5, 1.75], [nan, nan, nan]]
    faces = PreparedFaces(rated)
    assert np.array_equal(faces.intensity_matrix(), wanted, equal_nan=True)
    for sample, row in zip(faces, wanted, strict=True):
        assert sample.intensities.dtype == np.float32
        assert np.array_equal(sample.intensities, row, equal_nan=True)
    chosen = PreparedFaces(rated, aus=(12, 2), folds=["2", "validation"])
    assert np.array_equal(chosen.intensity_matrix(), [[1.25, nan], [1.75, nan], [nan, nan]], equal_nan=True)
    assert PreparedFaces(rated, aus=(2,))[0].intensities is None
    for array in (faces[0].intensities, faces.intensity_matrix()):
        array[:] = 77
    assert np.array_equal(faces[0].intensities, wanted[0], equal_nan=True)


def test_intensities_that_make_no_sense(originals, tmp_path):
    first, *others = originals.clips
    named = replace(first, intensities=np.ones((2, 3), np.float32))
    prepare(
        replace(originals, clips=(named, *others)),
        tmp_path, align=False, table="csv", workers=0,
    )  # fmt: skip
    for wrong, message in (
        ("5.5", r"wanted 0\.\.5 or nothing in column AU05_intensity, got 5\.5"),
        ("-1", r"wanted 0\.\.5 or nothing in column AU05_intensity, got -1"),
        ("strong", "is damaged, wanted the columns"),
    ):
        edit(tmp_path, lambda rows, wrong=wrong: rows[1].update(AU05_intensity=wrong))
        with pytest.raises(FolderError, match=rf"index\.csv: {message}"):
            PreparedFaces(tmp_path)


def test_chosen_folds(folder, points):
    faces = PreparedFaces(folder, folds=["validation", "10"])
    assert [sample.id for sample in faces] == ["NA/T1/5", "NA/T1/6", "x/5"]
    assert faces.subjects == ("NA", "x") and faces.folds == ("10", "validation")
    assert np.array_equal(faces[2].landmarks, points(4).astype(np.float32))
    assert PreparedFaces(folder).folds == read_folds(folder) == ("2", "10", "validation")


def test_chosen_subjects(folder):
    faces = PreparedFaces(folder, subjects={"007", "x"}, folds=("2",))
    assert [sample.id for sample in faces] == ["007/T1/5", "007/T2/5"]


def test_what_is_not_there_is_named(folder):
    for wanted, message in (
        ({"aus": (2, 4)}, r"has no labels of AU 4, only of \[2, 5, 12\]"),
        ({"aus": (2, 2)}, r"wanted distinct AUs of \[2, 5, 12\], got \[2, 2\]"),
        ({"aus": ()}, r"wanted distinct AUs of .*, got \[\]"),
        ({"folds": ["1"]}, 'has no fold "1", wanted one of 2, 10, validation'),
        ({"subjects": ["NaN"]}, 'has no subject "NaN", wanted one of 007, NA, x'),
    ):
        with pytest.raises(FolderError, match=f"{folder.name}: {message}"):
            PreparedFaces(folder, **wanted)


def test_it_is_pickled_as_arrays(folder):
    faces = PreparedFaces(folder)
    pickled = pickle.dumps(faces)
    assert b"pandas" not in pickled
    again = pickle.loads(pickled)
    assert again[3].id == "007/T2/5" and np.array_equal(again[3].image, faces[3].image)


def test_worker_processes_of_a_data_loader_read_it(folder):
    loader = torch.utils.data.DataLoader(PreparedFaces(folder), batch_size=None, num_workers=1)
    assert [sample.id for sample in loader] == [sample.id for sample in PreparedFaces(folder)]


def test_names_in_other_alphabets(tmp_path, originals):
    one = originals.clips[0]
    named = ImageFiles("Жан/задача", "Жан", "задача", "", one.numbers, one.images, one.landmarks, one.labels)
    for table in ("csv", "parquet"):
        out = tmp_path / table
        prepare(
            Release("Mine", AUS, (named,)), out, align=False, table=table, workers=0,
        )  # fmt: skip
        faces = PreparedFaces(out)
        assert faces[1].id == "Жан/задача/6" and faces.folds == read_folds(out) == ()


def edit(folder, change):
    with (folder / "index.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    change(rows)
    with (folder / "index.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def test_folds_of_ones_own_in_the_csv(csv_folder):
    edit(csv_folder, lambda rows: [row.update(fold=row["subject"]) for row in rows])
    assert read_folds(csv_folder) == ("007", "NA", "x")
    assert len(PreparedFaces(csv_folder, folds=["NA"])) == 2


def test_a_subject_in_two_folds_is_refused_whatever_is_chosen(csv_folder):
    edit(csv_folder, lambda rows: rows[0].update(fold="2"))
    for options in ({}, {"folds": ["validation"]}):
        with pytest.raises(FolderError, match=r"p: subject 'NA' .*folds '2' and '10'"):
            PreparedFaces(csv_folder, **options)


def test_a_lost_image_is_named_when_it_is_read(csv_folder):
    faces = PreparedFaces(csv_folder)
    (csv_folder / "images" / "x" / "5.png").unlink()
    assert faces[0].id == "NA/T1/5"
    with pytest.raises(ImageError, match=r"p/images/x/5\.png: there is no such file"):
        faces[4]


def test_folders_that_are_no_finished_preparation(csv_folder, tmp_path):
    settings = csv_folder / "prepare.json"
    known = json.loads(settings.read_text())
    with pytest.raises(FolderError, match=r"none: .*got no such folder$"):
        PreparedFaces(tmp_path / "none")
    for change, message in (
        ({"format": 2}, r"prepare\.json: wanted format 1, got 2; prepare the data set anew"),
        ({"report": None}, "p: its preparation is not finished; the command that began it goes on"),
    ):
        settings.write_text(json.dumps(known | change))
        for read in (PreparedFaces, read_folds):
            with pytest.raises(FolderError, match=message):
                read(csv_folder)
    settings.write_text(json.dumps(known)[:-5])
    with pytest.raises(FolderError, match=r"prepare\.json: is damaged"):
        PreparedFaces(csv_folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"settings": None}, r"settings: Input should be"),
        ({"settings": []}, r"settings: Input should be"),
        ({"image_size": 0}, r"image_size: Input should be greater"),
        ({"report": {}}, r"report\.name: Field required"),
        ({"sequences": [["A"]]}, r"sequences\.0: List should have at least 4"),
        ({"format": "one"}, r"format: Input should be a valid integer"),
        ({"opencv": 5}, r"opencv: Input should be a valid array"),
    ],
)
def test_settings_that_are_damaged_inside(csv_folder, change, message):
    path = csv_folder / "prepare.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(FolderError, match=rf"prepare\.json: is damaged: wanted .*\({message}"):
        PreparedFaces(csv_folder)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[" * 100_000, b"[]", b"null", b"7"])
def test_settings_that_are_no_json_of_ours(csv_folder, content):
    (csv_folder / "prepare.json").write_bytes(content)
    with pytest.raises(FolderError, match=r"prepare\.json: is damaged"):
        PreparedFaces(csv_folder)


def test_folders_of_early_versions(csv_folder, recwarn):
    path = csv_folder / "prepare.json"
    known = json.loads(path.read_text())
    del known["opencv"], known["settings"]["source"], known["report"]["remarks"]
    del known["report"]["intensities"]
    path.write_text(json.dumps(known))
    faces = PreparedFaces(csv_folder)
    assert len(faces) == 5 and faces.opencv == () and not recwarn


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"AU05": "7"}, "wanted 0, 1 or nothing in column AU05, got 7"),
        ({"AU05": "-1"}, "wanted 0, 1 or nothing in column AU05, got -1"),
        ({"AU05": "smile"}, "is damaged, wanted the columns"),
        ({"x_0": "1e300"}, "wanted landmarks that are finite, got NaN or infinity"),
        ({"y_48": ""}, "is damaged, wanted the columns"),
        (
            {"path": "images/NA/T1/../../../../secret.png"},
            "wanted images in 'images/NA/', got",
        ),
        (
            {"path": "/etc/passwd"},
            "wanted images in 'images/NA/', got '/etc/passwd'",
        ),
        ({"subject": "x"}, "wanted images in 'images/x/', got"),
        ({"path": "images/NA/T1/6.png"}, r"wanted each image once, got 'images/NA/T1/6\.png' 2 times"),
    ],
)
def test_rows_that_make_no_sense(csv_folder, change, message):
    edit(csv_folder, lambda rows: rows[0].update(change))
    with pytest.raises(FolderError, match=rf"index\.csv: {message}"):
        PreparedFaces(csv_folder)


def test_more_rows_than_were_kept(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    known = json.loads((copy / "prepare.json").read_text())
    known["report"]["kept"] = 4
    (copy / "prepare.json").write_text(json.dumps(known))
    for read in (PreparedFaces, read_folds):
        with pytest.raises(FolderError, match=r"index\.\w+: .*4 rows .*prepare.json .*got 5"):
            read(copy)


def test_text_in_parquet_that_is_no_utf8(originals, tmp_path):
    copy = tmp_path / "copy"
    prepare(originals, copy, align=False, workers=0)
    index = copy / "index.parquet"
    pyarrow.parquet.write_table(pyarrow.parquet.read_table(index), index, compression="none")
    index.write_bytes(index.read_bytes().replace(b"images/x/5.png", b"images/x/\xff.png"))
    with pytest.raises(FolderError, match=r"index\.parquet: is damaged, .*text in column path"):
        PreparedFaces(copy)


def test_a_damaged_index(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    index = copy / f"index.{folder.name}"
    index.write_bytes(index.read_bytes()[:200])
    with pytest.raises(FolderError, match=rf"index\.{folder.name}: is damaged"):
        PreparedFaces(copy)
    index.unlink()
    with pytest.raises(FolderError, match=rf"index\.{folder.name}: .*got no such file"):
        PreparedFaces(copy)


class TestSubjectFolds:
    def test_by_hand(self):
        frames = ["d"] * 5 + ["a"] * 4 + ["c"] * 3 + ["b"] * 3 + ["e"] * 2
        # d to fold 1 (5), a to 2 (4), b to 2 (7), c to 1 (8), e to 2 (9).
        assert subject_folds(frames, 2) == {"a": "2", "b": "2", "c": "1", "d": "1", "e": "2"}
        assert subject_folds(reversed(frames), 2) == subject_folds(frames, 2)
        assert list(subject_folds(frames, 2)) == sorted("abcde")

    def test_every_fold_gets_someone_and_none_gets_much_more(self):
        rng = np.random.default_rng(0)
        frames = [f"S{s}" for s in range(41) for _ in range(rng.integers(100, 5000))]
        folds = subject_folds(frames, 3)
        sizes = [sum(folds[s] == str(k) for s in frames) for k in (1, 2, 3)]
        assert sum(sizes) == len(frames) and max(sizes) - min(sizes) < 0.01 * len(frames)

    def test_too_few_subjects(self):
        for k in (1, 3):
            with pytest.raises(ValueError, match=f"a subject for each, got k={k} of 2 subjects"):
                subject_folds(["a", "b", "a"], k)
