"""Rendered faces are the same on every machine, within one grey level.

After a change that is meant to change pictures, this file as a program draws reference.png anew.
"""

from pathlib import Path

import cv2
import numpy as np

from jaa_ext.data import RenderedFaces

REFERENCE = Path(__file__).with_name("reference.png")
FACES = 6


def pictures() -> np.ndarray:
    """(80, 480, 3): six people with all that a picture varies in."""
    people = RenderedFaces(subjects=range(FACES), samples_per_subject=1, size=80, seed=9)
    return np.hstack([people[i].image for i in range(FACES)])


def test_the_pictures_are_those_of_the_reference():
    wanted = cv2.imread(str(REFERENCE))[..., ::-1].astype(int)
    assert np.abs(pictures() - wanted).max() <= 1


if __name__ == "__main__":
    cv2.imwrite(str(REFERENCE), np.ascontiguousarray(pictures()[..., ::-1]))
