"""Preparing a small release: aligned images, the index, what is left out, and going on after a kill."""

import csv
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from skimage import data

from jaa_ext import facs
from jaa_ext.data import PreparedFaces, Release, ReleaseError, align_face, prepare
from jaa_ext.data.preparation import parts
from jaa_ext.data.preparation.folder import FolderError
from jaa_ext.data.readers.image_files import ImageFiles
from jaa_ext.data.release import Frame, Skipped
from jaa_ext.predict import DetectedFace, FaceDetector

AUS = (1, 12)
X, Y = ([f"{axis}_{i}" for i in range(49)] for axis in "xy")


@pytest.fixture(scope="module")
def astronaut():
    return data.astronaut()


@pytest.fixture
def photograph(tmp_path, astronaut):
    path = tmp_path / "photos" / "a.png"
    path.parent.mkdir()
    assert cv2.imwrite(str(path), astronaut[..., ::-1])
    return path


def face(shift=0.0):
    """Made-up landmarks about where the astronaut's face is: eyes at 202 and 248, a mouth at y 147."""
    points = np.random.default_rng(5).uniform((195, 90), (255, 160), (49, 2))
    points[list(facs.LEFT_EYE)] += np.array((202, 101)) - points[list(facs.LEFT_EYE)].mean(0)
    points[list(facs.RIGHT_EYE)] += np.array((248, 104)) - points[list(facs.RIGHT_EYE)].mean(0)
    points[13], points[31], points[37] = (226, 129), (208, 146), (240, 147)
    return points + shift


def clip(image, name="F001/T1", *, fold="1", numbers=(3, 7), labels=((1, 0), (0, -1)), landmarks=None):
    subject, _, task = name.partition("/")
    points = np.stack([face(number) for number in numbers]) if landmarks is None else landmarks
    images = tuple(image for _ in numbers) if isinstance(image, Path) else image
    return ImageFiles(name, subject, task, fold, numbers, images, points, np.array(labels, np.int8))


def release(*clips, **fields):
    return Release("Test", AUS, clips, **fields)


def small(photograph):
    """Three clips of two subjects in two folds."""
    return release(
        clip(photograph),
        clip(photograph, "F001/T2", numbers=(1, 2), labels=((1, 1), (-1, -1))),
        clip(photograph, "M002/T1", fold="2", numbers=(10, 9), labels=((0, 0), (1, -1))),
    )


def run(release, out, **options):
    return prepare(release, out, **{"size": 64, "workers": 0, **options})


def skipped(out):
    with (out / "skipped.csv").open(newline="") as file:
        return [tuple(row) for row in csv.reader(file)]


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_images_and_index(tmp_path, photograph, astronaut):
    out = tmp_path / "out"
    run(small(photograph), out)
    index = pd.read_parquet(out / "index.parquet")
    assert list(index) == ["subject", "task", "frame", "fold", "path", "eye_distance", *X, *Y, "AU01", "AU12"]
    assert index[["subject", "task", "frame", "fold", "path"]].values.tolist() == [
        ["F001", "T1", 3, "1", "images/F001/T1/3.png"],
        ["F001", "T1", 7, "1", "images/F001/T1/7.png"],
        ["F001", "T2", 1, "1", "images/F001/T2/1.png"],
        ["F001", "T2", 2, "1", "images/F001/T2/2.png"],
        ["M002", "T1", 10, "2", "images/M002/T1/10.png"],
        ["M002", "T1", 9, "2", "images/M002/T1/9.png"],
    ]
    for row in index.itertuples():
        image, landmarks, _ = align_face(astronaut, face(row.frame), size=64)
        assert np.array_equal(cv2.imread(str(out / row.path))[..., ::-1], image)
        points = index.loc[row.Index, X + Y].to_numpy(np.float64).reshape(2, 49).T
        assert np.array_equal(points, landmarks)
        left, right = (points[list(eye)].mean(0) for eye in (facs.LEFT_EYE, facs.RIGHT_EYE))
        assert row.eye_distance == pytest.approx(np.hypot(*(right - left)), rel=1e-6)
    assert {index[column].dtype for column in (*X, *Y, "eye_distance")} == {np.dtype("float32")}
    missing = [
        [column.fillna(-1).astype(int).tolist(), str(column.dtype)] for column in (index.AU01, index.AU12)
    ]
    assert missing == [[[1, 0, 1, -1, 0, 1], "Int8"], [[0, -1, 1, -1, 0, -1], "Int8"]]
    assert skipped(out) == [("sequence", "frame", "reason")]
    assert sorted(p.name for p in out.iterdir()) == ["images", "index.parquet", "prepare.json", "skipped.csv"]


NONE = float("nan")


def rated(photograph, *intensities):
    """A release whose first clip has intensities."""
    first, *others = small(photograph).clips
    return release(replace(first, intensities=np.array(intensities, np.float32)), *others)


@pytest.mark.parametrize("table", ["parquet", "csv"])
def test_intensities_have_a_column_for_each_au_that_has_any(tmp_path, photograph, table):
    out = tmp_path / "out"
    report = run(rated(photograph, (NONE, 0.1), (NONE, 5)), out, table=table)
    index = pd.read_parquet(out / "index.parquet") if table == "parquet" else pd.read_csv(out / "index.csv")
    assert list(index)[-3:] == ["AU01", "AU12", "AU12_intensity"]
    assert index.AU12_intensity[:2].tolist() == [pytest.approx(0.1), 5]
    assert index.AU12_intensity[2:].isna().all()
    assert report.intensities == (0, 2) and report.aus_with_intensities == (12,)
    faces = PreparedFaces(out)
    tenth = np.float32(0.1)
    assert np.array_equal(faces[0].intensities, [np.nan, tenth], equal_nan=True)
    wanted = np.full((6, 2), np.nan, np.float32)
    wanted[:2, 1] = tenth, 5
    assert np.array_equal(faces.intensity_matrix(), wanted, equal_nan=True)
    assert faces.intensity_matrix().dtype == faces[0].intensities.dtype == np.float32


def test_intensities_that_are_none_stop(tmp_path, photograph):
    for wrong in ((0, 5.1), (-1, 0)):
        with pytest.raises(ReleaseError, match=r"F001/T1, frame 7: wanted 2 intensities of 0\.\.5"):
            run(rated(photograph, (0, 0), wrong), tmp_path / str(wrong[0]))


class Bad:
    """One good frame between bad ones of all kinds."""

    name, subject, task, fold, length = "A", "A", "", "", 3

    def __init__(self, photograph):
        self.photograph = photograph
        self.broken = photograph.with_name("broken.png")
        self.broken.write_bytes(photograph.read_bytes()[:1000])

    def read(self):
        nan, one_eye = face(), face()
        nan[48, 1] = np.nan
        one_eye[list(facs.RIGHT_EYE)] = one_eye[list(facs.LEFT_EYE)]
        good = self.photograph
        yield Skipped(1, "dropped by the reader")
        yield Frame(2, good.with_name("none.png"), face(), (1, 1))
        yield Frame(3, self.broken, face(), (1, 1))
        yield Frame(4, good, None, (1, 1))
        yield Frame(5, good, nan, (1, 1))
        yield Frame(6, good, face(), (1, 1))
        yield Frame(7, good, one_eye, (1, 1))
        yield Frame(8, good, face()[:48], (1, 1))
        yield Frame(9, np.zeros((4, 4, 3)), face(), (1, 1))
        yield Frame(6, good, face(), (0, 0))
        yield Skipped(10, "dropped by the reader")


def test_bad_frames_are_left_out_with_their_reasons(tmp_path, photograph):
    report = run(release(Bad(photograph)), tmp_path / "out")
    assert report.kept == 1
    assert skipped(tmp_path / "out")[1:] == [
        ("A", "1", "dropped by the reader"),
        ("A", "2", "the image is missing"),
        ("A", "3", "the image cannot be read"),
        ("A", "4", "no landmarks"),
        ("A", "5", "landmarks that are not finite"),
        ("A", "7", "the eyes are less than 4 pixels apart"),
        ("A", "8", "not 49 landmarks"),
        ("A", "9", "the image cannot be read"),
        ("A", "6", "its frame number came before"),
        ("A", "10", "dropped by the reader"),
    ]
    assert list(report.skipped.items())[:2] == [("dropped by the reader", 2), ("the image cannot be read", 2)]
    (only,) = PreparedFaces(tmp_path / "out")
    assert only.id == "A/6" and only.labels.tolist() == [1, 1]


def test_landmarks_of_another_resolution_stop_with_their_numbers(tmp_path, photograph):
    numbers = tuple(range(30))
    wide = release(
        clip(
            photograph,
            numbers=numbers,
            labels=[(1, 0)] * 30,
            landmarks=np.stack([face(n) * 4 for n in numbers]),
        )
    )
    left, top = np.stack([face(n) * 4 for n in numbers]).min((0, 1))
    right, bottom = np.stack([face(n) * 4 for n in numbers]).max((0, 1))
    words = (
        "Test: .*30 of 30 frames, such as frame 0 of F001/T1, .*outside the picture: "
        rf".*x {left:.4g} to {right:.4g} .*y {top:.4g} to {bottom:.4g} .*512 x 512; .*another resolution"
    )
    with pytest.raises(ReleaseError, match=words):
        run(wide, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
    assert run(small(photograph), tmp_path / "out").kept == 6


def test_a_few_frames_whose_landmarks_miss_the_face_are_left_out(tmp_path, photograph):
    good = face()
    landmarks = np.stack([good, good * 4, good[:, ::-1], good, good / 512, good])
    report = run(
        release(
            clip(photograph, numbers=tuple(range(6)), labels=[(1, 0)] * 6, landmarks=landmarks),
        ),
        tmp_path / "out",
    )
    assert report.kept == 3 and report.remarks == ()
    assert skipped(tmp_path / "out")[1:] == [
        ("F001/T1", "1", "most landmarks lie outside the picture"),
        ("F001/T1", "2", "with the eyes level and in their order the mouth lies above them"),
        ("F001/T1", "4", "the eyes are less than 4 pixels apart"),
    ]
    assert sum(report.skipped.values()) == 3


def at_the_face(image):
    points = face().astype(np.float32)
    return [DetectedFace((0, 0, 9, 9), points + 300, 9.0), DetectedFace((0, 0, 9, 9), points, 1.0)]


def shifted(photograph, shift, frames=30):
    numbers = tuple(range(frames))
    points = np.stack([face() + shift for _ in numbers])
    return release(clip(photograph, numbers=numbers, labels=[(1, 0)] * frames, landmarks=points))


def test_a_checker_sees_landmarks_that_lie_beside_the_face(tmp_path, photograph):
    looked = []

    def checker():
        def find(image):
            looked.append(image.shape)
            return at_the_face(image)

        return find

    # The eyes are 46 pixels apart.
    report = run(shifted(photograph, 15), tmp_path / "near", checker=checker)
    assert report.kept == 30 and report.remarks == () and 20 <= len(looked) <= 30
    words = r"in 30 of 30 frames .*such as frame 0 of F001/T1, .*beside the face .* from x .*512 x 512;"
    with pytest.raises(ReleaseError, match=words):
        run(shifted(photograph, 20), tmp_path / "far", checker=checker)
    # Of a few frames it may have found another face.
    (remark,) = run(shifted(photograph, 20, frames=4), tmp_path / "few", checker=checker).remarks
    assert "beside the face" in remark


def test_without_a_checker_or_a_face_nothing_is_said(tmp_path, photograph):
    def missing():
        raise ImportError("dlib")

    for name, checker in {"none": None, "missing": missing, "blind": lambda: lambda image: []}.items():
        report = run(shifted(photograph, 50), tmp_path / name, checker=checker)
        assert report.kept == 30 and report.remarks == ()


def test_a_checker_looks_at_clips_over_the_whole_data_set(tmp_path, photograph):
    looked = []
    many = release(*(clip(photograph, f"F{i:03}/T1", numbers=(0,), labels=((1, 0),)) for i in range(50)))
    report = run(many, tmp_path / "out", checker=lambda: lambda image: looked.append(0) or at_the_face(image))
    assert report.kept == 50 and len(looked) == 17


def test_the_folder_names_the_opencv_that_aligned_its_faces(tmp_path, photograph, monkeypatch, recwarn):
    run(small(photograph), tmp_path / "out")
    assert PreparedFaces(tmp_path / "out").opencv == (cv2.__version__,)
    assert not recwarn
    monkeypatch.setattr(cv2, "__version__", "3.4.0")
    with pytest.warns(UserWarning, match=r"OpenCV [45]\.\S+, .* 3\.4\.0, "):
        PreparedFaces(tmp_path / "out")


@pytest.mark.parametrize("former", ["3.4.0", None])
def test_going_on_with_another_opencv_is_told(tmp_path, photograph, former, heard):
    out = tmp_path / "out"
    release_of_two, interrupted = small(photograph), KeyboardInterrupt

    class Stops:
        name, subject, task, fold, length = "M002/T1", "M002", "T1", "2", 1

        def read(self):
            raise interrupted
            yield

    one, two, three = release_of_two.clips
    with pytest.raises(KeyboardInterrupt):
        run(release(one, two, Stops()), out)
    settings = json.loads((out / "prepare.json").read_text())
    assert settings.pop("opencv") == [cv2.__version__]
    (out / "prepare.json").write_text(json.dumps(settings | ({"opencv": [former]} if former else {})))
    assert run(release(one, two, three), out, listener=heard).kept == 6
    named = f"{former or 'an unknown version'} and {cv2.__version__}"
    assert f"its faces were aligned by OpenCV {named}; the same face differs" in heard.messages[0]
    with pytest.warns(UserWarning, match=f"aligned by OpenCV {named}"):
        PreparedFaces(out)


def test_what_an_interrupted_run_left_is_cleaned_up(tmp_path, photograph, monkeypatch, heard):
    out = tmp_path / "out"
    module = sys.modules["jaa_ext.data.preparation.prepare"]
    with monkeypatch.context() as patch:
        patch.setattr(module, "merge", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(small(photograph), out)
    damaged, absent = (out / "parts" / f"F001%2F{task}.npz" for task in ("T1", "T2"))
    damaged.write_bytes(damaged.read_bytes()[:-100])
    absent.unlink()
    (out / "images" / "F001" / "T2" / "99.png").write_bytes(b"half of a picture that the list has no more")
    run(small(photograph), out, listener=heard)
    assert "goes on; 1 of 3 clips are done" in heard.messages[0]
    run(small(photograph), tmp_path / "whole")
    assert contents(out) == contents(tmp_path / "whole")


def test_an_image_that_does_not_reach_the_disk_is_not_vouched_for(tmp_path, photograph, monkeypatch):
    def fails(path):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(parts, "sync", fails)
    with pytest.raises(OSError, match=r"No space left on device: .*3\.png"):
        run(small(photograph), tmp_path / "out")
    assert list((tmp_path / "out" / "parts").iterdir()) == []


def test_a_full_disk_names_the_file(tmp_path, photograph, monkeypatch):
    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=r"No space left on device: .*images/F001/T1/3\.png"):
        run(small(photograph), tmp_path / "out")


@pytest.mark.parametrize("aus", [(0, 1), (1, 1000), (1, 1)])
def test_aus_that_are_none(tmp_path, photograph, aus):
    with pytest.raises(ReleaseError, match=r"distinct AUs from 1 to 999, got 3"):
        run(replace(small(photograph), aus=aus), tmp_path / "out")


def test_decoded_pictures_of_a_video(tmp_path, astronaut):
    class Video:
        name, subject, task, fold, length = "A", "A", "", "", 1

        def read(self):
            yield Frame(1, astronaut, face(), (1, 0))

    run(release(Video()), tmp_path / "out")
    (sample,) = PreparedFaces(tmp_path / "out")
    assert np.array_equal(sample.image, align_face(astronaut, face(), size=64)[0])


def without_landmarks(*images):
    numbers = tuple(range(len(images)))
    nothing = np.full((len(images), 49, 2), np.nan)
    return release(clip(images, "A", numbers=numbers, labels=[(1, 0)] * len(images), landmarks=nothing))


def test_dlib_finds_the_landmarks(tmp_path, photograph, astronaut):
    coffee = photograph.with_name("coffee.png")
    assert cv2.imwrite(str(coffee), data.coffee()[:200, :200])
    report = run(
        without_landmarks(photograph, coffee),
        tmp_path / "out",
        detector=partial(FaceDetector, landmarks="dlib"),
    )
    assert report.skipped == {"no face was found": 1}
    (sample,) = PreparedFaces(tmp_path / "out")
    (found,) = FaceDetector(landmarks="dlib")(astronaut)
    image, landmarks, _ = align_face(astronaut, found.landmarks, size=64)
    assert np.array_equal(sample.image, image) and np.array_equal(sample.landmarks, landmarks)


def test_of_several_faces_the_largest_is_taken(tmp_path, photograph, astronaut):
    def find(image):
        boxes = ((0, 0, 10, 90, 9.0), (0, 0, 40, 30, 0.5), (0, 0, 40, 30, 0.4))
        return [
            DetectedFace((x0, y0, x1, y1), face(10 * i).astype(np.float32), score)
            for i, (x0, y0, x1, y1, score) in enumerate(boxes)
        ]

    run(without_landmarks(photograph), tmp_path / "out", detector=lambda: find)
    (sample,) = PreparedFaces(tmp_path / "out")
    assert np.array_equal(sample.image, align_face(astronaut, face(10), size=64)[0])


def test_landmarks_that_come_with_the_data_need_no_detector(tmp_path, photograph):
    def none():
        raise AssertionError("made for nothing")

    assert run(small(photograph), tmp_path / "out", detector=none).kept == 6


def test_pictures_that_are_aligned_already_are_kept_as_they_are(tmp_path, astronaut):
    images = []
    for number, (shape, ending) in enumerate(
        [
            ((112, 112), "jpg"),
            ((96, 96), "jpg"),
            ((112, 112), "png"),
            ((112, 100), "png"),
            ((112, 112), "JPG"),
        ]
    ):
        images.append(tmp_path / f"{number}.{ending}")
        assert cv2.imwrite(str(images[-1]), astronaut[: shape[0], : shape[1]])
    points = np.stack([face(i) - (180, 80) for i in range(5)])
    whole = release(
        clip(tuple(images[:1]), "A", numbers=(0,), labels=[(1, 0)], landmarks=points[:1]),
        clip(tuple(images[1:]), "B", numbers=(1, 2, 3, 4), labels=[(1, 0)] * 4, landmarks=points[1:]),
    )
    out = tmp_path / "out"
    report = run(whole, out, align=False, size=200)
    assert skipped(out)[1:] == [
        ("B", "3", "the picture is not square"),
        ("B", "1", "the picture has not the side of most pictures"),
    ]
    kept = {name: content for name, content in contents(out).items() if name.startswith("images/")}
    assert kept == {
        "images/A/0.jpg": images[0].read_bytes(),
        "images/B/2.png": images[2].read_bytes(),
        "images/B/4.JPG": images[4].read_bytes(),
    }
    faces = PreparedFaces(out)
    assert faces.image_size == report.image_size == 112
    assert [sample.id for sample in faces] == ["A/0", "B/2", "B/4"]
    for sample, points_of_it in zip(faces, points[[0, 2, 4]], strict=True):
        assert np.array_equal(sample.landmarks, points_of_it.astype(np.float32))
        assert sample.image.shape == (112, 112, 3)


def test_the_same_bytes_with_two_workers(tmp_path, photograph):
    run(small(photograph), tmp_path / "none")
    report = run(small(photograph), tmp_path / "two", workers=2, detector=None)
    assert contents(tmp_path / "none") == contents(tmp_path / "two")
    assert report.kept == 6


def test_an_error_in_a_worker_arrives_as_it_is(tmp_path, photograph):
    bad = release(clip(photograph), clip(photograph, "F001/T2", labels=((1, 0), (0, 5))))
    message = r"F001/T2, frame 7: wanted 2 labels of 1, 0 and -1, got \(0, 5\)"
    for workers in (0, 1):
        with pytest.raises(ReleaseError, match=message):
            run(bad, tmp_path / str(workers), workers=workers)
    assert (tmp_path / "1" / "parts" / "F001%2FT1.npz").exists()


def test_a_finished_folder_stays_as_it_is(tmp_path, photograph, heard):
    first = run(small(photograph), tmp_path / "out")
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in tmp_path.rglob("*")}
    photograph.unlink()
    assert run(small(photograph), tmp_path / "out", listener=heard) == first
    after = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in tmp_path.rglob("*")}
    del before[photograph], before[photograph.parent], after[photograph.parent]
    assert after == before
    assert "is finished already, nothing was changed" in heard.messages[0]


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({}, {"size": 65}, "size 64, not 65"),
        ({}, {"align": False}, "size 64, not None"),
        ({}, {"table": "csv"}, "table 'parquet', not 'csv'"),
        ({}, {"detector": partial(FaceDetector, landmarks="dlib")}, "detector False, not True"),
        ({"name": "Other"}, {}, "name 'Test', not 'Other'"),
        ({"source": "/b"}, {}, "source '', not '/b'"),
        ({"aus": (12, 1)}, {}, r"aus \[1, 12\], not \[12, 1\]"),
    ],
)
def test_another_call_on_the_folder_is_refused(tmp_path, photograph, change, options, message):
    run(small(photograph), tmp_path / "out")
    before = contents(tmp_path / "out")
    with pytest.raises(FolderError, match=f"out: was begun with {message};"):
        run(replace(small(photograph), **change), tmp_path / "out", **options)
    assert contents(tmp_path / "out") == before


def test_other_clips_on_the_folder_are_refused(tmp_path, photograph):
    run(small(photograph), tmp_path / "out")
    one, two, three = small(photograph).clips
    for clips, message in (
        ((one, two), "3 clips, not 2"),
        ((one, three, two), "clip 'F001/T2', not 'M002/T1'"),
        ((one, two, replace(three, fold="3")), "fold '2', not '3' in clip 'M002/T1'"),
    ):
        with pytest.raises(FolderError, match=f"was begun with {message}; give"):
            run(release(*clips), tmp_path / "out")


def test_a_folder_with_other_files_is_refused(tmp_path, photograph):
    with pytest.raises(FolderError, match=r"photos: .*empty folder, .* got other files"):
        run(small(photograph), photograph.parent)
    assert [path.name for path in photograph.parent.iterdir()] == ["a.png"]


def test_one_process_at_a_time(tmp_path, photograph):
    class Twice:
        name, subject, task, fold, length = "A", "A", "", "", 1

        def read(self):
            with pytest.raises(FolderError, match="another process is preparing"):
                run(small(photograph), tmp_path / "out")
            yield Frame(1, photograph, face(), (1, 0))

    assert run(release(Twice()), tmp_path / "out").kept == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "../F001", "subject": ".."}, r"name that can be a path, got '\.\./F001'"),
        ({"name": "F001//T1"}, "name that can be a path, got 'F001//T1'"),
        ({"subject": "F0"}, "to begin with subject 'F0', got 'F001/T1'"),
        ({"subject": "F001/T1"}, "a subject without a slash, got 'F001/T1' in clip 'F001/T1'"),
        ({"subject": ""}, "a subject without a slash, got ''"),
    ],
)
def test_clips_that_ids_could_not_name(tmp_path, photograph, fields, message):
    with pytest.raises(ReleaseError, match=f"Test: wanted .*{message}"):
        run(release(replace(clip(photograph), **fields)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_told_apart(tmp_path, photograph):
    twice = clip(photograph)
    with pytest.raises(ReleaseError, match="got 'F001/T1' 2 times"):
        run(release(twice, twice), tmp_path / "out")
    with pytest.raises(FolderError, match=r"Test: subject 'F001' .*folds '1' and '2'"):
        run(release(twice, clip(photograph, "F001/T2", fold="2")), tmp_path / "out")
    with pytest.raises(ReleaseError, match=r"got 0 clips and AUs \[1, 12\]"):
        run(release(), tmp_path / "out")


def test_no_usable_frame_leaves_the_folder_to_a_better_try(tmp_path, photograph):
    hidden = photograph.rename(photograph.with_name("hidden.png"))
    with pytest.raises(ReleaseError, match=r"got none: .*image is missing in 6 of 6, .*frame 3 of F001/T1"):
        run(small(photograph), tmp_path / "out")
    hidden.rename(photograph)
    assert run(small(photograph), tmp_path / "out").kept == 6


def test_arguments_out_of_range(tmp_path, photograph):
    for options in ({"size": 1}, {"table": "xls"}, {"workers": -1}):
        with pytest.raises(ValueError, match="size >= 2, table 'parquet' or 'csv' and workers"):
            run(small(photograph), tmp_path / "out", **options)


@pytest.mark.parametrize(("package", "tables"), [("pandas", ("csv", "parquet")), ("pyarrow", ("parquet",))])
def test_a_missing_package_is_named_before_any_work(tmp_path, photograph, monkeypatch, package, tables):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    for table in ("csv", "parquet"):
        if table in tables:
            with pytest.raises(ImportError, match=rf"need {package}, .*pip install 'jaa_ext\[data\]'"):
                run(small(photograph), tmp_path / table, table=table)
            assert not (tmp_path / table).exists()
        else:
            run(small(photograph), tmp_path / table, table=table)


SLOW = """
import pickle, sys, time
from dataclasses import dataclass
from pathlib import Path
from jaa_ext.cli.output import console
from jaa_ext.cli.progress import shown_progress
from jaa_ext.data import prepare

@dataclass
class Slow:
    files: object
    delay: float
    def __getattr__(self, name):
        if name.startswith("__") or name == "files":
            raise AttributeError(name)
        return getattr(self.files, name)
    def read(self):
        for frame in self.files.read():
            time.sleep(self.delay)
            yield frame

if __name__ == "__main__":
    whole = pickle.loads(Path(sys.argv[1]).read_bytes())
    delays = [0.0, *[1000.0] * (len(whole.clips) - 1)]
    slow = tuple(Slow(files, delay) for files, delay in zip(whole.clips, delays))
    object.__setattr__(whole, "clips", slow)
    print("begun", flush=True)
    try:
        with shown_progress(console) as listener:
            prepare(whole, sys.argv[2], size=64, workers=int(sys.argv[3]), listener=listener)
    except KeyboardInterrupt:
        sys.exit(130)
"""


class Running:
    """The small release in another process, which gets stuck at the second clip."""

    def __init__(self, tmp_path, photograph, workers):
        script, pickled = tmp_path / "slow.py", tmp_path / "release.pickle"
        script.write_text(SLOW)
        pickled.write_bytes(pickle.dumps(small(photograph)))
        self.process = subprocess.Popen(
            [sys.executable, script, pickled, tmp_path / "out", str(workers)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # A shell that runs the tests in the background ignores Ctrl-C, and so would this process.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        self.part = tmp_path / "out" / "parts" / "F001%2FT1.npz"
        self.wait(lambda: self.part.exists())

    def wait(self, condition):
        end = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < end and self.process.poll() is None, self.process.communicate()
            time.sleep(0.02)

    def children(self):
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        return [int(pid) for task in tasks for pid in task.read_text().split()]


def alive(pid):
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def wait_for_the_end_of(children):
    """Python's own helper process, which clears up shared memory, ends a moment after its parent."""
    end = time.monotonic() + 20
    while any(alive(pid) for pid in children):
        assert time.monotonic() < end, "processes outlive the one that began them"
        time.sleep(0.02)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_killed_run_goes_on(tmp_path, photograph, workers, heard):
    running = Running(tmp_path, photograph, workers)
    children = running.children()
    assert len(children) >= workers
    running.process.kill()
    running.process.communicate()
    out = tmp_path / "out"
    assert (
        not (out / "index.parquet").exists()
        and json.loads((out / "prepare.json").read_text())["report"] is None
    )
    with pytest.raises(FolderError, match="out: its preparation is not finished"):
        PreparedFaces(out)
    wait_for_the_end_of(children)

    image = out / "images" / "F001" / "T1" / "3.png"
    written = image.stat().st_mtime_ns
    run(small(photograph), out, listener=heard)
    assert "goes on; 1 of 3 clips are done" in heard.messages[0]
    assert image.stat().st_mtime_ns == written
    run(small(photograph), tmp_path / "whole")
    assert contents(out) == contents(tmp_path / "whole")


def test_ctrl_c_ends_all_processes_and_says_how_to_go_on(tmp_path, photograph):
    running = Running(tmp_path, photograph, 2)
    children = running.children()
    os.killpg(running.process.pid, signal.SIGINT)
    said, errors = running.process.communicate(timeout=60)
    assert running.process.returncode == 130 and errors == ""
    assert "interrupted; the same command goes on" in said
    wait_for_the_end_of(children)
    run(small(photograph), tmp_path / "out")
    run(small(photograph), tmp_path / "whole")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_killed_worker_is_told_in_a_sentence(tmp_path, photograph):
    with pytest.raises(RuntimeError, match=r"a worker died, .*same command .*fewer workers"):
        run(without_landmarks(photograph), tmp_path / "out", workers=1, detector=dies)


def dies():
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("workers", [0, 2])
def test_frames_are_counted_and_not_clips(tmp_path, photograph, heard, workers):
    run(small(photograph), tmp_path / "out", listener=heard, workers=workers)
    assert [task[1:] for task in heard.tasks] == [(6, 0)] and heard.ended == 1
    assert heard.steps[0][-1] == 6 and heard.steps[0] == sorted(heard.steps[0])
