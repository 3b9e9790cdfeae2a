"""What a preparation of a data set kept and left out."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Report:
    """What a preparation kept and what it left out."""

    name: str
    """Of the data set."""
    kept: int
    """Frames in the index."""
    expected: int | None
    """Frames that the papers keep of the whole data set, where that is known."""
    skipped: dict[str, int]
    """Frames left out, by reason; the commonest first."""
    aus: tuple[int, ...]
    occurrence: tuple[float | None, ...]
    """How often each AU is present among its valid labels, 0..1; None where it has none."""
    valid: tuple[int, ...]
    """Frames in which each AU is coded."""
    subjects: int
    folds: dict[str, int]
    """Frames of each fold; empty where the release has no folds."""
    image_size: int
    """Side of the images in pixels."""

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists; `from_dict` reads them back."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Report:
        fields: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        return cls(**fields)

    def show(self, console: Console) -> None:
        """Print it."""
        table = Table()
        for heading in ("AU", "present %", "valid labels"):
            table.add_column(heading, justify="right")
        for au, rate, valid in zip(self.aus, self.occurrence, self.valid, strict=True):
            table.add_row(str(au), "-" if rate is None else f"{100 * rate:.1f}", f"{valid:,}")
        console.print(table)
        for line in self.lines():
            console.print(line, soft_wrap=True, highlight=False, markup=False)

    def lines(self) -> list[str]:
        """The report without its table, as sentences."""
        kept = f"{self.name}: {self.kept:,} frames of {self.subjects:,} subjects kept"
        if self.expected is not None:
            difference = self.kept - self.expected
            kept += f"; the papers keep {self.expected:,}"
            kept += f" ({difference:+,})" if difference else ", as many"
        folds = ", ".join(f"{fold}: {frames:,}" for fold, frames in self.folds.items())
        skipped = [f"  {frames:,} left out: {reason}" for reason, frames in self.skipped.items()]
        return [kept, *([f"frames of each fold: {folds}"] if folds else []), *skipped]
