"""Intensities beside presence."""

import numpy as np

from jaa_ext.predict.prediction import consistent_intensities

LEVELS = np.linspace(0, 5, 2001, dtype=np.float32)


def test_presence_decides():
    for present in (True, False):
        degrees = consistent_intensities(LEVELS, np.full(LEVELS.shape, present))
        assert degrees.dtype == np.float32
        assert ((degrees >= 1) == present).all() and degrees.min() >= 0 and degrees.max() <= 5
        # As tables have them, too.
        assert all((float(f"{degree:.2f}") >= 1) == present for degree in degrees.tolist())


def test_what_agrees_stays_and_the_order_too():
    for present, agrees in ((True, LEVELS >= 1), (False, LEVELS <= 0.99)):
        degrees = consistent_intensities(LEVELS, np.full(LEVELS.shape, present))
        assert np.array_equal(degrees[agrees], LEVELS[agrees])
        assert (np.diff(degrees) >= 0).all()


def test_what_is_not_known_stays_so():
    assert np.isnan(consistent_intensities(np.float32([np.nan, np.nan]), np.array([True, False]))).all()
