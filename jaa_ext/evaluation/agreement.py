"""How far two tools, or two versions of one, agree on the AUs of the same faces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from jaa_ext.evaluation.metrics import score
from jaa_ext.evaluation.predictions import Predictions


@dataclass(frozen=True)
class Agreement:
    """Agreement of two tables, a and b, on one AU. None for what cannot be said.

    Neither of the two is the truth: high agreement may be of two that err alike.
    """

    au: str
    """Such as ``AU12``."""
    frames: int
    """Faces whose presence both say; of a video with one face, its frames."""
    present_a: float | None
    """Share of them in which a says present, 0..1."""
    present_b: float | None
    kappa: float | None
    """Of presence, see `cohens_kappa`."""
    f1: float | None
    """Of presence, 0..1; the same whichever is taken as the truth. None where neither says present."""
    values: int
    """Faces of which both give a value."""
    quantity: str | None
    """What the values are, ``intensity`` or ``probability``; None if not both give one."""
    icc: float | None
    """ICC(3,1) of the values, see `Scores`: -1..1."""
    pearson: float | None
    """Pearson's r of the values."""
    mean_difference: float | None
    """Mean of b - a, in the unit of the values."""
    sd_difference: float | None
    """Standard deviation of b - a; 1.96 of it beside the mean are Bland and Altman's limits of agreement."""


def agreements(
    aus: Sequence[str],
    presence: tuple[ArrayLike, ArrayLike],
    values: tuple[ArrayLike, ArrayLike],
    quantities: Sequence[str | None],
) -> tuple[Agreement, ...]:
    """Compare what a and b say of the AUs of N faces.

    Args:
        aus: names of A AUs.
        presence: of a and of b, each (N, A) of 1 and 0, NaN where unknown.
        values: of a and of b, each (N, A), NaN where unknown.
        quantities: what the values of each AU are; None for those without.

    Returns:
        A of them.

    Example:
        >>> nothing = np.full((4, 1), np.nan)
        >>> a, b = [[1], [1], [0], [0]], [[1], [0], [0], [0]]
        >>> (smile,) = agreements(["AU12"], (a, b), (nothing, nothing), [None])
        >>> smile.kappa, round(smile.f1, 3)
        (0.5, 0.667)
    """
    a, b = (np.asarray(one, np.float64) for one in presence)
    x, y = (np.asarray(one, np.float64) for one in values)
    both = np.isfinite(a) & np.isfinite(b)
    scores = score(
        Predictions(
            tuple(range(len(aus))),
            np.where(both, a, -1).astype(np.int64),
            np.where(both, b, 0).astype(np.float32),
            None,
            None,
            intensities=y.astype(np.float32),
            true_intensities=x.astype(np.float32),
        )
    )
    found = []
    for i, au in enumerate(aus):
        known = both[:, i]
        differences = (y - x)[:, i][np.isfinite((y - x)[:, i])]
        says_a, says_b = a[known, i], b[known, i]
        found.append(
            Agreement(
                au=au,
                frames=int(known.sum()),
                present_a=float(says_a.mean()) if known.any() else None,
                present_b=float(says_b.mean()) if known.any() else None,
                kappa=cohens_kappa(says_a, says_b),
                f1=scores.of("f1", i)[0] if says_a.any() or says_b.any() else None,
                values=len(differences),
                quantity=quantities[i] if len(differences) else None,
                icc=scores.of("icc", i)[0],
                pearson=scores.of("pearson", i)[0],
                mean_difference=float(differences.mean()) if len(differences) else None,
                sd_difference=float(differences.std(ddof=1)) if len(differences) > 1 else None,
            )
        )
    return tuple(found)


def cohens_kappa(a: ArrayLike, b: ArrayLike) -> float | None:
    """Compute Cohen's kappa of two binary codings (Educational and Psychological Measurement 20, 1960).

    The share of agreement beyond what the two rates alone would give by chance: 1 for full agreement, 0 for
    chance, negative for less. None for no coding, or where both are constant and alike.

    Args:
        a: (N,) of 1 and 0.
        b: (N,) of 1 and 0.

    Raises:
        ValueError: another number in b than in a.

    Example:
        >>> cohens_kappa([1, 1, 0, 0], [1, 0, 0, 0])
        0.5
    """
    x, y = (np.asarray(one, np.float64) for one in (a, b))
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"cohens_kappa: wanted two codings (N,), got {x.shape} and {y.shape}")
    # Counts instead of rates: exact, so that agreement by chance alone is 0 and no rounding of it.
    count, in_a, in_b, alike = len(x), int(x.sum()), int(y.sum()), int((x == y).sum())
    chance = in_a * in_b + (count - in_a) * (count - in_b)
    return None if chance == count * count else (alike * count - chance) / (count * count - chance)
