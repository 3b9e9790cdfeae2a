"""The authors' lists: paths, landmarks and AUs in text files."""

import io

import cv2
import numpy as np
import pytest
from rich.console import Console

from jaa_ext import facs
from jaa_ext.data import PreparedFaces, ReleaseError, prepare
from jaa_ext.data.lists import read_lists


@pytest.fixture
def images(tmp_path):
    (tmp_path / "images").mkdir()
    return tmp_path / "images"


def points(line):
    return np.random.default_rng(line).uniform(1, 90, (49, 2)).round(3)


def write(prefix, paths, labels, *, landmarks=None, separator=" ", biocular=None):
    """Lists under a prefix; landmarks are numbered over the lines unless they are given as text."""
    prefix.parent.mkdir(exist_ok=True)
    if landmarks is None:
        landmarks = [separator.join(f"{v:.3f}" for v in points(i).ravel()) for i in range(len(paths))]
    for what, lines in (("path", paths), ("land", landmarks), ("AUoccur", labels), ("biocular", biocular)):
        if lines is not None:
            prefix.with_name(f"{prefix.name}_{what}.txt").write_text("\n".join(lines) + "\n")
    return prefix


def frames(release):
    return {s.name: list(s.read()) for s in release.sequences}


ZEROS = " ".join(["0"] * 12)


def test_two_folds_of_bp4d(tmp_path, images):
    ones = " ".join(["1", "0", "9", "-1"] * 3)
    one = write(
        tmp_path / "l" / "part1",
        ["F001/T1/2440.jpg", "F001/T2/0017.jpg", "F001/T1/2441.jpg"],
        [ones, ZEROS, "1.0 " + " ".join(["0.0"] * 11)],
    )
    two = write(tmp_path / "l" / "part2", ["M002\\T1\\3.jpg"], [ZEROS])
    release = read_lists([one, two], images, landmarks="aligned")
    assert (release.name, release.aus, release.expected) == ("BP4D", facs.BP4D_AUS, None)
    described = [(s.name, s.subject, s.task, s.fold, s.length) for s in release.sequences]
    assert described == [
        ("F001/T1", "F001", "T1", "part1", 2),
        ("F001/T2", "F001", "T2", "part1", 1),
        ("M002/T1", "M002", "T1", "part2", 1),
    ]
    read = frames(release)
    assert [(f.number, f.image) for f in read["F001/T1"]] == [
        (2440, images / "F001/T1/2440.jpg"),
        (2441, images / "F001/T1/2441.jpg"),
    ]
    assert read["F001/T1"][0].labels == (1, 0, -1, -1) * 3
    assert read["F001/T1"][1].labels == (1, *[0] * 11)
    assert read["F001/T2"][0].number == 17
    assert read["M002/T1"][0].image == images / "M002" / "T1" / "3.jpg"
    for name, place, line in (("F001/T1", 0, 0), ("F001/T2", 0, 1), ("F001/T1", 1, 2), ("M002/T1", 0, 0)):
        assert np.array_equal(read[name][place].landmarks, points(line))


def test_raw_landmarks_count_from_1(tmp_path, images):
    prefix = write(tmp_path / "p", ["A/1.jpg"], [ZEROS])
    ((frame,),) = frames(read_lists([prefix], images, landmarks="raw")).values()
    assert np.array_equal(frame.landmarks, points(0) - 1)


@pytest.mark.parametrize("separator", [" ", "\t", ",", ", ", "   "])
def test_separators(tmp_path, images, separator):
    prefix = write(tmp_path / "p", ["A/1.jpg"], [separator.join("10" * 4)], separator=separator)
    release = read_lists([prefix], images, landmarks="aligned")
    ((frame,),) = frames(release).values()
    assert np.array_equal(frame.landmarks, points(0))
    assert frame.labels == (1, 0) * 4 and (release.name, release.aus) == ("DISFA", facs.DISFA_AUS)


def test_aus_by_number_of_columns(tmp_path, images):
    prefix = write(tmp_path / "p", ["A/1.jpg"], [" ".join("0" * 10)])
    assert read_lists([prefix], images, landmarks="raw").aus == facs.GFT_AUS
    prefix = write(tmp_path / "p", ["A/1.jpg"], ["0 1 9"])
    with pytest.raises(ReleaseError, match=r"p_AUoccur\.txt, line 1: .*12 \(BP4D\).*got 3: say which AUs"):
        read_lists([prefix], images, landmarks="raw")
    release = read_lists([prefix], images, landmarks="raw", aus=(1, 2, 45))
    assert release.aus == (1, 2, 45) and frames(release)["A"][0].labels == (0, 1, -1)
    with pytest.raises(ReleaseError, match=r"p_AUoccur\.txt, line 1: wanted 2 numbers, got 3"):
        read_lists([prefix], images, landmarks="raw", aus=(1, 2))


@pytest.mark.parametrize(
    ("paths", "names", "subjects", "tasks", "numbers"),
    [
        (["SN001/0001.png", "SN001/0003.png"], ["SN001"], ["SN001"], [""], [(1, 3)]),
        (["F1_T1_2.jpg", "F1_T1_3.jpg", "M2-7.jpg"], ["F1", "M2"], ["F1", "M2"], ["", ""], [(2, 3), (7,)]),
        (["./A/x.jpg", "A/y.jpg"], ["A"], ["A"], [""], [(1, 2)]),
        (["A/left_1.jpg", "B/2.jpg", "A/right_1.jpg"], ["A", "B"], ["A", "B"], ["", ""], [(1, 3), (2,)]),
        (["A/T/deep/5.jpg"], ["A/T/deep"], ["A"], ["T/deep"], [(5,)]),
    ],
)  # fmt: skip
def test_subjects_tasks_and_numbers_by_the_path(tmp_path, images, paths, names, subjects, tasks, numbers):
    prefix = write(tmp_path / "p", paths, [ZEROS] * len(paths))
    sequences = read_lists([prefix], images, landmarks="raw").sequences
    assert [s.name for s in sequences] == names
    assert [s.subject for s in sequences] == subjects and [s.task for s in sequences] == tasks
    assert [tuple(f.number for f in s.read()) for s in sequences] == numbers


def test_mistakes_are_named_with_file_and_line(tmp_path, images):
    good = " ".join(["1"] * 98)
    for options, message in (
        ({"labels": [ZEROS]}, r"p_AUoccur\.txt: wanted 2 lines, as many as p_path\.txt has, got 1"),
        ({"landmarks": [good] * 3}, r"p_land\.txt: wanted 2 lines, .*, got 3"),
        ({"biocular": ["1"]}, r"p_biocular\.txt: wanted 2 lines, .*, got 1"),
        ({"landmarks": [good, good + " 1"]}, r"p_land\.txt, line 2: wanted 98 numbers, got 99"),
        ({"landmarks": [good, "x" + good[1:]]}, r"p_land\.txt, line 2: wanted a number, got 'x'"),
        ({"labels": [ZEROS, "2" + ZEROS[1:]]}, r"p_AUoccur\.txt, line 2: wanted 1, 0, or 9 .*, got 2"),
        ({"labels": [ZEROS, "0.5" + ZEROS[1:]]}, r"p_AUoccur\.txt, line 2: wanted 1, 0, .*, got 0\.5"),
        ({"labels": [ZEROS, "nan" + ZEROS[1:]]}, r"p_AUoccur\.txt, line 2: wanted 1, 0, .*, got nan"),
        ({"labels": [ZEROS, ZEROS[:-2]]}, r"p_AUoccur\.txt, line 2: wanted 12 numbers, got 11"),
        ({"paths": ["A/1.jpg", "/A/2.jpg"]}, r"p_path\.txt, line 2: wanted a path relative .*'/A/2\.jpg'"),
        ({"paths": ["A/1.jpg", "../A/2.jpg"]}, r"p_path\.txt, line 2: wanted a path relative"),
        ({"paths": ["", "A/1.jpg"]}, r"p_path\.txt, line 1: wanted a path relative .* got ''"),
        ({"paths": ["A/1.jpg", "_2.jpg"]}, r"p_path\.txt, line 2: wanted a name with a subject in front"),
    ):
        files = {"paths": ["A/1.jpg", "A/2.jpg"], "labels": [ZEROS] * 2, **options}
        prefix = write(tmp_path / "p", **files)
        with pytest.raises(ReleaseError, match=message):
            read_lists([prefix], images, landmarks="raw")
        for left in tmp_path.glob("p_*.txt"):
            left.unlink()


def test_missing_files_and_arguments(tmp_path, images):
    prefix = write(tmp_path / "p", ["A/1.jpg"], [ZEROS])
    with pytest.raises(ReleaseError, match="none: wanted the folder of the images"):
        read_lists([prefix], tmp_path / "none", landmarks="raw")
    with pytest.raises(ReleaseError, match="prefixes whose last components differ"):
        read_lists([prefix, prefix], images, landmarks="raw")
    with pytest.raises(
        ValueError, match="at least one prefix and landmarks 'raw' or 'aligned', got 1 and 'both'"
    ):
        read_lists([prefix], images, landmarks="both")
    (tmp_path / "p_land.txt").unlink()
    with pytest.raises(ReleaseError, match=r"p_land\.txt: cannot be read \(No such file or directory\)"):
        read_lists([prefix], images, landmarks="raw")


def test_aligned_lists_become_a_prepared_folder(tmp_path, images):
    pixels = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    (images / "F001" / "T1").mkdir(parents=True)
    assert cv2.imwrite(str(images / "F001" / "T1" / "7.png"), pixels[..., ::-1])
    prefix = write(tmp_path / "part1", ["F001/T1/7.png", "F001/T1/8.png"], [ZEROS, ZEROS])
    release = read_lists([prefix], images, landmarks="aligned")
    report = prepare(release, tmp_path / "o", align=False, workers=0, console=Console(file=io.StringIO()))
    assert report.skipped == {"the image is missing": 1} and report.folds == {"part1": 1}
    (sample,) = PreparedFaces(tmp_path / "o")
    assert sample.id == "F001/T1/7" and np.array_equal(sample.image, pixels)
    assert np.array_equal(sample.landmarks, points(0).astype(np.float32))
