"""Errors that tell that training diverged."""

from __future__ import annotations


class Diverged(RuntimeError):
    """Weights or batch norm statistics are not finite: the message names iteration and tensor."""


class NonFiniteLoss(Diverged):
    """A loss became infinite or not a number: the message names the iteration, the terms and the samples."""
