"""Choice of a detector by name: dlib's, YuNet with the user's file, or one of the user's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaa_ext.predict.batch_detector import BatchDetector
from jaa_ext.predict.by_name import attribute_of, is_attribute
from jaa_ext.predict.detector import FaceDetector

if TYPE_CHECKING:
    from jaa_ext.predict.tracking import Detector

YUNET = "opencv-yunet:"
WANTED = "dlib, dlib-landmarks, opencv-yunet:FILE or MODULE:ATTRIBUTE"


def choose_detector(name: str) -> Detector | BatchDetector:
    """Make the detector of a name.

    Args:
        name: "dlib" for `FaceDetector`; "dlib-landmarks" for that with dlib's landmarks; "opencv-yunet:FILE"
            for `YuNet` with its model file; "MODULE:ATTRIBUTE" for what that attribute, a class or function
            of a module that is installed or lies in the working folder, gives when it is called without
            arguments: a `BatchDetector`, or a detector as `FaceDetector` is one. The working folder is
            searched last, so that a file there never stands for an installed module.

    Raises:
        ValueError: another name, no such module or attribute, or one that gives no detector; a file that is
            no model of YuNet.
        MissingDependency: dlib, or the model of its landmarks, is not installed.

    Example:
        >>> choose_detector("opencv-yunet:yunet.onnx")  # doctest: +SKIP
    """
    if name in ("dlib", "dlib-landmarks"):
        return FaceDetector(landmarks="dlib" if name == "dlib-landmarks" else None)
    if name.startswith(YUNET):
        from jaa_ext.predict.yunet import YuNet

        return YuNet(name.removeprefix(YUNET))
    if not is_attribute(name):
        raise ValueError(f'detector must be {WANTED}, got "{name}"')
    make = attribute_of("detector", name)
    try:
        detector = make()
    except TypeError as error:
        raise ValueError(f'detector "{name}": called without arguments: {error}') from error
    if not isinstance(detector, BatchDetector) and not (callable(detector) and hasattr(detector, "score")):
        raise ValueError(
            f'detector "{name}": wanted what has a method find_faces, as jaa_ext.predict.BatchDetector '
            f"has, got a {type(detector).__name__}"
        )
    return detector  # type: ignore[no-any-return]
