"""A score and its interval as text."""

import pytest

from jaa_ext.score_text import interval_text, score_text


@pytest.mark.parametrize(
    ("arguments", "options", "text"),
    [
        ((None,), {}, "-"),
        ((None, (0.1, 0.2)), {"unit": " %"}, "-"),
        ((0.5,), {}, "50.0"),
        ((0.831, (0.802, 0.859)), {"unit": " %"}, "83.1 % (80.2-85.9)"),
        ((0.999, (0.98, 1.0)), {}, "99.9 (98.0-100)"),
        ((0.5274, (-0.1, 1.0)), {"factor": 1, "digits": 2}, "0.53 (-0.10-1.00)"),
        ((-0.004, (-0.006, -0.001)), {"factor": 1, "digits": 2}, "0.00 (-0.01-0.00)"),
    ],
)
def test_a_score_as_text(arguments, options, text) -> None:
    assert score_text(*arguments, **options) == text


def test_the_ends_of_an_interval() -> None:
    assert interval_text((0.123, 1.0)) == "12.3-100"
    assert interval_text((1.5, 4.25), factor=1) == "1.5-4.2"
