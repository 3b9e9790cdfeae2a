"""Choice of a detector by name: dlib's, YuNet with the user's file, or one of the user's own.

What is named MODULE:ATTRIBUTE is imported here for embeddings, too.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaa_ext.predict.batch_detector import BatchDetector
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


def identity(chosen: Any) -> str:
    """Give the name by which an unfinished table knows a detector or an embedding.

    It is its `identity`; without one, the name of the function, or of the object's class.

    Example:
        >>> identity(identity)
        'jaa_ext.predict.detector_choice.identity'
    """
    named = chosen if hasattr(chosen, "__qualname__") else type(chosen)
    return str(getattr(chosen, "identity", f"{named.__module__}.{named.__qualname__}"))


def is_attribute(name: str) -> bool:
    """Tell whether a name has the form MODULE:ATTRIBUTE.

    Example:
        >>> is_attribute("my_faces:CnnFaces"), is_attribute("dlib")
        (True, False)
    """
    module, _, attribute = name.partition(":")
    return all(part.isidentifier() for part in (*module.split("."), attribute))


def attribute_of(option: str, name: str) -> Any:
    """Import the class or function MODULE:ATTRIBUTE, from what is installed or else from the working folder.

    Raises:
        ValueError: no such module, class or function; the message begins with the option.

    Example:
        >>> attribute_of("identity", "math:hypot")(3, 4)
        5.0
    """
    module, _, attribute = name.partition(":")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise ValueError(
            f'{option} "{name}": no module {error.name}, neither installed nor in {folder}'
        ) from None
    if not callable(getattr(found, attribute, None)):
        raise ValueError(f'{option} "{name}": {found.__name__} has no class or function {attribute}')
    return getattr(found, attribute)
