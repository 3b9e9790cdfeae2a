"""From a photograph to AUs and landmarks: detect, align, crop, run the network, map back."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from jaa_ext.data.faces import align_face, aligned_size, normalize, transform
from jaa_ext.data.images import as_rgb, read_image
from jaa_ext.device import resolve_device
from jaa_ext.models import JAANet
from jaa_ext.predict.detector import DetectedFace, FaceDetector
from jaa_ext.predict.prediction import FacePrediction

BATCH_SIZE = 32
"""Faces of one photograph that go through the network at a time."""


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
