"""Tables under the columns of OpenFace 2 and py-feat."""

import doctest

import numpy as np
import pandas
import pytest

from jaa_ext import facs
from jaa_ext.predict import FramePrediction, convert, convert_table, read_table, write_table
from jaa_ext.predict.convert import convert_file
from jaa_ext.predict.tables import POSE_COLUMNS, data_frame

AUS = (1, 12, 24)
OPENFACE = [
    *("frame", "face_id", "timestamp", "confidence", "success"),
    *("pose_Tx", "pose_Ty", "pose_Tz", "pose_Rx", "pose_Ry", "pose_Rz"),
    *(f"{axis}_{i}" for axis in "xy" for i in range(68)),
    *(f"AU{i:02d}_r" for i in (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26, 45)),
    *(f"AU{i:02d}_c" for i in (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26, 28, 45)),
]
PYFEAT = [
    *("FaceRectX", "FaceRectY", "FaceRectWidth", "FaceRectHeight", "FaceScore"),
    *(f"{axis}_{i}" for axis in "xy" for i in range(68)),
    *("Pitch", "Roll", "Yaw", "X", "Y", "Z"),
    *(f"AU{i:02d}" for i in (1, 2, 4, 5, 6, 7, 9, 10, 11, 12, 14, 15, 17, 20, 23, 24, 25, 26, 28, 43)),
    *("input", "frame"),
]


def frame(faces, source="talk.mp4", number=1, timestamp=0.0):
    return FramePrediction(source, number, timestamp, np.zeros((2, 2, 3), np.uint8), faces)


@pytest.fixture
def face(prediction):
    def make(face_id=0, **fields):
        return prediction((0.9, 0.2, 0.6), face_id=face_id, confidence=0.75, **fields)

    return make


@pytest.fixture
def table(face):
    """A face in frame 1, none in 2, two in 63, at more than a minute; without head pose."""
    rated = face(intensities=np.float32((3.5, 0.25, 1)))
    two = [rated, face(3, intensities=np.float32((1, np.nan, 2)), settled=False)]
    frames = [frame([rated]), frame([], number=2, timestamp=0.04), frame(two, number=63, timestamp=61.5)]
    whole = data_frame(frames, AUS, "a note", intensity=True)
    return whole.drop(columns=list(POSE_COLUMNS), errors="ignore")


def with_pose(table):
    pose = pandas.DataFrame({name: i + table["frame"] / 100 for i, name in enumerate(POSE_COLUMNS)})
    return pandas.concat((table, pose), axis=1)


def test_the_example() -> None:
    assert doctest.testmod(convert).failed == 0


class TestOpenface:
    def test_columns_and_their_order(self, table) -> None:
        for one in (table, with_pose(table)):
            assert list(convert_table(one, "openface").table.columns) == OPENFACE

    def test_values(self, table) -> None:
        made = convert_table(with_pose(table), "openface").table
        assert made["frame"].tolist() == [1, 2, 63, 63] and made["face_id"].tolist() == [0, 0, 0, 3]
        assert made["success"].tolist() == [1, 0, 1, 0]
        assert made["confidence"].tolist() == [0.75, 0, 0.75, 0.75]
        assert made["timestamp"].tolist() == [0, 0.04, 61.5, 61.5]
        assert made["pose_Tx"].tolist() == [0.01, 0.02, 0.63, 0.63] and made["pose_Rz"][0] == 5.01
        assert made["AU01_c"].tolist() == [1, pandas.NA, 1, 1] and made["AU12_c"][0] == 0
        assert made["AU01_r"].fillna(-1).tolist() == [3.5, -1, 3.5, 1]
        assert np.isnan(made["AU12_r"][3]) and made["AU45_r"].isna().all() and made["AU28_c"].isna().all()

    def test_landmarks_stand_in_their_places(self, table) -> None:
        made = convert_table(table, "openface").table
        for ours, theirs in enumerate(facs.DLIB68_TO_49):
            assert made[f"x_{theirs}"].equals(table[f"x_{ours}"])
            assert made[f"y_{theirs}"].equals(table[f"y_{ours}"])
        for theirs in (*range(17), 60, 64):
            assert made[f"x_{theirs}"].isna().all() and made[f"y_{theirs}"].isna().all()

    def test_what_is_said(self, table) -> None:
        assert convert_table(table, "openface").note == (
            "OpenFace has no column for the box, source, weights, merged, presence of AU24, intensity of "
            "AU24, probability; empty, since the table lacks it: head pose, landmarks 0 to 16, 60 and 64, "
            "presence of AU02/AU04/AU05/AU06/AU07/AU09/AU10/AU14/AU15/AU17/AU20/AU23/AU25/AU26/AU28/AU45, "
            "intensity of AU02/AU04/AU05/AU06/AU07/AU09/AU10/AU14/AU15/AU17/AU20/AU23/AU25/AU26/AU45."
        )
        plain = table.drop(columns=["AU01_r", "AU12_r"]).rename(columns={"AU24_r": "tempo"})
        note = convert_table(with_pose(plain), "openface").note
        assert "weights, merged, tempo, presence of AU24, probability;" in note
        assert note.endswith("AU28/AU45, intensity.") and "head pose" not in note

    def test_sides_have_no_column(self, face) -> None:
        table = data_frame(
            [frame([face(intensities=np.float32((3, 1, 2)))])], ("12L", "12R", 4), intensity=True
        )
        converted = convert_table(table, "openface")
        assert converted.table["AU12_c"].isna().all() and converted.table["AU04_r"].tolist() == [2]
        assert (
            "presence of AU12L/AU12R, intensity of AU12L/AU12R, probability, asymmetry, "
            "asymmetry of intensities;"
        ) in converted.note
        assert convert_table(table, "pyfeat").table["AU04"].tolist() == [0.6]

    def test_a_table_of_sides_alone_lacks_the_other_aus(self, face) -> None:
        """It would contradict itself to have no column for presence and to miss it."""
        rated = face(intensities=np.float32((3, 1, 2)))
        table = data_frame([frame([rated])], ("12L", "12R", "6L"), intensity=True)
        lacks, empty = convert_table(table, "openface").note.split("; empty, since the table lacks it: ")
        assert lacks.endswith(
            "merged, presence of AU12L/AU12R/AU06L, intensity of AU12L/AU12R/AU06L, probability, "
            "asymmetry, asymmetry of intensities"
        )
        assert "presence of AU01/AU02/AU04/AU05/AU06/AU07/AU09/AU10/AU12/AU14/AU15/" in empty
        assert "/AU28/AU45, intensity of AU01/AU02/" in empty and empty.endswith("/AU26/AU45.")
        lacks, empty = convert_table(table, "pyfeat").note.split("; empty, since the table lacks it: ")
        assert ", presence, intensity, probability of AU12L/AU12R/AU06L and 2 more" in lacks
        assert ", probability of AU01/AU02/AU04/" in empty and empty.endswith("/AU43.")

    def test_a_table_of_an_au_alone_that_openface_lacks(self, table) -> None:
        note = convert_table(table.filter(regex="^(?!AU01|AU12)"), "openface").note
        assert "presence of AU24, intensity of AU24, probability; empty" in note
        assert ", presence of AU01/AU02/AU04/" in note and ", intensity of AU01/AU02/" in note

    def test_several_sources(self, face) -> None:
        table = data_frame([frame([face()], name) for name in ("a.mp4", "b.mp4")], AUS)
        with pytest.raises(ValueError, match=r"table of one video .*got 2: a\.mp4, b\.mp4$"):
            convert_table(table, "openface")


class TestPyfeat:
    def test_columns_and_their_order(self, table) -> None:
        for one in (table, with_pose(table)):
            assert list(convert_table(one, "pyfeat").table.columns) == [*PYFEAT, "approx_time", "Identity"]

    def test_values(self, table) -> None:
        made = convert_table(with_pose(table), "pyfeat").table
        assert made["frame"].tolist() == [0, 1, 62, 62]  # from 0
        assert made["approx_time"].tolist() == ["00:00", "00:00", "01:01", "01:01"]
        assert made["input"].tolist() == ["talk.mp4"] * 4
        assert made["Identity"].fillna("").tolist() == ["Person_0", "", "Person_0", "Person_3"]
        box = made.loc[0, ["FaceRectX", "FaceRectY", "FaceRectWidth", "FaceRectHeight", "FaceScore"]]
        assert box.tolist() == [100, 20, 300, 300, 0.75] and made["FaceScore"][1] == 0
        assert made["AU24"].tolist()[::3] == [0.6, 0.6] and np.isnan(made["AU01"][1])
        assert made["AU43"].isna().all() and made["X"].isna().all()
        assert made.loc[0, ["Pitch", "Roll", "Yaw"]].tolist() == [-3.01, -5.01, 4.01]
        assert made["x_48"].equals(table["x_31"]) and made["x_0"].isna().all()

    def test_photographs_are_counted(self, face) -> None:
        frames = [frame([face(), face(1)], "b.jpg"), frame([], "a.jpg"), frame([face()], "c.jpg")]
        made = convert_table(data_frame(frames, AUS), "pyfeat").table
        assert list(made.columns) == [*PYFEAT, "Identity"]
        assert made["frame"].tolist() == [0, 0, 1, 2]
        assert made["input"].tolist() == ["b.jpg", "b.jpg", "a.jpg", "c.jpg"]

    def test_what_is_said(self, table) -> None:
        assert convert_table(table, "pyfeat").note == (
            "py-feat has no column for success, weights, merged, presence, intensity; empty, since the table "
            "lacks it: landmarks 0 to 16, 60 and 64, head pose, X, Y, Z, probability of "
            "AU02/AU04/AU05/AU06/AU07/AU09/AU10/AU11/AU14/AU15/AU17/AU20/AU23/AU25/AU26/AU28/AU43."
        )


@pytest.mark.parametrize("to", ["openface", "pyfeat"])
def test_a_table_without_rows(to) -> None:
    made = convert_table(data_frame([], AUS), to).table
    assert (len(made) == 0 and "AU12_c" in made) or "AU12" in made


def test_an_unknown_tool(table) -> None:
    with pytest.raises(ValueError, match=r'^to must be "openface" or "pyfeat", got "affdex"'):
        convert_table(table, "affdex")


class TestFiles:
    @pytest.fixture
    def path(self, tmp_path, face):
        write_table(tmp_path / "talk.csv", [frame([face()]), frame([], number=2)], AUS, weights="note")
        return tmp_path / "talk.csv"

    @pytest.mark.parametrize("ending", ["csv", "parquet"])
    def test_it_is_written(self, path, tmp_path, ending) -> None:
        out = tmp_path / "made" / f"openface.{ending}"
        assert convert_file(path, "openface", out) == convert_table(read_table(path), "openface").note
        made = pandas.read_csv(out) if ending == "csv" else pandas.read_parquet(out)
        assert list(made.columns) == OPENFACE and made["x_48"][0] == 250 and made["AU01_c"][0] == 1
        if ending == "csv":
            first, second = out.read_text().splitlines()[1:]
            assert first.startswith("1,0,0.0,0.75,1,") and second.startswith("2,0,0.0,0.0,0,,")
            assert first.endswith(",1,,,,,,,,0,,,,,,,,,") and second.endswith(",,,,,")

    def test_mistakes(self, path, tmp_path) -> None:
        before = path.read_bytes()
        with pytest.raises(ValueError, match=r"talk\.csv: is the table itself; name another file"):
            convert_file(path, "openface", path)
        with pytest.raises(ValueError, match=r"talk\.txt: a table must end in"):
            convert_file(path, "openface", tmp_path / "talk.txt")
        with pytest.raises(FileNotFoundError, match=r"none\.csv: there is no such file"):
            convert_file(tmp_path / "none.csv", "openface", tmp_path / "out.csv")
        (tmp_path / "other.csv").write_text("frame,AU01_r\n1,2\n")
        with pytest.raises(ValueError, match=r"other\.csv: no table of `jaa predict`"):
            convert_file(tmp_path / "other.csv", "pyfeat", tmp_path / "out.csv")
        assert path.read_bytes() == before
        assert sorted(file.name for file in tmp_path.iterdir()) == ["other.csv", "talk.csv"]

    def test_a_table_of_several_videos_is_named(self, tmp_path, face) -> None:
        write_table(tmp_path / "two.csv", [frame([face()], name) for name in "ab"], AUS)
        with pytest.raises(ValueError, match=r"two\.csv: wanted the table of one video"):
            convert_file(tmp_path / "two.csv", "openface", tmp_path / "out.csv")


def test_a_video_of_one_late_frame_is_no_photograph(face) -> None:
    made = convert_table(data_frame([frame([face()], number=301, timestamp=10.0)], AUS), "pyfeat").table
    assert made["frame"].tolist() == [300] and made["approx_time"].tolist() == ["00:10"]


@pytest.mark.parametrize("to", ["openface", "pyfeat"])
def test_numbers_that_are_text(table, to) -> None:
    table = with_pose(table)
    text = table.astype({name: str for name in ("frame", "face_id", "right", "pose_Rx", "timestamp")})
    pandas.testing.assert_frame_equal(convert_table(text, to).table, convert_table(table, to).table)


def test_without_a_box(table) -> None:
    made = convert_table(table.drop(columns="right"), "pyfeat").table
    assert made["FaceRectX"].notna().any() and made["FaceRectWidth"].isna().all()
