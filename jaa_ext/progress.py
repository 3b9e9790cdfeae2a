"""What long work tells while it runs; the commands print it."""

from __future__ import annotations


class ProgressListener:
    """Follow long work, one task after another: every method does nothing until a subclass overrides it.

    Example:
        >>> class Shares(ProgressListener):
        ...     def on_start(self, task, total, done=0):
        ...         self.total = total
        ...
        ...     def on_progress(self, done, text=""):
        ...         print(f"{done} of {self.total}")
    """

    def on_message(self, sentence: str) -> None:
        """Hear a sentence, such as that a file is passed over."""

    def on_start(self, task: str, total: int | None, done: int = 0) -> None:
        """Hear that a task begins: how many steps it has, None if unknown, and how many are done already."""

    def on_progress(self, done: int, text: str = "") -> None:
        """Hear how many steps of the task are done, and something about them, such as the speed."""

    def on_end(self) -> None:
        """Hear that the task ended, or broke off."""
