"""Identity of faces that come back: the user's embedding tells whether a new face was there before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from jaa_ext import facs
from jaa_ext.predict.by_name import attribute_of, is_attribute
from jaa_ext.predict.detector import MIN_SCORE

SIDE = 112
"""Side in pixels of the aligned faces that an embedding is given."""
FIVE_POINTS = np.array(
    [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)]
)
"""(5, 2) pixels: where middles of the eyes, tip of the nose and corners of the mouth lie in them, those on
the left of the picture first. InsightFace published these places for ArcFace; OpenCV has them for SFace."""
LEAST_LIKENESS = 0.4
"""Least cosine by which a face is known again. OpenCV names 0.363 for SFace, by which it tells pairs of faces
best; a gallery holds many faces, of which each could be taken for the new one."""
MARGIN = 0.2
"""What two likenesses must differ by not to be ambiguous, as a share of what is between `LEAST_LIKENESS` and
1."""
ASKED_EVERY = 2.0
"""Seconds from one embedding of a face that is seen to the next."""
MOST_ASKED = 10
"""Most embeddings in a person's mean; a person who had so many costs nothing until the return."""
MOST_PEOPLE = 100
"""People that are kept; those who were seen last."""


class Embedding(Protocol):
    """A function that maps pictures of one person to vectors of nearly one direction.

    `Predictor` takes one as `embedding`, and `jaa predict --identity` one by its name. An attribute
    `identity`, a text, tells an unfinished table apart from that of another embedding; without it, its name
    does; a lambda or a `functools.partial` must have one. It must give the same vectors for the same
    pictures.

    Example:
        >>> def embed(faces):
        ...     return faces.mean((1, 2)) - 128.0  # a colour: no way to tell people apart
        >>> embedding: Embedding = embed
        >>> embedding(np.zeros((2, 112, 112, 3), np.uint8)).shape
        (2, 3)
    """

    def __call__(self, faces: NDArray[np.uint8], /) -> Any:
        """Map aligned faces, (N, 112, 112, 3) uint8 RGB, to vectors (N, D), an array or a tensor."""


class EmbeddingError(RuntimeError):
    """A mistake of an embedding, which no other picture would mend.

    Example:
        >>> raise EmbeddingError("embedding faces:embed: wanted 2 rows, got 1")
        Traceback (most recent call last):
        jaa_ext.predict.identity.EmbeddingError: embedding faces:embed: wanted 2 rows, got 1
    """


def choose_embedding(name: str) -> Embedding:
    """Give the embedding of a name.

    Args:
        name: "FILE.onnx" for `OnnxEmbedding`; "MODULE:ATTRIBUTE" for a function of a module that is installed
            or lies in the working folder. A class is called without arguments to make one.

    Raises:
        ValueError: another name, no such module or attribute, one that cannot be called, or a file that is
            no such network.

    Example:
        >>> choose_embedding("face_recognition_sface_2021dec.onnx")  # doctest: +SKIP
    """
    if name.lower().endswith(".onnx"):
        from jaa_ext.predict.onnx_embedding import OnnxEmbedding

        return OnnxEmbedding(name)
    if not is_attribute(name):
        raise ValueError(f'identity must be FILE.onnx or MODULE:ATTRIBUTE, got "{name}"')
    embedding = attribute_of("identity", name)
    if isinstance(embedding, type):
        try:
            embedding = embedding()
        except TypeError as error:
            raise ValueError(f'identity "{name}": called without arguments: {error}') from error
        if not callable(embedding):
            kind = type(embedding).__name__
            raise ValueError(f'identity "{name}": a {kind} cannot be called with faces')
    return embedding  # type: ignore[no-any-return]


def align_five_points(image: NDArray[np.uint8], landmarks: NDArray[Any]) -> NDArray[np.uint8]:
    """Align a face as networks that recognise people want it.

    The similarity transform that brings five points nearest to `FIVE_POINTS`, by least squares; bilinear,
    black outside the image.

    Args:
        image: (H, W, 3) uint8 RGB.
        landmarks: (49, 2) pixels, whose eyes, tip of the nose and corners of the mouth are the five points.

    Returns:
        (112, 112, 3) uint8 RGB.

    Example:
        >>> from jaa_ext.data import SyntheticFaces
        >>> sample = SyntheticFaces(subjects=[0], samples_per_subject=1)[0]
        >>> align_five_points(sample.image, sample.landmarks).shape
        (112, 112, 3)
    """
    matrix = five_point_matrix(landmarks)
    return cv2.warpAffine(image, matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR).astype(np.uint8, copy=False)


def five_point_matrix(landmarks: NDArray[Any]) -> NDArray[np.float64]:
    """Compute the (2, 3) matrix of `align_five_points`, without an image."""
    points = np.asarray(landmarks, np.float64)
    eyes = (points[list(eye)].mean(0) for eye in (facs.LEFT_EYE, facs.RIGHT_EYE))
    # As complex numbers a similarity is a product and a sum, w = az + b.
    found, wanted = (five @ (1, 1j) for five in (np.stack([*eyes, *points[[13, 31, 37]]]), FIVE_POINTS))
    about = found - found.mean()
    a = np.vdot(about, wanted) / max(np.vdot(about, about).real, 1e-12)
    b = wanted.mean() - a * found.mean()
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


class Seen(Protocol):
    """The part of a tracked face that the gallery needs."""

    @property
    def face_id(self) -> int: ...
    @property
    def landmarks(self) -> NDArray[np.float32]: ...
    @property
    def score(self) -> float: ...
    @property
    def settled(self) -> bool: ...


@dataclass
class Person:
    """What the gallery keeps of one id."""

    total: NDArray[np.float64]
    """(D,) sum of embeddings, each of length 1; (0,) before the first one."""
    asked: int
    """Number of embeddings that were made, up to `MOST_ASKED`."""
    time: float
    """Seconds, when the last one was made."""
    met: set[int]
    """Other ids that were in one frame with this one."""
    unlike: bool = False
    """Whether the face was once unlike these embeddings while it was followed."""


class Gallery:
    """The people of one video by their embeddings; tells whether a new face is one of those who are gone.

    Args:
        embedding: see `Embedding`.
        least_likeness: least cosine between a new face and the mean of a person's embeddings.
        name: names the embedding in messages.

    Raises:
        EmbeddingError: from any method, if the embedding fails or gives no such vectors.
    """

    def __init__(
        self,
        embedding: Callable[[NDArray[np.uint8]], Any],
        least_likeness: float = LEAST_LIKENESS,
        name: str = "",
    ) -> None:
        self.embedding, self.least_likeness = embedding, least_likeness
        self.name = f"embedding {name}".strip()
        self.people: dict[int, Person] = {}
        """By id; who was seen last stands last."""
        self.merged: dict[int, float] = {}
        """Likeness of each id that was given again in this frame."""
        self.unlike: set[int] = set()
        """Ids whose faces no longer look like themselves, for the first time in this frame."""
        self._new: dict[int, NDArray[np.float64]] = {}
        """Embeddings of this frame's new faces, by the id that they were given."""

    def name_faces(
        self, image: NDArray[np.uint8], faces: Sequence[Seen], here: Collection[int], next_id: int
    ) -> list[int]:
        """Give new faces ids: of people who are gone and whom they are like, or new ones from `next_id` on.

        A face that is like two people is new, and so are two faces that are like one: ambiguous is what
        differs by less than a margin. Ids that are alike and never were in one frame count as one person.
        A face whose landmarks did not settle is new, since its picture shows anything.

        Args:
            image: (H, W, 3) uint8 RGB.
            faces: the new faces of this frame.
            here: ids of its other faces.
            next_id: the first id that nobody has had.
        """
        vectors = self._embed(image, [face for face in faces if face.settled])
        gone = [i for i, person in self.people.items() if i not in here and person.asked]
        known = zip(vectors, self._known_again(vectors, gone), strict=True)
        ids = []
        for face in faces:
            vector, (face_id, likeness) = next(known) if face.settled else (None, (None, 0.0))
            if face_id is None:
                face_id, next_id = next_id, next_id + 1
            else:
                self.merged[face_id] = likeness
            if vector is not None:
                self._new[face_id] = vector
            ids.append(face_id)
        assert len(set(ids)) == len(ids), ids
        return ids

    def see(self, image: NDArray[np.uint8], faces: Sequence[Seen], time: float) -> None:
        """Take up the faces of a frame under their ids, at a time in seconds that never runs back."""
        here = {face.face_id for face in faces}
        due = [face for face in faces if face.face_id not in self._new and self._is_due(face, time)]
        vectors = dict(zip((face.face_id for face in due), self._embed(image, due), strict=True))
        for face_id, vector in (self._new | vectors).items():
            if face_id in here:
                self._take_up(face_id, vector, time)
        for face_id in here:
            self.people.setdefault(face_id, _nobody())
        for face_id in sorted(here):
            person = self.people.pop(face_id)
            person.met = (person.met | here) & self.people.keys()
            self.people[face_id] = person  # behind all others
        for face_id in list(self.people)[:-MOST_PEOPLE]:
            del self.people[face_id]
        self.merged = {face_id: alike for face_id, alike in self.merged.items() if face_id in here}

    def begin_frame(self) -> None:
        """Forget what was told of the frame before."""
        self.merged, self.unlike, self._new = {}, set(), {}

    def state(self) -> list[Any]:
        """Give the state for JSON, exactly."""
        return [
            [face_id, {**vars(person), "total": person.total.tolist(), "met": sorted(person.met)}]
            for face_id, person in self.people.items()
        ]

    def load_state(self, state: list[Any]) -> None:
        """Take up what `state` gave."""
        self.people = {
            face_id: Person(**{**person, "total": np.array(person["total"]), "met": set(person["met"])})
            for face_id, person in state
        }

    def _is_due(self, face: Seen, time: float) -> bool:
        person = self.people.get(face.face_id)
        if person is None or not person.asked:
            return face.settled
        clear = face.settled and face.score >= MIN_SCORE
        return clear and person.asked < MOST_ASKED and time >= person.time + ASKED_EVERY

    def _take_up(self, face_id: int, vector: NDArray[np.float64], time: float) -> None:
        """Add an embedding to a person's mean, unless it is another's or the mean has enough of them."""
        person = self.people.setdefault(face_id, _nobody())
        person.time = time
        if person.asked == MOST_ASKED:
            return
        person.asked += 1
        if not person.total.size:
            person.total = vector
        elif vector @ person.total >= self.least_likeness * np.linalg.norm(person.total):
            person.total = person.total + vector
        elif not person.unlike:
            person.unlike = True
            self.unlike.add(face_id)

    def _known_again(self, vectors: NDArray[np.float64], gone: list[int]) -> list[tuple[int | None, float]]:
        """Give the id of each new face (N, D), None if it is new, and its likeness."""
        if not gone or not len(vectors):
            return [(None, 0.0)] * len(vectors)
        people = np.stack([self.people[face_id].total for face_id in gone])
        people /= np.maximum(np.linalg.norm(people, axis=1, keepdims=True), 1e-12)
        likeness, alike = vectors @ people.T, people @ people.T
        margin = MARGIN * (1 - self.least_likeness)
        known: list[tuple[int | None, float]] = []
        for row in likeness:
            best = int(row.argmax())
            near = [j for j in range(len(gone)) if row[j] >= row[best] - margin]
            two_people = any(
                gone[j] in self.people[gone[k]].met or alike[j, k] < self.least_likeness
                for j, k in combinations(near, 2)
            )
            two_faces = (likeness[:, best] >= row[best] - margin).sum() > 1
            if row[best] < self.least_likeness or two_people or two_faces:
                known.append((None, 0.0))
            else:
                known.append(min((gone[j], float(row[j])) for j in near if row[j] >= self.least_likeness))
        # Ids that count as one person may be the best of one face each.
        times = Counter(face_id for face_id, _ in known)
        return [one if times[one[0]] == 1 else (None, 0.0) for one in known]

    def _embed(self, image: NDArray[np.uint8], faces: Sequence[Seen]) -> NDArray[np.float64]:
        """Give embeddings (N, D), each of length 1."""
        if not faces:
            return np.zeros((0, 0))
        pictures = np.stack([align_five_points(image, face.landmarks) for face in faces])
        try:
            vectors = np.asarray(self.embedding(pictures), np.float64)
        except Exception as error:  # of a function of the user's own
            why = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise EmbeddingError(f"{self.name}: {why}") from error
        if vectors.ndim != 2 or len(vectors) != len(faces) or not vectors.size:
            raise EmbeddingError(
                f"{self.name}: wanted {len(faces)} rows, one for each face, got shape {vectors.shape}"
            )
        for person in self.people.values():
            if person.asked and person.total.shape != vectors.shape[1:]:
                raise EmbeddingError(
                    f"{self.name}: wanted vectors of {len(person.total)} numbers as before, got "
                    f"{vectors.shape[1]}"
                )
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not (np.isfinite(lengths) & (lengths > 0)).all():
            raise EmbeddingError(f"{self.name}: wanted finite vectors that are not all 0")
        units: NDArray[np.float64] = vectors / lengths
        return units


def _nobody() -> Person:
    """Give what is kept of an id without any embedding."""
    return Person(np.zeros(0), 0, 0.0, set())
