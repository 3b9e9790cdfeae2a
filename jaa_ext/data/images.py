"""Image files and arrays in all their forms, as RGB."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from jaa_ext.data.faces import BORDER


class ImageError(ValueError):
    """A file that cannot be read as an image."""


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
    upright = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH
    opaque = _is_opaque(data)
    pixels = _decode(data, upright if opaque else cv2.IMREAD_UNCHANGED)
    if not opaque and pixels is not None and (pixels.ndim == 2 or pixels.shape[2] != 4):
        pixels = _decode(data, upright)
    if pixels is None:
        raise ImageError(f"{path}: is damaged, or not an image that OpenCV can read")
    try:
        bgr = as_rgb(pixels)  # which treats all colours alike
    except (ValueError, TypeError) as error:
        raise ImageError(f"{path}: {error}") from None
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


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


def _is_opaque(data: bytes) -> bool:
    """Whether a file cannot hold transparency, so that decoding it once is enough: JPEG, and PNG in RGB."""
    rgb = data.startswith(b"\x89PNG") and data[25:26] == b"\x02" and b"tRNS" not in data
    return rgb or data.startswith(b"\xff\xd8\xff")


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
