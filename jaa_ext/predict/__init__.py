"""From photographs to AUs and landmarks.

`jaa_ext.predict.draw` draws them; it is not imported here because it needs matplotlib.
"""

from jaa_ext.data.images import ImageError, read_image
from jaa_ext.predict.detector import DetectedFace, FaceDetector, MissingDependency
from jaa_ext.predict.prediction import FacePrediction, FramePrediction
from jaa_ext.predict.predictor import Predictor
from jaa_ext.predict.tables import write_csv

__all__ = [
    "DetectedFace",
    "FaceDetector",
    "FacePrediction",
    "FramePrediction",
    "ImageError",
    "MissingDependency",
    "Predictor",
    "read_image",
    "write_csv",
]
