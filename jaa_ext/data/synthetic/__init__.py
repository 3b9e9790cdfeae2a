"""Faces drawn by rule, with AU labels, intensities and landmarks."""

from jaa_ext.data.synthetic.dataset import SyntheticFaces

__all__ = ["SyntheticFaces"]
