"""Attention maps over faces: that what is to be seen is there."""

import numpy as np
import pytest

from jaa_ext import facs
from jaa_ext.plots.attention import attention_figure
from jaa_ext.predict import read_image

NOTE = "Demonstration weights, trained on drawn faces: not for real use."


def count(picture, colour):
    return int((np.abs(picture.astype(int) - colour).max(-1) <= 2).sum())


class TestAttentionFigure:
    images = np.full((2, 32, 32, 3), 128, np.uint8)

    def draw(self, path, initial=0.0, refined=0.0, note=""):
        maps = (np.full((2, 3, side, side), v, np.float32) for side, v in ((16, initial), (8, refined)))
        attention_figure(self.images, *maps, (1, facs.AURule((0, 9)), 12), path, note)
        return read_image(path)

    def test_rows_of_initial_and_refined_maps(self, tmp_path):
        plain = self.draw(tmp_path / "a.png")
        changed = np.abs(self.draw(tmp_path / "b.png", refined=1.0).astype(int) - plain).max(-1) > 20
        rows = np.diff(changed.any(1).astype(int), prepend=0, append=0)
        columns = np.diff(changed.any(0).astype(int), prepend=0, append=0)
        assert (rows == 1).sum() == 2 and (columns == 1).sum() == 3
        # The first row of faces shows initial maps, the last refined ones.
        assert np.nonzero(rows == 1)[0][0] > plain.shape[0] / 4
        assert np.nonzero(rows == -1)[0][-1] > plain.shape[0] * 0.9

    def test_the_note(self, tmp_path):
        path = tmp_path / "a.png"
        assert count(self.draw(path), (213, 94, 0)) == 0
        assert count(self.draw(path, note=NOTE), (213, 94, 0)) > 200
        assert [p.name for p in tmp_path.iterdir()] == ["a.png"]

    def test_maps_that_do_not_fit(self, tmp_path):
        maps = np.zeros((2, 3, 8, 8), np.float32)
        with pytest.raises(ValueError, match=r"refined_maps must be .* N, A = \(2, 3\), got \(1, 3, 8, 8\)"):
            attention_figure(self.images, maps, maps[:1], (1, 2, 4), tmp_path / "a.png")
