"""`jaa convert` and `jaa compare`."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from jaa_ext.predict import FramePrediction, write_table


@pytest.fixture
def talk(tmp_path: Path, prediction) -> Path:
    faces = [prediction((i / 10, 0.9), intensities=np.float32((max(1, i / 2), 4))) for i in range(8)]
    frames = [
        FramePrediction("talk.mp4", i + 1, i / 25, np.zeros((2, 2, 3), np.uint8), [face])
        for i, face in enumerate(faces)
    ]
    write_table(tmp_path / "talk.csv", frames, (1, 24), intensity=True)
    return tmp_path / "talk.csv"


def test_convert(jaa_ok, read, talk: Path, tmp_path: Path) -> None:
    printed = " ".join(jaa_ok("convert", talk, "--to", "openface", "--out", tmp_path / "of.csv").split())
    assert "OpenFace has no column for the box, source, weights, merged, presence of AU24" in printed
    assert "landmarks 0 to 16, 60 and 64" in printed and "Results:" in printed
    rows = read(tmp_path / "of.csv")
    assert len(rows) == 8 and rows[7]["AU01_c"] == "1" and rows[0]["x_0"] == "" and rows[0]["x_17"] != ""
    jaa_ok("convert", talk, "--to", "pyfeat", "--out", tmp_path / "pf.csv")
    assert read(tmp_path / "pf.csv")[7]["AU24"] == "0.9"


def test_compare(jaa_ok, talk: Path, tmp_path: Path) -> None:
    jaa_ok("convert", talk, "--to", "openface", "--out", tmp_path / "of.csv")
    printed = jaa_ok("compare", talk, tmp_path / "of.csv")
    row = next(line.split() for line in printed.splitlines() if line.split()[:1] == ["AU01"])
    assert row == ["AU01", "8", "25.0", "25.0", "1.00", "100.0", "1.00", "1.00", "0.00"]
    assert "Only in a: AU24." in printed and "8 faces are in both" in printed and "Results" not in printed
    printed = jaa_ok("compare", talk, tmp_path / "of.csv", "--by", "time", "--out", tmp_path / "out")
    assert "Results:" in printed and "compare.png" in printed
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["compare.csv", "compare.json", "compare.png"]
    with (tmp_path / "out" / "compare.csv").open(newline="") as file:
        assert next(csv.DictReader(file))["f1"] == "1.0"
    assert json.loads((tmp_path / "out" / "compare.json").read_text())["frames"] == 8


def test_mistakes(jaa, talk: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text("a,b\n1,2\n")
    out = ("--out", tmp_path / "out.csv")
    for arguments, sentence in (
        (("convert", other, "--to", "openface", *out), "other.csv: no table of `jaa predict`"),
        (("convert", talk, "--to", "openface", "--out", talk), "talk.csv: is the table itself"),
        (("convert", talk, "--to", "pyfeat", "--out", tmp_path / "out.txt"), "must end in .csv or .parquet"),
        (("compare", talk, other), "other.csv: is no table of jaa_ext, OpenFace, py-feat or LibreFace"),
        (("compare", talk, tmp_path / "none.csv"), "none.csv: there is no such file"),
    ):
        code, _, error = jaa(*arguments)
        assert code == 2 and sentence in error and len(error.splitlines()) == 1, arguments
    assert jaa("convert", talk, "--to", "affdex", *out)[0] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.csv", "talk.csv"]
