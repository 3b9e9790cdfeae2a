"""CSV tables are read back with the standard library's csv, Parquet tables with pyarrow."""

import csv
import sys

import numpy as np
import pandas
import pyarrow
import pyarrow.parquet
import pytest

from jaa_ext import facs
from jaa_ext.predict import FramePrediction, HeadPose, MissingDependency, columns, read_table, write_table
from jaa_ext.predict.tables import csv_rows, data_frame, join_tables

AUS = (1, 12, facs.AURule((31, 37), 0.25))
AU_NAMES = ("AU01", "AU12", "AUrule2")
NOTE = 'Demonstration weights, "drawn" faces'
POINTS = [f"{axis}_{i}" for axis in "xy" for i in range(49)]
POSE = ["pose_Tx", "pose_Ty", "pose_Tz", "pose_Rx", "pose_Ry", "pose_Rz"]
ENDINGS = pytest.mark.parametrize("ending", ["csv", "parquet"])


def read(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def frame(faces, source="a.mp4", number=1, timestamp=0.0):
    return FramePrediction(source, number, timestamp, np.zeros((2, 2, 3), np.uint8), faces)


@pytest.fixture
def frames(prediction):
    """Five frames with two faces, none, one, none and one, of values that take many digits."""
    random = np.random.default_rng(0)

    def face(face_id):
        return prediction(
            random.random(3),
            face_id=face_id,
            box=tuple(random.uniform(-20, 4000, 4).tolist()),
            landmarks=random.uniform(-10, 5000, (49, 2)).astype(np.float32),
            confidence=random.random(),
            pose=HeadPose(random.uniform(-900, 900, 3), random.uniform(-1.5, 1.5, 3)),
        )

    return [
        frame([face(0), face(3)], "a, b.jpg"),
        frame([], "talk.mp4", 1, 0.0),
        frame([face(0)], "talk.mp4", 2, 1 / 29.97),
        frame([], "talk.mp4", 12345, 411.8784),
        frame([face(12)], "ü\nnew line.mp4", 123456, 4567.0004),
    ]


def test_the_columns():
    names = columns((4, 10))
    assert len(names) == len(set(names)) == 5 + 98 + 4 + 4 + 2 + 6 + 1
    # OpenFace's first: its frame, face and landmarks, and the AUs' presence.
    assert names[:7] == ["frame", "face_id", "timestamp", "confidence", "success", "x_0", "x_1"]
    assert names[53:55] == ["x_48", "y_0"]
    assert names[102:107] == ["y_48", "AU04_c", "AU10_c", "AU04_p", "AU10_p"]
    assert names[107:] == ["left", "top", "right", "bottom", "source", "weights", *POSE, "merged"]
    assert columns(AUS)[103:109] == [*(f"{name}_c" for name in AU_NAMES), *(f"{name}_p" for name in AU_NAMES)]


class TestSides:
    AUS = ("12L", 1, "12R", "4R")

    @pytest.fixture
    def sided(self, prediction):
        """Three faces, of which one has no intensity of AU 12R and one no probability, and no face."""
        r = np.float32([[3, 1, 0.5, 2], [0.25, 1, np.nan, 2], [1, 1, 1, 1]])
        p = [(0.9, 0.8, 0.2, 0.7), (0.1, 0.8, 0.6, 0.7), (np.nan, 0.8, 0.6, 0.7)]
        faces = [prediction(p[i], face_id=i, intensities=r[i]) for i in range(3)]
        return [frame(faces), frame([], number=2)]

    def test_their_columns_come_last(self):
        assert columns(self.AUS)[-1] == "AU12_asymmetry"
        assert columns(self.AUS)[:-1] == [
            *columns(())[:103],
            *(f"{name}_{kind}" for kind in "cp" for name in ("AU12L", "AU01", "AU12R", "AU04R")),
            *columns(())[103:],
        ]
        rated = columns(self.AUS, intensity=True)
        assert rated[-6:] == [
            *(f"{name}_r" for name in ("AU12L", "AU01", "AU12R", "AU04R")),
            *("AU12_asymmetry", "AU12_asymmetry_intensity"),
        ]
        assert columns(("12L", 1)) == [name.replace("AU02", "AU12L") for name in columns((2, 1))]

    @ENDINGS
    def test_asymmetry_is_read_back(self, tmp_path, sided, ending):
        path = tmp_path / f"t.{ending}"
        write_table(path, sided, self.AUS, intensity=True)
        table = read_table(path)
        assert list(table.columns) == columns(self.AUS, intensity=True)
        nan = np.nan
        assert np.array_equal(table["AU12_asymmetry"], [0.7, -0.5, nan, nan], equal_nan=True)
        assert np.array_equal(table["AU12_asymmetry_intensity"], [2.5, nan, nan, nan], equal_nan=True)
        write_table(path, sided, self.AUS)
        assert list(read_table(path).columns) == columns(self.AUS)

    @pytest.mark.parametrize(
        ("column", "value"),
        [("AU12_asymmetry", 1.01), ("AU12_asymmetry_intensity", -5.01), ("AU12_asymmetry", "left")],
    )
    def test_an_asymmetry_that_is_none_is_found(self, tmp_path, sided, column, value):
        write_table(tmp_path / "t.csv", sided, self.AUS, intensity=True)
        table = pandas.read_csv(tmp_path / "t.csv").astype({column: object})
        table.loc[0, column] = value
        table.to_csv(tmp_path / "t.csv", index=False)
        with pytest.raises(ValueError, match=f"row 1 of column {column} cannot hold '{value}'"):
            read_table(tmp_path / "t.csv")


class TestIntensities:
    @pytest.fixture
    def rated(self, prediction):
        """Two faces, one of which has no intensity of AU 12, and a frame without a face."""

        def face(face_id, *intensities):
            return prediction((0.9, 0.2, 0.8), face_id=face_id, intensities=np.float32(intensities))

        return [frame([face(0, 3.456, 0.5, 5), face(1, 1, np.nan, 1.25)]), frame([], number=2)]

    def test_their_columns_come_last(self):
        names = columns(AUS, intensity=True)
        assert names == [*columns(AUS), "AU01_r", "AU12_r", "AUrule2_r"]

    @ENDINGS
    def test_they_are_read_back(self, tmp_path, rated, ending):
        write_table(tmp_path / f"t.{ending}", rated, AUS, intensity=True)
        for table in (read_table(tmp_path / f"t.{ending}"), data_frame(rated, AUS, intensity=True)):
            assert list(table.columns) == columns(AUS, intensity=True)
            got = table[["AU01_r", "AU12_r", "AUrule2_r"]].to_numpy(float)
            want = [[3.46, 0.5, 5.0], [1.0, np.nan, 1.25], [np.nan] * 3]
            assert np.array_equal(got, want, equal_nan=True)
            assert table["success"].tolist() == [1, 1, 0]

    def test_parts_are_joined_with_them(self, tmp_path, rated):
        (tmp_path / "part").write_text(
            "".join(csv_rows(one, AUS, intensity=True) for one in rated), encoding="utf-8", newline=""
        )
        join_tables(tmp_path / "joined.csv", [tmp_path / "part"], AUS, intensity=True)
        write_table(tmp_path / "whole.csv", rated, AUS, intensity=True)
        assert (tmp_path / "joined.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()

    def test_they_are_left_out_or_missed(self, tmp_path, rated, frames):
        write_table(tmp_path / "t.csv", rated, AUS)
        assert list(read_table(tmp_path / "t.csv").columns) == columns(AUS)
        with pytest.raises(ValueError, match=r"a, b\.jpg: .*0 intensities, wanted 3"):
            write_table(tmp_path / "u.csv", frames, AUS, intensity=True)

    def test_those_of_a_face_without_numbers_are_empty(self, prediction):
        face = prediction((np.nan, 0.2, 0.8), intensities=np.float32([0.5, 0.5, 2]))
        table = data_frame([frame([face])], AUS, intensity=True)
        assert table["AU01_r"].isna().all() and table["AU12_r"][0] == 0.5

    def test_one_that_is_none_is_found(self, tmp_path, rated):
        write_table(tmp_path / "t.csv", rated, AUS, intensity=True)
        text = (tmp_path / "t.csv").read_text(encoding="utf-8").replace("3.46", "5.01")
        (tmp_path / "t.csv").write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=r"row 1 of column AU01_r cannot hold '5\.01'"):
            read_table(tmp_path / "t.csv")


class TestCsv:
    def test_what_is_written_is_read_back(self, tmp_path, frames):
        path = tmp_path / "made" / "table.csv"
        write_table(path, iter(frames), AUS, weights=NOTE)
        rows = read(path)
        assert list(rows[0]) == columns(AUS)
        assert [row["frame"] for row in rows] == ["1", "1", "1", "2", "12345", "123456"]
        assert [row["face_id"] for row in rows] == ["0", "3", "-1", "0", "-1", "12"]
        assert [row["success"] for row in rows] == ["1", "1", "0", "1", "0", "1"]
        assert [row["timestamp"] for row in rows] == [
            *("0.000", "0.000", "0.000", "0.033"),
            *("411.878", "4567.000"),
        ]
        assert [row["source"] for row in rows] == [
            *("a, b.jpg", "a, b.jpg", "talk.mp4"),
            *("talk.mp4", "talk.mp4", "ü\nnew line.mp4"),
        ]
        assert {row["weights"] for row in rows} == {NOTE}
        faces = [face for one in frames for face in one.faces]
        for row, face in zip([row for row in rows if row["success"] == "1"], faces, strict=True):
            assert float(row["confidence"]) == pytest.approx(face.confidence, abs=5.1e-4)
            edges = [float(row[edge]) for edge in ("left", "top", "right", "bottom")]
            assert np.abs(np.array(edges) - face.box).max() < 5.1e-3
            assert np.abs([float(row[name]) for name in POINTS] - face.landmarks.T.ravel()).max() < 1e-3
            assert np.abs([float(row[f"{n}_p"]) for n in AU_NAMES] - face.probabilities).max() < 1e-6
            assert [row[f"{n}_c"] for n in AU_NAMES] == [str(int(p > 0.5)) for p in face.probabilities]
            written = np.array([float(row[name]) for name in POSE])
            assert np.abs(written[:3] - face.pose.translation).max() < 5.1e-2
            assert np.abs(written[3:] - face.pose.rotation).max() < 5.1e-5

    def test_a_face_that_did_not_settle_is_no_success(self, tmp_path, prediction):
        frame = FramePrediction("a.mp4", 1, 0.0, np.zeros((9, 9, 3), np.uint8), [prediction(settled=False)])
        write_table(tmp_path / "a.csv", [frame], facs.BP4D_AUS)
        with (tmp_path / "a.csv").open(newline="") as file:
            (row,) = csv.DictReader(file)
        assert row["success"] == "0" and row["face_id"] == "0" and row["AU12_p"] == "0.900000"

    def test_a_frame_without_a_face(self, tmp_path):
        path = tmp_path / "table.csv"
        write_table(path, [frame([], "a.mp4", 7, 0.25)], AUS, weights=NOTE)
        (row,) = read(path)
        told = {name: value for name, value in row.items() if value}
        assert told == {
            **{"frame": "7", "face_id": "-1", "timestamp": "0.250", "confidence": "0.000"},
            **{"success": "0", "source": "a.mp4", "weights": NOTE},
        }

    def test_a_table_without_frames_has_its_header(self, tmp_path):
        path = tmp_path / "table.csv"
        write_table(path, [], AUS)
        assert path.read_bytes() == (",".join(columns(AUS)) + "\r\n").encode()


class TestParquet:
    def test_types(self, tmp_path, frames):
        path = tmp_path / "made" / "table.parquet"
        write_table(path, iter(frames), AUS, weights=NOTE)
        table = pyarrow.parquet.read_table(path)
        assert table.column_names == columns(AUS)
        whole = {"frame", "face_id", "success", "AU01_c", "AU12_c", "AUrule2_c"}
        for field in table.schema:
            if field.name in ("source", "weights"):
                assert field.type == pyarrow.string()
            else:
                assert field.type == (pyarrow.int64() if field.name in whole else pyarrow.float64())

    def test_values_are_those_of_the_csv(self, tmp_path, frames):
        for ending in ("csv", "parquet"):
            write_table(tmp_path / f"table.{ending}", frames, AUS, weights=NOTE)
        table = pyarrow.parquet.read_table(tmp_path / "table.parquet").to_pylist()
        rows = read(tmp_path / "table.csv")
        for row, written in zip(table, rows, strict=True):
            for name, text in written.items():
                if name in ("source", "weights"):
                    assert row[name] == text
                else:
                    assert row[name] == (float(text) if text else None), name
        assert sorted(path.name for path in tmp_path.iterdir()) == ["table.csv", "table.parquet"]

    def test_one_of_many_pieces(self, tmp_path, prediction):
        """More than what pyarrow reads at a time, 1 MiB; names with line ends may lie on its border."""
        face = prediction(np.zeros(3))
        path = tmp_path / "table.parquet"
        write_table(path, (frame([face], f"line\r\n{i}", i) for i in range(1, 2501)), AUS)
        table = pyarrow.parquet.read_table(path, columns=["frame", "source"])
        assert table["frame"].to_pylist() == list(range(1, 2501))
        assert table["source"].to_pylist() == [f"line\r\n{i}" for i in range(1, 2501)]
        assert pyarrow.parquet.ParquetFile(path).num_row_groups > 1

    def test_a_part_that_pandas_wrote_has_no_index_in_it(self, tmp_path, frames):
        write_table(tmp_path / "table.parquet", frames, AUS)
        table = read_table(tmp_path / "table.parquet")
        table[table["success"] == 1].to_parquet(tmp_path / "part.parquet")
        part = read_table(tmp_path / "part.parquet")
        assert list(part.columns) == list(table.columns) and 0 < len(part) < len(table)

    def test_without_pyarrow_it_is_refused_before_the_work(self, tmp_path, monkeypatch, frames):
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        frames = iter(frames)
        with pytest.raises(MissingDependency, match=r"Parquet needs pyarrow.*pip install 'jaa_ext\["):
            write_table(tmp_path / "a.parquet", frames, AUS)
        with pytest.raises(MissingDependency, match="Parquet needs pyarrow"):
            read_table(tmp_path / "a.parquet")
        assert len(list(frames)) == 5 and not list(tmp_path.iterdir())
        write_table(tmp_path / "a.csv", [], AUS)


class TestInMemory:
    def test_it_is_what_is_read_from_either_file(self, tmp_path, frames):
        table = data_frame(iter(frames), AUS, NOTE)
        for ending in ("csv", "parquet"):
            path = tmp_path / f"table.{ending}"
            write_table(path, frames, AUS, weights=NOTE)
            pandas.testing.assert_frame_equal(table, read_table(path), check_exact=True)
        for name in ("x_0", "timestamp", "AU01_p", "left", "confidence"):
            texts = [row[name] for row in read(tmp_path / "table.csv")]
            assert [x for x in table[name] if x == x] == [float(text) for text in texts if text]

    def test_types_and_what_is_missing(self, frames):
        table = data_frame(frames, AUS)
        assert table["success"].tolist() == [1, 1, 0, 1, 0, 1]
        assert list(table.columns) == columns(AUS)
        for name in ("frame", "face_id", "success"):
            assert table[name].dtype == np.int64
        without = table[table.success == 0]
        assert without.drop(columns=[*table.columns[:5], "source", "weights"]).isna().all(axis=None)
        assert not table[table.success == 1].isna().any(axis=None)
        assert (without.confidence == 0).all() and (table.weights == "").all()
        complete = data_frame([frames[0]], AUS)
        assert complete["AU01_c"].dtype == np.int64 and complete["x_3"].dtype == np.float64

    @ENDINGS
    def test_tables_without_a_face_and_without_a_frame(self, tmp_path, ending):
        for name, some in (("faceless", [frame([]), frame([])]), ("empty", [])):
            path = tmp_path / f"{name}.{ending}"
            write_table(path, some, AUS)
            table = read_table(path)
            assert len(table) == len(some) and list(table.columns) == columns(AUS)
            pandas.testing.assert_frame_equal(data_frame(some, AUS), table)

    @ENDINGS
    @pytest.mark.parametrize(
        "name",
        [
            "NA",
            "null",
            "None",
            "nan",
            "",
            "1",
            "001",
            'say "hi", then\r\ngo',
            " blank ",
            "-1e5",
            "True",
            "тест",
        ],
    )
    def test_any_name_comes_back(self, tmp_path, prediction, name, ending):
        one = frame([prediction(np.zeros(3))], name)
        for table in (data_frame([one], AUS, name), data_frame([one, frame([], name)], AUS, name)):
            assert table["source"].tolist() == table["weights"].tolist() == [name] * len(table)
        write_table(tmp_path / f"a.{ending}", [one], AUS, weights=name)
        assert read_table(tmp_path / f"a.{ending}")["source"].tolist() == [name]

    @ENDINGS
    def test_a_file_name_that_is_no_text(self, tmp_path, ending):
        """Linux allows any bytes; those that are no UTF-8 Python represents by what no text file may hold."""
        path = tmp_path / f"a.{ending}"
        write_table(path, [frame([], b"caf\xe9.jpg".decode("utf-8", "surrogateescape"))], AUS)
        assert read_table(path)["source"].tolist() == ["caf\\xe9.jpg"]

    def test_without_pandas(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "pandas", None)
        with pytest.raises(MissingDependency, match=r"needs pandas, .*pip install 'jaa_ext\["):
            data_frame([], AUS)

    def test_files_that_are_no_table(self, tmp_path, frames):
        with pytest.raises(FileNotFoundError, match=r"none\.csv: .*no such file"):
            read_table(tmp_path / "none.csv")
        with pytest.raises(ValueError, match=r"a\.txt: .*\.csv or \.parquet"):
            read_table(tmp_path / "a.txt")
        (tmp_path / "other.csv").write_text("a,b\n1,2\n")
        with pytest.raises(ValueError, match=r"other\.csv: .*lacks the column face_id"):
            read_table(tmp_path / "other.csv")
        for name, content in (
            ("empty.csv", b""),
            ("long.csv", b"a,b\n1,2\n1,2,3\n"),
            ("bytes.csv", b"\xff\xfe\x00\x81"),
            ("none.parquet", b""),
            ("text.parquet", b"a,b\n1,2\n"),
        ):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(ValueError, match=rf"{name}: is damaged, or no table \(.*\)$"):
                read_table(tmp_path / name)
        write_table(tmp_path / "whole.parquet", frames, AUS)
        content = (tmp_path / "whole.parquet").read_bytes()
        (tmp_path / "cut.parquet").write_bytes(content[: len(content) // 2])
        spoilt = bytearray(content)
        spoilt[-1000:-8] = bytes([255]) * 992  # the description of the columns
        (tmp_path / "spoilt.parquet").write_bytes(spoilt)
        for name in ("cut", "spoilt"):
            with pytest.raises(ValueError, match=rf"{name}\.parquet: is damaged, or no table \("):
                read_table(tmp_path / f"{name}.parquet")

    @ENDINGS
    @pytest.mark.parametrize(
        "column, value",
        [
            *(("success", 2), ("success", np.nan), ("frame", 0), ("frame", 1.5), ("frame", "x")),
            *(("face_id", -2), ("timestamp", np.inf), ("timestamp", np.nan), ("x_3", np.inf)),
            *(("AU01_p", 1.1), ("AU01_c", 0.5), ("left", "x"), ("confidence", -np.inf)),
            ("pose_Rx", np.inf),
        ],
    )
    def test_a_value_that_none_of_ours_is(self, tmp_path, frames, ending, column, value):
        path = tmp_path / f"a.{ending}"
        write_table(path, frames, AUS)
        table = read_table(path).astype({column: object if isinstance(value, str) else float})
        table.loc[1, column] = value
        if ending == "csv":
            table.to_csv(path, index=False)
        else:
            table.astype({column: str if isinstance(value, str) else float}).to_parquet(path)
        with pytest.raises(ValueError, match=rf"a\.{ending}: .*row 2 of column {column} "):
            read_table(path)


class TestWhatIsNotFinite:
    """It is neither absent nor a success: cells stay empty."""

    @ENDINGS
    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_of_an_au(self, tmp_path, prediction, ending, value):
        path = tmp_path / f"a.{ending}"
        write_table(path, [frame([prediction([0.9, value, 0.2])])], AUS)
        (row,) = read_table(path).to_dict("records")
        assert row["success"] == 0 and row["face_id"] == 0 and row["confidence"] == 1
        assert (row["AU01_c"], row["AUrule2_c"], row["AU01_p"]) == (1, 0, pytest.approx(0.9))
        assert np.isnan(row["AU12_c"]) and np.isnan(row["AU12_p"])
        assert (row["left"], row["x_0"]) == (100, 130)

    def test_of_a_landmark_or_the_box(self, tmp_path, prediction):
        landmarks = prediction().landmarks.copy()
        landmarks[3, 1] = np.nan
        pose = HeadPose(np.ones(3), np.ones(3))
        faces = [
            prediction([0.9, 0.1, 0.2], landmarks=landmarks, pose=pose),
            prediction([0.9, 0.1, 0.2], face_id=1, box=(1.0, np.inf, 2.0, 3.0), confidence=np.nan, pose=pose),
            prediction([0.9, 0.1, 0.2], face_id=2),
        ]
        write_table(tmp_path / "a.csv", [frame(faces)], AUS)
        first, second, third = read(tmp_path / "a.csv")
        assert [row["success"] for row in (first, second, third)] == ["0", "0", "1"]
        assert [name for name, cell in first.items() if cell == ""] == ["y_3", "weights"]
        assert [name for name, cell in second.items() if cell == ""] == ["confidence", "top", "weights"]


def test_a_face_without_a_pose_has_empty_cells(tmp_path, prediction):
    pose = HeadPose(np.array((1.0, np.nan, 900.0)), np.zeros(3))
    faces = [prediction(np.zeros(3)), prediction(np.zeros(3), face_id=1, pose=pose)]
    write_table(tmp_path / "a.csv", [frame(faces)], AUS)
    first, second = read(tmp_path / "a.csv")
    assert {first[name] for name in POSE} == {""} and first["success"] == "1"
    assert [second[name] for name in POSE] == ["1.0", "", "900.0", "0.0000", "0.0000", "0.0000"]


class TestFailures:
    @ENDINGS
    def test_the_older_table_is_kept(self, tmp_path, prediction, ending):
        path = tmp_path / f"table.{ending}"
        path.write_text("older")

        def frames():
            yield frame([prediction(np.zeros(3))])
            raise RuntimeError("the camera fell down")

        with pytest.raises(RuntimeError, match="camera"):
            write_table(path, frames(), AUS)
        assert path.read_text() == "older"
        assert [p.name for p in tmp_path.iterdir()] == [path.name]

    def test_even_if_only_joining_fails(self, tmp_path):
        path = tmp_path / "table.parquet"
        path.write_text("older")
        (tmp_path / "part").write_text("no row of a table\r\n")
        with pytest.raises(ValueError):
            join_tables(path, [tmp_path / "part"], AUS)
        assert path.read_text() == "older"
        assert sorted(p.name for p in tmp_path.iterdir()) == ["part", "table.parquet"]

    def test_another_ending(self, tmp_path):
        for name in ("table.txt", "table", "csv"):
            with pytest.raises(ValueError, match=rf"{name}: .*\.csv or \.parquet$"):
                write_table(tmp_path / name, [], AUS)
        write_table(tmp_path / "TABLE.CSV", [], AUS)

    def test_probabilities_that_do_not_fit_the_aus(self, tmp_path, prediction):
        with pytest.raises(ValueError, match=r"a\.mp4: .*2 probabilities, wanted 3"):
            write_table(tmp_path / "table.csv", [frame([prediction(np.zeros(2))])], AUS)
