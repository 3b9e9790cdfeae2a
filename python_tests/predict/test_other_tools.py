"""Tables of jaa_ext, OpenFace 2 and 3, py-feat and LibreFace are recognised and read alike."""

import io

import numpy as np
import pandas
import pytest

from jaa_ext import facs
from jaa_ext.predict import FramePrediction, MissingDependency, write_table
from jaa_ext.predict.other_tools import read_face_table

# What the tools write, in little: the spaces behind OpenFace's commas are its own.
OPENFACE = """frame, face_id, timestamp, confidence, success, AU01_r, AU12_r, AU12_c, AU28_c
1, 0, 0.000, 0.98, 1, 0.50, 3.25, 1.00, 0.00
2, 0, 0.033, 0.02, 0, 0.00, 0.00, 0.00, 0.00
3, 0, 0.067, 0.97, 1, -nan(ind), 1.00, 0.00, 1.00
"""
PHOTOGRAPH = """face, confidence, AU12_c
0, 0.925, 1.0
1, 0.875, 0.0
"""
PYFEAT = """FaceRectX,FaceRectY,FaceRectWidth,FaceRectHeight,FaceScore,AU01,AU12,input,frame,approx_time,\
Identity
10.0,20.0,100.0,120.0,0.99,0.75,0.5,talk.mp4,0,00:00,Person_0
,,,,0.0,,,talk.mp4,1,00:00,
12.0,20.0,100.0,120.0,0.98,0.25,0.625,talk.mp4,2,00:00,Person_0
"""
LIBREFACE = """frame_idx,frame_time_in_ms,pitch,yaw,roll,lm_mp_0_x,lm_mp_0_y,lm_mp_0_z,au_1,au_12,\
au_12_intensity,au_26_intensity,facial_expression,gaze_yaw,gaze_pitch
0,0.0,1.5,-2.0,0.5,0.5,0.625,-0.03,0,1,3.25,0.125,Happiness,0.5,1.0
3,0.12,1.5,-2.0,0.5,0.5,0.625,-0.03,1,0,0.5,5.0,Neutral,0.5,1.0
"""
LIBREFACE_PHOTOGRAPH = """pitch,yaw,roll,lm_mp_0_x,lm_mp_0_y,lm_mp_0_z,facial_expression,gaze_yaw,gaze_pitch,\
au_1,au_12,au_12_intensity
1.5,-2.0,0.5,0.5,0.625,-0.03,Happiness,0.5,1.0,0,1,3.25
"""


def openface3(rows, path="video_path", points=98):
    """A table of OpenFace 3.0 from (frame, face_id, box, AUs); None for a frame without a face.

    The contour of the face spans the box, and what our landmarks span lies 10 pixels inside of it.
    """
    columns = [
        *("timestamp", path, "frame_index", "face_id", "face_detection", "landmarks", "emotion"),
        *("gaze_yaw", "gaze_pitch", "action_units"),
    ]
    table = []
    for frame, face_id, box, aus in rows:
        cells = [None] * 6
        if box is not None:
            left, top, right, bottom = box
            outer = [[float(left), float(top)], [float(right), float(bottom)]]
            inner = [[left + 10.0, top + 10.0], [right - 10.0, bottom - 10.0]]
            landmarks = (20 * outer)[: {98: 33, 68: 17}[points]] + 40 * inner
            cells = [[*map(float, box), 0.75, *[7.0] * 10], landmarks[:points], 3, 0.125, -0.25, [aus]]
        table.append(("2026-11-30 12:00:00", "talk.mp4", frame, face_id, *cells))
    return pandas.DataFrame(table, columns=columns).to_csv(index=False)


EIGHT = [0.75, 0.25, 0.0, 0.1, 0.2, 0.625, 0.5, 1.0]
OPENFACE3 = openface3([(0, 0, (10, 20, 110, 140), EIGHT), (1, None, None, None)])


@pytest.fixture
def read(tmp_path):
    """Reads a table from its text."""

    def from_text(text, name="table.csv"):
        (tmp_path / name).write_text(text)
        return read_face_table(tmp_path / name)

    return from_text


def test_ours(tmp_path, prediction) -> None:
    def frame(number, *faces):
        return FramePrediction("talk.mp4", number, number / 10, np.zeros((2, 2, 3), np.uint8), list(faces))

    rated = prediction((0.9, 0.2), intensities=np.float32((3.5, np.nan)))
    lost = prediction((0.9, 0.2), settled=False, face_id=1, intensities=np.float32((1, 0)))
    write_table(tmp_path / "talk.csv", [frame(4, rated, lost), frame(6)], (1, 12), intensity=True)
    table = read_face_table(tmp_path / "talk.csv")
    assert (table.name, table.tool) == (str(tmp_path / "talk.csv"), "jaa_ext")
    assert table.all_frames.tolist() == [4, 6] and table.frame_times.tolist() == [0.4, 0.6]
    assert table.frames.tolist() == [4]  # the face that did not settle is none
    assert table.boxes.tolist() == [[130, 50, 370, 290]]  # of the landmarks, not of the face's box
    assert table.presence["AU01"].tolist() == [1] and table.presence["AU12"].tolist() == [0]
    assert table.probabilities["AU12"].tolist() == [0.2]
    assert table.intensities["AU01"].tolist() == [3.5] and np.isnan(table.intensities["AU12"]).all()
    pandas.read_csv(tmp_path / "talk.csv").astype({"success": str}).to_parquet(tmp_path / "text.parquet")
    assert read_face_table(tmp_path / "text.parquet").frames.tolist() == [4]


class TestOpenface:
    def test_of_a_video(self, read) -> None:
        table = read(OPENFACE)
        assert table.tool == "OpenFace" and table.all_frames.tolist() == [1, 2, 3]
        assert table.frame_times.tolist() == [0, 0.033, 0.067]
        assert table.frames.tolist() == [1, 3] and np.isnan(table.boxes).all()
        assert table.presence["AU12"].tolist() == [1, 0] and table.presence["AU28"].tolist() == [0, 1]
        assert table.intensities["AU12"].tolist() == [3.25, 1] and table.probabilities == {}
        assert table.intensities["AU01"][0] == 0.5 and np.isnan(table.intensities["AU01"][1])

    def test_of_a_photograph(self, read) -> None:
        table = read(PHOTOGRAPH)
        assert table.tool == "OpenFace" and table.frames.tolist() == [1, 1]
        assert table.presence["AU12"].tolist() == [1, 0]

    def test_its_box_is_what_our_landmarks_span(self, read) -> None:
        points = {f"{axis}_{i}": [float(i)] for axis in "xy" for i in range(68)}
        head = {"frame": [1], "timestamp": [0.0], "confidence": [1.0], "success": [1]}
        table = read(pandas.DataFrame(head | points).to_csv(index=False))
        first, last = facs.DLIB68_TO_49[0], facs.DLIB68_TO_49[-1]
        assert table.boxes.tolist() == [[first, first, last, last]]


class TestPyfeat:
    def test_of_a_video(self, read) -> None:
        table = read(PYFEAT)
        assert table.tool == "py-feat" and table.frame_times is None
        assert table.all_frames.tolist() == [1, 2, 3] and table.frames.tolist() == [1, 3]
        assert table.boxes.tolist() == [[10, 20, 110, 140], [12, 20, 112, 140]]
        assert table.probabilities["AU12"].tolist() == [0.5, 0.625]
        assert table.presence["AU12"].tolist() == [0, 1] and table.presence["AU01"].tolist() == [1, 0]
        assert table.intensities == {}

    def test_478_points_are_of_another_scheme(self, read) -> None:
        lines = PYFEAT.splitlines()
        names = ",".join(f"{axis}_{i}" for axis in "xy" for i in range(69))
        text = "\n".join([f"{lines[0]},{names}", *(line + ",7" * 138 for line in lines[1:])])
        assert read(text).boxes.tolist() == read(PYFEAT).boxes.tolist()

    def test_of_several_photographs(self, read) -> None:
        for name in ("b.mp4", ""):
            with pytest.raises(ValueError, match=rf"table of one video, got 2: talk\.mp4, {name or 'nan'}$"):
                read(PYFEAT.replace("0.625,talk.mp4", f"0.625,{name}"))


class TestLibreface:
    def test_of_a_video(self, read) -> None:
        table = read(LIBREFACE)
        assert table.tool == "LibreFace"
        assert table.all_frames.tolist() == table.frames.tolist() == [1, 4]
        assert table.frame_times.tolist() == [0, 0.12]  # seconds, whatever the column is called
        assert np.isnan(table.boxes).all()
        assert {au: list(values) for au, values in table.presence.items()} == {"AU01": [0, 1], "AU12": [1, 0]}
        assert {au: list(values) for au, values in table.intensities.items()} == {
            "AU12": [3.25, 0.5],
            "AU26": [0.125, 5],
        }
        assert table.probabilities == {}

    def test_without_times(self, read) -> None:
        assert read(LIBREFACE.replace("frame_time_in_ms", "noted")).frame_times is None

    def test_of_a_photograph(self, read) -> None:
        table = read(LIBREFACE_PHOTOGRAPH)
        assert table.tool == "LibreFace" and table.frames.tolist() == [1]
        assert table.presence["AU12"].tolist() == [1] and table.intensities["AU12"].tolist() == [3.25]


class TestOpenface3:
    def test_of_a_video(self, read) -> None:
        table = read(OPENFACE3)
        assert table.tool == "OpenFace 3.0" and table.frame_times is None
        assert table.all_frames.tolist() == [1, 2] and table.frames.tolist() == [1]
        names = ["AU01", "AU02", "AU04", "AU06", "AU09", "AU12", "AU25", "AU26"]
        assert list(table.probabilities) == list(table.presence) == names
        assert [values[0] for values in table.probabilities.values()] == EIGHT
        assert [values[0] for values in table.presence.values()] == [1, 0, 0, 0, 0, 1, 0, 1]
        assert table.intensities == {}

    @pytest.mark.parametrize("points", [68, 98])
    def test_its_box_is_what_our_landmarks_span(self, read, points) -> None:
        table = read(openface3([(0, 0, (10, 20, 110, 140), EIGHT)], points=points))
        assert table.boxes.tolist() == [[20, 30, 100, 130]]  # without the contour of the face

    def test_without_landmarks_its_own_box_counts(self, read) -> None:
        table = pandas.read_csv(io.StringIO(OPENFACE3))
        for one in (table.drop(columns="landmarks"), table.assign(landmarks=None)):
            assert read(one.to_csv(index=False)).boxes.tolist() == [[10, 20, 110, 140]]

    def test_only_the_surest_face_has_aus(self, read) -> None:
        boxes = (10, 20, 110, 140), (210, 20, 310, 140)
        table = read(openface3([(4, i, box, EIGHT) for i, box in enumerate(boxes)]))
        assert table.frames.tolist() == [5, 5]
        assert table.probabilities["AU12"][0] == 0.625 and np.isnan(table.probabilities["AU12"][1])
        assert table.presence["AU12"][0] == 1 and np.isnan(table.presence["AU12"][1])

    def test_no_face_at_all(self, read) -> None:
        table = read(openface3([(0, None, None, None), (1, None, None, None)]))
        assert table.all_frames.tolist() == [1, 2] and table.boxes.shape == (0, 4)

    def test_of_a_photograph(self, read) -> None:
        text = openface3([(0, 0, (10, 20, 110, 140), EIGHT)], "image_path").replace(",frame_index", "")
        assert read(text.replace("talk.mp4,0,", "talk.mp4,")).frames.tolist() == [1]

    def test_of_several_photographs(self, read) -> None:
        rows = [(0, 0, (10, 20, 110, 140), EIGHT)]
        text = openface3(rows, "image_path") + openface3(rows).replace("talk.mp4", "b.jpg").split("\n", 1)[1]
        with pytest.raises(ValueError, match=r"table of one video, got 2: talk\.mp4, b\.jpg$"):
            read(text)


@pytest.mark.parametrize(
    "text",
    [OPENFACE, PYFEAT, LIBREFACE, OPENFACE3],
    ids=["OpenFace", "py-feat", "LibreFace", "OpenFace 3.0"],
)
def test_parquet(read, tmp_path, text) -> None:
    table = read(text)
    pandas.read_csv(tmp_path / "table.csv", skipinitialspace=True, na_values="-nan(ind)").to_parquet(
        tmp_path / "table.parquet"
    )
    other = read_face_table(tmp_path / "table.parquet")
    assert other.tool == table.tool
    assert np.array_equal(other.presence["AU12"], table.presence["AU12"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a,b,c\n1,2,3\n",
            r"is no table of jaa_ext, OpenFace, py-feat or LibreFace; its columns begin with a, b, c$",
        ),
        ("", r"is damaged, or no table \("),
        (
            OPENFACE.replace(" AU01_r,", ""),
            r"is damaged, or no table \(its rows have more cells than its header",
        ),
        (OPENFACE.replace("3.25", "smile"), r"row 1 of column AU12_r cannot hold 'smile'"),
        (OPENFACE.replace("3.25", "5.01"), r"row 1 of column AU12_r cannot hold '5\.01'"),
        (OPENFACE.replace("1.00, 0.00\n2", "0.50, 0.00\n2"), r"row 1 of column AU12_c cannot hold '0\.5'"),
        (OPENFACE.replace("3, 0, 0.067", "0, 0, 0.067"), r"row 3 of column frame cannot hold '0'"),
        (OPENFACE.replace("0.067", "later"), r"row 3 of column timestamp cannot hold 'later'"),
        (OPENFACE.replace("0.97, 1", "0.97, 2"), r"row 3 of column success cannot hold '2'"),
        (PYFEAT.replace("0.98", "inf"), r"row 3 of column FaceScore cannot hold 'inf'"),
        (PYFEAT.replace("0.625", "smile"), r"row 3 of column AU12 cannot hold 'smile'"),
        (PYFEAT.replace("talk.mp4,2", "talk.mp4,two"), r"row 3 of column frame cannot hold 'two'"),
        (PYFEAT.replace("talk.mp4,2", "talk.mp4,1e300"), r"row 3 of column frame cannot hold '1e\+?300'"),
        (LIBREFACE.replace("3,0.12", "3.5,0.12"), r"row 2 of column frame_idx cannot hold '3\.5'"),
        (LIBREFACE.replace("0.12", "soon"), r"row 2 of column frame_time_in_ms cannot hold 'soon'"),
        (LIBREFACE.replace("5.0,Neu", "5.5,Neu"), r"row 2 of column au_26_intensity cannot hold '5\.5'"),
        (LIBREFACE.replace("-0.03,0,1", "-0.03,0.5,1"), r"row 1 of column au_1 cannot hold '0\.5'"),
        (OPENFACE3.replace("[[0.75", "[[smile"), r"row 1 of column action_units cannot hold '\[\[smile"),
        (OPENFACE3.replace("[[0.75, ", "[["), r"row 1 of column action_units cannot hold '\[\[0\.25"),
        (OPENFACE3.replace("0.75, 7.0,", "0.75,"), r"row 1 of column face_detection cannot hold '\[10\.0"),
        (OPENFACE3.replace("[[10.0", "[[NaN"), r"row 1 of column landmarks cannot hold '\[\[NaN"),
        (OPENFACE3.replace("[[10.0", "[" * 9999), r"row 1 of column landmarks cannot hold '\[{60}'"),
        (OPENFACE3.replace("talk.mp4,1", "talk.mp4,-1"), r"row 2 of column frame_index cannot hold '-1'"),
    ],
)
def test_what_is_no_table(read, text, message) -> None:
    with pytest.raises(ValueError, match=rf"table\.csv: .*{message}"):
        read(text)


def test_a_parquet_table_with_an_index(tmp_path) -> None:
    table = pandas.read_csv(io.StringIO(LIBREFACE))
    table.set_index("pitch").to_parquet(tmp_path / "table.parquet")
    assert read_face_table(tmp_path / "table.parquet").frames.tolist() == [1, 4]


def test_long_names_of_columns_are_cut(tmp_path) -> None:
    pandas.DataFrame({f"{i}\n{'x' * 999}": [1] for i in range(9)}).to_csv(tmp_path / "table.csv")
    with pytest.raises(ValueError, match="is no table of") as caught:
        read_face_table(tmp_path / "table.csv")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400 + len(str(tmp_path))


def test_files_that_are_not_there(tmp_path, monkeypatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.csv: there is no such file"):
        read_face_table(tmp_path / "none.csv")
    with pytest.raises(ValueError, match=r"none\.txt: a table must end in"):
        read_face_table(tmp_path / "none.txt")
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(MissingDependency, match=r"needs pandas.*pip install 'jaa_ext\["):
        read_face_table(tmp_path / "none.csv")
