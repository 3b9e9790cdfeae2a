"""The tables of the field."""

import pytest

from jaa_ext import facs
from jaa_ext.data import SyntheticFaces


def test_flip_is_its_own_inverse_and_swaps_the_sides() -> None:
    assert sorted(facs.FLIP) == list(range(49))
    assert all(facs.FLIP[facs.FLIP[i]] == i for i in range(49))
    assert {facs.FLIP[i] for i in facs.LEFT_EYE} == set(facs.RIGHT_EYE)
    assert facs.FLIP[facs.INNER_EYE_CORNERS[0]] == facs.INNER_EYE_CORNERS[1]


def test_the_two_centres_of_a_rule_are_mirror_images() -> None:
    # Symmetric landmarks, but for AUs 23, 24 and 25, whose centres are the lips' two middle points.
    for au, rule in facs.AU_RULES.items():
        a, b = rule.points
        assert (facs.FLIP[a], facs.FLIP[b]) == ((b, a) if au not in (23, 24, 25) else (a, b))


def test_landmark_schemes() -> None:
    assert len(facs.DLIB68_TO_49) == len(facs.DISFA66_TO_49) == facs.NUM_LANDMARKS
    assert facs.DLIB68_TO_49[:43] == tuple(range(17, 60)) and facs.DLIB68_TO_49[43] == 61
    assert 64 not in facs.DLIB68_TO_49 and facs.DLIB68_TO_49[-1] == 67
    assert tuple(range(17, 66)) == facs.DISFA66_TO_49


@pytest.mark.parametrize(
    ("aus", "count"), [("BP4D_AUS", 12), ("DISFA_AUS", 8), ("GFT_AUS", 10), ("AFFWILD2_AUS", 12)]
)
def test_every_data_sets_aus_have_rules_and_names(aus: str, count: int) -> None:
    numbers = getattr(facs, aus)
    assert len(numbers) == len(set(numbers)) == count
    assert facs.rules(numbers) == tuple(facs.AU_RULES[au] for au in numbers)
    assert set(numbers) <= set(facs.AU_NAMES)


def no_rule_for(au: facs.AU) -> str:
    """Pattern of the message that names what is known, on the command line and in a recipe."""
    known, sided = "1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 24, 25, 26", "1, 2, 4, [0-9, ]*15, 20"
    return (
        rf"^no rule for AU {au}: known are {known}, and with L or R for one side {sided}; "
        r"a recipe gives another AU as \{number, points, dy\}, and side if it has one$"
    )


def test_rules_of_ones_own_are_kept() -> None:
    own = facs.AURule((3, 6), dy=0.25)
    assert facs.rules([own, 12]) == (own, facs.AU_RULES[12])
    with pytest.raises(ValueError, match=no_rule_for(99)):
        facs.rules([1, 99])


def test_the_number_of_an_au() -> None:
    own = facs.AURule((31, 37), 0.1, 20)
    assert own.number == 20 and facs.AURule((31, 37), dy=0.1, number=20) == own
    assert facs.AURule((31, 37), 0.1).number is None and facs.AURule((31, 37), 0.1) != own
    assert [facs.au_number(au) for au in (12, 99, own, facs.AURule((3, 6)))] == [12, 99, 20, None]
    assert facs.au_numbers((4, own, 1)) == (4, 20, 1) and facs.au_numbers(()) == ()
    assert facs.au_numbers(facs.DISFA_AUS) == facs.DISFA_AUS
    assert all(rule.number is None for rule in facs.AU_RULES.values())


def test_a_rule_without_a_number_has_no_labels() -> None:
    with pytest.raises(ValueError, match=r"AURule\(points=\(3, 6\), .*no number.* AURule\(number="):
        facs.au_numbers((1, facs.AURule((3, 6), dy=0.25)))


@pytest.mark.parametrize("points", [(3,), (3, 49), (-1, 3), (1, 2, 3)])
def test_points_that_are_no_landmarks(points: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"points .*0\.\.48, got \("):
        facs.AURule(points, number=1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ("AU12", ("AU 12", "lip corner puller")),
        ("AU01", ("AU 1", "inner brow raiser")),
        ("AU12L", ("AU 12L", "lip corner puller, left")),
        ("AU99R", ("AU 99R", "right")),
        ("AU99", ("AU 99", "")),
        ("AUrule3", ("AUrule3", "")),
    ],
)
def test_an_au_of_a_table_in_words(column: str, words: tuple[str, str]) -> None:
    assert facs.column_in_words(column) == words


def test_the_aus_of_a_table_are_those_with_probabilities() -> None:
    assert facs.predicted_aus(["frame", "AU12_c", "AU12_p", "AUrule3_p", "AU12_p_raw", "AU04_r"]) == [
        "AU12",
        "AUrule3",
    ]


def test_an_au_of_one_side_has_the_centre_of_that_side() -> None:
    # The person's left is on the right of the picture, whose points FLIP pairs with those on its left.
    assert set(facs.ONE_SIDED_AUS) <= set(facs.AU_RULES)
    for au in facs.ONE_SIDED_AUS:
        left, right, both = facs.rules((f"{au}L", f"{au}R", au))
        assert both.points == (right.points[0], left.points[0]) and left.dy == right.dy == both.dy
        assert len(set(left.points)) == len(set(right.points)) == 1
        assert facs.FLIP[left.points[0]] == right.points[0] != left.points[0]
        assert facs.au_numbers((left, right)) == (f"{au}L", f"{au}R")
    assert facs.rules(["12L"]) == (facs.AURule((37, 37), 0.0, 12, "L"),)
    for au in facs.ONE_SIDED_AUS:
        assert facs.rules([f"{au}R"])[0].points[0] in facs.PICTURE_LEFT


@pytest.mark.parametrize("au", ["17L", "25R", "99L"])
def test_a_side_that_an_au_has_not(au: str) -> None:
    with pytest.raises(ValueError, match=no_rule_for(au)):
        facs.rules([12, au])


@pytest.mark.parametrize("au", ["12", "12l", "L", "AU12L", "012L", "12LL", "12L\n", "1234L", ""])
def test_texts_that_are_no_au_of_one_side(au: str) -> None:
    with pytest.raises(ValueError, match='written as "12L" or "12R", got'):
        facs.split_au(au)


def test_a_rule_s_side() -> None:
    mine = facs.AURule((36, 36), 0.1, 16, "L")
    assert facs.au_number(mine) == "16L" and facs.rules([mine]) == (mine,)
    for changes in ({"side": "L"}, {"side": "left", "number": 3}, {"side": "R", "number": 1000}):
        with pytest.raises(ValueError, match='side must be "L" or "R" and needs a number up to 999, got '):
            facs.AURule((36, 36), **changes)  # type: ignore[arg-type]


def test_the_landmarks_of_a_rule_are_on_its_side() -> None:
    left = facs.PICTURE_LEFT
    # Of a face that looks into the camera: the picture's left is left of the nose.
    x = SyntheticFaces(subjects=[0], samples_per_subject=1)[0].landmarks[:, 0]
    for i, other in enumerate(facs.FLIP):
        assert i == other or (i in left) == (other not in left) == (x[i] < x[other])
        assert i != other or i not in left
        for side in ("R", "L"):
            if i == other or (i in left) == (side == "R"):
                assert facs.AURule((i, i), number=16, side=side).points == (i, i)  # type: ignore[arg-type]
                continue
            word = {"R": "right", "L": "left"}[side]
            message = (
                f"points of side {side} must be on the person's {word}, got landmark {i} of the other side, "
                f"whose like on this side is {other}"
            )
            with pytest.raises(ValueError, match=message):
                facs.AURule((13, i), number=16, side=side)  # type: ignore[arg-type]


def test_names_of_aus_of_one_side() -> None:
    assert [facs.au_column(au) for au in (1, "1L", "12R", "123L")] == ["AU01", "AU01L", "AU12R", "AU123L"]
    assert facs.au_in_words("12L") == "AU 12L lip corner puller, left"
    assert facs.au_name("12L") == "lip corner puller" and facs.au_name(facs.AURule((3, 6))) == ""
    assert facs.au_in_words("99R") == "AU 99R right" and facs.au_in_words(99) == "AU 99"
    names = ["AU12R", "AU01", "AU04L", "AU12L", "AUrule3L", "AUrule3R", "AU12", "AU09L", "AU09R"]
    assert facs.group_sides(names) == [
        *(("AU12L", "AU12R"), ("AU01",), ("AU04L",), ("AUrule3L",), ("AUrule3R",), ("AU12",)),
        ("AU09L", "AU09R"),
    ]


def test_a_mirror_image_swaps_sides() -> None:
    mine = facs.AURule((36, 36), number=16, side="L")
    aus = (12, "12R", mine, "12L", "1L", "16R", facs.AURule((3, 6)))
    assert facs.mirror_places(aus) == (0, 3, 5, 1, None, 2, 6)
    assert facs.mirror_places(facs.BP4D_AUS) == tuple(range(12))


def test_texts_of_aus() -> None:
    assert [facs.parse_au(text) for text in ("1", "12", "12L", "123R")] == [1, 12, "12L", "123R"]
    for text in ("", "0", "012", "AU12", "12l", "L", "-1", "1.0", "1234", "\u0661"):
        with pytest.raises(ValueError, match="an AU is written as 12, or as 12L or 12R for one side, got"):
            facs.parse_au(text)
