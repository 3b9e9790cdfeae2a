"""Colours and the saving of all figures.

The colours are Okabe and Ito's, which colour-blind readers tell apart; no figure relies on colour alone.
"""

from __future__ import annotations

import os
import textwrap
from functools import lru_cache

from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from jaa_ext import facs
from jaa_ext.atomic import replacing

ORANGE, BLUE, SKY, GREEN, VERMILION, PURPLE = "#E69F00", "#0072B2", "#56B4E9", "#009E73", "#D55E00", "#CC79A7"
INK, GREY, PALE = "#222222", "#6E6E6E", "#E6E6E6"
SIDES = "L, R: the person's left and right"
"""What a figure says of AUs of one side."""


def au_label(au: facs.AU | facs.AURule, index: int) -> str:
    """Name an AU in a figure; a rule without a number by its index."""
    number = facs.au_number(au)
    return f"rule {index}" if number is None else f"AU {number}"


@lru_cache
def rgb(colour: str) -> tuple[int, int, int]:
    """Give red, green and blue, 0..255, of a colour."""
    red, green, blue = (round(255 * part) for part in to_rgb(colour))
    return red, green, blue


def note_height(figure: Figure, note: str) -> float:
    """Give the share of the figure's height that a note at its foot takes; 0 for none."""
    lines = len(_wrapped(figure, note))
    return (0.22 * lines + 0.12) / figure.get_figheight() if lines else 0.0


def save_figure(figure: Figure, path: str | os.PathLike[str], note: str) -> None:
    """Write a PNG file, whole or not at all, with a note at the figure's foot (see `note_height`)."""
    text = "\n".join(_wrapped(figure, note))
    figure.text(0.01, 0.01, text, color=VERMILION, weight="bold", size=9, va="bottom")
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")


def _wrapped(figure: Figure, note: str) -> list[str]:
    # An inch holds about 13 characters.
    return textwrap.wrap(note, int(13 * figure.get_figwidth()))
