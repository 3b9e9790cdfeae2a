from dataclasses import replace

import pytest

from jaa_ext.data.preparation.report import Report

REPORT = Report(
    name="Mine",
    kept=1234,
    expected=None,
    skipped={"no landmarks": 3, "no image": 1},
    aus=(1, 12),
    occurrence=(0.5, None),
    valid=(1000, 0),
    subjects=2,
    folds={},
    image_size=200,
    remarks=("Something is odd.",),
    intensities=(0, 7),
)


def test_sentences() -> None:
    assert REPORT.lines() == [
        "Mine: 1,234 frames of 2 subjects kept",
        "  3 left out: no landmarks",
        "  1 left out: no image",
        "Something is odd.",
    ]
    whole = replace(REPORT, expected=1234, folds={"1": 1000, "2": 234}, skipped={}, remarks=())
    assert whole.lines() == [
        "Mine: 1,234 frames of 2 subjects kept; the papers keep 1,234, as many",
        "frames of each fold: 1: 1,000, 2: 234",
    ]
    assert replace(whole, expected=1000).lines()[0].endswith("; the papers keep 1,000 (+234)")


def test_aus_with_intensities() -> None:
    assert REPORT.aus_with_intensities == (12,)
    assert replace(REPORT, intensities=()).aus_with_intensities == ()


@pytest.mark.parametrize("field", ["occurrence", "valid", "intensities"])
def test_each_au_has_its_numbers(field: str) -> None:
    with pytest.raises(ValueError, match="for each of 2 AUs, got"):
        replace(REPORT, **{field: (1,)})
