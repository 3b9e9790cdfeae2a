"""Drawing at random which AUs the rendered faces show, and how strongly.

Each AU of a face gets a number p, uniform in 0..1: the smaller, the stronger the AU. `_level` turns p into an
intensity by the AU's rate, so that the AU is present as often as that says. The numbers of a face depend on
each other by a Gaussian copula: in faces of the kind "everyday" as the AUs of BP4D do; in other kinds a
little, so that all AUs of a broad smile are strong.
"""

from __future__ import annotations

from functools import lru_cache
from statistics import NormalDist
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from jaa_ext import facs
from jaa_ext.data.rendered.expression import AUS, MAX_INTENSITY

Mix = Literal["natural", "bp4d", "sides"]
"""All `KINDS` of faces, only "everyday" ones, or all kinds with more AUs of one side."""

LABELLED_AUS: tuple[facs.AU, ...] = (*AUS, *(f"{au}{side}" for au in facs.ONE_SIDED_AUS for side in "LR"))
"""The AUs that rendered faces have labels of."""

PRESENT = 1.5
"""The intensity from which an AU counts as present: what rounds to FACS's B, as in DISFA's protocol. Few are
near it: one in twenty of the present ones is below 2, and as many absent ones are between 1 and 1.5."""

BP4D_RATES = (0.211, 0.170, 0.203, 0.461, 0.549, 0.594, 0.562, 0.466, 0.170, 0.344, 0.165, 0.152)
"""How often each AU of `facs.BP4D_AUS` is present in BP4D."""

# fmt: off
BP4D_GIVEN = (
    (1.00, .51, .30, .45, .56, .66, .58, .46, .15, .36, .15, .12),
    (.63, 1.00, .13, .51, .53, .67, .68, .49, .14, .32, .17, .13),
    (.31, .11, 1.00, .40, .62, .52, .30, .42, .16, .40, .19, .19),
    (.21, .19, .18, 1.00, .84, .86, .85, .60, .23, .36, .20, .14),
    (.21, .16, .23, .70, 1.00, .77, .72, .55, .23, .38, .19, .16),
    (.23, .19, .18, .67, .71, 1.00, .78, .57, .22, .35, .18, .12),
    (.22, .21, .11, .70, .70, .82, 1.00, .57, .21, .33, .19, .12),
    (.21, .18, .18, .59, .65, .73, .68, 1.00, .23, .43, .23, .24),
    (.19, .14, .19, .64, .74, .76, .69, .63, 1.00, .65, .36, .28),
    (.22, .16, .24, .48, .60, .60, .55, .58, .32, 1.00, .31, .36),
    (.20, .17, .24, .56, .63, .64, .63, .64, .37, .64, 1.00, .37),
    (.16, .15, .25, .44, .57, .48, .46, .73, .32, .81, .40, 1.00),
)
"""How often the AU of a column is present where that of the row is, in the order of `facs.BP4D_AUS`."""

OTHER_RATES = {5: 0.06, 9: 0.06, 20: 0.06, 25: 0.35, 26: 0.25}
"""Plausible rates of the AUs that BP4D's protocol leaves out. In DISFA, AU 9 is four times rarer than AU 12,
AU 25 is the commonest, AUs 5 and 20 are the rarest."""

OTHER_CORRELATIONS = {
    (5, 1): .35, (5, 2): .45, (5, 4): .05, (5, 6): -.3, (5, 7): -.3, (5, 25): .2, (5, 26): .25,
    (9, 4): .45, (9, 6): .2, (9, 7): .35, (9, 10): .35, (9, 17): .2, (9, 12): -.1,
    (20, 1): .15, (20, 4): .15, (20, 12): -.1, (20, 25): .25, (20, 15): .1, (20, 14): .1, (20, 24): -.2,
    (25, 1): .1, (25, 2): .1, (25, 6): .3, (25, 10): .4, (25, 12): .4, (25, 15): -.15, (25, 17): -.45,
    (25, 23): -.45, (25, 24): -.8, (25, 14): -.15, (25, 26): .75,
    (26, 1): .1, (26, 2): .15, (26, 12): .2, (26, 10): .2, (26, 17): -.4, (26, 23): -.4, (26, 24): -.7,
}
"""Plausible latent correlations of these AUs; 0 for pairs left out."""

Kind = dict[int, float]

KINDS: dict[str, tuple[float, Kind]] = {
    "rest": (0.15, {}),
    "few": (0.18, {}),
    "smile": (0.14, {12: .97, 6: .6, 7: .3, 25: .6, 26: .2, 10: .25, 14: .1, 1: .05, 2: .05}),
    "surprise": (0.05, {1: .95, 2: .95, 5: .75, 25: .8, 26: .7}),
    "anger": (0.06, {4: .95, 7: .6, 5: .25, 9: .15, 10: .25, 23: .45, 24: .35, 17: .35, 25: .2}),
    "sadness": (0.05, {1: .8, 4: .6, 15: .75, 17: .5, 6: .1, 20: .1, 25: .1}),
    "disgust": (0.05, {9: .75, 10: .65, 4: .4, 6: .25, 7: .4, 17: .35, 25: .35, 15: .2}),
    "fear": (0.04, {1: .9, 2: .7, 4: .7, 5: .75, 20: .6, 25: .7, 26: .4, 7: .25}),
    "doubt": (0.04, {14: .55, 24: .45, 23: .35, 17: .45, 15: .3, 12: .15, 1: .2, 2: .2, 4: .2}),
    "speech": (0.07, {25: .85, 26: .5, 10: .2, 12: .2, 1: .15, 2: .15, 17: .1, 20: .1, 14: .1, 4: .1}),
    "everyday": (0.17, {}),
}
# fmt: on
"""Kinds of faces: each one's share of all faces, and the rates of its AUs (`STRAY` for the others). Faces at
"rest" have only traces of AUs. "few" is one to three AUs, all equally likely, so that rare ones are learnt,
and those told apart that often come together. "everyday" is as BP4D."""

STRAY = 0.02
"""The rate of an AU that does not belong to a kind of face."""

ONE_SIDED_SHARE: dict[Mix, float] = {"natural": 0.06, "bp4d": 0.06, "sides": 0.5}
"""How often an AU of `facs.ONE_SIDED_AUS` is weaker on one side, by 0.4 to 1 of its intensity."""
CLOSED_JAW_DROP = 0.08
"""How often the jaw drops (AU 26) behind closed lips."""
MAX_OPPOSED = 2.5
"""The highest intensity of the weaker of two AUs that work against each other."""


def draw_intensities(rng: np.random.Generator, count: int, mix: Mix = "natural") -> NDArray[np.float32]:
    """Draw intensities of faces.

    The first faces do not depend on the count.

    Returns:
        (count, 17, 2) intensities 0..5 of `AUS` on the right and the left side. The intensity of an AU is
        that of the stronger side, see `of_face`, since FACS also scores AUs of one side.
    """
    normal = rng.standard_normal((count, 2 * len(AUS) + 6))
    own, side, other = np.split(normal, (len(AUS), 2 * len(AUS)), axis=1)
    uniform = torch.special.ndtr(torch.from_numpy(other)).numpy()
    kind, rates = _kinds(own, uniform[:, :4], mix)
    alike = np.sqrt(0.3) * other[:, 4:5] + np.sqrt(0.7) * own
    latent = np.where(kind[:, None] == list(KINDS).index("everyday"), own @ _mixing(), alike)
    intensity = _level(torch.special.ndtr(torch.from_numpy(latent)).numpy(), rates)
    _reconcile(intensity, uniform[:, 5])
    uniform = torch.special.ndtr(torch.from_numpy(side)).numpy()
    return _sides(intensity, uniform, ONE_SIDED_SHARE[mix]).astype(np.float32)


def of_face(sides: NDArray[np.float32]) -> NDArray[np.float32]:
    """Take the stronger side's intensities, (..., A), of those of both sides, (..., A, 2)."""
    stronger: NDArray[np.float32] = sides.max(-1)
    return stronger


def of_labels(sides: NDArray[np.float32]) -> NDArray[np.float32]:
    """Take the intensities of `LABELLED_AUS`, (..., 41), of those of `AUS` on both sides, (..., 17, 2)."""
    one_sided = sides[..., [AUS.index(au) for au in facs.ONE_SIDED_AUS], ::-1]  # left, right
    return np.concatenate((of_face(sides), one_sided.reshape(*sides.shape[:-2], -1)), -1)


def present(intensities: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Tell which AUs count as present."""
    return intensities >= PRESENT


def everyday_rates() -> NDArray[np.float64]:
    """The rates, (17,), of `AUS` in "everyday" faces."""
    known = OTHER_RATES | dict(zip(facs.BP4D_AUS, BP4D_RATES, strict=True))
    return np.array([known[au] for au in AUS])


@lru_cache
def correlations() -> NDArray[np.float64]:
    """Compute the latent correlations, (17, 17), of `AUS` in "everyday" faces.

    For BP4D's AUs they follow from its rates and, for each pair, from the mean of the joint probabilities
    that its two conditional ones give. The matrix is then made positive definite.
    """
    rates = np.array(BP4D_RATES)
    joint = rates[:, None] * np.array(BP4D_GIVEN)
    known = _tetrachoric(rates, (joint + joint.T) / 2)
    full = np.eye(len(AUS))
    places = [AUS.index(au) for au in facs.BP4D_AUS]
    full[np.ix_(places, places)] = known
    for (a, b), correlation in OTHER_CORRELATIONS.items():
        i, j = AUS.index(a), AUS.index(b)
        full[i, j] = full[j, i] = correlation
    values, vectors = np.linalg.eigh(full)
    full = vectors * values.clip(0.01) @ vectors.T
    scale = 1 / np.sqrt(np.diag(full))
    nearest: NDArray[np.float64] = full * scale * scale[:, None]
    return nearest


@lru_cache
def _mixing() -> NDArray[np.float64]:
    """The matrix (17, 17) that gives rows of independent normal numbers these correlations."""
    mixing: NDArray[np.float64] = np.linalg.cholesky(correlations()).T.astype(np.float64)
    return mixing


def _tetrachoric(rates: NDArray[np.float64], joint: NDArray[np.float64]) -> NDArray[np.float64]:
    """Find the correlations of normal variables by how often two are both below their rates' quantiles."""
    quantile = np.array([NormalDist().inv_cdf(rate) for rate in rates])
    h, k = quantile[:, None, None], quantile[None, :, None]
    nodes, weights = np.polynomial.legendre.leggauss(48)
    low, high = np.full(joint.shape, -0.999), np.full(joint.shape, 0.999)
    for _ in range(50):
        middle = (low + high) / 2
        # The joint probability grows with the correlation (Plackett): its integral from 0, by sin(angle).
        most = np.arcsin(middle)[..., None]
        angle = most * (nodes + 1) / 2
        density = np.exp(-(h**2 + k**2 - 2 * h * k * np.sin(angle)) / (2 * np.cos(angle) ** 2))
        both = np.outer(rates, rates) + (density * weights * most / 2).sum(-1) / (2 * np.pi)
        low, high = np.where(both < joint, middle, low), np.where(both < joint, high, middle)
    found: NDArray[np.float64] = (low + high) / 2
    np.fill_diagonal(found, 1)
    return found


def _kinds(
    own: NDArray[np.float64], uniform: NDArray[np.float64], mix: Mix
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Draw the kinds of faces, (count,) places in `KINDS`, and return the rates of their AUs, (count, 17)."""
    names, shares = list(KINDS), np.array([share for share, _ in KINDS.values()])
    everyday = names.index("everyday")
    if mix == "bp4d":
        kind = np.full(len(own), everyday)
    else:
        kind = np.searchsorted(shares.cumsum()[:-1], uniform[:, 0], side="right")
    table = np.full((len(KINDS), len(AUS)), STRAY)
    for row, (_, rates) in enumerate(KINDS.values()):
        table[row, [AUS.index(au) for au in rates]] = list(rates.values())
    table[[names.index("rest"), names.index("few")]] = 0
    table[everyday] = everyday_rates()
    rates = table[kind]
    chosen = (uniform[:, 1:4] * len(AUS)).astype(np.int64)
    some = kind == names.index("few")
    for place, at_least in enumerate((0.0, 0.5, 0.8)):
        # The number that chose the kind also decides, within its range, how many AUs there are.
        within = (uniform[:, 0] - (shares.cumsum() - shares)[kind]) / shares[kind]
        rows = np.flatnonzero(some & (within >= at_least))
        rates[rows, chosen[rows, place]] = 1
    return kind, rates


def _level(p: NDArray[np.float64], rate: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn numbers p in 0..1 into intensities, which fall with p and are `PRESENT` where p is the rate."""
    few = 0.05 * rate
    depth = (1 - p / np.maximum(rate - few, 1e-9)).clip(0)
    clear = 2 + (MAX_INTENSITY - 2) * depth**1.6
    near = 2 - (p - (rate - few)) / np.maximum(2 * few, 1e-9)
    trace = 1 - (p - (rate + few)) / 0.2
    present = np.where(p < rate - few, clear, near)
    level: NDArray[np.float64] = np.where(p < rate + few, present, trace).clip(0, MAX_INTENSITY)
    return level


def _reconcile(intensity: NDArray[np.float64], uniform: NDArray[np.float64]) -> None:
    """Change intensities that no face can show together; labels of BP4D's AUs stay as they are."""
    level = {au: intensity[:, column] for column, au in enumerate(AUS)}  # views

    def weaken(au: int, where: NDArray[np.bool_], most: float) -> None:
        level[au][where] = np.minimum(level[au], most)[where]

    # Lips that are pressed together are closed; tight ones open little; a chin pushed up closes them.
    for au in (25, 26):
        weaken(au, level[24] >= PRESENT, 0.0)
    weaken(25, level[23] >= PRESENT, MAX_OPPOSED)
    weaken(17, level[26] >= PRESENT, MAX_OPPOSED)
    jaw_alone = (level[26] >= PRESENT) & (level[25] < PRESENT) & (uniform >= CLOSED_JAW_DROP)
    level[25][jaw_alone] = level[26][jaw_alone]
    # The others drop the jaw behind closed lips, without a trace of AU 25.
    weaken(25, (level[26] >= PRESENT) & (level[25] < PRESENT), 0.0)
    for a, b in ((12, 15), (12, 23), (20, 23), (12, 20), (5, 7)):
        weaken(a, level[a] < level[b], MAX_OPPOSED)
        weaken(b, level[b] <= level[a], MAX_OPPOSED)


def _sides(intensity: NDArray[np.float64], uniform: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """Give both sides, (count, 17, 2), the same intensities, but for this share of `facs.ONE_SIDED_AUS`."""
    sides = np.repeat(intensity[..., None], 2, axis=2)
    can = np.isin(AUS, facs.ONE_SIDED_AUS)
    for side, low in ((0, 0.0), (1, share / 2)):
        within = (uniform - low) / (share / 2)
        weaker = can & (within >= 0) & (within < 1)
        sides[..., side] = np.where(weaker, sides[..., side] * 0.6 * within, sides[..., side])
    return sides
