"""Faces drawn by rule."""

from jaa_ext.data.synthetic.dataset import SyntheticFaces

__all__ = ["SyntheticFaces"]
