"""Whole programs side by side: turns, arithmetic and failures, with small programs in place of the others."""

from __future__ import annotations

import importlib
import json
import os
import stat
import sys
import textwrap
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import cv2
import pytest
import skimage.data

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
FRAMES = 11


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """With a program in place of `jaa predict` that finds a face in every frame."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    found = importlib.import_module("peers")
    rows = "frame,success\n" + "".join(f"{i},1\n" for i in range(FRAMES))
    code = f"import sys; open(sys.argv[1], 'w').write({rows!r})"
    ours = found.PROGRAMS["jaa"]._replace(
        command=lambda path, video, table: [str(path), "-c", code, str(table)]
    )
    monkeypatch.setattr(found, "PROGRAMS", {**found.PROGRAMS, "jaa": ours})
    monkeypatch.setattr(found.user_speed, "run", lambda *_: {"commit": "abc"})
    return found


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "face.mp4"
    picture = skimage.data.astronaut()[:300, 80:380, ::-1].copy()
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10, (300, 300))
    for _ in range(FRAMES):
        writer.write(picture)
    writer.release()
    return path


def executable(path: Path, text: str) -> Path:
    path.write_text(textwrap.dedent(text))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def openface2(path: Path, does: str) -> Path:
    """A program with the options of FeatureExtraction, which then does something."""
    lines = ["import os, sys, time", "given = dict(zip(sys.argv[1:7:2], sys.argv[2:8:2]))"]
    lines += ["assert list(given) == ['-f', '-out_dir', '-of'], given", "assert '-aus' in sys.argv"]
    lines += ["table = os.path.join(given['-out_dir'], given['-of'] + '.csv')", does]
    return executable(path, "\n".join([f"#!{sys.executable}", *lines, ""]))


def run(peers: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """The exit code."""
    monkeypatch.setattr(sys, "argv", ["peers.py", *map(str, arguments)])
    try:
        peers.main()
    except SystemExit as left:
        return left.code
    return 0


def test_turns_and_arithmetic(
    peers: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, video: Path, capsys: Any
) -> None:
    seconds = {  # of the first frame and of the whole video, pass by pass
        "jaa": iter([(2.0, 4.0), (2.0, 3.0), (3.0, 8.0)]),  # 5, 10 and 2 frames a second
        "openface2": iter([(1.0, 11.0), (1.0, 6.0), (0.5, 5.5)]),  # 1, 2 and 2
    }
    asked: list[str] = []
    warm: set[str] = set()
    whole: dict[str, float] = {}

    def timed_apart(command: list[str], *_: Any) -> dict[str, Any]:
        name = "jaa" if command[0] == sys.executable else "openface2"
        table = Path(command[-1] if name == "jaa" else f"{command[4]}/{command[6]}.csv")
        table.write_text(
            "frame, face_id, success\n1, 0, 1\n2, 0, 1\n2, 1, 1\n3, 0, 0\n"
            if name == "openface2"
            else "frame,success\n1,1\n"
        )
        first = name not in whole
        asked.append(f"{name} {'first' if first else 'whole'}")
        found = {"megabytes": 100.0 if first else 250.0, "code": 0, "late": False}
        if name not in warm:
            warm.add(name)
            return {"seconds": 1000.0, **found}
        if first:
            start, whole[name] = next(seconds[name])
            return {"seconds": start, **found}
        return {"seconds": whole.pop(name), **found}

    monkeypatch.setattr(peers, "timed_apart", timed_apart)
    out = tmp_path / "results" / "peers.json"
    program = openface2(tmp_path / "FeatureExtraction", "")
    assert (
        run(
            peers,
            monkeypatch,
            "--video",
            video,
            "--program",
            f"openface2={program}",
            "--threads",
            1,
            "--out",
            out,
        )
        == 0
    )
    order = ["jaa", "openface2", "openface2", "jaa", "jaa", "openface2"]
    once = [f"{name} {what}" for name in order for what in ("first", "whole")]
    assert asked == ["jaa first", "openface2 first", *once]
    header, _, *rows = capsys.readouterr().out.rpartition("\n\n")[2].splitlines()
    assert header == "|  | frames/s | times jaa predict | s to start | MB at most | frames with a face |"
    assert rows == [
        "| jaa predict abc | 5 | 1.00 | 2.0 | 250 | 1 of 11 |",
        "| OpenFace 2 | 2 | 0.40 | 1.0 | 250 | 2 of 11 |",
        "| OpenFace 3 | not measured here |  |  |  |  |",
        "| py-feat | not measured here |  |  |  |  |",
        "| LibreFace | not measured here |  |  |  |  |",
    ]
    result = json.loads(out.read_text())
    assert result["video"] == {"what": "face.mp4", "size": "300x300", "frames": FRAMES}
    assert len(result["runs"]) == 6 and result["threads"] == 1 and result["failed"] == {}
    assert result["runs"][1]["values"] == {
        "frames/s": 1.0,
        "s to start": 1.0,
        "s of the whole video": 11.0,
        "MB at most": 250.0,
        "frames with a face": 2,
        "frames in the table": 3,
    }
    assert str(tmp_path) not in out.read_text()


def test_a_video_that_takes_no_longer_than_its_first_frame(peers: ModuleType) -> None:
    runs = [{"build": "jaa", "values": {"s to start": 2.0, "MB at most": 9.0, "frames with a face": 2}}]
    facts = {"cpu": "Some", "cpu_level": "avx2"}
    video = {"what": "a.mp4", "size": "8x8", "frames": 2}
    shared = {"machine": facts, "threads": 2, "video": video, "failed": {}, "builds": {"jaa": {}}}
    text = peers.table_of({**shared, "runs": runs})
    assert text.startswith("Some (avx2), 2 threads, a.mp4, 8x8, 2 frames\n")
    assert "| jaa predict | too short a video |  | 2.0 | 9 | 2 of 2 |" in text


def test_each_program_is_called_as_it_documents(
    peers: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, video: Path, capsys: Any
) -> None:
    """Command lines, classes and arguments of the others are those that the small ones accept."""
    packages = tmp_path / "packages"
    for package, number in (("py_feat", "2.1.5"), ("openface_test", "0.1.26"), ("libreface", "0.2.0")):
        folder = packages / f"{package}-{number}.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {number}\n")
    modules = {
        "feat/__init__.py": """
            import os

            class Detectorv2:
                def __init__(self, device="cpu", identity_model="arcface"):
                    assert os.environ["OMP_NUM_THREADS"] == os.environ["MKL_NUM_THREADS"] == "1"
                    assert os.environ["HF_HUB_OFFLINE"] == "1" and os.environ["https_proxy"]
                    assert device == "cpu" and os.environ["CUDA_VISIBLE_DEVICES"] == ""
                    assert len(os.sched_getaffinity(0)) == 1

                def detect(self, inputs, data_type="image", batch_size=1, progress_bar=True):
                    assert os.path.isfile(inputs) and data_type == "video"
                    return self

                def to_csv(self, path, index=True):
                    rows = ["FaceRectX,FaceScore,AU01,frame", "9.5,0.99,0.1,0", "7.5,0.98,0.1,0", ",0.0,,1"]
                    open(path, "w").write("\\n".join(rows))
            """,
        "openface/__init__.py": "",
        "openface/face_detection.py": """
            import cv2

            class FaceDetector:
                def __init__(self, model_path, device="cpu"):
                    self.asked = 0
                    open(model_path)

                def get_face(self, image_path):
                    assert isinstance(image_path, str)
                    image = cv2.imread(image_path)
                    assert image.shape == (300, 300, 3)
                    self.asked += 1
                    return (None, None) if self.asked % 3 == 0 else (image[:20, :20], [[0, 0, 20, 20, 0.9]])
            """,
        "openface/landmark_detection.py": """
            class LandmarkDetector:
                def __init__(self, model_path, device="cpu"):
                    open(model_path)

                def detect_landmarks(self, image, dets):
                    assert image.shape == (300, 300, 3) and len(dets) == 1
            """,
        "openface/multitask_model.py": """
            import numpy as np

            class MultitaskPredictor:
                def __init__(self, model_path, device="cpu"):
                    open(model_path)

                def predict(self, face):
                    assert face.shape == (20, 20, 3)
                    return None, None, np.zeros((1, 8))
            """,
        "libreface/__init__.py": "",
        "libreface/commandline.py": """
            import argparse

            parser = argparse.ArgumentParser()
            for name in ("--input_path", "--output_path", "--device", "--temp"):
                parser.add_argument(name, required=True)
            given = parser.parse_args()
            open(given.input_path).close()
            open(given.output_path, "w").write("frame_idx,AU_1\\n0,0\\n1,0\\n4,1\\n")
            """,
    }
    for name, text in modules.items():
        (packages / name).parent.mkdir(exist_ok=True)
        (packages / name).write_text(textwrap.dedent(text))
    # A Python that has them; what PYTHONPATH it was given must not reach it.
    python = executable(
        tmp_path / "python",
        f"""\
        #!/bin/sh
        test -z "$PYTHONPATH" || exit 9
        PYTHONPATH={packages} exec {sys.executable} "$@"
        """,
    )
    for name in ("weights/Alignment_RetinaFace.pth", "weights/Landmark_98.pkl", "weights/MTL_backbone.pth"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "weights_libreface").mkdir()
    arguments = [f"--program=openface2={openface2(tmp_path / 'FE', OPENFACE_TABLE)}"]
    arguments += [f"--program={name}={python}" for name in ("openface3", "py-feat", "libreface")]
    arguments += [f"--in={name}={tmp_path}" for name in ("openface3", "libreface")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    assert run(peers, monkeypatch, "--video", video, "--passes", 1, "--threads", 1, *arguments) == 0
    rows = capsys.readouterr().out.rpartition("\n\n")[2].splitlines()[2:]
    assert [(row.split(" | ")[0].strip("| "), row.split(" | ")[-1].strip("| ")) for row in rows] == [
        ("jaa predict abc", "11 of 11"),
        ("OpenFace 2", "2 of 11"),
        ("OpenFace 3 0.1.26", "8 of 11"),
        ("py-feat 2.1.5", "1 of 11"),
        ("LibreFace 0.2.0", "3 of 11"),
    ]


OPENFACE_TABLE = "open(table, 'w').write('frame, face_id, success\\n1, 0, 1\\n2, 0, 1\\n3, 0, 0\\n')"


@pytest.mark.parametrize(
    "does, reason",
    [
        ("sys.exit('no model\\nlike | this')", "ended with exit code 1: like \\| this"),
        ("os.kill(os.getpid(), 9)", "ended with exit code -9"),
        ("print('No face detected')", "wrote no table: No face detected"),
        ("open(table, 'w').write('frame, face_id\\n1, 0\\n')", "wrote a table without the column success"),
        ("open(given['-of'], 'w').write(str(os.getpid())); time.sleep(100)", "took longer than 2 s"),
    ],
)
def test_a_program_that_fails_has_no_further_turn(
    peers: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    video: Path,
    capsys: Any,
    does: str,
    reason: str,
) -> None:
    """The others go on, and the exit code tells."""
    count = "open('asked.txt', 'a').write('x');"
    program = openface2(tmp_path / "FeatureExtraction", f"{count} {does}")
    out = tmp_path / "peers.json"
    arguments = ["--video", video, f"--program=openface2={program}", f"--in=openface2={tmp_path}"]
    assert run(peers, monkeypatch, *arguments, "--passes", 1, "--timeout", 2, "--out", out) == 1
    said = capsys.readouterr()
    assert f"| OpenFace 2 | {reason} |  |  |  |  |" in said.out
    plain = reason.replace("\\|", "|")
    assert f"OpenFace 2 {plain}\n" in said.err and json.loads(out.read_text())["failed"] == {
        "openface2": plain
    }
    assert "| jaa predict abc | " in said.out and "| 11 of 11 |" in said.out
    assert (tmp_path / "asked.txt").read_text() == "x"
    if "longer" in reason:
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / "table").read_text()), 0)


def test_memory_is_the_programs_own(peers: ModuleType, tmp_path: Path) -> None:
    """Not that of this process, which has torch."""

    def megabytes(code: str) -> float:
        command = [sys.executable, "-c", code]
        found = peers.timed_apart(
            command, tmp_path, dict(os.environ), tmp_path / "log", 60, peers.processors()
        )
        assert found["code"] == 0
        return found["megabytes"]

    assert megabytes("pass") < 60
    assert 200 < megabytes("b'x' * (200 << 20)") < 260


def test_jaa_predict_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, video: Path) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    peers = importlib.import_module("peers")
    nothing = dict.fromkeys(("video", "weights", "out"))
    chosen = SimpleNamespace(passes=1, threads=1, frames=2, timeout=600, program=[], folder=[], **nothing)
    measured = peers.Peers(chosen)
    _, frames = peers.cut_first_frame(video, tmp_path / "first.mp4")
    found = measured.run("jaa", tmp_path / "first.mp4")
    assert frames == FRAMES and (found["faces"], found["rows"]) == (1, 1)
    assert found["seconds"] > 0 and found["megabytes"] > 100


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["--program", "py-feat"], '--program must be NAME=PATH, got "py-feat"'),
        (
            ["--program", "affdex=a"],
            "--program affdex=a: nothing is called 'affdex': there are openface2, openface3, py-feat, ",
        ),
        (["--program", "openface2=no/such"], "no/such: no program that can be run, wanted for openface2"),
        (["--program", f"py-feat={sys.executable}"], f"{sys.executable}: does not have py-feat"),
        (
            ["--program", f"libreface={sys.executable}", "--in", "libreface=no"],
            "no/weights_libreface: no such folder, wanted for libreface (--in libreface=FOLDER)",
        ),
        (["--in", "py-feat=."], "--in py-feat: no --program has this name"),
        (["--video", "no.mp4"], "no.mp4: there is no such file"),
        (["--video", __file__], f"{__file__}: no video that OpenCV can read"),
        (["--weights", "no.safetensors"], "no.safetensors: there is no such file"),
        (["--passes", "0"], "--passes must be at least 1, got 0"),
        (["--threads", "9999"], "--threads must be at most "),
        (["--out", "avx2-forced.json"], "avx2-forced.json: has forced in its name, but none of"),
    ],
)
def test_mistakes_are_one_sentence(
    peers: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: Any, arguments: list[str], sentence: str
) -> None:
    for name in importlib.import_module("machine").FORCING:
        monkeypatch.delenv(name, raising=False)
    assert run(peers, monkeypatch, *arguments) == 2
    assert f"peers.py: error: {sentence}" in capsys.readouterr().err
