"""A data set of drawn faces, so that everything runs where no licensed data is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from jaa_ext import facs
from jaa_ext.data.faces import FaceSample
from jaa_ext.data.generated import GeneratedFaces
from jaa_ext.data.synthetic.drawing import AUS, Person, View, draw_face

RATES: dict[int, float] = {
    1: 0.21, 2: 0.17, 4: 0.20, 6: 0.46, 7: 0.55, 9: 0.06, 10: 0.59, 12: 0.56, 14: 0.47, 15: 0.17, 17: 0.34,
    23: 0.17, 24: 0.15, 25: 0.35, 26: 0.25,
}  # fmt: skip
"""How often each AU is present: as in BP4D, with plausible rates for AUs 9, 25 and 26."""

LOADINGS: dict[str, dict[int, float]] = {
    "smile": {6: 0.75, 7: 0.45, 10: 0.55, 12: 0.8, 14: 0.25, 15: -0.3, 25: 0.45},
    "surprise": {1: 0.65, 2: 0.75, 4: -0.2, 25: 0.4, 26: 0.6},
    "anger": {4: 0.55, 7: 0.35, 9: 0.55, 10: 0.25, 23: 0.5, 24: 0.5, 25: -0.25},
    "sadness": {1: 0.4, 4: 0.3, 15: 0.55, 17: 0.55, 24: 0.25},
}
"""How AUs co-occur, by a Gaussian copula, which keeps their rates: an AU is present where its own noise,
minus the sum of its loadings times the latent expressions, is below the normal quantile of its rate. The
difference has unit variance."""


class SyntheticFaces(GeneratedFaces):
    """A data set of drawn faces (`FaceDataset`).

    Identity, pose, light and noise vary; every AU moves its landmarks and leaves its wrinkles and shadows. A
    present AU has an intensity of 2.5..5, an absent one mostly 0, sometimes up to 0.75.

    A sample depends on (seed, subject, number of the subject's face) alone: not on the other subjects,
    ``samples_per_subject``, ``aus`` or the process.

    Args:
        subjects: ids, each at least 0; disjoint ids are different people.
        samples_per_subject: how many faces of each; sample i is face ``i % samples_per_subject`` of subject
            number ``i // samples_per_subject``.
        seed: at least 0.
        size: side of the images in pixels, at least 48; ``round(l * 200 / 176)`` for crops of side l.
        aus: AU numbers of the labels, of the 15 in `drawing.AUS`; all 15 are drawn, whichever are labelled.
        co_occurrence: factor of `LOADINGS`, at least 0: with 0 the AUs are independent of each other. At
            least a twentieth of each AU's variance stays its own.

    Raises:
        ValueError: arguments out of range, repeated subjects, unknown AUs.

    Example:
        >>> faces = SyntheticFaces(subjects=range(3), samples_per_subject=4, aus=(1, 12))
        >>> len(faces), faces[5].id, faces[5].image.shape, faces.label_matrix().shape
        (12, 'S001/00001', (200, 200, 3), (12, 2))
    """

    KNOWN_AUS = AUS
    SUBJECT_NAME = "S{:03d}"

    def __init__(
        self,
        *,
        subjects: range | Sequence[int],
        samples_per_subject: int,
        seed: int = 0,
        size: int = 200,
        aus: Sequence[facs.AU] = facs.BP4D_AUS,
        co_occurrence: float = 1.0,
    ) -> None:
        super().__init__(
            subjects=subjects, samples_per_subject=samples_per_subject, seed=seed, size=size, aus=aus
        )
        if not co_occurrence >= 0:
            raise ValueError(f"SyntheticFaces: co_occurrence must be at least 0, got {co_occurrence:g}")
        self.co_occurrence = co_occurrence
        self._people: dict[int, Person] = {}
        self._present: dict[int, NDArray[np.bool_]] = {}

    def label_matrix(self) -> NDArray[np.int64]:
        """(len, A) of 1 and 0, without drawing."""
        return np.concatenate([self._labels(s)[:, self._columns] for s in self._ids]).astype(np.int64)

    def intensity_matrix(self) -> NDArray[np.float32]:
        """(len, A) of 0..5, without drawing."""
        faces = [(subject, face) for subject in self._ids for face in range(self.samples_per_subject)]
        return np.stack([self._intensities(self._view_and_strengths(*face)[1]) for face in faces])

    def draw(
        self, subject: int, intensities: Mapping[int, float], rng: np.random.Generator | None = None
    ) -> FaceSample:
        """Draw one face with chosen AUs.

        Args:
            subject: id of the person.
            intensities: 0..1 by AU number, 0 for those left out; an AU is labelled present from 0.5 on.
            rng: varies pose, light and noise; None for a frontal pose, even light and no noise.
        """
        unknown = [au for au in intensities if au not in AUS]
        if unknown:
            raise ValueError(f"SyntheticFaces.draw: AU {unknown[0]} is not one of {sorted(AUS)}")
        strengths = np.array([intensities.get(au, 0.0) for au in AUS])
        view = View() if rng is None else View.random(rng)
        return self._sample(subject, "drawn", strengths, strengths >= 0.5, view)

    def _make(self, subject: int, face: int) -> FaceSample:
        view, strengths = self._view_and_strengths(subject, face)
        return self._sample(subject, f"{face:05d}", strengths, self._labels(subject)[face], view)

    def _sample(
        self, subject: int, name: str, strengths: NDArray[np.float64], present: NDArray[np.bool_], view: View
    ) -> FaceSample:
        image, landmarks = draw_face(self._person(subject), strengths, view, self.size)
        labels = present[self._columns].astype(np.int64)
        person = self.SUBJECT_NAME.format(subject)
        return FaceSample(image, landmarks, labels, person, f"{person}/{name}", self._intensities(strengths))

    def _person(self, subject: int) -> Person:
        if subject not in self._people:
            self._people[subject] = Person.random(np.random.default_rng((self.seed, subject, 0)))
        return self._people[subject]

    def _view_and_strengths(self, subject: int, face: int) -> tuple[View, NDArray[np.float64]]:
        """Draw the view of a face, and the strength of each AU, (15,) of 0..1."""
        present = self._labels(subject)[face]
        rng = np.random.default_rng((self.seed, subject, 2, face))
        view = View.random(rng)
        faint = rng.uniform(0, 0.15, len(AUS)) * (rng.random(len(AUS)) < 0.4)
        return view, np.where(present, rng.uniform(0.5, 1, len(AUS)), faint)

    def _intensities(self, strengths: NDArray[np.float64]) -> NDArray[np.float32]:
        """Convert strengths, (15,) of 0..1, to intensities, (A,) of 0..5."""
        return (5 * strengths[self._columns]).astype(np.float32)

    def _labels(self, subject: int) -> NDArray[np.bool_]:
        """Draw which AUs are present in a subject's faces, (samples_per_subject, 15)."""
        if subject not in self._present:
            normal = np.random.default_rng((self.seed, subject, 1)).standard_normal(
                (self.samples_per_subject, len(LOADINGS) + len(AUS))
            )
            loadings = np.array([[latent.get(au, 0.0) for au in AUS] for latent in LOADINGS.values()])
            loadings *= np.minimum(self.co_occurrence, np.sqrt(0.95 / (loadings**2).sum(0)))
            own = np.sqrt(1 - (loadings**2).sum(0))
            latent, noise = normal[:, : len(LOADINGS)], normal[:, len(LOADINGS) :]
            quantile = np.array([NormalDist().inv_cdf(RATES[au]) for au in AUS])
            # A positive latent expression makes its AUs likelier, so it enters with a minus sign.
            self._present[subject] = noise * own - latent @ loadings < quantile
        return self._present[subject]
