"""Preparing one clip: its faces are aligned, and its rows are written to a file, its part."""

from __future__ import annotations

import math
import os
import shutil
import urllib.parse
from collections.abc import Callable
from collections.abc import Sequence as Rows
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from jaa_ext import facs
from jaa_ext.atomic import replacing, sync
from jaa_ext.data.faces import align_face
from jaa_ext.data.images import as_rgb, read_image
from jaa_ext.data.plausible import fault
from jaa_ext.data.preparation.folder import IMAGES
from jaa_ext.data.release import MISSING, Clip, Frame, ReleaseError, Skipped

PARTS = "parts"
"""The folder of the parts."""

KEPT_FIELDS = 8
"""The number of arrays of a `Part` that belong to the frames that are kept."""


class Face(Protocol):
    """A face that a detector has found."""

    @property
    def box(self) -> tuple[float, float, float, float]:
        """left, top, right, bottom in pixels of the image."""

    @property
    def landmarks(self) -> NDArray[np.float32] | None:
        """(49, 2) x, y in pixels of the image; None if the detector finds no landmarks."""

    @property
    def score(self) -> float:
        """The higher, the clearer the face."""


Detector = Callable[[NDArray[np.uint8]], Rows[Face]]
"""Finds the faces in an RGB image, (H, W, 3) uint8; such as `jaa_ext.predict.FaceDetector` with dlib's
landmarks."""


@dataclass
class Preparer:
    """Align the faces of a clip and write its part. Can be pickled.

    Args:
        out: the folder of the prepared data set.
        aus: AU numbers of the labels.
        size: side of the aligned images in pixels; None to keep the images as they are.
        detector, checker: see `prepare`.
        checked_clips: names of the clips in which the checker looks at frames.
        checked_per_clip: at how many.
    """

    out: Path
    aus: tuple[facs.AU, ...]
    size: int | None
    detector: Callable[[], Detector] | None
    checker: Callable[[], Detector] | None = None
    checked_clips: frozenset[str] = frozenset()
    checked_per_clip: int = 0

    def __call__(self, clip: Clip, count: Callable[[int], None]) -> None:
        """Prepare a clip; `count` is called after each frame with how many more are done."""
        faces: list[_Face] = []
        skipped: list[_LeftOut] = []
        seen: set[int] = set()
        length = clip.length
        check_every = max(1, length // max(1, self.checked_per_clip))
        folder = self.out / IMAGES / clip.name
        folder.mkdir(parents=True, exist_ok=True)
        # Files are left by a run that ended here; folders belong to other clips.
        for path in folder.iterdir():
            if not path.is_dir():
                path.unlink()
        for position, frame in enumerate(clip.read()):
            done: _Face | _LeftOut
            if frame.number in seen:
                done = _LeftOut(frame.number, "its frame number came before")
            elif isinstance(frame, Skipped):
                done = _LeftOut(*frame)
            else:
                check = clip.name in self.checked_clips and position % check_every == 0
                done = self._prepare(frame, clip.name, check)
            seen.add(frame.number)
            if isinstance(done, _LeftOut):
                skipped.append(done)
            else:
                faces.append(done)
            # The length may be an estimate, and the bar must not run past it.
            count(int(position < length))
        part = Part.of(faces, skipped, len(self.aus))
        # Before the part says that they are there; together, since each waits for the disk.
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda path: sync(self.out / path), part.path.tolist()))
        with replacing(part_file(self.out, clip)) as temporary, temporary.open("wb") as file:
            np.savez(file, **part._asdict())
        count(max(0, length - len(faces) - len(skipped)))

    def _prepare(self, frame: Frame, clip: str, check: bool) -> _Face | _LeftOut:
        if len(frame.labels) != len(self.aus) or not set(frame.labels) <= {0, 1, MISSING}:
            raise ReleaseError(
                f"{clip}, frame {frame.number}: wanted {len(self.aus)} labels of 1, 0 and {MISSING}, "
                f"got {frame.labels}"
            )
        intensities = (math.nan,) * len(self.aus) if frame.intensities is None else frame.intensities
        if len(intensities) != len(self.aus) or not all(math.isnan(x) or 0 <= x <= 5 for x in intensities):
            raise ReleaseError(
                f"{clip}, frame {frame.number}: wanted {len(self.aus)} intensities of 0..5, or NaN where "
                f"missing, got {intensities}"
            )
        try:
            image = read_image(frame.image) if isinstance(frame.image, Path) else as_rgb(frame.image)
        except (ValueError, TypeError):
            # Path.exists raises for a name that is too long.
            missing = isinstance(frame.image, Path) and not os.path.exists(frame.image)
            return _LeftOut(frame.number, "the image is missing" if missing else "the image cannot be read")
        if self.size is None and image.shape[0] != image.shape[1]:
            return _LeftOut(frame.number, "the picture is not square")
        landmarks = frame.landmarks
        if landmarks is None and self._detect is not None:
            face = max(self._detect(image), key=_area, default=None)
            if face is None:
                return _LeftOut(frame.number, "no face was found")
            landmarks = face.landmarks
        if landmarks is None:
            return _LeftOut(frame.number, "no landmarks")
        if landmarks.shape != (facs.NUM_LANDMARKS, 2):
            return _LeftOut(frame.number, f"not {facs.NUM_LANDMARKS} landmarks")
        # Also refuses NaN, which is not less than anything.
        if not np.abs(landmarks).max() < np.finfo(np.float32).max:
            return _LeftOut(frame.number, "landmarks that are not finite")
        height, width = image.shape[:2]
        reach = (*landmarks.min(0).tolist(), *landmarks.max(0).tolist(), width, height)
        if reason := fault(landmarks.astype(np.float64), width, height):
            return _LeftOut(frame.number, reason, reach)
        check = check and frame.landmarks is not None and self._check is not None
        distance = self._distance(image, landmarks) if check else math.nan
        stem = f"{IMAGES}/{clip}/{frame.number}"
        if self.size is None:
            path, points = self._keep(frame, image, stem), landmarks.astype(np.float32)
        else:
            try:
                image, points, _ = align_face(image, landmarks, size=self.size)
            except (ValueError, cv2.error):
                return _LeftOut(frame.number, "landmarks by which the face cannot be aligned")
            path = self._write_png(image, stem)
        side = image.shape[0]
        return _Face(frame.number, path, side, points, frame.labels, intensities, reach, distance)

    def _distance(self, image: NDArray[np.uint8], landmarks: NDArray[Any]) -> float:
        """Measure how far landmarks are from the nearest face that the checker finds.

        Returns:
            The mean distance in eye distances of that face; NaN where none is found.
        """
        assert self._check is not None
        distances = []
        for face in self._check(image):
            if face.landmarks is None:
                continue
            left, right = (face.landmarks[list(eye)].mean(0) for eye in (facs.LEFT_EYE, facs.RIGHT_EYE))
            off = np.hypot(*(face.landmarks - landmarks).T).mean()
            distances.append(float(off / np.hypot(*(right - left))))
        return min(distances, default=math.nan)

    def _keep(self, frame: Frame, image: NDArray[np.uint8], stem: str) -> str:
        if not isinstance(frame.image, Path):
            return self._write_png(image, stem)
        path = stem + frame.image.suffix
        shutil.copyfile(frame.image, self.out / path)
        return path

    def _write_png(self, image: NDArray[np.uint8], stem: str) -> str:
        path = f"{stem}.png"
        try:
            (self.out / path).write_bytes(cv2.imencode(".png", image[..., ::-1])[1].tobytes())
        except OSError as error:  # names no file if the disk is full
            raise OSError(error.errno, error.strerror, str(self.out / path)) from None
        return path

    @cached_property
    def _detect(self) -> Detector | None:
        return None if self.detector is None else self.detector()

    @cached_property
    def _check(self) -> Detector | None:
        try:
            return None if self.checker is None else self.checker()
        except ImportError:  # the detector's package is an extra
            return None


class Part(NamedTuple):
    """The rows of a clip with n frames kept and m left out."""

    number: NDArray[np.int64]
    """(n,)"""
    path: NDArray[np.str_]
    """(n,) paths of the images, relative to the folder."""
    side: NDArray[np.int64]
    """(n,) sides of the images in pixels."""
    landmarks: NDArray[np.float32]
    """(n, 49, 2) in pixels of the image."""
    labels: NDArray[np.int8]
    """(n, A)"""
    intensities: NDArray[np.float32]
    """(n, A), NaN where missing."""
    reach: NDArray[np.float64]
    """(n, 6) before alignment: lowest x and y, highest x and y of the landmarks; width and height of the
    image."""
    distance: NDArray[np.float64]
    """(n,) from the landmarks to what the checker found, in eye distances; NaN where it did not look."""
    skipped: NDArray[np.int64]
    """(m,) numbers of the frames left out."""
    reason: NDArray[np.str_]
    """(m,)"""
    skipped_reach: NDArray[np.float64]
    """(m, 6) as `reach`, NaN where there are no landmarks."""

    @classmethod
    def of(cls, faces: list[_Face], skipped: list[_LeftOut], aus: int) -> Part:
        landmarks = np.array([face.landmarks for face in faces], np.float32)
        return cls(
            number=np.array([face.number for face in faces], np.int64),
            path=np.array([face.path for face in faces], np.str_),
            side=np.array([face.side for face in faces], np.int64),
            landmarks=landmarks.reshape(-1, facs.NUM_LANDMARKS, 2),
            labels=np.array([face.labels for face in faces], np.int8).reshape(-1, aus),
            intensities=np.array([face.intensities for face in faces], np.float32).reshape(-1, aus),
            reach=np.array([face.reach for face in faces], np.float64).reshape(-1, 6),
            distance=np.array([face.distance for face in faces], np.float64),
            skipped=np.array([frame.number for frame in skipped], np.int64),
            reason=np.array([frame.reason for frame in skipped], np.str_),
            skipped_reach=np.array([frame.reach for frame in skipped], np.float64).reshape(-1, 6),
        )

    def kept(self, frames: NDArray[np.bool_]) -> Part:
        """Leave some of the n frames away."""
        arrays: list[Any] = list(self)
        return Part(*(array[frames] for array in arrays[:KEPT_FIELDS]), *arrays[KEPT_FIELDS:])

    @classmethod
    def load(cls, path: Path) -> Part | None:
        """Read a part; None if it is missing, damaged or of another version, and must be made anew."""
        try:
            with np.load(path) as arrays:
                part = cls(**arrays)
            empty = cls.of([], [], part.labels.shape[1])
            for place, name in enumerate(cls._fields):
                array, wanted = getattr(part, name), getattr(empty, name)
                length = len(part.number if place < KEPT_FIELDS else part.skipped)
                if array.shape != (length, *wanted.shape[1:]) or array.dtype.kind != wanted.dtype.kind:
                    return None
            return part
        # zipfile, zlib and numpy raise many kinds of errors for damaged files.
        except Exception:
            return None


def part_file(out: Path, clip: Clip) -> Path:
    """The file of a clip's part, which is there until all clips are done."""
    return out / PARTS / f"{urllib.parse.quote(clip.name, safe='')}.npz"


class _Face(NamedTuple):
    number: int
    path: str
    side: int
    landmarks: NDArray[np.float32]
    labels: tuple[int, ...]
    intensities: tuple[float, ...]
    reach: tuple[float, ...]
    distance: float


class _LeftOut(NamedTuple):
    number: int
    reason: str
    reach: tuple[float, ...] = (math.nan,) * 6


def _area(face: Face) -> tuple[float, float]:
    left, top, right, bottom = face.box
    return (right - left) * (bottom - top), face.score
