"""Augmentation: variation of training faces as by photographs and by inexact alignment."""

from __future__ import annotations

from typing import Annotated

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from jaa_ext.data.faces import BORDER, transform

Image = NDArray[np.uint8]
Strength = Annotated[float, Field(ge=0, le=3, allow_inf_nan=False, description="a number from 0 to 3")]
Chance = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, description="a number from 0 to 1")]


class Augmentation(BaseModel):
    """How `Crops` varies training faces in addition to crop and flip; 0 leaves a kind out. Labels stay.

    Example:
        >>> from jaa_ext.data import Crops, SyntheticFaces
        >>> faces = SyntheticFaces(subjects=range(3), samples_per_subject=4)
        >>> crops = Crops(faces, 176, train=True, augment=Augmentation(occlusion=0))
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    geometry: Strength = 1.0
    """Factor of the standard deviations of turns (3 degrees), changes of size (3 %) and shifts (1.5 % of the
    side). Landmarks move along."""
    colour: Strength = 1.0
    """Factor of changes in brightness, contrast, gamma, white balance and saturation."""
    grey: Chance = 0.1
    """Probability that the image is grey."""
    blur: Chance = 0.4
    """Probability that the image is out of focus, blurred by motion, or of a lower resolution."""
    noise: Chance = 0.5
    """Probability of noise, and, independently, of JPEG compression."""
    occlusion: Chance = 0.3
    """Probability that something covers parts of the face."""

    def crop(
        self,
        image: Image,
        landmarks: NDArray[np.float32],
        corner: tuple[int, int],
        size: int,
        rng: np.random.Generator,
    ) -> tuple[Image, NDArray[np.float32]]:
        """Cut out a square and vary it.

        Args:
            image: uint8 (H, W, 3).
            landmarks: (49, 2) in pixels of the image.
            corner: x, y of the square's upper left corner.
            size: side of the square in pixels.
            rng: decides on everything.

        Returns:
            Image uint8 (size, size, 3) and landmarks float32 (49, 2) in its pixels.
        """
        image, landmarks = self._move(image, landmarks, corner, size, rng)
        if rng.random() < self.occlusion:
            for _ in range(int(rng.integers(1, 3))):
                _cover(image, rng)
        if rng.random() < self.blur:
            image = (_focus, _motion, _resolution)[int(rng.integers(3))](image, rng)
        image = self._tint(image, rng)
        if rng.random() < self.noise:
            sigma = 12 * float(rng.random()) ** 2
            noise = rng.standard_normal((size, size, 3), np.float32) * sigma
            image = (image + noise).clip(0, 255).astype(np.uint8)
        if rng.random() < self.noise:
            quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 95))]
            image = np.asarray(
                cv2.imdecode(cv2.imencode(".jpg", image, quality)[1], cv2.IMREAD_COLOR), np.uint8
            )
        return image, landmarks

    def _move(
        self,
        image: Image,
        landmarks: NDArray[np.float32],
        corner: tuple[int, int],
        size: int,
        rng: np.random.Generator,
    ) -> tuple[Image, NDArray[np.float32]]:
        turn, grow, *shift = (self.geometry * rng.standard_normal(4).clip(-2.5, 2.5)).tolist()
        angle, scale = np.radians(3) * turn, np.exp(0.03 * grow)
        cos, sin = scale * np.cos(angle), scale * np.sin(angle)
        linear = np.array(((cos, -sin), (sin, cos)))
        middle = np.full(2, (size - 1) / 2)
        # Turn and change of size keep the middle of the crop in place.
        offset = middle + 0.015 * size * np.array(shift) - linear @ (middle + corner)
        matrix = np.column_stack((linear, offset))
        grey = (BORDER, BORDER, BORDER)
        moved = cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderValue=grey)
        return np.asarray(moved, np.uint8), transform(landmarks, matrix).astype(np.float32)

    def _tint(self, image: Image, rng: np.random.Generator) -> Image:
        brightness, contrast, gamma, saturation, *white = (
            self.colour * rng.standard_normal(7).clip(-2, 2)
        ).tolist()
        image = _saturate(image, 0.0 if rng.random() < self.grey else float(np.exp(0.25 * saturation)))
        values = np.linspace(0, 1, 256)[:, None] ** np.exp(0.2 * gamma)
        values = (values - 0.5) * np.exp(0.15 * contrast + 0.04 * np.array(white)) + 0.5 + 0.07 * brightness
        table = (255 * values).round().clip(0, 255).astype(np.uint8)
        return np.asarray(cv2.LUT(image, table[None]), np.uint8)


def _saturate(image: Image, saturation: float) -> Image:
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return np.asarray(cv2.addWeighted(image, saturation, grey, 1 - saturation, 0), np.uint8)


def _focus(image: Image, rng: np.random.Generator) -> Image:
    sigma = len(image) * float(rng.uniform(0.003, 0.015))
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.uint8)


def _motion(image: Image, rng: np.random.Generator) -> Image:
    length, angle = len(image) * float(rng.uniform(0.01, 0.05)), float(rng.uniform(0, np.pi))
    reach = int(np.ceil(length / 2))
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    end = np.array((np.cos(angle), np.sin(angle))) * length / 2
    a, b = (np.rint((reach + e) * 16).astype(int).tolist() for e in (end, -end))
    cv2.line(kernel, a, b, 1.0, 1, cv2.LINE_8, 4)
    return np.asarray(cv2.filter2D(image, -1, kernel / kernel.sum()), np.uint8)


def _resolution(image: Image, rng: np.random.Generator) -> Image:
    side = len(image)
    low = max(24, round(side * float(rng.uniform(0.3, 0.9))))
    small = cv2.resize(image, (low, low), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (side, side), interpolation=cv2.INTER_LINEAR), np.uint8)


def _cover(image: Image, rng: np.random.Generator) -> None:
    """Cover a box or an oval of the image with one colour or with another part of the image."""
    side = len(image)
    centre, half = rng.uniform(0, side, 2), side * rng.uniform(0.03, 0.16, 2)
    mask = np.zeros((side, side), np.uint8)
    box = (centre.tolist(), (2 * half).tolist(), float(rng.uniform(0, 180)))
    if rng.random() < 0.5:
        cv2.ellipse(mask, box, 255, -1)
    else:
        cv2.fillPoly(mask, [np.rint(cv2.boxPoints(box)).astype(np.int32)], 255)
    kind = rng.random()
    x, y = rng.integers(0, side, 2).tolist()
    if kind < 0.25:
        cover = np.roll(image, (y, x), (0, 1))
    else:
        # Most often a colour of the image, such as skin: hands cover faces more than other things do.
        colour = image[y, x] if kind < 0.65 else rng.integers(0, 256, 3)
        cover = np.broadcast_to(colour.astype(np.uint8), image.shape)
    np.copyto(image, cover, where=mask[..., None] > 0)
