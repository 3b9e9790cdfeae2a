from pathlib import PurePath

import pytest

from jaa_ext.data.readers.image_files import numbers_in_names


@pytest.mark.parametrize(
    ("names", "numbers"),
    [
        (["SN001_0012.png", "7.jpg", "a-3b.png"], (12, 7, 3)),
        (["1.png", "b.png"], None),
        (["1.png", "x01.png"], None),
        ([f"{'9' * 18}.png", "2.png"], (int("9" * 18), 2)),
        ([f"{'9' * 19}.png", "2.png"], None),
        ([], ()),
    ],
)
def test_the_last_whole_number_counts(names, numbers):
    assert numbers_in_names(map(PurePath, names)) == numbers
