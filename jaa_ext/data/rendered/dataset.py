"""A data set of rendered faces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from jaa_ext.data.faces import FaceSample
from jaa_ext.data.generated import GeneratedFaces
from jaa_ext.data.rendered.expression import AUS, Expression, Manner, Sides
from jaa_ext.data.rendered.labels import LABELLED_AUS, Mix, draw_intensities, of_labels, present
from jaa_ext.data.rendered.person import Person, View
from jaa_ext.data.rendered.render import render_face
from jaa_ext.facs import AU


class RenderedFaces(GeneratedFaces):
    """A data set of rendered faces (`FaceDataset`).

    People vary, as do their AUs, how an AU looks on them, and the views of them. The intensity of an AU is
    that of the stronger side of the face; it is labelled present from 1.5 on. How AUs are drawn at random
    stands in `jaa_ext.data.rendered.labels`.

    A sample depends on (seed, subject, number of the subject's face) and `mix` alone: not on the other
    subjects, ``samples_per_subject``, ``aus`` or the process.

    Args:
        subjects: ids, each at least 0; disjoint ids are different people.
        samples_per_subject: how many faces of each; sample i is face ``i % samples_per_subject`` of subject
            number ``i // samples_per_subject``.
        seed: at least 0.
        size: side of the images in pixels, at least 48; ``round(l * 200 / 176)`` for crops of side l.
        aus: AU numbers of the labels, of the 17 in `jaa_ext.data.rendered.AUS`, or with a side, such as
            "12L"; all 17 are rendered, whichever are labelled.
        mix: "natural" for kinds of faces as photographs hold them (at rest, smiling, speaking, ...); "bp4d"
            for the rates and the co-occurrence of BP4D in all faces; "sides" for the kinds of "natural", but
            an AU that each side can do by itself is weaker on one of them in half of the faces, not in 6 %.

    Raises:
        ValueError: arguments out of range, repeated subjects, unknown AUs.
        RuntimeError: when a sample is read, jaa_ext has no compiled kernels, which render.

    Example:
        >>> faces = RenderedFaces(subjects=range(3), samples_per_subject=4, aus=(1, 12, 25))
        >>> sample = faces[0]
        >>> sample.image.shape, sample.labels.shape, sample.intensities.shape
        ((200, 200, 3), (3,), (3,))
    """

    KNOWN_AUS = LABELLED_AUS
    SUBJECT_NAME = "R{:04d}"

    def __init__(
        self,
        *,
        subjects: range | Sequence[int],
        samples_per_subject: int,
        seed: int = 0,
        size: int = 200,
        aus: Sequence[AU] = AUS,
        mix: Mix = "natural",
    ) -> None:
        super().__init__(
            subjects=subjects, samples_per_subject=samples_per_subject, seed=seed, size=size, aus=aus
        )
        if mix not in get_args(Mix):
            raise ValueError(f"RenderedFaces: mix must be one of {', '.join(get_args(Mix))}, got {mix!r}")
        self.mix: Mix = mix
        self._people: dict[int, tuple[Person, Manner]] = {}
        self._sides: dict[int, NDArray[np.float32]] = {}

    def label_matrix(self) -> NDArray[np.int64]:
        """(len, A) of 1 and 0, without rendering."""
        return present(self.intensity_matrix()).astype(np.int64)

    def intensity_matrix(self) -> NDArray[np.float32]:
        """(len, A) of 0..5, without rendering."""
        return np.concatenate([of_labels(self._intensities(s))[:, self._columns] for s in self._ids])

    def render(
        self,
        subject: int,
        intensities: Mapping[int, float | Sides],
        rng: np.random.Generator | None = None,
    ) -> FaceSample:
        """Render one face with chosen AUs.

        Args:
            subject: id of the person.
            intensities: 0..5 by AU number, or a pair for the person's right and left side; 0 for those left
                out.
            rng: varies the view and how the person does the AUs; None for a plain frontal portrait that does
                these AUs and nothing else.

        Raises:
            ValueError: an AU that is not rendered, or an intensity out of range.
        """
        person, manner = self._person(subject)
        if rng is None:
            view, expression = View(), Expression.of(intensities)
        else:
            view, expression = View.random(rng, person), Expression.random(rng, intensities, manner)
        sides = np.array([np.broadcast_to(intensities.get(au, 0.0), 2) for au in AUS], np.float32)
        return self._sample(subject, "rendered", expression, view, sides)

    def _make(self, subject: int, face: int) -> FaceSample:
        person, manner = self._person(subject)
        sides = self._intensities(subject)[face]
        rng = np.random.default_rng((self.seed, subject, 2, face))
        view = View.random(rng, person)
        by_au = {au: (float(right), float(left)) for au, (right, left) in zip(AUS, sides, strict=True)}
        expression = Expression.random(rng, by_au, manner)
        return self._sample(subject, f"{face:05d}", expression, view, sides)

    def _sample(
        self, subject: int, name: str, expression: Expression, view: View, sides: NDArray[np.float32]
    ) -> FaceSample:
        image, landmarks, pose = render_face(self._person(subject)[0], expression, view, self.size)
        levels = of_labels(sides)[self._columns]
        labels = present(levels).astype(np.int64)
        person = self.SUBJECT_NAME.format(subject)
        return FaceSample(image, landmarks, labels, person, f"{person}/{name}", levels, pose)

    def _person(self, subject: int) -> tuple[Person, Manner]:
        if subject not in self._people:
            self._people[subject] = (
                Person.random(np.random.default_rng((self.seed, subject, 0))),
                Manner.random(np.random.default_rng((self.seed, subject, 3))),
            )
        return self._people[subject]

    def _intensities(self, subject: int) -> NDArray[np.float32]:
        """Draw the intensities, (samples_per_subject, 17, 2), of both sides of a subject's faces."""
        if subject not in self._sides:
            rng = np.random.default_rng((self.seed, subject, 1))
            self._sides[subject] = draw_intensities(rng, self.samples_per_subject, self.mix)
        return self._sides[subject]
