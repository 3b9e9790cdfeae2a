"""A score and its interval as text."""

from __future__ import annotations

Interval = tuple[float, float]


def score_text(
    value: float | None,
    interval: Interval | None = None,
    *,
    factor: float = 100,
    digits: int = 1,
    unit: str = "",
) -> str:
    """Write a score, and its interval in brackets if there is one; "-" for None.

    Args:
        value: the score.
        interval: its lower and upper end.
        factor: of both, 100 for percent.
        digits: after the decimal point.
        unit: behind the score.

    Example:
        >>> score_text(0.831, (0.802, 0.859), unit=" %")
        '83.1 % (80.2-85.9)'
    """
    if value is None:
        return "-"
    ends = "" if interval is None else f" ({interval_text(interval, factor=factor, digits=digits)})"
    return f"{_rounded(factor * value, digits)}{unit}{ends}"


def interval_text(interval: Interval, *, factor: float = 100, digits: int = 1) -> str:
    """Write the ends of an interval; "100" for "100.0", which would be too wide for 80 columns."""
    return "-".join(_rounded(factor * end, digits).replace("100.0", "100") for end in interval)


def _rounded(value: float, digits: int) -> str:
    text = f"{value:.{digits}f}"
    return text if float(text) else text.removeprefix("-")
