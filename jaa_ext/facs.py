"""Tables of the field: AU rules, landmark schemes, the AU order of each data set.

Landmarks are the 49 points of SDM/IntraFace, counted from 0, (x, y) in pixels with y down:
brows 0-9, nose 10-18, eyes 19-30, mouth 31-48.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

NUM_LANDMARKS = 49

LEFT_EYE = tuple(range(19, 25))
"""Points of the eye on the left of the picture (the person's right)."""
RIGHT_EYE = tuple(range(25, 31))
INNER_EYE_CORNERS = (22, 25)
"""Points whose horizontal distance is r, the unit of `AURule.dy`."""

MAX_DY = 100
"""Largest `AURule.dy`: far outside of any picture."""


@dataclass(frozen=True)
class AURule:
    """Where an AU acts: two centres, each a landmark moved down by ``dy``.

    Args:
        points: the two landmark indices (0..48), one for each side of the face.
        dy: shift in units of r, the horizontal distance of the inner eye corners; positive is down.
        number: the AU's number in data sets; None for a rule without labels.

    Raises:
        ValueError: a landmark, dy or number out of range.

    Example:
        >>> below_the_mouth = AURule(points=(31, 37), dy=0.2)
    """

    points: tuple[int, int]
    dy: float = 0.0
    number: int | None = None

    def __post_init__(self) -> None:
        if len(self.points) != 2 or not all(0 <= p < NUM_LANDMARKS for p in self.points):
            raise ValueError(
                f"AURule: points must be two landmark indices in 0..{NUM_LANDMARKS - 1}, got {self.points}"
            )
        if not -MAX_DY <= self.dy <= MAX_DY:
            raise ValueError(f"AURule: dy must be in -{MAX_DY}..{MAX_DY}, got {self.dy}")
        if self.number is not None and self.number < 1:
            raise ValueError(f"AURule: number must be at least 1, got {self.number}")


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

BP4D_AUS = (1, 2, 4, 6, 7, 10, 12, 14, 15, 17, 23, 24)
DISFA_AUS = (1, 2, 4, 6, 9, 12, 25, 26)
GFT_AUS = (1, 2, 4, 6, 10, 12, 14, 15, 23, 24)
AFFWILD2_AUS = (1, 2, 4, 6, 7, 10, 12, 15, 23, 24, 25, 26)

DLIB68_TO_49 = tuple(i for i in range(17, 68) if i not in (60, 64))
"""dlib's 68 points without the jaw line and the two inner mouth corners."""
DISFA66_TO_49 = tuple(range(17, 66))

# fmt: off
FLIP = (
    9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 10, 11, 12, 13, 18, 17, 16, 15, 14, 28, 27, 26, 25, 30, 29, 22, 21, 20, 19,
    24, 23, 37, 36, 35, 34, 33, 32, 31, 42, 41, 40, 39, 38, 45, 44, 43, 48, 47, 46,
)
# fmt: on
"""Landmark i of a mirrored face is landmark FLIP[i] of the face; FLIP is its own inverse."""


def rules(aus: Sequence[int | AURule]) -> tuple[AURule, ...]:
    """Look up the rule of each AU, given by its number in `AU_RULES` or as a rule of one's own.

    Raises:
        ValueError: an AU number without a rule.
    """
    missing = [au for au in aus if not isinstance(au, AURule) and au not in AU_RULES]
    if missing:
        raise ValueError(f"no rule for AU {missing[0]}: known are {sorted(AU_RULES)}, or give a facs.AURule")
    return tuple(au if isinstance(au, AURule) else AU_RULES[au] for au in aus)


def au_number(au: int | AURule) -> int | None:
    """The number of an AU that is given by its number or as a rule; None for a rule without one."""
    return au.number if isinstance(au, AURule) else au


def au_column(number: int) -> str:
    """The name of an AU in every table: "AU01" for AU 1."""
    return f"AU{number:02d}"


def au_in_words(number: int) -> str:
    """The number and the name of an AU: "AU 12 lip corner puller"."""
    return f"AU {number} {AU_NAMES.get(number, '')}".rstrip()


def column_in_words(column: str) -> tuple[str, str]:
    """The number and the name of an AU of a table: ("AU 12", "lip corner puller") for "AU12".

    What has no number, as "AUrule3", stays, and has no name.
    """
    found = re.fullmatch(r"AU0*(\d{1,4})(\D?\w*)", column)
    return (f"AU {found[1]}{found[2]}", AU_NAMES.get(int(found[1]), "")) if found else (column, "")


def predicted_aus(columns: Iterable[str]) -> list[str]:
    """List the AUs of a table of predictions by the columns of their probabilities: "AU12" for "AU12_p"."""
    return [name.removesuffix("_p") for name in map(str, columns) if re.fullmatch(r"AU\w+_p", name)]


def au_numbers(aus: Sequence[int | AURule]) -> tuple[int, ...]:
    """The numbers of AUs in data sets.

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
