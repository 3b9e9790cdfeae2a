"""Thresholds of AUs."""

import numpy as np
import pytest
import torch

from jaa_ext.models import JAANet, JAANetConfig
from jaa_ext.models.thresholds import THRESHOLD, is_present


def test_an_au_is_present_above_its_threshold():
    probabilities = np.float32([[0.3, 0.3], [0.31, 0.7], [np.nan, 0.71]])
    assert is_present(probabilities, (0.3, 0.7)).tolist() == [[False, False], [True, False], [False, True]]
    assert is_present(np.float32([0.5, 0.50001]), (THRESHOLD, THRESHOLD)).tolist() == [False, True]


def test_a_probability_at_a_threshold_that_float32_rounds_is_not_above_it():
    """0.1 is a little more as float32 than as float64."""
    assert not is_present(np.float32([0.1]), (0.1,)).any()


@pytest.fixture
def model():
    return JAANet(JAANetConfig.journal((1, 12), image_size=64, width=1))


def test_of_a_model(model):
    assert model.thresholds == (0.5, 0.5)
    model.thresholds = np.array([0.25, 0.75])
    assert model.thresholds == (0.25, 0.75) and type(model.thresholds[0]) is float
    assert model.fuse().thresholds == (0.25, 0.75)
    assert not any("threshold" in name for name in model.state_dict())


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ((0.5,), "one for each of the 2 AUs, got 1"),
        ((0.5, 0.5, 0.5), "one for each of the 2 AUs, got 3"),
        ((0.5, 0.0), "between 0 and 1, got 0 in place 1"),
        ((1.0, 0.5), "between 0 and 1, got 1 in place 0"),
        ((0.5, float("nan")), "between 0 and 1, got nan in place 1"),
        ((0.5, float("inf")), "between 0 and 1, got inf in place 1"),
        ((0.5, "high"), "numbers, got 'high' in place 1"),
        ((True, 0.5), "numbers, got 'True' in place 0"),
        (torch.tensor([0.5, 0.5]), r"numbers, got 'tensor\(0\.5000\)' in place 0"),
    ],
)
def test_what_no_threshold_can_be(model, values, sentence):
    with pytest.raises(ValueError, match=f"thresholds must .*{sentence}"):
        model.thresholds = values
    assert model.thresholds == (0.5, 0.5)
