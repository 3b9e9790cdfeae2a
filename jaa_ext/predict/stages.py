"""Time that each stage of the prediction was busy."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

STAGES = ("reading", "finding faces", "identity", "aligning", "network", "head pose", "drawing", "writing")
"""In the order of the work. Several run at once, so their times add up to more than the time that passed."""


class Stages:
    """Counts the seconds of each stage, summed over all threads.

    Example:
        >>> stages = Stages()
        >>> with stages.busy("reading"):
        ...     pass
        >>> stages.seconds["reading"] > 0
        True
    """

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._lock = threading.Lock()

    @contextmanager
    def busy(self, stage: str) -> Iterator[None]:
        """Count the time of the block as that of a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            passed = time.perf_counter() - start
            with self._lock:
                self.seconds[stage] += passed
