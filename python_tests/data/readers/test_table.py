"""One's own images and labels in a CSV file."""

import csv

import numpy as np
import pytest

from jaa_ext.data import ReleaseError
from jaa_ext.data.readers.table import read_table

LANDMARKS = [f"{axis}_{i}" for axis in "xy" for i in range(49)]


@pytest.fixture
def table(tmp_path):
    """Writes rows under a header."""

    def write(header, *rows, encoding="utf-8"):
        with (tmp_path / "mine.csv").open("w", newline="", encoding=encoding) as file:
            csv.writer(file).writerows([header, *rows])
        return tmp_path / "mine.csv"

    return write


def test_all_columns(table, tmp_path):
    xs, ys = np.arange(49) + 0.25, 100.5 - np.arange(49)
    header = ["AU12", *LANDMARKS, "frame", "image", "AU01", "task", "subject", "fold", "AU45"]
    path = table(
        header,
        ["1", *xs, *ys, "12", "a/1.png", "0", "smile", "Ann", "1", "9"],
        ["-1", *[""] * 98, "7", "b\\2.png", "", "smile", "Ann", "1", "1"],
        ["0", *ys, *xs, "007", "3.png", " 1 ", "", "Bob", "2", "0"],
    )
    release = read_table(path)
    assert (release.name, release.aus) == ("mine", (12, 1, 45))
    assert [(s.name, s.subject, s.task, s.fold, s.length) for s in release.clips] == [
        ("Ann/smile", "Ann", "smile", "1", 2),
        ("Bob", "Bob", "", "2", 1),
    ]
    (first, second), (third,) = (list(s.read()) for s in release.clips)
    assert (first.number, first.image, first.labels) == (12, tmp_path / "a" / "1.png", (1, 0, -1))
    assert np.array_equal(first.landmarks, np.column_stack([xs, ys]))
    assert (second.number, second.image, second.labels) == (7, tmp_path / "b" / "2.png", (-1, -1, 1))
    assert second.landmarks is None
    assert (third.number, third.labels) == (7, (0, 1, 0))
    assert np.array_equal(third.landmarks, np.column_stack([ys, xs]))


def test_intensities(table):
    path = table(
        ["image", "subject", "AU12", "AU04", "AU4_intensity", "AU1"],
        ["1.png", "A", "1", "1", " 2.5", "0"], ["2.png", "A", "1", "1", "", "0"],
        ["3.png", "B", "0", "0", "0", "0"],
    )  # fmt: skip
    first, second = (list(s.read()) for s in read_table(path).clips)
    nan = np.nan
    got = [frame.intensities for frame in (*first, *second)]
    assert np.array_equal(got, [[nan, 2.5, nan], [nan, nan, nan], [nan, 0, nan]], equal_nan=True)
    for wrong in ("5.1", "-1", "nan", "C"):
        path = table(["image", "subject", "AU4", "AU4_intensity"], ["1.png", "A", "1", wrong])
        with pytest.raises(
            ReleaseError,
            match=rf"line 2: .*0 to 5.* 'AU4_intensity', got '{wrong}'",
        ):
            read_table(path)


def test_sides(table):
    path = table(
        ["image", "subject", "AU12L", "AU12", "AU012R", "AU12R_intensity", "AU12_intensity"],
        ["1.png", "A", "1", "1", "0", "0.5", "3"],
    )
    release = read_table(path)
    ((frame,),) = (list(clip.read()) for clip in release.clips)
    assert release.aus == ("12L", 12, "12R") and frame.labels == (1, 1, 0)
    assert np.array_equal(frame.intensities, [np.nan, 3, 0.5], equal_nan=True)
    for header, message in (
        (["AU12L", "AU012L"], "wanted each column once, got AU12L 2 times"),
        (["AU12L", "AU12R_intensity"], "wanted a column 'AU12R' beside 'AU12R_intensity', got none"),
        (["AU12", "AU12l"], "column 'AU12l' is unknown"),
    ):
        path = table(["image", "subject", *header], ["1.png", "A", "1", "1"])
        with pytest.raises(ReleaseError, match=message):
            read_table(path)


def test_the_least(table, tmp_path):
    (tmp_path / "photos").mkdir()
    path = table(["image", "subject", "AU4"], ["frame_0012.png", "A", "1"], encoding="utf-8-sig")
    (clip,) = read_table(path, images=tmp_path / "photos").clips
    (frame,) = clip.read()
    assert (clip.name, clip.fold, frame.number, frame.landmarks) == ("A", "", 12, None)
    assert frame.image == tmp_path / "photos" / "frame_0012.png"


def test_files_of_spreadsheets_and_pandas(tmp_path):
    text = '\ufeffimage, subject, AU1, AU4\r\n1.png, "A, B", 1.0, 0.0\r\n,,,\r\n2.png, "A, B", , -1.0'
    (tmp_path / "mine.csv").write_bytes(text.encode())
    (clip,) = read_table(tmp_path / "mine.csv").clips
    assert clip.subject == "A, B"
    assert [(f.number, f.labels) for f in clip.read()] == [(1, (1, 0)), (2, (-1, -1))]


def test_where_the_names_number_no_frames_the_lines_do(table):
    path = table(
        ["image", "subject", "AU4"],
        ["1.png", "A", "1"], ["x/1.png", "A", "1"], ["5.png", "B", "1"], ["b.png", "C", "1"],
        [f"{10**30}.png", "D", "1"],
    )  # fmt: skip
    numbers = [[frame.number for frame in s.read()] for s in read_table(path).clips]
    assert numbers == [[2, 3], [5], [5], [6]]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (
            ["image", "subject", "AU4", "AU01_intensity"],
            "wanted a column 'AU1' beside 'AU01_intensity', got none",
        ),
        (
            ["image", "subject", "AU4", "AU4_intensity", "AU04_intensity"],
            "wanted each column once, got AU4_intensity 2",
        ),
        (["image", "subject", "AU4", "AU1_r"], "column 'AU1_r' is unknown; the nearest known one is 'AU1"),
        (["image", "subject", "AU4", "AU01_r"], "column 'AU01_r' is unknown; .* is 'AU1_intensity'$"),
        (["image", "subject", "AU12l"], "column 'AU12l' is unknown; the nearest known one is 'AU12L'"),
        (["image", "subject", "AU12_left"], ".* the nearest known one is 'AU12L'"),
        (["image", "subject", "AU12_right"], ".* the nearest known one is 'AU12R'"),
        (["image", "subject", "AU01 right"], ".* the nearest known one is 'AU1R'"),
        (["image", "subject", "AU12", "AU12r_intensity"], ".* the nearest known one is 'AU12R_intensity'"),
        (["image", "Subject", "AU4"], "column 'Subject' is unknown; the nearest known one is 'subject'"),
        (["image", "subject", "AU4", "x_49"], "column 'x_49' is unknown; the nearest known one is '[xy]_"),
        (["image", "subject", "au12"], "column 'au12' is unknown; the nearest known one is 'AU12'"),
        (["image", "AU4"], "wanted a column 'subject': folds must not share subjects, got image, AU4"),
        (["subject", "AU4"], "wanted a column 'image', got subject, AU4"),
        (["image", "subject"], "wanted at least one column of labels such as 'AU12', got none"),
        (["image", "subject", "AU4", "AU04"], "wanted each column once, got AU4 2 times"),
        (["image;subject;AU4"], "wanted values separated by commas, got ones separated by ';'"),
        (["image\tsubject\tAU4"], r"wanted values separated by commas, got ones separated by '\\t'"),
        (["image", "subject", "x" * 100_000], r"column '(x{57})\.\.\.' is unknown"),
        (["image", "subject", "AU4\0"], r"column 'AU4\\x00' is unknown"),
        (["image", "subject", *(f"AU{i}" for i in range(1, 10_001))], "column 'AU1000' is unknown"),
        (["image", "subject", "AU4", "image"], "wanted each column once"),
        (["image", "subject", "AU4", *LANDMARKS[:-1]], r"wanted all columns x_0\.\.x_48 .* got no 'y_48'"),
        ([], "wanted a column 'image', got no header"),
    ],
)
def test_columns_that_do_not_fit(table, header, message):
    with pytest.raises(ReleaseError, match=rf"mine\.csv: {message}"):
        read_table(table(header))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (["b.png", "A", "1", "2", "f", "9"], "wanted 5 values, as in the header, got 6"),
        (["b.png", "A", "yes", "2", "f"], "wanted 1, 0, or nothing, .* in column 'AU4', got 'yes'"),
        (["b.png", "A", "nan", "2", "f"], "wanted 1, 0, or nothing, .* in column 'AU4', got 'nan'"),
        (["b.png", "A", "٣", "2", "f"], "wanted 1, 0, or nothing, .* in column 'AU4', got '٣'"),
        (["b.png", "A", "7", "2", "f"], "wanted 1, 0, or nothing, .* in column 'AU4', got '7'"),
        (["b.png", "A", "1", "٣", "f"], "wanted a whole number of at least 0 in column 'frame', got '٣'"),
        (["b.png", "A", "1", "-1", "f"], "wanted a whole number of at least 0 in column 'frame', got '-1'"),
        (["b\0.png", "A", "1", "2", "f"], r"wanted text in column 'image', .*: 'b\\x00\.png'"),
        (["b.png", "A\aB", "1", "2", "f"], r"wanted text in column 'subject', .*: 'A\\x07B'"),
        (["b.png", "A", "1.5", "2", "f"], "wanted 1, 0, or nothing, .* in column 'AU4', got '1.5'"),
        (["b.png", "A", ".0", "2", "f"], "wanted 1, 0, or nothing, .* in column 'AU4', got '.0'"),
        (["b.png", "A", "1", "2.5", "f"], "wanted a whole number of at least 0 in column 'frame', got '2.5'"),
        (
            ["b.png", "A", "1", "01", "f"],
            r"wanted a frame number of its own, got 1 .*mine\.csv, line 2",
        ),
        (["b.png", "A", "1", "2", "g"], "wanted subject 'A' in fold 'f' as in line 2, got 'g'"),
        (["b.png", " ", "1", "2", "f"], "wanted a value in column 'subject', got none"),
        (["", "A", "1", "2", "f"], "wanted a value in column 'image', got none"),
        (["b.png", "A/B", "1", "2", "f"], "wanted a subject without a slash, got 'A/B'"),
    ],
)
def test_lines_that_do_not_fit(table, row, message):
    path = table(["image", "subject", "AU4", "frame", "fold"], ["a.png", "A", "1", "1", "f"], row)
    with pytest.raises(ReleaseError, match=rf"mine\.csv, line 3: {message}"):
        read_table(path)


def test_landmarks_that_are_no_numbers(table):
    for text, message in (("", "got ''"), ("left", "got 'left'"), ("1_0", "got '1_0'"), ("٣", "got '٣'")):
        path = table(["image", "subject", "AU4", *LANDMARKS], ["a.png", "A", "1", *["1"] * 97, text])
        with pytest.raises(ReleaseError, match=rf"mine\.csv, line 2: .*'y_48', {message}"):
            read_table(path)


def test_files_that_cannot_be_read(table, tmp_path):
    with pytest.raises(ReleaseError, match=r"none\.csv: cannot be read \(No such file"):
        read_table(tmp_path / "none.csv")
    path = table(["image", "subject", "AU4"], ["a.png", "Zoë", "1"], encoding="latin-1")
    with pytest.raises(ReleaseError, match=r"mine\.csv: .*no UTF-8"):
        read_table(path)
    path.write_text(f"image,subject,AU4\n{'a' * 200_000},A,1\n")
    with pytest.raises(ReleaseError, match=r"mine\.csv, line 2: wanted comma-separated values \(field lar"):
        read_table(path)
    path.write_text("image,subject,AU4\na.png,A,1", encoding="utf-16")
    with pytest.raises(ReleaseError, match=r"mine\.csv: .*no UTF-8"):
        read_table(path)
    with pytest.raises(ReleaseError, match="nowhere: wanted the folder of the images"):
        read_table(path, images=tmp_path / "nowhere")
