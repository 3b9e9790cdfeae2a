"""Faces from frame to frame: the network's landmarks align the next frame, a detector finds and confirms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from jaa_ext import facs
from jaa_ext.data.faces import align_face, alignment_matrix
from jaa_ext.predict.detector import MIN_SCORE, DetectedFace

SEARCH_EVERY = 30
"""Frames from one search of the whole frame to the next, while every face is seen."""
CONFIRMED_SIDE = 160
"""Side of the aligned picture in which a followed face is confirmed; it has about 100 pixels there, dlib's
window 80."""
CONFIRMED_SCORE = -0.2
"""A face that is followed may look less like one than a face that is found (`detector.MIN_SCORE`)."""
NEW_SCORE = MIN_SCORE
"""A face that is new must look like one in the aligned picture, too: a badge that was taken for a face in one
frame would be followed through many."""
SAME_FACE = 0.3
"""Overlap (intersection over union) from which a face found is one already known."""
REMEMBERED = 75
"""Frames for which a face out of sight keeps its id: found again where it was last seen, it is the same."""


class Detector(Protocol):
    """Finds faces, and says whether an aligned picture shows one; `FaceDetector` is one."""

    def __call__(self, image: NDArray[np.uint8], /) -> list[DetectedFace]: ...

    def score(self, aligned: NDArray[np.uint8], /) -> float: ...


@dataclass(frozen=True, eq=False)
class TrackedFace:
    """A face of a frame, before the network has seen it."""

    face_id: int
    box: tuple[float, float, float, float]
    """left, top, right, bottom."""
    landmarks: NDArray[np.float32]
    """(49, 2) pixels, by which the face is aligned."""
    score: float
    """The detector's, of the whole frame or of the aligned picture."""
    missed: int = 0
    """Frames since it was last seen."""
    shift: NDArray[np.float64] | None = None
    """(49, 2) from the network's landmarks to the detector's when the face was last found, in pixels of the
    aligned picture; None until the network has seen it."""


class Tracker:
    """The faces of one video, each with the same id as long as it is seen.

    For each frame call `place`; then, with the landmarks that the network gives, `follow`.

    Args:
        detector: searches frames and confirms faces.
        search_every: frames from one search of the whole frame to the next while every face is seen; without
            landmarks from the network it must be 1.
    """

    def __init__(self, detector: Detector, search_every: int = SEARCH_EVERY) -> None:
        self.detector, self.search_every = detector, search_every
        self.known: list[TrackedFace] = []
        """Seen in the last frame, or out of sight for at most `REMEMBERED` frames."""
        self.next_id = 0
        self.frames = 0
        """Frames so far."""

    @property
    def sees_faces(self) -> bool:
        """Whether the last frame had a face; if not, the next one is searched."""
        return any(face.missed == 0 for face in self.known)

    def place(
        self, image: NDArray[np.uint8], find: Callable[[], list[DetectedFace]] | None = None
    ) -> list[TrackedFace]:
        """Where the faces of the next frame are, by id.

        Args:
            image: (H, W, 3) uint8 RGB.
            find: gives the detector's faces of the whole frame, if it searches it already.
        """
        find = find or (lambda: self.detector(image))
        seen = [face for face in self.known if face.missed == 0]
        searched = self.frames % self.search_every == 0 or not seen
        self.frames += 1
        found = self._match(image, find()) if searched else []
        followed = self._confirm(image, _without(seen, found))
        if not searched and len(followed) < len(seen):
            found = self._match(image, find())
            followed = _without(followed, found)
        followed = _apart(followed, found)
        faces = sorted([*found, *followed], key=lambda face: face.face_id)
        lost = [replace(face, missed=face.missed + 1) for face in _without(self.known, faces)]
        self.known = [*faces, *(face for face in lost if face.missed <= REMEMBERED)]
        return faces

    def follow(self, landmarks: Sequence[NDArray[np.float32]]) -> None:
        """Take the network's landmarks (49, 2) of the faces that `place` gave, in their order.

        They align the next frame, shifted as they were to the detector's when it last found the face:
        otherwise what the network's landmarks are off by would add up from frame to frame.
        """
        for i, points in enumerate(landmarks):
            face = self.known[i]
            turn = alignment_matrix(face.landmarks, size=CONFIRMED_SIDE)[:, :2]
            shift = (face.landmarks - points) @ turn.T if face.shift is None else face.shift
            points = (points + shift @ np.linalg.inv(turn).T).astype(np.float32)
            if _eyes_apart(points):
                box = _moved(face.box, face.landmarks, points)
                self.known[i] = replace(face, box=box, landmarks=points, shift=shift)

    def state(self) -> dict[str, Any]:
        """For JSON, exact."""
        return {
            "next_id": self.next_id,
            "frames": self.frames,
            "known": [
                {name: x.tolist() if isinstance(x, np.ndarray) else x for name, x in vars(face).items()}
                for face in self.known
            ],
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up what `state` gave."""
        self.next_id, self.frames = state["next_id"], state["frames"]
        self.known = [
            TrackedFace(
                face_id=face["face_id"],
                box=tuple(face["box"]),
                landmarks=np.array(face["landmarks"], np.float32),
                score=face["score"],
                missed=face["missed"],
                shift=None if face["shift"] is None else np.array(face["shift"]),
            )
            for face in state["known"]
        ]

    def _match(self, image: NDArray[np.uint8], found: list[DetectedFace]) -> list[TrackedFace]:
        """Faces of a search, under the id of the known face that each overlaps most, or a new one."""
        overlaps = sorted(
            (-_overlap(face.box, known.box), i, j)
            for i, face in enumerate(found)
            for j, known in enumerate(self.known)
        )
        ids: dict[int, int] = {}
        for overlap, i, j in overlaps:
            if -overlap >= SAME_FACE and i not in ids and self.known[j].face_id not in ids.values():
                ids[i] = self.known[j].face_id
        for i, face in enumerate(found):
            if i not in ids and self._score(image, face.landmarks) >= NEW_SCORE:
                ids[i], self.next_id = self.next_id, self.next_id + 1
        return [
            TrackedFace(ids[i], face.box, face.landmarks, face.score)
            for i, face in enumerate(found)
            if i in ids
        ]

    def _confirm(self, image: NDArray[np.uint8], faces: list[TrackedFace]) -> list[TrackedFace]:
        """Those of the faces that can still be seen where their landmarks were in the frame before."""
        scored = [(face, self._score(image, face.landmarks)) for face in faces]
        return [replace(face, score=score) for face, score in scored if score >= CONFIRMED_SCORE]

    def _score(self, image: NDArray[np.uint8], landmarks: NDArray[np.float32]) -> float:
        aligned, _, _ = align_face(image, landmarks, size=CONFIRMED_SIDE)
        return self.detector.score(aligned)


def confidence(score: float) -> float:
    """A detector's score as 0..1: the logistic function of four times it, no calibrated probability."""
    return float(1 / (1 + np.exp(-4 * score)))


def _without(faces: list[TrackedFace], others: list[TrackedFace]) -> list[TrackedFace]:
    ids = {face.face_id for face in others}
    return [face for face in faces if face.face_id not in ids]


def _apart(followed: list[TrackedFace], found: list[TrackedFace]) -> list[TrackedFace]:
    """Those of the faces followed that lie on no face found, nor on one followed for longer.

    Landmarks of a face that went behind another come to lie on that one.
    """
    kept: list[TrackedFace] = []
    for face in followed:
        if all(_overlap(face.box, other.box) < SAME_FACE for other in (*found, *kept)):
            kept.append(face)
    return kept


def _eyes_apart(points: NDArray[np.float32]) -> bool:
    """Whether a face can be aligned by the landmarks."""
    left, right = (points[list(eye)].mean(0) for eye in (facs.LEFT_EYE, facs.RIGHT_EYE))
    return bool(np.isfinite(points).all() and np.hypot(*(right - left)) > 1)


def _moved(
    box: tuple[float, float, float, float], before: NDArray[np.float32], after: NDArray[np.float32]
) -> tuple[float, float, float, float]:
    """A box that goes with its landmarks, and grows and shrinks as they do."""
    growth = float(after.std(0).mean() / before.std(0).mean())
    corners = (np.array(box).reshape(2, 2) - before.mean(0)) * growth + after.mean(0)
    left, top, right, bottom = corners.ravel().tolist()
    return left, top, right, bottom


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Intersection over union of two boxes."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(0.0, width) * max(0.0, height)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return common / (areas - common) if areas > common else 0.0
