"""Image files and arrays of all kinds, as RGB."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import ExifTags, Image, TiffImagePlugin, features

from jaa_ext.data.faces import BORDER

MAX_PIXELS = 120_000_000
"""Width times height of the largest image file that is read (it takes 1.5 GB); half of it for JPEG 2000."""
MAX_PIXELS_VARIABLE = "JAA_MAX_PIXELS"
"""The environment variable that sets another limit."""

SIGNATURES = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG2000",
    b"\xff\x4f\xff\x51": "JPEG2000",
    b"\x59\xa6\x6a\x95": "SUN",
    **{f"P{i}".encode() + blank: "PPM" for i in range(1, 7) for blank in (b"\n", b"\r", b" ", b"\t", b"#")},
}
"""Pillow's names of formats, by the first bytes of their files."""
BRANDS = {
    "AVIF": {b"avif", b"avis"},
    "HEIF": {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"},
}
"""The brands by which formats are told apart whose files are built like MP4 videos."""
CODECS = {"AVIF": "avif", "JPEG2000": "jpg_2000", "WEBP": "webp"}
"""The codecs that Pillow may have been built without, by format."""
NO_IMAGE = "is damaged, or not an image that can be read"
EXTRA_SAMPLES = 338
"""TIFF's tag for transparency."""
ROWS_AT_ONCE = 64
"""Rows whose transparency is computed at a time: a whole large image in float32 would not fit into memory."""
MAX_PIXEL_BYTES, MAX_OTHER_BYTES = 8, 1 << 26
"""Bytes of a pixel, and of all else, in the largest image file that is read."""


class ImageError(ValueError):
    """A file that cannot be read as an image."""


def read_image(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """Read an image file as RGB, (H, W, 3) uint8, upright by its own orientation (EXIF; `irot`, `imir`).

    Reads JPEG, PNG, WebP, TIFF, AVIF, GIF, BMP, JPEG 2000, PNM and Sun raster files; if a file has several
    pictures, the first. Greyscale, paletted and CMYK files become RGB, 16-bit files are scaled to 8 bits,
    transparent pixels are laid over mid grey (128).

    Raises:
        ImageError: the file is missing, unreadable, cut short, no image, or has more than `MAX_PIXELS`
            pixels; the environment variable JAA_MAX_PIXELS sets another limit.
        RuntimeError: that variable is no number.
    """
    path = Path(path)
    try:
        with _opened(path) as file:
            form, (width, height) = _header(file)
            # JPEG 2000 takes more memory: it is decoded into 32 bits for each colour.
            limit, length = max_pixels() // (1 + (form == "JPEG2000")), file.seek(0, os.SEEK_END)
            another = f"{MAX_PIXELS_VARIABLE} sets another limit"
            if width * height > limit:
                raise ImageError(f"has {width} x {height} pixels, more than {limit:,}; {another}")
            if length > MAX_PIXEL_BYTES * limit + MAX_OTHER_BYTES:
                raise ImageError(f"has {length:,} bytes, more than {limit:,} pixels take; {another}")
            file.seek(0)
            return _decoded(file.read(), form)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from None
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror})") from None
    except MemoryError:
        raise ImageError(f"{path}: its {width} x {height} pixels do not fit into memory") from None


def count_pixels(path: str | os.PathLike[str]) -> int:
    """Read width times height from an image file's header; 0 if `read_image` would raise an error."""
    path = Path(path)
    try:
        if not path.is_file():  # a pipe can be read only once
            return 0
        with _opened(path) as file:
            _, (width, height) = _header(file)
    except (ImageError, OSError, MemoryError):
        return 0
    return width * height


def max_pixels() -> int:
    """Read this process's limit of pixels, see `read_image`."""
    text = os.environ.get(MAX_PIXELS_VARIABLE)
    if text is None:
        return MAX_PIXELS
    if not (text.isascii() and text.isdecimal() and int(text)):
        raise RuntimeError(f'{MAX_PIXELS_VARIABLE} must be a number of pixels, at least 1, got "{text}"')
    return int(text)


def image_format(start: bytes) -> str | None:
    """Find Pillow's name of an image file's format by its first bytes (64 or more); None for other files."""
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "WEBP"
    if start[4:8] == b"ftyp":
        box = start[8 : int.from_bytes(start[:4], "big")]
        brands = {box[i : i + 4] for i in range(0, len(box), 4)}
        return next((form for form, own in BRANDS.items() if brands & own), None)
    return next((form for signature, form in SIGNATURES.items() if start.startswith(signature)), None)


def as_rgb(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Convert an image array to RGB, (H, W, 3) uint8.

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
        image = cv2.convertScaleAbs(np.ascontiguousarray(image), alpha=1 / 257)  # 255 / 65535; rounds
    if image.ndim == 2:
        image = image[..., None]
    if image.shape[2] == 4:
        rgb = np.empty((*image.shape[:2], 3), np.uint8)
        for top in range(0, len(image), ROWS_AT_ONCE):
            rows = image[top : top + ROWS_AT_ONCE]
            alpha = rows[..., 3:].astype(np.float32) / 255
            rgb[top : top + ROWS_AT_ONCE] = np.rint(rows[..., :3] * alpha + BORDER * (1 - alpha))
        image = rgb
    if image.shape[2] == 1:
        image = np.repeat(image, 3, axis=2)
    return np.ascontiguousarray(image)


@contextmanager
def opencv_silenced() -> Iterator[None]:
    """Keep OpenCV from printing what its functions return as well."""
    logging = getattr(cv2.utils, "logging", cv2)  # OpenCV 5 and 4
    level = logging.setLogLevel(0)
    try:
        yield
    finally:
        logging.setLogLevel(level)


def _opened(path: Path) -> BinaryIO:
    try:
        file = path.open("rb")
        if file.seekable():
            return file
        with file:  # a pipe
            return io.BytesIO(file.read())
    except FileNotFoundError:
        raise ImageError("there is no such file") from None
    except IsADirectoryError:
        raise ImageError("is a folder, wanted an image file") from None


def _header(file: BinaryIO) -> tuple[str, tuple[int, int]]:
    """Read format, width and height of an image file, without decoding it."""
    try:
        start = file.read(4096)
        if not start:
            raise ImageError("the file is empty, wanted an image")
        form = image_format(start)
        if form is None:
            raise ImageError(NO_IMAGE)
        file.seek(0)
        if form == "PNG":
            return form, (int.from_bytes(start[16:20], "big"), int.from_bytes(start[20:24], "big"))
        if form == "JPEG":
            return form, _find_scan(file)
        if form == "TIFF":  # Pillow does not know all of its types of pixels
            tags = _tiff_tags(file)
            return form, (int(tags[TiffImagePlugin.IMAGEWIDTH]), int(tags[TiffImagePlugin.IMAGELENGTH]))
        return form, _by_pillow(file, form).size
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # Pillow raises many kinds of errors for damaged files
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ImageError(NO_IMAGE) from None


def _decoded(data: bytes, form: str) -> NDArray[np.uint8]:
    if _is_cut_short(data, form):
        raise ImageError("the image is cut short, its end is missing")
    decode = _decode_by_opencv if _is_for_opencv(data, form) else _decode_by_pillow
    try:
        pixels, orientation = decode(data, form)
        rgb = as_rgb(pixels)
        del pixels
        return _turned(rgb, orientation)
    except (ImageError, MemoryError):
        raise
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError from None
        raise ImageError(NO_IMAGE) from None
    except (ValueError, TypeError) as error:
        raise ImageError(str(error)) from None


def _is_for_opencv(data: bytes, form: str) -> bool:
    """Tell whether OpenCV decodes a file: it is faster than Pillow, and keeps 16 bits of a colour.

    But it loses the orientation of AVIF and of PNG with transparency and the range of PNM, and multiplies the
    colours of TIFF by their transparency. Pillow turns white into black in JPEG 2000 of more than 8 bits.
    """
    if form == "PNG":
        return data[25:26] in (b"\0", b"\2") and b"tRNS" not in data  # grey or RGB
    if form == "TIFF":
        return EXTRA_SAMPLES not in _tiff_tags(io.BytesIO(data))
    if form == "JPEG2000":
        return _bits_of_jpeg2000(data) > 8
    return form in ("JPEG", "WEBP")


def _decode_by_opencv(data: bytes, form: str) -> tuple[NDArray[Any], int]:
    """Decode to grey, RGB or RGBA of 8 or 16 bits; return the EXIF orientation still to apply."""
    flags, orientation = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH, 1
    if form == "WEBP" and _is_transparent_webp(data):
        # Only this flag keeps transparency, but it loses the orientation. Pillow would take four times the
        # memory.
        flags = cv2.IMREAD_UNCHANGED
        orientation = _orientation(_by_pillow(io.BytesIO(data), form))
    with opencv_silenced():
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if pixels is None:
        raise ImageError(NO_IMAGE)
    if form == "JPEG2000":
        pixels = cv2.convertScaleAbs(pixels, alpha=255 / (2.0 ** _bits_of_jpeg2000(data) - 1))
    if pixels.ndim == 3 and pixels.shape[2] > 2:
        code = cv2.COLOR_BGR2RGB if pixels.shape[2] == 3 else cv2.COLOR_BGRA2RGBA
        pixels = cv2.cvtColor(pixels, code)
    return pixels, orientation


def _is_transparent_webp(data: bytes) -> bool:
    """Tell by the first chunk, which differs for extended, lossless and lossy files."""
    if data[12:16] == b"VP8X":
        return bool(data[20] & 0x10)
    return data[12:16] == b"VP8L" and bool(data[24] & 0x10)


def _bits_of_jpeg2000(data: bytes) -> int:
    """Read the bits of a colour from the header of the code stream."""
    at = data.find(b"\xff\x4f\xff\x51")
    return 1 + (data[at + 42] & 0x7F) if 0 <= at < len(data) - 42 else 8


def _by_pillow(file: BinaryIO, form: str) -> Image.Image:
    """Open an image as `Image.open` does, without that function's own warnings about many pixels."""
    Image.init()
    codec = CODECS.get(form)
    if form not in Image.OPEN or (codec is not None and not features.check(codec)):
        raise ImageError(
            f"is an image of the format {form}, which the installed Pillow {PIL.__version__} cannot read; "
            "convert it to JPEG or PNG"
        )
    factory, _ = Image.OPEN[form]
    return factory(file, "")


def _decode_by_pillow(data: bytes, form: str) -> tuple[NDArray[Any], int]:
    """Decode to grey, RGB or RGBA of 8 bits, or grey of 16; return the EXIF orientation still to apply."""
    try:
        image = _by_pillow(io.BytesIO(data), form)
        image.load()
        orientation = _orientation(image)
        if image.mode.startswith("I"):
            return np.clip(np.asarray(image), 0, 65535).astype(np.uint16), orientation
        mode = "RGBA" if image.has_transparency_data else "L" if image.mode in ("1", "L") else "RGB"
        return np.asarray(image if image.mode in (mode, "F") else image.convert(mode)), orientation
    except (ImageError, MemoryError):
        raise
    except Exception:  # see _header
        raise ImageError(NO_IMAGE) from None


def _orientation(image: Image.Image) -> int:
    """Read the EXIF orientation. Pillow translates AVIF's into one, and turns TIFF itself."""
    exif = Image.Exif()
    try:
        exif.load(image.info.get("exif", b""))
        return int(exif.get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged EXIF counts as none
        return 1


def _turned(image: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Turn and mirror an image upright by its EXIF orientation."""
    if orientation in (5, 6, 7, 8):
        image = image.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


def _tiff_tags(file: BinaryIO) -> TiffImagePlugin.ImageFileDirectory_v2:
    """Read the tags of the first image of a TIFF file."""
    start = file.read(16)
    tags = TiffImagePlugin.ImageFileDirectory_v2(start[: 16 if start[2] == 43 or start[3] == 43 else 8])
    file.seek(tags.next)
    tags.load(file)
    return tags


def _find_scan(file: BinaryIO) -> tuple[int, int]:
    """Go through the headers of a JPEG file up to its pixels; return width and height."""
    size = 0, 0
    file.seek(2)
    while True:
        byte = file.read(1)
        while byte not in (b"\xff", b""):  # bytes between headers are passed over
            byte = file.read(1)
        while byte == b"\xff":
            byte = file.read(1)
        if byte in (b"", b"\xd9"):
            raise ImageError(NO_IMAGE)
        if byte == b"\xda":
            return size
        marker = byte[0]
        if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:
            continue  # this marker has no header
        header = file.read(7)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            size = int.from_bytes(header[5:7], "big"), int.from_bytes(header[3:5], "big")
        file.seek(int.from_bytes(header[:2], "big") - len(header), os.SEEK_CUR)


def _is_cut_short(data: bytes, form: str) -> bool:
    """Tell whether a PNG or JPEG file lacks its end.

    OpenCV 4 would fill the missing part of a JPEG with whatever is in memory.
    """
    if form == "PNG":
        at = 8
        while at + 12 <= len(data):  # checked, since OpenCV allocates as much as a chunk claims to have
            length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
            at += 12 + length
            if kind == b"IEND":
                return at > len(data)
        return True
    if form != "JPEG":
        return False
    # Headers are skipped, since a thumbnail in them has an end of its own; of the ends that follow the first
    # one counts, since cameras append anything after it.
    file = io.BytesIO(data)
    _find_scan(file)
    return data.find(b"\xff\xd9", file.tell()) < 0
