"""Tables less each person's neutral face, and smoothed, against sums worked out row by row."""

import math
import re

import numpy as np
import pandas
import pytest

from jaa_ext.predict import FramePrediction, correct_table, read_table, write_table
from jaa_ext.predict.correction import Correction, smoothed
from jaa_ext.predict.prediction import consistent_intensities
from jaa_ext.predict.tables import columns, csv_rows, data_frame, join_tables

AUS = (1, 12)
THRESHOLDS = (0.5, 0.3)
RATE = 10
"""Frames a second."""


@pytest.fixture
def film(prediction):
    """Makes the frames of a film, of each face's probabilities and intensities, (n, A)."""

    def make(faces, source="talk.mp4", unsettled=(), start=0):
        length = max(len(p) for p, _ in faces.values())
        frames = []
        for i in range(length):
            seen = []
            for face, (p, r) in faces.items():
                if i < len(p) and np.isfinite(p[i]).all():
                    present = np.array(p[i]) > THRESHOLDS
                    seen.append(
                        prediction(
                            p[i],
                            face_id=face,
                            present=present,
                            settled=(face, i) not in unsettled,
                            intensities=consistent_intensities(np.float32(r[i]), present),
                        )
                    )
            image = np.zeros((2, 2, 3), np.uint8)
            frames.append(FramePrediction(source, start + i + 1, (start + i) / RATE, image, seen))
        return frames

    return make


@pytest.fixture
def two(film):
    """Two films of two faces of random action, that rest from 1 to 2 s; one face is not there then."""
    rng = np.random.default_rng(0)

    def face(absent=0):
        p, r = rng.random((60, 2)), rng.random((60, 2)) * 5
        p[10:21], r[10:21] = p[10:21] * 0.2, r[10:21] * 0.2
        p[:absent] = math.nan
        return p, r

    return [
        *film({0: face(), 1: face(absent=30)}, unsettled=[(0, 15), (0, 40)]),
        *film({0: face(), 1: face()}, "other.mp4"),
    ]


def table_of(frames):
    return data_frame(frames, AUS, intensity=True)


def correct(table, **how):
    return correct_table(table, thresholds=THRESHOLDS, **how)


def kinds(names="cpr"):
    return [f"AU{au:02d}_{kind}" for kind in names for au in AUS]


class TestSmoothing:
    def test_weights_are_those_of_a_gaussian_in_time(self) -> None:
        rng = np.random.default_rng(0)
        times = np.sort(rng.choice(np.arange(400), 90, replace=False)) / 50
        values = rng.normal(size=(90, 3))
        deviation = 0.4 / 2.3548200450309493  # full width at half maximum of a normal density
        apart = np.abs(times[:, None] - times)
        weights = np.exp(-((apart / deviation) ** 2) / 2) * (apart <= 3 * deviation)
        np.testing.assert_allclose(
            smoothed(values, times, 0.4), weights @ values / weights.sum(1, keepdims=True), atol=1e-12
        )

    def test_nothing_moves_in_time_nor_over_a_gap(self) -> None:
        times = np.arange(101) / RATE
        peak = (np.arange(101) == 50).astype(float)[:, None]
        around = smoothed(peak, times, 1.0).ravel()
        np.testing.assert_allclose(around, around[::-1], atol=1e-15)
        assert around.argmax() == 50 and around[45] == pytest.approx(around[50] / 2, rel=0.01)
        step = (np.arange(101) >= 50).astype(float)[:, None]
        times[50:] += 10
        assert np.array_equal(smoothed(step, times, 1.0), step)

    def test_a_constant_stays(self) -> None:
        np.testing.assert_allclose(smoothed(np.full((9, 1), 0.3), np.arange(9.0), 5), 0.3)

    def test_no_seconds_change_nothing(self, two) -> None:
        table = table_of(two)
        pandas.testing.assert_frame_equal(correct(table)[table.columns], table)


class TestNeutral:
    def test_each_face_of_each_film_has_its_own(self, two) -> None:
        table = table_of(two)
        new = correct(table, neutral=(0, 3.5))
        for (source, face), rows in table[table["face_id"] >= 0].groupby(["source", "face_id"]):
            sure = rows[(rows["success"] == 1) & (rows["timestamp"] <= 3.5)]
            got = new.loc[rows.index]
            for au, threshold in zip(AUS, THRESHOLDS, strict=True):
                p, r = f"AU{au:02d}_p", f"AU{au:02d}_r"
                b = np.median(sure[p])
                want = np.round(np.maximum(0, rows[p] - b) / (1 - b), 6)
                np.testing.assert_allclose(got[p], want, atol=1e-9, err_msg=f"{source} {face}")
                present = want > threshold
                assert np.array_equal(got[f"AU{au:02d}_c"], present)
                less = (rows[r] - np.median(sure[r])).clip(0, 5)
                agreeing = np.where(present, np.maximum(less, 1), np.minimum(less, 0.99))
                np.testing.assert_allclose(got[r], agreeing, atol=0.0051)

    @pytest.mark.parametrize(
        "how", [{"neutral": (1, 2)}, {"neutral": "auto", "smooth": 0.5}, {"smooth": 1.0}]
    )
    @pytest.mark.filterwarnings("ignore:talk.mp4. no neutral face of face 1")
    def test_intensities_agree_with_presence(self, two, how) -> None:
        new = correct(table_of(two), **how)
        for au in AUS:
            c, r = new[f"AU{au:02d}_c"], new[f"AU{au:02d}_r"]
            assert ((r >= 1) == (c == 1))[c.notna()].all() and c.notna().sum() > 100
            assert r.dropna().between(0, 5).all() and new[f"AU{au:02d}_p"].dropna().between(0, 1).all()
            assert np.array_equal(c.isna(), r.isna())

    def test_what_was_predicted_stands_beside(self, two) -> None:
        table = table_of(two)
        new = correct(table, neutral=(0, 3.5), smooth=0.3)
        assert list(new.columns) == [*table.columns, *(f"{name}_raw" for name in kinds()), "corrected"]
        words = "less each face's neutral face, of 0 to 3.5 s; smoothed over 0.3 s"
        assert (new["corrected"] == words).all()
        for name in table.columns:
            old = new[f"{name}_raw"] if name in kinds() else new[name]
            pandas.testing.assert_series_equal(old, table[name], check_names=False)
        assert (new["AU12_p"] != new["AU12_p_raw"]).sum() > 100
        assert "AU01_p_raw" not in table

    def test_a_face_without_one_has_empty_cells(self, two) -> None:
        table = table_of(two)
        with pytest.warns(UserWarning, match=r"^talk\.mp4: no neutral face of face 1, not seen from 1 to"):
            new = correct(table, neutral=(1, 2))
        late = (new["source"] == "talk.mp4") & (new["face_id"] == 1)
        assert new.loc[late, kinds()].isna().all(axis=None)
        assert new.loc[late, [f"{name}_raw" for name in kinds()]].notna().all(axis=None)
        assert new.loc[~late & (new["face_id"] >= 0), kinds()].notna().all(axis=None)

    def test_times_behind_the_end_are_told_from_a_face_that_was_away(self, two) -> None:
        end = r"not seen from 300 to 360 s \(the last frame is at 5\.9 s\): the corrected"
        with pytest.warns(UserWarning, match=end):
            correct(table_of(two), neutral=(300, 360))
        with pytest.warns(UserWarning, match="not seen from 1 to 2 s: the corrected"):
            correct(table_of(two), neutral=(1, 2))

    def test_few_frames_are_told(self, film) -> None:
        face = np.full((20, 2), 0.4), np.ones((20, 2))
        table = table_of(film({0: face, 2: face}, unsettled=[(2, 1)]))
        told = r"^talk\.mp4: fewer than 5 neutral frames of faces 0 \(4\), 2 \(3\): their noise is subtr"
        with pytest.warns(UserWarning, match=told):
            correct(table, neutral=(0, 0.3))
        with pytest.warns(UserWarning, match=r"of face 2 \(4\): their noise"):
            correct(table, neutral=(0, 0.4))

    def test_auto_takes_the_frames_with_the_least_action(self, film) -> None:
        """The face smiles but from 3 to 4 s; there it is a little tense."""
        p, r = np.full((100, 2), 0.9), np.full((100, 2), 4.0)
        p[30:41], r[30:41] = (0.1, 0.2), (0.5, 0.25)
        table = table_of(film({0: (p, r)}))
        new = correct(table, neutral="auto")
        same = correct(table, neutral=(3.1, 3.9)).assign(corrected=new["corrected"])
        pandas.testing.assert_frame_equal(new, same)
        assert new["AU12_p"][5] == pytest.approx((0.9 - 0.2) / 0.8) and new["AU12_r"][5] == 3.75
        assert (new.loc[30:40, ["AU12_p", "AU12_r", "AU12_c"]] == 0).all(axis=None)

    def test_auto_wants_some_frames(self, film) -> None:
        table = table_of(film({0: (np.full((30, 2), 0.4), np.ones((30, 2))), 2: (np.full((9, 2), 0.4),) * 2}))
        with pytest.warns(UserWarning, match="of face 2, seen in fewer than 10 frames"):
            new = correct(table, neutral="auto")
        assert new.loc[new["face_id"] == 2, "AU12_p"].isna().all()
        assert (new.loc[new["face_id"] == 0, "AU12_p"] == 0).all()

    def test_a_present_neutral_face_leaves_room(self, film) -> None:
        """An AU that the network sees at rest, with 0.6, is present where it is sure of it."""
        p = np.full((20, 2), 0.6)
        p[10:] = 0.95
        new = correct(table_of(film({0: (p, np.full((20, 2), 2.0))})), neutral=(0, 0.9))
        assert (new.loc[:9, "AU01_c"] == 0).all() and (new.loc[10:, "AU01_c"] == 1).all()

    def test_photographs_keep_theirs(self, film) -> None:
        face = {0: (np.full((1, 2), 0.7), np.full((1, 2), 2.0))}
        table = table_of([*film(face, "a.png"), *film(face, "b.png")])
        with pytest.warns(UserWarning, match=r"^a\.png and 1 more: a single picture keeps its AUs"):
            new = correct(table, neutral="auto", smooth=1)
        pandas.testing.assert_frame_equal(new[table.columns], table)

    def test_without_intensities_and_faces(self, film) -> None:
        face = {0: (np.full((20, 2), 0.7), np.full((20, 2), 2.0))}
        table = data_frame(film(face), AUS)
        assert list(correct(table, smooth=1).columns) == [
            *table.columns,
            *(f"{n}_raw" for n in kinds("cp")),
            "corrected",
        ]
        empty = table_of([FramePrediction("a.mp4", i, i / 10, np.zeros((2, 2, 3)), []) for i in (1, 2, 3)])
        assert correct(empty, neutral="auto")[kinds()].isna().all(axis=None)


class TestMistakes:
    @pytest.mark.parametrize(
        "how, sentence",
        [
            ({"smooth": -1}, "smooth must be from 0 to 60 seconds, got -1"),
            ({"smooth": math.inf}, "smooth must be from 0 to 60 seconds, got inf"),
            ({"neutral": (5, 2)}, "neutral must be two times, the earlier one first, got 5 to 2 s"),
            ({"neutral": (0, math.nan)}, "neutral must be two times"),
            ({"neutral": "always"}, "neutral must be two times in seconds or \"auto\", got 'always'"),
        ],
    )
    def test_impossible_corrections(self, how, sentence) -> None:
        with pytest.raises(ValueError, match=re.escape(sentence)):
            Correction(**how)

    def test_other_thresholds_than_the_tables(self, two) -> None:
        with pytest.raises(ValueError, match=r"AU12_c was made with another threshold than 0\.5; give"):
            correct_table(table_of(two), smooth=1)

    def test_a_table_twice(self, two) -> None:
        with pytest.raises(ValueError, match="the table is corrected already"):
            correct(correct(table_of(two), smooth=1), smooth=1)

    def test_a_table_without_aus(self) -> None:
        with pytest.raises(ValueError, match="the table has no AUs, wanted columns such as AU12_p"):
            correct_table(pandas.DataFrame({"frame": [1]}), smooth=1)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize("intensity", [True, False])
def test_a_joined_table_is_the_corrected_one(tmp_path, two, ending, intensity) -> None:
    parts = [tmp_path / "0", tmp_path / "1"]
    for part, some in zip(parts, (two[:70], two[70:]), strict=True):
        part.write_text(
            "".join(csv_rows(one, AUS, "a, note", intensity=intensity) for one in some), newline=""
        )
    path = tmp_path / f"t.{ending}"
    remarks = join_tables(
        *(path, parts, AUS),
        intensity=intensity,
        correction=Correction((1, 2), 0.3),
        thresholds=THRESHOLDS,
    )
    assert len(remarks) == 1 and remarks[0].startswith("talk.mp4: no neutral face of face 1,")
    write_table(tmp_path / "raw.csv", two, AUS, weights="a, note", intensity=intensity)
    with pytest.warns(UserWarning, match="no neutral face"):
        want = correct(read_table(tmp_path / "raw.csv"), neutral=(1, 2), smooth=0.3)
    pandas.testing.assert_frame_equal(read_table(path), want, check_exact=True, check_dtype=False)
    assert list(want.columns)[: len(columns(AUS, intensity))] == columns(AUS, intensity)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["0", "1", "raw.csv", path.name]


def test_an_index_may_hold_a_label_twice(two):
    whole = table_of(two)
    halves = [whole[whole["source"] == name].reset_index(drop=True) for name in ("talk.mp4", "other.mp4")]
    got = correct(pandas.concat(halves), smooth=0.5).reset_index(drop=True)
    want = correct(whole, smooth=0.5)
    pandas.testing.assert_frame_equal(got, want)
    assert got["AU01_p_raw"].tolist() == pytest.approx(whole["AU01_p"].tolist(), nan_ok=True)


def test_a_table_without_a_column_is_refused_by_its_name(two):
    for name in ("AU12_c", "timestamp"):
        with pytest.raises(ValueError, match=f"lacks the column {name}"):
            correct(table_of(two).drop(columns=name), smooth=0.5)


def test_no_more_than_eight_faces_are_named(film):
    rng = np.random.default_rng(0)
    faces = {i: (rng.random((12, 2)), rng.random((12, 2))) for i in range(11)}
    with pytest.warns(UserWarning, match="faces 0, 1, 2, 3, 4, 5, 6, 7 and 3 more, not seen from 50 to 60 s"):
        correct(table_of(film(faces)), neutral=[50, 60])


SIDES = ("12L", "12R")


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize("intensity", [True, False])
def test_asymmetry_is_that_of_the_corrected_sides(tmp_path, two, ending, intensity) -> None:
    table = data_frame(two, SIDES, intensity=intensity)
    with pytest.warns(UserWarning, match="no neutral face"):
        new = correct(table, neutral=(1, 2), smooth=0.3)
    for kind, name in (("p", "AU12_asymmetry"), *([("r", "AU12_asymmetry_intensity")] if intensity else [])):
        difference = new[f"AU12L_{kind}"] - new[f"AU12R_{kind}"]
        assert new[name].tolist() == pytest.approx(difference.tolist(), abs=1e-9, nan_ok=True)
        assert new[f"{name}_raw"].tolist() == pytest.approx(table[name].tolist(), abs=0, nan_ok=True)
        assert abs(new[name] - table[name]).max() > 0.1
    kinds = "cpr" if intensity else "cp"
    raw = [f"AU12{side}_{kind}_raw" for kind in kinds for side in "LR"]
    raw += [f"{name}_raw" for name in list(table.columns)[-2 if intensity else -1 :]]
    assert list(new.columns) == [*table.columns, *raw, "corrected"]
    (tmp_path / "0").write_text("".join(csv_rows(one, SIDES, intensity=intensity) for one in two), newline="")
    path = tmp_path / f"t.{ending}"
    arguments = {"intensity": intensity, "correction": Correction((1, 2), 0.3), "thresholds": THRESHOLDS}
    join_tables(path, [tmp_path / "0"], SIDES, **arguments)
    pandas.testing.assert_frame_equal(read_table(path), new, check_exact=True, check_dtype=False)
    without = table.drop(columns="AU12_asymmetry")
    with pytest.warns(UserWarning, match="no neutral face"):
        assert "AU12_asymmetry" not in correct(without, neutral=(1, 2))


def test_a_face_that_is_uneven_at_rest_is_even_against_its_own(film) -> None:
    """A corner of the mouth that always hangs, and a smile of both."""
    p = np.tile([0.1, 0.4], (40, 1))
    p[20:] += [0.72, 0.48]  # 0.8 of what is left to 1
    table = data_frame(film({0: (p, 5 * p)}), SIDES)
    assert table["AU12_asymmetry"].round(6).unique().tolist() == [-0.3, -0.06]
    assert correct(table, neutral=(0, 1))["AU12_asymmetry"].unique().tolist() == [0.0]
