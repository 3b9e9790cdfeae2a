from __future__ import annotations

import csv
from pathlib import Path

import pytest

from jaa_ext.evaluation.metrics import mean
from jaa_ext.experiments.tables import ResultTable, percent, percent_of_one

TABLE = ResultTable(
    "Table 7, in percent",
    ("method", "paper", "ours"),
    (("R-Net", "54.9", "53.0"), ("HMR-Net, wide", "", "55.1")),
    ("One sentence [not markup].", "Another one."),
)


def test_markdown() -> None:
    assert TABLE.markdown() == (
        "**Table 7, in percent**\n"
        "\n"
        "| method | paper | ours |\n"
        "| --- | ---: | ---: |\n"
        "| R-Net | 54.9 | 53.0 |\n"
        "| HMR-Net, wide |  | 55.1 |\n"
        "\n"
        "One sentence [not markup].\n"
        "\n"
        "Another one.\n"
    )


def test_files(tmp_path: Path) -> None:
    TABLE.write(tmp_path / "new", "table7")
    assert {file.name for file in (tmp_path / "new").iterdir()} == {"table7.md", "table7.csv"}
    assert (tmp_path / "new" / "table7.md").read_text() == TABLE.markdown()
    with (tmp_path / "new" / "table7.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [list(row) for row in (TABLE.header, *TABLE.rows)]


def test_writing_again_replaces_the_files(tmp_path: Path) -> None:
    TABLE.write(tmp_path, "table")
    other = ResultTable("Other", ("a",), (("1",),))
    other.write(tmp_path, "table")
    assert (tmp_path / "table.md").read_text() == "**Other**\n\n| a |\n| --- |\n| 1 |\n"
    assert (tmp_path / "table.csv").read_text().split() == ["a", "1"]


@pytest.mark.parametrize(
    ("value", "digits", "text"), [(54.94, 1, "54.9"), (6.378, 2, "6.38"), (0.0, 1, "0.0"), (None, 1, "")]
)
def test_percent(value: float | None, digits: int, text: str) -> None:
    assert percent(value, digits) == text


@pytest.mark.parametrize(("value", "text"), [(0.5494, "54.9"), (1.0, "100.0"), (0.0, "0.0"), (None, "")])
def test_percent_of_one(value: float | None, text: str) -> None:
    assert percent_of_one(value) == text


def test_means_leave_out_what_is_not_known() -> None:
    assert mean([1.0, None, 4.0]) == 2.5
    assert mean([0.0, None]) == 0.0
    assert mean([None, None]) is None
    assert mean([]) is None
