"""Tables of many inputs: what is written, going on after an end at any place, sharing among processes."""

import errno
import functools
import os
import re
import signal
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path
from unittest.mock import Mock

import cv2
import numpy as np
import pandas
import pytest
import torch
from skimage import data

from jaa_ext import facs
from jaa_ext.atomic import locked
from jaa_ext.data.images import read_image
from jaa_ext.data.video import Video, VideoError
from jaa_ext.models import JAANet, JAANetConfig, save_model
from jaa_ext.predict import DetectedFace, Predictor, correct_table, identity, job, predictor, read_table
from jaa_ext.predict.correction import Correction
from jaa_ext.predict.job import predict_tables
from jaa_ext.predict.sources import find_sources
from jaa_ext.progress import ProgressListener

pytestmark = pytest.mark.usefixtures("one_thread")

FRAMES, BLANK = 40, range(12, 20)
"""Of the video, and those of its frames, from 1, in which nobody is to be seen."""


@pytest.fixture(scope="module")
def model(at_rest) -> JAANet:
    torch.manual_seed(0)
    return at_rest(JAANet(JAANetConfig.released(facs.BP4D_AUS[:3], image_size=64, width=2)))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three photographs and a video of a moving face that goes away for some frames."""
    folder = tmp_path_factory.mktemp("inputs")
    astronaut = data.astronaut()[:300, 80:380]
    for name, image in {"a": astronaut, "b": np.full_like(astronaut, 90), "c": astronaut[:, ::-1]}.items():
        cv2.imwrite(str(folder / f"{name}.png"), image[..., ::-1])
    writer = cv2.VideoWriter(
        str(folder / "talk.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25, (astronaut.shape[1], 300)
    )
    for i in range(1, FRAMES + 1):
        frame = np.roll(astronaut, round(6 * np.sin(i / 5)), axis=1) if i not in BLANK else astronaut * 0 + 90
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()
    return folder


def run(model: JAANet, inputs: list, out: Path, **options):
    predictor = Predictor(model, device="cpu", precision="float32", search_every=0.2)
    return predict_tables(predictor, find_sources(inputs), out, **options)


class Quick:
    """Finds one face at a place that the brightness of the picture tells, and fails where told to."""

    def __init__(self, failure: Exception | None = None, width: int = 0) -> None:
        self.failure, self.width = failure, width

    def __call__(self, image: np.ndarray) -> list[DetectedFace]:
        if image.shape[1] == self.width:
            raise self.failure
        x, y = np.meshgrid(np.linspace(60, 240, 7), np.linspace(60, 240, 7))
        points = np.stack([x, y], -1).reshape(49, 2).astype(np.float32) + float(image.mean() / 100)
        return [DetectedFace((50.0, 50.0, 250.0, 250.0), points, 1.0)]

    def score(self, aligned: np.ndarray) -> float:
        return 1.0


def quick(model: JAANet, inputs: list, out: Path, detector: Quick | None = None, **options):
    predictor = Predictor(model, detector=detector or Quick(), device="cpu", precision="float32")
    return predict_tables(predictor, find_sources(inputs), out, **options)


def test_a_folder_has_a_table_for_each_video_and_one_for_photographs(model, inputs, tmp_path) -> None:
    summary = run(model, [inputs], tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["photographs.csv", "talk.csv"]
    assert summary.tables == [tmp_path / "out" / "photographs.csv", tmp_path / "out" / "talk.csv"]
    assert summary.frames == summary.done_now == FRAMES + 3
    assert summary.without_face == len(BLANK) + 1 and summary.faces == FRAMES - len(BLANK) + 2

    photographs = read_table(tmp_path / "out" / "photographs.csv")
    assert [Path(name).name for name in photographs["source"]] == ["a.png", "b.png", "c.png"]
    assert photographs["success"].tolist() == [1, 0, 1]
    talk = read_table(tmp_path / "out" / "talk.csv")
    assert talk["frame"].tolist() == list(range(1, FRAMES + 1))
    np.testing.assert_allclose(talk["timestamp"], np.arange(FRAMES) / 25, atol=1e-3)
    assert talk["success"].tolist() == [int(i not in BLANK) for i in range(1, FRAMES + 1)]
    assert set(talk.loc[talk["success"] == 1, "face_id"]) == {0}


def test_one_table_of_everything_in_the_order_given(model, inputs, tmp_path) -> None:
    names = [inputs / "c.png", inputs / "talk.avi", inputs / "a.png"]
    for ending in ("csv", "parquet"):
        run(model, names, tmp_path / f"all.{ending}", every=4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.csv", "all.parquet"]
    table = read_table(tmp_path / "all.csv")
    assert list(dict.fromkeys(table["source"])) == [str(name) for name in names]
    assert table.loc[table["source"] == str(names[1]), "frame"].tolist() == list(range(1, FRAMES + 1, 4))
    # In Parquet whole numbers stay whole where some are missing.
    pandas.testing.assert_frame_equal(read_table(tmp_path / "all.parquet"), table, check_dtype=False)


def test_tables_are_corrected_when_they_are_finished(model, inputs, tmp_path, monkeypatch) -> None:
    """An interrupted run goes on with another correction, since its rows are those that were predicted."""
    names = [inputs / "talk.avi", inputs / "a.png"]
    quick(model, names, tmp_path / "raw.csv")
    raw = read_table(tmp_path / "raw.csv")
    with monkeypatch.context() as patched:
        patched.setattr(job, "join_tables", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            quick(model, names, tmp_path / "new.csv", correction=Correction(smooth=5))
    summary = quick(model, names, tmp_path / "new.csv", correction=Correction(smooth=0.2))
    assert summary.done_now == 0
    assert summary.remarks == [f"{names[1]}: a single picture keeps its AUs as they are"]
    with pytest.warns(UserWarning, match="a single picture"):
        want = correct_table(raw, smooth=0.2, thresholds=model.thresholds)
    pandas.testing.assert_frame_equal(read_table(tmp_path / "new.csv"), want)
    assert not (want["AU01_p"] == want["AU01_p_raw"])[raw["source"] == str(names[0])].all()


def test_start_and_end(model, inputs, tmp_path) -> None:
    run(model, [inputs / "talk.avi"], tmp_path / "part.csv", start=0.4, end=0.8)
    assert read_table(tmp_path / "part.csv")["frame"].tolist() == list(range(11, 21))


class Stops(ProgressListener):
    """Ctrl-C when the rows of so many frames are written, the last one's not yet vouched for."""

    def __init__(self, number: int) -> None:
        self.number = number

    def on_progress(self, done: int, text: str = "") -> None:
        if done == self.number:
            raise KeyboardInterrupt


@pytest.fixture
def always_saved(monkeypatch):
    monkeypatch.setattr(job, "SAVED_EVERY", 0.0)


def test_a_run_that_fails_before_its_first_row_leaves_nothing(model, inputs, tmp_path) -> None:
    class Failing(Quick):
        def __call__(self, image):
            raise RuntimeError("no detector")

    with pytest.raises(RuntimeError, match="no detector"):
        quick(model, [inputs / "talk.avi"], tmp_path / "out.csv", Failing())
    assert not list(tmp_path.iterdir())
    quick(model, [inputs / "talk.avi"], tmp_path / "out.csv", every=20)


def test_the_end_of_photographs_that_break_off_is_heard(model, inputs, tmp_path) -> None:
    class Ends(Stops):
        ended = 0

        def on_end(self) -> None:
            self.ended += 1

    listener = Ends(1)
    with pytest.raises(KeyboardInterrupt):
        quick(model, [inputs / "a.png", inputs / "b.png"], tmp_path / "out.csv", listener=listener)
    assert listener.ended == 1


@pytest.mark.usefixtures("always_saved")
@pytest.mark.parametrize("stop_at", [1, 14, 37])
def test_an_interrupted_run_goes_on_with_the_same_rows(model, inputs, tmp_path, stop_at) -> None:
    whole, out = tmp_path / "whole.csv", tmp_path / "again.csv"
    sources = [inputs / "talk.avi", inputs / "b.png"]
    run(model, sources, whole)
    with pytest.raises(KeyboardInterrupt):
        run(model, sources, out, listener=Stops(stop_at))
    assert not out.exists() and (tmp_path / ".again.csv.unfinished").is_dir()
    summary = run(model, sources, out)
    assert out.read_bytes() == whole.read_bytes()
    assert summary.frames == FRAMES + 1 and summary.done_now == FRAMES + 1 - (stop_at - 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.csv", "whole.csv"]


@pytest.mark.usefixtures("always_saved")
@pytest.mark.parametrize("stop_at", [None, 1, 4, 7])
def test_hard_cuts_are_counted_after_an_interruption_too(model, tmp_path, stop_at) -> None:
    """Between random pictures, each of which stays for ten frames, there are three."""
    film = tmp_path / "cuts.avi"
    writer = cv2.VideoWriter(str(film), cv2.VideoWriter.fourcc(*"MJPG"), 25, (320, 240))
    scenes = np.random.default_rng(0).integers(0, 200, (4, 6, 8, 3), dtype=np.uint8)
    for i in range(40):
        writer.write(cv2.resize(scenes[i // 10], (320, 240), interpolation=cv2.INTER_NEAREST))
    writer.release()
    if stop_at is not None:
        with pytest.raises(KeyboardInterrupt):
            quick(model, [film], tmp_path / "out.csv", every=5, listener=Stops(stop_at))
    assert quick(model, [film], tmp_path / "out.csv", every=5).remarks == [
        f"{film}: 3 hard cuts; a cut ends every face's id, unless an embedding knows the face again"
    ]
    assert read_table(tmp_path / "out.csv")["face_id"].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def colours(faces: np.ndarray) -> np.ndarray:
    """An embedding that is no way to tell people apart."""
    return faces.reshape(len(faces), -1, 3).mean(1)


@pytest.fixture(scope="module")
def comes_and_goes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two frames a second: one with a face, six without, four times."""
    path = tmp_path_factory.mktemp("films") / "comes.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 2, (200, 200))
    face = np.ascontiguousarray(data.astronaut()[20:220, 120:320, ::-1])
    for i in range(4 * 7):
        writer.write(face if i % 7 == 0 else face * 0 + 90)
    writer.release()
    return path


def recognise(model: JAANet, film: Path, out: Path, embedding=colours, likeness: float = 0.9, **options):
    predictor = Predictor(
        model, device="cpu", precision="float32", embedding=embedding, least_likeness=likeness
    )
    return predict_tables(predictor, find_sources([film]), out, **options)


@pytest.mark.parametrize("most", [2, 3])
def test_faces_that_come_back_are_told(model, comes_and_goes, tmp_path, monkeypatch, most) -> None:
    """One by one, or their number if they are many; each stands in the table."""
    monkeypatch.setattr(job, "MOST_TOLD", most)
    summary = recognise(model, comes_and_goes, tmp_path / "table.csv")
    table = read_table(tmp_path / "table.csv")
    assert set(table["face_id"]) == {0, -1} and (table["merged"].isna() == (table["face_id"] == -1)).all()
    back = table[table["merged"] > 0]
    assert back["frame"].tolist() == [8, 15, 22] and (back["merged"] > 0.9).all()
    many = [f"{comes_and_goes}: faces came back 3 times, see the column `merged` of the table"]
    one_by_one = [
        f"{comes_and_goes}: face 0 came back in frame {frame}, at {(frame - 1) / 2:.3f} s (likeness 1.000)"
        for frame in back["frame"]
    ]
    assert summary.remarks == (one_by_one if most == 3 else many)


def test_a_face_that_is_no_longer_like_itself_is_told(model, inputs, tmp_path, monkeypatch) -> None:
    def turns(faces: np.ndarray) -> np.ndarray:
        """One direction for the first face, another for all others."""
        asked.append(len(faces))
        return np.eye(2)[[int(len(asked) > 1)] * len(faces)]

    asked: list[int] = []
    monkeypatch.setattr(identity, "ASKED_EVERY", 0.2)
    sentence = r"talk.avi: face 0 no longer looks like itself from frame 6 on, at 0\.200 s; it may be"
    (remark,) = recognise(model, inputs / "talk.avi", tmp_path / "t.csv", turns).remarks
    assert re.search(sentence, remark)
    unlike = [(i, i / 2, i, 0.0) for i in range(job.MOST_TOLD + 1)]
    assert job.told("a", unlike) == ["a: 11 faces no longer look like themselves; they may be others"]


def test_without_an_embedding_they_are_others(model, comes_and_goes, tmp_path) -> None:
    done = recognise(model, comes_and_goes, tmp_path / "t.csv", embedding=None, likeness=None)
    assert done.remarks == []
    table = read_table(tmp_path / "t.csv")
    assert set(table["face_id"]) == {-1, 0, 1, 2, 3} and not (table["merged"] > 0).any()


@pytest.mark.usefixtures("always_saved")
@pytest.mark.parametrize("stop_at", [2, 8, 9])
def test_an_interrupted_run_knows_the_same_faces(model, comes_and_goes, tmp_path, stop_at) -> None:
    whole, out = tmp_path / "whole.csv", tmp_path / "again.csv"
    expected = recognise(model, comes_and_goes, whole, end=8)
    with pytest.raises(KeyboardInterrupt):
        recognise(model, comes_and_goes, out, end=8, listener=Stops(stop_at))
    assert recognise(model, comes_and_goes, out, end=8).remarks == expected.remarks
    assert out.read_bytes() == whole.read_bytes()


def test_an_unfinished_run_is_of_one_embedding(model, comes_and_goes, tmp_path) -> None:
    with pytest.raises(KeyboardInterrupt):
        recognise(model, comes_and_goes, tmp_path / "a.csv", listener=Stops(1))

    def others(faces: np.ndarray) -> np.ndarray:
        return colours(faces)

    for other in ({"embedding": None, "likeness": None}, {"likeness": 0.8}, {"embedding": others}):
        with pytest.raises(ValueError, match="holds an unfinished run of other settings"):
            recognise(model, comes_and_goes, tmp_path / "a.csv", **other)


@pytest.mark.parametrize("embedding", [lambda faces: colours(faces), functools.partial(colours)])
def test_an_embedding_without_a_name_of_its_own(model, comes_and_goes, tmp_path, embedding) -> None:
    with pytest.raises(
        ValueError, match=r"is the name of many functions, .*; give it an attribute `identity`"
    ):
        recognise(model, comes_and_goes, tmp_path / "a.csv", embedding)
    assert list(tmp_path.iterdir()) == []
    embedding.identity = "of colours"
    assert recognise(model, comes_and_goes, tmp_path / "a.csv", embedding, end=1).frames


@pytest.mark.usefixtures("always_saved")
@pytest.mark.parametrize("killed", ["before", "behind"])
def test_embeddings_end_with_their_video(model, comes_and_goes, tmp_path, monkeypatch, killed) -> None:
    """Also of a run that was killed between the rows and the state."""
    whole, out = tmp_path / "whole.csv", tmp_path / "again.csv"
    recognise(model, comes_and_goes, whole, end=8)
    place, name = (Path, "unlink") if killed == "before" else (job, "join_tables")
    for _ in range(2):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(place, name, Mock(side_effect=KeyboardInterrupt))
            recognise(model, comes_and_goes, out, end=8)
        left = {file.suffix for file in (tmp_path / ".again.csv.unfinished").iterdir()}
        assert left == {".json", ".rows", ".counts"} | ({".state"} if killed == "before" else set())
    assert recognise(model, comes_and_goes, out, end=8).done_now == 0
    assert out.read_bytes() == whole.read_bytes()


@pytest.mark.usefixtures("always_saved")
def test_what_was_done_with_other_settings_is_not_taken_and_not_lost(model, inputs, tmp_path) -> None:
    out, unfinished = tmp_path / "out.csv", tmp_path / ".out.csv.unfinished"
    with pytest.raises(KeyboardInterrupt):
        run(model, [inputs / "talk.avi"], out, listener=Stops(20))
    for changed in ({"end": 1.0}, {"weights": "others"}):
        with pytest.raises(ValueError, match=r"\.out\.csv\.unfinished: holds an unfinished run of other"):
            run(model, [inputs / "talk.avi"], out, **changed)
    other = Predictor(model, detector=Quick(), device="cpu", precision="float32", search_every=0.2)
    with pytest.raises(ValueError, match="holds an unfinished run of other"):
        predict_tables(other, find_sources([inputs / "talk.avi"]), out)
    assert run(model, [inputs / "talk.avi"], out).done_now == FRAMES - 19 and not unfinished.exists()


DAMAGES = {
    "gone": lambda file: file.unlink(),
    "empty": lambda file: file.write_bytes(b""),
    "cut": lambda file: file.write_bytes(file.read_bytes()[:-20]),
    "flipped": lambda file: file.write_bytes(file.read_bytes().replace(b"1", b"2", 1)),
    "no text": lambda file: file.write_bytes(b"\xff\xfe\0" * 50),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_rows_of_another_run_are_never_taken(model, inputs, tmp_path, monkeypatch, damage) -> None:
    """What is left of a run of b.png is all there, but nothing says what it is of."""
    out, unfinished = tmp_path / "out.csv", tmp_path / ".out.csv.unfinished"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(job, "join_tables", Mock(side_effect=KeyboardInterrupt))
        quick(model, [inputs / "b.png"], out)
    assert sorted(file.suffix for file in unfinished.iterdir()) == [".counts", ".json", ".rows"]
    (unfinished / ".jaa_tmp.left").mkdir()
    DAMAGES[damage](unfinished / "run.json")
    for _ in range(2):
        quick(model, [inputs / "a.png"], out)
        assert read_table(out)["source"].tolist() == [str(inputs / "a.png")]
        assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]


@pytest.mark.parametrize(
    ("kind", "damage"),
    [
        *((kind, damage) for kind in ("counts", "state") for damage in DAMAGES),
        *((kind, damage) for kind in ("begun", "rows") for damage in ("gone", "empty", "cut")),
    ],
)
@pytest.mark.usefixtures("always_saved")
def test_a_part_whose_files_are_damaged_is_done_again(
    model, inputs, tmp_path, monkeypatch, kind, damage
) -> None:
    whole, out, sources = tmp_path / "whole.csv", tmp_path / "out.csv", [inputs / "talk.avi"]
    quick(model, sources, whole, every=4)
    if kind in ("state", "begun"):
        with pytest.raises(KeyboardInterrupt):
            quick(model, sources, out, every=4, listener=Stops(6))
    else:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(job, "join_tables", Mock(side_effect=KeyboardInterrupt))
            quick(model, sources, out, every=4)
    DAMAGES[damage](tmp_path / ".out.csv.unfinished" / f"000000.{kind}")
    summary = quick(model, sources, out, every=4)
    assert out.read_bytes() == whole.read_bytes() and summary.frames == FRAMES / 4 and summary.remarks == []


def test_an_end_between_any_two_steps_on_the_disk(model, inputs, tmp_path, monkeypatch) -> None:
    whole, out, sources = (
        tmp_path / "whole.csv",
        tmp_path / "out.csv",
        [inputs / "a.png", inputs / "talk.avi"],
    )
    quick(model, sources, whole, every=10)
    monkeypatch.setattr(job, "SAVED_EVERY", 0.0)
    steps = {(os, "replace"), (Path, "replace"), (Path, "unlink"), (os, "rmdir")}
    real = {step: getattr(*step) for step in steps}

    def end_at(number: int) -> bool:
        """Whether there are so many steps: with others the run came to its own end."""
        count = iter(range(number))

        def stepping(step):
            def do(*args, **options):
                if next(count, None) is None:
                    raise KeyboardInterrupt
                return real[step](*args, **options)

            return do

        with monkeypatch.context() as patch:
            for place, name in steps:
                patch.setattr(place, name, stepping((place, name)))
            try:
                quick(model, sources, out, every=10)
            except KeyboardInterrupt:
                return True
        return False

    number = 0
    while end_at(number):
        quick(model, sources, out, every=10)
        assert out.read_bytes() == whole.read_bytes(), number
        assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "whole.csv"]
        out.unlink()
        number += 1
    assert number > 10 and out.read_bytes() == whole.read_bytes()


def test_two_runs_do_not_write_one_table(model, inputs, tmp_path) -> None:
    (tmp_path / ".out.csv.unfinished").mkdir()
    with (
        locked(tmp_path / ".out.csv.unfinished", AssertionError()),
        pytest.raises(ValueError, match="another process is writing these tables"),
    ):
        run(model, [inputs / "a.png"], tmp_path / "out.csv")
    run(model, [inputs / "a.png"], tmp_path / "out.csv")


def test_only_tables_of_ours_are_replaced(model, inputs, tmp_path) -> None:
    mine = tmp_path / "labels.csv"
    mine.write_text("frame,label\n1,0\n")
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "file").write_text("mine")
    for name, sentence in {
        "labels.csv": "is there already, and no table",
        "folder.csv": "wanted a table, got a folder",
        "file": "wanted a folder, or a table",
    }.items():
        with pytest.raises(ValueError, match=f"{name}: {sentence}"):
            run(model, [inputs / "a.png"], tmp_path / name)
    assert mine.read_text() == "frame,label\n1,0\n" and (tmp_path / "file").read_text() == "mine"
    for _ in range(2):
        run(model, [inputs / "a.png"], tmp_path / "ours.csv")


def test_an_ending_of_another_file_names_no_new_folder(model, inputs, tmp_path) -> None:
    for name in ("table.xlsx", "table.TSV", "out.json", "out.mp4", "out.png"):
        ending = name[name.index(".") :]
        with pytest.raises(
            ValueError, match=rf"{name}: wanted a folder, or a table .* got the ending \{ending}$"
        ):
            quick(model, [inputs / "a.png"], tmp_path / name)
    assert not list(tmp_path.iterdir())
    (tmp_path / "there.mp4").mkdir()
    for name in ("results.v2", "there.mp4", "plain"):
        quick(model, [inputs / "a.png"], tmp_path / name)
        assert (tmp_path / name / "photographs.csv").is_file()


def test_what_cannot_be_read_in_a_folder_is_passed_over_and_told(model, inputs, tmp_path) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    (folder / "a.png").write_bytes((inputs / "a.png").read_bytes())
    (folder / "b.png").write_text("no image")
    (folder / "c.avi").write_text("no video")
    (folder / "notes.txt").write_text("neither")
    (folder / "d.png").symlink_to("nowhere.png")
    summary = run(model, [folder], tmp_path / "all.csv")
    assert [Path(name).name for name in read_table(tmp_path / "all.csv")["source"]] == ["a.png"]
    assert len(summary.remarks) == 3
    assert "b.png: is damaged" in summary.remarks[0] and "c.avi: is damaged" in summary.remarks[1]
    assert all(remark.endswith("; passed over") for remark in summary.remarks)


ERRORS = {
    "OpenCV: !src.empty()": cv2.error("!src.empty()"),
    "the memory does not suffice": MemoryError(),
    "Input/output error": OSError(5, "Input/output error"),
    "is gone": VideoError("talk.avi: is gone"),
}


@pytest.mark.parametrize("told", ERRORS)
@pytest.mark.parametrize("before", [0, 5])
def test_a_video_that_fails_costs_the_others_nothing(
    model, inputs, tmp_path, monkeypatch, told, before
) -> None:
    monkeypatch.chdir(inputs)
    frames = Video.frames

    def failing(self, **options):
        for frame, _ in zip(frames(self, **options), range(before), strict=False):
            yield frame
        raise ERRORS[told]

    monkeypatch.setattr(Video, "frames", failing)
    for _ in range(2):
        summary = quick(model, ["talk.avi", "a.png"], tmp_path / "all.csv")
        assert read_table(tmp_path / "all.csv")["source"].tolist() == ["talk.avi"] * before + ["a.png"]
        end = f"breaks off after frame 5 ({told})" if before else f"{told}; passed over"
        assert summary.remarks == [f"talk.avi: {end}"] and summary.frames == before + 1
    if not before:
        with pytest.raises(ValueError, match=f"^talk.avi: {re.escape(told)}$"):
            quick(model, ["talk.avi"], tmp_path / "alone.csv")


@pytest.mark.parametrize("failure", [cv2.error("too large"), MemoryError()])
def test_a_photograph_that_fails_costs_the_others_nothing(model, inputs, tmp_path, failure) -> None:
    cv2.imwrite(str(tmp_path / "d.png"), np.zeros((20, 30, 3), np.uint8))
    names, failing = [inputs / "a.png", tmp_path / "d.png", inputs / "c.png"], Quick(failure, width=30)
    summary = quick(model, names, tmp_path / "all.csv", failing)
    assert read_table(tmp_path / "all.csv")["source"].tolist() == [str(names[0]), str(names[2])]
    (remark,) = summary.remarks
    assert re.search(
        r"d\.png: cannot be searched for faces \((OpenCV: too large|the mem.*)\); passed", remark
    )
    with pytest.raises(ValueError, match=r"d\.png: cannot be searched for faces"):
        Predictor(model, detector=failing, device="cpu").faces(names[1])


def test_a_full_disk_ends_the_run_with_the_table_named(model, inputs, tmp_path, monkeypatch) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    for source in ("a.png", "talk.avi"):
        with (
            monkeypatch.context() as patch,
            pytest.raises(OSError, match=r"out\.csv: No space left on device$"),
        ):
            patch.setattr(job, "csv_rows", Mock(side_effect=full))
            quick(model, [inputs / source], tmp_path / "out.csv")
        assert quick(model, [inputs / source], tmp_path / "out.csv").remarks == []


def test_large_photographs_are_read_alone(model, inputs, tmp_path, monkeypatch) -> None:
    names = [inputs / f"{name}.png" for name in "abcabcabc"]
    quick(model, names, tmp_path / "together.csv")
    now, most, lock = [], [], threading.Lock()

    def counted(path):
        with lock:
            now.append(path)
            most.append(len(now))
        time.sleep(0.01)
        image = read_image(path)
        with lock:
            now.remove(path)
        return image

    monkeypatch.setattr(predictor, "processors", lambda: 4)
    monkeypatch.setattr(predictor, "read_image", counted)
    monkeypatch.setattr(predictor, "PIXELS_AHEAD", 300 * 300)
    quick(model, names, tmp_path / "alone.csv")
    assert max(most) == 1
    assert (tmp_path / "alone.csv").read_bytes() == (tmp_path / "together.csv").read_bytes()
    with pytest.raises(ValueError, match="got no photograph and no video"):
        quick(model, [], tmp_path / "none.csv")


def test_a_video_that_breaks_off_is_told(model, inputs, tmp_path) -> None:
    whole = (inputs / "talk.avi").read_bytes()
    (tmp_path / "cut.avi").write_bytes(whole[: len(whole) // 2])
    summary = run(model, [tmp_path / "cut.avi"], tmp_path / "cut.csv")
    (remark,) = summary.remarks
    assert run(model, [inputs / "talk.avi"], tmp_path / "few.csv", every=30).remarks == []
    with pytest.raises(ValueError, match=r"talk\.avi: has no frame"):
        run(model, [inputs / "talk.avi"], tmp_path / "late.csv", start=60)
    assert 0 < summary.frames < FRAMES
    assert f"cut.avi: breaks off after frame {summary.frames}; it says that it has {FRAMES}" in remark


@pytest.mark.usefixtures("always_saved")
def test_missing_frames_are_told_after_an_interruption_too(model, inputs, tmp_path) -> None:
    content = bytearray((inputs / "talk.avi").read_bytes())
    at, number = content.index(b"movi") + 4, 1
    while content[at : at + 4] == b"00dc":
        size = int.from_bytes(content[at + 4 : at + 8], "little")
        if number in (9, 10, 30):
            content[at + 8 : at + 8 + size] = bytes(size)
        at, number = at + 8 + size + size % 2, number + 1
    (tmp_path / "holes.avi").write_bytes(content)
    source, out = tmp_path / "holes.avi", tmp_path / "out.csv"
    with pytest.raises(KeyboardInterrupt):
        run(model, [source], out, every=2, listener=Stops(10))
    (remark,) = run(model, [source], out, every=2).remarks
    assert remark.startswith(f"{source}: 3 frames are missing in 2 places, the first after frame 8: ")
    assert read_table(out)["frame"].tolist() == [n for n in range(1, FRAMES + 1, 2) if n != 9]


@pytest.mark.parametrize("name", ["b.png", "c.avi"])
def test_where_nothing_can_be_read_it_is_a_mistake(model, inputs, tmp_path, name) -> None:
    Path(name).write_text("neither image nor video")
    with pytest.raises(ValueError, match=f"^{name}: is damaged.*[a-z]$"):
        run(model, [name], tmp_path / "out.csv")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    # Among others it costs them nothing.
    summary = run(model, [inputs / "a.png", name], tmp_path / "out.csv")
    assert summary.frames == 1 and len(summary.remarks) == 1


def test_videos_of_one_name_have_tables_of_their_own(model, inputs, tmp_path) -> None:
    other = tmp_path / "other" / "talk.avi"
    other.parent.mkdir()
    other.write_bytes((inputs / "talk.avi").read_bytes())
    summary = run(model, [inputs / "talk.avi", other], tmp_path / "out", every=10)
    assert [path.name for path in summary.tables] == ["talk.csv", "talk_2.csv"]
    for path, source in zip(summary.tables, (inputs / "talk.avi", other), strict=True):
        assert set(read_table(path)["source"]) == {str(source)}


@pytest.mark.usefixtures("always_saved")
def test_a_camera_ends_with_ctrl_c_and_its_table_is_whole(model, inputs, tmp_path, monkeypatch) -> None:
    capture, write = cv2.VideoCapture, Mock(side_effect=job._write_state)
    monkeypatch.setattr(job, "_write_state", write)
    monkeypatch.setattr(cv2, "VideoCapture", lambda source: capture(str(inputs / "talk.avi")))
    summary = run(model, ["0"], tmp_path / "out", listener=Stops(9))
    assert [path.name for path in summary.tables] == ["camera_0.csv"]
    table = read_table(tmp_path / "out" / "camera_0.csv")
    assert table["frame"].tolist() == list(range(1, 9)) and set(table["source"]) == {"camera 0"}
    kinds = [call.args[0].suffix for call in write.call_args_list]
    assert kinds == [".json", ".counts"]  # no run reads the state of a camera


def test_memory_stays_the_same(model, tmp_path) -> None:
    """Of ten times as many frames no more predictions are held at a time."""
    predictor = Predictor(model, device="cpu", precision="float32")

    def most_held(number: int) -> int:
        path, most, held = tmp_path / f"{number}.avi", 0, weakref.WeakSet()
        video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 48))
        for _ in range(number):
            video.write(np.zeros((48, 64, 3), np.uint8))
        video.release()
        for frame in predictor.frames(path):
            held.add(frame)
            most = max(most, len(held))
        return most

    assert most_held(20) == most_held(200) <= 2


def arguments(model: JAANet, inputs: Path, out: Path) -> list[str]:
    """Of the command."""
    weights = out.parent / "model.safetensors"
    save_model(model, weights)
    return ["predict", str(inputs), "--weights", str(weights), "--out", str(out), "--precision", "float32"]


def start(arguments: list[str], *before: str) -> subprocess.CompletedProcess:
    """The command in a process of its own."""
    return subprocess.run(
        [sys.executable, *before, *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_two_processes_write_what_one_writes(model, inputs, jaa, tmp_path) -> None:
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    for name in ("out", "all.csv"):
        one, two = tmp_path / "one" / name, tmp_path / "two" / name
        code, _, error = jaa(*arguments(model, inputs, one))
        assert code == 0, error
        launched = start(arguments(model, inputs, two), *torchrun, "-m", "jaa_ext")
        assert launched.returncode == 0, launched.stderr
        assert launched.stdout.count("Results:") == 1 and f"{FRAMES + 3} frames" in launched.stdout
        files = sorted(two.iterdir()) if two.is_dir() else [two]
        assert [file.name for file in files] == (["photographs.csv", "talk.csv"] if name == "out" else [name])
        for file in files:
            assert file.read_bytes() == (one / file.name if one.is_dir() else one).read_bytes()


KILLED = """
import os
from jaa_ext import cli
from jaa_ext.predict import job
job.SAVED_EVERY = 0.0
rows = job.csv_rows
def killed(frame, *arguments, **options):
    if frame.frame == 25:
        os.kill(os.getpid(), 9)
    return rows(frame, *arguments, **options)
job.csv_rows = killed
cli.main()
"""


def test_a_killed_run_goes_on_with_the_same_rows(model, inputs, jaa, tmp_path) -> None:
    talk, out, fresh = inputs / "talk.avi", tmp_path / "talk.csv", tmp_path / "fresh.csv"
    assert start(arguments(model, talk, out), "-c", KILLED).returncode == -signal.SIGKILL
    assert not out.exists()
    for path in (out, fresh):
        code, printed, error = jaa(*arguments(model, talk, path))
        assert code == 0 and f"{FRAMES} frames" in printed, error
    assert out.read_bytes() == fresh.read_bytes()
