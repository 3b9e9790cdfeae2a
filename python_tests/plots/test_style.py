"""What all figures have in common: names of AUs, and the note at the foot."""

import pytest
from matplotlib.figure import Figure

from jaa_ext import facs
from jaa_ext.plots.style import VERMILION, au_label, note_height, save_figure

NOTE = "Demonstration weights, trained on drawn faces: not for real use. "


def test_names_of_aus():
    own = facs.AURule((1, 2)), facs.AURule((1, 2), number=20)
    assert [au_label(au, i) for i, au in enumerate((12, *own))] == ["AU 12", "rule 1", "AU 20"]


def test_a_note_takes_room_for_its_lines():
    figure = Figure(figsize=(4, 3))
    heights = [note_height(figure, NOTE * times) for times in (0, 1, 6)]
    assert heights[0] == 0 < heights[1] < heights[2] < 1
    assert note_height(Figure(figsize=(4, 6)), NOTE) == pytest.approx(heights[1] / 2)


def test_the_note_is_at_the_foot_and_fits(tmp_path):
    figure = Figure(figsize=(4, 3))
    save_figure(figure, tmp_path / "made" / "a.png", NOTE * 6)
    (text,) = figure.texts
    assert text.get_text().replace("\n", " ") == (NOTE * 6).strip() and text.get_color() == VERMILION
    box = text.get_window_extent().transformed(figure.transFigure.inverted())
    assert 0 <= box.x0 < box.x1 <= 1 and 0 <= box.y0 < box.y1 <= note_height(figure, NOTE * 6)
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["a.png"]
