"""From photographs and videos to AUs and landmarks.

`jaa_ext.plots` draws them; it needs matplotlib and is not imported here.
"""

from jaa_ext.data.images import ImageError, read_image
from jaa_ext.predict.batch_detector import BatchDetector, face_by_box, face_by_points
from jaa_ext.predict.detector import DetectedFace, FaceDetector, MissingDependency
from jaa_ext.predict.detector_choice import choose_detector
from jaa_ext.predict.prediction import FacePrediction, FramePrediction
from jaa_ext.predict.predictor import Predictor
from jaa_ext.predict.tables import columns, read_table, write_table
from jaa_ext.predict.yunet import YuNet

__all__ = [
    "BatchDetector",
    "DetectedFace",
    "FaceDetector",
    "FacePrediction",
    "FramePrediction",
    "ImageError",
    "MissingDependency",
    "Predictor",
    "YuNet",
    "choose_detector",
    "columns",
    "face_by_box",
    "face_by_points",
    "read_image",
    "read_table",
    "write_table",
]
