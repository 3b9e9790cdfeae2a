"""From photographs and videos to AUs and landmarks.

`jaa_ext.plots` draws them; it needs matplotlib and is not imported here.
"""

from jaa_ext.data.images import ImageError, read_image
from jaa_ext.predict.batch_detector import BatchDetector, face_by_box, face_by_points
from jaa_ext.predict.compare import compare_tables
from jaa_ext.predict.convert import convert_table
from jaa_ext.predict.correction import correct_table
from jaa_ext.predict.detector import DetectedFace, FaceDetector, MissingDependency
from jaa_ext.predict.detector_choice import choose_detector
from jaa_ext.predict.identity import choose_embedding
from jaa_ext.predict.onnx_embedding import OnnxEmbedding
from jaa_ext.predict.pose import HeadPose, head_pose
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
    "HeadPose",
    "ImageError",
    "MissingDependency",
    "OnnxEmbedding",
    "Predictor",
    "YuNet",
    "choose_detector",
    "choose_embedding",
    "columns",
    "compare_tables",
    "convert_table",
    "correct_table",
    "face_by_box",
    "face_by_points",
    "head_pose",
    "read_image",
    "read_table",
    "write_table",
]
