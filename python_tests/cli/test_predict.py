"""`jaa predict` and `jaa draw`."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import torch

from jaa_ext.cli.predict import LeastLikeness, _show
from jaa_ext.data.video import read_frames
from jaa_ext.models import JAANet, JAANetConfig, save_model
from jaa_ext.predict.identity import LEAST_LIKENESS
from jaa_ext.predict.job import Summary


def test_predict(jaa, read, weights: Path, photo: Path, talk: Path, tmp_path: Path) -> None:
    out = tmp_path / "faces"
    code, printed, error = jaa("predict", photo, talk, "--weights", weights, "--out", out)
    assert code == 0, error
    assert "11 frames, 11 faces; no face in 0 frames" in printed and "only a test" in printed
    assert "frames/s" in printed and "what binds is" in printed
    (row,) = read(out / "photographs.csv")
    assert row["source"] == str(photo) and row["weights"] == "only a test" and row["success"] == "1"
    assert 0 <= float(row["AU12_p"]) <= 1 and row["AU12_c"] in "01"
    assert 150 < float(row["left"]) < float(row["right"]) < 300
    assert [row["timestamp"] for row in read(out / "talk.csv")] == [f"{i / 10:.3f}" for i in range(10)]


def test_what_binds(capsys, monkeypatch) -> None:
    """Of several threads at work more than one is no mistake: 1.26 of 2 is less busy than 0.84 of 1."""
    monkeypatch.setattr("jaa_ext.device.processors", lambda: 2)
    busy = {"reading": 0.7, "finding faces": 12.6, "network": 8.4, "writing": 0.04}
    predictor = SimpleNamespace(precision="float32", device="cpu")
    _show(Summary(frames=30, faces=30, seconds=10.0, done_now=30, busy=busy), predictor)
    assert " ".join(capsys.readouterr().out.split()) == (
        "30 frames, 30 faces; no face in 0 frames. 3.0 frames/s (float32 on cpu). Threads at work, on "
        "average: finding faces 1.26 of 2, network 0.84, reading 0.07; what binds is network."
    )


def test_landmarks_that_align(jaa, read, weights: Path, photo: Path, tmp_path: Path, monkeypatch) -> None:
    tables = {}
    for landmarks in ("network", "dlib"):
        tables[landmarks] = tmp_path / f"{landmarks}.csv"
        code, _, error = jaa(
            *("predict", photo, "--weights", weights, "--landmarks", landmarks, "--out", tables[landmarks])
        )
        assert code == 0, error
    (own,), (dlibs,) = (read(table) for table in tables.values())
    assert own["left"] == dlibs["left"] and own["x_13"] != dlibs["x_13"]
    monkeypatch.setattr("jaa_ext.predict.detector.MODEL_FILE", "nowhere")
    options = ("--weights", weights, "--out", tmp_path / "c.csv")
    assert jaa("predict", photo, *options)[0] == 0
    code, _, error = jaa("predict", photo, "--landmarks", "dlib", *options)
    assert code == 2 and "pip install 'jaa_ext[dlib-landmarks]'" in error and len(error.splitlines()) == 1


OWN = """
from jaa_ext.predict import face_by_points

class Astronaut:
    def find_faces(self, images):
        points = [(202, 101), (248, 102), (226, 129), (207, 147), (240, 147)]
        return [[face_by_points(points, 0.9)] for _ in images]
"""


def test_detectors(jaa, read, weights: Path, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "jaa_test_astronaut.py").write_text(OWN)
    rows = {}
    for name in (None, "dlib", "dlib-landmarks", "jaa_test_astronaut:Astronaut"):
        out = tmp_path / "faces.csv"
        options = ("--weights", weights, "--out", out, *(() if name is None else ("--detector", name)))
        code, _, error = jaa("predict", photo, *options)
        assert code == 0, error
        (rows[name],) = read(out)
    assert rows["dlib"] == rows[None] != rows["dlib-landmarks"]
    assert rows["dlib-landmarks"]["left"] == rows["dlib"]["left"]
    own = rows["jaa_test_astronaut:Astronaut"]
    assert own["success"] == "1" and float(own["confidence"]) == 0.9 and own["left"] != rows["dlib"]["left"]
    assert abs(float(own["x_13"]) - 226) < 8 and abs(float(own["y_13"]) - 129) < 8
    out = tmp_path / "drawn.png"
    options = ("--detector", "jaa_test_astronaut:Astronaut", "--weights", weights, "--out", out)
    code, _, error = jaa("draw", photo, *options)
    assert code == 0 and out.exists(), error


def test_what_is_no_detector(jaa, weights: Path, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "lfs.onnx").write_text("version https://git-lfs.github.com/spec/v1")
    for command, options, sentence in (
        ("predict", ("--detector", "mtcnn"), "jaa: --detector must be dlib, dlib-landmarks, opencv-yunet:"),
        ("draw", ("--detector", "opencv-yunet"), "jaa: --detector must be"),
        ("predict", ("--detector", "opencv-yunet:none.onnx"), "none.onnx: cannot be read (No such file"),
        ("draw", ("--detector", "opencv-yunet:none.onnx"), "none.onnx: cannot be read (No such file"),
        ("predict", ("--detector", "opencv-yunet:lfs.onnx"), "lfs.onnx: is no face detector that OpenCV"),
        (
            "predict",
            ("--detector", "jaa_nowhere:Faces"),
            'jaa: --detector "jaa_nowhere:Faces": no module jaa_nowhere, neither installed nor in',
        ),
        ("predict", ("--detector", "json:loads"), "called without arguments: loads() missing 1 required"),
        (
            "predict",
            ("--detector", "a:b", "--landmarks", "dlib"),
            '--landmarks "dlib" wants the detector "dlib", got "a:b"',
        ),
    ):
        out = tmp_path / "c.csv"
        code, _, error = jaa(command, photo, "--weights", weights, *options, "--out", out)
        assert code == 2 and sentence in error and len(error.splitlines()) == 1, (options, error)
        assert not out.exists()


def test_faces_that_do_not_settle_are_counted(jaa, read, photo: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    blind = tmp_path / "blind.safetensors"
    save_model(JAANet(JAANetConfig.released((1, 12), image_size=64, width=1)), blind)
    code, printed, _ = jaa("predict", photo, "--weights", blind, "--out", tmp_path / "faces.csv")
    assert code == 0 and "1 face with success 0: the landmarks that align did not settle." in printed
    (row,) = read(tmp_path / "faces.csv")
    assert row["success"] == "0" and row["face_id"] == "0" and row["AU12_p"]


def test_predict_where_there_is_no_face(jaa, read, weights: Path, tmp_path: Path) -> None:
    blank = tmp_path / "blank.png"
    cv2.imwrite(str(blank), np.full((120, 160, 3), 90, np.uint8))
    code, printed, _ = jaa("predict", blank, "--weights", weights, "--out", tmp_path / "none.csv")
    assert code == 0 and "1 frame, 0 faces; no face in 1 frame." in printed
    (row,) = read(tmp_path / "none.csv")
    assert row["success"] == "0" and row["face_id"] == "-1" and row["x_0"] == row["AU12_p"] == ""


def test_predict_names_what_it_leaves_out(jaa, read, weights: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    for name in ("10.png", "9.png"):
        cv2.imwrite(str(folder / name), np.full((40, 60, 3), 90, np.uint8))
    (folder / "8.heic").touch()
    code, printed, _ = jaa("predict", folder, "--weights", weights, "--out", tmp_path / "all.csv")
    assert code == 0 and f"note: {folder}: 1 file is left out, neither" in printed and ".heic (1)" in printed
    assert [Path(row["source"]).name for row in read(tmp_path / "all.csv")] == ["9.png", "10.png"]


def test_times_of_a_video(jaa, read, weights: Path, talk: Path, tmp_path: Path) -> None:
    options = ("--weights", weights, "--out", tmp_path / "talk.csv")
    assert jaa("predict", talk, "--start", "0:00.3", "--end", "0.8", "--every", 2, *options)[0] == 0
    assert [row["frame"] for row in read(tmp_path / "talk.csv")] == ["4", "6", "8"]


def test_neutral_faces_and_smoothing(
    jaa, read, weights: Path, photo: Path, talk: Path, tmp_path: Path
) -> None:
    raw, new = tmp_path / "raw", tmp_path / "new"
    assert jaa("predict", talk, photo, "--weights", weights, "--out", raw)[0] == 0
    options = ("--neutral", "0:00-0:00.5", "--smooth", 0.2, "--focal-length", 800)
    code, printed, error = jaa("predict", talk, photo, "--weights", weights, *options, "--out", new)
    assert code == 0, error
    assert f"note: {photo}: a single picture keeps its AUs as they are" in printed
    for before, after in zip(read(raw / "talk.csv"), read(new / "talk.csv"), strict=True):
        assert after["AU12_p_raw"] == before["AU12_p"] and after["x_3"] == before["x_3"]
        assert float(after["AU12_p"]) < 0.01 and after["AU12_c"] == "0"  # the face is still
        assert 1.2 < float(after["pose_Tz"]) / float(before["pose_Tz"]) < 3.5  # 500 * 300 / 552 before
    for text, sentence in {
        "5": '--neutral must be two times, as 0:02-0:05, or "auto", got "5"',
        "a-b": '--neutral must be seconds or hours:minutes:seconds, got "a"',
        "5-2": "jaa: --neutral must be two times, the earlier one first, got 5 to 2 s",
    }.items():
        code, _, error = jaa("predict", talk, "--weights", weights, "--neutral", text, "--out", new)
        assert code == 2 and sentence in error
    code, _, error = jaa("predict", talk, "--weights", weights, "--focal-length", 0, "--out", new)
    assert code == 2 and error == "jaa: --focal-length must be a number of pixels above 0, got 0\n"
    code, _, error = jaa("predict", talk, "--weights", weights, "--smooth", 90, "--out", new)
    assert code == 2 and error == "jaa: --smooth must be from 0 to 60 seconds, got 90.0\n"
    code, _, error = jaa("predict", talk, "--weights", weights, "--search-every", "inf", "--out", new)
    assert code == 2 and error == "jaa: --search-every must be seconds from 0 on, got inf\n"


EMBEDDING = """
def colours(faces):
    return faces.mean((1, 2))
"""


def test_identity(jaa, read, weights: Path, talk: Path, tmp_path: Path) -> None:
    (tmp_path / "jaa_test_colours.py").write_text(EMBEDDING)
    pictures = list(read_frames(talk))
    film = tmp_path / "back.avi"
    writer = cv2.VideoWriter(str(film), cv2.VideoWriter.fourcc(*"MJPG"), 10, (300, 300))
    for picture in (*pictures[:3], *[np.zeros((300, 300, 3), np.uint8)] * 30, *pictures[3:6]):
        writer.write(np.ascontiguousarray(picture[..., ::-1]))
    writer.release()
    out, options = tmp_path / "back.csv", ("--identity", "jaa_test_colours:colours", "--least-likeness", 0.95)
    code, printed, error = jaa("predict", film, "--weights", weights, *options, "--out", out)
    assert code == 0, error
    assert f"note: {film}: face 0 came back in frame 34, at 3.300 s (likeness 1.000)" in " ".join(
        printed.split()
    )
    assert [row["face_id"] for row in read(out) if row["success"] == "1"] == ["0"] * 6
    assert [row["frame"] for row in read(out) if float(row["merged"] or 0)] == ["34"]
    for wrong, sentence in (
        (("--identity", "sface"), 'jaa: --identity must be FILE.onnx or MODULE:ATTRIBUTE, got "sface"'),
        (("--identity", "none.onnx"), "none.onnx: cannot be read (No such file or directory)"),
        (("--identity", "math:hypot"), "embedding math:hypot: "),
        ((*options[:3], 1), "jaa: --least-likeness must be between 0 and 1, got 1.0"),
        (options[2:], "--least-likeness is of an embedding: it needs --identity"),
    ):
        out = tmp_path / "c.csv"
        code, _, error = jaa("predict", film, "--weights", weights, *wrong, "--out", out)
        assert code == 2 and sentence in error and len(error.splitlines()) == 1, (wrong, error)
        assert not out.exists()
    code, printed, error = jaa("draw", film, "--weights", weights, *options, "--out", tmp_path / "drawn.avi")
    assert code == 0 and "face 0 came back in frame 34, at 3.300 s" in " ".join(printed.split()), error
    (option,) = LeastLikeness.__metadata__
    assert f"{LEAST_LIKENESS} if not given" in option.help


def test_draw(jaa, weights: Path, photo: Path, talk: Path, tmp_path: Path) -> None:
    out = tmp_path / "pictures"
    other = tmp_path / "other" / photo.name
    other.parent.mkdir()
    cv2.imwrite(str(other), np.zeros((50, 50, 3), np.uint8))
    code, printed, error = jaa("draw", photo, talk, other, "--weights", weights, "--out", out)
    assert code == 0 and "only a test" in printed, error
    names = ["astronaut_2_faces.png", "astronaut_faces.png", "talk_faces.mp4"]
    assert sorted(path.name for path in out.iterdir()) == names and all(name in printed for name in names)
    assert cv2.imread(str(out / "astronaut_faces.png")).shape[1] > 512
    frames = list(read_frames(out / "talk_faces.mp4"))
    assert len(frames) == 10 and frames[0].shape[1] > 300
    code, printed, error = jaa(
        *("draw", talk, "--weights", weights, "--every", 5, "--attention", 12, "--out", tmp_path / "talk.avi")
    )
    assert code == 0 and len(list(read_frames(tmp_path / "talk.avi"))) == 2, error


def test_draw_a_time_line(jaa, read, weights: Path, photo: Path, talk: Path, tmp_path: Path) -> None:
    table = tmp_path / "all.csv"
    assert jaa("predict", photo, talk, "--weights", weights, "--out", table)[0] == 0
    assert jaa("draw", table, "--out", tmp_path / "lines")[0] == 0
    assert [path.name for path in (tmp_path / "lines").iterdir()] == [
        "talk_timeline.png"
    ]  # photographs have none
    for out, sentence in {
        "one.png": "the tables have 2 sources",
        "one.jpg": "a time line must end in .png",
        table.name: "a time line must end in .png",
    }.items():
        code, _, error = jaa("draw", table, table, "--out", tmp_path / out)
        assert code == 2 and sentence in error
    assert len(read(table)) == 11


def test_models_that_cannot_be_drawn_or_predicted_with(jaa, at_rest, photo: Path, tmp_path: Path) -> None:
    """The sentence names no class of Python."""
    out = tmp_path / "out.png"
    plain = {"attention": False, "refinement": False, "gradient_enhancement": 1.0}
    for changes, options, sentence in (
        (
            {},
            ("draw", photo, "--attention", 12, "--out", out),
            "--attention wants maps to paint, got a face without attention maps",
        ),
        (
            {"aus": (), "au_detection": False, "global_features": False},
            ("draw", photo, "--out", out),
            "got a model without AU detection (au_detection=False), wanted one with it",
        ),
        (
            {"alignment": False},
            ("predict", photo, "--out", tmp_path / "a.csv"),
            "the model predicts no landmarks (alignment=False) by which its faces could be aligned; take "
            'dlib\'s (landmarks="dlib", on the command line --landmarks dlib)',
        ),
    ):
        config = replace(JAANetConfig((1, 12), image_size=64, width=1, **plain), **changes)
        model = JAANet(config)
        save_model(at_rest(model) if config.alignment else model, tmp_path / "m.safetensors")
        code, _, error = jaa(*options, "--weights", tmp_path / "m.safetensors")
        assert (code, error) == (2, f"jaa: {sentence}\n")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["astronaut.png", "m.safetensors"]


def test_draw_keeps_what_it_draws(jaa, weights: Path, photo: Path, talk: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_text("no image")
    before = photo.read_bytes()
    (tmp_path / "v.2").mkdir()  # a folder, whatever its name
    code, _, error = jaa("draw", photo, "--weights", weights, "--out", photo)
    assert code == 2 and "is the source itself" in error and photo.read_bytes() == before
    code, printed, _ = jaa("draw", broken, photo, "--weights", weights, "--out", tmp_path / "v.2")
    assert code == 0 and "broken.png: is damaged" in printed
    code, _, error = jaa("draw", broken, "--weights", weights, "--out", tmp_path / "v.2")
    assert code == 2 and "broken.png: is damaged" in error
    code, _, error = jaa("draw", talk, "--weights", weights, "--start", 60, "--out", tmp_path / "v.2")
    assert code == 2 and "talk.avi: has no frame between --start and --end" in error
    assert [path.name for path in (tmp_path / "v.2").iterdir()] == ["astronaut_faces.png"]


def test_show_without_windows_says_so_before_anything_is_written(
    jaa, weights: Path, talk: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(cv2, "currentUIFramework", lambda: "")  # as of opencv-python-headless
    for source in (0, talk):
        for out in ((), ("--out", tmp_path / "new" / "talk.csv")):
            code, printed, error = jaa("predict", source, "--show", "--weights", weights, *out)
            assert code == 2 and error.startswith("jaa: --show ") and len(error.splitlines()) == 1
            assert printed == "" and list(tmp_path.iterdir()) == []


def test_show(jaa, read, weights: Path, photo: Path, talk: Path, tmp_path: Path, monkeypatch) -> None:
    """With functions in the place of OpenCV's window, of which the third picture ends in q."""
    pictures: list[np.ndarray] = []
    for name, stand_in in {
        "namedWindow": lambda *_: None,
        "resizeWindow": lambda *_: None,
        "destroyAllWindows": lambda: None,
        "imshow": lambda _, picture: pictures.append(picture),
        "waitKey": lambda _: ord("q") if len(pictures) == 3 else -1,
        "getWindowProperty": lambda *_: 1.0,
    }.items():
        monkeypatch.setattr(cv2, name, stand_in)
    monkeypatch.setattr("jaa_ext.predict.window.require_display", lambda: None)
    monkeypatch.setattr("jaa_ext.predict.window.MOST_A_SECOND", 1e9)
    before = sorted(tmp_path.iterdir())
    options = ("--show", "--weights", weights)
    code, printed, error = jaa("predict", talk, *options)
    assert code == 0 and "3 frames, 3 faces" in printed and "only a test" in printed, error
    assert "Results" not in printed and sorted(tmp_path.iterdir()) == before and len(pictures) == 3
    pictures.clear()
    code, printed, error = jaa("predict", talk, *options, "--out", tmp_path / "talk.csv")
    assert code == 0 and "talk.avi: ended by you after frame 3" in printed and len(pictures) == 3, error
    assert [row["frame"] for row in read(tmp_path / "talk.csv")] == ["1", "2", "3"]
    for sources, sentence in (((photo,), "got a photograph"), ((talk, 0), "got 2 sources")):
        code, _, error = jaa("predict", *sources, *options)
        assert code == 2 and sentence in error and len(error.splitlines()) == 1
    code, _, error = jaa("predict", talk, "--weights", weights)
    assert code == 2 and error.startswith("jaa: --out must name a table or a folder")
