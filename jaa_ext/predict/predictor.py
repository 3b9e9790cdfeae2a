"""Prediction of AUs and landmarks: find or follow faces, align them, predict, map landmarks back."""

from __future__ import annotations

import copy
import math
import os
import re
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from jaa_ext.data.faces import align_face, aligned_size, normalize, transform
from jaa_ext.data.images import ImageError, as_rgb, count_pixels, read_image
from jaa_ext.data.video import Video, VideoError, VideoFrame
from jaa_ext.device import (
    float32_instead,
    is_fastest_in_bfloat16,
    processors,
    resolve_device,
    warn_of_float32_instead,
    warn_of_one_thread,
)
from jaa_ext.models import JAANet, load_model
from jaa_ext.models.thresholds import is_present
from jaa_ext.predict import alignment
from jaa_ext.predict.batch_detector import BatchDetector, BatchSearch, DetectorError
from jaa_ext.predict.by_name import name_of
from jaa_ext.predict.detector import Box, DetectedFace
from jaa_ext.predict.detector_choice import choose_detector
from jaa_ext.predict.identity import LEAST_LIKENESS, Embedding, Gallery, choose_embedding
from jaa_ext.predict.pose import check_focal_length, head_pose
from jaa_ext.predict.prediction import FacePrediction, FramePrediction, consistent_intensities
from jaa_ext.predict.prefetch import lower_priority, parallel_map, prefetch
from jaa_ext.predict.sources import Source, find_sources
from jaa_ext.predict.stages import Stages
from jaa_ext.predict.tables import data_frame
from jaa_ext.predict.tracking import SEARCH_EVERY, Detector, TrackedFace, Tracker, confidence, locate

if TYPE_CHECKING:
    import pandas

BATCH_SIZE = 32
"""Most faces of a batch."""
PHOTOGRAPHS_AHEAD = 8
"""Most photographs that are read and searched ahead; as many are put together to a batch."""
PIXELS_AHEAD = 120_000_000
"""Most pixels of these photographs together, unless one alone has more."""
FRAMES_AHEAD = 4
"""Frames of a video that are decoded, and searched where a search is due, ahead of the network."""
NO_LANDMARKS = (
    "the model predicts no landmarks (alignment=False) by which its faces could be aligned; take dlib's "
    '(landmarks="dlib", on the command line --landmarks dlib)'
)


class Predictor:
    """Detects the AUs and landmarks of every face in photographs and videos.

    Args:
        model: a JAANet; None for the weights that come with jaa_ext, whose `note` says what they are worth. A
            fused copy predicts (`JAANet.fuse`), so the model stays as it is and later changes have no effect.
        detector: detector of faces, or its name, see `choose_detector`; None for "dlib". A `BatchDetector` is
            called by one thread at a time, with up to 8 photographs or a frame; any other by several threads.
        landmarks: which landmarks align the detected faces: "network" for the model's own, see
            `jaa_ext.predict.alignment`, or "dlib" for those of dlib's 68-point model, which is for
            non-commercial use (the extra ``dlib-landmarks``). With another `detector` than dlib's, the
            landmarks that it finds align, or else the model's.
        device: "auto" (the first GPU if there is one), "cpu", "cuda" or "cuda:1", or a torch device.
        precision: of the network: "float32", "bfloat16", or "auto" for the faster one, which is bfloat16 on a
            GPU that multiplies it natively and on a processor with AMX, else float32. On a device that does
            not multiply it natively, "bfloat16" is float32 too, with a warning, see `float32_instead`.
        search_every: in videos, seconds from one search of the whole frame to the next while every face can
            be followed by its landmarks; 0 searches each frame, as a model without alignment always does.
        focal_length: of the camera in pixels of the picture, by which head poses are found; None for
            `jaa_ext.predict.pose.default_focal_length`.
        embedding: of faces, or its name, see `choose_embedding`; in videos, faces that come back get their
            ids again by it, see `jaa_ext.predict.identity`. None: a face is a new one after more than
            `jaa_ext.predict.tracking.REMEMBERED` seconds out of sight, and after a cut.
        least_likeness: with an embedding, least cosine, above 0 and below 1, by which a face is known again;
            None for `jaa_ext.predict.identity.LEAST_LIKENESS`.

    Raises:
        ValueError: a model without AU detection, or one without alignment whose landmarks are to align faces
            (with `detector` given, `DetectorError` when it finds a face without landmarks); `detector` and
            "dlib" together; a device that is not there; an unknown precision or `landmarks`; negative or
            infinite seconds; a focal length that is not above 0; another `least_likeness`, or one without an
            embedding.
        MissingDependency: no detector is given, and dlib or the model of its landmarks is not installed.
        FileNotFoundError: no model is given and this build comes without weights.

    Example:
        >>> for face in Predictor().faces("photo.jpg"):  # doctest: +SKIP
        ...     print(face.box, face.probabilities)
    """

    def __init__(
        self,
        model: JAANet | None = None,
        *,
        detector: Detector | BatchDetector | str | None = None,
        landmarks: Literal["network", "dlib"] = "network",
        device: str | torch.device = "auto",
        precision: Literal["auto", "float32", "bfloat16"] = "auto",
        search_every: float = SEARCH_EVERY,
        focal_length: float | None = None,
        embedding: Embedding | str | None = None,
        least_likeness: float | None = None,
    ) -> None:
        model = load_model() if model is None else model
        if not model.config.au_detection:
            raise ValueError("got a model without AU detection (au_detection=False), wanted one with it")
        if precision not in ("auto", "float32", "bfloat16"):
            raise ValueError(f'precision must be auto, float32 or bfloat16, got "{precision}"')
        if landmarks not in ("network", "dlib"):
            raise ValueError(f'landmarks must be network or dlib, got "{landmarks}"')
        if detector == "dlib-landmarks":
            detector, landmarks = None, "dlib"
        elif detector == "dlib":
            detector = None
        if landmarks == "dlib" and detector is not None:
            got = detector if isinstance(detector, str) else name_of(detector)
            raise ValueError(f'landmarks "dlib" wants the detector "dlib", got "{got}"')
        if detector is None and landmarks == "network" and not model.config.alignment:
            raise ValueError(NO_LANDMARKS)
        if not 0 <= search_every < math.inf:
            raise ValueError(f"search_every must be seconds from 0 on, got {search_every}")
        if least_likeness is not None and not 0 < least_likeness < 1:
            raise ValueError(f"least_likeness must be between 0 and 1, got {least_likeness}")
        if least_likeness is not None and embedding is None:
            raise ValueError(f"got least_likeness {least_likeness}, but no embedding that it is of")
        self.device = resolve_device(device)
        warn_of_one_thread(self.device)
        if precision == "auto":
            precision = "bfloat16" if is_fastest_in_bfloat16(self.device) else "float32"
        elif precision == "bfloat16" and float32_instead(self.device):
            warn_of_float32_instead(self.device)
            precision = "float32"
        self.precision = precision
        """The precision in use, "float32" or "bfloat16"."""
        self.aus, self.note, self.thresholds = model.config.aus, model.note, model.thresholds
        self.intensity = model.config.intensity
        """Whether intensities are predicted."""
        self.landmarks = landmarks
        self.focal_length = None if focal_length is None else check_focal_length(focal_length)
        self.stages = Stages()
        """How long each stage of the work was busy so far."""
        self.model = model.fuse().to(self.device).float()
        if precision == "bfloat16":
            for layer in self.model.half_precision_layers().values():
                layer.to(torch.bfloat16)  # once: autocast would convert the weights for every frame
        if detector is None:
            detector = "dlib-landmarks" if landmarks == "dlib" else "dlib"
        name = detector if isinstance(detector, str) else ""
        if isinstance(detector, str):
            detector = choose_detector(detector)
        self.detector_identity = name_of(detector, name)
        """Which detector is used, for unfinished tables."""
        self._embedding_name = embedding if isinstance(embedding, str) else ""
        if isinstance(embedding, str):
            embedding = choose_embedding(embedding)
        self.embedding = embedding
        self.least_likeness = LEAST_LIKENESS if least_likeness is None else float(least_likeness)
        self.embedding_identity = "" if embedding is None else name_of(embedding, self._embedding_name)
        """Which embedding is used, for unfinished tables; empty without one."""
        search = BatchSearch(detector) if isinstance(detector, BatchDetector) else detector
        self._in_batches = isinstance(search, BatchSearch)
        self.detector = _TimedDetector(search, self.stages)
        self.search_every = float(search_every) if model.config.alignment else 0.0

    def __call__(
        self,
        source: NDArray[Any] | str | os.PathLike[str] | int,
        *,
        every: int = 1,
        start: float = 0.0,
        end: float | None = None,
    ) -> pandas.DataFrame:
        """Predict a photograph, a video, a folder or a camera as a table.

        The table is the one that `jaa predict` writes: the columns of `jaa_ext.predict.columns`, a row for
        each face of each frame and one for each frame without a face.

        Args:
            source: an array, see `as_rgb`; a file, a folder of photographs and videos, or a pattern such as
                ``"talks/*.mp4"``; the number of a camera, whose `end` must be given.
            every, start, end: of videos, see `Video.frames`.

        Raises:
            ImageError, VideoError: a file that is damaged, or neither photograph nor video.
            ValueError, TypeError: a file that is missing, a folder or pattern without any, an array of
                another shape or dtype, or numbers that make no sense.
            MissingDependency: pandas is not installed.

        Example:
            >>> Predictor()("talk.mp4", every=5)[["timestamp", "AU12_p"]]  # doctest: +SKIP
        """
        if end is None and not isinstance(source, np.ndarray):
            for camera in (one for one in find_sources([source]) if one.kind == "camera"):
                raise ValueError(f"camera {camera.name}: say after how many seconds to end, or take `frames`")
        frames = self.frames(source, every=every, start=start, end=end)
        return data_frame(frames, self.aus, self.note, intensity=self.intensity)

    def faces(self, image: NDArray[Any] | str | os.PathLike[str]) -> list[FacePrediction]:
        """Predict every face of one photograph, from left to right, with crops and attention maps.

        Args:
            image: a file, see `read_image`, or an array, see `as_rgb`.

        Raises:
            ImageError: a file that is missing or not a whole image.
            ValueError, TypeError: an array of another shape or dtype.

        Example:
            >>> [face.present for face in Predictor().faces("photo.jpg")]  # doctest: +SKIP
        """
        name = "" if isinstance(image, np.ndarray) else os.fspath(image)
        (frame,) = self._photographs([(name, image)], None)
        return frame.faces

    def frames(
        self,
        source: NDArray[Any] | str | os.PathLike[str] | int,
        *,
        every: int = 1,
        start: float = 0.0,
        end: float | None = None,
    ) -> Generator[FramePrediction, None, None]:
        """Predict one frame or photograph after the other, in constant memory; arguments as of `__call__`.

        Files that are found in a folder or by a pattern and cannot be read are skipped with a warning.
        """
        if isinstance(source, np.ndarray):
            yield from self._photographs([("", source)], None)
            return
        photographs: list[Source] = []
        for one in [*find_sources([source], lambda sentence: warnings.warn(sentence, stacklevel=2)), None]:
            if one is not None and one.kind == "photograph":
                photographs.append(one)
                continue
            # Files that were found in a folder may be unreadable, but not one that is named by itself.
            skip = None if all(photograph.named for photograph in photographs) else _warn
            yield from self.photographs([photograph.name for photograph in photographs], unreadable=skip)
            photographs = []
            if one is not None:
                try:
                    video = one.open()
                    yield from self.video(video, every=every, start=start, end=end)
                    for remark in video.damage(video.missing):
                        warnings.warn(remark, stacklevel=2)
                except VideoError as error:
                    if one.named:
                        raise
                    _warn(one.name, error)

    def photographs(
        self,
        paths: Iterable[str | os.PathLike[str]],
        *,
        unreadable: Callable[[str, ImageError], None] | None = None,
    ) -> Generator[FramePrediction, None, None]:
        """Predict image files, in batches.

        Args:
            paths: the files.
            unreadable: called with the path and the error of a file that cannot be read, which is then
                skipped; None raises the error.

        Raises:
            ImageError: a file that is missing or not a whole image.
        """
        return self._photographs(((os.fspath(path), path) for path in paths), unreadable)

    def video(
        self,
        video: Video,
        *,
        every: int = 1,
        start: float = 0.0,
        end: float | None = None,
        after: int = 0,
        tracker: Tracker | None = None,
    ) -> Generator[FramePrediction, None, None]:
        """Predict the frames of a video, one after the other.

        Args:
            video: a file or a camera.
            every, start, end, after: see `Video.frames`.
            tracker: the tracker of the video up to the frame `after`; None for a new one.

        Raises:
            VideoError, ValueError: see `Video.frames`.
        """
        tracker = self.tracker() if tracker is None else tracker
        schedule = copy.copy(tracker.schedule)  # takes the same timestamps, some frames earlier

        def searched(
            frames: Generator[VideoFrame, None, None],
        ) -> Iterator[tuple[VideoFrame, Future[list[DetectedFace]] | None]]:
            """Yield the frames, each with its search if one is due or likely."""
            for frame in self._timed(frames):
                due = schedule.due(frame.timestamp) or not tracker.sees_faces
                yield frame, searchers.submit(self.detector, frame.image) if due else None

        frames = video.frames(every=every, start=start, end=end, after=after)
        with (
            ThreadPoolExecutor(processors(), initializer=lower_priority) as searchers,
            closing(prefetch(searched(frames), FRAMES_AHEAD)) as coming,
        ):
            for frame, search in coming:
                image = frame.image

                def network(
                    faces: list[TrackedFace], image: NDArray[np.uint8] = image
                ) -> list[FacePrediction]:
                    return self._predict([(image, face) for face in faces])

                def find(
                    image: NDArray[np.uint8] = image, search: Future[list[DetectedFace]] | None = search
                ) -> list[DetectedFace]:
                    found = self.detector(image) if search is None else search.result()
                    return self._with_landmarks([(image, face) for face in found])

                faces = tracker.track(image, frame.timestamp, network, find)
                faces = [
                    replace(
                        face,
                        merged=tracker.merged.get(face.face_id, 0.0),
                        unlike=face.face_id in tracker.unlike,
                    )
                    for face in self._with_poses(image, faces)
                ]
                yield FramePrediction(video.name, frame.number, frame.timestamp, image, faces)

    def tracker(self) -> Tracker:
        """A new tracker for a video."""
        gallery = None
        if self.embedding is not None:
            name = self._embedding_name or name_of(self.embedding)
            gallery = Gallery(self._embed, self.least_likeness, name)
        return Tracker(_LandmarkDetector(self), self.search_every, gallery)

    def _embed(self, faces: NDArray[np.uint8]) -> Any:
        assert self.embedding is not None
        with self.stages.busy("identity"):
            return self.embedding(faces)

    def _photographs(
        self,
        images: Iterable[tuple[str, NDArray[Any] | str | os.PathLike[str]]],
        unreadable: Callable[[str, ImageError], None] | None,
    ) -> Generator[FramePrediction, None, None]:
        Searched = tuple[str, NDArray[np.uint8], list[DetectedFace]]  # not yet searched in batches: no face

        def search(named: tuple[str, Any]) -> Searched | _Unreadable:
            name, image = named
            try:
                with self.stages.busy("reading"):
                    pixels = as_rgb(image) if isinstance(image, np.ndarray) else read_image(image)
                return name, pixels, [] if self._in_batches else self.detector(pixels)
            except ImageError as error:
                reason = error
            except (cv2.error, MemoryError) as error:
                if isinstance(image, np.ndarray):
                    raise
                reason = _unsearchable(name, error)
            if unreadable is None:
                raise reason
            return _Unreadable(name, reason)

        def pixels_of(named: tuple[str, Any]) -> int:
            _, image = named
            return 0 if isinstance(image, np.ndarray) else count_pixels(image)

        def searched_together(held: list[Searched]) -> Iterator[Searched]:
            try:
                lists = self.detector.batch([image for _, image, _ in held])
            except (cv2.error, MemoryError):  # one alone may be the cause
                for name, image, _ in held:
                    try:
                        yield name, image, self.detector(image)
                    except (cv2.error, MemoryError) as error:
                        if not name:
                            raise
                        if unreadable is None:
                            raise _unsearchable(name, error) from None
                        unreadable(name, _unsearchable(name, error))
            else:
                for (name, image, _), found in zip(held, lists, strict=True):
                    yield name, image, found

        def predicted(held: list[Searched]) -> Generator[FramePrediction, None, None]:
            if self._in_batches and held:
                held = list(searched_together(held))
            pairs = [(image, face) for _, image, found in held for face in found]
            numbers = [i for _, _, found in held for i in range(len(found))]
            placed = zip(pairs, numbers, self._with_landmarks(pairs), strict=True)
            faces = iter(self._predict([(image, TrackedFace.of(i, face)) for (image, _), i, face in placed]))
            for name, image, found in held:
                yield FramePrediction(
                    name, 1, 0.0, image, self._with_poses(image, [next(faces) for _ in found])
                )

        held: list[Searched] = []
        with (
            ThreadPoolExecutor(processors(), initializer=lower_priority) as searchers,
            closing(
                parallel_map(search, images, searchers, PHOTOGRAPHS_AHEAD, pixels_of, PIXELS_AHEAD)
            ) as photographs,
        ):
            for photograph in photographs:
                if isinstance(photograph, _Unreadable):
                    if unreadable is not None:
                        unreadable(photograph.name, photograph.error)
                    continue
                held.append(photograph)
                pixels = sum(image.shape[0] * image.shape[1] for _, image, _ in held)
                if len(held) == PHOTOGRAPHS_AHEAD or pixels >= PIXELS_AHEAD:
                    yield from predicted(held)
                    held = []
            yield from predicted(held)

    def _with_landmarks(self, faces: list[tuple[NDArray[np.uint8], DetectedFace]]) -> list[DetectedFace]:
        """Give the faces landmarks by which they can be aligned, unless the detector did."""
        without = [i for i, (_, face) in enumerate(faces) if face.landmarks is None]
        if without and not self.model.config.alignment:
            raise DetectorError(NO_LANDMARKS)
        found = [face for _, face in faces]
        for i, face in zip(
            without, alignment.settle([faces[i] for i in without], self._predict_landmarks), strict=True
        ):
            found[i] = face
        return found

    def _with_poses(self, image: NDArray[np.uint8], faces: list[FacePrediction]) -> list[FacePrediction]:
        height, width = image.shape[:2]
        with self.stages.busy("head pose"):
            return [
                replace(face, pose=head_pose(face.landmarks, width, height, self.focal_length))
                for face in faces
            ]

    @torch.inference_mode()
    def _predict_landmarks(
        self, faces: list[tuple[NDArray[np.uint8], NDArray[np.float32]]]
    ) -> list[NDArray[np.float32]]:
        """Predict the landmarks of faces, each aligned by the landmarks beside its image."""
        predicted: list[NDArray[np.float32]] = []
        for start in range(0, len(faces), BATCH_SIZE):
            aligned = self._align(faces[start : start + BATCH_SIZE])
            with self.stages.busy("network"), self._autocast():
                landmarks = self.model.find_landmarks(self._input(aligned.crops)).float().cpu().numpy()
            predicted += aligned.in_images(landmarks)
        return predicted

    def _predict(self, faces: list[tuple[NDArray[np.uint8], TrackedFace]]) -> list[FacePrediction]:
        """Predict faces of one image or several, in their order."""
        predictions: list[FacePrediction] = []
        for start in range(0, len(faces), BATCH_SIZE):
            predictions += self._predict_batch(faces[start : start + BATCH_SIZE])
        return predictions

    @torch.inference_mode()
    def _predict_batch(self, faces: list[tuple[NDArray[np.uint8], TrackedFace]]) -> list[FacePrediction]:
        aligned = self._align([(image, face.landmarks) for image, face in faces])
        with self.stages.busy("network"):
            with self._autocast():
                output = self.model(self._input(aligned.crops))
            probabilities = output.probabilities.float().cpu().numpy()
            landmarks = None if output.landmarks is None else output.landmarks.float().cpu().numpy()
            initial_maps, refined_maps, intensities = (
                [None] * len(faces) if tensor is None else tensor.float().cpu().numpy()
                for tensor in (output.initial_maps, output.refined_maps, output.intensities)
            )
        presence = [is_present(probability, self.thresholds) for probability in probabilities]
        predicted = (
            [face.landmarks for _, face in faces] if landmarks is None else aligned.in_images(landmarks)
        )
        return [
            FacePrediction(
                face_id=face.face_id,
                box=face.box,
                landmarks=points,
                detected_landmarks=face.landmarks,
                probabilities=probability,
                present=present,
                crop=crop,
                initial_maps=initial,
                refined_maps=refined,
                confidence=confidence(face.score),
                settled=face.settled,
                intensities=None if intensity is None else consistent_intensities(intensity, present),
            )
            for (_, face), crop, points, probability, present, initial, refined, intensity in zip(
                faces,
                aligned.crops,
                predicted,
                probabilities,
                presence,
                initial_maps,
                refined_maps,
                intensities,
                strict=True,
            )
        ]

    def _align(self, faces: list[tuple[NDArray[np.uint8], NDArray[np.float32]]]) -> _Aligned:
        """Align faces, each given by its image and the landmarks that align it."""
        side = self.model.config.image_size
        aligned_side = aligned_size(side)
        margin = (aligned_side - side) // 2
        within = slice(margin, margin + side)
        with self.stages.busy("aligning"):
            aligned = [align_face(image, landmarks, size=aligned_side) for image, landmarks in faces]
            crops = np.stack([picture[within, within] for picture, _, _ in aligned])
        return _Aligned(crops, [matrix for _, _, matrix in aligned], margin)

    def _input(self, crops: NDArray[np.uint8]) -> torch.Tensor:
        """Turn crops (N, l, l, 3) into the input of the network."""
        return normalize(torch.from_numpy(crops).permute(0, 3, 1, 2).to(self.device))

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, self.precision == "bfloat16")

    def _timed(self, frames: Generator[VideoFrame, None, None]) -> Iterator[VideoFrame]:
        with closing(frames):
            while True:
                with self.stages.busy("reading"):
                    frame = next(frames, None)
                if frame is None:
                    return
                yield frame


def in_words(error: Exception) -> str:
    """Say why a file cannot be read or searched, without its name."""
    if isinstance(error, cv2.error):
        # Not `error.err`, which is of the class: it tells of the last error of any thread.
        text = str(error).strip()
        found = re.search(r"error: \([^)]*\) (.+?)(?: in function .*)?$", text, re.DOTALL)
        return f"OpenCV: {found[1] if found else text}"
    if isinstance(error, MemoryError):
        return "the memory does not suffice"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _unsearchable(name: str, error: Exception) -> ImageError:
    return ImageError(f"{name}: cannot be searched for faces ({in_words(error)})")


def _warn(name: str, error: ImageError | VideoError) -> None:
    warnings.warn(f"{error}; passed over", stacklevel=3)


class _Aligned(NamedTuple):
    """Aligned faces, the input of the network."""

    crops: NDArray[np.uint8]
    """(N, l, l, 3) RGB."""
    matrices: list[NDArray[np.float64]]
    """(2, 3) of each, from pixels of its image to those of the aligned picture."""
    margin: int
    """Pixels of the aligned picture to the left of its crop and above."""

    def in_images(self, landmarks: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Map points (N, 49, 2) from pixels of the crops to pixels of the images."""
        return [
            transform(points + self.margin, cv2.invertAffineTransform(matrix).astype(np.float64)).astype(
                np.float32
            )
            for points, matrix in zip(landmarks, self.matrices, strict=True)
        ]


class _Unreadable(NamedTuple):
    name: str
    error: ImageError


class _TimedDetector:
    """A detector whose time is counted."""

    def __init__(self, detector: Detector, stages: Stages) -> None:
        self.detector, self.stages = detector, stages

    def __call__(self, image: NDArray[np.uint8]) -> list[DetectedFace]:
        with self.stages.busy("finding faces"):
            return self.detector(image)

    def batch(self, images: list[NDArray[np.uint8]]) -> list[list[DetectedFace]]:
        assert isinstance(self.detector, BatchSearch)
        with self.stages.busy("finding faces"):
            return self.detector.batch(images)

    def score(self, aligned: NDArray[np.uint8]) -> float:
        return self.locate(aligned)[0]

    def locate(self, aligned: NDArray[np.uint8]) -> tuple[float, Box | None]:
        with self.stages.busy("finding faces"):
            return locate(self.detector, aligned)


class _LandmarkDetector:
    """The detector of a predictor, with landmarks for every face."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor

    def __call__(self, image: NDArray[np.uint8]) -> list[DetectedFace]:
        return self.predictor._with_landmarks([(image, face) for face in self.predictor.detector(image)])

    def score(self, aligned: NDArray[np.uint8]) -> float:
        return self.locate(aligned)[0]

    def locate(self, aligned: NDArray[np.uint8]) -> tuple[float, Box | None]:
        return locate(self.predictor.detector, aligned)
