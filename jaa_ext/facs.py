"""Tables of the field: AU rules, landmark schemes, the AU order of each data set.

Landmarks are the 49 points of SDM/IntraFace, counted from 0, (x, y) in pixels with y down:
brows 0-9, nose 10-18, eyes 19-30, mouth 31-48.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from torch import Tensor

AU = int | str
"""An AU as data sets name it: its number, 12, or with the side of the face that does it, "12L" or "12R"."""
ONE_SIDED = re.compile("[1-9][0-9]{0,2}[LR]")
"""How an AU of one side is written."""
Side = Literal["L", "R"]
"""The person's own left and right, as in FACS: the person's left is on the right of a picture."""

NUM_LANDMARKS = 49

LEFT_EYE = tuple(range(19, 25))
"""Points of the eye on the left of the picture (the person's right)."""
RIGHT_EYE = tuple(range(25, 31))
INNER_EYE_CORNERS = (22, 25)
"""Points whose horizontal distance is r, the unit of `AURule.dy`."""

# fmt: off
FLIP = (
    9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 10, 11, 12, 13, 18, 17, 16, 15, 14, 28, 27, 26, 25, 30, 29, 22, 21, 20, 19,
    24, 23, 37, 36, 35, 34, 33, 32, 31, 42, 41, 40, 39, 38, 45, 44, 43, 48, 47, 46,
)
# fmt: on
"""Landmark i of a mirrored face is landmark FLIP[i] of the face; FLIP is its own inverse."""
PICTURE_LEFT = frozenset((*range(5), 14, 15, *LEFT_EYE, 31, 32, 33, 41, 42, 43, 48))
"""Points on the left half of the picture, the person's right; those with FLIP[i] == i lie on the midline."""

MAX_DY = 100
"""Largest `AURule.dy`: far outside of any picture."""


@dataclass(frozen=True)
class AURule:
    """Where an AU acts: two centres, each a landmark moved down by ``dy``.

    Args:
        points: the two landmark indices (0..48), one for each side of the face.
        dy: shift in units of r, the horizontal distance of the inner eye corners; positive is down.
        number: the AU's number in data sets; None for a rule without labels.
        side: the side on which both landmarks lie, for an AU of one side; they may be the same one, and on
            the midline.

    Raises:
        ValueError: a landmark, dy or number out of range; another side, a side without a number, or a
            landmark of the other side.

    Example:
        >>> below_the_mouth = AURule(points=(31, 37), dy=0.2)
    """

    points: tuple[int, int]
    dy: float = 0.0
    number: int | None = None
    side: Side | None = None

    def __post_init__(self) -> None:
        if len(self.points) != 2 or not all(0 <= p < NUM_LANDMARKS for p in self.points):
            raise ValueError(
                f"AURule: points must be two landmark indices in 0..{NUM_LANDMARKS - 1}, got {self.points}"
            )
        if not -MAX_DY <= self.dy <= MAX_DY:
            raise ValueError(f"AURule: dy must be in -{MAX_DY}..{MAX_DY}, got {self.dy}")
        if self.number is not None and self.number < 1:
            raise ValueError(f"AURule: number must be at least 1, got {self.number}")
        if self.side is not None and (self.side not in get_args(Side) or not 1 <= (self.number or 0) <= 999):
            raise ValueError(
                'AURule: side must be "L" or "R" and needs a number up to 999, '
                f"got {self.side!r} of AU {self.number}"
            )
        for p in self.points:
            if self.side is not None and FLIP[p] != p and (p in PICTURE_LEFT) != (self.side == "R"):
                raise ValueError(
                    f"AURule: points of side {self.side} must be on the person's {_SIDE_NAMES[self.side]}, "
                    f"got landmark {p} of the other side, whose like on this side is {FLIP[p]}"
                )


AU_RULES: dict[int, AURule] = {
    1: AURule((4, 5), -1 / 2),
    2: AURule((1, 8), -1 / 3),
    4: AURule((2, 7), +1 / 3),
    5: AURule((20, 27)),
    6: AURule((24, 29), +1.0),
    7: AURule((21, 26)),
    9: AURule((15, 17), -1 / 2),
    10: AURule((43, 45)),
    12: AURule((31, 37)),
    14: AURule((31, 37)),
    15: AURule((31, 37)),
    17: AURule((39, 41), +1 / 2),
    20: AURule((31, 37), +1 / 3),
    23: AURule((34, 40)),
    24: AURule((34, 40)),
    25: AURule((34, 40)),
    26: AURule((39, 41), +1 / 2),
}
"""The centres of each AU (ECCV 2018, section 3.3, after EAC-Net), and of AUs 5 and 20, which have none there.

AU 5 lies on the outer halves of the upper lids, where the white of the eye shows (AU 7 has the inner halves).
AU 20 lies below the corners of the mouth, where the skin is stretched; so its region is not that of 12, 14
and 15.
"""

ONE_SIDED_AUS = (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 20)
"""AUs that each side of the face can do by itself, such as "12L". Each has a centre on either side."""

AU_NAMES: dict[int, str] = {
    1: "inner brow raiser",
    2: "outer brow raiser",
    4: "brow lowerer",
    5: "upper lid raiser",
    6: "cheek raiser",
    7: "lid tightener",
    9: "nose wrinkler",
    10: "upper lip raiser",
    12: "lip corner puller",
    14: "dimpler",
    15: "lip corner depressor",
    17: "chin raiser",
    20: "lip stretcher",
    23: "lip tightener",
    24: "lip pressor",
    25: "lips part",
    26: "jaw drop",
}

_SIDE_NAMES: dict[Side, str] = {"L": "left", "R": "right"}

BP4D_AUS = (1, 2, 4, 6, 7, 10, 12, 14, 15, 17, 23, 24)
DISFA_AUS = (1, 2, 4, 6, 9, 12, 25, 26)
GFT_AUS = (1, 2, 4, 6, 10, 12, 14, 15, 23, 24)
AFFWILD2_AUS = (1, 2, 4, 6, 7, 10, 12, 15, 23, 24, 25, 26)

DLIB68_TO_49 = tuple(i for i in range(17, 68) if i not in (60, 64))
"""dlib's 68 points without the jaw line and the two inner mouth corners."""
DISFA66_TO_49 = tuple(range(17, 66))


def rules(aus: Sequence[AU | AURule]) -> tuple[AURule, ...]:
    """Look up the rule of each AU, given by its number in `AU_RULES` or as an `AURule` of one's own.

    Of an AU of one side, such as "12L", the rule has the centre of that side alone.

    Raises:
        ValueError: an AU without a rule, or a side of one that has none.

    Example:
        >>> rules(["12L"])
        (AURule(points=(37, 37), dy=0.0, number=12, side='L'),)
    """
    return tuple(map(_rule, aus))


def _rule(au: AU | AURule) -> AURule:
    if isinstance(au, AURule):
        return au
    number, side = split_au(au)
    if number not in (AU_RULES if side is None else ONE_SIDED_AUS):
        known, sided = (", ".join(map(str, numbers)) for numbers in (AU_RULES, ONE_SIDED_AUS))
        raise ValueError(
            f"no rule for AU {au}: known are {known}, and with L or R for one side {sided}; a recipe gives "
            "another AU as {number, points, dy}, and side if it has one"
        )
    rule = AU_RULES[number]
    if side is None:
        return rule
    (point,) = (p for p in rule.points if (p in PICTURE_LEFT) == (side == "R"))
    return AURule((point, point), rule.dy, number, side)


def split_au(au: AU) -> tuple[int, Side | None]:
    """Split an AU into its number and its side, None for both sides together.

    Raises:
        ValueError: a text that is no AU of one side.

    Example:
        >>> split_au("12L"), split_au(12)
        ((12, 'L'), (12, None))
    """
    if not isinstance(au, str):
        return au, None
    if not ONE_SIDED.fullmatch(au):
        raise ValueError(f'an AU of one side is written as "12L" or "12R", got {au[:60]!r}')
    return int(au[:-1]), "L" if au[-1] == "L" else "R"


def parse_au(text: str) -> AU:
    """Read an AU as it is written in commands and tables: "12" or "12L".

    Raises:
        ValueError: another text.

    Example:
        >>> parse_au("12"), parse_au("12L")
        (12, '12L')
    """
    if re.fullmatch("[1-9][0-9]{0,2}", text):
        return int(text)
    if ONE_SIDED.fullmatch(text):
        return text
    raise ValueError(f"an AU is written as 12, or as 12L or 12R for one side, got {text[:60]!r}")


def au_number(au: AU | AURule) -> AU | None:
    """The number of an AU, with its side if it has one: 12 or "12L"; None for a rule without a number."""
    if not isinstance(au, AURule):
        return au
    return au.number if au.side is None else f"{au.number}{au.side}"


def au_name(au: AU | AURule) -> str:
    """The name of an AU, whatever its side: "lip corner puller"; empty if it has none."""
    number = au_number(au)
    return "" if number is None else AU_NAMES.get(split_au(number)[0], "")


def au_column(au: AU) -> str:
    """The name of an AU in every table: "AU01" for AU 1, "AU01L" for its left side."""
    number, side = split_au(au)
    return f"AU{number:02d}{side or ''}"


def au_in_words(au: AU) -> str:
    """The number and the name of an AU: "AU 12 lip corner puller", "AU 12L lip corner puller, left"."""
    return f"AU {au} {_name_and_side(au)}".rstrip()


def column_in_words(column: str) -> tuple[str, str]:
    """The number and the name of an AU of a table: ("AU 12", "lip corner puller") for "AU12".

    What has no number, as "AUrule3", stays, and has no name.
    """
    found = re.fullmatch(r"AU0*(\d{1,4})(\D?\w*)", column)
    if not found:
        return column, ""
    number = found[1] + found[2]
    return f"AU {number}", _name_and_side(number if ONE_SIDED.fullmatch(number) else int(found[1]))


def _name_and_side(au: AU) -> str:
    side = split_au(au)[1]
    return ", ".join(filter(None, (au_name(au), _SIDE_NAMES[side] if side else "")))


def predicted_aus(columns: Iterable[str]) -> list[str]:
    """List the AUs of a table of predictions by the columns of their probabilities: "AU12" for "AU12_p"."""
    return [name.removesuffix("_p") for name in map(str, columns) if re.fullmatch(r"AU\w+_p", name)]


def group_sides(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Put both sides of an AU of a table together, left before right; whatever else there is stays by itself.

    Example:
        >>> group_sides(["AU12R", "AU01", "AU12L", "AU04L"])
        [('AU12L', 'AU12R'), ('AU01',), ('AU04L',)]
    """
    groups: dict[tuple[str, ...], None] = {}
    known = set(names)
    for name in names:
        group: tuple[str, ...] = (name,)
        if re.fullmatch(r"AU\d+[LR]", name):
            sides = (f"{name[:-1]}L", f"{name[:-1]}R")
            group = sides if known.issuperset(sides) else group
        groups[group] = None
    return list(groups)


def au_numbers(aus: Sequence[AU | AURule]) -> tuple[AU, ...]:
    """The numbers of AUs in data sets, with their sides.

    Raises:
        ValueError: a rule without a number.
    """
    numbers = []
    for au in aus:
        if (number := au_number(au)) is None:
            raise ValueError(
                f"{au} has no number, by which its labels could be found: give AURule(number=...)"
            )
        numbers.append(number)
    return tuple(numbers)


def mirror_places(aus: Sequence[AU | AURule]) -> tuple[int | None, ...]:
    """For each AU, the place in the list of the AU that a mirror image of the face shows in its stead.

    It is the same AU, or, for an AU of one side, that of the other side; None if the list lacks it.

    Example:
        >>> mirror_places((1, "12L", "12R", "4L"))
        (0, 2, 1, None)
    """
    numbers = [au_number(au) for au in aus]

    def place(own: int, au: AU | None) -> int | None:
        if not isinstance(au, str):
            return own
        number, side = split_au(au)
        other = f"{number}{'L' if side == 'R' else 'R'}"
        return numbers.index(other) if other in numbers else None

    return tuple(place(own, au) for own, au in enumerate(numbers))


def eye_distance(landmarks: Tensor) -> Tensor:
    """Compute the inter-ocular distance d of Eq. 2, between the means of each eye's six points.

    Args:
        landmarks: (..., 49, 2).

    Returns:
        (...), in the unit of the landmarks.
    """
    # Slices, since an index list would be copied to the GPU, which a CUDA graph cannot record.
    left, right = (landmarks[..., eye[0] : eye[-1] + 1, :].mean(-2) for eye in (LEFT_EYE, RIGHT_EYE))
    return (right - left).square().sum(-1).sqrt()
