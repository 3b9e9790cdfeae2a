"""From a photograph to AUs and landmarks: detect, align, crop, run the network, map back."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from jaa_ext.data.faces import BORDER, align_face, aligned_size, normalize, transform
from jaa_ext.device import resolve_device
from jaa_ext.models import JAANet
from jaa_ext.predict.detector import DetectedFace, FaceDetector

BATCH_SIZE = 32
"""Faces of one photograph that go through the network at a time."""


class ImageError(ValueError):
    """A file that cannot be read as an image."""


@dataclass(frozen=True, eq=False)
class FacePrediction:
    """What the network says about one face, in pixels of the photograph unless said otherwise."""

    face_id: int
    """Its place among the photograph's faces from left to right, from 0."""
    box: tuple[float, float, float, float]
    """The detector's box: left, top, right, bottom."""
    landmarks: NDArray[np.float32]
    """(49, 2) float32 x, y as the network predicts them; the detector's if the model has no alignment."""
    detected_landmarks: NDArray[np.float32]
    """(49, 2) float32 x, y of the detector, by which the face was aligned."""
    probabilities: NDArray[np.float32]
    """(A,) float32 probability of each AU."""
    present: NDArray[np.bool_]
    """(A,) bool: the probability is above 0.5."""
    crop: NDArray[np.uint8]
    """(l, l, 3) uint8 RGB: the aligned face as the network saw it."""
    initial_maps: NDArray[np.float32] | None
    """(A, l/4 + 8, l/4 + 8) float32 initial attention maps; None if the model has none."""
    refined_maps: NDArray[np.float32] | None
    """(A, l/4, l/4) float32 refined attention maps; None if the model has none."""


class Predictor:
    """Detects the AUs and landmarks of every face of a photograph.

    Args:
        model: a JAANet. It is moved to the device and put into evaluation mode; a fused copy of it predicts
            (`JAANet.fuse`), so that later changes of it have no effect.
        detector: from an RGB image (H, W, 3) uint8 to its faces; None for `FaceDetector`.
        device: "auto" (the first GPU if there is one), "cpu", "cuda" or "cuda:1", or a torch device.

    Raises:
        ValueError: a model without AU detection, or a device that is not there.
        MissingDependency: no detector is given and dlib or its landmark model is not installed.
    """

    def __init__(
        self,
        model: JAANet,
        *,
        detector: Callable[[NDArray[np.uint8]], list[DetectedFace]] | None = None,
        device: str | torch.device = "auto",
    ) -> None:
        if not model.config.au_detection:
            raise ValueError(
                "Predictor: got a model without AU detection (au_detection=False), wanted one with it"
            )
        self.device = resolve_device(device)
        self.model = model.to(self.device).eval().fuse()
        self.detector = detector or FaceDetector()

    def __call__(self, image: NDArray[Any] | str | os.PathLike[str]) -> list[FacePrediction]:
        """Predict every face of an image, from left to right; an image without a face gives an empty list.

        Args:
            image: a file, see `read_image`, or an array, see `as_rgb`.

        Raises:
            ImageError: a file that is missing or not a whole image.
            ValueError, TypeError: an array of another shape or dtype.
        """
        image = as_rgb(image) if isinstance(image, np.ndarray) else read_image(image)
        faces = list(enumerate(self.detector(image)))
        predictions = []
        for start in range(0, len(faces), BATCH_SIZE):
            predictions += self._predict(image, faces[start : start + BATCH_SIZE])
        return predictions

    @torch.inference_mode()
    def _predict(
        self, image: NDArray[np.uint8], faces: list[tuple[int, DetectedFace]]
    ) -> list[FacePrediction]:
        side = self.model.config.image_size
        aligned_side = aligned_size(side)
        margin = (aligned_side - side) // 2
        aligned = [align_face(image, face.landmarks, size=aligned_side) for _, face in faces]
        crops = np.stack(
            [picture[margin : margin + side, margin : margin + side] for picture, _, _ in aligned]
        )
        batch = torch.from_numpy(crops).permute(0, 3, 1, 2).to(self.device)
        output = self.model(normalize(batch))
        probabilities = output.probabilities.float().cpu().numpy()
        landmarks, initial_maps, refined_maps = (
            [None] * len(faces) if tensor is None else tensor.float().cpu().numpy()
            for tensor in (output.landmarks, output.initial_maps, output.refined_maps)
        )
        return [
            FacePrediction(
                face_id=face_id,
                box=face.box,
                landmarks=(
                    face.landmarks
                    if points is None
                    else transform(points + margin, cv2.invertAffineTransform(matrix)).astype(np.float32)
                ),
                detected_landmarks=face.landmarks,
                probabilities=probability,
                present=probability > 0.5,
                crop=crop,
                initial_maps=initial,
                refined_maps=refined,
            )
            for (face_id, face), (_, _, matrix), crop, points, probability, initial, refined in zip(
                faces, aligned, crops, landmarks, probabilities, initial_maps, refined_maps, strict=True
            )
        ]


def read_image(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """Read an image file as RGB, (H, W, 3) uint8, upright by its EXIF orientation.

    Greyscale, paletted and CMYK files become RGB, 16-bit files are scaled to 8 bits, transparent pixels are
    laid over mid grey (128). The EXIF orientation of an image with transparency is not followed.

    Raises:
        ImageError: the file is missing, unreadable, cut short or no image.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ImageError(f"{path}: there is no such file") from None
    except IsADirectoryError:
        raise ImageError(f"{path}: is a folder, wanted an image file") from None
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror})") from None
    if not data:
        raise ImageError(f"{path}: the file is empty, wanted an image")
    if _is_cut_short(data):
        raise ImageError(f"{path}: the image is cut short, its end is missing")

    # Only the first way keeps transparency, only the second turns the image upright.
    pixels = _decode(data, cv2.IMREAD_UNCHANGED)
    if pixels is not None and (pixels.ndim == 2 or pixels.shape[2] != 4):
        pixels = _decode(data, cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH)
    if pixels is None:
        raise ImageError(f"{path}: is damaged, or not an image that OpenCV can read")
    if pixels.ndim == 3:
        pixels = pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]
    try:
        return as_rgb(pixels)
    except (ValueError, TypeError) as error:
        raise ImageError(f"{path}: {error}") from None


def as_rgb(image: NDArray[Any]) -> NDArray[np.uint8]:
    """An image array as RGB, (H, W, 3) uint8.

    Args:
        image: grey (H, W) or (H, W, 1), RGB (H, W, 3) or RGBA (H, W, 4); uint8, or uint16, which is scaled to
            8 bits. Transparent pixels are laid over mid grey (128).

    Raises:
        ValueError: another shape.
        TypeError: another dtype.
    """
    if image.dtype not in (np.uint8, np.uint16):
        raise TypeError(f"got an image of dtype {image.dtype}, wanted uint8 or uint16")
    if image.ndim not in (2, 3) or image.size == 0 or (image.ndim == 3 and image.shape[2] not in (1, 3, 4)):
        raise ValueError(
            f"got an image of shape {image.shape}, wanted (height, width) or (height, width, 1, 3 or 4)"
        )
    if image.dtype == np.uint16:
        image = ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)  # 65535 / 255 = 257
    if image.ndim == 2:
        image = image[..., None]
    if image.shape[2] == 4:
        alpha = image[..., 3:].astype(np.float32) / 255
        image = np.rint(image[..., :3] * alpha + BORDER * (1 - alpha)).astype(np.uint8)
    if image.shape[2] == 1:
        image = np.repeat(image, 3, axis=2)
    return np.ascontiguousarray(image)


def _decode(data: bytes, flags: int) -> NDArray[Any] | None:
    logging = getattr(cv2.utils, "logging", cv2)  # OpenCV 5 and 4
    level = logging.setLogLevel(0)
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        return None
    finally:
        logging.setLogLevel(level)


def _is_cut_short(data: bytes) -> bool:
    """Whether a PNG or JPEG file lacks its end.

    OpenCV 4 returns the part of a JPEG that is there and whatever was in memory for the rest.
    """
    if data.startswith(b"\x89PNG"):
        return b"IEND" not in data
    if not data.startswith(b"\xff\xd8\xff"):
        return False
    # A thumbnail in the headers has an end of its own, so skip to the scan; what cameras append after
    # the end may hold anything, so take the first end found.
    at = 2
    while data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] != b"\xda":
        padding = data[at + 1 : at + 2] == b"\xff"
        at += 1 if padding else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return data.find(b"\xff\xd9", at) < 0
