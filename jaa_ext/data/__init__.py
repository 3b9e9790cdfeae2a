"""Faces with landmarks and AU labels: alignment, crops, flips and the data sets."""

from jaa_ext.data.augment import Augmentation
from jaa_ext.data.combined import CombinedFaces
from jaa_ext.data.faces import (
    Crops,
    FaceDataset,
    FaceSample,
    align_face,
    aligned_size,
    flip,
    mirror_aus,
    normalize,
    with_mirror,
)
from jaa_ext.data.preparation.prepare import prepare
from jaa_ext.data.prepared import PreparedFaces
from jaa_ext.data.release import Release, ReleaseError
from jaa_ext.data.rendered import RenderedFaces
from jaa_ext.data.synthetic.dataset import SyntheticFaces
from jaa_ext.facs import eye_distance

__all__ = [
    "Augmentation",
    "CombinedFaces",
    "Crops",
    "FaceDataset",
    "FaceSample",
    "PreparedFaces",
    "Release",
    "ReleaseError",
    "RenderedFaces",
    "SyntheticFaces",
    "align_face",
    "aligned_size",
    "eye_distance",
    "flip",
    "mirror_aus",
    "normalize",
    "prepare",
    "with_mirror",
]
