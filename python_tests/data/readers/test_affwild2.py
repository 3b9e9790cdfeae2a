import re

import cv2
import numpy as np
import pytest

from jaa_ext import facs
from jaa_ext.data.readers.affwild2 import read_affwild2
from jaa_ext.data.release import Frame, ReleaseError, Skipped

LABELS = "AU_Set/Train_Set/video1.txt"
IMAGES = "cropped_aligned/video1"


def read(folder, name="video1", images=None):
    """{number: Frame or Skipped} of a clip."""
    (clip,) = (s for s in read_affwild2(folder, images).clips if s.name == name)
    return {item.number: item for item in clip.read()}


def check(frames, contents):
    """Every frame as it was made, and no other."""
    assert list(frames) == list(contents)
    for number, face in contents.items():
        frame = frames[number]
        assert isinstance(frame, Frame)
        assert frame.labels == face.labels and frame.landmarks is None
        image = cv2.imread(str(frame.image))[..., ::-1].astype(int)
        assert image.shape == (112, 112, 3)
        # JPEG changes every pixel.
        assert number == min(contents, key=lambda n: np.abs(image - contents[n].picture).mean())


def test_a_release_is_read_as_it_was_made(releases, tmp_path):
    made = releases.make_affwild2(tmp_path)
    release = read_affwild2(tmp_path)
    assert (release.name, release.aus, release.expected) == ("Aff-Wild2", facs.AFFWILD2_AUS, None)
    assert release.source == f"{tmp_path / 'AU_Set'}, {tmp_path / 'cropped_aligned'}"
    assert [(s.name, s.subject, s.task, s.fold, s.length) for s in release.clips] == [
        ("30-30-1920x1080_left", "30-30-1920x1080_left", "", "train", 3),
        ("30-30-1920x1080_right", "30-30-1920x1080_right", "", "train", 3),
        ("video1", "video1", "", "train", 3),
        ("video2", "video2", "", "validation", 3),
    ]
    for clip in release.clips:
        frames = {frame.number: frame for frame in clip.read()}
        check(frames, made[clip.name])
        assert list(frames) == [1, 2, 3]
        assert np.sum([frame.labels for frame in frames.values()], 0).tolist() == [1] * 12


def test_labels_follow_the_names_of_the_header(releases, tmp_path):
    made = releases.make_affwild2(
        tmp_path,
        header=(26, 25, 24, 1, 2, 23, 15, 12, 10, 7, 6, 4),
    )
    assert (tmp_path / LABELS).read_text().startswith("AU26,AU25,AU24")
    check(read(tmp_path), made["video1"])


def test_labels_are_found_among_those_of_other_challenges(releases, tmp_path):
    made = releases.make_affwild2(tmp_path, labels="annotations/AU_Set")
    for part in ("Train_Set", "Validation_Set"):
        (tmp_path / "annotations" / "AA_Set" / part).mkdir(parents=True)
        (tmp_path / "annotations" / "AA_Set" / part / "video1.txt").write_text("valence,arousal\n0.1,0.2\n")
    check(read(tmp_path), made["video1"])


def test_images_may_lie_elsewhere(releases, tmp_path):
    made = releases.make_affwild2(tmp_path / "labels")
    (tmp_path / "labels" / "cropped_aligned").rename(tmp_path / "faces")
    with pytest.raises(ReleaseError, match=r"labels: .*folder cropped_aligned"):
        read(tmp_path / "labels")
    check(read(tmp_path / "labels", images=tmp_path / "faces"), made["video1"])
    with pytest.raises(ReleaseError, match=r"nowhere: .*cropped_aligned, got no folder"):
        read(tmp_path / "labels", images=tmp_path / "nowhere")


def test_frames_without_an_image_or_a_valid_label_are_skipped(releases, tmp_path):
    made = releases.make_affwild2(tmp_path, frames=4)["video1"]
    (tmp_path / IMAGES / "00002.jpg").unlink()
    releases.edit(tmp_path / LABELS, 4, ",".join(["-1"] * 12))
    frames = read(tmp_path)
    assert frames.pop(2) == Skipped(2, "no face: no image")
    assert frames.pop(3) == Skipped(3, "no valid label")
    check(frames, {number: made[number] for number in (1, 4)})


def test_images_of_other_endings(releases, tmp_path):
    made = releases.make_affwild2(tmp_path)["video1"]
    folder = tmp_path / "cropped_aligned" / "video1"
    (folder / "00001.jpg").rename(folder / "00001.JPG")
    (folder / "00002.jpg").rename(folder / "2.png")
    check(read(tmp_path), made)


def test_single_labels_may_be_missing(releases, tmp_path):
    releases.make_affwild2(tmp_path)
    releases.edit(tmp_path / LABELS, 3, "0,1,-1,0,0,0,0,0,0,0,0,1")
    assert read(tmp_path)[2].labels == (0, 1, -1, 0, 0, 0, 0, 0, 0, 0, 0, 1)


def test_lengths_of_long_files_are_estimated(releases, tmp_path):
    releases.make_affwild2(tmp_path)
    with (tmp_path / LABELS).open("a") as file:
        file.write("0,0,0,0,0,0,0,0,0,0,0,0\n" * 20_000)
    (length,) = (s.length for s in read_affwild2(tmp_path).clips if s.name == "video1")
    assert length == pytest.approx(20_003, rel=0.01)


@pytest.mark.parametrize(
    ("line", "text", "words"),
    [
        (1, "AU1,AU2", "one column AU4, got 'AU1,AU2'"),
        (2, "0,0,0", "12 labels or more, got 3"),
        (3, "0,0,0,0,0,0,0,0,0,0,0,x", "a label of 0, 1 or -1, got 'x'"),
        (4, "0,0,0,0,2,0,0,0,0,0,0,0", "0, 1 or -1 for AU7, got 2"),
    ],
)
def test_a_bad_line_is_named(releases, tmp_path, line, text, words):
    releases.make_affwild2(tmp_path)
    releases.edit(tmp_path / LABELS, line, text)
    with pytest.raises(ReleaseError, match=rf"{tmp_path / LABELS}, line {line}: .*{re.escape(words)}"):
        read(tmp_path)


def test_a_file_that_is_no_text_is_named(releases, tmp_path):
    releases.make_affwild2(tmp_path)
    (tmp_path / LABELS).write_bytes(b"AU1\xff\xfe")
    with pytest.raises(ReleaseError, match=r"video1.txt: .*no UTF-8"):
        read(tmp_path)


def test_what_is_missing_is_named(releases, tmp_path):
    with pytest.raises(ReleaseError, match=r"folder Train_Set .*got none"):
        read_affwild2(tmp_path)
    releases.make_affwild2(tmp_path)
    (tmp_path / IMAGES).rename(tmp_path / "elsewhere")
    with pytest.raises(ReleaseError, match=r"cropped_aligned/video1: .*video1.txt, got no"):
        read_affwild2(tmp_path)
    (tmp_path / "elsewhere").rename(tmp_path / IMAGES)
    (tmp_path / "AU_Set/Validation_Set").rename(tmp_path / "elsewhere")
    with pytest.raises(ReleaseError, match=r"Train_Set and Validation_Set side by side"):
        read_affwild2(tmp_path)


def test_a_video_in_both_parts_is_named(releases, tmp_path):
    releases.make_affwild2(tmp_path, validation=["video1"])
    with pytest.raises(
        ReleaseError, match=r"Validation_Set/video1.txt: wanted each video once, got .*Train_Set"
    ):
        read_affwild2(tmp_path)
