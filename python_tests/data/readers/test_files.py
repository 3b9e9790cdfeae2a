import pytest

from jaa_ext.data.readers.files import (
    decimal_number,
    estimate_lines,
    find_folders,
    frame_numbers,
    numbered_images,
    other_separator,
    read_lines,
    whole_number,
)
from jaa_ext.data.release import ReleaseError


def test_the_shallowest_folders_come_first_then_by_name(tmp_path):
    for name in ("z/A/B", "b/c/A/B", "a/c/A/B", "a/c/d/A/B"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "A").mkdir()
    (tmp_path / "A" / "B").write_text("a file")
    expected = [tmp_path / name for name in ("z/A/B", "a/c/A/B", "b/c/A/B")]
    assert find_folders(tmp_path, "A/B") == expected


def test_folders_three_levels_down_are_not_found(tmp_path):
    (tmp_path / "1/2/3/A").mkdir(parents=True)
    with pytest.raises(ReleaseError, match=r"folder A .*2 levels below, got none"):
        find_folders(tmp_path, "A")


def test_lines_are_read_without_byte_order_mark_and_blank_end(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_bytes(b"\xef\xbb\xbfa,b\r\n\r\n1,2\r\n\r\n \r\n")
    assert read_lines(path) == ["a,b", "", "1,2"]
    assert estimate_lines(path) == 3
    with pytest.raises(ReleaseError, match=r"none.txt: .*\(No such file"):
        read_lines(tmp_path / "none.txt")


def test_ranges_include_both_ends():
    assert frame_numbers("198-201 335 7-7") == {7, 198, 199, 200, 201, 335}
    assert frame_numbers("") == set()


def test_what_is_no_whole_number_is_named(tmp_path):
    assert whole_number(" 12 ", tmp_path, 1, "a frame number") == 12
    with pytest.raises(ReleaseError, match=rf"{tmp_path}, line 3: .*a frame number, got '1\.5'"):
        whole_number(" 1.5 ", tmp_path, 3, "a frame number")


def test_images_by_their_numbers(tmp_path):
    for name in ("10.JPG", "2.png", "0001.jpeg", "3.txt", "٣.jpg", "-4.jpg", "1_0.jpg", f"{'9' * 19}.jpg"):
        (tmp_path / name).touch()
    images = {1: "0001.jpeg", 2: "2.png", 10: "10.JPG"}
    assert numbered_images(tmp_path) == {number: tmp_path / name for number, name in images.items()}


@pytest.mark.parametrize("text", ["", "1_0", "٣", "1,5", "0x1", "one", "1e", "--1"])
def test_texts_that_are_no_numbers(text, tmp_path):
    with pytest.raises(ValueError, match="wanted a number, got"):
        decimal_number(text)
    with pytest.raises(ReleaseError, match="a, line 2: wanted a count, got"):
        whole_number(text, tmp_path / "a", 2, "a count")


def test_numbers_are_bounded(tmp_path):
    assert decimal_number(" -1.5e3 ") == -1500 and whole_number(" +07 ", tmp_path, 1, "a count") == 7
    assert whole_number("-1", tmp_path, 1, "a label", lowest=-1) == -1
    for text in ("-1", "1" * 19, "1.0"):
        with pytest.raises(ReleaseError, match=f"line 1: wanted a count, got '{text}'"):
            whole_number(text, tmp_path, 1, "a count")


def test_other_separators():
    separators = {"a;b": "';'", "a\tb": r"'\t'", "a|b": "'|'", "a,b;c": "", "a b": ""}
    assert {line: other_separator(line) for line in separators} == separators
