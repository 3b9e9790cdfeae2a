"""Faces rendered in 3D, with AU labels, intensities, landmarks and head pose; free for any use."""

from jaa_ext.data.rendered.dataset import RenderedFaces
from jaa_ext.data.rendered.expression import AUS, WRINKLES, Expression, Manner
from jaa_ext.data.rendered.labels import PRESENT

__all__ = ["AUS", "PRESENT", "WRINKLES", "Expression", "Manner", "RenderedFaces"]
