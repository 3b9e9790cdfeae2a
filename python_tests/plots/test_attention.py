"""Attention maps over faces: that what is to be seen is there."""

import numpy as np
import pytest

from jaa_ext import facs
from jaa_ext.plots.attention import attention_figure
from jaa_ext.predict import read_image

NOTE = "Demonstration weights, trained on drawn faces: not for real use."
IMAGES = np.full((2, 32, 32, 3), 128, np.uint8)


def draw(path, initial=0.0, refined=0.0, note=""):
    maps = (np.full((2, 3, side, side), v, np.float32) for side, v in ((16, initial), (8, refined)))
    attention_figure(IMAGES, *maps, (1, facs.AURule((0, 9)), 12), path, note)


def test_rows_of_initial_and_refined_maps(figures, tmp_path):
    draw(tmp_path / "a.png", initial=0.0, refined=1.0)
    cells = [axes for axes in figures[0].axes if axes.images]
    places = [axes.get_position() for axes in cells]
    lefts = sorted({round(place.x0, 6) for place in places})
    bottoms = sorted({round(place.y0, 6) for place in places})
    assert len(cells) == 12 and len(lefts) == 3 and len(bottoms) == 4
    for axes, place in zip(cells, places, strict=True):
        column, row = lefts.index(round(place.x0, 6)), 3 - bottoms.index(round(place.y0, 6))
        picture = np.asarray(axes.images[0].get_array())
        grey = np.ptp(picture, axis=-1).max() < 1e-6
        assert grey == (row % 2 == 0)  # the initial maps are 0, the refined ones below them 1
        assert axes.get_ylabel() == (("initial", "refined")[row % 2] if column == 0 else "")
        assert axes.get_title() == (("AU 1", "rule 1", "AU 12")[column] if row == 0 else "")


def test_the_note(figures, tmp_path):
    for note in ("", NOTE):
        draw(tmp_path / "a.png", note=note)
        (text,) = figures[-1].texts
        assert text.get_text().replace("\n", " ") == note


def test_the_file(tmp_path):
    draw(tmp_path / "a.png", note=NOTE)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"] and read_image(tmp_path / "a.png").std() > 10


def test_maps_that_do_not_fit(tmp_path):
    maps = np.zeros((2, 3, 8, 8), np.float32)
    with pytest.raises(ValueError, match=r"refined_maps must be .* N, A = \(2, 3\), got \(1, 3, 8, 8\)"):
        attention_figure(IMAGES, maps, maps[:1], (1, 2, 4), tmp_path / "a.png")
