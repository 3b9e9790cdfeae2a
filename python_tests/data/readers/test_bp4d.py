import itertools
import os
import re
import subprocess
import sys

import h5py
import numpy as np
import pytest

from jaa_ext import facs
from jaa_ext.data.readers.bp4d import BP4D_DROPPED, BP4D_FOLDS, BP4D_FRAMES, read_bp4d
from jaa_ext.data.release import Frame, ReleaseError, Skipped

CODES = "AUCoding/AU_OCC/F001_T1.csv"
POINTS = "2DFeatures/F001_T1.mat"
IMAGES = "Sequences(2D+3D)/F001/T1"


def read(folder, name="F001/T1"):
    """{number: Frame or Skipped} of a clip."""
    (clip,) = (s for s in read_bp4d(folder).clips if s.name == name)
    return {item.number: item for item in clip.read()}


def check(frames, contents, folder):
    """Every frame as it was made, and no other."""
    assert list(frames) == list(contents)
    for number, face in contents.items():
        frame = frames[number]
        assert isinstance(frame, Frame)
        assert frame.labels == face.labels
        assert frame.image.is_relative_to(folder) and int(frame.image.stem) == number
        np.testing.assert_allclose(frame.landmarks, face.landmarks, rtol=0, atol=1e-9)


def test_folds_and_dropped_frames_have_the_published_counts():
    assert BP4D_FRAMES == 146_576 == 50_601 + 50_166 + 45_809
    assert sum(map(len, BP4D_DROPPED.values())) == 146_847 - BP4D_FRAMES
    assert [len(subjects) for subjects in BP4D_FOLDS.values()] == [14, 14, 13]
    subjects = set(itertools.chain(*BP4D_FOLDS.values()))
    assert subjects == {f"F{i:03d}" for i in range(1, 24)} | {f"M{i:03d}" for i in range(1, 19)}
    assert {name.split("/")[0] for name in BP4D_DROPPED} <= subjects
    dropped = BP4D_DROPPED["F017/T3"]
    assert (198 in dropped, 202 in dropped, 207 in dropped, 333 in dropped, 335 in dropped) == (
        True, False, False, False, True,
    )  # fmt: skip


def test_a_release_is_read_as_it_was_made(releases, tmp_path):
    made = releases.make_bp4d(tmp_path, tasks=("T1", "T8"))
    release = read_bp4d(tmp_path)
    assert (release.name, release.aus, release.expected) == ("BP4D", facs.BP4D_AUS, 146_576)
    assert release.source == str(tmp_path)
    assert [(s.name, s.subject, s.task, s.fold, s.length) for s in release.clips] == [
        ("F001/T1", "F001", "T1", "1", 3),
        ("F001/T8", "F001", "T8", "1", 3),
        ("F003/T1", "F003", "T1", "2", 3),
        ("F003/T8", "F003", "T8", "2", 3),
        ("F004/T1", "F004", "T1", "3", 3),
        ("F004/T8", "F004", "T8", "3", 3),
    ]
    for clip in release.clips:
        frames = {frame.number: frame for frame in clip.read()}
        check(frames, made[clip.name], tmp_path)
        assert list(frames) == [197, 198, 199]
        assert np.sum([frame.labels for frame in frames.values()], 0).tolist() == [1] * 12


def write_intensities(folder, au, text, task="F001_T1"):
    path = folder / f"AUCoding/AU_INT/AU{au:02d}/{task}_AU{au:02d}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_intensities_are_those_of_their_frame_and_au(releases, tmp_path):
    releases.make_bp4d(tmp_path, subjects=["F001"], frames=4)
    for place, au in enumerate((6, 10, 12, 14, 17)):
        # Frame 200 is not in the files, 9 is not coded; frames that are not in AU_OCC are passed over.
        write_intensities(tmp_path, au, f"196,4\n197,{place}\r\n198, {5 - place}\n199,9\n")
    assert read_bp4d(tmp_path).remarks == ()
    degrees = np.array([frame.intensities for frame in read(tmp_path).values()])
    rated = [facs.BP4D_AUS.index(au) for au in (6, 10, 12, 14, 17)]
    assert degrees[:2, rated].tolist() == [[0, 1, 2, 3, 4], [5, 4, 3, 2, 1]]
    assert np.isnan(degrees[2:]).all() and np.isnan(np.delete(degrees, rated, axis=1)).all()


def test_a_release_without_intensities_says_so(releases, tmp_path):
    releases.make_bp4d(tmp_path, subjects=["F001", "F003"])
    folder = tmp_path / "AUCoding" / "AU_INT"
    assert read_bp4d(tmp_path).remarks == (f"no intensities: wanted the folder {folder}, got none",)
    assert np.isnan([frame.intensities for frame in read(tmp_path).values()]).all()
    write_intensities(tmp_path, 12, "197,3\n")
    lacking = folder / "AU06" / "F001_T1_AU06.csv"
    assert read_bp4d(tmp_path).remarks == (f"intensities are missing in 9 of 10 files, such as {lacking}",)
    assert np.nanmax(read(tmp_path)[197].intensities) == 3


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("197", "wanted frame,intensity, got '197'"),
        ("frame,0", "wanted a frame number, got 'frame'"),
        ("197,6", "wanted 0..5 or 9, got '6'"),
        ("196,1", "wanted each frame once, got frame 196 again"),
    ],
)
def test_a_bad_line_of_intensities_is_named(releases, tmp_path, line, message):
    releases.make_bp4d(tmp_path, subjects=["F001"])
    write_intensities(tmp_path, 6, f"196,1\n{line}\n")
    with pytest.raises(ReleaseError, match=rf"F001_T1_AU06\.csv, line 2: {message}"):
        read(tmp_path)


@pytest.mark.parametrize("padding", [1, 5])
@pytest.mark.parametrize("images", ["", "BP4D-training", "disk 1/2D+3D"])
def test_images_are_found_by_number_in_any_folder(releases, tmp_path, images, padding):
    made = releases.make_bp4d(tmp_path, subjects=["M001"], images=images, padding=padding, first=9)
    check(read(tmp_path, "M001/T1"), made["M001/T1"], tmp_path)


def test_annotations_may_lie_two_levels_down(releases, tmp_path):
    made = releases.make_bp4d(tmp_path / "a" / "b", subjects=["M001"], images="")
    check(read(tmp_path, "M001/T1"), made["M001/T1"], tmp_path)


def test_entries_belong_to_the_images_in_order_where_they_are_as_many(releases, tmp_path):
    made = releases.make_bp4d(tmp_path, first=1500, before=40)["F001/T1"]
    check(read(tmp_path), made, tmp_path)


def test_entries_belong_to_the_frames_of_their_number_where_images_are_missing(releases, tmp_path):
    made = releases.make_bp4d(tmp_path, first=2, before=2)["F001/T1"]
    for number in (0, 3):
        (tmp_path / IMAGES / f"{number:04d}.jpg").unlink()
    frames = read(tmp_path)
    assert frames.pop(3) == Skipped(3, "no image")
    check(frames, {number: made[number] for number in (2, 4)}, tmp_path)


def test_a_number_without_an_entry_has_no_landmarks(releases, tmp_path):
    made = releases.make_bp4d(tmp_path, first=4, before=4)["F001/T1"]
    releases.write_bp4d_landmarks(tmp_path / POINTS, [np.full((49, 2), 10.0 + k) for k in range(6)])
    frames = read(tmp_path)
    assert list(frames) == [4, 5, 6]
    assert [frames[n].landmarks[0, 0] for n in (4, 5)] == [14.0, 15.0]
    assert frames[6] == Skipped(6, "no landmarks")
    assert frames[4].labels == made[4].labels


def test_empty_landmarks_are_skipped(releases, tmp_path):
    made = releases.make_bp4d(tmp_path, before=0)["F001/T1"]
    points = [face.landmarks for face in made.values()]
    points[1] = None
    releases.write_bp4d_landmarks(tmp_path / POINTS, points)
    frames = read(tmp_path)
    assert frames.pop(198) == Skipped(198, "empty landmarks")
    check(frames, {number: made[number] for number in (197, 199)}, tmp_path)


def test_a_null_reference_and_an_array_without_numbers_are_empty(releases, tmp_path):
    releases.make_bp4d(tmp_path, before=0)
    with h5py.File(tmp_path / POINTS, "a") as file:
        empty = file.create_dataset("#refs#/empty", data=np.zeros((0, 0)))
        file["fit/pred"][0, 0] = h5py.Reference()
        file["fit/pred"][1, 0] = empty.ref
    assert [read(tmp_path)[n] for n in (197, 198)] == [
        Skipped(197, "empty landmarks"), Skipped(198, "empty landmarks"),
    ]  # fmt: skip


def test_damaged_landmarks_are_skipped(releases, tmp_path):
    made = releases.make_bp4d(tmp_path, before=0, frames=5)["F001/T1"]
    with h5py.File(tmp_path / POINTS, "a") as file:
        gone = file.create_dataset("#refs#/gone", data=np.ones((2, 49)))
        cells = file["fit/pred"]
        cells[0, 0] = gone.ref
        cells[1, 0] = file.create_group("#refs#/group").ref
        cells[2, 0] = file.create_dataset("#refs#/text", data=np.full((2, 49), b"1.5")).ref
        cells[3, 0] = file.create_dataset("#refs#/type", (2, 49), np.dtype([("a", "f8")])).ref
        del file["#refs#/gone"]
    frames = read(tmp_path)
    check({201: frames.pop(201)}, {201: made[201]}, tmp_path)
    assert {number: frame.reason for number, frame in frames.items()} == {
        197: "damaged landmarks: they cannot be read",
        198: "damaged landmarks: a reference to no array",
        199: "damaged landmarks: no numbers",
        200: "damaged landmarks: no numbers",
    }


def test_more_references_than_a_video_has_frames(releases, tmp_path):
    releases.make_bp4d(tmp_path)
    with h5py.File(tmp_path / POINTS, "w") as file:
        file.create_dataset("fit/pred", (10**12, 1), h5py.ref_dtype, chunks=(1000, 1))
    with pytest.raises(ReleaseError, match=r"F001_T1.mat, key fit/pred: .*up to 1,000,000 .*got"):
        read(tmp_path)


def test_references_may_lie_in_a_row(releases, tmp_path):
    made = releases.make_bp4d(tmp_path)["F001/T1"]
    with h5py.File(tmp_path / POINTS, "a") as file:
        row = file["fit/pred"][()].T
        del file["fit/pred"]
        file.create_dataset("fit/pred", data=row, dtype=h5py.ref_dtype)
    check(read(tmp_path), made, tmp_path)


def test_a_code_of_9_is_a_missing_label(releases, tmp_path):
    made = releases.make_bp4d(tmp_path)["F001/T1"]
    header, line = (tmp_path / CODES).read_text().splitlines()[:2]
    cells = line.split(",")
    cells[header.split(",").index("14")] = "9"
    releases.edit(tmp_path / CODES, 2, " , ".join(cells))
    expected = list(made[197].labels)
    expected[facs.BP4D_AUS.index(14)] = -1
    frames = read(tmp_path)
    assert frames[197].labels == tuple(expected)
    assert frames[198].labels == made[198].labels


def test_frames_that_the_lists_leave_out_are_skipped(releases, tmp_path):
    releases.make_bp4d(tmp_path, subjects=["F017"], tasks=["T3", "T4"], first=197, frames=8)
    frames = read(tmp_path, "F017/T3")
    assert [n for n, frame in frames.items() if isinstance(frame, Frame)] == [197, 202]
    assert {frame.reason for frame in frames.values() if isinstance(frame, Skipped)} == {
        "left out by the papers' lists"
    }
    assert all(isinstance(frame, Frame) for frame in read(tmp_path, "F017/T4").values())


def test_files_that_are_no_part_of_the_release_are_passed_over(releases, tmp_path):
    made = releases.make_bp4d(tmp_path, subjects=["F001"])
    for name in (
        "AUCoding/AU_OCC/._F001_T1.csv",
        f"{IMAGES}/._0197.jpg",
        f"{IMAGES}/0197.obj",
        f"{IMAGES}/Thumbs.db",
    ):
        (tmp_path / name).write_bytes(b"\x00\x05\x16\x07")
    check(read(tmp_path), made["F001/T1"], tmp_path)


def test_lines_may_end_as_in_windows_and_be_out_of_order(releases, tmp_path):
    made = releases.make_bp4d(tmp_path)["F001/T1"]
    header, *lines = (tmp_path / CODES).read_text().splitlines()
    text = "\r\n".join([header, *reversed(lines)]).replace(",", ", ")
    (tmp_path / CODES).write_bytes(b"\xef\xbb\xbf" + text.encode())
    for path, ending in zip(
        (tmp_path / IMAGES).iterdir(), (".JPG", ".jpeg", ".png", ".PNG", ".Jpg"), strict=True
    ):
        path.rename(path.with_suffix(ending))
    check(read(tmp_path), dict(reversed(made.items())), tmp_path)


def test_folders_that_may_not_be_read_are_passed_over(releases, tmp_path, monkeypatch):
    made = releases.make_bp4d(tmp_path, subjects=["F001"])["F001/T1"]
    (tmp_path / "lost+found").mkdir()

    def refusing(call):
        def refused(path=".", *args):
            if "lost+found" in str(path):
                raise PermissionError(13, "Permission denied", str(path))
            return call(path, *args)

        return refused

    # To the administrator, who may run this, no folder is closed.
    for name in ("listdir", "scandir"):
        monkeypatch.setattr(os, name, refusing(getattr(os, name)))
    check(read(tmp_path), made, tmp_path)


@pytest.mark.parametrize(
    ("line", "text", "words"),
    [
        (1, "0,1,2,4,6,7,10,12,14,15,17,23", "column for each AU, got none for AU 24"),
        (2, "x,0,0", "a frame number, got 'x'"),
        (2, "-5" + ",0" * 23, "a frame number, got '-5'"),
        (2, "1_0" + ",0" * 23, "a frame number, got '1_0'"),
        (2, "٣" + ",0" * 23, "a frame number, got '٣'"),
        (2, "9" * 30 + ",0" * 23, f"a frame number, got '{'9' * 30}'"),
        (1, "0;1;2;4", "separated by ';'"),
        (1, "0,1,1" + ",2" * 22, "got 2 for AU 1"),
        (3, "198,2" + ",0" * 22, "0, 1 or 9 for AU 1, got '2'"),
        (3, "198" + ",0" * 20, "0, 1 or 9 for AU 24, got ''"),
        (4, "197" + ",0" * 23, "frame 197 again"),
    ],
)
def test_a_bad_line_is_named(releases, tmp_path, line, text, words):
    releases.make_bp4d(tmp_path)
    releases.edit(tmp_path / CODES, line, text)
    with pytest.raises(ReleaseError, match=rf"{tmp_path / CODES}, line {line}: .*{re.escape(words)}"):
        read(tmp_path)


def test_landmark_files_that_are_none_are_named(releases, tmp_path):
    releases.make_bp4d(tmp_path)
    path = tmp_path / POINTS
    with h5py.File(path, "a") as file:
        file["fit/pred"][2, 0] = file.create_dataset("#refs#/more", data=np.zeros((2, 66))).ref
    with pytest.raises(
        ReleaseError, match=r"F001_T1.mat, key fit/pred, entry 2: wanted 2 x 49 .*got shape \(2, 66\)"
    ):
        read(tmp_path)
    with h5py.File(path, "w") as file:
        file["fit/pred"] = np.zeros((3, 49, 2))
    with pytest.raises(ReleaseError, match=r"F001_T1.mat, key fit/pred: .*got float64"):
        read(tmp_path)
    with h5py.File(path, "w") as file:
        file["fit/other"] = np.zeros(1)
    with pytest.raises(ReleaseError, match=r"F001_T1.mat: wanted the key fit/pred with .*, got none"):
        read(tmp_path)
    path.write_bytes(b"MATLAB 5.0 MAT-file")
    with pytest.raises(ReleaseError, match=r"F001_T1.mat: wanted a MATLAB 7.3 \(HDF5\) file"):
        read(tmp_path)


def test_two_images_of_one_frame_are_named(releases, tmp_path):
    releases.make_bp4d(tmp_path)
    (tmp_path / IMAGES / "197.jpg").write_bytes(b"")
    with pytest.raises(ReleaseError, match=r"frame 197, got 0197.jpg and 197.jpg"):
        read(tmp_path)


def test_what_is_missing_is_named(releases, tmp_path):
    with pytest.raises(ReleaseError, match=r"none: wanted the folder"):
        read_bp4d(tmp_path / "none")
    with pytest.raises(ReleaseError, match=r"folder AUCoding/AU_OCC"):
        read_bp4d(tmp_path)
    releases.make_bp4d(tmp_path, subjects=["F001"])
    (tmp_path / IMAGES).rename(tmp_path / "elsewhere")
    with pytest.raises(ReleaseError, match=r"folder F001/T1 .*F001_T1.csv"):
        read_bp4d(tmp_path)
    (tmp_path / "elsewhere").rename(tmp_path / IMAGES)
    (tmp_path / POINTS).unlink()
    with pytest.raises(ReleaseError, match=r"2DFeatures/F001_T1.mat: wanted the landmarks of .*F001_T1.csv"):
        read_bp4d(tmp_path)
    (tmp_path / CODES).rename(tmp_path / "AUCoding/AU_OCC/F099_T1.csv")
    with pytest.raises(ReleaseError, match=r"F099_T1.csv: .*41 subjects.* got F099"):
        read_bp4d(tmp_path)
    (tmp_path / "AUCoding/AU_OCC/F099_T1.csv").unlink()
    with pytest.raises(ReleaseError, match=r"AU_OCC: .*F001_T1.csv, got none"):
        read_bp4d(tmp_path)


def test_a_missing_h5py_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"need h5py, .*pip install 'jaa_ext\[data\]'"):
        read_bp4d(tmp_path)


def test_readers_load_nothing_that_they_do_not_use_yet():
    code = (
        "import sys, jaa_ext.data.readers.bp4d, jaa_ext.data.readers.disfa, jaa_ext.data.readers.affwild2\n"
        "print({'h5py', 'scipy', 'pandas', 'matplotlib'} & set(sys.modules))"
    )
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "set()"
