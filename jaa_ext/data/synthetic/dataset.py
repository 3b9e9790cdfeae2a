"""A data set of drawn faces, so that everything runs where no licensed data is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from jaa_ext import facs
from jaa_ext.data.faces import FaceSample
from jaa_ext.data.synthetic.drawing import AUS, Person, View, draw_face

RATES: dict[int, float] = {
    1: 0.21, 2: 0.17, 4: 0.20, 6: 0.46, 7: 0.55, 9: 0.06, 10: 0.59, 12: 0.56, 14: 0.47, 15: 0.17, 17: 0.34,
    23: 0.17, 24: 0.15, 25: 0.35, 26: 0.25,
}  # fmt: skip
"""How often each AU occurs: BP4D's rates, and plausible ones for AUs 9, 25 and 26."""

LOADINGS: dict[str, dict[int, float]] = {
    "smile": {6: 0.75, 7: 0.45, 10: 0.55, 12: 0.8, 14: 0.25, 15: -0.3, 25: 0.45},
    "surprise": {1: 0.65, 2: 0.75, 4: -0.2, 25: 0.4, 26: 0.6},
    "anger": {4: 0.55, 7: 0.35, 9: 0.55, 10: 0.25, 23: 0.5, 24: 0.5, 25: -0.25},
    "sadness": {1: 0.4, 4: 0.3, 15: 0.55, 17: 0.55, 24: 0.25},
}
"""Co-occurrence: an AU is present where noise of its own less loadings times latent expressions (of unit
variance together) stays below the normal quantile of its rate (a Gaussian copula, so the rates hold)."""


class SyntheticFaces:
    """A data set of drawn faces (`FaceDataset`): identity, pose, light and noise vary; every AU moves its
    landmarks and leaves its appearance cue.

    A sample depends on (seed, subject, its index within the subject) alone: not on the other subjects, nor on
    ``samples_per_subject``, ``aus`` or the process. A present AU has an intensity of 2.5..5; an absent one
    mostly 0, at times up to 0.75.

    Args:
        subjects: ids, each at least 0; disjoint ids are different people.
        samples_per_subject: how many faces of each; sample i is face ``i % samples_per_subject`` of
            subject number ``i // samples_per_subject``.
        seed: at least 0.
        size: side of the images in pixels, at least 48; ``round(l * 200 / 176)`` for crops of side l.
        aus: AU numbers of the labels, of the 15 in `drawing.AUS`, which are all drawn whatever is asked for.
        co_occurrence: factor of `LOADINGS`, at least 0: 0 draws AUs independently of each other; each AU
            keeps at least a twentieth of its variance to itself.

    Raises:
        ValueError: arguments out of range, repeated subjects, unknown AUs.
    """

    def __init__(
        self,
        *,
        subjects: range | Sequence[int],
        samples_per_subject: int,
        seed: int = 0,
        size: int = 200,
        aus: Sequence[int] = facs.BP4D_AUS,
        co_occurrence: float = 1.0,
    ) -> None:
        if not subjects or len(set(subjects)) != len(subjects) or min(subjects) < 0:
            raise ValueError(
                f"SyntheticFaces: subjects must be distinct ids of at least 0, got {list(subjects)[:50]}"
            )
        if samples_per_subject < 1 or seed < 0 or size < 48 or not co_occurrence >= 0:
            raise ValueError(
                "SyntheticFaces: wanted samples_per_subject >= 1, seed >= 0, size >= 48, co_occurrence >= 0, "
                f"got {samples_per_subject}, {seed}, {size} and {co_occurrence:g}"
            )
        self.aus: tuple[int, ...] = tuple(aus)
        if not self.aus or not set(self.aus) <= set(RATES):
            raise ValueError(f"SyntheticFaces: aus must be some of {sorted(RATES)}, got {list(aus)}")
        self.subjects: tuple[str, ...] = tuple(f"S{s:03d}" for s in subjects)
        self.samples_per_subject, self.seed, self.size = samples_per_subject, seed, size
        self.co_occurrence = co_occurrence
        self._ids = tuple(int(s) for s in subjects)
        self._columns = [AUS.index(au) for au in self.aus]
        self._people: dict[int, Person] = {}
        self._present: dict[int, NDArray[np.bool_]] = {}

    def __len__(self) -> int:
        return len(self._ids) * self.samples_per_subject

    def __getitem__(self, index: int) -> FaceSample:
        if not -len(self) <= index < len(self):
            raise IndexError(f"SyntheticFaces: index {index} is out of range for {len(self)} samples")
        number, within = divmod(index % len(self), self.samples_per_subject)
        subject = self._ids[number]
        view, intensity = self._view(subject, within)
        image, landmarks = draw_face(self._person(subject), intensity, view, self.size)
        labels = self._labels(subject)[within, self._columns].astype(np.int64)
        name = self.subjects[number]
        return FaceSample(image, landmarks, labels, name, f"{name}/{within:05d}", self._in_degrees(intensity))

    def label_matrix(self) -> NDArray[np.int64]:
        """(len, A) of 1 and 0, without drawing."""
        return np.concatenate([self._labels(s)[:, self._columns] for s in self._ids]).astype(np.int64)

    def intensity_matrix(self) -> NDArray[np.float32]:
        """(len, A) of 0..5, without drawing."""
        places = [(subject, within) for subject in self._ids for within in range(self.samples_per_subject)]
        return np.stack([self._in_degrees(self._view(*place)[1]) for place in places])

    def draw(
        self, subject: int, intensities: Mapping[int, float], rng: np.random.Generator | None = None
    ) -> FaceSample:
        """One face with chosen AUs: intensities 0..1 by AU number, the others 0; labels are 1 from 0.5 on.

        Without ``rng`` the pose is frontal, the light even and there is no noise; ``rng`` draws these alone.
        """
        unknown = [au for au in intensities if au not in RATES]
        if unknown:
            raise ValueError(f"SyntheticFaces.draw: AU {unknown[0]} is not one of {sorted(RATES)}")
        intensity = np.array([intensities.get(au, 0.0) for au in AUS])
        view = View() if rng is None else View.random(rng)
        image, landmarks = draw_face(self._person(subject), intensity, view, self.size)
        labels = (intensity[self._columns] >= 0.5).astype(np.int64)
        name = f"S{subject:03d}"
        return FaceSample(image, landmarks, labels, name, f"{name}/drawn", self._in_degrees(intensity))

    def _person(self, subject: int) -> Person:
        if subject not in self._people:
            self._people[subject] = Person.random(np.random.default_rng((self.seed, subject, 0)))
        return self._people[subject]

    def _view(self, subject: int, within: int) -> tuple[View, NDArray[np.float64]]:
        """What a subject's face is drawn by: the view, and (15,) how far each AU goes, 0..1."""
        present = self._labels(subject)[within]
        rng = np.random.default_rng((self.seed, subject, 2, within))
        view = View.random(rng)
        faint = rng.uniform(0, 0.15, len(AUS)) * (rng.random(len(AUS)) < 0.4)
        return view, np.where(present, rng.uniform(0.5, 1, len(AUS)), faint)

    def _in_degrees(self, intensity: NDArray[np.float64]) -> NDArray[np.float32]:
        """(A,) of 0..5 for (15,) of 0..1."""
        return (5 * intensity[self._columns]).astype(np.float32)

    def _labels(self, subject: int) -> NDArray[np.bool_]:
        """(samples_per_subject, 15): which AUs are present."""
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
