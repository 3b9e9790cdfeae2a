"""What the commands print, and the weights that they take if none are named."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from jaa_ext import facs
from jaa_ext.cli.output import show_scores, show_table
from jaa_ext.evaluation import Scores
from jaa_ext.experiments.tables import ResultTable

TABLE = ResultTable(
    "Table 7, in percent",
    ("method", "paper", "ours"),
    (("R-Net", "54.9", "53.0"), ("HMR-Net, wide", "", "55.1")),
    ("One sentence [not markup].", "Another one."),
)


def shown(scores: Scores, width: int) -> str:
    console = Console(width=width, record=True)
    show_scores(scores, console)
    return console.export_text()


def test_table_shows_intervals_in_brackets(some_scores: Scores) -> None:
    wide = shown(some_scores, 140)
    row = next(line for line in wide.splitlines() if line.split()[:1] == ["1"])
    cells = "25.0 | 25.0 (20.0-31.2) | 75.0 (70.0-80.0) | 12.5 (10.0-20.0) | 56.2 (50.0-62.5) | -"
    assert row.split()[1:] == cells.replace("|", " ").split()
    assert "accuracy over all labels: 62.5 (50.0-75.0) %" in wide
    assert "ABAW score: 0.438 (0.375-0.500)" in wide
    assert "mean error: 6.5 (6.2-6.8) %" in wide and "failures: 12.5 (10.0-15.0) %" in wide
    assert "200 resamples of 7 subjects" in wide


def test_table_fits_into_a_narrow_terminal(some_scores: Scores) -> None:
    narrow = shown(some_scores, 80)
    assert "…" not in narrow and max(map(len, narrow.splitlines())) <= 80
    assert all(part in narrow for part in ("(20.0-31.2)", "(70.0-80.0)", "(10.0-20.0)", "(50.0-62.5)"))


def test_a_single_subject_is_said(some_scores: Scores) -> None:
    assert "no intervals: the faces are all of one subject" in shown(
        replace(some_scores, subjects=1, intervals=None), 80
    )
    assert "interval" not in shown(replace(some_scores, subjects=2, intervals=None), 80)


def test_scores_without_intervals_are_shown_with_the_note(some_scores: Scores) -> None:
    text = shown(replace(some_scores, intervals=None), 80)
    assert all(part in text for part in ("25.0", "75.0", "6.5", "12.5", "mean", some_scores.note))


def test_thresholds_of_the_model_are_named(some_scores: Scores) -> None:
    text = shown(replace(some_scores, thresholds=(0.75, 0.2)), 100)
    assert "thresholds of the model: AU 1 0.75, AU 12 0.2" in text


def test_table_of_intensities(some_scores: Scores, intensity_scores: Scores) -> None:
    narrow = shown(intensity_scores, 80)
    assert max(map(len, narrow.splitlines())) <= 80
    rows = [line.split() for line in narrow.splitlines()]
    assert ["1", "1,200", "0.81", "(0.75-0.88)", "0.90", "0.25"] in rows
    assert ["12", "1", "-", "-", "1.50"] in rows
    assert ["mean", "0.81", "0.90", "0.88", "(0.50-1.00)"] in rows
    assert "-: fewer than two, or all alike" in narrow
    assert "ICC" not in shown(some_scores, 80)
    unrated = replace(
        intensity_scores, icc=(None, None), pearson=(None, None), mae=(None, None), rated=(0, 0)
    )
    assert "ICC" not in shown(unrated, 80)


def test_a_table_of_results() -> None:
    console = Console(width=60, record=True)
    show_table(TABLE, console)
    text = console.export_text()
    lines = [line.split() for line in text.splitlines()]
    assert ["method", "paper", "ours"] in lines
    assert ["R-Net", "54.9", "53.0"] in lines
    assert ["HMR-Net,", "wide", "55.1"] in lines
    assert text.splitlines()[0].startswith("Table 7, in percent")
    assert text.endswith("One sentence [not markup].\nAnother one.\n")


class TestShippedWeights:
    """Commands that no weights are given."""

    @pytest.fixture(autouse=True)
    def shipped(self, weights: Path, monkeypatch) -> None:
        monkeypatch.setattr("jaa_ext.weights.FILE", weights)

    def test_they_are_used_and_named_on_one_line(
        self, read, jaa, photo: Path, weights: Path, tmp_path: Path
    ) -> None:
        start = hashlib.sha256(weights.read_bytes()).hexdigest()[:8]
        line = f"Weights: those that come with jaa_ext, model.safetensors ({start})."
        code, printed, error = jaa("predict", photo, "--out", tmp_path / "faces")
        assert code == 0 and line in printed.splitlines() and "only a test" in printed, error
        (row,) = read(tmp_path / "faces" / "photographs.csv")
        assert row["weights"] == "only a test" and row["success"] == "1"
        code, printed, error = jaa("draw", photo, "--out", tmp_path / "drawn.png")
        assert code == 0 and line in printed.splitlines() and (tmp_path / "drawn.png").exists(), error
        assert f"weights   model.safetensors ({start})" in jaa("info")[1]

    def test_their_own_file_is_as_good(self, jaa, photo: Path, weights: Path, tmp_path: Path) -> None:
        assert jaa("predict", photo, "--out", tmp_path / "a.csv")[0] == 0
        code, printed, _ = jaa("predict", photo, "--weights", weights, "--out", tmp_path / "b.csv")
        assert code == 0 and "come with" not in printed
        assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()

    def test_they_are_evaluated(self, recipe: Path, jaa, weights: Path, tmp_path: Path) -> None:
        recipe.write_text(recipe.read_text().replace("[1, 4, 6, 10, 12, 17]", str(list(facs.BP4D_AUS))))
        code, printed, error = jaa(
            *("evaluate", "--recipe", recipe, "--bootstrap", 0, "--out", tmp_path / "scores")
        )
        assert code == 0 and "come with jaa_ext" in printed, error
        assert json.loads((tmp_path / "scores" / "evaluation.json").read_text())["model"] == str(weights)

    def test_a_build_without_them_says_so(self, jaa, photo: Path, tmp_path: Path, monkeypatch) -> None:
        monkeypatch.setattr("jaa_ext.weights.FILE", tmp_path / "default.safetensors")
        for command in (("predict", photo), ("draw", photo), ("evaluate", "--recipe", "demo")):
            code, _, error = jaa(*command, "--out", tmp_path / "out")
            assert code == 2 and len(error.splitlines()) == 1
            assert error.startswith("jaa: this build of jaa_ext comes without weights of its own")
            assert not (tmp_path / "out").exists()
        assert "none: this build comes without" in jaa("info")[1]
