"""Tracking of faces: the landmarks of a frame align the next one, a detector finds and confirms faces."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from jaa_ext.data.faces import align_face, alignment_matrix, transform
from jaa_ext.predict.alignment import MOVED, displacement, eye_distance
from jaa_ext.predict.cuts import is_blank, is_cut, thumbnail
from jaa_ext.predict.detector import MIN_SCORE, Box, DetectedFace
from jaa_ext.predict.identity import Gallery
from jaa_ext.predict.look import ALIKE, SAME_LOOK, likeness, look

SEARCH_EVERY = 1.0
"""Seconds from one search of the whole frame to the next, while every face is seen."""
REMEMBERED = 2.5
"""Seconds that a face out of sight keeps its id, if no cut comes between."""
CONFIRMED_SIDE = 160
"""Side of the aligned picture in which a followed face is confirmed: the face has about 100 pixels there, the
window of dlib's detector 80."""
CONFIRMED_SCORE = -0.2
"""Least detection score of a followed face; one that is found needs more (`detector.MIN_SCORE`)."""
NEW_SCORE = MIN_SCORE
"""Least detection score of a new face in its aligned picture: without it, a badge that passed for a face in
one frame would be followed through many."""
IN_PLACE = 0.5
"""Least overlap (intersection over union) of a followed face with the detector's box. dlib's boxes are
coarse: a tenth of their side in position, a fifth in size."""
MAX_SHIFT = 0.1
"""Largest shift of a followed face, as a share of the aligned picture's side; a third of the eye distance.
From further away the network may not find back to the face."""
SAME_FACE = 0.3
"""Least overlap of a found face with the known face that it can be."""
ALIGNMENTS = 3
"""Most alignments of a face in one frame before the whole frame is searched for it."""
USUAL_STEP = 0.04
"""Seconds from frame to frame where timestamps stand still or jump back."""


class Detector(Protocol):
    """Finds faces, and scores whether an aligned picture shows one; `FaceDetector` is an implementation.

    A `Predictor` gives faces without landmarks those of the network, see `jaa_ext.predict.alignment`. With a
    method `locate` like that of `FaceDetector`, a followed face is confirmed only where it is expected.
    """

    def __call__(self, image: NDArray[np.uint8], /) -> list[DetectedFace]: ...

    def score(self, aligned: NDArray[np.uint8], /) -> float: ...


def locate(detector: Detector, aligned: NDArray[np.uint8]) -> tuple[float, Box | None]:
    """Give score and box as `FaceDetector.locate` does; no box if the detector lacks this method."""
    if hasattr(detector, "locate"):
        located: tuple[float, Box | None] = detector.locate(aligned)
        return located
    return detector.score(aligned), None


class Landmarks(Protocol):
    """The part of a face's prediction that tracking needs."""

    @property
    def landmarks(self) -> NDArray[np.float32]:
        """(49, 2) pixels."""


Prediction = TypeVar("Prediction", bound=Landmarks)


@dataclass(frozen=True, eq=False)
class TrackedFace:
    """A face of a frame before its prediction."""

    face_id: int
    box: Box
    landmarks: NDArray[np.float32]
    """(49, 2) pixels, by which the face is aligned."""
    score: float
    """Detection score in the whole frame or in the aligned picture."""
    missed: float = 0.0
    """Seconds since it was last seen."""
    shift: NDArray[np.float64] | None = None
    """(49, 2) from the network's landmarks to those that aligned the face when it was last found, in pixels
    of the aligned picture; None before the first prediction."""
    look: NDArray[np.uint8] | None = None
    """Look of the face when it was last seen, see `jaa_ext.predict.look`; None in photographs."""
    settled: bool = True
    """`DetectedFace.settled` when it was last found."""

    @classmethod
    def of(cls, face_id: int, face: DetectedFace) -> TrackedFace:
        """Make one of a detected face with landmarks."""
        assert face.landmarks is not None
        return cls(face_id, face.box, face.landmarks, face.score, settled=face.settled)


@dataclass
class Schedule:
    """Decides by timestamps alone which frames are searched whatever they show."""

    every: float
    """Seconds from one search to the next; 0 searches each frame."""
    time: float = 0.0
    """Seconds up to the last frame; unlike timestamps, they never stand still or jump back."""
    step: float = 0.0
    """Seconds between the last two frames."""
    timestamp: float | None = None
    """Timestamp of the last frame."""
    searched: float | None = None
    """`time` of the last search that was due."""

    def due(self, timestamp: float) -> bool:
        """Take the next frame and tell whether it is due: the frame nearest to the time of a search is."""
        if self.timestamp is not None:
            self.step = timestamp - self.timestamp
            if not 0 < self.step < math.inf:
                self.step = USUAL_STEP
        self.timestamp = timestamp
        self.time += self.step
        due = self.searched is None or self.time + self.step / 2 >= self.searched + self.every
        if due:
            self.searched = self.time
        return due


class Tracker:
    """Follows the faces of one video, each under the same id as long as it is seen.

    Args:
        detector: searches frames and confirms faces.
        search_every: seconds from one search of the whole frame to the next while every face is seen; 0
            searches each frame, as is needed without landmarks from the network.
        gallery: knows faces again that come back later, or after a cut; None ends their ids.
    """

    def __init__(
        self, detector: Detector, search_every: float = SEARCH_EVERY, gallery: Gallery | None = None
    ) -> None:
        self.detector, self.gallery = detector, gallery
        self.schedule = Schedule(search_every)
        self.known: list[TrackedFace] = []
        """Faces of the last frame, or out of sight for at most `REMEMBERED` seconds."""
        self.next_id = 0
        self.scene: NDArray[np.uint8] | None = None
        """Thumbnail of the last frame that was not of one colour."""
        self.behind_cut = False
        """Whether the last frame is behind a cut."""

    @property
    def merged(self) -> dict[int, float]:
        """Likeness of each face of the last frame that came back and has its id from the gallery."""
        return {} if self.gallery is None else self.gallery.merged

    @property
    def unlike(self) -> set[int]:
        """Ids whose faces no longer look like themselves, for the first time in the last frame."""
        return set() if self.gallery is None else self.gallery.unlike

    @property
    def sees_faces(self) -> bool:
        """Whether the last frame had a face; if not, the next frame is searched."""
        return any(face.missed == 0 for face in self.known)

    def track(
        self,
        image: NDArray[np.uint8],
        timestamp: float,
        network: Callable[[list[TrackedFace]], Sequence[Prediction]],
        find: Callable[[], list[DetectedFace]] | None = None,
    ) -> list[Prediction]:
        """Predict the faces of the next frame, sorted by id.

        A face is aligned by its landmarks in the frame before. If it has moved from there by the network's
        landmarks, it is aligned and predicted again. The frame is searched if a face does not come to rest,
        if the detector does not confirm it, or if it looks like another one. A cut ends all ids.

        Args:
            image: (H, W, 3) uint8 RGB.
            timestamp: seconds.
            network: predicts faces of this frame, in their order.
            find: gives the detector's faces of the whole frame if its search was begun before.
        """
        due = self.schedule.due(timestamp)
        if self.gallery is not None:
            self.gallery.begin_frame()
        self.behind_cut = self._begins_scene(image)
        if self.behind_cut:
            self.known = []
        find = find or (lambda: self.detector(image))
        previous = [face for face in self.known if face.missed == 0]
        sure, unsure = self._confirm(image, previous)
        searched = due or not previous or len(sure) < len(previous)
        found, followed = (
            self._search(image, find, sure, unsure) if searched else ([], _without_overlaps(sure, []))
        )
        faces = {face.face_id: face for face in (*found, *followed)}
        following = dict(faces)  # as they will align the next frame
        predictions: dict[int, Prediction] = {}
        waiting, alignments = list(faces.values()), 0
        while waiting:
            waiting.sort(key=lambda face: face.face_id)
            alignments += 1
            moved = []
            for face, prediction in zip(waiting, network(waiting), strict=True):
                predictions[face.face_id] = prediction
                following[face.face_id], distance = _follow(face, prediction.landmarks)
                if distance > MOVED:
                    moved.append(following[face.face_id])
            waiting = self._confirm(image, moved)[0] if alignments < ALIGNMENTS else []
            lost = _without(moved, waiting)
            following |= {face.face_id: faces[face.face_id] for face in lost}
            if lost and not searched:
                searched = True
                sure = _without([*waiting, *_without(list(following.values()), waiting)], lost)
                unsure = [faces[face.face_id] for face in lost]
                found, followed = self._search(image, find, sure, unsure)
                waiting = [*found, *(face for face in waiting if face in followed)]
                faces = {face.face_id: faces[face.face_id] for face in followed}
            faces |= {face.face_id: face for face in waiting}
        now = [following[face_id] for face_id in sorted(faces)]
        gone = (replace(face, missed=face.missed + self.schedule.step) for face in _without(self.known, now))
        self.known = [*now, *(face for face in gone if face.missed <= REMEMBERED)]
        if self.gallery is not None:
            self.gallery.see(image, now, self.schedule.time)
        return [predictions[face.face_id] for face in now]

    def state(self) -> dict[str, Any]:
        """Give the state for JSON, exactly."""
        return {
            "next_id": self.next_id,
            "schedule": asdict(self.schedule),
            "known": [
                {name: x.tolist() if isinstance(x, np.ndarray) else x for name, x in vars(face).items()}
                for face in self.known
            ],
            "scene": None if self.scene is None else self.scene.tolist(),
            "gallery": None if self.gallery is None else self.gallery.state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up what `state` gave."""
        self.next_id, self.schedule = state["next_id"], Schedule(**state["schedule"])
        self.known = [
            TrackedFace(
                face_id=face["face_id"],
                box=tuple(face["box"]),
                landmarks=np.array(face["landmarks"], np.float32),
                score=face["score"],
                missed=face["missed"],
                shift=None if face["shift"] is None else np.array(face["shift"]),
                look=None if face["look"] is None else np.array(face["look"], np.uint8),
                settled=face["settled"],
            )
            for face in state["known"]
        ]
        self.scene = None if state["scene"] is None else np.array(state["scene"], np.uint8)
        if self.gallery is not None:
            self.gallery.load_state(state["gallery"])

    def _begins_scene(self, image: NDArray[np.uint8]) -> bool:
        """Tell whether the frame is behind a cut; one of one colour is compared with nothing."""
        before, now = self.scene, thumbnail(image)
        if is_blank(now):
            return False
        self.scene = now
        return before is not None and is_cut(before, now)

    def _search(
        self,
        image: NDArray[np.uint8],
        find: Callable[[], list[DetectedFace]],
        sure: list[TrackedFace],
        unsure: list[TrackedFace],
    ) -> tuple[list[TrackedFace], list[TrackedFace]]:
        """Search the frame; returns the faces found, and those followed that were not found.

        Args:
            image, find: see `track`.
            sure, unsure: faces followed; an unsure one may be at the place of another, or look like it.
        """
        found = self._match(image, find(), sure, unsure)
        unsure = [replace(face, look=look(self._aligned(image, face)[0])) for face in unsure]
        followed = _without_overlaps(_without([*sure, *unsure], found), found)
        return self._with_ids(image, found, followed), followed

    def _with_ids(
        self, image: NDArray[np.uint8], found: list[TrackedFace], followed: list[TrackedFace]
    ) -> list[TrackedFace]:
        """Give new faces, whose ids are negative, new ids, or those by which the gallery knows them."""
        new = [face for face in found if face.face_id < 0]
        ids = list(range(self.next_id, self.next_id + len(new)))
        if self.gallery is not None and new:
            here = {face.face_id for face in (*found, *followed)}
            ids = self.gallery.name_faces(image, new, here, self.next_id)
        self.next_id = max([self.next_id, *(face_id + 1 for face_id in ids)])
        named = {face.face_id: face_id for face, face_id in zip(new, ids, strict=True)}
        return [replace(face, face_id=named.get(face.face_id, face.face_id)) for face in found]

    def _match(
        self,
        image: NDArray[np.uint8],
        found: list[DetectedFace],
        sure: list[TrackedFace],
        unsure: list[TrackedFace],
    ) -> list[TrackedFace]:
        """Give found faces the ids of known ones, and new faces ids below 0, each its own.

        A known face is found again at its place if it looks the same, elsewhere only if it looks very much
        the same.
        """
        known = [*sure, *unsure, *_without(self.known, [*sure, *unsure])]
        faces = [TrackedFace.of(-1, face) for face in found]
        faces = [replace(face, look=look(self._aligned(image, face)[0])) for face in faces]
        pairs = []
        for i, face in enumerate(faces):
            for j, other in enumerate(known):
                alike, _ = _likeness(face, other)
                at_its_place = _overlap(face.box, other.box) >= SAME_FACE
                if alike >= ALIKE or (at_its_place and (j < len(sure) or alike >= SAME_LOOK)):
                    pairs.append((-alike - _nearness(face.box, other.box), i, j))
        ids: dict[int, int] = {}
        for _, i, j in sorted(pairs):
            if i not in ids and known[j].face_id not in ids.values():
                ids[i] = known[j].face_id
        for i, face in enumerate(faces):
            if i not in ids and locate(self.detector, self._aligned(image, face)[0])[0] >= NEW_SCORE:
                ids[i] = -1 - i
        # Landmarks that were followed until here are better than a mean face in the box.
        followed = {face.face_id: face for face in sure}
        return [
            replace(followed[ids[i]], score=faces[i].score)
            if ids[i] in followed and not faces[i].settled
            else replace(faces[i], face_id=ids[i])
            for i in sorted(ids)
        ]

    def _confirm(
        self, image: NDArray[np.uint8], faces: list[TrackedFace]
    ) -> tuple[list[TrackedFace], list[TrackedFace]]:
        """Split the faces that the detector confirms into surely the same ones and doubtful ones."""
        sure, unsure = [], []
        for face in faces:
            aligned, matrix = self._aligned(image, face)
            score, box = locate(self.detector, aligned)
            if score < CONFIRMED_SCORE:
                continue
            if box is not None and _overlap(box, _transform_box(face.box, matrix)) < IN_PLACE:
                continue
            now = replace(face, score=score, look=look(aligned))
            alike, shift = _likeness(face, now)
            if alike >= SAME_LOOK and shift <= MAX_SHIFT:
                sure.append(now)
            else:
                unsure.append(replace(face, score=score))
        return sure, unsure

    def _aligned(
        self, image: NDArray[np.uint8], face: TrackedFace
    ) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        aligned, _, matrix = align_face(image, face.landmarks, size=CONFIRMED_SIDE)
        return aligned, matrix


def _follow(face: TrackedFace, points: NDArray[np.float32]) -> tuple[TrackedFace, float]:
    """Give the face as the network's landmarks (49, 2) will align it, and its displacement in eye distances.

    The landmarks are corrected by `TrackedFace.shift`; otherwise their error would add up from frame to
    frame.
    """
    matrix = alignment_matrix(face.landmarks, size=CONFIRMED_SIDE)
    turn = matrix[:, :2]
    shift = (face.landmarks - points) @ turn.T if face.shift is None else face.shift
    points = (points + shift @ np.linalg.inv(turn).T).astype(np.float32)
    eyes = eye_distance(points)
    if not eyes > 1:
        return face, 0.0
    after = replace(face, box=_move_box(face.box, face.landmarks, points), landmarks=points, shift=shift)
    # Landmarks that hardly move cannot move the aligned picture by five times as much.
    if face.shift is None or np.abs(points - face.landmarks).max() < 0.2 * MOVED * eyes:
        return after, 0.0
    return after, displacement(face.landmarks, points)


def confidence(score: float) -> float:
    """Map a detection score to 0..1 by the logistic function of four times it; no calibrated probability.

    Example:
        >>> confidence(0.0)
        0.5
    """
    return float(1 / (1 + np.exp(-4 * score)))


def _without(faces: list[TrackedFace], others: list[TrackedFace]) -> list[TrackedFace]:
    ids = {face.face_id for face in others}
    return [face for face in faces if face.face_id not in ids]


def _without_overlaps(followed: list[TrackedFace], found: list[TrackedFace]) -> list[TrackedFace]:
    """Keep the followed faces that overlap neither a found face nor one followed for longer.

    The landmarks of a face that goes behind another one jump to that one.
    """
    kept: list[TrackedFace] = []
    for face in sorted(followed, key=lambda face: face.face_id):
        if all(_overlap(face.box, other.box) < SAME_FACE for other in (*found, *kept)):
            kept.append(face)
    return kept


def _likeness(a: TrackedFace, b: TrackedFace) -> tuple[float, float]:
    return (SAME_LOOK, 0.0) if a.look is None or b.look is None else likeness(a.look, b.look)


def _move_box(box: Box, before: NDArray[np.float32], after: NDArray[np.float32]) -> Box:
    """Move and scale a box as its landmarks moved."""
    growth = float(after.std(0).mean() / before.std(0).mean())
    corners = (np.array(box).reshape(2, 2) - before.mean(0)) * growth + after.mean(0)
    left, top, right, bottom = corners.ravel().tolist()
    return left, top, right, bottom


def _transform_box(box: Box, matrix: NDArray[np.float64]) -> Box:
    """Apply a similarity transform to position and size of a box, which stays upright."""
    corners = np.array(box).reshape(2, 2)
    x, y = transform(corners.mean(0), matrix).tolist()
    half_width, half_height = (np.hypot(*matrix[0, :2]) * (corners[1] - corners[0]) / 2).tolist()
    return x - half_width, y - half_height, x + half_width, y + half_height


def _nearness(a: Box, b: Box) -> float:
    """Give the generalized intersection over union of two boxes: from -1, far away, to 1."""
    around = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    overlap = _overlap(a, b)
    return overlap - (1 - areas / (1 + overlap) / around if around > 0 else 0.0)


def _overlap(a: Box, b: Box) -> float:
    """Give the intersection over union of two boxes."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(0.0, width) * max(0.0, height)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return common / (areas - common) if areas > common else 0.0
