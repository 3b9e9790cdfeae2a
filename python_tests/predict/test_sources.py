import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from jaa_ext.data.video import VideoError
from jaa_ext.predict.sources import Source, find_sources


@pytest.fixture
def folder(tmp_path):
    """Nothing in these files is read."""
    for name in (
        *("b.jpg", "a.PNG", "c.mp4", "notes.txt", ".hidden.jpg", "table.csv", "Z.jpeg"),
        *("inner/d.avi", "inner/deep/e.tiff", ".cache/thumbnail.jpg", "inner/.git/f.jpg", "texts/g.txt"),
    ):
        path = tmp_path / "media" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "media"


def found(*names):
    return [(source.name, source.kind) for source in find_sources(names)]


def test_files_in_the_order_given(folder):
    names = [folder / "c.mp4", str(folder / "b.jpg"), folder / "a.PNG", folder / "b.jpg"]
    assert found(*names) == [
        (str(folder / "c.mp4"), "video"),
        (str(folder / "b.jpg"), "photograph"),
        (str(folder / "a.PNG"), "photograph"),
        (str(folder / "b.jpg"), "photograph"),
    ]
    assert all(source.named for source in find_sources(names))


@pytest.mark.parametrize("name", ["portrait", "portrait.dat", "portrait.heic", "Portrait.2024"])
def test_any_other_file_that_is_named_is_a_photograph_if_it_begins_like_one(tmp_path, name):
    picture = np.zeros((64, 64, 3), np.uint8)
    for ending in (".jpg", ".png", ".webp", ".tiff", ".bmp", ".jp2", ".ppm"):
        (tmp_path / name).write_bytes(cv2.imencode(ending, picture)[1].tobytes())
        assert found(tmp_path / name) == [(str(tmp_path / name), "photograph")]
    (tmp_path / name).write_bytes(
        b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
    )  # tiles of which are videos to OpenCV
    assert found(tmp_path / name)[0][1] == "photograph"


@pytest.mark.parametrize("name", ["talk", "talk.dat", "talk.001"])
def test_any_other_file_that_is_named_is_tried_as_a_video(tmp_path, releases, name):
    releases.write_video(tmp_path / "a.avi", [np.zeros((48, 64, 3), np.uint8)] * 3)
    (tmp_path / "a.avi").rename(tmp_path / name)
    (source,) = find_sources([tmp_path / name])
    assert source.kind == "video" and source.open().count == 3
    (tmp_path / name).write_text("neither")
    (source,) = find_sources([tmp_path / name])
    with pytest.raises(VideoError, match=f"{name}: is damaged, or not a video"):
        source.open()


@pytest.mark.parametrize(
    "ending",
    [
        *("avi", "m4v", "MKV", "mov", "MP4", "mpeg", "mpg", "ogv", "webm", "wmv"),
        *("ts", "TS", "m2t", "m2ts", "vob", "h264", "264", "hevc", "mxf", "asf", "3g2"),
    ],
)
def test_endings_of_videos(tmp_path, ending):
    (tmp_path / f"a.jpg.{ending}").touch()
    assert found(tmp_path / f"a.jpg.{ending}")[0][1] == found(tmp_path)[0][1] == "video"


@pytest.mark.parametrize(
    "ending",
    [
        *("bmp", "jpeg", "JPG", "png", "tif", "TIFF", "webp"),
        *("jfif", "JPE", "jp2", "j2k", "avif", "gif", "ppm", "pgm", "pbm", "pnm"),
    ],
)
def test_endings_of_photographs(tmp_path, ending):
    (tmp_path / f"a.mp4.{ending}").touch()
    assert found(tmp_path)[0][1] == "photograph"


def test_a_folder_gives_what_is_in_it_sorted_and_nothing_hidden(folder):
    names = ["Z.jpeg", "a.PNG", "b.jpg", "c.mp4", "inner/d.avi", "inner/deep/e.tiff"]
    kinds = ["photograph"] * 3 + ["video"] * 2 + ["photograph"]
    assert found(folder) == [(str(folder / name), kind) for name, kind in zip(names, kinds, strict=True)]
    assert not any(source.named for source in find_sources([folder]))
    # A hidden folder that is named is meant.
    assert found(folder / ".cache") == [(str(folder / ".cache" / "thumbnail.jpg"), "photograph")]


def test_numbers_in_names_count(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ordered = ["1.jpg", "2.jpg", "10.jpg", "11.jpg", "a1/7.jpg", "a1b.jpg", "a2.jpg", "a10/1.jpg", "b.jpg"]
    for name in ordered:
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    assert [name for name, _ in found(".")] == [f"./{name}" for name in ordered]
    assert [name for name, _ in found("**")] == ordered
    for name in ("frame_0002.jpg", "frame_2.jpg", "frame_02.jpg"):
        Path(name).touch()
    assert [name for name, _ in found("f*")] == ["frame_0002.jpg", "frame_02.jpg", "frame_2.jpg"]


def test_what_is_left_out_is_told(folder, monkeypatch):
    monkeypatch.chdir(folder)
    for name in ("a.HEIC", "b.heic", "inner/c.heic", "inner/c.txt", "portrait"):
        (folder / name).touch()
    told = []
    find_sources(["inner", "*", "c.mp4", "*.jpg"], told.append)
    assert told == [
        "inner: 2 files are left out, neither photograph nor video by ending: .heic (1), .txt (1)",
        "*: 5 files are left out, neither photograph nor video by ending: .heic (2), .txt (1), "
        "no ending (1), .csv (1)",
    ]
    (folder / "inner" / "c.heic").unlink()
    find_sources(["inner"], told.append)
    assert told[2:] == ["inner: 1 file is left out, neither photograph nor video by ending: .txt (1)"]


def test_a_pipe_in_a_folder_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").touch()
    assert found(tmp_path) == [(str(tmp_path / "b.jpg"), "photograph")]


def test_a_folder_as_it_was_named(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert [name for name, _ in found("inner")] == ["inner/d.avi", "inner/deep/e.tiff"]
    assert [name for name, _ in found("./inner/")] == ["./inner/d.avi", "./inner/deep/e.tiff"]
    assert found("inner", "c.mp4")[2] == ("c.mp4", "video")


def test_patterns(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert found("*.jp*g") == [("Z.jpeg", "photograph"), ("b.jpg", "photograph")]
    assert found("[ab].*") == [("a.PNG", "photograph"), ("b.jpg", "photograph")]
    assert found("?.mp4") == [("c.mp4", "video")]
    assert found("inner/*") == [("inner/d.avi", "video")]
    assert [name for name, _ in found("**")] == [
        *("Z.jpeg", "a.PNG", "b.jpg", "c.mp4"),
        *("inner/d.avi", "inner/deep/e.tiff"),
    ]
    assert found("**/**/e.*") == [("inner/deep/e.tiff", "photograph")]
    assert not any(source.named for source in find_sources(["*.jpg"]))


def test_a_file_whose_name_looks_like_a_pattern(folder, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "take[1].mp4").touch()
    (folder / "take1.mp4").touch()
    assert found("take[1].mp4") == [("take[1].mp4", "video")]


def test_cameras(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert find_sources([0, "12"]) == [Source("0", "camera", True), Source("12", "camera", True)]
    (folder / "12").mkdir()
    (folder / "12" / "a.jpg").touch()
    assert found("12") == [("12/a.jpg", "photograph")]
    assert found(12) == [("12", "camera")]


def test_what_is_not_there(folder, monkeypatch):
    monkeypatch.chdir(folder)
    with pytest.raises(ValueError, match=r"none\.jpg: .*no such file"):
        find_sources(["b.jpg", "none.jpg"])
    for name in ("-1", "1.5", ""):
        with pytest.raises(ValueError, match=rf"{name}: .*no such file"):
            find_sources([name])
    with pytest.raises(ValueError, match=r"^texts: .*no photograph.* \.txt \(1\)$"):
        find_sources(["texts"])
    for pattern, only in (("*.webm", ""), ("nowhere/*", ""), ("*.txt", r", only \.txt \(1\)")):
        with pytest.raises(ValueError, match=rf"no photograph and no video.* pattern{only}$"):
            find_sources([pattern])


def test_nothing_gives_nothing():
    assert find_sources([]) == []


def test_opening(tmp_path, releases):
    releases.write_video(tmp_path / "a.avi", [np.zeros((48, 64, 3), np.uint8)] * 3)
    (source,) = find_sources([tmp_path / "a.avi"])
    assert source.path == tmp_path / "a.avi"
    assert source.open().count == 3 and source.open().name == os.fspath(tmp_path / "a.avi")
    with pytest.raises(VideoError, match=r"^camera 93: is not there"):
        Source("93", "camera", True).open()
