"""The course of a training: that what is to be seen is there."""

import numpy as np
import pytest

from jaa_ext.plots.training import training_figure
from jaa_ext.predict import read_image

NOTE = "Demonstration weights, trained on drawn faces: not for real use."
ORANGE, BLUE = (230, 159, 0), (0, 114, 178)


def count(picture, colour):
    return int((np.abs(picture.astype(int) - colour).max(-1) <= 2).sum())


class TestTrainingFigure:
    def history(self):
        return [
            {
                "epoch": epoch,
                "stage": "joint" if epoch < 4 else "alignment",
                "losses": {"total": 2.0 / epoch, "align": 0.0 if epoch == 2 else 1.0 / epoch},
                "scores": {
                    "f1_mean": 0.1 * epoch,
                    "accuracy_mean": 0.7,
                    "mean_error": 9.0,
                    "failure_rate": None,
                },
            }
            for epoch in range(1, 6)
        ]

    def test_all_panels_have_lines(self, tmp_path):
        path = tmp_path / "made" / "training.png"
        training_figure(self.history(), path)
        picture = read_image(path)
        assert picture.shape == (576, 1560, 3)
        for left in (0, 520, 1040):
            assert count(picture[:, left : left + 520], BLUE) > 300
        assert count(picture[:, :1040], ORANGE) > 300
        assert count(picture[:, 1040:], ORANGE) == 0  # no failure rate, no line

    def test_a_loss_of_zero_is_left_out_of_the_log_scale(self, tmp_path):
        without = self.history()
        without[1]["losses"]["align"] = None
        for name, history in (("a.png", self.history()), ("b.png", without)):
            training_figure(history, tmp_path / name)
        assert np.array_equal(read_image(tmp_path / "a.png"), read_image(tmp_path / "b.png"))

    def test_the_note(self, tmp_path):
        training_figure(self.history(), tmp_path / "a.png", NOTE)
        assert count(read_image(tmp_path / "a.png")[-40:], (213, 94, 0)) > 200

    @pytest.mark.filterwarnings("error")
    def test_odd_histories(self, tmp_path):
        path = tmp_path / "a.png"
        training_figure([{"epoch": 1, "losses": {"total": 1.0}}], path)
        training_figure([{"epoch": 1, "losses": {}, "scores": None}], path)
        training_figure([{"epoch": 3, "losses": {"total": float("nan")}, "scores": {}}], path)
        restarted = [{"epoch": e, "stage": s, "losses": {"total": 1.0}} for s in "ab" for e in (1, 2)]
        training_figure(restarted, path)
        assert read_image(path).any()

    def test_an_empty_history(self, tmp_path):
        with pytest.raises(ValueError, match="empty history"):
            training_figure([], tmp_path / "a.png")
