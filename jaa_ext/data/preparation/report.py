"""What a preparation of a data set kept and left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from jaa_ext.facs import AU

Count = Annotated[int, Field(ge=0)]


@dataclass(frozen=True)
class Report:
    """What a preparation kept and what it left out."""

    name: str
    """Name of the data set."""
    kept: Count
    """Frames in the index."""
    expected: Count | None
    """Frames that the papers keep of the whole data set; None where that is not known."""
    skipped: dict[str, Count]
    """Number of frames left out for each reason; the commonest first."""
    aus: tuple[AU, ...]
    occurrence: tuple[Annotated[float, Field(ge=0, le=1)] | None, ...]
    """Share of each AU's valid labels that are 1; None for an AU without valid labels."""
    valid: tuple[Count, ...]
    """Number of frames in which each AU is coded."""
    subjects: Count
    folds: dict[str, Count]
    """Number of frames in each fold; empty where the release has no folds."""
    image_size: int
    """Side of the images in pixels."""
    remarks: tuple[str, ...] = ()
    """Sentences on what looks odd, or is not there."""
    intensities: tuple[Count, ...] = ()
    """Number of frames in which each AU's intensity is known; empty where the data set has none."""

    def __post_init__(self) -> None:
        if not len(self.aus) == len(self.occurrence) == len(self.valid):
            raise ValueError(
                f"wanted a rate and a count for each of {len(self.aus)} AUs, "
                f"got {len(self.occurrence)} and {len(self.valid)}"
            )
        if self.intensities and len(self.intensities) != len(self.aus):
            raise ValueError(
                f"wanted a count of intensities for each of {len(self.aus)} AUs, got {len(self.intensities)}"
            )

    @property
    def aus_with_intensities(self) -> tuple[AU, ...]:
        """The AUs whose intensity is known in some frame."""
        return tuple(au for au, count in zip(self.aus, self.intensities, strict=False) if count)

    def lines(self) -> list[str]:
        """The report in sentences, without the rates of the AUs."""
        kept = f"{self.name}: {self.kept:,} frames of {self.subjects:,} subjects kept"
        if self.expected is not None:
            difference = self.kept - self.expected
            kept += f"; the papers keep {self.expected:,}"
            kept += f" ({difference:+,})" if difference else ", as many"
        folds = ", ".join(f"{fold}: {frames:,}" for fold, frames in self.folds.items())
        skipped = [f"  {frames:,} left out: {reason}" for reason, frames in self.skipped.items()]
        return [kept, *([f"frames of each fold: {folds}"] if folds else []), *skipped, *self.remarks]
