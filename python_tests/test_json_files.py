"""JSON files: what JSON lacks is written as something else, and a damaged file is told in a sentence."""

import json
from pathlib import Path

import pytest

from jaa_ext.json_files import read_json, write_json


def test_what_is_written_is_read(tmp_path: Path) -> None:
    value = {"scores": [0.5, float("nan"), -float("inf")], "shape": (2, 3), "name": "jaä", "none": None}
    write_json(tmp_path / "a.json", value)
    wanted = {"scores": [0.5, None, None], "shape": [2, 3], "name": "jaä", "none": None}
    assert read_json(tmp_path / "a.json", dict, "anything") == wanted
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_name_that_is_no_utf_8(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"file": b"\xff.png".decode("utf-8", "surrogateescape")})
    assert json.loads((tmp_path / "a.json").read_text())["file"] == "\\udcff.png"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": [1.5, "2"]}', r"wanted numbers, got a\.1: .*number"),
        ("[1.5]", "wanted numbers, got something else: "),
        ('{"a": [1.5', "wanted JSON "),
        ("", "wanted JSON "),
    ],
)
def test_a_damaged_file_is_one_sentence(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=rf"a\.json: is damaged: {words}") as caught:
        read_json(tmp_path / "a.json", dict[str, list[float]], "numbers")
    assert len(str(caught.value).splitlines()) == 1


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "a.json", dict, "anything")
