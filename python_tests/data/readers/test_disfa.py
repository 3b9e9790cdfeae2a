import re

import numpy as np
import pytest
import scipy.io

from jaa_ext import facs
from jaa_ext.data.readers import disfa
from jaa_ext.data.readers.disfa import DISFA_EXCLUDED, DISFA_FOLDS, DISFA_FRAMES, read_disfa
from jaa_ext.data.release import Frame, ReleaseError, Skipped

LABELS = "ActionUnit_Labels/SN001/SN001_au{}.txt"
POINTS = "Landmark_Points/SN001/tmp_frame_lm"
VIDEO = "Videos_LeftCamera/LeftVideoSN001_comp.avi"


def read(folder, name="SN001"):
    """{number: Frame or Skipped} of a clip."""
    (clip,) = (s for s in read_disfa(folder).clips if s.name == name)
    return {item.number: item for item in clip.read()}


def check(frames, contents):
    """Every frame as it was made, and no other."""
    assert list(frames) == list(contents)
    for number, face in contents.items():
        frame = frames[number]
        assert isinstance(frame, Frame)
        assert frame.labels == face.labels
        np.testing.assert_allclose(frame.landmarks, face.landmarks, rtol=0, atol=1e-9)
        assert frame.image.dtype == np.uint8 and frame.image.shape == face.picture.shape
        assert nearest(frame.image, contents) == (number, "RGB")


def nearest(image, contents):
    """Frame number and order of colours of the picture that is most like it: JPEG changes every pixel."""
    pictures = {(number, "RGB"): face.picture for number, face in contents.items()}
    pictures |= {(number, "BGR"): face.picture[..., ::-1] for number, face in contents.items()}
    return min(pictures, key=lambda key: np.abs(image.astype(int) - pictures[key]).mean())


def test_exclusions_have_the_published_counts():
    recorded = {s: 4844 if s == "SN010" else 4845 for fold in DISFA_FOLDS.values() for s in fold}
    assert len(recorded) == 27 and set(DISFA_EXCLUDED) <= set(recorded)
    kept = {s: n - len(DISFA_EXCLUDED.get(s, ())) for s, n in recorded.items()}
    assert [sum(kept[s] for s in fold) for fold in DISFA_FOLDS.values()] == [43_173, 40_344, 42_627]
    assert sum(kept.values()) == DISFA_FRAMES == 126_144
    assert all(min(numbers) >= 1 and max(numbers) <= 4845 for numbers in DISFA_EXCLUDED.values())


def test_a_release_is_read_as_it_was_made(releases, tmp_path):
    made = releases.make_disfa(tmp_path)
    release = read_disfa(tmp_path)
    assert (release.name, release.aus, release.expected) == ("DISFA", facs.DISFA_AUS, 126_144)
    assert release.source == str(tmp_path)
    assert [(s.name, s.subject, s.task, s.fold, s.length) for s in release.clips] == [
        ("SN001", "SN001", "", "1", 3),
        ("SN003", "SN003", "", "3", 3),
        ("SN006", "SN006", "", "2", 3),
    ]
    for clip in release.clips:
        frames = {frame.number: frame for frame in clip.read()}
        check(frames, made[clip.name])
        assert list(frames) == [1, 2, 3]


def test_files_that_are_no_part_of_the_release_are_passed_over(releases, tmp_path):
    made = releases.make_disfa(tmp_path, ["SN001"])
    for name in (
        "ActionUnit_Labels/SN003.zip",
        "ActionUnit_Labels/.DS_Store",
        f"{POINTS}/._SN001_0000_lm.mat",
        f"{POINTS}/Thumbs.db",
    ):
        (tmp_path / name).write_bytes(b"\x00\x05\x16\x07")
    check(read(tmp_path), made["SN001"])


def test_an_intensity_of_2_and_more_means_present(releases, tmp_path):
    releases.make_disfa(tmp_path, ["SN001"], frames=6)
    (tmp_path / LABELS.format(9)).write_text("".join(f"{k + 1},{k}\r\n" for k in range(6)))
    column = facs.DISFA_AUS.index(9)
    assert [frame.labels[column] for frame in read(tmp_path).values()] == [0, 0, 1, 1, 1, 1]


def test_intensities_are_kept(releases, tmp_path):
    releases.make_disfa(tmp_path, ["SN001"], frames=6)
    (tmp_path / LABELS.format(9)).write_text("".join(f"{k + 1},{k}\r\n" for k in range(6)))
    frames = read(tmp_path)
    degrees = np.array([frame.intensities for frame in frames.values()])
    assert degrees[:, facs.DISFA_AUS.index(9)].tolist() == [0, 1, 2, 3, 4, 5]
    assert np.array_equal(degrees >= 2, [frame.labels for frame in frames.values()])
    twelve = [line.split(",")[1] for line in (tmp_path / LABELS.format(12)).read_text().split()]
    assert degrees[:, facs.DISFA_AUS.index(12)].tolist() == [int(degree) for degree in twelve]


@pytest.mark.parametrize("first", [0, 1])
def test_plain_landmark_names_count_from_0_or_1(releases, tmp_path, first):
    made = releases.make_disfa(
        tmp_path, ["SN001", "SN031"], frames=4, plain_names=["SN031"], plain_first=first
    )
    assert (tmp_path / f"Landmark_Points/SN031/tmp_frame_lm/l0000{first}_lm.mat").is_file()
    check(read(tmp_path, "SN031"), made["SN031"])
    (tmp_path / f"Landmark_Points/SN031/tmp_frame_lm/l0000{first + 1}_lm.mat").unlink()
    frames = read(tmp_path, "SN031")
    assert frames.pop(2) == Skipped(2, "no landmarks")
    check(frames, {number: made["SN031"][number] for number in (1, 3, 4)})


def test_plain_landmark_names_with_a_0_count_from_0_whatever_the_last_label(releases, tmp_path):
    made = releases.make_disfa(tmp_path, ["SN001"], frames=4, plain_names=["SN001"])["SN001"]
    for au in facs.DISFA_AUS:
        releases.edit(tmp_path / LABELS.format(au), 4, None)
    frames = read(tmp_path)
    assert frames.pop(4) == Skipped(4, "no label")
    check(frames, {number: made[number] for number in (1, 2, 3)})


def test_some_landmark_names_may_be_plain(releases, tmp_path):
    made = releases.make_disfa(tmp_path, ["SN001"])["SN001"]
    (tmp_path / POINTS / "SN001_0001_lm.mat").rename(tmp_path / POINTS / "l00001_lm.mat")
    check(read(tmp_path), made)


def test_a_missing_landmark_file_is_skipped(releases, tmp_path):
    made = releases.make_disfa(tmp_path, ["SN001"])["SN001"]
    (tmp_path / POINTS / "SN001_0000_lm.mat").unlink()
    frames = read(tmp_path)
    assert frames.pop(1) == Skipped(1, "no landmarks")
    check(frames, {number: made[number] for number in (2, 3)})


def test_excluded_frames_are_skipped_and_the_video_goes_on(releases, tmp_path, monkeypatch):
    made = releases.make_disfa(tmp_path, ["SN001", "SN003"])
    monkeypatch.setitem(disfa.DISFA_EXCLUDED, "SN001", frozenset({2}))
    frames = read(tmp_path)
    assert frames.pop(2) == Skipped(2, "left out by the papers' lists")
    check(frames, {number: made["SN001"][number] for number in (1, 3)})
    check(read(tmp_path, "SN003"), made["SN003"])


def test_a_frame_without_a_label_is_skipped(releases, tmp_path):
    made = releases.make_disfa(tmp_path, ["SN001"], frames=4)["SN001"]
    releases.edit(tmp_path / LABELS.format(6), 2, None)
    for au in facs.DISFA_AUS:
        releases.edit(tmp_path / LABELS.format(au), 3 if au == 6 else 4, None)
    frames = read(tmp_path)
    assert [frames.pop(number) for number in (2, 4)] == [Skipped(2, "no label"), Skipped(4, "no label")]
    check(frames, {number: made[number] for number in (1, 3)})


def test_a_video_may_be_longer_than_its_labels(releases, tmp_path):
    made = releases.make_disfa(tmp_path, ["SN001"])["SN001"]
    releases.write_video(tmp_path / VIDEO, [made[number].picture for number in (1, 2, 3, 3)])
    frames = read(tmp_path)
    assert frames.pop(4) == Skipped(4, "no label")
    check(frames, made)


def test_a_frame_number_that_counting_would_never_reach(releases, tmp_path):
    made = releases.make_disfa(tmp_path, ["SN001"])["SN001"]
    releases.edit(tmp_path / LABELS.format(12), 3, "300000000000,0")
    frames = read(tmp_path)
    assert frames.pop(3) == Skipped(3, "no label")
    assert frames.pop(300000000000) == Skipped(300000000000, "no picture: the video ends before the labels")
    check(frames, {number: made[number] for number in (1, 2)})


def test_a_video_may_be_shorter_than_its_labels(releases, tmp_path):
    made = releases.make_disfa(tmp_path, ["SN001"], frames=4)["SN001"]
    releases.write_video(tmp_path / VIDEO, [made[number].picture for number in (1, 2)])
    frames = read(tmp_path)
    reason = "no picture: the video ends before the labels"
    assert [frames.pop(number) for number in (3, 4)] == [Skipped(3, reason), Skipped(4, reason)]
    check(frames, {number: made[number] for number in (1, 2)})


def pictures_of(content):
    """Places of the pictures in an AVI file, each with its header of 8 bytes."""
    at, places = content.index(b"movi") + 4, []
    while content[at : at + 4] == b"00dc":
        size = 8 + int.from_bytes(content[at + 4 : at + 8], "little")
        places.append(slice(at, at + size + size % 2))
        at = places[-1].stop
    return places


@pytest.mark.parametrize("damaged", [[1], [2, 3], [3, 5], [6]])
def test_damaged_pictures_are_skipped_and_the_others_keep_their_labels(releases, tmp_path, damaged):
    made = releases.make_disfa(tmp_path, ["SN001"], frames=6)["SN001"]
    content = bytearray((tmp_path / VIDEO).read_bytes())
    for number in damaged:
        place = pictures_of(content)[number - 1]
        content[place.start + 8 : place.stop] = bytes(place.stop - place.start - 8)
    (tmp_path / VIDEO).write_bytes(content)
    frames = read(tmp_path)
    reasons = [frames.pop(number).reason for number in damaged]
    assert set(reasons) == {
        "no picture: the video ends before the labels"
        if damaged == [6]
        else "no picture: the video is damaged there"
    }
    check(frames, {number: face for number, face in made.items() if number not in damaged})


def test_pictures_that_are_gone_without_a_trace_are_an_error(releases, tmp_path):
    releases.make_disfa(tmp_path, ["SN001"], frames=6)
    content = (tmp_path / VIDEO).read_bytes()
    third = pictures_of(content)[2]
    (tmp_path / VIDEO).write_bytes(content[: third.start] + content[third.stop :])
    with pytest.raises(ReleaseError, match=r"LeftVideoSN001_comp.avi: wanted 6 .*got 5 "):
        read(tmp_path)
    # One that is cut short misses its last pictures, and no others.
    (tmp_path / VIDEO).write_bytes(content[: third.start + 30])
    assert [type(frame) for frame in read(tmp_path).values()] == [Frame] * 2 + [Skipped] * 4


@pytest.mark.parametrize(
    ("line", "text", "words"),
    [
        (1, "1", "frame,intensity, got '1'"),
        (2, "2,high", "an intensity of 0..5, got 'high'"),
        (2, "2,6", "an intensity of 0..5, got 6"),
        (3, "two,0", "a frame number, got 'two'"),
        (3, "1,0", "once, counted from 1, got frame 1"),
        (1, "0,0", "once, counted from 1, got frame 0"),
    ],
)
def test_a_bad_line_is_named(releases, tmp_path, line, text, words):
    releases.make_disfa(tmp_path, ["SN001"])
    path = tmp_path / LABELS.format(12)
    releases.edit(path, line, text)
    with pytest.raises(ReleaseError, match=rf"{path}, line {line}: .*{re.escape(words)}"):
        read(tmp_path)


def test_a_bad_video_is_named(releases, tmp_path):
    releases.make_disfa(tmp_path, ["SN001"])
    (tmp_path / VIDEO).write_bytes(b"RIFF no video")
    with pytest.raises(ReleaseError, match=r"LeftVideoSN001_comp.avi: is damaged, or not a video"):
        read(tmp_path)


def test_a_bad_landmark_file_is_named(releases, tmp_path):
    releases.make_disfa(tmp_path, ["SN001"])
    path = tmp_path / POINTS / "SN001_0001_lm.mat"
    scipy.io.savemat(path, {"pts": np.ones((49, 2))})
    with pytest.raises(ReleaseError, match=r"SN001_0001_lm.mat, key pts: .*66 x 2 .*got shape \(49, 2\)"):
        read(tmp_path)
    scipy.io.savemat(path, {"points": np.ones((66, 2))})
    with pytest.raises(ReleaseError, match=r"SN001_0001_lm.mat: wanted the key pts"):
        read(tmp_path)
    for value in ({"a": 1}, np.array([["x"] * 2] * 66, object), np.full((66, 2), 1j)):
        scipy.io.savemat(path, {"pts": value})
        with pytest.raises(ReleaseError, match=r"SN001_0001_lm.mat, key pts: .*66 x 2 .*got shape"):
            read(tmp_path)
    scipy.io.savemat(path, {"pts": np.ones((66, 2))}, do_compression=True)
    damaged = bytearray(path.read_bytes())
    damaged[-20:] = bytes(20)
    for content in (b"", b"no MATLAB file", path.read_bytes()[:150], damaged, bytes(2_000_000)):
        path.write_bytes(content)
        with pytest.raises(ReleaseError, match=r"SN001_0001_lm.mat: wanted a MATLAB file"):
            read(tmp_path)


@pytest.mark.parametrize("missing", ["ActionUnit_Labels", "Videos_LeftCamera", "Landmark_Points"])
def test_a_missing_folder_is_named(releases, tmp_path, missing):
    releases.make_disfa(tmp_path / "inner" / "DISFA", ["SN001"])
    assert len(read(tmp_path)) == 3
    (tmp_path / "inner" / "DISFA" / missing).rename(tmp_path / "elsewhere")
    with pytest.raises(ReleaseError, match=f"folder {missing} .*got none"):
        read_disfa(tmp_path)


@pytest.mark.parametrize("missing", [LABELS.format(26), VIDEO, POINTS])
def test_a_missing_part_of_a_subject_is_named(releases, tmp_path, missing):
    releases.make_disfa(tmp_path, ["SN001"])
    (tmp_path / missing).rename(tmp_path / "elsewhere")
    with pytest.raises(ReleaseError, match=f"{tmp_path / missing}: .*subject SN001, got no such file"):
        read_disfa(tmp_path)


def test_subjects_must_be_those_of_disfa(releases, tmp_path):
    releases.make_disfa(tmp_path, ["SN001"])
    folder = tmp_path / "ActionUnit_Labels"
    (folder / "SN001").rename(folder / "SN099")
    with pytest.raises(ReleaseError, match=r"SN099: .*27 subjects.* got SN099"):
        read_disfa(tmp_path)
    (folder / "SN099").rename(folder / "001")
    with pytest.raises(ReleaseError, match=r"ActionUnit_Labels: .*such as SN001"):
        read_disfa(tmp_path)
