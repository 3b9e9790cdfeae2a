"""What a face does: from AU intensities to actions of the head model and to painted wrinkles.

`Expression.of` follows the tables: the same intensities always give the same expression. `Expression.random`
adds what varies in a data set: AUs look different on different people, no face is symmetric, and faces do
things that are none of `AUS` (blink, pucker, show the tongue). The gaze belongs to the view.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Sides = tuple[float, float]
"""The intensities on the person's right and left side."""

MAX_INTENSITY = 5.0
"""FACS's E."""

STRENGTH = (0.0, 0.13, 0.28, 0.52, 0.78, 1.0)
"""Share of the full movement at the intensities 0, A, B, C, D and E; linear between them. The steps of FACS
are not equal: A and B are narrow, C and D wide."""

WRINKLES = ("forehead", "glabella", "nose", "crow", "nasolabial", "bag", "chin", "dimple")
"""Painted wrinkles: across the forehead; upright between the brows; across the bridge of the nose; crow's
feet; from the wings of the nose to the mouth; under the eyes; dents in the chin; dimples beside the mouth."""

ACTIONS: dict[int, dict[str, float]] = {
    1: {"browInnerUp": 0.6, "eyebrows-*-inner-up": 0.8},
    2: {"browOuterUp*": 0.65, "eyebrows-*-extern-up": 0.55},
    4: {"browDown*": 0.55, "eyebrows-*-down": 0.7},
    5: {"eyeWide*": 1.15},
    # The cheek pushes the lower lid up and the outer end of the brow comes down.
    6: {"cheekSquint*": 1.0, "eyeSquint*": 0.3, "browOuterUp*": -0.12},
    # The lids tighten, the upper one too, and the cheek stays where it is.
    7: {"eyeSquint*": 0.85, "eye-*-slit": 0.22},
    # noseSneer alone mostly lowers the brow, and hardly moves the wings of the nose.
    9: {"noseSneer*": 0.6, "nose-*-elevation": 0.8, "nose-compression": 1.5, "mouthUpperUp*": 0.3},
    10: {"mouthUpperUp*": 0.7, "mouth-elevation": 0.3, "nose-*-elevation": 0.3},
    12: {"mouthSmile*": 0.65, "mouth-corner-puller": 0.3},
    # mouthDimple alone smiles; the corners must go in and back, not up.
    14: {"mouthDimple*": 0.75, "mouthFrown*": 0.25, "mouthRollUpper": 0.12, "mouthRollLower": 0.12},
    15: {"mouthFrown*": 0.7, "mouth-depression": 0.5},
    17: {"mouthShrugLower": 0.85, "mouthShrugUpper": 0.3, "mouth-eversion": 0.3},
    # mouthStretch alone pulls the corners down as AU 15 does.
    20: {"mouthStretch*": 0.9, "mouth-retraction": 0.55, "neck-platysma": 0.15},
    23: {"mouthRollLower": 0.65, "mouthRollUpper": 0.5, "mouth-pursing": 0.35},
    # mouthPress alone smiles.
    24: {"mouthRollLower": 0.55, "mouthRollUpper": 0.55, "mouthShrugLower": 0.2, "mouthPress*": 0.1,
         "mouthFrown*": 0.1},
    25: {"mouth-parling": 0.7, "mouthLowerDown*": 0.6, "mouthUpperUp*": 0.2, "mouth-part-later": 0.08},
    26: {"jawOpen": 0.55},
}  # fmt: skip
"""The weight of each action of the head model in each AU at its maximum; `*` stands for either side."""

AUS = tuple(ACTIONS)
"""The AUs that can be rendered."""

SMILE = {"mouthUpperUp*": 0.5, "mouthLowerDown*": 0.3, "mouth-upward-retraction": 0.6}
"""The actions of AU 25 where AU 12 pulls the lips: the upper teeth show."""

REST = 0.09
"""The weight of `mouthClose` at rest, since the head model's mouth is a little open."""

# fmt: off
OPENING = {
    "jawOpen": 34.6, "mouthClose": -34.6, "mouthFunnel": 14.0, "mouthPucker": -1.2,
    "mouthShrugUpper": 4.0, "mouthShrugLower": -4.9, "mouthRollUpper": -2.4, "mouthRollLower": -3.8,
    "mouthUpperUpLeft": 2.4, "mouthUpperUpRight": 2.4, "mouthLowerDownLeft": 1.9, "mouthLowerDownRight": 1.9,
    "mouthSmileLeft": -1.5, "mouthSmileRight": -1.5, "mouthPressLeft": -1.4, "mouthPressRight": -1.4,
    "mouth-parling": 5.3, "mouth-part-later": 20.1, "mouth-upward-retraction": 9.7, "mouth-elevation": 6.1,
    "mouth-pursing": 2.0, "mouth-eversion": -3.8, "mouth-depression": -2.6, "neck-platysma": -0.8,
    "cheekPuff": -1.1, "mouthLeft": -1.2, "mouthRight": -1.2,
}
# fmt: on
"""By how many millimetres each action parts the middle of the lips, measured on the mean head."""

CREASES: dict[int, dict[str, float]] = {
    1: {"forehead": 0.7},
    2: {"forehead": 0.6},
    4: {"glabella": 1.0},
    6: {"crow": 1.0, "bag": 0.7},
    7: {"bag": 0.5},
    9: {"nose": 1.0, "nasolabial": 0.5, "glabella": 0.3},
    10: {"nasolabial": 0.8},
    12: {"nasolabial": 0.9},
    14: {"dimple": 1.0},
    15: {"chin": 0.2},
    17: {"chin": 1.0},
    20: {"nasolabial": 0.2},
}
"""The strength of each wrinkle in each AU at its maximum."""


@dataclass(frozen=True)
class Manner:
    """How AUs look on one person."""

    actions: Mapping[str, float]
    """Factor of each action of the head model."""
    wrinkles: NDArray[np.float32]
    """(8,) factor of each of `WRINKLES`."""
    uneven: float
    """Factor of the movements on the right side; the left side has its inverse."""

    @staticmethod
    def random(rng: np.random.Generator) -> Manner:
        factors = np.exp(rng.normal(0, 0.12, len(_NAMES)).clip(-0.3, 0.3)).tolist()
        return Manner(
            actions=dict(zip(_NAMES, factors, strict=True)),
            wrinkles=np.exp(rng.normal(-0.15, 0.35, len(WRINKLES)).clip(-1, 0.5)).astype(np.float32),
            uneven=float(np.exp(rng.normal(0, 0.05))),
        )


@dataclass(frozen=True)
class Expression:
    """What a face does: ``Expression.of({12: 4, 6: (2, 3)})`` smiles, and raises the left cheek more."""

    actions: Mapping[str, float]
    """Weight of each action of the head model by name, 0 for those left out; a few are negative."""
    wrinkles: NDArray[np.float32]
    """(8, 2) strength 0..1 of each of `WRINKLES` on the person's right and left side."""

    @staticmethod
    def of(intensities: Mapping[int, float | Sides]) -> Expression:
        """Make the expression of some AUs, always the same.

        Args:
            intensities: 0..5 by AU number, or pairs for the person's right and left side; 0 for AUs left out.
                An action that the model has only for both sides together follows the weaker side.

        Raises:
            ValueError: an AU that is none of `AUS`, or an intensity out of range.
        """
        strengths = _strengths(intensities)
        return Expression(_actions(strengths, {}, ACTIONS[25], {}), _wrinkles(strengths))

    @staticmethod
    def random(
        rng: np.random.Generator, intensities: Mapping[int, float | Sides], manner: Manner
    ) -> Expression:
        """Make an expression of some AUs as a person of this manner shows it in one picture.

        It also has random actions that are none of `AUS`. They keep the intensities true: they do not part
        lips that AU 25 leaves closed, nor close eyes that show AU 5 or AU 7.
        """
        right = manner.uneven * float(np.exp(rng.normal(0, 0.04)))
        strengths = {
            au: (min(1.0, sides[0] * right), min(1.0, sides[1] / right))
            for au, sides in _strengths(intensities).items()
        }
        noise = np.exp(rng.normal(0, 0.06, len(_NAMES))).tolist()
        factors = {name: manner.actions[name] * e for name, e in zip(_NAMES, noise, strict=True)}
        lips = ACTIONS[25] | {
            "jawOpen": float(rng.uniform(0, 0.2)),
            "mouthFunnel": float(rng.uniform(0, 0.15)),
        }
        actions = _actions(strengths, factors, lips, _other_actions(rng, strengths))
        return Expression(actions, (_wrinkles(strengths) * manner.wrinkles[:, None]).clip(0, 1))


def _strengths(intensities: Mapping[int, float | Sides]) -> dict[int, Sides]:
    """Convert intensities to shares of each AU's full movement."""
    strengths = {}
    for au, intensity in intensities.items():
        if au not in ACTIONS:
            raise ValueError(f"Expression: AU {au} is not one of {list(AUS)}")
        sides = intensity if isinstance(intensity, tuple) else (intensity, intensity)
        if not all(0 <= side <= MAX_INTENSITY for side in sides):
            raise ValueError(f"Expression: AU {au} wants an intensity from 0 to 5, got {intensity}")
        right, left = np.interp(sides, range(len(STRENGTH)), STRENGTH).tolist()
        strengths[au] = (right, left)
    return strengths


def _actions(
    strengths: Mapping[int, Sides],
    factors: Mapping[str, float],
    lips: Mapping[str, float],
    others: Mapping[str, float],
) -> dict[str, float]:
    total = dict(others)
    for au, sides in strengths.items():
        if au != 25:
            for name, weight in _weights(ACTIONS[au], sides).items():
                total[name] = total.get(name, 0.0) + weight * factors.get(name, 1.0)
    # AU 25 decides how far the lips are apart; the other actions may have parted them more, or less.
    both = (0.0, 0.0)
    parted, smiling = max(strengths.get(25, both)), min(1.0, 2 * max(strengths.get(12, both)))
    opening = _opening(total)
    way = {
        name: (1 - smiling) * lips.get(name, 0.0) + smiling * SMILE.get(name, 0.0)
        for name in dict.fromkeys((*lips, *SMILE))
    }
    full = _weights(way, (1.0, 1.0))
    share = parted and min(max(parted - opening / _opening(full), parted / 4), 1.5)
    for name, weight in full.items():
        total[name] = total.get(name, 0.0) + share * weight
    closed = 1 - min(1.0, parted / STRENGTH[2])
    total["mouthClose"] = closed * (REST + max(0.0, opening) / OPENING["jawOpen"])
    return {name: weight for name, weight in total.items() if weight}


def _weights(actions: Mapping[str, float], sides: Sides) -> dict[str, float]:
    """Compute the weights of an AU's actions from the strengths of both sides, which replace `*`."""
    weights: dict[str, float] = {}
    for name, weight in actions.items():
        if "*" in name:
            weights |= {_side(name, k): weight * sides[k] for k in (0, 1)}
        else:
            weights[name] = weight * min(sides)
    return weights


def _side(name: str, k: int) -> str:
    side = ("Right", "Left")[k]
    return name.replace("*", side if name.endswith("*") else side.lower())


def _opening(actions: Mapping[str, float]) -> float:
    """Compute by how many millimetres actions part the lips."""
    return sum(OPENING.get(name, 0.0) * weight for name, weight in actions.items())


def _wrinkles(strengths: Mapping[int, Sides]) -> NDArray[np.float32]:
    wrinkles = np.zeros((len(WRINKLES), 2), np.float32)
    for au, sides in strengths.items():
        for name, weight in CREASES.get(au, {}).items():
            wrinkles[WRINKLES.index(name)] += np.multiply(weight, sides, dtype=np.float32)
    return wrinkles.clip(0, 1)


def _other_actions(rng: np.random.Generator, strengths: Mapping[int, Sides]) -> dict[str, float]:
    """Draw actions that are none of `AUS`: blinks, and some of mouth, jaw, nose, cheeks and tongue."""

    def quiet(*aus: int) -> bool:
        return all(max(strengths.get(au, (0.0, 0.0))) < STRENGTH[1] for au in aus)

    drawn = rng.random(len(_OTHER_ACTIONS)).tolist()
    chance = {name: p < rate for p, (name, rate) in zip(drawn, _OTHER_ACTIONS.items(), strict=True)}
    amount = rng.uniform(0.2, 1, 8).tolist()
    actions: dict[str, float] = {}
    if quiet(5, 7):
        if chance["closed eyes"]:
            actions |= dict.fromkeys(("eyeBlinkRight", "eyeBlinkLeft"), 0.9 + 0.1 * amount[0])
        elif chance["half closed eyes"]:
            actions |= dict.fromkeys(("eyeBlinkRight", "eyeBlinkLeft"), 0.5 * amount[0])
        elif chance["one closed eye"]:
            actions |= {_side("eyeBlink*", int(rng.integers(2))): 1.0}
    if chance["sideways"]:
        actions[_side("mouth*", int(rng.integers(2)))] = 0.4 * amount[1]
        actions[_side("jaw*", int(rng.integers(2)))] = 0.4 * amount[2]
    if chance["wide nostrils"]:
        actions |= {"nose-left-dilatation": amount[3], "nose-right-dilatation": amount[3]}
    if quiet(12, 14, 15, 20, 23, 24):
        if chance["pucker"]:
            actions["mouthPucker"] = amount[4]
        elif chance["funnel"] and not quiet(25):
            actions["mouthFunnel"] = 0.7 * amount[4]
        elif chance["puffed cheeks"] and quiet(25, 26):
            actions["cheekPuff"] = amount[4]
    if chance["tongue"] and not quiet(25):
        actions["tongueOut"] = amount[5]
    return actions


_OTHER_ACTIONS = {
    "closed eyes": 0.08,
    "half closed eyes": 0.08,
    "one closed eye": 0.01,
    "sideways": 0.1,
    "wide nostrils": 0.05,
    "pucker": 0.06,
    "funnel": 0.12,
    "puffed cheeks": 0.02,
    "tongue": 0.03,
}
"""How frequent each action is that is none of `AUS`, where the rest of the face allows it."""

_NAMES = tuple(sorted({n for actions in ACTIONS.values() for n in _weights(actions, (1.0, 1.0))}))
"""The names of all actions in `ACTIONS`."""
