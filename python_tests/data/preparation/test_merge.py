"""From the parts of clips to the index, the frames left out and the report."""

import csv
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from jaa_ext.data.plausible import OUTSIDE
from jaa_ext.data.preparation.folder import (
    FORMAT,
    FolderError,
    Preparation,
    Settings,
    read_settings,
    write_preparation,
)
from jaa_ext.data.preparation.merge import MIN_CHECKED_FACES, merge
from jaa_ext.data.preparation.parts import Part, part_file
from jaa_ext.data.release import Release, ReleaseError

AUS = (1, 12)
NONE = float("nan")


def clip(name, fold="1"):
    subject, _, task = name.partition("/")
    return SimpleNamespace(name=name, subject=subject, task=task, fold=fold)


def part(numbers, labels=None, *, side=64, reach=(10, 10, 90, 90, 100, 100), skipped=(), **fields):
    """Frames of these numbers, whose eyes are 20 pixels apart, and frames left out with their reasons."""
    n, m = len(numbers), len(skipped)
    x = np.arange(49) % 2 * 20.0
    return Part(
        **{
            "number": np.array(numbers, np.int64),
            "path": np.array([f"images/{number}.png" for number in numbers], np.str_),
            "side": np.broadcast_to(np.int64(side), n),
            "landmarks": np.broadcast_to(np.stack((x, x * 0 + 5), 1).astype(np.float32), (n, 49, 2)),
            "labels": np.array([(1, 0)] * n if labels is None else labels, np.int8).reshape(n, 2),
            "intensities": np.full((n, 2), NONE, np.float32),
            "reach": np.broadcast_to(np.float64(reach), (n, 6)),
            "distance": np.full(n, NONE),
            "skipped": np.arange(900, 900 + m),
            "reason": np.array(skipped, np.str_),
            "skipped_reach": np.broadcast_to(np.float64(reach), (m, 6)),
            **fields,
        }
    )


@pytest.fixture
def merged(tmp_path):
    """Merges parts by the names of their clips: the report and the folder."""
    out = tmp_path / "out"

    def make(parts, folds=None, *, size=64, table="csv", **fields):
        clips = tuple(clip(name, (folds or {}).get(name, "1")) for name in parts)
        (out / "parts").mkdir(parents=True, exist_ok=True)
        (out / "images").mkdir(exist_ok=True)
        for one, rows in zip(clips, parts.values(), strict=True):
            np.savez(part_file(out, one), **rows._asdict())
            for path in rows.path:
                (out / path).touch()
        settings = Settings(
            name="Test", aus=list(AUS), size=size, align=size is not None, detector=False, table=table
        )
        known = Preparation(
            format=FORMAT, settings=settings, sequences=[], opencv=[], image_size=None, report=None
        )
        write_preparation(out, known)
        return merge(out, known, Release("Test", AUS, clips, **fields)), out

    return make


def left_out(out):
    with (out / "skipped.csv").open(newline="") as file:
        return [tuple(row) for row in csv.reader(file)][1:]


PARTS = {
    "F001/T1": part([3, 7], [(1, 0), (0, -1)], skipped=["no face", "dropped"]),
    "F001/T2": part([1], [(1, 1)]),
    "M002/T1": part([10, 9], [(0, 0), (-1, -1)], skipped=["dropped"]),
}


def test_the_report(merged):
    report, out = merged(PARTS, {"M002/T1": "2"}, expected=8, remarks=("one task is missing",))
    assert (report.name, report.kept, report.expected, report.subjects) == ("Test", 5, 8, 2)
    assert report.aus == AUS and report.valid == (4, 3)
    assert report.occurrence == pytest.approx((2 / 4, 1 / 3))
    assert report.folds == {"1": 3, "2": 2} and report.image_size == 64
    assert list(report.skipped.items()) == [("dropped", 2), ("no face", 1)]
    assert report.remarks == ("one task is missing",) and report.intensities == ()
    assert left_out(out) == [
        ("F001/T1", "900", "no face"), ("F001/T1", "901", "dropped"), ("M002/T1", "900", "dropped"),
    ]  # fmt: skip
    known = read_settings(out)
    assert known.report == report and known.image_size == 64 and not (out / "parts").exists()


def test_an_au_without_a_valid_label_has_no_rate(merged):
    report, _ = merged({"F001/T1": part([3, 7], [(1, -1), (0, -1)])})
    assert report.occurrence == (0.5, None) and report.valid == (2, 0)


def test_both_tables_hold_the_same(merged):
    intensities = np.array([(NONE, 0.1), (NONE, 5)], np.float32)
    parts = PARTS | {"F001/T1": PARTS["F001/T1"]._replace(intensities=intensities)}
    report, out = merged(parts)
    assert report.intensities == (0, 2) and report.aus_with_intensities == (12,)
    with (out / "index.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    _, out = merged(parts, table="parquet")
    index = pd.read_parquet(out / "index.parquet")
    assert list(rows[0]) == list(index)
    assert index["path"].tolist() == [f"images/{number}.png" for number in (3, 7, 1, 10, 9)]
    assert [row["task"] for row in rows] == index["task"].tolist() == ["T1", "T1", "T2", "T1", "T1"]
    assert [(row["AU01"], row["AU12"]) for row in rows] == [
        ("1", "0"), ("0", ""), ("1", "1"), ("0", "0"), ("", ""),
    ]  # fmt: skip
    assert index["AU12"].isna().tolist() == [False, True, False, False, True]
    for name in ("x_1", "y_48", "eye_distance"):
        assert [np.float32(row[name]) for row in rows] == index[name].tolist()
    assert [row["AU12_intensity"] for row in rows] == ["0.1", "5.0", "", "", ""]
    assert "AU01_intensity" not in index


def test_pictures_that_have_not_the_side_of_most_are_left_out(merged):
    sides = np.array([112, 96, 112, 96, 80])
    report, out = merged({"F001/T1": part(range(5), side=sides)}, size=None)
    assert report.image_size == 112 and report.kept == 2  # of equally common ones the largest
    assert left_out(out) == [
        ("F001/T1", str(i), "the picture has not the side of most pictures") for i in (1, 3, 4)
    ]
    assert sorted(path.name for path in (out / "images").iterdir()) == ["0.png", "2.png"]


def test_landmarks_of_another_resolution_stop(merged, tmp_path):
    odd = (400, 10, 900, 1100, 500, 510)
    parts = {"F001/T1": part([1, 2]), "F001/T2": part([], skipped=[OUTSIDE] * 3, reach=odd)}
    words = "3 of 5 frames, .*frame 900 of F001/T2, .*x 400 to 900 .*y 10 to 1100 .*500 x 510; .*resolution"
    with pytest.raises(ReleaseError, match=words):
        merged(parts)
    assert list((tmp_path / "out").iterdir()) == []  # the next try begins anew
    report, _ = merged(parts | {"F001/T1": part([1, 2, 3])})
    assert report.kept == 3 and report.skipped == {OUTSIDE: 3}


def test_landmarks_beside_the_face_that_a_checker_finds(merged):
    def looked_at(count, beside):
        distance = np.array([NONE, *[0.6] * beside, *[0.05] * (count - beside)])
        return {"F001/T1": part(range(count + 1), distance=distance)}

    many = 2 * MIN_CHECKED_FACES
    with pytest.raises(ReleaseError, match=rf"6 of {many} frames that were looked at, .*frame 1 of F001/T1"):
        merged(looked_at(many, 6))
    assert merged(looked_at(many, 5))[0].remarks == ()
    # Of a few frames it may have found another face.
    (remark,) = merged(looked_at(MIN_CHECKED_FACES - 1, MIN_CHECKED_FACES - 1))[0].remarks
    assert "beside the face" in remark


def test_landmarks_that_all_lie_in_one_quarter_are_remarked_on(merged):
    quarter = (3, 4, 50, 49, 100, 100)
    report, _ = merged({"F001/T1": part([1, 2], reach=quarter)}, remarks=("of the reader",))
    first, remark = report.remarks
    assert first == "of the reader" and "x 3 to 50 and from y 4 to 49 in pictures of 100 x 100" in remark
    assert merged({"F001/T1": part([1], reach=quarter)})[0].remarks == ()  # one face may lie there


def test_no_usable_frame(merged, tmp_path):
    with pytest.raises(ReleaseError, match=r"got none: no face in 2 of 3, such as frame 900 of F001/T1"):
        merged(
            {"F001/T1": part([], skipped=["no face", "dropped"]), "F002/T1": part([], skipped=["no face"])}
        )
    assert list((tmp_path / "out").iterdir()) == []
    with pytest.raises(ReleaseError, match="the clips have no frames"):
        merged({"F001/T1": part([])})


def test_a_damaged_part_is_named(merged):
    with pytest.raises(FolderError, match=r"parts/F001%2FT1\.npz: is damaged"):
        merged({"F001/T1": part([1])._replace(side=np.ones(7))})
