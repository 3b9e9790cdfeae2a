"""Tables are read back with the standard library's csv."""

import csv

import numpy as np
import pytest

from jaa_ext import facs
from jaa_ext.predict import write_csv
from jaa_ext.predict.tables import columns

AUS = (1, 12, facs.AURule((31, 37), 0.25))
NOTE = 'Demonstration weights, "drawn" faces'


def read(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_what_is_written_is_read_back(tmp_path, prediction):
    path = tmp_path / "made" / "table.csv"
    random = np.random.default_rng(0)
    faces = [
        prediction(
            random.random(3),
            face_id=i,
            box=(1.25, -2.0, 300.5, 400.0),
            landmarks=random.uniform(-10, 5000, (49, 2)).astype(np.float32),
        )
        for i in range(2)
    ]
    write_csv(
        path, [("a, b.jpg", faces), ("none.jpg", []), (tmp_path / "ü.png", faces[:1])], AUS, weights=NOTE
    )
    rows = read(path)
    assert [row["image"] for row in rows] == ["a, b.jpg", "a, b.jpg", str(tmp_path / "ü.png")]
    assert [row["face_id"] for row in rows] == ["0", "1", "0"]
    assert {row["weights"] for row in rows} == {NOTE}
    for row, face in zip(rows, [*faces, faces[0]], strict=True):
        assert [float(row[edge]) for edge in ("left", "top", "right", "bottom")] == list(face.box)
        points = [(float(row[f"x_{i}"]), float(row[f"y_{i}"])) for i in range(49)]
        assert np.abs(np.array(points) - face.landmarks).max() < 1e-3
        names = ("AU01", "AU12", "AUrule2")
        assert np.abs([float(row[f"{n}_p"]) for n in names] - face.probabilities).max() < 1e-6
        assert [row[f"{n}_c"] == "1" for n in names] == face.present.tolist()


def test_the_columns(tmp_path):
    names = columns((4, 10))
    assert len(names) == len(set(names)) == 2 + 4 + 98 + 4 + 1
    assert names[:7] == ["image", "face_id", "left", "top", "right", "bottom", "x_0"]
    assert names[54:57] == ["x_48", "y_0", "y_1"]
    assert names[-5:] == ["AU04_p", "AU10_p", "AU04_c", "AU10_c", "weights"]


def test_a_table_without_faces_has_its_header(tmp_path):
    path = tmp_path / "table.csv"
    write_csv(path, [], AUS)
    assert path.read_text().strip().split(",") == columns(AUS)


def test_a_failure_leaves_the_older_table_alone(tmp_path, prediction):
    path = tmp_path / "table.csv"
    path.write_text("older")

    def images():
        yield "a.jpg", [prediction(np.zeros(3))]
        raise RuntimeError("the camera fell down")

    with pytest.raises(RuntimeError, match="camera"):
        write_csv(path, images(), AUS)
    assert path.read_text() == "older"
    assert [p.name for p in tmp_path.iterdir()] == ["table.csv"]


def test_probabilities_that_do_not_fit_the_aus_are_refused(tmp_path, prediction):
    face = prediction(np.zeros(2))
    with pytest.raises(ValueError, match=r"a\.jpg: got a face with 2 probabilities, wanted 3"):
        write_csv(tmp_path / "table.csv", [("a.jpg", [face])], AUS)
