"""Two tables of one video, compared face by face."""

import csv
import json

import numpy as np
import pandas
import pytest

from jaa_ext.predict import (
    FramePrediction,
    compare_tables,
    convert_table,
    correct_table,
    read_table,
    write_table,
)

AUS = (1, 12, 24)
STEP = 0.04
"""Seconds of a frame."""


@pytest.fixture
def write(tmp_path, prediction):
    """Writes a table of jaa_ext from (frame, [(x, probabilities), ...]) and gives its file.

    Faces are 240 pixels wide, from 130 + x on; the intensity is 4 times the probability, and at least 1 where
    the AU is present.
    """
    grid = prediction().landmarks

    def make(name, frames, source="talk.mp4", rated=True, start=0.0, aus=AUS):
        def face(face_id, x, probabilities):
            p = np.float32(probabilities)
            strength = np.where(p > 0.5, np.maximum(4 * p, 1), np.minimum(4 * p, 0.99))
            return prediction(
                p,
                face_id=face_id,
                landmarks=grid + np.float32((x, 0)),
                box=(100.0 + x, 20.0, 400.0 + x, 320.0),
                intensities=np.float32(strength) if rated else None,
            )

        predictions = [
            FramePrediction(
                source,
                number,
                start + (number - 1) * STEP,
                np.zeros((2, 2, 3), np.uint8),
                [face(i, *one) for i, one in enumerate(faces)],
            )
            for number, faces in frames
        ]
        write_table(tmp_path / name, predictions, aus, intensity=rated)
        return tmp_path / name

    return make


@pytest.fixture
def talk(write):
    """Ten frames, of which the third has no face."""
    frames = [(i, [] if i == 3 else [(i, (i / 10, 0.9, 0.1))]) for i in range(1, 11)]
    return write("talk.csv", frames)


def converted(path, to):
    table = convert_table(read_table(path), to).table
    out = path.with_name(f"{path.stem}_{to}.csv")
    table.to_csv(out, index=False)
    return out


def of(comparison, au):
    return next(one for one in comparison.aus if one.au == au)


class TestOneFace:
    def test_with_itself(self, talk) -> None:
        comparison = compare_tables(talk, talk)
        assert comparison.tools == ("jaa_ext", "jaa_ext") and comparison.names == (str(talk), str(talk))
        assert (comparison.frames, comparison.faces, comparison.pairs) == (10, (9, 9), 9)
        assert [one.au for one in comparison.aus] == ["AU01", "AU12", "AU24"]
        raised = of(comparison, "AU01")
        assert (raised.frames, raised.kappa, raised.f1, raised.quantity) == (9, 1, 1, "intensity")
        assert raised.icc == pytest.approx(1) and raised.mean_difference == 0
        assert of(comparison, "AU12").kappa is None  # always present in both
        assert comparison.remarks == () and comparison.values["AU01"].shape == (9, 2)

    @pytest.mark.parametrize("to", ["openface", "pyfeat"])
    def test_with_itself_under_other_columns(self, talk, to) -> None:
        comparison = compare_tables(talk, converted(talk, to))
        assert (comparison.frames, comparison.faces, comparison.pairs) == (10, (9, 9), 9)
        raised = of(comparison, "AU01")
        assert raised.kappa == 1 and raised.mean_difference == 0
        assert raised.quantity == {"openface": "intensity", "pyfeat": "probability"}[to]
        assert comparison.tools[1] == {"openface": "OpenFace", "pyfeat": "py-feat"}[to]
        assert comparison.only == {"openface": (("AU24",), ()), "pyfeat": ((), ())}[to]

    def test_what_differs(self, write, talk) -> None:
        other = write("other.csv", [(i, [(i, ((i + 2) / 10, 0.9, 0.1))]) for i in range(1, 9)])
        comparison = compare_tables(talk, other)
        assert (comparison.frames, comparison.faces, comparison.pairs) == (8, (7, 8), 7)
        raised = of(comparison, "AU01")  # a says so in 6, 7, 8; b from 4 on; the face of 3 is in b alone
        assert (raised.frames, raised.present_a, raised.present_b) == (7, 3 / 7, 5 / 7)
        assert raised.f1 == pytest.approx(6 / 8)
        assert raised.mean_difference is not None and raised.mean_difference > 0

    def test_without_intensities_probabilities_are_compared(self, write, talk) -> None:
        other = write("other.csv", [(i, [(i, (i / 10 + 0.05, 0.9, 0.1))]) for i in range(1, 10)], rated=False)
        raised = of(compare_tables(talk, other), "AU01")
        assert raised.quantity == "probability" and raised.mean_difference == pytest.approx(0.05)
        openface = converted(talk, "openface")
        mixed = of(compare_tables(openface, other), "AU01")  # intensities here, probabilities there
        assert mixed.kappa is not None and (mixed.quantity, mixed.values, mixed.icc) == (None, 0, None)

    def test_faces_with_empty_aus_are_not_compared(self, talk, tmp_path) -> None:
        """As `--neutral` leaves the AUs of a face without a neutral face; in frame 3 there is none."""
        table = read_table(talk)
        aus = [name for name in table.columns if name.startswith("AU")]
        table.loc[table["frame"] <= 4, aus] = np.nan
        table.loc[table["frame"] == 5, [name for name in aus if name.startswith("AU01")]] = np.nan
        table.to_csv(tmp_path / "corrected.csv", index=False)
        for one, other, faces in (
            (talk, tmp_path / "corrected.csv", (9, 6)),
            (tmp_path / "corrected.csv", talk, (6, 9)),
            (tmp_path / "corrected.csv",) * 2 + ((6, 6),),
        ):
            comparison = compare_tables(one, other)
            assert (comparison.frames, comparison.faces) == (10, faces)
            assert (comparison.pairs, comparison.without_aus) == (6, 3)
            assert [one.frames for one in comparison.aus] == [5, 6, 6]  # AU01 is empty in one more
            assert [one.values for one in comparison.aus] == [5, 6, 6]
            assert all(len(pair) == 6 for pair in comparison.values.values())
            assert comparison.notes()[2:4] == [
                "6 faces are in both and are compared.",
                "Also in both, but left out since their AUs are empty in a or b: 3.",
            ]
            assert comparison.to_dict()["without_aus"] == 3
        assert compare_tables(talk, talk).without_aus == 0

    def test_faces_that_have_aus_in_one_table_only(self, talk, tmp_path) -> None:
        table = read_table(talk)
        aus = [name for name in table.columns if name.startswith("AU")]
        for name, empty in (("early.csv", table["frame"] > 5), ("late.csv", table["frame"] <= 5)):
            part = table.copy()
            part.loc[empty, aus] = np.nan
            part.to_csv(tmp_path / name, index=False)
        with pytest.raises(
            ValueError, match=r"early\.csv and .*late\.csv: have no face in common of which both give"
        ):
            compare_tables(tmp_path / "early.csv", tmp_path / "late.csv")

    def test_a_table_without_places_is_paired_by_frame(self, talk, tmp_path) -> None:
        table = convert_table(read_table(talk), "openface").table
        table = table[[name for name in table.columns if name[0] not in "xy"]]
        table.to_csv(tmp_path / "aus.csv", index=False)
        assert compare_tables(talk, tmp_path / "aus.csv").pairs == 9

    def test_a_face_elsewhere_is_another(self, write, talk) -> None:
        elsewhere = write("other.csv", [(i, [(i + 400 * (i > 5), (0.9,) * 3)]) for i in range(1, 11)])
        assert compare_tables(talk, elsewhere).pairs == 4  # 1, 2, 4, 5


class TestSeveralFaces:
    @pytest.fixture
    def two(self, write):
        """Two people, of whom one has AU 1 and the other AU 12."""
        return write("two.csv", [(i, [(0, (0.9, 0.1, 0)), (500, (0.1, 0.9, 0))]) for i in range(1, 6)])

    def test_they_are_told_apart_by_their_places(self, write, two) -> None:
        swapped = write("other.csv", [(i, [(510, (0.1, 0.9, 0)), (-10, (0.9, 0.1, 0))]) for i in range(1, 6)])
        comparison = compare_tables(two, swapped)
        assert comparison.pairs == 10 and of(comparison, "AU01").kappa == of(comparison, "AU12").kappa == 1

    def test_the_greatest_overlap_is_taken(self, write, two) -> None:
        # Both overlap the first face, and the nearer one, which stands second, is it.
        near = write("near.csv", [(i, [(60, (0.1, 0.1, 0)), (10, (0.9, 0.1, 0))]) for i in range(1, 6)])
        comparison = compare_tables(two, near)
        assert comparison.pairs == 5 and comparison.faces == (10, 10)
        assert of(comparison, "AU01").present_b == 1

    def test_another_tool_may_leave_out_the_frames_in_which_they_are_two(self, write, tmp_path) -> None:
        path = write("some.csv", [(1, [(0, (0.9, 0.1, 0)), (500, (0, 0, 0))]), (2, [(0, (0.1, 0.9, 0))])])
        (tmp_path / "other.csv").write_text("frame_idx,frame_time_in_ms,au_12\n1,0.04,1\n")
        comparison = compare_tables(path, tmp_path / "other.csv")
        assert (comparison.tools, comparison.frames, comparison.faces, comparison.pairs) == (
            *(("jaa_ext", "LibreFace"), 1, (1, 1), 1),
        )
        assert of(comparison, "AU12").f1 == 1

    def test_without_places_frames_with_one_face_are_compared(self, write, tmp_path) -> None:
        frames = [(i, [(0, (0.9, 0.1, 0)), *([(500, (0, 0, 0))] if i == 3 else [])]) for i in range(1, 6)]
        path = write("some.csv", frames)
        rows = "".join(f"{i},{i / 25},1\n" for i in range(5))
        (tmp_path / "other.csv").write_text(f"frame_idx,frame_time_in_ms,au_12\n{rows}")
        comparison = compare_tables(path, tmp_path / "other.csv")
        assert (comparison.faces, comparison.pairs) == ((6, 5), 4)
        assert "b has neither landmarks nor boxes" in comparison.remarks[-1]

    def test_without_places_they_cannot_be(self, two, tmp_path) -> None:
        table = convert_table(read_table(two), "openface").table
        table[[name for name in table.columns if name[0] not in "xy"]].to_csv(
            tmp_path / "aus.csv", index=False
        )
        (tmp_path / "one.csv").write_text("frame_idx,frame_time_in_ms,au_12\n1,0.04,1\n")
        for name in ("aus.csv", "one.csv"):
            with pytest.raises(ValueError, match=rf"{name}: has neither landmarks nor boxes in pixels"):
                compare_tables(two, tmp_path / name)


class TestByTime:
    def test_frames_of_other_numbers(self, write, talk) -> None:
        """The other tool left out the first two frames and counted on from 1."""
        frames = [(i, [(i + 2, ((i + 2) / 10, 0.9, 0.1))]) for i in range(1, 9)]
        other = write("other.csv", frames, start=2 * STEP + 0.01)
        comparison = compare_tables(talk, other, by="time")
        assert (comparison.frames, comparison.pairs, comparison.remarks) == (8, 7, ())
        assert of(comparison, "AU01").mean_difference == 0
        by_number = compare_tables(talk, other)
        assert by_number.pairs == 7 and of(by_number, "AU01").mean_difference != 0
        assert by_number.remarks == (
            "The same frame numbers have other times in a and b, 0.09 s apart; --by time matches them by "
            "these.",
        )

    def test_a_frame_has_one_partner(self, talk, tmp_path) -> None:
        """The other table has each frame twice, as at twice the rate."""
        table = convert_table(read_table(talk), "openface").table
        twice = pandas.concat((table, table.assign(timestamp=table["timestamp"] + STEP / 2)))
        twice = twice.sort_values("timestamp").assign(frame=range(1, 21))
        twice.to_csv(tmp_path / "twice.csv", index=False)
        for one, other in ((talk, tmp_path / "twice.csv"), (tmp_path / "twice.csv", talk)):
            comparison = compare_tables(one, other, by="time")
            assert comparison.frames == 10 and of(comparison, "AU01").kappa == 1
            assert of(comparison, "AU01").mean_difference == 0

    def test_libreface_counts_the_frames_that_ffmpeg_wrote(self, talk, tmp_path) -> None:
        """FFmpeg fills a gap behind the second frame, and all others count one more."""
        table = read_table(talk)
        table["timestamp"] += np.where(table["frame"] > 2, STEP, 0)
        table.to_csv(tmp_path / "gap.csv", index=False)
        lines = [f"{i},{i * STEP},{int(i >= 6)}" for i in range(11)]
        (tmp_path / "lf.csv").write_text("\n".join(["frame_idx,frame_time_in_ms,au_1", *lines]))
        comparison = compare_tables(tmp_path / "gap.csv", tmp_path / "lf.csv", by="time")
        assert (comparison.frames, comparison.pairs, of(comparison, "AU01").kappa) == (10, 9, 1)
        by_number = compare_tables(tmp_path / "gap.csv", tmp_path / "lf.csv")
        assert of(by_number, "AU01").kappa < 1 and "--by time" in by_number.remarks[0]

    def test_tables_without_times(self, talk) -> None:
        with pytest.raises(ValueError, match=r"talk_pyfeat\.csv: has no times finer than seconds"):
            compare_tables(talk, converted(talk, "pyfeat"), by="time")

    def test_times_that_do_not_rise(self, talk, tmp_path) -> None:
        read_table(talk).assign(timestamp=0.0).to_csv(tmp_path / "still.csv", index=False)
        with pytest.raises(ValueError, match=r"still\.csv: its times do not rise with its frames"):
            compare_tables(talk, tmp_path / "still.csv", by="time")


class TestMistakes:
    def test_of_the_caller(self, talk) -> None:
        with pytest.raises(ValueError, match=r'^by must be "frame" or "time", got "name"'):
            compare_tables(talk, talk, by="name")

    def test_no_frame_in_common(self, write, talk) -> None:
        other = write("other.csv", [(i, [(0, (0.5,) * 3)]) for i in (20, 21)])
        with pytest.raises(ValueError, match=r"talk\.csv and .*other\.csv: have no frame in common"):
            compare_tables(talk, other)

    def test_no_face_in_common(self, write, talk) -> None:
        other = write("other.csv", [(i, [(900, (0.5,) * 3)]) for i in range(1, 5)])
        with pytest.raises(ValueError, match=r"have no face in common; .* in the same size"):
            compare_tables(talk, other)
        faceless = write("faceless.csv", [(i, []) for i in range(1, 5)])
        with pytest.raises(ValueError, match="have no face in common"):
            compare_tables(talk, faceless)

    def test_no_au_in_common(self, talk, tmp_path) -> None:
        (tmp_path / "b.csv").write_text("frame,timestamp,confidence,success,AU45_c\n1,0.0,1.0,1,1\n")
        with pytest.raises(ValueError, match="have no AU in common, got AU01, AU12, AU24 and AU45"):
            compare_tables(talk, tmp_path / "b.csv")

    def test_several_videos(self, write, talk, tmp_path) -> None:
        other = write("other.csv", [(1, [(0, (0.5,) * 3)])], source="other.mp4")
        pandas.concat([read_table(talk), read_table(other)]).to_csv(tmp_path / "both.csv", index=False)
        with pytest.raises(ValueError, match=r"both\.csv: wanted the table of one video, got 2"):
            compare_tables(talk, tmp_path / "both.csv")


class TestResults:
    def test_rows_and_notes(self, talk) -> None:
        comparison = compare_tables(talk, converted(talk, "pyfeat"))
        header, first, second, _ = comparison.rows()
        assert header == ["AU", "frames", "a %", "b %", "kappa", "F1 %", "ICC", "r", "b - a"]
        assert first == ["AU01", "9", "55.6", "55.6", "1.00", "100.0", "1.00", "1.00", "0.00"]
        assert second == ["AU12", "9", "100.0", "100.0", "-", "100.0", "-", "-", "0.00"]
        assert comparison.notes()[0] == f"a: {talk} (jaa_ext), 9 faces with AUs in 10 common frames"
        assert comparison.notes()[2:] == [
            "9 faces are in both and are compared.",
            "ICC, r and b - a are of the probability of all AUs.",
            "py-feat says no presence: present is a probability over 0.5.",
        ]

    def test_what_openface_3_does_not_say(self, talk, tmp_path) -> None:
        box = [130.0, 50.0, 370.0, 290.0, 0.9, *[0.0] * 10]
        row = f'2026-11-30,0,0,"{box}","[[0.75, 0, 0, 0, 0, 0.25, 0, 0]]"'
        (tmp_path / "of3.csv").write_text(
            f"timestamp,frame_index,face_id,face_detection,action_units\n{row}\n"
        )
        comparison = compare_tables(talk, tmp_path / "of3.csv")
        assert comparison.pairs == 1 and [one.au for one in comparison.aus] == ["AU01", "AU12"]
        assert of(comparison, "AU12").quantity == "probability"
        assert comparison.remarks == (
            "OpenFace 3.0 says no presence: present is a probability over 0.5.",
            "OpenFace 3.0 names no AUs: its eight are taken for 1, 2, 4, 6, 9, 12, 25, 26.",
        )

    def test_other_videos_and_corrected_tables_are_told(self, write, talk, tmp_path) -> None:
        frames = [(i, [(i, (i / 10, 0.9, 0.1))]) for i in range(1, 11)]
        remark = "a is of talk.mp4, and b of walk.mp4: are they one video?"
        other = write("walk.csv", frames, source="films/walk.mp4")
        assert compare_tables(talk, other).remarks == (remark,)
        assert compare_tables(talk, write("same.csv", frames, source="films/talk.mp4")).remarks == ()
        calm = tmp_path / "calm.csv"
        correct_table(read_table(talk), smooth=0.5).to_csv(calm, index=False)
        assert compare_tables(talk, calm).remarks == (
            "The AUs of b are corrected: smoothed over 0.5 s; its columns *_raw are not compared.",
        )

    def test_files(self, talk, tmp_path) -> None:
        comparison = compare_tables(talk, converted(talk, "openface"))
        written = comparison.write(tmp_path / "out")
        assert [path.name for path in written] == ["compare.csv", "compare.json", "compare.png"]
        assert all(path.stat().st_size for path in written)
        with (tmp_path / "out" / "compare.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["au"] for row in rows] == ["AU01", "AU12"]
        assert rows[0]["kappa"] == "1.0" and rows[1]["kappa"] == "" and rows[0]["frames"] == "9"
        told = json.loads((tmp_path / "out" / "compare.json").read_text())
        assert (
            told["tools"] == ["jaa_ext", "OpenFace"] and told["pairs"] == 9 and told["only"] == [["AU24"], []]
        )
        assert told["aus"][1]["kappa"] is None and "values" not in told


def test_by_time_with_a_table_without_rows_or_of_one_frame(talk, write):
    for other in (write("empty.csv", []), write("late.csv", [(1, [(0, (0.5, 0.9, 0.1))])], start=100.0)):
        with pytest.raises(ValueError, match="have no frame in common"):
            compare_tables(talk, other, by="time")
    one = write("one.csv", [(1, [(0, (0.5, 0.9, 0.1))])])
    with pytest.raises(ValueError, match="have no frame in common"):
        compare_tables(one, write("late.csv", [(1, [(0, (0.5, 0.9, 0.1))])], start=100.0), by="time")


def test_sides_are_compared_and_their_asymmetry_is_no_au(write, tmp_path):
    aus = ("12L", "12R", 4)
    frames = [(i, [(0, (i / 40, 0.9, 0.1 + i / 30))]) for i in range(1, 11)]
    a, b = (write(name, frames, aus=aus) for name in ("a.csv", "b.csv"))
    comparison = compare_tables(a, b)
    assert [one.au for one in comparison.aus] == ["AU04", "AU12L", "AU12R"] and comparison.only == ((), ())
    comparison.write(tmp_path / "out")
    assert (tmp_path / "out" / "compare.png").exists()
