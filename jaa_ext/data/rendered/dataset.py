"""A data set of rendered faces: AUs, their intensities, landmarks and head pose, free for any use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from jaa_ext.data.faces import FaceSample
from jaa_ext.data.rendered.expression import AUS, Expression, Manner, Sides
from jaa_ext.data.rendered.labels import Mix, draw_intensities, of_face, present
from jaa_ext.data.rendered.person import Person, View
from jaa_ext.data.rendered.render import render_face


class RenderedFaces:
    """A data set of rendered faces (`FaceDataset`): people, their AUs and manners, and views of them vary.

    A sample depends on (seed, subject, its index within the subject) and `mix` alone: not on the other
    subjects, nor on ``samples_per_subject``, ``aus`` or the process. `jaa_ext.data.rendered.labels` says how
    AUs are drawn: one is labelled present from intensity 1.5 on, and its intensity is that of the stronger
    side of the face.

    Args:
        subjects: ids, each at least 0; disjoint ids are different people.
        samples_per_subject: how many faces of each; sample i is face ``i % samples_per_subject`` of
            subject number ``i // samples_per_subject``.
        seed: at least 0.
        size: side of the images in pixels, at least 48; ``round(l * 200 / 176)`` for crops of side l.
        aus: AU numbers of the labels, of the 17 in `jaa_ext.data.rendered.AUS`, which are all rendered
            whatever is asked for.
        mix: "natural", kinds of faces as photographs hold them (at rest, smiling, speaking, ...), or "bp4d",
            all of them with the rates and the co-occurrence of BP4D.

    Raises:
        ValueError: arguments out of range, repeated subjects, unknown AUs.
        RuntimeError: when a sample is read, jaa_ext has no compiled kernels, which render.

    Example:
        >>> faces = RenderedFaces(subjects=range(3), samples_per_subject=4, aus=(1, 12, 25))
        >>> sample = faces[0]
        >>> sample.image.shape, sample.labels.shape, sample.intensities.shape
        ((200, 200, 3), (3,), (3,))
    """

    def __init__(
        self,
        *,
        subjects: range | Sequence[int],
        samples_per_subject: int,
        seed: int = 0,
        size: int = 200,
        aus: Sequence[int] = AUS,
        mix: Mix = "natural",
    ) -> None:
        if not subjects or len(set(subjects)) != len(subjects) or min(subjects) < 0:
            raise ValueError(
                f"RenderedFaces: subjects must be distinct ids of at least 0, got {list(subjects)[:50]}"
            )
        if samples_per_subject < 1 or seed < 0 or size < 48:
            raise ValueError(
                "RenderedFaces: wanted samples_per_subject >= 1, seed >= 0 and size >= 48, "
                f"got {samples_per_subject}, {seed} and {size}"
            )
        if mix not in get_args(Mix):
            raise ValueError(f"RenderedFaces: mix must be one of {', '.join(get_args(Mix))}, got {mix!r}")
        self.aus: tuple[int, ...] = tuple(aus)
        if not self.aus or not set(self.aus) <= set(AUS):
            raise ValueError(f"RenderedFaces: aus must be some of {list(AUS)}, got {list(aus)}")
        self.subjects: tuple[str, ...] = tuple(f"R{s:04d}" for s in subjects)
        self.samples_per_subject, self.seed, self.size = samples_per_subject, seed, size
        self.mix: Mix = mix
        self._ids = tuple(int(s) for s in subjects)
        self._columns = [AUS.index(au) for au in self.aus]
        self._people: dict[int, tuple[Person, Manner]] = {}
        self._sides: dict[int, NDArray[np.float32]] = {}

    def __len__(self) -> int:
        return len(self._ids) * self.samples_per_subject

    def __getitem__(self, index: int) -> FaceSample:
        if not -len(self) <= index < len(self):
            raise IndexError(f"RenderedFaces: index {index} is out of range for {len(self)} samples")
        number, within = divmod(index % len(self), self.samples_per_subject)
        subject = self._ids[number]
        person, manner = self._person(subject)
        sides = self._intensities(subject)[within]
        rng = np.random.default_rng((self.seed, subject, 2, within))
        view = View.random(rng, person)
        by_au = {au: (float(right), float(left)) for au, (right, left) in zip(AUS, sides, strict=True)}
        expression = Expression.random(rng, by_au, manner)
        return self._sample(person, expression, view, of_face(sides), f"R{subject:04d}", f"{within:05d}")

    def label_matrix(self) -> NDArray[np.int64]:
        """(len, A) of 1 and 0, without rendering."""
        return present(self.intensity_matrix()).astype(np.int64)

    def intensity_matrix(self) -> NDArray[np.float32]:
        """(len, A) of 0..5, without rendering."""
        return np.concatenate([of_face(self._intensities(s))[:, self._columns] for s in self._ids])

    def render(
        self,
        subject: int,
        intensities: Mapping[int, float | Sides],
        rng: np.random.Generator | None = None,
    ) -> FaceSample:
        """One face with chosen AUs: intensities 0..5 by AU number, or those of the right and the left side of
        the person; the others are 0.

        Without ``rng`` it is a plain frontal portrait that does these AUs and nothing else; ``rng`` draws the
        view, and how the person does them.

        Raises:
            ValueError: an AU that is not rendered, or an intensity out of range.
        """
        person, manner = self._person(subject)
        if rng is None:
            view, expression = View(), Expression.of(intensities)
        else:
            view, expression = View.random(rng, person), Expression.random(rng, intensities, manner)
        levels = np.array([np.max(intensities.get(au, 0.0)) for au in AUS], np.float32)
        return self._sample(person, expression, view, levels, f"R{subject:04d}", "rendered")

    def _sample(
        self,
        person: Person,
        expression: Expression,
        view: View,
        levels: NDArray[np.float32],
        subject: str,
        name: str,
    ) -> FaceSample:
        image, landmarks, pose = render_face(person, expression, view, self.size)
        levels = levels[self._columns]
        labels = present(levels).astype(np.int64)
        return FaceSample(image, landmarks, labels, subject, f"{subject}/{name}", levels, pose)

    def _person(self, subject: int) -> tuple[Person, Manner]:
        if subject not in self._people:
            self._people[subject] = (
                Person.random(np.random.default_rng((self.seed, subject, 0))),
                Manner.random(np.random.default_rng((self.seed, subject, 3))),
            )
        return self._people[subject]

    def _intensities(self, subject: int) -> NDArray[np.float32]:
        """(samples_per_subject, 17, 2)"""
        if subject not in self._sides:
            rng = np.random.default_rng((self.seed, subject, 1))
            self._sides[subject] = draw_intensities(rng, self.samples_per_subject, self.mix)
        return self._sides[subject]
