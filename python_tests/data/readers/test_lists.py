"""The authors' lists: paths, landmarks and AUs in text files."""

import cv2
import numpy as np
import pytest

from jaa_ext import facs
from jaa_ext.data import PreparedFaces, ReleaseError, prepare
from jaa_ext.data.readers.bp4d import BP4D_FOLDS
from jaa_ext.data.readers.disfa import DISFA_FOLDS
from jaa_ext.data.readers.lists import read_lists
from jaa_ext.predict import DetectedFace


@pytest.fixture
def images(tmp_path):
    (tmp_path / "images").mkdir()
    return tmp_path / "images"


def points(line):
    return np.random.default_rng(line).uniform(1, 90, (49, 2)).round(3)


def text_of(landmarks):
    return " ".join(map(str, landmarks.ravel().tolist()))


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
    return {s.name: list(s.read()) for s in release.clips}


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
    described = [(s.name, s.subject, s.task, s.fold, s.length) for s in release.clips]
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
    clips = read_lists([prefix], images, landmarks="raw").clips
    assert [s.name for s in clips] == names
    assert [s.subject for s in clips] == subjects and [s.task for s in clips] == tasks
    assert [tuple(f.number for f in s.read()) for s in clips] == numbers


@pytest.mark.parametrize(
    ("paths", "subjects", "task"),
    [
        (["BP4D/F001/T1/1.jpg"], ["F001"], "T1"),
        (["BP4D/F001/T1/1.jpg", "BP4D/F001/T2/1.jpg"], ["F001", "F001"], "T1"),
        (["a/b/F001/T1/1.jpg", "a/b/F001/T2/1.jpg"], ["F001", "F001"], "T1"),
        (["DISFA/SN002/0.jpg", "BP4D/F001/T1/0.jpg"], ["SN002", "F001"], ""),
        (["images/DISFA+/SN002/0.jpg", "images/DISFA+/SN002/1.jpg"], ["SN002"], ""),
        (["faces/ann/smile/1.jpg", "faces/bob/smile/1.jpg"], ["ann", "bob"], "smile"),
        (["ann/1.jpg", "ann/2.jpg"], ["ann"], ""),
        (["bp4d-spontaneous/ann_1.jpg", "bp4d-spontaneous/bob_1.jpg"], ["ann", "bob"], ""),
        (["Disfavoured/ann/1.jpg", "other/ann/2.jpg"], ["Disfavoured", "other"], "ann"),
    ],
)  # fmt: skip
def test_folders_above_the_subjects(tmp_path, images, paths, subjects, task):
    prefix = write(tmp_path / "p", paths, [ZEROS] * len(paths))
    clips = read_lists([prefix], images, landmarks="raw").clips
    assert [s.subject for s in clips] == subjects and clips[0].task == task
    assert [f.image for s in clips for f in s.read()] == [images / path for path in paths]


def published(folder, name, folds, line):
    """The six part lists as the authors publish them, one image a subject and task."""
    prefixes, zeros = [], " ".join(["0"] * (12 if name == "BP4D" else 8))
    for part, subjects in folds.items():
        paths = [f"{name}/{line.format(subject=subject)}" for subject in subjects]
        prefixes.append(write(folder / "list" / f"{name}_part{part}", paths, [zeros] * len(paths)))
    return prefixes


@pytest.mark.parametrize(
    ("name", "folds", "line", "number", "counts"),
    [
        ("BP4D", BP4D_FOLDS, "{subject}/T1/2440.jpg", 2440, [14, 14, 13]),
        ("DISFA", DISFA_FOLDS, "{subject}/0.jpg", 0, [9, 9, 9]),
    ],
)
def test_the_published_part_lists(tmp_path, images, name, folds, line, number, counts):
    prefixes = published(tmp_path, name, folds, line)
    release = read_lists(prefixes, images, landmarks="raw")
    assert release.name == name
    for fold, prefix, count in zip(folds, prefixes, counts, strict=True):
        subjects = {s.subject for s in release.clips if s.fold == prefix.name}
        assert subjects == set(folds[fold]) and len(subjects) == count
        alone = read_lists([prefix], images, landmarks="raw").clips
        assert {s.subject for s in alone} == subjects
    (frame,) = release.clips[0].read()
    assert frame.number == number
    # The folder of the images is the one above BP4D, or BP4D itself.
    first = line.format(subject=folds["1"][0])
    (images / first).parent.mkdir(parents=True)
    (images / first).touch()
    (frame,) = read_lists(prefixes, images, landmarks="raw").clips[0].read()
    assert frame.image == images / first


class TestMEGraphAU:
    FOLDS = {"1": ("F001", "F002"), "2": ("F003",), "3": ("F004",)}  # noqa: RUF012

    def write(self, folder, name="BP4D"):
        """Test and training lists of three folds; every subject has AU number `person` modulo 12."""
        lines = {
            fold: [(f"{s}/T{t}/{10 + t}.jpg", self.labels(int(s[1:]))) for s in subjects for t in (1, 2)]
            for fold, subjects in self.FOLDS.items()
        }
        for fold in self.FOLDS:
            others = [line for other, of in lines.items() if other != fold for line in of]
            for part, chosen in (("test", lines[fold]), ("train", others)):
                start = f"{name}_{part}"
                (folder / f"{start}_img_path_fold{fold}.txt").write_text("".join(f"{p}\n" for p, _ in chosen))
                text = "".join(f"{' '.join(map(str, labels))}\n" for _, labels in chosen)
                (folder / f"{start}_label_fold{fold}.txt").write_text(text)
                (folder / f"{start}_weight_fold{fold}.txt").write_text(" ".join(["1.0"] * 12) + "\n")
        return folder / name

    def labels(self, person):
        return tuple(int(person % 12 == place) for place in range(12))

    def test_the_test_lists_are_the_folds(self, tmp_path, images):
        release = read_lists([self.write(tmp_path)], images, landmarks="none")
        assert (release.name, release.aus) == ("BP4D", facs.BP4D_AUS)
        assert [(s.name, s.subject, s.task, s.fold) for s in release.clips] == [
            (f"{subject}/{task}", subject, task, fold)
            for fold, subjects in self.FOLDS.items() for subject in subjects for task in ("T1", "T2")
        ]  # fmt: skip
        for clip in release.clips:
            (frame,) = clip.read()
            assert frame.landmarks is None and frame.labels == self.labels(int(clip.subject[1:]))
            assert frame.image == images / clip.name / f"{frame.number}.jpg"

    def test_a_detector_finds_the_landmarks(self, tmp_path, images, releases):
        prefix = self.write(tmp_path)
        faces = {}
        for fold, subjects in self.FOLDS.items():
            for subject in subjects:
                for t in (1, 2):
                    (face,) = releases.draw(int(subject[1:]), 1, facs.BP4D_AUS)
                    releases.write_image(images / subject / f"T{t}" / f"{10 + t}.jpg", face.picture)
                    faces[subject] = (face, fold)
        release = read_lists([prefix], images, landmarks="none")
        found = {face.picture.tobytes(): face.landmarks for face, _ in faces.values()}
        report = prepare(
            release, tmp_path / "o", workers=0,
            detector=lambda: nearest(found),
        )  # fmt: skip
        assert report.folds == {"1": 4, "2": 2, "3": 2} and report.subjects == 4

    def test_lists_that_do_not_agree_are_refused(self, tmp_path, images):
        prefix = self.write(tmp_path)
        with pytest.raises(ReleaseError, match="got ME-GraphAU's lists, which have none: let a detector"):
            read_lists([prefix], images, landmarks="raw")
        train, test = (tmp_path / f"BP4D_{part}_img_path_fold1.txt" for part in ("train", "test"))
        labels, good = tmp_path / "BP4D_train_label_fold1.txt", train.read_text()
        for text, message in (
            (
                good.replace("F003/T1/11.jpg", "F001/T1/11.jpg"),
                r"line 1: wanted no image of BP4D_test_img_pa",
            ),
            (
                good.replace("F003/T1", "F009/T1"),
                r"line 1: wanted images of the other folds' test lists, got 'F009/T1/11\.jpg",
            ),
            (
                good + "F003/T1/99.jpg\n",
                r"BP4D_train_label_fold1\.txt: wanted 5 lines, as many as BP4D_train",
            ),
        ):
            train.write_text(text)
            with pytest.raises(ReleaseError, match=message):
                read_lists([prefix], images, landmarks="none")
        train.write_text(good)
        former = labels.read_text()
        labels.write_text(former.replace("1", "9", 1))
        with pytest.raises(
            ReleaseError, match=r"label_fold1\.txt, line 1: wanted the labels that 'F003/T1/11"
        ):
            read_lists([prefix], images, landmarks="none")
        labels.write_text(former)
        test.write_text(test.read_text().replace("F001/T1/11.jpg", "F004/T1/11.jpg"))
        with pytest.raises(
            ReleaseError, match=r"wanted each image once, got image 'F004/T1/11\.jpg' 2 times"
        ):
            read_lists([prefix], images, landmarks="none")


def nearest(found):
    """A detector that knows the faces: of the picture most like the one shown, which JPEG has changed."""

    def detect(image):
        def difference(content):
            return np.abs(np.frombuffer(content, np.uint8).reshape(image.shape) - image.astype(float)).mean()

        landmarks = found[min(found, key=difference)]
        (left, top), (right, bottom) = landmarks.min(0), landmarks.max(0)
        return [DetectedFace((left, top, right, bottom), landmarks.astype(np.float32), 1.0)]

    return detect


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
        ({"paths": ["A/1.jpg", "A/2\0.jpg"]}, r"p_path\.txt, line 2: wanted a path relative"),
        ({"paths": ["A/1.jpg", "A/1.jpg"]}, r"wanted each image once, got image 'A/1\.jpg' 2 times"),
        ({"landmarks": [good, "٣" + good[1:]]}, r"p_land\.txt, line 2: wanted a number, got '٣'"),
        ({"landmarks": [good, "1_0" + good[1:]]}, r"p_land\.txt, line 2: wanted a number, got '1_0'"),
        ({"landmarks": [good, good.replace(" ", ";")]}, r"wanted 98 numbers, got 1, separated by ';'"),
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
    with pytest.raises(ValueError, match="'raw', 'aligned' or 'none', got 1 and 'both'"):
        read_lists([prefix], images, landmarks="both")
    with pytest.raises(
        ReleaseError, match=r"q: wanted lists .*, q_path\.txt or .* q_test_img_path_fold1\.txt"
    ):
        read_lists([tmp_path / "q"], images, landmarks="raw")
    (tmp_path / "p_land.txt").unlink()
    with pytest.raises(ReleaseError, match=r"p_land\.txt: .*\(No such file"):
        read_lists([prefix], images, landmarks="raw")


def test_aligned_lists_become_a_prepared_folder(tmp_path, images, releases):
    pixels = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    (images / "F001" / "T1").mkdir(parents=True)
    assert cv2.imwrite(str(images / "F001" / "T1" / "7.png"), pixels[..., ::-1])
    landmarks = [releases.face_points(i, 200) for i in range(2)]
    prefix = write(
        tmp_path / "part1",
        ["F001/T1/7.png", "F001/T1/8.png"],
        [ZEROS, ZEROS],
        landmarks=[text_of(each) for each in landmarks],
    )
    release = read_lists([prefix], images, landmarks="aligned")
    report = prepare(release, tmp_path / "o", align=False, workers=0)
    assert report.skipped == {"the image is missing": 1} and report.folds == {"part1": 1}
    (sample,) = PreparedFaces(tmp_path / "o")
    assert sample.id == "F001/T1/7" and np.array_equal(sample.image, pixels)
    assert np.array_equal(sample.landmarks, landmarks[0].astype(np.float32))
