"""What every data set of faces shares: the sample, alignment, flips, crops and normalization."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from jaa_ext import facs
from jaa_ext.data.release import MISSING

if TYPE_CHECKING:
    from jaa_ext.data.augment import Augmentation

BORDER = 128
"""Grey value of what lies outside the original image."""
MAX_WARPED_SIDE = 32766
"""Longest side, in pixels, of an image that OpenCV 4 can warp."""


class FaceSample(NamedTuple):
    """One aligned face.

    Example:
        >>> from jaa_ext.data import SyntheticFaces
        >>> sample = SyntheticFaces(subjects=[3], samples_per_subject=1)[0]
        >>> sample.image.shape, sample.landmarks.shape, sample.labels.shape, sample.subject
        ((200, 200, 3), (49, 2), (12,), 'S003')
    """

    image: NDArray[np.uint8]
    """(S, S, 3) RGB."""
    landmarks: NDArray[np.float32]
    """(49, 2) x, y in pixels of the image; pixel centres are whole numbers."""
    labels: NDArray[np.int64]
    """(A,) 1 present, 0 absent, -1 missing."""
    subject: str
    """The person, e.g. "S003"."""
    id: str
    """The sample's name in messages and tables, e.g. "S003/00017"."""
    intensities: NDArray[np.float32] | None = None
    """(A,) of 0..5, NaN where missing; None where the data set has none."""
    pose: NDArray[np.float32] | None = None
    """(3,) yaw, pitch and roll of the head in degrees: positive yaw turns the face to the right of the
    image, positive pitch up, positive roll clockwise in the image. None where it is not known."""


class FaceDataset(Protocol):
    """What a data set must have for `Crops` and the trainer, whatever its class.

    Example:
        >>> from jaa_ext.data import SyntheticFaces
        >>> faces: FaceDataset = SyntheticFaces(subjects=range(3), samples_per_subject=4, aus=(1, 12))
        >>> faces.aus, faces.subjects, len(faces), faces.label_matrix().shape
        ((1, 12), ('S000', 'S001', 'S002'), 12, (12, 2))
    """

    @property
    def aus(self) -> tuple[facs.AU, ...]:
        """AU numbers, with sides or not, in the order of the labels."""

    @property
    def subjects(self) -> tuple[str, ...]:
        """The distinct subjects."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> FaceSample: ...

    def label_matrix(self) -> NDArray[np.int64]:
        """(len, A) of 1, 0 and -1, without reading or drawing an image."""


@runtime_checkable
class HasIntensities(Protocol):
    """What a `FaceDataset` has in addition if it knows intensities."""

    def intensity_matrix(self) -> NDArray[np.float32]:
        """(len, A) of 0..5, NaN where missing, without reading or drawing an image."""


class Crops(Dataset[dict[str, Any]]):
    """Square crops of aligned faces, the network's input; random in training, central otherwise.

    Flips swap the labels and intensities of AUs of one side, see `mirror_aus`.

    A training crop and its flip depend on (seed, epoch, i) alone: neither the order of the samples nor the
    number of workers matters. `set_epoch` says which epoch it is. A sampler may say it with each sample
    instead, by indices (epoch, i), as the trainer's does.

    Args:
        dataset: its images have the side ``round(size * 200 / 176)``, the papers' proportion; or ``size``,
            and only flips vary them.
        size: side l of the crops in pixels.
        train: random crops and flips instead of central crops.
        seed: seed of the random crops, at least 0.
        augment: further variation of training faces; None for none.

    Returns (from ``crops[i]``):
        A dict of image uint8 (3, size, size); landmarks float32 (49, 2) in pixels of the crop; labels
        int64 (A,); intensities float32 (A,), NaN where missing; id, a str.

    Raises:
        ValueError: a size or seed too small, or augmentation without training; when a sample is read, an
            image of another side.

    Example:
        >>> from jaa_ext.data import SyntheticFaces
        >>> from torch.utils.data import DataLoader
        >>> faces = SyntheticFaces(subjects=range(3), samples_per_subject=4, size=73)
        >>> crops = Crops(faces, 64, train=True)
        >>> loader = DataLoader(crops, batch_size=4, shuffle=True)
        >>> for epoch in range(2):
        ...     crops.set_epoch(epoch)
        ...     for batch in loader:
        ...         image = normalize(batch["image"])
        >>> image.shape
        torch.Size([4, 3, 64, 64])
    """

    def __init__(
        self,
        dataset: FaceDataset,
        size: int,
        *,
        train: bool,
        seed: int = 0,
        augment: Augmentation | None = None,
    ) -> None:
        if size < 1 or seed < 0:
            raise ValueError(
                f"Crops: size must be at least 1 and seed at least 0, got size={size}, seed={seed}"
            )
        if augment is not None and not train:
            raise ValueError("Crops: augment varies training faces alone, got it with train=False")
        self.dataset, self.size, self.train, self.seed = dataset, size, train, seed
        self.augment = augment
        self._epoch = torch.zeros((), dtype=torch.int64)
        if train:  # workers that outlive an epoch see only what is in shared memory
            self._epoch.share_memory_()  # type: ignore[no-untyped-call]

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, at least 0, of the random crops; call it before iterating over a data loader.

        Workers of a data loader see it, also those that are persistent.
        """
        if epoch < 0:
            raise ValueError(f"Crops.set_epoch: epoch must be at least 0, got {epoch}")
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int | tuple[int, int]) -> dict[str, Any]:
        epoch, i = index if isinstance(index, tuple) else (int(self._epoch), index)
        sample = self.dataset[i]
        image, landmarks, labels = sample.image, sample.landmarks, sample.labels
        intensities = sample.intensities
        if intensities is None:
            intensities = np.full(len(labels), np.nan, np.float32)
        side = image.shape[0]
        if image.shape != (side, side, 3) or side not in (self.size, aligned_size(self.size)):
            wanted = " or ".join(f"({side}, {side}, 3)" for side in (aligned_size(self.size), self.size))
            raise ValueError(
                f"crops of {self.size} pixels want images of shape {wanted}, got {image.shape} for sample "
                f"{sample.id}: prepare the faces with --size {aligned_size(self.size)} (and with --align "
                "similarity, if they were kept as they are)"
            )
        spare = side - self.size
        left = top = spare // 2
        if self.train:
            random = np.random.default_rng((self.seed, epoch, i % len(self)))
            left, top = (int(v) for v in random.integers(0, spare + 1, 2))
            if random.random() < 0.5:
                image, landmarks = flip(image, landmarks)
                labels = mirror_aus(labels, self.dataset.aus)
                intensities = mirror_aus(intensities, self.dataset.aus)
        if self.augment is not None:
            image, landmarks = self.augment.crop(image, landmarks, (left, top), self.size, random)
        else:
            image = image[top : top + self.size, left : left + self.size]
            landmarks = landmarks - np.array((left, top), np.float32)
        return {
            "image": torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))),
            "landmarks": torch.from_numpy(landmarks),
            "labels": torch.from_numpy(labels.copy()),
            "intensities": torch.from_numpy(intensities.copy()),
            "id": sample.id,
        }


def aligned_size(size: int) -> int:
    """Compute the side of the aligned images for crops of side `size`, in the papers' proportion.

    Example:
        >>> aligned_size(176)
        200
    """
    return round(size * 200 / 176)


def normalize(image: Tensor) -> Tensor:
    """Turn bytes into the network's input: ``(x / 255 - 0.5) / 0.5``, float32 in -1..1.

    Args:
        image: uint8 (N, 3, H, W) or (3, H, W) RGB.

    Raises:
        TypeError: an image of another dtype, which may have been normalized already.

    Example:
        >>> normalize(torch.tensor([0, 255], dtype=torch.uint8))
        tensor([-1.,  1.])
    """
    if image.dtype != torch.uint8:
        raise TypeError(f"normalize: image must be uint8, got {str(image.dtype).removeprefix('torch.')}")
    return (image.float() / 255 - 0.5) / 0.5


def flip(
    image: NDArray[np.uint8], landmarks: NDArray[np.float32]
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Mirror an (H, W, 3) image and its (49, 2) landmarks left to right; x becomes W - 1 - x.

    Example:
        >>> from jaa_ext.data import SyntheticFaces
        >>> sample = SyntheticFaces(subjects=[0], samples_per_subject=1)[0]
        >>> image, landmarks = flip(sample.image, sample.landmarks)
    """
    mirrored = landmarks[list(facs.FLIP)]
    mirrored[:, 0] = image.shape[1] - 1 - mirrored[:, 0]
    return np.ascontiguousarray(image[:, ::-1]), mirrored


def mirror_aus(values: NDArray[Any], aus: Sequence[facs.AU]) -> NDArray[Any]:
    """Give labels (..., A) or intensities (..., A) of mirrored faces: AUs of one side change places.

    Where the list has one side alone, what the mirror image shows there is not known: the label is missing,
    the intensity NaN.

    Example:
        >>> mirror_aus(np.array([1, 0, 1, 0]), (1, "12L", "12R", "4L")).tolist()
        [1, 1, 0, -1]
    """
    missing = MISSING if values.dtype.kind == "i" else np.nan
    mirrored = np.full_like(values, missing)
    for own, place in enumerate(facs.mirror_places(aus)):
        if place is not None:
            mirrored[..., own] = values[..., place]
    return mirrored


def with_mirror(matrix: NDArray[Any], aus: Sequence[facs.AU]) -> NDArray[Any]:
    """Put the labels (n, A) or intensities (n, A) of mirrored faces below those of the faces.

    They are what training sees, as `Crops` flips half of the faces. Where no AU has a side, both halves would
    be alike, and the matrix itself is given.

    Example:
        >>> with_mirror(np.array([[1, 0]]), ("12L", "12R")).tolist()
        [[1, 0], [0, 1]]
    """
    if facs.mirror_places(aus) == tuple(range(len(aus))):
        return matrix
    return np.concatenate([matrix, mirror_aus(matrix, aus)])


def align_face(
    image: NDArray[np.uint8], landmarks: NDArray[Any], *, size: int = 200, enlarge: float = 2.9
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float64]]:
    """Bring a face upright into the middle of a square image by a similarity transform.

    The eyes become level, and the box around the two eye centres, the nose tip and the mouth corners is
    centred and fills ``1 / enlarge`` of the image (the preprocessing of ECCV 2018). Bilinear; grey 128
    outside the original image.

    Args:
        image: uint8 (H, W, 3).
        landmarks: (49, 2) x, y in pixels of the image.
        size: side of the result in pixels.
        enlarge: side of the result divided by the longer side of the box.

    Returns:
        Image uint8 (size, size, 3); landmarks float32 (49, 2) in its pixels; matrix float64 (2, 3) that maps
        original to aligned pixels.

    Raises:
        ValueError: shapes that do not fit, landmarks that are not finite, or eye centres that coincide.
        TypeError: an image that is not uint8.

    Example:
        >>> from jaa_ext.data import SyntheticFaces
        >>> sample = SyntheticFaces(subjects=[0], samples_per_subject=1, size=300)[0]
        >>> image, landmarks, matrix = align_face(sample.image, sample.landmarks, size=200)
        >>> image.shape, landmarks.shape, matrix.shape
        ((200, 200, 3), (49, 2), (2, 3))
    """
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"align_face: image must be (H, W, 3), got {image.shape}")
    if image.dtype != np.uint8:
        raise TypeError(f"align_face: image must be uint8, got {image.dtype}")
    matrix = alignment_matrix(landmarks, size=size, enlarge=enlarge)
    grey = (BORDER, BORDER, BORDER)
    part, shifted = (image, matrix) if max(image.shape) <= MAX_WARPED_SIDE else _cut_out(image, matrix, size)
    aligned = cv2.warpAffine(part, shifted, (size, size), flags=cv2.INTER_LINEAR, borderValue=grey)
    return aligned.astype(np.uint8, copy=False), transform(landmarks, matrix).astype(np.float32), matrix


def alignment_matrix(landmarks: NDArray[Any], *, size: int, enlarge: float = 2.9) -> NDArray[np.float64]:
    """Compute the (2, 3) matrix of `align_face`, without an image."""
    points = np.asarray(landmarks, np.float64)
    if points.shape != (facs.NUM_LANDMARKS, 2):
        raise ValueError(f"align_face: landmarks must be (49, 2), got {points.shape}")
    if not np.isfinite(points).all():
        raise ValueError("align_face: landmarks must be finite, got NaN or infinity")
    if size < 2 or not enlarge > 0:
        raise ValueError(
            f"align_face: size must be at least 2 and enlarge above 0, got size={size}, enlarge={enlarge:g}"
        )
    eyes = np.stack([points[list(eye)].mean(0) for eye in (facs.LEFT_EYE, facs.RIGHT_EYE)])
    across = eyes[1] - eyes[0]
    distance = float(np.hypot(*across))
    if distance == 0:
        raise ValueError(
            f"align_face: the two eyes must lie apart, got both means at ({eyes[0, 0]:g}, {eyes[0, 1]:g})"
        )
    cos, sin = across / distance
    rotation = np.array([[cos, sin], [-sin, cos]])
    box = np.concatenate([eyes, points[[_NOSE_TIP, *_MOUTH_CORNERS]]]) @ rotation.T
    low, high = box.min(0), box.max(0)
    half = 0.5 * enlarge * float((high - low).max())
    scale = (size - 1) / 2 / half
    shift = (size - 1) / 2 - scale * (low + high) / 2
    return np.column_stack([scale * rotation, shift])


def _cut_out(
    image: NDArray[np.uint8], matrix: NDArray[np.float64], size: int
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Cut out the part of an image that an alignment shows; adapt the matrix to it."""
    corners = np.array([(x, y) for x in (-2, size + 2) for y in (-2, size + 2)])
    shown = transform(corners, cv2.invertAffineTransform(matrix).astype(np.float64))
    height, width = image.shape[:2]
    left, top = np.clip(np.floor(shown.min(0)), 0, (width - 1, height - 1)).astype(int)
    right, bottom = np.clip(np.ceil(shown.max(0)), (left + 1, top + 1), (width, height)).astype(int)
    shift = transform(np.array((left, top)), matrix)
    return image[top:bottom, left:right], np.column_stack([matrix[:, :2], shift])


def transform(points: NDArray[Any], matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Apply a (2, 3) matrix to points (..., 2)."""
    return points @ matrix[:, :2].T + matrix[:, 2]


_NOSE_TIP = 13
_MOUTH_CORNERS = (31, 37)
